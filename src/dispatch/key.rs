//! Keys as bytes: exact for telling rows apart, folded for choosing a lane.

use std::hash::Hasher;

use xxhash_rust::xxh3::Xxh3;

use super::change::DispatchError;
use crate::row::{ReadRow, RowImage, Value};
use crate::schema::{BoundTable, LaneRule};

/// The values of `columns` in `image`, each with its length in front, in the order given; NULL has a length of its own. The
/// only column of an identity, which is never NULL, stands alone. Integers keep their order, so that sorting by these bytes
/// sorts most keys as the index does.
pub fn key_of(table: &BoundTable, image: &RowImage, columns: &[usize]) -> Result<Vec<u8>, DispatchError> {
    let mut parts: Vec<Option<(u32, Vec<u8>)>> = vec![None; columns.len()];
    let read = image.visit(&table.layout, |column, value| {
        if let Some(at) = columns.iter().position(|&wanted| wanted == column) {
            let mut bytes = Vec::with_capacity(10);
            encode(&value, &mut bytes);
            let len = if value == Value::Null { u32::MAX } else { bytes.len() as u32 };
            parts[at] = Some((len, bytes));
        }
        Ok(())
    });
    read.map_err(|source| DispatchError::Row { table: table.source.to_string(), source })?;
    if let [Some((_, only))] = parts.as_mut_slice()
        && table.identity.as_deref() == Some(columns)
    {
        return Ok(std::mem::take(only));
    }
    let mut key = Vec::with_capacity(parts.len() * 12);
    for (part, &column) in parts.iter().zip(columns) {
        let missing = || DispatchError::KeyNotInImage {
            table: table.source.to_string(),
            column: table.columns[column].quoted.clone(),
        };
        let (len, part) = part.as_ref().ok_or_else(missing)?;
        key.extend(len.to_be_bytes());
        key.extend(part);
    }
    Ok(key)
}

/// The lane of a row, out of `lanes`.
pub fn lane_of(table: &BoundTable, image: &RowImage, lanes: usize) -> Result<usize, DispatchError> {
    let mut hash = Xxh3::new();
    hash.update(table.target.0.schema.as_bytes());
    hash.update(&[0]);
    hash.update(table.target.0.table.as_bytes());
    if let LaneRule::Spread(columns) = &table.lane_rule {
        let mut part = Vec::with_capacity(16);
        let read = image.visit(&table.layout, |column, value| {
            if columns.contains(&column) {
                part.clear();
                encode(&value, &mut part);
                let text = matches!(value, Value::Bytes(_));
                let end = if text { part.iter().rposition(|&b| b != b' ').map_or(0, |at| at + 1) } else { part.len() };
                hash.write_usize(column);
                hash.update(&part[..end]);
            }
            Ok(())
        });
        read.map_err(|source| DispatchError::Row { table: table.source.to_string(), source })?;
    }
    Ok((hash.digest() % lanes as u64) as usize)
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
