//! A source that moves between workers: nothing lost, nothing twice, and quickly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dm_agent::control::proto::pb;

use crate::support::agent::Agent;
use crate::support::cluster::{ClusterLink, WORKER, joining};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::servers::{Kind, Server};

/// Writes until it is told to stop; also into a table without a key, where a row applied twice would show.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    async fn start(server: &Server, schema: &str) -> Load {
        let mut db = server.root().await;
        db.run(&format!("USE {schema}")).await;
        db.run("CREATE TABLE k (v VARCHAR(50), n INT)").await;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (halt, count) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            while !halt.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                db.run_all([
                    "BEGIN".to_owned(),
                    "INSERT INTO t (v) VALUES (UUID()), (UUID())".to_owned(),
                    format!("INSERT INTO k VALUES (UUID(), {number})"),
                    format!("UPDATE t SET v = UUID() WHERE id % 50 = {}", number % 50),
                    "COMMIT".to_owned(),
                ])
                .await;
            }
        });
        Load { stop, written, task }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the load ends");
        self.written.load(Ordering::Relaxed)
    }
}

/// transfer-source between two agents 20 times under load. With a stock worker the first look comes too early and costs
/// ten seconds.
#[tokio::test]
async fn twenty_transfers_under_load() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mmove", &source, &target, 60).await;
    let other = link.second_worker(60).await;
    let load = Load::start(&source, &link.schema).await;
    let mut slowest = Duration::ZERO;
    for turn in 0..20 {
        let to = if turn % 2 == 0 { "worker2" } else { WORKER };
        let took = link.master.transfer_source(&link.source_id, to, &[&link.task]).await;
        slowest = slowest.max(took);
        eventually("it runs there", Duration::from_secs(30), async || {
            let answer = link.master.query(to, &link.task).await.map_err(|status| status.to_string())?;
            let status = answer.sub_task_status.first().cloned().unwrap_or_default();
            if status.stage() == pb::Stage::Running { Ok(()) } else { Err(format!("turn {turn}: {answer:?}")) }
        })
        .await;
    }
    let transactions = load.end().await;
    link.wait_equal().await;
    eprintln!("{transactions} transactions, slowest transfer {slowest:?}");
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    link.agent.assert_quiet_log();
    other.assert_quiet_log();
}

/// A status that follows a stage waits for it to take effect: the user of the master waits for no second poll.
#[tokio::test]
async fn pauses_and_resumes_under_load_are_decided_by_the_first_poll() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mload", &source, &target, 60).await;
    let load = Load::start(&source, &link.schema).await;
    let (mut pauses, mut resumes) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        // The load goes on in between.
        tokio::time::sleep(Duration::from_millis(150)).await;
        for (times, operated) in [(&mut pauses, link.pause().await), (&mut resumes, link.resume().await)] {
            assert_eq!(operated.expect_quick().polls, 1, "{operated:?}");
            times.push(operated.took);
        }
    }
    let stop = link.stop().await;
    assert_eq!(stop.expect_quick().polls, 1, "{stop:?}");
    let transactions = load.end().await;
    pauses.sort();
    resumes.sort();
    eprintln!("{transactions} transactions; pauses {pauses:?}, resumes {resumes:?}, stop {:?}", stop.took);
    // What DM's users are used to is 0.2 s; a busy machine gets some more.
    assert!(pauses[5] < Duration::from_millis(400) && resumes[5] < Duration::from_millis(400));
    link.start_task(None).await.expect_quick();
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// The master gives the source away while its owner still believes in it, and cannot be told: the lanes' fence lets one
/// write. Nothing is lost and nothing twice.
#[tokio::test]
async fn of_two_owners_one_writes() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mtwo", &source, &target, 60).await;
    link.agent.expect_error("another agent has taken over");
    let load = Load::start(&source, &link.schema).await;
    // A cluster of its own that knows nothing of the first one.
    let rival = crate::support::mini_master::MiniMaster::start().await;
    let agent = Agent::start(&joining(&rival, "rival", 60)).await;
    rival.create_source(&link.source_id, &link.source_toml).await;
    eventually("bound", Duration::from_secs(20), async || {
        rival.worker_of(&link.source_id).await.ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let started = rival.start_task(&link.source_id, &link.task, &link.toml.to_string(), None).await;
    assert!(started.ok, "{started:?}");
    let fenced = link
        .wait_for("the first owner is fenced", |status| {
            status.stage() == pb::Stage::Paused
                && status.result.as_ref().is_some_and(|result| !result.errors.is_empty())
        })
        .await;
    let error = &fenced.result.expect("an error").errors[0];
    assert!(error.message.contains("another agent has taken over"), "{error:?}");
    // It does not take it back by itself, whatever its master repeats.
    link.master.repeat_bounds().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(link.status().await.stage(), pb::Stage::Paused);
    load.end().await;
    link.wait_equal().await;
    agent.assert_quiet_log();
}

/// kill -9 of the owner: its lease runs out, the other worker goes on; the first one comes back free.
#[tokio::test]
async fn another_worker_takes_over_a_killed_one() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mkill", &source, &target, 5).await;
    let _other = link.second_worker(60).await;
    let load = Load::start(&source, &link.schema).await;
    link.agent.kill9();
    eventually("worker2 has it", Duration::from_secs(30), async || {
        let answer = link.master.query("worker2", &link.task).await.map_err(|status| status.to_string())?;
        let status = answer.sub_task_status.first().cloned().unwrap_or_default();
        if status.stage() == pb::Stage::Running { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    link.agent.restart().await;
    eventually("worker1 is free", Duration::from_secs(30), async || {
        let answer = link.master.query(WORKER, "").await.map_err(|status| status.to_string())?;
        if answer.msg.contains("code=40070") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    load.end().await;
    link.wait_equal().await;
}

/// The master itself is away, then back: bounds are written again, nothing begins anew. Then the source is removed.
#[tokio::test]
async fn a_master_that_was_away_finds_everything_as_it_was() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mabsent", &source, &target, 60).await;
    link.master.set_absent(true).await;
    link.insert(2).await;
    link.wait_equal().await;
    link.master.set_absent(false).await;
    assert_eq!(link.status().await.stage(), pb::Stage::Running);
    link.stop().await.expect_quick();
    link.master.stop_source(&link.source_id).await;
    eventually("no source", Duration::from_secs(20), async || {
        let answer = link.master.query(WORKER, "").await.map_err(|status| status.to_string())?;
        if answer.msg.contains("code=40070") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// `start-relay -s S worker1 worker2`, of a MariaDB: it drops a replica for another one with its server id, and both have the
/// source's configuration.
#[tokio::test]
async fn two_workers_keep_the_relay_log_of_one_mariadb() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mtwo", &source, &target, 60).await;
    let other = link.second_worker(60).await;
    for worker in [WORKER, "worker2"] {
        link.master.start_relay_on(&link.source_id, worker).await;
    }
    eventually("both receive", Duration::from_secs(30), async || {
        for worker in [WORKER, "worker2"] {
            let answer = link.master.query(worker, "").await.map_err(|status| status.to_string())?;
            let relay = answer.source_status.and_then(|status| status.relay_status);
            match relay {
                Some(relay) if relay.stage() == pb::Stage::Running && relay.result.is_none() => {}
                relay => return Err(format!("{worker}: {relay:?}")),
            }
        }
        Ok(())
    })
    .await;
    for _ in 0..10 {
        link.insert(1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    link.wait_equal().await;
    for agent in [&link.agent, &other] {
        let page = agent.get("/metrics").await.body;
        let errors = page.lines().find(|line| line.starts_with("dm_relay_read_error_count"));
        assert_eq!(errors, Some("dm_relay_read_error_count 0"), "as DM's own tests ask: {}", agent.log());
    }
}
