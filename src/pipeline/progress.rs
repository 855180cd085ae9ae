//! How far a pipeline is: one value, published after each group, read by anyone without waiting.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::model::{Location, RowMark, SourceTable};
use crate::snapshot::CopyProgress;

/// Upper bounds of [`Durations`]' buckets, in seconds. A group should take about 0.1; a lag may be hours.
pub const DURATION_BOUNDS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

/// How often something took how long: a count for each bound that it is below, and the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Durations {
    /// For each of [`DURATION_BOUNDS`], how many took no longer.
    pub up_to: [u64; DURATION_BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// What all took together, in seconds.
    pub seconds: f64,
}

impl Durations {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.add_times(took, 1);
    }

    /// So many more that took the same.
    pub fn add_times(&mut self, took: Duration, times: u64) {
        let seconds = took.as_secs_f64();
        for (count, _) in self.up_to.iter_mut().zip(DURATION_BOUNDS).filter(|(_, bound)| seconds <= *bound) {
            *count += times;
        }
        (self.count, self.seconds) = (self.count + times, self.seconds + seconds * times as f64);
    }

    /// Those of another time as well.
    pub fn plus(mut self, other: &Durations) -> Self {
        self.up_to.iter_mut().zip(other.up_to).for_each(|(count, more)| *count += more);
        (self.count, self.seconds) = (self.count + other.count, self.seconds + other.seconds);
        self
    }
}

/// Upper bounds of [`Sizes`]' buckets.
pub const SIZE_BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 20_000];

/// How often something was how large: a count for each bound that it is not above, and the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// For each of [`SIZE_BOUNDS`], how many were no larger.
    pub up_to: [u64; SIZE_BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// All sizes together.
    pub total: u64,
}

impl Sizes {
    /// One more.
    pub fn add(&mut self, size: u64) {
        let above = SIZE_BOUNDS.partition_point(|bound| *bound < size);
        self.up_to[above..].iter_mut().for_each(|count| *count += 1);
        (self.count, self.total) = (self.count + 1, self.total + size);
    }

    /// Those of another time as well.
    pub fn plus(mut self, other: &Sizes) -> Self {
        self.up_to.iter_mut().zip(other.up_to).for_each(|(count, more)| *count += more);
        (self.count, self.total) = (self.count + other.count, self.total + other.total);
        self
    }
}

/// A DDL statement that was sent and has not been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningDdl {
    /// Its beginning.
    pub statement: String,
    /// When it was sent.
    pub since: SystemTime,
}

/// A table that is not what the source's is until it is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgainProgress {
    /// Which.
    pub table: SourceTable,
    /// Rows written and rows that it has, as the source estimates; `None` while it waits.
    pub reading: Option<(u64, u64)>,
}

/// What a pipeline does.
#[derive(Debug, Clone, Default)]
pub enum Doing {
    /// Not known yet: it looks at what stands downstream.
    #[default]
    Looking,
    /// Existing rows are copied.
    Copying(Box<CopyProgress>),
    /// The binlog is followed.
    Following,
    /// The binlog is followed up to the task's end, which belongs to the copy; with how that ended, if it was this pipeline's.
    Ending(Option<Box<CopyProgress>>),
}

/// What transactions downstream held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitSizes {
    /// Statements that change rows.
    pub statements: Sizes,
    /// Rows.
    pub rows: Sizes,
}

impl CommitSizes {
    /// Those of another time as well.
    pub fn plus(self, other: &CommitSizes) -> Self {
        CommitSizes { statements: self.statements.plus(&other.statements), rows: self.rows.plus(&other.rows) }
    }
}

/// Where a running pipeline stands.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What it does.
    pub doing: Doing,
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
    /// Row changes that filters left out, of tables that are wanted.
    pub filtered_rows: u64,
    /// Bytes of SQL sent downstream.
    pub sent_bytes: u64,
    /// How long groups took from being dealt out to the last lane's commit.
    pub groups: Durations,
    /// Times between two writes of DM's row.
    pub flushes: Durations,
    /// Rows of the binlog's row events.
    pub event_rows: Sizes,
    /// Statements and rows of transactions committed downstream.
    pub commits: CommitSizes,
    /// Why safe mode is on; `None` in the exact mode.
    pub safe_mode: Option<String>,
    /// DDL at work downstream.
    pub ddl: Option<RunningDdl>,
    /// What the operator should know of how it is applied.
    pub notes: BTreeSet<String>,
    /// Tables that are to be read again.
    pub again: Vec<AgainProgress>,
    /// How many were read again, and what is to be said of the last one.
    pub read_again: (u64, String),
    /// An operator's orders are stored downstream.
    pub orders_taken: bool,
}

/// Notes in a status at most.
const NOTES: usize = 20;

impl Progress {
    /// Adds to the notes; whether it is a new one.
    pub fn note(&mut self, note: String) -> bool {
        self.notes.len() < NOTES && self.notes.insert(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_cumulative() {
        let mut sizes = Sizes::default();
        for size in [0, 1, 3, 5, 6, 20_000, 20_001] {
            sizes.add(size);
        }
        assert_eq!(sizes.up_to, [2, 2, 4, 5, 5, 5, 5, 5, 5, 5, 5, 6]);
        assert_eq!((sizes.count, sizes.total), (7, 40_016));
        assert_eq!(sizes.plus(&sizes).up_to[3], 10);
    }
}
