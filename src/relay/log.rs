//! What the threads, the writer and the readers of one log share: where it begins and ends, and its newest events.
//!
//! One lock, held for moments and never across I/O. Invariants: a byte between `start` and `received` is in the tail or in
//! a segment, or both; the tail loses only what is in a segment; locations only go back when the log is cut, which
//! every reader beyond the cut notices because its Lsn is nowhere any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::segment::Segment;
use super::{Boundary, FullReason, Lsn, RelayError};
use crate::binlog::EventRun;
use crate::model::{Location, Received, Relayed};

/// The receive rate is averaged over this time.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// The log at one instant.
#[derive(Debug, Clone, Default)]
pub struct RelayState {
    /// Oldest location that can be read; `None` before the log was begun.
    pub start: Option<Location>,
    /// End of the last complete transaction received.
    pub received: Option<Received>,
    /// End of the last complete transaction that a returned flush covers.
    pub relayed: Option<Relayed>,
    /// First byte held.
    pub start_lsn: Lsn,
    /// The byte behind the last one received.
    pub received_lsn: Lsn,
    /// The byte behind the last one flushed.
    pub relayed_lsn: Lsn,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of raw binlog on disk.
    pub raw_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// The source's clock at the newest event, seconds since the epoch; 0 for none.
    pub newest_timestamp: u32,
    /// Raw bytes received a second, over the last minute.
    pub bytes_per_second: f64,
    /// The server the stream comes from.
    pub identity: String,
    /// Why nothing is received.
    pub full: Option<FullReason>,
    /// What the store failed with; nothing more is stored.
    pub failure: Option<RelayError>,
    /// How long ago the storage thread last looked round; a disk that hangs makes it grow.
    pub quiet_for: Duration,
}

/// Events that came together.
#[derive(Debug)]
pub(super) struct TailBatch {
    pub start: Lsn,
    pub end: Lsn,
    /// The stream begins again before it.
    pub restart: bool,
    /// The transaction boundary it starts at, where it does.
    pub begin: Option<Boundary>,
    pub events: EventRun,
}

/// The state behind the lock.
#[derive(Default)]
pub(super) struct Log {
    /// Where the log begins while it holds nothing; `None` before it was begun.
    pub origin: Option<Boundary>,
    /// By number; all but the last are sealed.
    pub segments: BTreeMap<u64, Segment>,
    pub tail: VecDeque<TailBatch>,
    pub received: Option<Boundary>,
    pub received_lsn: Lsn,
    pub relayed: Option<Boundary>,
    pub relayed_lsn: Lsn,
    /// The byte behind the last one that is in a segment, flushed or not.
    pub stored_lsn: Lsn,
    pub newest: u32,
    pub identity: Arc<str>,
    pub tasks: BTreeMap<String, Location>,
    /// All tasks have said where they are: purging may begin.
    pub armed: bool,
    pub readers: BTreeMap<u64, Lsn>,
    pub next_reader: u64,
    pub full: Option<FullReason>,
    pub failure: Option<RelayError>,
    pub closed: bool,
    /// When the storage thread last looked round; `None` before the first time.
    pub ticked: Option<Instant>,
    samples: VecDeque<(Instant, u64)>,
    /// Bytes received since the log was opened.
    taken_bytes: u64,
}

impl Log {
    /// First byte held.
    pub fn start_lsn(&self) -> Lsn {
        self.segments.values().next().map_or(self.stored_lsn, |first| first.start)
    }

    /// Oldest boundary that can be read from.
    pub fn start(&self) -> Option<&Boundary> {
        self.segments.values().next().map(|first| &first.begin).or(self.origin.as_ref())
    }

    /// The segment that holds the byte at `lsn`.
    pub fn segment_at(&self, lsn: Lsn) -> Option<&Segment> {
        // Numbers and bytes grow together, so the last one that begins at or before it is the one.
        self.segments.values().rev().find(|segment| segment.start <= lsn).filter(|segment| lsn < segment.end_lsn)
    }

    /// Where the stream goes on behind a byte of the log: there, or behind the gap that a cut left.
    pub fn onward(&self, lsn: Lsn) -> Option<Lsn> {
        if lsn >= self.stored_lsn && lsn <= self.received_lsn || self.segment_at(lsn).is_some() {
            return Some(lsn);
        }
        self.segments.values().find(|segment| segment.end_lsn == lsn)?;
        Some(self.segments.values().find(|segment| segment.start > lsn).map_or(self.stored_lsn, |next| next.start))
    }

    /// Takes a batch into the tail.
    pub fn publish(&mut self, batch: TailBatch, received: Boundary, newest: u32, limit: u64) {
        self.taken_bytes += batch.end.0 - batch.start.0;
        self.received_lsn = batch.end;
        self.received = Some(received);
        self.newest = newest;
        self.tail.push_back(batch);
        self.trim(limit);
    }

    /// Lets go of batches that are stored, oldest first, while the tail is too large.
    pub fn trim(&mut self, limit: u64) {
        while let Some(oldest) = self.tail.front()
            && oldest.end <= self.stored_lsn
            && self.received_lsn.0 - oldest.start.0 > limit
        {
            self.tail.pop_front();
        }
    }

    /// Everything that was received is forgotten; the log goes on at `at`.
    pub fn cut(&mut self, at: Boundary, start: Lsn) {
        self.tail.clear();
        (self.received_lsn, self.relayed_lsn, self.stored_lsn) = (start, start, start);
        (self.received, self.relayed) = (Some(at.clone()), Some(at));
    }

    /// Takes a sample for the receive rate, at most one a second.
    pub fn sample(&mut self, now: Instant) {
        if self.samples.back().is_none_or(|(last, _)| now.duration_since(*last) >= Duration::from_secs(1)) {
            self.samples.push_back((now, self.taken_bytes));
            while self.samples.front().is_some_and(|(first, _)| now.duration_since(*first) > RATE_WINDOW) {
                self.samples.pop_front();
            }
        }
    }

    fn rate(&self, now: Instant) -> f64 {
        let Some((first, bytes)) = self.samples.front() else { return 0.0 };
        let seconds = now.duration_since(*first).as_secs_f64();
        if seconds < 0.5 { 0.0 } else { (self.taken_bytes - bytes) as f64 / seconds }
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.disk_bytes).sum()
    }

    fn state(&self, now: Instant) -> RelayState {
        let location = |boundary: &Option<Boundary>| boundary.as_ref().map(|boundary| boundary.location.clone());
        RelayState {
            start: self.start().map(|start| start.location.clone()),
            received: location(&self.received).map(Received),
            relayed: location(&self.relayed).map(Relayed),
            start_lsn: self.start_lsn(),
            received_lsn: self.received_lsn,
            relayed_lsn: self.relayed_lsn,
            disk_bytes: self.disk_bytes(),
            raw_bytes: self.segments.values().map(Segment::raw_bytes).sum(),
            segments: self.segments.len() as u64,
            newest_timestamp: self.newest,
            bytes_per_second: self.rate(now),
            identity: self.identity.to_string(),
            full: self.full,
            failure: self.failure.clone(),
            quiet_for: self.ticked.map_or(Duration::ZERO, |ticked| now.duration_since(ticked)),
        }
    }
}

/// The log and a bell that rings when it changes.
pub(super) struct Shared {
    log: Mutex<Log>,
    bell: watch::Sender<u64>,
}

impl Shared {
    pub fn new(log: Log) -> Self {
        Shared { log: Mutex::new(log), bell: watch::Sender::new(0) }
    }

    /// The state; hold it for a moment only.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        // No code panics while it holds the lock; if one did, the state would still be whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits for a change.
    pub fn ring(&self) {
        self.bell.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// A receiver that notices every [`Self::ring`] from now on.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    pub fn state(&self) -> RelayState {
        self.log().state(Instant::now())
    }
}
