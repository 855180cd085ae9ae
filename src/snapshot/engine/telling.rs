//! How far the copy is, for whoever looks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::crew::Crew;
use super::super::job::Job;
use super::super::reader::BUDGET;
use super::super::spec::{Phase, TableProgress};
use super::super::state::TableEnd;
use super::{Engine, ROW};

/// Without any row for so long it is told who is waited for.
const STANDS: Duration = Duration::from_secs(5);
/// What it does, for whoever looks.
const COPYING: &str = "copying rows";

impl Engine {
    pub(super) fn begin(&mut self) {
        let total = self.open.len() + self.closed.len();
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Copy;
            progress.activity = COPYING.to_owned();
            progress.tables_total = total as u64;
            progress.chunks_written = 0;
        });
        let (rows, bytes) = self.written();
        self.crew = Crew::new(self.shared.spec.options.writers, rows * ROW + bytes);
        // What was written before counts as read.
        self.shared.read_rows.store(rows, Ordering::Relaxed);
        self.shared.read_bytes.store(bytes, Ordering::Relaxed);
        self.tell();
    }

    pub(super) fn written(&self) -> (u64, u64) {
        let ended = self.closed.iter().chain(&self.closing).map(|closed| match &closed.state.end {
            TableEnd::Done { rows, bytes, .. } => (*rows, *bytes),
            TableEnd::Open | TableEnd::Stale { .. } => (0, 0),
        });
        let open = self.open.values().map(|open| (open.rows, open.bytes));
        ended.chain(open).fold((0, 0), |sum, (rows, bytes)| (sum.0 + rows, sum.1 + bytes))
    }

    /// Rows and bytes of all tables: what is written of those that ended, and of the others what the source estimates, as
    /// long as that is not passed.
    fn estimated(&self) -> (u64, u64) {
        let ended = self.closed.iter().chain(&self.closing).map(|closed| match &closed.state.end {
            TableEnd::Done { rows, bytes, .. } => (*rows, *bytes),
            TableEnd::Open | TableEnd::Stale { .. } => (closed.state.rows, closed.state.bytes),
        });
        let open = self
            .open
            .values()
            .map(|open| (open.job.rows_estimated.max(open.rows), open.job.bytes_estimated.max(open.bytes)));
        ended.chain(open).fold((0, 0), |sum, (rows, bytes)| (sum.0 + rows, sum.1 + bytes))
    }

    /// Rows of other tables that made way for this one's.
    pub(super) fn tell_replaced(&self, job: &Job) {
        let replaced = job.replaced.load(Ordering::Relaxed);
        if !job.plan.shared || replaced == 0 {
            return;
        }
        let note = format!(
            "{replaced} rows of {} came in place of rows that were in {}, where other tables go, too: of rows with one key only \
             the last stays",
            job.plan.source, job.plan.target
        );
        tracing::warn!("{note}");
        self.progress.send_modify(|progress| progress.notes.push(note));
    }

    /// Who is waited for, where nothing has moved for a while.
    fn standstill(&mut self, written: u64) -> Option<String> {
        let now = (self.shared.read_bytes.load(Ordering::Relaxed), written);
        if now != self.moved.0 {
            self.moved = (now, Instant::now());
        }
        let stands = self.moved.1.elapsed();
        if stands < STANDS {
            return None;
        }
        let who = match self.shared.budget.available_permits() {
            BUDGET => "the source sends no rows",
            _ => "the downstream takes no rows",
        };
        Some(format!("{COPYING}: standing still for {} s, {who}", stands.as_secs()))
    }

    /// What it does, and to whom it yields.
    fn activity(&self) -> String {
        let Some((others, level)) = self.room.yields_to() else { return COPYING.to_owned() };
        let how = if level < 1.0 {
            format!("one chunk at a time, {:.0}% of the time", level * 100.0)
        } else {
            format!("{level:.0} chunks at a time")
        };
        format!("{COPYING}, yielding to others on the source ({others} statements/s): {how}")
    }

    pub(super) fn tell(&mut self) {
        let (rows, bytes) = self.written();
        let estimated = self.estimated();
        let at_work = self.open.values().filter(|open| open.begun || open.rows > 0).map(|open| TableProgress {
            table: open.job.plan.source.clone(),
            rows: open.rows,
            estimate: open.job.rows_estimated.max(open.rows),
        });
        let mut at_work: Vec<TableProgress> = at_work.collect();
        at_work.sort_by(|a, b| a.table.cmp(&b.table));
        let done = (self.closed.len() + self.closing.len()) as u64;
        let activity = self.standstill(bytes).unwrap_or_else(|| self.activity());
        self.progress.send_modify(|progress| {
            progress.activity = activity;
            progress.tables_done = done;
            (progress.rows_estimated, progress.bytes_estimated) = estimated;
            (progress.rows_written, progress.bytes_written) = (rows, bytes);
            progress.rows_read = self.shared.read_rows.load(Ordering::Relaxed);
            progress.bytes_read = self.shared.read_bytes.load(Ordering::Relaxed);
            progress.at_work = at_work;
        });
    }
}
