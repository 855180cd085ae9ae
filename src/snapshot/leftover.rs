//! What is downstream and is nothing of the source's any more: a table under the name that it was renamed from, rows that a new
//! reading is to begin without. And whose else the rows of a target may be, which then stay.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::patience::{pause, worth_another};
use super::run::without_foreign_keys;
use super::source::{Source, answered, query_failed};
use super::spec::CopySpec;
use super::structure;
use crate::downstream::{Downstream, DownstreamOptions, limited};
use crate::error::{Code, Failure, Scope, driver_failure, server_number};
use crate::model::{SourceTable, TableName, TargetTable};

/// Rows deleted in one transaction, where a table is emptied.
pub(super) const DELETED: u32 = 10_000;

/// Drops what is left of a table that was renamed while the target had the new name already: nothing of the source is called
/// so any more, and under its new name it is read again. `fence` as in [`read_again`]; false where it did not match.
pub async fn drop_leftover(spec: &CopySpec, table: &SourceTable, fence: &str) -> Result<bool, Failure> {
    let Some(target) = spec.guide.target(table)? else { return Ok(true) };
    let mut from = Source::new(&spec.source).connect().await?;
    let downstream = Downstream::open(DownstreamOptions { endpoint: without_foreign_keys(&spec.downstream) }).await?;
    let mut to = downstream.connect().await?;
    let doing = format!("drop {target}, which was renamed");
    let failed = |error| target_failed(&error, &doing);
    let there = structure::read(&mut to, &target.0.schema, Some(&target.0.table)).await.map_err(failed)?;
    let others = has_other_sources(spec, &mut to).await?;
    if there.is_empty() || others || is_shared(spec, &mut from, table, &target).await? {
        return Ok(true);
    }
    limited(to.query_drop(fence)).await.map_err(failed)?;
    if to.affected_rows() == 0 {
        return Ok(false);
    }
    tracing::info!(%target, "dropped: it was renamed, and its new name was made with the structures of the copy");
    limited(to.query_drop(format!("DROP TABLE IF EXISTS {target}"))).await.map_err(failed)?;
    Ok(true)
}

/// Whether nothing but this table's rows is in its target, as far as can be told.
pub async fn is_alone(spec: &CopySpec, table: &SourceTable) -> Result<bool, Failure> {
    let Some(target) = spec.guide.target(table)? else { return Ok(false) };
    let mut from = Source::new(&spec.source).connect().await?;
    let downstream = Downstream::open(DownstreamOptions { endpoint: without_foreign_keys(&spec.downstream) }).await?;
    let mut to = downstream.connect().await?;
    Ok(!has_other_sources(spec, &mut to).await? && !is_shared(spec, &mut from, table, &target).await?)
}

/// Deletes all rows of a table's target, bit by bit; it is to be read again then. `fence` as in [`read_again`]; false where it
/// did not match.
pub async fn empty(spec: &CopySpec, table: &SourceTable, fence: &str) -> Result<bool, Failure> {
    let Some(target) = spec.guide.target(table)? else { return Ok(true) };
    let downstream = Downstream::open(DownstreamOptions { endpoint: without_foreign_keys(&spec.downstream) }).await?;
    let doing = format!("empty {target}");
    let failed = |error| target_failed(&error, &doing);
    let mut attempt = 0;
    let mut to = downstream.connect().await?;
    loop {
        let deleted = async {
            limited(to.query_drop("BEGIN")).await.map_err(failed)?;
            limited(to.query_drop(fence)).await.map_err(failed)?;
            if to.affected_rows() == 0 {
                return Ok(None);
            }
            limited(to.query_drop(format!("DELETE FROM {target} LIMIT {DELETED}"))).await.map_err(failed)?;
            let deleted = to.affected_rows();
            limited(to.query_drop("COMMIT")).await.map_err(failed)?;
            Ok(Some(deleted))
        };
        match deleted.await {
            Ok(None) => return Ok(false),
            Ok(Some(0)) => return Ok(true),
            Ok(Some(_)) => attempt = 0,
            // What is not there has no rows.
            Err(failure) if server_number(&failure) == Some(1146) => return Ok(true),
            Err(failure) => {
                attempt += 1;
                if !worth_another(&failure, attempt) {
                    return Err(failure);
                }
                tokio::time::sleep(pause(attempt)).await;
                to = downstream.connect().await?;
            }
        }
    }
}

/// Whether the task has other sources downstream, whose rows nobody here could tell from ours.
pub(super) async fn has_other_sources(spec: &CopySpec, to: &mut Conn) -> Result<bool, Failure> {
    for sql in spec.tables.select_other_sources() {
        match limited(to.query_first::<u64, _>(sql.as_str())).await {
            Ok(Some(_)) => return Ok(true),
            // What is not there, or not for this account, says nothing of others.
            Ok(None) | Err(mysql_async::Error::Server(_)) => {}
            Err(error) => return Err(target_failed(&error, "look for other sources of the task")),
        }
    }
    Ok(false)
}

/// Whether other tables of the source go into the same target.
pub(super) async fn is_shared(
    spec: &CopySpec,
    conn: &mut Conn,
    table: &SourceTable,
    target: &TargetTable,
) -> Result<bool, Failure> {
    const SQL: &str = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type='BASE TABLE' AND \
                       table_schema NOT IN ('mysql','information_schema','performance_schema','sys')";
    let rows: Vec<(String, String)> = answered(conn.query(SQL)).await.map_err(|error| query_failed(&error, SQL))?;
    for (schema, name) in rows {
        let other = SourceTable(TableName::new(schema, name));
        if other != *table && spec.guide.target(&other)?.as_ref() == Some(target) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What an operator is told when the downstream refused something.
pub(super) fn target_failed(error: &mysql_async::Error, doing: &str) -> Failure {
    driver_failure(error, Code::ExecuteFailed, Scope::Downstream, doing)
}
