//! The commands about tasks, with dmctl's two summary forms: of all tasks, and of an operation on all tasks of a
//! source.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::args::TaskChoice;
use super::connect::Session;
use super::error::CtlError;
use super::{Verdict, emit, json::go_pretty, read_file};
use crate::control::proto::pb;

/// What to do with tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// pause-task.
    Pause,
    /// resume-task.
    Resume,
    /// stop-task; the protocol calls it Delete.
    Stop,
}

impl Op {
    fn proto(self) -> pb::TaskOp {
        match self {
            Op::Pause => pb::TaskOp::Pause,
            Op::Resume => pb::TaskOp::Resume,
            Op::Stop => pb::TaskOp::Delete,
        }
    }
}

/// start-task.
pub async fn start(
    mut session: Session,
    file: &Path,
    sources: Vec<String>,
    remove_meta: bool,
    start_time: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let task = read_file(file)?;
    let request = pb::StartTaskRequest { task, sources, remove_meta, start_time };
    let answer = session.master.start_task(request).await?.into_inner();
    emit("pb.StartTaskResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// update-task.
pub async fn update(
    mut session: Session,
    file: &Path,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let request = pb::UpdateTaskRequest { task: read_file(file)?, sources };
    let answer = session.master.update_task(request).await?.into_inner();
    emit("pb.UpdateTaskResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// check-task.
pub async fn check(
    mut session: Session,
    file: &Path,
    err_cnt: i64,
    warn_cnt: i64,
    start_time: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let request = pb::CheckTaskRequest { task: read_file(file)?, err_cnt, warn_cnt, start_time };
    let answer = session.master.check_task(request).await?.into_inner();
    emit("pb.CheckTaskResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}

/// pause-task, resume-task, stop-task: of one task, or of all tasks of one source.
pub async fn operate(
    mut session: Session,
    op: Op,
    choice: TaskChoice,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let Some(task) = choice.task else {
        return operate_all(session, op, usize::from(choice.batch_size), sources, out).await;
    };
    let request = pb::OperateTaskRequest { op: op.proto().into(), name: task_name(&task)?, sources };
    let answer = session.master.operate_task(request).await?.into_inner();
    emit("pb.OperateTaskResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

async fn operate_all(
    mut session: Session,
    op: Op,
    batch: usize,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let query = pb::QueryStatusListRequest { name: String::new(), sources: sources.clone() };
    let status = session.master.query_status(query).await?.into_inner();
    if !status.result {
        out.write_all(go_pretty(&json!({"result": false, "msg": status.msg, "tasks": []})).as_bytes())?;
        return Ok(Verdict::Refused);
    }
    let names: Vec<String> = status.sources.iter().flat_map(|s| &s.sub_task_status).map(|t| t.name.clone()).collect();
    let mut answers: Vec<Option<pb::OperateTaskResponse>> = vec![None; names.len()];
    let numbered: Vec<(usize, &String)> = names.iter().enumerate().collect();
    for some in numbered.chunks(batch.max(1)) {
        let mut running = JoinSet::new();
        for (number, name) in some {
            let request =
                pb::OperateTaskRequest { op: op.proto().into(), name: (*name).clone(), sources: sources.clone() };
            let (mut master, number) = (session.master.clone(), *number);
            running.spawn(async move { (number, master.operate_task(request).await) });
        }
        while let Some(done) = running.join_next().await {
            let (number, answer) = done.map_err(|error| CtlError::Unreachable(error.to_string()))?;
            if let Some(place) = answers.get_mut(number) {
                *place = Some(answer?.into_inner());
            }
        }
    }
    let done: Vec<(&String, pb::OperateTaskResponse)> =
        names.iter().zip(answers).filter_map(|(n, a)| Some((n, a?))).collect();
    let refused = done.iter().any(|(_, a)| Verdict::of(a.result, &a.sources) == Verdict::Refused);
    let tasks: Vec<Value> = done.iter().map(|(name, answer)| listed(name, answer)).collect();
    out.write_all(go_pretty(&json!({"result": true, "msg": "", "tasks": tasks})).as_bytes())?;
    Ok(if refused { Verdict::Refused } else { Verdict::Done })
}

/// One task in the list form, where a source's empty fields are left out.
fn listed(name: &str, answer: &pb::OperateTaskResponse) -> Value {
    #[derive(Serialize)]
    struct Source<'a> {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        result: bool,
        #[serde(skip_serializing_if = "str::is_empty")]
        msg: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        source: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        worker: &'a str,
    }
    let sources: Vec<Source<'_>> = answer
        .sources
        .iter()
        .map(|s| Source { result: s.result, msg: &s.msg, source: &s.source, worker: &s.worker })
        .collect();
    json!({
        "task": name,
        "op": answer.op().as_str_name(),
        "result": answer.result,
        "msg": answer.msg,
        "sources": sources,
    })
}

/// query-status.
pub async fn query(
    mut session: Session,
    task: Option<String>,
    more: bool,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let name = task.as_deref().map(task_name).transpose()?.unwrap_or_default();
    let in_short = name.is_empty() && sources.is_empty() && !more;
    let request = pb::QueryStatusListRequest { name, sources };
    let answer = session.master.query_status(request).await?.into_inner();
    if in_short && answer.result {
        out.write_all(go_pretty(&summary(&answer)).as_bytes())?;
    } else {
        emit("pb.QueryStatusListResponse", &answer, out)?;
    }
    let failed = answer.sources.iter().any(|source| !source.result);
    Ok(if answer.result && !failed { Verdict::Done } else { Verdict::Refused })
}

/// One line a task, as dmctl makes it of the full answer.
fn summary(answer: &pb::QueryStatusListResponse) -> Value {
    let mut tasks: Vec<(&str, Vec<&str>, String)> = Vec::new();
    for response in &answer.sources {
        let source = response.source_status.as_ref();
        let id = source.map_or("", |s| s.source.as_str());
        let relay = source.and_then(|s| s.relay_status.as_ref());
        for subtask in &response.sub_task_status {
            let word = word_of(subtask, relay);
            match tasks.iter_mut().find(|(name, _, _)| *name == subtask.name) {
                Some((_, sources, state)) => {
                    sources.push(id);
                    *state = joined(state, &word);
                }
                None => tasks.push((&subtask.name, vec![id], word)),
            }
        }
    }
    let tasks: Vec<Value> = tasks
        .into_iter()
        .map(|(name, sources, state)| {
            let hint = format!(". Please run `query-status {name}` to get more details.");
            let status = if state.starts_with(ERROR) { state + &hint } else { state };
            json!({"taskName": name, "taskStatus": status, "sources": sources})
        })
        .collect();
    json!({"result": answer.result, "msg": answer.msg, "tasks": tasks})
}

/// How every state that needs a look begins.
const ERROR: &str = "Error - ";

/// The state of one subtask.
fn word_of(subtask: &pb::SubTaskStatus, relay: Option<&pb::RelayStatus>) -> String {
    let failed = subtask.result.as_ref().is_some_and(|result| !result.errors.is_empty());
    match subtask.stage() {
        pb::Stage::Paused if failed => format!("{ERROR}Some error occurred in subtask"),
        pb::Stage::Running if subtask.unit() == pb::UnitType::Sync => match relay.map(pb::RelayStatus::stage) {
            Some(stage @ (pb::Stage::Paused | pb::Stage::Stopped)) => {
                format!("{ERROR}Relay status is {}", stage.as_str_name())
            }
            _ => pb::Stage::Running.as_str_name().to_owned(),
        },
        stage => stage.as_str_name().to_owned(),
    }
}

/// Of several subtasks: an error first, then equal states, then a pause, and Running for every other mixture.
fn joined(a: &str, b: &str) -> String {
    if a == b || a.starts_with(ERROR) {
        return a.to_owned();
    }
    if b.starts_with(ERROR) {
        return b.to_owned();
    }
    let paused = pb::Stage::Paused.as_str_name();
    if a == paused || b == paused { paused.to_owned() } else { pb::Stage::Running.as_str_name().to_owned() }
}

/// A task by name, or by the file that describes it.
pub fn task_name(given: &str) -> Result<String, CtlError> {
    #[derive(Deserialize)]
    struct TaskFile {
        name: String,
    }
    let path = Path::new(given);
    if !path.is_file() {
        return Ok(given.to_owned());
    }
    let wrong = |error: serde_norway::Error| CtlError::Usage(format!("read the task's name in {given}: {error}"));
    Ok(serde_norway::from_str::<TaskFile>(&read_file(path)?).map_err(wrong)?.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::descriptor;
    use prost_reflect::DynamicMessage;

    fn golden(name: &str) -> String {
        let text =
            std::fs::read_to_string(format!("{}/tests/golden/dmctl/{name}.txt", env!("CARGO_MANIFEST_DIR"))).unwrap();
        text[text.find("\n{\n").unwrap() + 1..text.rfind("\n}\n").unwrap() + 3].to_owned()
    }

    fn full(names: &[&str]) -> pb::QueryStatusListResponse {
        let mut sources = Vec::new();
        for name in names {
            let json: Value = serde_json::from_str(&golden(name)).unwrap();
            let message = DynamicMessage::deserialize(descriptor("pb.QueryStatusListResponse").unwrap(), json).unwrap();
            sources.extend(message.transcode_to::<pb::QueryStatusListResponse>().unwrap().sources);
        }
        pb::QueryStatusListResponse { result: true, msg: String::new(), sources }
    }

    #[test]
    fn the_summary_of_an_answer_is_the_one_recorded_beside_it() {
        for (summarised, of) in [
            ("query-status-01-source-no-task", &["query-status-04-s"][..]),
            ("query-status-10-list-running", &["query-status-11-task-running"]),
            ("query-status-15-list-paused", &["query-status-16-task-paused"]),
            ("query-status-err-list", &["query-status-err-dup", "query-status-60-gtid"]),
            ("query-status-32-relay-paused-list", &["query-status-31-relay-paused", "query-status-60-gtid"]),
        ] {
            assert_eq!(go_pretty(&summary(&full(of))), golden(summarised), "{summarised}");
        }
    }

    #[test]
    fn mixtures_follow_dmctl() {
        assert_eq!(joined("Running", "Paused"), "Paused");
        assert_eq!(joined("Running", "Pausing"), "Running");
        assert_eq!(joined("Finished", "Finished"), "Finished");
        assert_eq!(joined("Paused", "Error - x"), "Error - x");
        assert_eq!(joined("Error - x", "Paused"), "Error - x");
    }

    #[test]
    fn the_list_form_leaves_empty_fields_out() {
        let source = |result, msg: &str| pb::CommonWorkerResponse {
            result,
            msg: msg.to_owned(),
            source: "mysql-01".to_owned(),
            worker: "worker1".to_owned(),
        };
        let answer = |sources| pb::OperateTaskResponse {
            op: pb::TaskOp::Pause.into(),
            result: true,
            sources,
            ..Default::default()
        };
        let list = json!({"result": true, "msg": "", "tasks": [listed("t1", &answer(vec![source(true, "")]))]});
        assert_eq!(go_pretty(&list), golden("pause-task-s"));
        let failed = listed("t1", &answer(vec![source(false, "no")]));
        assert_eq!(failed["sources"][0].get("result"), None);
        assert_eq!(failed["sources"][0]["msg"], "no");
    }

    #[test]
    fn a_task_may_be_named_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.yaml");
        std::fs::write(&path, "name: t7\ntask-mode: incremental\n").unwrap();
        assert_eq!(task_name(path.to_str().unwrap()).unwrap(), "t7");
        assert_eq!(task_name("t1").unwrap(), "t1");
        std::fs::write(&path, "task-mode: incremental\n").unwrap();
        assert!(matches!(task_name(path.to_str().unwrap()), Err(CtlError::Usage(_))));
    }
}
