//! The agent's status in DM's words: `AgentStatus` to the messages of `QueryStatus`.
//!
//! Pure functions. Every text and every rule about which field is present follows the recorded answers in
//! `tests/golden`; what the agent knows beyond them is shown by its own service.

use crate::control::proto::pb;
use crate::error::{Code, Failure};
use crate::model::Location;
use crate::supervisor::{AgentStatus, EventOp, Receiving, SchemaOp, SourceStatus, Structure};
use crate::task::{Park, ParkReason, Stage, TaskStatus, Unit};

/// What DM says about a subtask name it does not know. Masters compare this text byte for byte.
pub fn unknown_subtask(name: &str) -> String {
    format!("no sub task with name {name} has started")
}

/// The answer of `pb.Worker/QueryStatus` for one source: all of its subtasks, or the one called `task` when that is
/// not empty. `relay_shown` says whether the relay counts as enabled for whoever asks.
pub fn source_response(
    agent: &AgentStatus,
    source: &SourceStatus,
    task: &str,
    relay_shown: bool,
) -> pb::QueryStatusResponse {
    let mut subtasks: Vec<&TaskStatus> = agent.tasks.iter().filter(|t| t.source_id == source.source_id).collect();
    subtasks.sort_by(|a, b| a.name.cmp(&b.name));
    let (msg, sub_task_status) = if subtasks.is_empty() {
        ("no sub task started".to_owned(), Vec::new())
    } else if task.is_empty() {
        (String::new(), subtasks.iter().map(|t| subtask(t, source)).collect())
    } else {
        let status = subtasks.iter().find(|t| t.name == task).map(|t| subtask(t, source));
        (String::new(), vec![status.unwrap_or_else(|| missing_subtask(task))])
    };
    pb::QueryStatusResponse {
        result: true,
        msg,
        source_status: Some(pb::SourceStatus {
            source: source.source_id.clone(),
            worker: agent.worker.clone(),
            result: None,
            relay_status: relay_shown.then(|| relay_status(source)),
        }),
        sub_task_status,
    }
}

/// Whether a standalone agent shows a relay for this source: always, except while nothing is received at all.
pub fn relay_in_use(source: &SourceStatus) -> bool {
    source.receiving != Receiving::Idle
}

/// The relay of a source. A reader that waits for its next try is Running with the failure beside it, so that both the
/// stage and the reason can be seen.
pub fn relay_status(source: &SourceStatus) -> pb::RelayStatus {
    let (stage, result) = match &source.receiving {
        Receiving::Running => (pb::Stage::Running, None),
        Receiving::Retrying { failure, .. } => (pb::Stage::Running, Some(failed(std::slice::from_ref(failure)))),
        Receiving::Stopped { failure } => (pb::Stage::Paused, Some(failed(std::slice::from_ref(failure)))),
        Receiving::Paused => (pb::Stage::Paused, Some(canceled())),
        Receiving::Idle => (pb::Stage::Stopped, None),
    };
    let relayed = source.relayed.as_ref().map(|l| &l.0);
    pb::RelayStatus {
        master_binlog: position(source.master.as_ref()),
        master_binlog_gtid: gtids(source.master.as_ref()),
        relay_sub_dir: relay_sub_dir(source),
        relay_binlog: position(relayed),
        relay_binlog_gtid: gtids(relayed),
        relay_catch_up_master: caught_up(source.master.as_ref(), relayed),
        stage: stage.into(),
        result,
    }
}

/// `<server uuid>.000001`; empty before the first contact. The agent keeps one relay log a source, so the suffix never
/// grows.
pub fn relay_sub_dir(source: &SourceStatus) -> String {
    if source.server_identity.is_empty() { String::new() } else { format!("{}.000001", source.server_identity) }
}

fn missing_subtask(name: &str) -> pb::SubTaskStatus {
    pb::SubTaskStatus {
        name: name.to_owned(),
        status: Some(pb::sub_task_status::Status::Msg(unknown_subtask(name))),
        ..Default::default()
    }
}

fn subtask(task: &TaskStatus, source: &SourceStatus) -> pb::SubTaskStatus {
    pb::SubTaskStatus {
        name: task.name.clone(),
        stage: task.stage as i32,
        unit: match task.unit {
            Unit::Dump => pb::UnitType::Dump,
            Unit::Load => pb::UnitType::Load,
            Unit::Sync => pb::UnitType::Sync,
        }
        .into(),
        result: subtask_result(task),
        unresolved_ddl_lock_id: String::new(),
        validation: None,
        status: Some(match task.unit {
            Unit::Dump => pb::sub_task_status::Status::Dump(dump_status(task)),
            Unit::Load => pb::sub_task_status::Status::Load(load_status(task)),
            Unit::Sync => pb::sub_task_status::Status::Sync(sync_status(task, source)),
        }),
    }
}

/// What is known before rows are copied: structures are read and made, no rows.
fn dump_status(task: &TaskStatus) -> pb::DumpStatus {
    let copy = task.copy.clone().unwrap_or_default();
    let (made, to_make) = copy.made;
    pb::DumpStatus {
        total_tables: i64::try_from(copy.tables.max(to_make)).unwrap_or(i64::MAX),
        completed_tables: made as f64,
        finished_bytes: 0.0,
        finished_rows: 0.0,
        estimate_total_rows: copy.rows as f64,
        bps: 0,
        progress: percent(made as f64 / to_make.max(1) as f64),
    }
}

fn load_status(task: &TaskStatus) -> pb::LoadStatus {
    let copy = task.copy.clone().unwrap_or_default();
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let from = copy.from.as_ref();
    let fraction = if task.stage == Stage::Finished { 1.0 } else { copy.fraction() };
    pb::LoadStatus {
        finished_bytes: number(copy.bytes_written),
        // An estimate that was passed is no total.
        total_bytes: number(if fraction < 1.0 { copy.bytes.max(copy.bytes_written) } else { copy.bytes_written }),
        progress: percent(fraction),
        meta_binlog: from.map_or_else(String::new, |from| format!("({}, {})", from.file, from.offset)),
        meta_binlog_gtid: from.map_or_else(String::new, |from| from.gtids.clone()),
        bps: whole(copy.bytes_per_second),
    }
}

/// `12.34 %`.
fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

/// Absent while it runs or is on its way; `isCanceled` where somebody asked for the pause, with the failures beside it.
fn subtask_result(task: &TaskStatus) -> Option<pb::ProcessResult> {
    match task.stage {
        Stage::Paused | Stage::Stopped | Stage::Finished => {}
        Stage::New | Stage::Running | Stage::Pausing | Stage::Resuming | Stage::Stopping => return None,
    }
    let asked_for = task.parks.keys().any(|r| matches!(r, ParkReason::Operator | ParkReason::Master));
    if !task.failures.is_empty() {
        return Some(pb::ProcessResult { is_canceled: asked_for, ..failed(&task.failures) });
    }
    if task.stage == Stage::Finished {
        return Some(pb::ProcessResult::default());
    }
    let others: Vec<Failure> = task.parks.iter().filter_map(|(reason, park)| parked_by_agent(*reason, park)).collect();
    if asked_for || others.is_empty() { Some(canceled()) } else { Some(failed(&others)) }
}

/// What is asked for an event; `None` for a number that means nothing.
pub fn event_op(op: pb::ErrorOp) -> Option<EventOp> {
    match op {
        pb::ErrorOp::InvalidErrorOp => None,
        pb::ErrorOp::Skip => Some(EventOp::Skip),
        pb::ErrorOp::Replace => Some(EventOp::Replace),
        pb::ErrorOp::Revert => Some(EventOp::Revert),
        pb::ErrorOp::Inject => Some(EventOp::Inject),
        pb::ErrorOp::List => Some(EventOp::List),
    }
}

/// What binlog-schema is asked for; `None` for an operation of no name.
pub fn schema_op(op: pb::SchemaOp, text: String, from_source: bool, from_target: bool) -> Option<SchemaOp> {
    match op {
        pb::SchemaOp::InvalidSchemaOp => None,
        pb::SchemaOp::GetSchema => Some(SchemaOp::Show),
        pb::SchemaOp::SetSchema => Some(SchemaOp::Declare(match (from_source, from_target) {
            (true, _) => Structure::OfSource,
            (false, true) => Structure::OfTarget,
            (false, false) => Structure::Text(text),
        })),
        pb::SchemaOp::RemoveSchema => Some(SchemaOp::Withdraw),
        pb::SchemaOp::ListSchema => Some(SchemaOp::Databases),
        pb::SchemaOp::ListTable => Some(SchemaOp::Tables),
        pb::SchemaOp::ListMigrateTargets => Some(SchemaOp::Targets),
    }
}

/// A park that nobody asked for and that no failure explains must not look like a user's pause.
pub fn parked_by_agent(reason: ParkReason, park: &Park) -> Option<Failure> {
    let (message, remedy) = match reason {
        ParkReason::Lease => (
            "the agent does not own the source now, applying is fenced off",
            "It goes on by itself when the master gives the source back to this worker.",
        ),
        ParkReason::Disk => {
            ("the disk under the state directory is full", "Free space there; the task goes on by itself then.")
        }
        ParkReason::Operator | ParkReason::Master | ParkReason::Error => return None,
    };
    Some(Failure::new(Code::NotSet, message).cause(park.note.clone()).workaround(remedy))
}

fn sync_status(task: &TaskStatus, source: &SourceStatus) -> pb::SyncStatus {
    let flushed = task.flushed.as_ref().map(|l| &l.0);
    // DM counts what filters leave out, too.
    let seen = task.totals.rows.saturating_add(task.totals.filtered_rows);
    let rows = i64::try_from(seen).unwrap_or(i64::MAX);
    let rate = whole(task.rows_per_second);
    let since = task.started.elapsed().map_or(0.0, |since| since.as_secs_f64());
    // DM's: rows since the start by seconds since the start, of which it counts whole ones.
    let total_rate = if since < 1.0 { rate } else { whole(seen as f64 / since) };
    pb::SyncStatus {
        total_events: rows,
        total_tps: total_rate,
        recent_tps: rate,
        master_binlog: position(source.master.as_ref()),
        master_binlog_gtid: gtids(source.master.as_ref()),
        syncer_binlog: position(flushed),
        syncer_binlog_gtid: gtids(flushed),
        synced: same_place(source.master.as_ref(), flushed),
        binlog_type: "local".to_owned(),
        seconds_behind_master: task.lag.map_or(0, |lag| i64::try_from(lag.as_secs()).unwrap_or(i64::MAX)),
        total_rows: rows,
        total_rps: total_rate,
        recent_rps: rate,
        io_total_bytes: task.totals.sent_bytes,
        dump_io_total_bytes: source.relay.received_bytes,
        ..Default::default()
    }
}

/// A rate as DM prints it. A float that does not fit saturates, and a NaN is 0: `as` does both.
fn whole(rate: f64) -> i64 {
    rate.round().max(0.0) as i64
}

/// Equal GTID sets where both sides have them, else equal file and offset. Nothing known is never equal.
fn same_place(a: Option<&Location>, b: Option<&Location>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if !a.gtids.is_empty() && !b.gtids.is_empty() => a.gtids == b.gtids,
        (Some(a), Some(b)) => a.position == b.position,
        _ => false,
    }
}

/// Equal GTID sets, or equal file and offset: either says that nothing is left to receive.
fn caught_up(master: Option<&Location>, relayed: Option<&Location>) -> bool {
    let same_position = matches!((master, relayed), (Some(a), Some(b)) if a.position == b.position);
    same_position || same_place(master, relayed)
}

fn position(location: Option<&Location>) -> String {
    location.map_or_else(String::new, |l| l.position.to_string())
}

fn gtids(location: Option<&Location>) -> String {
    location.map_or_else(String::new, |l| l.gtids.to_string())
}

fn canceled() -> pb::ProcessResult {
    pb::ProcessResult { is_canceled: true, ..Default::default() }
}

fn failed(failures: &[Failure]) -> pb::ProcessResult {
    pb::ProcessResult { errors: failures.iter().map(process_error).collect(), ..Default::default() }
}

/// A failure field by field.
pub fn process_error(failure: &Failure) -> pb::ProcessError {
    pb::ProcessError {
        err_code: failure.code,
        err_class: failure.class.clone(),
        err_scope: failure.scope.clone(),
        err_level: failure.level.clone(),
        message: failure.message.clone(),
        raw_cause: failure.raw_cause.clone(),
        workaround: failure.workaround.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
