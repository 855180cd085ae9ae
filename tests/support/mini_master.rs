//! A dm-master in miniature, on a real etcd: it writes the keys and calls the RPCs as dm-master does, no more.
//!
//! One port serves `pb.Master/RegisterWorker` and passes everything else on to etcd, as dm-master's does. A loop follows
//! the workers' leased keys, binds sources and takes them away. Operations write a stage and poll the worker, the first
//! time at once and then each second, and say how long that took.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dm_agent::control::proto::etcd::watch_client::WatchClient;
use dm_agent::control::proto::etcd::{RequestOp, WatchCreateRequest, WatchRequest, event, watch_request};
use dm_agent::control::proto::pb;
use dm_agent::control::proto::pb::worker_client::WorkerClient;
use dm_agent::tls::cluster_server;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, RwLock, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower::Service;

use super::certificates::Identity;
use super::etcd::{Etcd, delete, put};
use super::process::free_port;
use super::proxy::Proxy;

/// How often a master asks whether an operation is done.
const POLLS: u32 = 10;

/// What an operation came to.
#[derive(Debug, Clone)]
pub struct Operated {
    /// Whether the stage was reached.
    pub ok: bool,
    /// Errors that ended the polling, or stood beside the stage.
    pub errors: Vec<pb::ProcessError>,
    /// Which poll decided.
    pub polls: u32,
    /// From the write to the decision.
    pub took: Duration,
}

impl Operated {
    /// Panics unless the first or second poll found it done and without errors.
    #[track_caller]
    pub fn expect_quick(&self) -> &Operated {
        assert!(self.ok && self.errors.is_empty() && self.polls <= 2, "{self:#?}");
        self
    }
}

#[derive(Debug, Default)]
struct State {
    /// Addresses by worker name.
    registered: BTreeMap<String, String>,
    /// Workers whose leased key is there.
    alive: BTreeMap<String, ()>,
    /// Workers by source.
    bounds: BTreeMap<String, String>,
    /// Sources that are to be bound.
    sources: Vec<String>,
    /// Relay workers: source by worker.
    relay_workers: BTreeMap<String, String>,
    /// What RegisterWorker hands out.
    secret_key: Vec<u8>,
    /// Bounds are not given any more, nor taken away.
    absent: bool,
    /// Revision of the last event taken in.
    seen: i64,
}

/// The master.
pub struct MiniMaster {
    /// Its etcd; behind a lock, because a test may kill it.
    pub etcd: Arc<RwLock<Etcd>>,
    /// Address for `join`.
    pub address: String,
    state: Arc<Mutex<State>>,
    tasks: Vec<JoinHandle<()>>,
    identity: Option<Identity>,
}

impl Drop for MiniMaster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// DM's key of a prefix and parts.
pub fn key(prefix: &str, parts: &[&str]) -> String {
    let hex = |part: &&str| {
        part.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes everything");
            text
        })
    };
    format!("{prefix}{}", parts.iter().map(hex).collect::<Vec<_>>().join("/"))
}

fn bound_key(worker: &str) -> String {
    key("/dm-master/bound-worker/", &[worker])
}

fn stage_key(source: &str, task: &str) -> String {
    key("/dm-master/stage/subtask/", &[source, task])
}

fn config_key(source: &str, task: &str) -> String {
    key("/dm-master/upstream/subtask/", &[source, task])
}

fn stage(expect: i32, source: &str, task: &str) -> String {
    format!("{{\"expect\":{expect},\"source\":\"{source}\",\"task\":\"{task}\"}}")
}

fn bind_ops(worker: &str, source: &str) -> Vec<RequestOp> {
    let value = format!("{{\"source\":\"{source}\",\"worker\":\"{worker}\"}}");
    vec![put(&bound_key(worker), &value), put(&key("/dm-master/last-bound-worker/", &[worker]), &value)]
}

impl MiniMaster {
    /// Starts etcd and master.
    pub async fn start() -> MiniMaster {
        Self::start_as(None).await
    }

    /// The same, with TLS both ways where it has an identity.
    pub async fn start_as(identity: Option<Identity>) -> MiniMaster {
        Self::start_on(free_port(), identity, None).await
    }

    /// The same with a way for one worker that can be cut: it must join at the proxy, and is told no other address.
    pub async fn start_behind() -> (MiniMaster, Proxy) {
        let port = free_port();
        let proxy = Proxy::start(port);
        (Self::start_on(port, None, Some(proxy.port)).await, proxy)
    }

    async fn start_on(port: u16, identity: Option<Identity>, advertised: Option<u16>) -> MiniMaster {
        let etcd = Etcd::start(identity.clone(), advertised).await;
        let state = Arc::new(Mutex::new(State::default()));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("listen for workers");
        let front = tokio::spawn(front(listener, etcd.stream_channel(), Arc::clone(&state), identity.clone()));
        let etcd = Arc::new(RwLock::new(etcd));
        let follow = tokio::spawn(follow(Arc::clone(&etcd), Arc::clone(&state)));
        MiniMaster { etcd, address: format!("127.0.0.1:{port}"), state, tasks: vec![front, follow], identity }
    }

    /// The key that registrations are answered with.
    pub async fn set_secret_key(&self, key: Vec<u8>) {
        self.state.lock().await.secret_key = key;
    }

    /// While absent, workers that come and go change nothing: a master that was killed.
    pub async fn set_absent(&self, absent: bool) {
        let mut state = self.state.lock().await;
        state.absent = absent;
        if absent {
            return;
        }
        // A leader that starts looks who is there, and writes every bound again.
        let etcd = self.etcd.read().await;
        let keys = etcd.range("/dm-worker/a/", "/dm-worker/a0").await;
        state.alive = keys.iter().map(|kv| (worker_of_key(&kv.key), ())).collect();
        let gone: Vec<String> = state.bounds.values().filter(|of| !state.alive.contains_key(*of)).cloned().collect();
        for worker in gone {
            went(&etcd, &mut state, &worker).await;
        }
        bind_free(&etcd, &mut state).await;
        drop((state, etcd));
        self.repeat_bounds().await;
    }

    /// Writes all bounds again, as a new leader does.
    pub async fn repeat_bounds(&self) {
        let bounds = self.state.lock().await.bounds.clone();
        let ops: Vec<RequestOp> = bounds.iter().flat_map(|(source, worker)| bind_ops(worker, source)).collect();
        if !ops.is_empty() {
            self.etcd.read().await.write(ops).await;
        }
    }

    /// Whether a worker's leased key is there.
    pub async fn is_alive(&self, worker: &str) -> bool {
        self.etcd.read().await.get(&key("/dm-worker/a/", &[worker])).await.is_some()
    }

    /// Who has a source.
    pub async fn worker_of(&self, source: &str) -> Option<String> {
        self.state.lock().await.bounds.get(source).cloned()
    }

    /// A client of a worker.
    pub async fn worker(&self, name: &str) -> WorkerClient<Channel> {
        let address = self.state.lock().await.registered.get(name).cloned();
        let address = address.unwrap_or_else(|| panic!("worker {name} is not registered"));
        if let Some(identity) = &self.identity {
            return WorkerClient::new(identity.channel(&address));
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        WorkerClient::new(endpoint.timeout(Duration::from_secs(30)).connect_lazy())
    }

    /// QueryStatus.
    pub async fn query(&self, worker: &str, task: &str) -> Result<pb::QueryStatusResponse, tonic::Status> {
        let request = pb::QueryStatusRequest { name: task.to_owned() };
        Ok(self.worker(worker).await.query_status(request).await?.into_inner())
    }

    /// operate-source create: stores the configuration, and gives the source to a free worker if there is one.
    pub async fn create_source(&self, id: &str, toml: &str) {
        self.etcd.read().await.write(vec![put(&key("/dm-master/v2/upstream/config/", &[id]), toml)]).await;
        let mut state = self.state.lock().await;
        state.sources.push(id.to_owned());
        bind_free(&*self.etcd.read().await, &mut state).await;
    }

    /// Replaces a source's configuration.
    pub async fn put_source(&self, id: &str, toml: &str) {
        self.etcd.read().await.write(vec![put(&key("/dm-master/v2/upstream/config/", &[id]), toml)]).await;
    }

    /// operate-source stop.
    pub async fn stop_source(&self, id: &str) {
        let mut state = self.state.lock().await;
        state.sources.retain(|source| source != id);
        let mut ops = vec![
            delete(&key("/dm-master/v2/upstream/config/", &[id])),
            delete(&key("/dm-master/v2/stage/relay/", &[id])),
        ];
        if let Some(worker) = state.bounds.remove(id) {
            ops.extend([delete(&bound_key(&worker)), delete(&key("/dm-master/last-bound-worker/", &[&worker]))]);
        }
        self.etcd.read().await.write(ops).await;
    }

    /// Gives a source to another worker at one revision.
    pub async fn move_bound(&self, source: &str, to: &str) {
        let mut state = self.state.lock().await;
        let mut ops = Vec::new();
        if let Some(from) = state.bounds.insert(source.to_owned(), to.to_owned()) {
            ops.push(delete(&bound_key(&from)));
        }
        ops.extend(bind_ops(to, source));
        self.etcd.read().await.write(ops).await;
    }

    /// transfer-source: pauses what runs, waits until every subtask of the worker is paused, moves, resumes.
    pub async fn transfer_source(&self, source: &str, to: &str, tasks: &[&str]) -> Duration {
        let began = Instant::now();
        let from = self.worker_of(source).await.expect("the source is bound");
        self.put_stages(3, source, tasks).await;
        for poll in 0..POLLS {
            let answer = self.query(&from, "").await.expect("QueryStatus");
            if answer.sub_task_status.iter().all(|task| task.stage() == pb::Stage::Paused) {
                break;
            }
            assert!(poll + 1 < POLLS, "not paused: {answer:#?}");
            tokio::time::sleep(Duration::from_secs(u64::from(POLLS - poll))).await;
        }
        self.move_bound(source, to).await;
        // The worker that is free now is given a source again, and may be given this one.
        bring_back(&*self.etcd.read().await, &mut *self.state.lock().await, &from).await;
        self.put_stages(2, source, tasks).await;
        began.elapsed()
    }

    async fn put_stages(&self, expect: i32, source: &str, tasks: &[&str]) {
        let ops = tasks.iter().map(|task| put(&stage_key(source, task), &stage(expect, source, task))).collect();
        self.etcd.read().await.write(ops).await;
    }

    /// start-task, of a configuration that dm-master has made a subtask of.
    pub async fn start_task(&self, source: &str, task: &str, toml: &str, start_time: Option<&str>) -> Operated {
        self.put_start_time(source, task, start_time).await;
        let began = Instant::now();
        let ops = vec![put(&config_key(source, task), toml), put(&stage_key(source, task), &stage(2, source, task))];
        self.etcd.read().await.write(ops).await;
        self.wait_for(began, source, task, |status| reached(status, task, &[pb::Stage::Running, pb::Stage::Finished]))
            .await
    }

    /// What a start-task writes before anything else, also where it is then refused.
    pub async fn put_start_time(&self, source: &str, task: &str, start_time: Option<&str>) {
        let args = key("/dm-master/task-cli-args/", &[task, source]);
        let op = match start_time {
            Some(time) => put(
                &args,
                &format!("{{\"start_time\":\"{time}\",\"safe_mode_duration\":\"\",\"wait_time_on_stop\":\"\"}}"),
            ),
            None => delete(&args),
        };
        self.etcd.read().await.write(vec![op]).await;
    }

    /// Replaces a subtask's configuration (OpenAPI's update).
    pub async fn put_config(&self, source: &str, task: &str, toml: &str) {
        self.etcd.read().await.write(vec![put(&config_key(source, task), toml)]).await;
    }

    /// Writes a stage and asks nobody.
    pub async fn put_stage(&self, source: &str, task: &str, expect: i32) {
        self.put_stages(expect, source, &[task]).await;
    }

    /// pause-task.
    pub async fn pause_task(&self, source: &str, task: &str) -> Operated {
        let began = Instant::now();
        self.put_stages(3, source, &[task]).await;
        self.wait_for(began, source, task, |status| reached(status, task, &[pb::Stage::Paused])).await
    }

    /// resume-task.
    pub async fn resume_task(&self, source: &str, task: &str) -> Operated {
        let began = Instant::now();
        self.put_stages(2, source, &[task]).await;
        self.wait_for(began, source, task, |status| reached(status, task, &[pb::Stage::Running, pb::Stage::Finished]))
            .await
    }

    /// stop-task.
    pub async fn stop_task(&self, source: &str, task: &str) -> Operated {
        let began = Instant::now();
        let ops = vec![delete(&config_key(source, task)), delete(&stage_key(source, task))];
        self.etcd.read().await.write(ops).await;
        let unknown = format!("no sub task with name {task} has started");
        self.wait_for(began, source, task, |status| match status {
            [] => Some(Vec::new()),
            [only] => match &only.status {
                Some(pb::sub_task_status::Status::Msg(msg)) if *msg == unknown => Some(Vec::new()),
                _ => None,
            },
            _ => None,
        })
        .await
    }

    /// stop-task of a subtask whose worker is not there.
    pub async fn forget_task(&self, source: &str, task: &str) {
        self.etcd.read().await.write(vec![delete(&config_key(source, task)), delete(&stage_key(source, task))]).await;
    }

    /// start-relay and stop-relay without a worker's name: the source's configuration, the stage, and the bound again.
    pub async fn set_relay(&self, source: &str, toml_with_enable_relay: &str, on: bool) {
        self.put_source(source, toml_with_enable_relay).await;
        if on {
            self.put_relay_stage(source, 2).await;
        }
        self.repeat_bounds().await;
    }

    /// pause-relay (3), resume-relay (2).
    pub async fn put_relay_stage(&self, source: &str, expect: i32) {
        let value = format!("{{\"expect\":{expect},\"source\":\"{source}\"}}");
        self.etcd.read().await.write(vec![put(&key("/dm-master/v2/stage/relay/", &[source]), &value)]).await;
    }

    /// start-relay with a worker's name.
    pub async fn start_relay_on(&self, source: &str, worker: &str) {
        self.state.lock().await.relay_workers.insert(worker.to_owned(), source.to_owned());
        let stage = format!("{{\"expect\":2,\"source\":\"{source}\"}}");
        let ops = vec![
            put(&key("/dm-master/relay-worker/", &[worker]), source),
            put(&key("/dm-master/v2/stage/relay/", &[source]), &stage),
        ];
        self.etcd.read().await.write(ops).await;
    }

    /// stop-relay with a worker's name, the last one.
    pub async fn stop_relay_on(&self, source: &str, worker: &str) {
        self.state.lock().await.relay_workers.remove(worker);
        let ops = vec![
            delete(&key("/dm-master/relay-worker/", &[worker])),
            delete(&key("/dm-master/v2/stage/relay/", &[source])),
        ];
        self.etcd.read().await.write(ops).await;
    }

    async fn wait_for(
        &self,
        began: Instant,
        source: &str,
        task: &str,
        done: impl Fn(&[pb::SubTaskStatus]) -> Option<Vec<pb::ProcessError>>,
    ) -> Operated {
        let worker = self.worker_of(source).await.expect("the source is bound");
        let mut last = Operated { ok: false, errors: Vec::new(), polls: 0, took: Duration::ZERO };
        for poll in 1..=POLLS {
            if poll > 1 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let answer = self.query(&worker, task).await.expect("QueryStatus");
            let decided = done(&answer.sub_task_status);
            let mut errors: Vec<_> = answer.sub_task_status.iter().flat_map(errors_of).collect();
            last = Operated { polls: poll, took: began.elapsed(), ..last };
            if let Some(beside) = decided {
                return Operated { ok: true, errors: beside, ..last };
            }
            if !errors.is_empty() {
                last.errors.append(&mut errors);
                return last;
            }
        }
        last
    }
}

fn errors_of(status: &pb::SubTaskStatus) -> Vec<pb::ProcessError> {
    status.result.as_ref().map(|result| result.errors.clone()).unwrap_or_default()
}

fn reached(status: &[pb::SubTaskStatus], task: &str, stages: &[pb::Stage]) -> Option<Vec<pb::ProcessError>> {
    match status {
        [only] if only.name == task && stages.contains(&only.stage()) => Some(errors_of(only)),
        _ => None,
    }
}

/// Registrations here, everything else to etcd.
async fn front(listener: TcpListener, etcd: Channel, state: Arc<Mutex<State>>, identity: Option<Identity>) {
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (mut etcd, state) = (etcd.clone(), Arc::clone(&state));
        async move {
            if request.uri().path() == "/pb.Master/RegisterWorker" {
                return register(request, state).await;
            }
            // Ready at once: calls are queued.
            if std::future::poll_fn(|cx| etcd.poll_ready(cx)).await.is_err() {
                return tonic::Status::unavailable("etcd is gone").into_http();
            }
            match etcd.call(request.map(tonic::body::Body::new)).await {
                Ok(response) => response.map(axum::body::Body::new),
                Err(error) => tonic::Status::unavailable(error.to_string()).into_http(),
            }
        }
    });
    let Some(identity) = identity else { return axum::serve(listener, router).await.expect("serve workers") };
    let config = cluster_server(&identity.files()).await.expect("certificates of the test");
    loop {
        let (stream, _) = listener.accept().await.expect("accept a worker");
        let (acceptor, service) = (TlsAcceptor::from(config.clone()), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // Whoever shows no certificate of the cluster is not spoken to.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let builder = auto::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn register(request: axum::extract::Request, state: Arc<Mutex<State>>) -> axum::response::Response {
    let service = tower::service_fn(move |request: tonic::Request<pb::RegisterWorkerRequest>| {
        let state = Arc::clone(&state);
        async move {
            let pb::RegisterWorkerRequest { name, address } = request.into_inner();
            let mut state = state.lock().await;
            let answer = match state.registered.get(&name) {
                Some(known) if *known != address => pb::RegisterWorkerResponse {
                    result: false,
                    msg: format!(
                        "[code=46003:class=scheduler:scope=internal:level=medium], Message: dm-worker with name \
                         {{\"name\":\"{name}\",\"addr\":\"{known}\"}} already exists"
                    ),
                    secret_key: Vec::new(),
                },
                _ => {
                    state.registered.insert(name, address);
                    let secret_key = state.secret_key.clone();
                    pb::RegisterWorkerResponse { result: true, msg: String::new(), secret_key }
                }
            };
            Ok::<_, tonic::Status>(tonic::Response::new(answer))
        }
    });
    let codec = ProstCodec::<pb::RegisterWorkerResponse, pb::RegisterWorkerRequest>::default();
    let response = tonic::server::Grpc::new(codec).unary(service, request.map(tonic::body::Body::new)).await;
    response.map(axum::body::Body::new)
}

/// Follows the workers' keys for ever; a watch that breaks begins again with what is there.
async fn follow(etcd: Arc<RwLock<Etcd>>, state: Arc<Mutex<State>>) {
    loop {
        let channel = etcd.read().await.stream_channel();
        if let Err(status) = follow_once(channel, &etcd, &state).await {
            eprintln!("mini-master: {status}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn follow_once(
    channel: Channel,
    etcd: &Arc<RwLock<Etcd>>,
    state: &Arc<Mutex<State>>,
) -> Result<(), tonic::Status> {
    let (sender, receiver) = mpsc::channel(1);
    let create =
        WatchCreateRequest { key: b"/dm-worker/a/".to_vec(), range_end: b"/dm-worker/a0".to_vec(), start_revision: 1 };
    let create = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    sender.send(create).await.expect("room for one");
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = WatchClient::new(channel).watch(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.compact_revision > 0 {
            // History is gone: what matters comes with the next writing.
            return Ok(());
        }
        for event in answer.events {
            let is_put = event.r#type() == event::EventType::Put;
            let kv = event.kv.unwrap_or_default();
            let worker = worker_of_key(&kv.key);
            let mut state = state.lock().await;
            if kv.mod_revision <= state.seen || state.absent {
                continue;
            }
            state.seen = kv.mod_revision;
            let etcd = etcd.read().await;
            if is_put { came(&etcd, &mut state, &worker).await } else { went(&etcd, &mut state, &worker).await }
        }
    }
    drop(sender);
    Ok(())
}

/// A worker is there: what it has is written again; a free one gets a source that waits.
async fn came(etcd: &Etcd, state: &mut State, worker: &str) {
    state.alive.insert(worker.to_owned(), ());
    let mut ops = Vec::new();
    if let Some(source) = state.bounds.iter().find(|(_, of)| *of == worker).map(|(source, _)| source.clone()) {
        ops.extend(bind_ops(worker, &source));
    }
    if let Some(source) = state.relay_workers.get(worker) {
        ops.push(put(&key("/dm-master/relay-worker/", &[worker]), source));
    }
    if !ops.is_empty() {
        etcd.write(ops).await;
    }
    bring_back(etcd, state, worker).await;
    bind_free(etcd, state).await;
}

/// Who loads rows of a source, of any task.
async fn loaders(etcd: &Etcd, source: &str) -> Vec<String> {
    let of_source = key("/", &[source]);
    let keys = etcd.range("/dm-master/load-task/", "/dm-master/load-task0").await;
    let of_it = keys.into_iter().filter(|kv| String::from_utf8_lossy(&kv.key).ends_with(&of_source));
    of_it.map(|kv| serde_json::from_slice(&kv.value).expect("a name as JSON")).collect()
}

/// A free worker that is said to load rows of a source gets it back, unless whoever has it says that of itself.
async fn bring_back(etcd: &Etcd, state: &mut State, worker: &str) {
    if state.absent || state.bounds.values().any(|of| of == worker) {
        return;
    }
    for (source, owner) in state.bounds.clone() {
        let loaders = loaders(etcd, &source).await;
        if loaders.iter().any(|name| name == worker) && !loaders.contains(&owner) {
            let mut ops = vec![delete(&bound_key(&owner))];
            ops.extend(bind_ops(worker, &source));
            etcd.write(ops).await;
            state.bounds.insert(source, worker.to_owned());
            return;
        }
    }
}

/// A worker is gone: its source goes to another one.
async fn went(etcd: &Etcd, state: &mut State, worker: &str) {
    state.alive.remove(worker);
    let source = state.bounds.iter().find(|(_, of)| *of == worker).map(|(source, _)| source.clone());
    if let Some(source) = source {
        state.bounds.remove(&source);
        etcd.write(vec![delete(&bound_key(worker))]).await;
    }
    bind_free(etcd, state).await;
}

async fn bind_free(etcd: &Etcd, state: &mut State) {
    if state.absent {
        return;
    }
    for source in state.sources.clone() {
        if state.bounds.contains_key(&source) {
            continue;
        }
        let mut free = state.alive.keys().filter(|worker| !state.bounds.values().any(|of| of == *worker)).cloned();
        let loaders = loaders(etcd, &source).await;
        // Whoever loads its rows goes before.
        let preferred = free.clone().find(|worker| loaders.contains(worker)).or_else(|| free.next());
        if let Some(worker) = preferred {
            etcd.write(bind_ops(&worker, &source)).await;
            state.bounds.insert(source, worker);
        }
    }
}

fn worker_of_key(key: &[u8]) -> String {
    unhex(&String::from_utf8_lossy(key)["/dm-worker/a/".len()..])
}

fn unhex(digits: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    String::from_utf8((0..digits.len()).step_by(2).map(byte).collect()).expect("UTF-8")
}
