//! Ending: a drain to the next transaction boundary, the park behind it, and the end after a failure.
//!
//! Invariant: a park that says exact has stored that place, all lanes stand there, and nothing beyond it is applied. A
//! pipeline that is killed in here is one that crashed: the lanes' marks tell what is done.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{Coordinator, Ended, Former, Want, ended_early};
use crate::checkpoint::SaveError;
use crate::error::Failure;
use crate::meta::{DmRow, StoredMark};
use crate::model::RowMark;
use crate::pipeline::item::{IntakeEnd, Queued};
use crate::pipeline::{Outcome, Parked, Stop};
use crate::relay::RelayError;

/// How long a park waits for its checkpoint to be stored; without it the lanes' positions hold.
const PARK_STORE: Duration = Duration::from_millis(500);
/// What the last group of a drain may take.
const LAST_GROUP: Duration = Duration::from_millis(150);

impl Coordinator {
    /// Ends at a transaction boundary: what is at work, and the rest of a transaction that is partly applied.
    pub(super) async fn drain(mut self, mut items: mpsc::Receiver<Queued>, mut stop: watch::Receiver<Stop>) -> Outcome {
        self.progress.send_modify(|progress| progress.activity = "draining".to_owned());
        // Whoever waits for the park waits for nobody else.
        self.yielding = None;
        let begun = tokio::time::Instant::now();
        // Nothing new is dealt out that could not end within the limit; what is at work then has a little longer.
        let limit = begun + self.options.drain_limit.saturating_sub(LAST_GROUP);
        let give_up = begun + self.options.drain_limit + LAST_GROUP;
        // A group that is ready but not dealt out is simply not applied.
        if let Some(ready) = self.ready.take_if(|ready| !ready.group.start.is_inside()) {
            drop(ready);
            self.former_is_void();
        }
        loop {
            // DDL that ran is inside too, until its transaction's end is applied.
            let inside = self.ddl_start.as_ref() == Some(&self.applied)
                || self.applied.is_inside()
                || self.at_work.as_ref().is_some_and(|work| work.end.is_inside());
            if self.at_work.is_none() {
                if !inside || tokio::time::Instant::now() >= limit {
                    return self.park().await;
                }
                if let Some(ready) = self.ready.take() {
                    if let Err(ended) = self.deal_out(ready, None).await {
                        return self.end(ended).await;
                    }
                    continue;
                }
                match self.prepare(Want::OnlyOpen) {
                    Ok(Some(ddl)) => match self.run_ddl(ddl, &mut stop).await {
                        Ok(()) => continue,
                        Err(Ended::Interrupted) => return self.park().await,
                        Err(ended) => return self.end(ended).await,
                    },
                    Ok(None) if self.ready.is_some() => continue,
                    Ok(None) => {}
                    Err(ended) => return self.end(ended).await,
                }
            }
            let wants_more = inside && !self.former.is_full() && self.intake_end.is_none();
            if self.at_work.is_none() && !wants_more {
                return self.park().await;
            }
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() == Stop::Abort {
                        return Outcome::Parked(self.inexact());
                    }
                }
                Some(done) = self.done.recv(), if self.at_work.is_some() => {
                    if let Err(ended) = self.job_done(done) {
                        return self.end(ended).await;
                    }
                }
                queued = items.recv(), if wants_more => self.take(queued),
                // Lanes that do not answer in time are given up; their stored positions will tell what they did.
                () = tokio::time::sleep_until(give_up), if self.at_work.is_some() => {
                    return Outcome::Parked(self.inexact());
                }
                // More of the open transaction is waited for only as long.
                () = tokio::time::sleep_until(limit), if self.at_work.is_none() => {}
            }
        }
    }

    /// What was formed and will not be applied takes the queue behind it along.
    pub(super) fn former_is_void(&mut self) {
        self.former = Former::new(self.options.claimed.marks.clone(), self.applied.clone(), false);
        self.intake_end = Some(ended_early());
    }

    /// All lanes stand at one mark: stores it, and DM's row with it.
    pub(super) async fn park(mut self) -> Outcome {
        if !self.ahead.is_empty() {
            return Outcome::Parked(self.inexact());
        }
        let row = self.parked_row();
        // Where DM's row cannot say the place, it stays behind, and only the lanes' marks are exact.
        let said = row.is_some();
        let past_ddl = self.ddl_start.as_ref().is_some_and(|start| *start != self.applied);
        let stored = async {
            self.store(row, past_ddl).await?;
            self.book.close(&self.applied).await.map_err(SaveError::Failed)
        };
        let stored = tokio::time::timeout(PARK_STORE, stored).await;
        let exact = match stored {
            Ok(Ok(())) => said,
            Ok(Err(SaveError::Fenced)) => return Outcome::Fenced,
            Ok(Err(SaveError::Failed(failure))) => {
                tracing::warn!(error = %failure, "parked, but the checkpoint could not be stored; the lanes' positions hold");
                false
            }
            Err(_) => false,
        };
        if let Some(conn) = self.control.take() {
            let _ = tokio::time::timeout(Duration::from_millis(200), conn.disconnect()).await;
        }
        Outcome::Parked(Parked { applied: Some(self.applied), exact })
    }

    /// DM's row for a park: exactly here; inside a transaction its start, with an exit-safe point behind its end.
    fn parked_row(&self) -> Option<DmRow> {
        let inside = self.applied.is_inside();
        if !inside && self.safe_until.is_none() {
            return DmRow::can_say(&self.applied.location).then(|| DmRow::exact(&self.applied.location));
        }
        let mut row = self.row()?;
        if inside {
            // DM's worker goes on at the transaction's start, in safe mode up to a point behind its end.
            let behind = (self.options.received)().filter(|received| *received != self.applied.location);
            let behind = behind.filter(DmRow::can_say);
            row.exit_safe = behind.map_or(row.exit_safe, |end| StoredMark::from(&RowMark::at(end)));
        }
        Some(row)
    }

    pub(super) fn inexact(&self) -> Parked {
        Parked { applied: Some(self.applied.clone()), exact: false }
    }

    /// Lets the other lanes finish what they have, stores what all have done, and says why it ended.
    pub(super) async fn end(mut self, ended: Ended) -> Outcome {
        let limit = tokio::time::Instant::now() + self.options.drain_limit;
        while self.at_work.as_ref().is_some_and(|work| work.waiting_for > 0) {
            match tokio::time::timeout_at(limit, self.done.recv()).await {
                Ok(Some(_)) => {
                    if let Some(work) = &mut self.at_work {
                        work.waiting_for -= 1;
                    }
                }
                _ => break,
            }
        }
        match ended {
            Ended::Fenced => Outcome::Fenced,
            // Its callers park.
            Ended::Interrupted => Outcome::Parked(self.inexact()),
            Ended::OtherRows(at) => match self.void_marks().await {
                Ok(()) => {
                    tracing::warn!(behind = %at, "a transaction came otherwise than it was applied in part, and is applied once more in safe mode");
                    Outcome::Parked(self.inexact())
                }
                Err(SaveError::Fenced) => Outcome::Fenced,
                Err(SaveError::Failed(failure)) => Outcome::Failed { failure, applied: Some(self.applied) },
            },
            Ended::Intake(IntakeEnd::Relay(error @ RelayError::Damaged { .. })) => Outcome::RelayDamaged(error),
            Ended::Intake(IntakeEnd::Relay(RelayError::NotCovered { .. })) => {
                Outcome::RelayTooShort(self.applied.location)
            }
            Ended::Intake(IntakeEnd::Relay(error)) => {
                Outcome::Failed { failure: Failure::from(&error), applied: Some(self.applied) }
            }
            Ended::Intake(IntakeEnd::Failed(failure)) | Ended::Failed(failure) => {
                Outcome::Failed { failure, applied: Some(self.applied) }
            }
        }
    }
}
