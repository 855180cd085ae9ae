//! How far a pipeline is: one value, published after each group, read by anyone without waiting.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::model::{Location, RowMark};

/// A DDL statement that was sent and has not been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningDdl {
    /// Its beginning.
    pub statement: String,
    /// When it was sent.
    pub since: SystemTime,
}

/// Where a running pipeline stands.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// In a few words.
    pub activity: String,
    /// Handed to the lanes.
    pub dispatched: Option<Location>,
    /// Committed on all lanes.
    pub applied: Option<RowMark>,
    /// What DM's row says.
    pub flushed: Option<Location>,
    /// Relay log applied, in bytes since its beginning.
    pub applied_lsn: Option<u64>,
    /// The source's clock at the last transaction applied, seconds since the epoch.
    pub applied_timestamp: Option<u32>,
    /// Row changes applied.
    pub rows: u64,
    /// Source transactions applied.
    pub transactions: u64,
    /// Updates and deletes that met no row.
    pub unmatched: u64,
    /// Why safe mode is on; `None` in the exact mode.
    pub safe_mode: Option<String>,
    /// DDL at work downstream.
    pub ddl: Option<RunningDdl>,
    /// What the operator should know of how it is applied.
    pub notes: BTreeSet<String>,
}
