//! What is kept of a subtask on this machine: why it is parked, and where it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::{BegunDdl, CopyStatus, Park, ParkReason, Unit};
use crate::error::Failure;
use crate::meta::StoredMark;
use crate::model::{RowMark, SourceTable, TableName};
use crate::pipeline::{CopyPhase, CopyProgress, Doing, TableProgress};
use crate::store::{Changes, Namespace};

/// Stored under the subtask's key. Locations are for the status only: what a restart goes on from is stored downstream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ParkRecord {
    /// Why it is parked.
    pub parks: BTreeMap<ParkReason, Park>,
    /// What it failed with.
    pub failures: Vec<Failure>,
    /// Applied for certain.
    pub applied: Option<StoredMark>,
    /// In DM's row.
    pub flushed: Option<StoredMark>,
    /// The source's clock at the oldest change that waited, seconds since the epoch; `None` when nothing did.
    #[serde(default)]
    pub waiting_since: Option<f64>,
    /// DDL that was sent downstream and of whose end nothing is known.
    #[serde(default)]
    pub ddl: Option<BegunDdl>,
    /// What part of its work it is at.
    #[serde(default)]
    pub unit: Unit,
    /// How far the copy of existing rows was.
    #[serde(default)]
    pub copy: Option<CopyStatus>,
    /// Tables that an operator wants read again, and that no pipeline has taken in yet.
    #[serde(default)]
    pub orders: Vec<TableOrder>,
    /// Tables that were waiting to be read again.
    #[serde(default)]
    pub again: Vec<String>,
    /// It has come to its own end (mode `full`).
    #[serde(default)]
    pub finished: bool,
}

/// A table of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOrder {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
}

impl TableOrder {
    /// As the pipeline knows it.
    pub fn table(&self) -> SourceTable {
        SourceTable(TableName::new(self.schema.as_str(), self.table.as_str()))
    }
}

impl From<&SourceTable> for TableOrder {
    fn from(table: &SourceTable) -> Self {
        TableOrder { schema: table.0.schema.to_string(), table: table.0.table.to_string() }
    }
}

impl ParkRecord {
    /// Takes in what a pipeline does.
    pub fn take_doing(&mut self, doing: &Doing) {
        match doing {
            Doing::Looking => {}
            Doing::Ending(copy) => {
                self.unit = Unit::Load;
                self.copy = copy.as_deref().map(copied).or(self.copy.take());
            }
            Doing::Following => (self.unit, self.copy) = (Unit::Sync, None),
            // Until a new start has found out how far the copy is, what was known stays.
            Doing::Copying(copy) if copy.from.is_none() && self.copy.is_some() => {}
            Doing::Copying(copy) => {
                self.unit = if copy.phase == CopyPhase::Prepare { Unit::Dump } else { Unit::Load };
                self.copy = Some(copied(copy));
            }
        }
    }
}

/// Between source id and task name in a key: a character that neither has.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// Where a subtask's records stand in a namespace.
pub fn record_key(source_id: &str, task: &str) -> String {
    format!("{source_id}{KEY_SEPARATOR}{task}")
}

/// Removes what is kept of a subtask beside its record: why it was parked, what was ordered about events, and what was
/// declared of tables.
pub fn forget(changes: Changes, source_id: &str, task: &str) -> Changes {
    let key = record_key(source_id, task);
    changes.remove(Namespace::Park, &key).remove(Namespace::Operator, &key).remove(Namespace::Schema, &key)
}

fn copied(copy: &CopyProgress) -> CopyStatus {
    let named = |table: &TableProgress| (table.table.to_string(), table.rows, table.estimate);
    CopyStatus {
        from: copy.from.clone().map(|location| (&RowMark::at(location)).into()),
        tables: copy.tables_total,
        tables_done: copy.tables_done,
        rows: copy.rows_estimated,
        rows_written: copy.rows_written,
        bytes: copy.bytes_estimated,
        bytes_read: copy.bytes_read,
        bytes_written: copy.bytes_written,
        made: copy.made,
        at_work: copy.at_work.iter().map(named).collect(),
        ..CopyStatus::default()
    }
}
