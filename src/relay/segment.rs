//! A segment: what is known of one without opening it, and the manifest that remembers it.
//!
//! Invariant: the manifest on disk names every sealed segment that counts, and `active_seq`: a directory with a lower
//! number that it does not name is rubbish, one with this number or a higher one was being written. It is replaced
//! whole. Without it everything can be found again by reading the segments.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::chunk::parse_file;
use super::{Boundary, Lsn};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location};
use crate::store::{StoreError, write_atomic};

const VERSION: u32 = 1;
const FILE: &str = "manifest.json";

/// One segment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    /// Its number, and its directory's name.
    pub seq: u64,
    /// Its first byte.
    pub start: Lsn,
    /// Last transaction boundary at or before its start.
    pub begin: Boundary,
    /// The byte behind its last one that is stored.
    pub end_lsn: Lsn,
    /// Last transaction boundary at or before its end.
    pub end: Boundary,
    /// The source's clock at its newest event.
    pub newest: u32,
    /// The server its end came from.
    pub identity: Arc<str>,
    /// Bytes on disk when last measured.
    pub disk_bytes: u64,
    /// Whether nothing more is written to it.
    pub sealed: bool,
}

impl Segment {
    /// Whether its first byte is behind a transaction: a log may begin with it.
    pub fn begins_clean(&self) -> bool {
        self.begin.lsn == self.start
    }

    /// Raw bytes in it.
    pub fn raw_bytes(&self) -> u64 {
        self.end_lsn.0 - self.start.0
    }
}

/// The directory of a segment.
pub(super) fn segment_dir(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:08}"))
}

/// What survives a restart besides the segments themselves.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    pub flavor: Flavor,
    /// Where the log begins while it holds nothing.
    pub origin: Option<Boundary>,
    /// The server named when the log was begun.
    pub identity: Arc<str>,
    /// Lowest number of a segment that may be being written.
    pub active_seq: u64,
    /// Sealed segments, oldest first.
    pub sealed: Vec<Segment>,
}

impl Manifest {
    /// Reads it; `None` where there is none or it does not parse.
    pub fn load(dir: &Path, flavor: Flavor) -> Option<Manifest> {
        let stored: StoredManifest = serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()?;
        stored.into_manifest(flavor)
    }

    /// Replaces it, durably.
    pub fn store(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(FILE);
        let fail = |error| StoreError::from_io("write", &path, error);
        let json =
            serde_json::to_vec_pretty(&StoredManifest::from_manifest(self)).map_err(|error| fail(error.into()))?;
        write_atomic(&path, &json).map_err(fail)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredManifest {
    version: u32,
    flavor: String,
    origin: Option<StoredBoundary>,
    identity: String,
    active_seq: u64,
    sealed: Vec<StoredSegment>,
}

#[derive(Serialize, Deserialize)]
struct StoredBoundary {
    file: String,
    offset: u64,
    gtids: String,
    lsn: u64,
    checksum: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredSegment {
    seq: u64,
    start: u64,
    begin: StoredBoundary,
    end_lsn: u64,
    end: StoredBoundary,
    newest: u32,
    identity: String,
    disk_bytes: u64,
}

impl StoredManifest {
    fn from_manifest(manifest: &Manifest) -> Self {
        StoredManifest {
            version: VERSION,
            flavor: manifest.flavor.as_str().to_owned(),
            origin: manifest.origin.as_ref().map(StoredBoundary::from_boundary),
            identity: manifest.identity.to_string(),
            active_seq: manifest.active_seq,
            sealed: manifest
                .sealed
                .iter()
                .map(|segment| StoredSegment {
                    seq: segment.seq,
                    start: segment.start.0,
                    begin: StoredBoundary::from_boundary(&segment.begin),
                    end_lsn: segment.end_lsn.0,
                    end: StoredBoundary::from_boundary(&segment.end),
                    newest: segment.newest,
                    identity: segment.identity.to_string(),
                    disk_bytes: segment.disk_bytes,
                })
                .collect(),
        }
    }

    fn into_manifest(self, flavor: Flavor) -> Option<Manifest> {
        if self.version != VERSION || self.flavor != flavor.as_str() {
            return None;
        }
        let origin = match self.origin {
            Some(origin) => Some(origin.into_boundary(flavor)?),
            None => None,
        };
        let sealed = self.sealed.into_iter().map(|stored| {
            Some(Segment {
                seq: stored.seq,
                start: Lsn(stored.start),
                begin: stored.begin.into_boundary(flavor)?,
                end_lsn: Lsn(stored.end_lsn).max(Lsn(stored.start)),
                end: stored.end.into_boundary(flavor)?,
                newest: stored.newest,
                identity: stored.identity.into(),
                disk_bytes: stored.disk_bytes,
                sealed: true,
            })
        });
        Some(Manifest {
            flavor,
            origin,
            identity: self.identity.into(),
            active_seq: self.active_seq,
            sealed: sealed.collect::<Option<_>>()?,
        })
    }
}

impl StoredBoundary {
    fn from_boundary(boundary: &Boundary) -> Self {
        StoredBoundary {
            file: boundary.location.position.file.name().to_owned(),
            offset: boundary.location.position.offset,
            gtids: boundary.location.gtids.to_string(),
            lsn: boundary.lsn.0,
            checksum: boundary.checksum,
        }
    }

    fn into_boundary(self, flavor: Flavor) -> Option<Boundary> {
        let position = BinlogPosition::new(parse_file(&self.file)?, self.offset);
        let location = Location::new(position, GtidSet::parse(flavor, &self.gtids).ok()?);
        Some(Boundary { location, lsn: Lsn(self.lsn), checksum: self.checksum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_comes_back_and_another_dialects_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::new(
            BinlogPosition::parse("bin.000004", 77).unwrap(),
            GtidSet::parse(Flavor::MariaDb, "0-1-9").unwrap(),
        );
        let begin = Boundary { location, lsn: Lsn(10), checksum: true };
        let segment = Segment {
            seq: 3,
            start: Lsn(10),
            end: Boundary { lsn: Lsn(900), ..begin.clone() },
            begin: begin.clone(),
            end_lsn: Lsn(950),
            newest: 5,
            identity: "0-1".into(),
            disk_bytes: 4096,
            sealed: true,
        };
        let unknown =
            Location::new(BinlogPosition::new(crate::model::BinlogFile::unknown(), 4), GtidSet::empty(Flavor::MariaDb));
        let manifest = Manifest {
            flavor: Flavor::MariaDb,
            origin: Some(Boundary { location: unknown, lsn: Lsn(0), checksum: false }),
            identity: "0-1".into(),
            active_seq: 4,
            sealed: vec![segment],
        };
        manifest.store(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path(), Flavor::MariaDb), Some(manifest));
        assert_eq!(Manifest::load(dir.path(), Flavor::MySql), None);
    }
}
