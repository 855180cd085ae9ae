//! Status and pause while nothing answers: upstream and downstream are cut off with their connections open.

use std::time::{Duration, Instant};

use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::Kind;
use crate::support::socket::MasterClient;
use crate::support::workload::{Mix, Workload};

/// Answers measured.
const QUESTIONS: usize = 500;

fn percentile_99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test]
async fn status_and_pause_answer_at_once_in_a_black_hole() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let (up, down) = (Proxy::start(source.port), Proxy::start(target.port));
    let options = LinkOptions { source_port: Some(up.port), target_port: Some(down.port), ..LinkOptions::default() };
    let mut link = Link::start("hole", &source, &target, &options).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    workload.run(&mut link.source, 100).await;
    link.wait_equal().await;

    // In the middle of something: writes are on their way while the traffic stops.
    let write = workload.run(&mut link.source, 200);
    let hole = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        up.set(Fault::BlackHole);
        down.set(Fault::BlackHole);
    };
    tokio::join!(write, hole);

    let client = MasterClient::connect(&link.agent.socket()).await;
    let mut times = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let began = Instant::now();
        client.query_status(&link.task).await.expect("query-status");
        times.push(began.elapsed());
    }
    let p99 = percentile_99(times);
    println!("query-status in a black hole: p99 {p99:?}");
    // The goal is 10 ms on an idle machine and is measured by the benchmark; beside other tests on two cores a scheduler's delay is added.
    assert!(p99 < Duration::from_millis(50), "p99 of query-status is {p99:?}");

    let began = Instant::now();
    link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
    let accepted = began.elapsed();
    assert!(accepted < Duration::from_secs(1), "pause-task was accepted after {accepted:?}");
    let health = link.agent.get("/healthz").await;
    assert_eq!(health.status, 200, "{}", health.body);

    up.set(Fault::None);
    down.set(Fault::None);
    link.wait_for_stage("Paused").await;
    let parked = link.target_fingerprint().await;
    link.wait_relayed().await;
    assert_eq!(link.target_fingerprint().await, parked);
    link.resume().await;
    link.wait_equal().await;
}

/// A downstream that takes the commit and never says so: after the connection is lost, the change must be there once.
#[tokio::test]
async fn a_commit_without_an_answer_is_applied_once() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let down = Proxy::start(target.port);
    let options = LinkOptions { target_port: Some(down.port), ..LinkOptions::default() };
    let mut link = Link::start("held", &source, &target, &options).await;
    link.source.run("CREATE TABLE t (a INT, b INT)").await;
    link.wait_equal().await;
    for round in 0..10 {
        let write = async {
            for number in 0..20 {
                link.source.run(&format!("INSERT INTO t VALUES ({round}, {number})")).await;
            }
        };
        let hold = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            down.set(Fault::HoldReplies);
            tokio::time::sleep(Duration::from_millis(50)).await;
            down.reset_connections();
            down.set(Fault::None);
        };
        tokio::join!(write, hold);
        link.wait_equal().await;
    }
}

/// What a source says of its foreign keys is asked beside everything else: one that does not answer delays no row that is here.
#[tokio::test]
async fn a_source_in_a_black_hole_delays_no_resume() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let up = Proxy::start(source.port);
    let options = LinkOptions { source_port: Some(up.port), ..LinkOptions::default() };
    let mut link = Link::start("away", &source, &target, &options).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.wait_equal().await;
    link.pause().await;
    link.source.run("INSERT INTO t VALUES (2)").await;
    link.wait_relayed().await;
    up.set(Fault::BlackHole);
    link.resume().await;
    let began = Instant::now();
    link.wait_equal().await;
    // An answer is waited for 3 s.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "the row came after {took:?}");
    up.set(Fault::None);
}
