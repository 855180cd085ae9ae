//! What is stored while a pipeline runs: the lanes' marks, and DM's row.
//!
//! Invariant: only what all lanes have applied is stored, and only while no lane is at work and none is ahead. A crash in
//! the middle leaves either nothing or all of it: it is one transaction.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{Coordinator, Ended, MARK_INTERVAL, Safe};
use crate::checkpoint::{Kept, SaveError, save, void};
use crate::error::{Code, Failure, Retry, retry_of};
use crate::meta::{DmRow, SafeNote, StoredMark};
use crate::model::RowMark;

/// How long a connection that was idle may take to show that it is there.
const PING: Duration = Duration::from_secs(5);

impl Coordinator {
    pub(super) async fn control(&mut self) -> Result<&mut Conn, Failure> {
        // The server may have closed it meanwhile (`wait_timeout`).
        if self.control_used.elapsed() >= MARK_INTERVAL
            && let Some(conn) = &mut self.control
            && !matches!(tokio::time::timeout(PING, conn.ping()).await, Ok(Ok(())))
        {
            self.control = None;
        }
        self.control_used = Instant::now();
        if self.control.is_none() {
            self.control = Some(self.options.downstream.connect().await?);
        }
        self.control.as_mut().ok_or_else(|| Failure::new(Code::DriverError, "no connection"))
    }

    /// Moves the stored marks along now and then, and DM's row at its own interval. A connection that is lost meanwhile
    /// costs nothing: the next time will do.
    pub(super) async fn store_if_due(&mut self) -> Result<(), Ended> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        self.pass_safe_window();
        if self.ddl_start.as_ref().is_some_and(|start| *start != self.applied) {
            // Nothing behind a DDL statement may be applied before its end is stored: its replay could undo that.
            let row = self.row();
            return match self.store(row, true).await {
                Ok(()) => {
                    self.ddl_start = None;
                    Ok(())
                }
                Err(SaveError::Fenced) => Err(Ended::Fenced),
                Err(SaveError::Failed(failure)) => Err(Ended::Failed(failure)),
            };
        }
        let to_flush = self.applied.location != self.flushed && DmRow::can_say(&self.applied.location);
        if self.applied == self.stored && !to_flush {
            self.close_window().await;
            return Ok(());
        }
        let flush = to_flush && self.last_flush.elapsed() >= self.options.flush_interval;
        if !flush && (self.last_mark.elapsed() < MARK_INTERVAL || self.applied == self.stored) {
            return Ok(());
        }
        let row = if flush { self.row() } else { None };
        match self.store(row, false).await {
            Ok(()) => Ok(()),
            Err(SaveError::Fenced) => Err(Ended::Fenced),
            Err(SaveError::Failed(failure)) if retry_of(&failure) == Retry::Never => Err(Ended::Failed(failure)),
            Err(SaveError::Failed(failure)) => {
                tracing::warn!(error = %failure, "checkpoint not stored, will be tried again");
                (self.last_mark, self.control) = (Instant::now(), None);
                Ok(())
            }
        }
    }

    /// Moves all lanes to where they stand, so that what each is given may change.
    pub(super) async fn store_together(&mut self) -> Result<(), Ended> {
        match self.store(None, false).await {
            Ok(()) => Ok(()),
            Err(SaveError::Fenced) => Err(Ended::Fenced),
            Err(SaveError::Failed(failure)) => Err(Ended::Failed(failure)),
        }
    }

    /// Stores that what is done of a transaction is not known: whoever goes on applies it from its start, in safe mode.
    pub(super) async fn void_marks(&mut self) -> Result<(), SaveError> {
        let (epoch, tables) = (self.options.claimed.epoch, self.options.tables.clone());
        if self.book.kept() == Kept::Here {
            let mark = RowMark { proof: None, ..self.applied.clone() };
            return self.store_here(&StoredMark::from(&mark), false, None, &tables).await.map_err(SaveError::Failed);
        }
        let conn = self.control().await.map_err(SaveError::Failed)?;
        void(conn, &tables, epoch).await
    }

    /// DM's row for now: in safe mode with the point where that ends. `None` where the row cannot say the place: it stays
    /// behind until the next binlog file begins.
    pub(super) fn row(&self) -> Option<DmRow> {
        if !DmRow::can_say(&self.applied.location) {
            return None;
        }
        let mut row = DmRow::running(&self.applied.location);
        if let Some(Safe::At(mark)) = &self.safe_until {
            row.exit_safe = StoredMark::from(mark);
        }
        Some(row)
    }

    fn safe_note(&self) -> SafeNote {
        match self.safe_until {
            Some(Safe::At(_)) => SafeNote::UntilExitSafe,
            Some(Safe::For(_) | Safe::When(_)) => SafeNote::Unknown,
            None | Some(Safe::Always) => SafeNote::None,
        }
    }

    pub(super) async fn store(&mut self, row: Option<DmRow>, clear_intent: bool) -> Result<(), SaveError> {
        let (mark, epoch, tables) =
            (StoredMark::from(&self.applied), self.options.claimed.epoch, self.options.tables.clone());
        let row = row.map(|row| (row, self.safe_note()));
        if self.book.kept() == Kept::Here {
            self.store_here(&mark, clear_intent, row.as_ref(), &tables).await.map_err(SaveError::Failed)?;
        } else {
            let conn = self.control().await.map_err(SaveError::Failed)?;
            if let Err(error) = save(conn, &tables, epoch, &mark, clear_intent, row.as_ref()).await {
                self.control = None;
                return Err(error);
            }
        }
        self.stored = self.applied.clone();
        self.last_mark = Instant::now();
        (self.options.on_stored)(&self.stored.location);
        if row.is_some() {
            self.flushed = self.applied.location.clone();
            let since = std::mem::replace(&mut self.last_flush, Instant::now()).elapsed();
            self.progress.send_modify(|progress| progress.flushes.add(since));
            self.publish();
        }
        self.close_window().await;
        Ok(())
    }
}
