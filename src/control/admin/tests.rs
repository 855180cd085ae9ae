//! The server over a real socket, with a backend double behind it.
//!
//! Whoever runs the tests has the level admin, being the server's own user; the other levels are tested against the
//! service with a peer put in by hand, as the connection would.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::journal::Journal;
use super::master_service::MasterService;
use super::peer::{Level, Peer};
use super::{AdminServer, AdminSocket};
use crate::control::backend::AgentEvent;
use crate::control::connection::Limits;
use crate::control::master_api::MasterApi;
use crate::control::master_api::tests::Double;
use crate::control::pb_status::tests::{agent, running_task, source};
use crate::control::proto::agent::agent_client::AgentClient;
use crate::control::proto::agent::{EventsRequest, SetLogLevelRequest, StatusRequest, WatchStatusRequest};
use crate::control::proto::pb::{self, master_client::MasterClient, master_server::Master};

/// A server on a socket of its own, and the double behind it.
struct Running {
    double: Arc<Double>,
    path: PathBuf,
    server: AdminServer,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(limits: Limits) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let double = Double::new(agent(vec![source()], vec![running_task()]));
        let socket = AdminSocket::bind(&path).unwrap();
        let server = AdminServer::with_limits(socket, None, double.clone(), limits).unwrap();
        Running { double, path, server, _dir: dir }
    }

    async fn channel(&self) -> Channel {
        let path = self.path.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://x.invalid").connect_with_connector(connector).await.unwrap()
    }

    /// The answer to some bytes, up to the end of the connection.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        // A server that hangs up early is an answer too.
        drop(stream.write_all(bytes).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, page: &str) -> String {
        self.raw(format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
    }
}

fn pause() -> pb::OperateTaskRequest {
    pb::OperateTaskRequest { op: pb::TaskOp::Pause.into(), name: "t1".to_owned(), sources: vec![] }
}

#[tokio::test]
async fn both_services_and_all_pages_answer_on_one_socket() {
    let running = Running::start(Limits::default());
    let channel = running.channel().await;
    let answer = MasterClient::new(channel.clone()).query_status(pb::QueryStatusListRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().sources[0].sub_task_status[0].name, "t1");
    let status = AgentClient::new(channel).status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.ready && status.tasks[0].stage == "Running");
    let page = running.get("/status").await;
    let json: serde_json::Value = serde_json::from_str(page.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(json["tasks"][0]["rows_total"], 5);
    assert!(page.contains("content-type: application/json"), "{page}");
    assert!(running.get("/metrics").await.contains("dm_worker_task_state{source_id=\"mysql-01\",task=\"t1\""));
    assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
    let missing = running.get("/nosuch").await;
    assert!(missing.starts_with("HTTP/1.1 404") && missing.ends_with("404 page not found\n"), "{missing}");
    let post = running.raw(b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}

#[tokio::test]
async fn an_agent_that_loads_is_alive_and_not_ready() {
    let running = Running::start(Limits::default());
    *running.double.status.lock().unwrap() = Arc::new(crate::supervisor::AgentStatus {
        worker: String::new(),
        in_cluster: false,
        loading: true,
        sources: vec![],
        tasks: vec![],
        operate_errors: [].into(),
    });
    assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(running.get("/readyz").await.starts_with("HTTP/1.1 503"));
    // A task that is not there yet is not one that does not exist.
    let mut master = MasterClient::new(running.channel().await);
    for name in ["", "t1"] {
        let request = pb::QueryStatusListRequest { name: name.to_owned(), ..Default::default() };
        let answer = master.query_status(request).await.unwrap().into_inner();
        assert!(!answer.result && answer.msg.contains("still loading"), "{answer:?}");
    }
    let answer = master.operate_task(pause()).await.unwrap().into_inner();
    assert!(!answer.result && answer.msg.contains("still loading"), "{answer:?}");
}

#[tokio::test]
async fn a_command_that_hangs_holds_nobody_up() {
    let running = Running::start(Limits::default());
    running.double.gate.forget_permits(1000);
    let mut master = MasterClient::new(running.channel().await);
    let mut other = master.clone();
    let hanging = other.operate_task(pause());
    tokio::pin!(hanging);
    tokio::select! {
        answer = &mut hanging => panic!("answered although the backend waits: {answer:?}"),
        status = master.query_status(pb::QueryStatusListRequest::default()) => assert!(status.unwrap().into_inner().result),
    }
    running.double.gate.add_permits(1);
    assert!(hanging.await.unwrap().into_inner().result);
}

#[tokio::test]
async fn malformed_input_ends_its_connection_and_nothing_else() {
    let (idle, drain) = (Duration::from_millis(100), Duration::from_millis(50));
    let running = Running::start(Limits { idle, drain, ..Limits::default() });
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let inputs: [&[u8]; 6] = [
        b"\0\xff\xfe garbage \r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET /status HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /sta",
        huge.as_bytes(),
    ];
    for input in inputs {
        let answer = running.raw(input).await;
        assert!(!answer.contains("200 OK"), "{:?} got {answer}", String::from_utf8_lossy(&input[..9.min(input.len())]));
    }
    assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(!running.server.is_finished());
}

#[tokio::test]
async fn idle_connections_are_closed_and_streams_are_not_idle() {
    let (idle, drain) = (Duration::from_millis(50), Duration::from_millis(50));
    let running = Running::start(Limits { idle, drain, ..Limits::default() });
    assert_eq!(running.raw(b"").await, "");
    let mut agent = AgentClient::new(running.channel().await);
    let mut watch = agent.watch_status(WatchStatusRequest { interval_ms: 200 }).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(watch.message().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away() {
    let running = Running::start(Limits { connections: 1, ..Limits::default() });
    let mut first = MasterClient::new(running.channel().await);
    first.query_status(pb::QueryStatusListRequest::default()).await.unwrap();
    assert_eq!(running.get("/healthz").await, "");
    first.query_status(pb::QueryStatusListRequest::default()).await.unwrap();
}

#[tokio::test]
async fn requests_that_are_too_large_or_unknown_are_told_so() {
    let running = Running::start(Limits::default());
    let mut master = MasterClient::new(running.channel().await);
    let large = pb::StartTaskRequest { task: "x".repeat(17 << 20), ..Default::default() };
    assert_eq!(master.start_task(large).await.unwrap_err().code(), Code::OutOfRange);
    let lock = master.show_ddl_locks(pb::ShowDdlLocksRequest::default()).await.unwrap_err();
    assert_eq!(lock.code(), Code::Unimplemented);
    assert!(lock.message().contains("does not merge shards"), "{lock}");
    let worker = pb::worker_client::WorkerClient::new(running.channel().await)
        .query_status(pb::QueryStatusRequest::default())
        .await;
    let worker = worker.unwrap_err();
    assert_eq!((worker.code(), worker.message()), (Code::Unimplemented, "unknown service pb.Worker"));
}

#[tokio::test]
async fn events_and_audit_are_kept_and_followed() {
    let running = Running::start(Limits::default());
    let channel = running.channel().await;
    MasterClient::new(channel.clone()).operate_task(pause()).await.unwrap();
    let mut agent = AgentClient::new(channel);
    agent.set_log_level(SetLogLevelRequest { level: "debug".to_owned() }).await.unwrap();
    let mut events = agent.events(EventsRequest { recent: 0, follow: true }).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first.kind, "audit");
    assert!(first.text.contains("pause-task \"t1\": ok"), "{}", first.text);
    assert!(events.message().await.unwrap().unwrap().text.contains("log-level \"debug\": ok"));
    let (source_id, task) = ("mysql-01".to_owned(), "t1".to_owned());
    let event = AgentEvent { at: SystemTime::UNIX_EPOCH, kind: "stage", source_id, task, text: "Paused".to_owned() };
    running.double.events.send(event).unwrap();
    assert_eq!(events.message().await.unwrap().unwrap().text, "Paused");
}

#[tokio::test]
async fn a_stop_ends_streams_and_removes_the_socket() {
    let running = Running::start(Limits { drain: Duration::from_millis(50), ..Limits::default() });
    let mut agent = AgentClient::new(running.channel().await);
    let mut watch = agent.watch_status(WatchStatusRequest { interval_ms: 200 }).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let Running { server, path, _dir, .. } = running;
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(!path.exists());
    while let Ok(Some(_)) = watch.message().await {}
}

/// Calls a method as a peer of a level.
macro_rules! as_peer {
    ($service:expr, $level:expr, $method:ident, $request:expr) => {{
        let mut request = Request::new($request);
        request.extensions_mut().insert(Peer { uid: 1000, pid: Some(7), level: $level });
        $service.$method(request).await.map(|_| ()).map_err(|status| status.code())
    }};
}

#[tokio::test]
async fn each_level_may_do_what_it_is_for() {
    let double = Double::new(agent(vec![source()], vec![running_task()]));
    let journal = Arc::new(Journal::new());
    let service = MasterService::new(MasterApi::new(double.clone(), String::new()), journal.clone());
    let task = |op: pb::TaskOp| pb::OperateTaskRequest { op: op.into(), ..pause() };
    let source_op = |op: pb::SourceOp| pb::OperateSourceRequest { op: op.into(), ..Default::default() };
    for level in [Level::Read, Level::Operate, Level::Admin] {
        let needs = |needed: Level| if level >= needed { Ok(()) } else { Err(Code::PermissionDenied) };
        assert_eq!(as_peer!(service, level, query_status, Default::default()), Ok(()));
        assert_eq!(as_peer!(service, level, get_cfg, Default::default()), Ok(()));
        assert_eq!(as_peer!(service, level, list_member, Default::default()), Ok(()));
        assert_eq!(as_peer!(service, level, operate_source, source_op(pb::SourceOp::ShowSource)), Ok(()));
        assert_eq!(as_peer!(service, level, operate_task, task(pb::TaskOp::Pause)), needs(Level::Operate));
        assert_eq!(as_peer!(service, level, operate_task, task(pb::TaskOp::Resume)), needs(Level::Operate));
        assert_eq!(as_peer!(service, level, operate_worker_relay_task, Default::default()), needs(Level::Operate));
        assert_eq!(as_peer!(service, level, purge_worker_relay, Default::default()), needs(Level::Operate));
        assert_eq!(as_peer!(service, level, operate_task, task(pb::TaskOp::Delete)), needs(Level::Admin));
        assert_eq!(as_peer!(service, level, operate_task, task(pb::TaskOp::Update)), needs(Level::Admin));
        assert_eq!(as_peer!(service, level, start_task, Default::default()), needs(Level::Admin));
        assert_eq!(as_peer!(service, level, operate_relay, Default::default()), needs(Level::Admin));
        for op in [pb::SourceOp::StartSource, pb::SourceOp::UpdateSource, pb::SourceOp::StopSource] {
            assert_eq!(as_peer!(service, level, operate_source, source_op(op)), needs(Level::Admin));
        }
    }
    let nobody = service.operate_task(Request::new(pause())).await.unwrap_err();
    assert_eq!(nobody.code(), Code::PermissionDenied);
    let denied = journal.listen(0).0.into_iter().filter(|e| e.text.contains("denied: has read")).count();
    assert_eq!(denied, 11, "every denied command is audited");
}

#[tokio::test]
async fn secrets_stay_out_of_the_audit() {
    let double = Double::new(agent(vec![], vec![]));
    let journal = Arc::new(Journal::new());
    let service = MasterService::new(MasterApi::new(double, String::new()), journal.clone());
    let config = vec!["source-id: mysql-09\nfrom: {password: hunter2}\n".to_owned(), "password: hunter2 :".to_owned()];
    let create = pb::OperateSourceRequest { op: pb::SourceOp::StartSource.into(), config, ..Default::default() };
    assert_eq!(as_peer!(service, Level::Admin, operate_source, create), Ok(()));
    let task = "name: t9\ntarget-database: {password: hunter2}\n".to_owned();
    let start = pb::StartTaskRequest { task, ..Default::default() };
    assert_eq!(as_peer!(service, Level::Admin, start_task, start), Ok(()));
    let lines: Vec<String> = journal.listen(0).0.into_iter().map(|e| e.text).collect();
    assert!(lines[0].contains("mysql-09") && lines[1].contains("t9"), "{lines:?}");
    assert!(!lines.concat().contains("hunter2"), "{lines:?}");
}
