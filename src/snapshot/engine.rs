//! Runs readers and writers, and keeps the books: what is written, which tables are there whole, which are left as stale.
//!
//! Writers store their marks themselves. What is stored here, on a connection of its own and under the copy's own slot, only
//! makes the marks fewer: a table that is there whole, marks that touch. Killed in between, the next start finds the marks.

mod marks;
mod telling;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, watch};

use super::chunk::{Chunk, Pace};
use super::crew::Crew;
use super::event::Event;
use super::gate::Width;
use super::job::Job;
use super::load::Taken;
use super::patience::is_passing;
use super::piece::Pieces;
use super::reader::{BUDGET, Reader};
use super::remedy::with_remedy;
use super::room::Room;
use super::shared::Shared;
use super::source::{Source, is_of_another};
use super::spec::{CopyOptions, CopyProgress, CopySpec, Existing};
use super::state::{TableEnd, TableState, stored};
use super::writer::Writer;
use super::{Stopping, structure};
use crate::downstream::Downstream;
use crate::error::{Code, Failure};
use crate::meta::ChunkMark;
use crate::model::{Location, SourceTable};
use crate::runtime::{Owned, spawn};

/// How often progress is told, and what is due is stored.
const TICK: Duration = Duration::from_millis(100);
/// How long writers may finish what they are at when the copy is to stop; then their connections are dropped.
const GRACE: Duration = Duration::from_millis(90);
/// Tables that ended are stored together, this many at most.
const BATCH: usize = 100;
/// Marks of a table beyond which those that touch are joined.
const MARKS: usize = 256;
/// Ticks without anything to do after which a part that is gone is missed.
const STUCK: u32 = 20;
/// Chunks that may wait for a writer.
const WAITING: usize = 2;
/// What a row counts in bytes, where writers are compared.
const ROW: u64 = 100;
/// Events that may wait for the books.
const EVENTS: usize = 1024;

/// How the engine ended.
pub(super) enum Ended {
    All(Vec<Closed>),
    Stopped,
    Fenced,
    Failed(Failure),
}

/// A table that ended.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub number: u32,
    pub name: SourceTable,
    pub state: TableState,
}

/// A table at work.
struct Open {
    job: Arc<Job>,
    begun: bool,
    read: Option<(u64, Option<Location>)>,
    /// Chunks written since the start.
    written: u64,
    /// All marks that are stored, by number.
    marks: BTreeMap<u64, ChunkMark>,
    rows: u64,
    bytes: u64,
}

/// The books.
pub(super) struct Engine {
    shared: Arc<Shared>,
    /// For others on the source.
    room: Room,
    events: mpsc::Receiver<Event>,
    halt: watch::Sender<bool>,
    at_work: watch::Sender<usize>,
    crew: Crew,
    conn: Conn,
    /// For questions about structures; made when needed.
    asking: Option<Conn>,
    progress: watch::Sender<CopyProgress>,
    /// What was done when something last was, and when that was.
    moved: ((u64, u64), Instant),
    open: HashMap<u32, Open>,
    /// Ended and not stored.
    closing: Vec<Closed>,
    closed: Vec<Closed>,
}

/// What the engine is made of.
pub(super) struct Parts {
    pub spec: CopySpec,
    pub source: Source,
    pub downstream: Downstream,
    pub epoch: u64,
    pub conn: Conn,
    /// How it takes loads.
    pub loads: Taken,
    pub progress: watch::Sender<CopyProgress>,
    /// Tables to copy, with the marks that are stored.
    pub jobs: Vec<(Job, Vec<ChunkMark>)>,
    /// Tables that have ended before.
    pub closed: Vec<Closed>,
}

impl Engine {
    pub fn new(parts: Parts) -> (Self, Vec<Arc<Job>>) {
        let (sender, events) = mpsc::channel(EVENTS);
        let (halt, halted) = watch::channel(false);
        let crew = Crew::new(parts.spec.options.writers, 0);
        let (at_work, may_work) = watch::channel(crew.at_work());
        let options = &parts.spec.options;
        let room = Room::new(options);
        let shared = Arc::new(Shared {
            pace: Pace::new(options.chunk_rows, options.chunk_bytes),
            pieces: Pieces::new(),
            loads: if loads_suit(options) { parts.loads } else { Taken::Not },
            spec: parts.spec.clone(),
            source: parts.source,
            downstream: parts.downstream,
            epoch: parts.epoch,
            budget: Arc::new(Semaphore::new(BUDGET)),
            large: Arc::new(Semaphore::new(1)),
            events: sender,
            halt: halted,
            gate: Arc::clone(&room.gate),
            at_work: may_work,
            read_rows: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
        });
        let (mut open, mut queue) = (HashMap::new(), Vec::new());
        for (job, marks) in parts.jobs {
            let job = Arc::new(job);
            queue.push(Arc::clone(&job));
            let rows = marks.iter().map(|mark| mark.rows).sum();
            let bytes = marks.iter().map(|mark| mark.bytes).sum();
            let marks = marks.into_iter().map(|mark| (mark.seq, mark)).collect();
            open.insert(job.number, Open { job, begun: false, read: None, written: 0, marks, rows, bytes });
        }
        let engine = Engine {
            shared,
            room,
            events,
            halt,
            at_work,
            crew,
            conn: parts.conn,
            asking: None,
            progress: parts.progress,
            moved: ((0, 0), Instant::now()),
            open,
            closing: Vec::new(),
            closed: parts.closed,
        };
        (engine, queue)
    }

    /// Copies until all is there, or until it is to stop.
    pub async fn run(mut self, queue: Vec<Arc<Job>>, mut stopping: Stopping) -> Ended {
        self.begin();
        // They are looked for while there is more to do than that would take.
        if !self.open.is_empty() {
            self.room.watch_copy(&self.shared.source, &self.shared.spec.options);
        }
        let tasks = self.start(queue);
        let mut idle = 0;
        let mut tick = tokio::time::interval(TICK);
        let ended = loop {
            if self.open.is_empty() {
                match self.store_closed().await {
                    Ok(true) => break Ended::All(self.closed.clone()),
                    Ok(false) => break Ended::Fenced,
                    Err(failure) => break Ended::Failed(failure),
                }
            }
            let done = tokio::select! {
                biased;
                () = &mut stopping => break Ended::Stopped,
                _ = tick.tick() => {
                    idle = if tasks.may_be_stuck(&self.open) && self.events.is_empty() { idle + 1 } else { 0 };
                    if idle > STUCK { Err(stuck()) } else { self.tick().await }
                }
                event = self.events.recv() => match event {
                    Some(event) => self.take(event).await,
                    // We hold a sender ourselves.
                    None => break Ended::Stopped,
                },
            };
            match done {
                Ok(None) => {}
                Ok(Some(ended)) => break ended,
                Err(failure) => break Ended::Failed(failure),
            }
        };
        let _ = self.halt.send(true);
        self.shared.gate.set(Width::Wide);
        // Those that wait see that it is over.
        self.at_work.send_replace(usize::MAX);
        if matches!(ended, Ended::Stopped) {
            self.let_finish(tasks).await;
        }
        self.tell();
        ended
    }

    fn start(&self, queue: Vec<Arc<Job>>) -> Tasks {
        let options = &self.shared.spec.options;
        let readers = options.readers.max(1).min(queue.len());
        let queue = Arc::new(Mutex::new(VecDeque::from(queue)));
        // Readers are faster: what waits here a kill throws away.
        let (sender, chunks) = mpsc::channel::<Chunk>(WAITING);
        let chunks = Arc::new(AsyncMutex::new(chunks));
        let reader = |_| {
            let reader = Reader { shared: Arc::clone(&self.shared), chunks: sender.clone(), conn: None };
            spawn("snapshot reader", reader.run(Arc::clone(&queue)))
        };
        let writer = |slot| {
            let writer = Writer { shared: Arc::clone(&self.shared), slot, conn: None };
            spawn("snapshot writer", writer.run(Arc::clone(&chunks)))
        };
        let slots = i32::try_from(options.writers.max(1)).unwrap_or(i32::MAX);
        Tasks { readers: (0..readers).map(reader).collect(), writers: (0..slots).map(writer).collect() }
    }

    /// Writers end what they are at, for a moment; what they then have not ended the server undoes.
    async fn let_finish(&mut self, tasks: Tasks) {
        let Tasks { readers, writers } = tasks;
        drop(readers);
        let finish = async {
            for writer in writers {
                let _ = writer.await;
            }
        };
        let drain = async {
            while let Some(event) = self.events.recv().await {
                if let Event::Written { number, mark } = event
                    && let Some(open) = self.open.get_mut(&number)
                {
                    open.rows += mark.rows;
                    open.bytes += mark.bytes;
                }
            }
        };
        let _ = tokio::time::timeout(GRACE, async {
            tokio::select! {
                () = finish => {}
                () = drain => {}
            }
        })
        .await;
    }

    async fn take(&mut self, event: Event) -> Result<Option<Ended>, Failure> {
        match event {
            Event::Begun { number } => {
                if let Some(open) = self.open.get_mut(&number) {
                    open.begun = true;
                }
            }
            Event::Read { number, chunks, start } => {
                if let Some(open) = self.open.get_mut(&number) {
                    open.read = Some((chunks, start));
                    self.close_if_done(number);
                }
            }
            Event::Written { number, mark } => {
                if let Some(open) = self.open.get_mut(&number) {
                    open.written += 1;
                    open.rows += mark.rows;
                    open.bytes += mark.bytes;
                    open.job.written.store(open.rows, Ordering::Relaxed);
                    open.marks.insert(mark.seq, mark);
                    self.progress.send_modify(|progress| progress.chunks_written += 1);
                    self.close_if_done(number);
                }
            }
            Event::Refused { number, failure } => return self.refused(number, failure).await,
            Event::Fenced => return Ok(Some(Ended::Fenced)),
        }
        if self.closing.len() >= BATCH && !self.store_closed().await? {
            return Ok(Some(Ended::Fenced));
        }
        Ok(None)
    }

    fn close_if_done(&mut self, number: u32) {
        let done = |open: &Open| open.read.as_ref().is_some_and(|(chunks, _)| open.written == *chunks);
        if !self.open.get(&number).is_some_and(done) {
            return;
        }
        let Some(open) = self.open.remove(&number) else { return };
        self.tell_replaced(&open.job);
        let start = open.read.and_then(|(_, start)| start).as_ref().map(stored);
        self.close(&open.job, TableEnd::Done { rows: open.rows, bytes: open.bytes, start });
    }

    fn close(&mut self, job: &Job, end: TableEnd) {
        let state =
            TableState { fingerprint: job.fingerprint, rows: job.rows_estimated, bytes: job.bytes_estimated, end };
        self.closing.push(Closed { number: job.number, name: job.plan.source.clone(), state });
    }

    /// What a server refuses because the table is another one by now is left to the DDL statement that made it so.
    async fn refused(&mut self, number: u32, failure: Failure) -> Result<Option<Ended>, Failure> {
        let Some(open) = self.open.get(&number) else { return Ok(None) };
        let failure = with_remedy(failure, &open.job.plan);
        if is_passing(&failure) {
            return Ok(Some(Ended::Failed(failure)));
        }
        let job = Arc::clone(&open.job);
        let moved = is_of_another(&failure);
        let changed = self.changed(&job).await.map(|changed| {
            // It is as it was, but was another one or away when it was asked for. The statements that did that have it read
            // again, so that nothing is lost by leaving it now.
            changed.or_else(|| moved.then(|| "its structure or its name changed to and fro".to_owned()))
        });
        match changed {
            Ok(Some(why)) => {
                tracing::warn!(table = %job.plan.source, why, "its structure changed while it was copied: it is read again");
                job.left.store(true, Ordering::Relaxed);
                self.open.remove(&number);
                self.close(&job, TableEnd::Stale { why });
                Ok(None)
            }
            Ok(None) => Ok(Some(Ended::Failed(failure))),
            Err(other) => {
                tracing::warn!(error = %other, "the source does not tell the structure of a table");
                Ok(Some(Ended::Failed(failure)))
            }
        }
    }

    /// How the source's table differs from what it was when the copy began.
    async fn changed(&mut self, job: &Job) -> Result<Option<String>, Failure> {
        let mut conn = match self.asking.take() {
            Some(conn) => conn,
            None => self.shared.source.connect().await?,
        };
        let table = &job.plan.source;
        let read = structure::read(&mut conn, &table.0.schema, Some(&table.0.table)).await;
        let read =
            read.map_err(|error| super::source::query_failed(&error, &format!("read the structure of {table}")))?;
        self.asking = Some(conn);
        Ok(match read.get(&*table.0.table) {
            None => Some("it was dropped or renamed".to_owned()),
            Some(now) if now.fingerprint() != job.fingerprint => Some("its columns or its key changed".to_owned()),
            Some(_) => None,
        })
    }

    async fn tick(&mut self) -> Result<Option<Ended>, Failure> {
        self.tell();
        let (rows, bytes) = self.written();
        match self.shared.gate.width() {
            Width::Wide => self.crew.look(rows * ROW + bytes),
            Width::Narrow(_) => self.crew.pass_over(rows * ROW + bytes),
        }
        self.at_work.send_if_modified(|at_work| std::mem::replace(at_work, self.crew.at_work()) != self.crew.at_work());
        if !self.store_closed().await? || !self.join_marks().await? {
            return Ok(Some(Ended::Fenced));
        }
        Ok(None)
    }
}

/// Tasks of the engine; they end with it.
struct Tasks {
    readers: Vec<Owned<()>>,
    writers: Vec<Owned<()>>,
}

impl Tasks {
    /// Whether a task is gone whose work is not done: that must not become a wait without an end.
    fn may_be_stuck(&self, open: &HashMap<u32, Open>) -> bool {
        let unread = open.values().any(|open| open.read.is_none());
        self.writers.iter().any(Owned::is_finished) || (unread && self.readers.iter().all(Owned::is_finished))
    }
}

/// A load has no statements whose size could be given, and can leave rows that are there only by hiding other errors.
fn loads_suit(options: &CopyOptions) -> bool {
    options.statement_bytes.is_none() && options.existing != Existing::Keep
}

pub(super) fn stuck() -> Failure {
    Failure::new(Code::NotSet, "a part of the copy ended before its work was done; the log says why")
        .workaround("Please resume-task: the copy goes on behind its marks.")
}
