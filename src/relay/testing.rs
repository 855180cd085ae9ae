//! Events for tests: well formed on the outside, as a source with GTIDs and checksums sends them.

use bytes::Bytes;

use crate::binlog::kind;
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location};

pub(super) const SERVER: &str = "9231c604-e680-11f1-ab28-628677c36cd1";

/// Makes a stream.
pub(super) struct Source {
    pub file: u64,
    pub offset: u64,
    pub gtid: u64,
    state: u64,
}

impl Source {
    pub fn new(seed: u64) -> Self {
        Source { file: 1, offset: 4, gtid: 0, state: seed | 1 }
    }

    /// Where a stream of these begins.
    pub fn start() -> Location {
        Location::new(BinlogPosition::new(BinlogFile::parse("bin.000001").unwrap(), 4), GtidSet::empty(Flavor::MySql))
    }

    /// Behind the last transaction made.
    pub fn location(&self) -> Location {
        let set = if self.gtid == 0 { String::new() } else { format!("{SERVER}:1-{}", self.gtid) };
        Location::new(
            BinlogPosition::parse(&format!("bin.{:06}", self.file), self.offset).unwrap(),
            GtidSet::parse(Flavor::MySql, &set).unwrap(),
        )
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// Text-like bytes, which compress as rows do.
    fn filler(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            let word = self.random();
            bytes.extend(format!("{:08x}", word as u32).bytes());
            bytes.extend(b"-column-value-");
        }
        bytes.truncate(len);
        bytes
    }

    fn event(&mut self, kind: u8, body: &[u8]) -> Bytes {
        let size = 19 + body.len() + 4;
        self.offset += size as u64;
        raw_event(kind, self.offset as u32, 0, body)
    }

    /// What a connection begins with: a fake rotate and a format description.
    pub fn connect(&mut self) -> Vec<Bytes> {
        let mut rotate = self.offset.to_le_bytes().to_vec();
        rotate.extend(format!("bin.{:06}", self.file).bytes());
        let mut format = vec![0u8; 80];
        format.push(1);
        vec![raw_event(kind::ROTATE, 0, 0x20, &rotate), raw_event(kind::FORMAT_DESCRIPTION, 0, 0x20, &format)]
    }

    /// One transaction of `rows` events with bodies of up to `size` bytes.
    pub fn transaction(&mut self, rows: usize, size: usize) -> Vec<Bytes> {
        self.gtid += 1;
        let mut gtid = vec![0u8];
        gtid.extend(uuid::Uuid::parse_str(SERVER).unwrap().as_bytes());
        gtid.extend(self.gtid.to_le_bytes());
        let mut events = vec![self.event(kind::GTID, &gtid)];
        let mut begin = vec![0u8; 14];
        begin.extend(b"BEGIN");
        events.push(self.event(kind::QUERY, &begin));
        for _ in 0..rows {
            let len = 1 + self.random() as usize % size.max(1);
            let body = self.filler(len);
            events.push(self.event(kind::WRITE_ROWS_V2, &body));
        }
        events.push(self.event(kind::XID, &[0; 8]));
        events
    }

    /// The source turns to its next file.
    pub fn rotate(&mut self) -> Vec<Bytes> {
        let mut body = 4u64.to_le_bytes().to_vec();
        body.extend(format!("bin.{:06}", self.file + 1).bytes());
        let rotate = self.event(kind::ROTATE, &body);
        (self.file, self.offset) = (self.file + 1, 4);
        let mut format = vec![0u8; 80];
        format.push(1);
        vec![rotate, self.event(kind::FORMAT_DESCRIPTION, &format)]
    }
}

fn raw_event(kind: u8, end: u32, flags: u16, body: &[u8]) -> Bytes {
    let mut bytes = 1_700_000_000u32.to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(((19 + body.len() + 4) as u32).to_le_bytes());
    bytes.extend(end.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(body);
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes.into()
}
