//! What readers and writers of a copy tell its engine.

use crate::error::Failure;
use crate::meta::ChunkMark;
use crate::model::Location;

/// What readers and writers tell.
#[derive(Debug)]
pub(super) enum Event {
    /// A reader begins a table.
    Begun { number: u32 },
    /// A table is read: in how many chunks, and at which location where it was read as a whole.
    Read { number: u32, chunks: u64, start: Option<Location> },
    /// A chunk is committed.
    Written { number: u32, mark: ChunkMark },
    /// One of the servers refused something of a table, or is gone for longer.
    Refused { number: u32, failure: Failure },
    /// Another owner has the copy.
    Fenced,
}
