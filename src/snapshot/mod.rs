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
//! - L0 is stored before anything is read: whatever changes while it is copied is in the binlog behind L0 and is replayed
//!   up to L1, idempotently. So a chunk need not be of the same instant as another.
//! - DM's row appears when everything is marked, and not before: without it a task is one that is to be copied.
//! - What was found downstream decides whether a copy counts. DM drops its own tables by name, not ours, so a token of ours
//!   is in one of DM's: where that is gone, so is the copy.

mod spec;

pub use spec::{
    CopyOptions, CopyOutcome, CopyProgress, CopySpec, Definition, Existing, Guide, Phase, Replay, Reread, Standing,
    TableProgress,
};

use std::pin::Pin;

use mysql_async::Conn;
use tokio::sync::watch;

use crate::error::Failure;
use crate::meta::MetaTables;
use crate::model::{Flavor, SourceTable};

/// Ready when the copy is to stop.
pub type Stopping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whether there is a copy to do. Reads only, and only downstream.
pub async fn look(_conn: &mut Conn, _tables: &MetaTables, _flavor: Flavor) -> Result<Standing, Failure> {
    Ok(Standing::Fresh)
}

/// Copies what is not copied yet. Returns within 200 ms of `stopping`. `anew` voids what is there.
pub async fn copy(
    _spec: CopySpec,
    _anew: bool,
    _stopping: Stopping,
    _progress: watch::Sender<CopyProgress>,
) -> CopyOutcome {
    CopyOutcome::Stopped
}

/// Makes one table's rows those of the source, while nothing else writes to it. `fence` is an UPDATE that each transaction
/// runs and that must match a row; `None` where nothing fences.
pub async fn read_again(
    _spec: &CopySpec,
    _table: &SourceTable,
    _fence: Option<String>,
    _stopping: Stopping,
    _progress: watch::Sender<CopyProgress>,
) -> Result<Reread, Failure> {
    Ok(Reread::Stopped)
}

/// Stores what of the replay is still to be done, as it changes: tables read again, a later `until`. `fence` as in
/// [`read_again`]; false where it did not match. `None` for the replay: it is over.
pub async fn record(
    _conn: &mut Conn,
    _tables: &MetaTables,
    _replay: Option<&Replay>,
    _fence: Option<&str>,
) -> Result<bool, Failure> {
    Ok(true)
}
