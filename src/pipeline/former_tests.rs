//! Forming groups: what each rule says, one by one. Beside it: transactions that were cut, and random streams with crashes.

use std::sync::Arc;

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::super::item::{DdlEnd, DdlItem, Item, Queued};
use super::super::trail::Trail;
use super::*;
use crate::dispatch::testing::{cells, change, event_of, numbered, table};
use crate::dispatch::{ChangeEvent, Step};
use crate::model::{BinlogPosition, Flavor, GtidSet, MysqlGtid, RowOrdinal};
use crate::schema::BoundTable;

const SOURCE: uuid::Uuid = uuid::Uuid::from_u128(7);
/// As large as makes the queue full.
const LARGE: usize = 9 << 20;

/// What the source inserts under this key.
fn row(id: i32) -> [Option<Option<i32>>; 3] {
    [Some(Some(id)), Some(None), Some(Some(0))]
}

/// `bin.00000<file>` at `offset`, after `gtids` transactions; 0 for a source without GTIDs.
fn at(file: u32, offset: u64, gtids: u64) -> Location {
    let mut set = GtidSet::empty(Flavor::MySql);
    (1..=gtids).for_each(|number| set.add(&gtid(number)));
    Location::new(BinlogPosition::parse(&format!("bin.00000{file}"), offset).expect("a position"), set)
}

fn gtid(number: u64) -> Gtid {
    Gtid::MySql(MysqlGtid { sid: SOURCE, tag: String::new(), number })
}

/// A mark behind so many inserts of a transaction, of the keys from `first` on.
fn mark_behind(location: Location, first: i32, rows: u64) -> RowMark {
    let mut trail = Trail::default();
    let inserts = (first..).take(rows as usize);
    inserts.for_each(|id| trail.add(&change(&keyed(), None, Some(row(id)), RowOrdinal::default())));
    RowMark { next: RowOrdinal(rows), proof: Some(trail.proof()), ..RowMark::at(location) }
}

/// The same for keys from 0 on.
fn mark(location: Location, rows: u64) -> RowMark {
    mark_behind(location, 0, rows)
}

fn queued(item: Item, bytes: usize) -> Queued {
    Queued { item: Ok(item), bytes, room: None }
}

/// Changes of an event that ends 1000 bytes of relay log for each row of the transaction so far.
fn changes(changes: Vec<Change>, bytes: usize) -> Queued {
    let lsn = changes.last().map_or(0, |last| 1000 * last.ordinal().next().0);
    queued(Item::Changes { event: event(&changes), lsn }, bytes)
}

fn event(changes: &[Change]) -> Arc<ChangeEvent> {
    event_of(changes, changes.first().map_or_else(RowOrdinal::default, Change::ordinal))
}

fn begin(start: Location) -> Queued {
    queued(Item::Begin { gtid: None, start }, 0)
}

fn commit(location: Location) -> Queued {
    let lsn = location.position.offset;
    queued(Item::Commit { location, timestamp: 77, lsn }, 0)
}

fn ddl() -> (Queued, oneshot::Receiver<DdlEnd>) {
    let (done, ran) = oneshot::channel();
    (
        queued(
            Item::Ddl(DdlItem {
                steps: Vec::new(),
                first_step: 0,
                place: "here".into(),
                again: Vec::new(),
                emptied: Vec::new(),
                renamed: Vec::new(),
                over_rows: Vec::new(),
                done,
            }),
            0,
        ),
        ran,
    )
}

/// Inserts of these keys, the first of which is this row of its transaction.
fn inserts(table: &Arc<BoundTable>, first: u64, ids: std::ops::Range<i32>, bytes: usize) -> Queued {
    let insert = |(at, id): (u64, i32)| change(table, None, Some(row(id)), RowOrdinal(at));
    changes((first..).zip(ids).map(insert).collect(), bytes)
}

fn keyed() -> Arc<BoundTable> {
    table("t", "t", &[("PRIMARY", &[0])])
}

/// A group of that many changes, with a share for each lane.
fn size(rows: u64) -> Size {
    Size { rows, shares: 16 }
}

/// Keys that each share inserts.
fn keys(group: &Group) -> Vec<Vec<i32>> {
    let of_share = |share: &crate::dispatch::Share| {
        let mut keys = Vec::new();
        for step in share.tables.iter().flat_map(|table| &table.steps) {
            let Step::Keyed(nets) = step else { panic!("{step:?}") };
            let inserts = nets.inserts(0).map(|row| (row.table, row.after));
            for (table, image) in inserts.chain(nets.updates(0).map(|row| (row.table, row.before))) {
                keys.push(cells(table, image)[0].flatten().expect("a key"));
            }
        }
        keys.sort_unstable();
        keys
    };
    group.shares.iter().map(of_share).collect()
}

/// Keys that a lane inserts which has its share for itself.
fn of_lane(group: &Group, lane: u32) -> Vec<i32> {
    let own = group.shares.iter().position(|share| share.lanes == [lane]);
    own.map_or_else(Vec::new, |at| keys(group).swap_remove(at))
}

fn all_keys(group: &Group) -> Vec<i32> {
    let mut keys = keys(group).concat();
    keys.sort_unstable();
    keys
}

fn group(formed: Result<Formed, FormError>) -> (Group, Option<u64>) {
    match formed.expect("form") {
        Formed::Group { group, lsn, .. } => (group, lsn),
        Formed::Ddl(_) => panic!("DDL came"),
        Formed::Nothing => panic!("nothing came"),
    }
}

fn is_nothing(formed: Result<Formed, FormError>) -> bool {
    matches!(formed, Ok(Formed::Nothing))
}

fn fresh(lanes: usize) -> Former {
    Former::new(vec![RowMark::at(at(1, 4, 0)); lanes], RowMark::at(at(1, 4, 0)), false)
}

#[test]
fn whole_transactions_until_there_are_enough() {
    let (table, mut former) = (keyed(), fresh(3));
    for number in 0..3u64 {
        let first = number as i32 * 10;
        former.take(begin(at(1, 4 + number, 0)));
        former.take(inserts(&table, 0, first..first + 3, 100));
        assert!(!former.has_a_group(3 * number + 4));
        former.take(commit(at(1, 5 + number, 0)));
        assert!(former.has_a_group(3 * number + 3));
    }
    let (first, lsn) = group(former.form(size(4), Want::OnlyRows, SafeMode::Off));
    assert_eq!((first.start, first.end, lsn), (RowMark::at(at(1, 4, 0)), RowMark::at(at(1, 6, 0)), Some(6)));
    assert_eq!((first.rows, first.transactions, first.timestamp), (6, 2, 77));
    let (second, lsn) = group(former.form(size(4), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&second), lsn), (vec![20, 21, 22], Some(7)));
    assert_eq!((second.start, second.end), (RowMark::at(at(1, 6, 0)), RowMark::at(at(1, 7, 0))));
    assert!(is_nothing(former.form(size(4), Want::Next, SafeMode::Off)));
}

#[test]
fn an_incomplete_transaction_waits_and_is_no_part_of_a_group() {
    let (table, mut former) = (keyed(), fresh(2));
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..3, 100));
    assert!(is_nothing(former.form(size(100), Want::Next, SafeMode::Off)));
    former.take(commit(at(1, 5, 0)));
    former.take(begin(at(1, 5, 0)));
    former.take(inserts(&table, 0, 3..6, 100));
    let (first, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&first), first.end), (vec![0, 1, 2], RowMark::at(at(1, 5, 0))));
    assert!(is_nothing(former.form(size(100), Want::Next, SafeMode::Off)));
    former.take(commit(at(1, 6, 0)));
    assert_eq!(all_keys(&group(former.form(size(100), Want::Next, SafeMode::Off)).0), [3, 4, 5]);
}

#[test]
fn a_transaction_too_large_is_cut_to_the_row() {
    let (table, mut former) = (keyed(), fresh(2));
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..5, LARGE / 2));
    former.take(inserts(&table, 5, 5..8, LARGE));
    assert!(former.is_full());
    let mut from = RowMark::at(at(1, 4, 0));
    // How far it is in the relay log is known at the end of each event.
    for (keys, passed) in [(0..4, None), (4..8, Some(8000))] {
        let (part, lsn) = group(former.form(size(2), Want::Next, SafeMode::Off));
        let end = mark(at(1, 4, 0), keys.end as u64);
        assert_eq!((all_keys(&part), lsn, part.transactions), (keys.collect(), passed, 0));
        assert_eq!((part.start, &part.end), (from, &end));
        from = part.end;
    }
    assert!(!former.is_full() && is_nothing(former.form(size(2), Want::Next, SafeMode::Off)));
    // What is left goes as it comes.
    former.take(inserts(&table, 8, 8..9, 10));
    let (part, _) = group(former.form(size(2), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&part), part.end), (vec![8], mark(at(1, 4, 0), 9)));
    former.take(commit(at(1, 9, 0)));
    let (last, lsn) = group(former.form(size(2), Want::Next, SafeMode::Off));
    assert_eq!((last.rows, last.end, last.transactions, lsn), (0, RowMark::at(at(1, 9, 0)), 1, Some(9)));
}

#[test]
fn ddl_goes_alone_behind_all_that_is_before_it() {
    let (table, mut former) = (keyed(), fresh(2));
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..2, 10));
    former.take(commit(at(1, 5, 0)));
    former.take(commit(at(2, 4, 0)));
    former.take(begin(at(2, 4, 0)));
    former.take(ddl().0);
    let (before, _) = group(former.form(size(2), Want::OnlyRows, SafeMode::Off));
    assert_eq!((before.rows, before.end), (2, RowMark::at(at(1, 5, 0))));
    // Its own start is stored with it, so it must have been reached.
    let (moved, _) = group(former.form(size(2), Want::OnlyRows, SafeMode::Off));
    assert_eq!((moved.rows, moved.end), (0, RowMark::at(at(2, 4, 0))));
    assert!(is_nothing(former.form(size(2), Want::OnlyRows, SafeMode::Off)));
    assert!(matches!(former.form(size(2), Want::Next, SafeMode::Off), Ok(Formed::Ddl(_))));
    assert!(is_nothing(former.form(size(2), Want::Next, SafeMode::Off)));
    former.take(commit(at(2, 9, 0)));
    former.take(begin(at(2, 9, 0)));
    former.take(inserts(&table, 0, 5..6, 10));
    former.take(commit(at(2, 12, 0)));
    // Its end must be stored before anything behind it.
    let (end, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    assert_eq!((end.rows, end.start, end.end), (0, RowMark::at(at(2, 4, 0)), RowMark::at(at(2, 9, 0))));
    assert_eq!(all_keys(&group(former.form(size(100), Want::Next, SafeMode::Off)).0), [5]);
}

#[test]
fn a_change_that_must_stand_alone_does() {
    let (table, mut former) = (keyed(), fresh(2));
    let moves = change(&table, Some([Some(Some(2)), None, None]), Some([Some(Some(9)), None, None]), RowOrdinal(2));
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..2, 10));
    former.take(changes(vec![moves.clone(), numbered(&moves, RowOrdinal(3))], 10));
    former.take(inserts(&table, 4, 4..6, 10));
    former.take(commit(at(1, 5, 0)));
    for (rows, next) in [(2, 2), (1, 3), (1, 4), (2, 0)] {
        let (part, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
        assert_eq!((part.rows, part.end.next), (rows, RowOrdinal(next)));
    }
    assert_eq!(former.at, RowMark::at(at(1, 5, 0)));
}

#[test]
fn a_restart_forgets_what_is_incomplete() {
    let (table, mut former) = (keyed(), fresh(2));
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..2, 10));
    former.take(commit(at(1, 5, 0)));
    former.take(begin(at(1, 5, 0)));
    former.take(inserts(&table, 0, 2..4, LARGE));
    former.take(queued(Item::Restart, 0));
    assert!(!former.is_full());
    assert_eq!(all_keys(&group(former.form(size(100), Want::Next, SafeMode::Off)).0), [0, 1]);
    assert!(is_nothing(former.form(size(100), Want::Next, SafeMode::Off)));
    // Another transaction may come in its place.
    former.take(begin(at(1, 5, 0)));
    former.take(inserts(&table, 0, 7..8, 10));
    former.take(commit(at(1, 6, 0)));
    assert_eq!(all_keys(&group(former.form(size(100), Want::Next, SafeMode::Off)).0), [7]);
}

#[path = "former_cut_tests.rs"]
mod cut;
#[path = "former_model_tests.rs"]
mod model;
