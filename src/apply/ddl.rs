//! DDL at a barrier: intent, statement, done.
//!
//! The statement itself cannot be in a transaction with anything. So before it runs its intent is stored with a
//! fingerprint of what it will change; after a crash in between, a changed fingerprint means that it ran, an unchanged
//! one that it did not or that running it again changes nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::ddl_lock::{DdlLock, thread};
use super::introspect::fingerprint;
use super::session::{Downstream, limited};
use super::writer::ApplyError;
use crate::error::{Code, Failure, Retry, Scope, driver_failure, retry_of};
use crate::meta::{DdlIntent, MetaTables, StoredMark};
use crate::model::TargetTable;

/// Characters of a statement that are stored with its intent.
const SHOWN: usize = 16 << 10;
/// How often a statement is looked at that runs while the task is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// The server's error for a killed query.
const QUERY_INTERRUPTED: u16 = 1317;

/// One statement of a plan.
#[derive(Debug, Clone)]
pub struct DdlStep {
    /// The statement, all names qualified.
    pub sql: String,
    /// Tables it may change; with an empty table name, a database.
    pub targets: Vec<TargetTable>,
    /// `sql_mode` flags that decide how the text reads, as they were set on the source.
    pub sql_modes: Vec<&'static str>,
    /// The source's clock, seconds since the epoch.
    pub timestamp: u32,
}

/// Where intents are stored before their statements run.
#[tonic::async_trait]
pub trait Intents: Send {
    /// Stores one, durable when it returns; refuses if the task has another owner.
    async fn store(&mut self, conn: &mut Conn, intent: &DdlIntent, statement: &str) -> Result<(), ApplyError>;
    /// Takes it back.
    async fn withdraw(&mut self, conn: &mut Conn);
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
    async fn store(&mut self, conn: &mut Conn, intent: &DdlIntent, statement: &str) -> Result<(), ApplyError> {
        let failed =
            |error| driver_failure(&error, Code::Checkpoint, Scope::Downstream, "store the intent of a DDL statement");
        limited(conn.query_drop("BEGIN")).await.map_err(failed)?;
        limited(conn.query_drop(self.tables.move_all_lanes(self.epoch, &intent.mark))).await.map_err(failed)?;
        if conn.affected_rows() == 0 {
            limited(conn.query_drop("ROLLBACK")).await.map_err(failed)?;
            return Err(ApplyError::Fenced(self.epoch));
        }
        let DdlIntent { mark, step, fingerprint } = intent;
        // Kept for people only; a beginning will do, however small a packet the server takes.
        let shown: String = statement.chars().take(SHOWN).collect();
        let sql = self.tables.write_intent(self.epoch, mark, *step, fingerprint, &shown);
        limited(conn.query_drop(sql)).await.map_err(failed)?;
        limited(conn.query_drop("COMMIT")).await.map_err(failed)?;
        Ok(())
    }

    async fn withdraw(&mut self, conn: &mut Conn) {
        if let Err(error) = limited(conn.query_drop(self.tables.delete_intent())).await {
            tracing::warn!(%error, "the intent of a refused statement stays stored");
        }
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
        let again = pending.take_if(|intent| intent.mark == *self.start && intent.step == number);
        if again.as_ref().is_some_and(|intent| intent.fingerprint != now) {
            tracing::info!(step = number, "statement had run before the interruption");
            return Ok(());
        }
        // Again, too: only the owner may run it, and who that is may have changed while the lock was waited for.
        let intent = DdlIntent { mark: self.start.clone(), step: number, fingerprint: now };
        self.intents.store(conn, &intent, &step.sql).await?;
        match self.execute(conn, step).await {
            Ok(()) => Ok(()),
            // It may still have been at work where the server has no locks, and done by the time that ours got its turn.
            Err(Ran::Failed(failure)) if again.is_some() && says_already_done(&failure) => Ok(()),
            Err(Ran::Failed(failure)) => Err(self.withdraw(conn, failure).await),
            Err(Ran::Interrupted) => Err(ApplyError::Interrupted),
        }
    }

    /// A statement that the server refused has not run: what is found there later must not be taken for its effect.
    async fn withdraw(&mut self, conn: &mut Conn, failure: Failure) -> ApplyError {
        if failure.raw_cause.starts_with("Error ") && retry_of(&failure) != Retry::InPlace {
            self.intents.withdraw(conn).await;
        }
        failure.into()
    }

    /// No limit on the wait: an index on a large table takes hours, and a dead peer is found by TCP keepalive.
    async fn execute(&mut self, conn: &mut Conn, step: &DdlStep) -> Result<(), Ran> {
        let place = Arc::clone(&self.place);
        let failed = |error: &mysql_async::Error| {
            let doing = format!("execute statement failed: {}", step.sql);
            Ran::Failed(driver_failure(error, Code::ExecuteFailed, Scope::Downstream, &doing).at(&place))
        };
        if step.sql.len() > self.downstream.max_statement() {
            let limit = self.downstream.max_statement() + 1;
            let message = format!(
                "a DDL statement has {} bytes, and the downstream takes {limit} (max_allowed_packet)",
                step.sql.len()
            );
            let failure = Failure::new(Code::ExecuteFailed, message).scope(Scope::Downstream).at(&place);
            return Err(Ran::Failed(failure.workaround(
                "Please raise max_allowed_packet downstream (SET GLOBAL, and its configuration), then resume-task.",
            )));
        }
        let set = format!("SET SESSION sql_mode='{}', timestamp={}", ddl_mode(&step.sql_modes), step.timestamp);
        limited(conn.query_drop(set)).await.map_err(|error| failed(&error))?;
        let id = limited(conn.query_first::<u64, _>("SELECT CONNECTION_ID()")).await.map_err(|error| failed(&error))?;
        let (result, interrupted) = self.interruptible(conn, &step.sql, id.unwrap_or_default()).await;
        let reset = format!("SET SESSION timestamp=DEFAULT; {}", self.downstream.set_mode(false));
        for statement in reset.split("; ") {
            // A connection that broke here is replaced by its user; the statement's own result is what counts.
            let _ = limited(conn.query_drop(statement)).await;
        }
        match result {
            Err(mysql_async::Error::Server(error)) if interrupted && error.code == QUERY_INTERRUPTED => {
                Err(Ran::Interrupted)
            }
            result => result.map_err(|error| failed(&error)),
        }
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

/// `Waiting for table metadata lock` and its kin, as all makes say it.
fn waits_for_lock(state: &str) -> bool {
    let state = state.to_ascii_lowercase();
    state.starts_with("waiting for") && (state.contains("lock") || state.contains("table flush"))
}

/// Whether a refusal means that the statement's effect is there: database, table, column or key exists, or is gone.
fn says_already_done(failure: &Failure) -> bool {
    const DONE: [&str; 9] = ["1007", "1008", "1050", "1051", "1054", "1060", "1061", "1091", "1146"];
    let number = failure.raw_cause.strip_prefix("Error ").and_then(|rest| rest.split(' ').next());
    number.is_some_and(|number| DONE.contains(&number))
}

/// The source's reading modes, and what lets a table keep defaults that are dates of zero.
fn ddl_mode(reading: &[&str]) -> String {
    let lax = ["ALLOW_INVALID_DATES", "NO_AUTO_VALUE_ON_ZERO"];
    lax.iter().chain(reading).copied().collect::<Vec<_>>().join(",")
}
