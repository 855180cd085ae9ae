//! DDL at a barrier: intent, statement, done.
//!
//! The statement itself cannot be in a transaction with anything. So before it runs its intent is stored with a
//! fingerprint of what it will change; after a crash in between, a changed fingerprint means that it ran, an unchanged
//! one that it did not or that running it again changes nothing.
//!
//! A statement that the downstream refuses leaves its intent behind, which then says what its tables looked like and that
//! it is not at work. At the next start it is run again, since the reason may be gone. Where it is refused again and its
//! tables have changed meanwhile, somebody has made its change by hand: that is what its error asks for.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::ddl_clauses::needed;
use super::ddl_effect::is_there;
use super::ddl_lock::{DdlLock, thread};
use super::ddl_step::DdlStep;
use super::introspect::{fingerprint, has_rows};
use super::writer::ApplyError;
use crate::downstream::{Downstream, SessionError, limited};
use crate::error::{Code, Failure, Retry, Scope, driver_failure, retry_of, server_number};
use crate::meta::{DdlIntent, MetaTables, StoredMark};

/// How often a statement is looked at that runs while the task is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// The server's error for a killed query.
const QUERY_INTERRUPTED: u16 = 1317;

/// Whether an intent that a crash or a refusal left behind is about one of these statements, the first of which has number
/// `first`. If not, an operator has ordered others since, and of these none has been begun.
pub fn is_of_plan(intent: &DdlIntent, first: u32, steps: &[DdlStep]) -> bool {
    let Some(number) = intent.step.checked_sub(first) else { return true };
    match steps.get(number as usize) {
        Some(step) => intent.is_of(&step.shown()),
        // Of an earlier version, which did not say whose it is.
        None => intent.statement.is_empty(),
    }
}

/// Where intents are stored before their statements run.
#[tonic::async_trait]
pub trait Intents: Send {
    /// Stores one in place of any other, durable when it returns; refuses if the task has another owner.
    async fn store(&mut self, conn: &mut Conn, intent: &DdlIntent) -> Result<(), ApplyError>;
}

/// Downstream, in the transaction that checks the epoch.
pub struct StoredIntents<'a> {
    /// Where they go.
    pub tables: &'a MetaTables,
    /// Ours.
    pub epoch: u64,
}

#[tonic::async_trait]
impl Intents for StoredIntents<'_> {
    /// Only the owner of the epoch may: the lane rows are touched in the same transaction.
    async fn store(&mut self, conn: &mut Conn, intent: &DdlIntent) -> Result<(), ApplyError> {
        let failed =
            |error| driver_failure(&error, Code::Checkpoint, Scope::Downstream, "store the intent of a DDL statement");
        limited(conn.query_drop("BEGIN")).await.map_err(failed)?;
        limited(conn.query_drop(self.tables.move_all_lanes(self.epoch, &intent.mark))).await.map_err(failed)?;
        if conn.affected_rows() == 0 {
            limited(conn.query_drop("ROLLBACK")).await.map_err(failed)?;
            return Err(ApplyError::Fenced(self.epoch));
        }
        let sql = self.tables.write_intent(self.epoch, intent);
        limited(conn.query_drop(sql)).await.map_err(failed)?;
        limited(conn.query_drop("COMMIT")).await.map_err(failed)?;
        Ok(())
    }
}

/// Runs the statements of one source transaction.
pub struct DdlRun<'a> {
    /// The downstream.
    pub downstream: &'a Downstream,
    /// Where intents go.
    pub intents: &'a mut dyn Intents,
    /// Held while a statement runs.
    pub lock: &'a DdlLock,
    /// Start of the transaction.
    pub start: &'a StoredMark,
    /// Where it came from, for messages: DM's `startLocation: …, endLocation: …, origin SQL: […]`.
    pub place: Arc<str>,
    /// Ready when the task is to stop: then a statement that only waits for a lock downstream is interrupted.
    pub stopping: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    /// It was ready.
    pub stopped: bool,
    /// Another worker may have run it already and ended before it could say so.
    pub may_be_done: bool,
    /// Its effect may have come with the structures of a copy: then it is refused because of that, and its tables are looked
    /// at and read again when it counts as done.
    pub came_with_copy: bool,
    /// Some step counted as done because of that.
    pub taken_for_done: bool,
    /// The step that was refused last, as its intent is stored.
    pub refused: Option<DdlIntent>,
    /// Qualified name of a table of ours that may be made and dropped, to find out what a refused statement would make.
    pub scratch: &'a str,
    /// Statements that were refused because their effect was there already.
    pub was_there: Vec<String>,
    /// Told what is waited for.
    pub say: &'a (dyn Fn(String) + Send + Sync),
}

impl DdlRun<'_> {
    /// Runs one step, unless the intent left by a crash shows that it ran. `pending` is that intent, taken when it
    /// is this step's.
    pub async fn run(
        &mut self,
        conn: &mut Conn,
        number: u32,
        step: &DdlStep,
        pending: &mut Option<DdlIntent>,
    ) -> Result<(), ApplyError> {
        if pending.as_ref().is_some_and(|intent| intent.mark == *self.start && intent.step > number) {
            return Ok(());
        }
        let say = self.say;
        let locked = self.lock.take(conn, say).await?;
        let result = self.run_locked(conn, number, step, pending).await;
        if locked {
            self.lock.give_back(conn).await;
        }
        result
    }

    async fn run_locked(
        &mut self,
        conn: &mut Conn,
        number: u32,
        step: &DdlStep,
        pending: &mut Option<DdlIntent>,
    ) -> Result<(), ApplyError> {
        let now = fingerprints(conn, step).await?;
        let shown = step.shown();
        let known = pending.take_if(|intent| intent.mark == *self.start && intent.step == number);
        // What its tables looked like says nothing of another one's.
        let known = known.filter(|intent| intent.is_of(&shown));
        let interrupted = known.as_ref().is_some_and(DdlIntent::was_at_work);
        if interrupted && known.as_ref().is_some_and(|intent| intent.fingerprint != now) {
            tracing::info!(step = number, "statement had run before the interruption");
            return Ok(());
        }
        // Again, too: only the owner may run it, and who that is may have changed while the lock was waited for.
        let refused = known.and_then(|known| known.refused);
        let statement = DdlIntent::beginning(&shown);
        let intent = DdlIntent { mark: self.start.clone(), step: number, fingerprint: now, refused, statement };
        self.intents.store(conn, &intent).await?;
        match self.execute(conn, step, &shown).await {
            Ok(()) => Ok(()),
            // It may still have been at work where the server has no locks, and done by the time that ours got its turn.
            Err(Ran::Failed(failure)) if interrupted && says_one_of(&failure, &DONE_BEFORE) => Ok(()),
            Err(Ran::Failed(failure))
                if self.may_be_done && step.one_change && says_one_of(&failure, &DONE_BY_ANOTHER) =>
            {
                let cause = failure.raw_cause;
                tracing::warn!(step = number, %cause, "taken for done: another worker ran it before it ended");
                Ok(())
            }
            Err(Ran::Failed(failure)) if self.came_with_copy && says_one_of(&failure, &CAME_WITH_COPY) => {
                tracing::info!(step = number, cause = %failure.raw_cause, "taken for done: it came with the structures of the copy");
                self.taken_for_done = true;
                Ok(())
            }
            Err(Ran::Failed(failure)) if is_there(conn, self.downstream, self.scratch, step, &failure).await => {
                tracing::warn!(step = number, statement = %shown, cause = %failure.raw_cause, "taken for done: its effect was there");
                self.was_there.push(shown);
                Ok(())
            }
            Err(Ran::Failed(failure)) => self.refused(conn, intent, &shown, failure).await,
            Err(Ran::Interrupted) => Err(ApplyError::Interrupted),
        }
    }

    /// A statement that was refused has not run: what is found there later must not be taken for its effect, but for what
    /// an operator has made of it.
    async fn refused(
        &mut self,
        conn: &mut Conn,
        intent: DdlIntent,
        shown: &str,
        failure: Failure,
    ) -> Result<(), ApplyError> {
        let by_server = failure.raw_cause.starts_with("Error ") && retry_of(&failure) != Retry::InPlace;
        if !by_server && failure.known_code() != Some(Code::ParseDdl) {
            return Err(failure.into());
        }
        let DdlIntent { fingerprint, refused, .. } = &intent;
        if refused.as_ref().is_some_and(|before| before != fingerprint) {
            let (step, cause) = (intent.step, &failure.raw_cause);
            tracing::warn!(
                step, statement = %shown, %cause,
                "refused again, but its tables have changed since: its change was made by hand, going on behind it"
            );
            return Ok(());
        }
        let idle = DdlIntent { fingerprint: String::new(), refused: Some(fingerprint.clone()), ..intent };
        if let Err(error) = self.intents.store(conn, &idle).await {
            tracing::warn!(%error, "that a statement was refused is not stored");
        }
        self.refused = Some(idle);
        Err(failure.into())
    }

    /// No limit on the wait: an index on a large table takes hours, and a dead peer is found by TCP keepalive.
    async fn execute(&mut self, conn: &mut Conn, step: &DdlStep, shown: &str) -> Result<(), Ran> {
        let place = Arc::clone(&self.place);
        let failed = |error: &mysql_async::Error| Ran::Failed(refusal(error, step, shown, &place));
        if let Some(why) = &step.unsafe_with_rows
            && self.holds_rows(conn, step).await?
        {
            let failure = Failure::new(Code::ParseDdl, format!("{why}: {shown}")).at(&place);
            return Err(Ran::Failed(failure.workaround(format!("{} {BY_HAND}", RECOMPUTED))));
        }
        let Some(sql) = needed(conn, step).await? else {
            tracing::info!(statement = %shown, "nothing of it is needed downstream");
            return Ok(());
        };
        if sql.len() > self.downstream.max_statement() {
            return Err(Ran::Failed(too_large(sql.len(), self.downstream.max_statement()).at(&place)));
        }
        match step.session.enter(conn, self.downstream.dialect).await {
            Ok(()) => {}
            Err(SessionError::Server(error)) => return Err(failed(&error)),
            Err(SessionError::Zone(name)) => return Err(Ran::Failed(unknown_zone(&name, shown).at(&place))),
        }
        let id = limited(conn.query_first::<u64, _>("SELECT CONNECTION_ID()")).await.map_err(|error| failed(&error))?;
        let (result, interrupted) = self.interruptible(conn, &sql, id.unwrap_or_default()).await;
        // The statement's own result is what counts.
        step.session.leave(conn, self.downstream).await;
        match result {
            Err(mysql_async::Error::Server(error)) if interrupted && error.code == QUERY_INTERRUPTED => {
                Err(Ran::Interrupted)
            }
            result => result.map_err(|error| failed(&error)),
        }
    }

    async fn holds_rows(&mut self, conn: &mut Conn, step: &DdlStep) -> Result<bool, Failure> {
        for target in &step.targets {
            if has_rows(conn, target).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The statement's result, and whether it was interrupted because the task is to stop. Only a statement that waits
    /// for a lock is: it has altered nothing yet, or is about to publish what it has, and the server undoes that. One
    /// that is at work is waited for, so that nothing is altered behind a task that says that it is parked.
    async fn interruptible(&mut self, conn: &mut Conn, sql: &str, id: u64) -> (Result<(), mysql_async::Error>, bool) {
        let mut running = std::pin::pin!(conn.query_drop(sql));
        tokio::select! {
            result = &mut running => return (result, false),
            () = &mut self.stopping, if !self.stopped => self.stopped = true,
            () = std::future::ready(()), if self.stopped => {}
        }
        let mut control: Option<Conn> = None;
        let mut interrupted = false;
        loop {
            tokio::select! {
                result = &mut running => return (result, interrupted),
                () = tokio::time::sleep(LOOK) => {}
            }
            if interrupted {
                continue;
            }
            if control.is_none() {
                control = self.downstream.connect().await.ok();
            }
            let Some(other) = control.as_mut() else { continue };
            match thread(other, id).await {
                Ok(Some(thread)) if waits_for_lock(&thread.state) => {
                    tracing::info!(state = %thread.state, "the task is to stop: a DDL statement that waits is interrupted");
                    interrupted = limited(other.query_drop(format!("KILL QUERY {id}"))).await.is_ok();
                }
                Ok(_) => {}
                Err(_) => control = None,
            }
        }
    }
}

async fn fingerprints(conn: &mut Conn, step: &DdlStep) -> Result<String, Failure> {
    let mut all = String::new();
    for target in &step.targets {
        all.push_str(&fingerprint(conn, target).await?);
        all.push('\n');
    }
    Ok(all)
}

/// How a statement ended without success.
enum Ran {
    Failed(Failure),
    Interrupted,
}

impl From<Failure> for Ran {
    fn from(failure: Failure) -> Self {
        Ran::Failed(failure)
    }
}

/// `Waiting for table metadata lock` and its kin, as all makes say it.
fn waits_for_lock(state: &str) -> bool {
    let state = state.to_ascii_lowercase();
    state.starts_with("waiting for") && (state.contains("lock") || state.contains("table flush"))
}

/// Refusals of a statement that another connection still had at work: its effect is there.
const DONE_BEFORE: [u16; 9] = [1007, 1008, 1050, 1051, 1054, 1060, 1061, 1091, 1146];
/// Refusals that DM takes for done, always: a database, table, column or key exists, or is gone.
const DONE_BY_ANOTHER: [u16; 7] = [1007, 1008, 1050, 1051, 1060, 1061, 1091];

/// Refusals of a statement whose tables are as it makes them, or as later ones made them.
const CAME_WITH_COPY: [u16; 15] =
    [1007, 1008, 1050, 1051, 1054, 1060, 1061, 1068, 1072, 1091, 1146, 1517, 1826, 3821, 3822];

/// Refusals because of rows: alike by a new key, or not fitting a narrower column, a check, a partition or a foreign key.
const BECAUSE_OF_ROWS: [u16; 15] =
    [1048, 1062, 1138, 1216, 1264, 1265, 1292, 1366, 1406, 1411, 1452, 1526, 1586, 3819, 4025];

/// Whether the downstream refused a statement because of the rows that its table holds.
pub fn is_because_of_rows(failure: &Failure) -> bool {
    says_one_of(failure, &BECAUSE_OF_ROWS)
}

fn says_one_of(failure: &Failure, numbers: &[u16]) -> bool {
    server_number(failure).is_some_and(|number| numbers.contains(&number))
}

const BY_HAND: &str = "Make the change downstream by hand, in one statement and in a form that it takes, then resume-task: \
                       a statement that is refused again counts as done if its tables have changed since. Where nothing is \
                       to be changed, use `binlog skip`.";

const RECOMPUTED: &str = "Please give the rows downstream the values that they have on the source.";

/// The downstream's answer to a statement that it did not run.
fn refusal(error: &mysql_async::Error, step: &DdlStep, shown: &str, place: &str) -> Failure {
    let doing = format!("execute statement failed: {shown}");
    let failure = driver_failure(error, Code::ExecuteFailed, Scope::Downstream, &doing).at(place);
    if !failure.raw_cause.starts_with("Error ") || retry_of(&failure) == Retry::InPlace {
        return failure;
    }
    let tables: Vec<String> = step.targets.iter().map(|target| target.to_string().replace(".``", "")).collect();
    failure.workaround(format!("Please look at {} downstream. {BY_HAND}", tables.join(", ")))
}

fn too_large(size: usize, limit: usize) -> Failure {
    let limit = limit + 1;
    let message = format!("a DDL statement has {size} bytes, and the downstream takes {limit} (max_allowed_packet)");
    Failure::new(Code::ExecuteFailed, message)
        .scope(Scope::Downstream)
        .workaround("Please raise max_allowed_packet downstream (SET GLOBAL, and its configuration), then resume-task.")
}

fn unknown_zone(name: &str, shown: &str) -> Failure {
    let zone = if name.is_empty() { "the source's own time zone" } else { name };
    let message = format!(
        "a DDL statement depends on {zone}, which the downstream does not know, and the source did not say how far from \
         UTC it is: {shown}"
    );
    Failure::new(Code::ExecuteFailed, message).scope(Scope::Downstream).workaround(
        "Please make the source reachable, or load the time zones downstream (mysql_tzinfo_to_sql), then resume-task.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::DdlSession;

    fn step(sql: &str) -> DdlStep {
        DdlStep {
            sql: sql.to_owned(),
            clauses: Vec::new(),
            targets: Vec::new(),
            session: DdlSession::default(),
            unsafe_with_rows: None,
            one_change: true,
            ordered: false,
        }
    }

    fn intent(step: u32, statement: &str) -> DdlIntent {
        DdlIntent {
            mark: StoredMark::boundary("b.000001".to_owned(), 4, String::new()),
            step,
            fingerprint: "t".to_owned(),
            refused: None,
            statement: DdlIntent::beginning(statement),
        }
    }

    #[test]
    fn an_intent_says_nothing_of_other_statements() {
        let plan = [step("A"), step("B")];
        for (number, text, first, expected) in [
            (0, "A", 0, true),
            (1, "B", 0, true),
            (1, "A", 0, false),
            (0, "C", 0, false),
            (2, "C", 0, false),
            (3, "B", 2, true),
            // Of a statement before these, in the same transaction.
            (1, "Z", 2, true),
            // An earlier version did not say.
            (0, "", 0, true),
            (7, "", 0, true),
        ] {
            assert_eq!(is_of_plan(&intent(number, text), first, &plan), expected, "{number} {text} {first}");
        }
        let long = "x".repeat(20_000);
        assert!(intent(0, &long).is_of(&long) && !intent(0, &long).is_of("x"));
    }
}
