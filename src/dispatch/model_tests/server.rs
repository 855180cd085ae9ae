//! A server with three tables that enforces its keys statement by statement.

use std::collections::BTreeMap;

use crate::dispatch::Change;
use crate::dispatch::testing::{COLUMNS, Cells, cells};
use crate::row::{ChangeKind, RowImage};
use crate::schema::BoundTable;

pub(super) type Row = [Option<i32>; COLUMNS];

/// What keys all tables of a run have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// Lanes by runs of neighbouring keys.
    Primary,
    /// Lanes by a key's hash.
    Hashed,
    /// One lane a table.
    PrimaryAndUnique,
    /// Lanes by half of the key.
    Composite,
    /// Row by row.
    None,
}

impl Keys {
    pub(super) fn list(self) -> &'static [(&'static str, &'static [usize])] {
        match self {
            Keys::Primary | Keys::Hashed => &[("PRIMARY", &[0])],
            Keys::PrimaryAndUnique => &[("PRIMARY", &[0]), ("u", &[1])],
            Keys::Composite => &[("PRIMARY", &[0, 2])],
            Keys::None => &[],
        }
    }
}

/// A downstream. Rows by table; every statement must find its row and break no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    keys: Keys,
    pub(super) tables: BTreeMap<String, Vec<Row>>,
}

impl Server {
    pub(super) fn new(keys: Keys) -> Self {
        Server { keys, tables: BTreeMap::new() }
    }

    pub(super) fn rows(&mut self, table: &str) -> &mut Vec<Row> {
        self.tables.entry(table.to_owned()).or_default()
    }

    /// Whether `row` may stand beside the others; NULL is equal to nothing.
    pub(super) fn fits(&self, table: &str, row: &Row) -> bool {
        let rows = self.tables.get(table).map_or(&[][..], Vec::as_slice);
        let equal = |other: &Row, key: &[usize]| key.iter().all(|&at| row[at].is_some() && row[at] == other[at]);
        self.keys.list().iter().all(|(_, key)| !rows.iter().any(|other| equal(other, key)))
    }

    /// The row that a WHERE with the image's key, or with all of it, finds.
    fn find(&mut self, table: &BoundTable, image: RowImage<'_>) -> Option<usize> {
        let wanted = cells(table, image);
        let places: Vec<usize> = table.identity.clone().unwrap_or_else(|| (0..COLUMNS).collect());
        let same = |row: &Row| places.iter().all(|&at| wanted[at].expect("a WHERE needs the whole key") == row[at]);
        self.rows(&name(table)).iter().position(same)
    }

    pub(super) fn insert(&mut self, table: &BoundTable, after: RowImage<'_>) {
        let row = merged([None, None, Some(0)], cells(table, after));
        let name = name(table);
        assert!(self.fits(&name, &row), "duplicate entry: {row:?} into {name} {:?}", self.tables.get(&name));
        self.rows(&name).push(row);
    }

    pub(super) fn delete(&mut self, table: &BoundTable, before: RowImage<'_>) {
        let at = self.find(table, before);
        let at = at.unwrap_or_else(|| panic!("no row to delete: {:?} in {:?}", cells(table, before), self.tables));
        self.rows(&name(table)).swap_remove(at);
    }

    /// `found_by` is what the WHERE, or the upsert's key, is made of.
    pub(super) fn update(&mut self, table: &BoundTable, found_by: RowImage<'_>, after: RowImage<'_>) {
        let at = self.find(table, found_by);
        let at = at.unwrap_or_else(|| panic!("no row to update: {:?} in {:?}", cells(table, found_by), self.tables));
        let name = name(table);
        let old = self.rows(&name).swap_remove(at);
        let row = merged(old, cells(table, after));
        assert!(self.fits(&name, &row), "duplicate entry: {old:?} to {row:?} in {name}");
        self.rows(&name).push(row);
    }

    pub(super) fn change(&mut self, change: &Change) {
        match (change.kind(), change.before(), change.after()) {
            (ChangeKind::Insert, _, Some(after)) => self.insert(change.table(), after),
            (ChangeKind::Delete, Some(before), _) => self.delete(change.table(), before),
            (ChangeKind::Update, Some(before), Some(after)) => self.update(change.table(), before, after),
            _ => panic!("a change without its image"),
        }
    }

    pub(super) fn sorted(mut self) -> Self {
        self.tables.values_mut().for_each(|rows| rows.sort());
        self.tables.retain(|_, rows| !rows.is_empty());
        self
    }
}

pub(super) fn name(table: &BoundTable) -> String {
    table.target.to_string()
}

fn merged(mut row: Row, cells: Cells) -> Row {
    for (at, cell) in cells.into_iter().enumerate() {
        row[at] = cell.unwrap_or(row[at]);
    }
    row
}
