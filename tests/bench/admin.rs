//! The admin socket, over one open connection: commands are measured without the start of a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dm_agent::control::proto::agent::agent_client::AgentClient;
use dm_agent::control::proto::agent::{StatusReply, StatusRequest};
use dm_agent::control::proto::pb::master_client::MasterClient;
use dm_agent::control::proto::pb::{OperateTaskRequest, QueryStatusListRequest, TaskOp};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// `pb.Master` and the agent's own service.
#[derive(Clone)]
pub struct Admin {
    master: MasterClient<Channel>,
    agent: AgentClient<Channel>,
}

impl Admin {
    /// Connects to the socket.
    pub async fn connect(socket: &Path) -> Admin {
        let path: PathBuf = socket.into();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is needed by the library and used for nothing.
        let endpoint = Endpoint::from_static("http://localhost").timeout(Duration::from_secs(60));
        let channel = endpoint.connect_with_connector(connector).await.expect("connect to the admin socket");
        Admin { master: MasterClient::new(channel.clone()), agent: AgentClient::new(channel) }
    }

    /// Everything the agent knows.
    pub async fn status(&mut self) -> StatusReply {
        self.agent.status(StatusRequest {}).await.expect("Status").into_inner()
    }

    /// DM's QueryStatus of a task.
    pub async fn query_status(&mut self, task: &str) {
        let request = QueryStatusListRequest { name: task.into(), sources: Vec::new() };
        let answer = self.master.query_status(request).await.expect("QueryStatus").into_inner();
        assert!(answer.result, "query-status {task}: {}", answer.msg);
    }

    /// pause-task; answers when the task is parked.
    pub async fn pause(&mut self, task: &str) {
        self.operate(TaskOp::Pause, task).await;
    }

    /// resume-task; answers when it applies.
    pub async fn resume(&mut self, task: &str) {
        self.operate(TaskOp::Resume, task).await;
    }

    /// stop-task; answers when it is gone.
    pub async fn stop(&mut self, task: &str) {
        self.operate(TaskOp::Stop, task).await;
    }

    async fn operate(&mut self, op: TaskOp, task: &str) {
        let request = OperateTaskRequest { op: op.into(), name: task.into(), sources: Vec::new() };
        let answer = self.master.operate_task(request).await.expect("OperateTask").into_inner();
        let good = answer.result && answer.sources.iter().all(|source| source.result && source.msg.is_empty());
        assert!(good, "{op:?} {task}: {answer:?}");
    }
}
