//! Whether a statement that the downstream refuses has its effect there already.
//!
//! A column or key that is to be dropped and is not there: nothing is left to be done. One that is to be made and exists
//! may be another one of that name. So the statement is tried on an empty copy of the table's structure, without what is
//! there by that name, and what comes of it is compared with the table: only where all of it is there, the statement is
//! done. Rows are not looked at: what a default would have given them is not known.
//!
//! The copy is a table of ours in the task's meta-schema, dropped behind it; one that a crash leaves is dropped at the
//! next use. Where it cannot be made, the answer is no.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};

use super::ddl_step::DdlStep;
use crate::downstream::{Downstream, limited};
use crate::error::{Failure, server_number};
use crate::model::TargetTable;
use crate::mysql::quote;

/// `Can't DROP '…'; check that column/key exists`.
const CANNOT_DROP: u16 = 1091;
/// `Duplicate column name '…'`.
const DUPLICATE_COLUMN: u16 = 1060;
/// `Duplicate key name '…'`.
const DUPLICATE_KEY: u16 = 1061;

/// Whether the effect of a refused step is there. `scratch` is the copy's name, qualified.
pub async fn is_there(
    conn: &mut Conn,
    downstream: &Downstream,
    scratch: &str,
    step: &DdlStep,
    failure: &Failure,
) -> bool {
    if step.ordered || !step.one_change || !step.clauses.is_empty() {
        return false;
    }
    let Some(number) = server_number(failure) else { return false };
    match number {
        CANNOT_DROP => true,
        DUPLICATE_COLUMN | DUPLICATE_KEY => {
            let (Some(name), [target]) = (quoted_in(&failure.raw_cause), step.targets.as_slice()) else { return false };
            let tried = Trial { conn, downstream, scratch, target, name, column: number == DUPLICATE_COLUMN };
            tried.makes_what_is_there(step).await
        }
        _ => false,
    }
}

/// What stands in quotes at the end of a server's text.
fn quoted_in(cause: &str) -> Option<&str> {
    let (_, rest) = cause.split_once('\'')?;
    rest.rsplit_once('\'').map(|(name, _)| name)
}

struct Trial<'a> {
    conn: &'a mut Conn,
    downstream: &'a Downstream,
    scratch: &'a str,
    target: &'a TargetTable,
    /// The column or key that exists.
    name: &'a str,
    column: bool,
}

/// Columns and keys by name, each with all that is told of it.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    columns: BTreeMap<String, Vec<Option<String>>>,
    keys: BTreeMap<String, Vec<Vec<Option<String>>>>,
}

impl Shape {
    /// Whether nothing is missing here that is in `part`, and the columns are the same.
    fn has_all_of(&self, part: &Shape) -> bool {
        self.columns == part.columns && part.keys.iter().all(|(name, key)| self.keys.get(name) == Some(key))
    }

    /// Keys in which a column is.
    fn keys_of(&self, column: &str) -> BTreeSet<&str> {
        let has =
            |key: &Vec<Vec<Option<String>>>| key.iter().any(|part| part.first().is_some_and(|name| is(name, column)));
        self.keys.iter().filter(|(_, key)| has(key)).map(|(name, _)| name.as_str()).collect()
    }
}

fn is(name: &Option<String>, other: &str) -> bool {
    name.as_deref().is_some_and(|name| name.to_lowercase() == other.to_lowercase())
}

impl Trial<'_> {
    async fn makes_what_is_there(mut self, step: &DdlStep) -> bool {
        let drop = format!("DROP TABLE IF EXISTS {}", self.scratch);
        let outcome = self.try_it(step, &drop).await;
        // The next use drops it, if this does not.
        let _ = limited(self.conn.query_drop(&drop)).await;
        outcome.unwrap_or_else(|error| {
            tracing::info!(%error, "whether the effect of a refused statement is there cannot be found out");
            false
        })
    }

    async fn try_it(&mut self, step: &DdlStep, drop: &str) -> Result<bool, mysql_async::Error> {
        let Some(there) = self.shape_of_target().await? else { return Ok(false) };
        // The planner writes all names qualified and in backticks: the first is the table that is altered.
        let name = self.target.to_string();
        let Some((before, behind)) = step.sql.split_once(&name) else { return Ok(false) };
        let again = format!("{before}{}{behind}", self.scratch);
        limited(self.conn.query_drop(drop)).await?;
        limited(self.conn.query_drop(format!("CREATE TABLE {} LIKE {name}", self.scratch))).await?;
        limited(self.conn.query_drop(self.without(&there))).await?;
        if step.session.enter(self.conn, self.downstream.dialect).await.is_err() {
            return Ok(false);
        }
        let made = limited(self.conn.query_drop(again)).await;
        step.session.leave(self.conn, self.downstream).await;
        made?;
        let made = self.shape_of(&scratch_filter(self.scratch)).await?;
        Ok(made.is_some_and(|made| there.has_all_of(&made)))
    }

    /// Takes what exists out of the copy, and the keys that stand on it: those are not the statement's.
    fn without(&self, there: &Shape) -> String {
        let key = |name: &str| match name.eq_ignore_ascii_case("PRIMARY") {
            true => "DROP PRIMARY KEY".to_owned(),
            false => format!("DROP INDEX {}", identifier(name)),
        };
        let mut clauses: Vec<String> = Vec::new();
        if self.column {
            clauses.extend(there.keys_of(self.name).into_iter().map(key));
            clauses.push(format!("DROP COLUMN {}", identifier(self.name)));
        } else {
            clauses.push(key(self.name));
        }
        format!("ALTER TABLE {} {}", self.scratch, clauses.join(", "))
    }

    async fn shape_of_target(&mut self) -> Result<Option<Shape>, mysql_async::Error> {
        let (schema, table) = (&self.target.0.schema, &self.target.0.table);
        let filter = format!("table_schema={} AND table_name={}", quote(schema), quote(table));
        self.shape_of(&filter).await
    }

    /// `None` where something cannot be compared.
    async fn shape_of(&mut self, filter: &str) -> Result<Option<Shape>, mysql_async::Error> {
        // The order counts too: rows are bound by it.
        let columns: Vec<mysql_async::Row> = limited(self.conn.query(format!(
            "SELECT column_name, CAST(ordinal_position AS CHAR), column_type, is_nullable, column_default, \
             character_set_name, collation_name, extra, generation_expression \
             FROM information_schema.columns WHERE {filter}"
        )))
        .await?;
        type Key = (String, Option<String>, Option<String>, String, String, String);
        let parts: Vec<Key> = limited(self.conn.query(format!(
            "SELECT index_name, column_name, CAST(sub_part AS CHAR), CAST(non_unique AS CHAR), index_type, \
             COALESCE(collation,'') FROM information_schema.statistics WHERE {filter} ORDER BY index_name, seq_in_index"
        )))
        .await?;
        let column = |row: mysql_async::Row| {
            let mut values = row.unwrap_raw().into_iter().map(|value| value.and_then(text));
            (values.next().flatten().unwrap_or_default().to_lowercase(), values.collect())
        };
        let mut keys: BTreeMap<String, Vec<Vec<Option<String>>>> = BTreeMap::new();
        for (index, column, prefix, non_unique, kind, order) in parts {
            // Of an expression.
            let Some(column) = column else { return Ok(None) };
            let part = vec![Some(column), prefix, Some(non_unique), Some(kind), Some(order)];
            keys.entry(index.to_lowercase()).or_default().push(part);
        }
        Ok(Some(Shape { columns: columns.into_iter().map(column).collect(), keys }))
    }
}

/// `None` for NULL.
fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}

/// Of a qualified name in backticks.
fn scratch_filter(scratch: &str) -> String {
    let (schema, table) = scratch.rsplit_once("`.`").unwrap_or(("", scratch));
    let plain = |name: &str| name.trim_matches('`').replace("``", "`");
    format!("table_schema={} AND table_name={}", quote(&plain(schema)), quote(&plain(table)))
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_servers_words() {
        assert_eq!(quoted_in("Error 1060 (42S21): Duplicate column name 'c'"), Some("c"));
        assert_eq!(quoted_in("Error 1061 (42000): Duplicate key name 'it's'"), Some("it's"));
        assert_eq!(quoted_in("Error 1060"), None);
        assert_eq!(scratch_filter("`dm``meta`.`agent_try_1`"), "table_schema='dm`meta' AND table_name='agent_try_1'");
    }

    #[test]
    fn what_is_there_may_have_more_keys_and_no_other_columns() {
        let column = |name: &str, kind: &str| (name.to_owned(), vec![Some(kind.to_owned())]);
        let key = |name: &str, column: &str| (name.to_owned(), vec![vec![Some(column.to_owned())]]);
        let shape = |columns: &[(&str, &str)], keys: &[(&str, &str)]| Shape {
            columns: columns.iter().map(|(name, kind)| column(name, kind)).collect(),
            keys: keys.iter().map(|(name, of)| key(name, of)).collect(),
        };
        let there = shape(&[("a", "int"), ("c", "int")], &[("primary", "a"), ("i", "c")]);
        assert!(there.has_all_of(&shape(&[("a", "int"), ("c", "int")], &[("primary", "a")])));
        assert!(!there.has_all_of(&shape(&[("a", "int"), ("c", "bigint")], &[("primary", "a")])));
        assert!(!there.has_all_of(&shape(&[("a", "int"), ("c", "int")], &[("c", "c")])), "a key that is not there");
        assert_eq!(there.keys_of("C"), ["i"].into());
    }
}
