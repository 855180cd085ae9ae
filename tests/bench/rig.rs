//! An agent with one source, as every case that runs the real binary has it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dm_agent::control::proto::agent::{Location, Source, Task};
use dm_agent::model::{Flavor, GtidSet};

use crate::admin::Admin;
use crate::meter::{Spent, Stretch, reset_peak};
use crate::support::agent::{Agent, AgentOptions};
use crate::support::db::Db;
use crate::support::docs::{SourceFile, SourceLocation, TaskFile};
use crate::support::servers::Server;
use crate::table::number;

/// The source's id in all cases.
pub const SOURCE: &str = "mysql-replica-01";
/// Lanes where a case does not say otherwise.
pub const LANES: u32 = 8;
/// Nothing that is measured takes longer.
const LIMIT: Duration = Duration::from_secs(240);

/// A running agent.
pub struct Rig {
    /// The process.
    pub agent: Agent,
    /// Its socket.
    pub admin: Admin,
}

/// How an agent is set up for measuring: as by default.
pub fn options() -> AgentOptions {
    AgentOptions { log_level: "info", ..AgentOptions::default() }
}

/// A task that takes everything of `schema` to a target, from `start` on.
pub fn task(name: &str, schema: &str, target: &Server, start: &SourceLocation) -> TaskFile {
    let mut task = TaskFile::new(name, SOURCE, target.port);
    task.schemas = vec![schema.to_owned()];
    task.start = Some(start.clone());
    task.workers = LANES;
    task
}

/// A target, to look at.
pub struct Downstream {
    /// A connection.
    pub db: Db,
    pid: u32,
}

impl Downstream {
    /// Of a server.
    pub async fn of(server: &Server) -> Downstream {
        Downstream { db: server.root().await, pid: server.process.pid() }
    }

    /// Statements that change rows, and commits, since the server's start.
    async fn counts(&mut self) -> [u64; 2] {
        let changes = ["Com_insert", "Com_update", "Com_delete", "Com_delete_multi", "Com_replace"];
        let rows = self.db.texts("SHOW GLOBAL STATUS LIKE 'Com\\_%'").await;
        let count = |name: &str| -> u64 {
            let row = rows.iter().find(|row| row[0] == name);
            row.and_then(|row| row[1].parse().ok()).unwrap_or_else(|| panic!("the server does not count {name}"))
        };
        [changes.into_iter().map(count).sum(), count("Com_commit")]
    }
}

/// What a catch-up took.
#[derive(Debug, Clone, Copy)]
pub struct CaughtUp {
    /// From the call of resume to the last row downstream.
    pub spent: Spent,
    /// Row changes applied.
    pub rows: u64,
    /// Peak of resident memory meanwhile, in MB.
    pub rss: f64,
    /// CPU that the target used, in seconds.
    pub target_cpu: f64,
    /// Statements that the target ran.
    pub statements: u64,
    /// Transactions that it committed.
    pub commits: u64,
}

impl CaughtUp {
    /// Row changes a second.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.spent.wall
    }

    /// µs of CPU a row change.
    pub fn cpu(&self) -> f64 {
        self.spent.cpu * 1e6 / self.rows as f64
    }

    /// What it meant for the target.
    pub fn downstream(&self) -> String {
        let rows = self.rows as f64;
        format!(
            "target: {} µs CPU a row, {} statements, {} commits",
            number(self.target_cpu * 1e6 / rows),
            number(self.statements as f64),
            number(self.commits as f64)
        )
    }
}

impl Rig {
    /// A new agent with one source.
    pub async fn start(source: &Server) -> Rig {
        Rig::start_at(source, source.port).await
    }

    /// The same; the agent keeps its state in a folder of that name.
    pub async fn start_in(source: &Server, state_dir: &Path) -> Rig {
        Rig::of(source, source.port, &AgentOptions { state_dir: Some(state_dir.to_owned()), ..options() }).await
    }

    /// The same as by default; the agent is told this port for the source, that of a proxy.
    pub async fn start_at(source: &Server, port: u16) -> Rig {
        Rig::of(source, port, &options()).await
    }

    async fn of(source: &Server, port: u16, options: &AgentOptions) -> Rig {
        let agent = Agent::start(options).await;
        let path = agent.file("source.yaml", &SourceFile::new(SOURCE, source.kind, port).yaml());
        agent.ctl(&["operate-source", "create", &path]).await.expect_success();
        let admin = Admin::connect(&agent.socket()).await;
        Rig { agent, admin }
    }

    /// An agent that begins with a copy of a stopped one's state.
    pub async fn from_state(state: PathBuf) -> Rig {
        let agent = Agent::start(&AgentOptions { state: Some(state), ..options() }).await;
        let admin = Admin::connect(&agent.socket()).await;
        Rig { agent, admin }
    }

    /// start-task, as if it had never run before.
    pub async fn start_task(&self, task: &TaskFile) {
        let path = self.agent.file("task.yaml", &task.yaml());
        self.agent.ctl(&["start-task", "--remove-meta", &path]).await.expect_success();
    }

    /// A task's status.
    pub async fn task(&mut self, name: &str) -> Task {
        let status = self.admin.status().await;
        let task = status.tasks.into_iter().find(|task| task.name == name);
        let task = task.unwrap_or_else(|| panic!("no task {name}"));
        assert!(task.failures.is_empty(), "task {name}: {:#?}", task.failures);
        task
    }

    /// The source's status.
    pub async fn source(&mut self) -> Source {
        self.admin.status().await.sources.swap_remove(0)
    }

    /// Waits until the relay log has everything up to a place, on disk.
    pub async fn wait_relayed(&mut self, end: &SourceLocation) -> Source {
        let deadline = Instant::now() + LIMIT;
        loop {
            let source = self.source().await;
            if let Some(relayed) = &source.relayed
                && reaches(relayed, end)
            {
                return source;
            }
            assert!(Instant::now() < deadline, "the relay log does not reach {end:?}: {source:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a task has applied everything up to a place.
    pub async fn wait_applied(&mut self, name: &str, end: &SourceLocation) -> Task {
        let deadline = Instant::now() + LIMIT;
        loop {
            let task = self.task(name).await;
            if let Some(applied) = &task.applied
                && reaches(applied, end)
            {
                return task;
            }
            assert!(Instant::now() < deadline, "task {name} does not reach {end:?}: {task:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resumes a parked task whose backlog ends with `mark`, measures until that is downstream, and pauses it again.
    pub async fn catch_up(&mut self, name: &str, mark: &Mark, target: &mut Downstream) -> CaughtUp {
        self.wait_relayed(&mark.end).await;
        let before = self.task(name).await.rows_total;
        let counts = target.counts().await;
        reset_peak(self.agent.pid());
        let (stretch, target_stretch) = (Stretch::begin(self.agent.pid()), Stretch::begin(target.pid));
        self.admin.resume(name).await;
        mark.wait(&mut target.db).await;
        let (spent, target_cpu) = (stretch.end(), target_stretch.end().cpu);
        let after = self.wait_applied(name, &mark.end).await.rows_total;
        let rss = self.agent.peak_rss_kb() as f64 / 1024.0;
        self.admin.pause(name).await;
        let [statements, commits] = target.counts().await;
        let (statements, commits) = (statements - counts[0], commits - counts[1]);
        CaughtUp { spent, rows: after - before, rss, target_cpu, statements, commits }
    }
}

/// Whether everything up to `end` is also up to `at`. By GTIDs: a stream that was opened anew names the place at which the source
/// opened it, not how far it skipped.
fn reaches(at: &Location, end: &SourceLocation) -> bool {
    let set = |text: &str| GtidSet::parse(Flavor::MySql, text).expect("a GTID set");
    set(&at.gtid_set).contains(&set(&end.gtid))
}

/// The last transaction of a stretch: a row that shows downstream when everything before it was dealt out.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its table downstream.
    pub table: String,
    /// Its number.
    pub number: u32,
    /// Where the source stood behind it.
    pub end: SourceLocation,
}

impl Mark {
    /// The table, to be created in the source's schema.
    pub const TABLE: &str = "CREATE TABLE mark (id INT PRIMARY KEY)";

    /// Polls until it is there.
    pub async fn wait(&self, target: &mut Db) {
        let sql = format!("SELECT 1 FROM {} WHERE id = {}", self.table, self.number);
        let deadline = Instant::now() + LIMIT;
        // The table may not be there yet.
        while !target.try_rows(&sql).await.is_ok_and(|rows| !rows.is_empty()) {
            assert!(Instant::now() < deadline, "mark {} of {} does not come", self.number, self.table);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
