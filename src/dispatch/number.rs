//! Keys that are one whole number, as most tables have them, read where an event comes in.
//!
//! Its images are at hand there. When a group is formed of thousands of events, each would have to be fetched from memory
//! once more, only for its key. Invariant: what is here is what is read from the images where this is not.

use smallvec::SmallVec;

use super::key::RowKey;
use crate::row::{EventRows, RowImage, Value};
use crate::schema::BoundTable;

/// The keys of an event's rows.
#[derive(Debug)]
pub(super) struct NumberKeys {
    column: usize,
    /// As far as the binlog says.
    unsigned: bool,
    /// Small transactions have one row an event.
    rows: SmallVec<[NumberKey; 1]>,
}

/// The key of a row before and after its change; any number where there is no such row.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberKey {
    pub(super) before: u64,
    pub(super) after: u64,
    /// Both images are there and differ.
    pub(super) differs: bool,
}

impl NumberKeys {
    /// `None` where the table has another key, or an image that does not hold it.
    pub(super) fn of(table: &BoundTable, rows: &EventRows) -> Option<NumberKeys> {
        let [column] = *table.identity.as_deref()? else { return None };
        if !rows.is_whole() || !RowKey::is_by(table, column) {
            return None;
        }
        let mut unsigned = false;
        let mut number = |image: Option<RowImage<'_>>| {
            let Some(image) = image else { return Some(0) };
            let (number, of_unsigned) = image.integer(&table.layout, column)?;
            unsigned = of_unsigned;
            Some(number)
        };
        let mut keys = SmallVec::with_capacity(rows.len());
        for (before, after) in rows.iter() {
            let differs = before.zip(after).is_some_and(|(before, after)| before.differs(after));
            keys.push(NumberKey { before: number(before)?, after: number(after)?, differs });
        }
        Some(NumberKeys { column, unsigned, rows: keys })
    }

    /// Those of one row.
    pub(super) fn row(&self, row: u32) -> Option<NumberKey> {
        self.rows.get(row as usize).copied()
    }

    /// Puts one of its numbers into `key`.
    pub(super) fn put(&self, number: u64, table: &BoundTable, key: &mut RowKey) {
        let value = if self.unsigned { Value::UInt(number) } else { Value::Int(number as i64) };
        key.set_only(table, self.column, &value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::dispatch::testing::{Cells, change, hashed_table, table};
    use crate::model::RowOrdinal;

    proptest! {
        #[test]
        fn say_what_the_images_say(
            rows in prop::collection::vec((any::<i32>(), -2..2i32), 2),
            by_hash: bool,
            kind in 0..3,
            lanes in 1..9usize,
        ) {
            let made = if by_hash { hashed_table } else { table };
            let table = made("t", "t", &[("PRIMARY", &[0])]);
            let [old, new] = [0, 1].map(|at| -> Cells { [Some(Some(rows[at].0)), Some(None), Some(Some(rows[at].1))] });
            let (old, new) = ((kind != 0).then_some(old), (kind != 1).then_some(new));
            let change = change(&table, old, new, RowOrdinal(0));
            let keys = NumberKeys::of(&table, &change.event().rows).expect("a number");
            let known = keys.row(0).expect("a row");
            for (image, number) in [(change.before(), known.before), (change.after(), known.after)] {
                let Some(image) = image else { continue };
                let (mut read, mut put) = (RowKey::default(), RowKey::default());
                read.read(&table, image, &[0]).unwrap();
                keys.put(number, &table, &mut put);
                prop_assert_eq!((read.bytes(), read.lane(lanes)), (put.bytes(), put.lane(lanes)));
            }
            prop_assert_eq!(known.differs, old.is_some() && new.is_some() && old != new);
        }
    }

    #[test]
    fn other_keys_have_none() {
        let row: Cells = [Some(Some(1)), Some(None), Some(Some(2))];
        let none = |keys: &[(&str, &[usize])], row: Cells| {
            let change = change(&table("t", "t", keys), None, Some(row), RowOrdinal(0));
            NumberKeys::of(change.table(), &change.event().rows).is_none()
        };
        assert!(none(&[], row) && none(&[("PRIMARY", &[0, 2])], row));
        assert!(none(&[("PRIMARY", &[0])], [Some(Some(1)), None, None]));
        assert!(!none(&[("PRIMARY", &[2])], row) && !none(&[("PRIMARY", &[0]), ("u", &[1])], row));
        // Lanes found by another column, as before the table got the key that it has now.
        let mut before = Arc::into_inner(table("t", "t", &[("PRIMARY", &[0])])).unwrap();
        before.lane_rule = crate::schema::LaneRule::Spread(vec![2]);
        let change = change(&Arc::new(before), None, Some(row), RowOrdinal(0));
        assert!(NumberKeys::of(change.table(), &change.event().rows).is_none());
    }
}
