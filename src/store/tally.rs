//! How many flushes a database has had, told by a small file beside it.
//!
//! The engine recovers what it can read of its log, and a log that was cut (a file system that lost its tail, a copy that was
//! not whole) gives a database of some time ago, which looks sound. So each flush counts, in the database and, when that is
//! durable, here. Invariant: nobody is told that a write is durable before the file says so; a database that has counted
//! less than the file has lost such a write. A crash between the two leaves the file behind, never ahead. The file has two
//! places that are written in turn, so that a torn write spoils only what was not told yet.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{StoreError, disk};

/// Generation, count, CRC32 of both.
const ENTRY: usize = 8 + 8 + 4;
/// Places stand this far apart: in different blocks of any disk.
const APART: u64 = 4096;

/// The open file.
#[derive(Debug)]
pub(super) struct Tally {
    file: File,
    path: PathBuf,
    generation: u64,
}

impl Tally {
    /// Opens the file of the database in `store`, which has counted `count`; where there is none, or it is another
    /// database's, it begins with that. [`StoreError::Corrupt`] where the database has counted less than the file.
    pub(super) fn open(store: &Path, generation: u64, count: u64) -> Result<Tally, StoreError> {
        let path = store.with_extension("tally");
        let fail = |error| StoreError::from_io("open", &path, error);
        let told = match fs::read(&path) {
            Ok(bytes) => told(&bytes, generation),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail(error)),
        };
        if let Some(told) = told.filter(|told| *told > count) {
            let what = format!("its last writes are gone: it has had {told} flushes and knows of {count}");
            return Err(StoreError::Corrupt { path: store.to_owned(), what });
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
        let tally = Tally { file, path, generation };
        tally.tell(count)?;
        tally
            .path
            .parent()
            .map_or(Ok(()), disk::sync_dir)
            .map_err(|error| StoreError::from_io("open", &tally.path, error))?;
        Ok(tally)
    }

    /// The database has had so many flushes; durable when it returns.
    pub(super) fn tell(&self, count: u64) -> Result<(), StoreError> {
        let fail = |error| StoreError::from_io("write", &self.path, error);
        self.file.write_all_at(&entry(self.generation, count), count % 2 * APART).map_err(fail)?;
        self.file.sync_data().map_err(fail)
    }
}

fn entry(generation: u64, count: u64) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&generation.to_le_bytes());
    bytes[8..16].copy_from_slice(&count.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The highest count of this generation in the file.
fn told(bytes: &[u8], generation: u64) -> Option<u64> {
    let count = |at: u64| {
        let found = bytes.get(at as usize..)?.get(..ENTRY)?;
        let count = u64::from_le_bytes(*found.get(8..)?.first_chunk()?);
        (found == entry(generation, count)).then_some(count)
    };
    [0, APART].into_iter().filter_map(count).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_behind_and_survives_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("checkpoint");
        let tally = Tally::open(&store, 7, 0).unwrap();
        (1..=5).for_each(|count| tally.tell(count).unwrap());
        assert!(matches!(Tally::open(&store, 7, 4), Err(StoreError::Corrupt { .. })));
        // One that was flushed and not told yet.
        Tally::open(&store, 7, 6).unwrap();
        // Another database in its place begins anew.
        Tally::open(&store, 8, 0).unwrap().tell(1).unwrap();
        assert!(matches!(Tally::open(&store, 8, 0), Err(StoreError::Corrupt { .. })));

        let tally = Tally::open(&store, 8, 1).unwrap();
        tally.tell(2).unwrap();
        tally.file.write_all_at(&[0xff; 9], APART).unwrap();
        assert!(matches!(Tally::open(&store, 8, 1), Err(StoreError::Corrupt { .. })));
        Tally::open(&store, 8, 2).unwrap();
    }
}
