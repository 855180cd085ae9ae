//! What can stop decoding.

use crate::binlog::FrameError;
use crate::error::{Code, Failure};
use crate::model::{BinlogPosition, SourceTable};
use crate::row::RowError;
use crate::row::json::JsonError;

/// Why an event could not be decoded. Each is final for its place in the binlog: feeding the same event again gives the
/// same.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The event's outer form is broken.
    #[error("decode event at {at}")]
    Frame {
        /// Start of the event.
        at: BinlogPosition,
        /// What is wrong.
        #[source]
        source: FrameError,
    },
    /// A body does not have the form of its type.
    #[error("decode {event} event at {at}: {what}")]
    Malformed {
        /// Name of the event's type.
        event: &'static str,
        /// Start of the event.
        at: BinlogPosition,
        /// What is wrong.
        what: &'static str,
    },
    /// A table map or a row cannot be read.
    #[error("decode rows of {table} at {at}")]
    Rows {
        /// The table; empty names where not even they can be read.
        table: SourceTable,
        /// Start of the event.
        at: BinlogPosition,
        /// What is wrong.
        #[source]
        source: RowError,
    },
    /// A partial JSON update cannot be applied to the row before it.
    #[error("apply partial JSON update of {table}, column {column}, at {at}")]
    PartialJson {
        /// The table.
        table: SourceTable,
        /// Index of the column.
        column: usize,
        /// Start of the event.
        at: BinlogPosition,
        /// What is wrong; `None` where the image before the change does not have the column.
        #[source]
        source: Option<JsonError>,
    },
    /// Rows of a table whose table map did not come: the stream did not begin at a transaction.
    #[error("rows event at {at} has no table map for table id {table_id}")]
    NoTableMap {
        /// The event's table id.
        table_id: u64,
        /// Start of the event.
        at: BinlogPosition,
    },
    /// A type that this version does not know, and that may not be skipped.
    #[error("binlog event of unknown type {kind} at {at}")]
    UnknownEvent {
        /// Type number.
        kind: u8,
        /// Start of the event.
        at: BinlogPosition,
    },
    /// The source says that its binlog has a gap.
    #[error("the source logged an incident at {at}: changes may be missing from its binlog ({message})")]
    Incident {
        /// Start of the event.
        at: BinlogPosition,
        /// The source's explanation.
        message: String,
    },
    /// A change in statement format.
    #[error("only row format is supported, but a {what} event of statement format is at {at}")]
    StatementFormat {
        /// Name of the event's type.
        what: &'static str,
        /// Start of the event.
        at: BinlogPosition,
    },
    /// A compressed transaction cannot be decompressed.
    #[error("decompress transaction at {at}")]
    Payload {
        /// Start of the event.
        at: BinlogPosition,
        /// What the decompressor says.
        #[source]
        source: std::io::Error,
    },
    /// A statement's text is not valid in the character set it was sent in, or the set is not supported.
    #[error("statement at {at} is not valid {charset}")]
    StatementText {
        /// Start of the event.
        at: BinlogPosition,
        /// Name of the character set.
        charset: &'static str,
    },
}

impl DecodeError {
    /// Start of the event that could not be decoded.
    pub fn at(&self) -> &BinlogPosition {
        match self {
            DecodeError::Frame { at, .. }
            | DecodeError::Malformed { at, .. }
            | DecodeError::Rows { at, .. }
            | DecodeError::PartialJson { at, .. }
            | DecodeError::NoTableMap { at, .. }
            | DecodeError::UnknownEvent { at, .. }
            | DecodeError::Incident { at, .. }
            | DecodeError::StatementFormat { at, .. }
            | DecodeError::Payload { at, .. }
            | DecodeError::StatementText { at, .. } => at,
        }
    }

    /// As a task's status shows it.
    pub fn failure(&self) -> Failure {
        let code = match self {
            DecodeError::StatementFormat { .. } => Code::StatementFormat,
            DecodeError::StatementText { .. } => Code::ParseDdl,
            // No code of a stream: the bytes are the same at each try, and trying again heals nothing.
            _ => Code::ParseRelayLog,
        };
        let failure = Failure::new(code, self.to_string());
        let failure = match std::error::Error::source(self) {
            Some(cause) => failure.cause(cause.to_string()),
            None => failure,
        };
        match self.remedy() {
            Some(remedy) => failure.workaround(remedy),
            None => failure,
        }
    }

    /// Advice that is better than the code's own.
    fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            DecodeError::PartialJson { source: None, .. } => {
                "Please set `binlog_row_image` to FULL, or `binlog_row_value_options` to empty, on the upstream."
            }
            DecodeError::Incident { .. } => "Please compare the tables with the upstream, or copy them again.",
            DecodeError::UnknownEvent { .. } => {
                "Please use a version of dm-agent that knows this upstream. Where the event may be left out: stop-task, make by \
                 hand what else its transaction does, and start-task --remove-meta with `meta` at the transaction's end."
            }
            DecodeError::NoTableMap { .. } => {
                "Please check the start position: it must be the start of an event between two transactions."
            }
            _ => return None,
        })
    }
}
