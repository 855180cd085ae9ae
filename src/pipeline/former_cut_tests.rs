//! Transactions that were cut, in a replay: the same rows in other events, other rows, another transaction, other files.

use super::*;

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
