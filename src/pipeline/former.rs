//! Forms groups out of what is waiting: whole source transactions, as many as fit; a large one is cut.
//!
//! Synchronous and without I/O, so that tests drive it directly. Invariant: groups come out in source order, each starts
//! where the one before ended, and every change that went in is in exactly one group, unless its lane had it already.
//! A transaction that was cut is known again by its GTID; where another one comes in its place, nothing is guessed.
//!
//! What lanes have done of a cut transaction is told by marks, and a mark holds where the transaction begins with the very
//! rows that the mark was made behind (its proof). Where it does not, or has no proof, something of the transaction is
//! done and nobody knows what: its lanes apply it once more from its start, in safe mode, and until its end no mark made
//! of it has a proof. So a crash on the way comes back to the same. Before marks lose their proof the transaction is looked
//! through to its end: where it has rows that cannot be applied twice, the marks stay as they are, and hold again when the
//! source is the former server.

use std::collections::VecDeque;

use tokio::sync::OwnedSemaphorePermit;

use super::item::{DdlEnd, DdlItem, Item, Queued};
use super::pace::Size;
use super::progress::Sizes;
use super::trail::Trail;
use crate::dispatch::{Change, DispatchError, Group, GroupBuilder, LaneSkip, SafeMode};
use crate::model::{Gtid, Location, RowMark, RowOrdinal, TargetTable};

/// Bytes of row images a group at most, about.
const GROUP_BYTES: usize = 3 << 20;
/// A queue this full means that the transaction at its front will not fit: it is cut.
const FULL_BYTES: usize = 6 << 20;

/// What may be formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Whatever is next.
    Next,
    /// No DDL: lanes are at work.
    OnlyRows,
    /// Nothing beyond the transaction that is partly formed.
    OnlyOpen,
}

/// Why no group can be formed.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// A change cannot be dealt out.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// See there.
    #[error(transparent)]
    OtherTransaction(#[from] OtherTransaction),
    /// A mark inside this transaction does not hold: its rows came otherwise. The marks must be stored without their
    /// proof, and the transaction be begun anew.
    #[error("the rows of the transaction behind {at} are not those that were applied of it")]
    OtherRows {
        /// End of the one before it.
        at: Box<Location>,
    },
    /// A transaction must be applied once more, and some of its rows cannot be.
    #[error(
        "the transaction behind {at} was applied in part as another server logged it, and must be applied once more from \
         its start; but target table {table} has no key, and its rows would come twice"
    )]
    Keyless {
        /// End of the one before it.
        at: Box<Location>,
        /// The table.
        table: TargetTable,
    },
}

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

/// What is to be done next. There is one of these at a time, so its size is no matter.
#[allow(clippy::large_enum_variant)]
pub enum Formed {
    /// A group with changes, or one that only moves the location.
    Group {
        /// The group.
        group: Group,
        /// Relay log up to its end, or to some place before that inside a large event.
        lsn: Option<u64>,
        /// Room to be given back when it is done.
        room: Vec<OwnedSemaphorePermit>,
        /// It is of a transaction that is applied once more, in safe mode.
        again: bool,
    },
    /// DDL, alone, with everything before it formed.
    Ddl(DdlItem),
    /// Nothing that may go yet.
    Nothing,
}

/// The queue and the place in it.
pub struct Former {
    lanes: usize,
    one_sequence: bool,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Complete transactions in the queue.
    commits: usize,
    /// The item at the front that is being formed.
    front: Option<Front>,
    /// The transaction that is being formed.
    open: Option<Open>,
    /// Where lanes stood at the start, until all of them are passed.
    marks: Option<Vec<RowMark>>,
    /// The one furthest ahead, until it is passed: a group ends there, since behind it all lanes stand together.
    furthest: Option<RowMark>,
    /// End of what was formed.
    at: RowMark,
    /// DDL was formed of the open transaction: its end must be stored before anything behind it.
    after_ddl: bool,
    /// Row changes in the queue.
    rows: u64,
    /// DDL statements in the queue, at most one: intake waits for it, so the end of its transaction is still to come.
    ddls: usize,
    event_rows: Sizes,
}

/// Changes of which some are formed.
struct Front {
    /// The next one to be formed.
    next: Change,
    /// Relay log up to the end of all of them.
    lsn: u64,
}

/// A transaction that is being formed.
struct Open {
    start: Location,
    gtid: Option<Gtid>,
    /// What each lane has done of it already; empty where none has.
    skips: Vec<LaneSkip>,
    /// All lanes have done what is below: the least mark inside it, with its proof.
    floor: (RowOrdinal, Option<u64>),
    /// Rows of it that came.
    trail: Trail,
    /// Marks inside it that must still be shown to hold, the furthest first: the row, and the proof.
    unproven: Vec<(RowOrdinal, u64)>,
    /// Something of it is done and nobody knows what: it is applied again, in safe mode.
    again: bool,
    /// A mark does not hold: nothing more of it is formed.
    other: bool,
    /// A table without a key that it changes.
    keyless: Option<TargetTable>,
    /// Some of it was formed, so that the former's place lies inside it.
    entered: bool,
}

impl Open {
    /// With what lanes at these marks have done of it; `marks` is empty where none has done anything.
    fn new(start: Location, gtid: Option<Gtid>, mut skips: Vec<LaneSkip>, marks: &[RowMark]) -> Self {
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
        }
    }

    /// One row more came, which may show that a mark does not hold.
    fn take(&mut self, change: &Change) {
        if self.keyless.is_none() && change.table().is_ordered() {
            self.keyless = Some(change.table().target.clone());
        }
        self.trail.add(change);
        let next = change.ordinal().next();
        while let Some((row, proof)) = self.unproven.pop_if(|(row, _)| *row <= next) {
            self.other |= row != next || proof != self.trail.proof();
        }
    }

    /// What it means where a mark did not hold, or cannot hold behind its last row.
    fn verdict(&self) -> Result<(), FormError> {
        let at = || Box::new(self.start.clone());
        match &self.keyless {
            _ if !self.other && self.unproven.is_empty() => Ok(()),
            Some(table) => Err(FormError::Keyless { at: at(), table: table.clone() }),
            None => Err(FormError::OtherRows { at: at() }),
        }
    }
}

impl Former {
    /// Starts at the least of `marks`, one for each lane.
    pub fn new(marks: Vec<RowMark>, start: RowMark, one_sequence: bool) -> Self {
        Former {
            lanes: marks.len(),
            furthest: furthest(&marks, &start),
            one_sequence,
            queue: VecDeque::new(),
            bytes: 0,
            commits: 0,
            front: None,
            open: None,
            marks: Some(marks),
            at: start,
            after_ddl: false,
            rows: 0,
            ddls: 0,
            event_rows: Sizes::default(),
        }
    }

    /// Whether it wants no more until some of it is formed.
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.queue.len() >= 8192
    }

    /// Whether complete transactions with about that many changes wait, or nothing more fits.
    pub fn has_a_group(&self, rows: u64) -> bool {
        self.is_full() || (self.commits > 0 && self.rows >= rows)
    }

    /// Row changes that wait, and bytes.
    pub fn waiting(&self) -> (u64, usize) {
        (self.rows + self.front.as_ref().map_or(0, |front| front.next.left()) as u64, self.bytes)
    }

    /// Rows of the row events that were taken in.
    pub fn event_rows(&self) -> Sizes {
        self.event_rows
    }

    /// Takes an item in.
    pub fn take(&mut self, queued: Queued) {
        if matches!(queued.item, Ok(Item::Restart)) {
            self.forget_incomplete();
            return;
        }
        self.bytes += queued.bytes;
        self.rows += rows_of(&queued);
        if matches!(queued.item, Ok(Item::Changes { .. })) {
            self.event_rows.add(rows_of(&queued));
        }
        self.commits += usize::from(matches!(queued.item, Ok(Item::Commit { .. })));
        self.ddls += usize::from(matches!(queued.item, Ok(Item::Ddl(_))));
        self.queue.push_back(queued);
    }

    /// What came of an incomplete transaction comes again. What was formed of it stays done: its replay is skipped
    /// by ordinal.
    fn forget_incomplete(&mut self) {
        while self.queue.back().is_some_and(|queued| !matches!(queued.item, Ok(Item::Commit { .. }))) {
            if let Some(queued) = self.queue.pop_back() {
                self.bytes -= queued.bytes;
                self.rows -= rows_of(&queued);
                self.ddls -= usize::from(matches!(queued.item, Ok(Item::Ddl(_))));
            }
        }
        if self.queue.is_empty()
            && let Some(open) = self.open.take()
        {
            self.front = None;
            let mut marks = self.marks.take().unwrap_or_else(|| vec![self.at.clone(); self.lanes]);
            for (lane, mark) in marks.iter_mut().enumerate().filter(|_| open.entered) {
                // A lane that was ahead of what is formed still is.
                let ahead = open.skips.get(lane).is_some_and(|skip| skip.covers(self.at.next));
                if !ahead {
                    *mark = self.at.clone();
                }
            }
            self.marks = Some(marks);
        }
    }

    /// Whether the open transaction is applied once more.
    fn is_again(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.again)
    }

    /// Forms the next group of about that size, whole transactions while they fit.
    pub fn form(&mut self, size: Size, want: Want, safe: SafeMode) -> Result<Formed, FormError> {
        let rows = size.rows;
        let (lanes, one_sequence) = (self.lanes, self.one_sequence);
        let begin = |again: bool| {
            let safe = if again { SafeMode::All } else { safe };
            GroupBuilder::new(lanes, size.shares, one_sequence, safe)
        };
        // A group is applied in safe mode as a whole, so nothing else is in one with a transaction that comes again.
        let mut again = self.is_again();
        let mut builder = begin(again);
        let start = self.at.clone();
        let (mut transactions, mut timestamp, mut lsn, mut room) = (0, 0, None, Vec::new());
        let mut moved = false;
        // A transaction that does not fit is cut, and once it is, whatever there is of it may go.
        let looked_through = self.open.as_ref().is_some_and(|open| open.other);
        let may_cut = self.is_full() || self.at.is_inside() || looked_through;
        loop {
            if let Some(front) = self.front.take() {
                let Front { next: change, lsn: end } = front;
                let alone = change.must_stand_alone();
                if alone && builder.rows() > 0 {
                    self.front = Some(Front { next: change, lsn: end });
                    break;
                }
                let formed = self.pass_row(&change)?;
                if formed {
                    let skips = self.open.as_ref().map_or(&[][..], |open| open.skips.as_slice());
                    builder.push(&change, skips)?;
                }
                let following = change.following();
                let passed = following.is_none().then_some(end);
                self.front = following.map(|next| Front { next, lsn: end });
                if !formed {
                    if moved {
                        break;
                    }
                    continue;
                }
                moved = true;
                lsn = passed.or(lsn);
                if alone || builder.rows() >= 2 * rows || builder.bytes() >= GROUP_BYTES {
                    break;
                }
                continue;
            }
            if self.commits == 0 && self.ddls == 0 && !may_cut {
                break;
            }
            match self.pop(builder.rows() > 0, moved, want)? {
                Some(Popped::Mark) if self.is_again() != again => {
                    if moved {
                        break;
                    }
                    again = self.is_again();
                    builder = begin(again);
                }
                Some(Popped::Mark) => {}
                Some(Popped::Changes(held)) => room.extend(held),
                Some(Popped::Ddl(ddl)) => return Ok(Formed::Ddl(ddl)),
                Some(Popped::Commit { timestamp: at, lsn: end, whole }) => {
                    (moved, timestamp, lsn) = (true, timestamp.max(at), Some(end));
                    transactions += u64::from(whole);
                    let together = self.furthest.take_if(|furthest| self.at.has_reached(furthest)).is_some();
                    if want == Want::OnlyOpen
                        || std::mem::take(&mut self.after_ddl)
                        || together
                        || again
                        || builder.rows() >= rows
                        || builder.bytes() >= GROUP_BYTES
                    {
                        break;
                    }
                }
                None => break,
            }
        }
        if !moved {
            return Ok(Formed::Nothing);
        }
        let group = builder.finish(start, self.at.clone(), transactions, timestamp);
        Ok(Formed::Group { group, lsn, room, again })
    }

    /// Moves the place behind a row of the open transaction. False where it is not to be formed.
    fn pass_row(&mut self, change: &Change) -> Result<bool, FormError> {
        let Some(open) = &mut self.open else { return Ok(true) };
        open.take(change);
        if let (true, Some(table)) = (open.again, &open.keyless) {
            return Err(FormError::Keyless { at: Box::new(open.start.clone()), table: table.clone() });
        }
        if open.other {
            return Ok(false);
        }
        if !std::mem::replace(&mut open.entered, true) {
            self.at = RowMark { open: open.gtid.clone(), ..RowMark::at(open.start.clone()) };
        }
        let next = change.ordinal().next();
        (self.at.next, self.at.proof) = match open.floor {
            _ if open.again => (next, None),
            (row, proof) if row > next => (row, proof),
            _ => (next, Some(open.trail.proof())),
        };
        Ok(true)
    }

    /// Whether a group must end before the next item, or there is none.
    fn ends_before_next(&self, has_rows: bool, moved: bool, want: Want) -> bool {
        match self.queue.front().map(|queued| &queued.item) {
            // With something of a transaction done and none open, the next one is that, come again.
            Some(Ok(Item::Begin { .. })) if want == Want::OnlyOpen && self.open.is_none() => !self.at.is_inside(),
            // A group ends with a transaction rather than inside the next one.
            Some(Ok(Item::Begin { .. })) => has_rows && self.commits == 0,
            // What is before it must be applied, were it only a location: its own start is stored with it.
            Some(Ok(Item::Ddl(_))) => moved || want == Want::OnlyRows,
            Some(Ok(_)) => false,
            Some(Err(_)) | None => true,
        }
    }

    /// Takes the next item off the queue; `None` where a group must end before it.
    fn pop(&mut self, has_rows: bool, moved: bool, want: Want) -> Result<Option<Popped>, FormError> {
        if self.ends_before_next(has_rows, moved, want) {
            return Ok(None);
        }
        let Some(queued) = self.queue.pop_front() else { return Ok(None) };
        self.bytes -= queued.bytes;
        self.rows -= rows_of(&queued);
        Ok(Some(match queued.item {
            Ok(Item::Begin { gtid, start }) => {
                let skips = self.skips(gtid.as_ref(), &start)?;
                let marks = self.marks.as_deref().unwrap_or_default();
                self.open = Some(Open::new(start, gtid, skips, marks));
                Popped::Mark
            }
            Ok(Item::Changes { event, lsn }) => {
                self.front = Change::of(&event, 0).map(|next| Front { next, lsn });
                Popped::Changes(queued.room)
            }
            Ok(Item::Ddl(ddl)) => {
                self.ddls -= 1;
                if self.at.is_inside() || self.open.as_ref().is_some_and(|open| open.other) {
                    // Rows behind it are applied already: this is a replay of a transaction that was cut.
                    let _ = ddl.done.send(DdlEnd::Passed);
                    return Ok(Some(Popped::Mark));
                }
                self.after_ddl = true;
                Popped::Ddl(ddl)
            }
            Ok(Item::Commit { location, timestamp, lsn }) => {
                self.commits -= 1;
                let open = self.open.take();
                let whole = open.is_some();
                open.as_ref().map_or(Ok(()), Open::verdict)?;
                if !whole && self.at.is_inside() {
                    // A location on the way to the replay of what is partly done.
                    return Ok(Some(Popped::Mark));
                }
                self.at = RowMark::at(location);
                if let Some(open) = open {
                    self.pass(&open);
                }
                Popped::Commit { timestamp, lsn, whole }
            }
            Ok(Item::Restart) | Err(_) => return Ok(None),
        }))
    }

    /// Lanes that stood before or inside a transaction whose end was formed stand behind it.
    fn pass(&mut self, open: &Open) {
        for (mark, skip) in self.marks.iter_mut().flatten().zip(&open.skips) {
            if *skip != LaneSkip::All {
                *mark = self.at.clone();
            }
        }
    }

    /// What each lane has done of the transaction that begins at `start`.
    fn skips(&mut self, gtid: Option<&Gtid>, start: &Location) -> Result<Vec<LaneSkip>, OtherTransaction> {
        let Some(marks) = &self.marks else { return Ok(Vec::new()) };
        let skips = marks.iter().map(|mark| skip(mark, gtid, start)).collect::<Result<Vec<LaneSkip>, _>>()?;
        if skips.iter().all(|skip| *skip == LaneSkip::Nothing) {
            self.marks = None;
            return Ok(Vec::new());
        }
        Ok(skips)
    }
}

/// The furthest of `marks` where it is ahead of `start`.
fn furthest(marks: &[RowMark], start: &RowMark) -> Option<RowMark> {
    let mut ahead = marks.iter().filter(|mark| *mark != start);
    let first = ahead.next()?;
    Some(ahead.fold(first, |known, mark| if mark.has_reached(known) { mark } else { known }).clone())
}

fn rows_of(queued: &Queued) -> u64 {
    match &queued.item {
        Ok(Item::Changes { event, .. }) => event.rows.len() as u64,
        _ => 0,
    }
}

enum Popped {
    /// Nothing that a group would hold.
    Mark,
    Changes(Option<OwnedSemaphorePermit>),
    Ddl(DdlItem),
    /// `whole`: of a transaction, rather than a location that moved without one.
    Commit {
        timestamp: u32,
        lsn: u64,
        whole: bool,
    },
}

/// What a lane at `mark` has done of the transaction behind `start`.
pub fn skip(mark: &RowMark, gtid: Option<&Gtid>, start: &Location) -> Result<LaneSkip, OtherTransaction> {
    let done = match gtid {
        Some(gtid) if !mark.location.gtids.is_empty() => mark.location.gtids.contains_gtid(gtid),
        _ => mark.location.position > start.position,
    };
    if done {
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

#[cfg(test)]
#[path = "former_tests.rs"]
mod tests;
