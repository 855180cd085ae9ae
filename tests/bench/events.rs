//! Binlog events in memory, read from a source's own files.

use std::path::Path;

use bytes::Bytes;
use dm_agent::binlog::EventRun;
use dm_agent::model::{BinlogPosition, Flavor, GtidSet, Location};

use crate::support::docs::SourceLocation;
use crate::support::servers::Server;

/// The first bytes of a binlog file.
const MAGIC: &[u8] = b"\xfebin";

/// A part of a source's history.
pub struct Events {
    /// All bytes of it.
    pub bytes: Bytes,
    /// Where it begins.
    pub start: Location,
    /// Its events in order, slices of `bytes`.
    pub events: Vec<Bytes>,
}

impl Events {
    /// From the beginning of the file in which `start` lies, to `end`; whole events of about `limit` bytes at most.
    pub fn read(source: &Server, start: &SourceLocation, end: &SourceLocation, limit: usize) -> Events {
        let first = BinlogPosition::parse(&start.file, MAGIC.len() as u64).expect("a binlog file's name");
        let mut bytes = Vec::new();
        for file in files(&start.file, &end.file) {
            let mut read = read(&source.folder.join("data").join(&file));
            if file == end.file {
                read.truncate(end.position as usize);
            }
            bytes.extend_from_slice(&read[MAGIC.len()..]);
        }
        let bytes = Bytes::from(bytes);
        let mut events = Vec::new();
        let mut at = 0;
        while at < bytes.len().min(limit) {
            let size = u32::from_le_bytes(bytes[at + 9..at + 13].try_into().expect("four bytes")) as usize;
            events.push(bytes.slice(at..at + size));
            at += size;
        }
        let start = Location::new(first, GtidSet::empty(Flavor::MySql));
        Events { bytes: bytes.slice(..at), start, events }
    }

    /// The events in runs of at least this many bytes, as a connection delivers them.
    pub fn runs(&self, size: usize) -> Vec<EventRun> {
        let mut runs = Vec::new();
        let (mut from, mut to) = (0, 0);
        for event in &self.events {
            to += event.len();
            if to - from >= size {
                runs.push(from..to);
                from = to;
            }
        }
        runs.push(from..to);
        runs.into_iter().map(|run| EventRun::new(self.bytes.slice(run)).expect("whole events")).collect()
    }
}

/// Names of binlog files from one to another one.
fn files(first: &str, last: &str) -> Vec<String> {
    let split = |name: &str| -> (String, u32) {
        let (stem, number) = name.rsplit_once('.').expect("a binlog file's name has a number");
        (stem.to_owned(), number.parse().expect("a number"))
    };
    let (stem, from) = split(first);
    (from..=split(last).1).map(|number| format!("{stem}.{number:06}")).collect()
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(bytes.starts_with(MAGIC), "{} is no binlog file", path.display());
    bytes
}
