//! The sum of what a group does to each row of a table: at most one net change a key.
//!
//! A group has thousands of changes, so they are held by number: a net change is the numbers of its first and last row
//! among the group's events, which all shares hold together. Net changes stay where they were put; what is ordered are
//! their numbers.

use std::sync::Arc;

use super::change::{Change, ChangeEvent, Row};
use super::key::key_of;
use super::keys::Keys;
use crate::model::EventSpan;
use crate::row::{ChangeKind, RowImage};
use crate::schema::BoundTable;

/// Changes of different keys that may be sent together: first the deletes, then the updates, then the inserts, each in the
/// order of their key bytes. That is the downstream's own order for most keys: neighbours are on one page, and
/// transactions that lock several rows lock them in one order.
#[derive(Debug)]
pub struct Nets {
    events: Arc<[Arc<ChangeEvent>]>,
    lists: NetLists,
}

/// A row that goes.
#[derive(Debug, Clone, Copy)]
pub struct NetDelete<'a> {
    /// Its binding.
    pub table: &'a Arc<BoundTable>,
    /// The row as it was.
    pub before: RowImage<'a>,
    /// Where the last change of it came from.
    pub span: &'a EventSpan,
}

/// A row that changes and keeps its key.
#[derive(Debug, Clone, Copy)]
pub struct NetUpdate<'a> {
    /// Its binding.
    pub table: &'a Arc<BoundTable>,
    /// The row as it was.
    pub before: RowImage<'a>,
    /// The row as it shall be; perhaps only its changed columns.
    pub after: RowImage<'a>,
    /// Where the last change of it came from.
    pub span: &'a EventSpan,
}

/// A row that comes.
#[derive(Debug, Clone, Copy)]
pub struct NetInsert<'a> {
    /// Its binding.
    pub table: &'a Arc<BoundTable>,
    /// The row.
    pub after: RowImage<'a>,
    /// Where the last change of it came from.
    pub span: &'a EventSpan,
}

impl Nets {
    /// The rows that go, from the given number on.
    pub fn deletes(&self, from: usize) -> impl Iterator<Item = NetDelete<'_>> {
        self.of(&self.lists.deletes, from).filter_map(|(net, last)| {
            let before = net.before(&self.events)?;
            Some(NetDelete { table: last.table(), before, span: last.span() })
        })
    }

    /// The rows that change, from the given number on.
    pub fn updates(&self, from: usize) -> impl Iterator<Item = NetUpdate<'_>> {
        self.of(&self.lists.updates, from).filter_map(|(net, last)| {
            let (before, after) = net.before(&self.events).zip(last.after())?;
            Some(NetUpdate { table: last.table(), before, after, span: last.span() })
        })
    }

    /// The rows that come, from the given number on.
    pub fn inserts(&self, from: usize) -> impl Iterator<Item = NetInsert<'_>> {
        self.of(&self.lists.inserts, from)
            .filter_map(|(_, last)| Some(NetInsert { table: last.table(), after: last.after()?, span: last.span() }))
    }

    /// Net changes with the last row of each.
    fn of<'a>(&'a self, list: &'a [u32], from: usize) -> impl Iterator<Item = (Net, Row<'a>)> {
        list.get(from..).unwrap_or_default().iter().map(|&at| {
            let net = self.lists.nets[at as usize];
            (net, net.last.row(&self.events))
        })
    }
}

/// A row of a group: the event's number in the group, and the row's in the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowAt {
    pub(super) event: u32,
    pub(super) row: u32,
}

impl RowAt {
    #[inline]
    fn row(self, events: &[Arc<ChangeEvent>]) -> Row<'_> {
        Row::new(&events[self.event as usize], self.row)
    }
}

/// The sum of the changes of one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Net {
    /// The change whose row before it is what was there first; `None` where nothing was.
    first: Option<RowAt>,
    /// The last one.
    last: RowAt,
    /// Whether its row after it is what there is in the end; else nothing is.
    comes: bool,
    /// The two rows are known to differ. Looked at while the images are being read for their key: later they would have to
    /// be fetched from memory once more.
    differs: bool,
}

impl Net {
    /// One change, of a row that keeps its key.
    pub(super) fn of(change: &Change, at: RowAt) -> Net {
        let kind = change.kind();
        let differs = match change.numbers() {
            Some((_, known)) => known.differs,
            None => change.before().zip(change.after()).is_some_and(|(before, after)| before.differs(after)),
        };
        Net { first: (kind != ChangeKind::Insert).then_some(at), last: at, comes: kind != ChangeKind::Delete, differs }
    }

    /// What a change to another key does to the former one.
    pub(super) fn leaving(at: RowAt) -> Net {
        Net { first: Some(at), last: at, comes: false, differs: false }
    }

    /// What a change to another key does to the new one.
    pub(super) fn arriving(at: RowAt) -> Net {
        Net { first: None, last: at, comes: true, differs: false }
    }

    #[inline]
    fn before(self, events: &[Arc<ChangeEvent>]) -> Option<RowImage<'_>> {
        self.first.and_then(|first| first.row(events).before())
    }

    /// Of one that has a row before and after.
    fn is_change(self, events: &[Arc<ChangeEvent>]) -> bool {
        self.before(events).zip(self.after(events)).is_none_or(|(before, after)| before.differs(after))
    }

    /// The same.
    fn moves_unique_value(self, events: &[Arc<ChangeEvent>]) -> bool {
        let table = self.last.row(events).table();
        let images = || self.before(events).zip(self.after(events));
        !table.other_unique.is_empty() && images().is_some_and(|(old, new)| moves_unique_value(table, old, new))
    }

    #[inline]
    fn after(self, events: &[Arc<ChangeEvent>]) -> Option<RowImage<'_>> {
        if self.comes { self.last.row(events).after() } else { None }
    }
}

/// Net changes by number, and what is to be done of them in order.
#[derive(Debug, Default)]
pub(super) struct NetLists {
    nets: Vec<Net>,
    deletes: Vec<u32>,
    updates: Vec<u32>,
    inserts: Vec<u32>,
}

impl NetLists {
    /// With the events that they name.
    pub(super) fn of(self, events: &Arc<[Arc<ChangeEvent>]>) -> Nets {
        Nets { events: Arc::clone(events), lists: self }
    }
}

/// Collects net changes by key.
#[derive(Debug, Default)]
pub(super) struct Wave {
    /// One for each key.
    nets: Vec<Net>,
    keys: Keys,
}

impl Wave {
    /// Takes a change in. It is given back where its key has one already and the sum of both is not one change, or they
    /// are not to be summed up: then a new wave begins.
    pub(super) fn merge(&mut self, key: &[u8], next: Net, may_sum: bool, events: &[Arc<ChangeEvent>]) -> Option<Net> {
        match self.keys.place(key) {
            None => {
                self.nets.push(next);
                None
            }
            Some(known) if may_sum => sum_up(&mut self.nets[known as usize], next, events),
            Some(_) => Some(next),
        }
    }

    /// What is to be sent; `None` for nothing.
    pub(super) fn finish(self, events: &[Arc<ChangeEvent>]) -> Option<NetLists> {
        let mut all = NetLists { nets: self.nets, ..NetLists::default() };
        for at in self.keys.in_order() {
            let net = all.nets[at as usize];
            match (net.first, net.comes) {
                (Some(_), true) if net.moves_unique_value(events) => {
                    all.deletes.push(at);
                    all.inserts.push(at);
                }
                // There and back again is no change.
                (Some(_), true) if net.differs || net.is_change(events) => all.updates.push(at),
                (Some(_), true) => {}
                (Some(_), false) => all.deletes.push(at),
                (None, true) => all.inserts.push(at),
                (None, false) => {}
            }
        }
        let empty = all.deletes.is_empty() && all.updates.is_empty() && all.inserts.is_empty();
        (!empty).then_some(all)
    }
}

/// Adds a change to what its key has, or gives it back.
fn sum_up(sum: &mut Net, next: Net, events: &[Arc<ChangeEvent>]) -> Option<Net> {
    let whole = next.after(events).is_none_or(|image| image.present.is_none());
    // What the row was at the end of the sum must be what the next change starts from.
    let follows = sum.comes == next.first.is_some();
    if !whole || !follows || !Arc::ptr_eq(sum.last.row(events).table(), next.last.row(events).table()) {
        return Some(next);
    }
    (sum.last, sum.comes, sum.differs) = (next.last, next.comes, false);
    None
}

/// Whether a whole update changes a value of a unique key other than the identity. An image that lacks such a column, or
/// cannot be read, counts as changed: the delete and insert are right in any case.
fn moves_unique_value(table: &BoundTable, before: RowImage<'_>, after: RowImage<'_>) -> bool {
    if after.present.is_some() {
        return false;
    }
    match (key_of(table, before, &table.other_unique), key_of(table, after, &table.other_unique)) {
        (Ok(before), Ok(after)) => before != after,
        _ => true,
    }
}
