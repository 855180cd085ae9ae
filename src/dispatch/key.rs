//! Keys as bytes: exact for telling rows apart, folded for choosing a lane.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::error::DispatchError;
use crate::row::{RowImage, Value};
use crate::schema::{BoundTable, LaneRule};

/// A row's key bytes and what its lane is found by, read in one walk. Kept between rows for its memory.
#[derive(Debug, Default)]
pub struct RowKey {
    bytes: Vec<u8>,
    lane: LaneKey,
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
        self.lane.lane(lanes)
    }

    /// Reads the key in `columns`: their values, each with its length in front, in the order given; NULL has a length of
    /// its own. The only column of an identity, which is never NULL, stands alone. Integers keep their order, so that
    /// sorting by these bytes sorts most keys as the index does.
    pub fn read(&mut self, table: &BoundTable, image: RowImage<'_>, columns: &[usize]) -> Result<(), DispatchError> {
        if let ([only], Some([identity])) = (columns, table.identity.as_deref())
            && only == identity
            && RowKey::is_by(table, *only)
        {
            let value = RowKey::only(table, image, *only)?.ok_or_else(|| not_in_image(table, *only))?;
            self.set_only(table, *only, &value);
            return Ok(());
        }
        let RowKey { bytes, lane, parts, .. } = self;
        let spread = lane.begin(table);
        let in_order = columns.is_sorted();
        bytes.clear();
        parts.clear();
        let mut found = 0;
        let count = columns.iter().copied().chain(spread.columns()).max().map_or(0, |last| last + 1);
        let wanted = |column| columns.contains(&column) || spread.has(column);
        let read = image.visit_some(&table.layout, count, wanted, |column, value| {
            let part = columns.iter().position(|&wanted| wanted == column);
            let start = bytes.len();
            bytes.extend_from_slice(&[0; 4]);
            let at = bytes.len();
            encode(&value, bytes);
            lane.take(spread, column, &value, &bytes[at..]);
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

    /// Whether lanes are found by this column, if by any.
    pub(super) fn is_by(table: &BoundTable, column: usize) -> bool {
        SpreadBy::of(table).columns().all(|by| by == column)
    }

    /// The value of an identity of one column, as most tables have; `None` where it is not in the image.
    pub(super) fn only<'a>(
        table: &BoundTable,
        image: RowImage<'a>,
        column: usize,
    ) -> Result<Option<Value<'a>>, DispatchError> {
        let read = match column {
            0 => image.first(&table.layout),
            _ => image.value(&table.layout, column),
        };
        read.map_err(|source| DispatchError::Row { table: table.source.to_string(), source })
    }

    /// Becomes the key with this value.
    pub(super) fn set_only(&mut self, table: &BoundTable, column: usize, value: &Value<'_>) {
        let RowKey { bytes, lane, .. } = self;
        bytes.clear();
        encode(value, bytes);
        let spread = lane.begin(table);
        lane.take(spread, column, value, bytes);
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

/// What a row's lane is found by.
#[derive(Debug, Default)]
struct LaneKey {
    hashed: Vec<u8>,
    /// Number of the run that its key is in.
    run: u64,
}

/// Runs that go to the lanes in turn before the turn begins anew at a random one. So keys that come at some distance
/// from each other, whatever it is, do not all meet on one lane.
const TURN_BITS: u32 = 6;

impl LaneKey {
    /// Begins with the table; gives back the columns that go in too.
    fn begin<'t>(&mut self, table: &'t BoundTable) -> SpreadBy<'t> {
        self.run = 0;
        self.hashed.clear();
        self.hashed.extend_from_slice(&table.lane_prefix);
        SpreadBy::of(table)
    }

    /// Takes a value in whose column is one of these; `bytes` are its key bytes.
    #[inline]
    fn take(&mut self, spread: SpreadBy<'_>, column: usize, value: &Value<'_>, bytes: &[u8]) {
        match (spread.run, value) {
            (Some((of, bits)), Value::Int(number)) if of == column => self.count((*number >> bits) as u64),
            (Some((of, bits)), Value::UInt(number)) if of == column => self.count(*number >> bits),
            _ if spread.has(column) => hash_value(&mut self.hashed, column, value, bytes),
            _ => {}
        }
    }

    #[inline]
    fn count(&mut self, run: u64) {
        self.run = run;
        self.hashed.extend_from_slice(&(run >> TURN_BITS).to_le_bytes());
    }

    fn lane(&self, lanes: usize) -> usize {
        (xxh3_64(&self.hashed).wrapping_add(self.run) % lanes as u64) as usize
    }
}

/// The columns that a table's lanes are found by.
#[derive(Debug, Clone, Copy)]
struct SpreadBy<'t> {
    hashed: &'t [usize],
    /// A number, and how many of its lowest bits do not count.
    run: Option<(usize, u32)>,
}

impl<'t> SpreadBy<'t> {
    fn of(table: &'t BoundTable) -> Self {
        match &table.lane_rule {
            LaneRule::Spread(hashed) => SpreadBy { hashed, run: None },
            LaneRule::Runs { column, bits, hashed } => SpreadBy { hashed, run: Some((*column, (*bits).min(63))) },
            LaneRule::Pinned => SpreadBy { hashed: &[], run: None },
        }
    }

    fn columns(self) -> impl Iterator<Item = usize> + 't {
        self.hashed.iter().copied().chain(self.run.map(|(column, _)| column))
    }

    #[inline]
    fn has(self, column: usize) -> bool {
        self.hashed.contains(&column) || self.run.is_some_and(|(run, _)| run == column)
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
            whole_primary: None,
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
    /// Lanes of keys of a table with the key `(u, id)`, the last of which counts in runs of `1 << bits`.
    fn lanes(bits: u32, lanes: usize, keys: impl Iterator<Item = (i32, i32)>) -> Vec<usize> {
        let mut table = Arc::into_inner(crate::dispatch::testing::table("t", "t", &[("PRIMARY", &[2, 0])])).unwrap();
        assert_eq!(table.lane_rule, LaneRule::Runs { column: 0, bits: 1, hashed: vec![2] });
        table.lane_rule = LaneRule::Runs { column: 0, bits, hashed: vec![2] };
        let lane = |(u, id): (i32, i32)| {
            let bytes = [&[2][..], &id.to_le_bytes(), &u.to_le_bytes()].concat();
            let image = RowImage { present: None, bytes: &bytes, resolved_json: &[] };
            let mut key = RowKey::default();
            key.read(&table, image, &[2, 0]).unwrap();
            let lane = key.lane(lanes);
            assert_eq!(lane_of(&table, image, lanes).unwrap(), lane);
            lane
        };
        keys.map(lane).collect()
    }

    #[test]
    fn neighbours_go_to_one_lane_and_the_next_ones_to_the_next() {
        for first in [0, -4096, i32::MIN, i32::MAX - 4095] {
            let all = lanes(6, 8, (0..4096).map(|at| (7, first + at)));
            let runs: Vec<usize> = all.chunks(64).map(|run| run[0]).collect();
            assert!(all.chunks(64).all(|run| run.iter().all(|lane| *lane == run[0])));
            assert!(runs.windows(2).all(|pair| (pair[0] + 1) % 8 == pair[1]), "{runs:?}");
        }
        // What is before it in the key counts, too.
        let firsts: std::collections::BTreeSet<usize> = lanes(6, 8, (0..100).map(|u| (u, 0))).into_iter().collect();
        assert_eq!(firsts.len(), 8);
    }

    #[test]
    fn keys_at_any_distance_meet_all_lanes() {
        for distance in [1, 10, 64, 512, 640, 4096, 1 << 20] {
            let mut rows = [0; 8];
            lanes(6, 8, (0..2000).map(|at| (7, at * distance))).into_iter().for_each(|lane| rows[lane] += 1);
            assert!(rows.iter().all(|rows| (100..500).contains(rows)), "{distance}: {rows:?}");
        }
    }

    #[test]
    fn lanes_are_stored_by_and_must_stay_what_they_are() {
        let keys = [(7, 0), (7, 63), (7, 64), (7, -1), (8, 0), (7, 1 << 30)];
        assert_eq!(lanes(6, 1000, keys.into_iter()), [223, 223, 224, 355, 260, 353]);
    }
}
