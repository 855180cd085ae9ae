//! Readers: each takes one table at a time and goes up its key, chunk by chunk.
//!
//! A chunk is the answer to one short statement. A connection that is lost is made anew, and reading goes on behind the last
//! chunk that was handed over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, QueryResult, Row, TextProtocol};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::apart::let_go;
use super::chunk::{Builder, Chunk, bound_of_row};
use super::event::Event;
use super::job::{Gap, Job};
use super::keyless::Hold;
use super::load::Taken;
use super::patience::{pause, within, worth_another};
use super::plan::Bound;
use super::shared::Shared;
use super::source::query_failed;
use crate::error::{Code, Failure};
use crate::model::Location;

/// Memory for rows between readers and the downstream's COMMIT, in units of [`UNIT`] bytes.
pub(super) const BUDGET: usize = 48 << 10;
const UNIT: usize = 1 << 10;
/// Rows from this size on are read by one reader at a time.
pub(super) const LARGE: u64 = 1 << 20;
/// Rows from this size on are read one after the other: the next one when the one before is written. On its way a row is there
/// several times: as it is received, as a packet, as a value, as a line or statement.
const HUGE: u64 = 8 << 20;
/// How many rows show how large the rows of a table are: what the source estimates may be of a time when it was empty.
const FIRST: u64 = 100;
/// Tables that wait for a reader.
pub(super) type Queue = Mutex<VecDeque<Arc<Job>>>;

/// Why a reader left a table.
pub(super) enum Left {
    /// The writers or the engine are gone.
    Gone,
    /// The table was given up meanwhile.
    Dropped,
    /// The source refused, or is gone for longer.
    Failed(Failure),
}

impl From<Failure> for Left {
    fn from(failure: Failure) -> Self {
        Left::Failed(failure)
    }
}

pub(super) struct Reader {
    pub shared: Arc<Shared>,
    pub chunks: mpsc::Sender<Chunk>,
    pub conn: Option<Conn>,
}

impl Reader {
    /// Reads tables until there are none.
    pub async fn run(mut self, queue: Arc<Queue>) {
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = job else { return };
            if self.shared.halted() {
                return;
            }
            let read = self.read(&job).await;
            let event = match read {
                Ok((chunks, start)) => Event::Read { number: job.number, chunks, start },
                Err(Left::Dropped) => continue,
                Err(Left::Gone) => return,
                Err(Left::Failed(failure)) => Event::Refused { number: job.number, failure },
            };
            if self.shared.events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// All of a table that is not there yet: how many chunks that was, and the location where it was read as a whole.
    async fn read(&mut self, job: &Arc<Job>) -> Result<(u64, Option<Location>), Left> {
        let _ = self.shared.events.send(Event::Begun { number: job.number }).await;
        let mut sent = 0;
        if job.plan.key.is_none() {
            let hold = Hold::open(&self.shared.source, &self.shared.spec, &job.plan).await?;
            let start = hold.location.clone();
            self.read_whole(job, hold, &mut sent).await?;
            return Ok((sent, Some(start)));
        }
        for gap in &job.gaps {
            self.read_gap(job, gap, &mut sent).await?;
        }
        Ok((sent, None))
    }

    async fn read_gap(&mut self, job: &Arc<Job>, gap: &Gap, sent: &mut u64) -> Result<(), Left> {
        let mut cursor = Cursor::new(gap, job.row_estimated());
        let (mut attempt, mut reached) = (0, cursor.seq);
        loop {
            match self.read_part(job, gap, &mut cursor, sent).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Left::Failed(failure)) => {
                    self.conn = None;
                    attempt = if cursor.seq == reached { attempt + 1 } else { 1 };
                    reached = cursor.seq;
                    cursor.forget_part();
                    if !worth_another(&failure, attempt) {
                        return Err(Left::Failed(of_table(failure, job, cursor.at.as_ref())));
                    }
                    tracing::warn!(table = %job.plan.source, error = %failure, "reading is tried again");
                    tokio::time::sleep(pause(attempt)).await;
                }
                Err(left) => return Err(left),
            }
        }
    }

    /// Reads the next rows of a gap by one statement; true at its end. A chunk may be of many statements, and a statement's
    /// rows may go into many chunks.
    async fn read_part(
        &mut self,
        job: &Arc<Job>,
        gap: &Gap,
        cursor: &mut Cursor,
        sent: &mut u64,
    ) -> Result<bool, Left> {
        let shared = Arc::clone(&self.shared);
        let unknown = job.plan.huge && !cursor.seen;
        let large = job.plan.long && cursor.largest >= LARGE;
        let alone = if large || unknown { Some(acquire(&shared.large, 1).await?) } else { None };
        let mut limit = cursor.rows_left(&shared, job);
        limit = if unknown { limit.min(FIRST) } else { limit };
        let sql = job.plan.select_range(cursor.at.as_ref(), gap.high.as_ref(), limit);
        let chunks = self.chunks.clone();
        let what = format!("read rows of {}{}", job.plan.source, behind(cursor.at.as_ref()));
        let conn = self.connected().await?;
        let patience = job.plan.patience();
        let mut pass = Some(shared.gate.enter().await);
        let (begun, part) = (Instant::now(), cursor.seq);
        shared.source.count(1);
        let asked = within(patience, conn.query_iter(sql)).await;
        let mut result = asked.map_err(|error| query_failed(&error, &what))?;
        let mut count = 0;
        while let Some(row) = next(&mut result, patience, &what).await? {
            count += 1;
            let full = cursor.add(&shared, job, &row);
            if full || count == limit {
                cursor.at = Some(bound_of_row(&job.plan, &row));
            }
            let_go(row);
            if full {
                // Nobody waits inside the gate for others to pass it.
                drop(pass.take());
                hand_over(&shared, &chunks, cursor.chunk(&shared, job, cursor.at.clone(), true)).await?;
                *sent += 1;
                if cursor.largest >= HUGE {
                    all_written(&shared).await?;
                }
                if cursor.largest >= LARGE && job.plan.long && alone.is_none() {
                    // The rest of the answer is asked for again, when no other reader has rows of that size.
                    drop(result);
                    self.conn = None;
                    return Ok(false);
                }
                if count < limit {
                    pass = Some(shared.gate.enter().await);
                }
            }
        }
        drop(result);
        drop(pass);
        if alone.is_some() && cursor.largest >= LARGE {
            // Its buffers have grown to the size of such rows, and stay so.
            self.conn = None;
        }
        if count == limit {
            if cursor.seq == part && shared.gate.has_rests() {
                shared.pieces.rows.took(count, begun.elapsed());
            }
            return Ok(false);
        }
        // Behind its last row the gap is empty, and belongs to the last chunk.
        hand_over(&shared, &chunks, cursor.chunk(&shared, job, gap.high.clone(), false)).await?;
        *sent += 1;
        Ok(true)
    }

    /// Reads a table on the connection that holds it still. What fails here is begun anew by the next start.
    async fn read_whole(&mut self, job: &Arc<Job>, mut hold: Hold, sent: &mut u64) -> Result<(), Left> {
        let shared = Arc::clone(&self.shared);
        let doing = format!("read all rows of {}", job.plan.source);
        let large = job.plan.huge || (job.plan.long && job.row_estimated() >= LARGE);
        let mut alone = if large { Some(acquire(&shared.large, 1).await?) } else { None };
        let (mut count, mut largest) = (0, job.row_estimated());
        let mut builder = shared.builder(job);
        let mut seq = 1;
        let patience = job.plan.patience();
        // Who wants to write to a locked table waits until it is read.
        let _urgent = hold.is_locked().then(|| shared.gate.urgent());
        let mut pass = shared.gate.enter().await;
        let mut piece = 0;
        shared.source.count(1);
        let asked = within(patience, hold.conn.query_iter(job.plan.select_all())).await;
        let mut result = asked.map_err(|error| query_failed(&error, &doing))?;
        while let Some(row) = next(&mut result, patience, &doing).await? {
            let size = shared.add(&mut builder, job, &row);
            let_go(row);
            (count, largest) = (count + 1, largest.max(size));
            if count >= FIRST && largest < LARGE {
                alone = None;
            }
            if builder.bytes >= shared.pace.bytes() || builder.rows >= shared.pace.rows() {
                let chunk = builder.take(job, seq, None, None, true);
                drop(pass);
                hand_over(&shared, &self.chunks, chunk).await?;
                seq += 1;
                *sent += 1;
                if size >= HUGE {
                    all_written(&shared).await?;
                }
                pass = shared.gate.enter().await;
            }
            piece += 1;
            if shared.rows_at_once().is_some_and(|rows| piece >= rows) {
                piece = 0;
                pass.breathe().await;
            }
        }
        drop(result);
        drop((alone, pass));
        let chunk = builder.take(job, seq, None, None, false);
        hand_over(&shared, &self.chunks, chunk).await?;
        *sent += 1;
        hold.release().await;
        Ok(())
    }

    async fn connected(&mut self) -> Result<&mut Conn, Failure> {
        if self.conn.is_none() {
            self.conn = Some(self.shared.source.connect().await?);
        }
        // Just set.
        self.conn.as_mut().ok_or_else(|| Failure::new(Code::NotSet, "connect to the source"))
    }
}

/// Where a reader is in a gap.
struct Cursor {
    /// End of the last chunk.
    low: Option<Bound>,
    seq: u64,
    /// Rows of the next one, as many as it is to have, and the last of them.
    next: Option<(Builder, u64)>,
    at: Option<Bound>,
    /// Bytes of the largest row so far.
    largest: u64,
    /// A row was read, and not only estimated.
    seen: bool,
}

impl Cursor {
    /// At the beginning, with an estimate of a row.
    fn new(gap: &Gap, largest: u64) -> Self {
        Cursor { low: gap.low.clone(), seq: gap.seq, next: None, at: gap.low.clone(), largest, seen: false }
    }

    fn next(&mut self, shared: &Shared, job: &Job) -> &mut (Builder, u64) {
        self.next.get_or_insert_with(|| (shared.builder(job), shared.pace.rows()))
    }

    /// Rows to be asked for.
    fn rows_left(&mut self, shared: &Shared, job: &Job) -> u64 {
        let (builder, wanted) = self.next(shared, job);
        let left = wanted.saturating_sub(builder.rows).max(1);
        shared.rows_at_once().map_or(left, |rows| rows.min(left))
    }

    /// Adds a row to the chunk; true where that is full.
    fn add(&mut self, shared: &Shared, job: &Job, row: &Row) -> bool {
        let (builder, wanted) = self.next(shared, job);
        let size = shared.add(builder, job, row);
        let full = builder.bytes >= shared.pace.bytes() || builder.rows >= *wanted;
        (self.seen, self.largest) = (true, self.largest.max(size));
        full
    }

    /// The chunk of all rows since the last one, up to `high`.
    fn chunk(&mut self, shared: &Shared, job: &Arc<Job>, high: Option<Bound>, full: bool) -> Chunk {
        let (mut builder, _) = self.next.take().unwrap_or_else(|| (shared.builder(job), 0));
        let chunk = builder.take(job, self.seq, self.low.as_ref(), high.as_ref(), full);
        self.seq += 1;
        self.at.clone_from(&high);
        self.low = high;
        chunk
    }

    /// What was read of a chunk that is not whole is read again.
    fn forget_part(&mut self) {
        self.next = None;
        self.at.clone_from(&self.low);
    }
}

/// A connection that cannot be made again says nothing of what it was for.
fn of_table(mut failure: Failure, job: &Job, at: Option<&Bound>) -> Failure {
    if failure.known_code() == Some(Code::DriverError) {
        let doing = format!("read rows of {}{}", job.plan.source, behind(at));
        failure.message = format!("{doing}: {}", failure.message);
        failure.workaround = format!(
            "{} When the source can be reached again the copy goes on by itself, behind what is marked.",
            failure.workaround
        );
    }
    failure
}

/// For messages: which rows.
pub(super) fn behind(low: Option<&Bound>) -> String {
    low.map_or_else(|| " from the first on".to_owned(), |low| format!(" behind key ({})", shortened(&low.join(", "))))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

pub(super) async fn next(
    result: &mut QueryResult<'_, 'static, TextProtocol>,
    patience: Duration,
    doing: &str,
) -> Result<Option<Row>, Failure> {
    within(patience, result.next()).await.map_err(|error| query_failed(&error, doing))
}

async fn acquire(semaphore: &Arc<Semaphore>, units: u32) -> Result<OwnedSemaphorePermit, Left> {
    Arc::clone(semaphore).acquire_many_owned(units).await.map_err(|_| Left::Gone)
}

/// Waits until nothing is on its way.
async fn all_written(shared: &Shared) -> Result<(), Left> {
    acquire(&shared.budget, u32::try_from(BUDGET).unwrap_or(u32::MAX)).await.map(drop)
}

/// Waits until there is room for a chunk, in bytes, and hands it over.
async fn hand_over(shared: &Shared, chunks: &mpsc::Sender<Chunk>, mut chunk: Chunk) -> Result<(), Left> {
    if shared.halted() {
        return Err(Left::Gone);
    }
    if chunk.job.is_left() {
        return Err(Left::Dropped);
    }
    if !chunk.lines.is_empty() && shared.loads == Taken::InTurn && chunk.job.plan.counts {
        // Writers that waited for each other would have none left for other tables.
        chunk.turn = Some(acquire(&chunk.job.turns, 1).await?);
    }
    let units = chunk.memory().div_ceil(UNIT).clamp(1, BUDGET);
    chunk.permit = Some(acquire(&shared.budget, u32::try_from(units).unwrap_or(u32::MAX)).await?);
    chunks.send(chunk).await.map_err(|_| Left::Gone)
}
