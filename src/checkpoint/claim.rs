//! Taking a task over: read what is stored, decide, raise the epoch, all in one transaction.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::decide::{Decision, SafeWindow, decide};
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
}

fn failed(error: &mysql_async::Error) -> Failure {
    driver_failure(error, Code::Checkpoint, Scope::Downstream, "read and claim the checkpoint")
}

async fn limited<T>(answer: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(Failure::new(Code::InvalidConnection, "read and claim the checkpoint: no answer within 60 s")
            .scope(Scope::Downstream)),
    }
}

/// Creates the tables and claims the task.
pub async fn claim(conn: &mut Conn, claim: &Claim) -> Result<Claimed, Failure> {
    for statement in claim.tables.create() {
        limited(conn.query_drop(statement)).await?;
    }
    // Without a row there would be nothing to lock, and two first claims would not see each other.
    limited(conn.query_drop(claim.tables.insert_shadow())).await?;
    limited(conn.query_drop("BEGIN")).await?;
    match claim_in_transaction(conn, claim).await {
        Ok(claimed) => {
            limited(conn.query_drop("COMMIT")).await?;
            Ok(claimed)
        }
        Err(failure) => {
            // The connection goes with the failure; the server rolls back either way.
            let _ = limited(conn.query_drop("ROLLBACK")).await;
            Err(failure)
        }
    }
}

async fn claim_in_transaction(conn: &mut Conn, claim: &Claim) -> Result<Claimed, Failure> {
    let tables = &claim.tables;
    // Lanes first: whoever still writes holds one of these rows.
    let (shadow, rows) = read_lanes(conn, tables).await?;
    let dm = read_dm_row(conn, tables).await?;
    let epoch = 1 + rows.iter().chain(&shadow).map(|row| row.epoch).max().unwrap_or(0);
    let kept = shadow.as_ref().map(|row| (row.mark.gtids.as_str(), SafeNote::parse(&row.mark.file)));
    let decision = decide(dm.as_ref(), kept, &rows);
    let intent = read_intent(conn, tables).await?;
    let bad = |text: String| Failure::new(Code::Checkpoint, format!("read the checkpoint: {text}"));
    let parse = |mark: &StoredMark| mark.to_mark(claim.flavor).map_err(bad);
    let (marks, safe, intent) = match &decision {
        Decision::Fresh => (vec![RowMark::at(claim.fresh_start.clone())], None, None),
        Decision::Theirs { at, safe } => (vec![parse(at)?], safe.clone(), None),
        Decision::Ours { marks, safe } => {
            (marks.iter().map(parse).collect::<Result<Vec<_>, _>>()?, safe.clone(), intent)
        }
    };
    let start = least(&marks);
    // Only where all lanes stand at one place may their number change.
    let aligned = marks.iter().all(|mark| *mark == start);
    let marks = if aligned { vec![start.clone(); claim.lanes.max(1) as usize] } else { marks };
    // From now on more may be applied than the row says: it must not look exact.
    let at = match (&decision, &dm) {
        (Decision::Ours { .. } | Decision::Theirs { .. }, Some(row)) => row.location.clone(),
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
    if intent.is_none() {
        limited(conn.query_drop(tables.delete_intent())).await?;
    }
    let flushed = parse(&row.location)?.location;
    Ok(Claimed { epoch, marks, start, safe, intent, flushed })
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
        match tokio::time::timeout(LIMIT, conn.query_first(tables.select_dm_row())).await {
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
        // Unknown database, unknown table.
        Err(mysql_async::Error::Server(error)) if matches!(error.code, 1049 | 1146) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// `--remove-meta`: forgets everything stored for this task and source.
pub async fn forget(conn: &mut Conn, tables: &MetaTables) -> Result<(), Failure> {
    for statement in tables.create().into_iter().chain(tables.forget()) {
        limited(conn.query_drop(statement)).await?;
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
