//! The session that a DDL statement runs in: what decides its meaning as it was on the source.
//!
//! A statement's text is not all of it. Which character set a schema gets that names none, what `CHARSET utf8mb4` sorts
//! by, which hour `DEFAULT NOW()` gives the rows that are there: that comes from the session, and the source logs it.
//! Invariant: what the downstream does not know is replaced by what comes nearest without changing what a column can hold
//! (another collation of the same character set). A time zone that nobody knows is a failure. A default character set that
//! it does not have stays its own: a table that names it is refused, and one that does not has its texts converted.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::session::{Downstream, limited};
use crate::error::server_error_code;
use crate::schema::{Dialect, charset_of_collation};

/// Unknown collation, unknown character set, unknown or incorrect time zone.
const UNKNOWN: [u16; 3] = [1273, 1115, 1298];
/// utf8mb4_general_ci: what utf8mb4 meant before servers could be told otherwise.
const GENERAL: u16 = 45;
/// Collations of utf8mb4 that a server can be told to take where none is named.
const DEFAULTS: [(u16, &str); 4] = [
    (GENERAL, "utf8mb4_general_ci"),
    (46, "utf8mb4_bin"),
    (255, "utf8mb4_0900_ai_ci"),
    (2304, "utf8mb4_uca1400_ai_ci"),
];

/// A time zone that a statement depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// As the source knows it; empty for the zone of its machine, which has no name elsewhere.
    pub name: String,
    /// Its distance from UTC when the statement ran, `+02:00`; `None` where the source could not be asked.
    pub offset: Option<String>,
}

/// What the source's session had set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DdlSession {
    /// `sql_mode` flags that decide how the text reads.
    pub sql_modes: Vec<&'static str>,
    /// The source's clock, seconds since the epoch.
    pub timestamp: u32,
    /// Numbers of the connection's and the server's collation.
    pub collations: Option<[u16; 2]>,
    /// Number of the collation that utf8mb4 without one means; `None` where the source cannot be told.
    pub utf8mb4_collation: Option<u16>,
    /// It did not check foreign keys.
    pub foreign_keys_off: bool,
    /// `None` where nothing depends on it.
    pub zone: Option<Zone>,
}

/// Why a session could not be made.
#[derive(Debug)]
pub enum SessionError {
    /// The server said no, or is gone.
    Server(mysql_async::Error),
    /// It does not know the time zone, and nobody could say how far from UTC that is.
    Zone(String),
}

impl From<mysql_async::Error> for SessionError {
    fn from(error: mysql_async::Error) -> Self {
        SessionError::Server(error)
    }
}

impl DdlSession {
    /// Sets it on a connection. [`Self::leave`] takes it back.
    pub async fn enter(&self, conn: &mut Conn, dialect: Dialect) -> Result<(), SessionError> {
        let set = format!("SET SESSION sql_mode='{}', timestamp={}", ddl_mode(&self.sql_modes), self.timestamp);
        limited(conn.query_drop(set)).await?;
        if let Some([connection, server]) = self.collations {
            // Literals become what they were on the source; where that is not known here, they stay utf8mb4.
            let _ = set_known(conn, format!("SET SESSION collation_connection={connection}")).await?;
            if !set_known(conn, format!("SET SESSION collation_server={server}")).await? {
                let charset = charset_of_collation(u32::from(server)).unwrap_or("utf8mb4");
                if !set_known(conn, format!("SET SESSION character_set_server='{charset}'")).await? {
                    tracing::warn!(charset, "the downstream does not know the source's default character set");
                }
            }
        }
        let meant = self.utf8mb4_collation.unwrap_or(GENERAL);
        if let Some((_, name)) = DEFAULTS.iter().find(|(number, _)| *number == meant) {
            let sql = match dialect {
                Dialect::MariaDb => format!("SET SESSION character_set_collations='utf8mb4={name}'"),
                Dialect::MySql | Dialect::TiDb => format!("SET SESSION default_collation_for_utf8mb4={name}"),
            };
            // Older servers have no such variable, and it may need a right: then the sorting is the downstream's own.
            attempt(conn, sql).await?;
        }
        // What the source did, it does too: a table without a key is one here, and not one with a key that it makes up.
        if dialect == Dialect::MySql {
            attempt(conn, "SET SESSION sql_generate_invisible_primary_key=0").await?;
            attempt(conn, "SET SESSION sql_require_primary_key=0").await?;
        }
        if self.foreign_keys_off {
            limited(conn.query_drop("SET SESSION foreign_key_checks=0")).await?;
        }
        match &self.zone {
            Some(zone) => enter_zone(conn, zone).await,
            None => Ok(()),
        }
    }

    /// Back to the session that everything else runs in. A connection that breaks here is replaced by its user.
    pub async fn leave(&self, conn: &mut Conn, downstream: &Downstream) {
        let checks = u8::from(downstream.checks_foreign_keys);
        let usual = format!(
            "SET NAMES utf8mb4, timestamp=DEFAULT, time_zone='+00:00', collation_server=DEFAULT, foreign_key_checks={checks}"
        );
        for statement in [usual, downstream.set_mode(false)] {
            let _ = limited(conn.query_drop(statement)).await;
        }
    }
}

/// By its name where the server knows that, else by how far it was from UTC.
async fn enter_zone(conn: &mut Conn, zone: &Zone) -> Result<(), SessionError> {
    let named = format!("SET SESSION time_zone='{}'", zone.name.replace(['\'', '\\'], ""));
    if !zone.name.is_empty() && set_known(conn, named).await? {
        return Ok(());
    }
    let Some(offset) = &zone.offset else { return Err(SessionError::Zone(zone.name.clone())) };
    Ok(limited(conn.query_drop(format!("SET SESSION time_zone='{offset}'"))).await?)
}

/// `false` where the server does not know what is to be set.
async fn set_known(conn: &mut Conn, sql: String) -> Result<bool, mysql_async::Error> {
    match limited(conn.query_drop(sql)).await {
        Err(error) if server_error_code(&error).is_some_and(|code| UNKNOWN.contains(&code)) => Ok(false),
        answer => answer.map(|()| true),
    }
}

/// Whatever the server says to it; only a lost connection fails.
async fn attempt(conn: &mut Conn, sql: impl AsRef<str>) -> Result<(), mysql_async::Error> {
    match limited(conn.query_drop(sql.as_ref())).await {
        Err(error) if server_error_code(&error).is_some() => Ok(()),
        answer => answer,
    }
}

/// The source's reading modes, and what lets a table keep defaults that are dates of zero.
fn ddl_mode(reading: &[&str]) -> String {
    let lax = ["ALLOW_INVALID_DATES", "NO_AUTO_VALUE_ON_ZERO"];
    lax.iter().chain(reading).copied().collect::<Vec<_>>().join(",")
}
