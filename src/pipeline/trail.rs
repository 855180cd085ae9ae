//! The hash of a transaction's rows up to some place: the proof with which a mark inside a transaction is stored.
//!
//! A mark says that the first so many rows are done. It can only be read where the transaction comes again with the same
//! rows in the same order, and another server need not log it so: it may cut rows into other events (which changes
//! nothing here), apply them in another order, log other columns, or leave tables out. The hash tells. It is a chain, so
//! that it depends on order, over what came from the source and nothing that is made here.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::dispatch::Change;
use crate::row::{ChangeKind, RowImage};
use crate::schema::BoundTable;

/// Rows of a transaction, as far as they were seen.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    hash: u64,
    /// The last row's table and its name's hash: rows of one table come together.
    table: Option<(Arc<BoundTable>, u64)>,
}

impl Trail {
    /// One row more.
    pub fn add(&mut self, change: &Change) {
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
    pub fn proof(&self) -> u64 {
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
    fn is_stored_and_must_stay_what_it_is() {
        let table = table("a", "t", &[("PRIMARY", &[0])]);
        let changes = [1, 2].map(|id| {
            let row: Cells = [Some(Some(id)), Some(None), Some(Some(0))];
            change(&table, None, Some(row), RowOrdinal(id as u64 - 1))
        });
        assert_eq!(format!("{:016x}", proof(&changes)), "279d77fed556e7aa");
    }
}
