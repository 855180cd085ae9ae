//! The inner form of row events: table layouts, row images and their values.
//!
//! A leaf like `model` and `binlog`. A [`RowImage`] stays the raw bytes of the event (shared, never copied); the layout's
//! compiled column decoders walk it and lend [`Value`]s. The decoder only finds where rows end; keys, compaction and
//! statements each read what they need, so that nothing is decoded into owned values on the way.

mod types;

pub use types::{ChangeKind, Column, ColumnKind, ReadRow, RowImage, RowPair, TableLayout, Value};

/// What can be wrong with a table map or a row image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Fewer bytes than the columns need.
    #[error("row image is cut short in column {column}")]
    Truncated {
        /// Index of the column.
        column: usize,
    },
    /// A column's bytes mean nothing for its type.
    #[error("column {column} holds a malformed value: {what}")]
    Malformed {
        /// Index of the column.
        column: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A type number that this version does not know.
    #[error("column {column} has type {kind}, which this version does not know")]
    UnknownType {
        /// Index of the column.
        column: usize,
        /// The type's number in the table map.
        kind: u8,
    },
    /// The table map itself is malformed.
    #[error("table map is malformed: {what}")]
    TableMap {
        /// What is wrong with it.
        what: &'static str,
    },
}
pub mod json;
/// x
pub fn mask_unsigned(_: ColumnKind, _: i64) -> u64 {
    0
}
impl ReadRow for RowImage {
    fn visit<'a>(
        &'a self,
        _: &TableLayout,
        _: impl FnMut(usize, Value<'a>) -> Result<(), RowError>,
    ) -> Result<(), RowError> {
        Ok(())
    }
}
