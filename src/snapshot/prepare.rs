//! From nothing to tables that can be copied: structures read, tables made downstream, everything that would fail later
//! named at once.
//!
//! Nothing is stored before all of it is done; what was made downstream is there at the next start, and is taken as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::sync::watch;

use super::job::{Job, gaps};
use super::make::Maker;
use super::plan::{TablePlan, narrower_keys};
use super::problems::Problems;
use super::source::{Source, answered, query_failed};
use super::spec::{CopyProgress, CopySpec, Existing};
use super::state::{TableEnd, TableState};
use super::structure::{self, Structure, text};
use crate::downstream::{Downstream, limited};
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::model::{Flavor, SourceTable, TableName, TargetTable};
use crate::runtime::spawn;

/// Tables looked at or made at the same time.
const AT_A_TIME: usize = 8;
/// Notes that are kept; the log has all.
const NOTES: usize = 50;
/// Schemas that are the servers' own.
const SYSTEM: &str = "'mysql','information_schema','performance_schema','sys'";

/// A table that the task wants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub source: SourceTable,
    pub target: TargetTable,
    pub view: bool,
    pub transactional: bool,
    /// The source's estimates.
    pub rows: u64,
    pub bytes: u64,
}

/// What both sides look like: structures by schema and table.
pub(super) type Landscape = HashMap<String, HashMap<String, Structure>>;

/// Works on both ends at once.
pub(super) struct Preparing<'a> {
    pub spec: &'a CopySpec,
    pub source: &'a Source,
    pub downstream: &'a Downstream,
    pub progress: &'a watch::Sender<CopyProgress>,
}

impl Preparing<'_> {
    /// All tables to copy, planned; made downstream where they were not there.
    pub async fn tables(&self) -> Result<Vec<Job>, Failure> {
        let mut problems = Problems::default();
        let mut source = self.source.connect().await?;
        let mut target = self.downstream.connect().await?;
        self.say("reading the source's tables");
        self.check_source(&mut source, &mut problems).await?;
        let wanted = self.wanted(&mut source).await?;
        let here = structures(&mut source, &wanted, |wanted| &wanted.source.0).await.map_err(of_source)?;
        let before = structures(&mut target, &wanted, |wanted| &wanted.target.0).await.map_err(of_target)?;
        self.say("creating tables downstream");
        let maker = Maker { spec: self.spec, downstream: self.downstream, progress: self.progress };
        maker.schemas(&mut source, &mut target, &wanted).await?;
        let missing: Vec<Wanted> = wanted.iter().filter(|wanted| !has(&before, &wanted.target.0)).cloned().collect();
        let (tables, views): (Vec<Wanted>, Vec<Wanted>) = missing.into_iter().partition(|wanted| !wanted.view);
        self.make(unique_targets(tables), &mut problems).await?;
        maker.views(&mut source, &mut target, views, &mut problems).await?;
        let there = structures(&mut target, &wanted, |wanted| &wanted.target.0).await.map_err(of_target)?;
        let jobs = self.planned(&wanted, &here, &there, &mut problems);
        let loose = loose_tables(&mut target).await.map_err(of_target)?;
        self.check_engines(&jobs, &loose, &mut problems);
        self.say("checking rights and tables");
        self.check_tables(&jobs, &mut problems).await?;
        problems.failure().map_or(Ok(jobs), Err)
    }

    fn say(&self, activity: &str) {
        self.progress.send_modify(|progress| progress.activity = activity.to_owned());
    }

    fn note(&self, note: String) {
        tracing::warn!("{note}");
        self.progress.send_modify(|progress| {
            if !progress.notes.contains(&note) && progress.notes.len() < NOTES {
                progress.notes.push(note);
            }
        });
    }

    async fn check_source(&self, conn: &mut Conn, problems: &mut Problems) -> Result<(), Failure> {
        const IMAGE: &str = "SELECT @@GLOBAL.binlog_row_image";
        let image: Option<String> =
            answered(conn.query_first(IMAGE)).await.map_err(|error| query_failed(&error, IMAGE))?;
        let image = image.unwrap_or_default().to_uppercase();
        if image.starts_with("MINIMAL") || image.starts_with("NOBLOB") {
            problems.add(
                Scope::Upstream,
                format!(
                    "binlog_row_image of the source is {image}: what changes while rows are copied is replaced whole"
                ),
                "run `SET GLOBAL binlog_row_image = 'FULL'` on the source and reconnect its clients".to_owned(),
            );
        }
        Ok(())
    }

    /// What the source has and the task wants.
    async fn wanted(&self, conn: &mut Conn) -> Result<Vec<Wanted>, Failure> {
        let sql = format!(
            "SELECT t.table_schema, t.table_name, t.table_type, COALESCE(e.transactions,'NO'), COALESCE(t.table_rows,0), \
             COALESCE(t.data_length,0) FROM information_schema.tables t LEFT JOIN information_schema.engines e ON \
             e.engine=t.engine WHERE t.table_schema NOT IN ({SYSTEM}) ORDER BY t.table_schema, t.table_name"
        );
        let rows: Vec<Row> = answered(conn.query(sql.as_str())).await.map_err(|error| query_failed(&error, &sql))?;
        let mut wanted = Vec::new();
        for row in &rows {
            let column = |at| text(row, at).unwrap_or_default();
            let view = column(2) == "VIEW";
            if !(view && self.spec.options.views || column(2) == "BASE TABLE") {
                continue;
            }
            let source = SourceTable(TableName::new(column(0), column(1)));
            let Some(target) = self.spec.guide.target(&source)? else { continue };
            wanted.push(Wanted {
                source,
                target,
                view,
                transactional: column(3) == "YES",
                rows: column(4).parse().unwrap_or_default(),
                bytes: column(5).parse().unwrap_or_default(),
            });
        }
        Ok(wanted)
    }

    /// Makes tables, several at a time.
    async fn make(&self, missing: Vec<Wanted>, problems: &mut Problems) -> Result<(), Failure> {
        let queue = Arc::new(Mutex::new(VecDeque::from(missing)));
        let mut workers = Vec::new();
        for _ in 0..AT_A_TIME.min(lock(&queue).len()) {
            let (spec, source, downstream) = (self.spec.clone(), self.source.clone(), self.downstream.clone());
            let (queue, progress) = (Arc::clone(&queue), self.progress.clone());
            workers.push(spawn("snapshot tables", async move {
                let mut problems = Problems::default();
                let (mut from, mut to) = (source.connect().await?, downstream.connect().await?);
                let maker = Maker { spec: &spec, downstream: &downstream, progress: &progress };
                loop {
                    let next = lock(&queue).pop_front();
                    let Some(wanted) = next else { return Ok(problems) };
                    maker.table(&mut from, &mut to, &wanted, &mut problems).await?;
                }
            }));
        }
        for worker in workers {
            problems.extend(ended(worker.await)?);
        }
        Ok(())
    }

    fn planned(&self, wanted: &[Wanted], here: &Landscape, there: &Landscape, problems: &mut Problems) -> Vec<Job> {
        let mut into: HashMap<&TargetTable, usize> = HashMap::new();
        let tables = || wanted.iter().filter(|wanted| !wanted.view);
        tables().for_each(|wanted| *into.entry(&wanted.target).or_default() += 1);
        let mut jobs: Vec<Job> = Vec::new();
        for wanted in tables() {
            let (Some(from), Some(to)) = (structure_of(here, &wanted.source.0), structure_of(there, &wanted.target.0))
            else {
                // It could not be made, which is a problem of its own, or it went meanwhile: its DROP is on its way.
                continue;
            };
            let plan = match TablePlan::new(wanted.source.clone(), wanted.target.clone(), from, to) {
                Ok(plan) => plan,
                Err(missing) => {
                    problems.add(
                        Scope::Downstream,
                        format!("{} lacks columns of {}: {}", wanted.target, wanted.source, missing.join(", ")),
                        format!("add them to {}, or drop it so that it is made", wanted.target),
                    );
                    continue;
                }
            };
            for key in narrower_keys(from, to) {
                self.note(format!(
                    "unique key `{key}` of {} is none of {}: of rows that are alike by it only the last stays",
                    wanted.target, wanted.source
                ));
            }
            let shared = into.get(&wanted.target).is_some_and(|count| *count > 1);
            jobs.push(self.job(jobs.len(), wanted, from, TablePlan { shared, ..plan }));
        }
        jobs
    }

    fn job(&self, number: usize, wanted: &Wanted, from: &Structure, plan: TablePlan) -> Job {
        let plan =
            TablePlan { transactional: wanted.transactional, condition: self.spec.options.condition.clone(), ..plan };
        Job {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            plan,
            rows_estimated: wanted.rows,
            bytes_estimated: wanted.bytes,
            fingerprint: from.fingerprint(),
            gaps: gaps(&[]).unwrap_or_default(),
            written: Default::default(),
            left: Default::default(),
        }
    }

    /// Rows in a table without transactions are there before their mark is, and stay when it is not written: what has a key
    /// replaces them.
    fn check_engines(&self, jobs: &[Job], loose: &BTreeSet<TableName>, problems: &mut Problems) {
        for plan in jobs.iter().map(|job| &job.plan).filter(|plan| loose.contains(&plan.target.0)) {
            if plan.key.is_none() {
                problems.add(
                    Scope::Downstream,
                    format!(
                        "{} has neither a key nor an engine with transactions: its rows could come twice",
                        plan.target
                    ),
                    format!("run `ALTER TABLE {} ENGINE=InnoDB` downstream, or give it a primary key", plan.target),
                );
            }
        }
    }

    /// Looks whether each table can be read and written, several at a time.
    async fn check_tables(&self, jobs: &[Job], problems: &mut Problems) -> Result<(), Failure> {
        let queue: VecDeque<TablePlan> = jobs.iter().map(|job| job.plan.clone()).collect();
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::new();
        for _ in 0..AT_A_TIME.min(jobs.len()) {
            let (spec, source, downstream) = (self.spec.clone(), self.source.clone(), self.downstream.clone());
            let queue = Arc::clone(&queue);
            workers.push(spawn("snapshot checks", async move {
                let mut problems = Problems::default();
                let (mut from, mut to) = (source.connect().await?, downstream.connect().await?);
                loop {
                    let next = lock(&queue).pop_front();
                    let Some(plan) = next else { return Ok(problems) };
                    check_read(&spec, &mut from, &plan, &mut problems).await?;
                    check_write(&spec, &mut to, &plan, &mut problems).await?;
                }
            }));
        }
        for worker in workers {
            problems.extend(ended(worker.await)?);
        }
        Ok(())
    }
}

/// Tables that go into one target have it made once.
fn unique_targets(tables: Vec<Wanted>) -> Vec<Wanted> {
    let mut seen = BTreeSet::new();
    tables.into_iter().filter(|wanted| seen.insert(wanted.target.clone())).collect()
}

fn lock<T>(queue: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A queue is whole at any instant.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(outcome: Result<Result<Problems, Failure>, tokio::task::JoinError>) -> Result<Problems, Failure> {
    outcome.unwrap_or_else(|error| Err(Failure::new(Code::NotSet, format!("prepare the copy: {error}"))))
}

fn of_source(error: mysql_async::Error) -> Failure {
    query_failed(&error, "read the structures of the source's tables")
}

fn of_target(error: mysql_async::Error) -> Failure {
    driver_failure(
        &error,
        Code::ReadDownstreamTable,
        Scope::Downstream,
        "read the structures of the downstream's tables",
    )
}

fn structure_of<'a>(landscape: &'a Landscape, table: &TableName) -> Option<&'a Structure> {
    let tables = landscape.get(&*table.schema)?;
    // A server that does not tell names apart by case prints them in lower case.
    tables.get(&*table.table).or_else(|| tables.get(&table.table.to_lowercase()))
}

fn has(landscape: &Landscape, table: &TableName) -> bool {
    structure_of(landscape, table).is_some()
}

async fn structures(
    conn: &mut Conn,
    wanted: &[Wanted],
    side: impl Fn(&Wanted) -> &TableName,
) -> Result<Landscape, mysql_async::Error> {
    let mut by_schema: BTreeMap<String, usize> = BTreeMap::new();
    wanted.iter().for_each(|wanted| *by_schema.entry(side(wanted).schema.to_string()).or_default() += 1);
    let mut landscape = Landscape::new();
    for schema in by_schema.into_keys() {
        let tables = structure::read(conn, &schema, None).await?;
        landscape.insert(schema, tables);
    }
    Ok(landscape)
}

async fn check_read(
    spec: &CopySpec,
    conn: &mut Conn,
    plan: &TablePlan,
    problems: &mut Problems,
) -> Result<(), Failure> {
    let doing = format!("look whether {} can be read", plan.source);
    let sql = match &plan.key {
        Some(_) => plan.select_range(None, None, 0),
        None => format!("SELECT * FROM ({}) probe LIMIT 0", plan.select_all()),
    };
    let mut refused = conn.query_drop(sql).await.err();
    let locks = plan.key.is_none() && !(spec.flavor == Flavor::MariaDb && plan.transactional);
    if refused.is_none() && locks {
        refused = may_lock(conn, plan).await.err();
    }
    match refused {
        None => {}
        // It has changed since its structure was read: whoever reads it will see that, and leave it as stale.
        Some(mysql_async::Error::Server(error))
            if error.code == 1146 || (error.code == 1054 && spec.options.condition.is_none()) => {}
        Some(mysql_async::Error::Server(error)) => {
            let schema = plan.source.0.schema.replace('`', "``");
            let remedy = match error.code {
                1044 | 1142 | 1143 if locks => {
                    format!("run `GRANT SELECT, LOCK TABLES ON `{schema}`.* TO <user>` on the source")
                }
                1044 | 1142 | 1143 => format!("run `GRANT SELECT ON `{schema}`.* TO <user>` on the source"),
                _ if spec.options.condition.is_some() => {
                    "check the condition of `--where`, which is used for every table".to_owned()
                }
                _ => format!("look at {} on the source, or leave it out by the block-allow-list", plan.source),
            };
            problems.add(Scope::Upstream, format!("{doing}: {}", error.message), remedy);
        }
        Some(error) => return Err(query_failed(&error, &doing)),
    }
    Ok(())
}

/// Whether the account may lock tables. That the table is in use is no problem now.
async fn may_lock(conn: &mut Conn, plan: &TablePlan) -> Result<(), mysql_async::Error> {
    conn.query_drop("SET SESSION lock_wait_timeout=1").await?;
    match conn.query_drop(format!("LOCK TABLES {} READ", plan.source)).await {
        Err(mysql_async::Error::Server(error)) if error.code == 1205 => Ok(()),
        Ok(()) => conn.query_drop("UNLOCK TABLES").await,
        refused => refused,
    }
}

async fn check_write(
    spec: &CopySpec,
    conn: &mut Conn,
    plan: &TablePlan,
    problems: &mut Problems,
) -> Result<(), Failure> {
    let doing = format!("look whether {} can be written", plan.target);
    if plan.written > 0 {
        match limited(conn.query_drop(plan.probe_target())).await {
            Ok(()) => {}
            Err(mysql_async::Error::Server(error)) => {
                let remedy = match error.code {
                    1044 | 1142 | 1143 => format!(
                        "run `GRANT SELECT, INSERT, UPDATE, DELETE ON `{}`.* TO <user>` downstream",
                        plan.target.0.schema.replace('`', "``")
                    ),
                    _ => format!("look at {} downstream", plan.target),
                };
                problems.add(Scope::Downstream, format!("{doing}: {}", error.message), remedy);
                return Ok(());
            }
            Err(error) => return Err(driver_failure(&error, Code::QueryFailed, Scope::Downstream, &doing)),
        }
    }
    let keyless = plan.key.is_none();
    if keyless && plan.shared {
        problems.add(
            Scope::Downstream,
            format!(
                "{} has no key, and its rows would go to {} together with those of other tables",
                plan.source, plan.target
            ),
            format!("give {} and {} a primary key, or a target of its own to each table", plan.source, plan.target),
        );
    }
    if keyless || spec.options.existing == Existing::Refuse {
        let row: Option<Row> = limited(conn.query_first(format!("SELECT 1 FROM {} LIMIT 1", plan.target)))
            .await
            .map_err(|error| driver_failure(&error, Code::QueryFailed, Scope::Downstream, &doing))?;
        if row.is_some() {
            let why =
                if keyless { "it has no key by which rows could be replaced" } else { "on-duplicate-logical is error" };
            problems.add(
                Scope::Downstream,
                format!("{} has rows before the copy, and {why}", plan.target),
                format!("empty it (TRUNCATE TABLE {})", plan.target),
            );
        }
    }
    Ok(())
}

/// Plans of tables that a former start has stored; the state of those that are other tables by now says so.
pub(super) async fn planned_again(
    preparing: &Preparing<'_>,
    stored: &[(SourceTable, TableState)],
) -> Result<Vec<Result<Job, String>>, Failure> {
    let mut source = preparing.source.connect().await?;
    let mut target = preparing.downstream.connect().await?;
    let mut wanted = Vec::new();
    for (name, state) in stored {
        let Some(to) = preparing.spec.guide.target(name)? else { continue };
        let transactional = true;
        let (rows, bytes) = (state.rows, state.bytes);
        wanted.push(Wanted { source: name.clone(), target: to, view: false, transactional, rows, bytes });
    }
    let loose = loose_tables(&mut source).await.map_err(of_source)?;
    wanted.iter_mut().for_each(|wanted| wanted.transactional = !loose.contains(&wanted.source.0));
    let here = structures(&mut source, &wanted, |wanted| &wanted.source.0).await.map_err(of_source)?;
    let there = structures(&mut target, &wanted, |wanted| &wanted.target.0).await.map_err(of_target)?;
    let mut into: HashMap<&TargetTable, usize> = HashMap::new();
    wanted.iter().for_each(|wanted| *into.entry(&wanted.target).or_default() += 1);
    let by_name: HashMap<&SourceTable, &Wanted> = wanted.iter().map(|wanted| (&wanted.source, wanted)).collect();
    let mut jobs = Vec::new();
    for (number, (name, state)) in stored.iter().enumerate() {
        let Some(wanted) = by_name.get(name).copied() else {
            jobs.push(Err("the task does not want it any more".to_owned()));
            continue;
        };
        if matches!(state.end, TableEnd::Done { .. }) {
            jobs.push(Err(String::new()));
            continue;
        }
        let Some(from) = structure_of(&here, &name.0) else {
            jobs.push(Err("it was dropped or renamed".to_owned()));
            continue;
        };
        if from.fingerprint() != state.fingerprint {
            jobs.push(Err("its columns or its key changed".to_owned()));
            continue;
        }
        let lacks = |what: &str| {
            Failure::new(Code::NoDownstreamTable, format!("{} {what}", wanted.target))
                .workaround("Please make it as it was when the copy began, or start the task anew with --remove-meta.")
        };
        let to = structure_of(&there, &wanted.target.0).ok_or_else(|| lacks("is not there any more"))?;
        let plan = TablePlan::new(name.clone(), wanted.target.clone(), from, to)
            .map_err(|missing| lacks(&format!("lacks columns: {}", missing.join(", "))))?;
        let shared = into.get(&wanted.target).is_some_and(|count| *count > 1);
        jobs.push(Ok(preparing.job(number, wanted, from, TablePlan { shared, ..plan })));
    }
    Ok(jobs)
}

/// Tables of a server whose engine has no transactions.
async fn loose_tables(conn: &mut Conn) -> Result<BTreeSet<TableName>, mysql_async::Error> {
    let sql = format!(
        "SELECT t.table_schema, t.table_name FROM information_schema.tables t JOIN information_schema.engines e ON \
         e.engine=t.engine WHERE t.table_schema NOT IN ({SYSTEM}) AND COALESCE(e.transactions,'NO')<>'YES'"
    );
    let rows: Vec<Row> = answered(conn.query(sql)).await?;
    let name = |row: &Row| {
        let column = |at| text(row, at).unwrap_or_default();
        TableName::new(column(0), column(1))
    };
    Ok(rows.iter().map(name).collect())
}
