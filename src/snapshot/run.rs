//! A copy from its claim to its end.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use uuid::Uuid;

use super::Stopping;
use super::engine::{Closed, Ended, Engine, Parts, stuck};
use super::job::{Job, gaps, joined};
use super::prepare::{Planned, Preparing, Seen, fits, planned_again};
use super::source::Source;
use super::spec::{CopyOutcome, CopyProgress, CopySpec, Phase, Replay};
use super::state::{
    self, CopyState, Step, StoredTable, TableEnd, TableState, claim, create, from_replay, load, store, stored, to_text,
};
use crate::downstream::{Downstream, DownstreamOptions, limited};
use crate::error::{Code, Failure};
use crate::meta::{ChunkMark, DmRow, MetaTables, SafeNote};
use crate::model::{Location, SourceTable};
use crate::mysql::Endpoint;
use crate::runtime::aside;

/// Rows that are deleted in one transaction, where a table is emptied.
const DELETED: u32 = 10_000;
/// Tables stored in one statement.
const STORED: usize = 500;
/// How often tables are made that appear meanwhile.
const ROUNDS: usize = 4;

/// Why a copy did not come to its end.
enum Stop {
    Fenced,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Copies what is not copied yet. Returns within 200 ms of `stopping`. `anew` voids what is there.
pub async fn copy(
    spec: CopySpec,
    anew: bool,
    mut stopping: Stopping,
    progress: watch::Sender<CopyProgress>,
) -> CopyOutcome {
    progress.send_modify(|progress| {
        progress.phase = Phase::Prepare;
        progress.activity = "connecting to the downstream".to_owned();
        progress.at_work.clear();
    });
    let ready = tokio::select! {
        biased;
        () = &mut stopping => return CopyOutcome::Stopped,
        begun = begin(&spec, anew, &progress) => match begun {
            Ok(Begun::Ready(ready)) => *ready,
            Ok(Begun::Over(replay)) => return CopyOutcome::Copied(*replay),
            Err(stop) => return stop.into(),
        },
    };
    let (engine, queue) = Engine::new(ready.parts);
    let Ok(running) = aside("copy", engine.run(queue, stopping)) else {
        return CopyOutcome::Failed(Failure::new(Code::NotSet, "start a thread for the copy"));
    };
    let closed = match running.await.unwrap_or_else(|_| Ended::Failed(stuck())) {
        Ended::All(closed) => closed,
        Ended::Stopped => return CopyOutcome::Stopped,
        Ended::Fenced => return CopyOutcome::Fenced,
        Ended::Failed(failure) => return CopyOutcome::Failed(failure),
    };
    match ready.hand_over.run(&closed).await {
        Ok(replay) => {
            progress.send_modify(|progress| progress.phase = Phase::Done);
            CopyOutcome::Copied(replay)
        }
        Err(stop) => stop.into(),
    }
}

impl From<Stop> for CopyOutcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fenced => CopyOutcome::Fenced,
            Stop::Failed(failure) => CopyOutcome::Failed(failure),
        }
    }
}

enum Begun {
    Ready(Box<Ready>),
    /// There is nothing to copy: that was done.
    Over(Box<Replay>),
}

struct Ready {
    parts: Parts,
    hand_over: HandOver,
}

/// Claims, and prepares or goes on.
async fn begin(spec: &CopySpec, anew: bool, progress: &watch::Sender<CopyProgress>) -> Result<Begun, Stop> {
    let downstream = Downstream::open(DownstreamOptions { endpoint: without_foreign_keys(&spec.downstream) }).await?;
    let mut conn = downstream.connect().await?;
    progress.send_modify(|progress| "taking the copy over downstream".clone_into(&mut progress.activity));
    let source = Source::new(&spec.source);
    create(&mut conn, &spec.tables).await?;
    let claimed = claim(&mut conn, &spec.tables, spec.options.writers.max(1)).await?;
    let epoch = claimed.epoch;
    if claimed.dm_row {
        // Between the look and the claim another worker came to the end.
        return match super::look(&mut conn, &spec.tables, spec.flavor).await? {
            super::Standing::Copied(Some(replay)) => Ok(Begun::Over(Box::new(replay))),
            _ => Err(Stop::Fenced),
        };
    }
    let mut book = Book { spec, conn: &mut conn, epoch };
    let kept = claimed.state.filter(|state| !anew && state.step != Step::Copied);
    let mut state = match kept {
        Some(state) => state,
        None => book.begin(&source).await?,
    };
    let from = state::location(&state.from, spec.flavor)?;
    progress.send_modify(|progress| progress.from = Some(from.clone()));
    spec.guide.begun(&from).await?;
    let preparing = Preparing { spec, source: &source, downstream: &downstream, progress };
    let (jobs, closed) = match state.step {
        Step::Copy => book.go_on(&preparing).await?,
        Step::Prepare | Step::Copied => book.prepare(&preparing, &source, &mut state).await?,
    };
    let structures_at = state::location(state.structures_at.as_ref().unwrap_or(&state.from), spec.flavor)?;
    let hand_over = HandOver {
        spec: spec.clone(),
        source: source.clone(),
        downstream: downstream.clone(),
        state,
        from,
        structures_at,
        epoch,
    };
    let progress = progress.clone();
    let loads = super::load::taken(&mut conn, downstream.dialect).await;
    let parts = Parts { spec: spec.clone(), source, downstream, epoch, conn, loads, progress, jobs, closed };
    Ok(Begun::Ready(Box::new(Ready { parts, hand_over })))
}

/// Tables to copy, with the marks that are stored, and those that have ended.
type ToDo = (Vec<(Job, Vec<ChunkMark>)>, Vec<Closed>);

/// A table's number, name and state.
type Numbered = (u32, SourceTable, TableState);

fn write_tables(tables: &MetaTables, all: &[Numbered]) -> Vec<String> {
    let write = |part: &[Numbered]| {
        tables.write_copy_tables(
            part.iter().map(|(number, name, state)| (*number, &*name.0.schema, &*name.0.table, to_text(state))),
        )
    };
    all.chunks(STORED).map(write).collect()
}

/// Stores what happens before rows are copied.
struct Book<'a> {
    spec: &'a CopySpec,
    conn: &'a mut Conn,
    epoch: u64,
}

impl Book<'_> {
    async fn store(&mut self, statements: &[String]) -> Result<(), Stop> {
        match store(self.conn, &self.spec.tables, self.epoch, statements).await? {
            true => Ok(()),
            false => Err(Stop::Fenced),
        }
    }

    /// Notes L0.
    async fn begin(&mut self, source: &Source) -> Result<CopyState, Stop> {
        let mut asking = source.connect().await?;
        let from = self.spec.guide.location(&mut asking).await?;
        sayable(&from)?;
        let token = Uuid::new_v4().to_string();
        let tables = &self.spec.tables;
        let mut statements: Vec<String> = tables.delete_copied().into();
        statements.extend(tables.write_witness(&token));
        let state = CopyState { token, step: Step::Prepare, from: stored(&from), structures_at: None, replay: None };
        statements.push(tables.write_copy(Some(self.epoch), &to_text(&state)));
        self.store(&statements).await?;
        Ok(state)
    }

    async fn prepare(
        &mut self,
        preparing: &Preparing<'_>,
        source: &Source,
        state: &mut CopyState,
    ) -> Result<ToDo, Stop> {
        let planned = self.look_and_make(preparing).await?;
        preparing.wait_for_prepared().await?;
        let mut asking = source.connect().await?;
        state.structures_at = Some(stored(&self.spec.guide.location(&mut asking).await?));
        state.step = Step::Copy;
        let open = planned.jobs.iter().map(|job| {
            let (rows, bytes) = (job.rows_estimated, job.bytes_estimated);
            let state = TableState { fingerprint: job.fingerprint, rows, bytes, end: TableEnd::Open };
            (job.number, job.plan.source.clone(), state)
        });
        let open: Vec<Numbered> = open.collect();
        let closed = (open.len()..).zip(&planned.stale).map(|(number, (wanted, fingerprint))| {
            let name = wanted.source.clone();
            tracing::warn!(table = %name, "its structure changed while both ends were looked at: it is read again");
            let end = TableEnd::Stale { why: "its structure changed while both ends were looked at".to_owned() };
            let state = TableState { fingerprint: *fingerprint, rows: wanted.rows, bytes: wanted.bytes, end };
            Closed { number: u32::try_from(number).unwrap_or(u32::MAX), name, state }
        });
        let closed: Vec<Closed> = closed.collect();
        let tables = &self.spec.tables;
        let mut statements: Vec<String> = tables.delete_copied().into();
        let stale = closed.iter().map(|table| (table.number, table.name.clone(), table.state.clone()));
        let all: Vec<Numbered> = open.into_iter().chain(stale).collect();
        statements.extend(write_tables(tables, &all));
        statements.push(tables.write_copy(Some(self.epoch), &to_text(state)));
        self.store(&statements).await?;
        Ok((planned.jobs.into_iter().map(|job| (job, Vec::new())).collect(), closed))
    }

    /// Makes tables until what was looked at is there. A source that changes all the time does not come to rest: what is
    /// still on its way then is stale.
    async fn look_and_make(&mut self, preparing: &Preparing<'_>) -> Result<Planned, Stop> {
        let stored = load(self.conn, &self.spec.tables).await?;
        let mut seen =
            Seen::stored(stored.into_iter().map(|table| (table.name, table.number, table.state.fingerprint)));
        let mut problems = preparing.check_source().await?;
        preparing.databases().await?;
        let mut look = preparing.look().await?;
        for round in 0..ROUNDS {
            seen.take(&look);
            let missing = look.missing();
            // What does not fit may just be changing: that shows at the next look.
            if missing.is_empty() && (round > 0 || fits(&look)) {
                break;
            }
            let new = seen.make(&missing);
            if !new.is_empty() {
                self.store(&write_tables(&self.spec.tables, &new)).await?;
            }
            let before = problems.len();
            preparing.make(&look, missing, &mut problems).await?;
            look = preparing.look().await?;
            if problems.len() > before {
                break;
            }
        }
        Ok(preparing.plan(&look, &seen, problems).await?)
    }

    /// Behind the marks.
    async fn go_on(&mut self, preparing: &Preparing<'_>) -> Result<ToDo, Stop> {
        let tables = load(self.conn, &self.spec.tables).await?;
        tell_standing(&tables, preparing.progress);
        let names: Vec<(SourceTable, TableState)> =
            tables.iter().map(|table| (table.name.clone(), table.state.clone())).collect();
        let plans = planned_again(preparing, &names).await?;
        let (mut jobs, mut closed) = (Vec::new(), Vec::new());
        for (table, plan) in tables.into_iter().zip(plans) {
            if table.state.end != TableEnd::Open {
                closed.push(Closed { number: table.number, name: table.name, state: table.state });
                continue;
            }
            match plan {
                Ok(job) => jobs.push(self.behind_marks(table, job).await?),
                Err(why) => closed.push(self.leave(table, why).await?),
            }
        }
        Ok((jobs, closed))
    }

    /// A table that is another one by now.
    async fn leave(&mut self, table: StoredTable, why: String) -> Result<Closed, Stop> {
        tracing::warn!(table = %table.name, why, "its structure changed while the copy stood still: it is read again");
        let state = TableState { end: TableEnd::Stale { why }, ..table.state };
        let name = &table.name.0;
        let row = (table.number, &*name.schema, &*name.table, to_text(&state));
        let tables = &self.spec.tables;
        self.store(&[tables.write_copy_tables([row]), tables.delete_chunks(table.number, None)]).await?;
        Ok(Closed { number: table.number, name: table.name, state })
    }

    async fn behind_marks(&mut self, table: StoredTable, mut job: Job) -> Result<(Job, Vec<ChunkMark>), Stop> {
        job.number = table.number;
        let tables = &self.spec.tables;
        if job.plan.key.is_none() {
            if !table.marks.is_empty() {
                self.empty(&job).await?;
            }
            return Ok((job, Vec::new()));
        }
        let marks = joined(&table.marks);
        job.gaps = gaps(&marks).ok_or_else(|| {
            Failure::new(Code::Checkpoint, format!("a mark of the copy of {} cannot be read", table.name))
                .workaround("Please start the task anew with --remove-meta.")
        })?;
        if !marks.is_empty() {
            let statements = [tables.delete_chunks(job.number, None), tables.write_chunks(job.number, &marks)];
            self.store(&statements).await?;
        }
        Ok((job, marks))
    }

    /// A table without a key is written whole or not at all: what a former start wrote goes.
    async fn empty(&mut self, job: &Job) -> Result<(), Stop> {
        let target = &job.plan.target;
        loop {
            self.store(&[format!("DELETE FROM {target} LIMIT {DELETED}")]).await?;
            let left: Option<mysql_async::Row> =
                limited(self.conn.query_first(format!("SELECT 1 FROM {target} LIMIT 1")))
                    .await
                    .map_err(|error| state::failed(&error))?;
            if left.is_none() {
                break;
            }
        }
        self.store(&[self.spec.tables.delete_chunks(job.number, None)]).await
    }
}

/// What a former start has done, shown while both ends are looked at again.
fn tell_standing(tables: &[StoredTable], progress: &watch::Sender<CopyProgress>) {
    let done = |table: &StoredTable| match &table.state.end {
        TableEnd::Done { rows, bytes, .. } => (*rows, *bytes),
        TableEnd::Open => table.marks.iter().fold((0, 0), |sum, mark| (sum.0 + mark.rows, sum.1 + mark.bytes)),
        TableEnd::Stale { .. } => (0, 0),
    };
    let (mut written, mut estimated) = ((0, 0), (0, 0));
    for table in tables {
        let (rows, bytes) = done(table);
        written = (written.0 + rows, written.1 + bytes);
        estimated = (estimated.0 + table.state.rows.max(rows), estimated.1 + table.state.bytes.max(bytes));
    }
    progress.send_modify(|progress| {
        progress.phase = Phase::Copy;
        progress.activity = "reading the structures of both ends again".to_owned();
        progress.tables_total = tables.len() as u64;
        progress.tables_done = tables.iter().filter(|table| table.state.end != TableEnd::Open).count() as u64;
        (progress.rows_written, progress.bytes_written) = written;
        (progress.rows_read, progress.bytes_read) = written;
        (progress.rows_estimated, progress.bytes_estimated) = estimated;
    });
}

/// Writes DM's row.
struct HandOver {
    spec: CopySpec,
    source: Source,
    downstream: Downstream,
    state: CopyState,
    from: Location,
    structures_at: Location,
    epoch: u64,
}

impl HandOver {
    async fn run(mut self, closed: &[Closed]) -> Result<Replay, Stop> {
        let mut asking = self.source.connect().await?;
        let until = self.spec.guide.location(&mut asking).await?;
        sayable(&until)?;
        let mut replay = Replay {
            from: self.from.clone(),
            structures_at: self.structures_at.clone(),
            until,
            starts: Vec::new(),
            stale: Vec::new(),
            ordered: Vec::new(),
            of_copy: true,
        };
        for table in closed {
            match &table.state.end {
                TableEnd::Done { start: Some(at), .. } => {
                    replay.starts.push((table.name.clone(), state::location(at, self.spec.flavor)?));
                }
                TableEnd::Stale { .. } => replay.stale.push(table.name.clone()),
                TableEnd::Done { start: None, .. } | TableEnd::Open => {}
            }
        }
        self.state.step = Step::Copied;
        self.state.replay = Some(from_replay(&replay));
        let tables = &self.spec.tables;
        let row = DmRow { location: stored(&replay.from), exit_safe: stored(&replay.until) };
        // The shadow that would make the row ours is left out: the next claim takes the row as another worker's, and begins
        // the lanes there.
        let [dm_row, _] = tables.write_dm_row(&row, SafeNote::None, 0);
        // Where DM's table has no transactions, the state is there first: without the row the copy is begun anew.
        let mut statements = vec![tables.write_copy(Some(self.epoch), &to_text(&self.state)), dm_row];
        statements.extend(tables.delete_copied());
        // The engine's went with its thread.
        let mut conn = self.downstream.connect().await?;
        match store(&mut conn, tables, self.epoch, &statements).await? {
            true => Ok(replay),
            false => Err(Stop::Fenced),
        }
    }
}

/// DM's row has no room for offsets beyond 4 GiB.
fn sayable(location: &Location) -> Result<(), Failure> {
    if DmRow::can_say(location) {
        return Ok(());
    }
    let text = format!(
        "the source's binlog ends at {}, and DM's checkpoint has no room for such an offset",
        location.position
    );
    Err(Failure::new(Code::BinlogPosition, text)
        .workaround("Please run FLUSH BINARY LOGS on the source, then resume-task."))
}

/// Rows are copied in no order that foreign keys know, and a row that is replaced must not take others with it.
pub(super) fn without_foreign_keys(endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    endpoint.session.retain(|name, _| !name.eq_ignore_ascii_case("foreign_key_checks"));
    endpoint
}
