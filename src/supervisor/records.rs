//! What is kept of sources and tasks over a restart, in the checkpoint store of the state directory (mode 0700).

use serde::{Deserialize, Serialize};

use crate::meta::StoredMark;

/// A source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceRecord {
    /// DM's YAML, passwords as the operator gave them.
    pub yaml: String,
    /// `mysql` or `mariadb`.
    pub flavor: String,
    /// Our server id as a replica, chosen once.
    pub server_id: u32,
    /// Our identity as a replica, chosen once.
    pub replica_uuid: uuid::Uuid,
    /// Receives even without a task (start-relay).
    pub relay_wanted: bool,
    /// Does not receive (pause-relay).
    pub relay_paused: bool,
}

/// A subtask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// DM's YAML of the whole task, passwords as the operator gave them.
    pub yaml: String,
    /// Where it starts if nothing is stored downstream.
    pub start: StoredMark,
}
