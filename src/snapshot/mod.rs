//! The copy of what a source holds before its binlog is followed: chunks with their marks, and tables read again.
//!
//! ```text
//! source ─► readers, one a table: chunk by chunk up the key ─► bounded channel ─► writers: rows and mark, one transaction
//!     ▲                                                                                        │ all marked
//!     └─ L0 noted first, then the structures ........ L1 behind the last read ◄────────────────┘ DM's row: L0, exit-safe L1
//! ```
//!
//! Invariants:
//! - A chunk's rows and its mark are one downstream transaction. After any crash exactly what is not marked is read again.
//! - Each such transaction moves its writer's own row `WHERE epoch = ours`; a claim raises all of them, and so waits for
//!   whoever still writes. A former owner then writes nothing.
//! - No row is read before all XA transactions have ended that were prepared before L0.
//! - L0 is stored before anything is read: whatever changes while it is copied is in the binlog behind L0 and is replayed
//!   up to L1, idempotently. So a chunk need not be of the same instant as another.
//! - DM's row appears when everything is marked, and not before: without it a task is one that is to be copied.
//! - What was found downstream decides whether a copy counts. DM drops its own tables by name, not ours, so a token of ours
//!   is in one of DM's: where that is gone, so is the copy.

mod again;
mod apart;
mod check;
mod chunk;
mod crew;
mod databases;
mod engine;
mod event;
mod gate;
mod governor;
mod job;
mod keyless;
mod leftover;
mod load;
mod look;
mod make;
mod named;
mod order;
mod others;
mod patience;
mod piece;
mod plan;
mod prepare;
mod prepared;
mod problems;
mod reader;
mod remedy;
mod room;
mod run;
mod shared;
mod source;
mod spec;
mod state;
mod structure;
mod value;
mod visible;
mod writer;

pub use again::read_again;
pub use leftover::{drop_leftover, empty, is_alone};
pub use order::may_read_again;
pub use room::{Part, Room, Turn};
pub use run::copy;
pub use spec::{
    CopyOptions, CopyOutcome, CopyProgress, CopySpec, Definition, Existing, Guide, Phase, Replay, Reread, Rereading,
    Standing, TableProgress, YIELD_FLOOR,
};
pub use state::{look, open, record};

use std::pin::Pin;

/// Ready when the copy is to stop.
pub type Stopping = Pin<Box<dyn Future<Output = ()> + Send>>;
