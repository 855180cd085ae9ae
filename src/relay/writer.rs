//! The one writer of a log: what the upstream reader hands its events to.
//!
//! Invariant: events are visible to readers when [`RelayWriter::append`] returns, and durable when `relayed` says so.

use std::sync::Arc;

use super::core::Core;
use super::{Lsn, RelayError};
use crate::binlog::EventRun;
use crate::model::Location;

/// Exclusive: dropping it lets another one be made.
pub struct RelayWriter {
    core: Arc<Core>,
    epoch: u64,
}

impl RelayWriter {
    pub(super) fn new(core: Arc<Core>, epoch: u64) -> Self {
        RelayWriter { core, epoch }
    }

    /// Takes events in. Their memory is shared, not copied, until they are stored and older than the tail. Waits while the storage thread is too far behind. Dropping the future takes
    /// nothing; after an error, [`RelayError::Frame`] excepted, nothing was taken either.
    pub async fn append(&mut self, events: EventRun) -> Result<(), RelayError> {
        self.core.wait_for_storage().await?;
        self.core.take_in(self.epoch, events)
    }

    /// Where to open the stream: the end of the last complete transaction.
    pub fn resume_location(&self) -> Result<Location, RelayError> {
        let gate = self.core.gate.lock();
        gate.intake.as_ref().map(|intake| intake.location().clone()).ok_or(RelayError::NotStarted)
    }

    /// Whether events of the stream at [`Self::resume_location`] carry a CRC32, until its format description says so.
    pub fn checksum(&self) -> bool {
        self.core.gate.lock().intake.as_ref().is_some_and(|intake| intake.boundary().checksum)
    }

    /// The stream was opened at [`Self::resume_location`], on the server `identity`: to be called after each connect,
    /// before its first event. An open transaction is void, and readers are told.
    pub fn restart(&mut self, identity: &str) -> Result<(), RelayError> {
        let mut gate = self.core.gate.lock();
        let intake = gate.intake.as_mut().ok_or(RelayError::NotStarted)?;
        intake.restart(identity);
        self.epoch = intake.epoch;
        self.core.shared.log().identity = intake.identity().clone();
        Ok(())
    }

    /// Returns as soon as there is room; at once if there is.
    pub async fn writable(&self) -> Result<(), RelayError> {
        self.core.wait_for_room().await
    }

    /// The byte behind the last event.
    pub fn end_lsn(&self) -> Lsn {
        self.core.shared.log().received_lsn
    }
}

impl Drop for RelayWriter {
    fn drop(&mut self) {
        if let Some(intake) = &mut self.core.gate.lock().intake {
            intake.taken = false;
        }
    }
}
