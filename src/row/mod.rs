//! The inner form of row events: table layouts, row images and their values.
//!
//! A leaf like `model` and `binlog`. [`EventRows`] is the raw bytes of an event (shared, never copied) and where each image
//! lies in them, 16 bytes a row; a [`RowImage`] is lent from it, and the layout's compiled column decoders walk that and
//! lend [`Value`]s. The decoder only finds where rows end; keys, compaction and statements each read what they need, so that
//! nothing is decoded into owned values on the way, and what all rows of an event share is there once.

mod charset;
mod compressed;
mod decimal;
mod event_rows;
mod image;
pub mod json;
mod table_map;
mod temporal;
mod types;
mod wire;

pub use charset::Charset;
pub use event_rows::{EventRows, Present, RowPlaces};
pub use image::{mask_unsigned, skip_image};
pub use table_map::parse_table_map;
pub use types::{ChangeKind, Column, ColumnKind, ResolvedJson, RowImage, TableLayout, Value};

pub(crate) use compressed::event_part;
pub(crate) use image::Fields;
pub(crate) use wire::Cursor;

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

/// MariaDB's compressed part of an event, for the tests of the decoder.
#[cfg(test)]
pub(crate) use compressed::tests::compress_event_part as compressed_for_tests;
