//! Task modes `all` and `full`, end to end: rows that are there are copied while others write, and what changed meanwhile is
//! replayed, through pauses and kills.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::snapshot_link::{fill, in_the_copy, slow, wait_exact};
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, Link, LinkOptions, shared_pair};
use crate::support::oracle;
use crate::support::servers::{Kind, Server, ServerOptions, shared};
use crate::support::workload::{Mix, Workload};
use crate::support::writer::Writer;

async fn copies_and_follows(label: &str, source: Kind, target: Kind) {
    let (source, target) = shared_pair(source, target).await;
    let routed = source.port == target.port;
    let mut options = LinkOptions::default();
    if routed {
        options.task_extra =
            format!("routes:\n  copy: {{schema-pattern: \"{label}_*\", target-schema: copy_of_{label}}}\n");
        options.instance_extra = "  route-rules: [copy]\n".into();
    }
    let mut link = Link::with_mode("all", label, &source, &target, &options).await;
    let mut workload = Workload::from_env(Mix { ddl: 0.0, ..Mix::default() });
    link.source.run_all(workload.setup()).await;
    workload.run(&mut link.source, 400).await;
    link.start_task().await.expect_success();
    workload.run(&mut link.source, 400).await;
    let to = if routed { format!("copy_of_{label}") } else { link.schema.clone() };
    let pair = [(link.schema.as_str(), to.as_str())];
    oracle::eventually_equal(&mut link.source, &mut link.target, &pair, CATCH_UP_LIMIT).await;
    wait_exact(&link).await;
    // DDL and rows behind it, in the exact mode.
    link.source.run(&format!("CREATE TABLE {}.later (id INT PRIMARY KEY)", link.schema)).await;
    workload.run(&mut link.source, 100).await;
    oracle::eventually_equal(&mut link.source, &mut link.target, &pair, CATCH_UP_LIMIT).await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn copies_mysql_to_mariadb() {
    copies_and_follows("all_my_ma", Kind::MySql, Kind::MariaDb).await;
}

#[tokio::test]
async fn copies_mariadb_to_mysql() {
    copies_and_follows("all_ma_my", Kind::MariaDb, Kind::MySql).await;
}

#[tokio::test]
async fn copies_mysql_to_mysql() {
    copies_and_follows("all_my_my", Kind::MySql, Kind::MySql).await;
}

#[tokio::test]
async fn copies_mariadb_to_mariadb() {
    copies_and_follows("all_ma_ma", Kind::MariaDb, Kind::MariaDb).await;
}

/// A table that is downstream before, with columns of its own: copied by name, and followed by name.
#[tokio::test]
async fn a_table_with_more_columns_downstream_is_copied_and_followed() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MySql).await;
    let options = LinkOptions {
        task_extra: "routes:\n  more: {schema-pattern: \"more_*\", target-schema: more_columns}\n".into(),
        instance_extra: "  route-rules: [more]\n".into(),
        ..LinkOptions::default()
    };
    let mut link = Link::with_mode("all", "more", &source, &target, &options).await;
    link.source.run_all(["CREATE TABLE t (c1 INT PRIMARY KEY, c2 INT)", "INSERT INTO t VALUES (1, 1), (2, 2)"]).await;
    link.target.run("DROP DATABASE IF EXISTS more_columns").await;
    link.target.run("CREATE DATABASE more_columns").await;
    link.target.run("CREATE TABLE more_columns.t (c2 INT, n INT AUTO_INCREMENT, c1 INT PRIMARY KEY, KEY (n))").await;
    // A binlog event of the second in which the table was made may be older than it.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    link.start_task().await.expect_success();
    wait_exact(&link).await;
    link.source
        .run_all([
            "INSERT INTO t VALUES (3, 30), (4, 40)",
            "UPDATE t SET c2 = 10 WHERE c1 = 1",
            "DELETE FROM t WHERE c1 = 2",
        ])
        .await;
    eventually("the rows arrive", CATCH_UP_LIMIT, async || {
        let rows = "SELECT COALESCE(GROUP_CONCAT(CONCAT(c1, '=', c2) ORDER BY c1), '') FROM more_columns.t";
        match link.target.text(rows).await {
            rows if rows == "1=10,3=30,4=40" => Ok(()),
            rows => Err(format!("{rows} {}", link.agent.status().await)),
        }
    })
    .await;
}

/// Mode full ends at one consistent place, and stays Finished.
#[tokio::test]
async fn full_ends_finished() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("full", "full", &source, &target, &LinkOptions::default()).await;
    fill(&mut link.source, "t", 5000).await;
    link.source.run("CREATE TABLE pairs (id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL)").await;
    link.source.run("INSERT INTO pairs VALUES (1, 0, 0)").await;
    // Both columns change together: a place that is not consistent would show.
    let writer = Writer::start(source.port, &link.schema, |round| {
        vec![
            format!("UPDATE pairs SET a = {round}, b = {round}"),
            format!("UPDATE t SET n = n + 1 WHERE id = {}", round % 5000),
        ]
    });
    link.start_task().await.expect_success();
    let status = link.wait_for_stage("Finished").await;
    writer.end().await;
    assert_eq!(
        (&status["unit"], &status["load"]["progress"]),
        (&Value::from("Load"), &Value::from("100.00 %")),
        "{status}"
    );
    assert_eq!(status["result"]["isCanceled"], Value::Bool(false), "{status}");
    let schema = link.schema.clone();
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {schema}.t")).await, 5000);
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {schema}.pairs WHERE a = b")).await, 1);
    for command in ["pause-task", "resume-task"] {
        link.agent.ctl(&[command, &link.task]).await.expect_refusal(&["current stage is Finished"]);
    }
    // Nothing more comes, and a restart does not begin again.
    let before = link.target_fingerprint().await;
    link.source.run("INSERT INTO t VALUES (9999, 1, 'late')").await;
    link.agent.restart().await;
    link.wait_for_stage("Finished").await;
    assert_eq!(link.target_fingerprint().await, before);
    // What is written down is exact: the place can be followed from.
    link.stop_task().await;
    link.start_task().await.expect_success();
    link.wait_for_stage("Finished").await;
    link.stop_task().await;
    link.task_file.mode = "incremental";
    link.start_task().await.expect_success();
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// pause-task parks within 200 ms in the copy; resume goes on behind the marks; nothing is copied twice.
#[tokio::test]
async fn pauses_in_the_copy() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "pause_copy", &source, &target, &slow()).await;
    fill(&mut link.source, "t", 20_000).await;
    let writer = Writer::start(source.port, &link.schema, |round| {
        vec![
            format!("UPDATE t SET n = n + 1 WHERE id = {}", round * 37 % 20_000),
            format!("DELETE FROM t WHERE id = {}", round * 91 % 20_000),
        ]
    });
    link.start_task().await.expect_success();
    let mut pauses = 0;
    while pauses < 5 {
        in_the_copy(&link).await;
        let began = Instant::now();
        link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
        let took = began.elapsed();
        let status = link.wait_for_stage("Paused").await;
        assert!(took < Duration::from_millis(700), "pause-task took {took:?}");
        link.resume().await;
        match status["unit"].as_str() {
            Some("Load") => {
                pauses += 1;
                assert!(status["load"]["progress"].as_str().is_some_and(|text| text.ends_with(" %")), "{status}");
            }
            // Structures are looked at again at the beginning of each resume.
            Some("Dump") => {}
            _ => break,
        }
    }
    assert!(pauses > 0, "the copy was over before the first pause");
    writer.end().await;
    link.wait_equal().await;
    wait_exact(&link).await;
    link.agent.assert_quiet_log();
}

/// kill -9 in the copy and in the replay, with writers on.
#[tokio::test]
async fn kills_in_the_copy() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "kill_copy", &source, &target, &slow()).await;
    fill(&mut link.source, "t", 20_000).await;
    link.source.run("CREATE TABLE keyless (n INT, s VARCHAR(20))").await;
    link.source.run("INSERT INTO keyless SELECT id % 50, 'x' FROM t WHERE id < 500").await;
    link.source.run("CREATE TABLE two (id INT PRIMARY KEY, u INT NOT NULL UNIQUE)").await;
    link.source.run("INSERT INTO two SELECT id, id + 100000 FROM t WHERE id < 2000").await;
    let writer = Writer::start(source.port, &link.schema, |round| {
        let (a, b) = (round * 13 % 2000, round * 29 % 2000);
        vec![
            format!("UPDATE t SET n = n + 1, id = id + 100000 WHERE id = {}", round * 37 % 20_000),
            format!("INSERT INTO keyless VALUES ({}, 'new')", round % 50),
            format!("UPDATE keyless SET s = CONCAT('u', {round}) WHERE n = {} LIMIT 1", (round + 7) % 50),
            format!("DELETE FROM keyless WHERE n = {} LIMIT 1", (round + 3) % 50),
            // The unique value moves from one row to another.
            "BEGIN".into(),
            format!("UPDATE two SET u = -1 - {a} WHERE id = {a}"),
            format!(
                "UPDATE two SET u = {a} + 100000 WHERE id = {b} AND NOT EXISTS (SELECT 1 FROM (SELECT u FROM two) x WHERE x.u = {a} + 100000)"
            ),
            "COMMIT".into(),
        ]
    });
    link.start_task().await.expect_success();
    for kill in 0..6 {
        tokio::time::sleep(Duration::from_millis(150 + 130 * kill)).await;
        link.agent.restart().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    writer.end().await;
    link.wait_equal().await;
    wait_exact(&link).await;
    link.agent.assert_quiet_log();
}

/// remove-meta begins the copy anew; a stop and a start do not.
#[tokio::test]
async fn stop_goes_on_and_remove_meta_begins_anew() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "anew", &source, &target, &slow()).await;
    fill(&mut link.source, "t", 6000).await;
    link.start_task().await.expect_success();
    in_the_copy(&link).await;
    link.stop_task().await;
    let schema = link.schema.clone();
    let count = format!("SELECT COUNT(*) FROM {schema}.t");
    let before = link.target.number(&count).await;
    assert!(before > 0 && before < 6000, "{before} rows copied before the stop");
    // What is marked is not copied again.
    link.target.run(&format!("UPDATE {schema}.t SET s = 'touched' WHERE id < 5")).await;
    link.start_task().await.expect_success();
    wait_exact(&link).await;
    assert_eq!(link.target.number(&count).await, 6000);
    assert_eq!(link.target.number(&format!("{count} WHERE s = 'touched'")).await, 5);
    link.stop_task().await;
    let path = link.agent.file("task.yaml", &link.task_file.yaml());
    link.agent.ctl(&["start-task", &path, "--remove-meta"]).await.expect_success();
    wait_exact(&link).await;
    link.wait_equal().await;
    link.agent.ctl(&["stop-task", &link.task]).await.expect_success();
    let path = link.agent.file("task.yaml", &link.task_file.yaml());
    let refused = link.agent.ctl(&["start-task", &path, "--start-time", "2026-01-01 00:00:00"]).await;
    refused.expect_refusal(&["--start-time", "no meaning"]);
    link.agent.assert_quiet_log();
}

/// Another agent goes on where the first one was, from what is stored downstream.
#[tokio::test]
async fn another_agent_goes_on_in_the_copy() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "move", &source, &target, &slow()).await;
    fill(&mut link.source, "t", 8000).await;
    link.start_task().await.expect_success();
    in_the_copy(&link).await;
    link.agent.kill9();
    let schema = link.schema.clone();
    let before = link.target.number(&format!("SELECT COUNT(*) FROM {schema}.t")).await;
    assert!(before < 8000, "the copy was over before the kill");
    link.target.run(&format!("UPDATE {schema}.t SET s = 'touched' WHERE id < 5")).await;
    let other = crate::support::agent::Agent::start(&Default::default()).await;
    let file = crate::support::docs::SourceFile::new(&link.source_id, Kind::MySql, source.port);
    let path = other.file("source.yaml", &file.yaml());
    other.ctl(&["operate-source", "create", &path]).await.expect_success();
    link.agent = other;
    link.start_task().await.expect_success();
    wait_exact(&link).await;
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {schema}.t WHERE s = 'touched'")).await, 5);
    link.target.run(&format!("UPDATE {schema}.t SET s = CONCAT('row ', id) WHERE id < 5")).await;
    link.source.run("DELETE FROM t WHERE id % 7 = 0").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// A downstream that hangs when a copy is to go on: what is known of how far it is stays to be seen.
#[tokio::test]
async fn a_resume_that_waits_shows_how_far_it_was() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let mut target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::with_mode("all", "hangs", &source, &target, &slow()).await;
    fill(&mut link.source, "t", 20_000).await;
    link.start_task().await.expect_success();
    in_the_copy(&link).await;
    link.pause().await;
    let written = |status: &Value| status["load"]["finishedBytes"].as_str().and_then(|text| text.parse::<u64>().ok());
    let before = written(&link.status().await);
    assert!(before > Some(0), "{before:?}");
    target.freeze();
    link.agent.ctl(&["resume-task", &link.task]).await;
    let status = link.wait_for_stage("Running").await;
    assert_eq!((&status["unit"], written(&status)), (&Value::from("Load"), before), "{status}");
    target.thaw();
    link.wait_equal().await;
}
