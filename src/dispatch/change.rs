//! One row change on its way to a lane.

use std::sync::Arc;

use crate::model::{BinlogPosition, RowOrdinal};
use crate::row::{ChangeKind, RowError, RowImage, RowPair};
use crate::schema::BoundTable;

/// Where in the binlog a change came from, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSpan {
    /// Start of the rows event.
    pub start: BinlogPosition,
    /// End of it.
    pub end: BinlogPosition,
}

/// A row change with its table's binding.
#[derive(Debug, Clone)]
pub struct Change {
    /// The binding.
    pub table: Arc<BoundTable>,
    /// What is done.
    pub kind: ChangeKind,
    /// The images that the kind names.
    pub rows: RowPair,
    /// Its number in the source transaction.
    pub ordinal: RowOrdinal,
    /// Where it came from.
    pub span: Arc<EventSpan>,
}

/// Whose changes may have been applied already without any mark that says so. Such changes are sent in statements that
/// may meet their own effect (DM's safe mode: delete and replace), and each one is sent, even where another undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SafeMode {
    /// No table's: marks tell exactly what is done.
    Off,
    /// Those of tables without transactions, whose rows stay when the transaction with the mark is rolled back.
    Loose,
    /// Every table's.
    All,
}

impl SafeMode {
    /// Whether it holds for changes of `table`.
    pub fn covers(self, table: &BoundTable) -> bool {
        match self {
            SafeMode::Off => false,
            SafeMode::Loose => table.loose_engine.is_some(),
            SafeMode::All => true,
        }
    }
}

/// What a lane has done already of the transaction being replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneSkip {
    /// Nothing: apply.
    Nothing,
    /// Changes with smaller ordinals.
    Below(RowOrdinal),
    /// The whole transaction.
    All,
}

impl LaneSkip {
    /// Whether a change of this ordinal is done.
    pub fn covers(self, ordinal: RowOrdinal) -> bool {
        match self {
            LaneSkip::Nothing => false,
            LaneSkip::Below(next) => ordinal < next,
            LaneSkip::All => true,
        }
    }
}

/// Why a change cannot be dealt out.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// A row image cannot be read.
    #[error("read a row of {table}")]
    Row {
        /// Upstream table.
        table: String,
        /// What is wrong with it.
        #[source]
        source: RowError,
    },
    /// The row image lacks a column of the key.
    #[error("the row image of {table} lacks key column {column}")]
    KeyNotInImage {
        /// Upstream table.
        table: String,
        /// Column in backticks.
        column: String,
    },
}

impl Change {
    /// Whether it inserts a row and its image leaves out a column of the key.
    pub fn lacks_key(&self) -> bool {
        let (ChangeKind::Insert, Some(identity)) = (self.kind, &self.table.identity) else { return false };
        let present = self.rows.after.as_ref().and_then(|image| image.present.as_ref());
        present.is_some_and(|present| identity.iter().any(|&column| !present.get(column).copied().unwrap_or(false)))
    }

    /// Bytes of its images, the measure for limits.
    pub fn bytes(&self) -> usize {
        let len = |image: &Option<RowImage>| image.as_ref().map_or(0, |image| image.bytes.len());
        len(&self.rows.before) + len(&self.rows.after)
    }

    /// Whether it must be the only change of its group: it moves a row to another key or changes another unique value,
    /// and its image is not whole, so that it cannot be made a delete and an insert; or it inserts a row whose key is left
    /// to the column's default, so that nobody here knows which row that is.
    pub fn must_stand_alone(&self) -> bool {
        let Some(identity) = &self.table.identity else { return false };
        let Some(present) = self.rows.after.as_ref().and_then(|image| image.present.as_ref()) else { return false };
        if self.kind == ChangeKind::Insert {
            return self.lacks_key();
        }
        identity.iter().chain(&self.table.other_unique).any(|&column| present.get(column).copied().unwrap_or(false))
    }
}
