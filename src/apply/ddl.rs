//! DDL at a barrier: intent, statement, done.
//!
//! The statement itself cannot be in a transaction with anything. So before it runs its intent is stored with a
//! fingerprint of what it will change; after a crash in between, a changed fingerprint means that it ran, an unchanged
//! one that it did not or that running it again changes nothing.

use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::introspect::fingerprint;
use super::session::{Downstream, limited};
use super::writer::ApplyError;
use crate::error::{Code, Failure, Retry, Scope, driver_failure, retry_of};
use crate::meta::{DdlIntent, MetaTables, StoredMark};
use crate::model::TargetTable;

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

/// Runs the statements of one source transaction.
pub struct DdlRun<'a> {
    /// The downstream.
    pub downstream: &'a Downstream,
    /// Where intents go.
    pub tables: &'a MetaTables,
    /// Ours.
    pub epoch: u64,
    /// Start of the transaction.
    pub start: &'a StoredMark,
    /// Where it came from, for messages: DM's `startLocation: …, endLocation: …, origin SQL: […]`.
    pub place: Arc<str>,
}

impl DdlRun<'_> {
    /// Runs one step, unless the intent left by a crash shows that it ran. `pending` is that intent, taken when it
    /// is this step's.
    pub async fn run(
        &self,
        conn: &mut Conn,
        number: u32,
        step: &DdlStep,
        pending: &mut Option<DdlIntent>,
    ) -> Result<(), ApplyError> {
        if let Some(intent) = pending.as_ref().filter(|intent| intent.mark == *self.start) {
            if intent.step > number {
                return Ok(());
            }
            if intent.step == number {
                let before = pending.take().map(|intent| intent.fingerprint).unwrap_or_default();
                if self.fingerprint(conn, step).await? != before {
                    tracing::info!(step = number, "statement had run before the interruption");
                    return Ok(());
                }
                // It may still be at work on the server, and done by the time that ours gets its turn.
                return match self.execute(conn, step).await {
                    Err(failure) if says_already_done(&failure) => Ok(()),
                    Err(failure) => Err(self.withdraw(conn, failure).await),
                    Ok(()) => Ok(()),
                };
            }
        }
        let before = self.fingerprint(conn, step).await?;
        self.store_intent(conn, number, step, &before).await?;
        match self.execute(conn, step).await {
            Err(failure) => Err(self.withdraw(conn, failure).await),
            Ok(()) => Ok(()),
        }
    }

    /// A statement that the server refused has not run: what is found there later must not be taken for its effect.
    async fn withdraw(&self, conn: &mut Conn, failure: Failure) -> ApplyError {
        let refused = failure.raw_cause.starts_with("Error ") && retry_of(&failure) != Retry::InPlace;
        if refused && let Err(error) = limited(conn.query_drop(self.tables.delete_intent())).await {
            tracing::warn!(%error, "the intent of a refused statement stays stored");
        }
        failure.into()
    }

    async fn fingerprint(&self, conn: &mut Conn, step: &DdlStep) -> Result<String, Failure> {
        let mut all = String::new();
        for target in &step.targets {
            all.push_str(&fingerprint(conn, target).await?);
            all.push('\n');
        }
        Ok(all)
    }

    /// Only the owner of the epoch may: the lane rows are touched in the same transaction.
    async fn store_intent(&self, conn: &mut Conn, number: u32, step: &DdlStep, before: &str) -> Result<(), ApplyError> {
        let failed =
            |error| driver_failure(&error, Code::Checkpoint, Scope::Downstream, "store the intent of a DDL statement");
        limited(conn.query_drop("BEGIN")).await.map_err(failed)?;
        limited(conn.query_drop(self.tables.move_all_lanes(self.epoch, self.start))).await.map_err(failed)?;
        if conn.affected_rows() == 0 {
            limited(conn.query_drop("ROLLBACK")).await.map_err(failed)?;
            return Err(ApplyError::Fenced(self.epoch));
        }
        let intent = self.tables.write_intent(self.epoch, self.start, number, before, &step.sql);
        limited(conn.query_drop(intent)).await.map_err(failed)?;
        limited(conn.query_drop("COMMIT")).await.map_err(failed)?;
        Ok(())
    }

    /// No limit on the wait: an index on a large table takes hours, and a dead peer is found by TCP keepalive.
    async fn execute(&self, conn: &mut Conn, step: &DdlStep) -> Result<(), Failure> {
        let failed = |error: &mysql_async::Error| {
            let doing = format!("execute statement failed: {}", step.sql);
            driver_failure(error, Code::ExecuteFailed, Scope::Downstream, &doing).at(&self.place)
        };
        let set = format!("SET SESSION sql_mode='{}', timestamp={}", ddl_mode(&step.sql_modes), step.timestamp);
        limited(conn.query_drop(set)).await.map_err(|error| failed(&error))?;
        let result = conn.query_drop(step.sql.as_str()).await;
        let reset = format!("SET SESSION timestamp=DEFAULT; {}", self.downstream.set_mode(false));
        for statement in reset.split("; ") {
            // A connection that broke here is replaced by its user; the statement's own result is what counts.
            let _ = limited(conn.query_drop(statement)).await;
        }
        result.map_err(|error| failed(&error))
    }
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
