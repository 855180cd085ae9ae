//! Connections to the source for reading rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::patience::within;
use crate::error::{Code, Failure, Scope, driver_failure, server_error_code, server_number};
use crate::mysql::{Connector, Endpoint};

/// Seconds that the source waits for us to take rows: writers may be slow for as long as a downstream waits for a lock.
const PATIENCE: u32 = 3600;

/// Statements that a connection begins with.
const LOGIN: u64 = 9;

/// Makes them; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Source {
    connector: Arc<Connector>,
    /// Statements that were sent, as far as they are counted.
    sent: Arc<AtomicU64>,
}

impl Source {
    pub fn new(endpoint: &Endpoint) -> Self {
        let mut endpoint = endpoint.clone();
        // What answers are read for is not the task's to change.
        let fixed = [
            "time_zone",
            "sql_mode",
            "character_set_results",
            "character_set_client",
            "character_set_connection",
            "collation_connection",
            "autocommit",
            "transaction_isolation",
            "tx_isolation",
        ];
        endpoint.session.retain(|name, _| !fixed.iter().any(|fixed| name.eq_ignore_ascii_case(fixed)));
        let connector = Connector::new(endpoint)
            .with_session("SET NAMES utf8mb4")
            .with_session(format!(
                "SET SESSION sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00', autocommit=1, character_set_results=NULL, \
                 net_write_timeout={PATIENCE}"
            ))
            .with_session("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        Source { connector: Arc::new(connector), sent: Arc::default() }
    }

    /// Statements are sent, that are not others'.
    pub fn count(&self, statements: u64) {
        self.sent.fetch_add(statements, Ordering::Relaxed);
    }

    /// How many were.
    pub fn counted(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub async fn connect(&self) -> Result<Conn, Failure> {
        self.count(LOGIN);
        let failure = |error| self.connector.failure(&error, Scope::Upstream);
        let mut conn = self.connector.connect().await.map_err(failure)?;
        // A limit of the server's on queries would cut large tables; only one make knows each of these.
        let settings = [
            "max_execution_time=0",
            "max_statement_time=0",
            "information_schema_stats_expiry=0",
            // A primary key that the server made up is in the binlog, too.
            "show_gipk_in_create_table_and_information_schema=1",
        ];
        for setting in settings {
            match conn.query_drop(format!("SET SESSION {setting}")).await {
                Err(error) if server_error_code(&error).is_some() => {}
                answer => answer.map_err(|error| self.connector.failure(&error, Scope::Upstream))?,
            }
        }
        Ok(conn)
    }
}

/// How long the source may take to answer what is not about rows; where it has many tables, minutes.
const ASKED: Duration = Duration::from_secs(600);

/// Waits for an answer of the source that is not about rows, but not for ever.
pub(super) async fn answered<T>(
    answer: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, mysql_async::Error> {
    within(ASKED, answer).await
}

/// What an operator is told when the source refused something.
pub(super) fn query_failed(error: &mysql_async::Error, doing: &str) -> Failure {
    driver_failure(error, Code::QueryFailed, Scope::Upstream, doing)
}

/// Unknown column, table or key, and a definition that is newer than the snapshot: the table is not what it was when it was
/// looked at, and a DDL statement is on its way.
const OTHER: [u16; 4] = [1054, 1146, 1176, 1412];

/// Whether the source refused something because a table is another one, or away.
pub(super) fn is_of_another(failure: &Failure) -> bool {
    failure.scope == Scope::Upstream.as_str() && server_number(failure).is_some_and(|number| OTHER.contains(&number))
}
