//! What can go wrong with a relay log, as its callers tell it apart.

use std::fmt;
use std::sync::Arc;

use super::{Boundary, Lsn};
use crate::binlog::FrameError;
use crate::error::{Code, Failure};
use crate::model::{ByteSize, Location};
use crate::store::StoreError;

/// Why nothing more is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullReason {
    /// The log takes all it may.
    Budget {
        /// Bytes it takes.
        used: u64,
        /// Bytes it may take.
        budget: u64,
    },
    /// The file system has less free than it must.
    FreeFloor {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        floor: u64,
    },
}

impl fmt::Display for FullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FullReason::Budget { used, budget } => {
                write!(f, "it takes {} of its budget of {}", ByteSize(*used), ByteSize(*budget))
            }
            FullReason::FreeFloor { free, floor } => {
                write!(f, "the disk has {} free, {} must stay free", ByteSize(*free), ByteSize(*floor))
            }
        }
    }
}

/// An error of the relay log. Cheap to clone: several readers meet the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RelayError {
    /// Nothing is known of where the stream begins: call [`super::Relay::start_at`].
    #[error("the relay log has no start yet")]
    NotStarted,
    /// There is a writer already.
    #[error("the relay log is being written already")]
    WriterTaken,
    /// The log was cut or begun anew behind the writer's back: reconnect at [`super::RelayWriter::resume_location`].
    #[error("the relay log was cut; the stream must be opened again")]
    Superseded,
    /// The log does not hold what is asked for.
    #[error("the relay log does not cover {wanted}; it holds {start} to {end}")]
    NotCovered {
        /// What was asked for.
        wanted: String,
        /// Oldest location that can be read.
        start: String,
        /// End of what was received.
        end: String,
    },
    /// No room: nothing was taken. [`super::RelayWriter::writable`] returns when there is.
    #[error("the relay log is full: {0}")]
    Full(FullReason),
    /// What is stored is not what was written. [`super::Relay::drop_from`] with these values makes room to fetch it
    /// again.
    #[error("the relay log is damaged in segment {segment} at {lsn}: {what}")]
    Damaged {
        /// The segment, as its directory is named.
        segment: u64,
        /// First byte that cannot be read.
        lsn: Lsn,
        /// Last transaction boundary before it.
        at: Box<Boundary>,
        /// What is wrong.
        what: String,
    },
    /// The source sent something that is no event.
    #[error("the source sent a malformed event")]
    Frame(#[from] FrameError),
    /// A task needs what was to be purged.
    #[error("relay log purge is forbidden temporarily, because sub task {task} still needs it from {at}")]
    Protected {
        /// The task.
        task: String,
        /// Where it is.
        at: Box<Location>,
    },
    /// The store failed; nothing more is written until the log has been opened again by a new process.
    #[error("the relay log's store failed")]
    Store(#[from] Arc<StoreError>),
    /// The log was closed.
    #[error("the relay log is closed")]
    Closed,
}

impl From<StoreError> for RelayError {
    fn from(error: StoreError) -> Self {
        RelayError::Store(Arc::new(error))
    }
}

impl From<&RelayError> for Failure {
    fn from(error: &RelayError) -> Failure {
        let text = error.to_string();
        match error {
            RelayError::Frame(frame) => Failure::new(Code::ParseRelayLog, text).cause(frame.to_string()),
            RelayError::Damaged { .. } => Failure::new(Code::ParseRelayLog, text),
            RelayError::Protected { .. } => Failure::new(Code::PurgeForbidden, text),
            RelayError::Store(store) => Failure::new(Code::RelayStore, text)
                .cause(store.to_string())
                .workaround("Please repair the disk under the state directory, then restart dm-agent."),
            RelayError::Full(FullReason::Budget { .. }) => Failure::new(Code::RelayStore, text).workaround(
                "Please resume the parked tasks, or raise `relay-budget`. It goes on by itself when there is room.",
            ),
            RelayError::Full(FullReason::FreeFloor { .. }) => Failure::new(Code::RelayStore, text).workaround(
                "Please make room on the disk under the state directory, or resume the parked tasks, or lower \
                 `free-disk-floor`. It goes on by itself when there is room.",
            ),
            RelayError::NotStarted
            | RelayError::WriterTaken
            | RelayError::Superseded
            | RelayError::NotCovered { .. }
            | RelayError::Closed => Failure::new(Code::RelayStore, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dms() {
        let code = |error: RelayError| Failure::from(&error).code;
        assert_eq!(code(RelayError::Full(FullReason::Budget { used: 1, budget: 1 })), 30012);
        assert_eq!(code(RelayError::Frame(FrameError::Malformed { kind: 1, what: "x" })), 11038);
        assert_eq!(code(StoreError::Locked { path: "p".into() }.into()), 30012);
    }
}
