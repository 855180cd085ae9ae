//! The one engine: sled 1.0.0-alpha.124, with its known faults kept inside this file.
//!
//! Invariant: sled is only asked what [`preflight`] has shown to be sound, every call is guarded against its
//! assertions, and its background flusher never has anything to do. That thread ends the process when a flush of its
//! own fails, so its interval is made endless and every flush is an explicit one whose error is returned; a table that
//! met an error is never dropped but leaked with its open files, because the drop would flush again. `drop_tree` is
//! never called (the store could not be opened again), and there is one tree only. A crash leaves the last flush.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::guard::guarded;
use super::preflight::{self, Preflight};
use super::{Profile, StoreError, Table, disk};

/// Ten years, in milliseconds. Not `None`: that makes every dropped handle and iterator flush.
const NEVER: usize = 315_360_000_000;

/// How long a directory may stay locked after its last handle was dropped: the engine's flusher acknowledges its end first
/// and lets go of the directory then, on its own thread.
const LET_GO: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LET_GO_TICK: Duration = Duration::from_millis(2);

/// The engine cannot do without: this level looks for repetitions so seldom that it all but copies.
const NO_COMPRESSION: i32 = -131_072;

/// Leaves of chunks are rewritten by each flush: small ones.
const CHUNK_FANOUT: usize = 4;
/// Leaves of records.
const RECORD_FANOUT: usize = 64;

pub(super) fn open(path: &Path, profile: Profile) -> Result<Box<dyn Table>, StoreError> {
    match profile {
        Profile::Chunks | Profile::ChunksReadOnly => Ok(Box::new(SledTable::<CHUNK_FANOUT>::open(path, profile)?)),
        Profile::Records => Ok(Box::new(SledTable::<RECORD_FANOUT>::open(path, profile)?)),
    }
}

fn config(path: &Path, profile: Profile) -> sled::Config {
    let (cache, level, fill) = match profile {
        Profile::Chunks => (8 << 20, NO_COMPRESSION, 0.9),
        // A fill ratio of zero: closing a table that was only read must not rewrite it.
        Profile::ChunksReadOnly => (16 << 20, NO_COMPRESSION, 0.0),
        Profile::Records => (8 << 20, 1, 0.9),
    };
    let mut config = sled::Config::new()
        .path(path)
        .cache_capacity_bytes(cache)
        .flush_every_ms(Some(NEVER))
        .zstd_compression_level(level);
    config.target_heap_file_fill_ratio = fill;
    config
}

struct SledTable<const FANOUT: usize> {
    /// Taken only by `drop`.
    db: Option<sled::Db<FANOUT>>,
    path: PathBuf,
    damaged_from: Option<Vec<u8>>,
    shared: Arc<Flags>,
}

/// What all handles of a table know.
#[derive(Default)]
struct Flags {
    /// A call failed: nothing more is written, and no handle is dropped.
    poisoned: AtomicBool,
    /// Something was written since the last flush.
    dirty: AtomicBool,
}

impl<const FANOUT: usize> SledTable<FANOUT> {
    fn open(path: &Path, profile: Profile) -> Result<Self, StoreError> {
        let config = config(path, profile);
        let existed = path.join("metadata").exists();
        let damaged_from = match existed {
            true => match open_when_let_go(|| preflight::check(path, &config, FANOUT))? {
                Preflight::Sound => None,
                Preflight::DamagedFrom(key) if key.is_empty() || profile == Profile::Records => {
                    return Err(StoreError::Corrupt { path: path.to_owned(), what: "a page is unreadable".to_owned() });
                }
                Preflight::DamagedFrom(key) => Some(key),
            },
            false => None,
        };
        let db = open_when_let_go(|| guarded("open", path, || config.open::<FANOUT>()))?;
        if !existed {
            make_creation_durable(path).map_err(|error| StoreError::from_io("create", path, error))?;
        }
        Ok(SledTable { db: Some(db), path: path.to_owned(), damaged_from, shared: Arc::default() })
    }

    /// Calls the engine; after an error nothing more is written through any handle.
    fn call<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&sled::Db<FANOUT>) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let Some(db) = &self.db else { return Err(StoreError::Closed { path: self.path.clone() }) };
        let result = guarded(doing, &self.path, || call(db));
        if result.is_err() {
            self.shared.poisoned.store(true, Ordering::Release);
        }
        result
    }

    fn write<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&sled::Db<FANOUT>) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        if self.shared.poisoned.load(Ordering::Acquire) || self.damaged_from.is_some() {
            let source = io::Error::other("an earlier error made it unusable until it is opened again");
            return Err(StoreError::Io { doing, path: self.path.clone(), source });
        }
        self.call(doing, call)
    }

    fn check_readable(&self, key: &[u8]) -> Result<(), StoreError> {
        match &self.damaged_from {
            Some(from) if key >= from.as_slice() => {
                Err(StoreError::Corrupt { path: self.path.clone(), what: "a page is unreadable".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// Opens a directory that this process may have let go of a moment ago. One that is locked for longer is someone else's.
fn open_when_let_go<T>(open: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let limit = Instant::now() + LET_GO;
    loop {
        match open() {
            Err(StoreError::Locked { .. }) if Instant::now() < limit => std::thread::sleep(LET_GO_TICK),
            opened => return opened,
        }
    }
}

/// The engine writes its settings file without fsync; without it the store does not open again.
fn make_creation_durable(path: &Path) -> io::Result<()> {
    File::open(path.join("durability_cookie"))?.sync_all()?;
    disk::sync_dir(path)?;
    path.parent().map_or(Ok(()), disk::sync_dir)
}

fn owned((key, value): (sled::InlineArray, sled::InlineArray)) -> (Bytes, Bytes) {
    (Bytes::from_owner(key), Bytes::from_owner(value))
}

impl<const FANOUT: usize> Table for SledTable<FANOUT> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check_readable(key)?;
        self.call("read", |db| db.get(key)).map(|value| value.map(Bytes::from_owner))
    }

    fn at_or_before(&self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        // Backwards from a bound the engine only visits leaves before it, so the bound must not lie beyond the damage.
        let mut end = [key, &[0]].concat();
        if let Some(from) = self.damaged_from.as_ref().filter(|from| **from < end) {
            end.clone_from(from);
        }
        self.call("read", |db| db.range::<&[u8], _>(..end.as_slice()).next_back().transpose())
            .map(|entry| entry.map(owned))
    }

    fn range(&self, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        // Forwards it reads one leaf ahead, which the damage might be in.
        self.check_readable(if self.damaged_from.is_some() { &[0xff; 64] } else { from })?;
        self.call("read", |db| {
            db.range::<&[u8], _>(from..).take(limit).map(|entry| entry.map(owned)).collect::<io::Result<Vec<_>>>()
        })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.shared.dirty.store(true, Ordering::Release);
        self.write("write", |db| db.insert(key, value).map(drop))
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.shared.dirty.store(true, Ordering::Release);
        self.write("write", |db| db.remove(key).map(drop))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.shared.dirty.store(false, Ordering::Release);
        self.write("flush", |db| db.flush().map(drop))
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        disk::allocated_bytes(&self.path).map_err(|error| StoreError::from_io("measure", &self.path, error))
    }

    fn damaged_from(&self) -> Option<&[u8]> {
        self.damaged_from.as_deref()
    }

    fn share(&self) -> Box<dyn Table> {
        Box::new(SledTable::<FANOUT> {
            db: self.db.clone(),
            path: self.path.clone(),
            damaged_from: self.damaged_from.clone(),
            shared: self.shared.clone(),
        })
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        match self.shared.dirty.load(Ordering::Acquire) {
            true => self.flush(),
            false => Ok(()),
        }
    }
}

impl<const FANOUT: usize> Drop for SledTable<FANOUT> {
    fn drop(&mut self) {
        if self.shared.dirty.load(Ordering::Acquire)
            && !self.shared.poisoned.load(Ordering::Acquire)
            && let Err(error) = self.flush()
        {
            tracing::error!(path = %self.path.display(), %error, "store not flushed at close");
        }
        let db = self.db.take();
        if self.shared.poisoned.load(Ordering::Acquire) {
            // Its last handle would flush what cannot be flushed, and end the process.
            std::mem::forget(db);
        } else {
            let _ = guarded("close", &self.path, || {
                drop(db);
                Ok(())
            });
        }
    }
}
