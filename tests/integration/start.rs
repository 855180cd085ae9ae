//! Where a task starts: at a position, a GTID set, a time; and what is no such place is refused with what is wrong with it.

use std::time::Duration;

use super::bad_input::assert_alive;
use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::{SourceFile, SourceLocation, TaskFile};
use crate::support::eventually;
use crate::support::fixture::{location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, fresh_schema, shared};

/// Binlog positions that are none: each refused, with the word that says why.
#[tokio::test]
async fn positions_that_are_none() {
    let source = Server::start(Kind::MySql, &ServerOptions { gtid: false, ..ServerOptions::default() }).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut db = source.root().await;
    db.run_all(["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "FLUSH BINARY LOGS"]).await;
    let begin = location(&mut db, source.kind).await;
    db.run("INSERT INTO d.t VALUES (1)").await;
    let end = location(&mut db, source.kind).await;
    db.run(&format!("PURGE BINARY LOGS TO '{}'", begin.file)).await;
    let events = db.texts(&format!("SHOW BINLOG EVENTS IN '{}'", begin.file)).await;
    let map = events.iter().find(|event| event[2] == "Table_map").expect("a table map");
    let inside = map[1].parse().expect("a position");
    let at = |position| SourceLocation { position, ..begin.clone() };
    let purged = SourceLocation { file: "mysql-bin.000001".into(), position: 4, gtid: String::new() };
    let none = SourceLocation { file: "mysql-bin.000777".into(), position: 4, gtid: String::new() };
    // The target is shared, and so are its checkpoints.
    let name = fresh_schema("position");
    let agent = Agent::start(&AgentOptions::default()).await;
    let file = SourceFile { gtid: false, ..SourceFile::new("s", source.kind, source.port) };
    let path = agent.file("source.yaml", &file.yaml());
    agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    for (start, words) in [
        (at(end.position + 10_000), ["past the end", &*format!("{}", end.position + 10_000)]),
        (at(begin.position + 7), ["no event begins", &*format!("{}", begin.position + 7)]),
        (at(inside), ["inside a transaction", &*inside.to_string()]),
        (purged, ["is purged", "mysql-bin.000001"]),
        (none, ["does not exist", "mysql-bin.000777"]),
    ] {
        let task = TaskFile { schemas: vec!["d".into()], start: Some(start), ..TaskFile::new(&name, "s", target.port) };
        let path = agent.file("task.yaml", &task.yaml());
        agent.ctl(&["start-task", &path]).await.expect_refusal(&words);
    }
    // A time before everything that is left is no mistake, though nothing has been written since.
    db.run("FLUSH BINARY LOGS").await;
    let now = location(&mut db, source.kind).await;
    db.run(&format!("PURGE BINARY LOGS TO '{}'", now.file)).await;
    let path = agent.file("task.yaml", &TaskFile::new(&name, "s", target.port).yaml());
    agent.ctl(&["start-task", &path, "--start-time", "2001-01-01 00:00:00"]).await.expect_success();
    agent.ctl(&["stop-task", &name]).await.expect_success();
    assert_alive(&agent).await;
    agent.assert_quiet_log();
}

/// GTID sets that are no place of the source.
#[tokio::test]
async fn sets_that_are_none() {
    for (kind, other) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(kind, other).await;
        let mut db = source.root().await;
        // MariaDB refuses what it has had no transaction of in the domain.
        let name = fresh_schema("set");
        db.run(&format!("CREATE DATABASE {name}")).await;
        let (ahead, foreign) = match kind {
            Kind::MySql => (format!("{}:1-999999999", db.text("SELECT @@server_uuid").await), "0-1-5"),
            Kind::MariaDb => {
                let id = db.text("SELECT CONCAT(@@gtid_domain_id, '-', @@server_id)").await;
                (format!("{id}-999999999"), "11111111-2222-3333-4444-555555555555:1-9")
            }
        };
        let agent = Agent::start(&AgentOptions::default()).await;
        let path = agent.file("source.yaml", &SourceFile::new("s", kind, source.port).yaml());
        agent.ctl(&["operate-source", "create", &path]).await.expect_success();
        for (gtid, words) in [
            (&*ahead, ["past the end", &*ahead]),
            (foreign, ["GTID set", foreign]),
            ("rubbish", ["binlog-gtid", "rubbish"]),
        ] {
            let start = Some(SourceLocation { file: String::new(), position: 0, gtid: gtid.to_owned() });
            let task = TaskFile { schemas: vec!["d".into()], start, ..TaskFile::new(&name, "s", target.port) };
            let path = agent.file("task.yaml", &task.yaml());
            agent.ctl(&["start-task", &path]).await.expect_refusal(&words);
        }
        assert_alive(&agent).await;
        agent.assert_quiet_log();
    }
}

/// `--start-time` begins with the first transaction that is as late as that.
#[tokio::test]
async fn at_a_time() {
    for (kind, other) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(kind, other).await;
        let schema = fresh_schema("time");
        let (mut up, mut down) = (source.root().await, target.root().await);
        for db in [&mut up, &mut down] {
            db.run(&format!("CREATE DATABASE {schema}")).await;
            db.run(&format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY)")).await;
        }
        up.run(&format!("INSERT INTO {schema}.t VALUES (1)")).await;
        // Events count whole seconds.
        up.run("DO SLEEP(1.1)").await;
        let time = up.text("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%d %H:%i:%s')").await;
        up.run(&format!("INSERT INTO {schema}.t VALUES (2)")).await;
        let agent = Agent::start(&AgentOptions::default()).await;
        let path = agent.file("source.yaml", &SourceFile::new("s", kind, source.port).yaml());
        agent.ctl(&["operate-source", "create", &path]).await.expect_success();
        let name = schema.clone();
        let task = TaskFile { schemas: vec![schema.clone()], ..TaskFile::new(&name, "s", target.port) };
        let path = agent.file("task.yaml", &task.yaml());
        let late = agent.ctl(&["start-task", &path, "--start-time", "2099-01-01 00:00:00"]).await;
        late.expect_refusal(&["2099-01-01 00:00:00", "too late"]);
        let no_time = agent.ctl(&["start-task", &path, "--start-time", "yesterday"]).await;
        no_time.expect_refusal(&["start-time", "yesterday"]);
        agent.ctl(&["start-task", &path, "--start-time", &time]).await.expect_success();
        let rows = eventually("the second row arrives", Duration::from_secs(20), async || {
            let rows = down.texts(&format!("SELECT id FROM {schema}.t")).await;
            if rows.is_empty() { Err("none yet".to_owned()) } else { Ok(rows) }
        })
        .await;
        assert_eq!(rows, [["2"]]);
        agent.ctl(&["stop-task", &name]).await.expect_success();
        agent.assert_quiet_log();
    }
}
