//! Keys as bytes: exact for telling rows apart, folded for choosing a lane.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::change::DispatchError;
use crate::row::{RowImage, Value};
use crate::schema::{BoundTable, LaneRule};

/// A row's key bytes and what its lane is found by, read in one walk. Kept between rows for its memory.
#[derive(Debug, Default)]
pub struct RowKey {
    bytes: Vec<u8>,
    /// What is hashed to find the lane.
    hashed: Vec<u8>,
    /// Where the parts of a key stand that does not have its columns in the row's order, by their place in the key; and
    /// what they are put in order in.
    parts: Vec<(usize, Range<usize>)>,
    ordered: Vec<u8>,
}

/// Length of NULL.
const NULL: u32 = u32::MAX;

impl RowKey {
    /// Key bytes of the row last read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its lane, out of `lanes`.
    pub fn lane(&self, lanes: usize) -> usize {
        (xxh3_64(&self.hashed) % lanes as u64) as usize
    }

    /// Reads the key in `columns`: their values, each with its length in front, in the order given; NULL has a length of
    /// its own. The only column of an identity, which is never NULL, stands alone. Integers keep their order, so that
    /// sorting by these bytes sorts most keys as the index does.
    pub fn read(&mut self, table: &BoundTable, image: RowImage<'_>, columns: &[usize]) -> Result<(), DispatchError> {
        if let ([only], Some([identity])) = (columns, table.identity.as_deref())
            && only == identity
            && spread_by(table).iter().all(|column| column == only)
        {
            return self.read_only(table, image, *only);
        }
        let RowKey { bytes, hashed, parts, .. } = self;
        let spread = begin_lane(table, hashed);
        let in_order = columns.is_sorted();
        bytes.clear();
        parts.clear();
        let mut found = 0;
        let count = columns.iter().chain(spread).max().map_or(0, |last| last + 1);
        let wanted = |column| columns.contains(&column) || spread.contains(&column);
        let read = image.visit_some(&table.layout, count, wanted, |column, value| {
            let part = columns.iter().position(|&wanted| wanted == column);
            let start = bytes.len();
            bytes.extend_from_slice(&[0; 4]);
            let at = bytes.len();
            encode(&value, bytes);
            if spread.contains(&column) {
                hash_value(hashed, column, &value, &bytes[at..]);
            }
            let Some(part) = part else {
                bytes.truncate(start);
                return Ok(());
            };
            found += 1;
            let len = if value == Value::Null { NULL } else { (bytes.len() - at) as u32 };
            bytes[start..at].copy_from_slice(&len.to_be_bytes());
            if !in_order {
                parts.push((part, start..bytes.len()));
            }
            Ok(())
        });
        read.map_err(|source| DispatchError::Row { table: table.source.to_string(), source })?;
        if found < columns.len() {
            let missing = columns.iter().copied().find(|&column| !image.has(column));
            return Err(not_in_image(table, missing.unwrap_or_default()));
        }
        if !in_order {
            self.put_in_order();
        }
        Ok(())
    }

    /// The same for an identity of one column, as most tables have.
    fn read_only(&mut self, table: &BoundTable, image: RowImage<'_>, column: usize) -> Result<(), DispatchError> {
        let RowKey { bytes, hashed, .. } = self;
        bytes.clear();
        let spread = begin_lane(table, hashed);
        let read = match column {
            0 => image.first(&table.layout),
            _ => image.value(&table.layout, column),
        };
        let value = read.map_err(|source| DispatchError::Row { table: table.source.to_string(), source })?;
        let value = value.ok_or_else(|| not_in_image(table, column))?;
        encode(&value, bytes);
        if spread.contains(&column) {
            hash_value(hashed, column, &value, bytes);
        }
        Ok(())
    }

    fn put_in_order(&mut self) {
        let RowKey { bytes, parts, ordered, .. } = self;
        parts.sort_unstable_by_key(|(part, _)| *part);
        ordered.clear();
        parts.iter().for_each(|(_, place)| ordered.extend_from_slice(&bytes[place.clone()]));
        std::mem::swap(bytes, ordered);
    }
}

fn not_in_image(table: &BoundTable, column: usize) -> DispatchError {
    DispatchError::KeyNotInImage { table: table.source.to_string(), column: table.columns[column].quoted.clone() }
}

/// The bytes of a key, see [`RowKey::read`].
pub fn key_of(table: &BoundTable, image: RowImage<'_>, columns: &[usize]) -> Result<Vec<u8>, DispatchError> {
    let mut key = RowKey::default();
    key.read(table, image, columns)?;
    Ok(key.bytes)
}

/// The lane of a row, out of `lanes`.
pub fn lane_of(table: &BoundTable, image: RowImage<'_>, lanes: usize) -> Result<usize, DispatchError> {
    let mut key = RowKey::default();
    key.read(table, image, &[])?;
    Ok(key.lane(lanes))
}

/// Begins what a lane is found by with the table; gives back the columns that go in too.
fn begin_lane<'t>(table: &'t BoundTable, hashed: &mut Vec<u8>) -> &'t [usize] {
    hashed.clear();
    hashed.extend_from_slice(&table.lane_prefix);
    spread_by(table)
}

fn spread_by(table: &BoundTable) -> &[usize] {
    match &table.lane_rule {
        LaneRule::Spread(columns) => columns,
        LaneRule::Pinned => &[],
    }
}

/// Trailing spaces of text do not count: keys may be equal without them.
fn hash_value(hashed: &mut Vec<u8>, column: usize, value: &Value<'_>, bytes: &[u8]) {
    let text = matches!(value, Value::Bytes(_));
    let end = if text { bytes.iter().rposition(|&b| b != b' ').map_or(0, |at| at + 1) } else { bytes.len() };
    hashed.extend_from_slice(&(column as u64).to_le_bytes());
    hashed.extend_from_slice(&bytes[..end]);
}

/// Appends a value so that equal values give equal bytes.
pub fn encode(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => {}
        Value::Int(number) => out.extend_from_slice(&((*number as u64) ^ (1 << 63)).to_be_bytes()),
        Value::UInt(number) | Value::Bit(number) | Value::Set(number) => out.extend_from_slice(&number.to_be_bytes()),
        // Zero has two signs and is one value.
        Value::Float(number) => out.extend((f64::from(*number) + 0.0).to_bits().to_be_bytes()),
        Value::Double(number) => out.extend((number + 0.0).to_bits().to_be_bytes()),
        Value::Decimal(text) => out.extend(text.as_bytes()),
        Value::Year(year) | Value::Enum(year) => out.extend(year.to_be_bytes()),
        Value::Date { year, month, day } => out.extend(date(*year, *month, *day)),
        Value::Time { negative, hours, minutes, seconds, micros, .. } => {
            out.push(u8::from(!*negative));
            out.extend(hours.to_be_bytes());
            out.extend([*minutes, *seconds]);
            out.extend(micros.to_be_bytes());
        }
        Value::DateTime { year, month, day, hour, minute, second, micros, .. } => {
            out.extend(date(*year, *month, *day));
            out.extend([*hour, *minute, *second]);
            out.extend(micros.to_be_bytes());
        }
        Value::Timestamp { seconds, micros, .. } => {
            out.extend(seconds.to_be_bytes());
            out.extend(micros.to_be_bytes());
        }
        Value::Bytes(bytes) | Value::Json(bytes) => out.extend(bytes.iter()),
    }
}

fn date(year: u16, month: u8, day: u8) -> [u8; 4] {
    let [high, low] = year.to_be_bytes();
    [high, low, month, day]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{SourceTable, TableName, TargetTable};
    use crate::row::{Column, ColumnKind, TableLayout};
    use crate::schema::{Dialect, Encoding};

    #[test]
    fn null_is_no_empty_text() {
        let kind = ColumnKind::VarChar { max_bytes: 40 };
        let column = Column { kind, nullable: true, unsigned: None, collation: None };
        let bound = crate::schema::BoundColumn {
            quoted: "`u`".into(),
            encoding: Encoding::Text("utf8mb4"),
            writable: true,
            text_charset: None,
            text_collation: None,
            compares_by_bytes: true,
            formatted: false,
        };
        let layout =
            TableLayout { source: SourceTable(TableName::new("s", "t")), columns: vec![column; 2], names: None };
        let table = BoundTable {
            lane_prefix: Vec::new(),
            source: layout.source.clone(),
            target: TargetTable(TableName::new("d", "t")),
            layout: Arc::new(layout),
            columns: vec![bound; 2],
            identity: Some(vec![0]),
            other_unique: vec![1],
            lane_rule: LaneRule::Pinned,
            dialect: Dialect::MySql,
            loose_engine: None,
            selective: false,
        };
        let image = |bytes| RowImage { present: None, bytes, resolved_json: &[] };
        let key = |bytes, columns: &[usize]| key_of(&table, image(bytes), columns).unwrap();
        let (null, empty) = (b"\x02\x01k", b"\x00\x01k\x00");
        assert_ne!(key(null, &[1]), key(empty, &[1]));
        assert_ne!(key(null, &[0, 1]), key(empty, &[0, 1]));
        assert_eq!(key(null, &[0]), b"k");
        // In the order asked for, not in the row's.
        assert_eq!(key(b"\x00\x01k\x02ab", &[1, 0]), b"\0\0\0\x02ab\0\0\0\x01k");
    }
}
