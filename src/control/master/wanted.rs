//! What a master wants of this worker: a pure value, as of one etcd revision. [`decode`](super::decode) makes it.

use std::collections::{BTreeMap, BTreeSet};

/// What a master wants, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// etcd's number of the cluster that all of this was read from.
    pub cluster: u64,
    /// etcd's revision that all of this was read at.
    pub revision: i64,
    /// The source whose subtasks run here.
    pub bound: Option<Bound>,
    /// The source whose relay log is kept here (start-relay with this worker's name).
    pub relay_for: Option<Bound>,
    /// The source that all of the rest is about: the bound one, or the one of the relay log.
    pub source: Option<SourceWish>,
    /// Its subtasks by name, where it is bound.
    pub tasks: BTreeMap<String, TaskWish>,
    /// Subtasks whose stage cannot be read: left as they are.
    pub unreadable: BTreeSet<String>,
    /// Who is said to load existing rows, by subtask of the source, where it is bound; also of subtasks that are gone.
    pub loaders: BTreeMap<String, Loader>,
    /// What cannot be read, for the log: key and why.
    pub problems: Vec<String>,
}

/// A source given to this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Source id.
    pub source: String,
    /// Revision that it was given at; masters write the same again and again, this one stays.
    pub born: i64,
    /// Revision of the last writing.
    pub revision: i64,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceWish {
    /// Source id.
    pub id: String,
    /// Its configuration as TOML; `None` where a master has none, which it should not.
    pub config: Option<String>,
    /// Whether its relay log is on for the master's users, and what it is to do.
    pub relay: Option<RelayWish>,
}

/// What the relay log of a source is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayWish {
    /// Receive.
    Run,
    /// pause-relay.
    Pause,
}

/// A subtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskWish {
    /// Its configuration as TOML; `None` where a master has none.
    pub config: Option<String>,
    /// Whether it is to run.
    pub run: bool,
    /// Whether the stage is Stopped: a subtask that OpenAPI made and nobody started, or that it has stopped, which is a
    /// pause.
    pub stopped: bool,
    /// Revision of its start-task.
    pub born: i64,
    /// Revision of the last writing of its stage. Writing the same stage again is a resume of what failed.
    pub stage_revision: i64,
    /// `--start-time` of the start-task that made it.
    pub start_time: Option<StartTime>,
    /// Other words of that start-task, which have no effect here.
    pub unheeded: Vec<String>,
}

/// A worker that is said to load a subtask's existing rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// Its name; empty where the value makes no sense.
    pub worker: String,
    /// Revision of the key, to delete it and nothing newer.
    pub revision: i64,
}

/// A start time that has not been honoured yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartTime {
    /// As the user gave it.
    pub text: String,
    /// Revision of its key, to clear it and nothing newer.
    pub revision: i64,
}

impl Wanted {
    /// When the sources were given to this worker the last time.
    pub fn given_at(&self) -> Option<i64> {
        let bound = self.bound.as_ref().map(|bound| bound.revision);
        bound.max(self.relay_for.as_ref().map(|bound| bound.revision))
    }
}
