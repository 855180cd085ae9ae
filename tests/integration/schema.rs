//! Structures and their meaning: what the binlog does not say (character sets, foreign keys, time zones), statements that
//! the downstream takes otherwise or not at all.
//!
//! Rows are compared by their bytes as the source has them, not by how a target's default would print them.

use std::time::Duration;

use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const LIMIT: Duration = Duration::from_secs(60);

/// As it comes out of the box: no metadata in the binlog, and another default character set than the target's.
fn bare(charset: &str) -> ServerOptions {
    let args = vec![format!("--character-set-server={charset}"), format!("--collation-server={charset}_swedish_ci")];
    ServerOptions { row_metadata: "NO_LOG", args, ..ServerOptions::default() }
}

/// A task on all of a schema that is created on the source as `create` says.
async fn link_with_schema(label: &str, source: &Server, target: &Server, create: &str, options: &LinkOptions) -> Link {
    let mut link = Link::start(label, source, target, options).await;
    let schema = link.schema.clone();
    link.source
        .run_all([
            format!("DROP DATABASE {schema}"),
            format!("CREATE DATABASE {schema} {create}"),
            format!("USE {schema}"),
        ])
        .await;
    link
}

/// A statement gives the same on both sides, and within the limit.
async fn same(link: &mut Link, sql: &str) {
    let sql = sql.replace("DB.", &format!("{}.", link.schema));
    let wanted = link.source.texts(&sql).await;
    assert!(!wanted.is_empty(), "nothing to compare: {sql}");
    eventually(&sql, LIMIT, async || match link.target.try_rows(&sql).await {
        Ok(_) => {
            let found = link.target.texts(&sql).await;
            if found == wanted { Ok(()) } else { Err(format!("source {wanted:?}\ntarget {found:?}")) }
        }
        Err(error) => Err(format!("{error}; {}", link.status().await)),
    })
    .await;
}

/// The status has a note with these words.
async fn noted(link: &Link, words: &[&str]) {
    eventually(&format!("a note with {words:?}"), LIMIT, async || {
        let notes = link.agent.status().await["tasks"][0]["notes"].to_string();
        if words.iter().all(|word| notes.contains(word)) { Ok(()) } else { Err(notes) }
    })
    .await;
}

/// Everything before has arrived: the schema, too, which a test then makes tables in by hand.
async fn arrived(link: &mut Link) {
    link.source.run_all(["CREATE TABLE arrived (id INT PRIMARY KEY)", "INSERT INTO arrived VALUES (1)"]).await;
    same(link, "SELECT id FROM DB.arrived").await;
}

/// The sources' defaults are the statements' meaning: a schema and its tables without a character set of their own.
#[tokio::test]
async fn tables_get_the_sources_default_character_set() {
    for (kind, target) in [(Kind::MariaDb, Kind::MySql), (Kind::MariaDb, Kind::MariaDb)] {
        let source = Server::start(kind, &bare("latin1")).await;
        let target = shared(target, &ServerOptions::default()).await;
        let mut link = link_with_schema("defaults", &source, &target, "", &LinkOptions::default()).await;
        link.source
            .run_all([
                "CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR(20), u VARCHAR(20) CHARACTER SET utf8mb4)",
                "INSERT INTO t VALUES (1, 'Straße', 'Straße'), (2, 'é', '汉')",
                "UPDATE t SET s = 'ÄÖ' WHERE id = 1",
                "ALTER TABLE t ADD COLUMN w VARCHAR(9) DEFAULT 'ü'",
                "INSERT INTO t (id, s) VALUES (3, 'ÿ')",
            ])
            .await;
        same(&mut link, "SELECT id, HEX(s), HEX(u), HEX(w), s FROM DB.t ORDER BY id").await;
        same(
            &mut link,
            "SELECT column_name, character_set_name FROM information_schema.columns WHERE table_name='t' AND \
             CONCAT(table_schema, '.') = 'DB.' ORDER BY 1",
        )
        .await;
        link.agent.assert_quiet_log();
    }
}

/// Tables made by hand with another character set than the source's: a source that writes none is asked.
#[tokio::test]
async fn texts_keep_their_meaning_in_another_character_set() {
    let source = Server::start(Kind::MariaDb, &bare("latin1")).await;
    let target = shared(Kind::MySql, &ServerOptions::default()).await;
    let mut link = link_with_schema("othercs", &source, &target, "", &LinkOptions::default()).await;
    let schema = link.schema.clone();
    let columns = "(id INT PRIMARY KEY, s VARCHAR(20), b VARBINARY(20))";
    link.source.run(&format!("CREATE TABLE same {columns}")).await;
    arrived(&mut link).await;
    for name in ["t", "later"] {
        link.source.run_all(["SET SESSION sql_log_bin = 0".into(), format!("CREATE TABLE {name} {columns}")]).await;
        link.source.run("SET SESSION sql_log_bin = 1").await;
        link.target.run(&format!("CREATE TABLE {schema}.{name} {columns} CHARACTER SET utf8mb4")).await;
    }
    // The source's clock counts seconds: in the same one nobody knows what came first.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    link.source
        .run_all(["INSERT INTO t VALUES (1, 'é', 'x'), (2, 'Straße', NULL)", "UPDATE t SET s = 'ÿé' WHERE id = 1"])
        .await;
    same(&mut link, "SELECT id, HEX(CONVERT(s USING utf8mb4)), HEX(b) FROM DB.t ORDER BY id").await;
    // Altered since: what a column was cannot be asked any more. One had the target's character set and got another one, one
    // keeps that which the target never had.
    link.pause().await;
    link.source
        .run_all([
            "INSERT INTO same VALUES (1, 'é', NULL)",
            "ALTER TABLE same MODIFY s VARCHAR(20) CHARACTER SET utf8mb4",
            "INSERT INTO same VALUES (2, '汉é', NULL)",
            "INSERT INTO later VALUES (1, 'é', NULL)",
            "ALTER TABLE later ADD COLUMN v INT",
            "INSERT INTO later VALUES (2, 'ÿ', NULL, 1)",
        ])
        .await;
    link.resume().await;
    for name in ["same", "later"] {
        same(&mut link, &format!("SELECT id, HEX(CONVERT(s USING utf8mb4)) FROM DB.{name} ORDER BY id")).await;
    }
    noted(&link, &["`same`", "latin1"]).await;
    link.agent.assert_quiet_log();
}

/// A column that cannot hold what the source has is not called too narrow.
#[tokio::test]
async fn a_character_set_that_cannot_hold_a_value_is_named() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("nohold", &source, &target, &LinkOptions::default()).await;
    link.agent.expect_error("task failed");
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR(20))").await;
    link.wait_equal().await;
    link.target.run(&format!("ALTER TABLE {}.t MODIFY s VARCHAR(20) CHARACTER SET latin1", link.schema)).await;
    link.source.run("INSERT INTO t VALUES (1, '汉')").await;
    link.wait_for_error(&["1366", "character set", "resume-task"]).await;
    link.target.run(&format!("ALTER TABLE {}.t MODIFY s VARCHAR(20) CHARACTER SET utf8mb4", link.schema)).await;
    link.resume().await;
    link.wait_equal().await;
}

const FAMILY: [&str; 4] = [
    "CREATE TABLE p (id INT PRIMARY KEY, v INT)",
    "CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "INSERT INTO p VALUES (1, 1), (2, 2), (3, 3)",
    "INSERT INTO c VALUES (1, 1), (2, 2), (3, 3)",
];

/// What foreign keys do on a MariaDB is not in its binlog: the task stops before it diverges, and goes on when the target
/// is told to do the same.
#[tokio::test]
async fn unlogged_cascades_stop_a_task_that_does_not_check_them() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut link = Link::start("cascade", &source, &target, &LinkOptions::default()).await;
    link.agent.expect_error("task failed");
    link.source.run_all(FAMILY).await;
    link.source.run("UPDATE p SET v = v + 10").await;
    link.wait_equal().await;
    link.source.run("DELETE FROM p WHERE id = 1").await;
    link.wait_for_error(&["foreign key", "`c`", "foreign_key_checks"]).await;
    link.wait_for_stage("Paused").await;
    link.stop_task().await;
    link.task_file.target_extra = "  session: {foreign_key_checks: \"1\"}\n".into();
    link.start_task().await.expect_success();
    link.source.run("UPDATE p SET id = 20 WHERE id = 2").await;
    link.source.run_all(["INSERT INTO c VALUES (9, 20)", "DELETE FROM p WHERE id = 3"]).await;
    link.wait_equal().await;
}

/// A target without the source's foreign keys: nobody makes these changes, and the status says so.
#[tokio::test]
async fn foreign_keys_that_only_the_source_has_are_named() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut link = Link::start("nofk", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(FAMILY).await;
    link.wait_equal().await;
    link.pause().await;
    let schema = link.schema.clone();
    link.target.run(&format!("ALTER TABLE {schema}.c DROP FOREIGN KEY c_ibfk_1")).await;
    link.resume().await;
    link.source.run("INSERT INTO p VALUES (7, 7)").await;
    same(&mut link, "SELECT * FROM DB.p ORDER BY id").await;
    noted(&link, &["foreign key", "`c`", "foreign_key_checks"]).await;
}

/// A MySQL of now logs them: nothing is to be set.
#[tokio::test]
async fn logged_cascades_arrive() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("cascaded", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(FAMILY).await;
    link.source.run_all(["DELETE FROM p WHERE id = 1", "UPDATE p SET id = 20 WHERE id = 2"]).await;
    if link.source.text("SELECT VERSION()").await.starts_with(['5', '8']) {
        link.agent.expect_error("task failed");
        link.wait_for_error(&["foreign_key_checks"]).await;
        return;
    }
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Refused, made by hand in another form, resumed: it counts as done. Refused and resumed without that: it is tried again.
#[tokio::test]
async fn a_refused_statement_is_made_by_hand() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("byhand", &source, &target, &LinkOptions::default()).await;
    link.agent.expect_error("task failed");
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR(20))",
            "INSERT INTO t VALUES (1, 'x')",
            "ALTER TABLE t ADD INDEX f ((LOWER(s)))",
            "INSERT INTO t VALUES (2, 'y')",
        ])
        .await;
    let refused = ["ALTER TABLE", "1064", "by hand"];
    link.wait_for_error(&refused).await;
    let rows = format!("SELECT COUNT(*) FROM {}.t", link.schema);
    for crash in [false, true] {
        if crash {
            link.agent.kill9();
            link.agent.restart().await;
        }
        // It answers with the failure where that comes quickly.
        let _ = link.agent.ctl(&["resume-task", &link.task]).await;
        eventually("it was tried again", LIMIT, async || {
            let tries = link.agent.log().matches("task failed").count();
            let stage = link.status().await;
            if tries >= 2 + usize::from(crash) && stage["stage"] == "Paused" { Ok(()) } else { Err(stage.to_string()) }
        })
        .await;
        link.wait_for_error(&refused).await;
        assert_eq!(link.target.number(&rows).await, 1, "it went on without the change");
    }
    link.target.run(&format!("ALTER TABLE {}.t ADD INDEX f (s)", link.schema)).await;
    link.resume().await;
    eventually("it goes on", LIMIT, async || match link.target.number(&rows).await {
        2 => Ok(()),
        _ => Err(link.status().await.to_string()),
    })
    .await;
    assert!(link.agent.log().contains("made by hand"), "{}", link.agent.log());
    // A statement that the target takes is run, whatever was changed by hand before.
    link.source.run_all(["ALTER TABLE t ADD COLUMN n INT DEFAULT 5", "INSERT INTO t VALUES (3, 'z', 3)"]).await;
    same(&mut link, "SELECT * FROM DB.t ORDER BY id").await;
    // Refused, and nothing is to be done about it.
    link.source.run_all(["ALTER TABLE t ADD INDEX g ((UPPER(s)))", "INSERT INTO t VALUES (4, 'q', 4)"]).await;
    link.wait_for_error(&["UPPER", "binlog skip"]).await;
    link.wait_for_stage("Paused").await;
    link.agent.ctl(&["binlog", "skip", &link.task]).await.expect_success();
    same(&mut link, "SELECT * FROM DB.t ORDER BY id").await;
}

/// Statements mean what they meant in the source's time zone: a named one, an offset, and the machine's own.
#[tokio::test]
async fn statements_run_in_the_sources_time_zone() {
    for (kind, target) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        // Its machine is elsewhere.
        let source = Server::start(kind, &ServerOptions { zone: "JST-9", ..ServerOptions::default() }).await;
        let target = shared(target, &ServerOptions::default()).await;
        let mut link = Link::start("zone", &source, &target, &LinkOptions::default()).await;
        link.source
            .run_all(["CREATE TABLE t (id INT PRIMARY KEY, ts TIMESTAMP NULL)", "SET timestamp = 1700000000"])
            .await;
        link.source.run("INSERT INTO t VALUES (1, '2024-01-01 12:00:00'), (2, '2024-07-01 12:00:00')").await;
        for (at, zone) in ["+02:00", "-03:30", "SYSTEM"].into_iter().enumerate() {
            link.source.run(&format!("SET SESSION time_zone = '{zone}'")).await;
            link.source.run(&format!("ALTER TABLE t ADD COLUMN d{at} DATETIME DEFAULT NOW()")).await;
            link.source
                .run(&format!("ALTER TABLE t ADD COLUMN c{at} TIMESTAMP NOT NULL DEFAULT '2024-03-01 10:00:00'"))
                .await;
        }
        link.source.run("SET SESSION time_zone = '+05:00'").await;
        link.source.run("ALTER TABLE t MODIFY ts DATETIME").await;
        link.source.run("SET SESSION time_zone = '+00:00'").await;
        link.source.run("SET timestamp = DEFAULT").await;
        link.source.run("INSERT INTO t (id) VALUES (3)").await;
        link.target.run("SET SESSION time_zone = '+00:00'").await;
        same(&mut link, "SELECT * FROM DB.t WHERE id < 3 ORDER BY id").await;
        link.agent.assert_quiet_log();
    }
}

/// A dm-worker that died after its ALTER ran and before its row said so: the first statement of the one that takes over
/// meets its own effect.
#[tokio::test]
async fn a_statement_that_a_dead_worker_ran_is_taken_for_done() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("deadddl", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    link.wait_equal().await;
    let before = location(&mut link.source, link.kind).await;
    link.stop_task().await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN v INT DEFAULT 4", "INSERT INTO t VALUES (2, 2)"]).await;
    // What such a worker leaves: its row behind, without an exit-safe point, and the column.
    let row = format!(
        "UPDATE dm_meta.{}_syncer_checkpoint SET binlog_name='{}', binlog_pos={}, binlog_gtid='{}', \
         exit_safe_binlog_name='', exit_safe_binlog_pos=0, exit_safe_binlog_gtid='' WHERE is_global=1",
        link.task, before.file, before.position, before.gtid
    );
    link.target.run_all([row, format!("ALTER TABLE {}.t ADD COLUMN v INT DEFAULT 4", link.schema)]).await;
    link.start_task().await.expect_success();
    link.wait_equal().await;
    assert!(link.agent.log().contains("taken for done"), "{}", link.agent.log());
    // Only the first: a second one that meets another column of that name is an error.
    link.agent.expect_error("task failed");
    link.target.run(&format!("ALTER TABLE {}.t ADD COLUMN w BIGINT", link.schema)).await;
    link.source.run("ALTER TABLE t ADD COLUMN w INT").await;
    link.wait_for_error(&["1060"]).await;
}

/// What only MariaDB has words for.
#[tokio::test]
async fn mariadbs_statements_for_a_mysql() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut link = Link::start("words", &source, &target, &LinkOptions::default()).await;
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY /*M!100100 , v INT */, g INT AS (id * 2) PERSISTENT)",
            "INSERT INTO t (id, v) VALUES (1, 1)",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS v INT, ADD COLUMN IF NOT EXISTS w INT DEFAULT 5",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS w INT",
            "ALTER ONLINE TABLE t ADD INDEX IF NOT EXISTS i (w), DROP COLUMN IF EXISTS nothing, ALGORITHM=INPLACE",
            "CREATE INDEX IF NOT EXISTS i ON t (v)",
            "CREATE INDEX IF NOT EXISTS j ON t (v)",
            "DROP INDEX IF EXISTS k ON t",
            "ALTER TABLE t WAIT 5 MODIFY COLUMN IF EXISTS v BIGINT",
            "ALTER TABLE IF EXISTS t NOWAIT ADD COLUMN z VARCHAR(30) COMPRESSED",
            "INSERT INTO t (id, v, w, z) VALUES (2, 2, 2, REPEAT('z', 30))",
            "CREATE TABLE u (id INT PRIMARY KEY, s TEXT) PAGE_COMPRESSED=1",
            "INSERT INTO u VALUES (1, 'x')",
            "TRUNCATE TABLE u NOWAIT",
            "INSERT INTO u VALUES (2, 'y')",
            "DROP INDEX IF EXISTS j ON t",
        ])
        .await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// A default that is another one at each server: refused where there are rows, run where there are none.
#[tokio::test]
async fn a_default_of_its_own_for_each_server_is_refused() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MariaDb).await;
    let target = if source.port == target.port {
        let args = vec!["--server-id=78".into()];
        shared(Kind::MariaDb, &ServerOptions { args, ..ServerOptions::default() }).await
    } else {
        target
    };
    let mut link = Link::start("volatile", &source, &target, &LinkOptions::default()).await;
    link.agent.expect_error("task failed");
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "ALTER TABLE t ADD COLUMN u VARCHAR(40) DEFAULT (UUID())",
            "INSERT INTO t (id) VALUES (1), (2)",
        ])
        .await;
    link.wait_equal().await;
    link.source.run("ALTER TABLE t ADD COLUMN n DOUBLE DEFAULT (RAND())").await;
    link.wait_for_error(&["RAND", "by hand"]).await;
    let schema = link.schema.clone();
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN n DOUBLE DEFAULT (RAND())")).await;
    for row in link.source.texts("SELECT id, n FROM t").await {
        link.target.run(&format!("UPDATE {schema}.t SET n = {} WHERE id = {}", row[1], row[0])).await;
    }
    link.resume().await;
    link.source.run("INSERT INTO t (id) VALUES (3)").await;
    link.wait_equal().await;
}

/// MariaDB's types that are bytes in its binlog, in columns of text.
#[tokio::test]
async fn types_of_mariadb_in_columns_of_text() {
    for metadata in ["NO_LOG", "MINIMAL"] {
        let source =
            Server::start(Kind::MariaDb, &ServerOptions { row_metadata: metadata, ..ServerOptions::default() }).await;
        let target = shared(Kind::MySql, &ServerOptions::default()).await;
        let mut link = Link::start("uuid", &source, &target, &LinkOptions::default()).await;
        if link.source.try_run("SELECT CAST('::1' AS INET6), CAST(UUID() AS UUID)").await.is_err() {
            return;
        }
        arrived(&mut link).await;
        link.source
            .run_all(["SET SESSION sql_log_bin = 0", "CREATE TABLE t (u UUID PRIMARY KEY, a INET6, b INET4)"])
            .await;
        link.source.run("SET SESSION sql_log_bin = 1").await;
        let columns = "(u CHAR(36) PRIMARY KEY, a VARCHAR(39), b VARCHAR(15))";
        link.target.run(&format!("CREATE TABLE {}.t {columns}", link.schema)).await;
        for (a, b) in [
            ("::1", "1.2.3.4"),
            ("2001:db8::ff00:42:8329", "0.0.0.0"),
            ("::ffff:1.2.3.4", "10.0.0.0"),
            ("::1.2.3.4", "9.9.9.9"),
        ] {
            link.source.run(&format!("INSERT INTO t VALUES (UUID(), '{a}', '{b}')")).await;
        }
        link.source.run("INSERT INTO t VALUES ('123e4567-e89b-12d3-a456-426655440000', NULL, NULL)").await;
        link.source.run("UPDATE t SET b = '1.1.1.1' WHERE a IS NULL").await;
        link.source.run("DELETE FROM t WHERE b = '9.9.9.9'").await;
        same(&mut link, "SELECT CAST(u AS CHAR), CAST(a AS CHAR), CAST(b AS CHAR) FROM DB.t ORDER BY 1").await;
        link.agent.assert_quiet_log();
    }
}

/// A target that wants a key in every table, and one that makes keys up.
#[tokio::test]
async fn targets_that_want_keys() {
    let source = shared(Kind::MariaDb, &ServerOptions::default()).await;
    for setting in ["--sql-require-primary-key=ON", "--sql-generate-invisible-primary-key=ON"] {
        let target =
            Server::start(Kind::MySql, &ServerOptions { args: vec![setting.into()], ..ServerOptions::default() }).await;
        let mut link = Link::start("wantkey", &source, &target, &LinkOptions::default()).await;
        link.source
            .run_all([
                "CREATE TABLE t (a INT, b VARCHAR(9))",
                "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, NULL)",
                "UPDATE t SET b = 'y' WHERE a = 2",
                "DELETE FROM t WHERE a = 1 LIMIT 1",
            ])
            .await;
        link.wait_equal().await;
        // Made by hand, with a key that the source does not have.
        let schema = link.schema.clone();
        if setting.contains("generate") {
            link.source
                .run_all(["SET SESSION sql_log_bin = 0", "CREATE TABLE u (a INT)", "SET SESSION sql_log_bin = 1"])
                .await;
            link.target
                .run_all([
                    "SET SESSION sql_generate_invisible_primary_key = ON".to_owned(),
                    format!("CREATE TABLE {schema}.u (a INT)"),
                ])
                .await;
            link.source.run_all(["INSERT INTO u VALUES (1), (1), (2)", "DELETE FROM u WHERE a = 1 LIMIT 1"]).await;
            same(&mut link, "SELECT a FROM DB.u ORDER BY a").await;
        }
        link.agent.assert_quiet_log();
    }
}

/// A target that logs statements takes no READ COMMITTED.
#[tokio::test]
async fn a_target_that_logs_statements() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = Server::start(
        Kind::MariaDb,
        &ServerOptions { args: vec!["--binlog-format=STATEMENT".into()], ..ServerOptions::default() },
    )
    .await;
    let mut link = Link::start("stmt", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)"]).await;
    link.source.run_all(["UPDATE t SET v = 5", "DELETE FROM t WHERE id = 2"]).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}
