//! A reader: yields the events of a log in order, from the disk while they are old and from memory at the end.
//!
//! Invariants: every event behind its start is yielded once, whole; where the stream began again it says so first, and
//! the partial transaction before is void. It asks for chunks ahead of need, a bounded number. While it lives, nothing
//! at or behind it is purged. Dropping a future of [`RelayReader::next`] loses nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::{oneshot, watch};

use super::chunk::Chunk;
use super::core::{Core, ReadRequest};
use super::log::Log;
use super::{Boundary, Lsn, RelayError};
use crate::binlog::{EventHeader, EventRun, HEADER_LEN};
use crate::model::Location;

/// Chunks asked for at a time.
const READ_AHEAD: usize = 4;
/// Raw bytes of a batch from memory, about.
const BATCH_BYTES: u64 = 1 << 20;

/// What a reader yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadItem {
    /// Whole events, in order.
    Events {
        /// The raw events, headers and checksums included, as they lie together. No run is empty.
        runs: Vec<EventRun>,
        /// The byte behind the last of them.
        end_lsn: Lsn,
    },
    /// The stream begins again at the last transaction boundary: what came behind it is void.
    Restart,
}

/// Follows the log. Made by [`super::Relay::reader`].
pub struct RelayReader {
    core: Arc<Core>,
    bell: watch::Receiver<u64>,
    id: u64,
    boundary: Boundary,
    /// Start of the next event to be yielded.
    event: Lsn,
    /// The part of it that was read.
    partial: BytesMut,
    chunks: VecDeque<Chunk>,
    asked: Option<oneshot::Receiver<Result<Vec<Chunk>, RelayError>>>,
    /// The last restart that was yielded, or the one it began at.
    restarted: Option<Lsn>,
}

/// Where the next events are.
enum Next {
    Item(ReadItem),
    Disk(Lsn),
    Nowhere,
}

impl RelayReader {
    pub(super) async fn open(core: Arc<Core>, from: &Location) -> Result<RelayReader, RelayError> {
        let bell = core.shared.listen();
        let (id, near, segment) = {
            let mut log = core.shared.log();
            let Some((near, segment)) = nearest(&log, from) else {
                drop(log);
                return Err(core.not_covered(from));
            };
            let id = log.next_reader;
            log.next_reader += 1;
            // From here on nothing behind it is purged.
            log.readers.insert(id, near.lsn);
            (id, near, segment)
        };
        let mut reader = RelayReader {
            core,
            bell,
            id,
            event: near.lsn,
            partial: BytesMut::new(),
            restarted: Some(near.lsn),
            boundary: near,
            chunks: VecDeque::new(),
            asked: None,
        };
        if let Some(seq) = segment {
            let (reply, answer) = oneshot::channel();
            let request = ReadRequest::Find { seq, location: from.clone(), reply };
            reader.core.reads.send(request).await.map_err(|_| RelayError::Closed)?;
            let found = reader.core.answer(answer).await?;
            if found.lsn > reader.event {
                (reader.event, reader.restarted) = (found.lsn, Some(found.lsn));
                reader.boundary = found;
                reader.core.shared.log().readers.insert(id, reader.event);
            }
        }
        Ok(reader)
    }

    /// The transaction boundary it began at, and what a decoder must know there.
    pub fn boundary(&self) -> &Boundary {
        &self.boundary
    }

    /// The byte behind the last event yielded.
    pub fn lsn(&self) -> Lsn {
        self.event
    }

    /// The next events, as soon as there are some. [`RelayError::NotCovered`] where the log was cut before it.
    pub async fn next(&mut self) -> Result<ReadItem, RelayError> {
        loop {
            self.bell.borrow_and_update();
            if let Some(item) = self.take_from_chunks()? {
                return Ok(item);
            }
            match self.look()? {
                Next::Item(item) => return Ok(item),
                Next::Disk(lsn) => self.fetch(lsn).await?,
                Next::Nowhere => self.bell.changed().await.map_err(|_| RelayError::Closed)?,
            }
        }
    }

    /// The byte behind what was read, the partial event included.
    fn raw(&self) -> Lsn {
        Lsn(self.event.0 + self.partial.len() as u64)
    }

    fn look(&mut self) -> Result<Next, RelayError> {
        let core = self.core.clone();
        let mut log = core.shared.log();
        loop {
            let item = self.take_from_tail(&log);
            log.readers.insert(self.id, self.event);
            if let Some(item) = item {
                // What was read ahead from disk has been overtaken.
                self.chunks.clear();
                self.asked = None;
                return Ok(Next::Item(item));
            }
            match log.onward(self.raw()) {
                Some(onward) if onward != self.raw() => {
                    // Behind a cut: what was read of an event will not be completed.
                    self.partial.clear();
                    self.event = onward;
                }
                Some(onward) if log.segment_at(onward).is_some() => return Ok(Next::Disk(onward)),
                Some(_) if log.closed => return Err(RelayError::Closed),
                Some(_) => return Ok(Next::Nowhere),
                None => {
                    drop(log);
                    return Err(core.not_covered(format!("byte {}", self.raw())));
                }
            }
        }
    }

    /// Events of the tail, where it holds what comes next.
    fn take_from_tail(&mut self, log: &Log) -> Option<ReadItem> {
        let holds = |lsn: Lsn| {
            let at = log.tail.partition_point(|batch| batch.end <= lsn);
            log.tail.get(at).filter(|batch| batch.start <= lsn).map(|batch| (at, batch))
        };
        let raw = self.raw();
        let (first, batch) = match holds(self.event) {
            Some(held) => held,
            // A crash cut an event, and the stream begins again behind what is left of it.
            None => holds(raw).filter(|(_, batch)| batch.restart && batch.start == raw)?,
        };
        self.event = self.event.max(batch.start);
        self.partial.clear();
        if batch.restart && batch.start == self.event && self.restarted != Some(self.event) {
            self.restarted = Some(self.event);
            return Some(ReadItem::Restart);
        }
        let start = self.event;
        let mut runs = Vec::new();
        for (index, batch) in log.tail.range(first..).enumerate() {
            let begins_again = index > 0 && (batch.restart || batch.start != self.event);
            if begins_again || self.event.0 - start.0 >= BATCH_BYTES {
                break;
            }
            let skip = usize::try_from(self.event.0 - batch.start.0).unwrap_or(usize::MAX);
            runs.extend(Some(batch.events.behind(skip)).filter(|run| !run.is_empty()));
            self.event = batch.end;
        }
        Some(ReadItem::Events { runs, end_lsn: self.event })
    }

    /// Waits for chunks from `lsn` on.
    async fn fetch(&mut self, lsn: Lsn) -> Result<(), RelayError> {
        if self.asked.is_none() {
            self.ask(lsn).await?;
        }
        let Some(asked) = &mut self.asked else { return Ok(()) };
        let answer = tokio::time::timeout(super::core::PATIENCE, asked).await;
        self.asked = None;
        match answer {
            Ok(answer) => self.chunks.extend(answer.map_err(|_| RelayError::Closed)??),
            Err(_) => return Err(self.core.no_answer()),
        }
        // The next ones are read while these are used.
        if let Some(last) = self.chunks.back() {
            let (reply, answer) = oneshot::channel();
            let request = ReadRequest::Chunks { from: last.header.end_lsn(), limit: READ_AHEAD, reply };
            if self.core.reads.try_send(request).is_ok() {
                self.asked = Some(answer);
            }
        }
        Ok(())
    }

    async fn ask(&mut self, lsn: Lsn) -> Result<(), RelayError> {
        let (reply, answer) = oneshot::channel();
        let request = ReadRequest::Chunks { from: lsn, limit: READ_AHEAD, reply };
        self.core.reads.send(request).await.map_err(|_| RelayError::Closed)?;
        self.asked = Some(answer);
        Ok(())
    }

    /// Events of the chunks that were read.
    fn take_from_chunks(&mut self) -> Result<Option<ReadItem>, RelayError> {
        while let Some(chunk) = self.chunks.front() {
            let header = &chunk.header;
            let raw = self.raw();
            if header.end_lsn() <= raw {
                self.chunks.pop_front();
                continue;
            }
            if header.start > raw || (header.restart && header.start == raw) {
                // Begins again: behind a gap, or behind a transaction that will not be completed.
                self.partial.clear();
                self.event = header.start;
                if header.restart && self.restarted != Some(header.start) {
                    self.restarted = Some(header.start);
                    return Ok(Some(ReadItem::Restart));
                }
            }
            let Some(chunk) = self.chunks.pop_front() else { break };
            let skip = usize::try_from(self.raw().0 - chunk.header.start.0).unwrap_or(usize::MAX);
            let raw = chunk.raw.slice(skip.min(chunk.raw.len())..);
            let runs = self.split(raw).map_err(|what| RelayError::Damaged {
                segment: self.core.shared.log().segment_at(chunk.header.start).map_or(0, |segment| segment.seq),
                lsn: chunk.header.start,
                at: Box::new(chunk.header.begin.clone()),
                what: what.to_owned(),
            })?;
            if !runs.is_empty() {
                return Ok(Some(ReadItem::Events { runs, end_lsn: self.event }));
            }
        }
        Ok(None)
    }

    /// Takes whole events off raw bytes; what is left becomes the partial one.
    fn split(&mut self, mut raw: Bytes) -> Result<Vec<EventRun>, &'static str> {
        let mut runs = Vec::new();
        while !self.partial.is_empty() && !raw.is_empty() {
            let wanted = match self.partial.len() {
                short if short < HEADER_LEN => HEADER_LEN,
                _ => event_len(&self.partial)?,
            };
            let take = wanted.saturating_sub(self.partial.len()).min(raw.len());
            self.partial.extend_from_slice(&raw.split_to(take));
            if self.partial.len() >= HEADER_LEN && self.partial.len() == event_len(&self.partial)? {
                runs.push(EventRun::of_whole_events(self.partial.split().freeze()));
            }
        }
        let mut whole = 0;
        while raw.len() - whole >= HEADER_LEN {
            let len = event_len(&raw[whole..])?;
            if len > raw.len() - whole {
                break;
            }
            whole += len;
        }
        if whole > 0 {
            runs.push(EventRun::of_whole_events(raw.split_to(whole)));
        }
        self.event.0 += runs.iter().map(|run| run.len() as u64).sum::<u64>();
        if raw.has_remaining() {
            self.partial.extend_from_slice(&raw);
        }
        Ok(runs)
    }
}

impl Drop for RelayReader {
    fn drop(&mut self) {
        self.core.shared.log().readers.remove(&self.id);
    }
}

fn event_len(bytes: &[u8]) -> Result<usize, &'static str> {
    EventHeader::parse(bytes).map(|header| header.size as usize).map_err(|_| "an event's header is malformed")
}

/// The nearest boundary at or before `from` that is known without reading, and the segment to look in for a nearer one.
/// `None` where the log does not reach from there to `from`.
fn nearest(log: &Log, from: &Location) -> Option<(Boundary, Option<u64>)> {
    let (start, received) = (log.start()?, log.received.as_ref()?);
    let same_set = !from.gtids.is_empty()
        && received.location.gtids.contains(&from.gtids)
        && from.gtids.contains(&received.location.gtids);
    if !from.covers(&start.location) || !(same_set || received.location.covers(from)) {
        return None;
    }
    let covered = |boundary: &&Boundary| from.covers(&boundary.location);
    let batches = log.tail.iter().rev().filter_map(|batch| batch.begin.as_ref());
    if let Some(near) = log.received.iter().chain(batches).find(covered) {
        return Some((near.clone(), None));
    }
    let segment = log.segments.values().rev().find(|segment| from.covers(&segment.begin.location));
    Some(match segment {
        Some(segment) => (segment.begin.clone(), Some(segment.seq)),
        None => (start.clone(), None),
    })
}
