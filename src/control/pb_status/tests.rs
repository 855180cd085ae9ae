//! The mapping against recorded answers: each case builds the status that led to the recording.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::*;
use crate::model::RowMark;
use crate::model::{BinlogPosition, Checkpointed, Flavor, GtidSet, Received, Relayed};
use crate::supervisor::RelayStatus;
use crate::task::{CopyStatus, Park, Totals};

const SET: &str = "9231c604-e680-11f1-ab28-628677c36cd1:1-20";

pub(crate) fn at(file: &str, offset: u64, set: &str) -> Location {
    Location::new(BinlogPosition::parse(file, offset).unwrap(), GtidSet::parse(Flavor::MySql, set).unwrap())
}

pub(crate) fn agent(sources: Vec<SourceStatus>, tasks: Vec<TaskStatus>) -> AgentStatus {
    AgentStatus {
        worker: "worker1".to_owned(),
        in_cluster: false,
        loading: false,
        sources,
        tasks,
        operate_errors: [("Pause", 1)].into(),
    }
}

pub(crate) fn source() -> SourceStatus {
    let here = at("mysql-bin.000001", 5381, SET);
    SourceStatus {
        source_id: "mysql-01".to_owned(),
        flavor: Flavor::MySql,
        receiving: Receiving::Running,
        master: Some(here.clone()),
        server_identity: "9231c604-e680-11f1-ab28-628677c36cd1".to_owned(),
        received: Some(Received(here.clone())),
        relayed: Some(Relayed(here)),
        receive_lag: Some(Duration::from_secs(1)),
        relay: RelayStatus::default(),
    }
}

pub(crate) fn running_task() -> TaskStatus {
    TaskStatus {
        activity: "applying".to_owned(),
        flushed: Some(Checkpointed(at("mysql-bin.000001", 5381, SET))),
        lag: Some(Duration::ZERO),
        backlog_bytes: Some(0),
        totals: Totals { rows: 5, ..Totals::default() },
        rows_per_second: 1.2,
        eta: Some(Duration::ZERO),
        ..TaskStatus::new("t1", "mysql-01", Stage::Running)
    }
}

pub(crate) fn parked_task(reason: ParkReason) -> TaskStatus {
    let park = Park { since: SystemTime::UNIX_EPOCH, by: "uid 1000 pid 1".to_owned(), note: String::new() };
    TaskStatus { stage: Stage::Paused, parks: [(reason, park)].into(), ..running_task() }
}

/// The recorded answer, with what differs by design or between runs taken from `ours`: the agent always reads through
/// its relay, keeps one rate, and does not count socket bytes.
fn recorded(json: &str, ours: &pb::QueryStatusResponse) -> pb::QueryStatusResponse {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let bytes = STANDARD.decode(json["response_base64"].as_str().unwrap()).unwrap();
    let mut golden = pb::QueryStatusResponse::decode(&*bytes).unwrap();
    for (golden, ours) in golden.sub_task_status.iter_mut().zip(&ours.sub_task_status) {
        use pb::sub_task_status::Status::Sync;
        if let (Some(Sync(golden)), Some(Sync(ours))) = (&mut golden.status, &ours.status) {
            golden.binlog_type = ours.binlog_type.clone();
            golden.io_total_bytes = 0;
            golden.dump_io_total_bytes = 0;
            (golden.total_tps, golden.total_rps) = (ours.total_tps, ours.total_rps);
            (golden.recent_tps, golden.recent_rps) = (ours.recent_tps, ours.recent_rps);
        }
    }
    golden
}

fn assert_golden(json: &str, agent: &AgentStatus, task: &str, relay_shown: bool) {
    let ours = source_response(agent, &agent.sources[0], task, relay_shown);
    assert_eq!(ours, recorded(json, &ours));
}

#[test]
fn a_source_without_tasks() {
    let golden = include_str!("../../../tests/golden/rpc/status-01-source-no-task.json");
    assert_golden(golden, &agent(vec![source()], vec![]), "", false);
}

#[test]
fn an_unknown_name_beside_other_tasks() {
    let golden = include_str!("../../../tests/golden/rpc/status-150-unknown-name-others-running.json");
    let json: serde_json::Value = serde_json::from_str(golden).unwrap();
    let name = json["request"]["name"].as_str().unwrap();
    assert_golden(golden, &agent(vec![source()], vec![running_task()]), name, false);
}

#[test]
fn paused_by_a_user() {
    let golden = include_str!("../../../tests/golden/rpc/status-12-paused-user.json");
    assert_golden(golden, &agent(vec![source()], vec![parked_task(ParkReason::Operator)]), "t1", false);
    assert_golden(golden, &agent(vec![source()], vec![parked_task(ParkReason::Master)]), "t1", false);
}

#[test]
fn running_with_the_relay_on() {
    let golden = include_str!("../../../tests/golden/rpc/status-30-relay-on.json");
    let here = at("mysql-bin.000003", 898, "9231c604-e680-11f1-ab28-628677c36cd1:1-50");
    let mut source = source();
    source.master = Some(here.clone());
    // The recording is in position mode, where DM's relay knows no GTIDs.
    source.relayed = Some(Relayed(at("mysql-bin.000003", 898, "")));
    let task = TaskStatus { flushed: Some(Checkpointed(here)), totals: Totals::default(), ..running_task() };
    assert_golden(golden, &agent(vec![source], vec![task]), "", true);
}

#[test]
fn parked_by_a_failure_and_paused_by_a_user_besides() {
    let failed = include_str!("../../../tests/golden/errors/duplicate-key.json");
    let paused = include_str!("../../../tests/golden/rpc/status-errored-then-paused.json");
    let json: serde_json::Value = serde_json::from_str(failed).unwrap();
    let error = &json["response"]["subTaskStatus"][0]["result"]["errors"][0];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let failure = Failure {
        code: i32::try_from(error["ErrCode"].as_i64().unwrap()).unwrap(),
        class: text("ErrClass"),
        scope: text("ErrScope"),
        level: text("ErrLevel"),
        message: text("Message"),
        raw_cause: text("RawCause"),
        workaround: text("Workaround"),
    };
    for (reason, golden) in [(ParkReason::Error, failed), (ParkReason::Operator, paused)] {
        let task = TaskStatus { failures: vec![failure.clone()], ..parked_task(reason) };
        let ours = source_response(&agent(vec![source()], vec![task]), &source(), "", false);
        let result = ours.sub_task_status[0].result.clone();
        assert_eq!(result, recorded(golden, &ours).sub_task_status[0].result);
    }
}

#[test]
fn a_park_that_nobody_asked_for_does_not_look_like_a_pause() {
    for reason in [ParkReason::Lease, ParkReason::Disk] {
        let agent = agent(vec![source()], vec![parked_task(reason)]);
        let result = source_response(&agent, &source(), "", false).sub_task_status[0].result.clone().unwrap();
        assert!(!result.is_canceled && result.errors.len() == 1, "{result:?}");
    }
}

/// What a copy looks like that has just begun, or is on its way.
fn copying(copy: CopyStatus) -> TaskStatus {
    TaskStatus { unit: Unit::Load, copy: Some(copy), ..running_task() }
}

#[test]
fn a_copy_that_failed_is_a_load_unit() {
    let golden = include_str!("../../../tests/golden/rpc/status-110-all-first.json");
    let from = at("mysql-bin.000007", 5059, "9231c604-e680-11f1-ab28-628677c36cd1:1-95");
    let copy = CopyStatus { from: Some((&RowMark::at(from)).into()), ..CopyStatus::default() };
    let mut task = TaskStatus { name: "ta".to_owned(), stage: Stage::Paused, ..copying(copy) };
    let response: serde_json::Value = serde_json::from_str(golden).unwrap();
    let error = &response["response"]["subTaskStatus"][0]["result"]["errors"][0];
    task.failures = vec![Failure {
        code: 34019,
        class: "load-unit".to_owned(),
        scope: "internal".to_owned(),
        level: "high".to_owned(),
        message: String::new(),
        raw_cause: error["RawCause"].as_str().unwrap().to_owned(),
        workaround: String::new(),
    }];
    assert_golden(golden, &agent(vec![source()], vec![task]), "ta", false);
}

#[test]
fn a_copy_says_how_far_it_is() {
    // A table counts for some rows besides its own, and bytes do.
    let copy = CopyStatus {
        tables: 4,
        tables_done: 1,
        rows: 1000,
        rows_written: 123,
        bytes: 10_000,
        bytes_written: 1500,
        bytes_per_second: 99.6,
        ..CopyStatus::default()
    };
    let status = |copy: &CopyStatus, unit| {
        let task = TaskStatus { unit, ..copying(copy.clone()) };
        let mut response = source_response(&agent(vec![source()], vec![task]), &source(), "", false);
        response.sub_task_status.remove(0)
    };
    let pb::sub_task_status::Status::Load(load) = status(&copy, Unit::Load).status.unwrap() else { panic!() };
    assert_eq!((&*load.progress, load.finished_bytes, load.total_bytes, load.bps), ("17.88 %", 1500, 10_000, 100));
    // More rows than were estimated do not make it done; nothing but its tables does.
    let more = CopyStatus { rows_written: 1001, ..copy.clone() };
    let pb::sub_task_status::Status::Load(load) = status(&more, Unit::Load).status.unwrap() else { panic!() };
    assert_eq!(load.progress, "65.56 %");
    let done = CopyStatus { tables_done: 4, ..copy.clone() };
    let pb::sub_task_status::Status::Load(load) = status(&done, Unit::Load).status.unwrap() else { panic!() };
    assert_eq!((&*load.progress, load.total_bytes), ("100.00 %", 1500));
    let prepared = status(&copy, Unit::Dump);
    assert_eq!(prepared.unit(), pb::UnitType::Dump);
    let pb::sub_task_status::Status::Dump(dump) = prepared.status.unwrap() else { panic!() };
    assert_eq!((dump.total_tables, dump.estimate_total_rows, &*dump.progress), (4, 1000.0, "0.00 %"));
    // Tables that are made are progress.
    let making = CopyStatus { made: (3, 8), ..copy };
    let pb::sub_task_status::Status::Dump(dump) = status(&making, Unit::Dump).status.unwrap() else { panic!() };
    assert_eq!((dump.total_tables, dump.completed_tables, &*dump.progress), (8, 3.0, "37.50 %"));
}

#[test]
fn a_finished_task_was_not_cancelled() {
    let task = TaskStatus { stage: Stage::Finished, ..copying(CopyStatus::default()) };
    let status = source_response(&agent(vec![source()], vec![task]), &source(), "", false).sub_task_status.remove(0);
    assert_eq!(status.stage(), pb::Stage::Finished);
    assert_eq!(status.result, Some(pb::ProcessResult::default()));
}

#[test]
fn a_task_on_its_way_has_no_result() {
    for stage in [Stage::New, Stage::Running, Stage::Pausing, Stage::Resuming, Stage::Stopping] {
        let task = TaskStatus { stage, ..parked_task(ParkReason::Operator) };
        let response = source_response(&agent(vec![source()], vec![task]), &source(), "", false);
        assert_eq!(response.sub_task_status[0].result, None, "{stage:?}");
    }
}

#[test]
fn the_relay_says_why_it_does_not_receive() {
    let failure = Failure::new(Code::DriverError, "database driver error");
    let stage = |receiving: Receiving| {
        let status = relay_status(&SourceStatus { receiving, ..source() });
        (status.stage(), status.result.map(|r| (r.is_canceled, r.errors.len())))
    };
    let at = SystemTime::UNIX_EPOCH;
    assert_eq!(stage(Receiving::Running), (pb::Stage::Running, None));
    assert_eq!(stage(Receiving::Retrying { at, failure: failure.clone() }), (pb::Stage::Running, Some((false, 1))));
    assert_eq!(stage(Receiving::Stopped { failure }), (pb::Stage::Paused, Some((false, 1))));
    assert_eq!(stage(Receiving::Paused), (pb::Stage::Paused, Some((true, 0))));
}

#[test]
fn every_recorded_answer_keeps_its_bytes() {
    fn same<M: Message + Default>(bytes: &[u8]) -> bool {
        M::decode(bytes).unwrap().encode_to_vec() == bytes
    }
    let mut checked = 0;
    for folder in ["rpc", "errors"] {
        for entry in std::fs::read_dir(format!("{}/tests/golden/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let Some(response) = json["response_base64"].as_str() else { continue };
            let bytes = STANDARD.decode(response).unwrap();
            let kept = match json["method"].as_str().unwrap().rsplit('/').next().unwrap() {
                "QueryStatus" => same::<pb::QueryStatusResponse>(&bytes),
                "GetWorkerCfg" => same::<pb::GetWorkerCfgResponse>(&bytes),
                "CheckSubtasksCanUpdate" => same::<pb::CheckSubtasksCanUpdateResponse>(&bytes),
                "OperateV1Meta" => same::<pb::OperateV1MetaResponse>(&bytes),
                "GetWorkerValidatorStatus" => same::<pb::GetValidationStatusResponse>(&bytes),
                "GetValidatorError" => same::<pb::GetValidationErrorResponse>(&bytes),
                "OperateValidatorError" => same::<pb::OperateValidationErrorResponse>(&bytes),
                "HandleError" | "PurgeRelay" | "OperateSchema" | "UpdateValidator" => {
                    same::<pb::CommonWorkerResponse>(&bytes)
                }
                other => panic!("no message for {other}"),
            };
            assert!(kept, "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} recordings found");
}
