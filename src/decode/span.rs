//! Errors that say where the event stands which they are about.

use super::error::DecodeError;
use crate::binlog::FrameError;
use crate::model::EventSpan;

impl EventSpan {
    pub(super) fn malformed(&self, event: &'static str, what: &'static str) -> DecodeError {
        DecodeError::Malformed { event, at: self.start(), what }
    }

    pub(super) fn frame(&self, source: FrameError) -> DecodeError {
        DecodeError::Frame { at: self.start(), source }
    }

    #[cfg(test)]
    pub(super) fn test() -> EventSpan {
        let file = crate::model::BinlogFile::parse("bin.000001").unwrap();
        EventSpan { file, start: 4, end: 100 }
    }
}
