//! The hash of a transaction's rows up to some place: the proof with which a mark inside a transaction is stored.
//!
//! A mark says that the first so many rows are done. It can only be read where the transaction comes again with the same
//! rows in the same order, and another server need not log it so: it may cut rows into other events (which changes
//! nothing here), apply them in another order, log other columns, or leave tables out. The hash tells. It is a chain, so
//! that it depends on order, over what came from the source and nothing that is made here.
//!
//! Hardly any transaction is cut, so its first rows are only remembered until someone asks or they are many.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::dispatch::Change;
use crate::row::{ChangeKind, RowImage};
use crate::schema::BoundTable;

/// Changes remembered before they are hashed, while they are still at hand, and bytes of their images.
const REMEMBERED: usize = 64;
const REMEMBERED_BYTES: usize = 64 << 10;

/// Rows of a transaction, as far as they were seen.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    hash: u64,
    /// Those that came since and are not in it yet.
    rest: Vec<Change>,
    rest_bytes: usize,
    /// The last row's table and its name's hash: rows of one table come together.
    table: Option<(Arc<BoundTable>, u64)>,
}

impl Trail {
    /// One row more.
    pub fn add(&mut self, change: &Change) {
        self.rest.push(change.clone());
        self.rest_bytes += change.bytes();
        if self.rest.len() >= REMEMBERED || self.rest_bytes >= REMEMBERED_BYTES {
            self.catch_up();
        }
    }

    fn catch_up(&mut self) {
        let mut rest = std::mem::take(&mut self.rest);
        rest.drain(..).for_each(|change| self.hash(&change));
        (self.rest, self.rest_bytes) = (rest, 0);
    }

    fn hash(&mut self, change: &Change) {
        let kind = match change.kind() {
            ChangeKind::Insert => 1,
            ChangeKind::Update => 2,
            ChangeKind::Delete => 3,
        };
        let start = (self.hash ^ self.name(change.table())).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(kind);
        let before = image(start, change.before());
        self.hash = image(before, change.after());
    }

    /// The proof of a mark behind the last row.
    pub fn proof(&mut self) -> u64 {
        self.catch_up();
        self.hash
    }

    fn name(&mut self, table: &Arc<BoundTable>) -> u64 {
        match &self.table {
            Some((known, hash)) if Arc::ptr_eq(known, table) => *hash,
            _ => {
                let name = &table.source.0;
                let hash = xxh3_64_with_seed(name.table.as_bytes(), xxh3_64(name.schema.as_bytes()));
                self.table = Some((Arc::clone(table), hash));
                hash
            }
        }
    }
}

/// The columns that are there, and their values; an image that is not there differs from an empty one.
fn image(seed: u64, image: Option<RowImage<'_>>) -> u64 {
    let Some(RowImage { present, bytes, .. }) = image else { return seed.rotate_left(17) };
    let seed = match present {
        None => seed,
        Some(columns) => {
            let columns: Vec<u8> = columns.iter().map(|&there| u8::from(there)).collect();
            xxh3_64_with_seed(&columns, seed)
        }
    };
    xxh3_64_with_seed(bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::testing::{Cells, change, table};
    use crate::model::RowOrdinal;

    fn proof(changes: &[Change]) -> u64 {
        let mut trail = Trail::default();
        changes.iter().for_each(|change| trail.add(change));
        trail.proof()
    }

    #[test]
    fn any_difference_shows() {
        let (a, b) = (table("a", "t", &[("PRIMARY", &[0])]), table("b", "t", &[("PRIMARY", &[0])]));
        let row = |id: i32| -> Cells { [Some(Some(id)), Some(None), Some(Some(0))] };
        let key: Cells = [Some(Some(1)), None, None];
        let one = |table, before, after| change(table, before, after, RowOrdinal::default());
        let cases = [
            vec![],
            vec![one(&a, None, Some(row(1)))],
            vec![one(&b, None, Some(row(1)))],
            vec![one(&a, Some(row(1)), None)],
            vec![one(&a, Some(row(1)), Some(row(1)))],
            vec![one(&a, Some(key), Some(row(1)))],
            vec![one(&a, None, Some(row(1))), one(&a, None, Some(row(2)))],
            vec![one(&a, None, Some(row(2))), one(&a, None, Some(row(1)))],
            vec![one(&a, None, Some(row(1))), one(&b, None, Some(row(2)))],
        ];
        let mut seen: Vec<u64> = cases.iter().map(|changes| proof(changes)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), cases.len());
    }

    #[test]
    fn is_the_same_however_often_it_is_asked() {
        let table = table("a", "t", &[("PRIMARY", &[0])]);
        let insert = |id: i32| change(&table, None, Some([Some(Some(id)), Some(None), Some(Some(0))]), RowOrdinal(0));
        let (mut once, mut often) = (Trail::default(), Trail::default());
        let mut seen = std::collections::HashSet::new();
        for id in 0..2 * REMEMBERED as i32 + 2 {
            once.add(&insert(id));
            often.add(&insert(id));
            assert!(seen.insert(often.proof()) && often.rest.is_empty() && once.rest.len() < REMEMBERED);
        }
        assert_eq!((once.rest.len(), once.rest_bytes), (2, 18));
        assert_eq!(once.proof(), often.proof());
    }

    #[test]
    fn is_stored_and_must_stay_what_it_is() {
        let table = table("a", "t", &[("PRIMARY", &[0])]);
        let changes = [1, 2].map(|id| {
            let row: Cells = [Some(Some(id)), Some(None), Some(Some(0))];
            change(&table, None, Some(row), RowOrdinal(id as u64 - 1))
        });
        assert_eq!(format!("{:016x}", proof(&changes)), "279d77fed556e7aa");
    }
}
