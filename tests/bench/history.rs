//! What sources have written: the OLTP history, small events in small transactions, and the bulk history, large events.

use std::path::PathBuf;
use std::process::Command;

use crate::rig::{Mark, Rig, task};
use crate::support::db::Db;
use crate::support::docs::{SourceLocation, TaskFile};
use crate::support::fixture::location;
use crate::support::process::{copy_folder, fresh_folder, tail};
use crate::support::servers::{Kind, Server};
use crate::support::sysbench::Sysbench;

/// The task of the OLTP history's parked state.
pub const TASK: &str = "bench";
/// Transactions of a stretch; each changes four rows.
const TRANSACTIONS: u32 = 50_000;
/// Row changes a transaction of `oltp_write_only`: two updates, a delete, an insert.
pub const ROWS_A_TRANSACTION: u32 = 4;
/// Threads that write.
const THREADS: u32 = 4;
/// Rows of the bulk history.
const BULK_ROWS: u64 = 2_000_000;

/// `sysbench oltp_write_only`, 4 tables of 50,000 rows, stretch after stretch.
pub struct Oltp {
    /// The server, MySQL 9.7.
    pub source: Server,
    /// Its administrator.
    pub db: Db,
    /// Before everything.
    pub start: SourceLocation,
    /// State of an agent with [`TASK`] parked there.
    pub state: PathBuf,
    /// Behind the filling of the tables.
    pub prepared: Option<Mark>,
    /// What was written so far.
    pub stretches: Vec<Stretch>,
}

/// 200,000 row changes in the order and at the speed at which four threads commit them.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Its end.
    pub mark: Mark,
    /// Row changes.
    pub rows: u64,
    /// What sysbench says it took.
    pub seconds: f64,
}

impl Oltp {
    /// The schema.
    pub const SCHEMA: &str = "oltp";

    /// A server with nothing but the parked state before it.
    pub async fn begin(target: &Server) -> Oltp {
        let source = crate::bed::source(Kind::MySql).await;
        let mut db = source.root().await;
        let start = location(&mut db, source.kind).await;
        let state = parked_state(&source, &Oltp::task(TASK, target, &start)).await;
        Oltp { source, db, start, state, prepared: None, stretches: Vec::new() }
    }

    /// A task from the history's start.
    pub fn task(name: &str, target: &Server, start: &SourceLocation) -> TaskFile {
        task(name, Oltp::SCHEMA, target, start)
    }

    /// Creates and fills the tables; the mark behind that has number 0.
    pub async fn prepare(&mut self) -> Mark {
        self.db.run_all(["CREATE DATABASE oltp".to_owned(), "USE oltp".to_owned(), Mark::TABLE.to_owned()]).await;
        self.sysbench().prepare();
        let mark = self.mark(0).await;
        self.prepared = Some(mark.clone());
        mark
    }

    /// Writes another stretch.
    pub async fn write(&mut self) -> Stretch {
        let number = self.stretches.len() as u32 + 1;
        let seconds = write_events(&self.sysbench(), THREADS, TRANSACTIONS);
        let mark = self.mark(number).await;
        let rows = u64::from(TRANSACTIONS * ROWS_A_TRANSACTION);
        let stretch = Stretch { mark, rows, seconds };
        self.stretches.push(stretch.clone());
        stretch
    }

    /// Makes sure that there are so many stretches, for cases that do not time the writing: without waiting for the disk.
    pub async fn extend_to(&mut self, count: usize) {
        if self.stretches.len() >= count {
            return;
        }
        self.db.run_all(["SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 2"]).await;
        if self.prepared.is_none() {
            self.prepare().await;
        }
        while self.stretches.len() < count {
            self.write().await;
        }
        self.db.run_all(["SET GLOBAL sync_binlog = 1", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"]).await;
    }

    /// The last mark.
    pub fn end(&self) -> Mark {
        self.stretches.last().expect("something was written").mark.clone()
    }

    fn sysbench(&self) -> Sysbench {
        Sysbench { port: self.source.port, schema: Oltp::SCHEMA.into(), tables: 4, rows: 50_000 }
    }

    async fn mark(&mut self, number: u32) -> Mark {
        put_mark(&mut self.db, self.source.kind, Oltp::SCHEMA, number).await
    }
}

/// Writes exactly so many transactions, waits for the end, and gives the seconds that sysbench counted.
fn write_events(sysbench: &Sysbench, threads: u32, events: u32) -> f64 {
    let mut command = Command::new("timeout");
    command.args(["300", "sysbench", "oltp_write_only"]).args(sysbench.args());
    command.args([format!("--threads={threads}"), format!("--events={events}"), "--time=0".into()]);
    // Deadlocks and duplicate keys between threads are part of the load.
    command.args(["--mysql-ignore-errors=1213,1205,1020,1062", "run"]);
    let output = command.output().unwrap_or_else(|error| panic!("run sysbench: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "sysbench run: {}", tail(&text, 20));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("total time:"));
    let seconds = line.and_then(|time| time.trim().trim_end_matches('s').parse().ok());
    seconds.unwrap_or_else(|| panic!("sysbench does not say how long it took: {}", tail(&text, 20)))
}

/// Writes a mark into a schema of a source.
pub async fn put_mark(db: &mut Db, kind: Kind, schema: &str, number: u32) -> Mark {
    db.run(&format!("INSERT INTO {schema}.mark VALUES ({number})")).await;
    Mark { table: format!("{schema}.mark"), number, end: location(db, kind).await }
}

/// The state folder of an agent whose task is parked at its start, where the source stands now.
async fn parked_state(source: &Server, task: &TaskFile) -> PathBuf {
    let mut rig = Rig::start(source).await;
    rig.start_task(task).await;
    rig.admin.pause(&task.name).await;
    rig.agent.terminate();
    let state = fresh_folder("parked").join("state");
    copy_folder(&rig.agent.state_dir(), &state);
    state
}

/// One table filled by statements of ten thousand rows: events as large as a source makes them.
pub struct Bulk {
    /// The server.
    pub source: Server,
    /// State of an agent with a task parked before everything.
    pub state: PathBuf,
    /// Before the first row.
    pub before: SourceLocation,
    /// The end.
    pub mark: Mark,
    /// Row changes.
    pub rows: u64,
}

impl Bulk {
    /// Writes it.
    pub async fn write(target: &Server) -> Bulk {
        let source = crate::bed::source(Kind::MySql).await;
        let mut db = source.root().await;
        let start = location(&mut db, source.kind).await;
        let state = parked_state(&source, &task("bulk", "bulk", target, &start)).await;
        db.run_all(["SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 2"]).await;
        db.run_all(["CREATE DATABASE bulk", "USE bulk", Mark::TABLE, "CREATE TABLE digit (d INT PRIMARY KEY)"]).await;
        db.run("INSERT INTO digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)").await;
        db.run("CREATE TABLE t (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL)")
            .await;
        let before = location(&mut db, source.kind).await;
        const ROWS: u64 = 10_000;
        for first in (0..BULK_ROWS).step_by(ROWS as usize) {
            db.run(&format!(
                "INSERT INTO t SELECT id, id * 7 % 50000, REPEAT(CONCAT(LPAD(id * 7919 % 100000000, 11, '0'), '-'), 10), \
                 REPEAT(CONCAT(LPAD(id * 104729 % 100000000, 11, '0'), '-'), 5) FROM \
                 (SELECT {first} + a.d + 10*b.d + 100*c.d + 1000*d.d AS id FROM digit a, digit b, digit c, digit d) n"
            ))
            .await;
        }
        let mark = put_mark(&mut db, source.kind, "bulk", 0).await;
        Bulk { source, state, before, mark, rows: BULK_ROWS }
    }
}
