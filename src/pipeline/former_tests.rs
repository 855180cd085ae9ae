//! Forming groups: what each rule says, one by one, and random streams with crashes in which no change may get lost or
//! be applied twice.

use std::sync::Arc;

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::super::item::{DdlEnd, DdlItem, Item, Queued};
use super::*;
use crate::dispatch::Step;
use crate::dispatch::testing::{cells, change, table};
use crate::model::{BinlogPosition, Flavor, GtidSet, MysqlGtid};
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
    let lsn = changes.last().map_or(0, |last| 1000 * last.ordinal.next().0);
    queued(Item::Changes { changes, lsn }, bytes)
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
    former.take(changes(vec![moves.clone(), Change { ordinal: RowOrdinal(3), ..moves }], 10));
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

/// Takes a cut transaction behind `start` up to its fourth row, of which one group of four is formed.
fn cut_in_the_middle(former: &mut Former, table: &Arc<BoundTable>, start: &Location) -> Group {
    former.take(begin(start.clone()));
    former.take(inserts(table, 0, 0..6, LARGE));
    let (part, _) = group(former.form(size(2), Want::Next, SafeMode::Off));
    assert_eq!(part.end, mark(start.clone(), 4));
    part
}

#[test]
fn what_was_formed_before_a_restart_is_skipped_in_its_replay() {
    let (table, mut former) = (keyed(), fresh(3));
    let start = at(1, 4, 0);
    cut_in_the_middle(&mut former, &table, &start);
    former.take(queued(Item::Restart, 0));
    assert!(is_nothing(former.form(size(2), Want::Next, SafeMode::Off)));
    for _ in 0..2 {
        // Once more, and only in part.
        former.take(begin(start.clone()));
        former.take(inserts(&table, 0, 0..3, 10));
        former.take(queued(Item::Restart, 0));
    }
    former.take(begin(start));
    former.take(inserts(&table, 0, 0..6, 10));
    former.take(commit(at(1, 9, 0)));
    let (rest, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&rest), &rest.start.next), (vec![4, 5], &RowOrdinal(4)));
    assert_eq!(rest.end, RowMark::at(at(1, 9, 0)));
}

#[test]
fn a_restart_does_not_forget_that_some_lanes_are_ahead() {
    let table = keyed();
    let start = RowMark::at(at(1, 4, 0));
    // Lane 0 has done this transaction and the next before a crash, lane 1 some more of it than will be formed.
    let marks = vec![RowMark::at(at(1, 12, 0)), mark(at(1, 4, 0), 5), start.clone()];
    let mut former = Former::new(marks, start.clone(), false);
    let first = cut_in_the_middle(&mut former, &table, &start.location);
    former.take(queued(Item::Restart, 0));
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..20, 10));
    former.take(commit(at(1, 9, 0)));
    former.take(begin(at(1, 9, 0)));
    former.take(inserts(&table, 0, 20..40, 10));
    former.take(commit(at(1, 12, 0)));
    let (rest, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    let whole = fresh(3);
    let all = formed_at_once(whole, &table);
    assert!(of_lane(&rest, 0).is_empty() && of_lane(&first, 0).is_empty());
    let from_5: Vec<i32> = of_lane(&all, 1).into_iter().filter(|&key| key >= 5).collect();
    assert_eq!(of_lane(&rest, 1), from_5);
    assert_eq!([of_lane(&first, 2), of_lane(&rest, 2)].concat(), of_lane(&all, 2));
}

/// Keys 0..40 in one group.
fn formed_at_once(mut former: Former, table: &Arc<BoundTable>) -> Group {
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(table, 0, 0..40, 10));
    former.take(commit(at(1, 12, 0)));
    group(former.form(size(100), Want::Next, SafeMode::Off)).0
}

#[test]
fn only_what_is_open_goes_on() {
    let (table, mut former) = (keyed(), fresh(2));
    cut_in_the_middle(&mut former, &table, &at(1, 4, 0));
    former.take(commit(at(1, 5, 0)));
    former.take(begin(at(1, 5, 0)));
    former.take(inserts(&table, 0, 6..8, 10));
    former.take(commit(at(1, 6, 0)));
    let (rest, lsn) = group(former.form(size(100), Want::OnlyOpen, SafeMode::Off));
    assert_eq!((all_keys(&rest), rest.end, lsn), (vec![4, 5], RowMark::at(at(1, 5, 0)), Some(5)));
    assert!(is_nothing(former.form(size(100), Want::OnlyOpen, SafeMode::Off)));
    assert_eq!(all_keys(&group(former.form(size(100), Want::Next, SafeMode::Off)).0), [6, 7]);
}

#[test]
fn a_mark_tells_what_is_done() {
    use LaneSkip::{All, Below, Nothing};
    let (inside, next) = (RowOrdinal(7), |location| mark(location, 7));
    let cases = [
        // By GTID: what is in the set is done, whatever the positions are.
        (RowMark::at(at(1, 50, 3)), Some(3), at(1, 40, 2), All),
        (RowMark::at(at(1, 50, 3)), Some(4), at(1, 50, 3), Nothing),
        (RowMark::at(at(9, 50, 3)), Some(4), at(1, 50, 3), Nothing),
        (RowMark::at(at(1, 50, 3)), Some(2), at(9, 40, 1), All),
        (next(at(1, 50, 3)), Some(4), at(1, 50, 3), Below(inside)),
        (next(at(1, 50, 3)), Some(4), at(2, 4, 3), Below(inside)),
        (next(at(1, 50, 3)), Some(5), at(1, 60, 4), Nothing),
        (next(at(1, 50, 3)), Some(3), at(1, 40, 2), All),
        // By position.
        (RowMark::at(at(1, 50, 0)), None, at(1, 40, 0), All),
        (RowMark::at(at(1, 50, 0)), None, at(1, 50, 0), Nothing),
        (RowMark::at(at(1, 50, 0)), Some(1), at(1, 40, 0), All),
        (next(at(1, 50, 0)), None, at(1, 50, 0), Below(inside)),
        (next(at(1, 50, 0)), None, at(1, 60, 0), Nothing),
        // Across a rotate.
        (RowMark::at(at(1, 50, 0)), None, at(2, 4, 0), Nothing),
        (RowMark::at(at(2, 4, 0)), None, at(1, 900, 0), All),
        (RowMark::at(at(2, 4, 0)), None, at(2, 4, 0), Nothing),
        (next(at(2, 4, 0)), None, at(1, 900, 0), All),
    ];
    for (mark, number, start, wanted) in cases {
        let got = skip(&mark, number.map(gtid).as_ref(), &start);
        assert_eq!(got, Ok(wanted), "{mark:?} {number:?} {start:?}");
    }
}

/// A mark inside the fourth transaction, which is known by its GTID.
fn inside_the_fourth() -> RowMark {
    RowMark { open: Some(gtid(4)), ..mark_behind(at(1, 50, 3), 40, 7) }
}

#[test]
fn a_cut_transaction_is_known_by_its_gtid_in_other_files() {
    let there = |number, start| skip(&inside_the_fourth(), Some(&gtid(number)), &start);
    assert_eq!(there(3, at(7, 900, 2)), Ok(LaneSkip::All));
    assert_eq!(there(4, at(7, 950, 3)), Ok(LaneSkip::Below(RowOrdinal(7))));
    assert_eq!(there(4, at(1, 50, 3)), Ok(LaneSkip::Below(RowOrdinal(7))));
}

#[test]
fn another_transaction_in_its_place_is_an_error() {
    for (found, start) in [(Some(gtid(5)), at(1, 50, 3)), (Some(gtid(5)), at(7, 950, 3)), (None, at(1, 50, 3))] {
        let error = skip(&inside_the_fourth(), found.as_ref(), &start).expect_err("not that one");
        assert_eq!((&error.expected, &error.found), (&gtid(4), &found));
        assert!(error.to_string().contains(":4 (behind position: (bin.000001, 50)"), "{error}");
    }
    let table = keyed();
    let inside = inside_the_fourth();
    let mut former = Former::new(vec![inside.clone(); 2], inside, false);
    former.take(queued(Item::Begin { gtid: Some(gtid(5)), start: at(7, 950, 3) }, 0));
    former.take(inserts(&table, 0, 0..3, 10));
    former.take(commit(at(7, 990, 4)));
    assert!(matches!(former.form(size(100), Want::Next, SafeMode::Off), Err(FormError::OtherTransaction(_))));
}

#[test]
fn a_cut_writes_down_the_gtid_and_a_restart_asks_for_it() {
    let (table, start) = (keyed(), RowMark::at(at(1, 50, 3)));
    let mut former = Former::new(vec![start.clone(); 2], start, false);
    former.take(queued(Item::Begin { gtid: Some(gtid(4)), start: at(1, 50, 3) }, 0));
    former.take(inserts(&table, 0, 0..6, LARGE));
    let (part, _) = group(former.form(size(2), Want::Next, SafeMode::Off));
    assert_eq!(part.end, RowMark { open: Some(gtid(4)), ..mark(at(1, 50, 3), 4) });
    former.take(queued(Item::Restart, 0));
    assert!(is_nothing(former.form(size(2), Want::Next, SafeMode::Off)));
    // Another server sends it again, from a file of another name.
    former.take(queued(Item::Begin { gtid: Some(gtid(4)), start: at(9, 4, 3) }, 0));
    former.take(inserts(&table, 0, 0..6, 10));
    former.take(commit(at(9, 900, 4)));
    let (rest, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&rest), rest.end), (vec![4, 5], RowMark::at(at(9, 900, 4))));
}

/// A transaction as another server sends it: these keys.
fn sent_by_another(former: &mut Former, table: &Arc<BoundTable>, [start, end]: [u64; 2], ids: std::ops::Range<i32>) {
    former.take(begin(at(1, start, 0)));
    former.take(inserts(table, 0, ids, 10));
    former.take(commit(at(1, end, 0)));
}

/// Forms what can be formed, until something cannot.
fn refusal(former: &mut Former) -> FormError {
    loop {
        match former.form(size(100), Want::Next, SafeMode::Off) {
            Ok(Formed::Group { .. }) => {}
            Ok(_) => panic!("not refused"),
            Err(error) => return error,
        }
    }
}

#[test]
fn the_same_rows_in_other_events_go_on_at_the_row() {
    let (table, start) = (keyed(), at(1, 4, 0));
    let mut former = Former::new(vec![mark(start.clone(), 3), mark(start.clone(), 5)], mark(start.clone(), 3), false);
    former.take(begin(start));
    for id in 0..8 {
        former.take(inserts(&table, id as u64, id..id + 1, 10));
    }
    former.take(commit(at(1, 90, 0)));
    let Ok(Formed::Group { group, again, .. }) = former.form(size(100), Want::Next, SafeMode::Off) else {
        panic!("no group")
    };
    assert!(!again && all_keys(&group).contains(&7) && !all_keys(&group).contains(&2));
    assert_eq!(group.end, RowMark::at(at(1, 90, 0)));
}

#[test]
fn other_rows_void_the_mark_and_without_a_proof_all_comes_again_in_safe_mode() {
    let (table, start) = (keyed(), at(1, 4, 0));
    let inside = mark(start.clone(), 5);
    for ids in [1..9, 0..4] {
        // Other rows before the mark, and too few of them.
        let mut former = Former::new(vec![inside.clone(); 2], inside.clone(), false);
        sent_by_another(&mut former, &table, [4, 90], ids);
        assert!(matches!(refusal(&mut former), FormError::OtherRows { at } if *at == start));
    }
    let void = RowMark { proof: None, ..inside };
    let elsewhere = RowMark::at(at(1, 200, 0));
    let mut former = Former::new(vec![void.clone(), elsewhere, void.clone()], void, false);
    // It is alone in its groups, and none of its marks has a proof.
    former.take(commit(at(1, 4, 0)));
    sent_by_another(&mut former, &table, [4, 90], 1..9);
    sent_by_another(&mut former, &table, [90, 95], 20..21);
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    while let Ok(Formed::Group { group, again, .. }) = former.form(size(2), Want::Next, SafeMode::Off) {
        let last = all_keys(&group).contains(&20) || group.start == RowMark::at(at(1, 90, 0));
        assert_eq!(again, !last, "{group:?}");
        seen.extend(all_keys(&group));
        ends.push(group.end);
    }
    // The lane that is behind it already has done its part.
    let whole = fresh(3);
    let done = of_lane(&formed_at_once(whole, &table), 1);
    assert_eq!(seen, (1..9).chain(20..21).filter(|key| !done.contains(key)).collect::<Vec<_>>());
    assert!(ends.iter().all(|end| end.proof.is_none()), "{ends:?}");
    assert_eq!((ends[0].next, ends.last()), (RowOrdinal(4), Some(&RowMark::at(at(1, 95, 0)))));
}

#[test]
fn a_restart_before_the_first_row_keeps_what_is_not_known() {
    let (table, start) = (keyed(), at(1, 4, 0));
    let void = RowMark { proof: None, ..mark(start.clone(), 5) };
    let mut former = Former::new(vec![void, mark(start.clone(), 2)], mark(start.clone(), 2), false);
    former.take(begin(start.clone()));
    former.take(queued(Item::Restart, 0));
    assert!(is_nothing(former.form(size(100), Want::Next, SafeMode::Off)));
    sent_by_another(&mut former, &table, [4, 90], 0..9);
    let formed = former.form(size(100), Want::Next, SafeMode::Off);
    assert!(matches!(formed, Ok(Formed::Group { again: true, .. })));
}

#[test]
fn a_table_without_a_key_cannot_come_again() {
    let (table, inside) = (table("t", "t", &[]), mark(at(1, 4, 0), 5));
    let void = RowMark { proof: None, ..inside.clone() };
    // Where a mark does not hold, it is told before the mark loses its proof.
    for at in [void, inside] {
        let mut former = Former::new(vec![at.clone(); 2], at, false);
        sent_by_another(&mut former, &table, [4, 90], 1..9);
        let error = refusal(&mut former);
        assert!(error.to_string().contains("`t` has no key"), "{error}");
    }
}

#[test]
fn a_transaction_that_comes_otherwise_is_looked_through_to_its_end() {
    let (table, start) = (keyed(), at(1, 4, 0));
    let ahead = mark(start.clone(), 5);
    let mut former = Former::new(vec![ahead, RowMark::at(start.clone())], RowMark::at(start.clone()), false);
    former.take(begin(start.clone()));
    former.take(inserts(&table, 0, 0..3, 10));
    former.take(inserts(&table, 3, 30..33, LARGE));
    // What stands before the row that tells is formed, the rest only looked at.
    let (part, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    assert_eq!(part.end.next, RowOrdinal(4));
    assert!(is_nothing(former.form(size(100), Want::Next, SafeMode::Off)) && !former.is_full());
    former.take(inserts(&table, 6, 33..90, LARGE));
    assert!(is_nothing(former.form(size(1), Want::Next, SafeMode::Off)) && !former.is_full());
    former.take(commit(at(1, 90, 0)));
    assert!(matches!(former.form(size(1), Want::Next, SafeMode::Off), Err(FormError::OtherRows { .. })));
}

#[test]
fn a_drain_after_a_restart_goes_on_to_the_end_of_the_transaction() {
    let (table, inside) = (keyed(), mark(at(2, 126, 0), 4));
    let mut former = Former::new(vec![inside.clone(); 2], inside, false);
    // A location on the way, then the transaction, come again from its start; then another one.
    former.take(commit(at(2, 126, 0)));
    former.take(begin(at(2, 126, 0)));
    former.take(inserts(&table, 0, 0..6, 10));
    former.take(commit(at(2, 500, 0)));
    former.take(begin(at(2, 500, 0)));
    former.take(inserts(&table, 0, 6..8, 10));
    former.take(commit(at(2, 600, 0)));
    while former.at != RowMark::at(at(2, 500, 0)) {
        let before = former.at.clone();
        group(former.form(size(100), Want::OnlyOpen, SafeMode::Off));
        assert_ne!(former.at, before, "stands still");
    }
    assert!(is_nothing(former.form(size(100), Want::OnlyOpen, SafeMode::Off)));
}

#[test]
fn a_group_ends_where_all_lanes_stand_together() {
    let (table, start) = (keyed(), RowMark::at(at(1, 10, 0)));
    let marks = vec![start.clone(), RowMark::at(at(1, 30, 0)), RowMark::at(at(1, 20, 0))];
    let mut former = Former::new(marks, start, false);
    for number in 1..5u64 {
        former.take(begin(at(1, 10 * number, 0)));
        former.take(inserts(&table, 0, number as i32 * 10..number as i32 * 10 + 9, 10));
        former.take(commit(at(1, 10 * number + 10, 0)));
    }
    let (first, _) = group(former.form(size(1000), Want::Next, SafeMode::Off));
    assert_eq!((first.end, first.transactions), (RowMark::at(at(1, 30, 0)), 2));
    let (second, _) = group(former.form(size(1000), Want::Next, SafeMode::Off));
    assert_eq!((second.end, second.transactions), (RowMark::at(at(1, 50, 0)), 2));
}

#[test]
fn behind_a_cut_transaction_any_other_may_come() {
    let (table, inside) = (keyed(), inside_the_fourth());
    let mut former = Former::new(vec![RowMark::at(at(1, 50, 3)), inside], RowMark::at(at(1, 50, 3)), false);
    for number in 4..6u64 {
        former.take(queued(Item::Begin { gtid: Some(gtid(number)), start: at(1, 10 + 10 * number, number - 1) }, 0));
        former.take(inserts(&table, 0, number as i32 * 10..number as i32 * 10 + 9, 10));
        former.take(commit(at(1, 20 + 10 * number, number)));
        group(former.form(size(1000), Want::Next, SafeMode::Off));
    }
}

#[test]
fn a_location_told_again_does_not_undo_the_rows_behind_it() {
    // A mark inside the first transaction of a file: the events before it move the location to where it is.
    let (table, inside) = (keyed(), mark(at(2, 126, 0), 4));
    let mut former = Former::new(vec![inside.clone(); 2], inside.clone(), false);
    former.take(commit(at(2, 126, 0)));
    match former.form(size(1), Want::Next, SafeMode::Off).expect("form") {
        Formed::Nothing => {}
        Formed::Group { group, .. } => assert_eq!(group.end, inside),
        Formed::Ddl(_) => panic!("DDL came"),
    }
    former.take(begin(at(2, 126, 0)));
    former.take(inserts(&table, 0, 0..6, 10));
    former.take(commit(at(2, 500, 0)));
    let (rest, _) = group(former.form(size(100), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&rest), rest.start, rest.end), (vec![4, 5], inside, RowMark::at(at(2, 500, 0))));
}

#[test]
fn a_group_of_skipped_rows_does_not_go_back() {
    let (table, inside) = (keyed(), mark(at(1, 4, 0), 50));
    let mut former = Former::new(vec![inside.clone(); 2], inside.clone(), false);
    former.take(begin(at(1, 4, 0)));
    former.take(inserts(&table, 0, 0..60, LARGE));
    let (skipped, _) = group(former.form(size(5), Want::Next, SafeMode::Off));
    assert_eq!((all_keys(&skipped), skipped.start, &skipped.end), (vec![], inside.clone(), &inside));
}

/// One step of a source's history.
#[derive(Debug, Clone)]
enum Past {
    Rows { gtid: Option<Gtid>, start: Location, end: Location, events: Vec<Vec<Change>> },
    Ddl { gtid: Option<Gtid>, start: Location, end: Location, number: usize },
    Moved { end: Location },
}

/// A history drawn from numbers: each is one step, of that many rows events.
fn history(drafts: &[(u8, Vec<u8>)], gtids: bool) -> (Vec<Past>, i32, usize) {
    let table = keyed();
    let (mut file, mut offset, mut number) = (1, 4, 0);
    let (mut id, mut ddls) = (0, 0);
    let mut past = Vec::new();
    for (kind, sizes) in drafts {
        let start = at(file, offset, if gtids { number } else { 0 });
        offset += 10;
        match kind {
            0..=1 => {
                (file, offset) = (file + u32::from(*kind == 0), if *kind == 0 { 4 } else { offset });
                past.push(Past::Moved { end: at(file, offset, if gtids { number } else { 0 }) });
                continue;
            }
            _ => number += 1,
        }
        let (gtid, end) = (gtids.then(|| gtid(number)), at(file, offset, if gtids { number } else { 0 }));
        if *kind == 2 {
            past.push(Past::Ddl { gtid, start, end, number: ddls });
            ddls += 1;
            continue;
        }
        let mut ordinal = RowOrdinal::default();
        let events = sizes.iter().map(|&size| {
            let change = |_| {
                id += 1;
                let ordinal = ordinal.take();
                match size {
                    // It moves its row to another key, and must stand alone.
                    7 => {
                        let key = [Some(Some(id - 1)), None, None];
                        change(&table, Some(key), Some([Some(Some(-id)), None, None]), ordinal)
                    }
                    _ => change(&table, None, Some(row(id - 1)), ordinal),
                }
            };
            (0..size).map(change).collect()
        });
        let events = events.collect();
        past.push(Past::Rows { gtid, start, end, events });
    }
    (past, id, ddls)
}

/// The same history as another server logs it: the rows of each transaction in the reverse order.
fn reversed(past: &[Past]) -> Vec<Past> {
    let reverse = |step: &Past| match step {
        Past::Rows { gtid, start, end, events } => {
            let mut ordinal = RowOrdinal::default();
            let mut number = |change: &Change| Change { ordinal: ordinal.take(), ..change.clone() };
            let events = events.iter().rev().map(|rows| rows.iter().rev().map(&mut number).collect()).collect();
            Past::Rows { gtid: gtid.clone(), start: start.clone(), end: end.clone(), events }
        }
        other => other.clone(),
    };
    past.iter().map(reverse).collect()
}

/// Items as intake makes them for a start at `start`, as (step of the history, item in it).
fn stream(past: &[Past], start: &RowMark, from: usize) -> Vec<(usize, usize)> {
    let mut done = Some(start);
    let mut stream = Vec::new();
    for (number, step) in past.iter().enumerate().skip(from) {
        let items = match step {
            Past::Moved { end } => {
                if done.is_some_and(|done| !end.covers(&done.location)) {
                    continue;
                }
                1
            }
            Past::Rows { gtid, start, .. } | Past::Ddl { gtid, start, .. } => {
                if done.is_some_and(|done| skip(done, gtid.as_ref(), start) == Ok(LaneSkip::All)) {
                    continue;
                }
                done = None;
                match step {
                    Past::Rows { events, .. } => events.len() + 2,
                    _ => 3,
                }
            }
        };
        stream.extend((0..items).map(|item| (number, item)));
    }
    stream
}

fn item(past: &Past, number: usize) -> Item {
    let commit = |location: &Location| Item::Commit { location: location.clone(), timestamp: 0, lsn: 1 };
    match (past, number) {
        (Past::Moved { end }, _) => commit(end),
        (Past::Rows { gtid, start, .. } | Past::Ddl { gtid, start, .. }, 0) => {
            Item::Begin { gtid: gtid.clone(), start: start.clone() }
        }
        (Past::Rows { events, .. }, number) if number <= events.len() => {
            Item::Changes { changes: events[number - 1].clone(), lsn: 1 }
        }
        (Past::Ddl { number, .. }, 1) => {
            let (done, _) = oneshot::channel();
            Item::Ddl(DdlItem {
                steps: Vec::new(),
                first_step: *number as u32,
                place: "".into(),
                again: Vec::new(),
                emptied: Vec::new(),
                done,
            })
        }
        (Past::Rows { end, .. } | Past::Ddl { end, .. }, _) => commit(end),
    }
}

fn order(mark: &RowMark) -> (BinlogPosition, RowOrdinal) {
    (mark.location.position.clone(), mark.next)
}

/// What is stored downstream, and how often each change was applied.
struct Downstream {
    marks: Vec<RowMark>,
    rows: BTreeMap<i32, usize>,
    ddls: BTreeMap<u32, usize>,
}

impl Downstream {
    /// In safe mode (`again`) a row may meet its own effect.
    fn apply(&mut self, group: &Group, again: bool, mut shares: impl FnMut() -> bool) {
        for (share, keys) in group.shares.iter().zip(keys(group)) {
            if shares() {
                for key in keys {
                    let times = self.rows.entry(key).or_default();
                    *times = if again { 1 } else { *times + 1 };
                }
                for &lane in &share.lanes {
                    let mark = &mut self.marks[lane as usize];
                    assert!(again || order(mark) <= order(&group.end), "a lane goes back");
                    *mark = group.end.clone();
                }
            }
        }
    }

    fn void(&mut self) {
        self.marks.iter_mut().for_each(|mark| mark.proof = None);
    }

    /// Moves idle lanes along; never back.
    fn store(&mut self, applied: &RowMark) {
        for mark in &mut self.marks {
            if order(mark) < order(applied) {
                *mark = applied.clone();
            }
        }
    }
}

/// One run from the stored marks, which a crash ends where `crashes`; else it comes to the end of the history, or to a
/// transaction that must be applied once more (`false`). Each connection leads to any of the `servers`.
fn live(servers: &[Vec<Past>], down: &mut Downstream, random: &mut StdRng, crashes: bool) -> bool {
    let mut past = &servers[random.random_range(0..servers.len())];
    let start = down.marks.iter().min_by_key(|mark| order(mark)).expect("a lane").clone();
    let passed = |step: &Past| match step {
        Past::Rows { end, .. } | Past::Ddl { end, .. } | Past::Moved { end } => end.position <= start.location.position,
    };
    let first = past.iter().position(|step| !passed(step)).unwrap_or(past.len());
    let stream = stream(past, &start, random.random_range(0..=first));
    let mut former = Former::new(down.marks.clone(), start.clone(), false);
    let (mut next, mut applied, mut wait_for_ddl, mut ddl_ran) = (0, start, false, false);
    let (mut restarts, mut idle) = (0, 0);
    loop {
        for _ in 0..random.random_range(0..4) {
            let Some(&(step, number)) = stream.get(next).filter(|_| !former.is_full() && !wait_for_ddl) else { break };
            if number > 0 && matches!(past[step], Past::Rows { .. }) && restarts < 6 && random.random_bool(0.2) {
                former.take(queued(Item::Restart, 0));
                (next, restarts) = (next - number, restarts + 1);
                past = &servers[random.random_range(0..servers.len())];
                break;
            }
            let item = item(&past[step], number);
            wait_for_ddl = matches!(item, Item::Ddl(_));
            let bytes = if matches!(item, Item::Changes { .. }) { random.random_range(0..LARGE) } else { 0 };
            former.take(queued(item, bytes));
            (next, idle) = (next + 1, 0);
        }
        let inside = applied.next != RowOrdinal::default();
        let (want, rows) = match random.random_range(0..6) {
            0 => (Want::OnlyRows, 3),
            1 if inside => (Want::OnlyOpen, 3),
            _ => (Want::Next, random.random_range(1..8)),
        };
        let shares = random.random_range(1..=down.marks.len());
        let formed = match former.form(Size { rows, shares }, want, SafeMode::Off) {
            Err(FormError::OtherRows { .. }) if servers.len() > 1 => {
                down.void();
                return false;
            }
            formed => formed.expect("form"),
        };
        match formed {
            Formed::Group { group, again, .. } => {
                assert_eq!(group.start, applied, "a gap between groups");
                assert!(again || order(&group.end) >= order(&group.start), "{:?} to {:?}", group.start, group.end);
                assert!(!again || servers.len() > 1);
                assert!(group.rows <= 2 * rows);
                assert!(want != Want::OnlyOpen || group.transactions <= 1);
                if crashes && random.random_bool(0.1) {
                    down.apply(&group, again, || random.random());
                    return false;
                }
                down.apply(&group, again, || true);
                applied = group.end;
                if std::mem::take(&mut ddl_ran) || random.random_bool(0.1) {
                    down.store(&applied);
                }
            }
            Formed::Ddl(ddl) => {
                assert!(want == Want::Next && !ddl_ran);
                *down.ddls.entry(ddl.first_step).or_default() += 1;
                (wait_for_ddl, ddl_ran) = (false, true);
            }
            Formed::Nothing => {
                idle += 1;
                assert!(
                    idle < 200,
                    "stuck at {applied:?}, full: {}, item {next} of {}",
                    former.is_full(),
                    stream.len()
                );
                if want == Want::Next && next == stream.len() {
                    break;
                }
            }
        }
    }
    down.store(&applied);
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_lost_or_doubled(
        drafts in prop::collection::vec((0..10u8, prop::collection::vec(0..8u8, 0..4)), 0..12),
        (gtids, two_servers, lanes, crashes) in (any::<bool>(), any::<bool>(), 1..=4usize, 0..4usize),
        seed in any::<u64>(),
    ) {
        let (past, changes, ddls) = history(&drafts, gtids);
        let mut random = StdRng::seed_from_u64(seed);
        let marks = vec![RowMark::at(at(1, 4, 0)); lanes];
        let mut down = Downstream { marks, rows: BTreeMap::new(), ddls: BTreeMap::new() };
        let other = reversed(&past);
        let servers = if two_servers { vec![past.clone(), other] } else { vec![past.clone()] };
        for _ in 0..crashes {
            live(&servers, &mut down, &mut random, true);
        }
        let mut lives = 0;
        while !live(&servers, &mut down, &mut random, false) {
            lives += 1;
            prop_assert!(lives < 100, "it comes to no end");
        }
        for key in 0..changes {
            prop_assert_eq!(down.rows.get(&key), Some(&1), "key {}", key);
        }
        prop_assert_eq!(down.rows.len(), changes as usize);
        // A crash between a statement and the end of its transaction repeats it; that is for its intent to tell.
        prop_assert!((0..ddls as u32).all(|ddl| down.ddls.contains_key(&ddl)));
        let end = past.last().map_or(at(1, 4, 0), |last| match last {
            Past::Rows { end, .. } | Past::Ddl { end, .. } | Past::Moved { end } => end.clone(),
        });
        prop_assert!(down.marks.iter().all(|mark| *mark == RowMark::at(end.clone())));
    }
}
