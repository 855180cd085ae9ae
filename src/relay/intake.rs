//! Takes events in and cuts them into chunks.
//!
//! Owns the stream's state at its very end. Invariant: every byte handed to [`Intake::push`] is in exactly one chunk, in
//! order, and each chunk's boundaries are the last ones at or before its ends. No I/O: the storage thread takes the
//! chunks away. A crash loses what is here, which was never said to be relayed.

use std::sync::Arc;

use super::chunk::{CHUNK_BYTES, Chunk, Header};
use super::cuts::{Cut, Cuts, Encoded};
use super::{Boundary, Lsn, RelayConfig};
use crate::binlog::{FrameError, StreamTracker};
use crate::model::Location;

/// A chunk at least this large is closed by a flush; a smaller one stays open and is stored again when it has grown.
const CLOSE_BYTES: usize = 64 << 10;

/// The end of the stream.
pub(super) struct Intake {
    tracker: StreamTracker,
    identity: Arc<str>,
    end: Lsn,
    boundary_lsn: Lsn,
    boundary_checksum: bool,
    newest: u32,
    open: OpenChunk,
    /// Full chunks, the storage thread's and its helper's.
    pub cuts: Cuts,
    segment_bytes: u64,
    /// Where the segment begins that the open chunk belongs to.
    segment_start: Lsn,
    /// Counts cuts and fresh starts: a writer of an earlier one is superseded.
    pub epoch: u64,
    /// There is a writer.
    pub taken: bool,
}

/// The chunk that still grows.
struct OpenChunk {
    start: Lsn,
    begin: Boundary,
    restart: bool,
    first_event: Option<u32>,
    raw: Vec<u8>,
    /// Bytes of it that were handed out to be stored.
    stored: usize,
}

impl OpenChunk {
    fn at(start: Lsn, begin: Boundary, restart: bool) -> Self {
        OpenChunk { start, begin, restart, first_event: None, raw: Vec::new(), stored: 0 }
    }
}

impl Intake {
    /// Continues the stream behind `begin` at `start`; `restart` where bytes of an open transaction
    /// lie between them or were cut away.
    pub fn new(config: &RelayConfig, begin: Boundary, start: Lsn, restart: bool, identity: Arc<str>) -> Self {
        let tracker = StreamTracker::new(config.flavor, begin.location.clone(), begin.checksum);
        // Behind a restart the boundary is here: nothing between it and the last one counts.
        let begin = if restart { Boundary { lsn: start, ..begin } } else { begin };
        Intake {
            tracker,
            identity,
            end: start,
            boundary_lsn: begin.lsn,
            boundary_checksum: begin.checksum,
            newest: 0,
            open: OpenChunk::at(start, begin, restart),
            cuts: Cuts::default(),
            segment_bytes: config.effective_segment_bytes(),
            segment_start: start,
            epoch: 0,
            taken: false,
        }
    }

    /// The byte behind the last event.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The source's clock at the newest event.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The server the stream comes from.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// End of the last transaction.
    pub fn location(&self) -> &Location {
        self.tracker.location()
    }

    /// Last transaction boundary.
    pub fn boundary(&self) -> Boundary {
        Boundary { location: self.tracker.location().clone(), lsn: self.boundary_lsn, checksum: self.boundary_checksum }
    }

    /// Whether no transaction is open.
    pub fn at_boundary(&self) -> bool {
        self.end == self.boundary_lsn
    }

    /// Whether the chunk that begins at `lsn` says that the stream begins again.
    pub fn restarts_at(&self, lsn: Lsn) -> bool {
        self.open.start == lsn && self.open.restart
    }

    /// Takes one whole event in. After an error nothing of it is kept.
    pub fn push(&mut self, event: &[u8]) -> Result<(), FrameError> {
        if self.open.raw.len() >= CHUNK_BYTES {
            let here = self.boundary();
            self.close(here);
        }
        if self.open.raw.capacity() == 0 {
            self.open.raw.reserve_exact(CHUNK_BYTES);
        }
        let crosses = self.open.raw.len() + event.len() > CHUNK_BYTES;
        let before = crosses.then(|| self.boundary());
        let tracked = self.tracker.feed(event)?;
        if tracked.header.timestamp != 0 && !tracked.header.is_artificial() {
            self.newest = tracked.header.timestamp;
        }
        let offset = self.open.raw.len() as u32;
        self.open.first_event.get_or_insert(offset);
        let mut rest = event;
        loop {
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES - self.open.raw.len()));
            self.open.raw.extend_from_slice(now);
            self.end.0 += now.len() as u64;
            rest = later;
            match &before {
                Some(before) if !rest.is_empty() => self.close(before.clone()),
                _ => break,
            }
        }
        if !tracked.in_transaction {
            self.boundary_lsn = self.end;
            self.boundary_checksum = self.tracker.checksum();
            if self.end.0 - self.segment_start.0 >= self.segment_bytes {
                self.end_segment();
            }
        }
        Ok(())
    }

    /// The stream begins again at the last boundary, as after a reconnect.
    pub fn restart(&mut self, identity: &str) {
        self.tracker.restart();
        let cut = !self.at_boundary();
        if *self.identity != *identity || cut {
            let here = self.boundary();
            if !self.open.raw.is_empty() {
                self.close(here);
            }
            self.identity = identity.into();
        }
        if cut {
            self.boundary_lsn = self.end;
            self.open = OpenChunk::at(self.end, self.boundary(), true);
        }
    }

    /// The next full chunk; without one what the open chunk holds beyond what was handed out.
    pub fn take(&mut self) -> Option<Cut> {
        if let Some(cut) = self.cuts.take() {
            return Some(cut);
        }
        if self.open.raw.len() == self.open.stored {
            return None;
        }
        let end = self.boundary();
        if self.open.raw.len() >= CLOSE_BYTES {
            self.close(end);
            return self.cuts.take();
        }
        self.open.stored = self.open.raw.len();
        let raw = self.open.raw.clone();
        let chunk = Chunk { header: self.header(end), raw: raw.into() };
        Some(Cut { chunk, ends_segment: false, encoded: Encoded::No })
    }

    /// Ends the open chunk and its segment where they are.
    pub fn end_segment(&mut self) {
        let here = self.boundary();
        if !self.open.raw.is_empty() {
            self.close(here);
        }
        self.cuts.end_segment();
        self.segment_start = self.end;
    }

    fn close(&mut self, end: Boundary) {
        let header = self.header(end.clone());
        let next = OpenChunk::at(self.end, end, false);
        let open = std::mem::replace(&mut self.open, next);
        // A transaction that does not end must not make a segment that does not.
        let ends_segment = self.end.0 - self.segment_start.0 >= self.segment_bytes / 4 * 5;
        if ends_segment {
            self.segment_start = self.end;
        }
        self.cuts.push(Chunk { header, raw: open.raw.into() }, ends_segment);
    }

    fn header(&self, end: Boundary) -> Header {
        Header {
            start: self.open.start,
            raw_len: self.open.raw.len() as u32,
            first_event: self.open.first_event,
            newest: self.newest,
            restart: self.open.restart,
            identity: self.identity.clone(),
            begin: self.open.begin.clone(),
            end,
        }
    }
}
