//! What is left on disk when a log is opened.
//!
//! Invariant: what comes out of here is one unbroken stream: each segment goes on where the one before it ended, each
//! chunk likewise. Everything behind the first gap or damage is dropped, to be received again. Sealed segments are
//! believed (they are checked when they are read); one that was being written is walked through. It is sealed here, and
//! writing goes on in a new one, so that nothing is ever written to a store that another process left. Running it again
//! after a crash in the middle finds the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;

use super::chunk::{self, Header};
use super::intake::Intake;
use super::log::Log;
use super::segment::{Manifest, Segment, segment_dir};
use super::{Boundary, Lsn, RelayConfig, RelayError};
use crate::binlog::StreamTracker;
use crate::model::Flavor;
use crate::store::{self, Profile, StoreError, Table};

/// Chunks at the end of an unsealed segment that are read whole.
const VERIFIED_CHUNKS: usize = 8;

/// The log as it was found.
pub(super) struct Recovered {
    origin: Option<Boundary>,
    identity: Arc<str>,
    segments: Vec<Segment>,
    next_seq: u64,
}

/// Reads the manifest, looks at what it does not know, and leaves both the directory and the manifest in order.
pub(super) fn recover(config: &RelayConfig) -> Result<Recovered, RelayError> {
    let fail = |error| StoreError::from_io("read", &config.dir, error);
    fs::create_dir_all(&config.dir).map_err(fail)?;
    let present = segment_numbers(config).map_err(fail)?;
    let manifest = Manifest::load(&config.dir, config.flavor).unwrap_or_else(|| {
        if !present.is_empty() {
            tracing::warn!(dir = %config.dir.display(), "relay manifest unreadable, segments are read instead");
        }
        Manifest { flavor: config.flavor, origin: None, identity: "".into(), active_seq: 0, sealed: Vec::new() }
    });
    let mut found: BTreeMap<u64, Segment> = BTreeMap::new();
    for segment in manifest.sealed.iter().filter(|segment| present.contains(&segment.seq)) {
        found.insert(segment.seq, segment.clone());
    }
    for seq in present.iter().copied().filter(|seq| *seq >= manifest.active_seq) {
        if let Some(segment) = probe(config, seq)? {
            found.insert(seq, segment);
        }
    }
    let segments = unbroken(found.into_values().collect());
    let next_seq = present.iter().max().map_or(manifest.active_seq, |last| (last + 1).max(manifest.active_seq));
    let identity = segments.last().map_or(manifest.identity, |last| last.identity.clone());
    // A log that lost all it held begins where it would have gone on from, if that is known.
    let lost = manifest.sealed.first().map(|first| first.begin.clone());
    let origin = if segments.is_empty() { lost.or(manifest.origin) } else { manifest.origin };
    let tidy = Manifest {
        flavor: config.flavor,
        origin: origin.clone(),
        identity: identity.clone(),
        active_seq: next_seq,
        sealed: segments.clone(),
    };
    tidy.store(&config.dir)?;
    for seq in present.into_iter().filter(|seq| !segments.iter().any(|segment| segment.seq == *seq)) {
        let dir = segment_dir(&config.dir, seq);
        fs::remove_dir_all(&dir).map_err(|error| StoreError::from_io("remove", &dir, error))?;
    }
    Ok(Recovered { origin, identity, segments, next_seq })
}

impl Recovered {
    /// The state to begin with: the log, the intake unless the log was never begun, and the next segment's number.
    pub fn into_parts(self, flavor: Flavor) -> (Log, Option<Intake>, u64) {
        let last = self.segments.last().map(|last| (last.end.clone(), last.end_lsn, last.newest));
        let at = last.or_else(|| self.origin.clone().map(|origin| (origin.clone(), origin.lsn, 0)));
        let mut log = Log::default();
        (log.origin, log.identity) = (self.origin, self.identity.clone());
        log.segments = self.segments.into_iter().map(|segment| (segment.seq, segment)).collect();
        let Some((end, end_lsn, newest)) = at else { return (log, None, self.next_seq) };
        log.newest = newest;
        log.cut(end.clone(), end_lsn);
        let tracker = StreamTracker::new(flavor, end.location.clone(), end.checksum);
        // What is left of a transaction is void: the source sends it again, whole.
        let restart = end.lsn != end_lsn;
        let intake = Intake::new(tracker, end, end_lsn, restart, self.identity);
        (log, Some(intake), self.next_seq)
    }
}

fn segment_numbers(config: &RelayConfig) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&config.dir)? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().filter(|name| name.len() >= 8).and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segments up to the first one that does not go on where the one before it ended.
fn unbroken(segments: Vec<Segment>) -> Vec<Segment> {
    let mut chain: Vec<Segment> = Vec::new();
    for segment in segments {
        match chain.last() {
            None if !segment.begins_clean() => continue,
            Some(last) if last.end.location != segment.begin.location || last.end_lsn > segment.start => {
                tracing::error!(segment = segment.seq, "relay log broken before this segment, it ends there");
                break;
            }
            _ => chain.push(segment),
        }
    }
    chain
}

/// Looks into a segment that was being written. `None` where it holds nothing that can be used.
fn probe(config: &RelayConfig, seq: u64) -> Result<Option<Segment>, RelayError> {
    let dir = segment_dir(&config.dir, seq);
    let table = match store::open(&dir, Profile::ChunksReadOnly) {
        Ok(table) => table,
        Err(StoreError::Corrupt { what, .. }) => {
            tracing::error!(segment = seq, %what, "relay segment damaged, it is dropped");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let headers = walk(table.as_ref(), config.flavor)?;
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else { return Ok(None) };
    let segment = Segment {
        seq,
        start: first.start,
        begin: first.begin.clone(),
        end_lsn: last.end_lsn(),
        end: last.end.clone(),
        newest: last.newest,
        identity: last.identity.clone(),
        disk_bytes: table.disk_bytes()?,
        sealed: true,
    };
    table.close()?;
    Ok(Some(segment))
}

/// The headers of all chunks up to the first gap, and at most up to the first one of the last few that is damaged.
fn walk(table: &dyn Table, flavor: Flavor) -> Result<Vec<Header>, RelayError> {
    let mut headers: Vec<Header> = Vec::new();
    let mut bound = u64::MAX;
    // From the end to the start: the store may be readable only up to some key.
    loop {
        let entry = match table.at_or_before(&bound.to_be_bytes()) {
            Ok(entry) => entry,
            Err(StoreError::Corrupt { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some((key, value)) = entry else { break };
        let key = key.as_ref().try_into().map(u64::from_be_bytes).unwrap_or(0);
        let whole = headers.len() < VERIFIED_CHUNKS;
        let header = match whole {
            true => chunk::decode(&value, flavor).map(|chunk| chunk.header),
            false => chunk::decode_header(&value, flavor),
        };
        match header {
            Ok(header) if header.start == Lsn(key) => {
                if headers.last().is_some_and(|next| header.end_lsn() != next.start) {
                    headers.clear();
                }
                headers.push(header);
            }
            _ => headers.clear(),
        }
        match key.checked_sub(1) {
            Some(before) => bound = before,
            None => break,
        }
    }
    headers.reverse();
    Ok(headers)
}
