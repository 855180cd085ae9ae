//! A place in a server's binlog by file name and byte offset.
//!
//! File names are parsed once: the order is that of the sequence number, not of the text, and a position is never
//! re-rendered to be compared. Offsets are u64, since a binlog file can outgrow the 32 bits of the wire.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A binlog file name such as `mysql-bin.000017`, with its sequence number parsed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BinlogFile {
    name: Arc<str>,
    sequence: u64,
}

/// A text that is no binlog file name or position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a binlog position: {expected}")]
pub struct PositionParseError {
    /// What was given.
    pub text: String,
    /// What a right one looks like.
    pub expected: &'static str,
}

impl BinlogFile {
    /// Parses `<base>.<sequence>`. A relay sub-directory suffix (`mysql-bin|000002.000003`, as a stock dm-worker
    /// stores it) is removed: it names a directory of another worker, not a place on the server.
    pub fn parse(text: &str) -> Result<BinlogFile, PositionParseError> {
        let error = || PositionParseError { text: text.to_owned(), expected: "a file name like mysql-bin.000001" };
        let (base, sequence) = text.rsplit_once('.').ok_or_else(error)?;
        let base = base.split_once('|').map_or(base, |(base, _)| base);
        if base.is_empty() || sequence.is_empty() || !sequence.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let number = sequence.parse().map_err(|_| error())?;
        Ok(BinlogFile { name: format!("{base}.{sequence}").into(), sequence: number })
    }

    /// No file is known yet: a stream that starts from a GTID set learns it from its first event.
    pub fn unknown() -> BinlogFile {
        BinlogFile { name: "".into(), sequence: 0 }
    }

    /// Whether it is equal, without looking at the name where it is a copy, as nearly always.
    pub fn is_same(&self, other: &BinlogFile) -> bool {
        Arc::ptr_eq(&self.name, &other.name) || self == other
    }

    /// The name as the server writes it; empty while unknown.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number behind the last dot.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl fmt::Debug for BinlogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialOrd for BinlogFile {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BinlogFile {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sequence.cmp(&other.sequence).then_with(|| self.name.cmp(&other.name))
    }
}

/// A file and a byte offset in it. Prints as DM does: `(mysql-bin.000001, 1234)`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BinlogPosition {
    /// The file.
    pub file: BinlogFile,
    /// Bytes from the start of the file; 4 is the first event.
    pub offset: u64,
}

impl BinlogPosition {
    /// The first event of a file.
    pub const FIRST_OFFSET: u64 = 4;

    /// Joins a parsed file and an offset.
    pub fn new(file: BinlogFile, offset: u64) -> Self {
        BinlogPosition { file, offset }
    }

    /// Parses a file name and takes the offset as it is.
    pub fn parse(file: &str, offset: u64) -> Result<Self, PositionParseError> {
        Ok(BinlogPosition { file: BinlogFile::parse(file)?, offset })
    }
}

impl fmt::Display for BinlogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.file.name, self.offset)
    }
}

/// Where an event stands in the binlog, in bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventSpan {
    /// The file.
    pub file: BinlogFile,
    /// Offset of the event.
    pub start: u64,
    /// Offset behind it.
    pub end: u64,
}

impl EventSpan {
    /// Where it begins.
    pub fn start(&self) -> BinlogPosition {
        BinlogPosition::new(self.file.clone(), self.start)
    }

    /// Where it ends.
    pub fn end(&self) -> BinlogPosition {
        BinlogPosition::new(self.file.clone(), self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_sequence_not_by_text() {
        let nine = BinlogPosition::parse("bin.999999", 10).unwrap();
        let ten = BinlogPosition::parse("bin.1000000", 4).unwrap();
        assert!(nine < ten);
        assert!(BinlogPosition::parse("bin.000001", 4).unwrap() < BinlogPosition::parse("bin.000001", 5).unwrap());
    }

    #[test]
    fn strips_the_relay_suffix_of_a_stock_worker() {
        let file = BinlogFile::parse("mysql-bin|000002.000003").unwrap();
        assert_eq!(file.name(), "mysql-bin.000003");
    }

    #[test]
    fn refuses_what_is_no_file_name() {
        for text in ["", "mysql-bin", ".000001", "mysql-bin.", "mysql-bin.00x1"] {
            assert!(BinlogFile::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
