//! Parked means parked: receiving goes on, applying stands still at one exact point, and everything about it stays.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::db::Db;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// Writes numbered transactions until told to stop. Each puts its number into two tables, so that half a transaction shows.
struct Writer {
    stop: tokio::sync::watch::Sender<bool>,
    task: JoinHandle<(Db, u64)>,
}

impl Writer {
    fn start(mut db: Db, schema: &str, first: u64) -> Writer {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let schema = schema.to_owned();
        let task = tokio::spawn(async move {
            let mut number = first;
            while !*stopped.borrow() {
                db.run_all([
                    "BEGIN".to_owned(),
                    format!("INSERT INTO {schema}.left_half VALUES ({number})"),
                    format!("UPDATE {schema}.counter SET n = {number}"),
                    format!("INSERT INTO {schema}.right_half VALUES ({number})"),
                    "COMMIT".to_owned(),
                ])
                .await;
                number += 1;
            }
            (db, number)
        });
        Writer { stop, task }
    }

    /// Stops; the connection and the next number.
    async fn stop(self) -> (Db, u64) {
        let _ = self.stop.send(true);
        self.task.await.expect("the writer ends")
    }
}

async fn create_halves(link: &mut Link) {
    link.source
        .run_all([
            "CREATE TABLE left_half (id BIGINT PRIMARY KEY)",
            "CREATE TABLE right_half (id BIGINT PRIMARY KEY)",
            "CREATE TABLE counter (id INT PRIMARY KEY, n BIGINT)",
            "INSERT INTO counter VALUES (1, 0)",
        ])
        .await;
    link.wait_equal().await;
}

/// The number of the last transaction in the target; panics on half a one or a gap.
async fn last_whole_transaction(link: &mut Link) -> u64 {
    let schema = &link.schema;
    let sql = format!(
        "SELECT (SELECT n FROM {schema}.counter), (SELECT COALESCE(MAX(id), 0) FROM {schema}.left_half), \
         (SELECT COALESCE(MAX(id), 0) FROM {schema}.right_half), (SELECT COUNT(*) FROM {schema}.left_half), \
         (SELECT COUNT(*) FROM {schema}.right_half)"
    );
    let row = link.target.texts(&sql).await.swap_remove(0);
    assert!(row.iter().all(|value| *value == row[0]), "parked inside a transaction, or with a gap: {row:?}");
    row[0].parse().expect("a number")
}

/// The number after the last colon-dash of a set with one interval: `uuid:1-17` is 17.
fn last_gtid(set: &str) -> u64 {
    set.rsplit(['-', ':'])
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("a GTID set, not {set:?}"))
}

/// Fifty pauses under load: each stops at a transaction's end, DM's checkpoint says exactly that end, and nothing moves until the resume,
/// although the relay has received more.
#[tokio::test]
async fn fifty_pauses_under_load() {
    // Of its own: with one writer, the GTID's number tells the transaction.
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("fifty", &source, &target, &LinkOptions::default()).await;
    create_halves(&mut link).await;
    let base = last_gtid(&location(&mut link.source, link.kind).await.gtid);
    let writer = Writer::start(source.root().await, &link.schema, 1);
    for round in 0..50 {
        link.pause().await;
        let parked_at = last_whole_transaction(&mut link).await;
        let before = link.target_fingerprint().await;
        let checkpoint = link.checkpoint().await;
        assert_eq!(last_gtid(&checkpoint.gtid), base + parked_at, "round {round}: {checkpoint:?}");
        link.wait_relayed().await;
        assert_eq!(link.target_fingerprint().await, before, "round {round}: the target moved while parked");
        link.resume().await;
        // Some progress between pauses, else fifty pauses are one.
        eventually("it moves after a resume", Duration::from_secs(30), async || {
            let now = link.target_fingerprint().await;
            if now == before { Err(now) } else { Ok(()) }
        })
        .await;
    }
    writer.stop().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Issue 3's tour, without a break for reading.
#[tokio::test]
async fn parked_through_kill_and_purge_then_caught_up() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("tour", &source, &target, &LinkOptions::default()).await;
    create_halves(&mut link).await;
    let writer = Writer::start(source.root().await, &link.schema, 1);

    let answer = link.agent.ctl(&["pause-task", &link.task]).await;
    let expected = serde_json::json!({"op": "Pause", "result": true, "msg": "", "sources":
        [{"result": true, "msg": "", "source": link.source_id, "worker": "worker1"}]});
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.exit, Some(0));
    link.wait_for_stage("Paused").await;
    let parked_at = last_whole_transaction(&mut link).await;

    link.start_task().await.expect_refusal(&["46014", "already exist"]);
    let file = location(&mut link.source, link.kind).await.file;
    link.source.run("FLUSH BINARY LOGS").await;
    link.wait_relayed().await;
    let next = location(&mut link.source, link.kind).await.file;
    assert_ne!(file, next);
    let purge = link.agent.ctl(&["purge-relay", "-s", &link.source_id, "--filename", &next]).await;
    purge.expect_refusal(&["30037", "is forbidden temporarily", &link.task]);
    link.source.run(&format!("PURGE BINARY LOGS TO '{next}'")).await;

    let before = agent_task(&link).await;
    link.agent.restart().await;
    let after = agent_task(&link).await;
    assert_eq!(after["stage"], "Paused");
    assert_eq!(after["parks"][0]["reason"], "operator");
    assert_eq!(before["parks"], after["parks"], "reason, time and author outlive the process");
    link.wait_relayed().await;
    assert_eq!(last_whole_transaction(&mut link).await, parked_at);

    let (_, numbers) = writer.stop().await;
    link.resume().await;
    link.wait_equal().await;
    assert_eq!(last_whole_transaction(&mut link).await, numbers - 1);

    link.stop_task().await;
    link.source.run("UPDATE counter SET n = n").await;
    link.source.run_all(["INSERT INTO left_half VALUES (0)", "INSERT INTO right_half VALUES (0)"]).await;
    link.checkpoint().await;
    link.start_task().await.expect_success();
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// The task in the agent's own status.
async fn agent_task(link: &Link) -> Value {
    let status = link.agent.status().await;
    let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
    let task = tasks.into_iter().find(|task| task["name"] == link.task.as_str());
    task.unwrap_or_else(|| panic!("no task {} in {status}", link.task))
}

/// A transaction too large for one group: the pause does not wait for its end, and nothing of it comes twice.
#[tokio::test]
async fn pause_inside_a_transaction_of_150_000_rows() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("huge", &source, &target, &LinkOptions::default()).await;
    link.source
        .run_all(["CREATE TABLE t (id INT PRIMARY KEY, v INT, pad VARCHAR(100))", "CREATE TABLE marks (id INT)"])
        .await;
    link.wait_equal().await;
    let digits = "(SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                  SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    link.source
        .run_all([
            "BEGIN".to_owned(),
            format!(
                "INSERT INTO t SELECT a.n + 10*b.n + 100*c.n + 1000*d.n + 10000*e.n + 100000*f.n, 0, REPEAT('x', 90) \
                 FROM {digits} a, {digits} b, {digits} c, {digits} d, {digits} e, {digits} f WHERE f.n * 10 + e.n < 15"
            ),
            "UPDATE t SET v = v + 1".to_owned(),
            "INSERT INTO marks VALUES (1)".to_owned(),
            "COMMIT".to_owned(),
        ])
        .await;
    let schema = link.schema.clone();
    for _ in 0..3 {
        let began = Instant::now();
        link.pause().await;
        let took = began.elapsed();
        assert!(took < Duration::from_millis(3200), "the pause took {took:?}; 2.2 s and the polling are allowed");
        let before = link.target_fingerprint().await;
        let marks = link.target.number(&format!("SELECT COUNT(*) FROM {schema}.marks")).await;
        let inside = !agent_task(&link).await["inside_transaction"].is_null();
        assert!(!inside || marks == 0, "the status says inside the transaction, its last change is there");
        assert_eq!(link.target_fingerprint().await, before);
        link.agent.restart().await;
        link.resume().await;
    }
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Parked twice over: auto-resume and a second reason never undo an operator's pause.
#[tokio::test]
async fn an_operators_pause_outlives_an_error_that_heals() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let mut target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("twice", &source, &target, &LinkOptions::default()).await;
    create_halves(&mut link).await;
    link.pause().await;
    target.kill9();
    link.source.run("INSERT INTO left_half VALUES (1)").await;
    target.restart().await;
    link.target = target.root().await;
    link.wait_relayed().await;
    assert_eq!(link.status().await["stage"], "Paused");
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {}.left_half", link.schema)).await, 0);
    link.resume().await;
    link.wait_equal().await;
}

/// Asked twice, answered twice; asked for nothing, refused with a word why.
#[tokio::test]
async fn operations_are_idempotent() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut link = Link::start("again", &source, &target, &LinkOptions::default()).await;
    create_halves(&mut link).await;
    for _ in 0..2 {
        link.pause().await;
    }
    for _ in 0..2 {
        link.resume().await;
    }
    link.wait_for_stage("Running").await;
    link.wait_equal().await;
    link.stop_task().await;
    for command in ["pause-task", "resume-task", "stop-task"] {
        let answer = link.agent.ctl(&[command, &link.task]).await;
        assert!(!answer.succeeded() && answer.text().contains(&link.task), "{answer:#?}");
    }
}
