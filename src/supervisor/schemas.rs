//! Commands on the structures of tables: `binlog-schema list`, `update`, `delete`, and the lists behind them.
//!
//! There is no schema tracker: a row goes to the downstream table as that is. So the structure of a table is what the
//! downstream shows, unless an operator declared another one; and what can be declared is which columns the source's rows
//! have. It is stored before it is answered, and counts from the next resume on.

use std::collections::BTreeSet;

use mysql_async::Conn;
use serde::Serialize;

use super::endpoint::endpoint;
use super::recipe::{StoredRecipe, compile};
use super::start::connect;
use super::{Supervisor, TaskKey, read};
use crate::error::{Code, Failure, Scope};
use crate::model::{SourceTable, TableName};
use crate::mysql::{Connector, show_create_table};
use crate::pipeline::{DeclaredColumn, DeclaredStore};
use crate::task::{Stage, TaskHandle};
use crate::transform::{Transform, create_columns};
use crate::upstream::source_tables;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaOp {
    /// A table's structure.
    Show,
    /// To declare one.
    Declare(Structure),
    /// To take that back.
    Withdraw,
    /// The databases with tables of the task.
    Databases,
    /// The tables of the task in one of them.
    Tables,
    /// All tables of the task, and where their rows go.
    Targets,
}

/// Where a structure comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Structure {
    /// This CREATE TABLE statement.
    Text(String),
    /// The source's table as it is now.
    OfSource,
    /// The downstream's.
    OfTarget,
}

/// binlog-schema.
#[derive(Debug, Clone)]
pub struct SchemaOrder {
    /// What is wanted.
    pub op: SchemaOp,
    /// Task name.
    pub task: String,
    /// Database on the source.
    pub database: String,
    /// Table on the source.
    pub table: String,
}

/// A table of the task, as DM lists it.
#[derive(Serialize)]
struct Migrated {
    source_schema: String,
    source_table: String,
    target_schema: String,
    target_table: String,
}

impl Supervisor {
    /// Answers a text: a structure, a list in JSON, or nothing.
    pub async fn order_schema(&self, source_id: &str, order: &SchemaOrder) -> Result<String, Failure> {
        self.admit()?;
        let key: TaskKey = (source_id.to_owned(), order.task.clone());
        let found = read(&self.inner.tasks).get(&key).map(|entry| (entry.handle.clone(), entry.recipe.clone()));
        let Some((handle, recipe)) = found else {
            let text = format!("sub task with name {} not found", order.task);
            return Err(Failure::new(Code::SubTaskNotFound, text));
        };
        let stage = handle.status().stage;
        if stage != Stage::Paused && !(stage == Stage::Running && order.op == SchemaOp::Targets) {
            let text = format!("current stage is {} but not paused, invalid", stage.as_str());
            return Err(Failure::new(Code::NotPaused, text));
        }
        let (_, transform) = compile(&recipe.subtask()?, recipe.flavor())?;
        let table = SourceTable(TableName::new(order.database.as_str(), order.table.as_str()));
        match &order.op {
            SchemaOp::Show => match recipe.declared().load().await?.of(&table) {
                Some(declared) => Ok(on_one_line(&declared.text)),
                None => {
                    let text = self.target_structure(&recipe, &transform, &table).await?;
                    Ok(on_one_line(&text))
                }
            },
            SchemaOp::Declare(_) if transform.table(&table)?.is_none() => {
                let text = format!("table {table} is not replicated by this task: its structure would have no effect");
                Err(Failure::new(Code::ConfigTask, text)
                    .workaround("Please check database and table, or the block-allow-list of the task."))
            }
            SchemaOp::Declare(structure) => {
                let text = match structure {
                    Structure::Text(text) => text.clone(),
                    Structure::OfTarget => self.target_structure(&recipe, &transform, &table).await?,
                    Structure::OfSource => {
                        let mut conn = self.source_conn(source_id).await?;
                        show_create_table(&mut conn, &table.0, Scope::Upstream).await?
                    }
                };
                self.declare(&recipe, &handle, table, text).await
            }
            SchemaOp::Withdraw => {
                tracing::warn!(task = %order.task, source = source_id, %table, "what was declared of it is taken back");
                recipe.declared().change(Box::new(move |all| all.withdraw(&table))).await?;
                self.begin_anew_if_resumed(&handle).await
            }
            SchemaOp::Databases => {
                let tables = self.migrated(source_id, &transform).await?;
                list(&tables.into_iter().map(|one| one.source_schema).collect::<BTreeSet<_>>())
            }
            SchemaOp::Tables => {
                let tables = self.migrated(source_id, &transform).await?.into_iter();
                let of = tables.filter(|one| one.source_schema == order.database);
                list(&of.map(|one| one.source_table).collect::<Vec<_>>())
            }
            SchemaOp::Targets => list(&self.migrated(source_id, &transform).await?),
        }
    }

    async fn declare(
        &self,
        recipe: &StoredRecipe,
        handle: &TaskHandle,
        table: SourceTable,
        text: String,
    ) -> Result<String, Failure> {
        let column = |column: crate::transform::CreateColumn| DeclaredColumn {
            name: column.name,
            data_type: column.data_type,
            unsigned: column.unsigned,
            charset: column.charset,
        };
        let columns: Vec<_> = create_columns(&text, recipe.flavor())?.into_iter().map(column).collect();
        tracing::warn!(%table, columns = columns.len(), "a table's structure is declared by binlog-schema (flush table info)");
        let declare = move |all: &mut crate::pipeline::DeclaredTables| {
            all.declare(&table, text, columns);
            true
        };
        recipe.declared().change(Box::new(declare)).await?;
        self.begin_anew_if_resumed(handle).await
    }

    /// A resume may have come in between, and then it does not know of the change.
    async fn begin_anew_if_resumed(&self, handle: &TaskHandle) -> Result<String, Failure> {
        if handle.status().stage != Stage::Paused {
            handle.renew().await?;
        }
        Ok(String::new())
    }

    async fn source_conn(&self, source_id: &str) -> Result<Conn, Failure> {
        connect(&self.source(source_id)?.settings().receive.endpoint).await
    }

    /// How the table that a source's table goes to is made, under the source's name.
    async fn target_structure(
        &self,
        recipe: &StoredRecipe,
        transform: &Transform,
        table: &SourceTable,
    ) -> Result<String, Failure> {
        let target = transform.table(table)?.map_or_else(|| table.0.clone(), |target| target.0);
        let connector = Connector::new(endpoint(&recipe.subtask()?.to, self.key().as_ref()));
        let connected = connector.connect().await;
        let mut conn = connected.map_err(|error| connector.failure(&error, Scope::Downstream))?;
        let text = show_create_table(&mut conn, &target, Scope::Downstream).await?;
        let name = |name: &str| format!("CREATE TABLE `{}`", name.replace('`', "``"));
        Ok(match text.strip_prefix(&name(&target.table)) {
            Some(rest) => format!("{}{rest}", name(&table.0.table)),
            None => text,
        })
    }

    /// Tables of the source that the task wants, in order.
    async fn migrated(&self, source_id: &str, transform: &Transform) -> Result<Vec<Migrated>, Failure> {
        let mut conn = self.source_conn(source_id).await?;
        let mut migrated = Vec::new();
        for source in source_tables(&mut conn).await? {
            if let Some(target) = transform.table(&source)? {
                migrated.push(Migrated {
                    source_schema: source.0.schema.to_string(),
                    source_table: source.0.table.to_string(),
                    target_schema: target.0.schema.to_string(),
                    target_table: target.0.table.to_string(),
                });
            }
        }
        Ok(migrated)
    }

    /// What is declared of places that the checkpoint has passed is forgotten.
    pub(super) async fn pass_declared(&self) {
        let tasks: Vec<_> = read(&self.inner.tasks)
            .values()
            .filter(|entry| entry.recipe.declared().has_any())
            .map(|entry| (entry.handle.clone(), entry.recipe.clone()))
            .collect();
        for (handle, recipe) in tasks {
            let Some(flushed) = handle.status().flushed else { continue };
            let position = flushed.0.position;
            // Where it cannot be stored it is tried again at the next look.
            let _ = recipe.declared().change(Box::new(move |all| all.pass(&position))).await;
        }
    }
}

fn list(values: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(values).map_err(|error| Failure::new(Code::NotSet, "list tables").cause(error.to_string()))
}

/// A definition as DM shows it: each line of it behind one space.
fn on_one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let own = line.trim_start_matches([' ', '\t']);
        if own.len() < line.len() {
            out.push(' ');
        }
        out.push_str(own.trim_end_matches('\r'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_is_on_one_line_as_recorded() {
        let recorded = include_str!("../../tests/golden/dmctl/binlog-schema-list.txt");
        let shown = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL,\n  `v` varchar(20) DEFAULT NULL,\n  PRIMARY KEY \
                     (`id`)\n) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci";
        assert!(recorded.contains(&format!("\"msg\": \"{}\"", on_one_line(shown))), "{}", on_one_line(shown));
    }
}
