//! Where a position cannot be in one transaction with the rows: which groups need safe mode, and what is stored here.

use tokio::sync::watch;

use super::super::progress::Progress;
use super::{Coordinator, MARK_INTERVAL};
use crate::checkpoint::Claimed;
use crate::dispatch::{Group, SafeMode};
use crate::error::Failure;
use crate::meta::{DmRow, MetaTables, SafeNote, StoredMark};
use crate::model::RowMark;

/// Says why positions are kept on this machine, if they are.
pub(super) fn note_kept_here(claimed: &Claimed, progress: &watch::Sender<Progress>) {
    if let Some(why) = &claimed.kept_here {
        let note = format!(
            "positions are kept on this machine, because the downstream cannot keep them ({why}): after an interruption \
             the changes since the checkpoint are applied again in safe mode, and no other agent is kept off. CREATE on \
             the task's meta-schema, and tables of InnoDB there, make that exact"
        );
        progress.send_if_modified(|progress| progress.notes.insert(note));
    }
}

impl Coordinator {
    /// Which of a group's changes may be applied already.
    pub(super) fn safe_mode(&mut self, start: &RowMark) -> SafeMode {
        if self.loose_until.as_ref().is_some_and(|end| start.has_passed(end)) {
            self.loose_until = None;
        }
        match (self.is_safe(start), &self.loose_until) {
            (true, _) => SafeMode::All,
            (false, Some(_)) => SafeMode::Loose,
            (false, None) => SafeMode::Off,
        }
    }

    /// Says which tables cannot be applied exactly once.
    pub(super) fn note_loose(&self, group: &Group) {
        for (table, engine) in group.loose() {
            let note = format!(
                "target table {table} has engine {engine}, which has no transactions: after an interruption its changes \
                 since the checkpoint are applied again in safe mode (ALTER TABLE … ENGINE=InnoDB makes that exact)"
            );
            self.progress.send_if_modified(|progress| progress.note(note));
        }
    }

    /// The checkpoint on this machine, and then DM's row as far as the account may write it.
    pub(super) async fn store_here(
        &mut self,
        mark: &StoredMark,
        clear_intent: bool,
        row: Option<&(DmRow, SafeNote)>,
        tables: &MetaTables,
    ) -> Result<(), Failure> {
        self.book.save(mark, clear_intent, row.map(|(row, note)| (row, *note))).await?;
        let Some((row, _)) = row else { return Ok(()) };
        self.control().await?;
        let Some(conn) = self.control.as_mut() else { return Ok(()) };
        let written = tokio::time::timeout(MARK_INTERVAL, self.book.write_row(conn, tables, row)).await;
        if !matches!(written, Ok(Ok(()))) {
            // A dm-worker that took over now would start further back; nothing else depends on it.
            tracing::warn!(answer = ?written, "DM's row is not written, will be tried again");
            self.control = None;
        }
        Ok(())
    }
}
