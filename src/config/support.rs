//! What a task asks for and this version cannot do, and what it says that has no effect here.
//!
//! No option is swallowed: a refusal keeps the task from starting, a note is shown in its status.

use super::kept::no_meaning;
use super::keys::{self, Keys};
use super::subtask::{ShardMode, SubtaskConfig, TaskMode};

/// What is asked for, and the line of its key, which says what to do instead.
fn refusal(what: String, table: Keys, key: &str) -> String {
    format!("{what} is not supported by this version; {}", keys::remedy(table, key))
}

impl SubtaskConfig {
    /// What must be refused, each with what to do. Empty for a task that can run.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        if !matches!(self.mode, TaskMode::Incremental | TaskMode::All | TaskMode::Full) {
            let what = format!("task-mode `{}` is not supported: there are no dump files here", self.mode.as_str());
            refusals.push(format!("{what}; use `all` or `full`"));
        }
        if self.mode.copies() && self.checks_foreign_keys() {
            let what = "`foreign_key_checks` on in the session of `target-database` while existing rows are copied";
            refusals
                .push(format!("{what} is not supported; take it out, it can be put there when the copy is replayed"));
        }
        let mut refuse = |what: String, table, key| refusals.push(refusal(what, table, key));
        if self.mode.copies() && !self.copy.refused.is_empty() {
            let flags: Vec<String> = self.copy.refused.iter().map(|flag| format!("`{flag}`")).collect();
            refuse(format!("`extra-args` of `mydumpers` with {}", flags.join(", ")), keys::DUMP, "extra-args");
        }
        if self.is_merging_shards() {
            let mode = self
                .shard_mode
                .map_or("`is-sharding`".to_owned(), |mode: ShardMode| format!("shard-mode `{}`", mode.as_str()));
            refuse(format!("merging shards ({mode})"), keys::TASK, "shard-mode");
        }
        for route in &self.routes {
            let extracts = [
                ("extract-table", &route.extract_table),
                ("extract-schema", &route.extract_schema),
                ("extract-source", &route.extract_source),
            ];
            let given: Vec<_> =
                extracts.iter().filter(|(_, extract)| extract.is_some()).map(|(key, _)| format!("`{key}`")).collect();
            if !given.is_empty() {
                refuse(format!("route `{}`: {}", route.name, given.join(", ")), keys::ROUTE, "extract-table");
            }
        }
        let validation = self.validator.text("mode").unwrap_or("none");
        if validation != "none" {
            refuse(format!("validator mode `{validation}`"), keys::VALIDATOR, "mode");
        }
        refusals
    }

    /// `timezone`, where it is set: times that an operator gives are in it.
    pub fn timezone(&self) -> Option<&str> {
        self.kept.text("timezone").filter(|zone| !zone.is_empty())
    }

    /// What has no effect here, a line each, for the task's status.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.kept.notes("");
        notes.extend(self.experimental.notes(" of `experimental`"));
        if !self.unknown.is_empty() {
            let names: Vec<String> = self.unknown.iter().map(|key| format!("`{key}`")).collect();
            notes.push(no_meaning(&names, "", "this version does not know it"));
        }
        notes.extend(self.to.notes("target-database"));
        // `timezone` has put itself into the session, and has a note of its own.
        if self.timezone().is_none() {
            notes.extend(self.to.session_notes("target-database"));
        }
        notes.extend(self.syncer.kept.notes(" of `syncers`"));
        notes.extend(self.copy_notes());
        notes.extend(self.validator.notes(" of `validators`"));
        notes
    }

    /// The same of a task that a dm-master started: what its checks are to leave out has been heeded there.
    pub fn notes_under_master(&self) -> Vec<String> {
        let mut checked = self.clone();
        checked.kept.reset("ignore-checking-items");
        checked.notes()
    }

    /// Whether the task's sessions let foreign keys act.
    fn checks_foreign_keys(&self) -> bool {
        let on = |value: &str| value == "1" || value.eq_ignore_ascii_case("on") || value.eq_ignore_ascii_case("true");
        self.to.session.iter().any(|(name, value)| name.eq_ignore_ascii_case("foreign_key_checks") && on(value))
    }

    /// Of the settings of dump and load.
    fn copy_notes(&self) -> Vec<String> {
        let units = [(&self.mydumper, " of `mydumpers`"), (&self.loader, " of `loaders`")];
        let mut notes = Vec::new();
        if !self.mode.copies() {
            let own = units.iter().map(|(kept, of)| (kept.own(), of)).filter(|(own, _)| !own.is_empty());
            let why = "task-mode `incremental` copies no existing rows";
            notes.extend(own.map(|(own, of)| no_meaning(&own, of, why)));
            return notes;
        }
        notes.extend(units.iter().flat_map(|(kept, of)| kept.notes(of)));
        if !self.copy.noted.is_empty() {
            let flags: Vec<String> = self.copy.noted.iter().map(|flag| format!("`{flag}`")).collect();
            let why = "it changes nothing about which rows are copied, and here not how";
            notes.push(no_meaning(&flags, " in `extra-args` of `mydumpers`", why));
        }
        if self.meta.is_some() {
            let why = "a copy finds out by itself where the binlog begins to count";
            notes.push(no_meaning(&["`meta`".to_owned()], " of `mysql-instances`", why));
        }
        notes
    }

    /// Takes over what has no meaning here: another version of a master may write other keys than before.
    pub fn note_same_as(&mut self, other: &SubtaskConfig) {
        self.unknown.clone_from(&other.unknown);
    }
}
