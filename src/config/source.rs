//! DM's source configuration: one upstream, as `operate-source create` brings it (YAML) or as etcd holds it (TOML).
//!
//! Both forms become one checked [`SourceConfig`], and it is printed in DM's YAML form. Users' files are read strictly,
//! what a master wrote is read leniently: a master of another version may know more keys.

use std::time::Duration;

use crate::model::{BinlogFile, Flavor, GtidSet};

use super::database::{DatabaseConfig, Secrets, table};
use super::node::{Node, SyntaxError};
use super::rules::FilterRule;
use super::section::{ConfigError, Report, Section, root};
use super::units::format_duration;
use super::yaml;

const WHAT: &str = "source configuration";

/// An upstream server and how it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Its name in every command, 32 characters at most.
    pub source_id: String,
    /// DM stores it and does nothing with it.
    pub enable: bool,
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
    /// DM's `relay-dir`: kept for printing, without meaning here (the relay log is in the state directory).
    relay_dir: String,
    /// Keys given that have no meaning here.
    ignored: Vec<&'static str>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckerConfig {
    /// Whether at all.
    pub enabled: bool,
    /// Longest wait between two tries.
    pub backoff_max: Duration,
    /// After this long without a failure the wait becomes shorter again.
    pub backoff_rollback: Duration,
}

const GIB: u64 = 1 << 30;
const HOUR: u64 = 3600;
const CHECKER_SPAN: Duration = Duration::from_secs(300);

impl Default for PurgeConfig {
    fn default() -> Self {
        PurgeConfig { interval: Duration::from_secs(HOUR), expires: Duration::ZERO, remain_space: 15 * GIB }
    }
}

impl Default for CheckerConfig {
    fn default() -> Self {
        CheckerConfig { enabled: true, backoff_max: CHECKER_SPAN, backoff_rollback: CHECKER_SPAN }
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

    /// What this file asks for and this version cannot do. It must be refused while this is not empty.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        if !self.filters.is_empty() {
            refusals.push(
                "`filters` is not supported by this version; remove it, or use `block-allow-list` in the task".into(),
            );
        }
        refusals
    }

    /// What this file says that has no effect here.
    pub fn notes(&self) -> Vec<String> {
        self.ignored.iter().map(|key| format!("`{key}` of source {} has no meaning here", self.source_id)).collect()
    }

    fn read_tree(tree: Result<Node, SyntaxError>, report: Report) -> Result<Self, ConfigError> {
        let config = Self::read(root(&tree, &report), &report);
        report.conclude(WHAT, config)
    }

    /// Defaults stand in for what is missing or wrong: it has been reported, and a reported problem discards the value.
    fn read(section: Section<'_>, report: &Report) -> Option<Self> {
        if !report.is_empty() {
            // Not a table of keys at all: a list of everything that is missing would only hide that.
            return None;
        }
        let ignored = read_ignored(&section);
        let source_id = section.required_text("source-id", "give the source a name").unwrap_or_default();
        if source_id.chars().count() > 32 {
            section.problem("source-id", "is longer than 32 characters; give a shorter name");
        }
        let flavor = section.choice("flavor", &[("mysql", Flavor::MySql), ("mariadb", Flavor::MariaDb)]);
        let config = SourceConfig {
            source_id,
            enable: section.flag("enable").unwrap_or(true),
            flavor,
            enable_gtid: section.flag("enable-gtid").unwrap_or(false),
            enable_relay: section.flag("enable-relay").unwrap_or(false),
            relay_start: read_relay_start(&section, flavor),
            server_id: section.int("server-id", 0..=u32::MAX).filter(|id| *id != 0),
            case_sensitive: section.flag("case-sensitive").unwrap_or(false),
            relay_dir: section.text("relay-dir").filter(|dir| !dir.is_empty()).unwrap_or_else(|| "relay-dir".into()),
            from: DatabaseConfig::read_required(&section, "from"),
            purge: section.section("purge").map(PurgeConfig::read).unwrap_or_default(),
            checker: section.section("checker").map(CheckerConfig::read).unwrap_or_default(),
            filters: section
                .sections("filters")
                .into_iter()
                .map(|rule| FilterRule::read(String::new(), rule))
                .collect(),
            ignored,
        };
        section.finish();
        Some(config)
    }

    fn to_node(&self, secrets: Secrets) -> Node {
        let start = self.relay_start.as_ref();
        table([
            ("enable", Node::Bool(self.enable)),
            ("enable-gtid", Node::Bool(self.enable_gtid)),
            ("auto-fix-gtid", Node::Bool(false)),
            ("relay-dir", Node::text(&self.relay_dir)),
            ("meta-dir", Node::text("")),
            ("flavor", Node::text(self.flavor.map_or("", Flavor::as_str))),
            ("charset", Node::text("")),
            ("enable-relay", Node::Bool(self.enable_relay)),
            ("relay-binlog-name", Node::text(start.map_or("", |start| &start.binlog_name))),
            ("relay-binlog-gtid", Node::text(start.map_or("", |start| &start.binlog_gtid))),
            ("source-id", Node::text(&self.source_id)),
            ("from", self.from.to_node(secrets)),
            ("purge", self.purge.to_node()),
            ("checker", self.checker.to_node()),
            ("server-id", Node::Int(self.server_id.unwrap_or(0).into())),
            ("tracer", Node::Table(Vec::new())),
            ("case-sensitive", Node::Bool(self.case_sensitive)),
            ("filters", Node::List(self.filters.iter().map(FilterRule::to_node).collect())),
        ])
    }
}

/// Notes which keys without meaning here were given with a value of their own.
fn read_ignored(section: &Section<'_>) -> Vec<&'static str> {
    let mut ignored = Vec::new();
    if section.flag("auto-fix-gtid") == Some(true) {
        ignored.push("auto-fix-gtid");
    }
    for key in ["meta-dir", "charset"] {
        if section.text(key).is_some_and(|text| !text.is_empty()) {
            ignored.push(key);
        }
    }
    // "relay-dir" is what DM fills in itself.
    if section.text("relay-dir").is_some_and(|dir| !dir.is_empty() && dir != "relay-dir") {
        ignored.push("relay-dir");
    }
    if let Some(Node::Table(entries)) = section.node("tracer")
        && !entries.is_empty()
    {
        ignored.push("tracer");
    }
    ignored
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
        // DM forces these four to fixed values whatever the file says.
        section.accept(&["check-interval", "backoff-min", "backoff-jitter", "backoff-factor"]);
        let config = CheckerConfig {
            enabled: section.flag("check-enable").unwrap_or(true),
            backoff_max: section.duration("backoff-max").filter(|max| !max.is_zero()).unwrap_or(CHECKER_SPAN),
            backoff_rollback: section
                .duration("backoff-rollback")
                .filter(|span| !span.is_zero())
                .unwrap_or(CHECKER_SPAN),
        };
        section.finish();
        config
    }

    fn to_node(&self) -> Node {
        table([
            ("check-enable", Node::Bool(self.enabled)),
            ("backoff-rollback", Node::text(format_duration(self.backoff_rollback))),
            ("backoff-max", Node::text(format_duration(self.backoff_max))),
            ("check-interval", Node::text("5s")),
            ("backoff-min", Node::text("1s")),
            ("backoff-jitter", Node::Bool(true)),
            ("backoff-factor", Node::Float(2.0)),
        ])
    }
}
