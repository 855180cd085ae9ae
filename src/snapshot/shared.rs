//! What readers and writers have in common: both ends, how large chunks are, how much may be in flight, and the gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mysql_async::Row;
use tokio::sync::{Semaphore, mpsc, watch};

use super::chunk::{Builder, Pace};
use super::event::Event;
use super::gate::Gate;
use super::job::Job;
use super::load::Taken;
use super::piece::Pieces;
use super::plan::TablePlan;
use super::source::Source;
use super::spec::CopySpec;
use crate::downstream::Downstream;

/// What readers and writers share.
pub(super) struct Shared {
    pub spec: CopySpec,
    pub source: Source,
    pub downstream: Downstream,
    pub epoch: u64,
    pub pace: Pace,
    /// And what of them is done at once where others need room.
    pub pieces: Pieces,
    /// How the downstream takes loads; not at all where something else was asked for.
    pub loads: Taken,
    /// Memory for rows in flight.
    pub budget: Arc<Semaphore>,
    /// Whoever reads rows of megabytes.
    pub large: Arc<Semaphore>,
    pub events: mpsc::Sender<Event>,
    pub halt: watch::Receiver<bool>,
    /// What every read and write of a chunk goes through.
    pub gate: Arc<Gate>,
    /// Writers that may work: those with lower numbers.
    pub at_work: watch::Receiver<usize>,
    pub read_rows: AtomicU64,
    pub read_bytes: AtomicU64,
}

impl Shared {
    pub fn halted(&self) -> bool {
        *self.halt.borrow()
    }

    /// For the rows of a table: lines where its target takes them.
    pub fn builder(&self, job: &Job) -> Builder {
        let loads = self.loads != Taken::Not && job.plan.loadable && !job.as_statements.load(Ordering::Relaxed);
        if loads { Builder::of_lines() } else { self.statements(&job.plan) }
    }

    /// For the rows of a table, as statements.
    pub fn statements(&self, plan: &TablePlan) -> Builder {
        let options = &self.spec.options;
        let wanted = [options.statement_bytes, self.bytes_at_once()].into_iter().flatten().min();
        Builder::new(plan.insert(options.existing), wanted, self.downstream.max_statement())
    }

    /// Bytes that are written at once; `None` for all of a chunk.
    pub fn bytes_at_once(&self) -> Option<usize> {
        self.gate.has_rests().then(|| usize::try_from(self.pieces.bytes.size()).unwrap_or(usize::MAX))
    }

    /// Rows that are read at once; `None` for all of a chunk.
    pub fn rows_at_once(&self) -> Option<u64> {
        self.gate.has_rests().then(|| self.pieces.rows.size())
    }

    /// Adds a row to a chunk; gives its bytes.
    pub fn add(&self, builder: &mut Builder, job: &Job, row: &Row) -> u64 {
        let bytes = builder.add(&job.plan, row);
        self.read_rows.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        bytes
    }
}
