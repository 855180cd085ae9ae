//! What a downstream table looks like, from `information_schema`.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::downstream::limited;
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::model::{TableName, TargetTable};
use crate::mysql::quote;
use crate::schema::{ColumnStructure, KeyStructure, TableStructure};

/// What is asked of a column; `column` reads it.
const COLUMN: &str = "column_name, data_type, column_type, is_nullable, character_set_name, collation_name, extra";

/// Reads columns and unique keys; `NoDownstreamTable` where the table is not there.
pub async fn fetch_structure(conn: &mut Conn, table: &TargetTable) -> Result<TableStructure, Failure> {
    let doing = format!("read the structure of {table}");
    let failed = |error| driver_failure(&error, Code::ReadDownstreamTable, Scope::Downstream, &doing);
    let filter = format!("table_schema={} AND table_name={}", quote(&table.0.schema), quote(&table.0.table));
    let columns: Vec<Row> = limited(
        conn.query(format!("SELECT {COLUMN} FROM information_schema.columns WHERE {filter} ORDER BY ordinal_position")),
    )
    .await
    .map_err(failed)?;
    if columns.is_empty() {
        let cause = format!("Error 1146 (42S02): Table '{}.{}' doesn't exist", table.0.schema, table.0.table);
        let message = format!("cannot fetch downstream table schema of {table}");
        return Err(Failure::new(Code::NoDownstreamTable, message)
            .cause(cause)
            .workaround("Please create the table downstream, or leave it out by the block-allow-list."));
    }
    let engine: Option<Engine> = limited(conn.query_first(engines(&filter))).await.map_err(failed)?;
    let columns: Vec<ColumnStructure> = columns.into_iter().map(column).collect();
    let parts: Vec<KeyPart> = limited(conn.query(format!(
        "SELECT index_name, column_name, sub_part FROM information_schema.statistics WHERE {filter} AND non_unique=0 \
         ORDER BY index_name, seq_in_index"
    )))
    .await
    .map_err(failed)?;
    let loose_engine = engine.and_then(|(_, engine, transactions)| loose_engine(engine, transactions));
    Ok(TableStructure { unique_keys: unique_keys(&columns, parts), columns, loose_engine })
}

/// The same of all tables of a schema at once, by their names; nothing where there are more than `most` of them.
pub async fn fetch_structures(
    conn: &mut Conn,
    schema: &str,
    most: u64,
) -> Result<HashMap<String, TableStructure>, Failure> {
    let doing = format!("read the structures of schema `{schema}`");
    let failed = |error| driver_failure(&error, Code::ReadDownstreamTable, Scope::Downstream, &doing);
    let filter = format!("table_schema={}", quote(schema));
    let count = format!("SELECT COUNT(*) FROM information_schema.tables WHERE {filter}");
    let count: Option<u64> = limited(conn.query_first(count)).await.map_err(failed)?;
    if count.is_none_or(|count| count > most) {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = limited(conn.query(format!(
        "SELECT {COLUMN}, table_name FROM information_schema.columns WHERE {filter} ORDER BY ordinal_position"
    )))
    .await
    .map_err(failed)?;
    // By exact names: what the server sorts and compares by takes some for others.
    let mut columns: HashMap<String, Vec<ColumnStructure>> = HashMap::new();
    for row in rows {
        let table = row.get_opt::<String, _>(7).and_then(Result::ok).unwrap_or_default();
        columns.entry(table).or_default().push(column(row));
    }
    let engines: Vec<Engine> = limited(conn.query(engines(&filter))).await.map_err(failed)?;
    let loose = engines
        .into_iter()
        .filter_map(|(table, engine, transactions)| Some((table, loose_engine(engine, transactions)?)));
    let mut loose: HashMap<String, String> = loose.collect();
    let rows: Vec<(String, String, Option<String>, Option<u64>)> = limited(conn.query(format!(
        "SELECT table_name, index_name, column_name, sub_part FROM information_schema.statistics WHERE {filter} AND \
         non_unique=0 ORDER BY index_name, seq_in_index"
    )))
    .await
    .map_err(failed)?;
    let mut parts: HashMap<String, Vec<KeyPart>> = HashMap::new();
    for (table, index, column, prefix) in rows {
        parts.entry(table).or_default().push((index, column, prefix));
    }
    let structure = |(table, columns): (String, Vec<ColumnStructure>)| {
        let unique_keys = unique_keys(&columns, parts.remove(&table).unwrap_or_default());
        let loose_engine = loose.remove(&table);
        (table, TableStructure { unique_keys, columns, loose_engine })
    };
    Ok(columns.into_iter().map(structure).collect())
}

/// A table's name, its engine, and what the server says of that engine's transactions.
type Engine = (String, String, Option<String>);
/// A key's name, one of its columns, and how much of that is in it.
type KeyPart = (String, Option<String>, Option<u64>);

/// Asks for tables' engines. A view has none, and what is behind it is not looked at.
fn engines(filter: &str) -> String {
    format!(
        "SELECT t.table_name, t.engine, e.transactions FROM information_schema.tables t JOIN information_schema.engines e \
         ON e.engine=t.engine WHERE {filter}"
    )
}

/// The engine, where the server says that it has no transactions.
fn loose_engine(engine: String, transactions: Option<String>) -> Option<String> {
    (!transactions.is_some_and(|word| word.eq_ignore_ascii_case("yes"))).then_some(engine)
}

fn column(row: Row) -> ColumnStructure {
    let text = |at: usize| row.get_opt::<String, _>(at).and_then(Result::ok);
    let lower = |at: usize| text(at).unwrap_or_default().to_lowercase();
    let (column_type, extra) = (lower(2), lower(6));
    let digits = ["float(", "double("].iter().any(|digits| column_type.starts_with(digits));
    ColumnStructure {
        name: text(0).unwrap_or_default(),
        data_type: lower(1),
        unsigned: column_type.contains("unsigned"),
        formatted: digits || column_type.contains("zerofill"),
        nullable: lower(3) == "yes",
        charset: text(4),
        collation: text(5),
        // `default_generated` is only a default.
        generated: extra.contains("virtual") || extra.contains("stored generated") || extra.contains("persistent"),
    }
}

fn unique_keys(columns: &[ColumnStructure], parts: Vec<KeyPart>) -> Vec<KeyStructure> {
    let mut keys: Vec<KeyStructure> = Vec::new();
    for (index, column, prefix) in parts {
        let place = column.and_then(|name| columns.iter().position(|known| known.name.eq_ignore_ascii_case(&name)));
        match keys.last_mut() {
            Some(key) if key.name == index => {
                key.columns.push(place);
                key.prefix |= prefix.is_some();
            }
            _ => keys.push(KeyStructure { name: index, columns: vec![place], prefix: prefix.is_some() }),
        }
    }
    keys.sort_by_key(|key| !key.is_primary());
    keys
}

/// A part of a table that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are SQL's words
pub enum Part {
    Column,
    Index,
    ForeignKey,
}

/// Whether the table has such a part of that name.
pub async fn has_part(conn: &mut Conn, table: &TargetTable, part: Part, name: &str) -> Result<bool, Failure> {
    let (from, column) = match part {
        Part::Column => ("columns", "column_name"),
        Part::Index => ("statistics", "index_name"),
        Part::ForeignKey => ("table_constraints", "constraint_type='FOREIGN KEY' AND constraint_name"),
    };
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.{from} WHERE table_schema={} AND table_name={} AND {column}={}",
        quote(&table.0.schema),
        quote(&table.0.table),
        quote(name)
    );
    let count: Option<u64> =
        limited(conn.query_first(sql)).await.map_err(|error| structure_failure(&error, "look for a part of", table))?;
    Ok(count.unwrap_or_default() > 0)
}

/// A foreign key by which changes of one table's rows change another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cascade {
    /// The table whose rows change with it.
    pub child: TargetTable,
    /// The table that it refers to.
    pub parent: TargetTable,
    /// Its name.
    pub name: String,
    /// It acts when a row of the parent goes.
    pub on_delete: bool,
    /// It acts when what it refers to changes.
    pub on_update: bool,
}

impl std::fmt::Display for Cascade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "foreign key `{}` of {}", self.name, self.child)
    }
}

/// All foreign keys of the server that act on rows.
pub async fn fetch_cascades(conn: &mut Conn) -> Result<Vec<Cascade>, Failure> {
    const ACTIONS: &str = "('CASCADE','SET NULL','SET DEFAULT')";
    let failed = |error| {
        driver_failure(&error, Code::ReadDownstreamTable, Scope::Downstream, "read the downstream's foreign keys")
    };
    let sql = format!(
        "SELECT constraint_schema, table_name, constraint_name, unique_constraint_schema, referenced_table_name, \
         update_rule IN {ACTIONS}, delete_rule IN {ACTIONS} FROM information_schema.referential_constraints \
         WHERE update_rule IN {ACTIONS} OR delete_rule IN {ACTIONS}"
    );
    type Columns = (String, String, String, String, String, bool, bool);
    let rows: Vec<Columns> = match limited(conn.query(sql)).await {
        Ok(rows) => rows,
        // A server without this table, or without foreign keys, has none that act.
        Err(mysql_async::Error::Server(error)) => {
            tracing::warn!(error = %error.message, "the downstream does not tell its foreign keys");
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let cascade = |(schema, table, name, parent_schema, parent, on_update, on_delete): Columns| Cascade {
        child: TargetTable(TableName::new(schema, table)),
        parent: TargetTable(TableName::new(parent_schema, parent)),
        name,
        on_delete,
        on_update,
    };
    Ok(rows.into_iter().map(cascade).collect())
}

/// Columns of the parent that a foreign key refers to.
pub async fn fetch_parent_columns(conn: &mut Conn, cascade: &Cascade) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT referenced_column_name FROM information_schema.key_column_usage WHERE constraint_schema={0} AND \
         table_schema={0} AND table_name={1} AND constraint_name={2} AND referenced_column_name IS NOT NULL",
        quote(&cascade.child.0.schema),
        quote(&cascade.child.0.table),
        quote(&cascade.name)
    );
    let answer = limited(conn.query(sql)).await;
    answer.map_err(|error| structure_failure(&error, "read the foreign keys of", &cascade.child))
}

/// The default character set of a schema; `None` where there is none of that name.
pub async fn fetch_schema_charset(conn: &mut Conn, schema: &str) -> Result<Option<String>, Failure> {
    let sql = format!(
        "SELECT default_character_set_name FROM information_schema.schemata WHERE schema_name={}",
        quote(schema)
    );
    let answer = limited(conn.query_first(sql)).await;
    answer.map_err(|error| {
        let doing = format!("read the default character set of schema `{schema}`");
        driver_failure(&error, Code::ReadDownstreamTable, Scope::Downstream, &doing)
    })
}

/// Whether a table holds any row; one that is not there holds none.
pub async fn has_rows(conn: &mut Conn, table: &TargetTable) -> Result<bool, Failure> {
    if table.0.table.is_empty() {
        return Ok(false);
    }
    let row: Result<Option<Row>, _> = limited(conn.query_first(format!("SELECT 1 FROM {table} LIMIT 1"))).await;
    match row {
        Ok(row) => Ok(row.is_some()),
        Err(mysql_async::Error::Server(error)) if matches!(error.code, 1049 | 1146) => Ok(false),
        Err(error) => Err(structure_failure(&error, "look for rows of", table)),
    }
}

fn structure_failure(error: &mysql_async::Error, doing: &str, table: &TargetTable) -> Failure {
    driver_failure(error, Code::ReadDownstreamTable, Scope::Downstream, &format!("{doing} {table}"))
}

/// The definition without its AUTO_INCREMENT counter, which moves for other reasons than DDL.
fn without_counter(definition: &str) -> String {
    let Some((head, tail)) = definition.split_once(" AUTO_INCREMENT=") else { return definition.to_owned() };
    format!("{head}{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// What a table, or a database where the table name is empty, is like now, in one text; absence is a text too.
pub async fn fingerprint(conn: &mut Conn, table: &TargetTable) -> Result<String, Failure> {
    let statement = match table.0.table.is_empty() {
        true => format!("SHOW CREATE DATABASE `{}`", table.0.schema.replace('`', "``")),
        false => format!("SHOW CREATE TABLE {table}"),
    };
    let row: Result<Option<Row>, _> = limited(conn.query_first(statement)).await;
    match row {
        Ok(row) => {
            let text = row.and_then(|row| row.get_opt::<String, _>(1)).and_then(Result::ok).unwrap_or_default();
            Ok(without_counter(&text))
        }
        // Unknown database, unknown table.
        Err(mysql_async::Error::Server(error)) if matches!(error.code, 1049 | 1146) => Ok("absent".to_owned()),
        Err(error) => {
            let doing = format!("read the definition of {table}");
            Err(driver_failure(&error, Code::ReadDownstreamTable, Scope::Downstream, &doing))
        }
    }
}
