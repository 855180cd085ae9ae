//! What a driver keeps on disk: why its task is parked before anyone is told, and where it was about each second.

use super::{Driver, OURSELVES};
use crate::error::{Code, Failure};
use crate::store::{Namespace, StoreError};
use crate::task::lifecycle::Event;
use crate::task::record::record_key;
use crate::task::status::{Park, ParkReason, Stage};

impl Driver {
    pub(super) fn key(&self) -> String {
        record_key(&self.spec.source_id, &self.spec.name)
    }

    /// Where the disk has no room for it, that is one more reason to be parked; whoever looks after the disk takes it
    /// away again.
    pub(super) async fn store(&mut self) -> Result<(), Failure> {
        let stored = self.spec.db.put(Namespace::Park, &self.key(), &self.record).await;
        if let Err(error @ StoreError::Full { .. }) = &stored {
            let full = Park::now(OURSELVES).note(error.to_string());
            self.record.parks.entry(ParkReason::Disk).or_insert(full);
            self.resume_at = None;
        }
        stored.map_err(|error| {
            Failure::new(Code::RelayStore, "store why the task is parked")
                .cause(error.to_string())
                .workaround("Please make room on the disk under the state directory, or repair it.")
        })
    }

    /// Said once, not each second while a disk stays full.
    pub(super) async fn store_quietly(&mut self) {
        match self.store().await {
            Ok(()) => self.unstored = false,
            Err(failure) => {
                if !std::mem::replace(&mut self.unstored, true) {
                    tracing::error!(task = %self.spec.name, error = %failure, "what is kept of the task is not on disk");
                }
            }
        }
    }

    /// What was applied last, for the status after a restart.
    pub(super) async fn keep(&mut self) {
        let applied = self.status.borrow().applied.as_ref().map(|applied| applied.0.clone());
        let now = (applied, self.record.waiting_since.is_some());
        if now != self.kept && self.stage != Stage::Stopped {
            self.store_quietly().await;
            if !self.unstored {
                self.kept = now;
            } else if self.stage == Stage::Running && !self.record.parks.is_empty() {
                self.event(Event::Park);
            }
        }
    }
}
