//! Bindings: how the rows of a table map onto its table downstream.
//!
//! Where the binlog does not say what a text's bytes mean, the source's own table is asked. What is left uncertain is
//! shown with the task, or stops it: a text that is taken for another would be stored without an error.

use std::sync::Arc;

use super::Intake;
use super::asks::{Answer, Question};
use super::expressions::BoundConditions;
use super::foreign_keys::CascadeRule;
use crate::decode::RowsEvent;
use crate::error::{Code, Failure, Scope};
use crate::model::{Flavor, TargetTable};
use crate::row::{ChangeKind, Column, ColumnKind, TableLayout};
use crate::schema::{
    BindError, BoundTable, ColumnStructure, Encoding, OriginColumn, OriginTable, TableStructure, bind_with,
};

/// Bindings kept; a source with more tables in use binds again now and then.
const BINDINGS: usize = 10_000;
/// The collation number of bytes.
const BINARY: u32 = 63;

/// A table that rows go to.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) table: Arc<BoundTable>,
    /// Other tables that change with it downstream only if foreign keys are checked.
    pub(super) cascade: Option<Arc<CascadeRule>>,
    /// What leaves single rows out.
    pub(super) conditions: Option<Arc<BoundConditions>>,
}

impl Intake {
    /// The binding of an event's table; `None` where the rules do not want it.
    pub(super) async fn binding(&mut self, event: &RowsEvent) -> Result<Option<Binding>, Failure> {
        let declared = match self.declared.is_empty() {
            true => None,
            false => self.declared.at(&event.layout.source, &event.span.start()).map(|(number, _)| number),
        };
        let place = (Arc::as_ptr(&event.layout) as usize, declared);
        if let Some((_, binding)) = self.bindings.get(&place) {
            return Ok(binding.clone());
        }
        let binding = match self.transform.table(&event.layout.source)? {
            None => None,
            Some(target) => match self.bind(event, &target).await {
                Ok(bound) => {
                    let cascade = self.cascade_rule(&bound).await?;
                    let conditions = self.conditions(&bound).map_err(|failure| failure.at(self.place(event)))?;
                    Some(Binding { table: Arc::new(bound), cascade, conditions })
                }
                Err(failure) if failure.known_code() == Some(Code::NoDownstreamTable) && is_sequence(&event.layout) => {
                    let source = &event.layout.source;
                    tracing::warn!(table = %source, "a sequence that the downstream does not have is left out");
                    let note = format!(
                        "{source} is a MariaDB sequence, and sequences are not replicated: its state is left out. \
                         Create it downstream by hand (MariaDB only) to have it follow"
                    );
                    self.progress.send_if_modified(|progress| progress.notes.insert(note));
                    None
                }
                Err(failure) => return Err(failure.at(self.place(event))),
            },
        };
        if self.bindings.len() >= BINDINGS {
            self.bindings.clear();
        }
        self.bindings.insert(place, (Arc::clone(&event.layout), binding.clone()));
        Ok(binding)
    }

    async fn bind(&mut self, event: &RowsEvent, target: &TargetTable) -> Result<BoundTable, Failure> {
        let Answer::Structure(structure) = self.asks.retried(Question::Structure(target)).await? else {
            return Err(Failure::new(Code::ReadDownstreamTable, format!("no structure of {target}")));
        };
        let origin = match self.declared_origin(event, &structure) {
            Some(declared) => Some(declared),
            None => self.origin_of(event, target, &structure).await,
        };
        let bound = bind_with(&event.layout, target, &structure, self.downstream.dialect, origin.as_ref());
        if let Ok(BoundTable { identity: None, .. }) = &bound
            && self.tables.is_none()
        {
            let message = format!(
                "target table {target} has no key, and positions cannot be kept downstream: after an interruption its rows would come twice"
            );
            return Err(Failure::new(Code::ConfigTask, message).scope(Scope::Downstream).workaround(
                "Please grant CREATE on the task's meta-schema, give the table a primary key, or leave it out by the \
                 block-allow-list; then resume-task.",
            ));
        }
        let mut bound = bound.map_err(|error| {
            let failure = bind_failure(&error, event, target);
            match missed(&error, origin.as_ref(), &structure) {
                Some(name) => failure.cause(format!("Error 1054 (42S22): Unknown column '{name}' in 'field list'")),
                None => failure,
            }
        })?;
        if self.transform.is_selective(&event.layout.source, target) {
            bound.make_selective();
        }
        self.note_charsets(&bound);
        if let Some(rule) = self.mappings.settle(&mut bound)?
            && let Some(tables) = &self.tables
        {
            // Before the first change is dealt out by it.
            let name = &target.0;
            let sql = tables.write_mapping(self.epoch, &name.schema, &name.table, &rule);
            self.asks.retried(Question::Store(&sql)).await?;
        }
        Ok(bound)
    }

    /// What leaves single rows of the table out.
    fn conditions(&self, bound: &BoundTable) -> Result<Option<Arc<BoundConditions>>, Failure> {
        let conditions = self.transform.conditions(&bound.source);
        BoundConditions::bind(conditions, bound, |text, name| {
            self.note(format!(
                "expression filter `{text}` of {} leaves nothing out: the table has no column `{name}`",
                bound.source
            ));
        })
    }

    /// What an operator declared of the table. Where the source writes names, there is nothing to declare.
    fn declared_origin(&self, event: &RowsEvent, structure: &TableStructure) -> Option<OriginTable> {
        let source = &event.layout.source;
        let (_, declared) = self.declared.at(source, &event.span.start())?;
        if event.layout.names.is_some() {
            self.note(format!(
                "what `binlog-schema update` says of {source} has no effect: the source writes the names of its columns"
            ));
            return None;
        }
        Some(declared.origin(structure))
    }

    /// What the source says of the table, where its binlog leaves out something that decides what is written.
    async fn origin_of(
        &mut self,
        event: &RowsEvent,
        target: &TargetTable,
        structure: &TableStructure,
    ) -> Option<OriginTable> {
        let (layout, source) = (&event.layout, &event.layout.source);
        let flavor = self.origin.flavor;
        let texts = structure.columns.iter().any(|column| column.charset.is_some());
        let unsaid = texts && layout.columns.iter().any(|column| is_unsaid(column, flavor, &structure.columns));
        // Where the copy took the rows by name, the binlog's go on so.
        let values = layout.columns.len();
        let uneven = self.copies && layout.names.is_none() && structure.columns.len() != values;
        if !unsaid && !uneven {
            return None;
        }
        let Some(found) = self.origin.columns(source).await else {
            if layout.columns.iter().any(|column| column.collation.is_none() && is_textual(column)) {
                self.note(format!(
                    "the binlog does not say in which character sets the texts of {source} are, and the source does not \
                     show the table to this account: they are taken to be as in {target} (binlog_row_metadata=MINIMAL on \
                     the source, or SELECT on its tables, makes that certain)"
                ));
            }
            return None;
        };
        let column = |column: crate::upstream::SourceColumn| OriginColumn {
            name: column.name,
            data_type: column.data_type,
            charset: column.charset,
            unsigned: None,
        };
        // In the same second, it may have changed before or after.
        let holds = found.changed.is_some_and(|changed| changed < u64::from(event.timestamp));
        let columns: Vec<OriginColumn> = found.columns.into_iter().map(column).collect();
        let by_name = uneven && holds && columns.len() == values;
        Some(OriginTable { columns, holds, by_name })
    }

    fn note_charsets(&self, bound: &BoundTable) {
        for column in &bound.columns {
            if let Encoding::Utf8Or(other) = column.encoding {
                self.note(format!(
                    "the binlog does not say in which character set {}.{} was, and the source has altered it since: its \
                     texts are read as UTF-8 where they are valid, else as {other}",
                    bound.source, column.quoted
                ));
            }
        }
    }

    pub(super) fn note(&self, note: String) {
        self.progress.send_if_modified(|progress| progress.note(note));
    }
}

fn is_textual(column: &Column) -> bool {
    use ColumnKind as K;
    matches!(
        column.kind,
        K::Char { .. } | K::VarChar { .. } | K::Blob { .. } | K::CompressedVarChar { .. } | K::CompressedBlob { .. }
    )
}

/// Whether the binlog leaves out what a column's bytes mean: a text's character set, or that they are no text but one of
/// MariaDB's types that have no number of their own.
fn is_unsaid(column: &Column, flavor: Flavor, structure: &[ColumnStructure]) -> bool {
    let own_type = |column: &ColumnStructure| matches!(&*column.data_type, "uuid" | "inet4" | "inet6");
    let untyped = matches!(column.kind, ColumnKind::Char { max_bytes: 4 | 16 })
        && column.collation.is_none_or(|collation| collation == BINARY)
        && flavor == Flavor::MariaDb
        && !structure.iter().any(own_type);
    untyped || (is_textual(column) && column.collation.is_none())
}

/// A column that the target would miss in an INSERT, where it is known by name: its words tell an operator more than a
/// count of columns. The source's table has as many columns now as the rows have.
fn missed(error: &BindError, origin: Option<&OriginTable>, structure: &TableStructure) -> Option<String> {
    match error {
        BindError::NoSuchColumn { name } => Some(name.clone()),
        BindError::ColumnCount { columns, values } if values > columns => {
            let now = origin.filter(|origin| origin.columns.len() == *values)?;
            let here = |name: &str| structure.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
            now.columns.iter().find(|column| !here(&column.name)).map(|column| column.name.clone())
        }
        _ => None,
    }
}

fn bind_failure(error: &BindError, event: &RowsEvent, target: &TargetTable) -> Failure {
    if let BindError::NeitherKeyNorTransactions { .. } = error {
        let remedy = format!(
            "Please run ALTER TABLE {target} ENGINE=InnoDB downstream, or give it a primary key, then resume-task."
        );
        return Failure::new(Code::ConfigTask, format!("target table {target}: {error}"))
            .scope(Scope::Downstream)
            .workaround(remedy);
    }
    let verb = match event.rows.kind() {
        ChangeKind::Insert => "insert",
        ChangeKind::Update => "update",
        ChangeKind::Delete => "delete",
    };
    let source = &event.layout.source;
    let failure = Failure::new(
        Code::ColumnCount,
        format!("gen {verb} sqls failed, sourceTable: {source}, targetTable: {target}: {error}"),
    );
    match error {
        BindError::CharsetUnknown { .. } => failure.workaround(
            "Please set binlog_row_metadata=MINIMAL on the source, copy the table anew, and start the task behind that; \
             or leave the table out by the block-allow-list.",
        ),
        _ => failure,
    }
}

/// Whether a table has the one shape that MariaDB gives every sequence: its values in eight columns, none of them NULL.
/// A table that looks like this by chance is taken for one only where the downstream does not have it.
fn is_sequence(layout: &TableLayout) -> bool {
    use ColumnKind::{BigInt, TinyInt};
    let shape = [BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, TinyInt, BigInt];
    let columns = &layout.columns;
    let names = ["next_not_cached_value", "minimum_value", "maximum_value", "start_value", "increment"];
    columns.len() == shape.len()
        && columns.iter().zip(shape).all(|(column, kind)| column.kind == kind && !column.nullable)
        && layout.names.iter().all(|all| names.iter().zip(all.iter()).all(|(known, name)| **known == **name))
}
