//! What the handle, the writer, the readers and the threads of a relay log share: its state, the door to the storage thread
//! and what is asked of the threads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::chunk::{Chunk, Unstored};
use super::cuts::Cut;
use super::effort::Effort;
use super::intake::Intake;
use super::log::{Shared, TailBatch};
use super::{Boundary, Lsn, PurgeReport, RelayConfig, RelayError};
use crate::binlog::EventRun;
use crate::model::{BinlogFile, Location};
use crate::store::{StoreError, Table};

/// Raw bytes that may wait for the storage thread. They are in memory twice: as chunks, and as events for readers.
const MAX_BEHIND: u64 = 12 << 20;
/// A disk that keeps anyone waiting longer does not answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Values whose memory is kept for the next ones.
const SPARE_VALUES: usize = 4;
/// What the handle, the writer, the readers and the threads share.
pub(super) struct Core {
    pub config: RelayConfig,
    pub shared: Shared,
    pub gate: Gate,
    pub reads: mpsc::Sender<ReadRequest>,
}

/// The door to the storage thread.
pub(super) struct Gate {
    state: Mutex<GateState>,
    /// For the storage thread.
    wake: Condvar,
    /// For its helper.
    work: Condvar,
}

pub(super) struct GateState {
    /// `None` until the log is begun.
    pub intake: Option<Intake>,
    pub commands: VecDeque<Command>,
    pub stop: bool,
    /// Memory of stored values, for the next ones.
    pub values: Vec<Vec<u8>>,
    /// A flush has ended.
    flushed: bool,
}

/// What the reading thread is asked to do; in order.
pub(super) enum ReadRequest {
    /// A segment is being written; this is a handle on it.
    Active { seq: u64, table: Box<dyn Table> },
    /// It is not any more.
    Close { seq: u64 },
    /// Remove these directories.
    Remove { seqs: Vec<u64>, done: oneshot::Sender<()> },
    /// Read up to `limit` chunks, the first with the byte at `from`.
    Chunks { from: Lsn, limit: usize, reply: Reply<Vec<Chunk>> },
    /// Find the last boundary in a segment that `location` covers.
    Find { seq: u64, location: Location, reply: Reply<Boundary> },
    /// End.
    Stop { done: oneshot::Sender<()> },
}

/// Where a thread's answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, RelayError>>;

/// What the storage thread is asked to do.
pub(super) enum Command {
    StartAt { location: Location, identity: String, reply: Reply<()> },
    Cut { lsn: Lsn, at: Boundary, reply: Reply<()> },
    PurgeBefore { file: BinlogFile, reply: Reply<PurgeReport> },
    Flush { reply: Reply<()> },
}

/// What the storage thread does next.
pub(super) enum Step {
    Command(Command),
    Store(Cut),
    /// A flush has ended.
    Flushed,
    /// Nothing has come for a moment.
    Quiet,
    Tick,
    Stop,
}

impl Gate {
    pub fn new(intake: Option<Intake>) -> Self {
        let state = GateState { intake, commands: VecDeque::new(), stop: false, values: Vec::new(), flushed: false };
        Gate { state: Mutex::new(state), wake: Condvar::new(), work: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next thing to do; a tick at `deadline` comes before more chunks. That none comes before `quiet` is told.
    pub fn next(&self, deadline: Instant, quiet: Option<Instant>, storing: bool) -> Step {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.flushed) {
                return Step::Flushed;
            }
            if let Some(command) = state.commands.pop_front() {
                return Step::Command(command);
            }
            if state.stop {
                return Step::Stop;
            }
            let now = Instant::now();
            if now >= deadline {
                return Step::Tick;
            }
            let mut until = deadline;
            if storing && let Some(intake) = &mut state.intake {
                if let Some(cut) = intake.cuts.take_unless_borrowed() {
                    return Step::Store(cut);
                }
                // One that is borrowed is about to be brought back.
                if let Some(quiet) = quiet.filter(|_| intake.cuts.len() == 0) {
                    if now >= quiet {
                        return Step::Quiet;
                    }
                    until = until.min(quiet);
                }
            }
            let waited = self.wake.wait_timeout(state, until - now);
            state = waited.map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
    }

    /// Says that a flush has ended.
    pub fn look(&self) {
        self.lock().flushed = true;
        self.wake.notify_one();
    }

    /// Waits for a chunk that can be compressed ahead; `None` when the log closes.
    pub fn borrow(&self) -> Option<(Unstored, Effort)> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(chunk) = state.intake.as_mut().and_then(|intake| intake.cuts.borrow()) {
                return Some(chunk);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How hard the next chunk is to be compressed.
    pub fn effort(&self) -> Effort {
        self.lock().intake.as_ref().map_or(Effort::Thorough, |intake| intake.cuts.effort())
    }

    /// Memory for a value.
    pub fn memory(&self) -> Vec<u8> {
        self.lock().values.pop().unwrap_or_default()
    }

    /// A value's memory is free.
    pub fn give_back(&self, value: Vec<u8>) {
        let values = &mut self.lock().values;
        if values.len() < SPARE_VALUES {
            values.push(value);
        }
    }

    /// Brings back what was made of a borrowed chunk, if anything was.
    pub fn bring_back(&self, start: Lsn, value: Option<Vec<u8>>) {
        if let Some(intake) = &mut self.lock().intake {
            intake.cuts.bring_back(start, value);
        }
        self.wake.notify_one();
    }

    /// Says that so many chunks wait; one alone is the storage thread's.
    pub fn notify(&self, waiting: usize) {
        if waiting > 0 {
            self.wake.notify_one();
        }
        if waiting > 1 {
            self.work.notify_one();
        }
    }

    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
        self.work.notify_all();
    }
}

impl Core {
    /// Waits until the storage thread is near enough; errors where nothing can be taken.
    pub async fn wait_for_storage(&self) -> Result<(), RelayError> {
        let mut bell = self.shared.listen();
        let wait = async {
            loop {
                {
                    let log = self.shared.log();
                    if let Some(failure) = &log.failure {
                        return Err(failure.clone());
                    }
                    if log.closed {
                        return Err(RelayError::Closed);
                    }
                    if let Some(reason) = log.full {
                        return Err(RelayError::Full(reason));
                    }
                    if log.received_lsn.0 - log.stored_lsn.0 <= MAX_BEHIND {
                        return Ok(());
                    }
                }
                bell.changed().await.map_err(|_| RelayError::Closed)?;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    /// Waits until the log is not full. No limit: only a purge or an operator ends it.
    pub async fn wait_for_room(&self) -> Result<(), RelayError> {
        let mut bell = self.shared.listen();
        loop {
            {
                let log = self.shared.log();
                match (&log.failure, log.closed, log.full) {
                    (Some(failure), _, _) => return Err(failure.clone()),
                    (_, true, _) => return Err(RelayError::Closed),
                    (_, _, None) => return Ok(()),
                    _ => {}
                }
            }
            bell.changed().await.map_err(|_| RelayError::Closed)?;
        }
    }

    /// Takes events into the intake and the tail.
    pub fn take_in(&self, epoch: u64, events: EventRun) -> Result<(), RelayError> {
        let mut gate = self.gate.lock();
        let intake = gate.intake.as_mut().ok_or(RelayError::NotStarted)?;
        if intake.epoch != epoch {
            return Err(RelayError::Superseded);
        }
        let start = intake.end();
        let restart = intake.restarts_at(start);
        let begin = intake.at_boundary().then(|| intake.boundary());
        let outcome = intake.push(&events).map_err(RelayError::Frame);
        let taken = (intake.end().0 - start.0) as usize;
        if taken > 0 {
            let batch = TailBatch { start, end: intake.end(), restart, begin, events: events.first(taken) };
            let (received, newest) = (intake.boundary(), intake.newest());
            self.shared.log().publish(batch, received, newest, self.config.tail_bytes);
        }
        let waiting = intake.cuts.len();
        drop(gate);
        self.gate.notify(waiting);
        self.shared.ring();
        outcome
    }

    /// Asks the storage thread.
    pub async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, RelayError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut gate = self.gate.lock();
            if gate.stop {
                return Err(RelayError::Closed);
            }
            gate.commands.push_back(command(reply));
        }
        self.gate.wake.notify_one();
        self.answer(answer).await
    }

    /// Waits for a thread's answer.
    pub async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, RelayError>>) -> Result<T, RelayError> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RelayError::Closed),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// The error of a wait that took too long.
    pub fn no_answer(&self) -> RelayError {
        let source = io::Error::from(io::ErrorKind::TimedOut);
        StoreError::Io { doing: "wait for", path: self.config.dir.clone(), source }.into()
    }

    /// The error for a location that is not held.
    pub fn not_covered(&self, wanted: impl ToString) -> RelayError {
        let state = self.shared.state();
        let text = |location: Option<String>| location.unwrap_or_else(|| "nothing".to_owned());
        RelayError::NotCovered {
            wanted: wanted.to_string(),
            start: text(state.start.map(|start| start.to_string())),
            end: text(state.received.map(|received| received.to_string())),
        }
    }
}
