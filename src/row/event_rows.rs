//! The rows of one event, unread: its bytes, and where each image lies in them.
//!
//! A row costs 16 bytes here and no reference of its own: what holds a row holds the event and the row's number in it.
//! Invariant: exactly the images that the kind names are there.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::types::{ChangeKind, ResolvedJson, RowImage};

/// Which columns of the layout the images of an event hold; `None` for all. Shared between events.
pub type Present = Option<Arc<[bool]>>;

/// Most rows that room is made for before they are seen.
const GUESSED_ROWS: usize = 4096;

/// All rows of an event, in order.
#[derive(Debug, Clone)]
pub struct EventRows {
    kind: ChangeKind,
    bytes: Bytes,
    /// Columns in the images before, and after.
    present: [Present; 2],
    /// Small transactions have one row an event.
    places: SmallVec<[Places; 1]>,
    /// Whole values for JSON columns that an image holds diffs of, by where the image begins, in this order.
    resolved: Vec<(u32, ResolvedJson)>,
}

/// Where the images of an event lie in its bytes, while they are being found.
#[derive(Debug, Default)]
pub struct RowPlaces {
    places: SmallVec<[Places; 1]>,
    resolved: Vec<(u32, ResolvedJson)>,
}

impl RowPlaces {
    /// Adds a row by where its images lie in the bytes, of which there are `len`; an image that the kind does not name is
    /// not looked at. Images come in the order of the bytes.
    #[inline]
    pub fn push(&mut self, before: Range<usize>, after: Range<usize>, len: usize) {
        debug_assert!(before.start <= before.end && after.start <= after.end);
        debug_assert!(before.end.max(after.end) <= len);
        let (before, after) = (Place::of(before), Place::of(after));
        if self.places.is_empty() {
            let (row, rest) = (before.len() + after.len(), len - before.end.max(after.end) as usize);
            // Rows of an event are of much the same size.
            if rest > 0 {
                self.places.reserve_exact(1 + rest.checked_div(row).unwrap_or(0).min(GUESSED_ROWS));
            }
        }
        self.places.push(Places { before, after });
    }

    /// The image that begins at `start` holds diffs of JSON columns: these are their whole values.
    pub fn resolve(&mut self, start: usize, json: ResolvedJson) {
        self.resolved.push((start as u32, json));
    }
}

/// Where an image lies in the bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    start: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy)]
struct Places {
    before: Place,
    after: Place,
}

impl Place {
    /// The caller has checked that all of the bytes can be counted so.
    fn of(range: Range<usize>) -> Place {
        Place { start: range.start as u32, end: range.end as u32 }
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl EventRows {
    /// The rows at these places of an event's bytes, with the columns that their images hold. `None` where there are more
    /// than 4 GiB, which no event has.
    pub fn new(kind: ChangeKind, bytes: Bytes, present: [Present; 2], rows: RowPlaces) -> Option<EventRows> {
        u32::try_from(bytes.len()).ok()?;
        let RowPlaces { places, resolved } = rows;
        Some(EventRows { kind, bytes, present, places, resolved })
    }

    /// Leaves only the rows that `keeps` says yes of, by their numbers.
    pub fn retain(&mut self, mut keeps: impl FnMut(usize) -> bool) {
        let mut row = 0;
        self.places.retain(|_| {
            row += 1;
            keeps(row - 1)
        });
    }

    /// Copies the images to memory of their own, so that what they lay in can go.
    pub fn detach(&mut self) {
        let mut bytes = BytesMut::with_capacity(self.image_bytes());
        let mut resolved = Vec::new();
        let named = [self.kind != ChangeKind::Insert, self.kind != ChangeKind::Delete];
        for places in &mut self.places {
            for (place, named) in [&mut places.before, &mut places.after].into_iter().zip(named) {
                let old = std::mem::take(place);
                if !named {
                    continue;
                }
                place.start = bytes.len() as u32;
                bytes.extend_from_slice(self.bytes.get(old.start as usize..old.end as usize).unwrap_or_default());
                place.end = bytes.len() as u32;
                if let Ok(at) = self.resolved.binary_search_by_key(&old.start, |(start, _)| *start) {
                    resolved.push((place.start, std::mem::take(&mut self.resolved[at].1)));
                }
            }
        }
        (self.bytes, self.resolved) = (bytes.freeze(), resolved);
    }

    /// What was done to all of them.
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The row of this number as it was; `None` for an inserted one.
    #[inline]
    pub fn before(&self, row: usize) -> Option<RowImage<'_>> {
        let place = self.places.get(row).filter(|_| self.kind != ChangeKind::Insert)?.before;
        Some(self.image(place, self.present[0].as_deref()))
    }

    /// The row of this number as it is now; `None` for a deleted one.
    #[inline]
    pub fn after(&self, row: usize) -> Option<RowImage<'_>> {
        let place = self.places.get(row).filter(|_| self.kind != ChangeKind::Delete)?.after;
        Some(self.image(place, self.present[1].as_deref()))
    }

    /// Each row before and after.
    pub fn iter(&self) -> impl Iterator<Item = (Option<RowImage<'_>>, Option<RowImage<'_>>)> {
        (0..self.len()).map(|row| (self.before(row), self.after(row)))
    }

    #[inline]
    fn image<'a>(&'a self, place: Place, present: Option<&'a [bool]>) -> RowImage<'a> {
        let bytes = self.bytes.get(place.start as usize..place.end as usize).unwrap_or_default();
        let resolved_json = if self.resolved.is_empty() { &[][..] } else { self.resolved_at(place.start) };
        RowImage { present, bytes, resolved_json }
    }

    fn resolved_at(&self, start: u32) -> &[(usize, Vec<u8>)] {
        let found = self.resolved.binary_search_by_key(&start, |(start, _)| *start);
        found.map_or(&[], |at| &self.resolved[at].1)
    }

    /// Bytes of one row's images.
    #[inline]
    pub fn row_bytes(&self, row: usize) -> usize {
        self.places.get(row).map_or(0, |places| places.before.len() + places.after.len())
    }

    /// Bytes of all images.
    pub fn image_bytes(&self) -> usize {
        self.places.iter().map(|places| places.before.len() + places.after.len()).sum()
    }

    /// Whether each image holds all columns.
    pub fn is_whole(&self) -> bool {
        let [before, after] = &self.present;
        match self.kind {
            ChangeKind::Insert => after.is_none(),
            ChangeKind::Delete => before.is_none(),
            ChangeKind::Update => before.is_none() && after.is_none(),
        }
    }

    /// What undoes them: the reverse of each, the last one first.
    pub fn undoing(self) -> EventRows {
        let kind = match self.kind {
            ChangeKind::Insert => ChangeKind::Delete,
            ChangeKind::Update => ChangeKind::Update,
            ChangeKind::Delete => ChangeKind::Insert,
        };
        let [before, after] = self.present;
        let back = |places: &Places| Places { before: places.after, after: places.before };
        let places = self.places.iter().rev().map(back).collect();
        EventRows { kind, present: [after, before], places, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_what_the_kind_names_and_undoes_it() {
        let bytes = Bytes::from_static(b"aabbbcdd");
        let after: Present = Some(Arc::from([true, false]));
        let mut places = RowPlaces::default();
        places.push(0..2, 2..5, 8);
        places.push(5..6, 6..8, 8);
        places.resolve(6, Box::new([(1, vec![9])]));
        let rows = EventRows::new(ChangeKind::Update, bytes, [None, after.clone()], places).unwrap();
        assert_eq!((rows.len(), rows.row_bytes(0), rows.image_bytes(), rows.is_whole()), (2, 5, 8, false));
        let (old, new) = rows.iter().last().unwrap();
        let (old, new) = (old.unwrap(), new.unwrap());
        assert_eq!((old.bytes, old.present, old.resolved_json.len()), (&b"c"[..], None, 0));
        assert_eq!((new.bytes, new.present, new.resolved_json[0].0), (&b"dd"[..], after.as_deref(), 1));
        assert!(new.has(0) && !new.has(1) && old.has(1) && rows.before(2).is_none());
        let mut apart = rows.clone();
        apart.retain(|row| row == 1);
        apart.detach();
        assert_eq!((apart.iter().last(), apart.bytes.len()), (rows.iter().last(), 3));
        let (was, is) = (rows.clone(), rows.undoing());
        let pairs: Vec<_> = was.iter().map(|(old, new)| (new, old)).collect();
        assert_eq!(is.iter().collect::<Vec<_>>(), pairs.into_iter().rev().collect::<Vec<_>>());

        let mut places = RowPlaces::default();
        places.push(0..0, 0..1, 2);
        places.push(0..0, 1..2, 2);
        let rows = EventRows::new(ChangeKind::Insert, Bytes::from_static(b"ab"), [None, None], places).unwrap();
        assert!(rows.before(0).is_none() && rows.is_whole());
        assert_eq!(rows.after(1).unwrap().bytes, b"b");
        let mut second = rows.clone();
        second.retain(|row| row == 1);
        assert_eq!((second.len(), second.after(0).unwrap().bytes), (1, &b"b"[..]));
        second.detach();
        assert_eq!((second.before(0), second.after(0).unwrap().bytes, second.bytes.len()), (None, &b"b"[..], 1));
        let undone = rows.undoing();
        assert_eq!(
            (undone.kind(), undone.before(0).unwrap().bytes, undone.after(0)),
            (ChangeKind::Delete, &b"b"[..], None)
        );
    }
}
