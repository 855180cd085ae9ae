//! The admin socket of an agent that has joined a cluster: it looks, and it parks; sources and tasks are the master's.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::control::backend::{AgentEvent, Backend, RelayOp};
use crate::error::{Code, Failure};
use crate::supervisor::{
    Actor, AgentStatus, EventOrder, EventRefusal, OperateTask, ResyncTable, SchemaOp, SchemaOrder, SourceResult,
    StartTask, TaskOp,
};

/// A backend of which only what is a local operator's is passed on.
pub struct LocalBackend {
    inner: Arc<dyn Backend>,
}

impl LocalBackend {
    /// Over the agent.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        LocalBackend { inner }
    }
}

fn of_the_master<T>(what: &str) -> Result<T, Failure> {
    let text = format!("{what}: sources and tasks of this agent belong to its dm-master (`join` is set)");
    Err(Failure::new(Code::NotSet, text)
        .workaround("Please use dmctl, or dm-agentctl with --master-addr; pause-task and resume-task work here, too."))
}

#[tonic::async_trait]
impl Backend for LocalBackend {
    fn status(&self) -> Arc<AgentStatus> {
        self.inner.status()
    }

    async fn create_source(&self, _: String, _: Actor) -> Result<SourceResult, Failure> {
        of_the_master("operate-source create")
    }

    async fn update_source(&self, _: String, _: Actor) -> Result<SourceResult, Failure> {
        of_the_master("operate-source update")
    }

    async fn stop_source(&self, _: String, _: Actor) -> Result<SourceResult, Failure> {
        of_the_master("operate-source stop")
    }

    async fn start_task(&self, _: StartTask, _: Actor) -> Result<Vec<SourceResult>, Failure> {
        of_the_master("start-task")
    }

    async fn operate_task(&self, request: OperateTask, actor: Actor) -> Result<Vec<SourceResult>, Failure> {
        match request.op {
            TaskOp::Stop => of_the_master("stop-task"),
            TaskOp::Pause | TaskOp::Resume => self.inner.operate_task(request, actor).await,
        }
    }

    async fn update_task(&self, _: String, _: Vec<String>, _: Actor) -> Result<Vec<SourceResult>, Failure> {
        of_the_master("update-task")
    }

    async fn order_event(&self, _: String, _: EventOrder, _: Actor) -> Result<String, EventRefusal> {
        Ok(of_the_master("binlog")?)
    }

    async fn order_schema(&self, source_id: String, order: SchemaOrder, actor: Actor) -> Result<String, Failure> {
        match order.op {
            SchemaOp::Declare(_) | SchemaOp::Withdraw => of_the_master("binlog-schema"),
            SchemaOp::Show | SchemaOp::Databases | SchemaOp::Tables | SchemaOp::Targets => {
                self.inner.order_schema(source_id, order, actor).await
            }
        }
    }

    /// DM has no words for it, so it is the operator's of this machine; nothing of the task's settings changes.
    async fn resync_table(&self, request: ResyncTable, actor: Actor) -> Result<(String, String), Failure> {
        self.inner.resync_table(request, actor).await
    }

    async fn check_task(&self, yaml: String, start_time: String) -> Result<String, Failure> {
        self.inner.check_task(yaml, start_time).await
    }

    async fn relay(&self, op: RelayOp, _: String, _: Actor) -> Result<SourceResult, Failure> {
        of_the_master(op.as_str())
    }

    async fn purge_relay(&self, source_id: String, filename: String, actor: Actor) -> Result<(), Failure> {
        self.inner.purge_relay(source_id, filename, actor).await
    }

    fn source_config(&self, source_id: &str) -> Option<String> {
        self.inner.source_config(source_id)
    }

    fn task_config(&self, name: &str) -> Option<String> {
        self.inner.task_config(name)
    }

    fn worker_config(&self) -> String {
        self.inner.worker_config()
    }

    fn set_log_level(&self, level: &str) -> Result<String, Failure> {
        self.inner.set_log_level(level)
    }

    fn ready(&self) -> bool {
        self.inner.ready()
    }

    fn events(&self) -> broadcast::Receiver<AgentEvent> {
        self.inner.events()
    }
}
