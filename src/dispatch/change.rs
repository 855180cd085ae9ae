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
    /// Bytes of its images, the measure for limits.
    pub fn bytes(&self) -> usize {
        let len = |image: &Option<RowImage>| image.as_ref().map_or(0, |image| image.bytes.len());
        len(&self.rows.before) + len(&self.rows.after)
    }

    /// Whether it must be the only change of its group: it moves a row to another key or changes another unique value,
    /// and its image is not whole, so that it cannot be made a delete and an insert.
    pub fn must_stand_alone(&self) -> bool {
        let (ChangeKind::Update, Some(identity)) = (self.kind, &self.table.identity) else { return false };
        let Some(present) = self.rows.after.as_ref().and_then(|image| image.present.as_ref()) else { return false };
        identity.iter().chain(&self.table.other_unique).any(|&column| present.get(column).copied().unwrap_or(false))
    }
}
