//! One table read again while nothing else writes to it: after a DDL statement in the window of the replay, or to repair it.
//!
//! A table with a key goes range by range; each range is deleted and written in one transaction, so that whoever reads it
//! downstream sees the table as it was or as it is. One without a key is emptied first. Killed in between, the table is
//! partly old: the caller's own position still stands before it, and reading goes on. With each range's transaction it is
//! marked how far that is; the mark counts as long as everything else stands where it stood and neither structure changed:
//! then whatever was changed behind a read is still to be replayed. A table without a key is read from its beginning.

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::sync::watch;

use super::Stopping;
use super::chunk::{Builder, Pace, Statement, bound_of_row};
use super::job::Job;
use super::keyless::Hold;
use super::leftover::{DELETED, has_other_sources, is_shared, target_failed};
use super::look::Wanted;
use super::make::Maker;
use super::patience::{pause, within, worth_another};
use super::plan::{Bound, TablePlan, bound_of, bound_text};
use super::problems::Problems;
use super::reader::{behind, next};
use super::remedy::with_remedy;
use super::run::without_foreign_keys;
use super::source::{Source, answered, is_of_another, query_failed};
use super::spec::{CopyProgress, CopySpec, Existing, Phase, Reread, Rereading, TableProgress};
use super::structure::{self, Structure};
use super::visible::wait_until_visible;
use crate::downstream::{Downstream, DownstreamOptions, limited};
use crate::error::{Code, Failure, Retry, retry_of, server_error_code};
use crate::meta::{AGAIN, ChunkMark};
use crate::model::{Location, SourceTable, TargetTable};

/// Makes one table's rows those of the source, while nothing else writes to it.
pub async fn read_again(
    spec: &CopySpec,
    table: &SourceTable,
    how: &Rereading,
    mut stopping: Stopping,
    progress: watch::Sender<CopyProgress>,
) -> Result<Reread, Failure> {
    tokio::select! {
        biased;
        () = &mut stopping => Ok(Reread::Stopped),
        done = read_table(spec, table, how, &progress) => match done {
            Ok(reread) => Ok(reread),
            Err(End::Fenced) => Ok(Reread::Fenced),
            Err(End::Differs(why)) => Ok(Reread::Differs(why)),
            Err(End::Failed(failure)) => Err(failure),
        },
    }
}

enum End {
    Fenced,
    Differs(String),
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        End::Failed(failure)
    }
}

/// What a table looks like on either side; `None` where it is not there.
pub(super) async fn structures(
    (from, table): (&mut Conn, &SourceTable),
    (to, target): (&mut Conn, &TargetTable),
) -> Result<(Option<Structure>, Option<Structure>), Failure> {
    let here = structure::read(from, &table.0.schema, Some(&table.0.table)).await;
    let here = here.map_err(|error| query_failed(&error, &format!("read the structure of {table}")))?;
    let there = structure::read(to, &target.0.schema, Some(&target.0.table)).await;
    let there = there.map_err(|error| target_failed(&error, &format!("read the structure of {target}")))?;
    Ok((here.into_values().next(), there.into_values().next()))
}

async fn read_table(
    spec: &CopySpec,
    table: &SourceTable,
    how: &Rereading,
    progress: &watch::Sender<CopyProgress>,
) -> Result<Reread, End> {
    let source = Source::new(&spec.source);
    let downstream = Downstream::open(DownstreamOptions { endpoint: without_foreign_keys(&spec.downstream) }).await?;
    let (mut from, mut to) = (source.connect().await?, downstream.connect().await?);
    let Some(target) = spec.guide.target(table)? else {
        return Err(End::Differs("the task does not want it".to_owned()));
    };
    let mut both = structures((&mut from, table), (&mut to, &target)).await?;
    let makes = how.makes && matches!(both, (Some(_), None));
    if makes {
        make(spec, &downstream, table, &target, progress).await?;
        both = structures((&mut from, table), (&mut to, &target)).await?;
    }
    let (here, there) = match both {
        (Some(here), Some(there)) => (here, there),
        (None, None) => return Ok(Reread::Nowhere),
        (None, Some(_)) => return Err(End::Differs("the source has no such table now".to_owned())),
        (Some(_), None) => return Err(End::Differs(format!("{target} is not there"))),
    };
    let mut plan = TablePlan::new(table.clone(), target, &here, &there)
        .map_err(|missing| End::Differs(format!("the downstream lacks columns: {}", missing.join(", "))))?;
    plan.shared = is_shared(spec, &mut from, &plan.source, &plan.target).await?
        || (how.spares_others && has_other_sources(spec, &mut to).await?);
    let (transactional, rows_estimated, bytes_estimated) = facts(&mut from, table).await?;
    plan.transactional = transactional;
    plan.condition.clone_from(&spec.options.condition);
    if plan.key.is_none() && plan.shared {
        let text = format!("{} has no key and shares {}: its rows cannot be told from the others'", table, plan.target);
        return Err(Failure::new(Code::NotSet, text)
            .workaround("Please give both a primary key, or repair the table by hand.")
            .into());
    }
    let job = Job::new(0, plan, (rows_estimated, bytes_estimated), here.fingerprint());
    let fence = how.fence.as_deref();
    let mark = how.place.as_ref().map(|place| {
        let name = &table.0;
        serde_json::json!([place, name.schema, name.table, here.fingerprint(), there.fingerprint()]).to_string()
    });
    let mut again =
        Again { spec, source, downstream, fence, mark, progress, job: Arc::new(job), to: Some(to), rows: 0 };
    again.tell();
    let exact = again.job.plan.key.is_none();
    if !exact {
        wait_until_visible(spec, &again.source, how.behind.as_ref(), progress).await?;
    }
    let done = if exact { again.whole().await } else { again.by_ranges(from).await };
    progress.send_modify(|progress| progress.at_work.clear());
    Ok(Reread::Done { at: done?, exact, made: makes, rows: again.rows })
}

struct Again<'a> {
    spec: &'a CopySpec,
    source: Source,
    downstream: Downstream,
    fence: Option<&'a str>,
    /// What marks are of.
    mark: Option<String>,
    progress: &'a watch::Sender<CopyProgress>,
    job: Arc<Job>,
    to: Option<Conn>,
    rows: u64,
}

impl Again<'_> {
    fn tell(&self) {
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Copy;
            let table = self.job.plan.source.clone();
            progress.at_work =
                vec![TableProgress { table, rows: self.rows, estimate: self.job.rows_estimated.max(self.rows) }];
        });
    }

    fn builder(&self) -> Builder {
        let wanted = self.spec.options.statement_bytes;
        Builder::new(self.job.plan.insert(Existing::Replace), wanted, self.downstream.max_statement())
    }

    async fn by_ranges(&mut self, mut from: Conn) -> Result<Location, End> {
        let job = Arc::clone(&self.job);
        let pace = Pace::new(self.spec.options.chunk_rows, self.spec.options.chunk_bytes);
        // Ranges of the source are not ranges here; or rows of other tables are among ours, which then stay, as do those that
        // the source deleted: what deleted them is in the binlog.
        let deletes = job.plan.sorts_alike && !job.plan.shared && job.plan.condition.is_none();
        let mut low = self.marked().await?;
        if low.is_none() && !deletes && !job.plan.shared {
            self.empty().await?;
        }
        loop {
            let sql = job.plan.select_range(low.as_ref(), None, pace.rows());
            let doing = format!("read rows of {}{}", job.plan.source, behind(low.as_ref()));
            let mut builder = self.builder();
            let (mut last, mut count) = (None, 0);
            {
                let patience = job.plan.patience();
                let asked = within(patience, from.query_iter(sql)).await;
                let mut result = asked.map_err(|error| source_end(query_failed(&error, &doing)))?;
                while let Some(row) = next(&mut result, patience, &doing).await.map_err(source_end)? {
                    count += 1;
                    builder.add(&job.plan, &row);
                    last = Some(bound_of_row(&job.plan, &row));
                    if builder.bytes >= pace.bytes() {
                        break;
                    }
                }
                // What is left of the answer is thrown away here; the next statement asks for it again.
                result.drop_result().await.map_err(|error| source_end(query_failed(&error, &doing)))?;
            }
            let more = count == pace.rows() || builder.bytes >= pace.bytes();
            let high = last.filter(|_| more);
            let chunk = builder.take(&job, 0, low.as_ref(), high.as_ref(), more);
            let delete = deletes.then(|| job.plan.delete_range(low.as_ref(), high.as_ref()));
            let mark = high.as_ref().and_then(|high| self.mark_at(high, chunk.mark.rows));
            let begun = std::time::Instant::now();
            self.write(delete, &chunk.statements, mark, low.as_ref()).await?;
            pace.learn(begun.elapsed());
            self.rows += chunk.mark.rows;
            self.tell();
            if high.is_none() {
                break;
            }
            low = high;
        }
        Ok(self.spec.guide.location(&mut from).await?)
    }

    /// How far an interrupted reading came.
    async fn marked(&mut self) -> Result<Option<Bound>, End> {
        let (Some(mark), Some(to)) = (&self.mark, self.to.as_mut()) else { return Ok(None) };
        let select = self.spec.tables.select_again();
        let found: Option<(String, String, u64)> = match limited(to.query_first(select)).await {
            Ok(found) => found,
            // Without room for marks there are none.
            Err(error) if server_error_code(&error).is_some() => {
                self.mark = None;
                return Ok(None);
            }
            Err(error) => return Err(target_failed(&error, "read how far a table was read again").into()),
        };
        let Some((_, high, rows)) = found.filter(|(of, _, _)| of == mark) else { return Ok(None) };
        let Some(bound) = bound_of(&high) else { return Ok(None) };
        tracing::info!(table = %self.job.plan.source, rows, "reading it again goes on");
        self.rows = rows;
        self.tell();
        Ok(Some(bound))
    }

    /// Says that everything up to `high` is there, with the last `rows`.
    fn mark_at(&self, high: &Bound, rows: u64) -> Option<String> {
        let low = Some(self.mark.clone()?);
        let mark = ChunkMark { seq: 0, low, high: Some(bound_text(high)), rows: self.rows + rows, bytes: 0 };
        Some(self.spec.tables.write_chunks(AGAIN, [&mark]))
    }

    async fn whole(&mut self) -> Result<Location, End> {
        let job = Arc::clone(&self.job);
        let pace = Pace::new(self.spec.options.chunk_rows, self.spec.options.chunk_bytes);
        let mut hold = Hold::open(&self.source, self.spec, &job.plan).await.map_err(source_end)?;
        let at = hold.location.clone();
        self.empty().await?;
        let doing = format!("read all rows of {}", job.plan.source);
        let mut builder = self.builder();
        {
            let patience = job.plan.patience();
            let asked = within(patience, hold.conn.query_iter(job.plan.select_all())).await;
            let mut result = asked.map_err(|error| source_end(query_failed(&error, &doing)))?;
            while let Some(row) = next(&mut result, patience, &doing).await.map_err(source_end)? {
                builder.add(&job.plan, &row);
                if builder.bytes >= pace.bytes() || builder.rows >= pace.rows() {
                    let chunk = builder.take(&job, 0, None, None, true);
                    self.write_once(None, &chunk.statements, None, None).await?;
                    self.rows += chunk.mark.rows;
                    self.tell();
                }
            }
        }
        let chunk = builder.take(&job, 0, None, None, false);
        self.write_once(None, &chunk.statements, None, None).await?;
        self.rows += chunk.mark.rows;
        hold.release().await;
        Ok(at)
    }

    async fn empty(&mut self) -> Result<(), End> {
        let target = self.job.plan.target.clone();
        loop {
            self.write(Some(format!("DELETE FROM {target} LIMIT {DELETED}")), &[], None, None).await?;
            let Some(to) = self.to.as_mut() else { continue };
            let doing = format!("empty {target}");
            let left: Option<Row> = limited(to.query_first(format!("SELECT 1 FROM {target} LIMIT 1")))
                .await
                .map_err(|error| target_failed(&error, &doing))?;
            if left.is_none() {
                return Ok(());
            }
        }
    }

    /// One transaction, again where the downstream was busy or gone: it makes a range what it is to be, however often.
    async fn write(
        &mut self,
        delete: Option<String>,
        statements: &[Statement],
        mark: Option<String>,
        low: Option<&Bound>,
    ) -> Result<(), End> {
        let mut attempt = 0;
        loop {
            match self.write_once(delete.as_deref(), statements, mark.as_deref(), low).await {
                Err(End::Failed(failure)) => {
                    attempt += 1;
                    self.to = None;
                    if !worth_another(&failure, attempt) {
                        return Err(End::Failed(failure));
                    }
                    tokio::time::sleep(pause(attempt)).await;
                }
                done => return done,
            }
        }
    }

    async fn write_once(
        &mut self,
        delete: Option<&str>,
        statements: &[Statement],
        mark: Option<&str>,
        low: Option<&Bound>,
    ) -> Result<(), End> {
        if self.to.is_none() {
            self.to = Some(self.downstream.connect().await?);
        }
        let Some(conn) = self.to.as_mut() else { return Ok(()) };
        let plan = &self.job.plan;
        let doing = format!("write rows of {} to {}{}", plan.source, plan.target, behind(low));
        let refused = |error: mysql_async::Error| {
            let failure = with_remedy(target_failed(&error, &doing), plan);
            // What does not fit into its columns may fit after a statement that is on its way.
            match (&error, retry_of(&failure)) {
                (mysql_async::Error::Server(_), Retry::Never) => End::Differs(failure.raw_cause),
                _ => End::Failed(failure),
            }
        };
        limited(conn.query_drop("BEGIN")).await.map_err(refused)?;
        if let Some(fence) = self.fence {
            limited(conn.query_drop(fence)).await.map_err(refused)?;
            if conn.affected_rows() == 0 {
                return Err(End::Fenced);
            }
        }
        if let Some(delete) = delete {
            limited(conn.query_drop(delete)).await.map_err(refused)?;
        }
        for statement in statements {
            if statement.relaxed {
                limited(conn.query_drop(self.downstream.set_mode(true))).await.map_err(refused)?;
            }
            limited(conn.query_drop(&statement.sql[..])).await.map_err(refused)?;
            if statement.relaxed {
                limited(conn.query_drop(self.downstream.set_mode(false))).await.map_err(refused)?;
            }
        }
        if let Some(mark) = mark {
            limited(conn.query_drop(mark)).await.map_err(refused)?;
        }
        limited(conn.query_drop("COMMIT")).await.map_err(refused)?;
        Ok(())
    }
}

/// A table that is another one while it is read: a DDL statement is on its way.
fn source_end(failure: Failure) -> End {
    if is_of_another(&failure) {
        return End::Differs(format!("it changed while it was read: {}", failure.raw_cause));
    }
    End::Failed(failure)
}

/// Makes the target of one table, as the source prints it.
async fn make(
    spec: &CopySpec,
    downstream: &Downstream,
    table: &SourceTable,
    target: &TargetTable,
    progress: &watch::Sender<CopyProgress>,
) -> Result<(), Failure> {
    let (mut from, mut to) = (Source::new(&spec.source).connect().await?, downstream.connect().await?);
    let (source, target) = (table.clone(), target.clone());
    let wanted = [Wanted { source, target, view: false, transactional: true, rows: 0, bytes: 0 }];
    let maker = Maker { spec, downstream, progress };
    let mut problems = Problems::default();
    maker.schemas(&mut from, &mut to, &wanted).await?;
    maker.table(&mut from, &mut to, &wanted[0], &mut problems).await?;
    problems.failure("a table cannot be read again", "resume-task").map_or(Ok(()), Err)
}

/// Whether a table's engine has transactions, and the source's estimates of its rows and bytes.
async fn facts(conn: &mut Conn, table: &SourceTable) -> Result<(bool, u64, u64), Failure> {
    let sql = format!(
        "SELECT COALESCE(e.transactions,'NO'), COALESCE(t.table_rows,0), COALESCE(t.data_length,0) FROM \
         information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine=t.engine WHERE t.table_schema={} \
         AND t.table_name={}",
        crate::mysql::quote(&table.0.schema),
        crate::mysql::quote(&table.0.table)
    );
    let answer: Option<(String, u64, u64)> =
        answered(conn.query_first(sql.as_str())).await.map_err(|error| query_failed(&error, &sql))?;
    let (transactions, rows, bytes) = answer.unwrap_or_default();
    Ok((transactions == "YES", rows, bytes))
}
