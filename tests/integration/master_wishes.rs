//! What a master may wish besides a task's stages: relay log, start time, settings, and things that make no sense.

use std::time::Duration;

use dm_agent::control::proto::pb;

use crate::support::agent::Agent;
use crate::support::cluster::{ClusterLink, WORKER, joining, source_toml, subtask_toml};
use crate::support::docs::SourceLocation;
use crate::support::etcd::put;
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::mini_master::{MiniMaster, key};
use crate::support::servers::Kind;

/// start-relay with and without a worker's name, pause-relay, stop-relay: as `relayStatus` tells it.
#[tokio::test]
async fn the_relay_log_is_what_the_master_says() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mrelay", &source, &target, 30).await;
    let relay = async |link: &ClusterLink| link.query().await.source_status.expect("never absent").relay_status;
    assert_eq!(relay(&link).await, None, "nobody started it");
    assert_eq!(sync(&link.status().await).binlog_type, "remote");

    let on = source_toml(&link.source_id, link.kind, source.port, true);
    link.master.set_relay(&link.source_id, &on, true).await;
    let running = relay(&link).await.expect("on");
    assert_eq!(running.stage(), pb::Stage::Running, "{running:?}");
    assert!(running.relay_sub_dir.ends_with(".000001"), "{running:?}");
    assert_eq!(sync(&link.status().await).binlog_type, "local");
    link.master.put_relay_stage(&link.source_id, 3).await;
    assert_eq!(relay(&link).await.expect("on").stage(), pb::Stage::Paused);
    link.master.put_relay_stage(&link.source_id, 2).await;
    assert_eq!(relay(&link).await.expect("on").stage(), pb::Stage::Running);
    let off = link.source_toml.clone();
    link.master.set_relay(&link.source_id, &off, false).await;
    assert_eq!(relay(&link).await, None);

    // By name the lease lasts longer, in one key without a gap.
    link.master.start_relay_on(&link.source_id, WORKER).await;
    assert_eq!(relay(&link).await.expect("on").stage(), pb::Stage::Running);
    let alive = key("/dm-worker/a/", &[WORKER]);
    let etcd = link.master.etcd.read().await;
    let before = etcd.get(&alive).await.expect("alive");
    eventually("the key has another lease", Duration::from_secs(10), async || {
        let now = etcd.get(&alive).await.expect("never gone");
        if now.version >= 2 { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(etcd.get(&alive).await.expect("alive").value, before.value, "the join-time stays");
    drop(etcd);
    link.master.stop_relay_on(&link.source_id, WORKER).await;
    assert_eq!(relay(&link).await, None);
    link.insert(2).await;
    link.wait_equal().await;
}

fn sync(status: &pb::SubTaskStatus) -> pb::SyncStatus {
    match &status.status {
        Some(pb::sub_task_status::Status::Sync(sync)) => sync.clone(),
        other => panic!("{other:?}"),
    }
}

/// Compatibility test 14: a `start-task --start-time` that was refused leaves its key. A stock worker's next resume jumps
/// back to that time; ours does not.
#[tokio::test]
async fn a_forgotten_start_time_changes_nothing_and_a_wanted_one_is_honoured_once() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mtime", &source, &target, 60).await;
    link.pause().await.expect_quick();
    link.master.put_start_time(&link.source_id, &link.task, Some("2001-01-01 00:00:00")).await;
    link.resume().await.expect_quick();
    link.insert(1).await;
    link.wait_equal().await;
    let running = link.wait_for("its checkpoint has passed that", |status| sync(status).synced).await;
    assert_eq!(running.stage(), pb::Stage::Running);
    let args = key("/dm-master/task-cli-args/", &[&link.task, &link.source_id]);
    let left = link.master.etcd.read().await.get(&args).await.expect("the key").value;
    assert!(String::from_utf8_lossy(&left).contains("2001-01-01"), "it was not this task's: nobody honoured it");

    // Wanted: the rows before it are not replicated, and the key is cleared when it has been honoured.
    link.stop().await.expect_quick();
    link.insert(1).await;
    let skipped = link.target_rows().await;
    link.source.next_second().await;
    link.source.next_second().await;
    let now = link.source.text("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%d %H:%i:%s')").await;
    link.source.next_second().await;
    link.insert(1).await;
    // What a real master writes where no `meta` was given (`tests/golden/etcd/watch-all.jsonl`).
    let meta = link.toml["meta"].as_table_mut().expect("a table");
    meta.insert("binlog-name".into(), "start-task with --start-time".into());
    meta.insert("binlog-pos".into(), 0.into());
    meta.insert("binlog-gtid".into(), "".into());
    link.start_task(Some(&now)).await.expect_quick();
    eventually("the start time is cleared", Duration::from_secs(30), async || {
        let kv = link.master.etcd.read().await.get(&args).await.expect("the key stays");
        let value = String::from_utf8_lossy(&kv.value).into_owned();
        let cleared = "{\"start_time\":\"\",\"safe_mode_duration\":\"\",\"wait_time_on_stop\":\"\"}";
        if value == cleared { Ok(()) } else { Err(value) }
    })
    .await;
    eventually("the row behind the start time", Duration::from_secs(20), async || {
        let rows = link.target_rows().await;
        if rows > skipped { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    assert_eq!(link.target_rows().await, skipped + 1, "what came before the start time was to be left out");
}

/// What this version does not heed is named: words of start-task, and keys of a later master.
#[tokio::test]
async fn what_is_not_heeded_is_named() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mheed", &source, &target, 60).await;
    let notes = async |link: &ClusterLink| link.agent.status().await["tasks"][0]["notes"].to_string();
    assert!(!notes(&link).await.contains("does not know"), "{}", notes(&link).await);
    link.stop().await.expect_quick();
    let args = key("/dm-master/task-cli-args/", &[&link.task, &link.source_id]);
    let words = "{\"start_time\":\"\",\"safe_mode_duration\":\"60s\",\"wait_time_on_stop\":\"\"}";
    link.master.etcd.read().await.write(vec![put(&args, words)]).await;
    link.toml.insert("later-key".into(), 7.into());
    link.master.put_config(&link.source_id, &link.task, &link.toml.to_string()).await;
    link.master.put_stage(&link.source_id, &link.task, 2).await;
    link.wait_for("it runs", |status| status.stage() == pb::Stage::Running).await;
    for word in ["`safe_mode_duration` of start-task", "`later-key` has no meaning here"] {
        assert!(notes(&link).await.contains(word), "{word}: {}", notes(&link).await);
        let told = link.query().await.msg;
        assert!(told.contains(&format!("{}: ", link.task)) && told.contains(word), "dmctl prints it: {told}");
        assert!(link.agent.log().contains(word), "{word} is in the log, too");
    }
}

/// What cannot be run is there all the same: parked, with what is wrong; others are not disturbed.
#[tokio::test]
async fn a_task_that_cannot_run_is_parked_with_why() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("modd", &source, &target, 60).await;
    let start = SourceLocation { file: "mysql-bin.000001".into(), position: 4, gtid: String::new() };
    let mut all = subtask_toml("t_all", &link.source_id, target.port, &["nowhere"], &start);
    all.insert("mode".into(), "dump".into());
    let started = link.master.start_task(&link.source_id, "t_all", &all.to_string(), None).await;
    assert!(!started.ok && started.polls <= 2, "{started:?}");
    assert!(started.errors[0].message.contains("task-mode `dump` is not supported"), "{started:?}");
    assert!(!started.errors[0].workaround.is_empty());

    let nonsense = link.master.start_task(&link.source_id, "t_bad", "mode = [", None).await;
    assert!(!nonsense.ok && nonsense.errors[0].err_class == "config", "{nonsense:?}");
    let status = link.master.query(WORKER, "t_bad").await.expect("QueryStatus");
    assert_eq!(status.sub_task_status[0].stage(), pb::Stage::Paused);
    // Keys and values of no sense at all.
    let etcd = link.master.etcd.read().await;
    etcd.write(vec![
        put("/dm-master/stage/subtask/zz", "?"),
        put(&format!("{}zz", key("/dm-master/stage/subtask/", &[&link.source_id]) + "/"), "{}"),
        put(&key("/dm-master/stage/subtask/", &[&link.source_id, "t_odd"]), "{\"expect\":77}"),
        put(&key("/dm-master/stage/subtask/", &[&link.source_id, "t_none"]), "{\"expect\":2}"),
        put(&key("/dm-master/bound-worker/", &[WORKER]), "not json"),
    ])
    .await;
    drop(etcd);
    link.insert(1).await;
    link.wait_equal().await;
    assert_eq!(link.status().await.stage(), pb::Stage::Running);
    link.master.repeat_bounds().await;
    link.pause().await.expect_quick();
    assert_eq!(link.master.stop_task(&link.source_id, "t_bad").await.expect_quick().polls, 1);

    // Repaired settings take effect at a resume.
    all.insert("mode".into(), "incremental".into());
    link.master.put_config(&link.source_id, "t_all", &all.to_string()).await;
    let resumed = link.master.resume_task(&link.source_id, "t_all").await;
    assert!(resumed.ok, "{resumed:?}");
}

/// A validator is none of this version's: the task is parked with that for as long as its stage asks for one. `validation
/// stop` leaves the mode in the configuration, and then it runs.
#[tokio::test]
async fn a_validator_is_refused_until_it_is_stopped() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mvalid", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.toml["ValidatorCfg"].as_table_mut().expect("a table").insert("mode".into(), "full".into());
    let stage = key("/dm-master/stage/validator/", &[&link.source_id, &link.task]);
    let expect = async |stages: i32| {
        let value = format!("{{\"expect\":{stages},\"source\":\"{}\",\"task\":\"{}\"}}", link.source_id, link.task);
        link.master.etcd.read().await.write(vec![put(&stage, &value)]).await;
    };
    expect(2).await;
    let refused = link.start_task(None).await;
    assert!(!refused.ok, "{refused:?}");
    let error = refused.errors.first().expect("an error");
    assert!(
        error.message.contains("validator mode `full`") && error.message.contains("`validation stop`"),
        "{error:?}"
    );
    expect(4).await;
    link.resume().await.expect_quick();
    link.insert(1).await;
    link.wait_equal().await;
}

/// A source whose configuration cannot be used: the worker says so, and takes a repaired one without a restart.
#[tokio::test]
async fn a_source_that_cannot_be_opened_is_told_and_repaired() {
    let (source, _target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let master = MiniMaster::start().await;
    let _agent = Agent::start(&joining(&master, WORKER, 60)).await;
    master.create_source("s1", "source-id = \"s1\"\nflavor = \"oracle\"\n").await;
    let answer = eventually("the failure is told", Duration::from_secs(20), async || {
        let answer = master.query(WORKER, "").await.map_err(|status| status.to_string())?;
        let told = answer.source_status.as_ref().is_some_and(|status| status.result.is_some());
        if told { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let status = answer.source_status.expect("never absent");
    assert!(!answer.result && answer.msg.contains("code=40070") && status.source == "s1", "{status:?}");
    assert!(status.result.expect("told").errors[0].message.contains("flavor"));

    master.put_source("s1", &source_toml("s1", Kind::MySql, source.port, false)).await;
    eventually("the source is handled", Duration::from_secs(20), async || {
        let answer = master.query(WORKER, "").await.map_err(|status| status.to_string())?;
        if answer.result && answer.msg == "no sub task started" { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// A cluster with a secret key: passwords may stand encrypted in what it stores.
#[tokio::test]
async fn the_clusters_key_reveals_passwords() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let master = MiniMaster::start().await;
    // tests/golden/rpc/secret-key.txt: a real master's key, and what `dmctl encrypt dmpw` gave under it.
    let key = "35eb3ba5aae6702e05f5459be6dfe51cad4d8c80b10a742633ec017932791107";
    let bytes = (0..64).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16).expect("hex")).collect();
    master.set_secret_key(bytes).await;
    let _agent = Agent::start(&joining(&master, WORKER, 60)).await;
    let encrypted = |toml: String| toml.replace("\"dmpw\"", "\"4k8KBGQHFKVhYQq1xzB29UB2JgSI\"");
    master.create_source("s1", &encrypted(source_toml("s1", Kind::MySql, source.port, false))).await;
    let mut db = source.root().await;
    let start = crate::support::fixture::location(&mut db, Kind::MySql).await;
    let toml = subtask_toml("t_secret", "s1", target.port, &["secret_nowhere"], &start);
    eventually("the source is bound", Duration::from_secs(20), async || {
        master.worker_of("s1").await.ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let started = master.start_task("s1", "t_secret", &encrypted(toml.to_string()), None).await;
    started.expect_quick();
    eventually("it applies", Duration::from_secs(20), async || {
        let answer = master.query(WORKER, "t_secret").await.map_err(|status| status.to_string())?;
        let status = answer.sub_task_status.first().cloned().unwrap_or_default();
        if sync(&status).synced { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// `binlog skip` through the master: it takes effect at once, and the task goes on by itself.
#[tokio::test]
async fn a_failed_statement_is_skipped_through_the_master() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mskip", &source, &target, 60).await;
    link.insert(3).await;
    link.wait_equal().await;
    let mut worker = link.master.worker(WORKER).await;
    let request = |op: pb::ErrorOp, task: &str| pb::HandleWorkerErrorRequest {
        op: op.into(),
        task: task.to_owned(),
        ..Default::default()
    };
    let unknown = worker.handle_error(request(pb::ErrorOp::Skip, "nope")).await.expect("HandleError").into_inner();
    assert_eq!(unknown, recorded(include_str!("../golden/rpc/handleerror-notask.json")));
    let none = worker.handle_error(request(pb::ErrorOp::List, &link.task)).await.expect("HandleError").into_inner();
    let golden = recorded(include_str!("../golden/rpc/handleerror-list.json"));
    assert_eq!(none, pb::CommonWorkerResponse { msg: golden.msg.replace("mysql-01", &link.source_id), ..golden });

    let mut other = target.root().await;
    other.run(&format!("CREATE TABLE {}.taken (id INT PRIMARY KEY, v BIGINT)", link.schema)).await;
    link.source.run("CREATE TABLE taken (id INT PRIMARY KEY)").await;
    link.source.run("ALTER TABLE taken ADD COLUMN v INT").await;
    link.wait_for("it fails", |status| !status.result.clone().unwrap_or_default().errors.is_empty()).await;
    let skipped = worker.handle_error(request(pb::ErrorOp::Skip, &link.task)).await.expect("HandleError").into_inner();
    assert_eq!(skipped, pb::CommonWorkerResponse { result: true, worker: WORKER.to_owned(), ..Default::default() });
    link.insert(3).await;
    link.wait_equal().await;
    link.wait_for("it runs", |status| status.stage() == pb::Stage::Running).await;
}

/// The answer of a recording.
fn recorded(golden: &str) -> pb::CommonWorkerResponse {
    use base64::Engine;
    use prost::Message;
    let json: serde_json::Value = serde_json::from_str(golden).expect("JSON");
    let bytes = base64::engine::general_purpose::STANDARD.decode(json["response_base64"].as_str().expect("bytes"));
    pb::CommonWorkerResponse::decode(&*bytes.expect("base64")).expect("the message")
}

/// Positions that only this machine knew would be lost when the source moves.
#[tokio::test]
async fn checkpoints_must_be_kept_downstream() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mmeta", &source, &target, 60).await;
    let user = link.schema.clone();
    let mut root = target.root().await;
    root.run_all([
        format!("CREATE USER {user}@'%' IDENTIFIED BY 'dmpw'"),
        format!("GRANT ALL ON {user}.* TO {user}@'%'"),
    ])
    .await;
    link.stop().await.expect_quick();
    // Another task: of this one positions are there, and a right that is missing now is an error anyway.
    link.task += "_2";
    link.toml.insert("name".into(), link.task.clone().into());
    root.run(&format!("DROP TABLE {user}.t")).await;
    link.toml["to"].as_table_mut().expect("a table").insert("user".into(), user.clone().into());
    let refused = link.start_task(None).await;
    assert!(!refused.ok, "{refused:?}");
    let error = refused.errors.first().expect("an error");
    assert!(error.message.contains("in a cluster the next worker must find them there"), "{error:?}");
    assert!(error.raw_cause.starts_with("Error 1") && error.workaround.contains("dm_meta"), "{error:?}");
    root.run(&format!("GRANT ALL ON dm_meta.* TO {user}@'%'")).await;
    link.resume().await.expect_quick();
    link.insert(2).await;
    link.wait_equal().await;
}

/// Compatibility tests 11 and 12, and what every other method answers.
#[tokio::test]
async fn every_other_method_answers() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let link = ClusterLink::start("mrpc", &source, &target, 60).await;
    let mut worker = link.master.worker(WORKER).await;
    let cfg = worker.get_worker_cfg(pb::GetWorkerCfgRequest {}).await.expect("GetWorkerCfg").into_inner().cfg;
    assert!(cfg.contains(&format!("join = \"http://{}\"", link.master.address)), "{cfg}");
    let status = worker
        .get_worker_validator_status(pb::GetValidationStatusRequest { task_name: link.task.clone(), filter_status: 0 })
        .await
        .expect_err("no validator");
    assert!(status.code() == tonic::Code::Unknown && status.message().contains("code=43006"), "{status:?}");
    let meta = worker.operate_v1_meta(pb::OperateV1MetaRequest::default()).await.expect("OperateV1Meta").into_inner();
    assert!(meta.result && meta.meta.is_empty());

    let purge = pb::PurgeRelayRequest { filename: "mysql-bin.000009".into(), ..Default::default() };
    let off = worker.purge_relay(purge.clone()).await.expect("PurgeRelay").into_inner();
    assert_eq!(off, pb::CommonWorkerResponse { result: true, ..Default::default() }, "no relay log to purge");
    link.master.start_relay_on(&link.source_id, WORKER).await;
    link.pause().await.expect_quick();
    let nofile = pb::PurgeRelayRequest { filename: "nofile".into(), ..Default::default() };
    let passed = worker.purge_relay(nofile).await.expect("PurgeRelay").into_inner();
    assert_eq!(passed, pb::CommonWorkerResponse { result: true, ..Default::default() }, "as recorded");
    let refused = worker.purge_relay(purge).await.expect("PurgeRelay").into_inner();
    let words = format!("sub task {} current stage is Paused", link.task);
    assert!(!refused.result && refused.msg.contains("code=30037") && refused.msg.contains(&words), "{refused:?}");

    let skip = pb::HandleWorkerErrorRequest {
        op: pb::ErrorOp::Skip.into(),
        task: link.task.clone(),
        binlog_pos: "mysql-bin.000001:4".into(),
        sqls: Vec::new(),
    };
    let skip = worker.handle_error(skip).await.expect("HandleError").into_inner();
    assert!(skip.result && skip.msg.contains("is applied already"), "told that it has no effect: {skip:?}");
    let mut other = link.toml.clone();
    other.insert("batch".into(), 7.into());
    let check = async |toml: String, worker: &mut pb::worker_client::WorkerClient<tonic::transport::Channel>| {
        let request = pb::CheckSubtasksCanUpdateRequest { subtask_cfg_toml_string: toml };
        worker.check_subtasks_can_update(request).await.expect("CheckSubtasksCanUpdate").into_inner()
    };
    assert!(check(other.to_string(), &mut worker).await.success);
    other.insert("meta-schema".into(), "elsewhere".into());
    assert!(!check(other.to_string(), &mut worker).await.success);
    assert!(check(String::new(), &mut worker).await.msg.contains("code=20004"));
}
