//! Connections to the downstream with the session that lanes and DDL need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{Code, Failure, Scope, driver_failure};
use crate::mysql::{Connector, Endpoint};
use crate::schema::Dialect;

/// Longest wait for the answer to one statement that is not DDL; then the connection counts as lost.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// Strict about what does not fit, lax about what the source was allowed to store: zero and invalid dates, and 0 in an
/// AUTO_INCREMENT column.
const STRICT_MODE: &str = "STRICT_TRANS_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO";
/// For statements with a value that strict mode refuses although it is the source's (ENUM's error value).
const RELAXED_MODE: &str = "ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO";

/// How the downstream is to be used.
#[derive(Debug, Clone)]
pub struct DownstreamOptions {
    /// Server and account, with the task's session variables.
    pub endpoint: Endpoint,
}

/// The downstream: makes connections, knows its dialect.
#[derive(Debug, Clone)]
pub struct Downstream {
    connector: Connector,
    /// Which SQL it speaks.
    pub dialect: Dialect,
    strict_mode: String,
    /// The server's `max_allowed_packet`, as of the last connection.
    max_packet: Arc<AtomicUsize>,
    /// Whether foreign keys are checked in our sessions, so that source order must be kept.
    pub checks_foreign_keys: bool,
    /// Whether it takes `VALUES` as a table.
    pub takes_lists: bool,
}

impl Downstream {
    /// Connects once to learn the dialect.
    pub async fn open(options: DownstreamOptions) -> Result<Self, Failure> {
        let (downstream, conn) = Downstream::open_connected(options).await?;
        let _ = tokio::time::timeout(Duration::from_secs(1), conn.disconnect()).await;
        Ok(downstream)
    }

    /// The same, with the connection that it learned by, which is as every other one.
    pub async fn open_connected(options: DownstreamOptions) -> Result<(Self, Conn), Failure> {
        let mut endpoint = options.endpoint;
        let mut taken = |name: &str| {
            let key = endpoint.session.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned()?;
            endpoint.session.remove(&key)
        };
        // What literals are written for is not the task's to change: UTC, utf8mb4, backslash escapes.
        for fixed in
            ["time_zone", "character_set_client", "character_set_connection", "collation_connection", "autocommit"]
        {
            let _ = taken(fixed);
        }
        let strict_mode = taken("sql_mode").map_or_else(|| STRICT_MODE.to_owned(), |mode| without_escapes_off(&mode));
        let checks = endpoint.session.iter().find(|(key, _)| key.eq_ignore_ascii_case("foreign_key_checks"));
        let checks_foreign_keys = checks.is_some_and(|(_, value)| value == "1" || value.eq_ignore_ascii_case("on"));
        let connector = Connector::new(endpoint)
            .with_session("SET NAMES utf8mb4")
            .with_session(format!(
                "SET SESSION sql_mode='{}', time_zone='+00:00', foreign_key_checks=0, autocommit=1",
                strict_mode.replace('\'', "")
            ))
            .with_session("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
        let max_packet = Arc::new(AtomicUsize::new(usize::MAX));
        let mut downstream = Downstream {
            connector,
            dialect: Dialect::MySql,
            strict_mode,
            max_packet,
            checks_foreign_keys,
            takes_lists: false,
        };
        let mut conn = downstream.connect().await?;
        let failed =
            |error| driver_failure(&error, Code::QueryFailed, Scope::Downstream, "ask the downstream for its version");
        let version: Option<String> = limited(conn.query_first("SELECT VERSION()")).await.map_err(failed)?;
        let version = version.unwrap_or_default();
        downstream.dialect = match &version {
            version if version.contains("TiDB") => Dialect::TiDb,
            version if version.contains("MariaDB") => Dialect::MariaDb,
            _ => Dialect::MySql,
        };
        downstream.takes_lists = downstream.dialect == Dialect::MariaDb && takes_lists(&version);
        if logs_statements(&mut conn).await {
            // Refused there with READ COMMITTED (1665); lanes that then wait for each other's gaps try again.
            let repeatable = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
            limited(conn.query_drop(repeatable)).await.map_err(failed)?;
            downstream.connector = downstream.connector.with_session(repeatable);
        }
        Ok((downstream, conn))
    }

    /// A new connection, ready for statements.
    pub async fn connect(&self) -> Result<Conn, Failure> {
        let failure = |error| self.connector.failure(&error, Scope::Downstream);
        let mut conn = self.connector.connect().await.map_err(failure)?;
        // A session keeps the value that it began with.
        let packet: Option<usize> =
            limited(conn.query_first("SELECT @@SESSION.max_allowed_packet")).await.map_err(failure)?;
        self.max_packet.store(packet.unwrap_or(usize::MAX), Ordering::Relaxed);
        Ok(conn)
    }

    /// Longest statement that the server takes, in bytes.
    pub fn max_statement(&self) -> usize {
        // One byte of a packet is the command.
        self.max_packet.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// `SET` statement to the mode for all statements, or to that for one with values that strict mode refuses.
    pub fn set_mode(&self, relaxed: bool) -> String {
        let mode = if relaxed { RELAXED_MODE } else { self.strict_mode.as_str() };
        format!("SET SESSION sql_mode='{}'", mode.replace('\'', ""))
    }

    /// Waits for an answer, but not for ever.
    pub async fn limited<T>(
        &self,
        answer: impl Future<Output = Result<T, mysql_async::Error>>,
    ) -> Result<T, mysql_async::Error> {
        limited(answer).await
    }
}

/// Whether a MariaDB of this version takes `VALUES` as a table: from 10.3 on. Some are told as `5.5.5-10.11.4-MariaDB`.
fn takes_lists(version: &str) -> bool {
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (10, 3)
}

/// Whether the server writes statements into its own binlog. One that has no such variables does not.
async fn logs_statements(conn: &mut Conn) -> bool {
    let asked = limited(conn.query_first::<(u8, String), _>("SELECT @@log_bin, @@SESSION.binlog_format")).await;
    matches!(asked, Ok(Some((1, format))) if format == "STATEMENT")
}

/// The modes without the one that would change what our literals mean.
fn without_escapes_off(modes: &str) -> String {
    let kept = modes.split(',').filter(|mode| !mode.trim().eq_ignore_ascii_case("NO_BACKSLASH_ESCAPES"));
    kept.collect::<Vec<_>>().join(",")
}

/// Waits for an answer for [`STATEMENT_TIMEOUT`] at most.
pub async fn limited<T>(answer: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, mysql_async::Error> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!("no answer within {} s", STATEMENT_TIMEOUT.as_secs());
            Err(mysql_async::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_from_10_3_on() {
        let taken = ["10.3.0-MariaDB", "5.5.5-10.11.19-MariaDB-0+deb12u1", "11.4.2-MariaDB-log", "12.0.1-MariaDB"];
        assert!(taken.into_iter().all(takes_lists));
        assert!(!["5.5.5-10.2.44-MariaDB", "10.2.9-MariaDB", "5.5.68-MariaDB", "", "x"].into_iter().any(takes_lists));
    }
}
