//! What would fail later, looked for before anything is copied: rights, engines, rows that are there.
//!
//! Nothing is changed by it, on either side.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::job::Job;
use super::look::Look;
use super::plan::TablePlan;
use super::prepare::{AT_A_TIME, Preparing, Steps, ended, lock};
use super::problems::Problems;
use super::source::{answered, query_failed};
use super::spec::{CopySpec, Existing};
use crate::downstream::limited;
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::model::{Flavor, TableName};
use crate::runtime::spawn;

/// Sequences that are named.
const NAMED: usize = 10;

impl Preparing<'_> {
    /// Whether the source logs what a replay needs.
    pub async fn check_source(&self) -> Result<Problems, Failure> {
        let mut problems = Problems::default();
        let mut conn = self.source.connect().await?;
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
        Ok(problems)
    }

    /// What is wanted and is no plain table.
    pub(super) fn check_kinds(&self, look: &Look, problems: &mut Problems) {
        for table in &look.versioned {
            problems.add(
                Scope::Upstream,
                format!("{table} is system-versioned: its rows in the binlog have columns that no structure shows"),
                format!("leave {table} out by the block-allow-list, or ALTER TABLE {table} DROP SYSTEM VERSIONING"),
            );
        }
        if !look.sequences.is_empty() {
            let names: Vec<String> = look.sequences.iter().take(NAMED).map(ToString::to_string).collect();
            self.note(format!(
                "{} sequences of the source are not copied: {}. Create them downstream by hand",
                look.sequences.len(),
                names.join(", ")
            ));
        }
    }

    /// Rows in a table without transactions are there before their mark is, and stay when it is not written: what has a key
    /// replaces them.
    pub(super) async fn check_engines(
        &self,
        jobs: &[Job],
        loose: &BTreeSet<TableName>,
        target: &mut Conn,
        problems: &mut Problems,
    ) -> Result<(), Failure> {
        let strict = !loose.is_empty() && enforces_gtids(target).await?;
        for plan in jobs.iter().map(|job| &job.plan).filter(|plan| loose.contains(&plan.target.0)) {
            if strict {
                problems.add(
                    Scope::Downstream,
                    format!(
                        "{} has an engine without transactions, and a downstream with GTIDs takes no rows of such together with \
                         their mark",
                        plan.target
                    ),
                    format!("run `ALTER TABLE {} ENGINE=InnoDB` downstream", plan.target),
                );
            } else if plan.key.is_none() {
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
        Ok(())
    }

    /// Looks whether each table can be read and written, several at a time.
    pub(super) async fn check_tables(&self, jobs: &[Job], problems: &mut Problems) -> Result<(), Failure> {
        let queue: VecDeque<TablePlan> = jobs.iter().map(|job| job.plan.clone()).collect();
        let steps = Steps::new(self.progress, "checking rights and tables", jobs.len());
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::new();
        for _ in 0..AT_A_TIME.min(jobs.len()) {
            let (spec, source, downstream) = (self.spec.clone(), self.source.clone(), self.downstream.clone());
            let (queue, steps) = (Arc::clone(&queue), steps.clone());
            workers.push(spawn("snapshot checks", async move {
                let mut problems = Problems::default();
                let (mut from, mut to) = (source.connect().await?, downstream.connect().await?);
                loop {
                    let next = lock(&queue).pop_front();
                    let Some(plan) = next else { return Ok(problems) };
                    check_read(&spec, &mut from, &plan, &mut problems).await?;
                    let before = problems.len();
                    check_rights(&mut to, &plan, &mut problems).await?;
                    if problems.len() == before {
                        check_rows(&spec, &mut to, &plan, &mut problems).await?;
                    }
                    steps.done();
                }
            }));
        }
        for worker in workers {
            problems.extend(ended(worker.await)?);
        }
        Ok(())
    }
}

pub(super) async fn check_read(
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
            if matches!(error.code, 1146 | 1176) || (error.code == 1054 && spec.options.condition.is_none()) => {}
        Some(mysql_async::Error::Server(error)) => {
            let schema = plan.source.0.schema.replace('`', "``");
            let remedy = match error.code {
                1044 | 1142 | 1143 if locks => {
                    format!("run `GRANT SELECT, LOCK TABLES ON `{schema}`.* TO <user>` on the source")
                }
                1044 | 1142 | 1143 => format!("run `GRANT SELECT ON `{schema}`.* TO <user>` on the source"),
                _ if spec.options.condition.is_some() => {
                    "check the condition of `where`, which is used for every table".to_owned()
                }
                _ => format!("look at {} on the source, or leave it out by the block-allow-list", plan.source),
            };
            problems.add(Scope::Upstream, format!("{doing}: {}", error.message), remedy);
        }
        Some(error) => return Err(query_failed(&error, &doing)),
    }
    Ok(())
}

/// Whether the downstream refuses a transaction with rows of tables with and without transactions.
async fn enforces_gtids(target: &mut Conn) -> Result<bool, Failure> {
    const SHOW: &str = "SHOW GLOBAL VARIABLES LIKE 'enforce_gtid_consistency'";
    let value: Option<(String, String)> = limited(target.query_first(SHOW))
        .await
        .map_err(|error| driver_failure(&error, Code::QueryFailed, Scope::Downstream, SHOW))?;
    Ok(value.is_some_and(|(_, value)| value.eq_ignore_ascii_case("ON")))
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

/// Whether rows can be written.
pub(super) async fn check_rights(conn: &mut Conn, plan: &TablePlan, problems: &mut Problems) -> Result<(), Failure> {
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
    Ok(())
}

/// Whether a table's rows can be told from those that are there.
async fn check_rows(
    spec: &CopySpec,
    conn: &mut Conn,
    plan: &TablePlan,
    problems: &mut Problems,
) -> Result<(), Failure> {
    let doing = format!("look whether {} can be written", plan.target);
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
