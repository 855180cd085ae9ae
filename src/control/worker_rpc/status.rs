//! QueryStatus, as a master sees it.

use crate::control::pb_status::{parked_by_agent, process_error, source_response};
use crate::control::proto::pb;
use crate::error::{Code, Failure};
use crate::supervisor::{AgentStatus, CONNECTING, NOT_STARTED, Receiving, SourceStatus};
use crate::task::{Park, ParkReason, Stage, TaskStatus};

/// Longest text of a failure: a master takes 4 MiB for the whole answer.
const TEXT_LIMIT: usize = 16 * 1024;

/// The answer for one subtask, or for all with an empty name. `failure` is the source that could not be opened.
pub fn answer(
    agent: &AgentStatus,
    name: &str,
    failure: Option<(String, Failure)>,
    relay_shown: impl Fn(&str) -> bool,
) -> pb::QueryStatusResponse {
    let Some(source) = agent.sources.first() else { return no_source(agent, failure) };
    let shown = relay_shown(&source.source_id);
    let mut answer = source_response(agent, source, name, shown);
    if let Some(status) = &mut answer.source_status {
        status.result = source_failure(source).map(|failure| failed(false, std::slice::from_ref(failure)));
    }
    for status in &mut answer.sub_task_status {
        let task = agent.tasks.iter().find(|task| task.source_id == source.source_id && task.name == status.name);
        if let Some(task) = task {
            status.result = result(task);
            if is_not_started(task) {
                status.set_stage(pb::Stage::Stopped);
                status.result = None;
            }
        }
        if let Some(pb::sub_task_status::Status::Sync(sync)) = &mut status.status {
            // Everything is applied from the relay log; a master's users know of one only where they started it.
            sync.binlog_type = if shown { "local" } else { "remote" }.to_owned();
        }
    }
    answer
}

/// Why nothing comes from the source. Its tasks go on with what is here, so no subtask tells it, and the relay is shown
/// only where a master's users switched it on.
fn source_failure(source: &SourceStatus) -> Option<&Failure> {
    match &source.receiving {
        Receiving::Retrying { failure, .. } if failure.message != CONNECTING => Some(failure),
        Receiving::Stopped { failure } => Some(failure),
        Receiving::Retrying { .. } | Receiving::Running | Receiving::Paused | Receiving::Idle => None,
    }
}

fn no_source(agent: &AgentStatus, failure: Option<(String, Failure)>) -> pb::QueryStatusResponse {
    let (source, result) = match failure {
        Some((source, failure)) => (source, Some(failed(false, &[failure]))),
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
fn result(task: &TaskStatus) -> Option<pb::ProcessResult> {
    match task.stage {
        Stage::Paused | Stage::Stopped | Stage::Finished => {}
        Stage::New | Stage::Running | Stage::Pausing | Stage::Resuming | Stage::Stopping => return None,
    }
    if task.stage == Stage::Finished {
        return Some(failed(false, &[]));
    }
    let asked_for = task.parks.contains_key(&ParkReason::Master);
    let mut failures = task.failures.clone();
    if failures.is_empty() && !asked_for {
        failures.extend(task.parks.iter().filter_map(|(reason, park)| explain(*reason, park)));
    }
    Some(failed(asked_for, &failures))
}

/// Made by OpenAPI and waiting for its first start.
fn is_not_started(task: &TaskStatus) -> bool {
    let made = task.parks.get(&ParkReason::Master).is_some_and(|park| park.note == NOT_STARTED);
    made && task.stage == Stage::Paused && task.failures.is_empty()
}

fn explain(reason: ParkReason, park: &Park) -> Option<Failure> {
    if reason != ParkReason::Operator {
        return parked_by_agent(reason, park);
    }
    let failure = Failure::new(Code::NotSet, format!("parked on this machine by {}", park.by));
    let remedy = "Please run `dm-agentctl resume-task` there; a resume through dm-master does not lift it.";
    Some(failure.workaround(remedy))
}

fn failed(is_canceled: bool, failures: &[Failure]) -> pb::ProcessResult {
    let shorten = |failure: &Failure| {
        let mut error = process_error(failure);
        for text in [&mut error.message, &mut error.raw_cause] {
            if text.len() > TEXT_LIMIT {
                let end = (0..=TEXT_LIMIT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                text.truncate(end);
                text.push_str(" … (shortened)");
            }
        }
        error
    };
    pb::ProcessResult { is_canceled, errors: failures.iter().map(shorten).collect(), detail: Vec::new() }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod recorded;
#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
