//! DM's source configuration: one upstream, as `operate-source create` brings it (YAML) or as etcd holds it (TOML).
//!
//! Both forms become one checked [`SourceConfig`], and it is printed in DM's YAML form. Users' files are read strictly,
//! what a master wrote is read leniently: a master of another version may know more keys.

use std::time::Duration;

use crate::model::{BinlogFile, Flavor, GtidSet};

use super::database::{DatabaseConfig, Secrets, table};
use super::kept::Kept;
use super::keys;
use super::node::{Node, SyntaxError};
use super::rules::FilterRule;
use super::section::{ConfigError, Report, Section, root};
use super::units::format_duration;
use super::yaml;

const WHAT: &str = "source configuration";

/// An upstream server and how it is followed.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Its name in every command, 32 characters at most.
    pub source_id: String,
    /// MySQL or MariaDB; `None` to find out by asking the server.
    pub flavor: Option<Flavor>,
    /// Whether to ask for the binlog by GTID.
    pub enable_gtid: bool,
    /// Whether to receive from the moment the source is known, task or no task.
    pub enable_relay: bool,
    /// Where receiving starts without a task; `None` for what tasks need.
    pub relay_start: Option<RelayStart>,
    /// Our replica's server id; `None` to choose one.
    pub server_id: Option<u32>,
    /// Whether names in rules are compared with case.
    pub case_sensitive: bool,
    /// How to connect.
    pub from: DatabaseConfig,
    /// When relay log is removed.
    pub purge: PurgeConfig,
    /// When tasks that failed are resumed.
    pub checker: CheckerConfig,
    /// Event filters for all tasks of this source.
    pub filters: Vec<FilterRule>,
    /// Values without meaning here.
    kept: Kept,
}

/// Where the relay log begins: a file, a GTID set, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStart {
    /// A binlog file, from its first event; empty for none.
    pub binlog_name: String,
    /// What has been executed already; empty for none.
    pub binlog_gtid: String,
}

/// When relay log that no task needs any more is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeConfig {
    /// How often to look.
    pub interval: Duration,
    /// How long to keep it; zero for no limit by age.
    pub expires: Duration,
    /// Free bytes on the disk below which it is removed; zero for no limit by space.
    pub remain_space: u64,
}

/// When tasks that failed are resumed without anyone's doing.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckerConfig {
    /// Whether at all.
    pub enabled: bool,
    /// Wait before the first try.
    pub backoff_min: Duration,
    /// How many times as long each next wait is; 1 at least.
    pub backoff_factor: f64,
    /// Whether each wait is shortened by a random part.
    pub backoff_jitter: bool,
    /// Longest wait between two tries.
    pub backoff_max: Duration,
    /// After this long without a failure the wait becomes shorter again.
    pub backoff_rollback: Duration,
    /// Values without meaning here.
    kept: Kept,
}

const GIB: u64 = 1 << 30;
const HOUR: u64 = 3600;
const CHECKER_FIRST: Duration = Duration::from_secs(1);
const CHECKER_FACTOR: f64 = 2.0;
const CHECKER_SPAN: Duration = Duration::from_secs(300);

impl Default for PurgeConfig {
    fn default() -> Self {
        PurgeConfig { interval: Duration::from_secs(HOUR), expires: Duration::ZERO, remain_space: 15 * GIB }
    }
}

impl Default for CheckerConfig {
    fn default() -> Self {
        CheckerConfig {
            enabled: true,
            backoff_min: CHECKER_FIRST,
            backoff_factor: CHECKER_FACTOR,
            backoff_jitter: true,
            backoff_max: CHECKER_SPAN,
            backoff_rollback: CHECKER_SPAN,
            kept: Kept::defaults(keys::CHECKER),
        }
    }
}

impl SourceConfig {
    /// Reads a user's file.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Self::read_tree(Node::from_yaml(text), Report::strict())
    }

    /// Reads what a master stored in etcd.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::read_tree(Node::from_toml(text), Report::lenient())
    }

    /// DM's YAML form with masked passwords: `get-config source`, `operate-source show`.
    pub fn to_dm_yaml(&self) -> String {
        yaml::write(&self.to_node(Secrets::Masked))
    }

    /// The same with passwords, for our own store: [`SourceConfig::from_yaml`] reads it back.
    pub fn to_stored_yaml(&self) -> String {
        yaml::write(&self.to_node(Secrets::Plain))
    }

    /// What this file says that has no effect here, a line each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.kept.notes("");
        notes.extend(self.from.notes("from"));
        notes.extend(self.checker.kept.notes(" of `checker`"));
        notes
    }

    fn read_tree(tree: Result<Node, SyntaxError>, report: Report) -> Result<Self, ConfigError> {
        let config = Self::read(root(&tree, &[keys::SOURCE], &report), &report);
        report.conclude(WHAT, config)
    }

    /// Defaults stand in for what is missing or wrong: it has been reported, and a reported problem discards the value.
    fn read(section: Section<'_>, report: &Report) -> Option<Self> {
        if !report.is_empty() {
            // Not a table of keys at all: a list of everything that is missing would only hide that.
            return None;
        }
        let source_id = section.required_text("source-id", "give the source a name").unwrap_or_default();
        if source_id.chars().count() > 32 {
            section.problem("source-id", "is longer than 32 characters; give a shorter name");
        }
        let flavor = section.choice("flavor", &[("mysql", Flavor::MySql), ("mariadb", Flavor::MariaDb)]);
        let config = SourceConfig {
            source_id,
            flavor,
            enable_gtid: section.flag("enable-gtid").unwrap_or(false),
            enable_relay: section.flag("enable-relay").unwrap_or(false),
            relay_start: read_relay_start(&section, flavor),
            server_id: section.int("server-id", 0..=u32::MAX).filter(|id| *id != 0),
            case_sensitive: section.flag("case-sensitive").unwrap_or(false),
            from: DatabaseConfig::read_required(&section, "from"),
            purge: section.section("purge", &[keys::PURGE]).map(PurgeConfig::read).unwrap_or_default(),
            checker: section.section("checker", &[keys::CHECKER]).map(CheckerConfig::read).unwrap_or_default(),
            filters: section
                .sections("filters", &[keys::FILTER])
                .into_iter()
                .map(|rule| FilterRule::read(String::new(), rule))
                .collect(),
            kept: Kept::read(&section, keys::SOURCE),
        };
        section.finish();
        Some(config)
    }

    /// DM prints a table, however empty.
    fn tracer(&self) -> Node {
        match self.kept.node("tracer") {
            Node::Null => Node::Table(Vec::new()),
            given => given,
        }
    }

    fn to_node(&self, secrets: Secrets) -> Node {
        let start = self.relay_start.as_ref();
        table([
            ("enable", self.kept.node("enable")),
            ("enable-gtid", Node::Bool(self.enable_gtid)),
            ("auto-fix-gtid", self.kept.node("auto-fix-gtid")),
            ("relay-dir", self.kept.node("relay-dir")),
            ("meta-dir", self.kept.node("meta-dir")),
            ("flavor", Node::text(self.flavor.map_or("", Flavor::as_str))),
            ("charset", self.kept.node("charset")),
            ("enable-relay", Node::Bool(self.enable_relay)),
            ("relay-binlog-name", Node::text(start.map_or("", |start| &start.binlog_name))),
            ("relay-binlog-gtid", Node::text(start.map_or("", |start| &start.binlog_gtid))),
            ("source-id", Node::text(&self.source_id)),
            ("from", self.from.to_node(secrets)),
            ("purge", self.purge.to_node()),
            ("checker", self.checker.to_node()),
            ("server-id", Node::Int(self.server_id.unwrap_or(0).into())),
            ("tracer", self.tracer()),
            ("case-sensitive", Node::Bool(self.case_sensitive)),
            ("filters", Node::List(self.filters.iter().map(FilterRule::to_node).collect())),
        ])
    }
}

fn read_relay_start(section: &Section<'_>, flavor: Option<Flavor>) -> Option<RelayStart> {
    let binlog_name = section.text("relay-binlog-name").unwrap_or_default();
    let binlog_gtid = section.text("relay-binlog-gtid").unwrap_or_default();
    check_binlog_name(section, "relay-binlog-name", &binlog_name);
    check_gtid_set(section, "relay-binlog-gtid", &binlog_gtid, flavor);
    let any = !binlog_name.is_empty() || !binlog_gtid.is_empty();
    any.then_some(RelayStart { binlog_name, binlog_gtid })
}

/// Reports a binlog file name that cannot be one; an empty one is none.
pub(super) fn check_binlog_name(section: &Section<'_>, key: &str, name: &str) {
    if !name.is_empty() && BinlogFile::parse(name).is_err() {
        section.problem(key, format!("{name:?} is not the name of a binlog file; give one such as `mysql-bin.000001`"));
    }
}

/// Reports a GTID set that no server (or not one of this flavour) would print; an empty one is none.
pub(super) fn check_gtid_set(section: &Section<'_>, key: &str, set: &str, flavor: Option<Flavor>) {
    let flavors = flavor.map_or(vec![Flavor::MySql, Flavor::MariaDb], |flavor| vec![flavor]);
    if !set.is_empty() && flavors.iter().all(|flavor| GtidSet::parse(*flavor, set).is_err()) {
        let remedy = "give what the server prints in `@@gtid_executed` (MySQL) or `@@gtid_binlog_pos` (MariaDB)";
        section.problem(key, format!("{set:?} is not a GTID set; {remedy}"));
    }
}

impl PurgeConfig {
    fn read(section: Section<'_>) -> Self {
        let defaults = PurgeConfig::default();
        let interval = section.int("interval", 0..=u64::from(u32::MAX));
        let expires = section.int("expires", 0..=u64::from(u32::MAX));
        let remain_space = section.int("remain-space", 0..=1_000_000u64);
        section.finish();
        PurgeConfig {
            interval: interval.map_or(defaults.interval, Duration::from_secs),
            expires: expires.map_or(defaults.expires, |hours| Duration::from_secs(hours * HOUR)),
            remain_space: remain_space.map_or(defaults.remain_space, |gib| gib * GIB),
        }
    }

    fn to_node(&self) -> Node {
        table([
            ("interval", Node::Int(self.interval.as_secs().into())),
            ("expires", Node::Int((self.expires.as_secs() / HOUR).into())),
            ("remain-space", Node::Int((self.remain_space / GIB).into())),
        ])
    }
}

impl CheckerConfig {
    fn read(section: Section<'_>) -> Self {
        // Zero stands for the default, as in DM.
        let span = |key, default| section.duration(key).filter(|span| !span.is_zero()).unwrap_or(default);
        let config = CheckerConfig {
            enabled: section.flag("check-enable").unwrap_or(true),
            backoff_min: span("backoff-min", CHECKER_FIRST),
            backoff_factor: section.float("backoff-factor", 1.0..=1000.0).unwrap_or(CHECKER_FACTOR),
            backoff_jitter: section.flag("backoff-jitter").unwrap_or(true),
            backoff_max: span("backoff-max", CHECKER_SPAN),
            backoff_rollback: span("backoff-rollback", CHECKER_SPAN),
            kept: Kept::read(&section, keys::CHECKER),
        };
        if config.backoff_min > config.backoff_max {
            section.problem("backoff-min", "is longer than `backoff-max`; give a shorter one");
        }
        section.finish();
        config
    }

    fn to_node(&self) -> Node {
        table([
            ("check-enable", Node::Bool(self.enabled)),
            ("backoff-rollback", Node::text(format_duration(self.backoff_rollback))),
            ("backoff-max", Node::text(format_duration(self.backoff_max))),
            ("check-interval", self.kept.node("check-interval")),
            ("backoff-min", Node::text(format_duration(self.backoff_min))),
            ("backoff-jitter", Node::Bool(self.backoff_jitter)),
            ("backoff-factor", Node::Float(self.backoff_factor)),
        ])
    }
}
