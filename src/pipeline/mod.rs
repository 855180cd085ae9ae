//! Builds the stages of one task, owns them, stops them.
//!
//! ```text
//! relay reader ─► intake: decode, transform, bind ─► coordinator: form groups ─► lanes
//!                            ▲ waits for DDL ◄────────────┘   checkpoint
//! ```
//! A pipeline lives from a start or resume to a park. Nothing of it is kept but what is stored downstream: the next one
//! begins by claiming that.

mod coordinator;
mod former;
mod item;
mod progress;

pub use coordinator::{Coordinator, CoordinatorOptions};
pub use progress::Progress;

use crate::error::Failure;
use crate::model::RowMark;

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
    /// What is applied for certain.
    pub applied: RowMark,
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
        /// What is applied for certain.
        applied: RowMark,
    },
    /// Another owner has taken the task over.
    Fenced,
}
