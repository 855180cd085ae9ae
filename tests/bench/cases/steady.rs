//! The steady state: a source that commits 200 transactions a second, and how much later each is downstream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::bed::{Bed, source};
use crate::history::put_mark;
use crate::meter::Stretch;
use crate::outcome::{Latencies, Row, Series};
use crate::rig::{Downstream, Mark, Rig, task};
use crate::rounds;
use crate::support::db::Db;
use crate::support::fixture::location;
use crate::support::servers::Kind;

/// Transactions a second.
const RATE: u32 = 200;
/// Transactions a round.
const TRANSACTIONS: u32 = 2_000;
/// Rows that updates choose from.
const ROWS: u32 = 10_000;

/// From the source's answer to COMMIT until the row is seen downstream.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let maria = bed.maria().await;
    let source = source(Kind::MySql).await;
    let mut db = source.root().await;
    let start = location(&mut db, source.kind).await;
    db.run_all(["CREATE DATABASE steady", "USE steady", Mark::TABLE]).await;
    db.run_all([
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, pad CHAR(100))",
        "CREATE TABLE commits (id INT PRIMARY KEY)",
    ])
    .await;
    for first in (0..ROWS).step_by(1_000) {
        let rows: Vec<String> = (first..first + 1_000).map(|id| format!("({id}, 0, REPEAT('x', 100))")).collect();
        db.run(&format!("INSERT INTO t VALUES {}", rows.join(","))).await;
    }
    let rig = Rig::start(&source).await;
    rig.start_task(&task("steady", "steady", maria, &start)).await;
    let mark = put_mark(&mut db, source.kind, "steady", 0).await;
    let mut target = Downstream::of(maria).await;
    mark.wait(&mut target.db).await;

    let mut times = Latencies::default();
    let mut cpu = Series::default();
    for round in 0..rounds() as u32 {
        times.begin_round();
        let committed = Arc::new(Mutex::new(HashMap::new()));
        let first = round * TRANSACTIONS;
        let stretch = Stretch::begin(rig.agent.pid());
        let writer = tokio::spawn(write(source.root().await, first, Arc::clone(&committed)));
        let seen = watch(&mut target.db, first).await;
        cpu.0.push(stretch.end().cpu * 1e6 / f64::from(TRANSACTIONS * 4));
        writer.await.expect("the writer ends");
        let committed = committed.lock().expect("nobody panicked with it");
        for (id, at) in seen {
            // The row may be seen before its writer has run again.
            times.push(at.saturating_duration_since(committed[&id]).as_secs_f64());
        }
    }
    let work = format!("{TRANSACTIONS} transactions of 4 rows at {RATE}/s");
    let line = |percent, most| Row {
        cpu: cpu.clone(),
        work: work.clone(),
        ..times.line("steady state, commit to commit", percent, most)
    };
    vec![line(50, 10.0), line(99, 60.0)]
}

/// Commits at an even pace; when each was answered.
async fn write(mut db: Db, first: u32, committed: Arc<Mutex<HashMap<u32, Instant>>>) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for id in first..first + TRANSACTIONS {
        pace.tick().await;
        let row = id * 7919 % ROWS;
        db.run_all([
            "BEGIN".to_owned(),
            format!("UPDATE steady.t SET v = v + 1 WHERE id IN ({row}, {}, {})", (row + 1) % ROWS, (row + 2) % ROWS),
            format!("INSERT INTO steady.commits VALUES ({id})"),
            "COMMIT".to_owned(),
        ])
        .await;
        committed.lock().expect("nobody panicked with it").insert(id, Instant::now());
    }
}

/// When each row was first seen.
async fn watch(target: &mut Db, first: u32) -> Vec<(u32, Instant)> {
    let mut seen = Vec::new();
    let mut next = first;
    let deadline = Instant::now() + Duration::from_secs(60);
    while next < first + TRANSACTIONS {
        // The table may not be there yet.
        let rows = target.try_rows(&format!("SELECT id FROM steady.commits WHERE id >= {next} ORDER BY id")).await;
        let now = Instant::now();
        assert!(now < deadline, "transaction {next} does not come");
        for row in rows.unwrap_or_default() {
            let id: u32 = String::from_utf8_lossy(row[0].as_deref().unwrap_or_default()).parse().expect("a number");
            if id >= next {
                seen.push((id, now));
                next = next.max(id + 1);
            }
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    seen
}
