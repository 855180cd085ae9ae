//! The copy by a whole agent, up to L1: paused and killed over and over, and with rows of many megabytes.

use std::time::{Duration, Instant};

use super::snapshot::{ROWS, SCHEMA, TABLES, check_equal, clear};
use crate::admin::Admin;
use crate::bed::target;
use crate::meter::reset_peak;
use crate::outcome::{Goal, Latencies, Measure, Row, Series};
use crate::rig::{Rig, SOURCE};
use crate::support::db::Db;
use crate::support::docs::TaskFile;
use crate::support::servers::{Kind, Server};
use crate::table::number;

/// Nothing that is measured takes longer.
const LIMIT: Duration = Duration::from_secs(240);
/// Pauses, of as many copies as it takes.
const PAUSES: u32 = 100;
/// Kills of one copy.
const KILLS: u32 = 20;
/// The task.
pub const TASK: &str = "copy_agent";

/// How long a pause takes, and what a kill costs.
pub async fn run(source: &Server, from: &mut Db) -> Vec<Row> {
    let [half, all] = pauses(source).await;
    vec![half, all, kills(source, from).await]
}

/// From the call to parked, each time in the midst of copying rows.
async fn pauses(source: &Server) -> [Row; 2] {
    let target = target(Kind::MariaDb, &[]).await;
    let rows = u64::from(TABLES * ROWS);
    let mut rig = Rig::start(source).await;
    let mut took = Latencies::default();
    took.begin_round();
    let mut begun = 0;
    for pause in 0..PAUSES {
        let written = if pause == 0 { rows } else { rig.task(TASK).await.copy.map_or(0, |copy| copy.rows_written) };
        // With enough left to be in the midst of it.
        if written > rows / 2 {
            if pause > 0 {
                rig.admin.stop(TASK).await;
            }
            clear(&mut target.root().await).await;
            rig.start_task(&task(&target)).await;
            begun += 1;
            assert!(wait_written(&mut rig, 1).await, "the copy is over before it began");
        } else {
            rig.admin.resume(TASK).await;
            assert!(wait_written(&mut rig, written + 1).await, "the copy is over");
        }
        // At any instant of a chunk's life.
        tokio::time::sleep(Duration::from_millis(u64::from(pause * 37 % 100))).await;
        let unit = rig.task(TASK).await.unit;
        let began = Instant::now();
        rig.admin.pause(TASK).await;
        took.push(began.elapsed().as_secs_f64());
        let task = rig.task(TASK).await;
        assert_eq!(
            (unit.as_str(), task.unit.as_str(), task.stage.as_str()),
            ("Load", "Load", "Paused"),
            "pause {pause}"
        );
    }
    rig.admin.stop(TASK).await;
    let mut rows = [50, 99].map(|percent| took.line("snapshot, pause in the middle", percent, 200.0));
    rows.iter_mut().for_each(|row| row.work = format!("{PAUSES} pauses of {begun} copies, each while it copied rows"));
    rows
}

/// What an agent takes at most while rows of many megabytes are copied.
pub async fn memory(source: &Server, target: &Server, what: String) -> Row {
    let mut rig = Rig::start(source).await;
    reset_peak(rig.agent.pid());
    rig.start_task(&task(target)).await;
    assert!(!wait_written(&mut rig, u64::MAX).await, "more than there is");
    let mb = rig.agent.peak_rss_kb() as f64 / 1024.0;
    rig.admin.stop(TASK).await;
    Row {
        case: "snapshot, memory".to_owned(),
        unit: "MB",
        ours: Series::one(mb),
        rss: Series::one(mb),
        work: what,
        goals: vec![Goal::AtMost(Measure::Rss, 256.0)],
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

/// All of it.
pub fn task(target: &Server) -> TaskFile {
    let mut task = TaskFile::new(TASK, SOURCE, target.port);
    task.schemas = vec![SCHEMA.to_owned()];
    task.mode = "all";
    task
}

/// Waits until the copy has written so many rows; false where it is over.
pub async fn wait_written(rig: &mut Rig, rows: u64) -> bool {
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

/// Waits until both ends are equal.
pub async fn wait_equal(from: &mut Db, to: &mut Db) {
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
