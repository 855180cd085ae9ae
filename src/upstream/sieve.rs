//! Checks each event of a stream and keeps heartbeats apart.
//!
//! Invariant: an event that comes out is whole, has the size its header states, and where the stream carries checksums
//! its own fits. Whether it does follows from the stream itself: each format description event says it for what comes
//! behind it.

use super::cursor::Cursor;
use super::error::ReadError;
use crate::binlog::{CHECKSUM_LEN, EventHeader, FrameError, HEADER_LEN, body, kind, verify_checksum};
use crate::model::{BinlogFile, BinlogPosition};

/// What an event packet was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sifted {
    /// An event that is to be kept.
    Event,
    /// The source is alive, and its stream has come to here.
    Heartbeat(BinlogPosition),
}

#[derive(Debug)]
pub(super) struct Sieve {
    /// Whether events carry a CRC32; unknown, so no, until the first format description event.
    checksum: bool,
    file: BinlogFile,
    offset: u64,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Sieve { checksum: false, file: BinlogFile::unknown(), offset: 0 }
    }

    /// Takes one event in.
    pub(super) fn take(&mut self, event: &[u8]) -> Result<Sifted, ReadError> {
        let header = EventHeader::parse(event).map_err(read_error)?;
        if event.len() != header.size as usize {
            let (kind, need, have) = (header.kind, header.size as usize, event.len());
            return Err(read_error(FrameError::Truncated { kind, need, have }));
        }
        match header.kind {
            kind::ROTATE => self.rotate(&header, event)?,
            kind::FORMAT_DESCRIPTION => {
                let algorithm = event.len().checked_sub(CHECKSUM_LEN + 1).filter(|at| *at >= HEADER_LEN);
                let algorithm = algorithm.and_then(|at| event.get(at)).copied();
                self.checksum = match algorithm {
                    Some(0) => false,
                    Some(1) => true,
                    other => {
                        return Err(ReadError::Protocol(format!(
                            "binlog checksum algorithm {other:?} of the source is not known"
                        )));
                    }
                };
                self.verify(event)?;
            }
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => {
                self.verify(event)?;
                return self.heartbeat(&header, event).map(Sifted::Heartbeat);
            }
            _ => self.verify(event)?,
        }
        if !header.is_artificial() {
            self.offset = widen(self.offset, header.end);
        }
        Ok(Sifted::Event)
    }

    fn verify(&self, event: &[u8]) -> Result<(), ReadError> {
        if self.checksum { verify_checksum(event).map_err(read_error) } else { Ok(()) }
    }

    /// A made-up rotate comes before anything was agreed, and MariaDB puts a CRC on it all the same, so that a CRC that
    /// fits there is one and what does not fit is none. One that stands in the file follows the stream's rule.
    fn rotate(&mut self, header: &EventHeader, event: &[u8]) -> Result<(), ReadError> {
        let has_crc = if header.is_artificial() { verify_checksum(event).is_ok() } else { self.checksum };
        if !header.is_artificial() {
            self.verify(event)?;
        }
        let mut cursor = Cursor::new(body(event, has_crc).map_err(read_error)?);
        let bad = || ReadError::Protocol("rotate event without a file name".into());
        let offset = cursor.u64().ok_or_else(bad)?;
        self.file = parse_file(cursor.rest()).ok_or_else(bad)?;
        self.offset = offset;
        Ok(())
    }

    fn heartbeat(&self, header: &EventHeader, event: &[u8]) -> Result<BinlogPosition, ReadError> {
        let body = body(event, self.checksum).map_err(read_error)?;
        let position = match header.kind {
            kind::HEARTBEAT => {
                let low = if header.end == 0 { self.offset } else { widen(self.offset, header.end) };
                parse_file(body).map(|file| BinlogPosition::new(file, low))
            }
            _ => heartbeat_fields(body),
        };
        // One without a place still says that the source is alive.
        Ok(position.unwrap_or_else(|| BinlogPosition::new(self.file.clone(), self.offset)))
    }
}

/// Fields of HEARTBEAT_V2: each a type, a length and a value; 1 is the file, 2 the offset, 0 ends them.
fn heartbeat_fields(body: &[u8]) -> Option<BinlogPosition> {
    let mut cursor = Cursor::new(body);
    let (mut file, mut offset) = (None, None);
    while let Some(field @ 1..) = cursor.u8() {
        let length = cursor.u8()?;
        let mut value = Cursor::new(cursor.take(usize::from(length))?);
        match field {
            1 => file = parse_file(value.rest()),
            2 => offset = packed_integer(&mut value),
            _ => {}
        }
    }
    Some(BinlogPosition::new(file?, offset?))
}

/// The client protocol's integer of variable length.
fn packed_integer(cursor: &mut Cursor<'_>) -> Option<u64> {
    match cursor.u8()? {
        small @ 0..=250 => Some(u64::from(small)),
        252 => cursor.u16().map(u64::from),
        253 => cursor.take(3).map(|b| u64::from(b[0]) | u64::from(b[1]) << 8 | u64::from(b[2]) << 16),
        254 => cursor.u64(),
        _ => None,
    }
}

fn parse_file(name: &[u8]) -> Option<BinlogFile> {
    BinlogFile::parse(std::str::from_utf8(name).ok()?).ok()
}

/// The offset that follows `last` and has these low 32 bits. One event has less than 4 GiB.
fn widen(last: u64, low: u32) -> u64 {
    let candidate = last & !0xffff_ffff | u64::from(low);
    if candidate < last && last - candidate > 1 << 31 { candidate + (1 << 32) } else { candidate }
}

fn read_error(error: FrameError) -> ReadError {
    match error {
        FrameError::Checksum { .. } => ReadError::Checksum(error),
        other => ReadError::Protocol(other.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event with a checksum that fits, where asked for.
    pub(crate) fn event(kind: u8, end: u32, body: &[u8], checksum: bool) -> Vec<u8> {
        let size = HEADER_LEN + body.len() + if checksum { CHECKSUM_LEN } else { 0 };
        let mut bytes = 7u32.to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((size as u32).to_le_bytes());
        bytes.extend(end.to_le_bytes());
        bytes.extend(0u16.to_le_bytes());
        bytes.extend(body);
        if checksum {
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        }
        bytes
    }

    pub(crate) fn rotate(file: &str, checksum: bool) -> Vec<u8> {
        let body = [&4u64.to_le_bytes()[..], file.as_bytes()].concat();
        event(kind::ROTATE, 0, &body, checksum)
    }

    /// Its checksum field is always there.
    pub(crate) fn description(checksum: bool) -> Vec<u8> {
        let mut body = vec![4, 0];
        body.extend([0; 80]);
        body.push(u8::from(checksum));
        event(kind::FORMAT_DESCRIPTION, 120, &body, true)
    }

    fn take(sieve: &mut Sieve, event: Vec<u8>) -> Result<Sifted, ReadError> {
        sieve.take(&event)
    }

    #[test]
    fn checksums_count_from_the_description_on() {
        for checksum in [false, true] {
            let mut sieve = Sieve::new();
            take(&mut sieve, rotate("b.000003", checksum)).unwrap();
            take(&mut sieve, description(checksum)).unwrap();
            let mut damaged = event(kind::XID, 200, &[0; 8], checksum);
            take(&mut sieve, damaged.clone()).unwrap();
            damaged[20] ^= 1;
            let outcome = take(&mut sieve, damaged);
            assert_eq!(matches!(outcome, Err(ReadError::Checksum(_))), checksum);
        }
    }

    #[test]
    fn heartbeats_say_where_the_source_is() {
        let mut sieve = Sieve::new();
        take(&mut sieve, rotate("b.000003", true)).unwrap();
        take(&mut sieve, description(true)).unwrap();
        let beat = take(&mut sieve, event(kind::HEARTBEAT, 500, b"b.000003", true)).unwrap();
        assert_eq!(beat, Sifted::Heartbeat(BinlogPosition::parse("b.000003", 500).unwrap()));
        let fields = [&[1, 8][..], b"b.000004", &[2, 9, 254], &(1u64 << 33).to_le_bytes(), &[0, 0]].concat();
        let beat = take(&mut sieve, event(kind::HEARTBEAT_V2, 0, &fields, true)).unwrap();
        assert_eq!(beat, Sifted::Heartbeat(BinlogPosition::parse("b.000004", 1 << 33).unwrap()));
    }

    #[test]
    fn a_size_that_lies_is_refused() {
        let mut bytes = event(kind::XID, 200, &[0; 8], false);
        bytes.push(0);
        assert!(matches!(take(&mut Sieve::new(), bytes), Err(ReadError::Protocol(_))));
    }

    #[test]
    fn offsets_go_beyond_32_bits() {
        assert_eq!(widen(0xffff_ff00, 0x10), 0x1_0000_0010);
        assert_eq!(widen(100, 200), 200);
        assert_eq!(widen(0x1_0000_0010, 0x20), 0x1_0000_0020);
    }

    proptest! {
        #[test]
        fn arbitrary_events_never_panic(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut sieve = Sieve::new();
            let _ = take(&mut sieve, description(true));
            let _ = take(&mut sieve, event(kind, 9, &body, true));
            let _ = take(&mut sieve, body.clone());
            let _ = heartbeat_fields(&body);
        }
    }
}
