//! Whether a source can be replicated from: everything that is wrong with it, at once, each with what to do.
//!
//! Finding out ([`Preflight::read`]) and judging ([`Preflight::check`]) are apart, so that the judgement is a pure
//! function. A warning stops nothing.

use std::fmt;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use uuid::Uuid;

use super::dump::DumpStart;
use super::facts::{ServerFacts, ServerVersion, query_failure, text_at, timed};
use crate::error::{Code, Failure, Scope, server_error_code};
use crate::model::{BinlogPosition, Flavor, GtidSet};
use crate::mysql::quote;

/// What is going to be asked of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// Configured dialect, where one is.
    pub flavor: Option<Flavor>,
    /// Our server id as a replica.
    pub server_id: u32,
    /// Replicate by GTID.
    pub enable_gtid: bool,
    /// Where to start, where that is known already.
    pub start: Option<DumpStart>,
    /// The start is an operator's word, and no place where this source has been followed up to.
    pub start_is_given: bool,
}

/// Whether a problem stops replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot work.
    Fatal,
    /// It works, and the operator should know.
    Warning,
}

/// One thing that is wrong with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// DM's code for it.
    pub code: Code,
    /// Whether it stops replication.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do: the statement to run or the setting to change.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.found, self.remedy)
    }
}

/// What stands at the start position.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AtStart {
    /// Not looked at, or not told.
    Unknown,
    /// An event of this type (as `SHOW BINLOG EVENTS` names it), with this description.
    Event { kind: String, info: String },
    /// No event begins there; the server's words.
    Nothing(String),
}

/// What was found out of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    facts: ServerFacts,
    at_start: AtStart,
}

/// Event types that only stand inside a transaction.
const INSIDE: [&str; 9] = [
    "table_map",
    "write_rows",
    "update_rows",
    "delete_rows",
    "update_rows_partial",
    "rows_query",
    "annotate_rows",
    "xid",
    "xa_prepare",
];

impl Preflight {
    /// Asks the source for everything that [`Self::check`] judges.
    pub async fn read(conn: &mut Conn, want: &Want) -> Result<Self, Failure> {
        let facts = ServerFacts::read(conn).await?;
        let at_start = match &want.start {
            Some(DumpStart::Position(position)) if is_inside(&facts, position) => look_at(conn, position).await?,
            _ => AtStart::Unknown,
        };
        Ok(Preflight { facts, at_start })
    }

    /// What the source said of itself.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// Everything that is wrong; empty for nothing.
    pub fn check(&self, want: &Want) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        self.check_version(want, &mut problems);
        self.check_binlog(&mut problems);
        self.check_ids(want, &mut problems);
        self.check_rights(&mut problems);
        match &want.start {
            Some(DumpStart::Position(position)) => self.check_position(position, &mut problems),
            Some(DumpStart::Gtids(set)) => self.check_set(set, want.start_is_given, &mut problems),
            None => {}
        }
        problems.0
    }

    fn check_version(&self, want: &Want, problems: &mut Problems) {
        let facts = &self.facts;
        let name = facts.flavor.as_str();
        if let Some(flavor) = want.flavor.filter(|flavor| *flavor != facts.flavor) {
            problems.fatal(
                Code::ConfigSource,
                format!("the source is {name} and its configuration says `flavor: {}`", flavor.as_str()),
                format!("set `flavor: {name}`"),
            );
        }
        let oldest = match facts.flavor {
            Flavor::MySql => ServerVersion::of(5, 7),
            Flavor::MariaDb => ServerVersion::of(10, 4),
        };
        if facts.version < oldest {
            problems.fatal(
                Code::ConfigSource,
                format!("{name} {} is older than {oldest}, the oldest version supported", facts.version),
                "upgrade the source".into(),
            );
        }
    }

    fn check_binlog(&self, problems: &mut Problems) {
        let facts = &self.facts;
        if matches!(facts.variable("log_bin").as_str(), "OFF" | "0") {
            problems.fatal(
                Code::NoMasterStatus,
                "log_bin is OFF: the source writes no binlog".into(),
                "set `log_bin` and a `server_id` in the source's configuration file and restart it".into(),
            );
        }
        let format = facts.variable("binlog_format");
        // The variable may be gone in a version where ROW is the only one left.
        if !format.is_empty() && format != "ROW" {
            problems.fatal(
                Code::StatementFormat,
                format!("binlog_format is {format}"),
                "run `SET GLOBAL binlog_format = 'ROW'` on the source and reconnect its clients".into(),
            );
        }
        let image = facts.variable("binlog_row_image");
        if !image.is_empty() && image != "FULL" {
            problems.warning(
                Code::ColumnNotInBinlog,
                format!("binlog_row_image is {image}: rows come without their unchanged columns"),
                "run `SET GLOBAL binlog_row_image = 'FULL'` on the source for filters and checks on all columns".into(),
            );
        }
        // MySQL before 8.0 has no such variable, and writes none.
        let older = facts.flavor == Flavor::MySql && facts.version < ServerVersion::of(8, 0);
        if older || facts.variable("binlog_row_metadata") == "NO_LOG" {
            problems.warning(
                Code::ConfigSource,
                "the binlog does not say in which character sets texts are (binlog_row_metadata)".into(),
                "run `SET GLOBAL binlog_row_metadata = 'MINIMAL'` on the source (MariaDB), or grant SELECT on its tables, so \
                 that it can be asked"
                    .into(),
            );
        }
        if facts.variable("encrypt_binlog") == "ON" {
            problems.warning(
                Code::ConfigSource,
                "encrypt_binlog is ON: binlog files are encrypted on the source's disk, and sent in clear".into(),
                "configure `security` of the source, so that they travel encrypted too".into(),
            );
        }
    }

    fn check_ids(&self, want: &Want, problems: &mut Problems) {
        let facts = &self.facts;
        if facts.server_id == 0 {
            problems.fatal(
                Code::ConfigSource,
                "server_id of the source is 0: it refuses replicas".into(),
                "run `SET GLOBAL server_id = 1` (a number of its own) on the source and keep it in its configuration"
                    .into(),
            );
        }
        if want.server_id == 0 || want.server_id == facts.server_id {
            problems.fatal(
                Code::ConfigSource,
                format!("our server-id {} is 0 or the source's own", want.server_id),
                "set `server-id` of the source configuration to a number that no server and no replica of it has"
                    .into(),
            );
        }
        let mode = facts.variable("gtid_mode");
        if want.enable_gtid && facts.flavor == Flavor::MySql && mode != "ON" {
            problems.fatal(
                Code::ConfigSource,
                format!("enable-gtid is set, and gtid_mode of the source is {mode}"),
                "turn GTIDs on (`SET GLOBAL enforce_gtid_consistency = ON`, then `gtid_mode` step by step to ON), or set \
                 `enable-gtid: false`"
                    .into(),
            );
        }
    }

    fn check_rights(&self, problems: &mut Problems) {
        let facts = &self.facts;
        let rights = Rights::of(&facts.grants);
        let mariadb = facts.flavor == Flavor::MariaDb;
        let mut missing = Vec::new();
        if !rights.has(&["REPLICATION SLAVE", "REPLICATION REPLICA"]) {
            missing.push("REPLICATION SLAVE");
        }
        if !rights.has(&["REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"]) {
            let renamed = mariadb && facts.version >= ServerVersion::of(10, 5);
            missing.push(if renamed { "BINLOG MONITOR" } else { "REPLICATION CLIENT" });
        }
        if missing.is_empty() {
            return;
        }
        let missing = missing.join(", ");
        let severity = if rights.roles { Severity::Warning } else { Severity::Fatal };
        let role = if rights.roles { ", unless a role gives it" } else { "" };
        problems.0.push(Problem {
            code: Code::StreamStart,
            severity,
            found: format!("the user lacks {missing} on *.*{role}"),
            remedy: format!("run `GRANT {missing} ON *.* TO {}`", rights.account.as_deref().unwrap_or("<user>")),
        });
    }

    fn check_position(&self, position: &BinlogPosition, problems: &mut Problems) {
        let binlogs = &self.facts.binlogs;
        let (Some(oldest), Some(newest)) = (binlogs.first(), binlogs.last()) else { return };
        if position.file.name().is_empty() {
            return;
        }
        let mut fatal = |found: String, remedy: String| problems.fatal(Code::BinlogPosition, found, remedy);
        let Some(log) = binlogs.iter().find(|log| log.file == position.file) else {
            let (oldest, newest) = (oldest.file.name(), newest.file.name());
            let found = if position.file.sequence() < binlogs[0].file.sequence() {
                format!("the start position {position} is purged, the oldest binlog is {oldest}")
            } else {
                format!("the start position {position} does not exist, the source has {oldest} to {newest}")
            };
            return fatal(found, "take a new snapshot (task mode `all`), or start at a position that exists".into());
        };
        // The newest file may have grown since, never shrunk.
        if position.offset > log.bytes {
            return fatal(
                format!("the start position {position} is past the end of the file, which has {} bytes", log.bytes),
                "start at a position that exists, if the source was restored or its binlogs were reset".into(),
            );
        }
        let boundary = "start at the end of a transaction, as `mysqlbinlog` or `SHOW BINLOG EVENTS` shows it";
        match &self.at_start {
            AtStart::Nothing(words) => {
                fatal(format!("no event begins at the start position {position} ({words})"), boundary.into());
            }
            AtStart::Event { kind, info } if is_inside_transaction(kind, info) => fatal(
                format!("the start position {position} is inside a transaction, in front of a {kind} event"),
                boundary.into(),
            ),
            AtStart::Event { .. } | AtStart::Unknown => {}
        }
    }

    fn check_set(&self, set: &GtidSet, given: bool, problems: &mut Problems) {
        let facts = &self.facts;
        if set.flavor() != facts.flavor {
            return problems.fatal(
                Code::ParseGtid,
                format!(
                    "the start set '{set}' is of {}, and the source is {}",
                    set.flavor().as_str(),
                    facts.flavor.as_str()
                ),
                "give a GTID set of the source".into(),
            );
        }
        if !set.contains(&facts.purged) {
            problems.fatal(
                Code::BinlogPosition,
                format!(
                    "the source has purged transactions that the start set '{set}' lacks; purged are {}",
                    facts.purged
                ),
                "take a new snapshot (task mode `all`), or start from a set that holds all of `gtid_purged`".into(),
            );
        }
        let Some(now) = facts.location.as_ref().map(|now| &now.gtids) else { return };
        // What the server refuses: MySQL, transactions that it gave its own name and does not have.
        let refused = match (set, Uuid::try_parse(&facts.identity)) {
            (GtidSet::MySql(set), Ok(itself)) => GtidSet::MySql(set.of(itself)),
            (set, _) => set.clone(),
        };
        if given && !now.contains(&refused) {
            problems.fatal(
                Code::BinlogPosition,
                format!("the start set '{set}' is past the end of the binlog, which is at '{now}'"),
                "start at a place that exists, if the source was restored or its binlogs were reset".into(),
            );
        } else if !now.contains(set) && facts.flavor == Flavor::MySql {
            problems.warning(
                Code::BinlogPosition,
                format!("the start set '{set}' has transactions that the source does not have"),
                "check that the set is of this source, and that the source has not lost binlogs".into(),
            );
        }
    }
}

/// Joins everything fatal into one failure, with the first problem's code; `None` where nothing is fatal.
pub fn failure_of(problems: &[Problem]) -> Option<Failure> {
    let fatal: Vec<&Problem> = problems.iter().filter(|problem| problem.severity == Severity::Fatal).collect();
    let join = |text: fn(&Problem) -> &str| fatal.iter().map(|problem| text(problem)).collect::<Vec<_>>().join("; ");
    let first = fatal.first()?;
    Some(
        Failure::new(first.code, format!("the source cannot be replicated from: {}", join(|problem| &problem.found)))
            .scope(Scope::Upstream)
            .workaround(format!("Please {}.", join(|problem| &problem.remedy))),
    )
}

struct Problems(Vec<Problem>);

impl Problems {
    fn fatal(&mut self, code: Code, found: String, remedy: String) {
        self.0.push(Problem { code, severity: Severity::Fatal, found, remedy });
    }

    fn warning(&mut self, code: Code, found: String, remedy: String) {
        self.0.push(Problem { code, severity: Severity::Warning, found, remedy });
    }
}

/// Global rights, read from `SHOW GRANTS`.
struct Rights {
    names: Vec<String>,
    /// The account is a member of roles, whose rights are not listed.
    roles: bool,
    account: Option<String>,
}

impl Rights {
    fn of(grants: &[String]) -> Self {
        let mut rights = Rights { names: Vec::new(), roles: false, account: None };
        for line in grants {
            let Some(line) = line.strip_prefix("GRANT ") else { continue };
            let Some((names, object)) = line.split_once(" ON ") else {
                // `GRANT role TO user` names no object.
                rights.roles = true;
                continue;
            };
            if let Some(account) = object.strip_prefix("*.* TO ") {
                rights.names.extend(names.split(',').map(|name| name.trim().to_ascii_uppercase()));
                rights.account = account.split(' ').next().map(str::to_owned);
            }
        }
        rights
    }

    fn has(&self, any_of: &[&str]) -> bool {
        self.names.iter().any(|name| name == "ALL PRIVILEGES" || any_of.contains(&name.as_str()))
    }
}

/// Whether something must stand at the position: not at the file's start, not at its end.
fn is_inside(facts: &ServerFacts, position: &BinlogPosition) -> bool {
    let log = facts.binlogs.iter().find(|log| log.file == position.file);
    position.offset > BinlogPosition::FIRST_OFFSET && log.is_some_and(|log| position.offset < log.bytes)
}

async fn look_at(conn: &mut Conn, position: &BinlogPosition) -> Result<AtStart, Failure> {
    let file = quote(position.file.name());
    let statement = format!("SHOW BINLOG EVENTS IN {file} FROM {} LIMIT 1", position.offset);
    match timed(conn.query::<Row, _>(statement.as_str())).await {
        Ok(rows) => Ok(match rows.first() {
            // Some servers show the next event where none begins.
            Some(row) if text_at(row, 1).is_some_and(|at| at != position.offset.to_string()) => {
                AtStart::Nothing(format!("the next one begins at {}", text_at(row, 1).unwrap_or_default()))
            }
            Some(row) => {
                AtStart::Event { kind: text_at(row, 2).unwrap_or_default(), info: text_at(row, 5).unwrap_or_default() }
            }
            None => AtStart::Unknown,
        }),
        Err(mysql_async::Error::Server(error)) if error.code == 1220 => Ok(AtStart::Nothing(error.message)),
        // Rights are judged elsewhere.
        Err(error) if server_error_code(&error).is_some() => Ok(AtStart::Unknown),
        Err(error) => Err(query_failure(&error, &statement)),
    }
}

fn is_inside_transaction(kind: &str, info: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    // Versions are told apart by a suffix: Write_rows_v1, Write_rows_compressed_v1.
    let name = kind.trim_end_matches("_v1").trim_end_matches("_compressed");
    INSIDE.contains(&name) || (name == "query" && info.trim().eq_ignore_ascii_case("commit"))
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
