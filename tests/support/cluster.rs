//! An agent in a cluster: a mini-master, a source, a target, and a task that replicates one schema.

use std::time::Duration;

use dm_agent::control::proto::pb;

use super::agent::{Agent, AgentOptions};
use super::db::Db;
use super::docs::SourceLocation;
use super::eventually;
use super::fixture::{CATCH_UP_LIMIT, location};
use super::mini_master::{MiniMaster, Operated};
use super::oracle;
use super::servers::{Kind, Server, fresh_schema};

const SOURCE: &str = include_str!("../golden/config/etcd-source-minimal.toml");
const SUBTASK: &str = include_str!("../golden/config/etcd-subtask-t1.toml");

/// A source as dm-master stores it.
pub fn source_toml(id: &str, kind: Kind, port: u16, enable_relay: bool) -> String {
    let mut table: toml::Table = SOURCE.parse().expect("the template is TOML");
    table.insert("source-id".into(), id.into());
    table.insert("flavor".into(), kind.flavor().into());
    table.insert("enable-gtid".into(), true.into());
    table.insert("enable-relay".into(), enable_relay.into());
    table["from"].as_table_mut().expect("a table").insert("port".into(), i64::from(port).into());
    table.to_string()
}

/// A subtask as dm-master stores it: `schemas` from `start` on.
pub fn subtask_toml(
    name: &str,
    source: &str,
    target_port: u16,
    schemas: &[&str],
    start: &SourceLocation,
) -> toml::Table {
    let mut table: toml::Table = SUBTASK.parse().expect("the template is TOML");
    table.insert("name".into(), name.into());
    table.insert("source-id".into(), source.into());
    table.insert("checkpoint-flush-interval".into(), 1.into());
    table.insert("worker-count".into(), 4.into());
    table["to"].as_table_mut().expect("a table").insert("port".into(), i64::from(target_port).into());
    let meta = table["meta"].as_table_mut().expect("a table");
    meta.insert("binlog-name".into(), start.file.clone().into());
    meta.insert("binlog-pos".into(), i64::try_from(start.position).expect("a position").into());
    meta.insert("binlog-gtid".into(), start.gtid.clone().into());
    let schemas: Vec<toml::Value> = schemas.iter().map(|schema| (*schema).into()).collect();
    table["block-allow-list"].as_table_mut().expect("a table").insert("do-dbs".into(), schemas.into());
    table
}

/// Options of an agent that joins.
pub fn joining(master: &MiniMaster, name: &str, ttl: u32) -> AgentOptions {
    let top = format!("join = \"{}\"\nkeepalive-ttl = {ttl}\n", master.address);
    AgentOptions { name: name.into(), top, ..AgentOptions::default() }
}

/// A task in a cluster of one agent.
pub struct ClusterLink {
    /// The master.
    pub master: MiniMaster,
    /// The agent, `worker1`.
    pub agent: Agent,
    /// The source, to write to.
    pub source: Db,
    /// The target, to look at.
    pub target: Db,
    /// Its dialect.
    pub kind: Kind,
    /// The schema, the same on both sides.
    pub schema: String,
    /// The task's name.
    pub task: String,
    /// The source's id.
    pub source_id: String,
    /// The subtask as it is stored.
    pub toml: toml::Table,
    /// The source as it is stored.
    pub source_toml: String,
}

/// The worker's name.
pub const WORKER: &str = "worker1";

impl ClusterLink {
    /// Master, agent, source, task: all there, the task running, one table in the schema.
    pub async fn start(label: &str, source: &Server, target: &Server, ttl: u32) -> ClusterLink {
        let master = MiniMaster::start().await;
        let options = joining(&master, WORKER, ttl);
        Self::start_in(label, source, target, master, &options).await
    }

    /// The same with a master that is there.
    pub async fn start_in(
        label: &str,
        source: &Server,
        target: &Server,
        master: MiniMaster,
        options: &AgentOptions,
    ) -> ClusterLink {
        let agent = Agent::start(options).await;
        let mut source_db = source.root().await;
        let schema = fresh_schema(label);
        let source_id = format!("source-{schema}");
        let start = location(&mut source_db, source.kind).await;
        // A source without GTIDs is followed by its positions.
        let mut source_toml = source_toml(&source_id, source.kind, source.port, false);
        if start.gtid.is_empty() {
            source_toml = source_toml.replace("enable-gtid = true", "enable-gtid = false");
        }
        let task = format!("t_{schema}");
        let toml = subtask_toml(&task, &source_id, target.port, &[&schema], &start);
        source_db.create_schema(&schema).await;
        source_db.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(50))").await;
        master.create_source(&source_id, &source_toml).await;
        let mut link = ClusterLink {
            master,
            agent,
            source: source_db,
            target: target.root().await,
            kind: source.kind,
            schema,
            task,
            source_id,
            toml,
            source_toml,
        };
        link.wait_bound().await;
        link.start_task(None).await.expect_quick();
        link.insert(1).await;
        link.wait_equal().await;
        link
    }

    /// Another worker, `worker2`, free and known to the master.
    pub async fn second_worker(&self, ttl: u32) -> Agent {
        let agent = Agent::start(&joining(&self.master, "worker2", ttl)).await;
        eventually("worker2 is there", Duration::from_secs(20), async || {
            if self.master.is_alive("worker2").await { Ok(()) } else { Err("no key".to_owned()) }
        })
        .await;
        agent
    }

    /// Waits until the source is a worker's, and the task runs there.
    pub async fn wait_moved(&self, to: &str) {
        eventually("the source has moved", Duration::from_secs(30), async || {
            let worker = self.master.worker_of(&self.source_id).await;
            if worker.as_deref() == Some(to) { Ok(()) } else { Err(format!("{worker:?}")) }
        })
        .await;
        eventually("it runs there", Duration::from_secs(30), async || {
            let answer = self.master.query(to, &self.task).await.map_err(|status| status.to_string())?;
            let status = answer.sub_task_status.first().cloned().unwrap_or_default();
            if status.stage() == pb::Stage::Running { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    /// Waits until the worker has registered and the source is its.
    pub async fn wait_bound(&self) {
        eventually("the source is bound", Duration::from_secs(30), async || {
            let bound = self.master.worker_of(&self.source_id).await;
            bound.map(drop).ok_or_else(|| "no worker has it".to_owned())
        })
        .await;
    }

    /// start-task.
    pub async fn start_task(&self, start_time: Option<&str>) -> Operated {
        self.master.start_task(&self.source_id, &self.task, &self.toml.to_string(), start_time).await
    }

    /// pause-task.
    pub async fn pause(&self) -> Operated {
        self.master.pause_task(&self.source_id, &self.task).await
    }

    /// resume-task.
    pub async fn resume(&self) -> Operated {
        self.master.resume_task(&self.source_id, &self.task).await
    }

    /// stop-task.
    pub async fn stop(&self) -> Operated {
        self.master.stop_task(&self.source_id, &self.task).await
    }

    /// QueryStatus of the worker.
    pub async fn query(&self) -> pb::QueryStatusResponse {
        self.master.query(WORKER, &self.task).await.expect("QueryStatus")
    }

    /// The subtask in it.
    pub async fn status(&self) -> pb::SubTaskStatus {
        let answer = self.query().await;
        answer.sub_task_status.first().cloned().unwrap_or_else(|| panic!("no subtask in {answer:#?}"))
    }

    /// Waits until the subtask is as wanted.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&pb::SubTaskStatus) -> bool) -> pb::SubTaskStatus {
        eventually(what, Duration::from_secs(60), async || {
            // The port is open only once the agent has registered.
            let answer = self.master.query(WORKER, &self.task).await.map_err(|status| status.to_string())?;
            let status = answer.sub_task_status.first().cloned().unwrap_or_default();
            if wanted(&status) { Ok(status) } else { Err(format!("{answer:?}")) }
        })
        .await
    }

    /// Rows into the source's table.
    pub async fn insert(&mut self, rows: u32) {
        for _ in 0..rows {
            self.source.run("INSERT INTO t (v) VALUES (UUID())").await;
        }
    }

    /// Rows in the target's table.
    pub async fn target_rows(&mut self) -> u64 {
        self.target.number(&format!("SELECT COUNT(*) FROM {}.t", self.schema)).await
    }

    /// How often the task was claimed downstream: each time that applying was begun.
    pub async fn claims(&mut self) -> u64 {
        self.target.number(&format!("SELECT MAX(epoch) FROM dm_meta.{}_agent_lane", self.task)).await
    }

    /// Waits for a line of the agent's log with `words` and, behind them, `more`.
    pub async fn wait_logged(&self, words: &str, more: &str) {
        eventually("it is in the log", CATCH_UP_LIMIT, async || {
            let log = self.agent.log();
            let found = log.lines().any(|line| line.split_once(words).is_some_and(|(_, behind)| behind.contains(more)));
            if found { Ok(()) } else { Err(format!("{words}{more}")) }
        })
        .await;
    }

    /// Waits until everything the source has now is in the target, and compares every table.
    pub async fn wait_equal(&mut self) {
        let pair = [(self.schema.as_str(), self.schema.as_str())];
        oracle::eventually_equal(&mut self.source, &mut self.target, &pair, CATCH_UP_LIMIT).await;
    }
}
