//! Every status that was recorded from real workers, made again out of the agent's own status (compatibility test 13): what
//! a field of the recording says is put into the status, and must come out in the same field and no other.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::*;
use crate::control::pb_status::tests::{agent, running_task, source};
use crate::model::{BinlogPosition, Checkpointed, Flavor, GtidSet, Location, Relayed};
use crate::supervisor::{Receiving, SourceStatus};
use crate::task::Totals;

/// `(mysql-bin.000001, 4529)` and a set, as a location; `None` where both are empty.
fn location(position: &str, gtids: &str) -> Option<Location> {
    let (file, offset) = position.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
    // A set of MariaDB's begins with a domain, one of MySQL's with a UUID.
    let flavor = if gtids.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
    let gtids = if gtids.is_empty() { GtidSet::empty(Flavor::MySql) } else { GtidSet::parse(flavor, gtids).unwrap() };
    Some(Location::new(BinlogPosition::parse(file, offset.parse().unwrap()).unwrap(), gtids))
}

/// Without the suffix of a relay directory: the agent's positions are the source's.
fn plain(position: &str) -> String {
    location(position, "").map_or_else(String::new, |location| location.position.to_string())
}

fn failure(error: &pb::ProcessError) -> Failure {
    Failure {
        code: error.err_code,
        class: error.err_class.clone(),
        scope: error.err_scope.clone(),
        level: error.err_level.clone(),
        message: error.message.clone(),
        raw_cause: error.raw_cause.clone(),
        workaround: error.workaround.clone(),
    }
}

fn stage(stage: pb::Stage) -> Stage {
    match stage {
        pb::Stage::Running => Stage::Running,
        pb::Stage::Paused => Stage::Paused,
        other => panic!("no stage of an agent's task: {other:?}"),
    }
}

fn task(recorded: &pb::SubTaskStatus, source_id: &str, sync: &pb::SyncStatus) -> TaskStatus {
    let result = recorded.result.clone().unwrap_or_default();
    let mut task = TaskStatus {
        name: recorded.name.clone(),
        source_id: source_id.to_owned(),
        stage: stage(recorded.stage()),
        failures: result.errors.iter().map(failure).collect(),
        flushed: location(&sync.syncer_binlog, &sync.syncer_binlog_gtid).map(Checkpointed),
        lag: Some(Duration::from_secs(sync.seconds_behind_master.unsigned_abs())),
        totals: Totals { rows: sync.total_rows.unsigned_abs(), ..Totals::default() },
        ..running_task()
    };
    let park = || Park { since: SystemTime::UNIX_EPOCH, by: "someone".to_owned(), note: String::new() };
    if !task.failures.is_empty() {
        task.parks.insert(ParkReason::Error, park());
    }
    if result.is_canceled {
        task.parks.insert(ParkReason::Master, park());
    }
    task
}

fn source_of(status: &pb::SourceStatus, sync: Option<&pb::SyncStatus>) -> SourceStatus {
    let mut source = SourceStatus { source_id: status.source.clone(), ..source() };
    source.master = sync.and_then(|sync| location(&sync.master_binlog, &sync.master_binlog_gtid));
    if let Some(relay) = &status.relay_status {
        source.master = location(&relay.master_binlog, &relay.master_binlog_gtid);
        source.relayed = location(&relay.relay_binlog, &relay.relay_binlog_gtid).map(Relayed);
        source.server_identity = relay.relay_sub_dir.trim_end_matches(".000001").to_owned();
        source.receiving = match relay.stage() {
            pb::Stage::Paused => Receiving::Paused,
            _ => Receiving::Running,
        };
    }
    source
}

/// What is measured otherwise here.
fn comparable(mut answer: pb::QueryStatusResponse) -> pb::QueryStatusResponse {
    for status in &mut answer.sub_task_status {
        if let Some(pb::sub_task_status::Status::Sync(sync)) = &mut status.status {
            (sync.total_tps, sync.recent_tps, sync.total_rps, sync.recent_rps) = (0, 0, 0, 0);
            (sync.io_total_bytes, sync.dump_io_total_bytes) = (0, 0);
            // By position a dm-worker is not synced behind a FLUSH BINARY LOGS, which changes no row.
            sync.synced |= !sync.master_binlog_gtid.is_empty() && sync.master_binlog_gtid == sync.syncer_binlog_gtid;
            sync.syncer_binlog = plain(&sync.syncer_binlog);
        }
    }
    answer
}

/// The syncs of an answer; `None` where something is in it that this version does not have.
fn syncs(recorded: &pb::QueryStatusResponse) -> Option<Vec<pb::SyncStatus>> {
    let sync = |status: &pb::SubTaskStatus| match &status.status {
        Some(pb::sub_task_status::Status::Sync(sync))
            if status.validation.is_none() && sync.unresolved_groups.is_empty() && sync.blocking_dd_ls.is_empty() =>
        {
            Some(sync.clone())
        }
        _ => None,
    };
    recorded.sub_task_status.iter().map(sync).collect()
}

/// Makes a recorded answer again, and compares; `false` where something is in it that this version does not have.
fn is_told(name: &str, bytes: &[u8], what: &str) -> bool {
    let recorded = pb::QueryStatusResponse::decode(bytes).unwrap();
    let Some(syncs) = syncs(&recorded) else { return false };
    let status = recorded.source_status.clone().unwrap();
    let shown = status.relay_status.is_some();
    let tasks = recorded.sub_task_status.iter().zip(&syncs);
    // For a moment, while its relay log was switched off, that worker had subtasks and no source.
    if status.source.is_empty() && !recorded.sub_task_status.is_empty() {
        return false;
    }
    let tasks: Vec<_> = tasks.map(|(one, sync)| task(one, &status.source, sync)).collect();
    let sources = if status.source.is_empty() { vec![] } else { vec![source_of(&status, syncs.first())] };
    let mut agent = agent(sources, tasks);
    agent.worker.clone_from(&status.worker);
    let ours = answer(&agent, name, None, |_| shown);
    assert_eq!(comparable(ours), comparable(recorded), "{what}");
    true
}

#[test]
fn every_recorded_status_can_be_told() {
    let mut told = Vec::new();
    for folder in ["rpc", "errors"] {
        for entry in std::fs::read_dir(format!("{}/tests/golden/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let path = entry.unwrap().path();
            let Ok(json) = serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&path).unwrap()) else {
                continue;
            };
            let bytes = json["response_base64"].as_str().filter(|_| json["method"] == "/pb.Worker/QueryStatus");
            let Some(bytes) = bytes else { continue };
            let name = json["request"]["name"].as_str().unwrap_or_default();
            if is_told(name, &STANDARD.decode(bytes).unwrap(), &path.display().to_string()) {
                told.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    told.sort();
    assert!(told.len() > 35, "only {told:?}");
}

/// All that a master asked a worker in one session (`tests/golden/tape`): each answer keeps its bytes, and each status is
/// made again.
#[test]
fn a_whole_session_with_a_master_can_be_told() {
    fn keeps<M: Message + Default>(bytes: &[u8]) -> bool {
        M::decode(bytes).unwrap().encode_to_vec() == bytes
    }
    let tape = include_str!("../../../tests/golden/tape/master-to-worker.jsonl");
    let (mut calls, mut told) = (0, 0);
    for (number, line) in tape.lines().enumerate() {
        let call: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(bytes) = call["response_base64"].as_str() else { continue };
        let bytes = STANDARD.decode(bytes).unwrap();
        let method = call["method"].as_str().unwrap().rsplit('/').next().unwrap();
        let kept = match method {
            "QueryStatus" => keeps::<pb::QueryStatusResponse>(&bytes),
            "GetWorkerCfg" => keeps::<pb::GetWorkerCfgResponse>(&bytes),
            "GetWorkerValidatorStatus" => keeps::<pb::GetValidationStatusResponse>(&bytes),
            "GetValidatorError" => keeps::<pb::GetValidationErrorResponse>(&bytes),
            "HandleError" | "PurgeRelay" | "OperateSchema" => keeps::<pb::CommonWorkerResponse>(&bytes),
            other => panic!("no message for {other}"),
        };
        assert!(kept, "line {}", number + 1);
        calls += 1;
        let name = call["request"]["name"].as_str().unwrap_or_default();
        told += u32::from(method == "QueryStatus" && is_told(name, &bytes, &format!("line {}", number + 1)));
    }
    assert!(calls > 180 && told > 100, "{calls} calls, {told} statuses");
}
