//! What a task asks for and this version cannot do, and what it says that has no effect here.
//!
//! No option is swallowed: a refusal keeps the task from starting, a note is shown in its status.

use super::settings::{DUMP, LOAD, SyncerConfig, UnitSettings};
use super::subtask::{SHADOW_RULE, SubtaskConfig, TRASH_RULE, TaskMode};

impl SubtaskConfig {
    /// What must be refused, each with what to do. Empty for a task that can run.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        let mut refuse = |wanted: bool, text: String| {
            if wanted {
                refusals.push(text);
            }
        };
        refuse(
            self.mode != TaskMode::Incremental,
            format!("task-mode `{}` is not supported by this version; use `incremental`", self.mode.as_str()),
        );
        refuse(
            self.is_merging_shards(),
            "merging shards is not supported by this version; remove `is-sharding` and `shard-mode`".into(),
        );
        for filter in &self.filter_rules {
            refuse(
                true,
                format!(
                    "event filter `{}` is not supported by this version; remove it, or use `block-allow-list`",
                    filter.name
                ),
            );
        }
        for filter in &self.expression_filters {
            refuse(true, format!("expression filter `{}` is not supported by this version; remove it", filter.name));
        }
        for route in &self.routes {
            let extracts =
                route.extract_table.is_some() || route.extract_schema.is_some() || route.extract_source.is_some();
            let text =
                "`extract-table`, `extract-schema` and `extract-source` are not supported by this version; remove them";
            refuse(extracts, format!("route `{}`: {text}", route.name));
        }
        let validation = self.validator.text("mode").unwrap_or("none");
        refuse(
            validation != "none",
            format!("validator mode `{validation}` is not supported by this version; set it to `none`"),
        );
        let text = "collation_compatible `strict` is not supported by this version; set it to `loose`";
        refuse(self.strict_collation, text.into());
        refusals
    }

    /// What has no effect here, for the task's status.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.ignored.iter().map(|key| format!("`{key}` has no meaning here")).collect();
        let mut note = |wanted: bool, text: &str| {
            if wanted {
                notes.push(text.to_owned());
            }
        };
        let defaults = SyncerConfig::default();
        note(
            self.mydumper != UnitSettings::defaults(DUMP),
            "the `mydumpers` settings have no meaning for an incremental task",
        );
        note(
            self.loader != UnitSettings::defaults(LOAD),
            "the `loaders` settings have no meaning for an incremental task",
        );
        note(
            self.syncer.batch != defaults.batch,
            "`batch` has no meaning here: groups are sized by what the downstream takes in 100 ms",
        );
        note(
            self.syncer.queue_size != defaults.queue_size,
            "`queue-size` has no meaning here: queues are bounded in bytes and time",
        );
        note(
            self.async_checkpoint_flush,
            "`async-checkpoint-flush` has no meaning here: a checkpoint never holds applying up",
        );
        note(self.online_ddl && self.has_table_rules(), ONLINE_DDL);
        notes
    }

    /// Whether a ghost table could be treated otherwise than its real table.
    fn has_table_rules(&self) -> bool {
        let by_table = !self.block_allow_list.do_tables.is_empty()
            || !self.block_allow_list.ignore_tables.is_empty()
            || self.routes.iter().any(|route| !route.table_pattern.is_empty());
        by_table || self.shadow_table_rules != [SHADOW_RULE] || self.trash_table_rules != [TRASH_RULE]
    }
}

const ONLINE_DDL: &str = "`online-ddl`: this version treats the shadow tables of gh-ost and pt-osc as ordinary tables; \
                          rules for single tables do not extend to them";
