//! Why a change cannot be dealt out.

use crate::row::RowError;

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
    #[error("upstream didn't log enough columns in binlog: the row image of {table} lacks key column {column}")]
    KeyNotInImage {
        /// Upstream table.
        table: String,
        /// Column in backticks.
        column: String,
    },
}
