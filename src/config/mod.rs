//! DM's configuration files and ours: a tree first, then checked types; every problem reported at once, secrets
//! redacted.
//!
//! ```text
//! dm-worker.toml, flags ─► WorkerConfig ([agent]: AgentConfig)
//! source.yaml, etcd TOML ─► SourceConfig ─┐ inherit
//! task.yaml ─► TaskConfig ─► SubtaskConfig ◄┘ ◄─ etcd TOML
//! ```
//! Invariant: what is in a checked type has been checked; nobody downstream parses a text of a file again. A key that
//! is accepted does something, is refused by `refusals()`, or is named by `notes()` or in its documentation as having
//! no meaning here. Nothing here touches the network, and only [`WorkerConfig`] reads files.

mod address;
mod agent;
mod copy;
mod database;
mod export;
mod flags;
mod kept;
mod keys;
mod log;
mod node;
mod password;
mod rules;
mod section;
mod settings;
mod source;
mod startup;
mod subtask;
mod support;
mod task;
mod units;
mod worker;
mod yaml;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod key_text_tests;
#[cfg(test)]
mod startup_tests;

pub use crate::model::{MASK, Secret};
pub use agent::{AgentConfig, Environment, LogTarget};
pub use copy::{CopyConfig, OnDuplicate};
pub use database::{DatabaseConfig, Pem, Security};
pub use kept::Kept;
pub use log::{LogConfig, LogFilter, LogFormat, LogLevel};
pub use password::{SecretKey, SecretKeyError};
pub use rules::{BlockAllowRules, ExpressionFilter, Extract, FilterRule, RouteRule, TablePattern};
pub use section::{ConfigError, Problem};
pub use settings::SyncerConfig;
pub use source::{CheckerConfig, PurgeConfig, RelayStart, SourceConfig};
pub use startup::{Invocation, SAMPLE, StartError};
pub use subtask::{ShardMode, StartMeta, SubtaskConfig, TaskMode};
pub use task::TaskConfig;
pub use units::{format_duration, parse_duration, parse_size};
pub use worker::WorkerConfig;
