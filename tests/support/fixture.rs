//! One source, one agent, one task, one target: what most tests begin with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::agent::{Agent, AgentOptions, Answer};
use super::db::Db;
use super::docs::{SourceFile, SourceLocation, TaskFile};
use super::eventually;
use super::oracle;
use super::servers::{Kind, Server, ServerOptions, fresh_schema, shared};

/// How long catching up may take on a busy machine.
pub const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

/// How a link is set up.
#[derive(Debug, Clone, Default)]
pub struct LinkOptions {
    /// Agent.
    pub agent: AgentOptions,
    /// The port the agent is told for the source; that of a proxy, or `None` for the source's own.
    pub source_port: Option<u16>,
    /// The same for the target.
    pub target_port: Option<u16>,
    /// The account on the target; `None` for the one that may everything.
    pub target_user: Option<String>,
    /// Further lines of the source file, indented to belong to `from`.
    pub source_extra: String,
    /// Further lines of `target-database`.
    pub target_session: String,
    /// Further lines of the task file.
    pub task_extra: String,
    /// Further lines of the task's instance.
    pub instance_extra: String,
    /// Position mode instead of GTIDs.
    pub by_position: bool,
    /// `worker-count`, where it is not the usual one.
    pub workers: Option<u32>,
}

/// A task that replicates one schema, already started.
pub struct Link {
    /// The agent.
    pub agent: Agent,
    /// The source, to write to.
    pub source: Db,
    /// The target, to look at.
    pub target: Db,
    /// The source server's dialect.
    pub kind: Kind,
    /// The schema, the same on both sides.
    pub schema: String,
    /// The task's name.
    pub task: String,
    /// The source's id.
    pub source_id: String,
    /// The task file, for a later start.
    pub task_file: TaskFile,
}

/// Servers for a test that disturbs neither: the shared ones, with default settings.
pub async fn shared_pair(source: Kind, target: Kind) -> (Arc<Server>, Arc<Server>) {
    let options = ServerOptions::default();
    (shared(source, &options).await, shared(target, &options).await)
}

impl Link {
    /// Starts agent, source and task. The schema is created on the source after the start location, so it arrives as DDL.
    pub async fn start(label: &str, source: &Server, target: &Server, options: &LinkOptions) -> Link {
        let link = Link::made(label, source, target, options).await;
        link.start_task().await.expect_success();
        link
    }

    /// The same with a task that copies what is there, and is not started.
    pub async fn with_mode(
        mode: &'static str,
        label: &str,
        source: &Server,
        target: &Server,
        options: &LinkOptions,
    ) -> Link {
        let mut link = Link::made(label, source, target, options).await;
        (link.task_file.mode, link.task_file.start) = (mode, None);
        link
    }

    async fn made(label: &str, source: &Server, target: &Server, options: &LinkOptions) -> Link {
        let agent = Agent::start(&options.agent).await;
        let (mut source_db, target_db) = (source.root().await, target.root().await);
        let schema = fresh_schema(label);
        let source_id = "mysql-replica-01".to_owned();
        let mut source_file = SourceFile::new(&source_id, source.kind, options.source_port.unwrap_or(source.port));
        source_file.gtid = !options.by_position;
        source_file.extra.clone_from(&options.source_extra);
        let path = agent.file("source.yaml", &source_file.yaml());
        agent.ctl(&["operate-source", "create", &path]).await.expect_success();

        let mut start = location(&mut source_db, source.kind).await;
        if options.by_position {
            start.gtid.clear();
        }
        let task = format!("t_{schema}");
        let mut task_file = TaskFile::new(&task, &source_id, options.target_port.unwrap_or(target.port));
        task_file.schemas = vec![schema.clone()];
        task_file.start = Some(start);
        task_file.target_user = options.target_user.clone().unwrap_or(task_file.target_user);
        task_file.target_extra = options.target_session.clone();
        task_file.extra = options.task_extra.clone();
        task_file.instance_extra = options.instance_extra.clone();
        task_file.workers = options.workers.unwrap_or(task_file.workers);
        source_db.create_schema(&schema).await;
        Link { agent, source: source_db, target: target_db, kind: source.kind, schema, task, source_id, task_file }
    }

    /// start-task with the task's file.
    pub async fn start_task(&self) -> Answer {
        let path = self.agent.file("task.yaml", &self.task_file.yaml());
        self.agent.ctl(&["start-task", &path]).await
    }

    /// pause-task, accepted, and waits until the stage is Paused.
    pub async fn pause(&self) {
        self.agent.ctl(&["pause-task", &self.task]).await.expect_success();
        self.wait_for_stage("Paused").await;
    }

    /// resume-task, accepted.
    pub async fn resume(&self) {
        self.agent.ctl(&["resume-task", &self.task]).await.expect_success();
    }

    /// stop-task, accepted, and waits until the task is gone.
    pub async fn stop_task(&self) {
        self.agent.ctl(&["stop-task", &self.task]).await.expect_success();
        eventually("the task is gone", Duration::from_secs(20), async || {
            let answer = self.agent.ctl(&["query-status", &self.task]).await;
            if answer.succeeded() { Err(answer.stdout) } else { Ok(()) }
        })
        .await;
    }

    /// The subtask's part of `query-status`.
    pub async fn status(&self) -> Value {
        let answer = self.agent.ctl(&["query-status", &self.task]).await;
        let status = answer.json()["sources"][0]["subTaskStatus"][0].clone();
        assert!(status.is_object(), "no subtask in {answer:#?}");
        status
    }

    /// Waits for a stage.
    pub async fn wait_for_stage(&self, stage: &str) -> Value {
        eventually(&format!("stage {stage}"), Duration::from_secs(30), async || {
            let status = self.status().await;
            if status["stage"] == stage { Ok(status) } else { Err(status.to_string()) }
        })
        .await
    }

    /// Waits until an error of the task (parked or being retried) says all these words.
    pub async fn wait_for_error(&self, words: &[&str]) -> Value {
        eventually(&format!("an error with {words:?}"), Duration::from_secs(60), async || {
            let status = self.status().await;
            let text = status["result"].to_string();
            if words.iter().all(|word| text.contains(word)) { Ok(status) } else { Err(status.to_string()) }
        })
        .await
    }

    /// Waits until everything the source has now is in the target, and compares every table.
    pub async fn wait_equal(&mut self) {
        let pair = [(self.schema.as_str(), self.schema.as_str())];
        oracle::eventually_equal(&mut self.source, &mut self.target, &pair, CATCH_UP_LIMIT).await;
    }

    /// The same however long it takes, as long as the task applies something: a table without a key that has grown is slow.
    pub async fn wait_equal_while_it_moves(&mut self) {
        let wanted = location(&mut self.source, self.kind).await;
        let (mut rows, mut moved) = (None, Instant::now());
        loop {
            let task = self.agent.status().await["tasks"][0].clone();
            let at = (task["applied"]["file"].as_str().unwrap_or_default(), task["applied"]["offset"].as_u64());
            if at >= (&*wanted.file, Some(wanted.position)) {
                break;
            }
            let now = task["rows_total"].as_u64();
            if now != rows {
                (rows, moved) = (now, Instant::now());
            }
            assert!(moved.elapsed() < CATCH_UP_LIMIT, "it stands still before {wanted:?}: {task:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.wait_equal().await;
    }

    /// Waits until the relay has everything on disk that the source has now, also while the task is parked. What is only received
    /// is lost with the process, so a test that then purges the source's binlogs must not be content with it.
    pub async fn wait_relayed(&mut self) {
        let wanted = location(&mut self.source, self.kind).await;
        let agent = &self.agent;
        eventually("the relay has what the source has", Duration::from_secs(60), async || {
            let source = agent.source_status().await;
            let relayed = &source["relayed"];
            let (file, offset) = (relayed["file"].as_str().unwrap_or_default(), relayed["offset"].as_u64());
            // Files of one server sort by name.
            if (file, offset) >= (&*wanted.file, Some(wanted.position)) { Ok(()) } else { Err(source.to_string()) }
        })
        .await;
    }

    /// DM's global checkpoint row of the task.
    pub async fn checkpoint(&mut self) -> SourceLocation {
        let sql = format!(
            "SELECT binlog_name, binlog_pos, COALESCE(binlog_gtid, '') FROM dm_meta.{}_syncer_checkpoint \
             WHERE id = '{}' AND is_global = 1",
            self.task, self.source_id
        );
        let rows = self.target.texts(&sql).await;
        let [row] = rows.as_slice() else { panic!("{} checkpoint rows", rows.len()) };
        SourceLocation { file: row[0].clone(), position: row[1].parse().expect("a position"), gtid: row[2].clone() }
    }

    /// A number that changes with any change of the target's schema.
    pub async fn target_fingerprint(&mut self) -> String {
        oracle::fingerprint(&mut self.target, &self.schema).await.expect("fingerprint of the target")
    }
}

/// Where a source stands now.
pub async fn location(db: &mut Db, kind: Kind) -> SourceLocation {
    // The statement has its new name since MySQL 8.2; the old one is gone in 8.4.
    let new_name = match kind {
        Kind::MySql => db.text("SELECT VERSION() REGEXP '^(8[.][2-9]|9|[1-9][0-9])'").await == "1",
        Kind::MariaDb => false,
    };
    let sql = if new_name { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row = db.texts(sql).await.swap_remove(0);
    let gtid = match kind {
        Kind::MySql => row[4].replace('\n', ""),
        Kind::MariaDb => db.text("SELECT @@gtid_binlog_pos").await,
    };
    SourceLocation { file: row[0].clone(), position: row[1].parse().expect("a position"), gtid }
}
