//! The embedded store. `use sled` stands nowhere else.
//!
//! Owns the contract that the relay log and the checkpoint database are written against ([`Table`]), its one engine
//! ([`open`]), and the checkpoint database itself ([`CheckpointDb`]). Invariant: what [`Table::flush`] returned `Ok` for
//! is there after `kill -9` or a power cut, whole or reported as damaged, never silently different. Everything here
//! blocks; callers have a thread of their own for it. A crash in the middle of anything leaves what the last flush left.

mod checkpoint_db;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod damage_tests;
mod disk;
mod engine;
mod guard;
mod preflight;
mod tally;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Code, Failure};

pub use checkpoint_db::{Changes, CheckpointDb, Namespace};
pub use disk::{allocated_bytes, free_bytes, sync_dir, write_atomic};

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system or the engine refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, as a verb and its object.
        doing: &'static str,
        /// The store.
        path: PathBuf,
        /// What came back.
        #[source]
        source: io::Error,
    },
    /// What is on disk is not what was written.
    #[error("the store {} is damaged: {what}", path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// No space is left on the device.
    #[error("{doing} {}: no space is left on the device", path.display())]
    Full {
        /// What was being done.
        doing: &'static str,
        /// The store.
        path: PathBuf,
    },
    /// Another process, or a handle that could not be closed, has it open.
    #[error("the store {} is in use by another process", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The thread that owns the store has ended.
    #[error("the store {} is closed", path.display())]
    Closed {
        /// The store.
        path: PathBuf,
    },
}

impl StoreError {
    /// Sorts an error of the file system or the engine into the variants.
    pub(crate) fn from_io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { doing, path },
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                StoreError::Corrupt { path, what: format!("{doing}: {source}") }
            }
            io::ErrorKind::WouldBlock => StoreError::Locked { path },
            _ => StoreError::Io { doing, path, source },
        }
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Failure {
        let failure = Failure::new(Code::NotSet, error.to_string());
        match error {
            StoreError::Io { source, .. } => failure.cause(source.to_string()),
            StoreError::Corrupt { path, .. } => failure.workaround(format!(
                "Please stop dm-agent, move {} away and start it again: checkpoints are read back from the downstream, \
                 configurations come from the master or from `start-task`.",
                path.display()
            )),
            StoreError::Full { .. } => failure.workaround("Please make room on the disk under the state directory."),
            StoreError::Locked { .. } => failure.workaround("Please check that no other dm-agent has this directory."),
            StoreError::Closed { .. } => failure,
        }
    }
}

/// How a table is used; fixed when its directory is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Few large values that are compressed already, written in key order.
    Chunks,
    /// As [`Profile::Chunks`], opened only to read: a small cache, and the engine rewrites nothing.
    ChunksReadOnly,
    /// Many small values.
    Records,
}

/// One ordered map from keys to values in one directory.
///
/// The contract, which `conformance` runs against every engine:
///
/// - `put` and `remove` are seen by every handle at once, and are durable when a `flush` that began after them has
///   returned `Ok`. A crash before that leaves each key as it was or as it would be, key by key.
/// - Keys are ordered by their bytes.
/// - A value that is damaged on disk is an error, never other bytes. [`Table::damaged_from`] names the first key that
///   opening found to be unreadable: everything before it reads normally, everything from there on is an error.
/// - After the first error of a write or a flush the table refuses all further writes: it must be closed, and what was
///   not flushed is lost.
/// - Handles are for one thread each; [`Table::share`] makes another one. The directory is released when the last handle
///   has been dropped, and may then be removed.
pub trait Table: Send {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The last entry whose key is not behind `key`.
    fn at_or_before(&self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError>;

    /// Up to `limit` entries in order, from `from` on. Refused on a damaged table.
    fn range(&self, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Sets a value.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a key; nothing happens where there is none.
    fn remove(&mut self, key: &[u8]) -> Result<(), StoreError>;

    /// Makes everything before it durable.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// Bytes allocated on disk.
    fn disk_bytes(&self) -> Result<u64, StoreError>;

    /// First key that cannot be read; `None` for a sound table.
    fn damaged_from(&self) -> Option<&[u8]>;

    /// Another handle on the same table, for another thread.
    fn share(&self) -> Box<dyn Table>;

    /// Flushes and gives this handle up.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Opens the table in `path`, creating it where there is none. Takes 10 to 50 ms on a quiet disk and much longer while
/// other processes write: never call it where someone waits.
pub fn open(path: &Path, profile: Profile) -> Result<Box<dyn Table>, StoreError> {
    engine::open(path, profile)
}
