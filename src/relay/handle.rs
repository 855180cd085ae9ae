//! The handle on a relay log: what everyone but the reading and writing sides uses.
//!
//! Owns the two threads. Nothing here blocks on I/O: what needs the disk is a command to the storage thread. A crash
//! needs no goodbye; [`Relay::close`] only saves the next start some work.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::chunk::Unstored;
use super::cuts::Cut;
use super::effort::Effort;
use super::intake::Intake;
use super::log::{Shared, TailBatch};
use super::reader::RelayReader;
use super::reading::ReadRequest;
use super::storage::Flusher;
use super::writer::RelayWriter;
use super::{Boundary, Lsn, PurgeReport, RelayConfig, RelayError, RelayState, reading, recovery, storage};
use crate::binlog::EventRun;
use crate::model::{BinlogFile, Location};
use crate::store::StoreError;

/// Raw bytes that may wait for the storage thread. They are in memory twice: as chunks, and as events for readers.
const MAX_BEHIND: u64 = 12 << 20;
/// A disk that keeps anyone waiting longer does not answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Values whose memory is kept for the next ones.
const SPARE_VALUES: usize = 4;
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
    fn notify(&self, waiting: usize) {
        if waiting > 0 {
            self.wake.notify_one();
        }
        if waiting > 1 {
            self.work.notify_one();
        }
    }

    fn stop(&self) {
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

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, RelayError> {
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
