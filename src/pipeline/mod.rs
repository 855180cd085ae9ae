//! Builds the stages of one task, owns them, stops them.
//!
//! ```text
//! relay reader ─► intake: decode, transform, bind ─► coordinator: form groups ─► lanes
//!                            ▲ waits for DDL ◄────────────┘   checkpoint
//! ```
//! A pipeline lives from a start or resume to a park. Nothing of it is kept but what is stored downstream, by claiming which
//! the next one begins, and how much the downstream was seen to take.

mod build;
mod coordinator;
mod copying;
mod declared;
mod exceptions;
mod failed_at;
mod former;
mod guide;
mod here;
mod intake;
mod item;
mod mapping;
mod origin;
mod pace;
mod progress;
mod receive;
mod shadows;
mod spec;
mod trail;
mod window;

pub use crate::checkpoint::{Ledger, LedgerRecord, kept_here};
pub use crate::snapshot::{CopyOptions, CopyProgress, Existing, Phase as CopyPhase, TableProgress};
pub use build::run;
pub use copying::may_read_again;
pub use declared::{DeclaredChange, DeclaredColumn, DeclaredStore, DeclaredTable, DeclaredTables};
pub use exceptions::{Exception, Exceptions, Treatment, start_location};
pub use guide::Begun;
pub use guide::TaskGuide;
pub use pace::Paces;
pub use progress::{
    AgainProgress, CommitSizes, DURATION_BOUNDS, Doing, Durations, Progress, RunningDdl, SIZE_BOUNDS, Sizes,
};
pub use receive::{Breaks, Receive, ReceiveSpec, ReceiveState, check, receive, start_of};
pub use spec::{CopyPlan, PipelineSpec, target_of};

use crate::error::Failure;
use crate::model::{Location, RowMark};
use crate::relay::RelayError;

/// What a pipeline is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Go on.
    Run,
    /// Stop at the next transaction boundary, within the drain limit.
    Drain,
    /// Stop now; what is in flight is left to the stored positions.
    Abort,
}

/// Where a pipeline parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// What is applied for certain; `None` where it did not come as far as to know.
    pub applied: Option<RowMark>,
    /// Whether that is also stored, and nothing beyond it is applied. If not, the lanes' stored positions decide.
    pub exact: bool,
}

/// How a pipeline ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was stopped.
    Parked(Parked),
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// What is applied for certain; `None` where it did not come as far as to know.
        applied: Option<RowMark>,
    },
    /// The relay log does not reach back to where the task must go on: it must be begun anew there.
    RelayTooShort(Location),
    /// The relay log is damaged where the task must read: that part must be fetched again.
    RelayDamaged(RelayError),
    /// Another owner has taken the task over.
    Fenced,
    /// It has come to the task's own end, which is stored. `None` where it had come there before.
    Finished(Option<RowMark>),
}
