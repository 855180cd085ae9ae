//! Sources and tasks of one agent: what is wanted, what is, and the steps between.
//!
//! What is wanted is stored before it is done, and a start of the daemon does what is stored: a task that was parked is
//! parked, one that ran runs. Nothing here waits for a task while another command needs it: the registries are locked
//! for a moment only, and a name that is being started is reserved.

mod api;
mod endpoint;
mod records;
mod source;
mod sources;
mod start;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use api::{
    Actor, AgentStatus, OperateTask, Receiving, RelayStatus, Runway, SourceResult, SourceStatus, StartTask, TaskOp,
};
pub use source::RelayLimits;
pub use sources::RelayWish;

use crate::config::{SecretKey, TaskConfig};
use crate::error::{Code, Failure};
use crate::runtime::Owned;
use crate::store::{CheckpointDb, StoreError};
use crate::task::TaskHandle;
use source::Source;

/// Source id and task name.
type TaskKey = (String, String);

/// What a supervisor needs to know.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// Worker name.
    pub worker: String,
    /// Key of encrypted passwords.
    pub secret_key: Option<SecretKey>,
    /// How relay logs are kept.
    pub limits: RelayLimits,
    /// How long a pause waits for the end of a large transaction.
    pub drain_limit: Duration,
}

struct TaskEntry {
    handle: TaskHandle,
    _driver: Owned<()>,
    config: TaskConfig,
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
    /// Names between the check that they are free and their entry.
    reserved: Mutex<BTreeSet<TaskKey>>,
}

/// A handle on the agent's sources and tasks.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

impl Supervisor {
    /// Loads what is stored and brings it to the state that is wanted.
    pub async fn load(options: SupervisorOptions, db: CheckpointDb) -> Result<Supervisor, Failure> {
        let inner = Inner {
            secret_key: RwLock::new(options.secret_key.clone()),
            options,
            db,
            sources: RwLock::default(),
            tasks: RwLock::default(),
            reserved: Mutex::default(),
        };
        let supervisor = Supervisor { inner: Arc::new(inner) };
        supervisor.load_sources().await?;
        supervisor.load_tasks().await?;
        Ok(supervisor)
    }

    /// Everything at this instant, from memory.
    pub fn status(&self) -> AgentStatus {
        let sources = read(&self.inner.sources).values().map(|entry| entry.source.status()).collect();
        let tasks = read(&self.inner.tasks).values().map(|entry| entry.handle.status()).collect();
        AgentStatus { worker: self.inner.options.worker.clone(), sources, tasks }
    }

    /// Takes a new key for encrypted passwords; used for connections made from now on.
    pub fn set_secret_key(&self, key: Option<SecretKey>) {
        *write(&self.inner.secret_key) = key;
    }

    /// Drains all tasks, stops receiving, and closes the stores. Nothing of what is wanted changes.
    pub async fn shut_down(&self) {
        let handles: Vec<TaskHandle> = read(&self.inner.tasks).values().map(|entry| entry.handle.clone()).collect();
        let mut draining = tokio::task::JoinSet::new();
        for handle in handles {
            draining.spawn(async move { handle.shut_down().await });
        }
        draining.join_all().await;
        for source in self.all_sources() {
            if let Err(failure) = source.close(false).await {
                tracing::warn!(source = %source.config.source_id, error = %failure, "relay log not closed in order");
            }
        }
        if let Err(error) = self.inner.db.close().await {
            tracing::warn!(%error, "checkpoint store not closed in order");
        }
    }

    fn all_sources(&self) -> Vec<Arc<Source>> {
        read(&self.inner.sources).values().map(|entry| Arc::clone(&entry.source)).collect()
    }

    fn source(&self, source_id: &str) -> Result<Arc<Source>, Failure> {
        let found = read(&self.inner.sources).get(source_id).map(|entry| Arc::clone(&entry.source));
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
