//! Taking a task over: read what is stored, decide, raise the epoch, all in one transaction.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::decide::{Decision, SafeWindow, decide};
use super::ledger::{Book, Kept, Ledger, LedgerRecord, SeenRow, is_denied};
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::meta::{DdlIntent, DmRow, LaneRow, MetaTables, SHADOW_LANE, SafeNote, StoredMark};
use crate::model::{Flavor, Location, RowMark};

/// Longest wait for one statement on the meta tables; a former owner's transaction may hold its rows for a while.
const LIMIT: Duration = Duration::from_secs(60);

/// What a new owner wants.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The task's tables.
    pub tables: MetaTables,
    /// Dialect of the GTID sets.
    pub flavor: Flavor,
    /// Lanes wanted; used where no lane has to be replayed with another number.
    pub lanes: u32,
    /// Where to start if nothing is stored.
    pub fresh_start: Location,
    /// What this machine keeps of the task.
    pub ledger: Arc<dyn Ledger>,
    /// Host and port of the downstream.
    pub target: String,
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
pub async fn claim(conn: &mut Conn, claim: &Claim) -> Result<Claimed, Failure> {
    let stored = claim.ledger.load().await?;
    let record = stored.as_ref().filter(|record| record.target == claim.target);
    if let Err(why) = prepare(conn, &claim.tables).await? {
        // Positions that are there must not be left aside because they cannot be reached now.
        if record.is_some_and(|record| record.kept == Kept::Downstream) {
            return Err(why);
        }
        return claim_here(conn, claim, stored.as_ref(), record, &why).await;
    }
    // Without a row there would be nothing to lock, and two first claims would not see each other.
    limited(conn.query_drop(claim.tables.insert_shadow())).await?;
    limited(conn.query_drop("BEGIN")).await?;
    match claim_in_transaction(conn, claim, record).await {
        Ok(mut taken) => {
            limited(conn.query_drop("COMMIT")).await?;
            let next =
                LedgerRecord { window: taken.window.take(), ..LedgerRecord::new(Kept::Downstream, &claim.target) };
            let book = Book::open(Arc::clone(&claim.ledger), stored.as_ref(), next, claim.flavor, false).await?;
            Ok(taken.claimed(book))
        }
        Err(failure) => {
            // The connection goes with the failure; the server rolls back either way.
            let _ = limited(conn.query_drop("ROLLBACK")).await;
            Err(failure)
        }
    }
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
}

impl Taken {
    fn claimed(self, book: Book) -> Claimed {
        let Taken { epoch, marks, start, safe, intent, flushed, disarm, .. } = self;
        Claimed { epoch, marks, start, safe, intent, flushed, book, kept_here: None, disarm }
    }
}

/// Creates what is missing. The inner error says why our tables cannot be used at all, so that positions must be kept
/// elsewhere: the account may not create them, or they are of an engine without transactions.
async fn prepare(conn: &mut Conn, tables: &MetaTables) -> Result<Result<(), Failure>, Failure> {
    let mut refused = None;
    for statement in tables.create() {
        match answer(conn.query_drop(statement)).await? {
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
    stored: Option<&LedgerRecord>,
    record: Option<&LedgerRecord>,
    why: &Failure,
) -> Result<Claimed, Failure> {
    let seen = see_row(conn, &claim.tables).await?;
    let bad = |text: String| Failure::new(Code::Checkpoint, format!("read the checkpoint: {text}"));
    let parse = |mark: &StoredMark| mark.to_mark(claim.flavor).map_err(bad);
    let mut next = LedgerRecord::new(Kept::Here, &claim.target);
    let (start, safe) = match (record.and_then(|record| Some((record, record.holds(&seen)?))), &seen) {
        (Some((record, mark)), _) => {
            next = record.clone();
            (parse(mark)?, record.safe())
        }
        (None, SeenRow::Row(row)) => match decide(Some(row), None, &[]) {
            Decision::Theirs { at, safe } => (parse(&at)?, safe),
            _ => (parse(&row.location)?, Some(SafeWindow::Unknown)),
        },
        (None, SeenRow::Hidden | SeenRow::Missing) => (RowMark::at(claim.fresh_start.clone()), None),
    };
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

async fn claim_in_transaction(conn: &mut Conn, claim: &Claim, record: Option<&LedgerRecord>) -> Result<Taken, Failure> {
    let tables = &claim.tables;
    // Lanes first: whoever still writes holds one of these rows.
    let (shadow, rows) = read_lanes(conn, tables).await?;
    let dm = read_dm_row(conn, tables).await?;
    let epoch = 1 + rows.iter().chain(&shadow).map(|row| row.epoch).max().unwrap_or(0);
    let kept = shadow.as_ref().map(|row| (row.mark.gtids.as_str(), SafeNote::parse(&row.mark.file)));
    let decision = decide(dm.as_ref(), kept, &rows);
    let intent = read_intent(conn, tables).await?;
    let disarm = intent.is_some();
    let bad = |text: String| Failure::new(Code::Checkpoint, format!("read the checkpoint: {text}"));
    let parse = |mark: &StoredMark| mark.to_mark(claim.flavor).map_err(bad);
    let seen = dm.clone().map_or(SeenRow::Missing, SeenRow::Row);
    let here = record.and_then(|record| Some((record, record.holds(&seen)?)));
    let (marks, safe, intent, window) = match (&decision, here) {
        // Until now they were kept on this machine; the right to keep them downstream is new.
        (_, Some((record, mark))) => (vec![parse(mark)?], record.safe(), record.intent.clone(), None),
        (Decision::Fresh, _) => (vec![RowMark::at(claim.fresh_start.clone())], None, None, None),
        (Decision::Theirs { at, safe }, _) => (vec![parse(at)?], safe.clone(), None, None),
        (Decision::Ours { marks, safe }, _) => {
            let window = record.and_then(|record| record.window.clone());
            (marks.iter().map(parse).collect::<Result<Vec<_>, _>>()?, safe.clone(), intent, window)
        }
    };
    let start = least(&marks);
    // Only where all lanes stand at one place may their number change.
    let aligned = marks.iter().all(|mark| *mark == start);
    let marks = if aligned { vec![start.clone(); claim.lanes.max(1) as usize] } else { marks };
    // From now on more may be applied than the row says: it must not look exact.
    let at = match (&decision, &dm, here) {
        (Decision::Ours { .. } | Decision::Theirs { .. }, Some(row), None) => row.location.clone(),
        _ => StoredMark::from(&RowMark::at(start.location.clone())),
    };
    let (exit_safe, note) = match &safe {
        Some(SafeWindow::Until(mark)) => (mark.clone(), SafeNote::UntilExitSafe),
        Some(SafeWindow::Unknown) => (StoredMark::none(), SafeNote::Unknown),
        None => (StoredMark::none(), SafeNote::None),
    };
    let row = DmRow { location: at, exit_safe };
    limited(conn.query_drop(tables.delete_lanes())).await?;
    for (lane, mark) in marks.iter().enumerate() {
        let sql = tables.upsert_lane(lane as i32, marks.len() as u32, epoch, &StoredMark::from(mark));
        limited(conn.query_drop(sql)).await?;
    }
    for sql in tables.write_dm_row(&row, note, epoch) {
        limited(conn.query_drop(sql)).await?;
    }
    limited(conn.query_drop(tables.delete_table_rows())).await?;
    let sql = match (&intent, here) {
        (Some(intent), Some(_)) => tables.write_intent(epoch, &intent.mark, intent.step, &intent.fingerprint, ""),
        (Some(_), None) => String::new(),
        (None, _) => tables.delete_intent(),
    };
    if !sql.is_empty() {
        limited(conn.query_drop(sql)).await?;
    }
    let flushed = parse(&row.location)?.location;
    Ok(Taken { epoch, marks, start, safe, intent, flushed, disarm, window })
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
    type Columns = (i32, u32, u64, String, u64, String, u64);
    let rows: Vec<Columns> = limited(conn.query(tables.select_lanes())).await?;
    let rows = rows.into_iter().map(|(lane, lanes, epoch, file, offset, gtids, ordinal)| LaneRow {
        lane,
        lanes,
        epoch,
        mark: StoredMark { file, offset, gtids, ordinal },
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
        location: StoredMark { file, offset, gtids, ordinal: 0 },
        exit_safe: StoredMark { file: exit_file, offset: exit_offset, gtids: exit_gtids, ordinal: 0 },
    }
}

async fn read_intent(conn: &mut Conn, tables: &MetaTables) -> Result<Option<DdlIntent>, Failure> {
    let row: Option<(String, u64, String, u32, String)> = limited(conn.query_first(tables.select_intent())).await?;
    Ok(row.map(|(file, offset, gtids, step, fingerprint)| DdlIntent {
        mark: StoredMark { file, offset, gtids, ordinal: 0 },
        step,
        fingerprint,
    }))
}

/// Where DM's row says a start goes on; `None` where there is no row, or no table yet. Claims nothing.
pub async fn peek(conn: &mut Conn, tables: &MetaTables, flavor: Flavor) -> Result<Option<Location>, Failure> {
    let row: Result<Option<DmColumns>, _> =
        match tokio::time::timeout(LIMIT, conn.query_first(tables.read_dm_row())).await {
            Ok(row) => row,
            Err(_) => return Err(Failure::new(Code::InvalidConnection, "read the checkpoint: no answer within 60 s")),
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
mod tests {
    use super::*;
    use crate::model::{BinlogPosition, GtidSet, RowOrdinal};

    #[test]
    fn replay_begins_at_the_least_mark() {
        let at = |offset, row| RowMark {
            location: Location::new(
                BinlogPosition::parse("bin.000001", offset).unwrap(),
                GtidSet::empty(Flavor::MySql),
            ),
            next: RowOrdinal { event: 0, row },
        };
        assert_eq!(least(&[at(9, 0), at(5, 7), at(5, 3), at(9, 1)]), at(5, 3));
        assert_eq!(least(&[at(5, 0)]), at(5, 0));
    }
}
