//! How much memory the agent takes.

use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;

/// Idle with one parked task: under 30 MB.
#[tokio::test]
async fn parked_and_idle_is_small() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("small", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.pause().await;
    // A parked agent that has just started; other tests write to the same source, and receiving that is not idling.
    link.agent.restart().await;
    link.wait_for_stage("Paused").await;
    let rss = link.agent.rss_kb();
    println!("parked and idle: {rss} KiB");
    // The debug build's code is larger than the release build's, for which the goal is set.
    assert!(rss < 60 * 1024, "{rss} KiB resident");
}

/// One transaction far larger than the limit: 600 MB of rows, in the memory of any other load.
#[tokio::test]
async fn one_huge_transaction_stays_below_the_limit() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("whale", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)").await;
    link.source.run("BEGIN").await;
    for _ in 0..60 {
        let rows = ["(REPEAT('x', 1000000))"; 10].join(", ");
        link.source.run(&format!("INSERT INTO t (b) VALUES {rows}")).await;
    }
    link.source.run("COMMIT").await;
    let sql = format!("SELECT COUNT(*) FROM {}.t", link.schema);
    let agent = &link.agent;
    let target = &mut link.target;
    crate::support::eventually("all rows have arrived", std::time::Duration::from_secs(180), async || {
        match target.try_rows(&sql).await?.first().and_then(|row| row[0].clone()) {
            Some(count) if count == b"600" => Ok(()),
            other => Err(format!("{other:?} with {} KiB", agent.rss_kb())),
        }
    })
    .await;
    let peak = link.agent.peak_rss_kb();
    println!("one transaction of 600 MB: peak {peak} KiB");
    assert!(peak < 256 * 1024, "peak {peak} KiB");
    // Hundreds of megabytes on shared servers are in the way of other tests.
    link.source.run("DROP TABLE t").await;
    link.wait_equal().await;
}
