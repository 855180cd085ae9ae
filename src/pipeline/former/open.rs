//! The transaction that is being formed, and what lanes have done of it.
//!
//! That is told by marks, and a mark holds where the transaction begins with the very rows that the mark was made behind
//! (its proof). Where it does not, or has no proof, something of the transaction is done and nobody knows what: its lanes
//! apply it once more from its start, in safe mode, and until its end no mark made of it has a proof. So a crash on the way
//! comes back to the same. Before marks lose their proof the transaction is looked through to its end: where it has rows that
//! cannot be applied twice, the marks stay as they are, and hold again when the source is the former server.

use super::super::trail::Trail;
use super::FormError;
use crate::dispatch::{Change, LaneSkip};
use crate::model::{Gtid, Location, RowMark, RowOrdinal, TargetTable};

/// A lane stands inside a transaction, and the source goes on with another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the checkpoint lies inside transaction {expected} (behind {at}), but the source goes on with {}",
    found.as_ref().map_or("one without a GTID".to_owned(), |gtid| format!("transaction {gtid}"))
)]
pub struct OtherTransaction {
    /// The transaction that is partly applied.
    pub expected: Gtid,
    /// What is done before it.
    pub at: Box<Location>,
    /// What came.
    pub found: Option<Gtid>,
}

/// A transaction that is being formed.
pub(super) struct Open {
    pub(super) start: Location,
    pub(super) gtid: Option<Gtid>,
    /// What each lane has done of it already; empty where none has.
    pub(super) skips: Vec<LaneSkip>,
    /// All lanes have done what is below: the least mark inside it, with its proof.
    pub(super) floor: (RowOrdinal, Option<u64>),
    /// Rows of it that came.
    trail: Trail,
    /// Marks inside it that must still be shown to hold, the furthest first: the row, and the proof.
    unproven: Vec<(RowOrdinal, u64)>,
    /// Something of it is done and nobody knows what: it is applied again, in safe mode.
    pub(super) again: bool,
    /// A mark does not hold: nothing more of it is formed.
    pub(super) other: bool,
    /// A table without a key that it changes.
    pub(super) keyless: Option<TargetTable>,
    /// Some of it was formed, so that the former's place lies inside it.
    pub(super) entered: bool,
    /// The place behind the last row that came.
    pub(super) passed: RowOrdinal,
}

impl Open {
    /// With what lanes at these marks have done of it; `marks` is empty where none has done anything.
    pub(super) fn new(start: Location, gtid: Option<Gtid>, mut skips: Vec<LaneSkip>, marks: &[RowMark]) -> Self {
        let (mut unproven, mut again) = (Vec::new(), false);
        for (skip, mark) in skips.iter_mut().zip(marks) {
            match (&skip, mark.proof) {
                (LaneSkip::Below(next), Some(proof)) => unproven.push((*next, proof)),
                (LaneSkip::Below(_), None) => (*skip, again) = (LaneSkip::Nothing, true),
                (LaneSkip::Nothing | LaneSkip::All, _) => {}
            }
        }
        unproven.sort_unstable_by(|a, b| b.cmp(a));
        let one_has_nothing = skips.contains(&LaneSkip::Nothing);
        let floor = unproven.last().filter(|_| !one_has_nothing).map(|(row, proof)| (*row, Some(*proof)));
        let floor = floor.unwrap_or_default();
        Open {
            start,
            gtid,
            skips,
            floor,
            trail: Trail::default(),
            unproven,
            again,
            other: false,
            keyless: None,
            entered: false,
            passed: RowOrdinal::default(),
        }
    }

    /// One row more came, which may show that a mark does not hold.
    pub(super) fn take(&mut self, change: &Change) {
        if self.keyless.is_none() && change.table().is_ordered() {
            self.keyless = Some(change.table().target.clone());
        }
        self.trail.add(change);
        let next = change.ordinal().next();
        self.passed = next;
        while let Some((row, proof)) = self.unproven.pop_if(|(row, _)| *row <= next) {
            self.other |= row != next || proof != self.trail.proof();
        }
    }

    /// The proof of a mark behind the last row, or of the least mark of the lanes where that is ahead.
    pub(super) fn proof(&mut self) -> Option<u64> {
        match self.floor {
            _ if self.again => None,
            (row, proof) if row > self.passed => proof,
            _ => Some(self.trail.proof()),
        }
    }

    /// Whether there are marks inside it that must still be shown to hold.
    pub(super) fn is_unproven(&self) -> bool {
        !self.unproven.is_empty()
    }

    /// What it means where a mark did not hold, or cannot hold behind its last row.
    pub(super) fn verdict(&self) -> Result<(), FormError> {
        let at = || Box::new(self.start.clone());
        match &self.keyless {
            _ if !self.other && self.unproven.is_empty() => Ok(()),
            Some(table) => Err(FormError::Keyless { at: at(), table: table.clone() }),
            None => Err(FormError::OtherRows { at: at() }),
        }
    }
}

/// What a lane at `mark` has done of the transaction behind `start`.
pub fn skip(mark: &RowMark, gtid: Option<&Gtid>, start: &Location) -> Result<LaneSkip, OtherTransaction> {
    if mark.location.has(gtid, &start.position) {
        return Ok(LaneSkip::All);
    }
    if !mark.is_inside() {
        return Ok(LaneSkip::Nothing);
    }
    if let Some(open) = &mark.open {
        // All before it is done, so the first one that is not must be it, wherever it stands in another server's files.
        return match gtid == Some(open) {
            true => Ok(LaneSkip::Below(mark.next)),
            false => {
                let (at, found) = (Box::new(mark.location.clone()), gtid.cloned());
                Err(OtherTransaction { expected: open.clone(), at, found })
            }
        };
    }
    // Anonymous transactions leave the set as it is: there only the place tells them apart.
    let same_set = gtid.is_some() && !start.gtids.is_empty() && mark.location.gtids == start.gtids;
    let inside = same_set || mark.location.position == start.position;
    Ok(if inside { LaneSkip::Below(mark.next) } else { LaneSkip::Nothing })
}
