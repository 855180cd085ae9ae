//! Keys as bytes: exact for telling rows apart, folded for choosing a lane.

use xxhash_rust::xxh3::xxh3_64;

use super::change::DispatchError;
use crate::model::TargetTable;
use crate::row::{ReadRow, RowImage, Value};
use crate::schema::{BoundTable, LaneRule};

/// A row's key bytes and what its lane is found by, read in one walk. Kept between rows for its memory.
#[derive(Debug, Default)]
pub struct RowKey {
    bytes: Vec<u8>,
    /// What is hashed to find the lane.
    hashed: Vec<u8>,
    /// The values in the order of the row, and where that of each key column stands in them.
    values: Vec<u8>,
    parts: Vec<Option<(usize, u32)>>,
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
    pub fn read(&mut self, table: &BoundTable, image: &RowImage, columns: &[usize]) -> Result<(), DispatchError> {
        let RowKey { bytes, hashed, values, parts } = self;
        let spread = begin_lane(table, hashed);
        values.clear();
        parts.clear();
        parts.resize(columns.len(), None);
        let last = columns.iter().chain(spread).max().copied().unwrap_or(0);
        let read = image.visit_until(&table.layout, last, |column, value| {
            let part = columns.iter().position(|&wanted| wanted == column);
            let spreads = spread.contains(&column);
            if part.is_some() || spreads {
                let start = values.len();
                encode(&value, values);
                if spreads {
                    hash_value(hashed, column, &value, &values[start..]);
                }
                if let Some(at) = part {
                    let len = if value == Value::Null { NULL } else { (values.len() - start) as u32 };
                    parts[at] = Some((start, len));
                }
            }
            Ok(())
        });
        read.map_err(|source| DispatchError::Row { table: table.source.to_string(), source })?;
        bytes.clear();
        for (part, &column) in parts.iter().zip(columns) {
            let missing = || DispatchError::KeyNotInImage {
                table: table.source.to_string(),
                column: table.columns[column].quoted.clone(),
            };
            let (start, len) = part.ok_or_else(missing)?;
            if columns.len() > 1 || table.identity.as_deref() != Some(columns) {
                bytes.extend(len.to_be_bytes());
            }
            let len = if len == NULL { 0 } else { len as usize };
            bytes.extend_from_slice(&values[start..start + len]);
        }
        Ok(())
    }
}

/// The bytes of a key, see [`RowKey::read`].
pub fn key_of(table: &BoundTable, image: &RowImage, columns: &[usize]) -> Result<Vec<u8>, DispatchError> {
    let mut key = RowKey::default();
    key.read(table, image, columns)?;
    Ok(key.bytes)
}

/// The lane of a row, out of `lanes`.
pub fn lane_of(table: &BoundTable, image: &RowImage, lanes: usize) -> Result<usize, DispatchError> {
    let mut key = RowKey::default();
    key.read(table, image, &[])?;
    Ok(key.lane(lanes))
}

/// Begins what a lane is found by with the table; gives back the columns that go in too.
fn begin_lane<'t>(table: &'t BoundTable, hashed: &mut Vec<u8>) -> &'t [usize] {
    let TargetTable(name) = &table.target;
    hashed.clear();
    hashed.extend_from_slice(name.schema.as_bytes());
    hashed.push(0);
    hashed.extend_from_slice(name.table.as_bytes());
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
        Value::Int(number) => out.extend(((*number as u64) ^ (1 << 63)).to_be_bytes()),
        Value::UInt(number) | Value::Bit(number) | Value::Set(number) => out.extend(number.to_be_bytes()),
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

    use bytes::Bytes;

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
            compares_by_bytes: true,
        };
        let layout =
            TableLayout { source: SourceTable(TableName::new("s", "t")), columns: vec![column; 2], names: None };
        let table = BoundTable {
            source: layout.source.clone(),
            target: TargetTable(TableName::new("d", "t")),
            layout: Arc::new(layout),
            columns: vec![bound; 2],
            identity: Some(vec![0]),
            other_unique: vec![1],
            lane_rule: LaneRule::Pinned,
            dialect: Dialect::MySql,
            loose_engine: None,
        };
        let image =
            |bytes: &'static [u8]| RowImage { present: None, bytes: Bytes::from_static(bytes), resolved_json: None };
        let key = |bytes, columns: &[usize]| key_of(&table, &image(bytes), columns).unwrap();
        let (null, empty) = (b"\x02\x01k", b"\x00\x01k\x00");
        assert_ne!(key(null, &[1]), key(empty, &[1]));
        assert_ne!(key(null, &[0, 1]), key(empty, &[0, 1]));
        assert_eq!(key(null, &[0]), b"k");
    }
}
