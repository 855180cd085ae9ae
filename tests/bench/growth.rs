//! "How cost grows": the same catch-up over lanes, tables, row sizes and transaction sizes, over a hot row and a table without a key.
//!
//! Each point is measured with a quarter of the work and with all of it: what grows no worse than linearly has the same rate in
//! both. Memory must stay below the agent's limit in all of them.

use crate::bed::{Bed, source};
use crate::history::put_mark;
use crate::outcome::{Goal, Measure, Row};
use crate::rig::{CaughtUp, Downstream, LANES, Mark, Rig, task};
use crate::rounds;
use crate::support::db::Db;
use crate::support::fixture::location;
use crate::support::servers::{Kind, Server};
use crate::table::number;

/// Four times the work may take this much longer than four times the time, and no more; the rest is noise of short runs.
const LINEAR: f64 = 0.75;
/// The agent's memory limit under load, in MB.
const MEMORY: f64 = 256.0;

/// One kind of load, in a schema of its own.
struct Point {
    name: &'static str,
    lanes: u32,
    /// Statements that make its tables; run once, in its schema.
    setup: fn() -> Vec<String>,
    /// Statements of so many row changes; the number of those before is given too.
    write: fn(first: u64, count: u64) -> Vec<String>,
    /// Row changes of a whole.
    count: u64,
}

/// All points.
const POINTS: &[Point] = &[
    Point { name: "OLTP on 1 lane", lanes: 1, setup: oltp, write: changes, count: 40_000 },
    Point { name: "OLTP on 4 lanes", lanes: 4, setup: oltp, write: changes, count: 40_000 },
    Point { name: "OLTP on 16 lanes", lanes: 16, setup: oltp, write: changes, count: 40_000 },
    Point { name: "10 tables", lanes: LANES, setup: || tables(10), write: |f, n| spread(10, f, n), count: 40_000 },
    Point { name: "100 tables", lanes: LANES, setup: || tables(100), write: |f, n| spread(100, f, n), count: 40_000 },
    Point {
        name: "1000 tables",
        lanes: LANES,
        setup: || tables(1000),
        write: |f, n| spread(1000, f, n),
        count: 40_000,
    },
    Point { name: "rows of 100 B", lanes: LANES, setup: blob, write: |f, n| wide(100, f, n), count: 80_000 },
    Point { name: "rows of 1 KB", lanes: LANES, setup: blob, write: |f, n| wide(1_000, f, n), count: 40_000 },
    Point { name: "rows of 100 KB", lanes: LANES, setup: blob, write: |f, n| wide(100_000, f, n), count: 800 },
    Point { name: "transactions of 1 row", lanes: LANES, setup: single, write: one_by_one, count: 30_000 },
    Point {
        name: "transactions of 100 rows",
        lanes: LANES,
        setup: single,
        write: |f, n| inserts(100, f, n),
        count: 80_000,
    },
    Point {
        name: "transactions of 100,000 rows",
        lanes: LANES,
        setup: single,
        write: |f, n| inserts(n, f, n),
        count: 100_000,
    },
    Point { name: "hot: all changes on 10 keys", lanes: LANES, setup: hot, write: heat, count: 80_000 },
    Point { name: "table without a key, 1,000 rows", lanes: LANES, setup: keyless, write: churn, count: 4_000 },
];

/// The table.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let maria = bed.maria().await;
    let source = source(Kind::MySql).await;
    let mut db = source.root().await;
    db.run_all(["SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 2"]).await;
    let mut rig = Rig::start(&source).await;
    let mut target = Downstream::of(maria).await;
    let mut lines = Vec::new();
    for (number, point) in POINTS.iter().enumerate() {
        let line = measure(point, number, &mut rig, (&source, &mut db), (maria, &mut target)).await;
        eprintln!("bench:   {}", crate::table::line(&line));
        lines.push(line);
    }
    lines
}

async fn measure(
    point: &Point,
    index: usize,
    rig: &mut Rig,
    (source, db): (&Server, &mut Db),
    (maria, target): (&Server, &mut Downstream),
) -> Row {
    let name = format!("load_{index}");
    // On both sides, so that replaying DDL takes none of the time.
    let begin = |schema: &str| [format!("CREATE DATABASE {schema}"), format!("USE {schema}"), Mark::TABLE.to_owned()];
    let setup = [&begin(&name)[..], &(point.setup)()].concat();
    tokio::join!(db.run_all(&setup), target.db.run_all(&setup));
    let start = location(db, source.kind).await;
    let mut task = task(&name, &name, maria, &start);
    task.workers = point.lanes;
    rig.start_task(&task).await;
    rig.admin.pause(&name).await;
    let mut line = Row { case: point.name.to_owned(), unit: "rows/s", against: "a quarter of it", ..Row::default() };
    let mut first = 0;
    for round in 0..rounds() as u32 {
        for (part, count) in [(1, point.count / 4), (2, point.count)] {
            db.run_all((point.write)(first, count)).await;
            first += count;
            let mark = put_mark(db, source.kind, &name, round * 2 + part).await;
            let caught_up = rig.catch_up(&name, &mark, target).await;
            match part {
                1 => line.reference.0.push(caught_up.rate()),
                _ => take(&mut line, &caught_up),
            }
        }
    }
    line.goals = vec![Goal::AtLeast(Measure::Ratio, LINEAR), Goal::AtMost(Measure::Rss, MEMORY)];
    rig.admin.stop(&name).await;
    target.db.run(&format!("DROP DATABASE {name}")).await;
    db.run(&format!("DROP DATABASE {name}")).await;
    line
}

fn take(line: &mut Row, caught_up: &CaughtUp) {
    line.ours.0.push(caught_up.rate());
    line.cpu.0.push(caught_up.cpu());
    line.rss.0.push(caught_up.rss);
    line.work = format!("{} row changes; {}", number(caught_up.rows as f64), caught_up.downstream());
}

const COLUMNS: &str = "id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k)";

/// Two updates, a delete and an insert a transaction, as sysbench has them, on 4 tables of 20,000 rows.
fn oltp() -> Vec<String> {
    let each = |sql: &str| (0..4).map(|table| sql.replace('#', &table.to_string())).collect::<Vec<_>>();
    let fill = |table: u64| (0..20_000).step_by(500).map(move |at| multi_row(&format!("t{table}"), at, 500));
    let arms = "WHEN # THEN UPDATE t# SET k = k + 1 WHERE id = one; UPDATE t# SET c = REPEAT(i % 10, 120) WHERE id = two; \
                DELETE FROM t# WHERE id = three; INSERT INTO t# VALUES (three, i, REPEAT('c', 120), REPEAT('p', 60)); ";
    let procedure = format!(
        "CREATE PROCEDURE changes(transactions INT) BEGIN DECLARE i INT DEFAULT 0; DECLARE one, two, three INT; \
         WHILE i < transactions DO SET one = RAND() * 19999, two = RAND() * 19999, three = RAND() * 19999; START TRANSACTION; CASE i % 4 {}END CASE; COMMIT; SET i = i + 1; END WHILE; END",
        each(arms).concat()
    );
    let mut statements = each(&format!("CREATE TABLE t# ({COLUMNS})"));
    statements.extend((0..4).flat_map(fill));
    statements.push(procedure);
    statements
}

fn changes(_: u64, count: u64) -> Vec<String> {
    vec![format!("CALL changes({})", count / 4)]
}

fn tables(count: u32) -> Vec<String> {
    (0..count).map(|table| format!("CREATE TABLE t{table} ({COLUMNS})")).collect()
}

/// Ten rows a transaction, each into the next table; a row is changed once after its insert.
fn spread(tables: u64, first: u64, count: u64) -> Vec<String> {
    let transaction = |number: u64| {
        let (table, id) = (number % tables, number * 10);
        let values: Vec<String> = (id..id + 10).map(row).collect();
        let insert = format!("INSERT INTO t{table} VALUES {}", values.join(","));
        [insert, format!("UPDATE t{table} SET k = k + 1 WHERE id BETWEEN {id} AND {}", id + 9)]
    };
    (first / 20..(first + count) / 20).flat_map(transaction).collect()
}

fn row(id: u64) -> String {
    let text = format!("{:011}-", id * 7919 % 100_000_000_000);
    format!("({id},{},'{}','{}')", id % 1000, text.repeat(10), text.repeat(5))
}

fn blob() -> Vec<String> {
    vec!["CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)".into()]
}

/// Inserts of about 100 KB a transaction, one row at least.
fn wide(bytes: u64, first: u64, count: u64) -> Vec<String> {
    let rows = (100_000 / bytes).max(1);
    let transaction = |at: u64| {
        let values: Vec<String> = (at..(at + rows).min(first + count))
            .map(|id| format!("({id},REPEAT('{id:010}',{}))", bytes / 10))
            .collect();
        format!("INSERT INTO t VALUES {}", values.join(","))
    };
    (first..first + count).step_by(rows as usize).map(transaction).collect()
}

fn single() -> Vec<String> {
    let digits = "CREATE TABLE digit (d INT PRIMARY KEY)";
    let fill = "INSERT INTO digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)";
    let one = "CREATE PROCEDURE one_by_one(first INT, rows_ INT) BEGIN DECLARE i INT DEFAULT 0; \
               WHILE i < rows_ DO INSERT INTO t VALUES (first + i, i, REPEAT('c', 120), REPEAT('p', 60)); SET i = i + 1; END WHILE; END";
    vec![format!("CREATE TABLE t ({COLUMNS})"), digits.into(), fill.into(), one.into()]
}

fn one_by_one(first: u64, count: u64) -> Vec<String> {
    vec![format!("CALL one_by_one({first}, {count})")]
}

/// Inserts of `size` rows a transaction.
fn inserts(size: u64, first: u64, count: u64) -> Vec<String> {
    let transaction = |at: u64| {
        format!(
            "INSERT INTO t SELECT {at} + n, n, REPEAT('c', 120), REPEAT('p', 60) FROM (SELECT a.d + 10*b.d + 100*c.d + 1000*d.d \
             + 10000*e.d AS n FROM digit a, digit b, digit c, digit d, digit e) numbers WHERE n < {}",
            size.min(first + count - at)
        )
    };
    match size {
        ..=1_000 => (first..first + count).step_by(size as usize).map(|at| multi_row("t", at, size)).collect(),
        _ => (first..first + count).step_by(size as usize).map(transaction).collect(),
    }
}

fn multi_row(table: &str, at: u64, size: u64) -> String {
    let values: Vec<String> = (at..at + size).map(row).collect();
    format!("INSERT INTO {table} VALUES {}", values.join(","))
}

fn hot() -> Vec<String> {
    let change = "CREATE PROCEDURE heat(transactions INT) BEGIN DECLARE i INT DEFAULT 0; \
                  WHILE i < transactions DO UPDATE t SET k = k + 1; SET i = i + 1; END WHILE; END";
    vec![format!("CREATE TABLE t ({COLUMNS})"), multi_row("t", 0, 10), change.into()]
}

/// Each transaction changes all ten rows.
fn heat(_: u64, count: u64) -> Vec<String> {
    vec![format!("CALL heat({})", count / 10)]
}

fn keyless() -> Vec<String> {
    let rows: Vec<String> = (0..1_000).map(|id| format!("({id}, 0, 'some text of row {id}')")).collect();
    let churn = "CREATE PROCEDURE churn(first INT, rows_ INT) BEGIN DECLARE i INT DEFAULT 0; \
                 WHILE i < rows_ DO UPDATE t SET b = b + 1 WHERE a = (first + i) % 1000; SET i = i + 1; END WHILE; END";
    vec![
        "CREATE TABLE t (a INT, b INT, c VARCHAR(100))".into(),
        format!("INSERT INTO t VALUES {}", rows.join(",")),
        churn.into(),
    ]
}

fn churn(first: u64, count: u64) -> Vec<String> {
    vec![format!("CALL churn({first}, {count})")]
}
