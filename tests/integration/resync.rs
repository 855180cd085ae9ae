//! `resync-table`: one table of a running task is read again, while others write and whatever happens in the middle.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::snapshot_link::{self, slow};
use crate::support::agent::Answer;
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, Link, LinkOptions, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};
use crate::support::writer::Writer;

async fn resync(link: &Link, table: &str) -> Answer {
    link.agent.ctl(&["resync-table", &link.task, &format!("{}.{table}", link.schema)]).await
}

async fn order(link: &Link, table: &str) {
    let answer = resync(link, table).await;
    assert_eq!(answer.exit, Some(0), "{answer:#?}");
}

async fn refuse(link: &Link, table: &str, words: &[&str]) {
    let answer = resync(link, table).await;
    assert_eq!(answer.exit, Some(2), "{answer:#?}");
    for word in words {
        assert!(answer.stderr.contains(word), "'{word}' is not in {answer:#?}");
    }
}

async fn task(link: &Link) -> Value {
    link.agent.status().await["tasks"][0].clone()
}

/// Waits until so many tables were read again, by this process, and none waits.
async fn read_again(link: &Link, total: u64) {
    eventually("it is read again, and the exact mode has begun", CATCH_UP_LIMIT, async || {
        let task = task(link).await;
        let none = task["again"].as_array().is_none_or(Vec::is_empty);
        let exact = task["safe_mode"].as_str().unwrap_or_default().is_empty();
        let done = task["read_again_total"].as_u64().unwrap_or_default() >= total && none && exact;
        if done && task["stage"] == "Running" && task["unit"] == "Sync" { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
}

/// Waits until a table is being read, and not at its end.
async fn in_the_middle(link: &Link) {
    eventually("a table is being read again", Duration::from_secs(30), async || {
        let task = task(link).await;
        let table = &task["again"][0];
        if table["reading"] == true && table["rows_written"].as_u64() > Some(0) {
            Ok(())
        } else {
            Err(task.to_string())
        }
    })
    .await;
}

async fn fill(link: &mut Link, rows: u32) {
    snapshot_link::fill(&mut link.source, "t", rows).await;
}

async fn heals(label: &str, source: Kind, target: Kind) {
    let (source, target) = shared_pair(source, target).await;
    let mut link = Link::start(label, &source, &target, &LinkOptions::default()).await;
    fill(&mut link, 6000).await;
    let schema = link.schema.clone();
    link.source
        .run_all([
            "CREATE TABLE keyless (n INT, s VARCHAR(20))",
            "INSERT INTO keyless SELECT id % 50, 'x' FROM t WHERE id < 600",
            "CREATE TABLE two (a VARCHAR(20), b INT, v INT, PRIMARY KEY (a, b), UNIQUE KEY (v))",
            "INSERT INTO two SELECT CONCAT('k', id % 7), id, id FROM t WHERE id < 900",
            "CREATE TABLE other (id INT PRIMARY KEY)",
        ])
        .await;
    link.wait_equal().await;
    link.target
        .run_all([
            format!("DELETE FROM {schema}.t WHERE id % 7 = 0"),
            format!("INSERT INTO {schema}.t SELECT id + 500000, 1, 'planted' FROM {schema}.t WHERE id < 900"),
            format!("UPDATE {schema}.t SET s = 'planted' WHERE id % 11 = 0"),
            format!("DELETE FROM {schema}.keyless WHERE n = 3"),
            format!("INSERT INTO {schema}.keyless VALUES (1, 'planted'), (1, 'planted')"),
            format!("DELETE FROM {schema}.two WHERE b % 5 = 0"),
            format!("UPDATE {schema}.two SET v = -v WHERE b % 3 = 1"),
            format!("INSERT INTO {schema}.two VALUES ('k9', 1, 1000000), ('a', 2, 1000001)"),
        ])
        .await;
    let writer = Writer::start(source.port, &schema, |round| {
        vec![
            format!("UPDATE t SET n = n + 1 WHERE id = {}", round * 37 % 6000),
            format!("DELETE FROM t WHERE id = {}", round * 91 % 6000),
            format!("INSERT INTO t VALUES ({}, 1, 'new')", 100_000 + round),
            format!("INSERT INTO keyless VALUES ({}, 'new')", round % 50),
            format!("DELETE FROM keyless WHERE n = {} AND s = 'new' LIMIT 1", round % 50),
            format!("UPDATE two SET v = {} WHERE b = {}", 2_000_000 + round, round * 13 % 900),
            format!("INSERT INTO other VALUES ({round})"),
        ]
    });
    writer.more_rounds(5).await;
    for (number, table) in (1..).zip(["t", "keyless", "two"]) {
        order(&link, table).await;
        read_again(&link, number).await;
    }
    writer.more_rounds(5).await;
    writer.end().await;
    link.wait_equal().await;
    let events = link.agent.ctl(&["events", "--last", "0"]).await.stdout;
    for word in
        [format!("resync-table \"{} {schema}.t\": ok", link.task), format!("`{schema}`.`keyless` was read again")]
    {
        assert!(events.contains(&word), "'{word}' is not in {events}");
    }
    // Behind it everything is exact again, over a restart too.
    link.agent.restart().await;
    link.source.run_all(["UPDATE t SET n = n + 1 WHERE id < 50", "INSERT INTO keyless VALUES (7, 'late')"]).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn heals_mysql_to_mariadb() {
    heals("resync_my_ma", Kind::MySql, Kind::MariaDb).await;
}

#[tokio::test]
async fn heals_mariadb_to_mysql() {
    heals("resync_ma_my", Kind::MariaDb, Kind::MySql).await;
}

/// Killed in the middle, several times: the table is known for one that is not whole, and reading it goes on; one without a key
/// is read from its beginning. And another agent, which only has what is downstream, does the same.
#[tokio::test]
async fn kill9_in_the_middle() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "resync_kill", &source, &target, &slow()).await;
    fill(&mut link, 16_000).await;
    link.source.run("CREATE TABLE keyless AS SELECT n % 100 AS n, s FROM t").await;
    link.start_task().await.expect_success();
    read_again(&link, 0).await;
    link.wait_equal().await;
    let schema = link.schema.clone();
    let writer = Writer::start(source.port, &schema, |round| {
        vec![
            format!("UPDATE t SET n = n + 1 WHERE id = {}", round * 37 % 16_000),
            format!("INSERT INTO keyless VALUES ({}, 'new')", round % 100),
            format!("DELETE FROM keyless WHERE n = {} LIMIT 1", (round + 50) % 100),
        ]
    });
    for table in ["t", "keyless"] {
        link.target.run(&format!("UPDATE {schema}.{table} SET s = 'planted'")).await;
        order(&link, table).await;
        for kill in 0..3 {
            in_the_middle(&link).await;
            link.agent.kill9();
            if table == "t" && kill == 1 {
                link.target.run(&format!("UPDATE {schema}.t SET s = 'kept' WHERE id < 15")).await;
            }
            let planted = format!("SELECT COUNT(*) FROM {schema}.{table} WHERE s = 'planted'");
            let whole = link.target.number(&format!("SELECT COUNT(*) FROM {schema}.{table}")).await;
            assert!(table == "keyless" && whole < 16_000 || link.target.number(&planted).await > 0, "it was over");
            link.agent.restart().await;
        }
        in_the_middle(&link).await;
        read_again(&link, 1).await;
    }
    // Some may have been changed on the source since.
    let kept = link.target.number(&format!("SELECT COUNT(*) FROM {schema}.t WHERE s = 'kept'")).await;
    assert!(kept > 5, "{kept} rows were not read twice");
    order(&link, "t").await;
    in_the_middle(&link).await;
    link.agent.kill9();
    let other = crate::support::agent::Agent::start(&Default::default()).await;
    let file = crate::support::docs::SourceFile::new(&link.source_id, Kind::MySql, source.port);
    let path = other.file("source.yaml", &file.yaml());
    other.ctl(&["operate-source", "create", &path]).await.expect_success();
    link.agent = other;
    link.start_task().await.expect_success();
    read_again(&link, 1).await;
    writer.end().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// pause-task parks within 200 ms in the middle; the status says that the table is not whole; resume reads it again.
#[tokio::test]
async fn pauses_in_the_middle() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "resync_pause", &source, &target, &slow()).await;
    fill(&mut link, 16_000).await;
    link.start_task().await.expect_success();
    read_again(&link, 0).await;
    let schema = link.schema.clone();
    link.target.run(&format!("DELETE FROM {schema}.t WHERE id % 3 = 0")).await;
    order(&link, "t").await;
    for _ in 0..3 {
        in_the_middle(&link).await;
        let began = Instant::now();
        link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
        let took = began.elapsed();
        link.wait_for_stage("Paused").await;
        // The command itself, a process of its own, takes the larger part.
        assert!(took < Duration::from_millis(700), "pause-task took {took:?}");
        let task = task(&link).await;
        assert_eq!(task["again"][0]["name"], format!("`{schema}`.`t`"), "{task}");
        let screen = link.agent.ctl(&["status"]).await.stdout;
        assert!(screen.contains("it is not whole"), "{screen}");
        link.agent.restart().await;
        let task = self::task(&link).await;
        assert_eq!(task["again"][0]["name"], format!("`{schema}`.`t`"), "after a restart: {task}");
        link.resume().await;
    }
    in_the_middle(&link).await;
    read_again(&link, 1).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// What is known to fail is refused with why, and parks nothing.
#[tokio::test]
async fn refused_where_it_cannot_be() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut options = slow();
    options.task_extra.push_str(
        "routes:\n  merge: {schema-pattern: \"resync_no*\", table-pattern: \"part_*\", target-schema: TARGET, target-table: whole}\n  \
         heap: {schema-pattern: \"resync_no*\", table-pattern: \"heap_*\", target-schema: TARGET, target-table: heap}\n",
    );
    options.instance_extra.push_str("  route-rules: [merge, heap]\n");
    let mut link = Link::with_mode("all", "resync_no", &source, &target, &options).await;
    let schema = link.schema.clone();
    link.task_file.extra = link.task_file.extra.replace("TARGET", &schema);
    fill(&mut link, 12_000).await;
    link.source
        .run_all([
            "CREATE VIEW v AS SELECT * FROM t",
            "CREATE TABLE part_1 (id INT PRIMARY KEY)",
            "CREATE TABLE part_2 (id INT PRIMARY KEY)",
            "INSERT INTO part_1 VALUES (1), (2)",
            "INSERT INTO part_2 VALUES (3), (4)",
        ])
        .await;
    refuse(&link, "t", &["not found"]).await;
    link.start_task().await.expect_success();
    refuse(&link, "t", &["still copies existing rows"]).await;
    read_again(&link, 0).await;
    link.source
        .run_all(["CREATE TABLE heap_1 (n INT)", "CREATE TABLE heap_2 (n INT)", "INSERT INTO heap_1 VALUES (1)"])
        .await;
    link.source.run("CREATE TABLE alone (n INT)").await;
    eventually("the last table has come", CATCH_UP_LIMIT, async || {
        link.target.try_run(&format!("SELECT * FROM {schema}.alone")).await
    })
    .await;
    refuse(&link, "nosuch", &["`nosuch` is not there on the source"]).await;
    refuse(&link, "v", &["is a view"]).await;
    refuse(&link, "heap_1", &["has no key", "other tables of the source"]).await;
    let foreign = link.agent.ctl(&["resync-table", &link.task, "mysql.user"]).await;
    assert!(foreign.exit == Some(2) && foreign.stderr.contains("block-allow-list"), "{foreign:#?}");
    let nameless = link.agent.ctl(&["resync-table", &link.task, "t"]).await;
    assert!(nameless.exit != Some(0) && nameless.stderr.contains("schema.table"), "{nameless:#?}");
    let unknown = link.agent.ctl(&["resync-table", "nosuch", "a.b"]).await;
    assert!(unknown.exit == Some(2) && unknown.stderr.contains("not found"), "{unknown:#?}");
    link.target.run(&format!("ALTER TABLE {schema}.t DROP COLUMN s")).await;
    refuse(&link, "t", &["lacks columns", "s"]).await;
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN s VARCHAR(60)")).await;
    // Another source of the same task may write to the same tables.
    let meta = format!("dm_meta.{}_syncer_checkpoint", link.task);
    link.target
        .run(&format!(
            "INSERT INTO {meta} (id, cp_schema, cp_table, table_info, is_global) VALUES ('other', '', '', 'null', 1)"
        ))
        .await;
    refuse(&link, "alone", &["has no key", "other sources"]).await;
    link.target.run(&format!("DELETE FROM {meta} WHERE id = 'other'")).await;
    link.pause().await;
    refuse(&link, "t", &["Paused but not running"]).await;
    link.resume().await;
    read_again(&link, 0).await;
    // Rows of the other table stay.
    link.target.run(&format!("DELETE FROM {schema}.whole WHERE id IN (1, 3)")).await;
    let answer = resync(&link, "part_1").await;
    assert!(answer.exit == Some(0) && answer.stdout.contains("note: other tables"), "{answer:#?}");
    read_again(&link, 1).await;
    let ids = link.target.texts(&format!("SELECT id FROM {schema}.whole ORDER BY id")).await.concat();
    assert_eq!(ids, ["1", "2", "4"]);
    assert_eq!(task(&link).await["stage"], "Running");
    link.agent.assert_quiet_log();
}

/// What changes while a table is read is replaced whole, so that whole rows must be logged.
#[tokio::test]
async fn refused_where_the_source_logs_parts_of_rows() {
    let options = ServerOptions { row_image: "MINIMAL", ..ServerOptions::default() };
    let (source, target) =
        (shared(Kind::MariaDb, &options).await, shared(Kind::MySql, &ServerOptions::default()).await);
    let mut link = Link::start("resync_min", &source, &target, &LinkOptions::default()).await;
    fill(&mut link, 10).await;
    link.wait_equal().await;
    refuse(&link, "t", &["binlog_row_image of the source is MINIMAL", "SET GLOBAL"]).await;
    assert_eq!(task(&link).await["stage"], "Running");
    link.agent.assert_quiet_log();
}

/// Rows of an XA transaction were applied when it was prepared, and no read of the table sees them: its end is waited for.
#[tokio::test]
async fn what_is_prepared_is_not_lost() {
    for (label, from, to) in
        [("resync_xa_my", Kind::MySql, Kind::MariaDb), ("resync_xa_ma", Kind::MariaDb, Kind::MySql)]
    {
        // No other test's transactions.
        let source = Server::start(from, &ServerOptions::default()).await;
        let target = shared(to, &ServerOptions::default()).await;
        let mut link = Link::start(label, &source, &target, &LinkOptions::default()).await;
        fill(&mut link, 1000).await;
        let schema = link.schema.clone();
        let mut other = source.root().await;
        other
            .run_all([
                format!("USE {schema}"),
                "XA START 'r'".into(),
                "UPDATE t SET n = -1 WHERE id = 5".into(),
                "DELETE FROM t WHERE id = 6".into(),
                "INSERT INTO t VALUES (5000, 1, 'prepared')".into(),
                "XA END 'r'".into(),
                "XA PREPARE 'r'".into(),
            ])
            .await;
        let prepared = format!("SELECT COUNT(*) FROM {schema}.t WHERE id = 5000");
        eventually("what is prepared is applied", CATCH_UP_LIMIT, async || {
            match link.target.try_rows(&prepared).await? {
                rows if rows[0][0].as_deref() == Some(b"1") => Ok(()),
                _ => Err(task(&link).await.to_string()),
            }
        })
        .await;
        order(&link, "t").await;
        eventually("its end is waited for", Duration::from_secs(20), async || {
            let task = task(&link).await;
            let waits = task["activity"].as_str().is_some_and(|text| text.contains("waiting for 1 XA transactions"));
            if waits { Ok(()) } else { Err(task.to_string()) }
        })
        .await;
        other.run("XA COMMIT 'r'").await;
        read_again(&link, 1).await;
        link.wait_equal().await;
        assert_eq!(link.target.number(&prepared).await, 1);
        link.agent.assert_quiet_log();
    }
}

/// A transaction that waits for a semi-synchronous replica is logged and applied, and no read of the source sees it.
#[tokio::test]
async fn what_waits_for_a_replica_is_not_lost() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("resync_semi", &source, &target, &LinkOptions::default()).await;
    fill(&mut link, 1000).await;
    link.wait_equal().await;
    let schema = link.schema.clone();
    link.source
        .run_all([
            "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
            "SET GLOBAL rpl_semi_sync_source_timeout = 6000",
            "SET GLOBAL rpl_semi_sync_source_enabled = 1",
        ])
        .await;
    let mut other = source.root().await;
    let update = format!("UPDATE {schema}.t SET n = -1 WHERE id = 5");
    // There is no replica, so that it waits as long as it may.
    let waits = async { other.run(&update).await };
    let resync = async {
        let n = format!("SELECT n FROM {schema}.t WHERE id = 5");
        eventually("it is applied", CATCH_UP_LIMIT, async || match link.target.text(&n).await.as_str() {
            "-1" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
        assert_eq!(link.source.text(&n).await, "5", "and it is not seen yet");
        order(&link, "t").await;
        read_again(&link, 1).await;
    };
    tokio::join!(waits, resync);
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}
