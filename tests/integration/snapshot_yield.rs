//! A copy makes room for others that use its source, and so does the replay behind it; they say so, and come to their end all the
//! same. They do not where they are told not to, or where there are none.

use crate::support::agent::AgentOptions;
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, Link, LinkOptions};
use crate::support::servers::{Kind, Server, ServerOptions};
use crate::support::writer::Writer;

/// What is said of that.
const YIELDS: &str = "yielding to others on the source (";
/// Rows of each of two tables.
const ROWS: u32 = 150_000;

/// A copy of two tables from a source that nobody else uses, not started.
/// `rows` of a chunk at most.
async fn link(label: &str, kind: Kind, agent: &str, rows: u32) -> (Link, Server, Server) {
    let options = ServerOptions::default();
    let (source, target) = (Server::start(kind, &options).await, Server::start(Kind::MariaDb, &options).await);
    let options = LinkOptions {
        agent: AgentOptions { agent: agent.into(), ..AgentOptions::default() },
        // So that it takes long enough to be looked at.
        task_extra: format!("mydumpers:\n  short: {{rows: {rows}}}\n"),
        instance_extra: "  mydumper-config-name: short\n".into(),
        ..LinkOptions::default()
    };
    let mut link = Link::with_mode("all", label, &source, &target, &options).await;
    for table in ["a", "b"] {
        link.source.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, n INT NOT NULL, s VARCHAR(60))")).await;
        for first in (0..ROWS).step_by(5000) {
            let row = |id| format!("({id},{id},'row {id}')");
            let values: Vec<String> = (first..first + 5000).map(row).collect();
            link.source.run(&format!("INSERT INTO {table} VALUES {}", values.join(","))).await;
        }
    }
    (link, source, target)
}

fn writer(link: &Link, source: &Server) -> Writer {
    Writer::start(source.port, &link.schema, |round| {
        vec![
            format!("UPDATE a SET n = n + 1 WHERE id = {}", round * 37 % u64::from(ROWS)),
            format!("DELETE FROM b WHERE id = {}", round * 91 % u64::from(ROWS)),
        ]
    })
}

/// What the copy says that it does, as long as it copies rows.
async fn said(link: &Link) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    eventually("the copy is over", CATCH_UP_LIMIT, async || {
        let task = &link.agent.status().await["tasks"][0];
        let activity = task["activity"].as_str().unwrap_or_default().to_owned();
        if activity.starts_with("copying rows") && said.last() != Some(&activity) {
            said.push(activity);
        }
        if task["unit"] == "Sync" { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
    assert!(!said.is_empty(), "the copy was over before it was seen");
    said
}

/// Why safe mode is on behind the copy, until it is not. Where the replay yields it is parked once.
async fn replayed(link: &Link) -> Vec<String> {
    let (mut said, mut parked): (Vec<String>, bool) = (Vec::new(), false);
    eventually("the replay is over", CATCH_UP_LIMIT, async || {
        let task = &link.agent.status().await["tasks"][0];
        let why = task["safe_mode"].as_str().unwrap_or_default().to_owned();
        if why.contains(YIELDS) && !std::mem::replace(&mut parked, true) {
            link.agent.ctl(&["pause-task", &link.task]).await.expect_success();
            link.agent.ctl(&["resume-task", &link.task]).await.expect_success();
        }
        let over = task["activity"] == "applying" && task["stage"] == "Running" && why.is_empty();
        if !why.is_empty() && said.last() != Some(&why) {
            said.push(why);
        }
        if over { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
    said
}

async fn yields(label: &str, kind: Kind) {
    let (mut link, source, _target) = link(label, kind, "copy-yield-floor = 10\n", 2000).await;
    let writer = writer(&link, &source);
    writer.more_rounds(20).await;
    link.start_task().await.expect_success();
    let said = said(&link).await;
    assert!(said.iter().any(|activity| activity.contains(YIELDS)), "{said:#?}");
    // A chunk of so many rows is written in many pieces, and they are one transaction.
    let count = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_commit', 'Com_load') AND Value > 0";
    let counts = link.target.texts(count).await;
    let [commits, loads] = [0, 1].map(|at| counts[at][1].parse::<u64>().expect("a number"));
    assert!(loads > 2 * commits, "{counts:?}");
    let replayed = replayed(&link).await;
    assert!(replayed.iter().any(|why| why.contains(YIELDS)), "{replayed:#?}");
    writer.end().await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn yields_to_writers_mariadb() {
    yields("yield_maria", Kind::MariaDb).await;
}

#[tokio::test]
async fn yields_to_writers_mysql() {
    yields("yield_mysql", Kind::MySql).await;
}

#[tokio::test]
async fn does_not_yield_where_it_is_told_not_to_or_nobody_else_is_there() {
    let (mut link, source, target) = link("yield_not", Kind::MariaDb, "copy-yield-floor = 100\n", 200).await;
    let writer = writer(&link, &source);
    link.start_task().await.expect_success();
    assert_eq!(said(&link).await, ["copying rows"]);
    assert!(!replayed(&link).await.iter().any(|why| why.contains(YIELDS)));
    writer.end().await;
    link.wait_equal().await;
    link.agent.ctl(&["stop-task", &link.task]).await.expect_success();
    let schema = link.schema.clone();
    let options = LinkOptions {
        task_extra: "mydumpers:\n  short: {rows: 200}\n".into(),
        instance_extra: "  mydumper-config-name: short\n".into(),
        ..LinkOptions::default()
    };
    let mut alone = Link::with_mode("all", "yield_alone", &source, &target, &options).await;
    alone.task_file.schemas = vec![schema.clone()];
    alone.target.run(&format!("DROP DATABASE {schema}")).await;
    alone.start_task().await.expect_success();
    assert_eq!(said(&alone).await, ["copying rows"]);
    alone.agent.assert_quiet_log();
    link.agent.assert_quiet_log();
}
