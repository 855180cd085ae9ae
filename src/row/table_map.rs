//! TABLE_MAP events: column types with their parameters, and the optional metadata behind them.
//!
//! The type numbers are those of MySQL 5.7 to 9.7 and MariaDB 10.4 and later. An unknown *type* is an error, since the
//! length of its values is unknown; an unknown *optional field* is skipped, since it has its length before it.
//!
//! MariaDB with `mysql56_temporal_format=OFF` stores TIME(n), DATETIME(n) and TIMESTAMP(n) in a form whose width its table
//! map does not tell: such columns are taken as having no fraction, and rows of a table where they have one do not fit,
//! which is found when rows are split.

use std::sync::Arc;

use super::RowError;
use super::decimal::MAX_DIGITS;
use super::types::{Column, ColumnKind, TableLayout};
use super::wire::Cursor;
use crate::model::{Flavor, SourceTable, TableName};

/// Table maps with more columns than this are refused: the servers allow 4096.
const MAX_COLUMNS: usize = 4096;

mod field {
    pub(super) const SIGNEDNESS: u8 = 1;
    pub(super) const DEFAULT_CHARSET: u8 = 2;
    pub(super) const COLUMN_CHARSET: u8 = 3;
    pub(super) const COLUMN_NAME: u8 = 4;
    pub(super) const ENUM_AND_SET_DEFAULT_CHARSET: u8 = 10;
    pub(super) const ENUM_AND_SET_COLUMN_CHARSET: u8 = 11;
}

fn malformed(what: &'static str) -> RowError {
    RowError::TableMap { what }
}

/// Reads the body of a TABLE_MAP event (without header and checksum): the table's id for the statement, and its layout.
pub fn parse_table_map(flavor: Flavor, body: &[u8]) -> Result<(u64, TableLayout), RowError> {
    let mut at = Cursor::new(body);
    let cut = || malformed("it is cut short");
    let table_id = at.uint(6).ok_or_else(cut)?;
    at.take(2).ok_or_else(cut)?;
    let schema = name(&mut at)?;
    let table = name(&mut at)?;
    let count = at.lenenc_len().ok_or_else(cut)?;
    if count > MAX_COLUMNS {
        return Err(malformed("it has more columns than a table can have"));
    }
    let types = at.take(count).ok_or_else(cut)?;
    let mut parameters = Cursor::new(at.lenenc_bytes().ok_or_else(cut)?);
    let nullable = at.take(count.div_ceil(8)).ok_or_else(cut)?;
    let mut columns = Vec::with_capacity(count);
    for (index, &number) in types.iter().enumerate() {
        let kind = column_kind(index, number, &mut parameters)?;
        let nullable = nullable[index / 8] >> (index % 8) & 1 == 1;
        columns.push(Column { kind, nullable, unsigned: None, collation: None });
    }
    let source = SourceTable(TableName::new(schema, table));
    let mut layout = TableLayout { source, columns, names: None };
    optional_fields(flavor, types, &mut layout, at)?;
    Ok((table_id, layout))
}

/// A length byte, the name in UTF-8, and a zero byte.
fn name<'a>(at: &mut Cursor<'a>) -> Result<&'a str, RowError> {
    let bytes = at.prefixed(1).ok_or_else(|| malformed("a name is cut short"))?;
    at.u8().ok_or_else(|| malformed("a name is cut short"))?;
    std::str::from_utf8(bytes).map_err(|_| malformed("a name is not UTF-8"))
}

fn column_kind(index: usize, number: u8, parameters: &mut Cursor<'_>) -> Result<ColumnKind, RowError> {
    let cut = || malformed("the column parameters are cut short");
    let mut byte = || parameters.u8().ok_or_else(cut);
    let kind = match number {
        1 => ColumnKind::TinyInt,
        2 => ColumnKind::SmallInt,
        3 => ColumnKind::Int,
        8 => ColumnKind::BigInt,
        9 => ColumnKind::MediumInt,
        13 => ColumnKind::Year,
        10 | 14 => ColumnKind::Date,
        7 => ColumnKind::Timestamp { fraction: 0, old: true },
        11 => ColumnKind::Time { fraction: 0, old: true },
        12 => ColumnKind::DateTime { fraction: 0, old: true },
        4 => byte().map(|_| ColumnKind::Float)?,
        5 => byte().map(|_| ColumnKind::Double)?,
        17 => ColumnKind::Timestamp { fraction: fraction(byte()?)?, old: false },
        18 => ColumnKind::DateTime { fraction: fraction(byte()?)?, old: false },
        19 => ColumnKind::Time { fraction: fraction(byte()?)?, old: false },
        16 => bit(byte()?, byte()?)?,
        15 | 253 => ColumnKind::VarChar { max_bytes: u16::from_le_bytes([byte()?, byte()?]) },
        141 => ColumnKind::CompressedVarChar { max_bytes: u16::from_le_bytes([byte()?, byte()?]) },
        140 => ColumnKind::CompressedBlob { length_bytes: length_bytes(byte()?)? },
        242 => ColumnKind::Vector { length_bytes: length_bytes(byte()?)? },
        245 => ColumnKind::Json { length_bytes: length_bytes(byte()?)? },
        249..=252 => ColumnKind::Blob { length_bytes: length_bytes(byte()?)? },
        255 => ColumnKind::Geometry { length_bytes: length_bytes(byte()?)? },
        246 => decimal(byte()?, byte()?)?,
        247 | 248 | 254 => string(index, byte()?, byte()?)?,
        kind => return Err(RowError::UnknownType { column: index, kind }),
    };
    Ok(kind)
}

fn fraction(digits: u8) -> Result<u8, RowError> {
    if digits > 6 { Err(malformed("a fraction has more than 6 digits")) } else { Ok(digits) }
}

fn length_bytes(bytes: u8) -> Result<u8, RowError> {
    if (1..=4).contains(&bytes) { Ok(bytes) } else { Err(malformed("a length has not 1 to 4 bytes")) }
}

fn bit(bits: u8, bytes: u8) -> Result<ColumnKind, RowError> {
    match u16::from(bytes) * 8 + u16::from(bits) {
        bits @ 1..=64 => Ok(ColumnKind::Bit { bits: bits as u8 }),
        _ => Err(malformed("a BIT column has not 1 to 64 bits")),
    }
}

fn decimal(precision: u8, scale: u8) -> Result<ColumnKind, RowError> {
    if precision == 0 || precision > MAX_DIGITS || scale > precision {
        return Err(malformed("a DECIMAL column has an impossible precision or scale"));
    }
    Ok(ColumnKind::Decimal { precision, scale })
}

/// CHAR, ENUM and SET share a type number. The first parameter is the real type and the second the length, except that
/// the two upper bits of a CHAR's length, inverted, take the place of two bits of the type that are always set.
fn string(index: usize, real_type: u8, len: u8) -> Result<ColumnKind, RowError> {
    if real_type & 0x30 != 0x30 {
        let upper = u16::from((real_type & 0x30) ^ 0x30) << 4;
        return match real_type | 0x30 {
            254 => Ok(ColumnKind::Char { max_bytes: u16::from(len) | upper }),
            kind => Err(RowError::UnknownType { column: index, kind }),
        };
    }
    match (real_type, len) {
        (247, 1 | 2) => Ok(ColumnKind::Enum { bytes: len }),
        (248, 1..=8) => Ok(ColumnKind::Set { bytes: len }),
        (247 | 248, _) => Err(malformed("an ENUM or SET column has an impossible width")),
        (253 | 254, _) => Ok(ColumnKind::Char { max_bytes: u16::from(len) }),
        (kind, _) => Err(RowError::UnknownType { column: index, kind }),
    }
}

/// Which columns a list of the optional metadata speaks of.
#[derive(Clone, Copy)]
enum Family {
    Numeric,
    Character,
    EnumOrSet,
}

impl Family {
    /// Indexes of the family's columns, in order.
    fn columns(self, flavor: Flavor, types: &[u8], layout: &TableLayout) -> Vec<usize> {
        let maria = flavor == Flavor::MariaDb;
        let belongs = |number: u8, kind: ColumnKind| match (self, kind) {
            (Family::EnumOrSet, kind) => matches!(kind, ColumnKind::Enum { .. } | ColumnKind::Set { .. }),
            (_, ColumnKind::Enum { .. } | ColumnKind::Set { .. }) => false,
            (Family::Numeric, _) => matches!(number, 1..=5 | 8 | 9 | 13 | 246),
            // MySQL's VECTOR is a BLOB in this, and so are MariaDB's geometry and compressed types.
            (Family::Character, _) => {
                matches!(number, 15 | 242 | 249..=254) || maria && matches!(number, 140 | 141 | 255)
            }
        };
        let pairs = types.iter().zip(&layout.columns).enumerate();
        pairs.filter(|(_, (number, column))| belongs(**number, column.kind)).map(|(index, _)| index).collect()
    }
}

fn optional_fields(flavor: Flavor, types: &[u8], layout: &mut TableLayout, mut at: Cursor<'_>) -> Result<(), RowError> {
    while !at.is_empty() {
        let cut = || malformed("the optional metadata is cut short");
        let number = at.u8().ok_or_else(cut)?;
        let data = Cursor::new(at.lenenc_bytes().ok_or_else(cut)?);
        let columns = |family: Family, layout: &TableLayout| family.columns(flavor, types, layout);
        match number {
            field::SIGNEDNESS => signedness(&columns(Family::Numeric, layout), layout, data)?,
            field::DEFAULT_CHARSET => default_charset(&columns(Family::Character, layout), layout, data)?,
            field::COLUMN_CHARSET => column_charset(&columns(Family::Character, layout), layout, data)?,
            field::ENUM_AND_SET_DEFAULT_CHARSET => {
                default_charset(&columns(Family::EnumOrSet, layout), layout, data)?;
            }
            field::ENUM_AND_SET_COLUMN_CHARSET => {
                column_charset(&columns(Family::EnumOrSet, layout), layout, data)?;
            }
            field::COLUMN_NAME => layout.names = Some(names(layout.columns.len(), data)?),
            // Members of ENUM and SET, geometry types, keys, visibility, dimensions of vectors, and what is yet to come.
            _ => {}
        }
    }
    Ok(())
}

/// A bit for each numeric column, the highest bit of a byte first.
fn signedness(columns: &[usize], layout: &mut TableLayout, data: Cursor<'_>) -> Result<(), RowError> {
    let bits = data.rest();
    if bits.len() != columns.len().div_ceil(8) {
        return Err(malformed("the signedness bits do not fit the numeric columns"));
    }
    for (bit, &index) in columns.iter().enumerate() {
        layout.columns[index].unsigned = Some(bits[bit / 8] >> (7 - bit % 8) & 1 == 1);
    }
    Ok(())
}

fn collation(data: &mut Cursor<'_>) -> Result<u32, RowError> {
    let number = data.lenenc().ok_or_else(|| malformed("a collation is cut short"))?;
    u32::try_from(number).map_err(|_| malformed("a collation number is too large"))
}

/// One collation for all, then pairs of a column's number in the family and its other collation.
fn default_charset(columns: &[usize], layout: &mut TableLayout, mut data: Cursor<'_>) -> Result<(), RowError> {
    let default = collation(&mut data)?;
    columns.iter().for_each(|&index| layout.columns[index].collation = Some(default));
    while !data.is_empty() {
        let position = data.lenenc_len().ok_or_else(|| malformed("a collation is cut short"))?;
        let other = collation(&mut data)?;
        let index = *columns.get(position).ok_or_else(|| malformed("a collation is for a column that is not there"))?;
        layout.columns[index].collation = Some(other);
    }
    Ok(())
}

fn column_charset(columns: &[usize], layout: &mut TableLayout, mut data: Cursor<'_>) -> Result<(), RowError> {
    for &index in columns {
        layout.columns[index].collation = Some(collation(&mut data)?);
    }
    if data.is_empty() { Ok(()) } else { Err(malformed("there are more collations than character columns")) }
}

fn names(count: usize, mut data: Cursor<'_>) -> Result<Vec<Arc<str>>, RowError> {
    let mut names = Vec::with_capacity(count);
    while !data.is_empty() {
        let bytes = data.lenenc_bytes().ok_or_else(|| malformed("a column name is cut short"))?;
        names.push(std::str::from_utf8(bytes).map_err(|_| malformed("a column name is not UTF-8"))?.into());
    }
    if names.len() == count { Ok(names) } else { Err(malformed("there is not one name for each column")) }
}

#[cfg(test)]
#[path = "table_map_tests.rs"]
mod tests;
