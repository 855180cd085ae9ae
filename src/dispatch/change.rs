//! One row change on its way to a lane.

use std::sync::Arc;

use super::number::{NumberKey, NumberKeys};
use crate::model::{EventSpan, RowOrdinal};
use crate::row::{ChangeKind, EventRows, RowImage};
use crate::schema::BoundTable;

/// The row changes of one event with their table's binding: all that they share.
#[derive(Debug)]
pub struct ChangeEvent {
    /// The binding.
    pub table: Arc<BoundTable>,
    /// What is done, and the images.
    pub rows: EventRows,
    /// The first row's number in the source transaction; the others follow it.
    pub first: RowOrdinal,
    /// Where it came from.
    pub span: EventSpan,
    /// The rows' keys, where they are numbers.
    numbers: Option<NumberKeys>,
}

impl ChangeEvent {
    /// With what the others are told by. Best made while the images were just looked at.
    pub fn new(table: Arc<BoundTable>, rows: EventRows, first: RowOrdinal, span: EventSpan) -> ChangeEvent {
        let numbers = NumberKeys::of(&table, &rows);
        ChangeEvent { table, rows, first, span, numbers }
    }
}

/// One row change: its event and its number there.
#[derive(Debug, Clone)]
pub struct Change {
    event: Arc<ChangeEvent>,
    row: u32,
}

/// Whose changes may have been applied already without any mark that says so. Such changes are sent in statements that
/// may meet their own effect (DM's safe mode: delete and replace), and each one is sent, even where another undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SafeMode {
    /// No table's: marks tell exactly what is done.
    Off,
    /// Those of tables without transactions, whose rows stay when the transaction with the mark is rolled back.
    Loose,
    /// Every table's.
    All,
}

impl SafeMode {
    /// Whether it holds for changes of `table`.
    pub fn covers(self, table: &BoundTable) -> bool {
        match self {
            SafeMode::Off => false,
            SafeMode::Loose => table.loose_engine.is_some(),
            SafeMode::All => true,
        }
    }
}

/// What a lane has done already of the transaction being replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneSkip {
    /// Nothing: apply.
    Nothing,
    /// Changes with smaller ordinals.
    Below(RowOrdinal),
    /// The whole transaction.
    All,
}

impl LaneSkip {
    /// Whether a change of this ordinal is done.
    pub fn covers(self, ordinal: RowOrdinal) -> bool {
        match self {
            LaneSkip::Nothing => false,
            LaneSkip::Below(next) => ordinal < next,
            LaneSkip::All => true,
        }
    }
}

impl Change {
    /// The change of this number in its event, from 0; `None` where there are not so many.
    pub fn of(event: &Arc<ChangeEvent>, row: usize) -> Option<Change> {
        let number = u32::try_from(row).ok()?;
        (row < event.rows.len()).then(|| Change { event: Arc::clone(event), row: number })
    }

    /// The first one; `None` where there is none.
    pub fn first(event: Arc<ChangeEvent>) -> Option<Change> {
        (!event.rows.is_empty()).then_some(Change { event, row: 0 })
    }

    /// All changes of an event, in order.
    pub fn all(event: &Arc<ChangeEvent>) -> impl Iterator<Item = Change> {
        (0..event.rows.len()).filter_map(|row| Change::of(event, row))
    }

    /// The event's next change; `None` behind its last one.
    pub fn following(self) -> Option<Change> {
        let row = self.row + 1;
        ((row as usize) < self.event.rows.len()).then_some(Change { row, ..self })
    }

    /// Changes of its event from this one on.
    pub fn left(&self) -> usize {
        self.event.rows.len() - self.row as usize
    }

    /// Its event.
    pub(super) fn event(&self) -> &Arc<ChangeEvent> {
        &self.event
    }

    /// Its number there.
    pub(super) fn number(&self) -> u32 {
        self.row
    }

    /// Its key, where that is known to be a number.
    pub(super) fn numbers(&self) -> Option<(&NumberKeys, NumberKey)> {
        let numbers = self.event.numbers.as_ref()?;
        Some((numbers, numbers.row(self.row)?))
    }

    #[inline]
    pub(super) fn row(&self) -> Row<'_> {
        Row { event: &self.event, row: self.row }
    }

    /// The binding.
    pub fn table(&self) -> &Arc<BoundTable> {
        &self.event.table
    }

    /// What is done.
    pub fn kind(&self) -> ChangeKind {
        self.event.rows.kind()
    }

    /// The row as it was; `None` for an insert.
    #[inline]
    pub fn before(&self) -> Option<RowImage<'_>> {
        self.row().before()
    }

    /// The row as it is now; `None` for a delete.
    #[inline]
    pub fn after(&self) -> Option<RowImage<'_>> {
        self.row().after()
    }

    /// Its number in the source transaction.
    pub fn ordinal(&self) -> RowOrdinal {
        RowOrdinal(self.event.first.0.saturating_add(u64::from(self.row)))
    }

    /// Where it came from.
    pub fn span(&self) -> &EventSpan {
        &self.event.span
    }

    /// Bytes of its images, the measure for limits.
    pub fn bytes(&self) -> usize {
        self.event.rows.row_bytes(self.row as usize)
    }

    /// Whether it inserts a row and its image leaves out a column of the key.
    pub fn lacks_key(&self) -> bool {
        let (ChangeKind::Insert, Some(identity)) = (self.kind(), &self.table().identity) else { return false };
        self.after().is_some_and(|image| image.present.is_some() && !identity.iter().all(|&column| image.has(column)))
    }

    /// Whether it must be the only change of its group: it moves a row to another key or changes another unique value,
    /// and its image is not whole, so that it cannot be made a delete and an insert; or it inserts a row whose key is left
    /// to the column's default, so that nobody here knows which row that is.
    pub fn must_stand_alone(&self) -> bool {
        let Some(image) = self.after().filter(|image| image.present.is_some()) else { return false };
        let Some(identity) = &self.table().identity else { return false };
        if self.kind() == ChangeKind::Insert {
            return self.lacks_key();
        }
        identity.iter().chain(&self.table().other_unique).any(|&column| image.has(column))
    }
}

/// A row change lent from its event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    event: &'a ChangeEvent,
    row: u32,
}

impl<'a> Row<'a> {
    #[inline]
    pub(super) fn new(event: &'a ChangeEvent, row: u32) -> Self {
        Row { event, row }
    }

    #[inline]
    pub(super) fn table(self) -> &'a Arc<BoundTable> {
        &self.event.table
    }

    #[inline]
    pub(super) fn before(self) -> Option<RowImage<'a>> {
        self.event.rows.before(self.row as usize)
    }

    #[inline]
    pub(super) fn after(self) -> Option<RowImage<'a>> {
        self.event.rows.after(self.row as usize)
    }

    #[inline]
    pub(super) fn span(self) -> &'a EventSpan {
        &self.event.span
    }
}
