//! Inserts, updates and deletes of sysbench's row on one lane and on eight, against one prepared statement a row on as many
//! connections.
//!
//! Ours is a parked task that is resumed: from the call until the last row is downstream, connecting and claiming included. The
//! reference is what a program would do that has the rows at hand: nothing but statements, in transactions of 100.

use std::time::Instant;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};
use tokio::task::JoinSet;

use crate::bed::{Bed, source};
use crate::history::put_mark;
use crate::outcome::{Goal, Measure, Row};
use crate::rig::{Downstream, Mark, Rig, task};
use crate::rounds;
use crate::support::db::{Address, Db};
use crate::support::docs::TaskFile;
use crate::support::fixture::location;
use crate::support::servers::{Kind, Server};
use crate::table::number;

/// Rows of a round.
const ROWS: u32 = 50_000;
/// Rows a transaction, on the source and of the reference.
const TRANSACTION: u32 = 100;
/// Lanes, and connections of the reference.
const LANES: [u32; 2] = [1, 8];
/// sysbench's table.
const TABLE: &str = "CREATE TABLE sbtest1 (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, \
                     KEY k_1 (k))";

/// What is done to each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    Insert,
    Update,
    Delete,
}

/// Each with what it must reach on one lane and on eight. The order leaves the table empty.
const KINDS: [(Kinds, [f64; 2]); 3] =
    [(Kinds::Insert, [8.0, 4.0]), (Kinds::Update, [6.0, 4.0]), (Kinds::Delete, [8.0, 4.0])];

/// All six lines.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let maria = bed.maria().await;
    let source = source(Kind::MySql).await;
    let mut db = source.root().await;
    let start = location(&mut db, source.kind).await;
    db.run_all(["SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 2"]).await;
    db.run_all(["CREATE DATABASE bench_apply", "USE bench_apply", Mark::TABLE, TABLE]).await;
    let mut target = Downstream::of(maria).await;
    let mut rig = Rig::start(&source).await;
    for lanes in LANES {
        let mut task = routed(task(&ours(lanes), "bench_apply", maria, &start), &ours(lanes));
        task.workers = lanes;
        rig.start_task(&task).await;
        rig.admin.pause(&task.name).await;
        target
            .db
            .run_all([format!("CREATE DATABASE {0}", theirs(lanes)), format!("USE {}", theirs(lanes)), TABLE.into()])
            .await;
    }
    let mut mark = put_mark(&mut db, source.kind, "bench_apply", 0).await;
    for lanes in LANES {
        rig.catch_up(&ours(lanes), &routed_mark(&mark, lanes), &mut target).await;
    }
    let mut lines: Vec<Row> =
        KINDS.iter().flat_map(|(kind, goals)| [0, 1].map(|at| line(*kind, at, goals[at]))).collect();
    for _ in 0..rounds() {
        for (at, (kind, _)) in KINDS.iter().enumerate() {
            write(&mut db, *kind).await;
            mark = put_mark(&mut db, source.kind, "bench_apply", mark.number + 1).await;
            for (column, lanes) in LANES.into_iter().enumerate() {
                let line = &mut lines[at * LANES.len() + column];
                let caught_up = rig.catch_up(&ours(lanes), &routed_mark(&mark, lanes), &mut target).await;
                line.ours.0.push(caught_up.rate());
                line.cpu.0.push(caught_up.cpu());
                line.rss.0.push(caught_up.rss);
                line.reference.0.push(f64::from(ROWS) / prepared(maria, lanes, *kind).await);
                line.work = format!("{} rows; {}", number(f64::from(ROWS)), caught_up.downstream());
            }
            check_equal(&mut db, &mut target.db).await;
        }
    }
    rig.agent.assert_quiet_log();
    lines
}

fn ours(lanes: u32) -> String {
    format!("ours_{lanes}")
}

fn theirs(lanes: u32) -> String {
    format!("theirs_{lanes}")
}

fn line(kind: Kinds, at: usize, least: f64) -> Row {
    let lanes = LANES[at];
    Row {
        case: format!(
            "apply {}, {lanes} lane{}",
            format!("{kind:?}").to_lowercase(),
            if lanes == 1 { "" } else { "s" }
        ),
        unit: "rows/s",
        against: "prepared statement a row",
        goals: vec![Goal::AtLeast(Measure::Ratio, least)],
        ..Row::default()
    }
}

/// The task with everything of the source's schema going to another one.
fn routed(mut task: TaskFile, to: &str) -> TaskFile {
    task.instance_extra = "  route-rules: [elsewhere]\n".into();
    task.extra = format!("routes:\n  elsewhere: {{schema-pattern: bench_apply, target-schema: {to}}}\n");
    task
}

fn routed_mark(mark: &Mark, lanes: u32) -> Mark {
    Mark { table: format!("{}.mark", ours(lanes)), ..mark.clone() }
}

/// The values of a row, before or after its update.
fn values(id: u32, kind: Kinds) -> (u32, String, String) {
    let seed = u64::from(id) * 7919 + u64::from(kind == Kinds::Update);
    let text = |times| format!("{:011}-", seed * 104_729 % 100_000_000_000).repeat(times);
    ((seed % 50_000) as u32, text(10), text(5))
}

/// The rows on the source, transaction by transaction.
async fn write(db: &mut Db, kind: Kinds) {
    for first in (0..ROWS).step_by(TRANSACTION as usize) {
        let rows = first..first + TRANSACTION;
        let value = |id| {
            let (k, c, pad) = values(id, kind);
            format!("({id},{k},'{c}','{pad}')")
        };
        let list = || rows.clone().map(value).collect::<Vec<_>>().join(",");
        db.run(&match kind {
            Kinds::Insert => format!("INSERT INTO sbtest1 VALUES {}", list()),
            Kinds::Update => format!(
                "INSERT INTO sbtest1 VALUES {} AS new ON DUPLICATE KEY UPDATE k = new.k, c = new.c, pad = new.pad",
                list()
            ),
            Kinds::Delete => format!("DELETE FROM sbtest1 WHERE id BETWEEN {first} AND {}", first + TRANSACTION - 1),
        })
        .await;
    }
}

/// The same rows, a prepared statement each, on so many connections; the seconds that took.
async fn prepared(target: &Server, connections: u32, kind: Kinds) -> f64 {
    let mut conns = Vec::new();
    for _ in 0..connections {
        let mut conn = Conn::new(Address::root(target.port).opts()).await.expect("connect");
        conn.query_drop(format!("USE {}", theirs(connections))).await.expect("use a schema");
        conns.push(conn);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, mut conn) in (0u32..).zip(conns) {
        let share = ROWS / connections;
        tasks.spawn(async move {
            let sql = match kind {
                Kinds::Insert => "INSERT INTO sbtest1 (id, k, c, pad) VALUES (?, ?, ?, ?)",
                Kinds::Update => "UPDATE sbtest1 SET k = ?, c = ?, pad = ? WHERE id = ?",
                Kinds::Delete => "DELETE FROM sbtest1 WHERE id = ?",
            };
            let statement = conn.prep(sql).await.expect("prepare");
            for first in (number * share..(number + 1) * share).step_by(TRANSACTION as usize) {
                conn.query_drop("BEGIN").await.expect("begin");
                for id in first..(first + TRANSACTION).min((number + 1) * share) {
                    let (k, c, pad) = values(id, kind);
                    let params: Params = match kind {
                        Kinds::Insert => (id, k, c, pad).into(),
                        Kinds::Update => (k, c, pad, id).into(),
                        Kinds::Delete => (id,).into(),
                    };
                    conn.exec_drop(&statement, params).await.expect("execute");
                }
                conn.query_drop("COMMIT").await.expect("commit");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a connection of the reference ends well");
    }
    began.elapsed().as_secs_f64()
}

/// Speed counts only where the result is right, on both sides.
async fn check_equal(source: &mut Db, target: &mut Db) {
    let sum = "SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('#', id, k, c, pad))), 0) FROM";
    let wanted = source.texts(&format!("{sum} bench_apply.sbtest1")).await;
    for schema in LANES.into_iter().flat_map(|lanes| [ours(lanes), theirs(lanes)]) {
        assert_eq!(target.texts(&format!("{sum} {schema}.sbtest1")).await, wanted, "{schema} differs from the source");
    }
}
