//! One table's part of the work: its plan, what of it is not read yet, how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::plan::{Bound, TablePlan, bound_of};
use crate::meta::ChunkMark;

/// How many loads of one table are on their way, where the target takes them in turn.
const TURNS: usize = 2;
/// Numbers between two intervals that a claim leaves for chunks in between.
const SPACING: u64 = 1 << 32;

/// A range that is not there yet: behind `low`, up to `high` and with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub low: Option<Bound>,
    pub high: Option<Bound>,
    /// Number of its first chunk.
    pub seq: u64,
}

/// A table at work.
#[derive(Debug)]
pub(super) struct Job {
    /// Its number in the copy.
    pub number: u32,
    pub plan: TablePlan,
    /// Estimates of the source.
    pub rows_estimated: u64,
    pub bytes_estimated: u64,
    pub fingerprint: u64,
    /// In the order of keys.
    pub gaps: Vec<Gap>,
    pub written: AtomicU64,
    /// The target did not take a load as it was: the rest goes as statements.
    pub as_statements: AtomicBool,
    /// Rows that others made way for, where several tables go into its target.
    pub replaced: AtomicU64,
    /// Loads on their way, where the target takes one after the other: one that it works on, and one that begins or ends.
    pub turns: Arc<Semaphore>,
    /// It is left as it is: nothing of it is written any more.
    pub left: AtomicBool,
}

impl Job {
    /// All of a table, of which nothing is there. `estimated`: its rows and bytes, as the source says.
    pub fn new(number: u32, plan: TablePlan, estimated: (u64, u64), fingerprint: u64) -> Self {
        let (rows_estimated, bytes_estimated) = estimated;
        Job {
            number,
            plan,
            rows_estimated,
            bytes_estimated,
            fingerprint,
            gaps: vec![Gap { low: None, high: None, seq: 1 }],
            written: AtomicU64::new(0),
            as_statements: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
            turns: Arc::new(Semaphore::new(TURNS)),
            left: AtomicBool::new(false),
        }
    }

    /// Whether it was given up.
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Bytes of a row, as the source estimates.
    pub fn row_estimated(&self) -> u64 {
        self.bytes_estimated / self.rows_estimated.max(1)
    }
}

/// Joins marks that touch and numbers them anew, so that between any two there is room for chunks.
pub(super) fn joined(marks: &[ChunkMark]) -> Vec<ChunkMark> {
    let mut joined: Vec<ChunkMark> = Vec::new();
    for mark in marks {
        match joined.last_mut() {
            Some(last) if last.high == mark.low && last.high.is_some() => {
                last.high.clone_from(&mark.high);
                last.rows += mark.rows;
                last.bytes += mark.bytes;
            }
            _ => joined.push(mark.clone()),
        }
    }
    for (at, mark) in joined.iter_mut().enumerate() {
        mark.seq = SPACING * (at as u64 + 1);
    }
    joined
}

/// What marks as [`joined`] gives them leave out. `None` where a bound does not read.
pub(super) fn gaps(marks: &[ChunkMark]) -> Option<Vec<Gap>> {
    let bound = |text: &Option<String>| match text {
        None => Some(None),
        Some(text) => bound_of(text).map(Some),
    };
    let mut gaps = Vec::new();
    let mut end = None;
    let mut seq = 1;
    for mark in marks {
        let low = bound(&mark.low)?;
        if low != end {
            gaps.push(Gap { low: end, high: low, seq });
        }
        end = bound(&mark.high)?;
        seq = mark.seq + 1;
    }
    if marks.last().is_none_or(|last| last.high.is_some()) {
        gaps.push(Gap { low: end, high: None, seq });
    }
    Some(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: u64) -> String {
        format!("[\"{key}\"]")
    }

    fn mark(seq: u64, low: Option<u64>, high: Option<u64>) -> ChunkMark {
        ChunkMark { seq, low: low.map(key), high: high.map(key), rows: 1, bytes: 10 }
    }

    /// Low and high of each gap.
    fn open(marks: &[ChunkMark]) -> Vec<(Option<u64>, Option<u64>)> {
        let number = |bound: Option<Bound>| bound.map(|bound| bound[0].parse().unwrap());
        let gaps = gaps(&joined(marks)).unwrap();
        assert!(gaps.windows(2).all(|pair| pair[0].seq < pair[1].seq), "{gaps:?}");
        gaps.into_iter().map(|gap| (number(gap.low), number(gap.high))).collect()
    }

    #[test]
    fn only_what_is_not_marked_is_open() {
        assert_eq!(open(&[]), [(None, None)]);
        assert_eq!(open(&[mark(1, None, Some(5))]), [(Some(5), None)]);
        assert_eq!(open(&[mark(2, Some(5), Some(9))]), [(None, Some(5)), (Some(9), None)]);
        let marks =
            [mark(1, None, Some(5)), mark(2, Some(5), Some(9)), mark(5, Some(20), Some(30)), mark(9, Some(40), None)];
        assert_eq!(open(&marks), [(Some(9), Some(20)), (Some(30), Some(40))]);
        assert_eq!(open(&[mark(1, None, Some(5)), mark(2, Some(5), None)]), []);
        assert_eq!(open(&[mark(1, None, None)]), []);
    }

    #[test]
    fn numbers_between_marks_never_run_out() {
        let marks = [mark(1, None, Some(5)), mark(2, Some(7), Some(9)), mark(3, Some(9), Some(11))];
        let joined = joined(&marks);
        assert_eq!(joined.len(), 2);
        assert_eq!((joined[1].rows, joined[1].bytes), (2, 20));
        let gaps = gaps(&joined).unwrap();
        assert!(gaps[0].seq > joined[0].seq && joined[1].seq - gaps[0].seq > 1 << 31 && gaps[1].seq > joined[1].seq);
    }

    #[test]
    fn a_bound_that_does_not_read_is_told() {
        assert_eq!(gaps(&[ChunkMark { low: Some("?".into()), ..mark(1, None, None) }]), None);
    }
}
