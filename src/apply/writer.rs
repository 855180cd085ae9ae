//! One writer: one connection, one downstream transaction a group, with the positions of the lanes whose rows are in it.
//!
//! A killed writer leaves either nothing or everything of its share, and the stored positions tell which. A writer whose
//! connection breaks at COMMIT asks them before it sends anything again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::batch::{Batch, Sent};
use super::parts::{Shape, StatementInfo};
use super::statement::StatementCursor;
use crate::dispatch::{SafeMode, Share};
use crate::downstream::{Downstream, limited};
use crate::error::{Code, Failure, Retry, Scope, driver_failure, retry_of, server_number};
use crate::meta::{MetaTables, StoredMark};
use crate::schema::Dialect;

/// How long a writer keeps trying on its own before the task parks.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection is waited for that nobody needs yet.
const WARM_UP: Duration = Duration::from_secs(1);
/// A connection that was idle for longer shows first that it is still there.
const FRESH: Duration = Duration::from_secs(1);
/// A server, or something before it, that takes one statement at a time finds fault with the second one's text.
const SYNTAX: u16 = 1064;
/// Rows a statement at most: MariaDB makes a subquery of an IN list of 1,000 (`in_predicate_conversion_threshold`).
pub const STATEMENT_ROWS: usize = 999;
/// Bytes of SQL a statement.
const BYTES: usize = 512 << 10;

/// Why a writer gave up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApplyError {
    /// The downstream refused, or could not be reached for too long.
    #[error("{0}")]
    Failed(Failure),
    /// Another owner has raised the epoch: nothing more may be written.
    #[error("another agent has taken the task over (lane table epoch is not {0})")]
    Fenced(u64),
    /// A DDL statement that waited for a lock was interrupted, because the task is to stop. It has not run.
    #[error("interrupted, because the task is to stop")]
    Interrupted,
}

impl From<Failure> for ApplyError {
    fn from(failure: Failure) -> Self {
        ApplyError::Failed(failure)
    }
}

/// A share of a group, and what goes with it.
#[derive(Debug)]
pub struct Job {
    /// What to do; may be empty where only positions move.
    pub share: Share,
    /// The position of its lanes behind it.
    pub end: Arc<StoredMark>,
    /// GTIDs before the group, for messages.
    pub gtids: Arc<str>,
    /// Whose changes may be applied already.
    pub safe: SafeMode,
    /// Rows of one statement, [`STATEMENT_ROWS`] at most.
    pub statement_rows: usize,
}

/// What a writer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Rows sent.
    pub rows: u64,
    /// Statements that they were in.
    pub statements: u64,
    /// Bytes of SQL sent.
    pub bytes: u64,
    /// Updates and deletes that met no row.
    pub unmatched: u64,
}

/// A writer's answer to a job.
#[derive(Debug)]
pub struct JobDone {
    /// The writer.
    pub writer: usize,
    /// Committed, or why not.
    pub result: Result<WriterStats, ApplyError>,
}

/// One writer. It connects when it is first needed.
pub struct Writer {
    downstream: Downstream,
    /// Where its lanes' marks are kept; `None` where no mark can be kept with the rows.
    tables: Option<MetaTables>,
    number: usize,
    epoch: u64,
    conn: Option<Conn>,
    /// When the connection was used last.
    used: Instant,
    /// Statements that the server takes at a time.
    at_once: usize,
    /// Kept for their memory: a statement, and what is sent.
    buffers: [Vec<u8>; 2],
}

/// How an attempt ended that did not commit.
enum Broken {
    /// Nothing of it can have been committed.
    Before(ApplyError),
    /// The answer to COMMIT was lost.
    AtCommit(Failure),
}

impl Writer {
    /// A writer of the owner of `epoch`; the number is for messages.
    pub fn new(downstream: Downstream, tables: Option<MetaTables>, number: usize, epoch: u64) -> Self {
        // A TiDB may be told to take one at a time.
        let at_once = if downstream.dialect == Dialect::TiDb { 1 } else { usize::MAX };
        Writer {
            downstream,
            tables,
            number,
            epoch,
            conn: None,
            used: Instant::now(),
            at_once,
            buffers: Default::default(),
        }
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Connects before the first job comes. A connection that cannot be had now is made when it is needed.
    pub async fn warm_up(&mut self) {
        if let Ok(Ok(conn)) = tokio::time::timeout(WARM_UP, self.downstream.connect()).await {
            (self.conn, self.used) = (Some(conn), Instant::now());
        }
    }

    /// Commits a job, whatever it takes within [`RETRY_LIMIT`] of trouble.
    pub async fn apply(&mut self, job: &Job) -> Result<WriterStats, ApplyError> {
        let mut shape = self.shape(job.statement_rows, job.safe);
        let mut trouble: Option<Instant> = None;
        let mut pause = Duration::from_millis(20);
        loop {
            let broken = match self.attempt(job, shape).await {
                Ok(stats) => return Ok(stats),
                Err(broken) => broken,
            };
            let since = *trouble.get_or_insert_with(Instant::now);
            let failure = match broken {
                Broken::Before(ApplyError::Failed(failure)) => failure,
                Broken::Before(fenced) => return Err(fenced),
                Broken::AtCommit(failure) => {
                    self.conn = None;
                    if self.committed_after_all(job, since).await? {
                        return Ok(WriterStats::default());
                    }
                    failure
                }
            };
            let takes_one = self.at_once > 1 && server_number(&failure) == Some(SYNTAX);
            match retry_of(&failure) {
                _ if takes_one => self.at_once = 1,
                Retry::InPlace | Retry::Resume if is_connection(&failure) && since.elapsed() < RETRY_LIMIT => {
                    self.conn = None
                }
                Retry::InPlace if since.elapsed() < RETRY_LIMIT => {}
                _ => return Err(self.pinpoint(job, failure).await),
            }
            // What was sent of the job may be there: all of it where a COMMIT is in doubt and no mark tells.
            shape.safe = shape.safe.max(if self.tables.is_some() { SafeMode::Loose } else { SafeMode::All });
            if takes_one {
                continue;
            }
            tracing::warn!(writer = self.number, error = %failure.raw_cause, "writer retries");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn shape(&self, rows: usize, safe: SafeMode) -> Shape {
        let Downstream { takes_lists: lists, .. } = self.downstream;
        Shape { rows, bytes: BYTES, limit: self.downstream.max_statement(), safe, lists }
    }

    /// Begins a transaction. A connection that fails at that has most likely been idle for longer than the server keeps
    /// one (`wait_timeout`), and nothing was sent on it: a new one takes its place at once.
    async fn begin(&mut self) -> Result<(), ApplyError> {
        if let Some(mut conn) = self.conn.take()
            && limited(conn.query_drop("BEGIN")).await.is_ok()
        {
            self.conn = Some(conn);
            return Ok(());
        }
        execute(self.connection().await?, b"BEGIN", "begin a transaction").await?;
        Ok(())
    }

    async fn connection(&mut self) -> Result<&mut Conn, ApplyError> {
        if self.conn.is_none() {
            self.conn = Some(self.downstream.connect().await?);
        }
        // It was put there just now.
        self.conn.as_mut().ok_or_else(|| Failure::new(Code::DriverError, "no connection").into())
    }

    async fn attempt(&mut self, job: &Job, shape: Shape) -> Result<WriterStats, Broken> {
        match self.in_transaction(job, shape).await {
            Ok(stats) => self.commit().await.map(|()| stats),
            Err(error) => {
                self.roll_back().await;
                Err(Broken::Before(error))
            }
        }
    }

    async fn in_transaction(&mut self, job: &Job, shape: Shape) -> Result<WriterStats, ApplyError> {
        let mut stats = WriterStats::default();
        let [mut sql, buffer] = std::mem::take(&mut self.buffers);
        let lanes = &job.share.lanes;
        let mut batch = self.begun(buffer).await?;
        // A new connection may have another limit than the job began with.
        let shape = Shape { limit: self.downstream.max_statement(), ..shape };
        let mut cursor = StatementCursor::new(&job.share, shape);
        loop {
            let info = cursor
                .next(&mut sql)
                .map_err(|error| Failure::new(Code::ParseRelayLog, format!("read a row: {error}")))?;
            let Some(info) = info else { break };
            if sql.len() > shape.limit {
                return Err(too_large(sql.len(), shape.limit, &info, &job.gtids).into());
            }
            let relaxed = info.relaxed;
            let of = Sent::Rows(info);
            if relaxed || !batch.has_room(sql.len(), &of, shape.limit) {
                self.send(&mut batch, job, shape, &mut stats).await?;
            }
            if relaxed {
                self.set_mode(relaxed).await?;
            }
            batch.add(&mut sql, of);
            if relaxed {
                self.send(&mut batch, job, shape, &mut stats).await?;
                self.set_mode(false).await?;
            }
        }
        if let Some(tables) = &self.tables {
            let mut fence = tables.move_lanes(lanes, self.epoch, &job.end).into_bytes();
            if !batch.has_room(fence.len(), &Sent::Fence, shape.limit) {
                self.send(&mut batch, job, shape, &mut stats).await?;
            }
            batch.add(&mut fence, Sent::Fence);
        }
        let fenced = self.send(&mut batch, job, shape, &mut stats).await?;
        self.buffers = [sql, batch.into_buffer()].map(|mut buffer| {
            buffer.clear();
            buffer.shrink_to(2 * BYTES);
            buffer
        });
        // All of them, or another owner has changed what lanes there are.
        let matched = if self.tables.is_some() { fenced } else { Some(lanes.len() as u64) };
        if matched == Some(lanes.len() as u64) { Ok(stats) } else { Err(ApplyError::Fenced(self.epoch)) }
    }

    /// A transaction that has begun, or begins with what is sent first.
    async fn begun(&mut self, buffer: Vec<u8>) -> Result<Batch, ApplyError> {
        let mut batch = Batch::new(self.at_once, buffer);
        if self.conn.is_some() && self.used.elapsed() < FRESH && self.at_once > 1 {
            batch.add(&mut b"BEGIN".to_vec(), Sent::Begin);
        } else {
            self.begin().await?;
        }
        Ok(batch)
    }

    async fn set_mode(&mut self, relaxed: bool) -> Result<(), ApplyError> {
        let set = self.downstream.set_mode(relaxed);
        execute(self.connection().await?, set.as_bytes(), "set sql_mode").await?;
        Ok(())
    }

    /// Sends what was collected, and counts what it did. How many lanes moved, where the fence was among it.
    async fn send(
        &mut self,
        batch: &mut Batch,
        job: &Job,
        shape: Shape,
        stats: &mut WriterStats,
    ) -> Result<Option<u64>, ApplyError> {
        if batch.is_empty() {
            return Ok(None);
        }
        stats.bytes += batch.bytes() as u64;
        let sent = batch.send(self.connection().await?).await;
        self.used = Instant::now();
        let parts = sent.map_err(|(part, error)| match part {
            Sent::Rows(info) => statement_failure(&error, &info, &job.gtids),
            Sent::Begin => driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, "begin a transaction"),
            Sent::Fence => driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, "move the lanes' positions"),
        })?;
        let mut fenced = None;
        for (part, matched) in parts {
            match part {
                Sent::Begin => {}
                Sent::Fence => fenced = Some(matched),
                Sent::Rows(info) => {
                    stats.rows += info.rows;
                    stats.statements += 1;
                    // A replay deletes what may be gone already, and a filter may have left out what made a row.
                    if info.counts && !info.table.selective && !shape.safe.covers(&info.table) {
                        stats.unmatched += info.rows.saturating_sub(matched);
                    }
                }
            }
        }
        Ok(fenced)
    }

    async fn commit(&mut self) -> Result<(), Broken> {
        let Some(conn) = self.conn.as_mut() else { return Ok(()) };
        let doing = "commit";
        match limited(conn.query_drop("COMMIT")).await {
            Ok(()) => Ok(()),
            Err(error @ mysql_async::Error::Server(_)) => {
                let failure = driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, doing);
                // A server that answers COMMIT with an error may still have done it (a lost quorum): ask it.
                Err(Broken::AtCommit(failure))
            }
            Err(error) => Err(Broken::AtCommit(driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, doing))),
        }
    }

    /// A transaction that cannot be rolled back in a moment ends with its connection.
    async fn roll_back(&mut self) {
        if let Some(mut conn) = self.conn.take() {
            let rolled = tokio::time::timeout(Duration::from_secs(1), conn.query_drop("ROLLBACK")).await;
            if matches!(rolled, Ok(Ok(()))) {
                let normal = self.downstream.set_mode(false);
                if matches!(tokio::time::timeout(Duration::from_secs(1), conn.query_drop(normal)).await, Ok(Ok(()))) {
                    self.conn = Some(conn);
                }
            }
        }
    }

    /// Whether the stored position is the job's, once the server can be asked. The lanes of a job moved together: one of
    /// them tells. `false` also where no position is kept there.
    async fn committed_after_all(&mut self, job: &Job, since: Instant) -> Result<bool, ApplyError> {
        let lane = job.share.lanes.first().copied().unwrap_or_default();
        let Some(select) = self.tables.as_ref().map(|tables| tables.select_lane(lane)) else { return Ok(false) };
        loop {
            match self.stored(&select).await {
                Ok((epoch, _)) if epoch != self.epoch => return Err(ApplyError::Fenced(self.epoch)),
                Ok((_, mark)) => return Ok(mark == *job.end),
                Err(error) if since.elapsed() >= RETRY_LIMIT => return Err(error),
                Err(_) => {
                    self.conn = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn stored(&mut self, select: &str) -> Result<(u64, StoredMark), ApplyError> {
        let epoch = self.epoch;
        let conn = self.connection().await?;
        type Columns = (i32, u32, u64, String, u64, String, u64, String);
        let row: Option<Columns> = limited(conn.query_first(select))
            .await
            .map_err(|error| driver_failure(&error, Code::Checkpoint, Scope::Downstream, "read the lane's position"))?;
        let (_, _, stored, file, offset, gtids, ordinal, open) = row.ok_or(ApplyError::Fenced(epoch))?;
        Ok((stored, StoredMark { file, offset, gtids, ordinal, open }))
    }

    /// The failure again, of the one row that the downstream refuses: the work once more, row by row, never committed.
    async fn pinpoint(&mut self, job: &Job, failure: Failure) -> ApplyError {
        let shape = self.shape(1, job.safe);
        // What is sent of a table without transactions stays, and a second time it would tell something else.
        if retry_of(&failure) == Retry::InPlace || !job.share.loose.is_empty() {
            return failure.into();
        }
        let again = tokio::time::timeout(RETRY_LIMIT, self.in_transaction(job, shape)).await;
        self.roll_back().await;
        match again {
            Ok(Err(ApplyError::Failed(precise)))
                if precise.raw_cause == failure.raw_cause || precise.code == failure.code =>
            {
                precise.into()
            }
            _ => failure.into(),
        }
    }
}

fn is_connection(failure: &Failure) -> bool {
    matches!(failure.known_code(), Some(Code::DriverError | Code::BadConnection | Code::InvalidConnection))
}

async fn execute(conn: &mut Conn, sql: &[u8], doing: &str) -> Result<u64, Failure> {
    match limited(conn.query_drop(sql)).await {
        Ok(()) => Ok(conn.affected_rows()),
        Err(error) => Err(driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, doing)),
    }
}

/// One row that is longer as a statement than the server takes. It heals when the server is told to take more.
fn too_large(size: usize, limit: usize, info: &StatementInfo, gtids: &str) -> Failure {
    let limit = limit + 1;
    let message = format!(
        "a row of {} takes {size} bytes as a statement, and the downstream takes {limit} (max_allowed_packet)",
        info.table.target
    );
    let wanted = (size + 1).next_multiple_of(1 << 20);
    Failure::new(Code::ExecuteFailed, message).scope(Scope::Downstream).at(place(info, gtids)).workaround(format!(
        "Please run SET GLOBAL max_allowed_packet={wanted} downstream, or more (and set it in its configuration), then \
         resume-task."
    ))
}

/// In DM's words, with the place in the binlog.
fn place(info: &StatementInfo, gtids: &str) -> String {
    let at = |position| format!("[position: {position}, gtid-set: {gtids}]");
    format!("startLocation: {}, endLocation: {}", at(info.span.start()), at(info.span.end()))
}

fn statement_failure(error: &mysql_async::Error, info: &StatementInfo, gtids: &str) -> Failure {
    let place = place(info, gtids);
    let doing = format!("execute statement failed: {}", info.template());
    let failure = driver_failure(error, Code::ExecuteFailed, Scope::NotSet, &doing).at(place);
    match crate::error::server_error_code(error) {
        Some(code) => {
            let remedy = remedy(code);
            if remedy.is_empty() { failure } else { failure.workaround(remedy) }
        }
        None => failure,
    }
}

/// What an operator can do about the refusals that are met most.
fn remedy(code: u16) -> &'static str {
    match code {
        1062 => {
            "The downstream already has a row with this key. Remove it or make it equal to the source's, then resume-task."
        }
        1146 => "Create the table downstream, then resume-task.",
        1366 => {
            "The downstream column cannot hold the value: most often its character set has no such characters. Give it the \
             source's (ALTER TABLE … MODIFY … CHARACTER SET utf8mb4), then resume-task."
        }
        1264 | 1406 | 1265 => {
            "The downstream column is too narrow for the value. Widen it as it is on the source, then resume-task."
        }
        1364 | 1048 => {
            "The downstream column needs a value that the source does not send. Give it a default, then resume-task."
        }
        _ => "",
    }
}
