//! The answers against recorded ones, with a backend double that says what it is told to say.

use std::sync::Mutex;

use tokio::sync::broadcast;

use super::*;
use crate::control::backend::{AgentEvent, RelayOp};
use crate::control::pb_status::tests::{agent, parked_task, running_task, source};
use crate::supervisor::{
    Actor, AgentStatus, EventOrder, EventRefusal, OperateTask, Receiving, ResyncTable, SchemaOrder, StartTask,
};
use crate::task::{ParkReason, TaskStatus};

/// A backend that records what was asked, and answers every task operation with success on each source, or with a
/// failure that was put in.
pub(crate) struct Double {
    pub status: Mutex<Arc<AgentStatus>>,
    pub asked: Mutex<Vec<String>>,
    pub refuse: Mutex<Option<Failure>>,
    /// Operations of tasks wait for this to be released.
    pub gate: tokio::sync::Semaphore,
    pub events: broadcast::Sender<AgentEvent>,
}

impl Double {
    pub fn new(status: AgentStatus) -> Arc<Double> {
        Arc::new(Double {
            status: Mutex::new(Arc::new(status)),
            asked: Mutex::default(),
            refuse: Mutex::default(),
            gate: tokio::sync::Semaphore::new(1000),
            events: broadcast::channel(16).0,
        })
    }

    fn answer<T>(&self, asked: String, answer: T) -> Result<T, Failure> {
        self.asked.lock().unwrap().push(asked);
        match self.refuse.lock().unwrap().clone() {
            Some(failure) => Err(failure),
            None => Ok(answer),
        }
    }

    fn done(&self, source: &str) -> SourceResult {
        SourceResult { source: source.to_owned(), worker: "worker1".to_owned(), result: Ok(String::new()) }
    }
}

#[tonic::async_trait]
impl Backend for Double {
    fn status(&self) -> Arc<AgentStatus> {
        self.status.lock().unwrap().clone()
    }

    async fn create_source(&self, _: String, actor: Actor) -> Result<SourceResult, Failure> {
        self.answer(format!("create by {}", actor.name), self.done("mysql-01"))
    }

    async fn update_source(&self, _: String, _: Actor) -> Result<SourceResult, Failure> {
        self.answer("update".to_owned(), self.done("mysql-01"))
    }

    async fn stop_source(&self, source_id: String, _: Actor) -> Result<SourceResult, Failure> {
        self.answer(format!("stop {source_id}"), self.done(&source_id))
    }

    async fn start_task(&self, request: StartTask, _: Actor) -> Result<Vec<SourceResult>, Failure> {
        let mut done = self.done("mysql-01");
        if let Some(failure) = self.refuse.lock().unwrap().take_if(|f| f.code == 20057) {
            done.result = Err(failure);
        }
        self.answer(format!("start {}", request.start_time), vec![done])
    }

    async fn operate_task(&self, request: OperateTask, _: Actor) -> Result<Vec<SourceResult>, Failure> {
        let _open = self.gate.acquire().await;
        self.answer(format!("{:?} {}", request.op, request.name), vec![self.done("mysql-01")])
    }

    async fn update_task(&self, _: String, _: Vec<String>, _: Actor) -> Result<Vec<SourceResult>, Failure> {
        self.answer("update task".to_owned(), vec![self.done("mysql-01")])
    }

    async fn order_event(&self, source_id: String, order: EventOrder, _: Actor) -> Result<String, EventRefusal> {
        Ok(self.answer(format!("{:?} {source_id} {}", order.op, order.place), "[]".to_owned())?)
    }

    async fn order_schema(&self, source_id: String, order: SchemaOrder, _: Actor) -> Result<String, Failure> {
        self.answer(format!("{:?} {source_id} {}.{}", order.op, order.database, order.table), String::new())
    }

    async fn resync_table(&self, request: ResyncTable, actor: Actor) -> Result<(String, String), Failure> {
        let asked = format!("resync {}.{} of {} by {}", request.schema, request.table, request.task, actor.name);
        self.answer(asked, ("mysql-01".to_owned(), String::new()))
    }

    async fn check_task(&self, _: String, _: String) -> Result<String, Failure> {
        self.answer("check".to_owned(), String::new())
    }

    async fn relay(&self, op: RelayOp, source_id: String, _: Actor) -> Result<SourceResult, Failure> {
        self.answer(op.as_str().to_owned(), self.done(&source_id))
    }

    async fn purge_relay(&self, _: String, filename: String, _: Actor) -> Result<(), Failure> {
        self.answer(format!("purge {filename}"), ())
    }

    fn source_config(&self, source_id: &str) -> Option<String> {
        (source_id == "mysql-01").then(|| "source-id: mysql-01\n".to_owned())
    }

    fn task_config(&self, name: &str) -> Option<String> {
        (name == "t1").then(|| "name: t1\n".to_owned())
    }

    fn worker_config(&self) -> String {
        "name = \"worker1\"\n".to_owned()
    }

    fn set_log_level(&self, level: &str) -> Result<String, Failure> {
        self.answer(format!("level {level}"), level.to_owned())
    }

    fn ready(&self) -> bool {
        self.status().worker == "worker1"
    }

    fn events(&self) -> broadcast::Receiver<AgentEvent> {
        self.events.subscribe()
    }
}

fn api(status: AgentStatus) -> (MasterApi, Arc<Double>) {
    let double = Double::new(status);
    (MasterApi::new(double.clone(), "unix:/x".to_owned()), double)
}

fn actor() -> Actor {
    Actor { name: "uid 1".to_owned() }
}

/// The JSON between the command line, warnings, and the exit code of a recording.
fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/dmctl/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let start = text.find("\n{\n").unwrap() + 1;
    let end = text.rfind("\n}\n").unwrap() + 3;
    text[start..end].to_owned()
}

fn assert_golden<M: prost::Message>(name: &str, message: &str, answer: &M) {
    let printed = crate::ctl::json::print(message, answer).unwrap();
    assert_eq!(printed, golden(name), "{name}");
}

fn task(op: pb::TaskOp, name: &str, sources: &[&str]) -> pb::OperateTaskRequest {
    let sources = sources.iter().map(|s| (*s).to_owned()).collect();
    pb::OperateTaskRequest { op: op.into(), name: name.to_owned(), sources }
}

#[tokio::test]
async fn pause_resume_and_stop_answer_as_recorded() {
    let (api, _) = api(agent(vec![source()], vec![running_task()]));
    let ops = [
        (pb::TaskOp::Pause, "t1", &[][..], "pause-task"),
        (pb::TaskOp::Resume, "t1", &[], "resume-task"),
        (pb::TaskOp::Delete, "t1", &[], "stop-task"),
        (pb::TaskOp::Pause, "nope", &[], "pause-task-nonexistent"),
        (pb::TaskOp::Pause, "t1", &["wrong-source"], "pause-task-wrong-source"),
    ];
    for (op, name, sources, recorded) in ops {
        let answer = api.operate_task(task(op, name, sources), actor()).await;
        assert_golden(recorded, "pb.OperateTaskResponse", &answer);
    }
    let unknown = api.operate_task(task(pb::TaskOp::Pause, "nope", &["mysql-01"]), actor()).await;
    assert!(unknown.msg.starts_with("[code=46016:"), "{}", unknown.msg);
    let invalid = api.operate_task(task(pb::TaskOp::Start, "t1", &[]), actor()).await;
    assert!(!invalid.result && !invalid.msg.is_empty());
}

#[tokio::test]
async fn pausing_a_failed_task_is_done_and_tells_the_failure() {
    let mut failed = parked_task(ParkReason::Error);
    failed.name = "te".to_owned();
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/golden/errors/duplicate-key.json")).unwrap();
    let error = &recorded["response"]["subTaskStatus"][0]["result"]["errors"][0];
    let mut failure = Failure::new(Code::ExecuteFailed, error["Message"].as_str().unwrap())
        .cause(error["RawCause"].as_str().unwrap());
    failure.workaround.clear();
    failed.failures = vec![failure];
    let (api, _) = api(agent(vec![source()], vec![failed]));
    let answer = api.operate_task(task(pb::TaskOp::Pause, "te", &[]), actor()).await;
    let msg = &answer.sources[0].msg;
    assert!(answer.sources[0].result);
    assert!(msg.starts_with("[code=38032:class=dm-master:scope=internal:level=high], Message: some error occurs in dm-worker: ErrCode:10006 "), "{msg}");
    assert!(msg.ends_with(" , Workaround: Please execute `query-status` to check status."), "{msg}");
}

#[tokio::test]
async fn start_task_answers_as_recorded() {
    let (api, double) = api(agent(vec![source()], vec![]));
    let request = || pb::StartTaskRequest { task: "name: t1".to_owned(), ..Default::default() };
    assert_golden("start-task-t1", "pb.StartTaskResponse", &api.start_task(request(), actor()).await);
    let late = pb::StartTaskRequest { start_time: "yesterday".to_owned(), ..request() };
    assert_golden("start-task-bad-time2", "pb.StartTaskResponse", &api.start_task(late, actor()).await);
    *double.refuse.lock().unwrap() =
        Some(Failure::new(Code::TaskExists, "subtasks with name t1 for sources [mysql-01] already exist"));
    assert_golden("start-task-exists-paused", "pb.StartTaskResponse", &api.start_task(request(), actor()).await);
}

#[tokio::test]
async fn a_workers_failure_at_the_start_is_the_sources_and_not_the_requests() {
    let (api, double) = api(agent(vec![source()], vec![]));
    let why = "start-time 2099-01-01 00:00:00 is too late, no binlog location matches it";
    let remedy = "Please check the `--start-time` is expected or try again later.";
    *double.refuse.lock().unwrap() = Some(Failure::new(Code::StartTimeTooLate, why).workaround(remedy));
    let request = pb::StartTaskRequest { start_time: "2099-01-01 00:00:00".to_owned(), ..Default::default() };
    let mut answer = api.start_task(request, actor()).await;
    answer.sources[0].source = "mysql-02".to_owned();
    answer.sources[0].worker = "worker2".to_owned();
    assert_golden("start-task-bad-time", "pb.StartTaskResponse", &answer);
}

#[tokio::test]
async fn query_status_refuses_what_it_does_not_know() {
    let (api, _) = api(agent(vec![source()], vec![running_task()]));
    let query = |name: &str, source: &str| {
        let sources = if source.is_empty() { vec![] } else { vec![source.to_owned()] };
        api.query_status(&pb::QueryStatusListRequest { name: name.to_owned(), sources })
    };
    let message = "pb.QueryStatusListResponse";
    assert_golden("query-status-02-unknown-task", message, &query("nope", ""));
    assert_golden("query-status-03-unknown-source", message, &query("", "nosuch"));
    assert_eq!(query("t1", "").sources.len(), 1);
    assert_eq!(query("", "mysql-01").sources[0].sub_task_status.len(), 1);
}

#[tokio::test]
async fn sources_are_created_all_or_none() {
    let (api, double) = api(agent(vec![source()], vec![]));
    let request = |op: pb::SourceOp, configs: &[&str]| pb::OperateSourceRequest {
        op: op.into(),
        config: configs.iter().map(|c| (*c).to_owned()).collect(),
        ..Default::default()
    };
    let message = "pb.OperateSourceResponse";
    let created = api.operate_source(request(pb::SourceOp::StartSource, &["x"]), actor()).await;
    assert_golden("operate-source-create", message, &created);
    assert_golden(
        "operate-source-show-01",
        message,
        &api.operate_source(request(pb::SourceOp::ShowSource, &[]), actor()).await,
    );
    *double.refuse.lock().unwrap() =
        Some(Failure::new(Code::SourceExists, "source config with ID mysql-01 already exists"));
    let again = api.operate_source(request(pb::SourceOp::StartSource, &["x"]), actor()).await;
    assert_golden("operate-source-create-again", message, &again);
    *double.refuse.lock().unwrap() = None;
    api.operate_source(request(pb::SourceOp::StopSource, &["source-id: mysql-07"]), actor()).await;
    assert_eq!(double.asked.lock().unwrap().last().unwrap(), "stop mysql-07");
    let nameless = api.operate_source(request(pb::SourceOp::StopSource, &["from: {}"]), actor()).await;
    assert!(!nameless.result && nameless.msg.contains("source-id"), "{}", nameless.msg);
}

#[tokio::test]
async fn relay_commands_answer_as_recorded() {
    let mut idle = source();
    idle.receiving = Receiving::Idle;
    let (on, double) = api(agent(vec![source()], vec![]));
    let (off, _) = api(agent(vec![idle], vec![]));
    let park = |op: pb::RelayOp| pb::OperateWorkerRelayRequest { op: op.into(), sources: vec!["mysql-01".to_owned()] };
    let message = "pb.OperateWorkerRelayResponse";
    let paused = on.operate_worker_relay(park(pb::RelayOp::PauseRelay), actor()).await;
    assert_golden("pause-relay", message, &paused);
    assert_golden(
        "pause-relay-disabled",
        message,
        &off.operate_worker_relay(park(pb::RelayOp::PauseRelay), actor()).await,
    );
    let start = |worker: &[&str]| pb::OperateRelayRequest {
        op: pb::RelayOpV2::StartRelayV2.into(),
        source: "mysql-01".to_owned(),
        worker: worker.iter().map(|w| (*w).to_owned()).collect(),
    };
    assert_golden("start-relay-no-worker", "pb.OperateRelayResponse", &on.operate_relay(start(&[]), actor()).await);
    assert_golden(
        "start-relay-worker",
        "pb.OperateRelayResponse",
        &on.operate_relay(start(&["worker1"]), actor()).await,
    );
    assert!(
        on.operate_relay(start(&["worker9"]), actor()).await.msg.contains("dm-worker with name worker9 not exists")
    );

    let purge = |source: &str, filename: &str| pb::PurgeWorkerRelayRequest {
        sources: vec![source.to_owned()],
        filename: filename.to_owned(),
        ..Default::default()
    };
    let message = "pb.PurgeWorkerRelayResponse";
    assert_golden("purge-relay-ok", message, &on.purge_relay(purge("mysql-01", "mysql-bin.000006"), actor()).await);
    assert_golden(
        "purge-relay-wrong-source",
        message,
        &on.purge_relay(purge("nosuch", "mysql-bin.000002"), actor()).await,
    );
    let why = "relay log purge is forbidden temporarily, because sub task t1 current stage is Paused";
    *double.refuse.lock().unwrap() = Some(Failure::new(Code::PurgeForbidden, why));
    assert_golden("purge-relay-refused-paused", message, &on.purge_relay(purge("mysql-01", "x.000003"), actor()).await);
    assert!(!on.purge_relay(purge("mysql-01", ""), actor()).await.sources[0].result);
}

#[tokio::test]
async fn configurations_and_members() {
    let (api, _) = api(agent(vec![source()], vec![running_task()]));
    let get = |kind: pb::CfgType, name: &str| {
        api.get_config(&pb::GetCfgRequest { r#type: kind.into(), name: name.to_owned() })
    };
    assert_eq!(get(pb::CfgType::TaskType, "t1").cfg, "name: t1\n");
    assert_golden("get-config-task-unknown", "pb.GetCfgResponse", &get(pb::CfgType::TaskType, "t9"));
    assert!(get(pb::CfgType::WorkerType, "worker1").result && !get(pb::CfgType::WorkerType, "worker2").result);
    assert!(get(pb::CfgType::MasterType, "m").msg.contains("dm-master"));
    let mut members = api.list_member(&pb::ListMemberRequest { worker: true, ..Default::default() });
    if let Some(pb::members::Member::Worker(workers)) = &mut members.members[0].member {
        workers.workers[0].addr = "127.0.0.1:18262".to_owned();
    }
    assert_golden("list-member-02-bound", "pb.ListMemberResponse", &members);
}

#[tokio::test]
async fn what_has_no_effect_is_told_where_dm_tells_what_it_checked() {
    let with_notes = |source: &str, notes: &[&str]| TaskStatus {
        source_id: source.to_owned(),
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        ..running_task()
    };
    let usual = "`ignore-checking-items` has no meaning here: a reason";
    let tasks = vec![with_notes("mysql-01", &["b", usual, "a"]), with_notes("mysql-02", &["a"])];
    let (api, _) = api(agent(vec![source()], tasks));
    let start = |task: &str| pb::StartTaskRequest { task: task.to_owned(), ..Default::default() };
    let answer = api.start_task(start("name: t1\ntask-mode: incremental\n"), actor()).await;
    assert_eq!((answer.result, answer.check_result.as_str()), (true, "note: a\nnote: b"));
    assert_eq!(api.start_task(start("name: other\n"), actor()).await.check_result, "");
    assert_eq!(api.start_task(start("{"), actor()).await.check_result, "");
}
