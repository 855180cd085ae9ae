//! A table that is read whole, as it is at one location: its changes are not idempotent, so they begin exactly there.
//!
//! MySQL tells no location with a snapshot. So the table is locked for reading on one connection, for as long as it takes to
//! begin a snapshot on another and to ask for the location: a few milliseconds, in which a writer of this table waits. To get
//! the lock it waits behind transactions that have written to the table, and whoever comes later waits behind it, so it gives
//! up after a second and tries again. MariaDB tells the location of a snapshot and needs no lock. A table whose engine has no
//! snapshots stays locked until it is read.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::plan::TablePlan;
use super::prepared::{in_the_way, prepared};
use super::source::{Source, answered, query_failed};
use super::spec::CopySpec;
use crate::error::{Failure, server_error_code};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location};

/// Seconds to wait for a table's lock; whoever wants to write waits as long.
const LOCK_WAIT: u32 = 1;
/// How often it is asked for, and the pause between.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);
/// Lock wait timeout.
const WAITED: u16 = 1205;

/// A connection on which a table is as it was at one location.
pub(super) struct Hold {
    pub conn: Conn,
    pub location: Location,
    /// Holds the table's lock, where only that keeps it still.
    locked: Option<Conn>,
}

impl Hold {
    pub async fn open(source: &Source, spec: &CopySpec, plan: &TablePlan) -> Result<Hold, Failure> {
        let mut conn = source.connect().await?;
        if spec.flavor == Flavor::MariaDb && plan.transactional {
            let location = snapshot(source, &mut conn).await?;
            return Ok(Hold { conn, location, locked: None });
        }
        let mut locker = source.connect().await?;
        lock(&mut locker, plan).await?;
        begin(&mut conn).await?;
        let location = spec.guide.location(&mut locker).await?;
        if plan.transactional {
            drop_politely(locker).await;
            return Ok(Hold { conn, location, locked: None });
        }
        Ok(Hold { conn, location, locked: Some(locker) })
    }

    /// Whether its writers wait.
    pub fn is_locked(&self) -> bool {
        self.locked.is_some()
    }

    /// Ends the snapshot and the lock.
    pub async fn release(self) {
        drop_politely(self.conn).await;
        if let Some(locker) = self.locked {
            drop_politely(locker).await;
        }
    }
}

/// A server that notices at once frees locks at once.
async fn drop_politely(conn: Conn) {
    let _ = tokio::time::timeout(Duration::from_secs(1), conn.disconnect()).await;
}

async fn begin(conn: &mut Conn) -> Result<(), Failure> {
    const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
    conn.query_drop(BEGIN).await.map_err(|error| query_failed(&error, BEGIN))
}

/// A snapshot of MariaDB's, at a moment when no XA transaction is prepared: a snapshot does not see the rows of one, which are
/// logged before it. (A table's lock waits for those of that table.)
async fn snapshot(source: &Source, conn: &mut Conn) -> Result<Location, Failure> {
    let mut asking = source.connect().await?;
    for _ in 0..ATTEMPTS {
        let commands = xa_commands(&mut asking).await?;
        let mut open = prepared(&mut asking).await?.unwrap_or_default();
        begin(conn).await?;
        let location = snapshot_location(conn).await?;
        // One that was prepared between the two looks was ended between them, too, or is seen by the second one.
        open.extend(prepared(&mut asking).await?.unwrap_or_default());
        if open.is_empty() && xa_commands(&mut asking).await? == commands {
            return Ok(location);
        }
        conn.query_drop("ROLLBACK").await.map_err(|error| query_failed(&error, "ROLLBACK"))?;
        tokio::time::sleep(PAUSE).await;
    }
    let open = prepared(&mut asking).await?.unwrap_or_default();
    Err(in_the_way(&open, "a table without a key was to be read"))
}

/// How many XA commands the server has had.
async fn xa_commands(conn: &mut Conn) -> Result<u64, Failure> {
    const COUNTS: &str = "SHOW GLOBAL STATUS LIKE 'Com\\_xa\\_%'";
    let rows: Vec<(String, u64)> = answered(conn.query(COUNTS)).await.map_err(|error| query_failed(&error, COUNTS))?;
    // Looking at what is prepared is one of them.
    Ok(rows.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Com_xa_recover")).map(|(_, count)| count).sum())
}

async fn lock(conn: &mut Conn, plan: &TablePlan) -> Result<(), Failure> {
    let doing = format!("lock {} for reading, for a moment: it has no key", plan.source);
    let failed = |error: &mysql_async::Error| query_failed(error, &doing);
    conn.query_drop(format!("SET SESSION lock_wait_timeout={LOCK_WAIT}")).await.map_err(|error| failed(&error))?;
    for attempt in 1.. {
        match conn.query_drop(format!("LOCK TABLES {} READ", plan.source)).await {
            Ok(()) => break,
            Err(error) if server_error_code(&error) == Some(WAITED) && attempt < ATTEMPTS => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let mut failure = failed(&error);
                failure.workaround = match server_error_code(&error) {
                    Some(1044 | 1142) => format!(
                        "Please grant LOCK TABLES and SELECT ON `{}`.* on the source, or give the table a primary key.",
                        plan.source.0.schema.replace('`', "``")
                    ),
                    _ => "Please end the transactions that have written to the table and are still open, then \
                          resume-task."
                        .to_owned(),
                };
                return Err(failure);
            }
        }
    }
    Ok(())
}

/// Where MariaDB's snapshot is.
async fn snapshot_location(conn: &mut Conn) -> Result<Location, Failure> {
    const STATUS: &str = "SHOW STATUS LIKE 'binlog_snapshot_%'";
    let rows: Vec<(String, String)> =
        answered(conn.query(STATUS)).await.map_err(|error| query_failed(&error, STATUS))?;
    let value = |wanted: &str| {
        let found = rows.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let (file, offset) = (value("binlog_snapshot_file"), value("binlog_snapshot_position"));
    let unreadable = |text: String| Failure::new(crate::error::Code::QueryFailed, format!("{STATUS}: {text}"));
    let number = offset.parse().map_err(|_| unreadable(format!("'{offset}' is no position")))?;
    let position = BinlogPosition::parse(&file, number).map_err(|error| unreadable(error.to_string()))?;
    let set = format!("SELECT BINLOG_GTID_POS({}, {number})", crate::mysql::quote(&file));
    let gtids: Option<Option<String>> =
        answered(conn.query_first(set.as_str())).await.map_err(|error| query_failed(&error, &set))?;
    let gtids = GtidSet::parse(Flavor::MariaDb, &gtids.flatten().unwrap_or_default())
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(Location::new(position, gtids))
}
