//! What a subtask looks like from outside: plain data, published through a watch, read without waiting for anyone.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::meta::StoredMark;
use crate::model::{Applied, Checkpointed, Dispatched, RowOrdinal};
use crate::pipeline::{CommitSizes, Durations, Sizes};

/// DM's stages, with its numbers (`pb.Stage`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants are DM's stage names
pub enum Stage {
    New = 1,
    Running = 2,
    Paused = 3,
    Stopped = 4,
    Finished = 5,
    Pausing = 6,
    Resuming = 7,
    Stopping = 8,
}

impl Stage {
    /// DM's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::New => "New",
            Stage::Running => "Running",
            Stage::Paused => "Paused",
            Stage::Stopped => "Stopped",
            Stage::Finished => "Finished",
            Stage::Pausing => "Pausing",
            Stage::Resuming => "Resuming",
            Stage::Stopping => "Stopping",
        }
    }
}

/// What part of its work a subtask is at, in DM's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Structures of existing tables are read, and made downstream.
    Dump,
    /// Existing rows are copied.
    Load,
    /// The binlog is followed.
    #[default]
    Sync,
}

impl Unit {
    /// DM's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Dump => "Dump",
            Unit::Load => "Load",
            Unit::Sync => "Sync",
        }
    }
}

/// How far the copy of existing rows is. Stored, so that the status of a parked task outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Where the binlog begins to count, once that is known.
    pub from: Option<StoredMark>,
    /// Tables to copy.
    pub tables: u64,
    /// Tables done.
    pub tables_done: u64,
    /// Rows of all tables, as the source estimates.
    pub rows: u64,
    /// Rows committed downstream.
    pub rows_written: u64,
    /// Bytes of all tables, as the source estimates.
    pub bytes: u64,
    /// Bytes of rows read.
    pub bytes_read: u64,
    /// Bytes of rows committed downstream.
    pub bytes_written: u64,
    /// Tables made downstream, and those that are to be made, before rows are copied.
    #[serde(skip)]
    pub made: (u64, u64),
    /// Tables at work: name, rows written, rows estimated.
    #[serde(skip)]
    pub at_work: Vec<(String, u64, u64)>,
    /// Rows committed a second, averaged over the last seconds.
    #[serde(skip)]
    pub rows_per_second: f64,
    /// Bytes of them.
    #[serde(skip)]
    pub bytes_per_second: f64,
    /// Time left at that rate.
    #[serde(skip)]
    pub eta: Option<Duration>,
}

/// What a table costs beside its rows, in rows: of many small tables that is most.
const TABLE: u64 = 200;

/// Bytes that cost as much as a row does besides.
const ROW: u64 = 250;

/// Rows with their bytes, and what their tables cost besides.
pub(super) fn work(rows: u64, bytes: u64, tables: u64) -> u64 {
    rows.saturating_add(bytes / ROW).saturating_add(TABLE.saturating_mul(tables))
}

impl CopyStatus {
    /// How much work is done, and all of it, as far as that is known: what time left is estimated by.
    pub(super) fn work(&self) -> (u64, u64) {
        let all = work(self.rows.max(self.rows_written), self.bytes.max(self.bytes_written), self.tables);
        (work(self.rows_written, self.bytes_written, self.tables_done), all)
    }

    /// How much of it is done, from 0 to 1. What the source estimates may be wrong either way: only a finished copy is 1.
    pub fn fraction(&self) -> f64 {
        if self.tables > 0 && self.tables_done >= self.tables {
            return 1.0;
        }
        let part = |done: u64, all: u64| if all == 0 { 0.0 } else { done as f64 / all as f64 };
        let (done, all) = self.work();
        let by_bytes = part(self.bytes_written, self.bytes);
        let known = if self.rows > 0 { part(done, all) } else { by_bytes.max(part(self.tables_done, self.tables)) };
        known.clamp(0.0, 0.99)
    }
}

/// Why a task is parked. A task runs only while none of these holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParkReason {
    /// An operator said so on this machine.
    Operator,
    /// The master's stage says so.
    Master,
    /// Something went wrong; the failures say what.
    Error,
    /// This agent does not own the source now.
    Lease,
    /// The disk under the state directory is full.
    Disk,
}

impl ParkReason {
    /// The word in status and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ParkReason::Operator => "operator",
            ParkReason::Master => "master",
            ParkReason::Error => "error",
            ParkReason::Lease => "lease",
            ParkReason::Disk => "disk",
        }
    }
}

/// Counts of one subtask since it was started in this process. They only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Row changes applied.
    pub rows: u64,
    /// Source transactions applied.
    pub transactions: u64,
    /// Updates and deletes that met no row.
    pub unmatched: u64,
    /// Row changes of wanted tables that filters left out.
    pub filtered_rows: u64,
    /// Bytes of binlog applied.
    pub bytes: u64,
    /// Bytes of SQL sent downstream.
    pub sent_bytes: u64,
    /// How long groups took.
    pub groups: Durations,
    /// Times between two writes of DM's row.
    pub flushes: Durations,
    /// How old the newest change of each group was when the group was applied, by the source's clock.
    pub lags: Durations,
    /// Rows of the binlog's row events.
    pub event_rows: Sizes,
    /// Statements and rows of transactions committed downstream.
    pub commits: CommitSizes,
}

/// One reason's particulars. Stored, so that they outlive a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    /// Since when.
    pub since: SystemTime,
    /// Who: `uid 1000 pid 4711`, `dm-master`, `dm-agent`.
    pub by: String,
    /// What was found; empty where the reason says all.
    #[serde(default)]
    pub note: String,
}

impl Park {
    /// A park from now on.
    pub fn now(by: impl Into<String>) -> Self {
        Park { since: SystemTime::now(), by: by.into(), note: String::new() }
    }

    /// Says what was found.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl TaskStatus {
    /// Of a subtask of which nothing more is known.
    pub fn new(name: &str, source_id: &str, stage: Stage) -> Self {
        TaskStatus {
            name: name.to_owned(),
            source_id: source_id.to_owned(),
            stage,
            parks: BTreeMap::new(),
            failures: Vec::new(),
            auto_resume_at: None,
            activity: String::new(),
            dispatched: None,
            applied: None,
            inside_transaction: None,
            flushed: None,
            lag: None,
            backlog_bytes: None,
            totals: Totals::default(),
            started: SystemTime::now(),
            rows_per_second: 0.0,
            bytes_per_second: 0.0,
            eta: None,
            ddl: None,
            starts: 0,
            failed: 0,
            healing: 0,
            tables_copied: (0, 0),
            safe_mode: None,
            notes: Vec::new(),
            unit: Unit::default(),
            copy: None,
            again: Vec::new(),
            read_again: (0, String::new()),
        }
    }
}

/// DDL that was sent downstream. Stored, so that a restart does not hide that it may still be at work there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunDdl {
    /// Its beginning.
    pub statement: String,
    /// When it was sent.
    pub since: SystemTime,
}

/// A subtask at one instant.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    /// Task name.
    pub name: String,
    /// Its source.
    pub source_id: String,
    /// DM's stage.
    pub stage: Stage,
    /// Why it is parked, or will be as soon as it has drained.
    pub parks: BTreeMap<ParkReason, Park>,
    /// What it failed with, newest last; emptied by a resume.
    pub failures: Vec<Failure>,
    /// When it will be resumed without anyone's doing, for failures that may heal.
    pub auto_resume_at: Option<SystemTime>,
    /// What it is doing now, in a few words: `connecting to the downstream`, `applying`, `parked`.
    pub activity: String,
    /// Handed to the lanes.
    pub dispatched: Option<Dispatched>,
    /// Committed downstream, on all lanes.
    pub applied: Option<Applied>,
    /// Set where it is parked inside a large transaction: the first row change of it that is not applied.
    pub inside_transaction: Option<RowOrdinal>,
    /// Stored in `dm_meta`.
    pub flushed: Option<Checkpointed>,
    /// Age of the oldest change that is not applied, by the source's clock; `None` while it is not known (no contact
    /// with the source yet). Zero only when everything the source has is applied.
    pub lag: Option<Duration>,
    /// Binlog bytes received and not applied yet.
    pub backlog_bytes: Option<u64>,
    /// What was done since the task was started in this process.
    pub totals: Totals,
    /// When that was.
    pub started: SystemTime,
    /// Row changes a second, averaged over the last seconds.
    pub rows_per_second: f64,
    /// Binlog bytes applied a second, averaged likewise.
    pub bytes_per_second: f64,
    /// When it will have caught up, at the present rates; `None` when it is not running or not getting nearer.
    pub eta: Option<Duration>,
    /// DDL that is at work downstream, or that was when contact was lost.
    pub ddl: Option<BegunDdl>,
    /// How often a pipeline was begun: starts, resumes, and tries of its own.
    pub starts: u64,
    /// How often it failed.
    pub failed: u64,
    /// How often of these it was with something that may heal by itself.
    pub healing: u64,
    /// Tables of the last copy in this process that are done, and all of them; stays when it is over.
    pub tables_copied: (u64, u64),
    /// Running with DM's safe mode, and why; `None` in the exact mode.
    pub safe_mode: Option<String>,
    /// Things the operator should know that stop nothing: options without effect here, and the like.
    pub notes: Vec<String>,
    /// What part of its work it is at.
    pub unit: Unit,
    /// How far the copy of existing rows is, while that is what it is at.
    pub copy: Option<CopyStatus>,
    /// Tables that are to be read again.
    pub again: Vec<AgainStatus>,
    /// How many were read again since the task was started in this process, and what is to be said of the last one.
    pub read_again: (u64, String),
}

/// A table that is not what the source's is until it is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgainStatus {
    /// In backticks, as in SQL.
    pub table: String,
    /// Rows written and rows that it has, as the source estimates; `None` while it waits.
    pub reading: Option<(u64, u64)>,
}
