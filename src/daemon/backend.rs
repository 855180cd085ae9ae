//! The daemon as the control side sees it: each call handed to the supervisor, on the runtime that the data path runs on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::broadcast;

use super::logging::LevelHandle;
use crate::config::{LogFilter, WorkerConfig};
use crate::control::{AgentEvent, Backend, RelayOp};
use crate::error::{Code, Failure};
use crate::supervisor::{
    Actor, AgentStatus, EventOrder, EventRefusal, OperateTask, Receiving, RelayWish, ResyncTable, SchemaOrder,
    SourceResult, StartTask, Supervisor,
};

/// Events kept for a slow listener.
const EVENTS: usize = 256;
/// How often the status is compared with what it was.
const WATCH: Duration = Duration::from_millis(200);

/// Answers for the daemon.
pub struct AgentBackend {
    supervisor: Supervisor,
    runtime: Handle,
    level: LevelHandle,
    worker_toml: String,
    ready: Arc<AtomicBool>,
    events: broadcast::Sender<AgentEvent>,
}

impl AgentBackend {
    /// For a supervisor on `runtime`.
    pub fn new(
        supervisor: Supervisor,
        runtime: Handle,
        level: LevelHandle,
        config: &WorkerConfig,
        ready: Arc<AtomicBool>,
    ) -> Self {
        AgentBackend {
            supervisor,
            runtime,
            level,
            worker_toml: config.to_dm_toml(),
            ready,
            events: broadcast::channel(EVENTS).0,
        }
    }

    /// Tells of changes, for as long as it is polled.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        let (supervisor, events) = (self.supervisor.clone(), self.events.clone());
        async move {
            let mut seen = BTreeMap::new();
            loop {
                let now = lines(&supervisor.status());
                for (key, text) in &now {
                    if seen.get(key) != Some(text) {
                        let (kind, source_id, task) = key.clone();
                        let event = AgentEvent { at: SystemTime::now(), kind, source_id, task, text: text.clone() };
                        // Nobody may be listening.
                        let _ = events.send(event);
                    }
                }
                seen = now;
                tokio::time::sleep(WATCH).await;
            }
        }
    }

    /// Runs a command on the data path's runtime; it goes on there when the caller has gone.
    async fn on_runtime<T: Send + 'static>(
        &self,
        command: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let ran = self.runtime.spawn(command).await;
        ran.unwrap_or_else(|error| Err(Failure::new(Code::NotSet, "the command broke off").cause(error.to_string())))
    }
}

type Line = (&'static str, String, String);

/// What is worth an event, by what it is about.
fn lines(status: &AgentStatus) -> BTreeMap<Line, String> {
    let mut lines = BTreeMap::new();
    for source in &status.sources {
        let text = match &source.receiving {
            Receiving::Running => "receiving".to_owned(),
            Receiving::Idle => "not receiving: no task needs it".to_owned(),
            Receiving::Paused => "receiving is paused".to_owned(),
            Receiving::Retrying { failure, .. } => format!("connecting: {}", failure.message),
            Receiving::Stopped { failure } => format!("receiving has stopped: {failure}"),
        };
        lines.insert(("receiving", source.source_id.clone(), String::new()), text);
    }
    for task in &status.tasks {
        let reasons: Vec<&str> = task.parks.keys().map(|reason| reason.as_str()).collect();
        let stage = match reasons.is_empty() {
            true => task.stage.as_str().to_owned(),
            false => format!("{} ({})", task.stage.as_str(), reasons.join(", ")),
        };
        lines.insert(("stage", task.source_id.clone(), task.name.clone()), stage);
        if task.read_again.0 > 0 {
            // The number tells two of the same text apart.
            let (count, text) = &task.read_again;
            lines.insert(("table", task.source_id.clone(), task.name.clone()), format!("{text} (no. {count})"));
        }
        if let Some(failure) = task.failures.last() {
            lines.insert(("failure", task.source_id.clone(), task.name.clone()), failure.to_string());
        }
    }
    lines
}

#[tonic::async_trait]
impl Backend for AgentBackend {
    fn status(&self) -> Arc<AgentStatus> {
        Arc::new(self.supervisor.status())
    }

    async fn create_source(&self, yaml: String, _actor: Actor) -> Result<SourceResult, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.create_source(&yaml).await }).await
    }

    async fn update_source(&self, yaml: String, _actor: Actor) -> Result<SourceResult, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.update_source(&yaml).await }).await
    }

    async fn stop_source(&self, source_id: String, _actor: Actor) -> Result<SourceResult, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.stop_source(&source_id).await }).await
    }

    async fn start_task(&self, request: StartTask, _actor: Actor) -> Result<Vec<SourceResult>, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.start_task(&request).await }).await
    }

    async fn operate_task(&self, request: OperateTask, actor: Actor) -> Result<Vec<SourceResult>, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.operate_task(&request, &actor).await }).await
    }

    async fn update_task(
        &self,
        yaml: String,
        sources: Vec<String>,
        _actor: Actor,
    ) -> Result<Vec<SourceResult>, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.update_task(&yaml, &sources).await }).await
    }

    async fn order_event(&self, source_id: String, order: EventOrder, _actor: Actor) -> Result<String, EventRefusal> {
        let supervisor = self.supervisor.clone();
        let ran = self.on_runtime(async move { Ok(supervisor.order_event(&source_id, &order).await) }).await;
        ran?
    }

    async fn order_schema(&self, source_id: String, order: SchemaOrder, _actor: Actor) -> Result<String, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.order_schema(&source_id, &order).await }).await
    }

    async fn resync_table(&self, request: ResyncTable, _actor: Actor) -> Result<(String, String), Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.resync_table(&request).await }).await
    }

    async fn check_task(&self, yaml: String, start_time: String) -> Result<String, Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.check_task(&yaml, &start_time).await }).await
    }

    async fn relay(&self, op: RelayOp, source_id: String, _actor: Actor) -> Result<SourceResult, Failure> {
        let wish = match op {
            RelayOp::Start => RelayWish::Start,
            RelayOp::Stop => RelayWish::Stop,
            RelayOp::Pause => RelayWish::Pause,
            RelayOp::Resume => RelayWish::Resume,
        };
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.relay(wish, &source_id).await }).await
    }

    async fn purge_relay(&self, source_id: String, filename: String, _actor: Actor) -> Result<(), Failure> {
        let supervisor = self.supervisor.clone();
        self.on_runtime(async move { supervisor.purge_relay(&source_id, &filename).await }).await
    }

    fn source_config(&self, source_id: &str) -> Option<String> {
        self.supervisor.source_config(source_id)
    }

    fn task_config(&self, name: &str) -> Option<String> {
        self.supervisor.task_config(name)
    }

    fn worker_config(&self) -> String {
        self.worker_toml.clone()
    }

    fn set_log_level(&self, level: &str) -> Result<String, Failure> {
        let parsed =
            LogFilter::parse(level).map_err(|text| Failure::new(Code::WorkerConfig, format!("log-level: {text}")))?;
        self.level.set(&parsed);
        Ok(self.level.get().to_string())
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn events(&self) -> broadcast::Receiver<AgentEvent> {
        self.events.subscribe()
    }
}
