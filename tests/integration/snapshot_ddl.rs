//! DDL while existing rows are copied, and in the replay behind it.

use crate::snapshot_link::{fill, in_the_copy, slow, wait_exact};
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, Link, shared_pair};
use crate::support::servers::Kind;
use crate::support::writer::Writer;

/// DDL between the beginning of the copy and its end, of every kind, on tables that are copied, being copied, and waiting.
#[tokio::test]
async fn ddl_in_the_copy() {
    for (label, source, target) in
        [("ddl_my_ma", Kind::MySql, Kind::MariaDb), ("ddl_ma_my", Kind::MariaDb, Kind::MySql)]
    {
        let (source, target) = shared_pair(source, target).await;
        let mut link = Link::with_mode("all", label, &source, &target, &slow()).await;
        for table in ["altered", "altered_twice", "dropped", "emptied", "renamed", "zz_last"] {
            fill(&mut link.source, table, 1500).await;
        }
        link.source.run("CREATE TABLE keyless (n INT, s VARCHAR(20))").await;
        link.source.run("INSERT INTO keyless SELECT id % 50, 'x' FROM altered WHERE id < 300").await;
        link.source.run("CREATE TABLE keyless_emptied AS SELECT * FROM keyless").await;
        link.start_task().await.expect_success();
        in_the_copy(&link).await;
        link.pause().await;
        link.source
            .run_all([
                "UPDATE altered SET n = 7 WHERE id % 3 = 0",
                "ALTER TABLE altered ADD COLUMN added INT NOT NULL DEFAULT 5",
                "INSERT INTO altered VALUES (100000, 1, 'behind', 9)",
                "ALTER TABLE altered_twice ADD COLUMN a INT",
                "INSERT INTO altered_twice VALUES (100001, 1, 'between', 9)",
                "ALTER TABLE altered_twice DROP COLUMN a, ADD COLUMN b VARCHAR(5) DEFAULT 'x', MODIFY n BIGINT NOT NULL",
                "INSERT INTO altered_twice VALUES (100002, 1, 'behind', 'y')",
                "DROP TABLE dropped",
                "CREATE TABLE dropped (k INT PRIMARY KEY)",
                "INSERT INTO dropped VALUES (1), (2)",
                "TRUNCATE TABLE emptied",
                "INSERT INTO emptied VALUES (3, 3, 'new')",
                "RENAME TABLE renamed TO moved",
                "DELETE FROM moved WHERE id < 700",
                "UPDATE zz_last SET id = id + 5000 WHERE id % 2 = 0",
                "CREATE INDEX by_n ON zz_last (n)",
                "INSERT INTO keyless VALUES (1, 'a')",
                "ALTER TABLE keyless ADD COLUMN more INT DEFAULT 3",
                "DELETE FROM keyless WHERE n = 4 LIMIT 2",
                "INSERT INTO keyless VALUES (2, 'b', 1)",
                "TRUNCATE TABLE keyless_emptied",
                "INSERT INTO keyless_emptied VALUES (7, 'seven')",
                "CREATE TABLE born (id INT PRIMARY KEY, s TEXT)",
                "INSERT INTO born VALUES (1, 'one')",
            ])
            .await;
        link.resume().await;
        link.wait_equal().await;
        wait_exact(&link).await;
        link.source.run_all(["UPDATE altered SET added = added + 1", "DELETE FROM keyless WHERE n = 2 LIMIT 1"]).await;
        link.wait_equal().await;
        link.agent.assert_quiet_log();
    }
}

/// Statements behind L0 that the target's rows do not fit, because they are read later: a unique key that was there for a
/// while, columns that were narrow for a while, a unique key that is gone. And keys of another type, a table in place of
/// another one.
#[tokio::test]
async fn ddl_that_rows_read_later_do_not_fit() {
    for (label, source, target) in
        [("instants_my_ma", Kind::MySql, Kind::MariaDb), ("instants_ma_my", Kind::MariaDb, Kind::MySql)]
    {
        let (source, target) = shared_pair(source, target).await;
        let mut link = Link::with_mode("all", label, &source, &target, &slow()).await;
        // Met in its middle: it keeps the others waiting.
        fill(&mut link.source, "a_large", 12_000).await;
        for table in ["narrow", "unique_later", "unique_before", "key_type", "replaced", "replacing"] {
            fill(&mut link.source, table, 600).await;
        }
        link.source.run("CREATE UNIQUE INDEX u ON unique_before (n)").await;
        link.start_task().await.expect_success();
        in_the_copy(&link).await;
        link.source
            .run_all([
                "CREATE UNIQUE INDEX u ON unique_later (n)",
                "DROP INDEX u ON unique_later",
                "UPDATE unique_later SET n = n % 7",
                "UPDATE narrow SET s = 'a'",
                "ALTER TABLE narrow MODIFY s VARCHAR(5)",
                "ALTER TABLE narrow MODIFY s VARCHAR(60)",
                "UPDATE narrow SET s = REPEAT('x', 50)",
                "DROP INDEX u ON unique_before",
                "INSERT INTO unique_before SELECT id + 100000, n, 'twin' FROM unique_before WHERE id < 300",
                "ALTER TABLE key_type MODIFY id VARCHAR(20) NOT NULL",
                "INSERT INTO key_type VALUES ('x', 1, 'text')",
                "ALTER TABLE a_large MODIFY id VARCHAR(20) NOT NULL",
                "DELETE FROM a_large WHERE id LIKE '%7'",
                "DROP TABLE replaced",
                "RENAME TABLE replacing TO replaced",
                "UPDATE replaced SET n = -1 WHERE id < 10",
            ])
            .await;
        let status = link.status().await;
        assert_eq!(status["unit"], "Load", "the copy was over before the statements: {status}");
        link.wait_equal().await;
        wait_exact(&link).await;
        link.source.run_all(["UPDATE unique_later SET n = 8 WHERE id = 3", "DELETE FROM narrow WHERE id = 4"]).await;
        link.wait_equal().await;
        link.agent.assert_quiet_log();
    }
}

/// Tables change their structure all the time, before, while and after structures are read.
#[tokio::test]
async fn structures_change_while_they_are_read() {
    for (label, source, target) in
        [("storm_my_ma", Kind::MySql, Kind::MariaDb), ("storm_ma_my", Kind::MariaDb, Kind::MySql)]
    {
        storm(label, source, target).await;
    }
}

async fn storm(label: &str, source: Kind, target: Kind) {
    let (source, target) = shared_pair(source, target).await;
    let mut link = Link::with_mode("all", label, &source, &target, &slow()).await;
    for table in ["a_storm", "m_storm", "z_storm"] {
        fill(&mut link.source, table, 800).await;
    }
    link.source.run("CREATE TABLE loose_storm (n INT)").await;
    let writer = Writer::start(source.port, &link.schema, |round| {
        let table = ["a_storm", "m_storm", "z_storm"][round as usize % 3];
        let mut statements = vec![
            format!("ALTER TABLE {table} ADD COLUMN c{round} INT NOT NULL DEFAULT {round}"),
            format!("INSERT INTO {table} (id, n, s) VALUES ({}, 1, 'storm')", 100_000 + round),
            format!("UPDATE {table} SET n = n + 1 WHERE id % 100 = {}", round % 100),
            format!("INSERT INTO loose_storm (n) VALUES ({round})"),
        ];
        if round >= 6 {
            statements.push(format!("ALTER TABLE {table} DROP COLUMN c{}, ADD INDEX i{round} (n)", round - 6));
            statements.push(format!("DROP INDEX i{round} ON {table}"));
        }
        match round % 8 {
            1 => statements.push("ALTER TABLE loose_storm ADD COLUMN m INT DEFAULT 4".into()),
            5 => statements.push("ALTER TABLE loose_storm DROP COLUMN m".into()),
            2 => statements.push("RENAME TABLE z_storm TO y_storm".into()),
            3 => statements.push("RENAME TABLE y_storm TO z_storm".into()),
            6 => statements.push("DROP TABLE IF EXISTS short".into()),
            7 => statements.push("CREATE TABLE short AS SELECT * FROM loose_storm".into()),
            _ => {}
        }
        statements
    });
    // Columns have come and gone before L0, in the copy, and in the replay.
    writer.more_rounds(8).await;
    link.start_task().await.expect_success();
    eventually("the replay has begun", CATCH_UP_LIMIT, async || {
        let status = link.status().await;
        if status["unit"] == "Sync" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    writer.more_rounds(16).await;
    writer.end().await;
    // Rows are equal only when the last statement before them has run.
    link.source.run_all(["CREATE TABLE behind (id INT PRIMARY KEY)", "INSERT INTO behind VALUES (1)"]).await;
    link.wait_equal().await;
    wait_exact(&link).await;
    link.agent.assert_quiet_log();
}

/// A table whose structure changes without a word in the binlog: it is named when everything else is there, and read again
/// when its target has the source's columns.
#[tokio::test]
async fn a_change_of_structure_that_is_not_logged() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "unlogged", &source, &target, &slow()).await;
    fill(&mut link.source, "a", 2000).await;
    // Larger than what is copied before the pause has come.
    fill(&mut link.source, "z", 12_000).await;
    link.start_task().await.expect_success();
    in_the_copy(&link).await;
    link.pause().await;
    link.source.run("SET SESSION sql_log_bin = 0").await;
    link.source.run("ALTER TABLE z ADD COLUMN silent INT NOT NULL DEFAULT 3").await;
    link.source.run("SET SESSION sql_log_bin = 1").await;
    link.source.run("UPDATE z SET silent = 4 WHERE id < 10").await;
    link.source.run("INSERT INTO a VALUES (5000, 1, 'x')").await;
    link.agent.expect_error("have another structure on the source");
    link.resume().await;
    let schema = link.schema.clone();
    let named = format!("`{schema}`.`z`");
    link.wait_for_error(&["have another structure on the source", &named]).await;
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {schema}.a")).await, 2001);
    link.target.run(&format!("ALTER TABLE {schema}.z ADD COLUMN silent INT NOT NULL DEFAULT 3")).await;
    link.resume().await;
    link.wait_equal().await;
    wait_exact(&link).await;
    link.agent.assert_quiet_log();
}
