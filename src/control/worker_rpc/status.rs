//! QueryStatus, as a master sees it.
//!
//! Two things are told otherwise than the agent sees them itself. A task that has applied everything received, of a source
//! that cannot be reached, runs on here and waits; a master is told that it is Paused with the source's failure, as of a
//! dm-worker, because its users look at nothing else. And what of a task's settings has no effect stands in `msg`, the one
//! text of the answer that dmctl prints and no master reads.

use std::time::Duration;

use prost::Message;

use super::answers::ANSWER_LIMIT;
use crate::control::pb_status::{parked_by_agent, process_error, source_response};
use crate::control::proto::pb;
use crate::error::{Code, Failure};
use crate::supervisor::{AgentStatus, CONNECTING, Receiving, SourceStatus};
use crate::task::{Park, ParkReason, Stage, TaskStatus, Unit};

/// Longest text of a failure, and how short it gets where there are so many that the answer would not fit.
const TEXT_LIMITS: [usize; 4] = [16 * 1024, 2 * 1024, 256, 32];
/// How long a source must have been silent before its tasks count as held up: a connection that is cut and comes back in
/// no time is no news.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer for one subtask, or for all with an empty name. `failure` is the source that could not be opened.
pub fn answer(
    agent: &AgentStatus,
    name: &str,
    failure: Option<(String, Failure)>,
    relay_shown: impl Fn(&str) -> bool,
) -> pb::QueryStatusResponse {
    let Some(source) = agent.sources.first() else { return no_source(agent, failure) };
    let shown = relay_shown(&source.source_id);
    let mut answer = pb::QueryStatusResponse::default();
    for limit in TEXT_LIMITS {
        answer = answer_within(limit, agent, source, name, shown);
        if answer.encoded_len() <= ANSWER_LIMIT {
            break;
        }
    }
    answer
}

fn answer_within(
    limit: usize,
    agent: &AgentStatus,
    source: &SourceStatus,
    name: &str,
    relay_shown: bool,
) -> pb::QueryStatusResponse {
    let mut answer = source_response(agent, source, name, relay_shown);
    let failure = source_failure(source);
    let mut told = false;
    let mut notes = Vec::new();
    for status in &mut answer.sub_task_status {
        let task = agent.tasks.iter().find(|task| task.source_id == source.source_id && task.name == status.name);
        if let Some(task) = task {
            status.result = result(task, limit);
            if let Some(failure) = failure.filter(|_| is_held_up(task, source)) {
                status.stage = pb::Stage::Paused.into();
                status.result = Some(failed(false, std::slice::from_ref(failure), limit));
                told = true;
            }
            notes.extend(task.notes.iter().map(|note| format!("{}: {note}", task.name)));
        }
        if let Some(pb::sub_task_status::Status::Sync(sync)) = &mut status.status {
            // Everything is applied from the relay log; a master's users know of one only where they started it.
            sync.binlog_type = if relay_shown { "local" } else { "remote" }.to_owned();
        }
    }
    if !notes.is_empty() {
        answer.msg = notes.join("; ");
        shorten(&mut answer.msg, limit);
    }
    if let Some(status) = &mut answer.source_status {
        status.result = failure.filter(|_| !told).map(|failure| failed(false, std::slice::from_ref(failure), limit));
        if let Some(relay) = &mut status.relay_status {
            tell_relay(relay, failure, limit);
        }
    }
    answer
}

/// What of the master's wishes makes no sense to this worker: its users see it where they look for the task.
pub fn add_problem(answer: &mut pb::QueryStatusResponse, problem: &str) {
    if problem.is_empty() {
        return;
    }
    if !answer.msg.is_empty() {
        answer.msg.push_str("; ");
    }
    let mut problem = problem.to_owned();
    shorten(&mut problem, TEXT_LIMITS[0]);
    answer.msg.push_str(&problem);
}

/// Why nothing comes from the source.
fn source_failure(source: &SourceStatus) -> Option<&Failure> {
    match &source.receiving {
        Receiving::Retrying { failure, .. } if failure.message != CONNECTING => Some(failure),
        Receiving::Stopped { failure } => Some(failure),
        Receiving::Retrying { .. } | Receiving::Running | Receiving::Paused | Receiving::Idle => None,
    }
}

/// A task's stage as a master is told it, for the metrics that its users' boards show beside it.
pub fn shown_stage(agent: &AgentStatus, task: &TaskStatus) -> Stage {
    let source = agent.sources.iter().find(|source| source.source_id == task.source_id);
    let held_up = source.is_some_and(|source| source_failure(source).is_some() && is_held_up(task, source));
    if agent.in_cluster && held_up { Stage::Paused } else { task.stage }
}

/// Whether a task has nothing left to apply, and its source has been silent for a while.
fn is_held_up(task: &TaskStatus, source: &SourceStatus) -> bool {
    // Of a source that was never heard the time counts from the task's start.
    let silent = source.receive_lag.unwrap_or_else(|| task.started.elapsed().unwrap_or_default());
    task.stage == Stage::Running
        && task.unit == Unit::Sync
        && task.backlog_bytes.is_none_or(|bytes| bytes == 0)
        && silent >= PATIENCE
}

/// A relay log that is on and receives nothing is a dm-worker's Paused with the failure; the first try is no failure yet.
fn tell_relay(relay: &mut pb::RelayStatus, failure: Option<&Failure>, limit: usize) {
    if relay.stage() == pb::Stage::Running {
        relay.result = failure.map(|failure| failed(false, std::slice::from_ref(failure), limit));
        if failure.is_some() {
            relay.stage = pb::Stage::Paused.into();
        }
    }
}

fn no_source(agent: &AgentStatus, failure: Option<(String, Failure)>) -> pb::QueryStatusResponse {
    let (source, result) = match failure {
        Some((source, failure)) => (source, Some(failed(false, &[failure], TEXT_LIMITS[0]))),
        None => (String::new(), None),
    };
    let status = pb::SourceStatus { source, worker: agent.worker.clone(), result, relay_status: None };
    pb::QueryStatusResponse {
        result: false,
        msg: super::answers::not_started().to_string(),
        source_status: Some(status),
        sub_task_status: Vec::new(),
    }
}

/// `isCanceled` says that the master's users asked for the pause. What parks it besides is told as an error, so that
/// whoever resumes it learns at once why it does not run.
fn result(task: &TaskStatus, limit: usize) -> Option<pb::ProcessResult> {
    match task.stage {
        Stage::Paused | Stage::Stopped | Stage::Finished => {}
        Stage::New | Stage::Running | Stage::Pausing | Stage::Resuming | Stage::Stopping => return None,
    }
    if task.stage == Stage::Finished {
        return Some(failed(false, &[], limit));
    }
    let asked_for = task.parks.contains_key(&ParkReason::Master);
    let mut failures = task.failures.clone();
    if failures.is_empty() && !asked_for {
        failures.extend(task.parks.iter().filter_map(|(reason, park)| explain(*reason, park)));
    }
    Some(failed(asked_for, &failures, limit))
}

fn explain(reason: ParkReason, park: &Park) -> Option<Failure> {
    if reason != ParkReason::Operator {
        return parked_by_agent(reason, park);
    }
    let failure = Failure::new(Code::NotSet, format!("parked on this machine by {}", park.by));
    let remedy = "Please run `dm-agentctl resume-task` there; a resume through dm-master does not lift it.";
    Some(failure.workaround(remedy))
}

fn failed(is_canceled: bool, failures: &[Failure], limit: usize) -> pb::ProcessResult {
    let told = |failure: &Failure| {
        let mut error = process_error(failure);
        for text in [&mut error.message, &mut error.raw_cause, &mut error.workaround] {
            shorten(text, limit);
        }
        error
    };
    pb::ProcessResult { is_canceled, errors: failures.iter().map(told).collect(), detail: Vec::new() }
}

fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push_str(" … (shortened)");
    }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod recorded;
#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
