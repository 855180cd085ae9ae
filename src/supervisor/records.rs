//! What is kept of sources and tasks over a restart, in the checkpoint store of the state directory (mode 0700).

use serde::{Deserialize, Serialize};

use crate::error::{Code, Failure};
use crate::meta::StoredMark;

/// The form that this version writes. One that is higher was written by a later version and is not guessed at.
pub const FORM: u32 = 1;

fn first_form() -> u32 {
    FORM
}

/// A source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceRecord {
    /// See [`FORM`].
    #[serde(default = "first_form")]
    pub form: u32,
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
    /// See [`FORM`].
    #[serde(default = "first_form")]
    pub form: u32,
    /// DM's YAML of the whole task, passwords as the operator gave them.
    pub yaml: String,
    /// Where it starts if nothing is stored downstream.
    pub start: StoredMark,
}

/// Refuses what a later version wrote.
pub fn check_form(form: u32, what: &str) -> Result<(), Failure> {
    if form <= FORM {
        return Ok(());
    }
    let message = format!("the stored record of {what} has form {form}, this version knows up to {FORM}");
    Err(Failure::new(Code::NotSet, message)
        .workaround("Please start the version of dm-agent that wrote it, or a later one."))
}
