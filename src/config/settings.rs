//! Settings of the units: sync, which this agent has, and dump, load and validator, whose settings it only keeps.
//!
//! Dump, load and validator settings are checked for key and type, filled with DM's defaults and printed again; nothing
//! here acts on them.

use std::time::Duration;

use super::database::table;
use super::node::Node;
use super::section::Section;
use super::units::format_duration;

/// How changes are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncerConfig {
    /// Lanes.
    pub worker_count: u32,
    /// DM's jobs a transaction. Groups are sized by time here, so it has no meaning.
    pub batch: u32,
    /// DM's jobs a queue. Bounded in bytes and time here, so it has no meaning.
    pub queue_size: u32,
    /// How often DM's checkpoint tables are written.
    pub checkpoint_flush_interval: Duration,
    /// DM's merging of changes of one row. Always done here.
    pub compact: bool,
    /// DM's statements for several rows. Always done here.
    pub multiple_rows: bool,
    /// REPLACE, and DELETE with REPLACE, all the time.
    pub safe_mode: bool,
    /// How long after a start safe mode is used where the exact mode cannot be.
    pub safe_mode_duration: Duration,
    /// Whether the binlog is asked for by GTID. The source's setting replaces it.
    pub enable_gtid: bool,
}

impl Default for SyncerConfig {
    fn default() -> Self {
        SyncerConfig {
            worker_count: 16,
            batch: 100,
            queue_size: 1024,
            checkpoint_flush_interval: Duration::from_secs(30),
            compact: false,
            multiple_rows: false,
            safe_mode: false,
            safe_mode_duration: Duration::from_secs(60),
            enable_gtid: false,
        }
    }
}

impl SyncerConfig {
    /// Reads the keys of a table that may hold others. Zero stands for the default, as in DM.
    pub(super) fn read(section: &Section<'_>) -> Self {
        section.accept(&["meta-file", "max-retry", "auto-fix-gtid", "disable-detect", "enable-ansi-quotes"]);
        let defaults = SyncerConfig::default();
        let number = |key, max, default| section.int(key, 0..=max).filter(|number| *number != 0).unwrap_or(default);
        let flush = section.int("checkpoint-flush-interval", 0..=86_400u64).filter(|seconds| *seconds != 0);
        let flush = flush.map_or(defaults.checkpoint_flush_interval, Duration::from_secs);
        let config = SyncerConfig {
            worker_count: number("worker-count", 4096, defaults.worker_count),
            batch: number("batch", u32::MAX, defaults.batch),
            queue_size: number("queue-size", u32::MAX, defaults.queue_size),
            checkpoint_flush_interval: flush,
            compact: section.flag("compact").unwrap_or(false),
            multiple_rows: section.flag("multiple-rows").unwrap_or(false),
            safe_mode: section.flag("safe-mode").unwrap_or(false),
            safe_mode_duration: section.duration("safe-mode-duration").unwrap_or(flush * 2),
            enable_gtid: section.flag("enable-gtid").unwrap_or(false),
        };
        if config.safe_mode && config.safe_mode_duration.is_zero() {
            section.problem(
                "safe-mode-duration",
                "is zero while `safe-mode` is on; give a longer one or switch `safe-mode` off",
            );
        }
        config
    }

    pub(super) fn to_node(&self) -> Node {
        // DM's default is printed as seconds, not in Go's form.
        let safe_mode_duration = match self.safe_mode_duration {
            whole if whole.subsec_nanos() == 0 => format!("{}s", whole.as_secs()),
            other => format_duration(other),
        };
        table([
            ("meta-file", Node::text("")),
            ("worker-count", Node::Int(self.worker_count.into())),
            ("batch", Node::Int(self.batch.into())),
            ("queue-size", Node::Int(self.queue_size.into())),
            ("checkpoint-flush-interval", Node::Int(self.checkpoint_flush_interval.as_secs().into())),
            ("compact", Node::Bool(self.compact)),
            ("multiple-rows", Node::Bool(self.multiple_rows)),
            ("max-retry", Node::Int(0)),
            ("auto-fix-gtid", Node::Bool(false)),
            ("enable-gtid", Node::Bool(self.enable_gtid)),
            ("disable-detect", Node::Bool(false)),
            ("safe-mode", Node::Bool(self.safe_mode)),
            ("safe-mode-duration", Node::text(safe_mode_duration)),
            ("enable-ansi-quotes", Node::Bool(false)),
        ])
    }
}

/// A key's type and DM's default for it.
#[derive(Clone, Copy)]
pub(super) enum Setting {
    Text(&'static str),
    Int(u64),
    Flag(bool),
    Seconds(u64),
}

pub(super) type Settings = &'static [(&'static str, Setting)];

pub(super) const DUMP: Settings = &[
    ("mydumper-path", Setting::Text("./bin/mydumper")),
    ("threads", Setting::Int(4)),
    ("chunk-filesize", Setting::Text("64")),
    ("statement-size", Setting::Int(0)),
    ("rows", Setting::Int(0)),
    ("where", Setting::Text("")),
    ("skip-tz-utc", Setting::Flag(true)),
    ("extra-args", Setting::Text("")),
];

pub(super) const LOAD: Settings = &[
    ("pool-size", Setting::Int(16)),
    ("dir", Setting::Text("./dumped_data")),
    ("sorting-dir-physical", Setting::Text("")),
    ("import-mode", Setting::Text("logical")),
    ("on-duplicate", Setting::Text("")),
    ("on-duplicate-logical", Setting::Text("replace")),
    ("on-duplicate-physical", Setting::Text("none")),
    ("disk-quota-physical", Setting::Int(0)),
    ("checksum-physical", Setting::Text("required")),
    ("analyze", Setting::Text("optional")),
    ("range-concurrency", Setting::Int(0)),
    ("compress-kv-pairs", Setting::Text("")),
    ("pd-addr", Setting::Text("")),
];

pub(super) const VALIDATOR: Settings = &[
    ("mode", Setting::Text("none")),
    ("worker-count", Setting::Int(4)),
    ("validate-interval", Setting::Seconds(10)),
    ("check-interval", Setting::Seconds(5)),
    ("row-error-delay", Setting::Seconds(1800)),
    ("meta-flush-interval", Setting::Seconds(300)),
    ("batch-query-size", Setting::Int(100)),
    ("max-pending-row-size", Setting::Text("500m")),
    ("max-pending-row-count", Setting::Int(2147483647)),
];

/// The settings of a unit that this agent does not have, complete with DM's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitSettings(Vec<(&'static str, Node)>);

impl UnitSettings {
    /// Reads the keys of a table that may hold others.
    pub(super) fn read(section: &Section<'_>, settings: Settings) -> Self {
        let read = |key, setting| match setting {
            Setting::Text(default) => {
                section.text(key).filter(|text| !text.is_empty()).map_or(Node::text(default), Node::Text)
            }
            // disk-quota-physical may also be a size with a unit.
            Setting::Int(_) if key == "disk-quota-physical" => Node::Int(section.size(key).unwrap_or(0).into()),
            Setting::Int(default) => Node::Int(section.int(key, 0..=u64::MAX).unwrap_or(default).into()),
            Setting::Flag(default) => Node::Bool(section.flag(key).unwrap_or(default)),
            Setting::Seconds(default) => {
                Node::text(format_duration(section.duration(key).unwrap_or(Duration::from_secs(default))))
            }
        };
        UnitSettings(settings.iter().map(|(key, setting)| (*key, read(*key, *setting))).collect())
    }

    /// DM's defaults.
    pub(super) fn defaults(settings: Settings) -> Self {
        let value = |setting| match setting {
            Setting::Text(default) => Node::text(default),
            Setting::Int(default) => Node::Int(default.into()),
            Setting::Flag(default) => Node::Bool(default),
            Setting::Seconds(default) => Node::text(format_duration(Duration::from_secs(default))),
        };
        UnitSettings(settings.iter().map(|(key, setting)| (*key, value(*setting))).collect())
    }

    /// A setting that is text, a duration included.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|(name, node)| match node {
            Node::Text(text) if *name == key => Some(text.as_str()),
            _ => None,
        })
    }

    /// A setting that is a number.
    pub fn int(&self, key: &str) -> Option<i128> {
        self.0.iter().find_map(|(name, node)| match node {
            Node::Int(number) if *name == key => Some(*number),
            _ => None,
        })
    }

    /// Replaces a number: `mydumper-thread` and `loader-thread`.
    pub(super) fn set_int(&mut self, key: &str, number: u32) {
        if let Some((_, node)) = self.0.iter_mut().find(|(name, _)| *name == key) {
            *node = Node::Int(number.into());
        }
    }

    pub(super) fn to_node(&self) -> Node {
        Node::Table(self.0.iter().map(|(key, node)| ((*key).to_owned(), node.clone())).collect())
    }
}
