//! Where an event stands in the binlog, for items and errors.

use super::error::DecodeError;
use crate::binlog::FrameError;
use crate::model::BinlogPosition;

/// Start and end of an event; for the events in a compressed transaction, of that one.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) start: BinlogPosition,
    pub(super) end: BinlogPosition,
}

impl Span {
    pub(super) fn malformed(&self, event: &'static str, what: &'static str) -> DecodeError {
        DecodeError::Malformed { event, at: self.start.clone(), what }
    }

    pub(super) fn frame(&self, source: FrameError) -> DecodeError {
        DecodeError::Frame { at: self.start.clone(), source }
    }

    #[cfg(test)]
    pub(super) fn test() -> Span {
        let start = BinlogPosition::parse("bin.000001", 4).unwrap();
        Span { end: BinlogPosition { offset: 100, ..start.clone() }, start }
    }
}
