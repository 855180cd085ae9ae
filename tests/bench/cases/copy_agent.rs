//! The copy by a whole agent, up to L1: while others write to its source, and killed over and over.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::snapshot::{ROWS, SCHEMA, TABLES, check_equal};
use crate::admin::Admin;
use crate::bed::target;
use crate::outcome::{Goal, Measure, Row, Series};
use crate::rig::{Rig, SOURCE};
use crate::support::db::Db;
use crate::support::docs::TaskFile;
use crate::support::servers::{Kind, Server};
use crate::table::number;

/// Connections that write, and transactions a second of each.
const WRITERS: u32 = 4;
const RATE: u32 = 50;
/// How long they write without a copy.
const QUIET: Duration = Duration::from_secs(8);
/// Nothing that is measured takes longer.
const LIMIT: Duration = Duration::from_secs(240);
/// Kills of one copy.
const KILLS: u32 = 20;
const TASK: &str = "copy_agent";

/// What writers feel, and what a kill costs.
pub async fn run(source: &Server, from: &mut Db) -> Vec<Row> {
    vec![writers(source, from).await, kills(source, from).await]
}

/// Settings of a target that leaves the source's disk alone: nothing of it is flushed while the case runs.
const NO_DISK: [&str; 6] = [
    "--innodb-flush-method=nosync",
    "--loose-innodb-log-file-buffering=ON",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-buffer-pool-size=2G",
    "--innodb-log-file-size=2G",
];

/// Latency of transactions on the source with the copy against that without it. The target and the agent would stand on
/// machines of their own; here they get what the source and its writers leave of the cores, and no disk.
async fn writers(source: &Server, from: &mut Db) -> Row {
    let target = target(Kind::MariaDb, &NO_DISK).await;
    let quiet = {
        let load = Load::begin(source).await;
        tokio::time::sleep(QUIET).await;
        load.end().await
    };
    let state = PathBuf::from(format!("/dev/shm/dm-agent-bench-{}", std::process::id()));
    let mut rig = Rig::start_in(source, &state).await;
    step_back(target.process.pid());
    step_back(rig.agent.pid());
    let load = Load::begin(source).await;
    let began = Instant::now();
    rig.start_task(&task(&target)).await;
    wait_written(&mut rig, 1).await;
    wait_exact(&mut rig).await;
    let took = began.elapsed().as_secs_f64();
    let copied = load.end().await;
    let mut to = target.root().await;
    wait_equal(from, &mut to).await;
    drop(rig);
    let _ = std::fs::remove_dir_all(state);
    Row {
        case: "snapshot, writers' p99".to_owned(),
        unit: "ms",
        against: "the same writers without the copy",
        work: format!("{WRITERS} writers, {} transactions/s in all; L1 reached after {took:.1} s", WRITERS * RATE),
        ours: Series::one(copied.percentile(0.99)),
        reference: Series::one(quiet.percentile(0.99)),
        goals: vec![Goal::AtMost(Measure::Ratio, 1.3)],
        ..Row::default()
    }
}

/// kill -9 in the middle; what is sent by the source more than once is what the kills cost.
async fn kills(source: &Server, from: &mut Db) -> Row {
    let target = target(Kind::MariaDb, &[]).await;
    let rows = u64::from(TABLES * ROWS);
    let mut rig = Rig::start(source).await;
    let before = sent(from).await;
    rig.start_task(&task(&target)).await;
    let mut kills = 0;
    while kills < KILLS && wait_written(&mut rig, rows * u64::from(kills + 1) / u64::from(KILLS + 1)).await {
        rig.agent.kill9();
        rig.agent.restart().await;
        rig.admin = Admin::connect(&rig.agent.socket()).await;
        kills += 1;
    }
    assert_eq!(kills, KILLS, "the copy was over before the last kill");
    assert!(!wait_written(&mut rig, u64::MAX).await, "more than there is");
    wait_equal(from, &mut target.root().await).await;
    let all = sent(from).await - before;
    assert!(all >= rows, "the source says that it sent {all} rows only");
    let again = all - rows;
    let share = again as f64 * 100.0 / f64::from(KILLS) / rows as f64;
    Row {
        case: "snapshot, rows read again".to_owned(),
        unit: "%",
        work: format!("{KILLS} kills, {} rows sent again in all", number(again as f64)),
        ours: Series::one(share),
        goals: vec![Goal::AtMost(Measure::Ours, 5.0)],
        ..Row::default()
    }
}

fn task(target: &Server) -> TaskFile {
    let mut task = TaskFile::new(TASK, SOURCE, target.port);
    task.schemas = vec![SCHEMA.to_owned()];
    task.mode = "all";
    task
}

/// Lets a process run only where nothing else wants to, with all threads that it has and starts. The lowest priority would not do:
/// who wakes up then still waits for the end of a slice.
fn step_back(pid: u32) {
    let pid = pid.to_string();
    let output = Command::new("chrt").args(["--all-tasks", "--idle", "--pid", "0", &pid]).output().expect("run chrt");
    assert!(output.status.success(), "chrt: {}", String::from_utf8_lossy(&output.stderr));
}

async fn wait_exact(rig: &mut Rig) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let task = rig.task(TASK).await;
        if task.unit == "Sync" && task.safe_mode.is_empty() && task.stage == "Running" {
            return;
        }
        assert!(Instant::now() < deadline, "the copy does not reach L1: {task:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the copy has written so many rows; false where it is over.
async fn wait_written(rig: &mut Rig, rows: u64) -> bool {
    let deadline = Instant::now() + LIMIT;
    // A task that has just started says so too, until it knows that there is a copy to go on with.
    let mut over = None;
    loop {
        let task = rig.task(TASK).await;
        if task.copy.as_ref().is_some_and(|copy| copy.rows_written >= rows) {
            return true;
        }
        match task.unit.as_str() {
            "Sync" if over.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(5) => return false,
            "Sync" => {}
            _ => over = None,
        }
        assert!(Instant::now() < deadline, "the copy does not come to row {rows}: {task:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_equal(from: &mut Db, to: &mut Db) {
    // What was committed last is on its way.
    let count = format!("SELECT COUNT(*), SUM(k) FROM {SCHEMA}.sbtest1");
    let deadline = Instant::now() + LIMIT;
    while from.texts(&count).await != to.texts(&count).await && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    check_equal(from, to).await;
}

/// Rows that the server has sent to anyone since its start.
async fn sent(db: &mut Db) -> u64 {
    let rows = db.texts("SHOW GLOBAL STATUS LIKE 'Rows_sent'").await;
    rows[0][1].parse().expect("a number of rows")
}

/// Connections that write at an even pace.
struct Load {
    stop: watch::Sender<bool>,
    writers: Vec<tokio::task::JoinHandle<Series>>,
}

impl Load {
    async fn begin(source: &Server) -> Load {
        let (stop, stopped) = watch::channel(false);
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            writers.push(tokio::spawn(write(source.root().await, writer, stopped.clone())));
        }
        Load { stop, writers }
    }

    /// How long each transaction took, in ms.
    async fn end(self) -> Series {
        self.stop.send_replace(true);
        let mut all = Series::default();
        for writer in self.writers {
            all.0.extend(writer.await.expect("the writer ends").0);
        }
        all
    }
}

/// What `sysbench oltp_write_only` does, each writer in rows of its own so that none waits for another.
async fn write(mut db: Db, writer: u32, stop: watch::Receiver<bool>) -> Series {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut took = Series::default();
    let mut step = writer;
    // One after the other, and not all at the same moment.
    tokio::time::sleep(pace.period() * writer / WRITERS).await;
    pace.reset_immediately();
    while !*stop.borrow() {
        pace.tick().await;
        let table = format!("{SCHEMA}.sbtest{}", 1 + step % TABLES);
        // A walk over the whole table.
        let id = 1 + (step.wrapping_mul(7919)) % (ROWS / WRITERS) * WRITERS + writer;
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
        took.0.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took
}
