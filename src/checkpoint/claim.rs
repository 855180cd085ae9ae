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

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::decide::{Decision, SafeWindow, decide};
use super::ledger::{Book, Kept, Ledger, LedgerRecord, SeenRow};
use super::stored::{self, Mapping, Stored, limited, unreadable};
use crate::error::{Code, Failure, Scope, server_number};
use crate::meta::{DdlIntent, DmRow, MetaTables, SafeNote, StoredMark};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location, RowMark};

/// How often a claim begins anew because someone moved DM's row meanwhile, or was in its way.
const ATTEMPTS: usize = 5;
/// The server has ended the transaction because it and another one waited for each other: a former owner still writes.
const DEADLOCK: u16 = 1213;
/// Bytes of GTID sets in a statement that writes lanes' rows.
const LANES_BYTES: usize = 128 << 10;

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

/// Creates the tables and claims the task.
pub async fn claim(conn: &mut Conn, claim: &Claim, history: &(impl History + Sync)) -> Result<Claimed, Failure> {
    let stored = claim.ledger.load().await?;
    let record = stored.as_ref().filter(|record| record.target == claim.target);
    if let Err(why) = stored::prepare(conn, &claim.tables).await? {
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

/// Positions on this machine: no epoch, no fence, and safe mode for what was dispatched after the checkpoint.
async fn claim_here(
    conn: &mut Conn,
    claim: &Claim,
    history: &(impl History + Sync),
    stored: Option<&LedgerRecord>,
    record: Option<&LedgerRecord>,
    why: &Failure,
) -> Result<Claimed, Failure> {
    let seen = stored::see_row(conn, &claim.tables).await?;
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

async fn claim_in_transaction(
    conn: &mut Conn,
    claim: &Claim,
    record: Option<&LedgerRecord>,
    completed: Option<&(StoredMark, GtidSet)>,
) -> Result<Outcome, Failure> {
    let stored = Stored::read(conn, &claim.tables).await?;
    let seen = stored.dm.clone().map_or(SeenRow::Missing, SeenRow::Row);
    let here = record.and_then(|record| Some((record, record.holds(&seen)?)));
    let mut decision = stored.decide();
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
    let mut next = Onward::new(claim, &stored, &decision, record, here)?;
    let mapping = if next.is_free { None } else { stored::read_mapping(conn, &claim.tables, stored.epoch()).await? };
    if next.is_free {
        next.marks = vec![least(&next.marks); claim.lanes.max(1) as usize];
    }
    for sql in next.statements(claim, stored.epoch(), mapping.is_some()) {
        limited(conn.query_drop(sql)).await?;
    }
    let Onward { marks, safe, intent, window, row, .. } = next;
    Ok(Outcome::Taken(Box::new(Taken {
        epoch: stored.epoch() + 1,
        start: least(&marks),
        marks,
        safe,
        intent,
        flushed: row.to_mark(claim.flavor).map_err(unreadable)?.location,
        disarm: stored.intent.is_some(),
        window,
        mapping: mapping.unwrap_or_else(|| Mapping { text: claim.mapping.clone(), tables: Vec::new() }),
    })))
}

/// Where the task goes on.
struct Onward {
    marks: Vec<RowMark>,
    safe: Option<SafeWindow>,
    intent: Option<DdlIntent>,
    /// The intent was kept on this machine, and is stored downstream from now on.
    moves_intent: bool,
    window: Option<StoredMark>,
    /// What DM's row says from now on.
    row: StoredMark,
    /// All lanes stand at one transaction boundary: the mapping wanted holds, else the stored one.
    is_free: bool,
}

impl Onward {
    /// `here` is what this machine kept while it could not be kept downstream.
    fn new(
        claim: &Claim,
        stored: &Stored,
        decision: &Decision,
        record: Option<&LedgerRecord>,
        here: Option<(&LedgerRecord, &StoredMark)>,
    ) -> Result<Self, Failure> {
        let parse = |mark: &StoredMark| mark.to_mark(claim.flavor).map_err(unreadable);
        let (marks, safe, intent, window) = match (decision, here) {
            // Until now they were kept on this machine; the right to keep them downstream is new.
            (_, Some((record, mark))) => (vec![parse(mark)?], record.safe(), record.intent.clone(), None),
            (Decision::Fresh, _) => (vec![RowMark::at(claim.fresh_start.clone())], claim.fresh_window(), None, None),
            (Decision::Theirs { at, safe }, _) => (vec![parse(at)?], safe.clone(), None, None),
            (Decision::Ours { marks, safe }, _) => {
                let window = record.and_then(|record| record.window.clone());
                let marks = marks.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
                (marks, safe.clone(), stored.intent.clone(), window)
            }
        };
        let start = least(&marks);
        // From now on more may be applied than the row says: it must not look exact.
        let row = match (decision, &stored.dm, here) {
            (Decision::Theirs { at, .. }, _, None) => at.clone(),
            (Decision::Ours { .. }, Some(row), None) => row.location.clone(),
            _ => first_row(&start.location)?,
        };
        let at_one_boundary = !start.is_inside() && marks.iter().all(|mark| *mark == start);
        let is_free = at_one_boundary || here.is_some();
        Ok(Onward { marks, safe, intent, moves_intent: here.is_some(), window, row, is_free })
    }

    /// What stores it, behind the owner of `former`.
    fn statements(&self, claim: &Claim, former: u64, keeps_mapping: bool) -> Vec<String> {
        let (tables, epoch) = (&claim.tables, former + 1);
        let (exit_safe, note) = match &self.safe {
            Some(SafeWindow::Until(mark)) => (mark.clone(), SafeNote::UntilExitSafe),
            Some(SafeWindow::Unknown) => (StoredMark::none(), SafeNote::Unknown),
            None => (StoredMark::none(), SafeNote::None),
        };
        let row = DmRow { location: self.row.clone(), exit_safe };
        let mut statements = vec![tables.delete_lanes()];
        let marks: Vec<StoredMark> = self.marks.iter().map(StoredMark::from).collect();
        let lanes: Vec<(i32, &StoredMark)> = (0..).zip(&marks).collect();
        // A GTID set may be long, and every lane has one.
        let longest = marks.iter().map(|mark| mark.gtids.len()).max().unwrap_or_default();
        let at_once = (LANES_BYTES / longest.max(1)).max(1);
        let upsert = |rows: &[(i32, &StoredMark)]| tables.upsert_lanes(marks.len() as u32, epoch, rows.iter().copied());
        statements.extend(lanes.chunks(at_once).map(upsert));
        statements.extend(tables.write_dm_row(&row, note, epoch));
        statements.push(tables.delete_table_rows());
        statements.extend(match keeps_mapping {
            true => [tables.delete_mappings_but(former), tables.hand_on_mappings(former, epoch)],
            false => [tables.delete_mappings_but(epoch), tables.write_mapping(epoch, "", "", &claim.mapping)],
        });
        match &self.intent {
            Some(intent) if self.moves_intent => statements.push(tables.write_intent(epoch, intent)),
            Some(_) => {}
            None => statements.push(tables.delete_intent()),
        }
        statements
    }
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

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
