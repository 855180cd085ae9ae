//! Which of the stored checkpoints wins. Pure, so that the table in the crate documentation can be tested line by line.

use crate::meta::{DmRow, LaneRow, SafeNote, StoredMark};

/// How long replay must be idempotent, because someone else's exact end is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SafeWindow {
    /// The row says where its writer stopped: exact from there on.
    Until(StoredMark),
    /// Its writer died; DM's rule is a minute.
    Unknown,
}

/// What to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is stored that counts: from the task's start location.
    Fresh,
    /// DM's row was written by someone else: from there, with lanes reset.
    Theirs {
        /// The row's location.
        at: StoredMark,
        /// How long safe mode is needed; `None` where the row is exact.
        safe: Option<SafeWindow>,
    },
    /// DM's row is ours: each lane behind its own mark.
    Ours {
        /// Marks by lane number.
        marks: Vec<StoredMark>,
        /// A safe mode that had not ended yet.
        safe: Option<SafeWindow>,
    },
}

/// Decides. `shadow` is what we kept of the row that we wrote last: its fingerprint and the note with it.
pub fn decide(dm: Option<&DmRow>, shadow: Option<(&str, SafeNote)>, lanes: &[LaneRow]) -> Decision {
    let Some(dm) = dm else { return Decision::Fresh };
    let complete = !lanes.is_empty()
        && lanes.iter().enumerate().all(|(at, row)| row.lane == at as i32 && row.lanes as usize == lanes.len());
    if let Some((fingerprint, note)) = shadow
        && fingerprint == dm.fingerprint()
        && complete
    {
        let safe = match note {
            SafeNote::None => None,
            SafeNote::UntilExitSafe => Some(SafeWindow::Until(dm.exit_safe.clone())),
            SafeNote::Unknown => Some(SafeWindow::Unknown),
        };
        return Decision::Ours { marks: lanes.iter().map(|row| row.mark.clone()).collect(), safe };
    }
    let safe = if dm.exit_safe.file.is_empty() {
        Some(SafeWindow::Unknown)
    } else if same_place(&dm.exit_safe, &dm.location) {
        None
    } else {
        Some(SafeWindow::Until(dm.exit_safe.clone()))
    };
    Decision::Theirs { at: dm.location.clone(), safe }
}

fn same_place(a: &StoredMark, b: &StoredMark) -> bool {
    a.file == b.file && a.offset == b.offset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Flavor;

    fn mark(offset: u64) -> StoredMark {
        StoredMark { file: "bin.000001".into(), offset, ..StoredMark::none() }
    }

    fn none() -> StoredMark {
        StoredMark::none()
    }

    fn lanes(offsets: &[u64]) -> Vec<LaneRow> {
        let count = offsets.len() as u32;
        let row =
            |(at, &offset): (usize, &u64)| LaneRow { lane: at as i32, lanes: count, epoch: 3, mark: mark(offset) };
        offsets.iter().enumerate().map(row).collect()
    }

    #[test]
    fn a_missing_row_voids_everything() {
        assert_eq!(decide(None, Some(("x", SafeNote::None)), &lanes(&[5, 6])), Decision::Fresh);
    }

    #[test]
    fn our_own_row_lets_the_lanes_hold() {
        let row = DmRow { location: mark(5), exit_safe: none() };
        let kept = row.fingerprint();
        let decision = |note| decide(Some(&row), Some((kept.as_str(), note)), &lanes(&[7, 9]));
        assert_eq!(decision(SafeNote::None), Decision::Ours { marks: vec![mark(7), mark(9)], safe: None });
        let unknown = Decision::Ours { marks: vec![mark(7), mark(9)], safe: Some(SafeWindow::Unknown) };
        assert_eq!(decision(SafeNote::Unknown), unknown);
    }

    #[test]
    fn another_row_wins_over_the_lanes() {
        let ours = DmRow { location: mark(5), exit_safe: none() };
        let crashed = DmRow { location: mark(20), exit_safe: none() };
        let parked = DmRow { location: mark(20), exit_safe: mark(20) };
        let failed = DmRow { location: mark(20), exit_safe: mark(30) };
        let safe_of =
            |row: &DmRow| match decide(Some(row), Some((&ours.fingerprint(), SafeNote::None)), &lanes(&[7, 9])) {
                Decision::Theirs { at, safe } => {
                    assert_eq!(at, mark(20));
                    safe
                }
                other => panic!("{other:?}"),
            };
        assert_eq!(safe_of(&crashed), Some(SafeWindow::Unknown));
        assert_eq!(safe_of(&parked), None);
        assert_eq!(safe_of(&failed), Some(SafeWindow::Until(mark(30))));
    }

    #[test]
    fn lane_rows_with_a_hole_do_not_count() {
        let row = DmRow { location: mark(5), exit_safe: mark(5) };
        let mut holed = lanes(&[7, 9]);
        holed.remove(0);
        let decision = decide(Some(&row), Some((&row.fingerprint(), SafeNote::None)), &holed);
        assert_eq!(decision, Decision::Theirs { at: mark(5), safe: None });
    }

    /// The global rows of a recorded table (`tests/golden/meta`), as `SELECT … \G` printed them.
    fn recorded(text: &str) -> DmRow {
        let field = |row: &str, name: &str| {
            let value = |line: &str| Some(line.trim_start().strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            row.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {row}"))
        };
        let begin = text.find("_syncer_checkpoint\n").expect("the table is recorded");
        let global = |row: &&str| field(row, "is_global") == "1";
        let row = text[begin..].split(". row ***").skip(1).find(global).expect("a global row");
        let place = |prefix: &str| {
            let offset = field(row, &format!("{prefix}binlog_pos")).parse().unwrap();
            StoredMark::boundary(
                field(row, &format!("{prefix}binlog_name")),
                offset,
                field(row, &format!("{prefix}binlog_gtid")),
            )
        };
        DmRow { location: place(""), exit_safe: place("exit_safe_") }
    }

    /// What a real dm-worker left: paused, stopped, running, failed, resumed a second ago, with its relay log, of a MariaDB.
    #[test]
    fn rows_of_a_real_worker_are_gone_on_from() {
        macro_rules! row {
            ($name:literal) => {
                recorded(include_str!(concat!("../../tests/golden/meta/", $name, ".txt")))
            };
        }
        let of = |row: DmRow| match decide(Some(&row), None, &[]) {
            Decision::Theirs { at, safe } => {
                assert_eq!(at, row.location);
                let flavor = if at.gtids.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
                let until = match safe {
                    Some(SafeWindow::Until(mark)) => Some(mark.to_mark(flavor).unwrap()),
                    Some(SafeWindow::Unknown) => return (at.to_mark(flavor).unwrap(), "unknown", false),
                    None => None,
                };
                let at = at.to_mark(flavor).unwrap();
                let over = until.as_ref().is_some_and(|until| at.has_passed(until));
                (at, if until.is_some() { "until" } else { "exact" }, over)
            }
            other => panic!("{other:?}"),
        };
        let place = |name: &str, row: DmRow, kind: &str, over: bool| {
            let (at, what, is_over) = of(row);
            assert_eq!((what, is_over), (kind, over), "{name}");
            at.location.position.to_string()
        };
        assert_eq!(place("paused", row!("122-t1-paused"), "exact", false), "(mysql-bin.000007, 10354)");
        assert_eq!(place("stopped", row!("125-t1-stopped"), "exact", false), "(mysql-bin.000007, 10630)");
        assert_eq!(place("paused, GTID", row!("63-t3-paused"), "exact", false), "(mysql-bin.000001, 4793)");
        assert_eq!(place("running", row!("65-t3-resumed-8s"), "unknown", false), "(mysql-bin.000001, 3879)");
        assert_eq!(place("taken over", row!("100-t1-taken-over"), "unknown", false), "(mysql-bin.000007, 10923)");
        let failed = row!("20-te-after-duplicate-error");
        assert_eq!(place("failed", failed, "until", false), "(mysql-bin.000001, 8162)");
        let resumed = row!("64-t3-resumed-1s");
        assert_eq!(place("set back by a start time", resumed, "until", false), "(mysql-bin.000001, 3879)");
        // Places in its relay log carry a number of its directory, which means nothing here.
        let relayed = row!("30-t1-relay");
        assert!(relayed.location.file.contains('|'));
        assert_eq!(place("with a relay log", relayed, "until", false), "(mysql-bin.000005, 474)");
        let maria = row!("132-mariadb");
        assert_eq!(place("an exit behind its start", maria, "until", true), "(mbin.000001, 1939)");
    }
}
