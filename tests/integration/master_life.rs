//! A task's life under a master: start, pause, resume, stop, as dmctl's user sees it.

use std::time::Duration;

use dm_agent::control::proto::pb;

use crate::support::agent::Agent;
use crate::support::cluster::{ClusterLink, WORKER, joining};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::mini_master::MiniMaster;
use crate::support::process::read_lossy;
use crate::support::servers::Kind;

/// Compatibility test 4 and 5 of the protocol.
#[tokio::test]
async fn start_pause_resume_stop_are_decided_by_the_first_poll() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mlife", &source, &target, 60).await;
    let running = link.status().await;
    assert_eq!((running.stage(), running.unit()), (pb::Stage::Running, pb::UnitType::Sync));
    assert!(running.result.is_none(), "{running:?}");

    let paused = link.pause().await;
    assert_eq!(paused.expect_quick().polls, 1, "{paused:?}");
    assert!(paused.took < Duration::from_secs(1), "{paused:?}");
    let before = link.target_rows().await;
    link.insert(5).await;
    let again = link.pause().await;
    assert_eq!(again.expect_quick().polls, 1, "a second pause is a success: {again:?}");
    let status = link.status().await;
    assert_eq!(status.result, Some(pb::ProcessResult { is_canceled: true, ..Default::default() }));
    assert_eq!(link.target_rows().await, before);

    let resumed = link.resume().await;
    assert_eq!(resumed.expect_quick().polls, 1, "{resumed:?}");
    link.wait_equal().await;
    let stopped = link.stop().await;
    assert_eq!(stopped.expect_quick().polls, 1, "{stopped:?}");
    let answer = link.query().await;
    assert!(answer.result && answer.msg == "no sub task started" && answer.sub_task_status.is_empty(), "{answer:?}");

    link.insert(3).await;
    link.start_task(None).await.expect_quick();
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Compatibility test 3: nothing begins anew because a master writes what holds already.
#[tokio::test]
async fn what_is_written_again_disturbs_nothing() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("magain", &source, &target, 60).await;
    let before = link.claims().await;
    for _ in 0..5 {
        link.master.repeat_bounds().await;
        link.master.put_stage(&link.source_id, &link.task, 2).await;
        assert_eq!(link.status().await.stage(), pb::Stage::Running);
    }
    link.insert(2).await;
    link.wait_equal().await;
    assert_eq!(link.claims().await, before, "the task was started anew");
}

/// An agent that comes back finds its tasks as the master wants them now, whatever was written in between.
#[tokio::test]
async fn a_restart_follows_what_was_written_meanwhile() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mrestart", &source, &target, 60).await;
    link.agent.kill9();
    link.master.put_stage(&link.source_id, &link.task, 3).await;
    link.insert(3).await;
    link.agent.restart().await;
    link.wait_for("paused while away", |status| {
        status.stage() == pb::Stage::Paused && status.result.as_ref().is_some_and(|result| result.is_canceled)
    })
    .await;
    let rows = link.target_rows().await;
    assert_eq!(rows, 1);

    link.agent.kill9();
    link.master.put_stage(&link.source_id, &link.task, 2).await;
    link.agent.restart().await;
    link.wait_for("resumed while away", |status| status.stage() == pb::Stage::Running).await;
    link.wait_equal().await;

    link.agent.kill9();
    let (source_id, task, toml) = (link.source_id.clone(), link.task.clone(), link.toml.to_string());
    let restart = link.agent.restart();
    // Stopped and started again while away: the one that is there is another one now.
    let write = async {
        link.master.put_start_time(&source_id, &task, None).await;
        link.master.put_config(&source_id, &task, &toml).await;
    };
    tokio::join!(restart, write);
    link.insert(1).await;
    link.wait_equal().await;
}

/// Compatibility test 1.
#[tokio::test]
async fn a_name_that_is_taken_is_refused_with_exit_code_2() {
    let master = MiniMaster::start().await;
    let first = Agent::start(&joining(&master, WORKER, 60)).await;
    eventually("registered", Duration::from_secs(20), async || {
        if master.is_alive(WORKER).await { Ok(()) } else { Err("no key".to_owned()) }
    })
    .await;
    let port = crate::support::process::free_port();
    let folder = crate::support::process::fresh_folder("second");
    let config = folder.join("dm-agent.toml");
    let text = read_lossy(std::path::Path::new(&first.config()));
    let text = text
        .replace(&first.worker_addr(), &format!("127.0.0.1:{port}"))
        .replace(&first.state_dir().display().to_string(), &folder.join("state").display().to_string())
        .replace(&first.socket().display().to_string(), &folder.join("admin.sock").display().to_string());
    std::fs::write(&config, text).expect("write a configuration");
    let answer = first.run_daemon(&["--config", &config.display().to_string()]).await;
    assert_eq!(answer.exit, Some(2), "{answer:?}");
    // The recorded line is cut behind the first words of the remedy.
    let recorded = include_str!("../golden/log/worker-register-refused.txt").lines().last().expect("the last line");
    let recorded = recorded.split_once("[error=\"").expect("an error").1.replace('\\', "");
    let names = [("127.0.0.1:8261", &*master.address), ("worker3", WORKER), ("127.0.0.1:8264", &first.worker_addr())];
    let expected = names.iter().fold(recorded, |text, (theirs, ours)| text.replace(theirs, ours));
    assert!(answer.text().contains(&expected), "{expected} is not in {answer:?}");
}

/// A local park is told to the master, which cannot lift it.
#[tokio::test]
async fn a_local_park_outlives_the_masters_resume() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mlocal", &source, &target, 60).await;
    let (task, source_id) = (link.task.clone(), link.source_id.clone());
    link.agent.ctl(&["start-task", &link.agent.config()]).await.expect_refusal(&[]);
    link.agent.ctl(&["stop-task", &task]).await.expect_refusal(&["dm-master", "dmctl"]);
    link.agent.ctl(&["operate-source", "stop", "-s", &source_id]).await.expect_refusal(&["dm-master"]);
    link.agent.ctl(&["stop-relay", "-s", &source_id]).await.expect_refusal(&["dm-master"]);

    link.agent.ctl(&["pause-task", &task]).await.expect_success();
    let status = link.status().await;
    let result = status.result.clone().unwrap_or_default();
    assert_eq!(status.stage(), pb::Stage::Paused);
    assert!(!result.is_canceled && result.errors[0].message.contains("parked on this machine by uid"), "{status:?}");
    let resumed = link.resume().await;
    assert!(!resumed.ok && resumed.polls == 1, "told at once: {resumed:?}");
    assert!(resumed.errors[0].workaround.contains("dm-agentctl resume-task"), "{resumed:?}");

    link.agent.restart().await;
    link.insert(1).await;
    link.wait_for("still parked", |status| {
        status.stage() == pb::Stage::Paused
            && status
                .result
                .as_ref()
                .is_some_and(|result| !result.errors.is_empty() && result.errors[0].message.contains("uid"))
    })
    .await;
    link.agent.ctl(&["resume-task", &task]).await.expect_success();
    link.wait_equal().await;

    // The other way round: the master's pause is not lifted here.
    link.pause().await.expect_quick();
    link.agent.ctl(&["resume-task", &task]).await.expect_success();
    assert_eq!(link.status().await.stage(), pb::Stage::Paused);
    link.resume().await.expect_quick();
}
