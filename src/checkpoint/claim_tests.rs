//! Tests of what a claim begins with.

use super::*;
use crate::model::RowOrdinal;

#[test]
fn replay_begins_at_the_least_mark() {
    let at = |offset, row| RowMark {
        location: Location::new(BinlogPosition::parse("bin.000001", offset).unwrap(), GtidSet::empty(Flavor::MySql)),
        next: RowOrdinal(row),
        open: None,
        proof: None,
    };
    assert_eq!(least(&[at(9, 0), at(5, 7), at(5, 3), at(9, 1)]), at(5, 3));
    assert_eq!(least(&[at(5, 0)]), at(5, 0));
}

#[test]
fn a_task_does_not_start_where_dms_row_cannot_say_it() {
    let at =
        |offset| Location::new(BinlogPosition::parse("bin.000001", offset).unwrap(), GtidSet::empty(Flavor::MySql));
    assert_eq!(first_row(&at(0xffff_ffff)).unwrap().offset, 0xffff_ffff);
    let failure = first_row(&at(0x1_0000_0000)).unwrap_err();
    assert!(failure.message.contains("(bin.000001, 4294967296)"), "{failure}");
    assert!(failure.workaround.contains("FLUSH BINARY LOGS"), "{failure}");
}
