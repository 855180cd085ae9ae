//! Filters: what they leave out stays out, what follows finds what it should, and what is forbidden stops the task.

use std::time::Duration;

use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;

const LIMIT: Duration = Duration::from_secs(30);

async fn rows(link: &mut Link, sql: &str, expected: &[&[&str]]) {
    eventually("the rows are there", LIMIT, async || {
        let rows = link.target.texts(sql).await;
        if rows == expected { Ok(()) } else { Err(format!("{rows:?}: {}", link.status().await)) }
    })
    .await;
}

async fn left_out(link: &Link) -> u64 {
    let page = link.agent.get("/metrics").await.body;
    let line = page.lines().find(|line| line.starts_with("dm_agent_task_filtered_rows_total")).expect("a counter");
    line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).expect("a count")
}

/// Rules of the source and of the task, over a kill.
#[tokio::test]
async fn events_are_left_out_by_kind_table_and_text() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let options = LinkOptions {
        task_extra: "filters:\n  archive: {schema-pattern: \"events_*\", table-pattern: archive, events: [delete], action: Ignore}\n  \
                     shy: {schema-pattern: \"events_*\", table-pattern: sh?, events: [Insert], action: Ignore}\n  \
                     whole: {schema-pattern: \"EVENTS_*\", events: [drop column, drop table], sql-pattern: [\"index\\\\s+secret\"], action: Ignore}\n  \
                     sealed: {schema-pattern: \"events_*\", table-pattern: sealed, events: [truncate table], action: Error}\n"
            .into(),
        instance_extra: "  filter-rules: [archive, shy, whole, sealed]\n".into(),
        ..LinkOptions::default()
    };
    let mut link = Link::start("events", &source, &target, &options).await;
    let schema = link.schema.clone();
    for table in ["archive", "shy", "sealed", "t"] {
        link.source.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT)")).await;
    }
    link.source
        .run_all([
            "INSERT INTO archive VALUES (1, 1), (2, 2), (3, 3)",
            "DELETE FROM archive WHERE id < 3",
            "UPDATE archive SET v = 33 WHERE id = 3",
            "INSERT INTO shy VALUES (1, 1), (2, 2), (3, 3)",
            "INSERT INTO t VALUES (1, 1)",
        ])
        .await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.t"), &[&["1", "1"]]).await;
    rows(
        &mut link,
        &format!("SELECT id, v FROM {schema}.archive ORDER BY id"),
        &[&["1", "1"], &["2", "2"], &["3", "33"]],
    )
    .await;
    // One of those rows is there all the same: changes of the others make none, under whatever key.
    link.target.run(&format!("INSERT INTO {schema}.shy VALUES (2, 2)")).await;
    link.source
        .run_all([
            "BEGIN",
            "UPDATE shy SET v = v + 10",
            "UPDATE shy SET id = 9 WHERE id = 1",
            "UPDATE shy SET v = v + 10",
            "DELETE FROM shy WHERE id = 3",
            "COMMIT",
            "UPDATE t SET v = 2",
        ])
        .await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.t"), &[&["1", "2"]]).await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.shy"), &[&["2", "22"]]).await;
    assert_eq!(left_out(&link).await, 2 + 3);
    link.agent.kill9();
    link.agent.restart().await;

    // Statements: one that is left out, one by its text, one of which a clause is left out.
    link.source
        .run_all([
            "DROP TABLE shy",
            "CREATE INDEX secret ON t (v)",
            "ALTER TABLE t ADD COLUMN w INT DEFAULT 7, DROP COLUMN v",
            "INSERT INTO archive VALUES (5, 5)",
        ])
        .await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.archive WHERE id > 3"), &[&["5", "5"]]).await;
    rows(&mut link, &format!("SELECT id, v, w FROM {schema}.t"), &[&["1", "2", "7"]]).await;
    rows(&mut link, &format!("SELECT id FROM {schema}.shy"), &[&["2"]]).await;
    let index = format!(
        "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema='{schema}' AND index_name='secret'"
    );
    assert_eq!(link.target.number(&index).await, 0);

    // Now source and target have other columns: nothing is guessed.
    link.source.run("INSERT INTO t VALUES (2, 8)").await;
    link.wait_for_error(&["Column count doesn't match value count: 3 (columns) vs 2 (values)"]).await;
    link.agent.ctl(&["pause-task", &link.task]).await;
    let words = ["binlog-schema", "update", &link.task, &schema, "t", "--from-source", "-s", &link.source_id];
    link.agent.ctl(&words).await.expect_success();
    link.agent.ctl(&["resume-task", &link.task]).await;
    rows(&mut link, &format!("SELECT id, w FROM {schema}.t ORDER BY id"), &[&["1", "7"], &["2", "8"]]).await;

    // And what is forbidden.
    link.source.run_all(["TRUNCATE TABLE t", "TRUNCATE TABLE sealed", "INSERT INTO sealed VALUES (1, 1)"]).await;
    link.wait_for_error(&["36015", "event truncate table on `", "`.`sealed`"]).await;
    rows(&mut link, &format!("SELECT COUNT(*) FROM {schema}.t"), &[&["0"]]).await;
    link.agent.ctl(&["binlog", "skip", &link.task]).await.expect_success();
    rows(&mut link, &format!("SELECT id FROM {schema}.sealed"), &[&["1"]]).await;
}

/// Rules that are wrong are refused at once, each with a word on it.
#[tokio::test]
async fn wrong_rules_are_refused() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("incremental", "wrong", &source, &target, &LinkOptions::default()).await;
    link.task_file.instance_extra = "  filter-rules: [f, g]\n".into();
    for (filters, words) in [
        (
            "{f: {schema-pattern: a, events: [drop tables], action: Do}, g: {schema-pattern: a*b, action: Do}}",
            &["event type drop tables not valid", "last character"][..],
        ),
        (
            "{f: {schema-pattern: a, sql-pattern: [\"(\"], action: Do}, g: {schema-pattern: b, action: Do}}",
            &["code=20037"],
        ),
        ("{f: {schema-pattern: a}, g: {schema-pattern: b, action: Do}}", &["action"]),
        ("{f: {schema-pattern: a, action: Do}}", &["`filters`"]),
    ] {
        link.task_file.extra = format!("filters: {filters}\n");
        link.start_task().await.expect_refusal(words);
    }
}
