//! Losing the master: nothing is written without a lease, receiving and status go on, and everything comes back by itself.

use std::time::{Duration, Instant};

use dm_agent::control::proto::pb;
use rustix::process::Signal;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::cluster::{ClusterLink, WORKER, joining};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::mini_master::MiniMaster;
use crate::support::process::fresh_folder;
use crate::support::proxy::Fault;
use crate::support::servers::Kind;

/// Compatibility tests 9 and 15: etcd is killed for longer than the lease lasts.
#[tokio::test]
async fn without_a_lease_nothing_is_written_and_everything_comes_back() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mlost", &source, &target, 6).await;
    link.master.etcd.write().await.kill9();
    let killed = Instant::now();
    let agent = &link.agent;
    let parked = eventually("applying is fenced", Duration::from_secs(6), async || {
        let status = agent.status().await;
        if status["tasks"][0]["stage"] == "Paused" { Ok(status) } else { Err(status.to_string()) }
    })
    .await;
    // Its last renewal may have been a third of the time before the kill.
    assert!(killed.elapsed() < Duration::from_secs(6), "fenced {:?} after the kill", killed.elapsed());
    eprintln!("fenced {:?} after the kill: {}", killed.elapsed(), parked["tasks"][0]["stage"]);
    let rows = link.target_rows().await;
    link.insert(7).await;
    // A status by the master's way, and without a master behind it: it says why.
    let status = link.status().await;
    assert_eq!(status.stage(), pb::Stage::Paused);
    assert!(status.result.unwrap_or_default().errors[0].message.contains("does not own the source"));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(link.target_rows().await, rows, "written without a lease");
    let receiving = link.agent.source_status().await;
    assert!(receiving.to_string().contains("RUNNING"), "receiving goes on: {receiving}");

    link.master.etcd.write().await.restart().await;
    link.wait_for("running again", |status| status.stage() == pb::Stage::Running).await;
    link.wait_equal().await;
}

/// A frozen etcd answers nothing and closes nothing.
#[tokio::test]
async fn a_frozen_etcd_is_a_lost_one() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mfrozen", &source, &target, 6).await;
    link.master.etcd.write().await.freeze();
    let began = Instant::now();
    let agent = &link.agent;
    eventually("applying is fenced", Duration::from_secs(6), async || {
        let status = agent.status().await;
        if status["tasks"][0]["stage"] == "Paused" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let rows = link.target_rows().await;
    link.insert(3).await;
    // Status answers although nothing can be read: within its limit, not etcd's.
    let asked = Instant::now();
    let status = link.status().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(status.stage(), pb::Stage::Paused);
    tokio::time::sleep(Duration::from_secs(8).saturating_sub(began.elapsed())).await;
    assert_eq!(link.target_rows().await, rows);
    link.master.etcd.write().await.thaw();
    link.wait_for("running again", |status| status.stage() == pb::Stage::Running).await;
    link.wait_equal().await;
}

/// The master rebinds the source elsewhere while we are away: we let go of it.
#[tokio::test]
async fn a_source_that_went_elsewhere_is_let_go() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mgone", &source, &target, 6).await;
    link.agent.kill9();
    link.master.move_bound(&link.source_id, "worker2").await;
    link.insert(2).await;
    link.agent.restart().await;
    let answer = eventually("no source", Duration::from_secs(30), async || {
        let answer = link.master.query(WORKER, "").await.map_err(|status| status.to_string())?;
        if answer.sub_task_status.is_empty() { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert!(!answer.result && answer.msg.contains("code=40070"), "{answer:?}");
    assert_eq!(link.target_rows().await, 1);

    link.master.move_bound(&link.source_id, WORKER).await;
    link.wait_for("back", |status| status.stage() == pb::Stage::Running).await;
    link.wait_equal().await;
}

/// Compatibility test 8: what a worker was to read is compacted away; a subtask deleted meanwhile goes.
#[tokio::test]
async fn compaction_while_away_loses_nothing() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let link = ClusterLink::start("mcompact", &source, &target, 60).await;
    link.master.etcd.write().await.freeze();
    tokio::time::sleep(Duration::from_millis(300)).await;
    link.master.etcd.write().await.thaw();
    let etcd = link.master.etcd.read().await;
    let prefix = ["/dm-master/stage/subtask/", "/dm-master/upstream/subtask/"];
    let keys: Vec<_> =
        prefix.map(|prefix| crate::support::mini_master::key(prefix, &[&link.source_id, &link.task])).into();
    let revision = etcd.write(keys.iter().map(|key| crate::support::etcd::delete(key)).collect()).await;
    etcd.compact(revision).await;
    drop(etcd);
    eventually("the subtask is gone", Duration::from_secs(20), async || {
        let answer = link.query().await;
        if answer.sub_task_status.is_empty() { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// A library that moves the time of day of the process that it is loaded into, by the seconds in a file.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
static volatile long *moved;
__attribute__((constructor)) static void start(void) {
    real = dlsym(RTLD_NEXT, "clock_gettime");
    int file = open(getenv("MOVED_CLOCK"), O_RDONLY);
    void *at = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) moved = at;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (result == 0 && id == CLOCK_REALTIME && moved) now->tv_sec += *moved;
    return result;
}
"#;

/// Somebody sets the clock of the machine, an hour ahead and then a day back: a lease is counted by one that nobody sets, so
/// nothing is fenced, nothing begins anew, and orders are followed as before.
#[tokio::test]
async fn a_clock_that_jumps_costs_no_lease() {
    let folder = fresh_folder("clock");
    let (code, library, moved) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("moved"));
    std::fs::write(&code, CLOCK).expect("write the library");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).arg("-ldl");
    assert!(compiler.status().expect("a C compiler").success());
    let set = |seconds: i64| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&moved).expect("open");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("write");
    };
    set(0);
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let master = MiniMaster::start().await;
    let env = [("LD_PRELOAD", &library), ("MOVED_CLOCK", &moved)];
    let env = env.map(|(name, path)| (name.to_owned(), path.display().to_string())).to_vec();
    let options = AgentOptions { env, ..joining(&master, WORKER, 5) };
    let mut link = ClusterLink::start_in("mclock", &source, &target, master, &options).await;
    let claims = link.claims().await;
    for seconds in [3600, -86_400, 0] {
        set(seconds);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs() as i64;
        let told = link.agent.status().await["now_ms"].to_string().trim_matches('"').parse::<i64>().expect("a time");
        assert!((told / 1000 - now - seconds).abs() < 60, "{told} ms is not {seconds} s beside {now}");
        // Longer than the lease lasts.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(7) {
            link.insert(1).await;
            let status = link.agent.status().await["tasks"][0].clone();
            assert_eq!((&status["stage"], link.claims().await), (&"Running".into(), claims), "{seconds} s: {status}");
            match link.status().await.status {
                Some(pb::sub_task_status::Status::Sync(sync)) if sync.seconds_behind_master <= 2 => {}
                other => panic!("behind by what the clock was set: {seconds} s, {other:?}"),
            }
            assert!(link.master.is_alive(WORKER).await, "{seconds} s");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        link.wait_equal().await;
    }
    link.pause().await.expect_quick();
    link.resume().await.expect_quick();
    link.insert(1).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Stopped while it is joining: the key is there, and the answer that says so is on its way. A cluster must not wait for such
/// a worker as long as its lease lasts.
#[tokio::test]
async fn a_stop_while_joining_gives_the_lease_back() {
    let (master, proxy) = MiniMaster::start_behind().await;
    proxy.set(Fault::Delay(Duration::from_millis(400)));
    let top = format!("join = \"127.0.0.1:{}\"\nkeepalive-ttl = 60\n", proxy.port);
    let mut agent = Agent::start(&AgentOptions { name: WORKER.into(), top, ..AgentOptions::default() }).await;
    eventually("the key is there", Duration::from_secs(20), async || match master.is_alive(WORKER).await {
        true => Ok(()),
        false => Err("no key".to_owned()),
    })
    .await;
    assert!(!agent.log().contains("lease held"), "its answer is on its way");
    agent.signal(Signal::TERM);
    eventually("it ends in order, and its key is gone", Duration::from_secs(10), async || {
        match (agent.exit_status().is_some_and(|status| status.success()), master.is_alive(WORKER).await) {
            (true, false) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
