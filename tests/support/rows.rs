//! A table's rows in a form that two servers of different make print alike.

use std::collections::BTreeMap;

use serde_json::Value;

use super::db::Db;

/// A value after normalisation; `None` is NULL.
pub type Cell = Option<Vec<u8>>;

/// A column as `information_schema` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// `DATA_TYPE`: `int`, `varchar`, …
    pub data_type: String,
    /// `CHARACTER_SET_NAME`; empty for what is not text.
    pub charset: String,
    /// Part of the primary key.
    pub primary: bool,
}

/// How a value is fetched and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As printed.
    Text,
    /// As stored, byte by byte.
    Hex,
    /// As JSON: spaces and the order of keys mean nothing.
    Json,
    /// As a double, exactly.
    Float,
    /// As an unsigned number.
    Unsigned,
    /// ENUM and SET: number and text.
    Member,
}

/// Base tables of a schema by name, each with its columns in order.
pub async fn tables(db: &mut Db, schema: &str) -> Result<BTreeMap<String, Vec<Column>>, String> {
    let sql = format!(
        "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, COALESCE(c.CHARACTER_SET_NAME, ''), c.COLUMN_KEY = 'PRI' \
         FROM information_schema.COLUMNS c JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME) \
         WHERE c.TABLE_SCHEMA = '{schema}' AND t.TABLE_TYPE = 'BASE TABLE' \
         ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION"
    );
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for row in db.try_rows(&sql).await? {
        let [table, name, data_type, charset, primary] = row
            .into_iter()
            .map(|cell| String::from_utf8_lossy(&cell.unwrap_or_default()).into_owned())
            .collect::<Vec<String>>()
            .try_into()
            .map_err(|_| "five columns were asked for")?;
        let data_type = data_type.to_ascii_lowercase();
        tables.entry(table).or_default().push(Column { name, data_type, charset, primary: primary == "1" });
    }
    Ok(tables)
}

/// Indexes of a schema, one line each, sorted.
pub async fn indexes(db: &mut Db, schema: &str) -> Result<Vec<String>, String> {
    let sql = format!(
        "SELECT CONCAT(TABLE_NAME, '.', INDEX_NAME, IF(NON_UNIQUE, ' (', ' unique ('), \
         GROUP_CONCAT(COLUMN_NAME ORDER BY SEQ_IN_INDEX), ')') FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = '{schema}' GROUP BY TABLE_NAME, INDEX_NAME, NON_UNIQUE"
    );
    let rows = db.try_rows(&sql).await?;
    let line = |row: Vec<Cell>| String::from_utf8_lossy(row[0].as_deref().unwrap_or_default()).into_owned();
    let mut lines: Vec<String> = rows.into_iter().map(line).collect();
    lines.sort();
    Ok(lines)
}

/// How a column is compared, given its twin on the other server.
pub fn form(column: &Column, twin: &Column) -> Form {
    let either = |names: &[&str]| names.contains(&&*column.data_type) || names.contains(&&*twin.data_type);
    if either(&["json"]) {
        Form::Json
    } else if either(&["float", "double"]) {
        Form::Float
    } else if either(&["bit"]) {
        Form::Unsigned
    } else if either(&["enum", "set"]) {
        Form::Member
    } else if either(&["uuid", "inet4", "inet6"]) {
        Form::Text
    } else if column.is_binary() || twin.is_binary() {
        Form::Hex
    } else if column.charset == twin.charset && !matches!(&*column.charset, "" | "utf8mb4" | "utf8mb3" | "ascii") {
        // Two servers may convert the same bytes differently; what counts is the bytes.
        Form::Hex
    } else {
        Form::Text
    }
}

impl Column {
    /// Whether its value is bytes rather than text.
    pub fn is_binary(&self) -> bool {
        const BINARY: [&str; 15] = [
            "binary",
            "varbinary",
            "tinyblob",
            "blob",
            "mediumblob",
            "longblob",
            "geometry",
            "point",
            "linestring",
            "polygon",
            "multipoint",
            "multilinestring",
            "multipolygon",
            "geometrycollection",
            "vector",
        ];
        BINARY.contains(&&*self.data_type) || self.data_type == "geomcollection"
    }

    fn expression(&self, form: Form) -> String {
        let name = quote(&self.name);
        match form {
            Form::Text | Form::Json => name,
            Form::Hex => format!("HEX({name})"),
            Form::Float => format!("{name} + 0e0"),
            Form::Unsigned => format!("CAST({name} AS UNSIGNED)"),
            Form::Member => format!("CONCAT(CAST({name} AS UNSIGNED), ' ', {name})"),
        }
    }

    /// For fingerprints: an expression alike on both makes; `None` for types that print differently.
    fn print(&self) -> Option<String> {
        let name = quote(&self.name);
        match &*self.data_type {
            // MariaDB's JSON is a LONGTEXT.
            "json" | "longtext" | "float" | "double" => None,
            _ if self.is_binary() || !self.charset.is_empty() => Some(format!("COALESCE(HEX({name}), '~')")),
            "bit" => Some(format!("COALESCE(CAST({name} AS UNSIGNED), '~')")),
            _ => Some(format!("COALESCE({name}, '~')")),
        }
    }
}

/// An identifier in backquotes.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// All rows of a table, normalised and sorted.
pub async fn read(
    db: &mut Db,
    schema: &str,
    table: &str,
    columns: &[(Column, Form)],
) -> Result<Vec<Vec<Cell>>, String> {
    let list: Vec<String> = columns.iter().map(|(column, form)| column.expression(*form)).collect();
    let sql = format!("SELECT {} FROM {}.{}", list.join(", "), quote(schema), quote(table));
    let mut rows = db.try_rows(&sql).await?;
    for row in &mut rows {
        for (cell, (_, form)) in row.iter_mut().zip(columns) {
            if let Some(bytes) = cell {
                normalise(bytes, *form);
            }
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

/// Count and sum of checksums of a table's rows; the order of rows does not matter, how often each is there does.
pub fn fingerprint_sql(schema: &str, table: &str, columns: &[Column]) -> String {
    let prints: Vec<String> = columns.iter().filter_map(Column::print).collect();
    let row = if prints.is_empty() { "''".to_owned() } else { format!("CONCAT_WS('#', {})", prints.join(", ")) };
    format!("SELECT COUNT(*), COALESCE(SUM(CRC32({row})), 0) FROM {}.{}", quote(schema), quote(table))
}

fn normalise(bytes: &mut Vec<u8>, form: Form) {
    match form {
        Form::Json => {
            let text = match serde_json::from_slice::<Value>(bytes) {
                Ok(value) => canonical(&value),
                Err(error) => format!("no JSON ({error}): {}", String::from_utf8_lossy(bytes)),
            };
            *bytes = text.into_bytes();
        }
        Form::Float => {
            if let Some(number) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<f64>().ok()) {
                *bytes = format!("{number:?}").into_bytes();
            }
        }
        Form::Text | Form::Hex | Form::Unsigned | Form::Member => {}
    }
}

/// JSON text with sorted keys and no spaces.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            let members: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.clone()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => scalar.to_string(),
    }
}
