//! The copy of existing rows under a dm-master: another worker goes on with it behind the marks, and the key by which masters
//! place sources (`load-task`) says who is at it, and nothing behind it.

use std::time::Duration;

use dm_agent::control::proto::pb;

use crate::support::agent::Agent;
use crate::support::cluster::{ClusterLink, WORKER};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::mini_master::key;
use crate::support::servers::Kind;

/// Rows of the table that is met in the middle of its copy.
const ROWS: u32 = 12_000;

/// A cluster with a task of mode `all` that copies slowly, and a second worker.
async fn copying(label: &str, ttl: u32) -> (ClusterLink, Agent) {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start(label, &source, &target, ttl).await;
    link.stop().await.expect_quick();
    let other = link.second_worker(ttl).await;
    link.source.run("CREATE TABLE z (id INT PRIMARY KEY, s VARCHAR(60))").await;
    for first in (0..ROWS).step_by(1000) {
        let values: Vec<String> = (first..first + 1000).map(|id| format!("({id},'row {id}')")).collect();
        link.source.run(&format!("INSERT INTO z VALUES {}", values.join(","))).await;
    }
    link.task = format!("copy_{}", link.schema);
    for (name, value) in [("name", link.task.as_str()), ("mode", "all")] {
        link.toml.insert(name.into(), value.into());
    }
    for (name, value) in [("threads", 1), ("rows", 4), ("pool-size", 1)] {
        link.toml.insert(name.into(), value.into());
    }
    let started = link.start_task(None).await;
    assert!(started.ok, "{started:?}");
    (link, other)
}

/// Whom etcd names.
async fn loader(link: &ClusterLink) -> Option<String> {
    let name = key("/dm-master/load-task/", &[&link.task, &link.source_id]);
    let kv = link.master.etcd.read().await.get(&name).await?;
    Some(String::from_utf8(kv.value).expect("JSON"))
}

async fn wait_for_loader(link: &ClusterLink, wanted: Option<&str>) {
    let wanted = wanted.map(|worker| format!("\"{worker}\""));
    eventually("etcd says who copies", Duration::from_secs(30), async || {
        let found = loader(link).await;
        if found == wanted { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) }
    })
    .await;
}

async fn status_at(link: &ClusterLink, worker: &str) -> Result<pb::SubTaskStatus, String> {
    let answer = link.master.query(worker, &link.task).await.map_err(|status| status.to_string())?;
    Ok(answer.sub_task_status.first().cloned().unwrap_or_default())
}

/// Waits until a worker has copied some rows and is not at its end.
async fn in_the_copy(link: &ClusterLink, worker: &str) -> i64 {
    eventually("it copies there", Duration::from_secs(40), async || {
        let status = status_at(link, worker).await?;
        match &status.status {
            Some(pb::sub_task_status::Status::Load(load)) if load.finished_bytes > 0 => Ok(load.finished_bytes),
            _ => Err(format!("{status:?}")),
        }
    })
    .await
}

async fn wait_exact(link: &ClusterLink, agent: &Agent) {
    eventually("the exact mode has begun", Duration::from_secs(90), async || {
        let status = agent.status().await;
        let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
        let task = tasks.iter().find(|task| task["name"] == link.task.as_str()).cloned().unwrap_or_default();
        let exact = task["safe_mode"].as_str().unwrap_or_default().is_empty() && task["unit"] == "Sync";
        if exact && task["stage"] == "Running" { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
}

/// kill -9 of the worker that copies: another one goes on behind its marks, and says so; behind the copy nobody does.
#[tokio::test]
async fn a_killed_workers_copy_goes_on_at_another() {
    let (mut link, other) = copying("mcopy", 5).await;
    in_the_copy(&link, WORKER).await;
    wait_for_loader(&link, Some(WORKER)).await;
    link.agent.kill9();
    let (schema, rows) = (link.schema.clone(), format!("SELECT COUNT(*) FROM {}.z", link.schema));
    let before = link.target.number(&rows).await;
    assert!(before > 0 && before < u64::from(ROWS), "{before} rows were there at the kill");
    // What is marked is not copied again.
    link.target.run(&format!("UPDATE {schema}.z SET s = 'touched' WHERE id < 5")).await;
    in_the_copy(&link, "worker2").await;
    wait_for_loader(&link, Some("worker2")).await;
    // The first one is back, and is not given it again.
    link.agent.restart().await;
    link.source.run("DELETE FROM z WHERE id % 7 = 6").await;
    wait_exact(&link, &other).await;
    wait_for_loader(&link, None).await;
    assert_eq!(link.master.worker_of(&link.source_id).await.as_deref(), Some("worker2"));
    let touched = format!("{rows} WHERE s = 'touched'");
    assert_eq!(link.target.number(&touched).await, 5, "what was there was copied again");
    link.target.run(&format!("UPDATE {schema}.z SET s = CONCAT('row ', id) WHERE id < 5")).await;
    link.wait_equal().await;
    other.assert_quiet_log();
}

/// transfer-source in the middle of a copy, there and back; a local park that the master's resume does not lift; stop-task.
#[tokio::test]
async fn a_copy_is_moved_parked_and_stopped() {
    let (mut link, other) = copying("mcopy2", 60).await;
    let mut written = in_the_copy(&link, WORKER).await;
    for worker in ["worker2", WORKER] {
        let took = link.master.transfer_source(&link.source_id, worker, &[&link.task]).await;
        assert!(took < Duration::from_secs(4), "{took:?}");
        wait_for_loader(&link, Some(worker)).await;
        // What a worker remembers of its last time is shown until it has read the marks.
        written = eventually("it goes on behind the marks", Duration::from_secs(30), async || {
            let now = in_the_copy(&link, worker).await;
            if now > written { Ok(now) } else { Err(format!("{now} bytes at {worker}, {written} had been written")) }
        })
        .await;
    }
    link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
    assert_eq!(loader(&link).await.as_deref(), Some("\"worker1\""), "an operator's pause moves nothing");
    let paused = link.pause().await;
    assert!(paused.ok, "{paused:?}");
    assert_eq!(loader(&link).await, None, "gone before the master knows of its pause");
    let status = status_at(&link, WORKER).await.expect("a status");
    assert_eq!((status.stage(), status.unit()), (pb::Stage::Paused, pb::UnitType::Load), "{status:?}");
    // The operator's reason is not the master's to take away.
    link.master.put_stage(&link.source_id, &link.task, 2).await;
    eventually("the master's reason is taken away", Duration::from_secs(10), async || {
        let parks = link.agent.status().await["tasks"][0]["parks"].to_string();
        if parks.contains("master") { Err(parks) } else { Ok(()) }
    })
    .await;
    let status = status_at(&link, WORKER).await.expect("a status");
    assert_eq!(status.stage(), pb::Stage::Paused, "{status:?}");
    link.agent.ctl(&["resume-task", &link.task]).await.expect_success();
    in_the_copy(&link, WORKER).await;
    link.stop().await.expect_quick();
    wait_for_loader(&link, None).await;
    let started = link.start_task(None).await;
    assert!(started.ok, "{started:?}");
    assert!(in_the_copy(&link, WORKER).await >= written, "the copy was begun anew");
    let agent = &link.agent;
    wait_exact(&link, agent).await;
    wait_for_loader(&link, None).await;
    link.source.run("UPDATE z SET s = 'last' WHERE id = 7").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
    other.assert_quiet_log();
}
