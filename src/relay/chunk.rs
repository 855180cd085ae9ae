//! One chunk as it is stored: a header in the clear, the events compressed, a CRC32 over both.
//!
//! Invariant: what [`decode`] returns is what [`encode`] was given, or an error. All integers are little-endian:
//!
//! ```text
//! magic "DMR1" | crc32 of the rest | flags u8 | start u64 | raw length u32 | first event u32 | newest time u32
//! | identity | begin boundary | end boundary, absent where it equals the first | zstd body
//! boundary: lsn u64 | file | offset u64 | GTID set      texts: length u32, bytes
//! ```

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use zstd::zstd_safe::{CParameter, ParamSwitch};

use super::effort::Effort;
use super::{Boundary, Lsn};
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location};

/// Raw bytes of a full chunk. The store gives a page the next larger of a few sizes, 192, 256, 384, 512, 768 KiB, and puts two
/// chunks into one: so two that do not compress at all, with their headers, are to fit into 512 KiB, and two that halve into
/// 256 KiB.
pub(super) const CHUNK_BYTES: usize = 254 << 10;
/// Raw bytes of the largest chunk that is read: earlier versions wrote such.
const LARGEST: usize = 256 << 10;
const MAGIC: &[u8; 4] = b"DMR1";
/// Magic and CRC.
const PROLOGUE: usize = 8;
const NO_EVENT: u32 = u32::MAX;

const RESTART: u8 = 1;
const BEGIN_CHECKSUM: u8 = 2;
const END_CHECKSUM: u8 = 4;
const END_IS_BEGIN: u8 = 8;

/// What is known of a chunk without its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Its first byte.
    pub start: Lsn,
    /// Bytes of events, perhaps with parts of one at both ends.
    pub raw_len: u32,
    /// Where the first event that begins in it does.
    pub first_event: Option<u32>,
    /// The source's clock at its newest event, seconds since the epoch; 0 for none.
    pub newest: u32,
    /// The stream begins again here, behind `begin`: an open transaction before it is void.
    pub restart: bool,
    /// The server it came from.
    pub identity: Arc<str>,
    /// Last transaction boundary at or before its start.
    pub begin: Boundary,
    /// Last transaction boundary at or before its end.
    pub end: Boundary,
}

impl Header {
    /// The byte behind it.
    pub fn end_lsn(&self) -> Lsn {
        Lsn(self.start.0 + u64::from(self.raw_len))
    }
}

/// A chunk that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub header: Header,
    pub raw: Bytes,
}

/// A chunk to be stored: pieces of the runs that came, which the newest events' readers share.
#[derive(Debug, Clone)]
pub(super) struct Unstored {
    pub header: Header,
    pub pieces: Vec<Bytes>,
}

/// Why bytes are no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ChunkError(pub &'static str);

/// Writes chunks as they are stored; keeps what the compression works with.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    /// The pieces of a chunk, together.
    joined: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> std::io::Result<Encoder> {
        let mut zstd = zstd::bulk::Compressor::new(Effort::Thorough.level())?;
        zstd.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
        Ok(Encoder { zstd, joined: Vec::new() })
    }

    /// The bytes to store, written over what `out` held.
    pub(super) fn encode(&mut self, chunk: &Unstored, effort: Effort, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Encoder { zstd, joined } = self;
        let (shortest, places) = effort.search();
        zstd.set_parameter(CParameter::CompressionLevel(effort.level()))?;
        zstd.set_parameter(CParameter::MinMatch(shortest))?;
        zstd.set_parameter(CParameter::HashLog(places))?;
        let raw = match &chunk.pieces[..] {
            [whole] => whole,
            pieces => {
                joined.clear();
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                &joined[..]
            }
        };
        out.clear();
        put_header(out, &chunk.header);
        let at = out.len();
        out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let mut behind = Cursor::new(&mut *out);
        behind.set_position(at as u64);
        zstd.compress_to_buffer(raw, &mut behind)?;
        let crc = crc32fast::hash(&out[PROLOGUE..]);
        out[4..PROLOGUE].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }
}

fn put_header(out: &mut Vec<u8>, header: &Header) {
    let same_end = header.begin == header.end;
    out.extend(MAGIC);
    out.extend([0; 4]);
    out.push(
        flag(header.restart, RESTART)
            | flag(header.begin.checksum, BEGIN_CHECKSUM)
            | flag(header.end.checksum, END_CHECKSUM)
            | flag(same_end, END_IS_BEGIN),
    );
    out.extend(header.start.0.to_le_bytes());
    out.extend(header.raw_len.to_le_bytes());
    out.extend(header.first_event.unwrap_or(NO_EVENT).to_le_bytes());
    out.extend(header.newest.to_le_bytes());
    put_text(out, &header.identity);
    put_boundary(out, &header.begin);
    if !same_end {
        put_boundary(out, &header.end);
    }
}

/// Reads the header only. The CRC is not checked.
pub(super) fn decode_header(value: &[u8], flavor: Flavor) -> Result<Header, ChunkError> {
    split(value, flavor).map(|(header, _)| header)
}

/// Checks and reads a whole chunk.
pub(super) fn decode(value: &[u8], flavor: Flavor) -> Result<Chunk, ChunkError> {
    let crc = value.get(4..PROLOGUE).ok_or(ChunkError("it is cut short"))?;
    if crc32fast::hash(&value[PROLOGUE..]).to_le_bytes() != crc {
        return Err(ChunkError("its checksum is wrong"));
    }
    let (header, body) = split(value, flavor)?;
    let raw = zstd::bulk::decompress(body, header.raw_len as usize)
        .map_err(|_| ChunkError("its body does not decompress"))?;
    if raw.len() != header.raw_len as usize {
        return Err(ChunkError("its body has the wrong length"));
    }
    Ok(Chunk { header, raw: raw.into() })
}

fn split(value: &[u8], flavor: Flavor) -> Result<(Header, &[u8]), ChunkError> {
    if value.get(..4) != Some(MAGIC) {
        return Err(ChunkError("it is no chunk of this version"));
    }
    let mut at = Fields(value.get(PROLOGUE..).unwrap_or_default());
    let flags = at.array::<1>()?[0];
    let start = Lsn(at.u64()?);
    let raw_len = at.u32()?;
    let first_event = Some(at.u32()?).filter(|first| *first != NO_EVENT);
    let newest = at.u32()?;
    let identity: Arc<str> = at.text()?.into();
    let begin = at.boundary(flavor, flags & BEGIN_CHECKSUM != 0)?;
    let end = match flags & END_IS_BEGIN {
        0 => at.boundary(flavor, flags & END_CHECKSUM != 0)?,
        _ => begin.clone(),
    };
    if raw_len as usize > LARGEST || first_event.is_some_and(|first| first >= raw_len) {
        return Err(ChunkError("its lengths are impossible"));
    }
    let header = Header { start, raw_len, first_event, newest, restart: flags & RESTART != 0, identity, begin, end };
    Ok((header, at.0))
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A GTID set of 4 GiB is not to be met.
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_boundary(out: &mut Vec<u8>, boundary: &Boundary) {
    out.extend(boundary.lsn.0.to_le_bytes());
    put_text(out, boundary.location.position.file.name());
    out.extend(boundary.location.position.offset.to_le_bytes());
    put_text(out, &boundary.location.gtids.to_string());
}

/// Bytes not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ChunkError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(ChunkError("its header is cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, ChunkError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ChunkError> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, ChunkError> {
        let len = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(len).ok_or(ChunkError("its header is cut short"))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| ChunkError("a text of its header is no UTF-8"))
    }

    fn boundary(&mut self, flavor: Flavor, checksum: bool) -> Result<Boundary, ChunkError> {
        let lsn = Lsn(self.u64()?);
        let file = parse_file(self.text()?).ok_or(ChunkError("its header names no binlog file"))?;
        let offset = self.u64()?;
        let gtids = GtidSet::parse(flavor, self.text()?).map_err(|_| ChunkError("its header has no GTID set"))?;
        Ok(Boundary { location: Location::new(BinlogPosition::new(file, offset), gtids), lsn, checksum })
    }
}

/// A stored file name; empty where none was known yet.
pub(super) fn parse_file(name: &str) -> Option<BinlogFile> {
    if name.is_empty() { Some(BinlogFile::unknown()) } else { BinlogFile::parse(name).ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boundary(lsn: u64, set: &str, checksum: bool) -> Boundary {
        let position = BinlogPosition::parse("mysql-bin.000009", lsn * 3).unwrap();
        let gtids = GtidSet::parse(Flavor::MySql, set).unwrap();
        Boundary { location: Location::new(position, gtids), lsn: Lsn(lsn), checksum }
    }

    fn sample(raw: Vec<u8>, restart: bool, moved: bool) -> Chunk {
        let begin = boundary(40, "9231c604-e680-11f1-ab28-628677c36cd1:1-7", false);
        let end = boundary(90, "9231c604-e680-11f1-ab28-628677c36cd1:1-9", true);
        let header = Header {
            start: Lsn(50),
            raw_len: raw.len() as u32,
            first_event: raw.len().checked_sub(1).map(|last| last as u32),
            newest: 77,
            restart,
            identity: "uuid".into(),
            end: if moved { end } else { begin.clone() },
            begin,
        };
        Chunk { header, raw: raw.into() }
    }

    /// Whole, and what is to be the same: in two pieces, over something else, behind another effort.
    fn encode(chunk: &Chunk) -> Vec<u8> {
        let mut encoder = Encoder::new().unwrap();
        let mut encoded = |pieces: Vec<Bytes>, effort| {
            let mut value = vec![9; 77];
            encoder.encode(&Unstored { header: chunk.header.clone(), pieces }, effort, &mut value).unwrap();
            value
        };
        let (raw, half) = (&chunk.raw, chunk.raw.len() / 2);
        let value = encoded(vec![raw.clone()], Effort::Thorough);
        let quick = encoded(vec![raw.clone()], Effort::Quick);
        assert_eq!(decode(&quick, Flavor::MySql).unwrap(), *chunk);
        assert_eq!(encoded(vec![raw.slice(..half), raw.slice(half..)], Effort::Thorough), value);
        value
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(raw in prop::collection::vec(any::<u8>(), 0..3000), restart: bool, moved: bool) {
            let chunk = sample(raw, restart, moved);
            let value = encode(&chunk);
            prop_assert_eq!(decode(&value, Flavor::MySql), Ok(chunk.clone()));
            prop_assert_eq!(decode_header(&value, Flavor::MySql), Ok(chunk.header));
        }

        #[test]
        fn any_damage_is_an_error(at in 0usize..2000, bit in 0u8..8, cut: bool) {
            let mut value = encode(&sample((0..3000u32).map(|n| (n * n) as u8).collect(), false, true));
            let at = at % value.len();
            if cut { value.truncate(at) } else { value[at] ^= 1 << bit }
            prop_assert!(decode(&value, Flavor::MySql).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut value in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&value, Flavor::MySql);
            value.splice(0..value.len().min(4), MAGIC.iter().copied());
            let _ = decode_header(&value, Flavor::MariaDb);
        }
    }
}
