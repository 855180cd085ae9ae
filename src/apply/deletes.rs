//! Deletes of many rows by their keys.
//!
//! A server looks through the whole table where it takes an `IN` list for most of it, and MariaDB counts the rows that other
//! transactions are about to delete as gone already. On the way it waits for all rows that other lanes have changed, and
//! two lanes that do so at once are a deadlock. So where the key is one integer, MariaDB is given the keys as a table, with
//! which it can only look up one row after the other. (It heeds `FORCE INDEX` for a range in some of these cases only.)

use std::sync::Arc;

use super::parts::{Shape, StatementInfo, info, write_key_names, write_key_values, write_table};
use crate::dispatch::NetDelete;
use crate::row::{ChangeKind, RowError};
use crate::schema::{BoundTable, Dialect};

/// So many keys are worth a table.
const LIST: usize = 8;
/// Behind the first key of a list, which so has a name.
const LIST_BEGIN: &[u8] = b" AS k UNION ALL VALUES ";
/// Digits of numbers that are less than 2^63 for certain: of larger ones a list would be one of decimals, for which no key
/// may be looked up.
const DIGITS: usize = 18;

/// Writes a statement that deletes as many of `rows` as fit.
pub(super) fn write_deletes<'r>(
    sql: &mut Vec<u8>,
    rows: impl Iterator<Item = NetDelete<'r>>,
    shape: Shape,
) -> Result<Option<StatementInfo>, RowError> {
    let mut rows = rows.peekable();
    let Some(NetDelete { table, .. }) = rows.peek().copied() else { return Ok(None) };
    let Some(identity) = &table.identity else { return Ok(None) };
    let heads = Heads::of(table, identity);
    let may_be_list = shape.lists && is_listed(table, identity);
    let room = heads.list.len().max(heads.plain.len()) + heads.list_end.len() + LIST_BEGIN.len();
    let (mut taken, mut last, mut first_end, mut small) = (0, None, 0, true);
    for row in rows {
        if taken == shape.rows || sql.len() > shape.bytes || !Arc::ptr_eq(row.table, table) {
            break;
        }
        let before = sql.len();
        if taken > 0 {
            sql.push(b',');
        }
        if may_be_list && taken > 0 {
            sql.push(b'(');
        }
        let start = sql.len();
        write_key_values(sql, table, identity, row.before)?;
        small &= sql.len() - start <= DIGITS;
        if may_be_list && taken > 0 {
            sql.push(b')');
        }
        if taken > 0 && sql.len() + room > shape.limit {
            sql.truncate(before);
            break;
        }
        if taken == 0 {
            first_end = sql.len();
        }
        (taken, last) = (taken + 1, Some(row.span));
    }
    if may_be_list && small && taken >= LIST {
        sql.splice(first_end..first_end + 1, LIST_BEGIN.iter().copied());
        sql.splice(..0, heads.list);
        sql.extend(heads.list_end);
    } else {
        sql.splice(..0, heads.plain);
        sql.push(b')');
    }
    Ok(last.map(|span| info(ChangeKind::Delete, taken, table, span, false)))
}

/// Whether its rows may be found by a list: by the primary key, which is one integer on both sides. Of a table without
/// transactions nothing waits.
fn is_listed(table: &BoundTable, identity: &[usize]) -> bool {
    let whole = table.whole_primary.is_some_and(|primary| *identity == [primary]);
    whole && table.dialect == Dialect::MariaDb && table.loose_engine.is_none()
}

/// What stands around the keys.
struct Heads {
    plain: Vec<u8>,
    list: Vec<u8>,
    list_end: Vec<u8>,
}

impl Heads {
    fn of(table: &BoundTable, identity: &[usize]) -> Heads {
        let (mut plain, mut list, mut list_end) = (Vec::new(), Vec::new(), Vec::new());
        plain.extend(b"DELETE FROM ");
        write_table(&mut plain, table);
        plain.extend(b" WHERE ");
        write_key_names(&mut plain, table, identity);
        plain.extend(b" IN (");
        // No alias for the table: it would be looked for in the session's schema, which has none.
        list.extend(b"DELETE ");
        write_table(&mut list, table);
        list.extend(b" FROM (SELECT ");
        list_end.extend(b") AS `dm-agent keys` STRAIGHT_JOIN ");
        write_table(&mut list_end, table);
        list_end.extend(b" FORCE INDEX (PRIMARY) ON ");
        write_table(&mut list_end, table);
        list_end.push(b'.');
        write_key_names(&mut list_end, table, identity);
        list_end.extend(b"=`dm-agent keys`.k");
        Heads { plain, list, list_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::StatementCursor;
    use crate::dispatch::testing::{change, table};
    use crate::dispatch::{Change, ChangeEvent, GroupBuilder, SafeMode};
    use crate::model::{BinlogFile, BinlogPosition, EventSpan, Flavor, GtidSet, Location, RowMark, RowOrdinal};
    use crate::row::{ColumnKind, EventRows, RowPlaces, TableLayout};

    /// What deletes rows with these keys from a table of this dialect, in statements of at most so many bytes.
    fn statements(dialect: Dialect, lists: bool, keys: std::ops::Range<i32>, limit: usize) -> Vec<String> {
        let mut bound = Arc::into_inner(table("t", "t", &[("PRIMARY", &[0])])).expect("just made");
        bound.dialect = dialect;
        deleted(&Arc::new(bound), lists, keys, limit)
    }

    /// The same from a table.
    fn deleted(bound: &Arc<BoundTable>, lists: bool, keys: std::ops::Range<i32>, limit: usize) -> Vec<String> {
        let row = |id| [Some(Some(id)), Some(None), Some(Some(0))];
        written(keys.map(|id| change(bound, Some(row(id)), None, RowOrdinal(0))), lists, limit)
    }

    fn written(changes: impl Iterator<Item = Change>, lists: bool, limit: usize) -> Vec<String> {
        let mut group = GroupBuilder::new(1, 1, false, SafeMode::Off);
        changes.for_each(|change| group.push(&change, &[]).expect("a key"));
        let position = BinlogPosition::parse("bin.000001", 4).expect("a place");
        let mark = || RowMark::at(Location::new(position.clone(), GtidSet::empty(Flavor::MySql)));
        let group = group.finish(mark(), mark(), 1, 0);
        let shape = Shape { rows: 999, bytes: 512 << 10, limit, safe: SafeMode::Off, lists };
        let mut cursor = StatementCursor::new(&group.shares[0], shape);
        let (mut sql, mut all) = (Vec::new(), Vec::new());
        while cursor.next(&mut sql).expect("a statement").is_some() {
            all.push(String::from_utf8(sql.clone()).expect("text"));
        }
        all
    }

    /// The deletion of a row from a table whose key is a BIGINT.
    fn far(bound: &Arc<BoundTable>, id: i64) -> Change {
        let bytes = [&[2], &id.to_le_bytes()[..], &[0; 4]].concat();
        let (mut places, all) = (RowPlaces::default(), bytes.len());
        places.push(0..all, 0..0, all);
        let rows = EventRows::new(ChangeKind::Delete, bytes.into(), [None, None], places).expect("a small event");
        let span = EventSpan { file: BinlogFile::parse("bin.000001").expect("a file"), start: 4, end: 4 };
        Change::of(&Arc::new(ChangeEvent::new(Arc::clone(bound), rows, RowOrdinal(0), span)), 0).expect("a change")
    }

    #[test]
    fn numbers_that_would_make_decimals_of_all_are_no_table() {
        let mut bound = Arc::into_inner(table("t", "t", &[("PRIMARY", &[0])])).expect("just made");
        bound.dialect = Dialect::MariaDb;
        let mut layout = TableLayout::clone(&bound.layout);
        layout.columns[0].kind = ColumnKind::BigInt;
        bound.layout = Arc::new(layout);
        let bound = Arc::new(bound);
        let is_list = |last: i64| {
            let all = written((0..8).chain([last]).map(|id| far(&bound, id)), true, 1 << 20).join(";");
            assert!(all.contains(&last.to_string()), "{all}");
            all.contains("UNION ALL")
        };
        assert!(is_list(999_999_999_999_999_999) && is_list(-99_999_999_999_999_999));
        assert!(!is_list(1_000_000_000_000_000_000) && !is_list(i64::MAX) && !is_list(i64::MIN));
    }

    #[test]
    fn only_the_primary_key_can_be_named_as_the_index() {
        let mut bound = Arc::into_inner(table("t", "t", &[("other", &[0])])).expect("just made");
        bound.dialect = Dialect::MariaDb;
        assert_eq!(bound.identity, Some(vec![0]));
        assert_eq!(
            deleted(&Arc::new(bound), true, 0..8, 1 << 20),
            ["DELETE FROM `d`.`t` WHERE `id` IN (0,1,2,3,4,5,6,7)"]
        );
    }

    #[test]
    fn keys_are_a_table_where_the_server_takes_one_and_they_are_some() {
        let one = |dialect, lists, keys| statements(dialect, lists, keys, 1 << 20).join(";");
        assert_eq!(
            one(Dialect::MariaDb, true, -1..7),
            "DELETE `d`.`t` FROM (SELECT -1 AS k UNION ALL VALUES (0),(1),(2),(3),(4),(5),(6)) AS `dm-agent keys` \
             STRAIGHT_JOIN `d`.`t` FORCE INDEX (PRIMARY) ON `d`.`t`.`id`=`dm-agent keys`.k"
        );
        assert_eq!(one(Dialect::MariaDb, true, -1..1), "DELETE FROM `d`.`t` WHERE `id` IN (-1,(0))");
        for (dialect, lists) in [(Dialect::MariaDb, false), (Dialect::MySql, true), (Dialect::TiDb, true)] {
            assert_eq!(one(dialect, lists, 0..8), "DELETE FROM `d`.`t` WHERE `id` IN (0,1,2,3,4,5,6,7)");
        }
    }

    #[test]
    fn statements_stay_below_the_limit_and_no_key_is_left_out() {
        for limit in [200, 250, 1000] {
            let all = statements(Dialect::MariaDb, true, 0..300, limit);
            assert!(all.iter().all(|sql| sql.len() <= limit), "{all:?}");
            let digits = |sql: &String| -> Vec<i32> {
                let keys = sql.split([' ', '(', ')', ',']);
                keys.filter_map(|word| word.parse().ok()).collect()
            };
            assert_eq!(all.iter().flat_map(digits).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
        }
    }
}
