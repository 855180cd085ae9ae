//! What a source says of itself: version, identity, where its binlog stands, its clock, our rights on it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};

use crate::clock::{seconds, steady};
use crate::error::{Code, Failure, Scope, driver_failure, server_error_code};
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidParseError, GtidSet, Location};

/// Longest wait for one statement. A source that is busy answers these at once; one that hangs must not hang us.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's version; compares by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// 8 of 8.4.7.
    pub major: u16,
    /// 4 of 8.4.7.
    pub minor: u16,
    /// 7 of 8.4.7.
    pub patch: u16,
}

impl ServerVersion {
    /// Reads the numbers in front of `8.4.7-debug` or `10.11.19-MariaDB-log`; also behind the `5.5.5-` that MariaDB puts
    /// in front in its greeting. What is missing counts as 0.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix("5.5.5-").unwrap_or(text);
        let mut numbers = text.split(['.', '-', '+', '~', ' ']).map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        ServerVersion { major: next(), minor: next(), patch: next() }
    }

    /// Only the first two numbers.
    pub const fn of(major: u16, minor: u16) -> Self {
        ServerVersion { major, minor, patch: 0 }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A binlog file on the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogSize {
    /// The file.
    pub file: BinlogFile,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A source at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFacts {
    /// Dialect.
    pub flavor: Flavor,
    /// Version.
    pub version: ServerVersion,
    /// `server_uuid`, or MariaDB's `<gtid_domain_id>-<server_id>`.
    pub identity: String,
    /// The server's own id.
    pub server_id: u32,
    /// End of its binlog; `None` where it writes none or does not tell us.
    pub location: Option<Location>,
    /// Its clock minus ours, in seconds.
    pub clock_offset: f64,
    /// GTIDs whose binlogs are gone; always empty for MariaDB.
    pub purged: GtidSet,
    /// Its binlog files, oldest first; empty where it does not tell us.
    pub binlogs: Vec<BinlogSize>,
    /// Our rights, as `SHOW GRANTS` prints them.
    pub grants: Vec<String>,
    /// The variables that replication depends on, by name, as the server prints them.
    pub variables: BTreeMap<String, String>,
}

const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', \
                         'gtid_mode', 'gtid_purged', 'gtid_domain_id', 'server_id', 'server_uuid', 'binlog_encryption', \
                         'encrypt_binlog', 'binlog_row_value_options', 'binlog_row_metadata', \
                         'binlog_transaction_compression', 'log_bin_compress', 'binlog_checksum', \
                         'binlog_expire_logs_seconds', 'binlog_expire_logs_auto_purge', 'expire_logs_days')";

impl ServerFacts {
    /// Asks for everything. What our rights do not let us see is left empty, so that [`super::Preflight`] can name it
    /// together with all else; only a lost connection or an unreadable answer fails.
    pub async fn read(conn: &mut Conn) -> Result<Self, Failure> {
        Self::gather(conn).await.map_err(|error| error.failure())
    }

    async fn gather(conn: &mut Conn) -> Result<Self, AskError> {
        let version: Vec<(String, String)> = ask(conn, "SELECT @@version, @@version_comment").await?;
        let (text, comment) = version.into_iter().next().unwrap_or_default();
        let is_mariadb = [&text, &comment].iter().any(|text| text.to_ascii_lowercase().contains("mariadb"));
        let flavor = if is_mariadb { Flavor::MariaDb } else { Flavor::MySql };
        let version = ServerVersion::parse(&text);
        let variables: Vec<(String, String)> = ask(conn, VARIABLES).await?;
        let variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let variable = |name: &str| variables.get(name).map_or("", String::as_str);
        let identity = match flavor {
            Flavor::MySql => variable("server_uuid").to_owned(),
            Flavor::MariaDb => format!("{}-{}", variable("gtid_domain_id"), variable("server_id")),
        };
        let purged = match flavor {
            Flavor::MySql => GtidSet::parse(flavor, variable("gtid_purged"))?,
            Flavor::MariaDb => GtidSet::empty(flavor),
        };
        let location = unless_denied(position_and_set(conn, flavor, version).await)?.flatten();
        let binlogs = unless_denied(binlogs(conn).await)?.unwrap_or_default();
        let grants: Vec<String> = ask(conn, "SHOW GRANTS").await?;
        Ok(ServerFacts {
            flavor,
            version,
            identity,
            server_id: variable("server_id").parse().unwrap_or(0),
            location,
            clock_offset: clock_offset(conn).await?,
            purged,
            binlogs,
            grants,
            variables,
        })
    }

    /// How long it keeps a binlog file after the file's last change; `None` where it removes none by itself.
    pub fn binlog_expiry(&self) -> Option<Duration> {
        if self.variable("binlog_expire_logs_auto_purge") == "OFF" {
            return None;
        }
        let number = |name: &str| self.variable(name).parse::<f64>().ok().filter(|number| *number > 0.0);
        // MariaDB has had fractions of days since it counts in seconds.
        let days = || number("expire_logs_days").map(|days| days * 86_400.0);
        number("binlog_expire_logs_seconds").or_else(days).and_then(|s| Duration::try_from_secs_f64(s).ok())
    }

    /// One of the variables, in upper case; empty where the server does not know it.
    pub(super) fn variable(&self, name: &str) -> String {
        self.variables.get(name).map(|value| value.to_ascii_uppercase()).unwrap_or_default()
    }
}

/// The end of the source's binlog, `None` where it writes none. MariaDB tells set and position apart: the set is asked
/// for first, so that it is never ahead of the position.
pub async fn location_now(
    conn: &mut Conn,
    flavor: Flavor,
    version: ServerVersion,
) -> Result<Option<Location>, Failure> {
    position_and_set(conn, flavor, version).await.map_err(|error| error.failure())
}

async fn position_and_set(
    conn: &mut Conn,
    flavor: Flavor,
    version: ServerVersion,
) -> Result<Option<Location>, AskError> {
    let set: Option<String> = match flavor {
        Flavor::MySql => None,
        Flavor::MariaDb => ask(conn, "SELECT @@global.gtid_binlog_pos").await?.into_iter().next(),
    };
    // 8.2 brought the new name, 8.4 took the old one away.
    let renamed = flavor == Flavor::MySql && version >= ServerVersion::of(8, 2);
    let statement = if renamed { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let rows: Vec<Row> = ask(conn, statement).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let unreadable = || AskError::Unreadable(statement.to_owned());
    let file = text_at(row, 0).ok_or_else(unreadable)?;
    let offset = text_at(row, 1).and_then(|text| text.parse().ok()).ok_or_else(unreadable)?;
    let set = set.or_else(|| text_at(row, 4)).unwrap_or_default();
    let position = BinlogPosition::parse(&file, offset).map_err(|_| unreadable())?;
    Ok(Some(Location::new(position, GtidSet::parse(flavor, &set)?)))
}

async fn binlogs(conn: &mut Conn) -> Result<Vec<BinlogSize>, AskError> {
    const STATEMENT: &str = "SHOW BINARY LOGS";
    let asked = timed(conn.query::<Row, _>(STATEMENT)).await;
    let rows = match asked {
        // "You are not using binary logging" is an answer, not a failure.
        Err(error) if server_error_code(&error) == Some(1381) => return Ok(Vec::new()),
        other => other.map_err(|error| AskError::Query { statement: STATEMENT.to_owned(), error })?,
    };
    rows.iter()
        .map(|row| {
            let file = text_at(row, 0).and_then(|name| BinlogFile::parse(&name).ok());
            let bytes = text_at(row, 1).and_then(|text| text.parse().ok());
            Some(BinlogSize { file: file?, bytes: bytes? })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| AskError::Unreadable(STATEMENT.to_owned()))
}

/// The server's clock minus ours, the steady one, at the middle of the round trip.
async fn clock_offset(conn: &mut Conn) -> Result<f64, AskError> {
    const STATEMENT: &str = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))";
    let before = seconds(steady());
    let micros: Vec<i64> = ask(conn, STATEMENT).await?;
    let after = seconds(steady());
    let micros = micros.first().ok_or_else(|| AskError::Unreadable(STATEMENT.to_owned()))?;
    Ok(*micros as f64 / 1e6 - (before + after) / 2.0)
}

/// Why an answer is missing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("query statement failed: {statement}")]
    Query {
        statement: String,
        #[source]
        error: Error,
    },
    #[error("the answer to `{0}` cannot be read")]
    Unreadable(String),
    #[error(transparent)]
    Set(#[from] GtidParseError),
}

impl AskError {
    fn failure(&self) -> Failure {
        match self {
            AskError::Query { statement, error } => query_failure(error, statement),
            AskError::Unreadable(_) => Failure::new(Code::QueryFailed, self.to_string()).scope(Scope::Upstream),
            AskError::Set(_) => Failure::new(Code::ParseGtid, self.to_string()).scope(Scope::Upstream),
        }
    }

    /// Whether we merely lack the right to know.
    fn is_denied(&self) -> bool {
        matches!(self, AskError::Query { error, .. } if matches!(server_error_code(error), Some(1044 | 1045 | 1227)))
    }
}

/// Turns a refusal for lack of rights into nothing.
fn unless_denied<T>(outcome: Result<T, AskError>) -> Result<Option<T>, AskError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs a statement that gives rows, in at most [`STATEMENT_TIMEOUT`].
async fn ask<T>(conn: &mut Conn, statement: &str) -> Result<Vec<T>, AskError>
where
    T: mysql_async::prelude::FromRow + Send + 'static,
{
    timed(conn.query(statement)).await.map_err(|error| AskError::Query { statement: statement.to_owned(), error })
}

/// Puts a limit on a statement.
pub(super) async fn timed<T>(query: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let timed_out = |_| Error::Io(mysql_async::IoError::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(STATEMENT_TIMEOUT, query).await.map_err(timed_out)?
}

pub(super) fn query_failure(error: &Error, statement: &str) -> Failure {
    driver_failure(error, Code::QueryFailed, Scope::Upstream, &format!("query statement failed: {statement}"))
}

/// A column as text, whatever type the server gave it.
pub(super) fn text_at(row: &Row, index: usize) -> Option<String> {
    match row.as_ref(index)? {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::{DriverError, ServerError};

    use super::*;

    #[test]
    fn versions_of_both_flavors() {
        for (text, expected) in [
            ("8.4.7", (8, 4, 7)),
            ("9.7.4-2", (9, 7, 4)),
            ("5.7.44-log", (5, 7, 44)),
            ("10.11.19-MariaDB-0+deb12u1-log", (10, 11, 19)),
            ("5.5.5-10.4.2-MariaDB", (10, 4, 2)),
            ("", (0, 0, 0)),
        ] {
            let version = ServerVersion::parse(text);
            assert_eq!((version.major, version.minor, version.patch), expected, "{text}");
        }
        assert!(ServerVersion::parse("8.10.0") > ServerVersion::of(8, 2));
    }

    #[test]
    fn expiry_is_in_seconds_or_days_and_may_be_off() {
        let facts = |variables: &[(&str, &str)]| ServerFacts {
            flavor: Flavor::MySql,
            version: ServerVersion::of(8, 0),
            identity: String::new(),
            server_id: 1,
            location: None,
            clock_offset: 0.0,
            purged: GtidSet::empty(Flavor::MySql),
            binlogs: Vec::new(),
            grants: Vec::new(),
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let expiry = |variables: &[(&str, &str)]| facts(variables).binlog_expiry().map(|span| span.as_secs());
        let seconds = ("binlog_expire_logs_seconds", "2592000");
        assert_eq!(expiry(&[seconds, ("expire_logs_days", "0")]), Some(2_592_000));
        assert_eq!(expiry(&[seconds, ("binlog_expire_logs_auto_purge", "OFF")]), None);
        assert_eq!(expiry(&[("expire_logs_days", "7")]), Some(604_800));
        assert_eq!(expiry(&[("expire_logs_days", "0.500000")]), Some(43_200));
        assert_eq!(expiry(&[("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "0")]), None);
    }

    #[test]
    fn lacking_rights_is_an_answer_and_a_lost_connection_is_not() {
        let query = |error| AskError::Query { statement: "SHOW MASTER STATUS".into(), error };
        let server = |code| ServerError { code, message: "Access denied".into(), state: "42000".into() };
        assert!(matches!(unless_denied::<()>(Err(query(Error::Server(server(1227))))), Ok(None)));
        assert!(unless_denied::<()>(Err(query(Error::Server(server(1064))))).is_err());
        assert!(unless_denied::<()>(Err(query(Error::Driver(DriverError::ConnectionClosed)))).is_err());
    }
}
