//! What scripts written for dm-worker do to a worker and look for, where no other file has it.

use std::time::Duration;

use dm_agent::control::proto::pb;
use rustix::process::Signal;

use crate::support::cluster::{ClusterLink, WORKER, subtask_toml};
use crate::support::eventually;
use crate::support::fixture::{location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const LIMIT: Duration = Duration::from_secs(30);

/// Scripts stop a worker by SIGHUP, wait until the process is gone, and start it again.
#[tokio::test]
async fn a_hangup_stops_an_agent_that_has_joined() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mhup", &source, &target, 60).await;
    link.insert(2).await;
    link.wait_equal().await;
    link.agent.signal(Signal::HUP);
    eventually("it ends in order", LIMIT, async || match link.agent.exit_status() {
        Some(status) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(!link.master.is_alive(WORKER).await, "the lease is given back, not left to time out");
    link.insert(3).await;
    link.agent.restart().await;
    link.wait_equal().await;
    assert_eq!(link.status().await.stage(), pb::Stage::Running);
}

/// The value of the first line of `/metrics` that begins with `series`.
async fn metric(link: &ClusterLink, series: &str) -> Option<f64> {
    let page = link.agent.get("/metrics").await.body;
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok())
}

/// Families that scripts look for by name.
#[tokio::test]
async fn what_is_counted_by_events_and_commits_is_there() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mcount", &source, &target, 60).await;
    link.source.run("INSERT INTO t (v) VALUES ('a'), ('b'), ('c'), ('d')").await;
    link.wait_equal().await;
    let wanted = [
        "dm_syncer_binlog_event_row_sum",
        "dm_syncer_replication_transaction_batch_count",
        "dm_syncer_replication_transaction_batch_sum",
    ];
    for series in wanted {
        eventually("it is counted", LIMIT, async || match metric(&link, series).await {
            Some(value) if value >= 1.0 => Ok(()),
            other => Err(format!("{series}: {other:?}")),
        })
        .await;
    }
    assert_eq!(metric(&link, "dm_worker_operate_error").await, None, "nothing has failed");

    // An operation that fails is counted, with the master's word for it.
    link.master.put_source(&link.source_id, "source-id = [").await;
    eventually("the failure is counted", LIMIT, async || match metric(&link, "dm_worker_operate_error").await {
        Some(value) if value >= 1.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    link.master.put_source(&link.source_id, &link.source_toml).await;
    link.insert(1).await;
    link.wait_equal().await;
}

/// OpenAPI makes a subtask with the stage Stopped, and starts it later.
#[tokio::test]
async fn a_subtask_that_is_made_stopped_says_so_until_it_is_started() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mstopped", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.insert(2).await;
    link.master.put_config(&link.source_id, &link.task, &link.toml.to_string()).await;
    link.master.put_stage(&link.source_id, &link.task, 4).await;
    let made = link.wait_for("it is there", |status| status.stage() == pb::Stage::Stopped).await;
    assert_eq!(made.result, None);
    link.resume().await.expect_quick();
    link.wait_equal().await;
    // What it stops is paused.
    link.master.put_stage(&link.source_id, &link.task, 4).await;
    link.wait_for("it is paused", |status| status.stage() == pb::Stage::Paused).await;
}

/// `--start-time` is one of the source's clock, in the task's time zone; rows that came before are met without harm.
#[tokio::test]
async fn a_start_time_is_in_the_time_zone_of_the_task() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mzone", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.source.run("INSERT INTO t (v) VALUES ('left out')").await;
    let before = link.target_rows().await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let now = "SELECT DATE_FORMAT(UTC_TIMESTAMP() + INTERVAL 3 HOUR, '%Y-%m-%d %H:%i:%s')";
    let now = link.source.text(now).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    link.source.run("INSERT INTO t (v) VALUES ('there'), ('not there')").await;
    let there = link.source.number("SELECT id FROM t WHERE v = 'there'").await;
    let schema = link.schema.clone();
    link.target.run(&format!("INSERT INTO {schema}.t VALUES ({there}, 'there')")).await;
    link.toml.insert("timezone".into(), "+03:00".into());
    link.start_task(Some(&now)).await.expect_quick();
    eventually("the rows behind the start time", LIMIT, async || match link.target_rows().await {
        rows if rows == before + 2 => Ok(()),
        rows => Err(format!("{rows} rows, {:?}", link.status().await)),
    })
    .await;
    assert_eq!(link.status().await.stage(), pb::Stage::Running);
}

/// Between two cases the source's binlog is reset: what this machine keeps of the one before is of another history.
#[tokio::test]
async fn a_source_that_was_reset_between_two_bindings_begins_anew() {
    reset_between_two_bindings("mreset", false).await;
}

/// The same where the subtask before was stopped on another worker, so that its record is still here.
#[tokio::test]
async fn a_source_that_was_reset_while_it_was_elsewhere_begins_anew() {
    reset_between_two_bindings("maway", true).await;
}

async fn reset_between_two_bindings(label: &str, elsewhere: bool) {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = ClusterLink::start(label, &source, &target, 60).await;
    link.source.run_all(["INSERT INTO t (v) VALUES ('before')", "INSERT INTO t (v) VALUES ('before')"]).await;
    link.wait_equal().await;
    if elsewhere {
        link.master.move_bound(&link.source_id, "another-worker").await;
        eventually("the source is given up", LIMIT, async || {
            let status = link.agent.status().await;
            if status["sources"].as_array().is_none_or(Vec::is_empty) { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        link.master.forget_task(&link.source_id, &link.task).await;
    } else {
        link.stop().await.expect_quick();
        link.master.stop_source(&link.source_id).await;
    }
    let schema = link.schema.clone();
    link.source.run_all(["RESET BINARY LOGS AND GTIDS", "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    link.target.run(&format!("DROP TABLE dm_meta.{}_syncer_checkpoint", link.task)).await;
    link.target.run(&format!("CREATE TABLE {schema}.u (id INT PRIMARY KEY)")).await;
    let start = location(&mut link.source, Kind::MySql).await;
    link.source.run("INSERT INTO u VALUES (1), (2)").await;
    if elsewhere {
        link.master.move_bound(&link.source_id, WORKER).await;
    } else {
        link.master.create_source(&link.source_id, &link.source_toml).await;
    }
    link.toml = subtask_toml(&link.task, &link.source_id, target.port, &[&schema], &start);
    link.start_task(None).await;
    link.source.run("INSERT INTO u VALUES (3)").await;
    link.wait_equal().await;
}
