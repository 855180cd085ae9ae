//! What can go wrong between us and the source, and whether waiting helps.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::binlog::FrameError;
use crate::error::{Code, Failure, Scope};

/// What a server answered instead of doing what it was asked. Prints as DM prints errors of the binlog stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRefusal {
    /// The server's error number.
    pub code: u16,
    /// SQL state; `HY000` where the server sent none.
    pub state: String,
    /// The server's own words.
    pub text: String,
}

impl fmt::Display for ServerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {} ({}): {}", self.code, self.state, self.text)
    }
}

/// Why the binlog reader could not open its stream, or lost it.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection is gone, or could not be made.
    #[error("{doing}: connection was bad")]
    Lost {
        /// What was being done.
        doing: String,
        /// Why, where it was not simply closed.
        #[source]
        source: Option<io::Error>,
    },
    /// Nothing came for several heartbeats: the peer is dead or the network swallows packets.
    #[error("nothing came from the source for {0:?}, not even a heartbeat: connection was bad")]
    Silent(Duration),
    /// The source has deleted binlogs that are still needed.
    #[error("{0}")]
    Purged(ServerRefusal),
    /// Another replica with our server id or UUID has connected, and the source dropped us for it.
    #[error("{0}")]
    DuplicateServerId(ServerRefusal),
    /// The account may not log in, or may not replicate.
    #[error("{0}")]
    AccessDenied(ServerRefusal),
    /// The start position or GTID set means nothing to this source, or what stands there cannot be read.
    #[error("{0}")]
    BadPosition(ServerRefusal),
    /// Any other refusal: too many connections, shutting down, and the like.
    #[error("{0}")]
    Refused(ServerRefusal),
    /// An event's bytes are not those that the source wrote.
    #[error(transparent)]
    Checksum(FrameError),
    /// What came is not the protocol.
    #[error("the source does not speak the protocol: {0}")]
    Protocol(String),
    /// Our own settings cannot work with this source: TLS files, an authentication plugin, a session variable.
    #[error("{0}")]
    Setup(String),
    /// A stream that was asked for up to the end has ended.
    #[error("end of the binlog")]
    Ended,
}

/// Whether waiting helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Connect again after a pause, from the last complete transaction.
    Retry,
    /// It will be the same until an operator has done something.
    Stop,
}

/// What the reader was doing; decides DM's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, logging in, asking for the stream.
    Open,
    /// Reading the stream.
    Stream,
}

impl ReadError {
    /// The connection ended while `doing`.
    pub(super) fn lost(doing: impl Into<String>, source: Option<io::Error>) -> Self {
        ReadError::Lost { doing: doing.into(), source }
    }

    /// Finds the variant for a server's answer, by number and, where one number stands for everything (1236), by text.
    pub(super) fn refused(refusal: ServerRefusal) -> Self {
        match refusal.code {
            // Access denied, in its forms: password, database, privilege, plugin, locked account, expired password.
            1044 | 1045 | 1130 | 1142 | 1227 | 1396 | 1524 | 1698 | 1820 | 1862 | 3118 | 3955 | 4151 => {
                ReadError::AccessDenied(refusal)
            }
            1236 => Self::of_binlog_text(refusal),
            // MariaDB's number for it.
            4052 => ReadError::DuplicateServerId(refusal),
            1789 => ReadError::Purged(refusal),
            _ => ReadError::Refused(refusal),
        }
    }

    fn of_binlog_text(refusal: ServerRefusal) -> Self {
        let text = refusal.text.to_ascii_lowercase();
        let has = |words: &str| text.contains(words);
        if has("same server_uuid") || has("same server_id") || has("server_uuid/server_id") {
            ReadError::DuplicateServerId(refusal)
        } else if has("could not find first log file name") || has("purged") {
            ReadError::Purged(refusal)
        } else {
            ReadError::BadPosition(refusal)
        }
    }

    /// Whether waiting helps.
    pub fn class(&self) -> ErrorClass {
        match self {
            ReadError::Lost { .. }
            | ReadError::Silent(_)
            | ReadError::Refused(_)
            | ReadError::Checksum(_)
            | ReadError::Ended => ErrorClass::Retry,
            ReadError::Purged(_)
            | ReadError::DuplicateServerId(_)
            | ReadError::AccessDenied(_)
            | ReadError::BadPosition(_)
            | ReadError::Protocol(_)
            | ReadError::Setup(_) => ErrorClass::Stop,
        }
    }

    /// The failure as DM words it: 36053 with the error as its cause while opening, 36069 with the error in the message
    /// while streaming.
    pub fn failure(&self, phase: Phase) -> Failure {
        let text = self.text();
        let failure = match phase {
            Phase::Open => Failure::new(Code::StreamStart, "start syncing binlog from remote streamer").cause(text),
            Phase::Stream => Failure::new(Code::StreamEvent, format!("get binlog event error: {text}")),
        };
        match self.remedy() {
            Some(remedy) => failure.workaround(remedy),
            None => failure.scope(if phase == Phase::Open { Scope::Internal } else { Scope::Upstream }),
        }
    }

    /// The error with its cause behind it, where it has one.
    fn text(&self) -> String {
        match self {
            ReadError::Lost { doing, source: Some(source) } => format!("{doing}: {source}: connection was bad"),
            other => other.to_string(),
        }
    }

    /// What to do, where more is known than the catalogue says.
    fn remedy(&self) -> Option<&'static str> {
        match self {
            ReadError::AccessDenied(refusal) if refusal.code == 1227 || refusal.code == 1142 => {
                Some("Please `GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.*` to the user of the source.")
            }
            ReadError::Purged(_) => Some(
                "What follows was deleted on the source before it was received. Please copy the tables again, then \
                 stop-task, `operate-source stop` and `create`, and start-task --remove-meta with `meta` where the copy was \
                 made.",
            ),
            ReadError::BadPosition(_) => Some(
                "The source does not have what was received from it last: was its binlog reset, a backup restored, or a \
                 replica made the source that was behind? Please compare the tables, then stop-task, `operate-source stop` \
                 and `create`, and start-task --remove-meta with `meta` at a place of the source where they are equal.",
            ),
            ReadError::DuplicateServerId(_) => {
                Some("Another replica uses the same server-id or UUID: please give one of them another `server-id`.")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binlog_error(text: &str) -> ReadError {
        ReadError::refused(ServerRefusal { code: 1236, state: "HY000".into(), text: text.into() })
    }

    #[test]
    fn texts_of_1236_find_their_variant() {
        for text in [
            "Could not find first log file name in binary log index file",
            "Cannot replicate because the source purged required binary logs. Replicate the missing transactions",
            "The slave is connecting using CHANGE MASTER TO MASTER_AUTO_POSITION = 1, but the master has purged binary \
             logs containing GTIDs that the slave requires.",
        ] {
            assert!(matches!(binlog_error(text), ReadError::Purged(_)), "{text}");
        }
        for text in [
            "A replica with the same server_uuid/server_id as this replica has connected to the source;",
            "A slave with the same server_uuid/server_id as this slave has connected to the master;",
        ] {
            assert!(matches!(binlog_error(text), ReadError::DuplicateServerId(_)), "{text}");
        }
        let text = "A slave with the same server_uuid/server_id is already connected".into();
        let of_maria = ReadError::refused(ServerRefusal { code: 4052, state: "HY000".into(), text });
        assert!(matches!(of_maria, ReadError::DuplicateServerId(_)), "{of_maria}");
        for text in [
            "Client requested source to start replication from position > file size",
            "Error: connecting slave requested to start from GTID 0-1-100, which is not in the master's binlog",
        ] {
            assert!(matches!(binlog_error(text), ReadError::BadPosition(_)), "{text}");
        }
    }

    #[test]
    fn prints_as_dm_does() {
        let failure =
            binlog_error("Could not find first log file name in binary log index file").failure(Phase::Stream);
        assert_eq!(
            failure.message,
            "get binlog event error: ERROR 1236 (HY000): Could not find first log file name in binary log index file"
        );
        assert_eq!((failure.code, failure.scope.as_str()), (36069, "upstream"));
        assert!(failure.workaround.contains("start-task --remove-meta"), "{failure}");

        let denied = ServerRefusal {
            code: 1045,
            state: "28000".into(),
            text: "Access denied for user 'dm'@'localhost' (using password: YES)".into(),
        };
        let failure = ReadError::refused(denied).failure(Phase::Open);
        assert_eq!(failure.message, "start syncing binlog from remote streamer");
        assert_eq!(
            failure.raw_cause,
            "ERROR 1045 (28000): Access denied for user 'dm'@'localhost' (using password: YES)"
        );
        assert_eq!((failure.code, failure.scope.as_str()), (36053, "internal"));
    }

    #[test]
    fn a_lost_connection_heals_and_a_purge_does_not() {
        assert_eq!(ReadError::lost("read", None).class(), ErrorClass::Retry);
        assert_eq!(binlog_error("purged").class(), ErrorClass::Stop);
    }
}
