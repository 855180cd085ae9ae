//! The sum of what a group does to each row of a table: at most one net change a key.
//!
//! Net changes stay where they were put; what is ordered are their numbers, since a change is some 150 bytes and a group
//! has thousands.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::change::EventSpan;
use super::key::key_of;
use crate::row::RowImage;
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
    pub before: &'a RowImage,
    /// Where the last change of it came from.
    pub span: &'a Arc<EventSpan>,
}

/// A row that changes and keeps its key.
#[derive(Debug, Clone, Copy)]
pub struct NetUpdate<'a> {
    /// Its binding.
    pub table: &'a Arc<BoundTable>,
    /// The row as it was.
    pub before: &'a RowImage,
    /// The row as it shall be; perhaps only its changed columns.
    pub after: &'a RowImage,
    /// Where the last change of it came from.
    pub span: &'a Arc<EventSpan>,
}

/// A row that comes.
#[derive(Debug, Clone, Copy)]
pub struct NetInsert<'a> {
    /// Its binding.
    pub table: &'a Arc<BoundTable>,
    /// The row.
    pub after: &'a RowImage,
    /// Where the last change of it came from.
    pub span: &'a Arc<EventSpan>,
}

impl Nets {
    /// The rows that go, from the given number on.
    pub fn deletes(&self, from: usize) -> impl Iterator<Item = NetDelete<'_>> {
        self.of(&self.deletes, from).filter_map(|Net { table, before, span, .. }| {
            before.as_ref().map(|before| NetDelete { table, before, span })
        })
    }

    /// The rows that change, from the given number on.
    pub fn updates(&self, from: usize) -> impl Iterator<Item = NetUpdate<'_>> {
        self.of(&self.updates, from).filter_map(|Net { table, before, after, span }| {
            let (before, after) = before.as_ref().zip(after.as_ref())?;
            Some(NetUpdate { table, before, after, span })
        })
    }

    /// The rows that come, from the given number on.
    pub fn inserts(&self, from: usize) -> impl Iterator<Item = NetInsert<'_>> {
        self.of(&self.inserts, from)
            .filter_map(|Net { table, after, span, .. }| after.as_ref().map(|after| NetInsert { table, after, span }))
    }

    fn of<'a>(&'a self, list: &'a [u32], from: usize) -> impl Iterator<Item = &'a Net> {
        list.get(from..).unwrap_or_default().iter().map(|&at| &self.nets[at as usize])
    }
}

/// The sum of the changes of one key.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) table: Arc<BoundTable>,
    pub(super) before: Option<RowImage>,
    pub(super) after: Option<RowImage>,
    pub(super) span: Arc<EventSpan>,
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
        match self.by_key.find(hash, same) {
            Some(&at) if may_sum => sum_up(&mut self.nets[at as usize], next),
            Some(_) => Some(next),
            None => {
                let number = self.nets.len() as u32;
                self.nets.push(next);
                self.places.push(Place { hash, start: self.keys.len(), len: key.len() });
                self.keys.extend_from_slice(key);
                let places = &self.places;
                self.by_key.insert_unique(hash, number, |&at| places[at as usize].hash);
                None
            }
        }
    }

    /// What is to be sent; `None` for nothing.
    pub(super) fn finish(self) -> Option<Nets> {
        let mut all = Nets { nets: self.nets, ..Nets::default() };
        for at in in_key_order(&self.places, &self.keys) {
            let net = &all.nets[at as usize];
            match (&net.before, &net.after) {
                (Some(before), Some(after)) if moves_unique_value(&net.table, before, after) => {
                    all.deletes.push(at);
                    all.inserts.push(at);
                }
                (Some(before), Some(after)) => {
                    // There and back again is no change.
                    if before.present != after.present || before.bytes != after.bytes || after.resolved_json.is_some() {
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
    let whole = next.after.as_ref().is_none_or(|image| image.present.is_none());
    // What the row was at the end of the sum must be what the next change starts from.
    let follows = sum.after.is_some() == next.before.is_some();
    if !whole || !follows || !Arc::ptr_eq(&sum.table, &next.table) {
        return Some(next);
    }
    sum.after = next.after;
    sum.span = next.span;
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
fn moves_unique_value(table: &BoundTable, before: &RowImage, after: &RowImage) -> bool {
    if table.other_unique.is_empty() || after.present.is_some() {
        return false;
    }
    match (key_of(table, before, &table.other_unique), key_of(table, after, &table.other_unique)) {
        (Ok(before), Ok(after)) => before != after,
        _ => true,
    }
}
