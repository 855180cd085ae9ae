//! Settings of the sync unit. Those of dump, load and validator, which this agent does not have, are only
//! [kept](super::kept::Kept).

use std::time::Duration;

use super::database::table;
use super::kept::Kept;
use super::keys;
use super::node::Node;
use super::section::Section;
use super::units::format_duration;

/// How changes are applied.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncerConfig {
    /// Lanes.
    pub worker_count: u32,
    /// How often DM's checkpoint tables are written.
    pub checkpoint_flush_interval: Duration,
    /// REPLACE, and DELETE with REPLACE, all the time.
    pub safe_mode: bool,
    /// How long after a start safe mode is used where the exact mode cannot be.
    pub safe_mode_duration: Duration,
    /// Values without meaning here.
    pub(super) kept: Kept,
}

impl Default for SyncerConfig {
    fn default() -> Self {
        SyncerConfig {
            worker_count: 16,
            checkpoint_flush_interval: Duration::from_secs(30),
            safe_mode: false,
            safe_mode_duration: Duration::from_secs(60),
            kept: Kept::defaults(keys::SYNC),
        }
    }
}

impl SyncerConfig {
    /// Reads the keys of a table that may hold others. Zero stands for the default, as in DM.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let defaults = SyncerConfig::default();
        let number = |key, max, default| section.int(key, 0..=max).filter(|number| *number != 0).unwrap_or(default);
        let flush = section.int("checkpoint-flush-interval", 0..=86_400u64).filter(|seconds| *seconds != 0);
        let flush = flush.map_or(defaults.checkpoint_flush_interval, Duration::from_secs);
        let config = SyncerConfig {
            worker_count: number("worker-count", 4096, defaults.worker_count),
            checkpoint_flush_interval: flush,
            safe_mode: section.flag("safe-mode").unwrap_or(false),
            safe_mode_duration: section.duration("safe-mode-duration").unwrap_or(flush * 2),
            kept: Kept::read(section, keys::SYNC),
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
            ("meta-file", self.kept.node("meta-file")),
            ("worker-count", Node::Int(self.worker_count.into())),
            ("batch", self.kept.node("batch")),
            ("queue-size", self.kept.node("queue-size")),
            ("checkpoint-flush-interval", Node::Int(self.checkpoint_flush_interval.as_secs().into())),
            ("compact", self.kept.node("compact")),
            ("multiple-rows", self.kept.node("multiple-rows")),
            ("max-retry", self.kept.node("max-retry")),
            ("auto-fix-gtid", self.kept.node("auto-fix-gtid")),
            ("enable-gtid", self.kept.node("enable-gtid")),
            ("disable-detect", self.kept.node("disable-detect")),
            ("safe-mode", Node::Bool(self.safe_mode)),
            ("safe-mode-duration", Node::text(safe_mode_duration)),
            ("enable-ansi-quotes", self.kept.node("enable-ansi-quotes")),
        ])
    }
}
