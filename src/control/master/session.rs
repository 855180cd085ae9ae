//! One membership, from the registration to the lease given back, on a thread of its own.
//!
//! Order: register ─► the port is opened ─► lease, members, reconcile. Leaving: reconcile stops ─► (the daemon drains the
//! subtasks) ─► the lease is given back ─► the port is closed. The lease outlives the drain, so that nobody else begins
//! while we still write.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::channel::Masters;
use super::etcd::Etcd;
use super::lease::{KeepAlive, Tenure, guard};
use super::reconcile::{Reconciler, Ttls};
use super::register::{Refusal, register};
use crate::control::backend::Backend;
use crate::control::connection::Limits;
use crate::control::worker_port::{PortError, WorkerPort, in_cluster};
use crate::control::worker_rpc::WorkerService;
use crate::error::{Code, Failure};
use crate::runtime::{Beat, spawn};
use crate::supervisor::Supervisor;
use crate::tls::TlsFiles;

/// How often the masters are asked for their addresses, as DM does.
const MEMBERS: Duration = Duration::from_secs(3);
/// How often the thread says that it moves, and when it counts as stuck for not saying so.
const BEAT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Between two registrations of an agent that goes on without its masters.
const AGAIN: Duration = Duration::from_secs(5);

/// What a membership needs to know.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Worker name.
    pub worker: String,
    /// Masters as `host:port`.
    pub join: Vec<String>,
    /// Where to listen, in Go's form.
    pub worker_addr: String,
    /// Where masters are to dial.
    pub advertise_addr: String,
    /// How long silence is waited for.
    pub ttls: Ttls,
    /// TLS both ways; `None` for none.
    pub tls: Option<TlsFiles>,
    /// How long a pause may take to drain.
    pub drain_limit: Duration,
}

/// Why there is no membership.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The masters say no, or there are none.
    #[error("{0}")]
    Refused(Failure),
    /// The port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The system refused a thread.
    #[error("start the cluster thread")]
    System(#[source] io::Error),
}

/// A running membership.
pub struct Cluster {
    /// No more is done for the master.
    rest: CancellationToken,
    /// The lease goes.
    leave: CancellationToken,
    thread: Option<JoinHandle<()>>,
    joined: Option<oneshot::Receiver<Result<(), JoinError>>>,
    /// The thread goes round: what fences runs on it.
    beat: Beat,
}

impl Cluster {
    /// Starts the thread. `data` is where subtasks live.
    pub fn start(
        options: ClusterOptions,
        supervisor: Supervisor,
        backend: Arc<dyn Backend>,
        data: Handle,
    ) -> Result<Cluster, JoinError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(JoinError::System)?;
        let (rest, leave) = (CancellationToken::new(), CancellationToken::new());
        let (told, joined) = oneshot::channel();
        let session = Session { options, supervisor, backend, data, rest: rest.clone(), leave: leave.clone() };
        let beat = Beat::new();
        let struck = beat.clone();
        let thread = std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let _beat = spawn("cluster-beat", strike(struck));
                    session.run(told).await;
                });
            })
            .map_err(JoinError::System)?;
        Ok(Cluster { rest, leave, thread: Some(thread), joined: Some(joined), beat })
    }

    /// Returns when the agent is a member, or with why it is not; never a second time.
    pub async fn joined(&mut self) -> Result<(), JoinError> {
        let answer = match &mut self.joined {
            Some(joined) => joined.await,
            None => std::future::pending().await,
        };
        self.joined = None;
        // A thread that ends without a word was told to leave.
        answer.unwrap_or(Ok(()))
    }

    /// Nothing is done for the master any more; the lease stays.
    pub fn rest(&self) {
        self.rest.cancel();
    }

    /// Whether the thread has ended, which before a stop means that the agent should end too.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether the thread stands still: nothing would fence then.
    pub fn is_stuck(&self) -> bool {
        !self.is_finished() && self.beat.age() > BEAT.1
    }

    /// Gives the lease back and closes the port. Blocks for as long.
    pub fn end(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.rest.cancel();
        self.leave.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the cluster thread panicked");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shut_down();
    }
}

struct Session {
    options: ClusterOptions,
    supervisor: Supervisor,
    backend: Arc<dyn Backend>,
    data: Handle,
    rest: CancellationToken,
    leave: CancellationToken,
}

impl Session {
    async fn run(self, told: oneshot::Sender<Result<(), JoinError>>) {
        let masters = Masters::new(self.options.join.clone(), self.options.tls.clone());
        let (leave, rest) = (self.leave.clone(), self.rest.clone());
        let begun = tokio::select! {
            () = leave.cancelled() => return,
            () = rest.cancelled() => return,
            begun = self.begin(&masters) => begun,
        };
        let port = match begun {
            Ok(port) => port,
            Err(error) => return drop(told.send(Err(error))),
        };
        // Whoever waited for it may have given up.
        let _ = told.send(Ok(()));
        self.serve(masters, port).await;
    }

    /// Registration, the cluster's key, the port.
    async fn begin(&self, masters: &Masters) -> Result<WorkerPort, JoinError> {
        WorkerPort::check(self.options.tls.as_ref()).await?;
        let key = loop {
            match register(masters, &self.options.worker, &self.options.advertise_addr).await {
                Ok(key) => break key,
                // What was given before is still received, and shown: masters may be back sooner than somebody notices.
                Err(Refusal::Unreachable(why)) if !self.supervisor.held().sources.is_empty() => {
                    tracing::warn!(why, "no master: receiving goes on, applying waits");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(refusal) => return Err(JoinError::Refused(cannot_join(masters, &refusal))),
            }
        };
        tracing::info!(masters = ?masters.join(), "registered");
        self.supervisor.take_cluster_key(&key).await;
        Ok(WorkerPort::bind(&self.options.worker_addr, self.options.tls.clone())?)
    }

    async fn serve(self, masters: Masters, port: WorkerPort) {
        let (ttl, wanted_ttl) = watch::channel(self.options.ttls.usual);
        let (hold, holds) = watch::channel(None);
        let (tenure, seen) = watch::channel(Tenure::Lost);
        let name = self.options.worker.clone();
        let etcd = Etcd::new(masters.clone(), name.clone());
        let (reconciler, reconciled) =
            Reconciler::new(etcd.clone(), self.supervisor.clone(), self.data.clone(), seen, ttl, self.options.ttls);
        let settle_limit = self.options.drain_limit + Duration::from_secs(1);
        let worker = WorkerService::new(self.backend.clone(), self.supervisor.clone(), reconciled, settle_limit);
        let closed = CancellationToken::new();
        let router = in_cluster(self.backend.clone(), worker);
        let port = spawn("worker-port", port.serve(router, Limits::default(), closed.clone()));
        let _guard = spawn("lease-guard", guard(holds, tenure));
        let _members = spawn("members", members(masters.clone(), etcd));
        let reconcile = spawn("reconcile", reconciler.run(self.rest.clone()));
        let keepalive = KeepAlive::new(masters, name, wanted_ttl, hold);
        let keepalive = spawn("keepalive", keepalive.run(self.leave.clone()));
        let broke = |name: &str, ended: Result<(), tokio::task::JoinError>| {
            if let Err(error) = ended {
                tracing::error!(%error, "{name} broke off");
            }
        };
        tokio::pin!(reconcile, keepalive);
        tokio::select! {
            ended = &mut reconcile => {
                broke("reconcile", ended);
                // Without it nobody would fence: the agent ends unless it was told to rest.
                if self.rest.is_cancelled() {
                    broke("keepalive", keepalive.await);
                }
            }
            ended = &mut keepalive => broke("keepalive", ended),
        }
        closed.cancel();
        broke("worker-port", port.await);
    }
}

/// DM's words.
fn cannot_join(masters: &Masters, refusal: &Refusal) -> Failure {
    // With the scheme that a dm-worker puts before each.
    let scheme = if masters.uses_tls() { "https" } else { "http" };
    let endpoints: Vec<String> = masters.join().iter().map(|master| format!("{scheme}://{master}")).collect();
    let endpoints = endpoints.join(" ");
    Failure::new(
        Code::CannotJoin,
        format!("cannot join with master endpoints: [{endpoints}], error: {}", refusal.why()),
    )
}

async fn strike(beat: Beat) {
    loop {
        beat.strike();
        tokio::time::sleep(BEAT.0).await;
    }
}

async fn members(masters: Masters, etcd: Etcd) {
    loop {
        tokio::time::sleep(MEMBERS).await;
        match etcd.members().await {
            Ok(urls) if !urls.is_empty() => masters.update(urls),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "ask the masters for their addresses"),
        }
    }
}
