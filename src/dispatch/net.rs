//! The sum of what a group does to each row of a table: at most one net change a key.
//!
//! Net changes stay where they were put; what is ordered are their numbers, since a group has thousands.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::change::Change;
use super::key::key_of;
use crate::model::{EventSpan, RowOrdinal};
use crate::row::{ChangeKind, RowImage};
use crate::schema::BoundTable;

/// Changes of different keys that may be sent together: first the deletes, then the updates, then the inserts, each in the
/// order of their key bytes. That is the downstream's own order for most keys: neighbours are on one page, and
/// transactions that lock several rows lock them in one order.
#[derive(Debug, Default)]
pub struct Nets {
    nets: Vec<Net>,
    deletes: Vec<u32>,
    updates: Vec<u32>,
    inserts: Vec<u32>,
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
        self.of(&self.deletes, from)
            .filter_map(|net| net.before().map(|before| NetDelete { table: net.table(), before, span: net.span() }))
    }

    /// The rows that change, from the given number on.
    pub fn updates(&self, from: usize) -> impl Iterator<Item = NetUpdate<'_>> {
        self.of(&self.updates, from).filter_map(|net| {
            let (before, after) = net.before().zip(net.after())?;
            Some(NetUpdate { table: net.table(), before, after, span: net.span() })
        })
    }

    /// The rows that come, from the given number on.
    pub fn inserts(&self, from: usize) -> impl Iterator<Item = NetInsert<'_>> {
        self.of(&self.inserts, from)
            .filter_map(|net| net.after().map(|after| NetInsert { table: net.table(), after, span: net.span() }))
    }

    fn of<'a>(&'a self, list: &'a [u32], from: usize) -> impl Iterator<Item = &'a Net> {
        list.get(from..).unwrap_or_default().iter().map(|&at| &self.nets[at as usize])
    }
}

/// The sum of the changes of one key.
#[derive(Debug)]
pub(super) struct Net {
    /// The change whose row before it is what was there first; `None` where nothing was.
    first: Option<Change>,
    /// The last one.
    last: Change,
    /// Whether its row after it is what there is in the end; else nothing is.
    comes: bool,
}

impl Net {
    /// One change, of a row that keeps its key.
    pub(super) fn of(change: Change) -> Net {
        let kind = change.kind();
        let first = (kind != ChangeKind::Insert).then(|| change.clone());
        Net { first, last: change, comes: kind != ChangeKind::Delete }
    }

    /// What a change to another key does to the former one.
    pub(super) fn leaving(change: Change) -> Net {
        Net { first: Some(change.clone()), last: change, comes: false }
    }

    /// What a change to another key does to the new one.
    pub(super) fn arriving(change: Change) -> Net {
        Net { first: None, last: change, comes: true }
    }

    pub(super) fn table(&self) -> &Arc<BoundTable> {
        self.last.table()
    }

    /// Number of the last change.
    pub(super) fn ordinal(&self) -> RowOrdinal {
        self.last.ordinal()
    }

    fn before(&self) -> Option<RowImage<'_>> {
        self.first.as_ref().and_then(Change::before)
    }

    fn after(&self) -> Option<RowImage<'_>> {
        self.comes.then(|| self.last.after()).flatten()
    }

    fn span(&self) -> &EventSpan {
        self.last.span()
    }
}

/// Where a net change's key stands among the keys.
#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u64,
    start: usize,
    len: usize,
}

/// Collects net changes by key.
#[derive(Debug, Default)]
pub(super) struct Wave {
    nets: Vec<Net>,
    /// One for each net change.
    places: Vec<Place>,
    /// All keys, one behind the other.
    keys: Vec<u8>,
    by_key: HashTable<u32>,
}

impl Wave {
    /// Takes a change in. It is given back where its key has one already and the sum of both is not one change, or they
    /// are not to be summed up: then a new wave begins.
    pub(super) fn merge(&mut self, key: &[u8], next: Net, may_sum: bool) -> Option<Net> {
        let hash = xxh3_64(key);
        let (places, keys) = (&self.places, &self.keys);
        let same = |&at: &u32| {
            let place = places[at as usize];
            place.hash == hash && key_at(keys, place) == key
        };
        match self.by_key.entry(hash, same, |&at| places[at as usize].hash) {
            Entry::Occupied(known) if may_sum => sum_up(&mut self.nets[*known.get() as usize], next),
            Entry::Occupied(_) => Some(next),
            Entry::Vacant(free) => {
                free.insert(self.nets.len() as u32);
                self.nets.push(next);
                self.places.push(Place { hash, start: self.keys.len(), len: key.len() });
                self.keys.extend_from_slice(key);
                None
            }
        }
    }

    /// What is to be sent; `None` for nothing.
    pub(super) fn finish(self) -> Option<Nets> {
        let mut all = Nets { nets: self.nets, ..Nets::default() };
        for at in in_key_order(&self.places, &self.keys) {
            let net = &all.nets[at as usize];
            match (net.before(), net.after()) {
                (Some(before), Some(after)) if moves_unique_value(net.table(), before, after) => {
                    all.deletes.push(at);
                    all.inserts.push(at);
                }
                (Some(before), Some(after)) => {
                    // There and back again is no change.
                    if before.present != after.present || before.bytes != after.bytes || !after.resolved_json.is_empty()
                    {
                        all.updates.push(at);
                    }
                }
                (Some(_), None) => all.deletes.push(at),
                (None, Some(_)) => all.inserts.push(at),
                (None, None) => {}
            }
        }
        let empty = all.deletes.is_empty() && all.updates.is_empty() && all.inserts.is_empty();
        (!empty).then_some(all)
    }
}

/// Adds a change to what its key has, or gives it back.
fn sum_up(sum: &mut Net, next: Net) -> Option<Net> {
    let whole = next.after().is_none_or(|image| image.present.is_none());
    // What the row was at the end of the sum must be what the next change starts from.
    let follows = sum.comes == next.first.is_some();
    if !whole || !follows || !Arc::ptr_eq(sum.table(), next.table()) {
        return Some(next);
    }
    (sum.last, sum.comes) = (next.last, next.comes);
    None
}

fn key_at(keys: &[u8], place: Place) -> &[u8] {
    &keys[place.start..place.start + place.len]
}

/// Numbers of the places, sorted by their keys. The first eight bytes of a key decide nearly always.
fn in_key_order(places: &[Place], keys: &[u8]) -> impl Iterator<Item = u32> {
    let head = |place: Place| {
        let mut head = [0; 8];
        let key = key_at(keys, place);
        let len = key.len().min(8);
        head[..len].copy_from_slice(&key[..len]);
        u64::from_be_bytes(head)
    };
    let mut order: Vec<(u64, u32)> = places.iter().zip(0..).map(|(&place, at)| (head(place), at)).collect();
    let key = |at: u32| key_at(keys, places[at as usize]);
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
    order.into_iter().map(|(_, at)| at)
}

/// Whether a whole update changes a value of a unique key other than the identity. An image that lacks such a column, or
/// cannot be read, counts as changed: the delete and insert are right in any case.
fn moves_unique_value(table: &BoundTable, before: RowImage<'_>, after: RowImage<'_>) -> bool {
    if table.other_unique.is_empty() || after.present.is_some() {
        return false;
    }
    match (key_of(table, before, &table.other_unique), key_of(table, after, &table.other_unique)) {
        (Ok(before), Ok(after)) => before != after,
        _ => true,
    }
}
