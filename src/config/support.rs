//! What a task asks for and this version cannot do, and what it says that has no effect here.
//!
//! No option is swallowed: a refusal keeps the task from starting, a note is shown in its status.

use super::kept::no_meaning;
use super::keys::{self, Keys};
use super::subtask::{SHADOW_RULE, ShardMode, SubtaskConfig, TRASH_RULE, TaskMode};

/// What is asked for, and the line of its key, which says what to do instead.
fn refusal(what: String, table: Keys, key: &str) -> String {
    format!("{what} is not supported by this version; {}", keys::remedy(table, key))
}

impl SubtaskConfig {
    /// What must be refused, each with what to do. Empty for a task that can run.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        let mut refuse = |what: String, table, key| refusals.push(refusal(what, table, key));
        if self.mode != TaskMode::Incremental {
            refuse(format!("task-mode `{}`", self.mode.as_str()), keys::TASK, "task-mode");
        }
        if self.is_merging_shards() {
            let mode = self
                .shard_mode
                .map_or("`is-sharding`".to_owned(), |mode: ShardMode| format!("shard-mode `{}`", mode.as_str()));
            refuse(format!("merging shards ({mode})"), keys::TASK, "shard-mode");
        }
        for filter in &self.filter_rules {
            refuse(format!("event filter `{}`", filter.name), keys::INSTANCE, "filter-rules");
        }
        for filter in &self.expression_filters {
            refuse(format!("expression filter `{}`", filter.name), keys::TASK, "expression-filter");
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
        if self.strict_collation {
            refuse("collation_compatible `strict`".to_owned(), keys::TASK, "collation_compatible");
        }
        refusals
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
        if self.kept.text("timezone").is_none_or(str::is_empty) {
            notes.extend(self.to.session_notes("target-database"));
        }
        notes.extend(self.syncer.kept.notes(" of `syncers`"));
        notes.extend(self.mydumper.notes(" of `mydumpers`"));
        notes.extend(self.loader.notes(" of `loaders`"));
        notes.extend(self.validator.notes(" of `validators`"));
        if self.online_ddl && self.has_table_rules() {
            notes.push(ONLINE_DDL.to_owned());
        }
        notes
    }

    /// Takes over what has no meaning here: another version of a master may write other keys than before.
    pub fn note_same_as(&mut self, other: &SubtaskConfig) {
        self.unknown.clone_from(&other.unknown);
    }

    /// Whether a ghost table could be treated otherwise than its real table.
    fn has_table_rules(&self) -> bool {
        let by_table = !self.block_allow_list.do_tables.is_empty()
            || !self.block_allow_list.ignore_tables.is_empty()
            || self.routes.iter().any(|route| !route.table_pattern.is_empty());
        by_table || self.shadow_table_rules != [SHADOW_RULE] || self.trash_table_rules != [TRASH_RULE]
    }
}

const ONLINE_DDL: &str = "`online-ddl` has no meaning here: the tables of gh-ost and pt-osc are ordinary tables, and rules for \
                          single tables do not extend to their shadow tables";
