//! Tables of which filters leave changes out: nothing is summed up, nothing is made that was not sent.

use std::sync::Arc;

use super::testing::{Cells, cells, change, table};
use super::{GroupBuilder, SafeMode, Share, Step};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location, RowMark, RowOrdinal};
use crate::row::ChangeKind;

fn row(id: i32, v: i32) -> Option<Cells> {
    Some([Some(Some(id)), Some(None), Some(Some(v))])
}

/// An update of a row that may be missing, one to another key, a row that comes and goes, one that comes again.
const CHANGES: [[(i32, i32); 2]; 5] =
    [[(1, 1), (1, 2)], [(1, 2), (9, 2)], [(0, 0), (3, 0)], [(3, 0), (0, 0)], [(0, 0), (3, 1)]];

fn shares(safe: SafeMode) -> Vec<Share> {
    let mut bound = Arc::into_inner(table("t", "t", &[("PRIMARY", &[0])])).expect("just made");
    bound.make_selective();
    let bound = Arc::new(bound);
    let mut group = GroupBuilder::new(8, 4, false, safe);
    for (number, sides) in (0..).zip(CHANGES) {
        let [before, after] = sides.map(|(id, v)| if id == 0 { None } else { row(id, v) });
        group.push(&change(&bound, before, after, RowOrdinal(number)), &[]).unwrap();
    }
    let start = BinlogPosition::parse("bin.000001", 4).unwrap();
    let mark = || RowMark::at(Location::new(start.clone(), GtidSet::empty(Flavor::MySql)));
    group.finish(mark(), mark(), 1, 0).shares
}

#[test]
fn changes_stay_as_they_are_in_source_order_on_one_lane() {
    let shares = shares(SafeMode::Off);
    assert!(shares.len() == 1 && shares[0].lanes.len() == 1 && shares[0].tables.len() == 1);
    let [Step::InOrder(changes)] = &shares[0].tables[0].steps[..] else { panic!("{:?}", shares[0].tables[0].steps) };
    let ordinals: Vec<u64> = changes.iter().map(|change| change.ordinal().0).collect();
    assert_eq!(ordinals, [0, 1, 2, 3, 4]);
    let kinds: Vec<ChangeKind> = changes.iter().map(|change| change.kind()).collect();
    assert_eq!(kinds[..3], [ChangeKind::Update, ChangeKind::Update, ChangeKind::Insert]);
    assert_eq!(cells(changes[1].table(), changes[1].after().unwrap()), row(9, 2).unwrap());
}

/// There an update is a delete and a replace, as in DM, so that it may meet its own effect.
#[test]
fn in_safe_mode_they_are_sent_by_key_and_still_on_one_lane() {
    let shares = shares(SafeMode::All);
    assert!(shares.len() == 1 && shares[0].lanes.len() == 1);
    let steps = &shares[0].tables[0].steps;
    assert!(steps.iter().all(|step| matches!(step, Step::Keyed(_))) && steps.len() > 1, "{steps:?}");
}
