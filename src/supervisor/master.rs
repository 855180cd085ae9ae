//! Commands of a master: sources and subtasks that it gives and takes.
//!
//! They are steps, not wishes: what is wanted, and in what order steps are taken, is decided by `control::master`, which
//! asks [`Supervisor::held`] what there is. Each step may be repeated; each stores what it does before it does it.
//!
//! Invariants: a subtask of a master is loaded parked for the lease, and runs only after [`Supervisor::readmit`]. An
//! operator's reason outlives everything but stop-task: also that the source was elsewhere in between.

mod sources;
mod subtasks;

use std::collections::BTreeMap;

use super::records::{MasterMark, SourceRecord};
use super::{SourceEntry, Supervisor, TaskEntry, read};
use crate::config::SecretKey;
use crate::task::TaskStatus;

/// Who parks a subtask because the lease is lost, or has not been had yet.
pub const LEASE: &str = "lease with dm-master";
/// Note on the park of a subtask that was made with the stage Stopped, until its first resume.
pub const NOT_STARTED: &str = "not started here yet (stage Stopped)";

/// A source to be opened.
#[derive(Debug, Clone)]
pub struct SourceOrder {
    /// Its id.
    pub id: String,
    /// Its configuration as a master stores it.
    pub toml: String,
    /// Whether its relay log is on without a task, and `true` in it for paused.
    pub relay: Option<bool>,
}

/// A subtask to be made.
#[derive(Debug, Clone)]
pub struct TaskOrder {
    /// Its source.
    pub source: String,
    /// Its name.
    pub name: String,
    /// Its configuration as a master stores it.
    pub toml: String,
    /// What it follows from now on.
    pub mark: MasterMark,
    /// Whether it is to run.
    pub run: bool,
    /// Whether it is made to be started later (OpenAPI).
    pub stopped: bool,
    /// `--start-time`; empty for none.
    pub start_time: String,
    /// Words of its start-task that have no effect here.
    pub unheeded: Vec<String>,
    /// All subtasks of its source that there are, by name, with the revision of their start-task; `None` where that cannot be
    /// read.
    pub known: BTreeMap<String, Option<i64>>,
}

/// What there is, as far as a master is concerned.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Sources by id.
    pub sources: BTreeMap<String, HeldSource>,
    /// Subtasks by source and name.
    pub tasks: BTreeMap<(String, String), HeldTask>,
}

/// A source that is open.
#[derive(Debug, Clone)]
pub struct HeldSource {
    /// The TOML it was opened with.
    pub toml: String,
    /// As in [`SourceOrder`].
    pub relay: Option<bool>,
}

/// A subtask that is there.
#[derive(Debug, Clone)]
pub struct HeldTask {
    /// What it follows.
    pub mark: MasterMark,
    /// How it is.
    pub status: TaskStatus,
}

impl Supervisor {
    /// What there is. A source that could not be loaded is there with other settings than any that are wanted, and so is
    /// opened anew; a subtask that could not be loaded is not, and so is made anew.
    pub fn held(&self) -> Held {
        let relay = |record: &SourceRecord| record.relay_wanted.then_some(record.relay_paused);
        let source = |entry: &SourceEntry| HeldSource {
            toml: entry.record.toml.clone().unwrap_or_default(),
            relay: relay(&entry.record).filter(|paused| *paused || entry.source.relay.state().start.is_some()),
        };
        let task = |entry: &TaskEntry| HeldTask {
            mark: entry.recipe.mark().unwrap_or_default(),
            status: entry.handle.status(),
        };
        let mut sources: BTreeMap<_, _> =
            read(&self.inner.sources).iter().map(|(id, entry)| (id.clone(), source(entry))).collect();
        for id in read(&self.inner.broken).sources.keys() {
            sources.insert(id.clone(), HeldSource { toml: String::new(), relay: None });
        }
        Held { sources, tasks: read(&self.inner.tasks).iter().map(|(key, entry)| (key.clone(), task(entry))).collect() }
    }

    /// The cluster's key for passwords; empty where it has none, and then one of our own stays.
    pub async fn take_cluster_key(&self, key: &[u8]) {
        if key.is_empty() {
            return;
        }
        match SecretKey::from_bytes(key) {
            Ok(key) => self.set_secret_key(Some(key)).await,
            Err(error) => tracing::error!(%error, "the masters' key for passwords"),
        }
    }

    /// Whether the relay log of a source is on for a master's users.
    pub fn relay_shown(&self, source_id: &str) -> bool {
        read(&self.inner.sources).get(source_id).is_some_and(|entry| entry.record.relay_wanted)
    }
}
