//! Forms groups out of what is waiting: whole source transactions, as many as fit; a large one is cut.
//!
//! Synchronous and without I/O, so that tests drive it directly. Invariant: groups come out in source order, each starts
//! where the one before ended, and every change that went in is in exactly one group, unless its lane had it already.
//! A transaction that was cut is known again by its GTID; where another one comes in its place, nothing is guessed. What
//! lanes have done of it already is in [`open`].

mod open;

pub use open::{OtherTransaction, skip};

use std::collections::VecDeque;

use tokio::sync::OwnedSemaphorePermit;

use super::item::{DdlEnd, DdlItem, Item, Queued};
use super::pace::Size;
use super::progress::Sizes;
use crate::dispatch::{Change, DispatchError, Group, GroupBuilder, LaneSkip, SafeMode};
use crate::model::{Gtid, Location, RowMark, TargetTable};
use open::Open;

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

/// A group in the making.
struct Draft {
    builder: GroupBuilder,
    /// Row changes wanted, about.
    rows: u64,
    /// It is of a transaction that is applied once more.
    again: bool,
    /// The former's place has moved.
    moved: bool,
    transactions: u64,
    timestamp: u32,
    lsn: Option<u64>,
    room: Vec<OwnedSemaphorePermit>,
}

impl Draft {
    fn commit(&mut self, timestamp: u32, lsn: u64, whole: bool) {
        (self.moved, self.timestamp, self.lsn) = (true, self.timestamp.max(timestamp), Some(lsn));
        self.transactions += u64::from(whole);
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
        let mut draft = self.begin(size, safe);
        let start = self.at.clone();
        // A transaction that does not fit is cut, and once it is, whatever there is of it may go.
        let looked_through = self.open.as_ref().is_some_and(|open| open.other);
        let may_cut = self.is_full() || self.at.is_inside() || looked_through;
        loop {
            let goes_on = match self.front.take() {
                Some(front) => self.form_row(front, &mut draft)?,
                None if self.commits == 0 && self.ddls == 0 && !may_cut => false,
                None => match self.pop(draft.builder.rows() > 0, draft.moved, want)? {
                    Some(Popped::Mark) if self.is_again() != draft.again => {
                        let moved = draft.moved;
                        if !moved {
                            draft = self.begin(size, safe);
                        }
                        !moved
                    }
                    Some(Popped::Mark) => true,
                    Some(Popped::Changes(held)) => {
                        draft.room.extend(held);
                        true
                    }
                    Some(Popped::Ddl(ddl)) => return Ok(Formed::Ddl(ddl)),
                    Some(Popped::Commit { timestamp, lsn, whole }) => {
                        draft.commit(timestamp, lsn, whole);
                        !self.ends_at_commit(&draft, want)
                    }
                    None => false,
                },
            };
            if !goes_on {
                break;
            }
        }
        if !draft.moved {
            return Ok(Formed::Nothing);
        }
        if let Some(open) = self.open.as_mut().filter(|open| open.entered && !open.other) {
            self.at.proof = open.proof();
        }
        let Draft { builder, again, transactions, timestamp, lsn, room, .. } = draft;
        let group = builder.finish(start, self.at.clone(), transactions, timestamp);
        Ok(Formed::Group { group, lsn, room, again })
    }

    /// A group is applied in safe mode as a whole, so nothing else is in one with a transaction that comes again.
    fn begin(&self, size: Size, safe: SafeMode) -> Draft {
        let again = self.is_again();
        let safe = if again { SafeMode::All } else { safe };
        Draft {
            builder: GroupBuilder::new(self.lanes, size.shares, self.one_sequence, safe),
            rows: size.rows,
            again,
            moved: false,
            transactions: 0,
            timestamp: 0,
            lsn: None,
            room: Vec::new(),
        }
    }

    /// Puts a row into the group. False where the group ends before or behind it.
    fn form_row(&mut self, front: Front, draft: &mut Draft) -> Result<bool, FormError> {
        let alone = front.next.must_stand_alone();
        if alone && draft.builder.rows() > 0 {
            self.front = Some(front);
            return Ok(false);
        }
        let Front { next: change, lsn: end } = front;
        let formed = self.pass_row(&change)?;
        if formed {
            let skips = self.open.as_ref().map_or(&[][..], |open| open.skips.as_slice());
            draft.builder.push(&change, skips)?;
        }
        let following = change.following();
        let passed = following.is_none().then_some(end);
        self.front = following.map(|next| Front { next, lsn: end });
        if !formed {
            return Ok(!draft.moved);
        }
        draft.moved = true;
        draft.lsn = passed.or(draft.lsn);
        Ok(!alone && draft.builder.rows() < 2 * draft.rows && draft.builder.bytes() < GROUP_BYTES)
    }

    /// Whether a group ends behind the transaction that is complete now.
    fn ends_at_commit(&mut self, draft: &Draft, want: Want) -> bool {
        let together = self.furthest.take_if(|furthest| self.at.has_reached(furthest)).is_some();
        want == Want::OnlyOpen
            || std::mem::take(&mut self.after_ddl)
            || together
            || draft.again
            || draft.builder.rows() >= draft.rows
            || draft.builder.bytes() >= GROUP_BYTES
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
        self.at.next = if open.again { open.passed } else { open.passed.max(open.floor.0) };
        // A later row may show that a mark does not hold, and is not formed: then what this place is proven by is here.
        if open.is_unproven() {
            self.at.proof = open.proof();
        }
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
                self.front = Change::first(event).map(|next| Front { next, lsn });
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
pub(super) fn furthest(marks: &[RowMark], start: &RowMark) -> Option<RowMark> {
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

#[cfg(test)]
#[path = "former_tests.rs"]
mod tests;
