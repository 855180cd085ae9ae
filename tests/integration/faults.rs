//! Connections that are cut, servers that go away and come back: it goes on at the exact place, by itself.

use std::time::Duration;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::{SourceFile, TaskFile};
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::process::free_port;
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{Kind, Server, ServerOptions, shared};
use crate::support::workload::{Mix, Workload};

/// Cuts after n bytes of replies, at many n: inside handshakes, events and results.
#[tokio::test]
async fn cut_anywhere_in_the_stream() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let (up, down) = (Proxy::start(source.port), Proxy::start(target.port));
    let options = LinkOptions { source_port: Some(up.port), target_port: Some(down.port), ..LinkOptions::default() };
    let mut link = Link::start("cut", &source, &target, &options).await;
    let mut workload = Workload::from_env(Mix { ddl: 0.0, big: 0.02 });
    link.source.run_all(workload.setup()).await;
    for round in 0..12_u64 {
        let proxy = if round % 3 == 2 { &down } else { &up };
        proxy.set(Fault::CutAfter(1 + round * round * 137));
        workload.run(&mut link.source, 30).await;
        if round % 4 == 3 {
            link.wait_equal().await;
        }
    }
    link.wait_equal().await;
}

/// The source is killed under load and started again; its connections and its dump thread are gone.
async fn source_killed(kind: Kind) {
    let mut source = Server::start(kind, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("gone", &source, &target, &LinkOptions::default()).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    for _ in 0..2 {
        workload.run(&mut link.source, 60).await;
        source.kill9();
        source.restart().await;
        link.source = source.root().await;
        link.source.run(&format!("USE {}", link.schema)).await;
    }
    workload.run(&mut link.source, 60).await;
    link.wait_equal().await;
}

#[tokio::test]
async fn mysql_source_killed() {
    source_killed(Kind::MySql).await;
}

#[tokio::test]
async fn mariadb_source_killed() {
    source_killed(Kind::MariaDb).await;
}

/// The target is killed: retried without a pause while it is away for a moment.
#[tokio::test]
async fn target_killed() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let mut target = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let mut link = Link::start("away", &source, &target, &LinkOptions::default()).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    for _ in 0..2 {
        workload.run(&mut link.source, 80).await;
        target.kill9();
        target.restart().await;
        link.target = target.root().await;
    }
    link.wait_equal().await;
    assert_eq!(link.status().await["stage"], "Running");
}

/// Servers that stop answering (SIGSTOP) and go on.
#[tokio::test]
async fn frozen_servers() {
    let mut source = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("frozen", &source, &target, &LinkOptions::default()).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    workload.run(&mut link.source, 50).await;
    target.freeze();
    workload.run(&mut link.source, 50).await;
    source.freeze();
    link.agent.ctl(&["query-status", &link.task]).await.expect_success();
    source.thaw();
    target.thaw();
    link.wait_equal().await;
}

/// The source's binlog is reset under an open stream, which goes on telling that nothing is new. The status must not say that all is
/// well; the source's own refusal and the remedy show, and the remedy works.
async fn source_reset(kind: Kind) {
    let source = Server::start(kind, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("reset", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)"]).await;
    link.wait_equal().await;
    let reset = if kind == Kind::MySql { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" };
    link.source.run(reset).await;
    let start = location(&mut link.source, kind).await;
    link.source.run("INSERT INTO t VALUES (4)").await;
    eventually("the status says that the source lacks what it sent", Duration::from_secs(60), async || {
        let source = link.agent.source_status().await;
        let said = source["failure"].to_string();
        let told = source["receiving"] == "RECEIVE_STATE_STOPPED" && said.contains("--remove-meta");
        // Neither a safe time nor a place that the source does not have.
        let safe_until = &source["relay"]["runway"];
        let true_too = safe_until.is_null() && source["master"]["offset"] != source["received"]["offset"];
        if told && true_too { Ok(()) } else { Err(source.to_string()) }
    })
    .await;
    link.stop_task().await;
    link.agent.ctl(&["operate-source", "stop", "-s", &link.source_id]).await.expect_success();
    let path = link.agent.file("source.yaml", &SourceFile::new(&link.source_id, kind, source.port).yaml());
    link.agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    link.task_file.start = Some(start);
    let path = link.agent.file("task.yaml", &link.task_file.yaml());
    link.agent.ctl(&["start-task", "--remove-meta", &path]).await.expect_success();
    link.wait_equal().await;
}

#[tokio::test]
async fn mysql_source_reset() {
    source_reset(Kind::MySql).await;
}

#[tokio::test]
async fn mariadb_source_reset() {
    source_reset(Kind::MariaDb).await;
}

/// The agent comes up while both servers are down, says so, and goes on by itself when they come.
#[tokio::test]
async fn boots_while_source_and_target_are_down() {
    let mut source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let mut target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("down", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.agent.kill9();
    source.kill9();
    target.kill9();
    link.agent.restart().await;
    let port = source.port.to_string();
    eventually("the status names the source that is down", Duration::from_secs(30), async || {
        let body = link.agent.get("/status").await.body;
        if body.contains(&port) { Ok(()) } else { Err(body) }
    })
    .await;
    source.restart().await;
    target.restart().await;
    link.source = source.root().await;
    link.target = target.root().await;
    link.source.run(&format!("INSERT INTO {}.t VALUES (1)", link.schema)).await;
    link.wait_equal().await;
}

/// A source that is created while nobody listens there is refused or kept, but named either way; the agent stays.
#[tokio::test]
async fn a_source_nobody_listens_at() {
    let agent = Agent::start(&AgentOptions::default()).await;
    let port = free_port();
    let path = agent.file("source.yaml", &SourceFile::new("nobody", Kind::MySql, port).yaml());
    let answer = agent.ctl(&["operate-source", "create", &path]).await;
    assert!(answer.text().contains("nobody"), "{answer:#?}");
    let task = TaskFile { schemas: vec!["d".into()], ..TaskFile::new("t", "nobody", port) };
    let path = agent.file("task.yaml", &task.yaml());
    let answer = agent.ctl(&["start-task", &path]).await;
    assert!(answer.text().contains("nobody"), "{answer:#?}");
    assert_eq!(agent.get("/healthz").await.status, 200);
}

/// A small file system of its own, for a disk that can be filled. Dropping it unmounts.
struct SmallDisk {
    folder: std::path::PathBuf,
}

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(megabytes: u64) -> Option<SmallDisk> {
        let folder = crate::support::process::fresh_folder("disk");
        let size = format!("size={megabytes}m,mode=700");
        let mut command = std::process::Command::new("mount");
        let mounted = command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk { folder })
    }

    /// Fills it up to the last `leave` bytes. The agent writes meanwhile, so what was free a moment ago may be taken.
    fn fill(&self, leave: u64) {
        let file = std::fs::File::create(self.folder.join("ballast")).expect("create the ballast");
        for _ in 0..200 {
            let stat = rustix::fs::statvfs(&self.folder).expect("look at the disk");
            let ballast = (stat.f_bavail * stat.f_frsize).saturating_sub(leave).max(1);
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, ballast) {
                Ok(()) => return,
                Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => panic!("fill the disk: {error}"),
            }
        }
        panic!("the disk cannot be filled up to {leave} bytes");
    }

    fn empty(&self) {
        std::fs::remove_file(self.folder.join("ballast")).expect("remove the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}

/// The disk under the state directory fills up: at the floor receiving stops and the status says so; without room for the
/// checkpoint store the task parks with reason `disk`; an operator's reason beside it stays; with room everything goes on,
/// and the process has lived through it.
#[tokio::test]
async fn a_full_disk_parks_and_heals() {
    let Some(disk) = SmallDisk::mount(400) else {
        println!("skipped: this user cannot mount a file system");
        return;
    };
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let agent = AgentOptions {
        agent: "free-disk-floor = \"100MiB\"\nrelay-budget = \"300MiB\"\n".into(),
        state_dir: Some(disk.folder.join("state")),
        ..AgentOptions::default()
    };
    let mut link = Link::start("disk", &source, &target, &LinkOptions { agent, ..LinkOptions::default() }).await;
    link.agent.expect_error("is not on disk");
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    let pid = link.agent.pid();

    disk.fill(80 << 20);
    eventually("at the floor receiving stops", Duration::from_secs(20), async || {
        let source = link.agent.source_status().await;
        let stopped = source["receiving"] == "RECEIVE_STATE_STOPPED" && source.to_string().contains("must stay free");
        if stopped { Ok(()) } else { Err(source.to_string()) }
    })
    .await;
    assert_eq!(link.status().await["stage"], "Running", "what was received can be applied");
    disk.empty();

    for (round, leave) in [10_u64 << 20, 0].into_iter().enumerate() {
        disk.fill(leave);
        let status = link.wait_for_stage("Paused").await;
        assert!(status["result"].to_string().contains("the disk under the state directory is full"), "{status}");
        let task = link.agent.status().await["tasks"][0].clone();
        assert_eq!(task["parks"][0]["reason"], "disk", "{task}");
        link.source.run(&format!("INSERT INTO t VALUES ({round})")).await;
        link.agent.ctl(&["resume-task", &link.task]).await.expect_refusal(&["disk"]);
        if round == 0 {
            link.pause().await;
        }
        disk.empty();
        if round == 0 {
            eventually("only the operator's reason is left", Duration::from_secs(20), async || {
                let task = link.agent.status().await["tasks"][0].clone();
                let only = task["parks"].as_array().is_some_and(|parks| parks.len() == 1);
                if only && task["parks"][0]["reason"] == "operator" { Ok(()) } else { Err(task.to_string()) }
            })
            .await;
            link.resume().await;
        }
        link.wait_equal().await;
        assert_eq!(link.status().await["stage"], "Running");
    }
    // A resume that cannot be stored is refused, and does not hold.
    link.pause().await;
    disk.fill(0);
    link.agent.ctl(&["resume-task", &link.task]).await.expect_refusal(&["no space is left"]);
    let reasons = |task: &serde_json::Value| {
        let parks = task["parks"].as_array().cloned().unwrap_or_default();
        parks.iter().filter_map(|park| park["reason"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let task = link.agent.status().await["tasks"][0].clone();
    assert_eq!(reasons(&task), ["operator", "disk"], "{task}");
    // Neither does a stop: a restart would find the task there.
    link.agent.ctl(&["stop-task", &link.task]).await.expect_refusal(&["no space is left"]);
    assert_eq!(link.status().await["stage"], "Paused");
    disk.empty();
    eventually("the operator's reason outlives it", Duration::from_secs(20), async || {
        let task = link.agent.status().await["tasks"][0].clone();
        if reasons(&task) == ["operator"] { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
    link.resume().await;
    link.wait_equal().await;
    assert_eq!(link.agent.pid(), pid, "one process lived through it");
    assert!(link.agent.terminate().success());
    link.agent.assert_quiet_log();
}
