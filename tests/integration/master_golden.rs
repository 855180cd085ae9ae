//! States and failures as a dm-worker tells them (`tests/golden/rpc`, `tests/golden/errors`): caused here the same way, and
//! compared field by field.

use std::time::Duration;

use dm_agent::control::proto::pb;
use dm_agent::model::{Flavor, GtidSet};

use crate::support::cluster::{ClusterLink, WORKER};
use crate::support::eventually;
use crate::support::fixture::{location, shared_pair};
use crate::support::servers::Kind;

/// A recorded status.
fn status(name: &str) -> pb::QueryStatusResponse {
    use base64::Engine;
    use prost::Message;
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("recorded")).expect("JSON");
    let bytes = base64::engine::general_purpose::STANDARD.decode(json["response_base64"].as_str().expect("bytes"));
    pb::QueryStatusResponse::decode(&*bytes.expect("base64")).expect("the message")
}

/// The error of a recorded status.
fn recorded(name: &str) -> pb::ProcessError {
    status(&format!("errors/{name}")).sub_task_status[0].result.clone().expect("a result").errors[0].clone()
}

/// Without what differs from run to run: places, sets and servers are told from nothing, numbers are left out.
fn comparable(mut answer: pb::QueryStatusResponse, names: [(&str, &str); 2]) -> pb::QueryStatusResponse {
    let known = |texts: [&mut String; 4]| {
        for text in texts {
            if !text.is_empty() {
                "known".clone_into(text);
            }
        }
    };
    let named = |text: &mut String| {
        for (name, mark) in names {
            if text == name {
                mark.clone_into(text);
            }
        }
    };
    if let Some(source) = &mut answer.source_status {
        named(&mut source.source);
        if let Some(relay) = &mut source.relay_status {
            let sub_dir = &mut relay.relay_sub_dir;
            known([&mut relay.master_binlog, &mut relay.master_binlog_gtid, sub_dir, &mut relay.relay_binlog]);
            // Recorded in position mode, where that relay log knew no sets.
            (relay.relay_binlog_gtid, relay.relay_catch_up_master) = (String::new(), true);
        }
    }
    for task in &mut answer.sub_task_status {
        named(&mut task.name);
        if let Some(pb::sub_task_status::Status::Sync(sync)) = &mut task.status {
            let syncer = (&mut sync.syncer_binlog, &mut sync.syncer_binlog_gtid);
            known([&mut sync.master_binlog, &mut sync.master_binlog_gtid, syncer.0, syncer.1]);
            let binlog_type = std::mem::take(&mut sync.binlog_type);
            *sync = pb::SyncStatus {
                master_binlog: std::mem::take(&mut sync.master_binlog),
                master_binlog_gtid: std::mem::take(&mut sync.master_binlog_gtid),
                syncer_binlog: std::mem::take(&mut sync.syncer_binlog),
                syncer_binlog_gtid: std::mem::take(&mut sync.syncer_binlog_gtid),
                blocking_dd_ls: std::mem::take(&mut sync.blocking_dd_ls),
                unresolved_groups: std::mem::take(&mut sync.unresolved_groups),
                block_ddl_owner: std::mem::take(&mut sync.block_ddl_owner),
                conflict_msg: std::mem::take(&mut sync.conflict_msg),
                binlog_type,
                ..Default::default()
            };
        }
    }
    answer
}

/// Asks for `task`, and compares with what was recorded of source `mysql-01` and of a task.
async fn compare(link: &ClusterLink, task: &str, name: &str) {
    // The source's own place is asked for every two seconds.
    let asked = eventually(name, Duration::from_secs(10), async || {
        let ours = link.master.query(WORKER, task).await.map_err(|status| status.to_string())?;
        let of = if name.contains("start-time") { ["mysql-02", "t3"] } else { ["mysql-01", "t1"] };
        let mut theirs = comparable(status(&format!("rpc/{name}")), [(of[0], "SOURCE"), (of[1], "TASK")]);
        theirs.source_status.as_mut().expect("never absent").worker = WORKER.to_owned();
        let ours = comparable(ours, [(&link.source_id, "SOURCE"), (&link.task, "TASK")]);
        if ours == theirs { Ok(()) } else { Err(format!("{ours:#?}\nis not\n{theirs:#?}")) }
    });
    asked.await;
}

#[tokio::test]
async fn states_are_told_as_recorded() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mgold", &source, &target, 60).await;
    let task = link.task.clone();
    compare(&link, &task, "status-10-running").await;
    compare(&link, "", "status-11-running-all").await;
    compare(&link, "nope", "status-150-unknown-name-others-running").await;
    link.pause().await.expect_quick();
    compare(&link, &task, "status-12-paused-user").await;
    link.pause().await.expect_quick();
    compare(&link, &task, "status-13-paused-twice").await;
    link.resume().await.expect_quick();
    compare(&link, &task, "status-14-resumed").await;
    link.master.start_relay_on(&link.source_id, WORKER).await;
    compare(&link, "", "status-30-relay-on").await;
    link.master.stop_relay_on(&link.source_id, WORKER).await;
    compare(&link, "", "status-31-relay-off").await;
    link.stop().await.expect_quick();
    compare(&link, &task, "status-15-stopped").await;
    compare(&link, "nope", "status-02-unknown-task").await;
    compare(&link, "", "status-01-source-no-task").await;

    // A time that no binlog has reached: told as recorded, and the name is taken by it.
    let late = link.start_task(Some("2099-01-01 00:00:00")).await;
    assert!(!late.ok, "{late:?}");
    compare(&link, &task, "status-62-start-time-future").await;
    link.stop().await.expect_quick();
    link.master.stop_source(&link.source_id).await;
    compare(&link, "", "status-00-no-source").await;
    link.insert(1).await;
}

/// A text without what differs from run to run, places, GTID sets, and the schema's name, and without how names are written.
fn plain(text: &str, schema: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("position: (") {
        let end = rest[at..].find(']').map_or(rest.len(), |end| at + end);
        out.push_str(&rest[..at]);
        out.push_str("PLACE");
        rest = &rest[end..];
    }
    out.push_str(rest);
    // A dm-worker prints statements of DDL anew, in capitals and with every name in backticks; here they stay as written.
    out.replace(schema, "SCHEMA").replace('`', "").to_lowercase()
}

/// Waits for a failure, and compares it with a recorded one, which was met in `schema`.
async fn expect(link: &ClusterLink, name: &str, schema: &str) {
    let failed = |told: &pb::SubTaskStatus| told.result.as_ref().is_some_and(|result| !result.errors.is_empty());
    let told = link.wait_for(name, failed).await;
    assert_eq!((told.stage(), told.unit()), (pb::Stage::Paused, pb::UnitType::Sync), "{name}");
    let result = told.result.expect("a result");
    assert!(!result.is_canceled && result.errors.len() == 1 && result.detail.is_empty(), "{name}: {result:?}");
    let (ours, theirs) = (&result.errors[0], recorded(name));
    let fields = |error: &pb::ProcessError, schema: &str| {
        let code = (error.err_code, error.err_class.clone(), error.err_scope.clone(), error.err_level.clone());
        (code, plain(&error.message, schema), plain(&error.raw_cause, schema))
    };
    let mut expected = fields(&theirs, schema);
    // There is no schema tracker here that a table's columns could be needed for.
    if let Some(at) = expected.1.find(" to initialize upstream schema") {
        expected.1.truncate(at);
    }
    assert_eq!(fields(ours, &link.schema), expected, "{name}");
    assert!(theirs.workaround.is_empty() || !ours.workaround.is_empty(), "{name}: {ours:?}");
}

async fn order(link: &ClusterLink, op: pb::ErrorOp, statements: &[String]) {
    let request = pb::HandleWorkerErrorRequest {
        op: op.into(),
        task: link.task.clone(),
        binlog_pos: String::new(),
        sqls: statements.to_vec(),
    };
    let answer = link.master.worker(WORKER).await.handle_error(request).await.expect("HandleError").into_inner();
    assert_eq!(answer, pb::CommonWorkerResponse { result: true, worker: WORKER.into(), ..Default::default() });
}

#[tokio::test]
async fn failures_are_told_as_by_a_dm_worker() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("merr", &source, &target, 60).await;
    let schema = link.schema.clone();
    link.source
        .run_all([
            "CREATE TABLE dup (id INT PRIMARY KEY, v VARCHAR(20))",
            "CREATE TABLE missing (id INT PRIMARY KEY)",
            "CREATE TABLE cc (id INT PRIMARY KEY, a INT, b INT, c INT, d INT)",
            "CREATE TABLE few (id INT PRIMARY KEY)",
            "CREATE TABLE h (id INT PRIMARY KEY)",
            "CREATE TABLE dd (id INT PRIMARY KEY)",
        ])
        .await;
    link.wait_equal().await;
    link.target
        .run_all([
            format!("INSERT INTO {schema}.dup VALUES (5, 'in the way')"),
            format!("DROP TABLE {schema}.missing"),
            format!("ALTER TABLE {schema}.cc DROP COLUMN c, DROP COLUMN d"),
            format!("ALTER TABLE {schema}.few ADD COLUMN a INT, ADD COLUMN b INT"),
            format!("DROP TABLE {schema}.h"),
            format!("DROP TABLE {schema}.dd"),
        ])
        .await;

    link.source.run("INSERT INTO dup VALUES (5, 'five')").await;
    expect(&link, "duplicate-key", "e1").await;
    link.target.run(&format!("DELETE FROM {schema}.dup WHERE id = 5")).await;
    assert!(link.resume().await.ok);

    link.source.run("INSERT INTO missing VALUES (1)").await;
    expect(&link, "table-missing-downstream", "e1").await;
    link.target.run(&format!("CREATE TABLE {schema}.missing (id INT PRIMARY KEY)")).await;
    assert!(link.resume().await.ok);

    link.source.run("INSERT INTO cc VALUES (1, 2, 3, 4, 5)").await;
    expect(&link, "column-count-more-values", "e1").await;
    link.target.run(&format!("ALTER TABLE {schema}.cc ADD COLUMN c INT, ADD COLUMN d INT")).await;
    assert!(link.resume().await.ok);

    link.source.run("INSERT INTO few VALUES (1)").await;
    expect(&link, "column-count-fewer", "e1").await;
    link.target.run(&format!("ALTER TABLE {schema}.few DROP COLUMN a, DROP COLUMN b")).await;
    assert!(link.resume().await.ok);

    link.source.run("alter table h add column c int").await;
    expect(&link, "ddl-table-missing-downstream", "d1").await;
    order(&link, pb::ErrorOp::Skip, &[]).await;

    link.source.run("alter table dd add column e int").await;
    expect(&link, "ddl-before-replace", "d1").await;
    order(&link, pb::ErrorOp::Replace, &[format!("CREATE TABLE {schema}.dd (id INT PRIMARY KEY, e INT)")]).await;
    link.source.run("DROP TABLE h").await;
    link.wait_equal().await;
}

/// Many transactions go as one; which were done before the one that failed is told all the same.
#[tokio::test]
async fn a_failing_rows_gtids_are_those_before_its_transaction() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mgtids", &source, &target, 60).await;
    link.pause().await.expect_quick();
    let next = link.source.number("SELECT MAX(id) + 1 FROM t").await;
    link.target.run(&format!("INSERT INTO {}.t VALUES ({}, 'in the way')", link.schema, next + 3)).await;
    link.insert(3).await;
    let before = location(&mut link.source, link.kind).await.gtid;
    link.insert(1).await;
    let behind = location(&mut link.source, link.kind).await.gtid;
    link.insert(3).await;
    // It may be told already.
    link.resume().await;
    let failed = |told: &pb::SubTaskStatus| told.result.as_ref().is_some_and(|result| !result.errors.is_empty());
    let told = link.wait_for("it fails", failed).await;
    let message = told.result.expect("a result").errors[0].message.clone();
    let set = |text: &str| GtidSet::parse(Flavor::MySql, text).expect("a set");
    let sets: Vec<GtidSet> =
        message.split("gtid-set: ").skip(1).map(|rest| set(rest.split(']').next().unwrap_or_default())).collect();
    assert_eq!(sets.len(), 2, "{message}");
    for told in sets {
        assert!(told.contains(&set(&before)) && !told.contains(&set(&behind)), "{message}");
    }
    link.target.run(&format!("DELETE FROM {}.t WHERE id = {}", link.schema, next + 3)).await;
    assert!(link.resume().await.ok);
    link.wait_equal().await;
}
