//! Each case builds the status that led to a recorded answer, and compares the two field by field.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::*;
use crate::control::pb_status::tests::{agent, at, parked_task, running_task, source};
use crate::control::worker_rpc::answers;
use crate::model::{Checkpointed, Relayed};
use crate::task::{TaskStatus, Totals};

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../tests/golden/", $name, ".json"))
    };
}

/// The recorded answer.
fn recorded<M: Message + Default>(json: &str) -> M {
    M::decode(&*recorded_bytes(json)).unwrap()
}

fn recorded_bytes(json: &str) -> Vec<u8> {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    STANDARD.decode(json["response_base64"].as_str().unwrap()).unwrap()
}

/// Rates and bytes on sockets are measured otherwise here; all else must be equal.
fn assert_recorded(json: &str, ours: pb::QueryStatusResponse) {
    let mut golden = recorded::<pb::QueryStatusResponse>(json);
    assert_eq!(golden.sub_task_status.len(), ours.sub_task_status.len(), "{ours:#?}");
    for (golden, ours) in golden.sub_task_status.iter_mut().zip(&ours.sub_task_status) {
        use pb::sub_task_status::Status::Sync;
        if let (Some(Sync(golden)), Some(Sync(ours))) = (&mut golden.status, &ours.status) {
            (golden.io_total_bytes, golden.dump_io_total_bytes) = (0, 0);
            (golden.total_tps, golden.total_rps) = (ours.total_tps, ours.total_rps);
            (golden.recent_tps, golden.recent_rps) = (ours.recent_tps, ours.recent_rps);
        }
    }
    assert_eq!(golden, ours);
}

fn off(_: &str) -> bool {
    false
}

/// The failure in a recorded answer.
fn recorded_failure(json: &str) -> Failure {
    let golden = recorded::<pb::QueryStatusResponse>(json);
    let error = &golden.sub_task_status[0].result.as_ref().unwrap().errors[0];
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

#[test]
fn no_source() {
    assert_recorded(golden!("rpc/status-00-no-source"), answer(&agent(vec![], vec![]), "", None, off));
    let failure = Failure::new(Code::ConfigSource, "source configuration: from: is missing");
    let ours = answer(&agent(vec![], vec![]), "", Some(("mysql-01".into(), failure)), off);
    let status = ours.source_status.unwrap();
    assert!(!ours.result && ours.msg.contains("code=40070"));
    assert_eq!((status.source.as_str(), status.worker.as_str()), ("mysql-01", "worker1"));
    assert_eq!(status.result.unwrap().errors[0].err_code, 20036);
}

/// A dm-worker's task is Paused with the failure where its source cannot be reached, and its users look nowhere else.
#[test]
fn a_task_that_waits_for_a_lost_source_says_so() {
    let golden = golden!("errors/upstream-gone");
    let failure = recorded_failure(golden);
    let at = std::time::SystemTime::now();
    let lost = SourceStatus {
        receiving: Receiving::Retrying { at, failure: failure.clone() },
        master: None,
        receive_lag: Some(Duration::from_secs(6)),
        ..source()
    };
    let of = |source: &SourceStatus, task: TaskStatus| {
        let mut ours = answer(&agent(vec![source.clone()], vec![task]), "t1", None, off);
        (ours.sub_task_status.remove(0), ours.source_status.unwrap().result)
    };
    let golden: pb::QueryStatusResponse = recorded(golden);
    for receiving in [lost.receiving.clone(), Receiving::Stopped { failure: failure.clone() }] {
        let (task, beside) = of(&SourceStatus { receiving, ..lost.clone() }, running_task());
        assert_eq!((task.stage(), &task.result), (pb::Stage::Paused, &golden.sub_task_status[0].result));
        let Some(pb::sub_task_status::Status::Sync(sync)) = task.status else { panic!() };
        assert!(sync.master_binlog.is_empty() && !sync.synced);
        assert_eq!(beside, None, "told once");
    }
    // What has something to apply runs, and what somebody paused is paused; then the source says it.
    let told = Some(pb::ProcessResult { errors: vec![process_error(&failure)], ..Default::default() });
    let (task, beside) = of(&lost, TaskStatus { backlog_bytes: Some(7), ..running_task() });
    assert_eq!((task.stage(), task.result, &beside), (pb::Stage::Running, None, &told));
    let (task, beside) = of(&lost, parked_task(ParkReason::Master));
    let canceled = Some(pb::ProcessResult { is_canceled: true, ..Default::default() });
    assert_eq!((task.stage(), task.result, &beside), (pb::Stage::Paused, canceled, &told));
    // A connection that breaks and comes back is no news, and neither is the first try.
    let moment = SourceStatus { receive_lag: Some(Duration::from_secs(2)), ..lost.clone() };
    assert_eq!(of(&moment, running_task()).0.stage(), pb::Stage::Running);
    let first = Failure::new(Code::StreamStart, CONNECTING);
    for receiving in
        [Receiving::Running, Receiving::Paused, Receiving::Idle, Receiving::Retrying { at, failure: first }]
    {
        let (task, beside) = of(&SourceStatus { receiving, ..lost.clone() }, running_task());
        assert_eq!((task.stage(), task.result, beside), (pb::Stage::Running, None, None));
    }
}

/// dmctl calls a relay log that is not Running an error, and a `start-relay` that finds an error has failed.
#[test]
fn a_relay_log_that_receives_nothing_is_paused_with_why() {
    let failure = Failure::new(Code::DriverError, "connect to dm@127.0.0.1:3306").cause("Connection refused");
    let at = std::time::SystemTime::now();
    let of = |receiving| {
        let agent = agent(vec![SourceStatus { receiving, ..source() }], vec![running_task()]);
        let relay = answer(&agent, "t1", None, |_| true).source_status.unwrap().relay_status.unwrap();
        (relay.stage(), relay.result.map(|result| (result.is_canceled, result.errors.len())))
    };
    let first = Failure::new(Code::StreamStart, CONNECTING);
    assert_eq!(of(Receiving::Running), (pb::Stage::Running, None));
    assert_eq!(of(Receiving::Retrying { at, failure: first }), (pb::Stage::Running, None));
    assert_eq!(of(Receiving::Retrying { at, failure: failure.clone() }), (pb::Stage::Paused, Some((false, 1))));
    assert_eq!(of(Receiving::Stopped { failure }), (pb::Stage::Paused, Some((false, 1))));
    assert_eq!(of(Receiving::Paused), (pb::Stage::Paused, Some((true, 0))));
}

/// Options without effect are named in the one text that dmctl prints and no master reads.
#[test]
fn notes_reach_the_users_of_a_master() {
    let noted = TaskStatus { notes: vec!["`batch` has no meaning here".into(), "two".into()], ..running_task() };
    let other = TaskStatus { name: "t2".into(), notes: vec!["three".into()], ..running_task() };
    let agent = agent(vec![source()], vec![noted, other]);
    let msg = |name: &str| answer(&agent, name, None, off).msg;
    assert_eq!(msg("t1"), "t1: `batch` has no meaning here; t1: two");
    assert_eq!(msg(""), "t1: `batch` has no meaning here; t1: two; t2: three");
    assert_eq!(msg("nope"), "");
}

#[test]
fn a_source_without_tasks_whatever_is_asked_for() {
    let agent = agent(vec![source()], vec![]);
    assert_recorded(golden!("rpc/status-01-source-no-task"), answer(&agent, "", None, off));
    assert_recorded(golden!("rpc/status-02-unknown-task"), answer(&agent, "nope", None, off));
    assert_recorded(golden!("rpc/status-15-stopped"), answer(&agent, "t1", None, off));
}

#[test]
fn an_unknown_name_beside_others() {
    let ours = answer(&agent(vec![source()], vec![running_task()]), "nope", None, off);
    assert_recorded(golden!("rpc/status-150-unknown-name-others-running"), ours);
}

#[test]
fn running_paused_and_with_a_relay_log() {
    let set = |last: u32| format!("9231c604-e680-11f1-ab28-628677c36cd1:1-{last}");
    let flushed = Checkpointed(at("mysql-bin.000001", 4529, &set(17)));
    let running =
        TaskStatus { flushed: Some(flushed), totals: Totals { rows: 4, ..Totals::default() }, ..running_task() };
    assert_recorded(golden!("rpc/status-10-running"), answer(&agent(vec![source()], vec![running]), "t1", None, off));

    let paused = parked_task(ParkReason::Master);
    let ours = answer(&agent(vec![source()], vec![paused]), "t1", None, off);
    assert_recorded(golden!("rpc/status-12-paused-user"), ours.clone());
    assert_recorded(golden!("rpc/status-13-paused-twice"), ours);

    let here = at("mysql-bin.000003", 898, &set(50));
    let mut source = source();
    source.master = Some(here.clone());
    // Recorded in position mode, where DM's relay log knows no GTIDs.
    source.relayed = Some(Relayed(at("mysql-bin.000003", 898, "")));
    let task = TaskStatus { flushed: Some(Checkpointed(here)), totals: Totals::default(), ..running_task() };
    let ours = answer(&agent(vec![source], vec![task]), "", None, |id| id == "mysql-01");
    assert_recorded(golden!("rpc/status-30-relay-on"), ours);
}

/// Compatibility test 6: a pause of a failed task keeps the errors and says that the user asked for it.
#[test]
fn failed_and_then_paused() {
    let golden = golden!("rpc/status-errored-then-paused");
    let failure = recorded_failure(golden);
    let recorded = recorded::<pb::QueryStatusResponse>(golden);
    let mut task = TaskStatus { failures: vec![failure], name: "te".into(), ..parked_task(ParkReason::Error) };
    let failed = answer(&agent(vec![source()], vec![task.clone()]), "te", None, off);
    assert!(!failed.sub_task_status[0].result.as_ref().unwrap().is_canceled);
    task.parks.insert(ParkReason::Master, task.parks[&ParkReason::Error].clone());
    let paused = answer(&agent(vec![source()], vec![task]), "te", None, off);
    assert_eq!(paused.sub_task_status[0].result, recorded.sub_task_status[0].result);
    assert_eq!(paused.sub_task_status[0].stage(), pb::Stage::Paused);
}

#[test]
fn a_park_the_master_did_not_ask_for_says_whose_it_is() {
    for (reason, words) in [
        (ParkReason::Operator, "parked on this machine by uid 1000 pid 1"),
        (ParkReason::Lease, "does not own the source"),
        (ParkReason::Disk, "is full"),
    ] {
        let ours = answer(&agent(vec![source()], vec![parked_task(reason)]), "t1", None, off);
        let result = ours.sub_task_status[0].result.clone().unwrap();
        assert!(!result.is_canceled && result.errors.len() == 1, "{result:?}");
        assert!(result.errors[0].message.contains(words), "{result:?}");
        assert!(!result.errors[0].workaround.is_empty());
    }
    let mut both = parked_task(ParkReason::Operator);
    both.parks.insert(ParkReason::Master, both.parks[&ParkReason::Operator].clone());
    let ours = answer(&agent(vec![source()], vec![both]), "t1", None, off);
    assert_eq!(ours.sub_task_status[0].result, Some(pb::ProcessResult { is_canceled: true, ..Default::default() }));
}

#[test]
fn long_texts_do_not_cost_a_master_the_answer() {
    let failure = Failure::new(Code::ExecuteFailed, "é".repeat(3 << 20));
    let task = TaskStatus { failures: vec![failure], ..parked_task(ParkReason::Error) };
    let ours = answer(&agent(vec![source()], vec![task]), "", None, off);
    assert!(ours.encoded_len() < 64 << 10);
    assert!(ours.sub_task_status[0].result.as_ref().unwrap().errors[0].message.ends_with("(shortened)"));
}

/// However many tasks fail, and with whatever: a master that gets nothing shows nothing.
#[test]
fn many_long_texts_do_not_either() {
    let failure = Failure::new(Code::ExecuteFailed, "x".repeat(20_000)).cause("y".repeat(20_000));
    let notes = vec!["n".repeat(20_000)];
    let task = |number: usize| TaskStatus {
        name: format!("t{number:04}"),
        failures: vec![failure.clone()],
        notes: notes.clone(),
        ..parked_task(ParkReason::Error)
    };
    let ours = answer(&agent(vec![source()], (0..2000).map(task).collect()), "", None, off);
    assert!(ours.encoded_len() < 4 << 20, "{}", ours.encoded_len());
    assert_eq!(ours.sub_task_status.len(), 2000);
    assert!(ours.sub_task_status.iter().all(|status| status.result.as_ref().unwrap().errors[0].message.len() > 200));
}

#[test]
fn the_other_methods_refuse_in_dms_words() {
    let agent = agent(vec![source()], vec![running_task()]);
    let check = |json: &str, ours: pb::CommonWorkerResponse| {
        assert_eq!(recorded::<pb::CommonWorkerResponse>(json), ours);
        assert_eq!(ours.encode_to_vec(), recorded_bytes(json));
    };
    let request = pb::OperateWorkerSchemaRequest { task: "t1".into(), source: "nosuch".into(), ..Default::default() };
    check(golden!("rpc/schema-get-wrongsource"), answers::bare(answers::schema_source(&agent, &request)));
    check(golden!("rpc/validator-update-none"), answers::bare(Err(answers::no_validator(&agent, "t1"))));
    let none = |of: &str| answers::no_validator(&agent, of).to_string();
    let errors: pb::GetValidationErrorResponse = recorded(golden!("rpc/validator-error-none"));
    assert_eq!((errors.result, errors.msg), (false, none("t1")));
    let operated: pb::OperateValidationErrorResponse = recorded(golden!("rpc/validator-operr-none"));
    assert_eq!((operated.result, operated.msg), (false, none("t1")));
    let json: serde_json::Value = serde_json::from_str(golden!("rpc/validator-status-none")).unwrap();
    assert_eq!(json["grpc_message"], answers::no_validator(&agent, "t1").to_string());
}

#[test]
fn only_a_file_name_can_be_purged_to() {
    let by_file = pb::PurgeRelayRequest { filename: "mysql-bin.000003".into(), ..Default::default() };
    assert_eq!(answers::purge_arguments(by_file.clone()).unwrap(), "mysql-bin.000003");
    for wrong in [
        pb::PurgeRelayRequest::default(),
        pb::PurgeRelayRequest { inactive: true, ..by_file.clone() },
        pb::PurgeRelayRequest { time: 1, ..by_file },
    ] {
        assert_eq!(answers::purge_arguments(wrong).unwrap_err().code, 30042);
    }
}
