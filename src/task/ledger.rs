//! A subtask's ledger in the checkpoint database.

use crate::error::{Code, Failure};
use crate::pipeline::{Ledger, LedgerRecord};
use crate::store::{CheckpointDb, Namespace};

/// Stored under the subtask's key; outlives `stop-task`, as the checkpoint downstream does.
#[derive(Debug, Clone)]
pub struct StoredLedger {
    /// The database.
    pub db: CheckpointDb,
    /// See [`super::record_key`].
    pub key: String,
}

#[tonic::async_trait]
impl Ledger for StoredLedger {
    async fn load(&self) -> Result<Option<LedgerRecord>, Failure> {
        self.db.get(Namespace::Checkpoint, &self.key).await.map_err(|error| Failure::from(&error))
    }

    async fn store(&self, record: &LedgerRecord) -> Result<(), Failure> {
        self.db.put(Namespace::Checkpoint, &self.key, record).await.map_err(|error| {
            Failure::new(Code::RelayStore, "store how far the task may be applied").cause(error.to_string())
        })
    }
}
