//! Table maps: those of the open statement by id, and the layouts of all that were seen lately.
//!
//! A server sends a table map before each statement's rows, nearly always the same bytes again; a layout is made once and
//! shared. Bounded: when the cache is full it starts anew, which costs one parse a table.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::error::DecodeError;
use super::item::TableFilter;
use super::span::Span;
use crate::model::{Flavor, SourceTable, TableName};
use crate::row::{TableLayout, parse_table_map};

/// Layouts kept.
const CACHED_LAYOUTS: usize = 4096;
/// Bytes before the part of a table map that describes the table: its id and flags.
const ID_AND_FLAGS: usize = 8;

/// A table of the open statement.
#[derive(Debug, Clone)]
pub(super) struct OpenTable {
    pub(super) layout: Arc<TableLayout>,
    /// Whether its rows are wanted.
    pub(super) wanted: bool,
}

#[derive(Debug)]
pub(super) struct Tables {
    flavor: Flavor,
    /// A statement has few tables: a list is quicker than a map.
    open: Vec<(u64, OpenTable)>,
    layouts: HashMap<Box<[u8]>, Arc<TableLayout>, Xxh3DefaultBuilder>,
}

impl Tables {
    pub(super) fn new(flavor: Flavor) -> Self {
        Tables { flavor, open: Vec::new(), layouts: HashMap::default() }
    }

    /// Takes the body of a TABLE_MAP event in.
    pub(super) fn map(&mut self, body: &[u8], filter: &dyn TableFilter, span: &Span) -> Result<(), DecodeError> {
        let Some((head, description)) = body.split_at_checked(ID_AND_FLAGS) else {
            return Err(span.malformed("TABLE_MAP", "it is cut short"));
        };
        let id = table_id(head);
        let layout = match self.layouts.get(description) {
            Some(layout) => layout.clone(),
            None => self.parse(body, description, span)?,
        };
        let table = OpenTable { wanted: filter.wants(&layout.source), layout };
        match self.open.iter_mut().find(|(other, _)| *other == id) {
            Some((_, known)) => *known = table,
            None => self.open.push((id, table)),
        }
        Ok(())
    }

    fn parse(&mut self, body: &[u8], description: &[u8], span: &Span) -> Result<Arc<TableLayout>, DecodeError> {
        let (_, layout) = parse_table_map(self.flavor, body).map_err(|source| DecodeError::Rows {
            table: SourceTable(TableName::new("", "")),
            at: span.start.clone(),
            source,
        })?;
        if self.layouts.len() >= CACHED_LAYOUTS {
            self.layouts.clear();
        }
        let layout = Arc::new(layout);
        self.layouts.insert(description.into(), layout.clone());
        Ok(layout)
    }

    pub(super) fn get(&self, id: u64) -> Option<&OpenTable> {
        self.open.iter().find(|(other, _)| *other == id).map(|(_, table)| table)
    }

    /// The statement is over: its ids mean nothing any more.
    pub(super) fn end_statement(&mut self) {
        self.open.clear();
    }
}

/// The six bytes that table map and rows events begin with; the caller has checked the length.
pub(super) fn table_id(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).rev().fold(0, |id, byte| id << 8 | u64::from(*byte))
}
