//! A task that always has something to catch up with: when the OLTP history ends, it begins again.

use std::time::Duration;

use crate::history::{Oltp, TASK};
use crate::rig::Rig;
use crate::support::db::Db;
use crate::support::eventually;
use crate::support::servers::Server;

/// Less than this left of the history, and it begins again.
const LEAST_BYTES: u64 = 16 << 20;

/// An agent with [`TASK`] in the midst of the history.
pub struct Backlog<'a> {
    /// The agent.
    pub rig: Rig,
    /// The target, to look at.
    pub target_db: Db,
    oltp: &'a Oltp,
    target: &'a Server,
}

impl<'a> Backlog<'a> {
    /// Begins; the task is parked behind the filling of the tables.
    pub async fn begin(oltp: &'a Oltp, target: &'a Server) -> Backlog<'a> {
        let mut rig = Rig::from_state(oltp.state.clone()).await;
        rig.wait_relayed(&oltp.end().end).await;
        let mut backlog = Backlog { rig, target_db: target.root().await, oltp, target };
        backlog.begin_again().await;
        backlog
    }

    async fn begin_again(&mut self) {
        self.rig.admin.stop(TASK).await;
        self.target_db.run("DROP DATABASE IF EXISTS oltp").await;
        self.rig.start_task(&Oltp::task(TASK, self.target, &self.oltp.start)).await;
        self.oltp.prepared.as_ref().expect("the tables were filled").wait(&mut self.target_db).await;
        self.rig.admin.pause(TASK).await;
    }

    /// Makes sure that the parked task has enough before it.
    pub async fn refill(&mut self) {
        let left = self.rig.task(TASK).await.backlog_bytes;
        if left.is_none_or(|left| left < LEAST_BYTES) {
            self.begin_again().await;
        }
    }

    /// Lets it apply everything.
    pub async fn run_dry(&mut self) {
        self.rig.admin.resume(TASK).await;
        self.rig.wait_applied(TASK, &self.oltp.end().end).await;
    }

    /// What is stored of the lanes: changes with each group.
    pub async fn lanes(&mut self) -> Vec<Vec<String>> {
        let columns = "lane, binlog_name, binlog_pos, binlog_gtid, row_ordinal";
        self.target_db
            .texts(&format!("SELECT {columns} FROM dm_meta.{TASK}_agent_lane WHERE lane >= 0 ORDER BY lane"))
            .await
    }

    /// Waits until it applies, whatever came before.
    pub async fn wait_busy(&mut self) {
        let before = self.lanes().await;
        eventually("it applies", Duration::from_secs(20), async || {
            if self.lanes().await == before { Err("the lanes stand".to_owned()) } else { Ok(()) }
        })
        .await;
    }
}
