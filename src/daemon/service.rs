//! What the daemon does between READY and STOPPING: sockets, stores, supervisor, and their order.
//!
//! ```text
//! admin socket bound ─► runtime ─► checkpoint store ─► admin served (status only) ─► sources, tasks ─► cluster, READY
//! STOPPING ─► commands refused ─► tasks drained ─► relay logs and store closed ─► lease given back ─► admin ends
//! ```
//! The status is answered from before the first source is opened to after the last one is closed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::backend::AgentBackend;
use super::logging::LevelHandle;
use crate::config::{SecretKey, WorkerConfig};
use crate::control::master::{Cluster, JoinError, LocalBackend};
use crate::control::{AdminServer, AdminSocket, Backend, PortError, SocketError, WorkerPort};
use crate::error::Failure;
use crate::runtime::{Owned, spawn};
use crate::store::{CheckpointDb, StoreError};
use crate::supervisor::{AgentStatus, Receiving, RelayLimits, Supervisor, SupervisorOptions, tls_files};

/// Threads of the data path: lanes and decoding share the processors with the servers they talk to.
const MOST_THREADS: usize = 8;

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The agent cannot be a member of its cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The admin socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The port for the status pages cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The store under the state directory cannot be opened.
    #[error(
        "open the checkpoint store: {0}. Where the store is damaged, move its directory away: sources and tasks are then created again, and go on from their checkpoints downstream"
    )]
    Store(#[from] StoreError),
    /// What is stored cannot be loaded.
    #[error("load sources and tasks: {0}")]
    Load(Failure),
    /// The system refused threads or the like.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
}

/// What is there before anything is read from disk.
pub struct Prepared {
    socket: AdminSocket,
    /// In a cluster it opens when the masters have taken this worker in.
    port: Option<WorkerPort>,
    runtime: Runtime,
}

impl Prepared {
    /// Binds the socket and starts the runtime.
    pub fn new(config: &WorkerConfig) -> Result<Prepared, ServiceError> {
        let socket = AdminSocket::bind(&config.agent.admin_socket)?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MOST_THREADS);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("data")
            .enable_all()
            .build()
            .map_err(|error| ServiceError::System("start the runtime", error))?;
        let port = match &config.worker_addr {
            Some(address) if !config.joins() => {
                let tls = config.security.as_ref().map(tls_files);
                runtime.block_on(WorkerPort::check(tls.as_ref()))?;
                Some(WorkerPort::bind(address, tls)?)
            }
            _ => None,
        };
        Ok(Prepared { socket, port, runtime })
    }

    /// The runtime that the data path runs on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

/// Opens the store under the state directory. May take long after a crash.
pub async fn open_store(state_dir: &Path) -> Result<CheckpointDb, ServiceError> {
    Ok(CheckpointDb::open(state_dir.join("checkpoint")).await?)
}

/// The running agent.
pub struct Service {
    supervisor: Supervisor,
    admin: Option<AdminServer>,
    /// What it is to ask once it is a member.
    backend: Arc<dyn Backend>,
    cluster: Option<Cluster>,
    watch: Owned<()>,
    ready: Arc<AtomicBool>,
    runtime: Runtime,
}

impl Service {
    /// Serves the socket: the status is answered, changes are refused until [`Service::load`] has ended.
    pub fn start(
        prepared: Prepared,
        db: CheckpointDb,
        config: &WorkerConfig,
        level: LevelHandle,
    ) -> Result<Service, ServiceError> {
        let Prepared { socket, port, runtime } = prepared;
        let options = SupervisorOptions {
            worker: config.name.clone(),
            state_dir: config.agent.state_dir.clone(),
            secret_key: config.agent.secret_key.clone(),
            limits: RelayLimits {
                dir: config.agent.state_dir.join("relay"),
                budget: config.agent.relay_budget,
                floor: config.agent.free_disk_floor,
            },
            drain_limit: config.agent.pause_drain_limit,
            copy_yield_floor: config.agent.copy_yield_floor,
            joined: config.joins(),
        };
        let supervisor = Supervisor::new(options, db);
        let ready = Arc::new(AtomicBool::new(false));
        let backend =
            AgentBackend::new(supervisor.clone(), runtime.handle().clone(), level, config, Arc::clone(&ready));
        let _entered = runtime.enter();
        let watch = spawn("events", backend.watch());
        let backend: Arc<dyn Backend> = Arc::new(backend);
        let local: Arc<dyn Backend> = match config.joins() {
            true => Arc::new(LocalBackend::new(Arc::clone(&backend))),
            false => Arc::clone(&backend),
        };
        let admin = AdminServer::start(socket, port, local)
            .map_err(|error| ServiceError::System("start the admin thread", error))?;
        drop(_entered);
        Ok(Service { supervisor, admin: Some(admin), backend, cluster: None, watch, ready, runtime })
    }

    /// Loads sources and tasks; ready when it has returned.
    pub fn load(&self) -> impl Future<Output = Result<(), ServiceError>> + Send + 'static {
        let (supervisor, ready) = (self.supervisor.clone(), Arc::clone(&self.ready));
        async move {
            supervisor.load().await.map_err(ServiceError::Load)?;
            ready.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    /// Joins the masters, where there are any, in the background. Call it once, when everything is loaded.
    pub fn join(&mut self, config: &WorkerConfig) -> Result<(), ServiceError> {
        if config.joins() {
            let backend = Arc::clone(&self.backend);
            self.cluster = Some(super::cluster::join(config, &self.supervisor, backend, self.runtime.handle())?);
        }
        Ok(())
    }

    /// Returns with why the agent cannot be a member of its cluster; never where it can, or stands alone.
    pub async fn refused(&mut self) -> JoinError {
        if let Some(cluster) = &mut self.cluster
            && let Err(error) = cluster.joined().await
        {
            return error;
        }
        std::future::pending().await
    }

    /// The runtime that the data path runs on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Which service has died that the daemon cannot be without.
    pub fn dead(&self) -> Option<&'static str> {
        if self.admin.as_ref().is_none_or(AdminServer::is_finished) {
            return Some("the admin server");
        }
        if self.watch.is_finished() {
            return Some("the event watch");
        }
        if self.cluster.as_ref().is_some_and(Cluster::is_finished) {
            return Some("the cluster thread");
        }
        self.supervisor.is_unwatched().then_some("the monitor")
    }

    /// What does not move any more, for the watchdog.
    pub fn stuck(&self) -> Option<String> {
        let cluster = || self.cluster.as_ref().is_some_and(Cluster::is_stuck).then(|| "the cluster thread".to_owned());
        self.supervisor.stuck().or_else(cluster)
    }

    /// One line for the service manager.
    pub fn status_line(&self) -> String {
        status_line(&self.supervisor.status())
    }

    /// Takes a new key for encrypted passwords.
    pub async fn set_secret_key(&self, key: Option<SecretKey>) {
        self.supervisor.set_secret_key(key).await;
    }

    /// Refuses changes from here on; the status is still answered.
    pub fn close(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.rest();
        }
        self.supervisor.close();
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Drains all tasks and closes the stores.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        let supervisor = self.supervisor.clone();
        async move { supervisor.shut_down().await }
    }

    /// Ends what is left.
    pub fn end(mut self) {
        // Only now may another worker begin.
        if let Some(cluster) = self.cluster.take() {
            cluster.end();
        }
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }

    /// Ends without waiting for anyone, as a kill would: that is always correct. The socket file stays, and the next
    /// start removes it; the lease stays until it runs out, since we may still be writing.
    pub fn abandon(mut self) {
        std::mem::forget((self.admin.take(), self.cluster.take()));
        self.runtime.shutdown_background();
    }
}

/// Such as `1 running, 1 paused(operator); receiving 1 of 1`.
fn status_line(status: &AgentStatus) -> String {
    let receiving = status.sources.iter().filter(|source| source.receiving == Receiving::Running).count();
    let mut tasks: Vec<String> = status
        .tasks
        .iter()
        .map(|task| {
            let reasons: Vec<&str> = task.parks.keys().map(|reason| reason.as_str()).collect();
            match reasons.is_empty() {
                true => format!("{} {}", task.name, task.stage.as_str()),
                false => format!("{} {}({})", task.name, task.stage.as_str(), reasons.join(",")),
            }
        })
        .collect();
    if tasks.is_empty() {
        tasks.push("no task".to_owned());
    }
    format!("{}; receiving {receiving} of {}", tasks.join(", "), status.sources.len())
}
