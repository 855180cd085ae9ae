//! What is stored downstream of a task: made, read, forgotten.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::decide::{Decision, decide};
use super::ledger::{SeenRow, is_denied};
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::meta::{DdlIntent, DmRow, LaneRow, MetaTables, SHADOW_LANE, SafeNote, StoredMark};
use crate::model::{Flavor, Location, TableName, TargetTable};

/// Longest wait for one statement on the meta tables; a former owner's transaction may hold its rows for a while.
const LIMIT: Duration = Duration::from_secs(60);
/// The server wants a primary key in every table (`sql_require_primary_key`).
const NEEDS_PRIMARY_KEY: u16 = 3750;

/// Which changes come, and which lane each goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The task's part, as it was wanted when the lanes last stood at one transaction boundary.
    pub text: String,
    /// Tables that changes were dealt out of since then, with their part.
    pub tables: Vec<(TargetTable, String)>,
}

/// All of a task but its mapping, as one transaction finds it and locks it.
pub(super) struct Stored {
    /// What we kept of DM's row as we wrote it last.
    shadow: Option<LaneRow>,
    lanes: Vec<LaneRow>,
    /// DM's row.
    pub(super) dm: Option<DmRow>,
    /// A DDL statement that was about to run.
    pub(super) intent: Option<DdlIntent>,
}

impl Stored {
    /// Reads it in the transaction that is open.
    pub(super) async fn read(conn: &mut Conn, tables: &MetaTables) -> Result<Self, Failure> {
        // Lanes first: whoever still writes holds one of these rows.
        let (shadow, lanes) = read_lanes(conn, tables).await?;
        let dm = read_dm_row(conn, tables).await?;
        Ok(Stored { shadow, lanes, dm, intent: read_intent(conn, tables).await? })
    }

    /// Of who wrote it.
    pub(super) fn epoch(&self) -> u64 {
        self.lanes.iter().chain(&self.shadow).map(|row| row.epoch).max().unwrap_or(0)
    }

    /// Which of it counts.
    pub(super) fn decide(&self) -> Decision {
        let shadow = self.shadow.as_ref();
        let kept = shadow.map(|row| (row.mark.gtids.as_str(), SafeNote::parse(&row.mark.file)));
        decide(self.dm.as_ref(), kept, &self.lanes)
    }
}

fn failed(error: &mysql_async::Error) -> Failure {
    driver_failure(error, Code::Checkpoint, Scope::Downstream, "read and claim the checkpoint")
}

pub(super) async fn limited<T>(answer: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> Failure {
    Failure::new(Code::InvalidConnection, "read and claim the checkpoint: no answer within 60 s")
        .scope(Scope::Downstream)
}

pub(super) fn unreadable(text: String) -> Failure {
    Failure::new(Code::Checkpoint, format!("read the checkpoint: {text}"))
}

/// Creates what is missing. The inner error says why our tables cannot be used at all, so that positions must be kept
/// elsewhere: the account may not create them, or they are of an engine without transactions.
pub(super) async fn prepare(conn: &mut Conn, tables: &MetaTables) -> Result<Result<(), Failure>, Failure> {
    let mut refused = None;
    for statement in tables.create() {
        let mut made = answer(conn.query_drop(statement.as_str())).await?;
        if matches!(&made, Err(mysql_async::Error::Server(error)) if error.code == NEEDS_PRIMARY_KEY) {
            made = answer(conn.query_drop(MetaTables::with_primary_key(&statement))).await?;
        }
        match made {
            Ok(()) => {}
            Err(mysql_async::Error::Server(error)) if is_denied(error.code) => {
                refused.get_or_insert(mysql_async::Error::Server(error));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
    // They may be there all the same, made by someone who may.
    for statement in refused.iter().flat_map(|_| tables.probe()) {
        match answer(conn.query_drop(statement)).await? {
            Ok(()) => {}
            Err(mysql_async::Error::Server(error)) if is_denied(error.code) || matches!(error.code, 1049 | 1146) => {
                return Ok(Err(failed(refused.as_ref().unwrap_or(&mysql_async::Error::Server(error)))));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
    for [question, add] in tables.later_columns() {
        let there: Option<u64> = limited(conn.query_first(question)).await?;
        if there != Some(0) {
            continue;
        }
        match answer(conn.query_drop(add)).await? {
            Err(mysql_async::Error::Server(error)) if is_denied(error.code) => {
                return Ok(Err(failed(&mysql_async::Error::Server(error))));
            }
            // 1060: someone else has added it meanwhile.
            Err(mysql_async::Error::Server(error)) if error.code == 1060 => {}
            added => added.map_err(|error| failed(&error))?,
        }
    }
    let engine: Option<String> = limited(conn.query_first(tables.select_loose_engines())).await?;
    Ok(engine.map_or(Ok(()), |engine| {
        let message =
            format!("the agent's tables in the task's meta-schema have engine {engine}, without transactions");
        Err(Failure::new(Code::Checkpoint, message).scope(Scope::Downstream))
    }))
}

/// The server's answer, or a failure where there is none in time.
async fn answer<T>(
    answer: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<Result<T, mysql_async::Error>, Failure> {
    tokio::time::timeout(LIMIT, answer).await.map_err(|_| no_answer())
}

pub(super) async fn see_row(conn: &mut Conn, tables: &MetaTables) -> Result<SeenRow, Failure> {
    match answer(conn.query_first::<DmColumns, _>(tables.read_dm_row())).await? {
        Ok(Some(row)) => Ok(SeenRow::Row(dm_row(row))),
        Ok(None) => Ok(SeenRow::Missing),
        Err(mysql_async::Error::Server(error)) if is_denied(error.code) || matches!(error.code, 1049 | 1146) => {
            Ok(SeenRow::Hidden)
        }
        Err(error) => Err(failed(&error)),
    }
}

/// The mapping of the owner of `epoch`; `None` where an earlier version stored none.
pub(super) async fn read_mapping(conn: &mut Conn, tables: &MetaTables, epoch: u64) -> Result<Option<Mapping>, Failure> {
    let rows: Vec<(String, String, String)> = limited(conn.query(tables.select_mappings(epoch))).await?;
    let (own, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(schema, table, _)| schema.is_empty() && table.is_empty());
    let table = |(schema, table, text): (String, String, String)| (TargetTable(TableName::new(schema, table)), text);
    Ok(own.into_iter().next().map(|(_, _, text)| Mapping { text, tables: others.into_iter().map(table).collect() }))
}

async fn read_lanes(conn: &mut Conn, tables: &MetaTables) -> Result<(Option<LaneRow>, Vec<LaneRow>), Failure> {
    type Columns = (i32, u32, u64, String, u64, String, u64, String);
    let rows: Vec<Columns> = limited(conn.query(tables.select_lanes())).await?;
    let rows = rows.into_iter().map(|(lane, lanes, epoch, file, offset, gtids, ordinal, open)| LaneRow {
        lane,
        lanes,
        epoch,
        mark: StoredMark { file, offset, gtids, ordinal, open },
    });
    let (shadow, lanes): (Vec<_>, Vec<_>) = rows.partition(|row| row.lane == SHADOW_LANE);
    Ok((shadow.into_iter().next(), lanes))
}

async fn read_dm_row(conn: &mut Conn, tables: &MetaTables) -> Result<Option<DmRow>, Failure> {
    let row: Option<DmColumns> = limited(conn.query_first(tables.select_dm_row())).await?;
    Ok(row.map(dm_row))
}

type DmColumns = (String, u64, String, String, u64, String);

fn dm_row((file, offset, gtids, exit_file, exit_offset, exit_gtids): DmColumns) -> DmRow {
    DmRow {
        location: StoredMark::boundary(file, offset, gtids),
        exit_safe: StoredMark::boundary(exit_file, exit_offset, exit_gtids),
    }
}

async fn read_intent(conn: &mut Conn, tables: &MetaTables) -> Result<Option<DdlIntent>, Failure> {
    type Columns = (String, u64, String, u32, String, Option<String>, Option<String>);
    let row: Option<Columns> = limited(conn.query_first(tables.select_intent())).await?;
    Ok(row.map(|(file, offset, gtids, step, fingerprint, refused, statement)| DdlIntent {
        mark: StoredMark::boundary(file, offset, gtids),
        step,
        fingerprint,
        refused,
        statement: statement.unwrap_or_default(),
    }))
}

/// Where DM's row says a start goes on; `None` where there is no row, or no table yet. Claims nothing.
pub async fn peek(conn: &mut Conn, tables: &MetaTables, flavor: Flavor) -> Result<Option<Location>, Failure> {
    let row: Result<Option<DmColumns>, _> =
        match tokio::time::timeout(LIMIT, conn.query_first(tables.read_dm_row())).await {
            Ok(row) => row,
            Err(_) => return Err(no_answer()),
        };
    match row {
        Ok(Some(row)) => {
            let mark = dm_row(row).location.to_mark(flavor);
            mark.map(|mark| Some(mark.location))
                .map_err(|text| Failure::new(Code::Checkpoint, format!("read the checkpoint: {text}")))
        }
        Ok(None) => Ok(None),
        // Unknown database, unknown table, or none of them for this account.
        Err(mysql_async::Error::Server(error)) if is_denied(error.code) || matches!(error.code, 1049 | 1146) => {
            Ok(None)
        }
        Err(error) => Err(failed(&error)),
    }
}

/// `--remove-meta`: forgets everything stored downstream for this task and source. What the account can neither see nor
/// remove is nothing that a start could go on from.
pub async fn forget(conn: &mut Conn, tables: &MetaTables) -> Result<(), Failure> {
    for [look, delete] in tables.forget() {
        let hidden = |error: &mysql_async::Error| matches!(error, mysql_async::Error::Server(error) if is_denied(error.code) || matches!(error.code, 1049 | 1146));
        match answer(conn.query_first::<mysql_async::Row, _>(look)).await? {
            Ok(None) => {}
            Ok(Some(_)) => limited(conn.query_drop(delete)).await?,
            Err(error) if hidden(&error) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(())
}
