//! A table's definition as its server shows it.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, IoError, Row};

use crate::error::{Code, Failure, Scope, driver_failure};
use crate::model::TableName;

/// Longest wait for the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// `SHOW CREATE TABLE`; a failure where the table is not there, or not for this account.
pub async fn show_create_table(conn: &mut Conn, table: &TableName, scope: Scope) -> Result<String, Failure> {
    let sql = format!("SHOW CREATE TABLE {table}");
    let timed_out = |_| Error::Io(IoError::Io(std::io::ErrorKind::TimedOut.into()));
    let answer = tokio::time::timeout(LIMIT, conn.query_first::<Row, _>(sql.as_str())).await.map_err(timed_out);
    let row = answer
        .and_then(|answer| answer)
        .map_err(|error| driver_failure(&error, Code::QueryFailed, scope, &format!("query statement failed: {sql}")))?;
    let text = row.and_then(|row| row.get_opt::<String, _>(1)).and_then(Result::ok);
    // A view's row has its definition at another place, and is none of a table.
    let table_text = text.filter(|text| text.starts_with("CREATE TABLE") || text.starts_with("CREATE TEMPORARY"));
    table_text.ok_or_else(|| {
        Failure::new(Code::QueryFailed, format!("query statement failed: {sql}"))
            .scope(scope)
            .cause("it is not a table")
    })
}
