//! `binlog-schema list`, `update`, `delete`: how a table looks, and what an operator declares of its columns.

use std::time::Duration;

use dm_agent::control::proto::pb;

use crate::support::agent::Answer;
use crate::support::cluster::{ClusterLink, WORKER};
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;

const LIMIT: Duration = Duration::from_secs(30);

async fn schema(link: &Link, op: &str, table: &str, more: &[&str]) -> Answer {
    let mut words = vec!["binlog-schema", op, &link.task, &link.schema, table, "-s", &link.source_id];
    words.extend(more);
    link.agent.ctl(&words).await
}

/// What `list` says.
async fn listed(link: &Link, table: &str) -> String {
    let answer = schema(link, "list", table, &[]).await;
    answer.expect_success();
    answer.json()["sources"][0]["msg"].as_str().expect("a text").to_owned()
}

async fn rows(link: &mut Link, sql: &str, expected: &[&[&str]]) {
    eventually("the rows are there", LIMIT, async || {
        let rows = link.target.texts(sql).await;
        if rows == expected { Ok(()) } else { Err(format!("{rows:?}: {}", link.status().await)) }
    })
    .await;
}

/// resume-task where it may fail again before it is answered.
async fn try_again(link: &Link) {
    link.agent.ctl(&["resume-task", &link.task]).await;
}

const COUNT: &str = "Column count doesn't match value count";

/// The downstream has a column more: rows go by the names that are declared, over a kill, until DDL or `delete` ends it.
#[tokio::test]
async fn declared_columns_hold_until_the_next_ddl() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("declared", &source, &target, &LinkOptions::default()).await;
    let name = link.schema.clone();
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))").await;
    link.wait_equal().await;
    schema(&link, "list", "t", &[]).await.expect_refusal(&["code=40051", "current stage is Running but not paused"]);
    link.pause().await;
    schema(&link, "list", "nosuch", &[]).await.expect_refusal(&[
        "code=10005",
        "query statement failed: SHOW CREATE TABLE",
        "Error 1146 (42S02)",
    ]);
    assert!(listed(&link, "t").await.starts_with("CREATE TABLE `t` ( `id` int(11) NOT NULL, `v` varchar(20)"));
    link.target.run(&format!("ALTER TABLE {name}.t ADD COLUMN extra INT DEFAULT 7 FIRST")).await;
    link.resume().await;
    link.source.run("INSERT INTO t VALUES (1, 'one')").await;
    link.wait_for_error(&[COUNT, "3 (columns) vs 2 (values)"]).await;

    let bad = link.agent.file("bad.sql", "create tabel\n");
    let refused = schema(&link, "update", "t", &[&bad]).await;
    refused.expect_refusal(&[
        "code=44009:class=schema-tracker",
        "create tabel\\n is not a valid `CREATE TABLE` statement",
    ]);
    let words = ["binlog-schema", "update", &link.task, "elsewhere", "t", "--from-source", "-s", &link.source_id];
    link.agent.ctl(&words).await.expect_refusal(&["is not replicated by this task"]);
    assert!(listed(&link, "t").await.contains("`extra`"));
    schema(&link, "update", "t", &["--from-source"]).await.expect_success();
    assert!(!listed(&link, "t").await.contains("`extra`"));
    link.resume().await;
    let all = format!("SELECT extra, id, v FROM {name}.t ORDER BY id");
    rows(&mut link, &all, &[&["7", "1", "one"]]).await;

    // It is kept: over a kill, and while rows that were read by it may be read again.
    link.agent.kill9();
    link.source.run("INSERT INTO t VALUES (2, 'two')").await;
    link.agent.restart().await;
    rows(&mut link, &all, &[&["7", "1", "one"], &["7", "2", "two"]]).await;

    // A statement that may change the columns ends it, and what is read again from before it is still read by it.
    link.pause().await;
    link.source
        .run_all([
            "INSERT INTO t VALUES (3, 'three')",
            "ALTER TABLE t ADD COLUMN w INT",
            "INSERT INTO t VALUES (4, 'four', 4)",
        ])
        .await;
    try_again(&link).await;
    link.wait_for_error(&[COUNT, "4 (columns) vs 3 (values)"]).await;
    let notes = link.agent.status().await["tasks"][0]["notes"].to_string();
    assert!(notes.contains("has ended with the statement at"), "{notes}");
    link.agent.kill9();
    link.agent.restart().await;
    link.wait_for_error(&[COUNT, "4 (columns) vs 3 (values)"]).await;
    let text = "CREATE TABLE any_name (ID BIGINT, v TEXT, w INT, PRIMARY KEY (id))";
    let file = link.agent.file("schema.sql", text);
    schema(&link, "update", "t", &[&file]).await.expect_success();
    assert_eq!(listed(&link, "t").await, text);
    link.resume().await;
    let last = format!("SELECT extra, id, v, w FROM {name}.t WHERE id > 2 ORDER BY id");
    rows(&mut link, &last, &[&["7", "3", "three", "NULL"], &["7", "4", "four", "4"]]).await;

    // Taken back, it holds no more.
    link.pause().await;
    schema(&link, "delete", "t", &[]).await.expect_success();
    assert!(listed(&link, "t").await.contains("`extra`"));
    link.resume().await;
    link.source.run("INSERT INTO t VALUES (5, 'five', 5)").await;
    link.wait_for_error(&[COUNT, "4 (columns) vs 3 (values)"]).await;
    // Nor after stop-task and another start.
    schema(&link, "update", "t", &[&file]).await.expect_success();
    link.stop_task().await;
    link.start_task().await;
    link.wait_for_error(&[COUNT, "4 (columns) vs 3 (values)"]).await;
}

/// The same columns in another order: by place each value would go to the wrong one.
#[tokio::test]
async fn declared_columns_may_stand_in_another_order() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("order", &source, &target, &LinkOptions::default()).await;
    let name = link.schema.clone();
    link.pause().await;
    link.target
        .run_all([
            format!("CREATE DATABASE IF NOT EXISTS {name}"),
            format!("CREATE TABLE {name}.t (b INT UNSIGNED, id INT, a INT, PRIMARY KEY (id))"),
        ])
        .await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT UNSIGNED)").await;
    link.source.run("INSERT INTO t VALUES (1, -2, 4000000000)").await;
    try_again(&link).await;
    let all = format!("SELECT id, a, b FROM {name}.t ORDER BY id");
    // The statement that made the table ends what was declared before it: declare it behind that.
    link.wait_for_error(&["Out of range"]).await;
    schema(&link, "update", "t", &["--from-source"]).await.expect_success();
    link.resume().await;
    rows(&mut link, &all, &[&["1", "-2", "4000000000"]]).await;
    link.source.run_all(["UPDATE t SET a = -3 WHERE id = 1", "INSERT INTO t VALUES (2, 5, 6)"]).await;
    rows(&mut link, &all, &[&["1", "-3", "4000000000"], &["2", "5", "6"]]).await;
    link.source.run("DELETE FROM t WHERE id = 1").await;
    rows(&mut link, &all, &[&["2", "5", "6"]]).await;
}

/// What a master asks, answered as recorded.
#[tokio::test]
async fn a_master_is_answered_as_recorded() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mschema", &source, &target, 60).await;
    link.source.run("CREATE TABLE u (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    let request = |op: pb::SchemaOp| pb::OperateWorkerSchemaRequest {
        op: op.into(),
        task: link.task.clone(),
        source: link.source_id.clone(),
        database: link.schema.clone(),
        table: "t".into(),
        ..Default::default()
    };
    let mut worker = link.master.worker(WORKER).await;
    let mut ask = async |request: pb::OperateWorkerSchemaRequest| {
        worker.operate_schema(request).await.expect("OperateSchema").into_inner()
    };
    let recorded = |golden: &str| serde_json::from_str::<serde_json::Value>(golden).expect("JSON")["response"].clone();
    let json = |answer: &pb::CommonWorkerResponse| serde_json::json!({"msg": answer.msg, "result": answer.result, "source": answer.source, "worker": answer.worker});
    let none = ask(pb::OperateWorkerSchemaRequest { task: "nope".into(), ..request(pb::SchemaOp::GetSchema) }).await;
    assert_eq!(json(&none), recorded(include_str!("../golden/rpc/schema-get-notask.json")));
    let other =
        ask(pb::OperateWorkerSchemaRequest { source: "nosuch".into(), ..request(pb::SchemaOp::GetSchema) }).await;
    assert_eq!(json(&other), recorded(include_str!("../golden/rpc/schema-get-wrongsource.json")));
    for op in [pb::SchemaOp::GetSchema, pb::SchemaOp::SetSchema, pb::SchemaOp::RemoveSchema, pb::SchemaOp::ListSchema] {
        let running = ask(request(op)).await;
        let golden = include_str!("../golden/dmctl/binlog-schema-list-running.txt");
        assert!(!running.result && golden.contains(&running.msg) && running.worker.is_empty(), "{op:?} {running:?}");
    }
    let (task, schema) = (link.task.clone(), link.schema.clone());
    let targets = |tables: &[&str]| {
        let one = |table: &&str| {
            format!(
                "{{\"source_schema\":\"{schema}\",\"source_table\":\"{table}\",\"target_schema\":\"{schema}\",\"target_table\":\"{table}\"}}"
            )
        };
        format!("[{}]", tables.iter().map(one).collect::<Vec<_>>().join(","))
    };
    // This one also of a task that runs.
    assert_eq!(ask(request(pb::SchemaOp::ListMigrateTargets)).await.msg, targets(&["t", "u"]));
    link.master.pause_task(&link.source_id, &task).await.expect_quick();
    for (op, msg) in [
        (pb::SchemaOp::ListSchema, format!("[\"{schema}\"]")),
        (pb::SchemaOp::ListTable, "[\"t\",\"u\"]".to_owned()),
        (pb::SchemaOp::ListMigrateTargets, targets(&["t", "u"])),
        (pb::SchemaOp::RemoveSchema, String::new()),
    ] {
        let expected =
            pb::CommonWorkerResponse { result: true, msg, source: link.source_id.clone(), worker: WORKER.to_owned() };
        assert_eq!(ask(request(op)).await, expected, "{op:?}");
    }
    let shown = ask(request(pb::SchemaOp::GetSchema)).await;
    assert!(shown.result && shown.msg.starts_with("CREATE TABLE `t` ( `id` int(11) NOT NULL"), "{shown:?}");
    assert_eq!((shown.source.as_str(), shown.worker.as_str()), (link.source_id.as_str(), WORKER));
    let set = pb::OperateWorkerSchemaRequest {
        from_target: true,
        flush: true,
        sync: true,
        ..request(pb::SchemaOp::SetSchema)
    };
    assert!(ask(set).await.result);
    assert!(!ask(request(pb::SchemaOp::InvalidSchemaOp)).await.result);
    // The socket of a worker may look, and changes nothing: that is the master's.
    let words = ["binlog-schema", "list", &task, &schema, "t", "-s", &link.source_id];
    link.agent.ctl(&words).await.expect_success();
    let words = ["binlog-schema", "delete", &task, &schema, "t", "-s", &link.source_id];
    link.agent.ctl(&words).await.expect_refusal(&["belong to its dm-master"]);
    link.resume().await.expect_quick();
    link.insert(2).await;
    link.wait_equal().await;
}
