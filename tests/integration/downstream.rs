//! What a downstream does to an applier: small packets, connections closed while idle, locks that others hold, DDL that
//! takes its time, and a former owner that wakes up late.

use std::time::Duration;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::SourceFile;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// The task in an agent's own status.
async fn task(agent: &Agent) -> serde_json::Value {
    let status = agent.status().await;
    status["tasks"].as_array().and_then(|tasks| tasks.first().cloned()).unwrap_or_else(|| panic!("no task in {status}"))
}

async fn server_with(kind: Kind, args: &[&str]) -> Server {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Server::start(kind, &ServerOptions { args, ..ServerOptions::default() }).await
}

/// Rows of 300 kB to a server that takes 1 MiB, and one that it cannot take, until it is told to.
#[tokio::test]
async fn statements_stay_below_max_allowed_packet() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = server_with(Kind::MariaDb, &["--max-allowed-packet=1M"]).await;
    let mut link = Link::start("packet", &source, &target, &LinkOptions::default()).await;
    link.agent.expect_error("task failed");
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, b LONGTEXT)",
            "CREATE TABLE keyed (k VARBINARY(700) PRIMARY KEY, v INT)",
            "CREATE TABLE keyless (b LONGTEXT)",
        ])
        .await;
    for statement in [
        "INSERT INTO t SELECT seq, REPEAT('x', 300000) FROM (SELECT 1 seq UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6) s",
        "UPDATE t SET b = CONCAT(b, 'y')",
        "INSERT INTO keyless SELECT b FROM t",
        // Escaped it is twice as long.
        "INSERT INTO t VALUES (100, REPEAT('\\\\', 500000)), (101, REPEAT('\\\\', 400000))",
        "DELETE FROM t WHERE id IN (1, 3)",
    ] {
        link.source.run(statement).await;
    }
    link.wait_equal().await;
    link.source.run("INSERT INTO t VALUES (200, REPEAT('z', 1100000))").await;
    link.wait_for_error(&["`t`", "1100", "max_allowed_packet", "1048576", "SET GLOBAL"]).await;
    link.target.run("SET GLOBAL max_allowed_packet = 4194304").await;
    link.target = target.root().await;
    link.resume().await;
    link.wait_equal().await;
}

/// A backlog that empties tables on several lanes at once. MariaDB would look through the whole table for a long list of keys,
/// and each lane would wait for the rows of the others; two that do so are a deadlock.
#[tokio::test]
async fn lanes_that_empty_a_table_do_not_wait_for_each_other() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = server_with(Kind::MariaDb, &[]).await;
    let mut link = Link::start("emptied", &source, &target, &LinkOptions::default()).await;
    link.source
        .run_all([
            "CREATE TABLE digit (d INT PRIMARY KEY)",
            "INSERT INTO digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "INSERT INTO t SELECT a.d + 10*b.d + 100*c.d + 1000*e.d, 0 FROM digit a, digit b, digit c, digit e",
        ])
        .await;
    link.wait_equal().await;
    link.pause().await;
    for first in (0..10_000).step_by(500) {
        link.source.run(&format!("DELETE FROM t WHERE id BETWEEN {first} AND {}", first + 499)).await;
    }
    link.wait_relayed().await;
    let waits =
        "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Innodb_row_lock_waits'";
    let before = link.target.number(waits).await;
    link.resume().await;
    link.wait_equal().await;
    assert_eq!(link.target.number(waits).await, before);
}

/// Small and large numbers in one list, and such that would make it one of decimals.
#[tokio::test]
async fn keys_of_any_size_are_deleted() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let options = LinkOptions { workers: Some(1), ..LinkOptions::default() };
    let mut link = Link::start("sizes", &source, &target, &options).await;
    for (name, column, ends) in [
        ("far", "BIGINT", "(-99999999999999999), (999999999999999999)"),
        ("ends", "BIGINT", "(-9223372036854775808), (9223372036854775807)"),
        ("positive", "BIGINT UNSIGNED", "(9223372036854775808), (18446744073709551615)"),
        ("tiny", "TINYINT UNSIGNED", "(128), (255)"),
    ] {
        link.source.run(&format!("CREATE TABLE {name} (id {column} PRIMARY KEY)")).await;
        link.source.run(&format!("INSERT INTO {name} VALUES {ends}, (0), (1), (2), (3), (4), (5), (6), (7)")).await;
        link.wait_equal().await;
        link.source.run(&format!("DELETE FROM {name} WHERE id <> 3")).await;
    }
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// A server that closes idle connections after two seconds: nobody notices, in any of the connections that the task has.
async fn idle_connections(kind: Kind) {
    // Of its own: whatever other tests write there would move the positions, and so use a connection.
    let source = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let target = server_with(kind, &["--wait-timeout=2", "--interactive-timeout=2"]).await;
    let mut link = Link::start("idle", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    link.wait_equal().await;
    let sleeping = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'dm' AND id <> {}", 0);
    for round in 0..3 {
        eventually("the server has closed every connection", Duration::from_secs(30), async || {
            let mut root = target.root().await;
            match root.number(&sleeping).await {
                0 => Ok(()),
                left => Err(format!("{left} left")),
            }
        })
        .await;
        link.target = target.root().await;
        match round {
            0 => link.source.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await,
            1 => link.source.run_all(["ALTER TABLE t ADD COLUMN w INT", "INSERT INTO t VALUES (4, 4, 4)"]).await,
            _ => {
                link.pause().await;
                link.target = target.root().await;
                link.resume().await;
                link.source.run("UPDATE t SET v = v + 1").await;
            }
        }
        link.wait_equal().await;
    }
    let log = link.agent.log();
    for word in ["writer retries", "task failed", "checkpoint not stored", "could not be stored"] {
        assert!(!log.contains(word), "{word:?} in the log:\n{log}");
    }
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn idle_connections_to_mariadb() {
    idle_connections(Kind::MariaDb).await;
}

#[tokio::test]
async fn idle_connections_to_mysql() {
    idle_connections(Kind::MySql).await;
}

/// Someone else holds a row: the lane's whole part is tried again until it gets it.
#[tokio::test]
async fn lock_wait_timeout_is_retried() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = server_with(Kind::MariaDb, &["--innodb-lock-wait-timeout=1"]).await;
    let mut link = Link::start("lockwait", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    link.source.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)").await;
    link.wait_equal().await;
    let mut other = target.root().await;
    let schema = link.schema.clone();
    other.run_all([format!("USE {schema}"), "BEGIN".into(), "UPDATE t SET v = 0 WHERE id IN (2, 5)".into()]).await;
    link.source.run("UPDATE t SET v = v + 10").await;
    eventually("a lane has waited in vain", Duration::from_secs(30), async || {
        let log = link.agent.log();
        if log.contains("writer retries") && log.contains("Error 1205") { Ok(()) } else { Err("no retry yet".into()) }
    })
    .await;
    other.run("ROLLBACK").await;
    link.wait_equal().await;
    assert_eq!(link.status().await["stage"], "Running");
    link.agent.assert_quiet_log();
}

/// A pause while the server alters a table: the task is not said to be paused before that has ended.
#[tokio::test]
async fn a_pause_waits_for_ddl_at_work() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("longddl", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    link.wait_equal().await;
    let schema = link.schema.clone();
    // Rows that only the target has make its ALTER slow; the source's is done at once.
    link.target
        .run_all([
            format!("USE {schema}"),
            format!("INSERT INTO {schema}.t SELECT seq, seq FROM seq_1_to_1000000"),
            "SET GLOBAL innodb_io_capacity = 100".to_owned(),
        ])
        .await;
    link.source.run("ALTER TABLE t MODIFY v BIGINT, ADD KEY k (v)").await;
    let at_work =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE%' AND command = 'Query'";
    eventually("the ALTER is at work", Duration::from_secs(30), async || match link.target.number(at_work).await {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    let answer = link.agent.ctl(&["pause-task", &link.task]).await;
    answer.expect_success();
    let mut waited = false;
    eventually("the task is paused", Duration::from_secs(120), async || {
        let stage = link.status().await["stage"].as_str().unwrap_or_default().to_owned();
        let activity = task(&link.agent).await["activity"].as_str().unwrap_or_default().to_owned();
        if stage != "Paused" {
            waited |= activity.contains("pausing: running DDL") && activity.contains("since");
            return Err(format!("{stage}: {activity}"));
        }
        let still = link.target.number(at_work).await;
        assert_eq!(still, 0, "Paused, and the server still alters");
        Ok(())
    })
    .await;
    assert!(waited, "the ALTER was too quick to see anything: {answer:#?}");
    assert!(answer.text().contains("DDL is at work"), "{answer:#?}");
    link.target.run(&format!("DELETE FROM {schema}.t")).await;
    link.resume().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// A pause while DDL waits for a lock that someone holds: it is interrupted, the task parks before it, and a resume runs it.
async fn a_pause_interrupts_ddl_that_waits(kind: Kind) {
    let source = shared(if kind == Kind::MySql { Kind::MariaDb } else { Kind::MySql }, &ServerOptions::default()).await;
    let target = Server::start(kind, &ServerOptions::default()).await;
    let mut link = Link::start("mdl", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)"]).await;
    link.wait_equal().await;
    let schema = link.schema.clone();
    let mut holder = target.root().await;
    holder.run_all([format!("USE {schema}"), "BEGIN".into(), "SELECT * FROM t".into()]).await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN w INT DEFAULT 7", "INSERT INTO t VALUES (2, 2, 2)"]).await;
    let waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for%metadata lock'";
    eventually("the ALTER waits", Duration::from_secs(30), async || match link.target.number(waits).await {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
    link.wait_for_stage("Paused").await;
    assert_eq!(link.target.number(waits).await, 0, "Paused, and the ALTER still waits for its turn");
    let before = link.target_fingerprint().await;
    holder.run("COMMIT").await;
    assert_eq!(link.target_fingerprint().await, before, "the target moved while parked");
    link.agent.restart().await;
    link.resume().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn a_pause_interrupts_ddl_that_waits_on_mariadb() {
    a_pause_interrupts_ddl_that_waits(Kind::MariaDb).await;
}

#[tokio::test]
async fn a_pause_interrupts_ddl_that_waits_on_mysql() {
    a_pause_interrupts_ddl_that_waits(Kind::MySql).await;
}

/// An agent that stops between the intent of a DROP and the DROP itself, and goes on when another one has taken over, has dropped the
/// table and filled it anew: its statement must not run.
async fn a_zombie_does_not_run_its_ddl(kind: Kind) {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target =
        Server::start(kind, &ServerOptions { args: vec!["--server-id=77".into()], ..ServerOptions::default() }).await;
    let proxy = Proxy::start(target.port);
    let options = LinkOptions { target_port: Some(proxy.port), ..LinkOptions::default() };
    let mut link = Link::start("zombie", &source, &target, &options).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)"]).await;
    link.wait_equal().await;
    proxy.set(Fault::HoldStatement("TRUNCATE"));
    link.source.run("TRUNCATE TABLE t").await;
    eventually("the statement is on its way", Duration::from_secs(30), async || {
        if proxy.holds() { Ok(()) } else { Err("not held yet".to_owned()) }
    })
    .await;
    let pid = rustix::process::Pid::from_raw(link.agent.pid() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stop the agent");
    // Another agent, with no proxy in between, takes the task over.
    let other = Agent::start(&AgentOptions { name: "worker2".into(), ..AgentOptions::default() }).await;
    let source_file = SourceFile::new(&link.source_id, source.kind, source.port);
    let path = other.file("source.yaml", &source_file.yaml());
    other.ctl(&["operate-source", "create", &path]).await.expect_success();
    let mut file = link.task_file.clone();
    file.target_port = target.port;
    let path = other.file("task.yaml", &file.yaml());
    other.ctl(&["start-task", &path]).await.expect_success();
    link.source.run("INSERT INTO t VALUES (2, 2), (3, 3)").await;
    link.wait_equal().await;
    // What the first one sent arrives now. It stays stopped itself, as it would only take the task back.
    proxy.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.wait_equal().await;
    link.agent.kill9();
    other.assert_quiet_log();
}

#[tokio::test]
async fn a_zombie_does_not_run_its_ddl_on_mariadb() {
    a_zombie_does_not_run_its_ddl(Kind::MariaDb).await;
}

#[tokio::test]
async fn a_zombie_does_not_run_its_ddl_on_mysql() {
    a_zombie_does_not_run_its_ddl(Kind::MySql).await;
}

/// Minimal images of inserts that leave the key to its default: nothing in the binlog says which row it is.
#[tokio::test]
async fn inserts_without_their_key() {
    for (kind, target) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let source = shared(kind, &ServerOptions { row_image: "MINIMAL", ..ServerOptions::default() }).await;
        let target = shared(target, &ServerOptions::default()).await;
        let mut link = Link::start("nokey", &source, &target, &LinkOptions::default()).await;
        link.source
            .run_all([
                "CREATE TABLE one (id INT NOT NULL DEFAULT 5 PRIMARY KEY, v INT)",
                "CREATE TABLE two (a INT NOT NULL, b INT NOT NULL DEFAULT 7, v INT, PRIMARY KEY (a, b))",
                "CREATE TABLE auto (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
                "CREATE TABLE u (id CHAR(36) NOT NULL DEFAULT (UUID()) PRIMARY KEY, v INT, w CHAR(36) DEFAULT (UUID()))",
                "CREATE TABLE now (id INT PRIMARY KEY, at DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6), v INT DEFAULT 3)",
            ])
            .await;
        for round in 0..20 {
            link.source
                .run_all([
                    "BEGIN".to_owned(),
                    format!("INSERT INTO one (v) VALUES ({round})"),
                    format!("INSERT INTO two (a, v) VALUES (1, {round}), (2, {round})"),
                    format!("INSERT INTO auto (v) VALUES ({round}), ({round})"),
                    format!("INSERT INTO u (v) VALUES ({round})"),
                    format!("INSERT INTO now (id) VALUES ({round})"),
                    "UPDATE one SET v = v + 1 WHERE id = 5".to_owned(),
                    "UPDATE two SET v = v + 1, b = 8 WHERE a = 2".to_owned(),
                    "COMMIT".to_owned(),
                ])
                .await;
            if round < 19 {
                link.source.run_all(["DELETE FROM one", "DELETE FROM two"]).await;
            }
        }
        link.wait_equal().await;
        link.agent.assert_quiet_log();
    }
}

/// MariaDB's sequences: left out with a note where the target has none, followed where it has.
#[tokio::test]
async fn sequences_of_mariadb() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let source = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
        let target = shared(kind, &ServerOptions::default()).await;
        let mut link = Link::start("seq", &source, &target, &LinkOptions::default()).await;
        link.source
            .run_all(["CREATE SEQUENCE s START WITH 100 CACHE 5", "CREATE TABLE t (id BIGINT PRIMARY KEY, v INT)"])
            .await;
        let schema = link.schema.clone();
        eventually("the table is there", Duration::from_secs(30), async || {
            link.target.try_run(&format!("SELECT * FROM {schema}.t")).await
        })
        .await;
        if kind == Kind::MariaDb {
            link.target.run(&format!("CREATE SEQUENCE {schema}.s START WITH 100 CACHE 5")).await;
        }
        for round in 0..20 {
            link.source.run(&format!("INSERT INTO t VALUES (NEXT VALUE FOR s, {round})")).await;
        }
        link.source.run("SELECT SETVAL(s, 5000)").await;
        link.source.run("INSERT INTO t VALUES (NEXT VALUE FOR s, 77)").await;
        let rows = format!("SELECT COUNT(*) FROM {schema}.t");
        eventually("all rows are there", Duration::from_secs(30), async || match link.target.number(&rows).await {
            21 => Ok(()),
            count => Err(format!("{count} rows; {}", link.status().await)),
        })
        .await;
        if kind == Kind::MariaDb {
            let next = link.target.number(&format!("SELECT NEXT VALUE FOR {schema}.s")).await;
            assert!(next > 5000, "the target's sequence gives {next}");
        } else {
            eventually("a note", Duration::from_secs(30), async || {
                let notes = task(&link.agent).await["notes"].to_string();
                if notes.contains("sequence") && notes.contains("`s`") { Ok(()) } else { Err(notes) }
            })
            .await;
        }
        link.agent.assert_quiet_log();
    }
}

/// Groups are dealt to lanes in key order: no lane waits for another one's rows for ever.
#[tokio::test]
async fn no_deadlock_between_lanes() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("order", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, g INT, KEY g (g))").await;
    for round in 0..20 {
        let rows: Vec<String> = (0..400).map(|id| format!("({}, {round})", (id * 7919) % 400 + round)).collect();
        link.source.run(&format!("REPLACE INTO t VALUES {}", rows.join(","))).await;
        link.source.run(&format!("DELETE FROM t WHERE id % 7 = {}", round % 7)).await;
    }
    link.wait_equal().await;
    assert!(!link.agent.log().contains("Error 1213"), "a deadlock");
    link.agent.assert_quiet_log();
}

/// A primary key that somebody drops downstream while the task runs: lists of keys name it as their index (error 1176). The
/// table is looked at again, and goes on as one without a key.
#[tokio::test]
async fn a_primary_key_dropped_downstream_is_done_without() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("dropped", &source, &target, &LinkOptions::default()).await;
    let values = (0..60).map(|id| format!("({id}, {})", id % 7)).collect::<Vec<_>>().join(",");
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    link.source.run(&format!("INSERT INTO t VALUES {values}")).await;
    link.wait_equal().await;
    let t = format!("{}.t", link.schema);
    link.target.run(&format!("ALTER TABLE {t} DROP PRIMARY KEY")).await;
    for statement in [
        "DELETE FROM t WHERE id < 20",
        "UPDATE t SET v = v + 1 WHERE id < 40",
        "DELETE FROM t WHERE id < 30",
        "INSERT INTO t VALUES (1, 1)",
    ] {
        link.source.run(statement).await;
        let rows = format!("SELECT id, v FROM {t} ORDER BY id, v");
        let wanted = link.source.texts(&rows).await;
        eventually("the rows are equal", Duration::from_secs(20), async || {
            let found = link.target.texts(&rows).await;
            if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    // An operator is not told of it, nor is it left to the next try.
    assert!(!link.agent.log().contains("\"to\":\"Paused\""), "the task has parked");
    link.agent.assert_quiet_log();
}

/// Something before the server that takes one statement at a time: small ones that go together elsewhere go one by one.
#[tokio::test]
async fn a_way_that_takes_one_statement_at_a_time() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let proxy = Proxy::start(target.port);
    proxy.set(Fault::OneStatement);
    let options = LinkOptions { target_port: Some(proxy.port), ..LinkOptions::default() };
    let mut link = Link::start("one", &source, &target, &options).await;
    for table in 0..5 {
        link.source.run(&format!("CREATE TABLE t{table} (id INT PRIMARY KEY, v INT)")).await;
    }
    link.wait_equal().await;
    link.pause().await;
    for id in 0..30 {
        link.source.run("BEGIN").await;
        for table in 0..5 {
            link.source.run(&format!("INSERT INTO t{table} VALUES ({id}, {table})")).await;
        }
        link.source.run("COMMIT").await;
    }
    link.wait_relayed().await;
    link.resume().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Changes of many tables at once: their structures are read together, and anew where a statement changes one of them.
#[tokio::test]
async fn many_tables_at_once() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("many", &source, &target, &LinkOptions::default()).await;
    let each = |sql: &str| (0..40).map(|table| sql.replace('#', &table.to_string())).collect::<Vec<_>>();
    link.source.run_all(each("CREATE TABLE t# (id INT PRIMARY KEY, v INT)")).await;
    link.wait_equal().await;
    link.pause().await;
    link.source.run("BEGIN").await;
    link.source.run_all(each("INSERT INTO t# VALUES (1, #), (2, # + 100)")).await;
    link.source.run_all(["COMMIT", "ALTER TABLE t33 ADD w INT, ADD UNIQUE (v)", "BEGIN"]).await;
    link.source.run_all(each("UPDATE t# SET v = v + id")).await;
    link.source.run_all(["INSERT INTO t33 VALUES (3, 3, 3)", "COMMIT"]).await;
    link.wait_relayed().await;
    link.resume().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}
