//! The source is replaced by its replica while the task is inside a transaction. The replica has the same transactions under the same
//! GTIDs, but it logs them in its own way: in other events, or other columns of the rows.

use std::time::Duration;

use crate::support::agent::AgentOptions;
use crate::support::docs::SourceFile;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// Rows of the large transaction; more than fits into one group.
const ROWS: u64 = 100_000;

/// A MySQL server and its replica, which is started with these arguments.
async fn pair(replica_args: &[&str]) -> (Server, Server) {
    let first = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let args = replica_args.iter().map(|&arg| arg.to_owned()).collect();
    let second = Server::start(Kind::MySql, &ServerOptions { args, ..ServerOptions::default() }).await;
    let source = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='dm', SOURCE_PASSWORD='dmpw', \
         SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
        first.port
    );
    second.root().await.run_all([source.as_str(), "START REPLICA"]).await;
    (first, second)
}

/// Replicates from the first server, and parks inside a transaction that inserts, updates and deletes.
async fn parked_inside(label: &str, first: &Server, setup: &[&str]) -> Link {
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let agent = AgentOptions { agent: "pause-drain-limit = \"1ms\"\n".into(), ..AgentOptions::default() };
    let options = LinkOptions { agent, workers: Some(4), ..LinkOptions::default() };
    let mut link = Link::start(label, first, &target, &options).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT, pad VARCHAR(60))").await;
    link.source.run("CREATE TABLE many (id INT, pad CHAR(30))").await;
    link.wait_equal().await;
    link.pause().await;
    link.source.run("SET SESSION cte_max_recursion_depth = 1000000").await;
    let numbers = format!("WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS})");
    link.source.run("BEGIN").await;
    link.source.run_all(setup).await;
    // What a server with MINIMAL images logs otherwise, right at the start.
    link.source.run_all(["INSERT INTO t VALUES (0, 0, 'first')", "UPDATE t SET v = 1"]).await;
    link.source
        .run_all([
            format!("INSERT INTO t {numbers} SELECT n, 0, REPEAT('x', 50) FROM n"),
            "UPDATE t SET v = id".to_owned(),
            "DELETE FROM t WHERE id % 10 = 3".to_owned(),
            "COMMIT".to_owned(),
        ])
        .await;
    link.wait_relayed().await;
    link.resume().await;
    eventually("some of the transaction is applied", Duration::from_secs(60), async || {
        let task = link.agent.status().await["tasks"][0].clone();
        if task["inside_transaction"].is_null() { Err(task.to_string()) } else { Ok(()) }
    })
    .await;
    link.pause().await;
    let task = link.agent.status().await["tasks"][0].clone();
    assert!(!task["inside_transaction"].is_null(), "it was over before the pause: {task}");
    link
}

/// The source is this server from now on; nothing of the relay log stays, the checkpoint downstream does.
async fn go_over_to(link: &mut Link, server: &Server) {
    link.stop_task().await;
    link.agent.ctl(&["operate-source", "stop", "-s", &link.source_id]).await.expect_success();
    let path = link.agent.file("source.yaml", &SourceFile::new(&link.source_id, Kind::MySql, server.port).yaml());
    link.agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    link.start_task().await.expect_success();
}

/// Waits until the replica has all that its source has.
async fn wait_for_replica(link: &mut Link, replica: &Server) {
    let executed = link.source.text("SELECT @@GLOBAL.gtid_executed").await.replace('\n', "");
    let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 100)");
    assert_eq!(replica.root().await.text(&sql).await, "0", "the replica has not come so far");
}

const COMES_OTHERWISE: &str = "came otherwise than it was applied";

/// The same rows in other events: it goes on at the row, and a table without a key gets none of them twice.
#[tokio::test]
async fn a_replica_that_cuts_events_otherwise() {
    let (first, second) = pair(&["--binlog-row-event-max-size=256"]).await;
    let keyless = "INSERT INTO many SELECT 1, 'twice would show' FROM information_schema.COLUMNS LIMIT 500";
    let mut link = parked_inside("cuts", &first, &[keyless]).await;
    wait_for_replica(&mut link, &second).await;
    go_over_to(&mut link, &second).await;
    link.source.run("INSERT INTO t VALUES (-1, 1, 'behind it')").await;
    link.wait_equal().await;
    assert!(!link.agent.log().contains(COMES_OTHERWISE), "the rows are the same ones");
    link.agent.assert_quiet_log();
}

/// Other images of the rows: the transaction is applied once more in safe mode, through crashes, and is equal behind it.
#[tokio::test]
async fn a_replica_that_logs_other_columns() {
    let (first, second) = pair(&["--binlog-row-image=MINIMAL"]).await;
    let mut link = parked_inside("columns", &first, &[]).await;
    wait_for_replica(&mut link, &second).await;
    go_over_to(&mut link, &second).await;
    for _ in 0..3 {
        eventually("it is applied once more", Duration::from_secs(60), async || {
            let task = link.agent.status().await["tasks"][0].clone();
            let again = task["safe_mode"].as_str().is_some_and(|why| why.contains("applied once more"));
            if again { Ok(()) } else { Err(task.to_string()) }
        })
        .await;
        link.agent.restart().await;
    }
    link.source.run("INSERT INTO t VALUES (-1, 1, 'behind it')").await;
    link.wait_equal().await;
    assert!(link.agent.log().contains(COMES_OTHERWISE));
    let task = link.agent.status().await["tasks"][0].clone();
    assert!(task["safe_mode"].as_str().is_none_or(str::is_empty), "exact again behind it: {task}");
    link.agent.assert_quiet_log();
}

/// With rows that cannot be applied twice the task says so and waits; with the former server it goes on as if nothing had been.
#[tokio::test]
async fn a_replica_that_logs_other_columns_and_a_table_without_a_key() {
    let (first, second) = pair(&["--binlog-row-image=MINIMAL"]).await;
    let keyless = "INSERT INTO many SELECT 1, 'twice would show' FROM information_schema.COLUMNS LIMIT 500";
    let mut link = parked_inside("keyless", &first, &[keyless]).await;
    link.agent.expect_error("has no key");
    wait_for_replica(&mut link, &second).await;
    go_over_to(&mut link, &second).await;
    link.wait_for_error(&["`many` has no key", "let the source be the former server"]).await;
    go_over_to(&mut link, &first).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}
