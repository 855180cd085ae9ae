//! Writers: each takes chunks as they come and writes one transaction a chunk: its slot, the rows, the mark.
//!
//! Killed anywhere, a chunk is there with its mark, or neither. Where the answer to COMMIT was lost, the mark is looked for
//! before the chunk is sent again: the slot's lock has then waited for whatever the former connection was doing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::{Mutex, mpsc};

use super::chunk::{Chunk, Statement};
use super::event::Event;
use super::gate::{Pass, Width};
use super::load;
use super::patience::{is_passing, pause, worth_another};
use super::plan::bound_of;
use super::reader::{LARGE, behind};
use super::shared::Shared;
use crate::downstream::limited;
use crate::error::{Code, Failure, Scope, driver_failure, server_error_code};

/// Tables with and without transactions in one transaction, which a MySQL with GTIDs does not take.
const LOOSE_AND_NOT: u16 = 1785;

/// Chunks for all writers.
pub(super) type Chunks = Mutex<mpsc::Receiver<Chunk>>;

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub slot: i32,
    pub conn: Option<Conn>,
}

/// Why a chunk was not written.
enum Unwritten {
    Fenced,
    /// The server did not take its lines as they are.
    NotLoaded,
    Failed(Failure),
}

impl From<Failure> for Unwritten {
    fn from(failure: Failure) -> Self {
        Unwritten::Failed(failure)
    }
}

impl Writer {
    /// Writes chunks until there are none.
    pub async fn run(mut self, chunks: Arc<Chunks>) {
        let mut at_work = self.shared.at_work.clone();
        let number = usize::try_from(self.slot).unwrap_or_default();
        loop {
            if at_work.wait_for(|at_work| number < *at_work).await.is_err() {
                return;
            }
            let next = chunks.lock().await.recv().await;
            let Some(chunk) = next else { return };
            if self.shared.halted() {
                return;
            }
            if chunk.job.is_left() {
                continue;
            }
            let Some(event) = self.write_whole(&chunk).await else { return };
            drop(chunk);
            let last = !matches!(event, Event::Written { .. } | Event::Refused { .. });
            if self.shared.events.send(event).await.is_err() || last {
                return;
            }
        }
    }

    /// `None` where the copy was stopped before it was sent.
    async fn write_whole(&mut self, chunk: &Chunk) -> Option<Event> {
        let number = chunk.job.number;
        let mut attempt = 0;
        // Made of lines that were not taken.
        let mut instead: Option<Vec<Statement>> = None;
        loop {
            let mut pass = self.shared.gate.enter().await;
            if self.shared.halted() {
                return None;
            }
            let begun = Instant::now();
            let written = self.write(chunk, instead.as_deref(), attempt > 0, &mut pass).await;
            let whole = begun.elapsed();
            drop(pass);
            match written {
                Ok(rows) => {
                    let mut statements = instead.iter().flatten().chain(&chunk.statements);
                    if statements.any(|statement| statement.sql.len() as u64 >= 2 * LARGE)
                        && let Some(conn) = self.conn.take()
                    {
                        // Its buffers have grown to the size of the statement, and stay so.
                        let _ = tokio::time::timeout(Duration::from_secs(1), conn.disconnect()).await;
                    }
                    if let Some(rows) = rows.filter(|_| attempt == 0 && chunk.full) {
                        match self.shared.gate.width() {
                            Width::Narrow(_) if !self.shared.gate.has_rests() => self.shared.pace.learn_short(rows),
                            // With all rests: for so long a transaction is open. A stop takes them away.
                            Width::Narrow(_) => self.shared.pace.learn_rested(whole),
                            Width::Wide => self.shared.pace.learn(whole),
                        }
                    }
                    return Some(Event::Written { number, mark: chunk.mark.clone() });
                }
                Err(Unwritten::Fenced) => return Some(Event::Fenced),
                Err(Unwritten::NotLoaded) => {
                    chunk.job.as_statements.store(true, Ordering::Relaxed);
                    instead = Some(chunk.as_statements(self.shared.statements(&chunk.job.plan)));
                }
                Err(Unwritten::Failed(failure)) => {
                    attempt += 1;
                    // The transaction goes with the connection.
                    self.conn = None;
                    if !worth_another(&failure, attempt) {
                        return Some(Event::Refused { number, failure });
                    }
                    tracing::warn!(table = %chunk.job.plan.source, error = %failure, "a chunk is written again");
                    tokio::time::sleep(pause(attempt)).await;
                }
            }
        }
    }

    /// One transaction; with other statements instead of the chunk's lines. `again`: it was sent before, and its end is not
    /// known. Gives how long its rows took, without what each transaction takes.
    async fn write(
        &mut self,
        chunk: &Chunk,
        instead: Option<&[Statement]>,
        again: bool,
        pass: &mut Pass,
    ) -> Result<Option<Duration>, Unwritten> {
        let shared = Arc::clone(&self.shared);
        if self.conn.is_none() {
            self.conn = Some(shared.downstream.connect().await?);
        }
        let Some(conn) = self.conn.as_mut() else { return Ok(None) };
        let plan = &chunk.job.plan;
        let low = chunk.mark.low.as_deref().and_then(bound_of);
        let failed = |error: mysql_async::Error| {
            let doing = format!("write rows of {} to {}{}", plan.source, plan.target, behind(low.as_ref()));
            let failure = driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, &doing);
            match server_error_code(&error) {
                Some(LOOSE_AND_NOT) => failure.workaround(format!(
                    "Please run `ALTER TABLE {} ENGINE=InnoDB` downstream, then resume-task: with GTIDs it takes no rows of a \
                     table without transactions together with their mark.",
                    plan.target
                )),
                _ => failure,
            }
        };
        let tables = &shared.spec.tables;
        limited(conn.query_drop("BEGIN")).await.map_err(failed)?;
        limited(conn.query_drop(tables.move_slot(self.slot, shared.epoch))).await.map_err(failed)?;
        if conn.affected_rows() == 0 {
            return Err(Unwritten::Fenced);
        }
        if again {
            let mark = tables.select_chunk(chunk.job.number, chunk.mark.seq);
            let there: Option<u64> = limited(conn.query_first(mark)).await.map_err(failed)?;
            if there.is_some() {
                limited(conn.query_drop("ROLLBACK")).await.map_err(failed)?;
                return Ok(None);
            }
        }
        let (rows, mut affected) = (Instant::now(), 0);
        if instead.is_none() && !chunk.lines.is_empty() && !load(conn, chunk, &shared, pass).await.map_err(failed)? {
            limited(conn.query_drop("ROLLBACK")).await.map_err(failed)?;
            return Err(Unwritten::NotLoaded);
        }
        for statement in instead.unwrap_or(&chunk.statements) {
            if statement.sql.len() > shared.downstream.max_statement() {
                return Err(too_large(chunk, statement.sql.len(), shared.downstream.max_statement()).into());
            }
            if statement.relaxed {
                limited(conn.query_drop(shared.downstream.set_mode(true))).await.map_err(failed)?;
            }
            let begun = Instant::now();
            limited(conn.query_drop(&statement.sql[..])).await.map_err(failed)?;
            let took = begun.elapsed();
            affected += conn.affected_rows();
            if statement.relaxed {
                limited(conn.query_drop(shared.downstream.set_mode(false))).await.map_err(failed)?;
            }
            end_piece(&shared, pass, statement.sql.len(), took).await;
        }
        chunk.job.replaced.fetch_add(affected.saturating_sub(chunk.mark.rows), Ordering::Relaxed);
        let took = rows.elapsed();
        let mark = tables.write_chunks(chunk.job.number, [&chunk.mark]);
        limited(conn.query_drop(mark)).await.map_err(failed)?;
        limited(conn.query_drop("COMMIT")).await.map_err(failed)?;
        Ok(Some(took))
    }
}

/// Rests behind a piece, where others need room, and learns from how long it took.
async fn end_piece(shared: &Shared, pass: &mut Pass, bytes: usize, took: Duration) {
    if shared.gate.has_rests() {
        shared.pieces.bytes.took(bytes as u64, took);
        shared.gate.bill(shared.pieces.bytes.work());
        pass.breathe().await;
    }
}

/// Loads a chunk's lines. False where the server does not do that, or not with every value as it is.
async fn load(conn: &mut Conn, chunk: &Chunk, shared: &Shared, pass: &mut Pass) -> Result<bool, mysql_async::Error> {
    let plan = &chunk.job.plan;
    let statement = load::statement(plan);
    let mut cut = load::Cut::new(&chunk.lines, chunk.mark.rows);
    let mut replaced = 0;
    while let Some((lines, rows)) = cut.next(shared.bytes_at_once()) {
        let begun = Instant::now();
        match load::send(conn, &statement, &lines, rows).await {
            Ok(Some(others)) => replaced += others,
            Ok(None) => {
                tracing::info!(table = %plan.target, "rows are loaded with warnings, and are written as statements instead");
                return Ok(false);
            }
            Err(error) if server_error_code(&error).is_some() && !is_busy(&error) => {
                tracing::info!(table = %plan.target, %error, "rows are not loaded, but written as statements");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        end_piece(shared, pass, lines.iter().map(bytes::Bytes::len).sum(), begun.elapsed()).await;
    }
    chunk.job.replaced.fetch_add(replaced, Ordering::Relaxed);
    Ok(true)
}

/// Whether it is the moment that the server refuses, and not what it was sent.
fn is_busy(error: &mysql_async::Error) -> bool {
    is_passing(&driver_failure(error, Code::ExecuteFailed, Scope::Downstream, "load rows"))
}

fn too_large(chunk: &Chunk, size: usize, limit: usize) -> Failure {
    let message = format!(
        "a row of {} is {size} bytes as a statement, and the downstream takes {} (max_allowed_packet)",
        chunk.job.plan.source,
        limit + 1
    );
    Failure::new(Code::ExecuteFailed, message)
        .scope(Scope::Downstream)
        .workaround("Please raise max_allowed_packet downstream (SET GLOBAL, and its configuration), then resume-task.")
}
