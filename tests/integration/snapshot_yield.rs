//! A copy makes room for others that use its source, says so, and comes to its end all the same; and does not where it is told not
//! to, or where there are none.

use crate::support::agent::AgentOptions;
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, Link, LinkOptions};
use crate::support::servers::{Kind, Server, ServerOptions};
use crate::support::writer::Writer;

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

async fn yields(label: &str, kind: Kind) {
    let (mut link, source, _target) = link(label, kind, "copy-yield-floor = 50\n", 2000).await;
    let writer = writer(&link, &source);
    writer.more_rounds(20).await;
    link.start_task().await.expect_success();
    let said = said(&link).await;
    let told = said.iter().filter(|activity| activity.contains("yielding to others on the source (")).count();
    assert!(told > 0, "{said:#?}");
    // A chunk of so many rows is written in many pieces, and they are one transaction.
    let count = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_commit', 'Com_load') AND Value > 0";
    let counts = link.target.texts(count).await;
    let [commits, loads] = [0, 1].map(|at| counts[at][1].parse::<u64>().expect("a number"));
    assert!(loads > 2 * commits, "{counts:?}");
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
