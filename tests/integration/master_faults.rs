//! The way to the masters is cut, slow, or leads to what was forgotten; the agent itself stands still. Whatever it is,
//! nothing is applied without a lease, nothing is lost and nothing comes twice, and it ends without an operator.

use std::time::{Duration, Instant};

use dm_agent::control::proto::pb;
use rustix::process::Signal;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::cluster::{ClusterLink, WORKER, source_toml};
use crate::support::etcd::delete;
use crate::support::eventually;
use crate::support::fixture::{location, shared_pair};
use crate::support::mini_master::{MiniMaster, key};
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::Kind;

/// Seconds that leases last.
const TTL: u32 = 6;

/// A cluster whose first worker can be cut off.
async fn start(label: &str) -> (ClusterLink, Proxy) {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let (master, proxy) = MiniMaster::start_behind().await;
    let top = format!("join = \"127.0.0.1:{}\"\nkeepalive-ttl = {TTL}\n", proxy.port);
    let options = AgentOptions { name: WORKER.into(), top, ..AgentOptions::default() };
    let mut link = ClusterLink::start_in(label, &source, &target, master, &options).await;
    link.source.run("CREATE TABLE k (v VARCHAR(50), n INT)").await;
    link.wait_equal().await;
    (link, proxy)
}

/// Also into a table without a key, where a row applied twice would show.
async fn write(link: &mut ClusterLink, rows: u32) {
    for number in 0..rows {
        link.source.run(&format!("INSERT INTO k VALUES (UUID(), {number})")).await;
        link.insert(1).await;
    }
}

async fn stage(agent: &Agent) -> String {
    agent.status().await["tasks"][0]["stage"].as_str().unwrap_or("none").to_owned()
}

async fn wait_stage(agent: &Agent, wanted: &str, limit: Duration) {
    eventually(wanted, limit, async || match stage(agent).await {
        stage if stage == wanted => Ok(()),
        _ => Err(agent.status().await.to_string()),
    })
    .await;
}

/// Cut off from the masters while they live: fenced before the lease is over there, and another worker goes on. Back again it
/// lets go of what is not its own any more.
#[tokio::test]
async fn a_partition_moves_the_source_and_heals() {
    let (mut link, proxy) = start("mpart").await;
    let other = link.second_worker(TTL).await;
    proxy.set(Fault::BlackHole);
    let cut = Instant::now();
    write(&mut link, 3).await;
    wait_stage(&link.agent, "Paused", Duration::from_secs(u64::from(TTL))).await;
    let fenced = cut.elapsed();
    // Until then the other one had no reason to begin.
    assert_eq!(link.master.worker_of(&link.source_id).await.as_deref(), Some(WORKER), "fenced after {fenced:?}");
    write(&mut link, 3).await;
    link.wait_moved("worker2").await;
    link.wait_equal().await;
    eprintln!("fenced {fenced:?}, elsewhere {:?} after the cut", cut.elapsed());

    proxy.set(Fault::None);
    eventually("the first lets go", Duration::from_secs(30), async || {
        let status = link.agent.status().await;
        if status["sources"].as_array().is_none_or(Vec::is_empty) { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    write(&mut link, 3).await;
    link.wait_equal().await;
    other.assert_quiet_log();
    link.agent.assert_quiet_log();
}

/// Connections are reset again and again, and answers come late: the lease is kept, tasks obey, and nothing is fenced.
#[tokio::test]
async fn a_slow_and_broken_way_costs_time_and_nothing_else() {
    let (mut link, proxy) = start("mslow").await;
    let starts = async |agent: &Agent| agent.status().await["tasks"][0]["starts"].as_u64();
    let before = starts(&link.agent).await;
    for fault in [Fault::Delay(Duration::from_millis(150)), Fault::None, Fault::Delay(Duration::from_millis(150))] {
        proxy.set(fault);
        write(&mut link, 2).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        proxy.reset_connections();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage(&link.agent).await, "Running");
    assert_eq!(starts(&link.agent).await, before, "fenced, or begun anew");
    assert!(link.pause().await.ok && link.resume().await.ok);
    proxy.set(Fault::None);
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// What it was to be told while it was cut off is compacted away: a subtask that was deleted goes, one that is new comes.
#[tokio::test]
async fn compaction_behind_a_partition_hides_nothing() {
    let (mut link, proxy) = start("mcomp").await;
    proxy.set(Fault::BlackHole);
    let etcd = link.master.etcd.read().await;
    let (id, task, toml) = (link.source_id.clone(), link.task.clone(), link.toml.clone());
    let keys = ["/dm-master/stage/subtask/", "/dm-master/upstream/subtask/"].map(|prefix| key(prefix, &[&id, &task]));
    etcd.write(keys.iter().map(|key| delete(key)).collect()).await;
    drop(etcd);
    let name = format!("{task}_new");
    let mut other = toml;
    other.insert("name".into(), name.clone().into());
    let here = location(&mut link.source, link.kind).await;
    let meta = other["meta"].as_table_mut().expect("a table");
    meta.insert("binlog-name".into(), here.file.into());
    meta.insert("binlog-pos".into(), i64::try_from(here.position).expect("a position").into());
    meta.insert("binlog-gtid".into(), here.gtid.into());
    link.master.put_config(&id, &name, &other.to_string()).await;
    link.master.put_stage(&id, &name, 3).await;
    let etcd = link.master.etcd.read().await;
    let revision = etcd.write(vec![delete("/dm-master/nothing")]).await;
    etcd.compact(revision).await;
    drop(etcd);
    proxy.set(Fault::None);
    let status = eventually("the wanted state", Duration::from_secs(30), async || {
        let answer = link.master.query(WORKER, "").await.map_err(|status| status.to_string())?;
        let names: Vec<_> = answer.sub_task_status.iter().map(|status| status.name.clone()).collect();
        if names == [name.clone()] { Ok(answer.sub_task_status[0].clone()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(status.stage(), pb::Stage::Paused, "{status:?}");
    link.task = name;
    link.toml = other;
    assert!(link.resume().await.ok);
    write(&mut link, 1).await;
    link.wait_equal().await;
}

/// The agent stands still for longer than its lease lasts, as on a machine that was suspended: what it had in hand is not
/// written when it goes on.
#[tokio::test]
async fn an_agent_that_stood_still_writes_nothing_it_may_not() {
    let (mut link, _proxy) = start("mstill").await;
    let other = link.second_worker(TTL).await;
    let mut writer = shared_pair(Kind::MySql, Kind::MariaDb).await.0.root().await;
    let schema = link.schema.clone();
    let load = tokio::spawn(async move {
        writer.run(&format!("USE {schema}")).await;
        for number in 0..600 {
            writer.run(&format!("INSERT INTO k VALUES (UUID(), {number})")).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    link.agent.signal(Signal::STOP);
    link.wait_moved("worker2").await;
    link.agent.signal(Signal::CONT);
    load.await.expect("the load ends");
    link.wait_equal().await;
    eventually("the first lets go", Duration::from_secs(30), async || {
        let status = link.agent.status().await;
        if status["sources"].as_array().is_none_or(Vec::is_empty) { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    other.assert_quiet_log();
}

/// Two masters in `join` that know nothing of each other: whichever of them has given the lease is followed, whatever the
/// other one says, for as long as the lease can be kept.
#[tokio::test]
async fn of_two_clusters_one_is_followed() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let stranger = MiniMaster::start().await;
    let (master, proxy) = MiniMaster::start_behind().await;
    let top = format!("join = \"127.0.0.1:{},{}\"\nkeepalive-ttl = 30\n", proxy.port, stranger.address);
    let options = AgentOptions { name: WORKER.into(), top, ..AgentOptions::default() };
    let mut link = ClusterLink::start_in("mtwoc", &source, &target, master, &options).await;
    let before = link.claims().await;
    // A connection that breaks leads to the next address, which is the other cluster's.
    for _ in 0..4 {
        proxy.reset_connections();
        link.insert(1).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    eventually("it was met, and told", Duration::from_secs(20), async || {
        proxy.reset_connections();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = link.agent.log().contains("a master of another cluster answers");
        if told { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    link.wait_equal().await;
    let status = link.agent.status().await;
    assert_eq!((&status["tasks"][0]["stage"], link.claims().await), (&"Running".into(), before), "{status}");
    assert!(!stranger.is_alive(WORKER).await, "the other cluster was given a lease");
    assert!(link.pause().await.ok && link.resume().await.ok);
    link.insert(1).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// The source itself is lost: its task and its relay log are shown as a dm-worker's, with what is wrong, and come back.
#[tokio::test]
async fn a_lost_source_is_told_to_the_master() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("msrc", &source, &target, 60).await;
    let way = Proxy::start(source.port);
    link.master.put_source(&link.source_id, &source_toml(&link.source_id, link.kind, way.port, false)).await;
    link.master.start_relay_on(&link.source_id, WORKER).await;
    link.insert(1).await;
    link.wait_equal().await;
    let relay = |answer: &pb::QueryStatusResponse| answer.source_status.clone().unwrap_or_default().relay_status;
    eventually("it goes by the new way", Duration::from_secs(20), async || {
        let answer = link.query().await;
        let runs = way.reply_bytes() > 0 && relay(&answer).is_some_and(|relay| relay.stage() == pb::Stage::Running);
        if runs { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let state = async |link: &ClusterLink| {
        let page = link.agent.get("/metrics").await.body;
        let line = page.lines().find(|line| line.starts_with("dm_worker_task_state{")).unwrap_or_default().to_owned();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    way.set(Fault::Refuse);
    let failed = |status: &pb::SubTaskStatus| {
        let result = status.result.clone().unwrap_or_default();
        status.stage() == pb::Stage::Paused && !result.is_canceled && !result.errors.is_empty()
    };
    let lost = link.wait_for("the failure is told", failed).await;
    let Some(pb::sub_task_status::Status::Sync(sync)) = &lost.status else { panic!("{lost:?}") };
    assert!(sync.master_binlog.is_empty() && sync.master_binlog_gtid.is_empty() && !sync.synced, "{sync:?}");
    let answer = link.query().await;
    assert_eq!(answer.source_status.as_ref().and_then(|source| source.result.clone()), None, "told once");
    let relayed = relay(&answer).expect("on");
    assert_eq!(relayed.stage(), pb::Stage::Paused, "{relayed:?}");
    assert!(!relayed.result.clone().unwrap_or_default().errors.is_empty(), "{relayed:?}");
    assert_eq!(state(&link).await, "3");
    // A pause is a pause, and a resume does not hide what is wrong.
    let paused = link.pause().await;
    assert!(paused.ok, "{paused:?}");
    assert!(link.status().await.result.unwrap_or_default().is_canceled);
    let resumed = link.resume().await;
    assert!(!resumed.ok && !resumed.errors.is_empty(), "{resumed:?}");

    way.set(Fault::None);
    link.wait_for("it runs", |status| status.stage() == pb::Stage::Running && status.result.is_none()).await;
    link.insert(1).await;
    link.wait_equal().await;
    assert_eq!(state(&link).await, "2");
    assert_eq!(relay(&link.query().await).expect("on").stage(), pb::Stage::Running);
}
