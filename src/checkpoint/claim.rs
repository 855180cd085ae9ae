//! Taking a task over: read what is stored, decide, raise the epoch, all in one transaction.
//!
//! Invariants:
//! - Which changes come and which lane each goes to (the *mapping*: number of lanes, rules for names, source order for
//!   foreign keys, the tables' keys) changes only where all lanes stand at one transaction boundary. Elsewhere a lane's
//!   mark would speak of other changes than those that the lane was given. So the mapping is stored before its first
//!   change is dealt out, and whoever finds the lanes apart goes on with the stored one.
//! - No place is stored without the GTIDs up to it where the source has GTIDs: a set that only began to grow there would
//!   look like the whole history.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::decide::{Decision, SafeWindow, decide};
use super::ledger::{Book, Kept, Ledger, LedgerRecord, SeenRow, is_denied};
use crate::error::{Code, Failure, Scope, driver_failure, server_number};
use crate::meta::{DdlIntent, DmRow, LaneRow, MetaTables, SHADOW_LANE, SafeNote, StoredMark};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location, RowMark, TableName, TargetTable};

/// Longest wait for one statement on the meta tables; a former owner's transaction may hold its rows for a while.
const LIMIT: Duration = Duration::from_secs(60);
/// The server wants a primary key in every table (`sql_require_primary_key`).
const NEEDS_PRIMARY_KEY: u16 = 3750;
/// How often a claim begins anew because someone moved DM's row meanwhile, or was in its way.
const ATTEMPTS: usize = 5;
/// The server has ended the transaction because it and another one waited for each other: a former owner still writes.
const DEADLOCK: u16 = 1213;

/// Who can say what the source had executed at a place.
pub trait History {
    /// All GTIDs up to `position`, the end of a transaction; the empty set where the source has no GTIDs.
    fn gtids_at(&self, position: &BinlogPosition) -> impl Future<Output = Result<GtidSet, Failure>> + Send;
}

/// What a new owner wants.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The task's tables.
    pub tables: MetaTables,
    /// Dialect of the GTID sets.
    pub flavor: Flavor,
    /// Lanes wanted; used where all lanes stand at one transaction boundary.
    pub lanes: u32,
    /// The rest of the mapping wanted, as a text; used there, too.
    pub mapping: String,
    /// Where to start if nothing is stored.
    pub fresh_start: Location,
    /// Up to here rows may be downstream already, if nothing is stored.
    pub fresh_safe: Option<Location>,
    /// What this machine keeps of the task.
    pub ledger: Arc<dyn Ledger>,
    /// Host and port of the downstream.
    pub target: String,
    /// Another worker may take the task over, which finds nothing of what only this machine keeps.
    pub moves: bool,
}

impl Claim {
    /// How long a task that starts anew must be idempotent. Where DM's columns cannot say the place, as long as after a
    /// writer that died.
    fn fresh_window(&self) -> Option<SafeWindow> {
        let until = self.fresh_safe.as_ref().filter(|until| **until != self.fresh_start)?;
        Some(match DmRow::can_say(until) {
            true => SafeWindow::Until(StoredMark::from(&RowMark::at(until.clone()))),
            false => SafeWindow::Unknown,
        })
    }
}

/// What the new owner has.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its epoch.
    pub epoch: u64,
    /// Marks by lane; their number is the number of lanes.
    pub marks: Vec<RowMark>,
    /// The least of them: replay begins here.
    pub start: RowMark,
    /// Whether and how long replay must be idempotent.
    pub safe: Option<SafeWindow>,
    /// A DDL statement that was about to run when the former owner ended.
    pub intent: Option<DdlIntent>,
    /// What DM's row says now.
    pub flushed: Location,
    /// What this machine keeps.
    pub book: Book,
    /// Why positions are kept on this machine; `None` where they are kept downstream, with the rows.
    pub kept_here: Option<String>,
    /// An intent was stored when the task was claimed, and whoever stored it may still be about to run it.
    pub disarm: bool,
    /// The mapping to go on with.
    pub mapping: Mapping,
}

/// Which changes come, and which lane each goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The task's part, as it was wanted when the lanes last stood at one transaction boundary.
    pub text: String,
    /// Tables that changes were dealt out of since then, with their part.
    pub tables: Vec<(TargetTable, String)>,
}

fn failed(error: &mysql_async::Error) -> Failure {
    driver_failure(error, Code::Checkpoint, Scope::Downstream, "read and claim the checkpoint")
}

async fn limited<T>(answer: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> Failure {
    Failure::new(Code::InvalidConnection, "read and claim the checkpoint: no answer within 60 s")
        .scope(Scope::Downstream)
}

/// Creates the tables and claims the task.
pub async fn claim(conn: &mut Conn, claim: &Claim, history: &(impl History + Sync)) -> Result<Claimed, Failure> {
    let stored = claim.ledger.load().await?;
    let record = stored.as_ref().filter(|record| record.target == claim.target);
    if let Err(why) = prepare(conn, &claim.tables).await? {
        // Positions that are there must not be left aside because they cannot be reached now.
        if record.is_some_and(|record| record.kept == Kept::Downstream) {
            return Err(why);
        }
        return claim_here(conn, claim, history, stored.as_ref(), record, &why).await;
    }
    // Without a row there would be nothing to lock, and two first claims would not see each other.
    limited(conn.query_drop(claim.tables.insert_shadow())).await?;
    let mut completed: Option<(StoredMark, GtidSet)> = None;
    for attempt in 1..=ATTEMPTS {
        limited(conn.query_drop("BEGIN")).await?;
        match claim_in_transaction(conn, claim, record, completed.as_ref()).await {
            Ok(Outcome::Taken(mut taken)) => {
                limited(conn.query_drop("COMMIT")).await?;
                let next =
                    LedgerRecord { window: taken.window.take(), ..LedgerRecord::new(Kept::Downstream, &claim.target) };
                let book = Book::open(Arc::clone(&claim.ledger), stored.as_ref(), next, claim.flavor, false).await?;
                return Ok(taken.claimed(book));
            }
            // Asked outside of the transaction: reading a binlog file takes its time.
            Ok(Outcome::WithoutGtids(mark)) => {
                limited(conn.query_drop("ROLLBACK")).await?;
                let place = mark.to_mark(claim.flavor).map_err(unreadable)?.location.position;
                completed = Some((mark, history.gtids_at(&place).await?));
            }
            Err(failure) => {
                // The connection goes with the failure; the server rolls back either way.
                let _ = limited(conn.query_drop("ROLLBACK")).await;
                if server_number(&failure) != Some(DEADLOCK) || attempt == ATTEMPTS {
                    return Err(failure);
                }
                tracing::debug!(error = %failure, "claiming the checkpoint begins anew");
            }
        }
    }
    let text = "claim the checkpoint: another worker goes on moving DM's row";
    Err(Failure::new(Code::Checkpoint, text)
        .workaround("Please make sure that only one worker runs the task, then resume-task."))
}

enum Outcome {
    Taken(Box<Taken>),
    /// Another worker's row lacks the GTIDs: nothing was written.
    WithoutGtids(StoredMark),
}

fn unreadable(text: String) -> Failure {
    Failure::new(Code::Checkpoint, format!("read the checkpoint: {text}"))
}

/// What was read and written in the transaction.
struct Taken {
    epoch: u64,
    marks: Vec<RowMark>,
    start: RowMark,
    safe: Option<SafeWindow>,
    intent: Option<DdlIntent>,
    flushed: Location,
    disarm: bool,
    /// How far tables without transactions may be ahead of the marks.
    window: Option<StoredMark>,
    mapping: Mapping,
}

impl Taken {
    fn claimed(self, book: Book) -> Claimed {
        let Taken { epoch, marks, start, safe, intent, flushed, disarm, mapping, .. } = self;
        Claimed { epoch, marks, start, safe, intent, flushed, book, kept_here: None, disarm, mapping }
    }
}

/// Creates what is missing. The inner error says why our tables cannot be used at all, so that positions must be kept
/// elsewhere: the account may not create them, or they are of an engine without transactions.
async fn prepare(conn: &mut Conn, tables: &MetaTables) -> Result<Result<(), Failure>, Failure> {
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

/// Positions on this machine: no epoch, no fence, and safe mode for what was dispatched after the checkpoint.
async fn claim_here(
    conn: &mut Conn,
    claim: &Claim,
    history: &(impl History + Sync),
    stored: Option<&LedgerRecord>,
    record: Option<&LedgerRecord>,
    why: &Failure,
) -> Result<Claimed, Failure> {
    let seen = see_row(conn, &claim.tables).await?;
    if claim.moves && seen == SeenRow::Hidden {
        let text = "checkpoints cannot be kept downstream, and in a cluster the next worker must find them there";
        let mut failure = Failure::new(Code::Checkpoint, format!("{text}: {}", why.message)).scope(Scope::Downstream);
        failure.raw_cause.clone_from(&why.raw_cause);
        return Err(failure.workaround(
            "Please grant CREATE, SELECT, INSERT, UPDATE and DELETE on the task's meta-schema (dm_meta) downstream, then \
             resume-task.",
        ));
    }
    let parse = |mark: &StoredMark| mark.to_mark(claim.flavor).map_err(unreadable);
    let mut next = LedgerRecord::new(Kept::Here, &claim.target);
    let (mut start, safe) = match (record.and_then(|record| Some((record, record.holds(&seen)?))), &seen) {
        (Some((record, mark)), _) => {
            next = record.clone();
            (parse(mark)?, record.safe())
        }
        (None, SeenRow::Row(row)) => match decide(Some(row), None, &[]) {
            Decision::Theirs { at, safe } => (parse(&at)?, safe),
            _ => (parse(&row.location)?, Some(SafeWindow::Unknown)),
        },
        (None, SeenRow::Hidden | SeenRow::Missing) => (RowMark::at(claim.fresh_start.clone()), claim.fresh_window()),
    };
    if matches!(seen, SeenRow::Row(_))
        && start.location.gtids.is_empty()
        && !start.location.position.file.name().is_empty()
    {
        start.location.gtids = history.gtids_at(&start.location.position).await?;
    }
    next.checkpoint = Some(StoredMark::from(&start));
    next.unknown = safe == Some(SafeWindow::Unknown);
    if let Some(SafeWindow::Until(mark)) = &safe {
        next.window = Some(mark.clone());
    }
    if let SeenRow::Row(row) = &seen
        && !next.rows.contains(&row.fingerprint())
    {
        next.rows = vec![row.fingerprint()];
    }
    let intent = next.intent.clone();
    let writes_row = seen != SeenRow::Hidden;
    let book = Book::open(Arc::clone(&claim.ledger), stored, next, claim.flavor, writes_row).await?;
    let reason = if why.raw_cause.is_empty() { &why.message } else { &why.raw_cause };
    Ok(Claimed {
        epoch: 0,
        marks: vec![start.clone(); claim.lanes.max(1) as usize],
        flushed: start.location.clone(),
        start,
        safe,
        disarm: intent.is_some(),
        intent,
        book,
        kept_here: Some(reason.clone()),
        mapping: Mapping { text: claim.mapping.clone(), tables: Vec::new() },
    })
}

async fn see_row(conn: &mut Conn, tables: &MetaTables) -> Result<SeenRow, Failure> {
    match answer(conn.query_first::<DmColumns, _>(tables.read_dm_row())).await? {
        Ok(Some(row)) => Ok(SeenRow::Row(dm_row(row))),
        Ok(None) => Ok(SeenRow::Missing),
        Err(mysql_async::Error::Server(error)) if is_denied(error.code) || matches!(error.code, 1049 | 1146) => {
            Ok(SeenRow::Hidden)
        }
        Err(error) => Err(failed(&error)),
    }
}

async fn claim_in_transaction(
    conn: &mut Conn,
    claim: &Claim,
    record: Option<&LedgerRecord>,
    completed: Option<&(StoredMark, GtidSet)>,
) -> Result<Outcome, Failure> {
    let tables = &claim.tables;
    // Lanes first: whoever still writes holds one of these rows.
    let (shadow, rows) = read_lanes(conn, tables).await?;
    let dm = read_dm_row(conn, tables).await?;
    let former_epoch = rows.iter().chain(&shadow).map(|row| row.epoch).max().unwrap_or(0);
    let epoch = 1 + former_epoch;
    let kept = shadow.as_ref().map(|row| (row.mark.gtids.as_str(), SafeNote::parse(&row.mark.file)));
    let seen = dm.clone().map_or(SeenRow::Missing, SeenRow::Row);
    let here = record.and_then(|record| Some((record, record.holds(&seen)?)));
    let mut decision = decide(dm.as_ref(), kept, &rows);
    if let Decision::Theirs { at, .. } = &mut decision
        && here.is_none()
        && at.gtids.is_empty()
        && !at.file.is_empty()
    {
        match completed {
            Some((mark, set)) if mark == at => at.gtids = set.to_string(),
            _ => return Ok(Outcome::WithoutGtids(at.clone())),
        }
    }
    let intent = read_intent(conn, tables).await?;
    let disarm = intent.is_some();
    let parse = |mark: &StoredMark| mark.to_mark(claim.flavor).map_err(unreadable);
    let (marks, safe, intent, window) = match (&decision, here) {
        // Until now they were kept on this machine; the right to keep them downstream is new.
        (_, Some((record, mark))) => (vec![parse(mark)?], record.safe(), record.intent.clone(), None),
        (Decision::Fresh, _) => (vec![RowMark::at(claim.fresh_start.clone())], claim.fresh_window(), None, None),
        (Decision::Theirs { at, safe }, _) => (vec![parse(at)?], safe.clone(), None, None),
        (Decision::Ours { marks, safe }, _) => {
            let window = record.and_then(|record| record.window.clone());
            (marks.iter().map(parse).collect::<Result<Vec<_>, _>>()?, safe.clone(), intent, window)
        }
    };
    let start = least(&marks);
    let at_one_boundary = !start.is_inside() && marks.iter().all(|mark| *mark == start);
    let free = at_one_boundary || here.is_some();
    let stored = if free { None } else { read_mapping(conn, tables, former_epoch).await? };
    let marks = if free { vec![start.clone(); claim.lanes.max(1) as usize] } else { marks };
    // From now on more may be applied than the row says: it must not look exact.
    let at = match (&decision, &dm, here) {
        (Decision::Theirs { at, .. }, _, None) => at.clone(),
        (Decision::Ours { .. }, Some(row), None) => row.location.clone(),
        _ => first_row(&start.location)?,
    };
    let (exit_safe, note) = match &safe {
        Some(SafeWindow::Until(mark)) => (mark.clone(), SafeNote::UntilExitSafe),
        Some(SafeWindow::Unknown) => (StoredMark::none(), SafeNote::Unknown),
        None => (StoredMark::none(), SafeNote::None),
    };
    let row = DmRow { location: at, exit_safe };
    let mut statements = vec![tables.delete_lanes()];
    let upsert = |(lane, mark): (usize, &RowMark)| {
        tables.upsert_lane(lane as i32, marks.len() as u32, epoch, &StoredMark::from(mark))
    };
    statements.extend(marks.iter().enumerate().map(upsert));
    statements.extend(tables.write_dm_row(&row, note, epoch));
    statements.push(tables.delete_table_rows());
    if stored.is_some() {
        statements.extend([tables.delete_mappings_but(former_epoch), tables.hand_on_mappings(former_epoch, epoch)]);
    } else {
        statements.extend([tables.delete_mappings_but(epoch), tables.write_mapping(epoch, "", "", &claim.mapping)]);
    }
    match (&intent, here) {
        (Some(intent), Some(_)) => {
            statements.push(tables.write_intent(epoch, intent));
        }
        (Some(_), None) => {}
        (None, _) => statements.push(tables.delete_intent()),
    }
    for sql in statements {
        limited(conn.query_drop(sql)).await?;
    }
    let flushed = parse(&row.location)?.location;
    let mapping = stored.unwrap_or_else(|| Mapping { text: claim.mapping.clone(), tables: Vec::new() });
    Ok(Outcome::Taken(Box::new(Taken { epoch, marks, start, safe, intent, flushed, disarm, window, mapping })))
}

/// What DM's row says of a task that starts. There must be a row before a lane's first transaction.
fn first_row(start: &Location) -> Result<StoredMark, Failure> {
    if DmRow::can_say(start) {
        return Ok(StoredMark::from(&RowMark::at(start.clone())));
    }
    let text = format!(
        "start at {}: DM's checkpoint table has no room for an offset beyond {}, and the task's first checkpoint is there",
        start.position,
        u32::MAX
    );
    let remedy = "Please run FLUSH BINARY LOGS on the source and start the task from the next binlog file.";
    Err(Failure::new(Code::BinlogPosition, text).workaround(remedy))
}

/// The mapping of the owner of `epoch`; `None` where an earlier version stored none.
async fn read_mapping(conn: &mut Conn, tables: &MetaTables, epoch: u64) -> Result<Option<Mapping>, Failure> {
    let rows: Vec<(String, String, String)> = limited(conn.query(tables.select_mappings(epoch))).await?;
    let (own, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(schema, table, _)| schema.is_empty() && table.is_empty());
    let table = |(schema, table, text): (String, String, String)| (TargetTable(TableName::new(schema, table)), text);
    Ok(own.into_iter().next().map(|(_, _, text)| Mapping { text, tables: others.into_iter().map(table).collect() }))
}

/// The mark that all others cover.
fn least(marks: &[RowMark]) -> RowMark {
    let mut least = &marks[0];
    for mark in marks {
        let same = mark.location == least.location;
        if (same && mark.next < least.next) || (!same && least.location.covers(&mark.location)) {
            least = mark;
        }
    }
    least.clone()
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

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
