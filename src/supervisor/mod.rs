//! Sources and tasks of one agent: what is wanted, what is, and the steps between.
//!
//! What is wanted is stored before it is done, and a start of the daemon does what is stored: a task that was parked is
//! parked, one that ran runs. Nothing here waits for a task while another command needs it: the registries are locked
//! for a moment only, and what a command changes is claimed for as long as it lasts. What is stored and cannot be loaded
//! keeps its name and its relay log, and is shown with its failure.

mod api;
mod broken;
mod claims;
mod declared;
mod endpoint;
mod exceptions;
mod eye;
mod horizon;
mod master;
mod monitor;
mod recipe;
mod records;
mod relays;
mod resync;
mod schemas;
mod source;
mod sources;
mod start;
mod tasks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use crate::pipeline::Breaks;
pub use api::{
    Actor, AgentStatus, CONNECTING, OperateTask, Receiving, RelayStatus, Runway, SourceResult, SourceStatus, StartTask,
    TaskOp,
};
pub use endpoint::tls_files;
pub use exceptions::{EventOp, EventOrder, EventRefusal};
pub use master::{Held, HeldSource, HeldTask, LEASE, NOT_STARTED, SourceOrder, TaskOrder};
pub use recipe::worth_an_answer;
pub use records::MasterMark;
pub use relays::RelayWish;
pub use resync::ResyncTable;
pub use schemas::{SchemaOp, SchemaOrder, Structure};
pub use source::RelayLimits;

use crate::config::SecretKey;
use crate::error::{Code, Failure};
use crate::runtime::{Beat, Owned, spawn};
use crate::store::{CheckpointDb, StoreError};
use crate::task::{TaskHandle, TaskStatus};
use broken::Broken;
use claims::Claims;
use recipe::StoredRecipe;
use source::Source;

/// Source id and task name.
type TaskKey = (String, String);

/// What a supervisor needs to know.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// Worker name.
    pub worker: String,
    /// Where everything is kept that must outlive the process.
    pub state_dir: PathBuf,
    /// Key of encrypted passwords.
    pub secret_key: Option<SecretKey>,
    /// How relay logs are kept.
    pub limits: RelayLimits,
    /// How long a pause waits for the end of a large transaction.
    pub drain_limit: Duration,
    /// Percent of the time that a copy works at least while others use its source.
    pub copy_yield_floor: u32,
    /// Whether a master gives sources and tasks.
    pub joined: bool,
}

struct TaskEntry {
    handle: TaskHandle,
    driver: Owned<()>,
    recipe: Arc<StoredRecipe>,
}

struct SourceEntry {
    source: Arc<Source>,
    record: records::SourceRecord,
}

struct Inner {
    options: SupervisorOptions,
    secret_key: RwLock<Option<SecretKey>>,
    db: CheckpointDb,
    sources: RwLock<BTreeMap<String, SourceEntry>>,
    tasks: RwLock<BTreeMap<TaskKey, TaskEntry>>,
    broken: RwLock<Broken>,
    claims: Mutex<Claims>,
    operate_errors: Mutex<BTreeMap<&'static str, u64>>,
    phase: AtomicU8,
    /// The monitor goes round, and the checkpoint store answers it.
    beat: Beat,
    /// Looks after what no command touches.
    monitor: Mutex<Option<Owned<()>>>,
}

/// Whether commands are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Loading = 0,
    Open = 1,
    Draining = 2,
}

/// A handle on the agent's sources and tasks.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

impl Supervisor {
    /// Empty, and closed to commands until [`Supervisor::load`].
    pub fn new(options: SupervisorOptions, db: CheckpointDb) -> Supervisor {
        let inner = Inner {
            secret_key: RwLock::new(options.secret_key.clone()),
            options,
            db,
            sources: RwLock::default(),
            tasks: RwLock::default(),
            broken: RwLock::default(),
            claims: Mutex::default(),
            operate_errors: Mutex::default(),
            phase: AtomicU8::new(Phase::Loading as u8),
            beat: Beat::new(),
            monitor: Mutex::default(),
        };
        Supervisor { inner: Arc::new(inner) }
    }

    /// Loads what is stored, brings it to the state that is wanted, and opens for commands.
    pub async fn load(&self) -> Result<(), Failure> {
        self.load_sources().await?;
        self.load_tasks().await?;
        self.inner.beat.strike();
        let monitor = spawn("monitor", monitor::watch(Arc::downgrade(&self.inner)));
        *self.inner.monitor.lock().unwrap_or_else(PoisonError::into_inner) = Some(monitor);
        // A shutdown that came meanwhile stays one.
        let (from, to) = (Phase::Loading as u8, Phase::Open as u8);
        let _ = self.inner.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        Ok(())
    }

    /// Everything at this instant, from memory.
    pub fn status(&self) -> AgentStatus {
        let mut sources: Vec<SourceStatus> =
            read(&self.inner.sources).values().map(|entry| entry.source.status()).collect();
        let mut tasks: Vec<TaskStatus> = read(&self.inner.tasks).values().map(|entry| entry.handle.status()).collect();
        let broken = read(&self.inner.broken);
        sources.extend(broken.sources.iter().map(|(id, failure)| broken::source_status(id, failure)));
        sources.sort_by(|a, b| a.source_id.cmp(&b.source_id));
        tasks.extend(broken.tasks.iter().map(|(key, task)| broken::task_status(key, task)));
        tasks.sort_by(|a, b| (&a.source_id, &a.name).cmp(&(&b.source_id, &b.name)));
        let worker = self.inner.options.worker.clone();
        let loading = self.inner.phase.load(Ordering::Acquire) == Phase::Loading as u8;
        let operate_errors = self.inner.operate_errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        AgentStatus { worker, in_cluster: self.inner.options.joined, loading, sources, tasks, operate_errors }
    }

    /// Counts that what a master wanted could not be done; `kind` is DM's name for it.
    pub fn operation_failed(&self, kind: &'static str) {
        let mut counts = self.inner.operate_errors.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kind).or_default() += 1;
    }

    /// Takes a new key for encrypted passwords: connections made from now on use it.
    pub async fn set_secret_key(&self, key: Option<SecretKey>) {
        let before = std::mem::replace(&mut *write(&self.inner.secret_key), key);
        self.renew_logins(before.as_ref()).await;
    }

    /// From here on commands are refused; the status is still answered.
    pub fn close(&self) {
        self.inner.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// Drains all tasks, stops receiving, and closes the stores. Nothing of what is wanted changes.
    pub async fn shut_down(&self) {
        self.close();
        drop(self.inner.monitor.lock().unwrap_or_else(PoisonError::into_inner).take());
        let handles: Vec<TaskHandle> = read(&self.inner.tasks).values().map(|entry| entry.handle.clone()).collect();
        let mut draining = tokio::task::JoinSet::new();
        for handle in handles {
            draining.spawn(async move { handle.shut_down().await });
        }
        draining.join_all().await;
        for source in self.all_sources() {
            if let Err(failure) = source.close(false).await {
                tracing::warn!(source = %source.id, error = %failure, "relay log not closed in order");
            }
        }
        if let Err(error) = self.inner.db.close().await {
            tracing::warn!(%error, "checkpoint store not closed in order");
        }
    }

    /// Refuses a command that would change something while that cannot be.
    fn admit(&self) -> Result<(), Failure> {
        let refuse = |message: &str, remedy: &str| Err(Failure::new(Code::NotSet, message).workaround(remedy));
        match self.inner.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Open as u8 => Ok(()),
            phase if phase == Phase::Loading as u8 => Err(still_loading()),
            _ => refuse(
                "the agent is stopping and takes no more changes",
                "Please start it again first; everything is as it was then.",
            ),
        }
    }

    /// Whether what looks after everything has ended, which only a fault of ours does.
    pub fn is_unwatched(&self) -> bool {
        let monitor = self.inner.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        monitor.as_ref().is_none_or(Owned::is_finished)
    }

    fn is_open(&self) -> bool {
        self.admit().is_ok()
    }

    fn all_sources(&self) -> Vec<Arc<Source>> {
        read(&self.inner.sources).values().map(|entry| Arc::clone(&entry.source)).collect()
    }

    fn source(&self, source_id: &str) -> Result<Arc<Source>, Failure> {
        let found = read(&self.inner.sources).get(source_id).map(|entry| Arc::clone(&entry.source));
        if let (None, Some(failure)) = (&found, read(&self.inner.broken).sources.get(source_id)) {
            return Err(failure.clone().at(format!("source {source_id}")));
        }
        found.ok_or_else(|| {
            Failure::new(Code::SourceNotFound, format!("source config with ID {source_id} not exists"))
                .workaround("Please create it with `operate-source create`, or correct the source id.")
        })
    }

    fn key(&self) -> Option<SecretKey> {
        read(&self.inner.secret_key).clone()
    }

    fn done(&self, source: &str) -> SourceResult {
        SourceResult { source: source.to_owned(), worker: self.inner.options.worker.clone(), result: Ok(String::new()) }
    }
}

/// A store that cannot be written, as an operator sees it.
/// Why nothing can be said yet of what is not there.
pub fn still_loading() -> Failure {
    Failure::new(Code::NotSet, "the agent is still loading its sources and tasks")
        .workaround("Please try again in a moment.")
}

fn store_failure(error: &StoreError, doing: &str) -> Failure {
    Failure::new(Code::RelayStore, doing)
        .cause(error.to_string())
        .workaround("Please check the disk under the state directory.")
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // Nothing panics while holding one of these, and each registry is whole at any instant.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
