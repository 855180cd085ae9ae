//! The relay log: what was received, raw and durable, until every task has applied it.
//!
//! The log of one source is one stream of raw binlog events. A place in it is an [`Lsn`], the number of bytes before it.
//! It is cut into chunks, which are the values of segments, each a store in a directory of its own:
//!
//! ```text
//! writer ─► intake ──chunks──► storage thread ─► segment 7 (active) ─flush─► relayed
//!             │ events                             segments 4, 5, 6 (sealed) ─► removed as directories
//!             ▼                                        │ chunks
//!            tail ─────────► reader ◄──── reading thread
//! ```
//!
//! Invariants. An Lsn names the same bytes as long as the process lives, also after a cut; after a crash the bytes that
//! were never flushed lose theirs, so Lsns are not to be stored. *Received* moves when
//! events are in the tail, *relayed* when a flush that covers them has returned; readers see the former. A segment is
//! written by one process only: a restart seals what it finds and begins a new one. A chunk leaves the disk only when
//! every protected task and every reader has passed it, or when an operator begins anew. After `kill -9` the log ends at
//! the last chunk that was stored whole, perhaps inside an event; the next chunk then says that the stream begins again.

mod ahead;
mod chunk;
mod core;
mod cuts;
mod effort;
mod error;
mod handle;
mod intake;
mod log;
mod purge;
mod reader;
mod reading;
mod recovery;
mod runway;
mod segment;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Flavor, Location};

pub use error::{FullReason, RelayError};
pub use handle::Relay;
pub use log::RelayState;
pub use purge::{Held, PurgeReport};
pub use reader::{ReadItem, RelayReader};
pub use runway::{Runway, RunwayLimit, runway};
pub use writer::RelayWriter;

/// A place in one relay log: bytes of raw binlog before it. A cut leaves a gap. Good for one process, not for storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The end of a transaction in the log: where a reader may start, and all it must know to do so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Where that is on the source.
    pub location: Location,
    /// Where it is in the log.
    pub lsn: Lsn,
    /// Whether the events behind it carry a CRC32, until a format description says otherwise.
    pub checksum: bool,
}

/// When relay log that every task has passed is removed although there is room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Between two looks; zero for never.
    pub interval: Duration,
    /// Older than this by the source's clock; zero for no limit by age.
    pub expires: Duration,
    /// All of it where less than this is free on the file system; zero for no limit by space.
    pub remain_bytes: u64,
}

/// How a relay log is kept.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Its directory; created where missing. One relay log, one process.
    pub dir: PathBuf,
    /// Dialect of the source.
    pub flavor: Flavor,
    /// Bytes it may take on disk.
    pub budget_bytes: u64,
    /// Bytes that must stay free on the file system.
    pub free_floor_bytes: u64,
    /// What every task has passed is kept for as long as this says; `None` to remove it at once.
    pub retention: Option<Retention>,
    /// Raw bytes of a segment; a large transaction makes it up to a quarter larger.
    pub segment_bytes: u64,
    /// Time after which received events are flushed.
    pub flush_interval: Duration,
    /// Bytes, as they are stored, after which they are flushed earlier.
    pub flush_bytes: u64,
    /// Raw bytes of the newest events kept in memory.
    pub tail_bytes: u64,
}

impl RelayConfig {
    /// The defaults that were measured to be right, for the log in `dir`.
    pub fn new(dir: PathBuf, flavor: Flavor) -> Self {
        RelayConfig {
            dir,
            flavor,
            budget_bytes: 100 << 30,
            free_floor_bytes: 2 << 30,
            retention: None,
            segment_bytes: 64 << 20,
            flush_interval: Duration::from_millis(100),
            flush_bytes: 8 << 20,
            tail_bytes: 8 << 20,
        }
    }

    /// Purging goes by segments, so several of them must fit into the budget.
    fn effective_segment_bytes(&self) -> u64 {
        self.segment_bytes.min(self.budget_bytes / 8).max(1 << 20)
    }
}
