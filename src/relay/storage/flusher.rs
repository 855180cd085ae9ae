//! The thread that makes stored chunks durable while the storage thread stores the next ones.
//!
//! A flush waits for the disk most of its time, and with one thread for both the source would wait with it. Invariant: one
//! flush at a time, and what came of it is said by the storage thread alone. The handle that a flush works with comes with the
//! order and goes back with the outcome, so that nothing here keeps a segment open.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::super::core::Core;
use super::super::core::ReadRequest;
use super::super::{Boundary, Lsn, RelayError};
use super::{Active, Storage};
use crate::store::{StoreError, Table};

/// What became of a flush.
pub(super) struct Outcome {
    /// The handle that came with the order.
    pub table: Box<dyn Table>,
    /// Bytes that its segment takes on disk now.
    pub result: Result<u64, StoreError>,
}

/// The storage thread's end.
pub(in crate::relay) struct Flusher {
    core: Arc<Core>,
    orders: SyncSender<Box<dyn Table>>,
    outcomes: Receiver<Outcome>,
    thread: JoinHandle<()>,
}

impl Flusher {
    /// Starts the thread.
    pub fn spawn(core: &Arc<Core>) -> Result<Flusher, StoreError> {
        // One flush at a time, so neither ever has more than one, and nobody waits to send.
        let (orders, ordered) = sync_channel(1);
        let (done, outcomes) = sync_channel(1);
        let run = {
            let core = core.clone();
            move || run(&core, &ordered, &done)
        };
        let thread = std::thread::Builder::new().name("relay-flush".to_owned()).spawn(run);
        let thread = thread.map_err(|error| StoreError::from_io("start the thread of", &core.config.dir, error))?;
        Ok(Flusher { core: core.clone(), orders, outcomes, thread })
    }

    /// Orders a flush of everything that was stored before. None may be under way.
    pub(super) fn begin(&self, table: Box<dyn Table>) -> Result<(), StoreError> {
        self.orders.send(table).map_err(|_| self.gone())
    }

    /// The outcome, if it is there. The gate says so once it is.
    pub(super) fn outcome(&self) -> Result<Option<Outcome>, StoreError> {
        match self.outcomes.try_recv() {
            Ok(outcome) => Ok(Some(outcome)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.gone()),
        }
    }

    /// Waits for the outcome of the flush under way. As long as the disk takes, as a flush on this thread would; that it hangs is
    /// noticed by those who miss the ticks.
    pub(super) fn wait(&self) -> Result<Outcome, StoreError> {
        self.outcomes.recv().map_err(|_| self.gone())
    }

    /// Ends the thread, behind a flush that is under way.
    pub(super) fn end(self) {
        let Flusher { orders, thread, .. } = self;
        drop(orders);
        if thread.join().is_err() {
            tracing::error!("the thread that flushes has panicked");
        }
    }

    fn gone(&self) -> StoreError {
        let source = io::Error::other("the thread that flushes has ended");
        StoreError::Io { doing: "flush", path: self.core.config.dir.clone(), source }
    }
}

/// The flush under way.
pub(super) struct Flushing {
    seq: u64,
    /// What it makes durable: everything up to here.
    stored: Boundary,
    end: Lsn,
    /// The segment, where it ends with this.
    pub(super) sealing: Option<Active>,
}

impl Storage {
    /// Makes what was stored durable, and says so.
    pub(super) fn flush(&mut self) -> Result<(), RelayError> {
        self.begin_flush()?;
        self.settle()
    }

    /// Has what was stored made durable. Waits for the flush that is under way, if there is one: two are never unsaid.
    pub(super) fn begin_flush(&mut self) -> Result<(), RelayError> {
        self.settle()?;
        let (Some(active), Some(stored)) = (&mut self.active, &self.stored) else { return Ok(()) };
        if self.unflushed == 0 {
            return Ok(());
        }
        // It came back with the outcome of the last one.
        let Some(table) = active.flushes.take() else { return Ok(()) };
        let end = self.core.shared.log().stored_lsn;
        self.flushing = Some(Flushing { seq: active.seq, stored: stored.clone(), end, sealing: None });
        self.unflushed = 0;
        Ok(self.flusher.begin(table)?)
    }

    /// Ends the active segment: it is sealed when its last flush has returned.
    pub(super) fn begin_seal(&mut self) -> Result<(), RelayError> {
        self.begin_flush()?;
        let Some(active) = self.active.take() else { return Ok(()) };
        match &mut self.flushing {
            Some(flushing) => {
                flushing.sealing = Some(active);
                Ok(())
            }
            None => self.seal(active),
        }
    }

    /// A segment that is flushed gets no more.
    fn seal(&mut self, active: Active) -> Result<(), RelayError> {
        if let Some(segment) = self.core.shared.log().segments.get_mut(&active.seq) {
            segment.sealed = true;
        }
        self.write_manifest()?;
        Ok(self.release(active)?)
    }

    /// Waits for the flush under way.
    pub(super) fn settle(&mut self) -> Result<(), RelayError> {
        match self.flushing.take() {
            Some(flushing) => {
                let outcome = self.flusher.wait()?;
                self.flushed(flushing, outcome)
            }
            None => Ok(()),
        }
    }

    /// Says what the flush under way has come to, if it has.
    pub(super) fn look_for_outcome(&mut self) -> Result<(), RelayError> {
        let Some(outcome) = self.flusher.outcome()? else { return Ok(()) };
        let Some(flushing) = self.flushing.take() else { return Ok(()) };
        self.flushed(flushing, outcome)
    }

    fn flushed(&mut self, flushing: Flushing, outcome: Outcome) -> Result<(), RelayError> {
        let disk_bytes = outcome.result?;
        {
            let mut log = self.core.shared.log();
            log.relayed = Some(flushing.stored);
            log.relayed_lsn = flushing.end;
            if let Some(segment) = log.segments.get_mut(&flushing.seq) {
                segment.disk_bytes = disk_bytes;
            }
        }
        self.core.shared.ring();
        match (flushing.sealing, &mut self.active) {
            (Some(sealing), _) => self.seal(Active { flushes: Some(outcome.table), ..sealing }),
            (None, Some(active)) => {
                active.flushes = Some(outcome.table);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    pub(super) fn release(&self, active: Active) -> Result<(), StoreError> {
        let Active { seq, table, flushes } = active;
        // Nothing is left to be flushed by the others behind it.
        let closed = table.close();
        drop(flushes);
        let _ = self.core.reads.blocking_send(ReadRequest::Close { seq });
        closed
    }
}

fn run(core: &Core, orders: &Receiver<Box<dyn Table>>, done: &SyncSender<Outcome>) {
    while let Ok(mut table) = orders.recv() {
        let result = table.flush().and_then(|()| table.disk_bytes());
        if done.send(Outcome { table, result }).is_err() {
            return;
        }
        core.gate.look();
    }
}
