//! Table maps: those of the open statement by id, and the layouts of all that were seen lately.
//!
//! A server sends a table map before each statement's rows, nearly always the same bytes again; a layout is made once and
//! shared. It is known again by the table's id, and where a server has opened the table anew under another id, by the
//! bytes that describe it. Bounded: when a cache is full it starts anew, which costs one parse a table.

use std::sync::Arc;

use hashbrown::HashMap;

use super::error::DecodeError;
use super::item::TableFilter;
use crate::model::{EventSpan, Flavor, SourceTable, TableName};
use crate::row::{TableLayout, parse_table_map};

/// Layouts kept, and ids.
const CACHED_LAYOUTS: usize = 4096;
/// Bytes before the part of a table map that describes the table: its id and flags.
const ID_AND_FLAGS: usize = 8;

/// Tables known from one statement to the next without a look into a map.
const RECENT: usize = 8;

/// A table of the open statement.
#[derive(Debug, Clone)]
pub(super) struct OpenTable {
    pub(super) layout: Arc<TableLayout>,
    /// Whether its rows are wanted.
    pub(super) wanted: bool,
}

/// A table of this or a former statement, under the id that it had there.
#[derive(Debug)]
struct Recent {
    id: u64,
    /// It is one of the open statement's: elsewhere the id means nothing.
    open: bool,
    said: Described,
}

/// What a table map said.
#[derive(Debug, Clone)]
struct Described {
    description: Arc<[u8]>,
    table: OpenTable,
}

#[derive(Debug)]
pub(super) struct Tables {
    flavor: Flavor,
    /// A statement has few tables: a list is quicker than a map.
    recent: Vec<Recent>,
    /// The last description under each id.
    ids: HashMap<u64, Described>,
    layouts: HashMap<Arc<[u8]>, OpenTable>,
}

impl Tables {
    pub(super) fn new(flavor: Flavor) -> Self {
        Tables { flavor, recent: Vec::new(), ids: HashMap::new(), layouts: HashMap::new() }
    }

    /// Takes the body of a TABLE_MAP event in.
    pub(super) fn map(&mut self, body: &[u8], filter: &dyn TableFilter, span: &EventSpan) -> Result<(), DecodeError> {
        let Some((head, description)) = body.split_at_checked(ID_AND_FLAGS) else {
            return Err(span.malformed("TABLE_MAP", "it is cut short"));
        };
        let id = table_id(head);
        let recent = self.recent.iter().position(|recent| recent.id == id);
        if let Some(at) = recent
            && *self.recent[at].said.description == *description
        {
            self.recent[at].open = true;
            return Ok(());
        }
        let said = match self.ids.get(&id) {
            Some(known) if *known.description == *description => known.clone(),
            _ => self.other(id, body, description, filter, span)?,
        };
        let now = Recent { id, open: true, said };
        if let Some(at) = recent {
            self.recent[at] = now;
            return Ok(());
        }
        if self.recent.len() >= RECENT
            && let Some(oldest) = self.recent.iter().position(|recent| !recent.open)
        {
            self.recent.remove(oldest);
        }
        self.recent.push(now);
        Ok(())
    }

    /// One that was not described so under its id before.
    fn other(
        &mut self,
        id: u64,
        body: &[u8],
        description: &[u8],
        filter: &dyn TableFilter,
        span: &EventSpan,
    ) -> Result<Described, DecodeError> {
        let (description, table) = match self.layouts.get_key_value(description) {
            Some((description, table)) => (Arc::clone(description), table.clone()),
            None => self.parse(body, description, filter, span)?,
        };
        if self.ids.len() >= CACHED_LAYOUTS {
            self.ids.clear();
        }
        let said = Described { description, table };
        self.ids.insert(id, said.clone());
        Ok(said)
    }

    fn parse(
        &mut self,
        body: &[u8],
        description: &[u8],
        filter: &dyn TableFilter,
        span: &EventSpan,
    ) -> Result<(Arc<[u8]>, OpenTable), DecodeError> {
        let (_, layout) = parse_table_map(self.flavor, body).map_err(|source| DecodeError::Rows {
            table: SourceTable(TableName::new("", "")),
            at: span.start(),
            source,
        })?;
        if self.layouts.len() >= CACHED_LAYOUTS {
            self.layouts.clear();
        }
        let table = OpenTable { wanted: filter.wants(&layout.source), layout: Arc::new(layout) };
        let description: Arc<[u8]> = description.into();
        self.layouts.insert(Arc::clone(&description), table.clone());
        Ok((description, table))
    }

    pub(super) fn get(&self, id: u64) -> Option<&OpenTable> {
        self.recent.iter().find(|recent| recent.open && recent.id == id).map(|recent| &recent.said.table)
    }

    /// The statement is over: its ids mean nothing any more.
    pub(super) fn end_statement(&mut self) {
        self.recent.truncate(RECENT);
        self.recent.iter_mut().for_each(|recent| recent.open = false);
    }
}

/// The six bytes that table map and rows events begin with; the caller has checked the length.
pub(super) fn table_id(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).rev().fold(0, |id, byte| id << 8 | u64::from(*byte))
}
