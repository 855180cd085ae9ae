//! What those who write to a source feel of its copy: by an agent and into a target on the same two cores.
//!
//! Writers are measured with and without the copy in the same run, in turn: before it, in pauses of it, and behind L1 with the agent
//! gone. Once at an even pace that leaves the machine half idle, as a source that is not at its limit, and once as fast as it goes:
//! then in smaller tables, since what they leave of two cores is little.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::copy_agent::{TASK, task, wait_equal};
use super::snapshot::{ROWS, SCHEMA, TABLES, filled_source};
use crate::bed::target;
use crate::outcome::{Goal, Measure, Row, Series};
use crate::rig::Rig;
use crate::support::db::Db;
use crate::support::servers::{Kind, Server};

/// Connections that write.
const WRITERS: u32 = 4;
/// Transactions a second of each, where they write at an even pace.
const RATE: u32 = 50;
/// Rows of each table where they write as fast as they can.
const FEWER: u32 = 50_000;
/// How long they write without a copy, before and after it, and in each of so many pauses.
const QUIET: Duration = Duration::from_secs(6);
const PAUSES: u64 = 2;
const PAUSED: Duration = Duration::from_secs(3);
/// How often the agent is asked how far it is: as an operator would, since that takes of the same cores and is none of the copy.
const LOOK: Duration = Duration::from_millis(500);
/// Nothing that is measured takes longer.
const LIMIT: Duration = Duration::from_secs(240);

/// Settings of a target that leaves the source's disk alone: nothing of it is flushed while the case runs.
const NO_DISK: [&str; 6] = [
    "--innodb-flush-method=nosync",
    "--loose-innodb-log-file-buffering=ON",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-buffer-pool-size=2G",
    "--innodb-log-file-size=2G",
];

/// At an even pace.
pub async fn even() -> Vec<Row> {
    run("snapshot, writers' p99", Writers { rows: ROWS, rate: Some(RATE) }).await
}

/// As fast as it goes.
pub async fn fast() -> Vec<Row> {
    run("snapshot, writers at full speed, p99", Writers { rows: FEWER, rate: None }).await
}

async fn run(name: &str, writers: Writers) -> Vec<Row> {
    let (source, mut from) = filled_source(writers.rows).await;
    let target = target(Kind::MariaDb, &NO_DISK).await;
    vec![measure(&source, &target, &mut from, name, writers).await]
}

/// How they write.
#[derive(Clone, Copy)]
struct Writers {
    /// Rows of each table.
    rows: u32,
    /// Transactions a second of each; `None` for as many as it goes.
    rate: Option<u32>,
}

/// Latency of transactions on the source with the copy against that without it, up to L1.
async fn measure(source: &Server, target: &Server, from: &mut Db, name: &str, writers: Writers) -> Row {
    let (mut quiet, mut copied, mut paused) = (Series::default(), Vec::new(), Series::default());
    quiet.0.extend(load_for(source, writers, QUIET).await.0);
    let state = PathBuf::from(format!("/dev/shm/dm-agent-bench-{}", std::process::id()));
    let mut rig = Rig::start_in(source, &state).await;
    let mut took = Duration::ZERO;
    let (mut load, mut began) = (Load::begin(source, writers).await, Instant::now());
    rig.start_task(&task(target)).await;
    let mut told = String::new();
    for pause in 1..=PAUSES {
        let rows = u64::from(TABLES * writers.rows) * pause / (PAUSES + 1);
        if !wait_copied(&mut rig, rows).await {
            break;
        }
        told = rig.task(TASK).await.activity;
        took += began.elapsed();
        copied.extend(load.end().await);
        rig.admin.pause(TASK).await;
        paused.0.extend(load_for(source, writers, PAUSED).await.0);
        (load, began) = (Load::begin(source, writers).await, Instant::now());
        rig.admin.resume(TASK).await;
    }
    let (replay, told_behind) = wait_exact(&mut rig).await;
    took += began.elapsed();
    let behind = replay.elapsed();
    copied.extend(load.end().await);
    wait_equal(from, &mut target.root().await).await;
    drop(rig);
    let _ = std::fs::remove_dir_all(state);
    quiet.0.extend(load_for(source, writers, QUIET).await.0);
    let (copying, replaying): (Vec<_>, Vec<_>) = copied.iter().partition(|(ended, _)| *ended < replay);
    let parts = [copying, replaying].map(|part| series(part).percentile(0.99));
    eprintln!(
        "bench:   {name}: {told}; p99 {:.1} ms while rows were copied, {:.1} in {:.1} s of replay: {told_behind}",
        parts[0],
        parts[1],
        behind.as_secs_f64()
    );
    eprintln!(
        "bench:   without: p99 {:.2} ms in pauses of the copy, {:.2} ms without the agent",
        paused.percentile(0.99),
        quiet.percentile(0.99)
    );
    quiet.0.extend(paused.0);
    let copied = series(copied);
    let [ours, reference] = [&copied, &quiet].map(|series| series.percentile(0.99));
    Row {
        case: name.to_owned(),
        unit: "ms",
        against: "the same writers without the copy",
        work: format!(
            "{} transactions with and {} without; p50 {:.1} and {:.1} ms; L1 reached after {:.0} s",
            copied.0.len(),
            quiet.0.len(),
            copied.median(),
            quiet.median(),
            took.as_secs_f64()
        ),
        ours: Series::one(ours),
        reference: Series::one(reference),
        goals: vec![Goal::AtMost(Measure::Ratio, 1.3)],
        ..Row::default()
    }
}

/// A transaction: when it was over, and how long it took in ms.
type Took = (Instant, f64);

fn series(took: Vec<Took>) -> Series {
    Series(took.into_iter().map(|(_, took)| took).collect())
}

/// Waits until so many rows are copied; false where the copy is over before.
async fn wait_copied(rig: &mut Rig, rows: u64) -> bool {
    let deadline = Instant::now() + LIMIT;
    loop {
        let task = rig.task(TASK).await;
        match task.copy {
            Some(copy) if copy.rows_written >= rows => return true,
            Some(copy) => assert!(Instant::now() < deadline, "the copy does not come to row {rows}: {copy:?}"),
            None if task.unit == "Sync" && task.applied.is_some() => return false,
            None => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for L1; gives when the replay began, and what was said of it.
async fn wait_exact(rig: &mut Rig) -> (Instant, String) {
    let deadline = Instant::now() + LIMIT;
    let (mut replay, mut told) = (None, Vec::new());
    loop {
        let task = rig.task(TASK).await;
        match task.unit.as_str() {
            "Sync" if task.stage == "Running" => {
                let began = *replay.get_or_insert_with(Instant::now);
                if task.safe_mode.is_empty() && task.applied.is_some() {
                    told.dedup();
                    return (began, told.join(", "));
                }
                told.extend(task.safe_mode.rsplit_once(": ").map(|(_, how)| how.to_owned()));
            }
            _ => replay = None,
        }
        assert!(Instant::now() < deadline, "the copy does not reach L1: {task:?}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn load_for(source: &Server, how: Writers, time: Duration) -> Series {
    let load = Load::begin(source, how).await;
    tokio::time::sleep(time).await;
    series(load.end().await)
}

/// Connections that write, at an even pace or as fast as they can.
struct Load {
    stop: watch::Sender<bool>,
    writers: Vec<tokio::task::JoinHandle<Vec<Took>>>,
}

impl Load {
    async fn begin(source: &Server, how: Writers) -> Load {
        let (stop, stopped) = watch::channel(false);
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            writers.push(tokio::spawn(write(source.root().await, writer, how, stopped.clone())));
        }
        Load { stop, writers }
    }

    /// What each transaction took.
    async fn end(self) -> Vec<Took> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for writer in self.writers {
            all.extend(writer.await.expect("the writer ends"));
        }
        all
    }
}

/// What `sysbench oltp_write_only` does, each writer in rows of its own so that none waits for another.
async fn write(mut db: Db, writer: u32, how: Writers, stop: watch::Receiver<bool>) -> Vec<Took> {
    let mut pace = how.rate.map(|rate| tokio::time::interval(Duration::from_secs(1) / rate));
    let mut took = Vec::new();
    let mut step = writer;
    if let Some(pace) = &mut pace {
        // One after the other, and not all at the same moment.
        tokio::time::sleep(pace.period() * writer / WRITERS).await;
        pace.reset_immediately();
    }
    while !*stop.borrow() {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let table = format!("{SCHEMA}.sbtest{}", 1 + step % TABLES);
        // A walk over the whole table.
        let id = 1 + (step.wrapping_mul(7919)) % (how.rows / WRITERS) * WRITERS + writer;
        step = step.wrapping_add(WRITERS + 1);
        let began = Instant::now();
        db.run_all([
            "BEGIN".to_owned(),
            format!("UPDATE {table} SET k = k + 1 WHERE id = {id}"),
            format!("UPDATE {table} SET c = REVERSE(c) WHERE id = {id}"),
            format!("DELETE FROM {table} WHERE id = {id}"),
            format!("INSERT INTO {table} (id, k, c, pad) VALUES ({id}, {step}, 'c{step}', 'pad')"),
            "COMMIT".to_owned(),
        ])
        .await;
        took.push((Instant::now(), began.elapsed().as_secs_f64() * 1e3));
    }
    took
}
