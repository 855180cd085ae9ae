//! What the control side asks of the daemon behind it.
//!
//! Invariant: nothing here waits for the data path except the `async` calls, and the server puts a limit on each of
//! those. A call whose future is dropped may still take effect: the client went away, the command did not.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::error::Failure;
use crate::supervisor::{
    Actor, AgentStatus, EventOrder, EventRefusal, OperateTask, ResyncTable, SchemaOrder, SourceResult, StartTask,
};

/// What to do with the relay of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayOp {
    /// start-relay: receive although no task needs it.
    Start,
    /// stop-relay: receive only what tasks need.
    Stop,
    /// pause-relay.
    Pause,
    /// resume-relay.
    Resume,
}

impl RelayOp {
    /// The command's name.
    pub fn as_str(self) -> &'static str {
        match self {
            RelayOp::Start => "start-relay",
            RelayOp::Stop => "stop-relay",
            RelayOp::Pause => "pause-relay",
            RelayOp::Resume => "resume-relay",
        }
    }
}

/// Something worth telling whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEvent {
    /// When.
    pub at: SystemTime,
    /// A word to filter by: `stage`, `receiving`, `failure`, `relay`, `source`.
    pub kind: &'static str,
    /// Source id; empty where it concerns none.
    pub source_id: String,
    /// Task name; empty where it concerns none.
    pub task: String,
    /// One line.
    pub text: String,
}

/// The daemon as the control side sees it. Implementations are called from the admin thread's own runtime: they must
/// not block, and must not depend on which runtime polls them.
///
/// Failures are given as they are: DM's wrapping of a worker's failure (code 38032) is added by
/// [`master_api`](super::master_api).
#[tonic::async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The newest snapshot, from memory.
    fn status(&self) -> Arc<AgentStatus>;

    /// Adds a source from its YAML.
    async fn create_source(&self, yaml: String, actor: Actor) -> Result<SourceResult, Failure>;

    /// Replaces the configuration of a source that exists.
    async fn update_source(&self, yaml: String, actor: Actor) -> Result<SourceResult, Failure>;

    /// Removes a source that has no tasks.
    async fn stop_source(&self, source_id: String, actor: Actor) -> Result<SourceResult, Failure>;

    /// Starts a task; one result a source, or a failure when nothing was started.
    async fn start_task(&self, request: StartTask, actor: Actor) -> Result<Vec<SourceResult>, Failure>;

    /// Pauses, resumes or stops; answers when the stage is reached or a limit of the supervisor's passed.
    async fn operate_task(&self, request: OperateTask, actor: Actor) -> Result<Vec<SourceResult>, Failure>;

    /// Takes a new login for the downstream of a task that is there, from its YAML; nothing else of it may change.
    async fn update_task(&self, yaml: String, sources: Vec<String>, actor: Actor)
    -> Result<Vec<SourceResult>, Failure>;

    /// Does what is ordered about an event of a subtask; `Ok` with a text that is empty but for a list.
    async fn order_event(&self, source_id: String, order: EventOrder, actor: Actor) -> Result<String, EventRefusal>;

    /// Shows or declares how a table looks, or lists tables; `Ok` with the text.
    async fn order_schema(&self, source_id: String, order: SchemaOrder, actor: Actor) -> Result<String, Failure>;

    /// Has a table read again; answers the source, and what is to be known of it, when the order is stored.
    async fn resync_table(&self, request: ResyncTable, actor: Actor) -> Result<(String, String), Failure>;

    /// Checks a task's YAML against source and downstream; `Ok` with what it has to say, empty when all is well.
    async fn check_task(&self, yaml: String, start_time: String) -> Result<String, Failure>;

    /// Operates the relay of one source.
    async fn relay(&self, op: RelayOp, source_id: String, actor: Actor) -> Result<SourceResult, Failure>;

    /// Removes relay log before `filename`, as far as no subtask needs it.
    async fn purge_relay(&self, source_id: String, filename: String, actor: Actor) -> Result<(), Failure>;

    /// A source's configuration as YAML, secrets masked.
    fn source_config(&self, source_id: &str) -> Option<String>;

    /// A task's configuration as YAML, secrets masked.
    fn task_config(&self, name: &str) -> Option<String>;

    /// The daemon's own configuration as TOML, secrets masked.
    fn worker_config(&self) -> String;

    /// Changes the log level or filter; answers what holds now.
    fn set_log_level(&self, level: &str) -> Result<String, Failure>;

    /// Whether the store is open and the tasks are loaded. Says nothing about upstream or downstream.
    fn ready(&self) -> bool;

    /// Events from now on.
    fn events(&self) -> broadcast::Receiver<AgentEvent>;
}
