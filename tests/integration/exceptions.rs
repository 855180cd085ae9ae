//! Events that an operator orders to be treated otherwise: `binlog skip`, `replace`, `inject`, `revert`, `list`.

use std::time::Duration;

use dm_agent::pipeline::start_location;

use crate::support::agent::Answer;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::servers::{Kind, ServerOptions, shared};

const LIMIT: Duration = Duration::from_secs(30);

async fn binlog(link: &Link, op: &str, place: Option<&str>, statements: &[&str]) -> Answer {
    let mut words = vec!["binlog", op, &link.task];
    words.extend(place.into_iter().flat_map(|place| ["-b", place]));
    // As one text, as dmctl takes them.
    let statements = statements.join("; ");
    words.extend((!statements.is_empty()).then_some(statements.as_str()));
    link.agent.ctl(&words).await
}

/// What is listed from the beginning of the binlog on, as text.
async fn listed(link: &Link) -> String {
    let answer = binlog(link, "list", Some("mysql-bin.000001:4"), &[]).await;
    answer.expect_success();
    answer.json()["sources"][0]["msg"].as_str().expect("a text").to_owned()
}

async fn has_column(link: &mut Link, table: &str, column: &str) -> bool {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema='{}' AND table_name='{table}' AND \
         column_name='{column}'",
        link.schema
    );
    link.target.number(&sql).await == 1
}

async fn has_rows(link: &mut Link, table: &str, rows: u64) {
    let sql = format!("SELECT id FROM {}.{table}", link.schema);
    eventually("the rows behind it arrive", LIMIT, async || match link.target.try_rows(&sql).await?.len() as u64 {
        count if count == rows => Ok(()),
        count => Err(format!("{count} rows of {table}: {}", link.agent.status().await)),
    })
    .await;
}

async fn noted(link: &Link, words: &str) {
    eventually("the status tells it", LIMIT, async || {
        let notes = link.agent.status().await["tasks"][0]["notes"].to_string();
        if notes.contains(words) { Ok(()) } else { Err(notes) }
    })
    .await;
}

/// The place of the event that failed, as `binlog skip -b` takes it.
async fn failed_at(link: &Link) -> String {
    let status = link.status().await;
    let message = status["result"]["errors"][0]["Message"].as_str().unwrap_or_else(|| panic!("{status}"));
    let place = start_location(message).unwrap_or_else(|| panic!("{message}"));
    format!("{}:{}", place.file.name(), place.offset)
}

#[tokio::test]
async fn a_statement_that_fails_is_left_out_or_replaced() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let options = LinkOptions::default();
    let mut link = Link::start("skip", &source, &target, &options).await;
    let schema = link.schema.clone();
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    binlog(&link, "skip", None, &[]).await.expect_refusal(&["source 'mysql-replica-01' has no error"]);
    binlog(&link, "list", None, &[]).await.expect_refusal(&["has no error"]);

    // The column is there already, and another one.
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN a BIGINT")).await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN a INT", "INSERT INTO t VALUES (1, 1)"]).await;
    link.wait_for_stage("Paused").await;
    binlog(&link, "skip", None, &[]).await.expect_success();
    has_rows(&mut link, "t", 1).await;
    noted(&link, "left out by an operator's order").await;

    // And in another form, with a second statement behind it.
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN b INT")).await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN b VARCHAR(20)", "INSERT INTO t VALUES (2, 2, 'two')"]).await;
    link.wait_for_stage("Paused").await;
    let insert = format!("INSERT INTO {schema}.t VALUES (9, 9, 9)");
    let refused = binlog(&link, "replace", None, &[&insert]).await;
    refused.expect_refusal(&["code=36064", "only support replace or inject with DDL currently"]);
    let refused = binlog(&link, "replace", None, &["ALTER TABLE t ADD COLUMN e INT"]).await;
    refused
        .expect_refusal(&["code=36024", "injected DDL ALTER TABLE t ADD COLUMN e INT without schema name not valid"]);
    let refused = binlog(&link, "replace", None, &["ALTER TABLE other.t ADD COLUMN e INT"]).await;
    refused.expect_refusal(&["no effect downstream"]);
    let (modify, index) =
        (format!("ALTER TABLE {schema}.t MODIFY COLUMN b VARCHAR(20)"), format!("CREATE INDEX i ON {schema}.t (b)"));
    binlog(&link, "replace", None, &[&modify, &index]).await.expect_success();
    has_rows(&mut link, "t", 2).await;
    let text = format!("SELECT b FROM {schema}.t WHERE id=2");
    assert_eq!(link.target.text(&text).await, "two");
    let indexes =
        format!("SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema='{schema}' AND index_name='i'");
    assert_eq!(link.target.number(&indexes).await, 1);

    // A parked task's checkpoint is behind both: nothing is left of the orders.
    link.pause().await;
    eventually("orders are forgotten when they are passed", LIMIT, async || match listed(&link).await {
        list if list == "[]" => Ok(()),
        list => Err(list),
    })
    .await;
}

#[tokio::test]
async fn statements_run_before_rows_that_have_no_table() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("inject", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.target.run(&format!("DROP TABLE {schema}.t")).await;
    // The first transaction fails at its second event: nothing can be put there.
    link.source
        .run_all(["CREATE TABLE u (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)", "INSERT INTO t VALUES (3)"])
        .await;
    link.wait_for_stage("Paused").await;
    let skip = binlog(&link, "skip", None, &[]).await;
    skip.expect_refusal(&["only support to handle ddl error currently"]);
    let create = format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY)");
    binlog(&link, "inject", None, &[&create]).await.expect_success();
    has_rows(&mut link, "t", 3).await;
    link.wait_equal().await;
}

/// An order for an event that has not come yet outlives a kill, and one that is taken back has no effect.
#[tokio::test]
async fn orders_for_events_to_come_outlive_a_kill() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("future", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    link.wait_equal().await;
    link.pause().await;
    // Nobody else writes to the parked source's next place: it is where the next transaction of ours begins, if it is the next.
    let mut place = String::new();
    let mut statement_at = String::new();
    for attempt in 0..50 {
        let before = location(&mut link.source, link.kind).await;
        link.source.run(&format!("ALTER TABLE t ADD COLUMN x{attempt} INT")).await;
        let after = location(&mut link.source, link.kind).await;
        // The shared source may have been written to by others in between.
        let events =
            link.source.texts(&format!("SHOW BINLOG EVENTS IN '{}' FROM {}", before.file, before.position)).await;
        let ours = events.get(1).is_some_and(|event| event[5].contains(&format!("x{attempt}")));
        if ours && before.file == after.file {
            place = format!("{}:{}", before.file, before.position);
            statement_at = format!("{}:{}", before.file, events[1][1]);
            link.source.run(&format!("ALTER TABLE t DROP COLUMN x{attempt}, ADD COLUMN late INT")).await;
            break;
        }
        link.source.run(&format!("ALTER TABLE t DROP COLUMN x{attempt}")).await;
    }
    assert!(!place.is_empty(), "the source is too busy");

    binlog(&link, "revert", Some(&place), &[]).await.expect_refusal(&["code=36065", "error operator not exist"]);
    // As DM's own tests do, which take that for a success: here it is told that it has no effect.
    for passed in ["mysql-bin.000001:4", "mysql-bin.000000:00000"] {
        let skip = binlog(&link, "skip", Some(passed), &[]).await;
        skip.expect_success();
        assert!(skip.text().contains("nothing changes: the event at"), "{skip:?}");
    }
    assert_eq!(listed(&link).await, "[]");
    // The place of its transaction means the statement, too.
    binlog(&link, "skip", Some(&statement_at), &[]).await.expect_success();
    assert!(listed(&link).await.contains("\"op\":1"));
    binlog(&link, "revert", Some(&statement_at), &[]).await.expect_success();
    assert_eq!(listed(&link).await, "[]");
    binlog(&link, "skip", Some(&place), &[]).await.expect_success();
    link.agent.kill9();
    link.agent.restart().await;
    let (file, offset) = place.split_once(':').expect("a place");
    let expected = format!("[{{\"op\":1,\"task\":\"{}\",\"binlogPos\":\"({file}, {offset})\"}}]", link.task);
    assert_eq!(listed(&link).await, expected);
    // Still paused: an order resumes what failed, not what an operator paused.
    assert_eq!(link.status().await["stage"], "Paused");
    // The statement that drops what was never added fails: that shows that the first one was left out.
    // Whether the answer tells it already depends on how soon it fails.
    link.agent.ctl(&["resume-task", &link.task]).await;
    link.wait_for_error(&["Error 1091"]).await;
    assert!(!has_column(&mut link, "t", "late").await);
    let add = format!("ALTER TABLE {}.t ADD COLUMN late INT", link.schema);
    binlog(&link, "replace", None, &[&add]).await.expect_success();
    link.wait_equal().await;
    // At the park both are passed, and an order that is passed is none.
    link.pause().await;
    binlog(&link, "revert", Some(&place), &[]).await.expect_refusal(&["code=36065", "error operator not exist"]);
}

/// What a statement was refused with says nothing of the one that is ordered in its place: that one is not taken for done
/// because other tables look otherwise.
#[tokio::test]
async fn an_order_that_is_refused_too_is_not_taken_for_done() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("refused", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY, a INT)"]).await;
    link.wait_equal().await;
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN a INT NOT NULL DEFAULT 0")).await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN a INT", "INSERT INTO t VALUES (1, 1)"]).await;
    link.wait_for_error(&["Error 1060", "`t`"]).await;
    // Two statements, the first of which runs.
    let (first, second) =
        (format!("ALTER TABLE {schema}.t ADD COLUMN b INT"), format!("ALTER TABLE {schema}.u ADD COLUMN a INT"));
    binlog(&link, "replace", None, &[&first, &second]).await.expect_success();
    link.wait_for_error(&["Error 1060", "`u`"]).await;
    // Others in the place of both: none of these has been begun.
    let (third, fourth) =
        (format!("ALTER TABLE {schema}.u ADD COLUMN c INT"), format!("ALTER TABLE {schema}.t DROP COLUMN b"));
    binlog(&link, "replace", None, &[&third, &fourth]).await.expect_success();
    has_rows(&mut link, "t", 1).await;
    assert!(has_column(&mut link, "u", "c").await, "it was taken for done");
    assert!(!has_column(&mut link, "t", "b").await);
    link.target.run(&format!("ALTER TABLE {schema}.u DROP COLUMN c")).await;
    link.wait_equal().await;
}

/// kill -9 between two statements that stand for one event: the first is not run again, the second is.
#[tokio::test]
async fn a_kill_between_two_ordered_statements_runs_each_once() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("between", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    link.wait_equal().await;
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN a INT NOT NULL DEFAULT 0")).await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN a INT", "INSERT INTO t VALUES (1, 1)"]).await;
    link.wait_for_error(&["Error 1060"]).await;
    // Whoever reads a table keeps it from being altered.
    let mut reader = target.root().await;
    reader.run_all(["BEGIN".to_owned(), format!("SELECT * FROM {schema}.u")]).await;
    let (first, second) =
        (format!("CREATE INDEX i ON {schema}.t (a)"), format!("ALTER TABLE {schema}.u ADD COLUMN c INT"));
    binlog(&link, "replace", None, &[&first, &second]).await.expect_success();
    let waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for%' AND info LIKE \
                 'ALTER TABLE%ADD COLUMN c INT%'";
    eventually("the second waits", LIMIT, async || match link.target.number(waits).await {
        0 => Err(link.status().await.to_string()),
        _ => Ok(()),
    })
    .await;
    let indexes =
        format!("SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema='{schema}' AND index_name='i'");
    assert_eq!(link.target.number(&indexes).await, 1);
    link.agent.kill9();
    // Not while the first agent's statement still waits: the task begins anew, and both statements may wait now.
    link.agent.restart().await;
    reader.run("COMMIT").await;
    has_rows(&mut link, "t", 1).await;
    assert!(has_column(&mut link, "u", "c").await);
    assert_eq!(link.status().await["stage"], "Running", "{}", link.status().await);
}

/// A compressed transaction is one event to the source, and to whoever names one: all of it is left out.
#[tokio::test]
async fn a_compressed_transaction_is_left_out_whole() {
    let compressed = ServerOptions { compression: true, ..ServerOptions::default() };
    let source = shared(Kind::MySql, &compressed).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    // With more than one lane, another may have applied its part before the failure.
    let options = LinkOptions { workers: Some(1), ..LinkOptions::default() };
    let mut link = Link::start("payload", &source, &target, &options).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    link.wait_equal().await;
    link.target.run(&format!("INSERT INTO {}.t VALUES (1)", link.schema)).await;
    let both = ["BEGIN", "INSERT INTO u VALUES (1)", "INSERT INTO t VALUES (1)", "COMMIT", "INSERT INTO u VALUES (2)"];
    link.source.run_all(both).await;
    link.wait_for_error(&["Error 1062"]).await;
    let place = failed_at(&link).await;
    binlog(&link, "skip", Some(&place), &[]).await.expect_success();
    has_rows(&mut link, "u", 1).await;
    assert_eq!(link.target.number(&format!("SELECT id FROM {}.u", link.schema)).await, 2);
    noted(&link, "left out by an operator's order").await;
}

/// A lane that fails does not take back what others did of the same transaction: whoever leaves the rest out is told.
#[tokio::test]
async fn what_lanes_did_of_a_skipped_transaction_is_told() {
    // So many, and so far apart, that all lanes have some of them.
    const ROWS: u64 = 4000;
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("halved", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    link.wait_equal().await;
    link.target.run(&format!("INSERT INTO {}.t VALUES (1)", link.schema)).await;
    let rows: Vec<String> = (1..=ROWS).map(|key| format!("({})", key * 1000)).collect();
    let insert = format!("INSERT INTO u VALUES {}", rows.join(","));
    link.source.run_all(["BEGIN", &insert, "INSERT INTO t VALUES (1)", "COMMIT"]).await;
    link.wait_for_error(&["Error 1062"]).await;
    let done = link.target.number(&format!("SELECT COUNT(*) FROM {}.u", link.schema)).await;
    assert!((1..ROWS).contains(&done), "{done} rows were applied: this shows nothing");
    let place = failed_at(&link).await;
    binlog(&link, "skip", Some(&place), &[]).await.expect_success();
    noted(&link, "stays applied").await;
    // The rest of the transaction is not left out.
    has_rows(&mut link, "u", ROWS).await;
}
