//! A worker that is killed, or stopped, in each state that a subtask can be in comes back in that state.

use std::time::Duration;

use dm_agent::control::proto::pb;

use crate::support::cluster::{ClusterLink, WORKER};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::servers::Kind;

/// What of a status must be the same behind a restart.
fn state(status: &pb::SubTaskStatus) -> (pb::Stage, bool, Vec<(i32, String)>) {
    let result = status.result.clone().unwrap_or_default();
    let errors = result.errors.into_iter().map(|error| (error.err_code, error.raw_cause)).collect();
    (status.stage(), result.is_canceled, errors)
}

/// Whether the agent follows its master: it has its lease, and has looked.
async fn follows(link: &ClusterLink) -> Result<(), String> {
    let status = link.agent.status().await;
    let parks = status["tasks"][0]["parks"].as_array().cloned().unwrap_or_default();
    let waits = parks.iter().any(|park| park["reason"] == "lease");
    if waits || status["tasks"].as_array().is_none_or(Vec::is_empty) { Err(status.to_string()) } else { Ok(()) }
}

/// Ends the agent in one way or the other, and starts it again once its master has taken notice, if it can: a source
/// that is still bound after the stop would be taken away a moment after the start.
async fn ended_and_started(link: &mut ClusterLink, what: &str, graceful: bool) {
    if graceful {
        let status = link.agent.terminate();
        assert!(status.success(), "{what}: {status}");
        eventually("the master has noticed", Duration::from_secs(10), async || {
            if link.master.worker_of(&link.source_id).await.is_some() { Err("still bound".to_owned()) } else { Ok(()) }
        })
        .await;
    } else {
        link.agent.kill9();
    }
    link.agent.restart().await;
    link.wait_bound().await;
}

/// Ends the agent, starts it again, and waits until the subtask is as it was.
async fn restarted(link: &mut ClusterLink, what: &str, graceful: bool) {
    let before = state(&link.status().await);
    ended_and_started(link, what, graceful).await;
    eventually(&format!("{what}, as before"), Duration::from_secs(30), async || {
        follows(link).await?;
        let answer = link.master.query(WORKER, &link.task).await.map_err(|status| status.to_string())?;
        let now = answer.sub_task_status.first().map(state);
        if now.as_ref() == Some(&before) { Ok(()) } else { Err(format!("{before:?} was {now:?}")) }
    })
    .await;
}

async fn both_ways(link: &mut ClusterLink, what: &str) {
    for graceful in [false, true] {
        restarted(link, what, graceful).await;
    }
}

/// Running, paused, paused by its machine's operator, failed, failed and then paused (compatibility tests 6 and 7), and gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_each_state_changes_nothing() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mstate", &source, &target, 60).await;
    both_ways(&mut link, "running").await;
    link.insert(1).await;
    link.wait_equal().await;

    link.pause().await.expect_quick();
    both_ways(&mut link, "paused").await;
    let rows = link.target_rows().await;
    link.insert(1).await;
    let task = link.task.clone();
    link.agent.ctl(&["pause-task", &task]).await.expect_success();
    both_ways(&mut link, "paused by both").await;
    assert!(!link.resume().await.ok);
    both_ways(&mut link, "paused by the machine's operator").await;
    assert_eq!(link.target_rows().await, rows, "applied while it was paused");
    link.agent.ctl(&["resume-task", &task]).await.expect_success();
    link.wait_equal().await;

    // A duplicate key waits for an operator: nothing resumes it by itself, also behind a restart.
    let next = link.source.number("SELECT MAX(id) + 1 FROM t").await;
    link.target.run(&format!("INSERT INTO {}.t VALUES ({next}, 'in the way')", link.schema)).await;
    link.insert(1).await;
    let failed = link.wait_for("it fails", |status| !state(status).2.is_empty()).await;
    let (stage, canceled, errors) = state(&failed);
    assert_eq!((stage, canceled, errors[0].0), (pb::Stage::Paused, false, 10006), "{failed:?}");
    assert!(errors[0].1.starts_with("Error 1062"), "{failed:?}");
    assert!(link.agent.status().await["tasks"][0]["auto_resume_at_ms"].is_null());
    link.agent.expect_error("task failed and waits for an operator");
    for graceful in [false, true] {
        // The master's stage says Running, so a start tries it once more, and meets the same.
        restarted(&mut link, "failed", graceful).await;
    }
    let paused = link.pause().await;
    assert!(paused.ok && !paused.errors.is_empty(), "the errors stand beside the stage: {paused:?}");
    let (stage, canceled, errors) = state(&link.status().await);
    assert!(stage == pb::Stage::Paused && canceled && errors[0].1.starts_with("Error 1062"), "{errors:?}");
    restarted(&mut link, "failed, then paused", false).await;
    // It may be told already, or be at work still.
    link.resume().await;
    link.wait_for("it fails again", |status| !state(status).2.is_empty() && !state(status).1).await;
    link.target.run(&format!("DELETE FROM {}.t WHERE id = {next}", link.schema)).await;
    assert!(link.resume().await.ok);
    link.wait_equal().await;

    link.stop().await.expect_quick();
    for graceful in [false, true] {
        ended_and_started(&mut link, "stopped", graceful).await;
        eventually("no subtask", Duration::from_secs(30), async || {
            let answer = link.master.query(WORKER, "").await.map_err(|status| status.to_string())?;
            let none = answer.result && answer.msg == "no sub task started" && answer.sub_task_status.is_empty();
            if none { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
    link.insert(1).await;
    link.start_task(None).await.expect_quick();
    link.wait_equal().await;
}

/// Compatibility test 7: a lost connection heals by itself.
#[tokio::test]
async fn a_lost_downstream_is_resumed_without_the_master() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let proxy = crate::support::proxy::Proxy::start(target.port);
    let mut link = ClusterLink::start("mheal", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.toml["to"].as_table_mut().expect("a table").insert("port".into(), i64::from(proxy.port).into());
    link.start_task(None).await.expect_quick();
    proxy.set(crate::support::proxy::Fault::Refuse);
    link.insert(2).await;
    link.wait_for("it is parked, and told why", |status| !state(status).2.is_empty()).await;
    assert!(!link.agent.status().await["tasks"][0]["auto_resume_at_ms"].is_null());
    proxy.set(crate::support::proxy::Fault::None);
    let words = ["unit process error", "dispatch auto resume task"];
    eventually("said as a dm-worker says it", Duration::from_secs(30), async || {
        let log = link.agent.log();
        words.iter().find(|words| !log.contains(**words)).map_or(Ok(()), |words| Err((*words).to_owned()))
    })
    .await;
    link.wait_for("it runs again", |status| status.stage() == pb::Stage::Running).await;
    link.wait_equal().await;
}

/// Compatibility test 2: a key that is left behind by a kill and taken up again within its time moves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_and_a_start_within_the_leases_time_move_nothing() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mwithin", &source, &target, 15).await;
    let epoch = format!("SELECT MAX(epoch) FROM dm_meta.{}_agent_lane", link.task);
    let before = link.target.number(&epoch).await;
    link.agent.kill9();
    assert!(link.master.is_alive(WORKER).await, "its lease goes on");
    link.agent.restart().await;
    link.wait_for("it runs", |status| status.stage() == pb::Stage::Running).await;
    assert_eq!(link.master.worker_of(&link.source_id).await.as_deref(), Some(WORKER));
    for _ in 0..3 {
        link.master.repeat_bounds().await;
    }
    link.insert(1).await;
    link.wait_equal().await;
    assert_eq!(link.target.number(&epoch).await, before + 1, "begun once");
    // A stop that is asked for tells the masters at once.
    link.agent.terminate();
    eventually("the key is gone", Duration::from_secs(2), async || {
        if link.master.is_alive(WORKER).await { Err("still there".to_owned()) } else { Ok(()) }
    })
    .await;
}
