//! What this machine keeps of a task's positions, where the downstream cannot keep all of them with the rows.
//!
//! Two cases need it. A downstream table without transactions keeps its rows when the transaction with the lane's mark is
//! rolled back. And where `<task>_agent_lane` cannot be made, no mark is kept downstream at all. In both, what is dispatched
//! and not covered by a mark may be applied or not after an interruption, and is then replayed in safe mode.
//!
//! Invariants:
//! - A group that no mark covers goes out only when the window's end, durable, is at or behind the group's end. So after a
//!   crash everything that may be applied lies between the place to go on from and the window's end.
//! - A task whose positions were once kept downstream is never continued from here: what is there decides, and a right
//!   that is missing now is an error. Otherwise a revoked right would set the task back.
//! - What is kept here counts only for the downstream it was written for, and only while DM's row there, as far as it can
//!   be read, is the one that was seen or written last.

use std::fmt::Debug;
use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};

use super::decide::SafeWindow;
use crate::error::{Code, Failure};
use crate::meta::{DdlIntent, DmRow, MetaTables, SafeNote, StoredMark};
use crate::model::{Flavor, Location, RowMark};

/// Where a task's positions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Downstream, each with its rows.
    Downstream,
    /// On this machine.
    Here,
}

/// What is kept of one subtask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Where its positions are.
    pub kept: Kept,
    /// Host and port of the downstream.
    pub target: String,
    /// Everything up to here is applied; only where positions are kept here.
    pub checkpoint: Option<StoredMark>,
    /// Nothing beyond this was dispatched without a mark that covers it.
    pub window: Option<StoredMark>,
    /// Nobody knows how far another worker had come, and the time of safe mode for that is not over.
    pub unknown: bool,
    /// DM's rows that count as ours, as fingerprints: the one written last, and the one that was about to be.
    pub rows: Vec<String>,
    /// A DDL statement that was about to run, or was refused.
    pub intent: Option<DdlIntent>,
}

/// Where the record is stored. Durable when `store` returns.
#[tonic::async_trait]
pub trait Ledger: Debug + Send + Sync + 'static {
    /// The record; `None` before the first.
    async fn load(&self) -> Result<Option<LedgerRecord>, Failure>;
    /// Replaces it.
    async fn store(&self, record: &LedgerRecord) -> Result<(), Failure>;
}

/// DM's row, as far as this account can see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenRow {
    /// The table cannot be read.
    Hidden,
    /// There is none.
    Missing,
    /// This one.
    Row(DmRow),
}

impl LedgerRecord {
    /// An empty one.
    pub fn new(kept: Kept, target: &str) -> Self {
        let target = target.to_owned();
        LedgerRecord { kept, target, checkpoint: None, window: None, unknown: false, rows: Vec::new(), intent: None }
    }

    /// The place to go on from, if the positions are kept here and what is seen downstream does not contradict.
    pub fn holds(&self, row: &SeenRow) -> Option<&StoredMark> {
        let ours = match row {
            SeenRow::Hidden => true,
            SeenRow::Missing => self.rows.is_empty(),
            SeenRow::Row(row) => self.rows.contains(&row.fingerprint()),
        };
        self.checkpoint.as_ref().filter(|_| ours && self.kept == Kept::Here)
    }

    /// How long a replay from the checkpoint must be in safe mode.
    pub fn safe(&self) -> Option<SafeWindow> {
        if self.unknown {
            return Some(SafeWindow::Unknown);
        }
        self.window.clone().filter(|window| Some(window) != self.checkpoint.as_ref()).map(SafeWindow::Until)
    }
}

/// Where a start goes on from what is kept here for this downstream; `None` where nothing is.
pub async fn kept_here(ledger: &dyn Ledger, target: &str, flavor: Flavor) -> Result<Option<Location>, Failure> {
    let record = ledger.load().await?.filter(|record| record.target == target && record.kept == Kept::Here);
    let mark = record.and_then(|record| record.checkpoint).and_then(|mark| mark.to_mark(flavor).ok());
    Ok(mark.map(|mark| mark.location))
}

/// The record of a running task, and where it is stored.
#[derive(Debug, Clone)]
pub struct Book {
    ledger: Arc<dyn Ledger>,
    record: LedgerRecord,
    /// The record's window.
    window: Option<RowMark>,
    /// What it was at the start: until that is replayed, the window stays.
    owed: Option<RowMark>,
    /// DM's row can be written.
    writes_row: bool,
}

impl Book {
    /// Begins with `record`, storing it if it is not what is `stored`.
    pub async fn open(
        ledger: Arc<dyn Ledger>,
        stored: Option<&LedgerRecord>,
        record: LedgerRecord,
        flavor: Flavor,
        writes_row: bool,
    ) -> Result<Self, Failure> {
        if stored != Some(&record) {
            ledger.store(&record).await?;
        }
        let window = record.window.as_ref().map(|mark| mark.to_mark(flavor)).transpose();
        let window =
            window.map_err(|text| Failure::new(Code::Checkpoint, format!("read the stored window: {text}")))?;
        Ok(Book { ledger, record, owed: window.clone(), window, writes_row })
    }

    /// Where positions are kept.
    pub fn kept(&self) -> Kept {
        self.record.kept
    }

    /// Nothing beyond this was dispatched without a mark that covers it.
    pub fn window(&self) -> Option<&RowMark> {
        self.window.as_ref()
    }

    /// Makes the window reach `end`, durable. It is moved on to what is `received`, so that not every group waits for the
    /// disk: a window that is too long only means safe mode where none was needed.
    pub async fn cover(&mut self, end: &RowMark, received: Option<Location>) -> Result<(), Failure> {
        if self.window.as_ref().is_some_and(|window| window.has_reached(end)) {
            return Ok(());
        }
        let received = received.map(RowMark::at).filter(|received| received.has_reached(end));
        let window = received.unwrap_or_else(|| end.clone());
        self.change(|record| record.window = Some(StoredMark::from(&window))).await?;
        self.window = Some(window);
        Ok(())
    }

    /// Everything dispatched is done, up to `applied`: a replay needs no safe mode, unless an earlier run had come further.
    pub async fn close(&mut self, applied: &RowMark) -> Result<(), Failure> {
        if self.owed.as_ref().is_none_or(|owed| applied.has_reached(owed)) && self.record.window.is_some() {
            self.change(|record| record.window = None).await?;
            self.window = None;
        }
        Ok(())
    }

    /// Moves the checkpoint on, where it is kept here. `row` is what will be written into DM's row.
    pub async fn save(
        &mut self,
        mark: &StoredMark,
        clear_intent: bool,
        row: Option<(&DmRow, SafeNote)>,
    ) -> Result<(), Failure> {
        let row = row.filter(|_| self.writes_row);
        self.change(|record| {
            record.checkpoint = Some(mark.clone());
            if clear_intent {
                record.intent = None;
            }
            if let Some((row, note)) = row {
                record.unknown = note == SafeNote::Unknown;
                let next = row.fingerprint();
                record.rows.retain(|known| *known != next);
                let last = record.rows.pop();
                record.rows = last.into_iter().chain([next]).collect();
            }
        })
        .await
    }

    /// Writes DM's row as far as the account may; without it a dm-worker that takes over starts further back.
    pub async fn write_row(
        &mut self,
        conn: &mut Conn,
        tables: &MetaTables,
        row: &DmRow,
    ) -> Result<(), mysql_async::Error> {
        if !self.writes_row {
            return Ok(());
        }
        let [global, _] = tables.write_dm_row(row, SafeNote::None, 0);
        match conn.query_drop(global).await {
            Err(mysql_async::Error::Server(error)) if is_denied(error.code) || matches!(error.code, 1049 | 1146) => {
                tracing::warn!(error = %error.message, "DM's row cannot be written");
                self.writes_row = false;
                Ok(())
            }
            other => other,
        }
    }

    /// Stores that a DDL statement is about to run, or was refused, at `intent`'s place, where everything before it is done.
    pub async fn intend(&mut self, intent: DdlIntent) -> Result<(), Failure> {
        self.change(|record| {
            record.checkpoint = Some(intent.mark.clone());
            record.intent = Some(intent);
        })
        .await
    }

    async fn change(&mut self, change: impl FnOnce(&mut LedgerRecord)) -> Result<(), Failure> {
        let mut record = self.record.clone();
        change(&mut record);
        if record != self.record {
            self.ledger.store(&record).await?;
            self.record = record;
        }
        Ok(())
    }
}

/// Server errors that mean that the account may not: for a schema, a table, a column, or at all.
pub fn is_denied(code: u16) -> bool {
    matches!(code, 1044 | 1142 | 1143 | 1227)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::model::{BinlogPosition, GtidSet, RowOrdinal};

    /// Counts what is stored, and shows it.
    #[derive(Debug, Default)]
    struct Memory(Mutex<Vec<LedgerRecord>>);

    #[tonic::async_trait]
    impl Ledger for Memory {
        async fn load(&self) -> Result<Option<LedgerRecord>, Failure> {
            Ok(self.0.lock().unwrap().last().cloned())
        }

        async fn store(&self, record: &LedgerRecord) -> Result<(), Failure> {
            self.0.lock().unwrap().push(record.clone());
            Ok(())
        }
    }

    fn location(offset: u64) -> Location {
        Location::new(BinlogPosition::parse("bin.000001", offset).unwrap(), GtidSet::empty(Flavor::MySql))
    }

    fn inside(offset: u64, row: u64) -> RowMark {
        RowMark { next: RowOrdinal(row), ..RowMark::at(location(offset)) }
    }

    #[tokio::test]
    async fn a_group_is_covered_on_disk_before_it_goes_out() {
        let memory = Arc::new(Memory::default());
        let ledger: Arc<dyn Ledger> = memory.clone();
        let record = LedgerRecord::new(Kept::Downstream, "h:1");
        let mut book = Book::open(ledger, None, record, Flavor::MySql, false).await.unwrap();
        let stored = || memory.0.lock().unwrap().len();
        let window = || memory.0.lock().unwrap().last().unwrap().window.clone();
        assert_eq!(stored(), 1);
        // What is received is covered at once, and then costs nothing.
        book.cover(&inside(100, 0), Some(location(500))).await.unwrap();
        assert_eq!(window(), Some(StoredMark::from(&inside(500, 0))));
        book.cover(&inside(400, 7), Some(location(900))).await.unwrap();
        assert_eq!(stored(), 2);
        // A transaction whose end is not received: the row counts.
        book.cover(&inside(500, 7), Some(location(500))).await.unwrap();
        assert_eq!(window(), Some(StoredMark::from(&inside(500, 7))));
        book.cover(&inside(500, 6), None).await.unwrap();
        assert_eq!(stored(), 3);
        book.close(&inside(500, 7)).await.unwrap();
        assert_eq!((stored(), window()), (4, None));
    }

    #[tokio::test]
    async fn a_window_stays_until_it_is_replayed() {
        let end = inside(500, 3);
        let record =
            LedgerRecord { window: Some(StoredMark::from(&end)), ..LedgerRecord::new(Kept::Downstream, "h:1") };
        let memory = Arc::new(Memory::default());
        let mut book = Book::open(memory.clone(), None, record, Flavor::MySql, false).await.unwrap();
        let window = || memory.0.lock().unwrap().last().unwrap().window.clone();
        book.close(&inside(500, 2)).await.unwrap();
        assert_eq!(window(), Some(StoredMark::from(&end)));
        book.close(&end).await.unwrap();
        assert_eq!(window(), None);
    }

    #[test]
    fn another_hand_in_dms_row_voids_what_is_kept_here() {
        let row = |offset| DmRow::running(&location(offset));
        let mark = StoredMark::from(&inside(7, 0));
        let record = |rows: Vec<String>| LedgerRecord {
            checkpoint: Some(mark.clone()),
            rows,
            ..LedgerRecord::new(Kept::Here, "h:1")
        };
        assert!(record(vec![]).holds(&SeenRow::Missing).is_some());
        assert!(record(vec![]).holds(&SeenRow::Hidden).is_some());
        assert!(record(vec![]).holds(&SeenRow::Row(row(1))).is_none());
        let seen = record(vec![row(1).fingerprint(), row(2).fingerprint()]);
        assert!(seen.holds(&SeenRow::Row(row(1))).is_some() && seen.holds(&SeenRow::Row(row(2))).is_some());
        assert!(seen.holds(&SeenRow::Row(row(3))).is_none() && seen.holds(&SeenRow::Missing).is_none());
        let downstream = LedgerRecord { kept: Kept::Downstream, ..record(vec![]) };
        assert!(downstream.holds(&SeenRow::Hidden).is_none());
    }
}
