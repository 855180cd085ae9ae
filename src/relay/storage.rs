//! The storage thread: stores chunks, has them flushed, turns to new segments; in `room`, purges and says when the log is full.
//!
//! It alone writes segments and the manifest; `flusher` waits for the disk meanwhile, with one flush at a time. Invariants:
//! `relayed` moves behind a flush that returned; a segment is sealed behind its last flush, and nothing behind it is flushed
//! before that; a segment leaves the manifest before its directory is removed; the disk is checked before it is written to.
//! The next segment is opened ahead of need on a thread of its own, since opening one makes the whole system sync. After an
//! error of the store it stores nothing more and only answers.

mod flusher;
mod room;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::flusher::Flushing;
use super::ahead;
use super::chunk::{Encoder, Unstored};
use super::core::{Command, Core, ReadRequest, Reply, Step};
use super::cuts::{Cut, Encoded};
use super::intake::Intake;
use super::segment::{Manifest, Segment, segment_dir};
use super::{Boundary, Lsn, RelayError};
use crate::model::Location;
use crate::store::{self, Profile, StoreError, Table};

pub(super) use flusher::Flusher;

/// Chunks stored between two flushes of a tick, so that a fast writer cannot keep one from ending.
const CHUNKS_A_TICK: usize = 64;
/// What came in a burst is flushed when nothing has come for so long: a tick is not waited for.
const QUIET: Duration = Duration::from_millis(5);
/// Bytes, as they are stored, that are worth such a flush.
const BURST: u64 = 1 << 20;

/// A segment that is written.
struct Active {
    seq: u64,
    table: Box<dyn Table>,
    /// Another handle, for flushes; `None` while one is under way.
    flushes: Option<Box<dyn Table>>,
}

/// The next one.
struct Spare {
    seq: u64,
    opening: JoinHandle<Result<Box<dyn Table>, StoreError>>,
}

struct Storage {
    core: Arc<Core>,
    segment_bytes: u64,
    next_seq: u64,
    active: Option<Active>,
    spare: Option<Spare>,
    flusher: Flusher,
    flushing: Option<Flushing>,
    /// Bytes stored since the last flush began, as they are stored.
    unflushed: u64,
    /// The same since it was last quiet.
    burst: u64,
    /// End of what was stored last.
    stored: Option<Boundary>,
    failed: bool,
    /// When passed segments are looked at again.
    next_look: Instant,
    /// The disk is nearly full: nothing is written until there is room.
    starved: bool,
    encoder: Option<Encoder>,
}

/// Runs until the gate stops it.
pub(super) fn run(core: Arc<Core>, flusher: Flusher, next_seq: u64) {
    let segment_bytes = core.config.effective_segment_bytes();
    let mut storage = Storage {
        core,
        segment_bytes,
        next_seq,
        active: None,
        spare: None,
        flusher,
        flushing: None,
        unflushed: 0,
        burst: 0,
        stored: None,
        failed: false,
        next_look: Instant::now(),
        starved: false,
        encoder: None,
    };
    storage.prepare_spare();
    let interval = storage.core.config.flush_interval;
    let mut deadline = Instant::now() + interval;
    let core = storage.core.clone();
    // Without a helper everything is compressed here.
    let helper =
        ahead::spawn(core.clone()).inspect_err(|error| tracing::warn!(%error, "no thread to compress ahead")).ok();
    loop {
        let quiet = (storage.burst >= BURST).then(|| Instant::now() + QUIET);
        let result = match core.gate.next(deadline, quiet, !storage.failed && !storage.starved) {
            Step::Command(command) => storage.command(command),
            Step::Store(cut) => storage.store(cut),
            Step::Flushed => storage.look_for_outcome(),
            Step::Quiet => storage.quiet(),
            Step::Tick => {
                let ticked = storage.tick();
                deadline = Instant::now() + interval;
                ticked
            }
            Step::Stop => break,
        };
        if let Err(error) = result {
            storage.fail(error);
        }
    }
    if let Err(error) = storage.finish() {
        storage.fail(error);
    }
    storage.flusher.end();
    if helper.is_some_and(|helper| helper.join().is_err()) {
        tracing::error!("the thread that compresses ahead has panicked");
    }
    let (done, ended) = tokio::sync::oneshot::channel();
    if core.reads.blocking_send(ReadRequest::Stop { done }).is_ok() {
        let _ = ended.blocking_recv();
    }
    core.shared.log().closed = true;
    core.shared.ring();
}

impl Storage {
    fn fail(&mut self, error: RelayError) {
        if !std::mem::replace(&mut self.failed, true) {
            let failure = crate::error::Failure::from(&error);
            tracing::error!(dir = %self.core.config.dir.display(), error = %failure, "relay log store failed");
            self.core.shared.log().failure = Some(error);
        }
        self.core.shared.ring();
    }

    fn command(&mut self, command: Command) -> Result<(), RelayError> {
        if self.failed {
            let failure = self.core.shared.log().failure.clone().unwrap_or(RelayError::Closed);
            match command {
                Command::StartAt { reply, .. } | Command::Cut { reply, .. } | Command::Flush { reply } => {
                    drop(reply.send(Err(failure)));
                }
                Command::PurgeBefore { reply, .. } => drop(reply.send(Err(failure))),
            }
            return Ok(());
        }
        match command {
            Command::StartAt { location, identity, reply } => answer(reply, self.start_at(location, &identity)),
            Command::Cut { lsn, at, reply } => answer(reply, self.cut(lsn, at)),
            Command::PurgeBefore { file, reply } => answer(reply, self.purge_before(&file)),
            Command::Flush { reply } => answer(reply, self.store_pending(usize::MAX).and_then(|()| self.flush())),
        }
    }

    /// Stores one chunk, and flushes or turns to the next segment where it is time.
    fn store(&mut self, cut: Cut) -> Result<(), RelayError> {
        let Cut { chunk, ends_segment, encoded } = cut;
        let value = match encoded {
            Encoded::Done(value) => value,
            _ => self.encode(&chunk)?,
        };
        let header = &chunk.header;
        let end_lsn = header.end_lsn();
        let active = self.active()?;
        active.table.put(&header.start.0.to_be_bytes(), &value)?;
        let seq = active.seq;
        self.unflushed += value.len() as u64;
        self.burst += value.len() as u64;
        self.core.gate.give_back(value);
        let raw_bytes = {
            let mut log = self.core.shared.log();
            let segment = log.segments.entry(seq).or_insert_with(|| Segment {
                seq,
                start: header.start,
                begin: header.begin.clone(),
                end_lsn: header.start,
                end: header.begin.clone(),
                newest: 0,
                identity: header.identity.clone(),
                disk_bytes: 0,
                sealed: false,
            });
            segment.end_lsn = end_lsn;
            segment.end = header.end.clone();
            segment.newest = header.newest;
            segment.identity = header.identity.clone();
            let raw_bytes = segment.raw_bytes();
            log.stored_lsn = end_lsn;
            log.trim(self.core.config.tail_bytes);
            raw_bytes
        };
        self.core.shared.ring();
        self.stored = Some(header.end.clone());
        if raw_bytes > self.segment_bytes / 2 {
            self.prepare_spare();
        }
        if ends_segment {
            return self.begin_seal();
        }
        if self.unflushed >= self.core.config.flush_bytes {
            self.settle()?;
            // A flush writes more than may be free by now.
            if !self.is_starved()? {
                self.begin_flush()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, chunk: &Unstored) -> Result<Vec<u8>, StoreError> {
        let fail = |error| StoreError::from_io("compress a chunk of", &self.core.config.dir, error);
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new().map_err(fail)?,
        };
        let (effort, mut value) = (self.core.gate.effort(), self.core.gate.memory());
        self.encoder.insert(encoder).encode(chunk, effort, &mut value).map_err(fail)?;
        Ok(value)
    }

    fn active(&mut self) -> Result<&mut Active, StoreError> {
        if self.active.is_none() {
            self.prepare_spare();
            let spare = self.spare.take();
            let opened = spare.map(|spare| (spare.seq, joined(spare.opening, &self.core)));
            let (seq, table) = match opened {
                Some((seq, Ok(table))) => (seq, table),
                // It may have been opened ahead into a full disk; there is room now.
                other => {
                    if let Some((_, Err(error))) = other {
                        tracing::warn!(%error, "the next segment could not be opened ahead");
                    }
                    let seq = self.take_seq();
                    (seq, store::open(&segment_dir(&self.core.config.dir, seq), Profile::Chunks)?)
                }
            };
            let (reader, flushes) = (table.share(), Some(table.share()));
            let _ = self.core.reads.blocking_send(ReadRequest::Active { seq, table: reader });
            self.active = Some(Active { seq, table, flushes });
        }
        // Set just above where it was missing.
        self.active.as_mut().ok_or_else(|| StoreError::Closed { path: self.core.config.dir.clone() })
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Begins to open the next segment, unless it is being opened.
    fn prepare_spare(&mut self) {
        if self.spare.is_some() {
            return;
        }
        let seq = self.take_seq();
        let dir = segment_dir(&self.core.config.dir, seq);
        let open = move || store::open(&dir, Profile::Chunks);
        // Without a thread the segment is opened when it is needed.
        if let Ok(opening) = std::thread::Builder::new().name("relay-open".to_owned()).spawn(open) {
            self.spare = Some(Spare { seq, opening });
        }
    }

    fn write_manifest(&self) -> Result<(), StoreError> {
        let unused = self.spare.as_ref().map_or(self.next_seq, |spare| spare.seq);
        // Until it is sealed, what is in a segment counts only where this names it.
        let sealing = self.flushing.as_ref().and_then(|flushing| flushing.sealing.as_ref());
        let manifest = {
            let log = self.core.shared.log();
            Manifest {
                flavor: self.core.config.flavor,
                origin: log.origin.clone(),
                identity: log.identity.clone(),
                active_seq: sealing.or(self.active.as_ref()).map_or(unused, |active| active.seq),
                sealed: log.segments.values().filter(|segment| segment.sealed).cloned().collect(),
            }
        };
        manifest.store(&self.core.config.dir)
    }

    /// Stores what waits, the open chunk included.
    fn store_pending(&mut self, limit: usize) -> Result<(), RelayError> {
        for _ in 0..limit {
            let next = self.core.gate.lock().intake.as_mut().and_then(Intake::take);
            let Some(cut) = next else { break };
            self.store(cut)?;
        }
        Ok(())
    }

    /// What came in a burst need not wait for the tick.
    fn quiet(&mut self) -> Result<(), RelayError> {
        self.burst = 0;
        if self.is_starved()? {
            return Ok(());
        }
        self.store_pending(CHUNKS_A_TICK)?;
        self.begin_flush()
    }

    fn tick(&mut self) -> Result<(), RelayError> {
        self.look_for_outcome()?;
        // A disk that hangs holds up the flush, and is to be noticed.
        if self.flushing.is_none() {
            self.core.shared.log().ticked = Some(Instant::now());
        }
        if self.failed {
            return Ok(());
        }
        if self.is_starved()? {
            return Ok(());
        }
        self.store_pending(CHUNKS_A_TICK)?;
        // Else the next tick does it, or whoever stores enough before that.
        if self.flushing.is_none() {
            self.begin_flush()?;
        }
        self.core.shared.log().sample(Instant::now());
        self.purge_passed()?;
        self.check_room()
    }

    /// Ends the active segment with the open chunk.
    fn seal_all(&mut self) -> Result<(), RelayError> {
        if let Some(intake) = &mut self.core.gate.lock().intake {
            intake.end_segment();
        }
        self.store_pending(usize::MAX)?;
        self.begin_seal()?;
        self.settle()
    }

    /// The reading thread has the directories open, so it removes them. Waits for it: room counts when it is there.
    fn remove_dirs(&self, seqs: Vec<u64>) {
        let (done, removed) = tokio::sync::oneshot::channel();
        if self.core.reads.blocking_send(ReadRequest::Remove { seqs, done }).is_ok() {
            let _ = removed.blocking_recv();
        }
        self.core.shared.ring();
    }

    fn start_at(&mut self, location: Location, identity: &str) -> Result<(), RelayError> {
        let at = Boundary { location, lsn: Lsn(0), checksum: false };
        self.begin_anew(None, at, identity.into())
    }

    fn cut(&mut self, lsn: Lsn, at: Boundary) -> Result<(), RelayError> {
        let (held, identity) = {
            let log = self.core.shared.log();
            (log.start_lsn() <= lsn && lsn <= log.stored_lsn && at.lsn <= lsn, log.identity.clone())
        };
        if !held {
            return Err(self.core.not_covered(&at.location));
        }
        self.begin_anew(Some(lsn), at, identity)
    }

    /// Drops everything from `cut` on, all of it for `None`, and goes on behind `at`. Bytes get new numbers, so that no
    /// reader takes them for the old ones.
    fn begin_anew(&mut self, cut: Option<Lsn>, at: Boundary, identity: Arc<str>) -> Result<(), RelayError> {
        self.settle()?;
        let active = self.active.take();
        self.unflushed = 0;
        self.stored = None;
        let removed = {
            let mut gate = self.core.gate.lock();
            let mut log = self.core.shared.log();
            let start = log.received.as_ref().map_or(Lsn(0), |_| Lsn(log.received_lsn.0 + 1));
            let at = Boundary { lsn: at.lsn.min(start), ..at };
            let fresh = Boundary { lsn: start, ..at.clone() };
            let mut intake = Intake::new(&self.core.config, fresh.clone(), start, cut.is_some(), identity.clone());
            if let Some(old) = &gate.intake {
                (intake.epoch, intake.taken) = (old.epoch + 1, old.taken);
            }
            gate.intake = Some(intake);
            let keep = cut.unwrap_or_default();
            let removed: Vec<u64> = log.segments.values().filter(|s| s.start >= keep).map(|s| s.seq).collect();
            log.segments.retain(|_, segment| segment.start < keep);
            if let Some(last) = log.segments.values_mut().next_back() {
                (last.end_lsn, last.end, last.sealed) = (keep.min(last.end_lsn), at, true);
            }
            log.origin = Some(fresh.clone());
            log.identity = identity;
            log.cut(fresh, start);
            removed
        };
        self.write_manifest()?;
        if let Some(active) = active {
            self.release(active)?;
        }
        self.remove_dirs(removed);
        Ok(())
    }

    /// Flushes, seals, and removes the segment that was not needed.
    fn finish(&mut self) -> Result<(), RelayError> {
        if !self.failed && !self.starved {
            self.seal_all()?;
        }
        if let Some(spare) = self.spare.take() {
            let dir = segment_dir(&self.core.config.dir, spare.seq);
            // Whether or not it could be opened, nothing is in it.
            drop(joined(spare.opening, &self.core));
            std::fs::remove_dir_all(&dir).map_err(|error| StoreError::from_io("remove", &dir, error))?;
        }
        Ok(())
    }
}

fn joined(opening: JoinHandle<Result<Box<dyn Table>, StoreError>>, core: &Core) -> Result<Box<dyn Table>, StoreError> {
    opening.join().unwrap_or_else(|_| {
        let source = std::io::Error::other("the thread that opened it panicked");
        Err(StoreError::Io { doing: "open", path: core.config.dir.clone(), source })
    })
}

/// Answers, and passes on what makes the store unusable.
fn answer<T>(reply: Reply<T>, result: Result<T, RelayError>) -> Result<(), RelayError> {
    let failed = match &result {
        Err(error @ RelayError::Store(_)) => Err(error.clone()),
        _ => Ok(()),
    };
    drop(reply.send(result));
    failed
}
