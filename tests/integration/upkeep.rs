//! What an operator does and meets over the months: passwords that change, records that break, servers that are replaced; and
//! whether the numbers he reads are true.

use std::time::{Duration, Instant};

use dm_agent::store::{CheckpointDb, Namespace};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::SourceFile;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const LIMIT: Duration = Duration::from_secs(40);

async fn task(agent: &Agent, name: &str) -> Value {
    let status = agent.status().await;
    let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
    tasks.into_iter().find(|task| task["name"] == name).unwrap_or_else(|| panic!("no task {name} in {status}"))
}

/// Milliseconds, whether the JSON has them as a number or as text.
fn millis(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Silence is no lag, a dead connection is, and a change after silence is as old as it is.
#[tokio::test]
async fn lags_are_true() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let (up, down) = (Proxy::start(source.port), Proxy::start(target.port));
    let options = LinkOptions { source_port: Some(up.port), target_port: Some(down.port), ..LinkOptions::default() };
    let mut link = Link::start("lags", &source, &target, &options).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;

    // A silent source that lives: no lag, however long ago its last event was.
    let began = Instant::now();
    let mut settled = false;
    while began.elapsed() < Duration::from_secs(12) {
        let (source, task) = (link.agent.source_status().await, task(&link.agent, &link.task).await);
        let lags = (millis(&source["receive_lag_ms"]), millis(&task["lag_ms"]));
        settled |= lags == (Some(0), Some(0));
        assert!(!settled || lags == (Some(0), Some(0)), "a silent stream made {lags:?} after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(settled, "the heartbeats prove that there is nothing more");
    assert_eq!(link.status().await["sync"]["secondsBehindMaster"], "0");

    // A change behind the silence is not as old as the silence.
    for id in 0..20 {
        link.source.run(&format!("INSERT INTO t VALUES ({id})")).await;
        for _ in 0..5 {
            let lag = millis(&task(&link.agent, &link.task).await["lag_ms"]);
            assert!(lag.is_some_and(|lag| lag < 4000), "a change of just now lags {lag:?} ms");
        }
    }

    // Received and not applied: the lag of the task grows, that of receiving does not.
    down.set(Fault::BlackHole);
    link.source.run("INSERT INTO t VALUES (100)").await;
    eventually("what waits grows older", LIMIT, async || {
        let (source, task) = (link.agent.source_status().await, task(&link.agent, &link.task).await);
        let (receive, apply) = (millis(&source["receive_lag_ms"]), millis(&task["lag_ms"]));
        assert!(receive.is_none_or(|lag| lag < 4000), "receiving goes on: {receive:?}");
        if apply.is_some_and(|lag| lag > 5000) { Ok(()) } else { Err(format!("{apply:?}")) }
    })
    .await;
    down.set(Fault::None);
    link.wait_equal().await;

    // The source does not answer: nobody knows what it has, and both lags grow; they do not fall to nothing.
    up.set(Fault::BlackHole);
    eventually("silence of the dead is lag", LIMIT, async || {
        let (source, task) = (link.agent.source_status().await, task(&link.agent, &link.task).await);
        let lags = (millis(&source["receive_lag_ms"]), millis(&task["lag_ms"]));
        let grown = lags.0.is_some_and(|lag| lag > 12_000) && lags.1.is_some_and(|lag| lag > 12_000);
        if grown { Ok(()) } else { Err(format!("{lags:?}")) }
    })
    .await;
    let behind = link.status().await["sync"]["secondsBehindMaster"].clone();
    assert!(millis(&behind).is_some_and(|seconds| seconds >= 12), "{behind}");
    // Not by a restart either.
    link.agent.restart().await;
    let source = link.agent.source_status().await;
    assert!(millis(&source["receive_lag_ms"]).is_some_and(|lag| lag > 10_000), "{source}");
    up.set(Fault::None);
    eventually("and is over when the source answers", LIMIT, async || {
        let source = link.agent.source_status().await;
        if millis(&source["receive_lag_ms"]) == Some(0) { Ok(()) } else { Err(source.to_string()) }
    })
    .await;
    link.source.run("INSERT INTO t VALUES (101)").await;
    link.wait_equal().await;
}

/// How long it is safe to stay parked: while receiving stands still, until the source purges what was not received.
#[tokio::test]
async fn the_runway_knows_the_sources_purge() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("runway", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.source.run("SET GLOBAL binlog_expire_logs_seconds = 7200").await;
    link.wait_equal().await;
    link.pause().await;
    // What the source says of itself is asked for at each new connection.
    link.agent.restart().await;
    eventually("it receives", LIMIT, async || {
        let source = link.agent.source_status().await;
        let caught_up = source["receiving"] == "RECEIVE_STATE_RUNNING" && millis(&source["receive_lag_ms"]) == Some(0);
        if caught_up { Ok(()) } else { Err(source.to_string()) }
    })
    .await;
    let runway = link.agent.source_status().await["relay"]["runway"].clone();
    assert!(!runway.to_string().contains("upstream purges"), "while it receives only the disk can end it: {runway}");
    link.agent.ctl(&["pause-relay", "-s", &link.source_id]).await.expect_success();
    let (left, limit) = eventually("the runway ends with the purge", LIMIT, async || {
        let status = link.agent.status().await;
        let runway = &status["sources"][0]["relay"]["runway"];
        match (millis(&runway["until_ms"]), millis(&status["now_ms"]), runway["limit"].as_str()) {
            (Some(until), Some(now), Some(limit)) => Ok(((until - now) / 1000, limit.to_owned())),
            _ => Err(status["sources"][0].to_string()),
        }
    })
    .await;
    assert_eq!(limit, "the upstream purges what is not received");
    assert!((7100..=7200).contains(&left), "{left} s are left of the two hours");
    let screen = link.agent.ctl(&["status"]).await.stdout;
    assert!(screen.contains("safe to stay parked until") && screen.contains("the upstream purges"), "{screen}");
    // It is known after a restart with the source away, too.
    link.agent.restart().await;
    let runway = link.agent.source_status().await["relay"]["runway"].clone();
    assert_eq!(runway["limit"], "the upstream purges what is not received", "{runway}");
}

/// The accounts on both sides get new passwords; neither a park nor the task is lost.
#[tokio::test]
async fn passwords_change_under_a_task() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("rotate", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    let source_yaml = SourceFile::new(&link.source_id, Kind::MySql, source.port).yaml();
    let task_yaml = link.task_file.yaml();

    // What is wrong is refused, and nothing is lost by it.
    let path = link.agent.file("source.yaml", &source_yaml.replace("dmpw", "wrong"));
    link.agent.ctl(&["operate-source", "update", &path]).await.expect_refusal(&["1045"]);
    let path = link.agent.file("source.yaml", &source_yaml.replace("enable-gtid: true", "enable-gtid: false"));
    link.agent.ctl(&["operate-source", "update", &path]).await.expect_refusal(&["existing tasks", &link.task]);
    let path = link.agent.file("rotated.yaml", &task_yaml.replace("dmpw", "wrong"));
    link.agent.ctl(&["update-task", &path]).await.expect_refusal(&["1045"]);
    let path = link.agent.file("rotated.yaml", &task_yaml.replace("worker-count: 8", "worker-count: 4"));
    link.agent.ctl(&["update-task", &path]).await.expect_refusal(&["target-database"]);

    for (round, parked) in [false, true].into_iter().enumerate() {
        let password = format!("new{round}");
        if parked {
            link.pause().await;
        }
        let mut target_root = target.root().await;
        link.source.run(&format!("ALTER USER dm IDENTIFIED BY '{password}'")).await;
        target_root.run(&format!("ALTER USER dm IDENTIFIED BY '{password}'")).await;
        let path = link.agent.file("source.yaml", &source_yaml.replace("dmpw", &password));
        link.agent.ctl(&["operate-source", "update", &path]).await.expect_success();
        let path = link.agent.file("rotated.yaml", &task_yaml.replace("dmpw", &password));
        link.agent.ctl(&["update-task", &path]).await.expect_success();
        // Old connections are of no more use: whoever still has the old password shows now.
        for db in [&mut link.source, &mut target_root] {
            let ids = db.texts("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'dm'").await;
            for id in ids {
                // It may have ended by itself.
                let _ = db.try_run(&format!("KILL {}", id[0])).await;
            }
        }
        link.source.run(&format!("INSERT INTO t VALUES ({round})")).await;
        link.wait_relayed().await;
        if parked {
            assert_eq!(link.status().await["stage"], "Paused");
            link.agent.restart().await;
            assert_eq!(link.status().await["stage"], "Paused");
            link.resume().await;
        }
        link.wait_equal().await;
    }
    assert!(!link.agent.log().contains("new0"), "a password is in the log");
}

/// tests/golden/rpc/secret-key.txt: a real dm-master's key, and what `dmctl encrypt dmpw` made with it.
const KEY: &str = "35eb3ba5aae6702e05f5459be6dfe51cad4d8c80b10a742633ec017932791107";
const CIPHERTEXT: &str = "4k8KBGQHFKVhYQq1xzB29UB2JgSI";

/// A reload takes a new key for encrypted passwords, also for what is connected already.
#[tokio::test]
async fn a_reload_renews_encrypted_passwords() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let key = crate::support::process::fresh_folder("key").join("key");
    std::fs::write(&key, KEY).expect("write a key");
    let agent = AgentOptions { agent: format!("secret-key-path = \"{}\"\n", key.display()), ..AgentOptions::default() };
    let mut agent = Agent::start(&agent).await;
    let yaml = SourceFile { password: CIPHERTEXT.into(), ..SourceFile::new("s", Kind::MySql, source.port) }.yaml();
    let path = agent.file("source.yaml", &yaml);
    agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    let task_yaml = crate::support::docs::TaskFile {
        schemas: vec!["nothing_here".into()],
        ..crate::support::docs::TaskFile::new("enc", "s", target.port)
    };
    let path = agent.file("task.yaml", &task_yaml.yaml().replace("dmpw", CIPHERTEXT));
    agent.ctl(&["start-task", &path]).await.expect_success();
    let receiving = async |agent: &Agent, wanted: &str| {
        eventually(&format!("the source is {wanted}"), LIMIT, async || {
            let source = agent.source_status().await;
            if source["receiving"] == wanted { Ok(()) } else { Err(source.to_string()) }
        })
        .await;
    };
    receiving(&agent, "RECEIVE_STATE_RUNNING").await;
    // Another key makes another password of the same text, or none: either is refused by the server.
    std::fs::write(&key, KEY.replace('3', "4")).expect("write a key");
    agent.signal(Signal::USR1);
    eventually("the receiver logs in anew and is refused", LIMIT, async || {
        let source = agent.source_status().await;
        if source.to_string().contains("1045") { Ok(()) } else { Err(source.to_string()) }
    })
    .await;
    eventually("so does the task", LIMIT, async || {
        let task = task(&agent, "enc").await;
        if task["failures"].to_string().contains("1045") { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
    std::fs::write(&key, KEY).expect("write a key");
    agent.signal(Signal::HUP);
    receiving(&agent, "RECEIVE_STATE_RUNNING").await;
    eventually("the task has recovered by itself", LIMIT, async || {
        let task = task(&agent, "enc").await;
        if task["stage"] == "Running" && task["activity"] == "applying" { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
}

/// A record that cannot be read is seen, holds its name, and can be mended or removed; others are not disturbed.
#[tokio::test]
async fn broken_records_are_seen_and_hold_their_names() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("broken", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    let other = crate::support::docs::TaskFile {
        name: "other".into(),
        schemas: vec!["nobody".into()],
        ..link.task_file.clone()
    };
    let path = link.agent.file("other.yaml", &other.yaml());
    link.agent.ctl(&["start-task", &path]).await.expect_success();
    assert!(link.agent.terminate().success());
    let key = format!("{}\u{1f}{}", link.source_id, link.task);
    let store = link.agent.state_dir().join("checkpoint");
    let db = CheckpointDb::open(store.clone()).await.expect("open the store");
    let good: Value = db.get(Namespace::Task, &key).await.expect("read").expect("a record");
    db.put(Namespace::Task, &key, &"garbage").await.expect("damage the record");
    db.close().await.expect("close the store");

    link.agent.expect_error("cannot be loaded");
    link.agent.restart().await;
    let broken = link.status().await;
    assert_eq!(broken["stage"], "Paused");
    assert!(broken["result"].to_string().contains("cannot be read"), "{broken}");
    assert!(broken["result"].to_string().contains("stop-task"), "a remedy: {broken}");
    assert_eq!(task(&link.agent, "other").await["stage"], "Running");
    link.start_task().await.expect_refusal(&["already exist"]);
    link.agent.ctl(&["operate-source", "stop", "-s", &link.source_id]).await.expect_refusal(&[&link.task]);
    let purge = link.agent.ctl(&["purge-relay", "-s", &link.source_id, "--filename", "mysql-bin.999999"]).await;
    purge.expect_refusal(&["forbidden", &link.task]);
    link.agent.ctl(&["resume-task", &link.task]).await.expect_refusal(&["cannot be read"]);
    link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
    link.source.run("INSERT INTO t VALUES (1)").await;

    // Mended behind its back: it is found again, still paused.
    assert!(link.agent.terminate().success());
    let db = CheckpointDb::open(store.clone()).await.expect("open the store");
    db.put(Namespace::Task, &key, &good).await.expect("mend the record");
    let mut newer = good.clone();
    newer["form"] = 99.into();
    db.put(Namespace::Task, &format!("{}\u{1f}other", link.source_id), &newer).await.expect("write a newer record");
    db.close().await.expect("close the store");
    link.agent.restart().await;
    assert_eq!(link.status().await["stage"], "Paused");
    let newer = task(&link.agent, "other").await;
    assert!(newer["failures"].to_string().contains("form 99"), "{newer}");
    link.agent.ctl(&["stop-task", "other"]).await.expect_success();
    link.resume().await;
    link.wait_equal().await;
}

/// A damaged source record: the source is seen with its failure, and a new file brings it and its tasks back.
#[tokio::test]
async fn a_broken_source_is_replaced_by_its_file() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("brokensrc", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    assert!(link.agent.terminate().success());
    let db = CheckpointDb::open(link.agent.state_dir().join("checkpoint")).await.expect("open the store");
    db.put(Namespace::Source, &link.source_id, &"garbage").await.expect("damage the record");
    db.close().await.expect("close the store");
    link.agent.expect_error("cannot be opened");
    link.agent.expect_error("cannot be loaded");
    link.agent.restart().await;
    let status = link.agent.source_status().await;
    assert!(status["failure"].to_string().contains("operate-source update"), "{status}");
    assert_eq!(link.status().await["stage"], "Paused");
    link.source.run("INSERT INTO t VALUES (1)").await;
    let yaml = SourceFile::new(&link.source_id, Kind::MySql, source.port).yaml();
    let path = link.agent.file("source.yaml", &yaml);
    link.agent.ctl(&["operate-source", "create", &path]).await.expect_refusal(&["already exists"]);
    link.agent.ctl(&["operate-source", "update", &path]).await.expect_success();
    link.resume().await;
    link.wait_equal().await;
}

/// The address leads to another server. By position that means nothing: receiving stops, the task parks, and both say
/// which server was expected. Back at the former one it goes on.
#[tokio::test]
async fn another_server_behind_the_address() {
    let former = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let other = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let address = Proxy::start(former.port);
    let options = LinkOptions { source_port: Some(address.port), by_position: true, ..LinkOptions::default() };
    let mut link = Link::start("stranger", &former, &target, &options).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    let mut db = other.root().await;
    db.run("CREATE DATABASE elsewhere").await;
    // So that the position exists there.
    for number in 0..50 {
        db.run(&format!("CREATE TABLE elsewhere.t{number} (id INT PRIMARY KEY)")).await;
    }
    let uuid = db.text("SELECT @@server_uuid").await;
    link.agent.expect_error("positions of one mean nothing");
    address.lead_to(other.port);
    let status = link.wait_for_stage("Paused").await;
    let text = status["result"].to_string();
    assert!(text.contains(&uuid) && text.contains("enable-gtid"), "{status}");
    let source = link.agent.source_status().await;
    assert_eq!(source["receiving"], "RECEIVE_STATE_STOPPED", "{source}");
    // A restart and a resume change nothing of that.
    link.agent.restart().await;
    link.agent.ctl(&["resume-task", &link.task]).await;
    link.wait_for_stage("Paused").await;
    address.lead_to(former.port);
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.resume().await;
    link.wait_equal().await;
}

/// While the agent drains it still answers, refuses changes, and a second order ends it at once.
#[tokio::test]
async fn stopping_answers_refuses_and_can_be_cut_short() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let down = Proxy::start(target.port);
    let options = LinkOptions {
        target_port: Some(down.port),
        agent: AgentOptions { agent: "pause-drain-limit = \"60s\"\n".into(), ..AgentOptions::default() },
        ..LinkOptions::default()
    };
    let mut link = Link::start("stopping", &source, &target, &options).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    down.set(Fault::BlackHole);
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.wait_relayed().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    link.agent.signal(Signal::TERM);
    eventually("it is stopping", LIMIT, async || {
        let answer = link.agent.ctl(&["pause-task", &link.task]).await;
        if answer.text().contains("stopping") { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(link.agent.get("/healthz").await.status, 200);
    assert_eq!(link.agent.get("/readyz").await.status, 503);
    assert_eq!(link.agent.ctl(&["query-status", &link.task]).await.exit, Some(0));
    let path = link.agent.file("source2.yaml", &SourceFile::new("two", Kind::MySql, source.port).yaml());
    link.agent.ctl(&["operate-source", "create", &path]).await.expect_refusal(&["stopping"]);
    assert!(link.agent.exit_status().is_none(), "the drain goes on");
    let began = Instant::now();
    link.agent.terminate();
    assert!(began.elapsed() < Duration::from_secs(2), "a second order ended it after {:?}", began.elapsed());
    down.set(Fault::None);
    link.agent.restart().await;
    link.wait_equal().await;
}
