//! Which segments may go. Pure decisions; the storage thread carries them out.
//!
//! Invariant: the log always begins behind a transaction, and never behind what someone still needs.

use std::collections::BTreeMap;

use super::segment::Segment;
use super::{Boundary, Lsn};
use crate::model::{BinlogFile, BinlogPosition, Location};

/// What a purge by hand did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PurgeReport {
    /// Segments removed.
    pub segments: u64,
    /// Bytes given back to the file system.
    pub bytes: u64,
    /// The task that keeps what else was asked to go.
    pub held: Option<Held>,
}

/// A task that keeps a part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub task: String,
    /// Where it is.
    pub at: Location,
}

/// How many of the oldest segments may go if everything before a boundary that `passed` accepts may. `end` is where the
/// log ends on disk when its last segment is sealed.
pub(super) fn removable(segments: &[&Segment], passed: impl Fn(&Boundary) -> bool) -> usize {
    let sealed = segments.iter().take_while(|segment| segment.sealed).count();
    let all = || {
        let last = segments.last().filter(|last| last.sealed && last.end.lsn == last.end_lsn)?;
        passed(&last.end).then_some(segments.len())
    };
    let before = |count: &usize| segments.get(*count).is_some_and(|next| next.begins_clean() && passed(&next.begin));
    all().or_else(|| (1..=sealed).rev().find(before)).unwrap_or(0)
}

/// How many must go to make room, at least one: the fewest that leave a log that begins behind a transaction.
pub(super) fn oldest_group(segments: &[&Segment], allowed: usize) -> usize {
    (1..allowed).find(|count| segments.get(*count).is_some_and(|next| next.begins_clean())).unwrap_or(allowed)
}

/// Where the segments end that hold nothing newer than `oldest`, in seconds by the source's clock.
pub(super) fn end_of_older(segments: &[&Segment], oldest: u32) -> Lsn {
    let old = segments.iter().take_while(|segment| segment.sealed && segment.newest < oldest);
    old.last().map_or(Lsn(0), |segment| segment.end_lsn)
}

/// Whether every task and every reader has passed `boundary`.
pub(super) fn passed_by_all(
    boundary: &Boundary,
    tasks: &BTreeMap<String, Location>,
    readers: &BTreeMap<u64, Lsn>,
) -> bool {
    tasks.values().all(|at| at.covers(&boundary.location)) && readers.values().all(|at| *at >= boundary.lsn)
}

/// Whether everything before `boundary` stands in binlog files before `file`.
pub(super) fn before_file(boundary: &Boundary, file: &BinlogFile) -> bool {
    boundary.location.position <= BinlogPosition::new(file.clone(), BinlogPosition::FIRST_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Flavor, GtidSet};

    fn boundary(lsn: u64) -> Boundary {
        let position = BinlogPosition::parse(&format!("b.{:06}", lsn / 100), lsn % 100 + 4).unwrap();
        let location = Location::new(position, GtidSet::empty(Flavor::MySql));
        Boundary { location, lsn: Lsn(lsn), checksum: true }
    }

    fn segment(start: u64, begin: u64, end: u64, end_boundary: u64, sealed: bool) -> Segment {
        Segment {
            seq: start,
            start: Lsn(start),
            begin: boundary(begin),
            end_lsn: Lsn(end),
            end: boundary(end_boundary),
            newest: 0,
            identity: "".into(),
            disk_bytes: 1,
            sealed,
        }
    }

    #[test]
    fn nothing_goes_that_someone_needs_or_that_would_cut_a_transaction() {
        // The third segment begins inside a transaction that began in the second.
        let all = [
            segment(0, 0, 100, 100, true),
            segment(100, 100, 200, 150, true),
            segment(200, 150, 300, 300, true),
            segment(300, 300, 350, 350, false),
        ];
        let all: Vec<_> = all.iter().collect();
        let at = |lsn| move |boundary: &Boundary| boundary.lsn <= Lsn(lsn);
        assert_eq!(removable(&all, at(99)), 0);
        assert_eq!(removable(&all, at(100)), 1);
        assert_eq!(removable(&all, at(299)), 1);
        assert_eq!(removable(&all, at(350)), 3, "the active segment stays");
        assert_eq!(removable(&all[..3], at(300)), 3, "all are sealed and passed");
        assert_eq!(removable(&all[..2], at(300)), 1, "it ends inside a transaction");
        assert_eq!(removable(&[], at(9)), 0);
        assert_eq!((oldest_group(&all, 3), oldest_group(&all[1..], 2)), (1, 2));
    }

    #[test]
    fn age_counts_by_whole_segments_from_the_oldest_on() {
        let aged = |start, end, newest, sealed| Segment { newest, ..segment(start, start, end, end, sealed) };
        let all = [aged(0, 100, 10, true), aged(100, 200, 20, true), aged(200, 300, 30, true)];
        let all: Vec<_> = all.iter().collect();
        let removed = |oldest| {
            let limit = end_of_older(&all, oldest);
            removable(&all, |boundary| boundary.lsn <= limit)
        };
        assert_eq!((removed(5), removed(11), removed(21)), (0, 1, 2));
        assert_eq!(removed(31), 3, "all of it is old");
        assert_eq!(removed(30), 2, "a sealed last segment that is not old stays");
        let open = aged(0, 100, 10, false);
        assert_eq!(end_of_older(&[&open], 99), Lsn(0));
    }

    #[test]
    fn every_task_and_reader_counts() {
        let tasks: BTreeMap<_, _> = [("t".to_owned(), boundary(150).location)].into();
        let readers: BTreeMap<_, _> = [(1, Lsn(120))].into();
        assert!(passed_by_all(&boundary(120), &tasks, &readers));
        assert!(!passed_by_all(&boundary(121), &tasks, &readers));
        assert!(!passed_by_all(&boundary(151), &tasks, &BTreeMap::new()));
    }

    #[test]
    fn a_file_begins_at_its_first_event() {
        let file = BinlogFile::parse("b.000002").unwrap();
        assert!(before_file(&boundary(200), &file) && before_file(&boundary(199), &file));
        assert!(!before_file(&boundary(201), &file));
    }
}
