//! Takes events in and cuts them into chunks.
//!
//! Owns the stream's state at its very end. The bytes stay where they are: a chunk is made of pieces of the runs that came.
//! Invariant: every byte handed to [`Intake::push`] is in exactly one chunk, in
//! order, and each chunk's boundaries are the last ones at or before its ends. No I/O: the storage thread takes the
//! chunks away. A crash loses what is here, which was never said to be relayed.

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{CHUNK_BYTES, Header, Unstored};
use super::cuts::{Cut, Cuts, Encoded};
use super::{Boundary, Lsn, RelayConfig};
use crate::binlog::{EventRun, FrameError, StreamTracker};
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
    /// Its bytes so far, as they came.
    pieces: Vec<Bytes>,
    /// Bytes in it, those of the run that is being taken in included.
    len: usize,
    /// Bytes of it that were handed out to be stored.
    stored: usize,
}

impl OpenChunk {
    fn at(start: Lsn, begin: Boundary, restart: bool) -> Self {
        OpenChunk { start, begin, restart, first_event: None, pieces: Vec::new(), len: 0, stored: 0 }
    }
}

/// The part of a run that is in no piece yet.
struct Untaken<'a> {
    run: &'a Bytes,
    from: usize,
}

impl Untaken<'_> {
    /// What there is before `to` is the open chunk's next piece.
    fn give(&mut self, open: &mut OpenChunk, to: usize) {
        if self.from < to {
            open.pieces.push(self.run.slice(self.from..to));
            self.from = to;
        }
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

    /// Takes events in. After an error those before the one that is wrong are taken, and nothing of it.
    pub fn push(&mut self, events: &EventRun) -> Result<(), FrameError> {
        let mut untaken = Untaken { run: events.bytes(), from: 0 };
        for (at, event) in events.iter() {
            if let Err(error) = self.push_event(at, event, &mut untaken) {
                untaken.give(&mut self.open, at);
                return Err(error);
            }
        }
        untaken.give(&mut self.open, events.len());
        Ok(())
    }

    /// Takes the event that stands at `at` of the run.
    fn push_event(&mut self, at: usize, event: &[u8], untaken: &mut Untaken<'_>) -> Result<(), FrameError> {
        if self.open.len >= CHUNK_BYTES {
            untaken.give(&mut self.open, at);
            let here = self.boundary();
            self.close(here);
        }
        let crosses = self.open.len + event.len() > CHUNK_BYTES;
        let before = crosses.then(|| self.boundary());
        let tracked = self.tracker.feed(event)?;
        if tracked.header.timestamp != 0 && !tracked.header.is_artificial() {
            self.newest = tracked.header.timestamp;
        }
        let offset = self.open.len as u32;
        self.open.first_event.get_or_insert(offset);
        let end = at + event.len();
        let mut taken = at;
        loop {
            let now = (end - taken).min(CHUNK_BYTES - self.open.len);
            self.open.len += now;
            self.end.0 += now as u64;
            taken += now;
            match &before {
                Some(before) if taken < end => {
                    untaken.give(&mut self.open, taken);
                    self.close(before.clone());
                }
                _ => break,
            }
        }
        if !tracked.in_transaction {
            self.boundary_lsn = self.end;
            self.boundary_checksum = self.tracker.checksum();
            if self.end.0 - self.segment_start.0 >= self.segment_bytes {
                untaken.give(&mut self.open, end);
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
            if self.open.len > 0 {
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
        if self.open.len == self.open.stored {
            return None;
        }
        let end = self.boundary();
        if self.open.len >= CLOSE_BYTES {
            self.close(end);
            return self.cuts.take();
        }
        self.open.stored = self.open.len;
        let chunk = Unstored { header: self.header(end), pieces: self.open.pieces.clone() };
        Some(Cut { chunk, ends_segment: false, encoded: Encoded::No })
    }

    /// Ends the open chunk and its segment where they are.
    pub fn end_segment(&mut self) {
        let here = self.boundary();
        if self.open.len > 0 {
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
        self.cuts.push(Unstored { header, pieces: open.pieces }, ends_segment);
    }

    fn header(&self, end: Boundary) -> Header {
        Header {
            start: self.open.start,
            raw_len: self.open.len as u32,
            first_event: self.open.first_event,
            newest: self.newest,
            restart: self.open.restart,
            identity: self.identity.clone(),
            begin: self.open.begin.clone(),
            end,
        }
    }
}
