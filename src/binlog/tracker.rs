//! Follows a stream of events and knows at each one where it stands: the position, the GTIDs, and whether a
//! transaction is open.
//!
//! Used twice, with the same result: by the relay, which must only restart at a transaction boundary, and by the
//! decoder, whose locations are what checkpoints are made of. Invariant: [`StreamTracker::location`] only ever moves at
//! the end of an event that leaves no transaction open, and without a transaction only forward: a source that is asked by
//! GTID set begins at the head of a file, long before the place where the stream goes on.

use crate::binlog::frame::{CHECKSUM_LEN, EventHeader, FrameError, QueryBody, body, kind, verify_checksum};
use crate::model::{BinlogFile, BinlogPosition, Flavor, Gtid, Location, MariaGtid, MysqlGtid};
use uuid::Uuid;

/// What one event did to the stream's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// The event's header.
    pub header: EventHeader,
    /// Whether it is the last event of a transaction (or a DDL statement on its own).
    pub ends_transaction: bool,
    /// Whether a transaction is open behind it.
    pub in_transaction: bool,
}

/// The transaction that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its GTID, where the source has them.
    pub gtid: Option<Gtid>,
    /// Whether BEGIN was seen or implied: until then a query stands alone and commits itself.
    pub begun: bool,
}

/// The state of one stream.
#[derive(Debug, Clone)]
pub struct StreamTracker {
    flavor: Flavor,
    checksum: bool,
    position: BinlogPosition,
    location: Location,
    open: Option<OpenTransaction>,
}

impl StreamTracker {
    /// Starts at a transaction boundary. `checksum` is what the events there carry; a format description event
    /// corrects it.
    pub fn new(flavor: Flavor, location: Location, checksum: bool) -> Self {
        StreamTracker { flavor, checksum, position: location.position.clone(), location, open: None }
    }

    /// End of the last complete transaction.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// End of the last event.
    pub fn position(&self) -> &BinlogPosition {
        &self.position
    }

    /// Whether events carry a CRC32 now.
    pub fn checksum(&self) -> bool {
        self.checksum
    }

    /// The open transaction, if any.
    pub fn open(&self) -> Option<&OpenTransaction> {
        self.open.as_ref()
    }

    /// Forgets an open transaction: the stream begins again at [`Self::location`], as after a reconnect.
    pub fn restart(&mut self) {
        self.open = None;
        self.position = self.location.position.clone();
    }

    /// Takes one whole event (header, body and checksum) in.
    pub fn feed(&mut self, event: &[u8]) -> Result<Tracked, FrameError> {
        let header = EventHeader::parse(event)?;
        if event.len() != header.size as usize {
            return Err(FrameError::Truncated { kind: header.kind, need: header.size as usize, have: event.len() });
        }
        if header.kind == kind::ROTATE {
            self.rotate(&header, event)?;
            return Ok(self.tracked(header, false));
        }
        self.advance(&header);
        let ends = match header.kind {
            kind::FORMAT_DESCRIPTION => {
                self.checksum = describes_checksum(event)?;
                if !header.is_artificial() {
                    // A file begins: the source never wrote the end of a transaction left open in the one before.
                    self.open = None;
                }
                false
            }
            kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED | kind::MARIA_GTID => {
                self.open = Some(open_by_gtid(header.kind, body(event, self.checksum)?, header.server_id)?);
                false
            }
            kind::QUERY => self.query(QueryBody::parse(body(event, self.checksum)?)?.statement),
            // A compressed statement is never BEGIN or COMMIT: those are far below the size worth compressing.
            kind::MARIA_QUERY_COMPRESSED => !self.open.as_ref().is_some_and(|open| open.begun),
            kind::XID | kind::XA_PREPARE | kind::TRANSACTION_PAYLOAD => true,
            _ => false,
        };
        if ends {
            if let Some(gtid) = self.open.take().and_then(|open| open.gtid) {
                self.location.gtids.add(&gtid);
            }
            self.location.position = self.position.clone();
        } else if self.open.is_none() && !header.is_artificial() {
            self.move_on();
        }
        Ok(self.tracked(header, ends))
    }

    fn tracked(&self, header: EventHeader, ends_transaction: bool) -> Tracked {
        Tracked { header, ends_transaction, in_transaction: self.open.is_some() }
    }

    /// The header has only the low 32 bits of the end offset; the rest follows from where we are.
    fn advance(&mut self, header: &EventHeader) {
        if header.is_artificial() {
            return;
        }
        let expected = self.position.offset + u64::from(header.size);
        let high = expected & !0xffff_ffff;
        let candidate = high | u64::from(header.end);
        self.position.offset = match candidate {
            c if c + 0x8000_0000 < expected => c + 0x1_0000_0000,
            c if c > expected + 0x8000_0000 && c >= 0x1_0000_0000 => c - 0x1_0000_0000,
            c => c,
        };
    }

    fn rotate(&mut self, header: &EventHeader, event: &[u8]) -> Result<(), FrameError> {
        let malformed = |what| FrameError::Malformed { kind: kind::ROTATE, what };
        // A fake rotate comes before anything was agreed, and MariaDB puts a CRC on it all the same.
        let has_crc = if header.is_artificial() {
            event.len() > crate::binlog::HEADER_LEN + 8 + CHECKSUM_LEN && verify_checksum(event).is_ok()
        } else {
            self.checksum
        };
        let body = body(event, has_crc)?;
        let Some((offset, name)) = body.split_first_chunk::<8>() else {
            return Err(FrameError::Truncated { kind: kind::ROTATE, need: 8, have: body.len() });
        };
        let name = std::str::from_utf8(name).map_err(|_| malformed("file name is not UTF-8"))?;
        let file = BinlogFile::parse(name).map_err(|_| malformed("file name has no sequence number"))?;
        self.position = BinlogPosition::new(file, u64::from_le_bytes(*offset));
        if self.open.is_none() {
            self.move_on();
        }
        Ok(())
    }

    /// The location moves without a transaction.
    fn move_on(&mut self) {
        if self.location.gtids.is_empty() || self.position > self.location.position {
            self.location.position = self.position.clone();
        }
    }

    /// Whether a statement ends the transaction, with the effect of BEGIN on the state.
    fn query(&mut self, statement: &[u8]) -> bool {
        let begun = self.open.as_ref().is_some_and(|open| open.begun);
        if starts_with_word(statement, b"BEGIN") || starts_with_word(statement, b"XA START") {
            match &mut self.open {
                Some(open) => open.begun = true,
                None => self.open = Some(OpenTransaction { gtid: None, begun: true }),
            }
            return false;
        }
        if !begun {
            return true;
        }
        let ends: [&[u8]; 3] = [b"COMMIT", b"XA COMMIT", b"XA ROLLBACK"];
        // ROLLBACK TO SAVEPOINT stays inside.
        let rollback = starts_with_word(statement, b"ROLLBACK") && !starts_with_word(statement, b"ROLLBACK TO");
        rollback || ends.iter().any(|word| starts_with_word(statement, word))
    }

    /// The flavour the stream was opened with.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }
}

/// Whether `statement` begins with the words, in any case, and not merely with their letters.
fn starts_with_word(statement: &[u8], words: &[u8]) -> bool {
    let Some((head, rest)) = statement.split_at_checked(words.len()) else { return false };
    head.eq_ignore_ascii_case(words) && rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
}

/// The algorithm byte stands five bytes before the end, in front of the CRC that this event always carries.
fn describes_checksum(event: &[u8]) -> Result<bool, FrameError> {
    let Some(at) = event.len().checked_sub(CHECKSUM_LEN + 1).filter(|at| *at >= crate::binlog::HEADER_LEN + 57) else {
        return Err(FrameError::Truncated { kind: kind::FORMAT_DESCRIPTION, need: 81, have: event.len() });
    };
    Ok(event[at] == 1)
}

fn open_by_gtid(event_kind: u8, body: &[u8], server_id: u32) -> Result<OpenTransaction, FrameError> {
    let cut = |need| FrameError::Truncated { kind: event_kind, need, have: body.len() };
    match event_kind {
        kind::MARIA_GTID => {
            let head = body.first_chunk::<13>().ok_or_else(|| cut(13))?;
            let sequence = u64::from_le_bytes([head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]]);
            let domain = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            let standalone = head[12] & 1 != 0;
            let gtid = Gtid::MariaDb(MariaGtid { domain, server: server_id, sequence });
            Ok(OpenTransaction { gtid: Some(gtid), begun: !standalone })
        }
        kind::GTID => {
            let head = body.first_chunk::<25>().ok_or_else(|| cut(25))?;
            let sid = Uuid::from_slice(&head[1..17]).map_err(|_| cut(25))?;
            let number =
                u64::from_le_bytes([head[17], head[18], head[19], head[20], head[21], head[22], head[23], head[24]]);
            let gtid = Gtid::MySql(MysqlGtid { sid, tag: String::new(), number });
            Ok(OpenTransaction { gtid: Some(gtid), begun: false })
        }
        kind::GTID_TAGGED => {
            let gtid = tagged_gtid(body).ok_or(FrameError::Malformed { kind: event_kind, what: "tagged GTID" })?;
            Ok(OpenTransaction { gtid: Some(Gtid::MySql(gtid)), begun: false })
        }
        _ => Ok(OpenTransaction { gtid: None, begun: false }),
    }
}

/// The tagged GTID event (MySQL 8.3 and later) is a serialized message: a version, its size and the last field that
/// must be known, then numbered fields. Fields 0 to 3 are flags, UUID, number and tag; all integers have variable length.
fn tagged_gtid(body: &[u8]) -> Option<MysqlGtid> {
    let mut at = body;
    let _version = varint(&mut at)?;
    let _size = varint(&mut at)?;
    let _last_non_ignorable = varint(&mut at)?;
    let (mut sid, mut number, mut tag) = (None, None, String::new());
    while !at.is_empty() && (sid.is_none() || number.is_none() || tag.is_empty()) {
        match varint(&mut at)? {
            0 => {
                varint(&mut at)?;
            }
            1 => {
                let mut bytes = [0u8; 16];
                for byte in &mut bytes {
                    *byte = u8::try_from(varint(&mut at)?).ok()?;
                }
                sid = Some(Uuid::from_bytes(bytes));
            }
            2 => number = Some(signed(varint(&mut at)?)),
            3 => {
                let len = usize::try_from(varint(&mut at)?).ok()?;
                let (text, rest) = at.split_at_checked(len)?;
                tag = String::from_utf8(text.to_vec()).ok()?;
                at = rest;
            }
            _ => break,
        }
    }
    Some(MysqlGtid { sid: sid?, tag, number: u64::try_from(number?).ok()? })
}

/// Zigzag: the lowest bit is the sign.
fn signed(raw: u64) -> i64 {
    ((raw >> 1) as i64) ^ -((raw & 1) as i64)
}

/// The number of trailing one bits of the first byte says how many bytes follow; the value is little-endian above them.
fn varint(at: &mut &[u8]) -> Option<u64> {
    let first = *at.first()?;
    let more = first.trailing_ones() as usize;
    let (bytes, rest) = at.split_at_checked(1 + more)?;
    *at = rest;
    if more == 8 {
        return Some(u64::from_le_bytes(bytes[1..9].try_into().ok()?));
    }
    let mut raw = [0u8; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    Some(u64::from_le_bytes(raw) >> (more + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::GtidSet;

    fn start() -> StreamTracker {
        let position = BinlogPosition::parse("bin.000001", 4).unwrap();
        StreamTracker::new(Flavor::MySql, Location::new(position, GtidSet::empty(Flavor::MySql)), false)
    }

    fn event(kind: u8, end: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = 7u32.to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(((super::super::HEADER_LEN + body.len()) as u32).to_le_bytes());
        bytes.extend(end.to_le_bytes());
        bytes.extend(0u16.to_le_bytes());
        bytes.extend(body);
        bytes
    }

    fn query(end: u32, text: &str) -> Vec<u8> {
        let mut body = vec![0u8; 13];
        body.push(0);
        body.extend(text.as_bytes());
        event(kind::QUERY, end, &body)
    }

    #[test]
    fn moves_only_at_boundaries() {
        let mut tracker = start();
        assert!(tracker.feed(&query(100, "BEGIN")).unwrap().in_transaction);
        tracker.feed(&event(kind::TABLE_MAP, 200, b"x")).unwrap();
        tracker.feed(&query(250, "ROLLBACK TO SAVEPOINT a")).unwrap();
        assert_eq!(tracker.location().position.offset, 4);
        assert_eq!(tracker.position().offset, 250);
        assert!(tracker.feed(&event(kind::XID, 300, &[0; 8])).unwrap().ends_transaction);
        assert_eq!(tracker.location().position.offset, 300);
        assert!(tracker.feed(&query(400, "create table t (a int)")).unwrap().ends_transaction);
        assert_eq!(tracker.location().position.offset, 400);
    }

    #[test]
    fn gtid_counts_when_its_transaction_ends() {
        let mut tracker = start();
        let sid = Uuid::from_u128(0x9231c604_e680_11f1_ab28_628677c36cd1);
        let mut gtid = vec![0u8];
        gtid.extend(sid.as_bytes());
        gtid.extend(5u64.to_le_bytes());
        tracker.feed(&event(kind::GTID, 80, &gtid)).unwrap();
        tracker.feed(&query(100, "BEGIN")).unwrap();
        assert!(tracker.location().gtids.is_empty());
        tracker.feed(&event(kind::XID, 130, &[0; 8])).unwrap();
        assert_eq!(tracker.location().gtids.to_string(), format!("{sid}:5"));
    }

    #[test]
    fn the_head_of_a_file_told_again_moves_nothing_back() {
        let gtid = |number: u64, end| {
            let mut body = vec![0u8];
            body.extend(Uuid::from_u128(7).as_bytes());
            body.extend(number.to_le_bytes());
            event(kind::GTID, end, &body)
        };
        let fake_rotate = |file: &str| {
            let mut body = 4u64.to_le_bytes().to_vec();
            body.extend(file.bytes());
            event(kind::ROTATE, 0, &body)
        };
        let at = |tracker: &StreamTracker| tracker.location().position.to_string();
        let mut tracker = start();
        tracker.feed(&gtid(5, 9_000)).unwrap();
        tracker.feed(&query(9_500, "create table t (a int)")).unwrap();
        // Connected again by GTID set: the file's head, then what is new.
        tracker.restart();
        tracker.feed(&fake_rotate("bin.000001")).unwrap();
        tracker.feed(&event(kind::PREVIOUS_GTIDS, 158, &[0; 8])).unwrap();
        assert_eq!((at(&tracker).as_str(), tracker.position().offset), ("(bin.000001, 9500)", 158));
        tracker.feed(&gtid(6, 9_600)).unwrap();
        tracker.feed(&query(9_700, "create table u (a int)")).unwrap();
        assert_eq!(at(&tracker), "(bin.000001, 9700)");
        // Another server: where its files are, is known with its first transaction.
        tracker.restart();
        tracker.feed(&fake_rotate("other.000001")).unwrap();
        tracker.feed(&gtid(7, 300)).unwrap();
        tracker.feed(&query(400, "create table v (a int)")).unwrap();
        assert_eq!(at(&tracker), "(other.000001, 400)");
        // The next file.
        tracker.feed(&fake_rotate("other.000002")).unwrap();
        assert_eq!(at(&tracker), "(other.000002, 4)");
    }

    #[test]
    fn offsets_go_beyond_32_bits() {
        let mut tracker = start();
        tracker.position.offset = 0xffff_ff00;
        tracker.feed(&event(kind::TABLE_MAP, 0x10, &vec![0; 0x110 - 19])).unwrap();
        assert_eq!(tracker.position().offset, 0x1_0000_0010);
    }

    #[test]
    fn fake_rotate_with_a_crc_is_read_without_it() {
        let mut tracker = start();
        let mut body = 120u64.to_le_bytes().to_vec();
        body.extend(b"maria-bin.000012\0\0\0\0");
        let mut bytes = event(kind::ROTATE, 0, &body);
        let at = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..at]);
        bytes[at..].copy_from_slice(&crc.to_le_bytes());
        tracker.feed(&bytes).unwrap();
        assert_eq!(tracker.location().position.to_string(), "(maria-bin.000012, 120)");
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut tracker = start();
            let _ = tracker.feed(&event(kind, 500, &body));
            let _ = tagged_gtid(&body);
        }
    }
}
