//! What scripts written for dm-worker look for in a worker's log and in its failures: words, fields, and how often.

use dm_agent::control::proto::pb;

use crate::support::cluster::{ClusterLink, WORKER};
use crate::support::eventually;
use crate::support::fixture::{CATCH_UP_LIMIT, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// A subtask's settings are told when it is made, as TiDB's tools read them, without what must not be told.
#[tokio::test]
async fn what_a_subtask_is_made_with_is_logged_without_secrets() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mmade", &source, &target, 60).await;
    link.stop().await.expect_quick();
    let session = toml::Table::from_iter([("net_write_timeout".to_owned(), "600".into())]);
    link.toml["to"].as_table_mut().expect("a table").insert("session".into(), session.into());
    link.start_task(None).await.expect_quick();
    link.insert(1).await;
    link.wait_equal().await;
    link.wait_logged("] [\"subtask created\"] [config=\"{", r#"\"session\":{\"net_write_timeout\":\"600\"}"#).await;
    assert!(!link.agent.log().contains("dmpw"), "a password");
}

/// Transactions of tables without any end with a statement, and each table of a copy is told once.
#[tokio::test]
async fn statements_and_tables_are_told_as_a_dm_worker_tells_them() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mtold", &source, &target, 60).await;
    link.source.run_all(["CREATE TABLE m (i INT PRIMARY KEY) ENGINE=MyISAM", "INSERT INTO m VALUES (1)"]).await;
    link.wait_equal().await;
    link.wait_logged("[\"originSQL: COMMIT\"]", "").await;
    link.stop().await.expect_quick();
    link.target.run(&format!("DROP DATABASE {}", link.schema)).await;
    link.task = format!("all_{}", link.schema);
    link.toml.insert("name".into(), link.task.clone().into());
    link.toml.insert("mode".into(), "all".into());
    assert!(link.start_task(None).await.ok);
    link.insert(1).await;
    link.wait_equal().await;
    link.stop().await.expect_quick();
    assert!(link.start_task(None).await.ok);
    link.insert(1).await;
    link.wait_equal().await;
    for table in ["t", "m"] {
        let told = format!("[\"init table info\"] [table=`{}`.`{table}`]", link.schema);
        assert_eq!(link.agent.log().matches(&told).count(), 1, "{told}");
    }
}

/// The place where safe mode ends, with the fields that a dm-worker gives it.
#[tokio::test]
async fn the_end_of_safe_mode_is_told_with_its_places() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mexit", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.source.next_second().await;
    let now = link.source.text("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%d %H:%i:%s')").await;
    link.source.next_second().await;
    link.insert(2).await;
    link.toml.insert("timezone".into(), "+00:00".into());
    link.start_task(Some(&now)).await.expect_quick();
    link.wait_equal().await;
    let fields =
        format!("[\"compare exitPoint and beginLocation\"] [task={}] [unit=\"binlog replication\"]", link.task);
    link.wait_logged(&fields, "[exitPoint=\"position: (").await;
}

/// A table's structure that is set by hand.
#[tokio::test]
async fn a_structure_that_is_set_is_told() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let link = ClusterLink::start("mset", &source, &target, 60).await;
    link.pause().await.expect_quick();
    let request = pb::OperateWorkerSchemaRequest {
        op: pb::SchemaOp::SetSchema.into(),
        task: link.task.clone(),
        source: link.source_id.clone(),
        database: link.schema.clone(),
        table: "t".into(),
        from_source: true,
        ..Default::default()
    };
    let answer = link.master.worker(WORKER).await.operate_schema(request).await.expect("OperateSchema").into_inner();
    assert!(answer.result, "{answer:?}");
    link.wait_logged("flush table info", "").await;
}

/// Nobody listens at the target's address: told as a dm-worker tells it, while the source's relay log goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_refuses_connections_is_told_in_a_dm_workers_words() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let mut target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = ClusterLink::start("mdial", &source, &target, 60).await;
    link.master.start_relay_on(&link.source_id, WORKER).await;
    link.agent.terminate();
    target.kill9();
    link.agent.restart().await;
    let words = format!("dial tcp 127.0.0.1:{}: connect: connection refused", target.port);
    let told = |status: &pb::SubTaskStatus| {
        let errors = status.result.iter().flat_map(|result| &result.errors);
        status.stage() == pb::Stage::Paused && errors.into_iter().any(|error| error.raw_cause.contains(&words))
    };
    link.wait_for("it is told", told).await;
    // Other tests write to the source at the same time.
    eventually("the relay log goes on", CATCH_UP_LIMIT, async || {
        let relay = link.query().await.source_status.and_then(|status| status.relay_status).expect("a relay log");
        let goes_on = relay.relay_catch_up_master && relay.stage() == pb::Stage::Running;
        if goes_on { Ok(()) } else { Err(format!("{relay:?}")) }
    })
    .await;
    target.restart().await;
    link.insert(1).await;
    link.target = target.root().await;
    link.wait_equal().await;
}

/// Rows that a filter leaves out are counted in the log, under names that scripts add up.
#[tokio::test]
async fn filtered_rows_are_counted_in_the_log() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mleft", &source, &target, 60).await;
    link.stop().await.expect_quick();
    let rule = [("schema", link.schema.as_str()), ("table", "t"), ("insert-value-expr", "id > 100")];
    let rule = toml::Table::from_iter(rule.map(|(key, value)| (key.to_owned(), value.into())));
    link.toml.insert("expression-filter".into(), toml::Value::Array(vec![rule.into()]));
    link.start_task(None).await.expect_quick();
    link.source
        .run_all(["INSERT INTO t VALUES (101, 'a'), (7, 'b'), (102, 'c')", "INSERT INTO t VALUES (103, 'd')"])
        .await;
    link.source.run("INSERT INTO t VALUES (8, 'e')").await;
    eventually("the rows that are wanted", CATCH_UP_LIMIT, async || match link.target_rows().await {
        3 => Ok(()),
        rows => Err(format!("{rows} rows")),
    })
    .await;
    let log = link.agent.log();
    let numbers = log.split("[\"number of filtered insert\"=").skip(1).map(|rest| rest.split(']').next());
    let counted: u32 = numbers.map(|number| number.and_then(|n| n.parse::<u32>().ok()).expect("a number")).sum();
    assert_eq!(counted, 3);
}
