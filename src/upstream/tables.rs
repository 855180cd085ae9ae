//! What the binlog does not say and the source knows: its tables' columns, whether it logs what foreign keys do, and its
//! time zone.
//!
//! It is asked as it is now, which need not be how it was at the place in the binlog that the question is about. So each
//! answer comes with what tells whether it holds there.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::facts::{ServerVersion, query_failure, text_at, timed};
use crate::error::{Failure, server_error_code};
use crate::model::{SourceCollations, SourceTable, TableName};
use crate::mysql::quote;

/// Half a year, for a look at the other time of daylight saving.
const HALF_A_YEAR: u32 = 182 * 86_400;

/// A table of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumns {
    /// In the table's order.
    pub columns: Vec<SourceColumn>,
    /// When its definition was changed last, by the source's clock, seconds since the epoch; `None` where it does not say.
    pub changed: Option<u64>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// Name.
    pub name: String,
    /// `data_type` in lower case.
    pub data_type: String,
    /// Character set, for character columns.
    pub charset: Option<String>,
}

/// Reads a table's columns; `None` where it is not there, or not for this account.
pub async fn source_columns(conn: &mut Conn, table: &SourceTable) -> Result<Option<SourceColumns>, Failure> {
    let filter = format!("table_schema={} AND table_name={}", quote(&table.0.schema), quote(&table.0.table));
    let sql = format!(
        "SELECT column_name, data_type, character_set_name FROM information_schema.columns WHERE {filter} \
         ORDER BY ordinal_position"
    );
    let rows: Vec<Row> = timed(conn.query(sql.as_str())).await.map_err(|error| query_failure(&error, &sql))?;
    let columns: Vec<SourceColumn> = rows
        .iter()
        .map(|row| SourceColumn {
            name: text_at(row, 0).unwrap_or_default(),
            data_type: text_at(row, 1).unwrap_or_default().to_lowercase(),
            charset: text_at(row, 2),
        })
        .collect();
    if columns.is_empty() {
        return Ok(None);
    }
    let sql = format!("SELECT UNIX_TIMESTAMP(create_time) FROM information_schema.tables WHERE {filter}");
    let row: Option<Row> = timed(conn.query_first(sql.as_str())).await.map_err(|error| query_failure(&error, &sql))?;
    // Some servers count fractions here.
    let changed = row.as_ref().and_then(|row| text_at(row, 0)).and_then(|text| text.split('.').next()?.parse().ok());
    Ok(Some(SourceColumns { columns, changed }))
}

/// All tables of the source that this account sees, its own ones left out; views are none.
pub async fn source_tables(conn: &mut Conn) -> Result<Vec<SourceTable>, Failure> {
    const SQL: &str = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type='BASE TABLE' AND \
                       table_schema NOT IN ('mysql','information_schema','performance_schema','sys') \
                       ORDER BY table_schema, table_name";
    let rows: Vec<(String, String)> = timed(conn.query(SQL)).await.map_err(|error| query_failure(&error, SQL))?;
    Ok(rows.into_iter().map(|(schema, table)| SourceTable(TableName::new(schema, table))).collect())
}

/// The default character set of a schema now; `None` where it is not there, or not for this account.
pub async fn source_schema_charset(conn: &mut Conn, schema: &str) -> Result<Option<String>, Failure> {
    let sql = format!(
        "SELECT default_character_set_name FROM information_schema.schemata WHERE schema_name={}",
        quote(schema)
    );
    timed(conn.query_first(sql.as_str())).await.map_err(|error| query_failure(&error, &sql))
}

/// What the source means by character sets without a collation, and its names for collations.
pub async fn source_collations(conn: &mut Conn) -> Result<SourceCollations, Failure> {
    const DEFAULTS: &str = "SELECT character_set_name, default_collate_name FROM information_schema.character_sets";
    // Those that MariaDB has for every character set have no number here.
    const NAMES: &str = "SELECT id, collation_name FROM information_schema.collations WHERE id BETWEEN 1 AND 65535";
    let defaults: Vec<(String, String)> =
        timed(conn.query(DEFAULTS)).await.map_err(|error| query_failure(&error, DEFAULTS))?;
    let names: Vec<(u16, String)> = timed(conn.query(NAMES)).await.map_err(|error| query_failure(&error, NAMES))?;
    Ok(SourceCollations::new(defaults, names))
}

/// Whether the source writes into its binlog what foreign keys do to other tables. MariaDB and InnoDB itself do not; MySQL
/// has done it above the engine since 9.6, unless it was started otherwise.
pub async fn logs_cascades(conn: &mut Conn) -> Result<bool, Failure> {
    const VERSION: &str = "SELECT @@version";
    let version: Option<String> =
        timed(conn.query_first(VERSION)).await.map_err(|error| query_failure(&error, VERSION))?;
    let version = version.unwrap_or_default();
    if version.contains("MariaDB") || ServerVersion::parse(&version) < ServerVersion::of(9, 6) {
        return Ok(false);
    }
    const NATIVE: &str = "SELECT @@innodb_native_foreign_keys";
    match timed(conn.query_first::<u64, _>(NATIVE)).await {
        Ok(native) => Ok(native == Some(0)),
        Err(error) if server_error_code(&error).is_some() => Ok(false),
        Err(error) => Err(query_failure(&error, NATIVE)),
    }
}

/// A foreign key by which changes of one table's rows change another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCascade {
    /// The table whose rows change with it.
    pub child: SourceTable,
    /// The table that it refers to.
    pub parent: SourceTable,
    /// Its name.
    pub name: String,
}

/// All foreign keys that act on rows, as far as this account sees them.
pub async fn source_cascades(conn: &mut Conn) -> Result<Vec<SourceCascade>, Failure> {
    const SQL: &str = "SELECT constraint_schema, table_name, constraint_name, unique_constraint_schema, \
                       referenced_table_name FROM information_schema.referential_constraints WHERE update_rule IN \
                       ('CASCADE','SET NULL','SET DEFAULT') OR delete_rule IN ('CASCADE','SET NULL','SET DEFAULT')";
    type Columns = (String, String, String, String, String);
    let rows: Vec<Columns> = timed(conn.query(SQL)).await.map_err(|error| query_failure(&error, SQL))?;
    let cascade = |(schema, table, name, parent_schema, parent): Columns| SourceCascade {
        child: SourceTable(TableName::new(schema, table)),
        parent: SourceTable(TableName::new(parent_schema, parent)),
        name,
    };
    Ok(rows.into_iter().map(cascade).collect())
}

/// How far a time zone is from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneOffset {
    /// Minutes to the east at the time asked for.
    pub minutes: i64,
    /// Half a year away it is another.
    pub varies: bool,
}

/// Asks the source which instant `time` (`2006-01-02 15:04:05`) is in `zone`, or where that is `None` in the zone of its
/// sessions: seconds since the epoch. `None` where that is no instant that it can count.
pub async fn local_time(conn: &mut Conn, zone: Option<&str>, time: &str) -> Result<Option<u32>, Failure> {
    if let Some(zone) = zone {
        let set = format!("SET SESSION time_zone={}", quote(zone));
        timed(conn.query_drop(set.as_str())).await.map_err(|error| query_failure(&error, &set))?;
    }
    let sql = format!("SELECT CAST(UNIX_TIMESTAMP({}) AS SIGNED)", quote(time));
    let seconds: Option<Option<i64>> =
        timed(conn.query_first(sql.as_str())).await.map_err(|error| query_failure(&error, &sql))?;
    Ok(seconds.flatten().and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0))
}

/// Asks the source how far `zone` was from UTC at `at` (seconds since the epoch); `None` where it does not know the zone.
pub async fn zone_offset(conn: &mut Conn, zone: &str, at: u32) -> Result<Option<ZoneOffset>, Failure> {
    let set = format!("SET SESSION time_zone={}", quote(zone));
    match timed(conn.query_drop(set.as_str())).await {
        Err(error) if server_error_code(&error).is_some() => return Ok(None),
        answer => answer.map_err(|error| query_failure(&error, &set))?,
    }
    let east = |at: u32| format!("TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', FROM_UNIXTIME({at})) - {at}");
    let (before, after) = (at.saturating_sub(HALF_A_YEAR), at.saturating_add(HALF_A_YEAR));
    let sql = format!("SELECT {}, {}, {}", east(at), east(before), east(after));
    let row: Option<(i64, i64, Option<i64>)> =
        timed(conn.query_first(sql.as_str())).await.map_err(|error| query_failure(&error, &sql))?;
    Ok(row.map(|(now, before, after)| ZoneOffset {
        minutes: now.div_euclid(60),
        varies: before != now || after.is_some_and(|after| after != now),
    }))
}
