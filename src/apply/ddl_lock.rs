//! One connection at a time may run DDL of a task: the one that holds the task's named lock on the server.
//!
//! A statement cannot be in a transaction with the check that its sender still owns the task. So the sender takes the
//! lock, checks, runs the statement and gives the lock back, all on one connection. Whoever claims the task raises the
//! epoch first and takes the lock then. At that moment nobody can be between check and statement: a sender that had
//! passed its check would hold the lock until the server has ended its statement, and one that takes the lock later
//! finds the epoch raised. The server frees the lock of a connection that dies only after its statement has ended.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::downstream::limited;
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::meta::MetaTables;
use crate::mysql::quote;

/// How long one try waits on the server.
const TRY: Duration = Duration::from_secs(1);

/// The lock of one task and source.
#[derive(Debug, Clone)]
pub struct DdlLock {
    name: String,
}

/// A connection as `SHOW PROCESSLIST` has it.
pub struct ServerThread {
    /// `Sleep`, `Query`, …
    pub command: String,
    /// What it is at.
    pub state: String,
}

impl DdlLock {
    /// The lock of the task whose tables these are. Server limits: 64 characters.
    pub fn new(tables: &MetaTables) -> Self {
        DdlLock { name: format!("dm-agent:{:032x}", xxhash_rust::xxh3::xxh3_128(tables.identity().as_bytes())) }
    }

    /// Takes it, however long another connection runs DDL under it; `say` is told what is waited for. A holder that does
    /// nothing is a former owner that stopped before its statement: its connection is killed. `false` where the server
    /// has no such locks.
    pub async fn take(&self, conn: &mut Conn, mut say: impl FnMut(String)) -> Result<bool, Failure> {
        let name = quote(&self.name);
        let mut killed = None;
        loop {
            let sql = format!("SELECT GET_LOCK({name}, {})", TRY.as_secs());
            match limited(conn.query_first::<Option<i64>, _>(sql)).await {
                Ok(Some(Some(1))) => return Ok(true),
                Ok(_) => {}
                Err(mysql_async::Error::Server(error)) => {
                    tracing::warn!(error = %error.message, "the downstream refuses named locks: a former owner's DDL is not waited for");
                    return Ok(false);
                }
                Err(error) => return Err(failed(&error)),
            }
            let sql = format!("SELECT IS_USED_LOCK({name})");
            let holder = limited(conn.query_first::<Option<u64>, _>(sql)).await.map_err(|error| failed(&error))?;
            let Some(holder) = holder.flatten() else { continue };
            match thread(conn, holder).await? {
                Some(thread) if thread.command.eq_ignore_ascii_case("sleep") && killed != Some(holder) => {
                    tracing::warn!(
                        connection = holder,
                        "a former owner holds the task's DDL lock and does nothing: killed"
                    );
                    match limited(conn.query_drop(format!("KILL {holder}"))).await {
                        Ok(()) => killed = Some(holder),
                        Err(error) => {
                            say(format!(
                                "waiting for connection {holder}, which holds the task's DDL lock (KILL: {error})"
                            ));
                        }
                    }
                }
                _ => say(format!("waiting for DDL that connection {holder} on the downstream still runs")),
            }
        }
    }

    /// Gives it back. A connection that fails here takes the lock with it.
    pub async fn give_back(&self, conn: &mut Conn) {
        let _ = limited(conn.query_drop(format!("DO RELEASE_LOCK({})", quote(&self.name)))).await;
    }
}

/// What a connection of the server does; `None` where there is none, or none that this account may see.
pub async fn thread(conn: &mut Conn, id: u64) -> Result<Option<ServerThread>, Failure> {
    let rows: Vec<Row> = limited(conn.query("SHOW PROCESSLIST")).await.map_err(|error| failed(&error))?;
    let text = |row: &Row, name: &str| row.get_opt::<Option<String>, _>(name).and_then(Result::ok).flatten();
    let row = rows.iter().find(|row| text(row, "Id").and_then(|text| text.parse().ok()) == Some(id));
    Ok(row.map(|row| ServerThread {
        command: text(row, "Command").unwrap_or_default(),
        state: text(row, "State").unwrap_or_default(),
    }))
}

fn failed(error: &mysql_async::Error) -> Failure {
    driver_failure(error, Code::QueryFailed, Scope::Downstream, "take the task's DDL lock")
}
