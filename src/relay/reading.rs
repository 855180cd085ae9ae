//! The reading thread: finds and reads chunks of all segments for all readers of one log.
//!
//! Separate from the storage thread so that neither waits for the other's disk. It holds the sealed segments that were
//! read last open, and a handle on each one that is being written; it removes directories because it must let go of them first.
//! Invariant: what it hands out passed the store's checksum and the chunk's own, and is the byte that was asked for.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::chunk::{self, Chunk};
use super::core::{Core, ReadRequest};
use super::segment::{Segment, segment_dir};
use super::{Boundary, Lsn, RelayError};
use crate::model::Location;
use crate::store::{self, Profile, StoreError, Table};

/// Sealed segments held open.
const OPEN_SEGMENTS: usize = 2;

/// Starts the thread.
pub(super) fn spawn(core: Arc<Core>, mut requests: mpsc::Receiver<ReadRequest>) -> Result<(), RelayError> {
    let dir = core.config.dir.clone();
    let run = move || {
        let mut reading = Reading { core, active: Vec::new(), sealed: Vec::new() };
        while let Some(request) = requests.blocking_recv() {
            if let ReadRequest::Stop { done } = request {
                drop(reading);
                let _ = done.send(());
                return;
            }
            reading.serve(request);
        }
    };
    let spawned = std::thread::Builder::new().name("relay-read".to_owned()).spawn(run);
    spawned.map(drop).map_err(|error| StoreError::from_io("start the thread of", &dir, error).into())
}

struct Reading {
    core: Arc<Core>,
    /// Two while the last flush of the older one is under way.
    active: Vec<(u64, Box<dyn Table>)>,
    /// Most recently used last.
    sealed: Vec<(u64, Box<dyn Table>)>,
}

impl Reading {
    fn serve(&mut self, request: ReadRequest) {
        match request {
            ReadRequest::Active { seq, table } => self.active.push((seq, table)),
            ReadRequest::Close { seq } => self.forget(seq),
            ReadRequest::Remove { seqs, done } => {
                for seq in seqs {
                    self.forget(seq);
                    self.remove(seq);
                }
                let _ = done.send(());
            }
            ReadRequest::Chunks { from, limit, reply } => drop(reply.send(self.chunks(from, limit))),
            ReadRequest::Find { seq, location, reply } => drop(reply.send(self.find(seq, &location))),
            ReadRequest::Stop { .. } => {}
        }
    }

    fn forget(&mut self, seq: u64) {
        self.active.retain(|(active, _)| *active != seq);
        self.sealed.retain(|(sealed, _)| *sealed != seq);
    }

    fn remove(&self, seq: u64) {
        let dir = segment_dir(&self.core.config.dir, seq);
        match std::fs::remove_dir_all(&dir) {
            // What is left of it is removed at the next start: the manifest does not name it.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "relay segment not removed");
            }
            _ => {}
        }
    }

    fn table(&mut self, seq: u64) -> Result<&dyn Table, StoreError> {
        if self.active.iter().all(|(active, _)| *active != seq) {
            let open = match self.sealed.iter().position(|(sealed, _)| *sealed == seq) {
                Some(at) => self.sealed.remove(at),
                None => {
                    while self.sealed.len() >= OPEN_SEGMENTS {
                        self.sealed.remove(0);
                    }
                    (seq, store::open(&segment_dir(&self.core.config.dir, seq), Profile::ChunksReadOnly)?)
                }
            };
            self.sealed.push(open);
        }
        let open = self.active.iter().filter(|(active, _)| *active == seq).chain(self.sealed.last());
        let missing = || StoreError::Closed { path: segment_dir(&self.core.config.dir, seq) };
        open.map(|(_, table)| table.as_ref()).next().ok_or_else(missing)
    }

    fn chunks(&mut self, from: Lsn, limit: usize) -> Result<Vec<Chunk>, RelayError> {
        let mut found: Vec<Chunk> = Vec::with_capacity(limit);
        let mut next = from;
        while found.len() < limit {
            let segment = {
                let log = self.core.shared.log();
                match log.onward(next).and_then(|onward| log.segment_at(onward).cloned().map(|at| (onward, at))) {
                    Some((onward, segment)) => {
                        next = onward;
                        segment
                    }
                    None => break,
                }
            };
            match self.read(&segment, next) {
                Ok(chunk) => {
                    next = chunk.header.end_lsn();
                    found.push(chunk);
                }
                // What was read before is good; the reader comes back for the rest.
                Err(_) if !found.is_empty() => break,
                Err(Unread::Store(error)) => return Err(error.into()),
                Err(Unread::Damaged(what)) => return Err(self.damage(&segment, next, what)),
            }
        }
        Ok(found)
    }

    fn read(&mut self, segment: &Segment, lsn: Lsn) -> Result<Chunk, Unread> {
        let flavor = self.core.config.flavor;
        let table = self.table(segment.seq)?;
        let (_, value) = table.at_or_before(&lsn.0.to_be_bytes())?.ok_or(Unread::gone())?;
        let chunk = chunk::decode(&value, flavor).map_err(|error| Unread::Damaged(error.to_string()))?;
        if chunk.header.start <= lsn && lsn < chunk.header.end_lsn() { Ok(chunk) } else { Err(Unread::gone()) }
    }

    /// What to say of a segment whose byte at `lsn` cannot be read: it ends with the last chunk before it that can be.
    fn damage(&mut self, segment: &Segment, lsn: Lsn, what: String) -> RelayError {
        let flavor = self.core.config.flavor;
        let (mut end, mut at) = (segment.start, segment.begin.clone());
        let mut bound = lsn;
        while let Ok(table) = self.table(segment.seq)
            && let Ok(Some((key, value))) = table.at_or_before(&bound.0.to_be_bytes())
        {
            if let Ok(chunk) = chunk::decode(&value, flavor)
                && chunk.header.end_lsn() <= lsn
            {
                (end, at) = (chunk.header.end_lsn(), chunk.header.end);
                break;
            }
            let key = key.as_ref().try_into().map_or(0, u64::from_be_bytes);
            if key <= segment.start.0 {
                break;
            }
            bound = Lsn(key - 1);
        }
        RelayError::Damaged { segment: segment.seq, lsn: end, at: Box::new(at), what }
    }

    /// Halves the segment until one chunk is left. Chunks that cannot be read count as too late: what lies before them
    /// is a right start all the same.
    fn find(&mut self, seq: u64, location: &Location) -> Result<Boundary, RelayError> {
        let segment = self.core.shared.log().segments.get(&seq).cloned();
        let segment = segment.ok_or_else(|| self.core.not_covered(location))?;
        let flavor = self.core.config.flavor;
        let (mut low, mut high) = (segment.start, segment.end_lsn);
        let mut best = segment.begin.clone();
        let table = match self.table(seq) {
            Ok(table) => table,
            Err(StoreError::Corrupt { path, what }) => {
                tracing::warn!(path = %path.display(), %what, "relay segment damaged");
                return Ok(best);
            }
            Err(error) => return Err(error.into()),
        };
        while low < high {
            let middle = Lsn(low.0 + (high.0 - low.0) / 2);
            let entry = table.at_or_before(&middle.0.to_be_bytes()).ok().flatten();
            let header = entry.and_then(|(_, value)| chunk::decode_header(&value, flavor).ok());
            match header.filter(|header| header.start <= middle && middle < header.end_lsn()) {
                Some(header) if location.covers(&header.begin.location) => {
                    low = header.end_lsn();
                    best = if location.covers(&header.end.location) { header.end } else { header.begin };
                }
                Some(header) => high = header.start,
                None => high = middle,
            }
        }
        // The end of a segment that was cut lies before the end of its last chunk.
        Ok(if best.lsn > segment.end_lsn { segment.end } else { best })
    }
}

/// Why a chunk was not read.
enum Unread {
    /// The disk: it may answer another time.
    Store(StoreError),
    /// The bytes: they will not get better.
    Damaged(String),
}

impl Unread {
    fn gone() -> Self {
        Unread::Damaged("a chunk is missing".to_owned())
    }
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { what, .. } => Unread::Damaged(what),
            error => Unread::Store(error),
        }
    }
}
