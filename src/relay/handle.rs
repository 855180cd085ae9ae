//! The handle on a relay log: what everyone but the reading and writing sides uses.
//!
//! Owns the two threads. Nothing here blocks on I/O: what needs the disk is a command to the storage thread. A crash
//! needs no goodbye; [`Relay::close`] only saves the next start some work.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::core::{Command, Core, Gate, PATIENCE};
use super::log::Shared;
use super::reader::RelayReader;
use super::storage::Flusher;
use super::writer::RelayWriter;
use super::{Boundary, Lsn, PurgeReport, RelayConfig, RelayError, RelayState, reading, recovery, storage};
use crate::model::{BinlogFile, Location};
use crate::store::StoreError;

/// Read requests that may wait.
const READ_QUEUE: usize = 64;

/// A relay log; clones share it. When the last one is dropped the log is closed as by [`Relay::close`].
#[derive(Clone)]
pub struct Relay {
    core: Arc<Core>,
    _owner: Arc<Owner>,
}

/// Ends the threads with the last handle.
struct Owner(Arc<Core>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.gate.stop();
    }
}

impl Relay {
    /// Opens the log in `config.dir`, after a crash with what was flushed, and starts its threads.
    pub async fn open(config: RelayConfig) -> Result<Relay, RelayError> {
        let (opened, outcome) = oneshot::channel();
        let dir = config.dir.clone();
        let name = "relay-storage".to_owned();
        let run = move || match recovery::recover(&config) {
            Ok(recovered) => {
                let (reads, requests) = mpsc::channel(READ_QUEUE);
                let (log, intake, next_seq) = recovered.into_parts(&config);
                let core = Arc::new(Core { shared: Shared::new(log), gate: Gate::new(intake), reads, config });
                let flusher = reading::spawn(core.clone(), requests).and_then(|()| Ok(Flusher::spawn(&core)?));
                match flusher {
                    Ok(flusher) => {
                        drop(opened.send(Ok(core.clone())));
                        storage::run(core, flusher, next_seq);
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        std::thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|error| StoreError::from_io("start the thread of", &dir, error))?;
        let core = outcome.await.map_err(|_| RelayError::Closed)??;
        Ok(Relay { _owner: Arc::new(Owner(core.clone())), core })
    }

    /// Begins the log at `location` of the server `identity`; everything it held is dropped, and every reader gets
    /// [`RelayError::NotCovered`].
    pub async fn start_at(&self, location: Location, identity: &str) -> Result<(), RelayError> {
        let identity = identity.to_owned();
        self.core.command(|reply| Command::StartAt { location, identity, reply }).await
    }

    /// Cuts the log at `lsn`, the transaction behind `at` included: what [`RelayError::Damaged`] says. The writer gets
    /// [`RelayError::Superseded`] and goes on from there.
    pub async fn drop_from(&self, lsn: Lsn, at: Boundary) -> Result<(), RelayError> {
        self.core.command(|reply| Command::Cut { lsn, at, reply }).await
    }

    /// The one writer.
    pub fn writer(&self) -> Result<RelayWriter, RelayError> {
        let mut gate = self.core.gate.lock();
        let intake = gate.intake.as_mut().ok_or(RelayError::NotStarted)?;
        if std::mem::replace(&mut intake.taken, true) {
            return Err(RelayError::WriterTaken);
        }
        Ok(RelayWriter::new(self.core.clone(), intake.epoch))
    }

    /// A reader that yields everything behind `from`, beginning at a transaction boundary at or before it.
    pub async fn reader(&self, from: &Location) -> Result<RelayReader, RelayError> {
        RelayReader::open(self.core.clone(), from).await
    }

    /// The log now.
    pub fn state(&self) -> RelayState {
        self.core.shared.state()
    }

    /// Notices every change of [`Self::state`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.shared.listen()
    }

    /// About where in the log a location is: the nearest boundary before it that is known without reading. A reader's
    /// batches carry exact ones.
    pub fn lsn_of(&self, location: &Location) -> Option<Lsn> {
        let log = self.core.shared.log();
        let tail = log.tail.iter().rev().filter_map(|batch| batch.begin.as_ref());
        let ends = log.segments.values().rev().map(|segment| &segment.end);
        let begins = log.segments.values().rev().map(|segment| &segment.begin);
        let known = log.received.iter().chain(log.relayed.iter()).chain(tail).chain(ends).chain(begins);
        known.chain(log.origin.iter()).filter(|known| location.covers(&known.location)).map(|known| known.lsn).max()
    }

    /// The task needs everything behind `at`; replaces what it needed before.
    pub fn protect(&self, task: &str, at: &Location) {
        self.core.shared.log().tasks.insert(task.to_owned(), at.clone());
    }

    /// The task needs nothing any more.
    pub fn release(&self, task: &str) {
        self.core.shared.log().tasks.remove(task);
    }

    /// Every task there is has called [`Self::protect`]: from now on what all of them have passed is removed. Before
    /// this nothing is, so that a start of the daemon purges nothing it only does not know of yet.
    pub fn arm_purge(&self) {
        self.core.shared.log().armed = true;
    }

    /// Removes whole segments of events before the binlog file `file`. What a task needs stays, and the report says so;
    /// [`RelayError::Protected`] where that is everything that was to go.
    pub async fn purge_before(&self, file: BinlogFile) -> Result<PurgeReport, RelayError> {
        self.core.command(|reply| Command::PurgeBefore { file, reply }).await
    }

    /// Returns when everything received before it is durable.
    pub async fn flush(&self) -> Result<(), RelayError> {
        self.core.command(|reply| Command::Flush { reply }).await
    }

    /// Flushes, ends the threads and seals the last segment. Readers and the writer get [`RelayError::Closed`].
    pub async fn close(&self) -> Result<(), RelayError> {
        let mut bell = self.core.shared.listen();
        self.core.gate.stop();
        let closed = async {
            while !self.core.shared.log().closed {
                if bell.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.map_err(|_| self.core.no_answer())?;
        self.core.shared.log().failure.clone().map_or(Ok(()), Err)
    }
}
