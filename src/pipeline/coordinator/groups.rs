//! A group's way: formed while the one before is at work, dealt out to the writers, finished when all of them answered.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::yielding::Turned;
use super::{Coordinator, Ended};
use crate::apply::{ApplyError, Job, JobDone, STATEMENT_ROWS};
use crate::checkpoint::Kept;
use crate::dispatch::{Group, SafeMode};
use crate::error::{Code, Failure};
use crate::meta::StoredMark;
use crate::model::RowMark;
use crate::pipeline::former::{Formed, Want};
use crate::pipeline::item::DdlItem;
use crate::pipeline::pace::Size;

/// A group that the writers are at work on.
pub(super) struct AtWork {
    pub(super) size: Size,
    pub(super) end: RowMark,
    pub(super) lsn: Option<u64>,
    pub(super) timestamp: u32,
    pub(super) rows: u64,
    pub(super) transactions: u64,
    pub(super) waiting_for: usize,
    pub(super) since: Instant,
    pub(super) failed: Option<ApplyError>,
    /// Its turn, where room is made for others.
    pub(super) turn: Option<Turned>,
    pub(super) _room: Vec<OwnedSemaphorePermit>,
}

/// A group that is ready.
pub(super) struct Ready {
    pub(super) size: Size,
    pub(super) group: Group,
    pub(super) lsn: Option<u64>,
    pub(super) room: Vec<OwnedSemaphorePermit>,
    /// It is of a transaction that is applied once more.
    pub(super) again: bool,
}

impl Coordinator {
    /// Forms the next group, or gives back the DDL that is next.
    pub(super) fn prepare(&mut self, want: Want) -> Result<Option<DdlItem>, Ended> {
        let size = self.size();
        let safe = match (&self.safe_until, &self.loose_until) {
            (Some(_), _) => SafeMode::All,
            (None, Some(_)) => SafeMode::Loose,
            (None, None) => SafeMode::Off,
        };
        match self.former.form(size, want, safe)? {
            Formed::Group { group, lsn, room, again } => self.ready = Some(Ready { size, group, lsn, room, again }),
            Formed::Ddl(ddl) => return Ok(Some(ddl)),
            Formed::Nothing => {}
        }
        Ok(None)
    }

    /// Gives every writer its share.
    pub(super) async fn deal_out(&mut self, ready: Ready, turn: Option<Turned>) -> Result<(), Ended> {
        let Ready { size, group, lsn, room, again } = ready;
        let safe = self.safe_mode(&group.start).max(if again { SafeMode::All } else { SafeMode::Off });
        self.again = again;
        if self.book.kept() == Kept::Here || group.loose().next().is_some() {
            // Before anything of it goes out: after a crash nobody could tell how far it came.
            self.book.cover(&group.end, (self.options.received)()).await?;
            self.note_loose(&group);
        }
        let end = Arc::new(StoredMark::from(&group.end));
        let gtids: Arc<str> = group.start.location.gtids.to_string().into();
        let mut at_work = AtWork {
            size,
            end: group.end,
            lsn,
            timestamp: group.timestamp,
            rows: group.rows,
            transactions: group.transactions,
            waiting_for: 0,
            since: Instant::now(),
            failed: None,
            turn,
            _room: room,
        };
        let statement_rows = at_work.turn.as_ref().map_or(STATEMENT_ROWS, |(_, part)| part.statement_rows);
        let statement_rows = statement_rows.min(STATEMENT_ROWS);
        for (writer, share) in self.writers.iter().zip(group.shares) {
            let job = Job { share, end: Arc::clone(&end), gtids: Arc::clone(&gtids), safe, statement_rows };
            if writer.send(job).await.is_err() {
                return Err(Failure::new(Code::NotSet, "a writer ended unexpectedly").into());
            }
            at_work.waiting_for += 1;
        }
        self.progress.send_modify(|progress| progress.dispatched = Some(at_work.end.location.clone()));
        if at_work.waiting_for == 0 {
            self.finish_group(at_work);
        } else {
            self.at_work = Some(at_work);
        }
        Ok(())
    }

    /// A writer has answered.
    pub(super) fn job_done(&mut self, done: JobDone) -> Result<(), Ended> {
        let Some(mut at_work) = self.at_work.take() else { return Ok(()) };
        at_work.waiting_for -= 1;
        match done.result {
            Ok(stats) => self.progress.send_modify(|progress| {
                progress.unmatched += stats.unmatched;
                progress.sent_bytes += stats.bytes;
                // Nothing is known of one whose answer was lost.
                if stats.statements > 0 {
                    progress.commits.statements.add(stats.statements);
                    progress.commits.rows.add(stats.rows);
                }
            }),
            Err(error) => at_work.failed = at_work.failed.or(Some(error)),
        }
        if at_work.waiting_for > 0 {
            self.at_work = Some(at_work);
            return Ok(());
        }
        if let Some(error) = at_work.failed.take() {
            return Err(error.into());
        }
        self.finish_group(at_work);
        Ok(())
    }

    pub(super) fn finish_group(&mut self, mut group: AtWork) {
        let took = group.since.elapsed();
        self.applied = group.end;
        // Those that made room say nothing about how large others should be.
        let turn = group.turn.take();
        if turn.is_none() {
            self.pace.done(group.size, group.rows, took);
            self.options.paces.keep(&self.options.target, &self.pace);
        }
        self.gave_way(turn, group.rows, group.timestamp);
        self.ahead.retain(|mark| !self.applied.has_reached(mark));
        let event_rows = self.former.event_rows();
        self.progress.send_modify(|progress| {
            progress.groups.add(took);
            progress.event_rows = event_rows;
            progress.rows += group.rows;
            progress.transactions += group.transactions;
            progress.applied_lsn = group.lsn.or(progress.applied_lsn);
            if group.timestamp > 0 {
                progress.applied_timestamp = Some(group.timestamp);
            }
        });
        self.publish();
    }
}
