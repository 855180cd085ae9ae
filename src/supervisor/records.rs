//! What is kept of sources and tasks over a restart, in the checkpoint store of the state directory (mode 0700).

use serde::{Deserialize, Serialize};

use crate::config::SourceConfig;
use crate::error::{Code, Failure};
use crate::meta::StoredMark;
use crate::model::Flavor;

/// The form that this version writes. One that is higher was written by a later version and is not guessed at.
pub const FORM: u32 = 1;

fn first_form() -> u32 {
    FORM
}

/// What of its master's wishes a subtask follows: etcd revisions, kept with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MasterMark {
    /// Of the start-task that made it.
    pub born: i64,
    /// At which its source was given to this worker.
    pub bound_born: i64,
    /// Of the stage that was applied last.
    pub stage_revision: i64,
}

/// A source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceRecord {
    /// See [`FORM`].
    #[serde(default = "first_form")]
    pub form: u32,
    /// DM's YAML, passwords as the operator gave them; empty where a master gave TOML.
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
    /// What a master gave in place of the YAML; `None` where an operator made it.
    #[serde(default)]
    pub toml: Option<String>,
}

impl SourceRecord {
    /// Of an operator's file, as a replica that nobody knows yet.
    pub fn new(config: &SourceConfig, flavor: Flavor, server_id: u32) -> Self {
        SourceRecord {
            form: FORM,
            yaml: config.to_stored_yaml(),
            flavor: flavor.as_str().to_owned(),
            server_id,
            replica_uuid: uuid::Uuid::new_v4(),
            relay_wanted: config.enable_relay,
            relay_paused: false,
            toml: None,
        }
    }
}

/// A subtask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// See [`FORM`].
    #[serde(default = "first_form")]
    pub form: u32,
    /// DM's YAML of the whole task, passwords as the operator gave them; empty where a master gave TOML.
    pub yaml: String,
    /// Where it starts if nothing is stored downstream; `None` while that is not known, which it always is of a task that
    /// an operator made.
    pub start: Option<StoredMark>,
    /// Up to here its rows may be downstream already: it starts by a time, which says nothing of the downstream.
    #[serde(default)]
    pub safe_until: Option<StoredMark>,
    /// Set where a master made it.
    #[serde(default)]
    pub master: Option<MasterRecord>,
}

/// What a master said of a subtask.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MasterRecord {
    /// Its configuration as it stands in etcd, passwords as they stand there.
    pub toml: String,
    /// Which of its wishes are followed.
    pub mark: MasterMark,
    /// `--start-time`; empty for none. Of no effect once there is a start.
    pub start_time: String,
    /// Words of its start-task that have no effect here.
    #[serde(default)]
    pub unheeded: Vec<String>,
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

/// The name under which a subtask's part of the relay log is protected.
pub(super) fn protected(task: &str, source_id: &str) -> String {
    format!("{task}@{source_id}")
}
