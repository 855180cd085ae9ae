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
}
