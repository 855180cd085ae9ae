//! A chunk: rows of one table as statements, with what its mark will say. And how large one should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mysql_async::{Row, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::apart;
use super::job::Job;
use super::load::{self, Lines};
use super::plan::{Bound, TablePlan, bound_text};
use crate::meta::ChunkMark;

/// What a chunk's transaction should take downstream; with rests between its pieces; and its rows alone, where others are not to
/// be kept waiting.
const AIM: Duration = Duration::from_millis(100);
const RESTED: Duration = Duration::from_millis(300);
const SHORT: Duration = Duration::from_millis(8);
/// Rows and bytes of a chunk at the pace of [`UNIT`].
const ROWS: u64 = 1000;
const BYTES: u64 = 256 << 10;
/// Paces are in thousandths.
const UNIT: u64 = 1000;
const SLOWEST: u64 = 30;
const FASTEST: u64 = 8 * UNIT;
/// Bytes of one statement, where the downstream takes that much.
const STATEMENT: usize = 1 << 20;

/// How large chunks are, learnt from how long they took. Shared by all readers and writers.
#[derive(Debug)]
pub(super) struct Pace {
    thousandths: AtomicU64,
    rows: Option<u64>,
    bytes: Option<u64>,
}

impl Pace {
    /// With the limits that the task gives.
    pub fn new(rows: Option<u64>, bytes: Option<usize>) -> Self {
        let bytes = bytes.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX).max(1));
        Pace { thousandths: AtomicU64::new(UNIT), rows: rows.map(|rows| rows.max(1)), bytes }
    }

    /// Rows of the next chunk at most.
    pub fn rows(&self) -> u64 {
        let rows = (ROWS * self.thousandths.load(Ordering::Relaxed) / UNIT).max(1);
        self.rows.map_or(rows, |limit| rows.min(limit))
    }

    /// Bytes of the next chunk; the row that reaches them is its last.
    pub fn bytes(&self) -> u64 {
        let bytes = (BYTES * self.thousandths.load(Ordering::Relaxed) / UNIT).max(1);
        self.bytes.map_or(bytes, |limit| bytes.min(limit))
    }

    /// A full chunk took this long.
    pub fn learn(&self, took: Duration) {
        self.learn_for(AIM, took);
    }

    /// A full chunk took this long with rests between its pieces.
    pub fn learn_rested(&self, took: Duration) {
        self.learn_for(RESTED, took);
    }

    /// The rows of a full chunk took this long, and the next are to be short.
    pub fn learn_short(&self, took: Duration) {
        self.learn_for(SHORT, took);
    }

    fn learn_for(&self, aim: Duration, took: Duration) {
        let pace = self.thousandths.load(Ordering::Relaxed);
        // Half way to what would have taken just as long as it should; writers that overwrite each other's value matter
        // little, the next one learns as well.
        let ratio = (aim.as_secs_f64() / took.as_secs_f64().max(0.001)).clamp(0.25, 4.0);
        let next = pace as f64 * (1.0 + ratio) / 2.0;
        self.thousandths.store((next as u64).clamp(SLOWEST, FASTEST), Ordering::Relaxed);
    }
}

/// One statement of a chunk.
#[derive(Debug)]
pub(super) struct Statement {
    pub sql: Vec<u8>,
    /// It has a value that strict modes refuse although the source holds it.
    pub relaxed: bool,
}

/// What is written in one transaction.
#[derive(Debug)]
pub(super) struct Chunk {
    pub job: Arc<Job>,
    pub mark: ChunkMark,
    pub statements: Vec<Statement>,
    /// Instead of statements: lines to be loaded, in blocks.
    pub lines: Vec<Bytes>,
    /// It reached a limit, so that how long it takes says something.
    pub full: bool,
    /// Its share of the memory for rows in flight; given back when it is written.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Its turn to be loaded, where they are taken in turn.
    pub turn: Option<OwnedSemaphorePermit>,
}

impl Chunk {
    /// Memory that it takes until it is written: once as it is, and what is on its way out at a time once more.
    pub fn memory(&self) -> usize {
        let sizes = || self.statements.iter().map(|statement| statement.sql.len());
        let lines: usize = self.lines.iter().map(Bytes::len).sum();
        let sent = if self.lines.is_empty() { sizes().max().unwrap_or_default() } else { load::BLOCK };
        sizes().sum::<usize>() + lines + sent
    }

    /// The same rows as statements, for a server that did not take them as they are.
    pub fn as_statements(&self, mut builder: Builder) -> Vec<Statement> {
        for row in self.lines.iter().flat_map(|block| load::rows(block)) {
            builder.add_values(&self.job.plan, |at| row.get(at).and_then(Option::as_deref));
        }
        builder.statements()
    }
}

/// Makes statements or lines out of rows.
#[derive(Debug)]
pub(super) struct Builder {
    /// Rows become lines.
    lines: Option<Lines>,
    head: Vec<u8>,
    tail: Vec<u8>,
    limit: usize,
    statements: Vec<Statement>,
    current: Vec<u8>,
    relaxed: bool,
    row: Vec<u8>,
    pub rows: u64,
    pub bytes: u64,
}

fn answer(row: &Row, at: usize) -> Option<&[u8]> {
    match row.as_ref(at) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        // The text protocol gives nothing else.
        _ => None,
    }
}

/// The key of a row.
pub(super) fn bound_of_row(plan: &TablePlan, row: &Row) -> Bound {
    plan.bound(|at| answer(row, at))
}

impl Builder {
    /// `head` and `tail` stand around the rows; `limit` is that of one statement in bytes.
    pub fn new((head, tail): (String, String), wanted: Option<usize>, server: usize) -> Self {
        Builder {
            lines: None,
            head: head.into_bytes(),
            tail: tail.into_bytes(),
            limit: wanted.unwrap_or(STATEMENT).min(server),
            statements: Vec::new(),
            current: Vec::new(),
            relaxed: false,
            row: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// One whose rows become lines.
    pub fn of_lines() -> Self {
        Builder { lines: Some(Lines::default()), ..Builder::new(Default::default(), None, 0) }
    }

    /// Adds a row. Gives its bytes, as the source sent them.
    pub fn add(&mut self, plan: &TablePlan, row: &Row) -> u64 {
        self.add_values(plan, |at| answer(row, at))
    }

    fn add_values<'a>(&mut self, plan: &TablePlan, value: impl Fn(usize) -> Option<&'a [u8]>) -> u64 {
        let sizes = (0..plan.written).map(|at| value(at).map_or(0, <[u8]>::len));
        let bytes: usize = sizes.sum();
        match &mut self.lines {
            Some(lines) => lines.add(plan, bytes, value),
            None => self.add_literals(plan, bytes, value),
        }
        let bytes = bytes as u64;
        self.rows += 1;
        self.bytes += bytes;
        bytes
    }

    fn add_literals<'a>(&mut self, plan: &TablePlan, bytes: usize, value: impl Fn(usize) -> Option<&'a [u8]>) {
        let mut relaxed = false;
        self.row.clear();
        // Once, and with room for what is escaped: growing would take twice as much for a moment.
        let room = self.head.len() + bytes + bytes / 16 + 64;
        self.row.reserve(if bytes >= apart::LARGE { room.max(apart::SIZE) } else { room });
        self.row.extend(&self.head);
        self.row.push(b'(');
        for (at, column) in plan.columns[..plan.written].iter().enumerate() {
            if at > 0 {
                self.row.push(b',');
            }
            relaxed |= column.kind.write(&mut self.row, value(at));
        }
        self.row.push(b')');
        let values = self.head.len();
        let full = self.current.len() + 1 + self.row.len() - values + self.tail.len() > self.limit;
        if !self.current.is_empty() && (full || relaxed != self.relaxed) {
            self.close();
        }
        if self.current.is_empty() {
            self.relaxed = relaxed;
            // A large row becomes its statement without another copy; what small ones grow into is kept for them.
            if self.row.len() > self.limit / 2 {
                self.current = std::mem::take(&mut self.row);
            } else {
                self.current.extend_from_slice(&self.row);
            }
        } else {
            self.current.push(b',');
            self.current.extend_from_slice(&self.row[values..]);
        }
    }

    fn statements(&mut self) -> Vec<Statement> {
        self.close();
        std::mem::take(&mut self.statements)
    }

    fn close(&mut self) {
        if self.current.is_empty() {
            return;
        }
        self.current.extend(&self.tail);
        let sql = std::mem::take(&mut self.current);
        self.statements.push(Statement { sql, relaxed: self.relaxed });
    }

    /// The chunk of all rows since the last one.
    pub fn take(&mut self, job: &Arc<Job>, seq: u64, low: Option<&Bound>, high: Option<&Bound>, full: bool) -> Chunk {
        let mark = ChunkMark {
            seq,
            low: low.map(bound_text),
            high: high.map(bound_text),
            rows: std::mem::take(&mut self.rows),
            bytes: std::mem::take(&mut self.bytes),
        };
        let lines = self.lines.as_mut().map(Lines::take).unwrap_or_default();
        Chunk { job: Arc::clone(job), mark, statements: self.statements(), lines, full, permit: None, turn: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_what_chunks_take_and_stays_in_bounds() {
        let pace = Pace::new(None, None);
        (0..40).for_each(|_| pace.learn(Duration::from_millis(1)));
        assert_eq!(pace.rows(), ROWS * FASTEST / UNIT);
        (0..40).for_each(|_| pace.learn(Duration::from_secs(9)));
        assert_eq!(pace.rows(), ROWS * SLOWEST / UNIT);
        let settled = Pace::new(None, None);
        (0..40).for_each(|_| settled.learn(AIM));
        assert_eq!(settled.rows(), ROWS);
        assert_eq!(Pace::new(Some(7), Some(9)).rows(), 7);
        assert_eq!(Pace::new(Some(0), Some(0)).bytes(), 1);
    }
}
