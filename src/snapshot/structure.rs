//! What tables look like, on either side, many at once: from `information_schema`.

use std::collections::HashMap;
use std::hash::Hasher;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use xxhash_rust::xxh3::Xxh3Default;

use super::source::answered;
use crate::mysql::quote;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// In lower case.
    pub data_type: String,
    /// With length, sign and members.
    pub column_type: String,
    pub nullable: bool,
    pub charset: Option<String>,
    pub collation: Option<String>,
    /// The server computes it.
    pub generated: bool,
}

/// A unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub name: String,
    /// Its columns; `None` for an expression or a part of a column.
    pub columns: Vec<Option<usize>>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Structure {
    pub columns: Vec<Column>,
    /// Primary key first.
    pub keys: Vec<Key>,
    /// It has an AUTO_INCREMENT column.
    pub counts: bool,
}

impl Structure {
    /// The key by which rows are known and ordered: the primary key, else the first unique key, of whole NOT NULL columns.
    pub fn identity(&self) -> Option<&Key> {
        let whole = |column: &Option<usize>| column.is_some_and(|at| !self.columns[at].nullable);
        self.keys.iter().find(|key| key.columns.iter().all(whole))
    }

    /// The column of that name; servers do not tell names of columns apart by case.
    pub fn column(&self, name: &str) -> Option<&Column> {
        let name = name.to_lowercase();
        self.columns.iter().find(|column| column.name.to_lowercase() == name)
    }

    /// Whether it has a column that `other` has not.
    pub fn has_more_than(&self, other: &Structure) -> bool {
        self.columns.iter().any(|column| other.column(&column.name).is_none())
    }

    /// Equal for equal structures.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        hasher.write(format!("{:?}{:?}", self.columns, self.keys).as_bytes());
        hasher.finish()
    }
}

/// Reads the structures of a schema's tables by name; of one table where `only` is given.
pub(super) async fn read(
    conn: &mut Conn,
    schema: &str,
    only: Option<&str>,
) -> Result<HashMap<String, Structure>, mysql_async::Error> {
    let filter = match only {
        None => format!("table_schema={}", quote(schema)),
        Some(table) => format!("table_schema={} AND table_name={}", quote(schema), quote(table)),
    };
    let mut tables: HashMap<String, Structure> = HashMap::new();
    let columns: Vec<Row> = answered(conn.query(format!(
        "SELECT table_name, column_name, data_type, column_type, is_nullable, character_set_name, collation_name, \
             extra FROM information_schema.columns WHERE {filter} ORDER BY table_name, ordinal_position"
    )))
    .await?;
    for row in columns {
        let text = |at: usize| text(&row, at);
        let lower = |at: usize| text(at).unwrap_or_default().to_lowercase();
        let extra = lower(7);
        let column = Column {
            name: text(1).unwrap_or_default(),
            data_type: lower(2),
            column_type: text(3).unwrap_or_default(),
            nullable: lower(4) == "yes",
            charset: text(5),
            collation: text(6),
            // `default_generated` is only a default.
            generated: ["virtual", "stored generated", "persistent"].iter().any(|word| extra.contains(word)),
        };
        let table = tables.entry(text(0).unwrap_or_default()).or_default();
        table.columns.push(column);
        table.counts |= extra.contains("auto_increment");
    }
    let parts: Vec<Row> = answered(conn.query(format!(
        "SELECT table_name, index_name, column_name, sub_part FROM information_schema.statistics WHERE {filter} AND \
             non_unique=0 ORDER BY table_name, index_name, seq_in_index"
    )))
    .await?;
    for row in parts {
        let [table, index, column, part] = [0, 1, 2, 3].map(|at| text(&row, at));
        let Some(structure) = tables.get_mut(&table.unwrap_or_default()) else { continue };
        let name = index.unwrap_or_default();
        let place = column
            .filter(|_| part.is_none())
            .and_then(|column| structure.columns.iter().position(|known| known.name.eq_ignore_ascii_case(&column)));
        match structure.keys.last_mut() {
            Some(key) if key.name == name => key.columns.push(place),
            _ => structure.keys.push(Key { name, columns: vec![place] }),
        }
    }
    for structure in tables.values_mut() {
        structure.keys.sort_by_key(|key| key.name != "PRIMARY");
    }
    Ok(tables)
}

/// A value as text, whatever type the server gave it.
pub(super) fn text(row: &Row, at: usize) -> Option<String> {
    match row.as_ref(at)? {
        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        mysql_async::Value::Int(number) => Some(number.to_string()),
        mysql_async::Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, nullable: bool) -> Column {
        Column {
            name: name.into(),
            data_type: "int".into(),
            column_type: "int(11)".into(),
            nullable,
            charset: None,
            collation: None,
            generated: false,
        }
    }

    fn key(name: &str, columns: &[Option<usize>]) -> Key {
        Key { name: name.into(), columns: columns.to_vec() }
    }

    #[test]
    fn rows_are_known_by_whole_columns_without_null() {
        let columns = vec![column("a", false), column("b", true), column("c", false)];
        let of = |keys: Vec<Key>| {
            let structure = Structure { columns: columns.clone(), keys, counts: false };
            structure.identity().map(|key| key.name.clone())
        };
        assert_eq!(of(vec![key("PRIMARY", &[Some(0)]), key("u", &[Some(2)])]).as_deref(), Some("PRIMARY"));
        assert_eq!(of(vec![key("PRIMARY", &[None]), key("u", &[Some(2), Some(0)])]).as_deref(), Some("u"));
        assert_eq!(of(vec![key("u", &[Some(1)])]), None);
        assert_eq!(of(Vec::new()), None);
    }
}
