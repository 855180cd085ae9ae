//! A dm-master in miniature, on a real etcd: it writes the keys and calls the RPCs as dm-master does, no more.
//!
//! One port serves `pb.Master/RegisterWorker` and passes everything else on to etcd, as dm-master's does. A loop follows
//! the workers' leased keys, binds sources and takes them away. Operations write a stage and poll the worker, the first
//! time at once and then each second, and say how long that took.

mod front;
mod keys;
mod members;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dm_agent::control::proto::etcd::RequestOp;
use dm_agent::control::proto::pb;
use dm_agent::control::proto::pb::worker_client::WorkerClient;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use self::front::front;
pub use self::keys::key;
use self::keys::{bind_ops, bound_key, config_key, stage, stage_key, worker_of_key};
use self::members::{State, bind_free, bring_back, follow, went};
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
