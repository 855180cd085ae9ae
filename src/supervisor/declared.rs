//! Where what an operator declared of a source's tables is kept: with the subtask, in the checkpoint store.
//!
//! Every change is on disk before it is seen, so that a crash leaves it as it was or as it is.

use tokio::sync::Mutex;

use super::broken::{TASK_REMEDY, damaged};
use super::store_failure;
use crate::error::Failure;
use crate::pipeline::{DeclaredChange, DeclaredStore, DeclaredTables};
use crate::store::{CheckpointDb, Namespace};

/// The declarations of one subtask.
#[derive(Debug)]
pub(super) struct StoredDeclared {
    db: CheckpointDb,
    key: String,
    /// As on disk; `None` before it was read.
    all: Mutex<Option<DeclaredTables>>,
}

impl StoredDeclared {
    /// Of the subtask whose records have this key.
    pub fn new(db: CheckpointDb, key: String) -> Self {
        StoredDeclared { db, key, all: Mutex::new(None) }
    }

    /// What they are.
    pub async fn load(&self) -> Result<DeclaredTables, Failure> {
        let mut all = self.all.lock().await;
        Ok(self.read(&mut all).await?.clone())
    }

    /// Whether there are any, as far as that is known without waiting.
    pub fn has_any(&self) -> bool {
        self.all.try_lock().is_ok_and(|all| all.as_ref().is_some_and(|all| !all.0.is_empty()))
    }

    async fn read<'a>(&self, all: &'a mut Option<DeclaredTables>) -> Result<&'a DeclaredTables, Failure> {
        if all.is_none() {
            let stored = self.db.get::<DeclaredTables>(Namespace::Schema, &self.key).await;
            let what = format!("what was declared by binlog-schema ({})", self.key);
            *all = Some(stored.map_err(|error| damaged(&error, &what, TASK_REMEDY))?.unwrap_or_default());
        }
        Ok(all.get_or_insert_default())
    }
}

#[tonic::async_trait]
impl DeclaredStore for StoredDeclared {
    async fn change(&self, change: DeclaredChange) -> Result<DeclaredTables, Failure> {
        let mut all = self.all.lock().await;
        let mut new = self.read(&mut all).await?.clone();
        if change(&mut new) {
            let stored = self.db.put(Namespace::Schema, &self.key, &new).await;
            stored.map_err(|error| store_failure(&error, "store what is declared of a table"))?;
            *all = Some(new.clone());
        }
        Ok(new)
    }
}
