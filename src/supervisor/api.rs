//! What the control side may ask of the supervisor, and what it is told: plain data.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::error::Failure;
use crate::model::{Flavor, Location, Received, Relayed};
use crate::pipeline::Breaks;
use crate::task::TaskStatus;

/// Who asks; goes into the audit log and into park reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `uid 1000 pid 4711`, `dm-master`.
    pub name: String,
}

/// The whole agent at one instant.
#[derive(Debug, Clone)]
pub struct AgentStatus {
    /// Worker name.
    pub worker: String,
    /// Whether a dm-master decides about its sources and tasks.
    pub in_cluster: bool,
    /// Not everything that is stored is here yet.
    pub loading: bool,
    /// Sources by id.
    pub sources: Vec<SourceStatus>,
    /// Subtasks by (source, name).
    pub tasks: Vec<TaskStatus>,
    /// How often what a master wanted could not be done, by DM's name for it.
    pub operate_errors: BTreeMap<&'static str, u64>,
}

/// What the binlog reader of a source is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Receiving {
    /// Connected, events or heartbeats come in.
    Running,
    /// Not connected; the next try is at this time.
    Retrying {
        /// When.
        at: SystemTime,
        /// What the last try met.
        failure: Failure,
    },
    /// Stopped until someone does something: purged position, disk budget or floor reached, wrong configuration.
    Stopped {
        /// Why.
        failure: Failure,
    },
    /// Paused by pause-relay.
    Paused,
    /// No task needs it and the relay was not started.
    Idle,
}

/// The message of [`Receiving::Retrying`] before the first try has ended.
pub const CONNECTING: &str = "connecting to the source";

/// A source at one instant.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// Source id.
    pub source_id: String,
    /// Dialect.
    pub flavor: Flavor,
    /// What the reader does.
    pub receiving: Receiving,
    /// Where the source itself stands, asked every few seconds in the background; `None` while unreachable.
    pub master: Option<Location>,
    /// `server_uuid`, or MariaDB's `domain-server`; empty until the first contact.
    pub server_identity: String,
    /// End of the last complete transaction received.
    pub received: Option<Received>,
    /// End of the last complete transaction on disk.
    pub relayed: Option<Relayed>,
    /// Seconds between the source's clock and the newest thing received from it (event or heartbeat).
    pub receive_lag: Option<Duration>,
    /// The relay log on disk.
    pub relay: RelayStatus,
}

/// The relay log of a source at one instant.
#[derive(Debug, Clone, Default)]
pub struct RelayStatus {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of raw binlog held.
    pub raw_bytes: u64,
    /// Disk budget in bytes.
    pub budget_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Raw bytes received a second, averaged over the last minute.
    pub bytes_per_second: f64,
    /// Raw bytes received by this process.
    pub received_bytes: u64,
    /// Connections to the source that broke in this process.
    pub breaks: Breaks,
    /// Oldest location that can be read back.
    pub oldest: Option<Location>,
    /// Until when it is safe to stay parked.
    pub runway: Option<Runway>,
}

/// Until when nothing is lost if everything stays parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runway {
    /// The time.
    pub until: SystemTime,
    /// What happens then: `the relay budget is full`, `the upstream purges what is not received`.
    pub limit: &'static str,
}

/// An answer for one source of a task operation.
#[derive(Debug, Clone)]
pub struct SourceResult {
    /// Source id.
    pub source: String,
    /// Worker name; empty where no worker was asked.
    pub worker: String,
    /// `Ok` with a message that is usually empty.
    pub result: Result<String, Failure>,
}

/// start-task.
#[derive(Debug, Clone)]
pub struct StartTask {
    /// The task file's YAML text, as the user gave it.
    pub yaml: String,
    /// Only these sources; empty for all of the file.
    pub sources: Vec<String>,
    /// Forget checkpoints first.
    pub remove_meta: bool,
    /// `2006-01-02 15:04:05` or with `T`; empty for none.
    pub start_time: String,
}

/// What to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskOp {
    /// pause-task.
    Pause,
    /// resume-task.
    Resume,
    /// stop-task.
    Stop,
}

/// pause-task, resume-task, stop-task.
#[derive(Debug, Clone)]
pub struct OperateTask {
    /// Which of them.
    pub op: TaskOp,
    /// Task name.
    pub name: String,
    /// Only these sources; empty for all of the task.
    pub sources: Vec<String>,
}
