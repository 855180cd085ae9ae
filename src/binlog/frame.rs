//! One event's header, checksum and the two bodies that the outer form depends on.

/// Bytes of the common header.
pub const HEADER_LEN: usize = 19;
/// Bytes of the CRC32 behind an event.
pub const CHECKSUM_LEN: usize = 4;

/// Event type numbers.
pub mod kind {
    #![allow(missing_docs)] // the names are the servers' own
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS_V2: u8 = 30;
    pub const UPDATE_ROWS_V2: u8 = 31;
    pub const DELETE_ROWS_V2: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIA_ANNOTATE_ROWS: u8 = 160;
    pub const MARIA_BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIA_GTID: u8 = 162;
    pub const MARIA_GTID_LIST: u8 = 163;
    pub const MARIA_START_ENCRYPTION: u8 = 164;
    pub const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub const MARIA_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const MARIA_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const MARIA_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
}

/// What can be wrong with the outer form of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than the event needs.
    #[error("binlog event of type {kind} is cut short: {need} bytes needed, {have} there")]
    Truncated {
        /// Event type, 0 where not even the header is whole.
        kind: u8,
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// The CRC32 does not match the bytes.
    #[error("binlog event of type {kind} at {end} has checksum {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// Event type.
        kind: u8,
        /// End position the event states.
        end: u32,
        /// CRC in the event.
        found: u32,
        /// CRC of its bytes.
        computed: u32,
    },
    /// A field has a value that the format does not allow.
    #[error("binlog event of type {kind} is malformed: {what}")]
    Malformed {
        /// Event type.
        kind: u8,
        /// Which field, and how.
        what: &'static str,
    },
}

/// The common header of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// Seconds since the epoch, the source's clock when the statement began; 0 for artificial events.
    pub timestamp: u32,
    /// Event type, see [`kind`].
    pub kind: u8,
    /// Server that wrote it first.
    pub server_id: u32,
    /// Bytes of the whole event, header and checksum included.
    pub size: u32,
    /// Low 32 bits of the offset behind the event in its file; 0 for artificial and inner events.
    pub end: u32,
    /// Flags.
    pub flags: u16,
}

impl EventHeader {
    /// The server made it up for this connection (fake rotate, repeated format description).
    pub const FLAG_ARTIFICIAL: u16 = 0x20;
    /// May be skipped by a reader that does not know its type.
    pub const FLAG_IGNORABLE: u16 = 0x80;

    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<EventHeader, FrameError> {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Truncated { kind: 0, need: HEADER_LEN, have: bytes.len() });
        };
        let header = EventHeader {
            timestamp: u32_at(head, 0),
            kind: head[4],
            server_id: u32_at(head, 5),
            size: u32_at(head, 9),
            end: u32_at(head, 13),
            flags: u16::from_le_bytes([head[17], head[18]]),
        };
        if (header.size as usize) < HEADER_LEN {
            return Err(FrameError::Malformed { kind: header.kind, what: "size is less than the header's" });
        }
        Ok(header)
    }

    /// Whether a reader that does not know the type may skip it.
    pub fn is_ignorable(&self) -> bool {
        self.flags & Self::FLAG_IGNORABLE != 0
    }

    /// Whether it stands in no binlog file.
    pub fn is_artificial(&self) -> bool {
        self.flags & Self::FLAG_ARTIFICIAL != 0 || self.end == 0
    }
}

/// Compares the last four bytes of `event` with the CRC32 of those before.
pub fn verify_checksum(event: &[u8]) -> Result<(), FrameError> {
    let header = EventHeader::parse(event)?;
    if event.len() < HEADER_LEN + CHECKSUM_LEN {
        let need = HEADER_LEN + CHECKSUM_LEN;
        return Err(FrameError::Truncated { kind: header.kind, need, have: event.len() });
    }
    let (bytes, crc) = event.split_at(event.len() - CHECKSUM_LEN);
    let found = u32_at(crc, 0);
    let computed = crc32fast::hash(bytes);
    if found != computed {
        return Err(FrameError::Checksum { kind: header.kind, end: header.end, found, computed });
    }
    Ok(())
}

/// The bytes between header and checksum of a whole event.
pub fn body(event: &[u8], checksum: bool) -> Result<&[u8], FrameError> {
    let tail = if checksum { CHECKSUM_LEN } else { 0 };
    match event.len().checked_sub(tail) {
        Some(end) if end >= HEADER_LEN => Ok(&event[HEADER_LEN..end]),
        _ => Err(FrameError::Truncated {
            kind: event.get(4).copied().unwrap_or(0),
            need: HEADER_LEN + tail,
            have: event.len(),
        }),
    }
}

/// A QUERY event's parts, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryBody<'a> {
    /// Error the statement ended with on the source; 0 for none.
    pub error_code: u16,
    /// Status variables, undecoded.
    pub status_vars: &'a [u8],
    /// Default schema.
    pub schema: &'a [u8],
    /// Statement text in the client's character set (for QUERY_COMPRESSED still compressed).
    pub statement: &'a [u8],
}

impl<'a> QueryBody<'a> {
    /// Splits the body of a QUERY event.
    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let cut = |need| FrameError::Truncated { kind: kind::QUERY, need, have: body.len() };
        let head = body.first_chunk::<13>().ok_or_else(|| cut(13))?;
        let schema_len = usize::from(head[8]);
        let error_code = u16::from_le_bytes([head[9], head[10]]);
        let vars_len = usize::from(u16::from_le_bytes([head[11], head[12]]));
        let (vars_end, schema_end) = (13 + vars_len, 13 + vars_len + schema_len);
        if body.len() < schema_end + 1 {
            return Err(cut(schema_end + 1));
        }
        Ok(QueryBody {
            error_code,
            status_vars: &body[13..vars_end],
            schema: &body[vars_end..schema_end],
            statement: &body[schema_end + 1..],
        })
    }
}

/// Little-endian u32; the caller has checked the length.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = EventHeader::parse(&bytes);
            let _ = verify_checksum(&bytes);
            let _ = body(&bytes, true);
            let _ = QueryBody::parse(&bytes);
        }
    }
}
