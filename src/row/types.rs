//! Layouts, images and values: the types that the decoder makes and the applier reads.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::SourceTable;

/// The shape of a table's rows in the binlog, from one TABLE_MAP event. Shared by all row changes of equal table maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLayout {
    /// Upstream table.
    pub source: SourceTable,
    /// Columns in the order of the row image.
    pub columns: Vec<Column>,
    /// Column names, where the upstream writes them (`binlog_row_metadata=FULL`).
    pub names: Option<Vec<Arc<str>>>,
}

/// One column of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Type on the wire with its parameters.
    pub kind: ColumnKind,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// For numeric columns, where the optional metadata says so (MySQL 8 and later, MINIMAL and FULL).
    pub unsigned: Option<bool>,
    /// Collation number for character columns (ENUM and SET: of their members), where the metadata says so; 63 is binary.
    pub collation: Option<u32>,
}

/// A column's type on the wire, with the parameters from the table map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are the servers' type names
pub enum ColumnKind {
    TinyInt,
    SmallInt,
    MediumInt,
    Int,
    BigInt,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Year,
    Date,
    /// `old` is the format before MySQL 5.6 (MariaDB with `mysql56_temporal_format=OFF`); then `fraction` is 0 unless MariaDB says otherwise.
    Time {
        fraction: u8,
        old: bool,
    },
    DateTime {
        fraction: u8,
        old: bool,
    },
    Timestamp {
        fraction: u8,
        old: bool,
    },
    Bit {
        bits: u8,
    },
    Enum {
        bytes: u8,
    },
    Set {
        bytes: u8,
    },
    /// CHAR and BINARY; also MariaDB's UUID, INET4 and INET6.
    Char {
        max_bytes: u16,
    },
    VarChar {
        max_bytes: u16,
    },
    /// All BLOB and TEXT types.
    Blob {
        length_bytes: u8,
    },
    Json {
        length_bytes: u8,
    },
    Geometry {
        length_bytes: u8,
    },
    Vector {
        length_bytes: u8,
    },
    CompressedVarChar {
        max_bytes: u16,
    },
    CompressedBlob {
        length_bytes: u8,
    },
}

impl ColumnKind {
    /// Whether its values are integers.
    pub fn is_integer(self) -> bool {
        use ColumnKind as K;
        matches!(self, K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt)
    }
}

/// Columns by index, each with its whole JSON value in MySQL's binary form.
pub type ResolvedJson = Box<[(usize, Vec<u8>)]>;

/// One row before or after a change, lent from its event: raw bytes, and which columns are in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowImage<'a> {
    /// Which columns of the layout are present; `None` for all of them (row image FULL).
    pub present: Option<&'a [bool]>,
    /// Null bits of the present columns, then their values.
    pub bytes: &'a [u8],
    /// For partial JSON updates: columns whose value is not in `bytes` but here, made from the before image and the diff.
    pub resolved_json: &'a [(usize, Vec<u8>)],
}

impl RowImage<'_> {
    /// Whether a column of the layout is in it.
    pub fn has(&self, column: usize) -> bool {
        self.present.is_none_or(|present| present.get(column).copied().unwrap_or(false))
    }

    /// Whether another image of the row is not the same.
    pub fn differs(&self, after: RowImage<'_>) -> bool {
        self.present != after.present || self.bytes != after.bytes || !after.resolved_json.is_empty()
    }
}

/// What a change does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChangeKind {
    /// A new row; only `after`.
    Insert,
    /// A changed row; both images.
    Update,
    /// A row that goes; only `before`.
    Delete,
}

/// A value lent from a row image.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // field names say it
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// Integer columns, sign-extended, where the layout does not say that they are unsigned. For an unsigned column of
    /// a source that does not write signedness, the reader masks it to the width of the column's kind.
    Int(i64),
    /// Integer columns that the layout says are unsigned.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL as text, such as `-0.05`, with all digits of its scale.
    Decimal(Cow<'a, str>),
    /// YEAR; 0 is `0000`.
    Year(u16),
    /// DATE; zero and invalid dates as they are stored.
    Date { year: u16, month: u8, day: u8 },
    /// TIME; `fraction` digits are significant.
    Time { negative: bool, hours: u32, minutes: u8, seconds: u8, micros: u32, fraction: u8 },
    /// DATETIME.
    DateTime { year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8, micros: u32, fraction: u8 },
    /// TIMESTAMP: seconds since the epoch, UTC; 0 with 0 micros is the zero timestamp.
    Timestamp { seconds: u32, micros: u32, fraction: u8 },
    /// BIT as a number.
    Bit(u64),
    /// ENUM as its index; 0 is the error value.
    Enum(u16),
    /// SET as its bit mask.
    Set(u64),
    /// CHAR, VARCHAR, BINARY, VARBINARY, TEXT, BLOB, GEOMETRY (SRID and WKB), VECTOR: bytes as stored, in the column's
    /// character set; MariaDB's COMPRESSED columns decompressed. BINARY(n) is as in the image: trailing zeros are missing.
    Bytes(Cow<'a, [u8]>),
    /// JSON in MySQL's binary form; [`super::json`] prints it.
    Json(Cow<'a, [u8]>),
}
