//! A subtask's configuration: one task on one source, every reference resolved and every default filled in.
//!
//! It comes out of a user's task file (`task.rs`) or out of etcd, where a master has stored it as TOML with the units'
//! settings flattened into the top level. etcd is read leniently: newer masters add keys.

use super::copy::CopyConfig;
use super::database::DatabaseConfig;
use super::kept::Kept;
use super::keys::{self, DUMP, LOAD, VALIDATOR};
use super::node::Node;
use super::rules::{BlockAllowRules, ExpressionFilter, FilterRule, RouteRule, check_regex};
use super::section::{ConfigError, Report, Section, root};
use super::settings::SyncerConfig;
use super::source::{SourceConfig, check_binlog_name, check_gtid_set};

const WHAT: &str = "subtask configuration";

/// A subtask in etcd has the units' settings at its top level.
const ETCD_TABLES: [keys::Keys; 5] = [keys::ETCD, keys::TASK, keys::SYNC, DUMP, LOAD];

/// What a master fills in by itself: names of its own, counters, what belongs to the worker or the source. It asks for
/// nothing.
const OF_THE_MASTER: [&str; 15] = [
    "uuid",
    "dump-uuid",
    "io-total-bytes",
    "dump-io-total-bytes",
    "flavor",
    "from",
    "server-id",
    "relay-dir",
    "use-relay",
    "log-file",
    "log-format",
    "log-level",
    "log-rotate",
    "pprof-addr",
    "status-addr",
];

/// What a task does, in DM's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaskMode {
    /// Copy what is there, then follow.
    #[default]
    All,
    /// Copy what is there.
    Full,
    /// Follow the binlog.
    Incremental,
    /// Write dump files.
    Dump,
    /// Load dump files.
    Load,
    /// Load dump files, then follow.
    LoadSync,
}

impl TaskMode {
    const WORDS: &[(&str, TaskMode)] = &[
        ("all", TaskMode::All),
        ("full", TaskMode::Full),
        ("incremental", TaskMode::Incremental),
        ("dump", TaskMode::Dump),
        ("load", TaskMode::Load),
        ("load&sync", TaskMode::LoadSync),
    ];

    /// DM's word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }

    /// Whether existing rows are copied.
    pub fn copies(self) -> bool {
        matches!(self, TaskMode::All | TaskMode::Full)
    }
}

/// How shards are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardMode {
    /// One DDL at a time, in step.
    Pessimistic,
    /// Each shard goes on as far as it can.
    Optimistic,
}

impl ShardMode {
    const WORDS: &[(&str, ShardMode)] =
        &[("pessimistic", ShardMode::Pessimistic), ("optimistic", ShardMode::Optimistic)];

    /// DM's word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }
}

/// Where an incremental task starts if it has no checkpoint. At least one of file and set is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartMeta {
    /// Binlog file; empty to start from the set.
    pub binlog_name: String,
    /// Offset in it; less than 4 means its first event.
    pub binlog_pos: u64,
    /// GTID set executed already; empty to start from the file.
    pub binlog_gtid: String,
}

/// One task on one source.
#[derive(Debug, Clone, PartialEq)]
pub struct SubtaskConfig {
    /// Task name.
    pub name: String,
    /// Its source.
    pub source_id: String,
    /// What it does.
    pub mode: TaskMode,
    /// Start without a checkpoint; `None` to start at the source's present end.
    pub meta: Option<StartMeta>,
    /// Schema of the checkpoint tables.
    pub meta_schema: String,
    /// The downstream. A `timezone` is in its session already.
    pub to: DatabaseConfig,
    /// Whether names in rules are compared with case.
    pub case_sensitive: bool,
    /// Which tables.
    pub block_allow_list: BlockAllowRules,
    /// Where they go.
    pub routes: Vec<RouteRule>,
    /// Event filters, as written.
    pub filter_rules: Vec<FilterRule>,
    /// Row filters, as written.
    pub expression_filters: Vec<ExpressionFilter>,
    /// How changes are applied.
    pub syncer: SyncerConfig,
    /// How existing rows are copied, in modes that do it.
    pub copy: CopyConfig,
    /// Dump settings as they were given.
    pub mydumper: Kept,
    /// Load settings as they were given.
    pub loader: Kept,
    /// Validator settings, only kept.
    pub validator: Kept,
    /// Whether tables of gh-ost and pt-osc are recognised.
    pub online_ddl: bool,
    /// Regular expressions of their shadow tables; one group, the real name.
    pub shadow_table_rules: Vec<String>,
    /// Regular expressions of their leftovers.
    pub trash_table_rules: Vec<String>,
    /// Set by the file; see [`SubtaskConfig::is_merging_shards`].
    pub is_sharding: bool,
    /// How shards are merged; `None` where the file does not say.
    pub shard_mode: Option<ShardMode>,
    /// `collation_compatible: strict`: DDL gets the upstream's default collation.
    pub strict_collation: bool,
    /// Values of the task without meaning here.
    pub(super) kept: Kept,
    /// The same of `experimental`.
    pub(super) experimental: Kept,
    /// Keys that a master of another version wrote, and that are not known here.
    pub(super) unknown: Vec<String>,
}

/// DM's default for shadow tables.
pub(super) const SHADOW_RULE: &str = "^_(.+)_(?:new|gho)$";
/// DM's default for leftovers.
pub(super) const TRASH_RULE: &str = "^_(.+)_(?:ghc|del|old)$";

impl SubtaskConfig {
    /// Reads what a master stored in etcd.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let tree = Node::from_toml(text);
        let report = Report::lenient();
        let section = root(&tree, &ETCD_TABLES, &report);
        let mut config = report.is_empty().then(|| Self::read_flat(&section));
        section.note_unknown();
        if let Some(config) = &mut config {
            config.unknown = report.unknown();
            config.unknown.retain(|key| !OF_THE_MASTER.contains(&key.as_str()));
        }
        report.conclude(WHAT, config)
    }

    /// Whether shards are merged: DM takes a shard mode alone for it, too.
    pub fn is_merging_shards(&self) -> bool {
        self.is_sharding || self.shard_mode.is_some()
    }

    /// Takes over what a subtask inherits from its source at each start: case sensitivity, and the source's filters, except where the task has one for the same pattern.
    pub fn inherit(&mut self, source: &SourceConfig) {
        self.case_sensitive |= source.case_sensitive;
        for filter in &source.filters {
            let case_sensitive = self.case_sensitive;
            if !self.filter_rules.iter().any(|rule| rule.is_for_the_same_as(filter, case_sensitive)) {
                self.filter_rules.push(filter.clone());
            }
        }
    }

    /// The keys that user's files and etcd share. Everything that belongs to one source is left at its default.
    pub(super) fn read_general(section: &Section<'_>, mode_key: &'static str, to_key: &'static str) -> Self {
        let name = section.required_text("name", "give the task a name").unwrap_or_default();
        // MySQL's limit for a table's name, and the longest one made from it.
        if name.chars().count() + "_syncer_checkpoint".len() > 64 {
            section.problem(
                "name",
                "is longer than 46 characters, so that its checkpoint table cannot be created; give a shorter name",
            );
        }
        if section.node(mode_key).is_none() {
            section.problem(mode_key, "is missing; give `incremental`, `all` or `full`");
        }
        let timezone = section.text("timezone").unwrap_or_default();
        let mut to = DatabaseConfig::read_required(section, to_key);
        if !timezone.is_empty() {
            to.session.entry("time_zone".into()).or_insert_with(|| timezone.clone());
        }
        let is_sharding = section.flag("is-sharding").unwrap_or(false);
        SubtaskConfig {
            name,
            source_id: String::new(),
            mode: section.choice(mode_key, TaskMode::WORDS).unwrap_or_default(),
            meta: None,
            meta_schema: section
                .text("meta-schema")
                .filter(|schema| !schema.is_empty())
                .unwrap_or_else(|| "dm_meta".into()),
            to,
            case_sensitive: section.flag("case-sensitive").unwrap_or(false),
            block_allow_list: BlockAllowRules::default(),
            routes: Vec::new(),
            filter_rules: Vec::new(),
            expression_filters: Vec::new(),
            syncer: SyncerConfig::default(),
            copy: CopyConfig::default(),
            mydumper: Kept::unit_defaults(DUMP),
            loader: Kept::unit_defaults(LOAD),
            validator: Kept::unit_defaults(VALIDATOR),
            online_ddl: read_online_ddl(section),
            shadow_table_rules: read_table_rules(section, "shadow-table-rules", SHADOW_RULE),
            trash_table_rules: read_table_rules(section, "trash-table-rules", TRASH_RULE),
            is_sharding,
            shard_mode: section.choice("shard-mode", ShardMode::WORDS),
            strict_collation: section
                .choice("collation_compatible", &[("loose", false), ("strict", true)])
                .unwrap_or(false),
            kept: Kept::read(section, keys::TASK),
            experimental: match section.section("experimental", &[keys::EXPERIMENTAL]) {
                None => Kept::defaults(keys::EXPERIMENTAL),
                Some(section) => {
                    let kept = Kept::read(&section, keys::EXPERIMENTAL);
                    section.finish();
                    kept
                }
            },
            unknown: Vec::new(),
        }
    }

    fn read_flat(section: &Section<'_>) -> Self {
        let mut config = Self::read_general(section, "mode", "to");
        config.source_id = section.required_text("source-id", "give the source").unwrap_or_default();
        config.meta = section.section("meta", &[keys::META]).and_then(StartMeta::read).filter(StartMeta::is_given);
        let routes = section.sections("route-rules", &[keys::ROUTE]).into_iter().enumerate();
        config.routes = routes.map(|(index, rule)| RouteRule::read(numbered("route", index), rule)).collect();
        let filters = section.sections("filter-rules", &[keys::FILTER]).into_iter().enumerate();
        config.filter_rules = filters.map(|(index, rule)| FilterRule::read(numbered("filter", index), rule)).collect();
        let filters = section.sections("expression-filter", &[keys::EXPRESSION]).into_iter().enumerate();
        config.expression_filters =
            filters.map(|(index, rule)| ExpressionFilter::read(numbered("expr-filter", index), rule)).collect();
        if !section.sections("mapping-rule", &[]).is_empty() {
            section.problem("mapping-rule", COLUMN_MAPPING);
        }
        let list = section.section("block-allow-list", &[keys::LIST]);
        let list = list.or_else(|| section.section("black-white-list", &[keys::LIST]));
        config.block_allow_list = list.map(BlockAllowRules::read).unwrap_or_default();
        config.mydumper = Kept::read_unit(section, DUMP);
        config.loader = Kept::read_unit(section, LOAD);
        config.copy = CopyConfig::of(&config.mydumper, &config.loader, section);
        config.syncer = SyncerConfig::read(section);
        if let Some(validator) = section.section("ValidatorCfg", &[VALIDATOR]) {
            config.validator = Kept::read_unit(&validator, VALIDATOR);
        }
        config
    }
}

/// Why a column mapping is refused.
pub(super) const COLUMN_MAPPING: &str =
    "column mapping does not exist any more; remove it, or use generated columns in the target";

/// DM's names for what has none.
pub(super) fn numbered(prefix: &str, index: usize) -> String {
    format!("{prefix}-{:02}", index + 1)
}

fn read_online_ddl(section: &Section<'_>) -> bool {
    let scheme = section.choice("online-ddl-scheme", &[("gh-ost", ()), ("pt", ())]);
    section.flag("online-ddl").unwrap_or(true) || scheme.is_some()
}

fn read_table_rules(section: &Section<'_>, key: &'static str, default: &str) -> Vec<String> {
    let rules = section.texts(key).unwrap_or_default();
    rules.iter().for_each(|rule| check_regex(section, key, rule, Some(1)));
    if rules.is_empty() { vec![default.to_owned()] } else { rules }
}

/// What a dm-master writes for the file's name where `start-task --start-time` was given and no `meta`.
const BY_START_TIME: &str = "start-task with --start-time";

impl StartMeta {
    pub(super) fn read(section: Section<'_>) -> Option<Self> {
        let meta = StartMeta {
            binlog_name: section.text("binlog-name").filter(|name| name != BY_START_TIME).unwrap_or_default(),
            binlog_pos: section.int("binlog-pos", 0..=u64::MAX).unwrap_or(4),
            binlog_gtid: section.text("binlog-gtid").unwrap_or_default(),
        };
        check_binlog_name(&section, "binlog-name", &meta.binlog_name);
        check_gtid_set(&section, "binlog-gtid", &meta.binlog_gtid, None);
        section.finish();
        Some(meta)
    }

    /// Whether it says a place at all.
    pub(super) fn is_given(&self) -> bool {
        !self.binlog_name.is_empty() || !self.binlog_gtid.is_empty()
    }
}
