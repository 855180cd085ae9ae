//! The commands about tasks: start, check, pause, resume, stop, query-status.

use super::text::{check_start_time, worker_error};
use super::{COMMAND_LIMIT, MasterApi, PREFLIGHT_LIMIT, bounded, refused, source_answer, unless_loading};
use crate::control::pb_status::{event_op, relay_in_use, schema_op, source_response};
use crate::control::proto::pb;
use crate::error::Failure;
use crate::supervisor::{
    Actor, AgentStatus, EventOrder, OperateTask, SchemaOrder, SourceResult, StartTask, TaskOp, still_loading,
    worth_an_answer,
};
use crate::task::Stage;

impl MasterApi {
    /// start-task.
    pub async fn start_task(&self, request: pb::StartTaskRequest, actor: Actor) -> pb::StartTaskResponse {
        if !request.start_time.is_empty()
            && let Err(msg) = check_start_time(&request.start_time)
        {
            return pb::StartTaskResponse { msg, ..Default::default() };
        }
        let pb::StartTaskRequest { task: yaml, sources, remove_meta, start_time } = request;
        let name = task_name(&yaml);
        let start = StartTask { yaml, sources, remove_meta, start_time };
        match bounded(PREFLIGHT_LIMIT, self.backend.start_task(start, actor)).await {
            Ok(results) => pb::StartTaskResponse {
                result: true,
                sources: results.iter().map(source_answer).collect(),
                // Where DM tells what its check before the start found.
                check_result: notes(&self.backend.status(), &name),
                ..Default::default()
            },
            Err(failure) => pb::StartTaskResponse { msg: failure.to_string(), ..Default::default() },
        }
    }

    /// update-task: a new login for the downstream.
    pub async fn update_task(&self, request: pb::UpdateTaskRequest, actor: Actor) -> pb::UpdateTaskResponse {
        let update = self.backend.update_task(request.task, request.sources, actor);
        match bounded(PREFLIGHT_LIMIT, update).await {
            Ok(results) => pb::UpdateTaskResponse {
                result: true,
                sources: results.iter().map(source_answer).collect(),
                ..Default::default()
            },
            Err(failure) => pb::UpdateTaskResponse { msg: failure.to_string(), ..Default::default() },
        }
    }

    /// check-task.
    pub async fn check_task(&self, request: pb::CheckTaskRequest) -> pb::CheckTaskResponse {
        if !request.start_time.is_empty()
            && let Err(msg) = check_start_time(&request.start_time)
        {
            return pb::CheckTaskResponse { result: false, msg };
        }
        match bounded(PREFLIGHT_LIMIT, self.backend.check_task(request.task, request.start_time)).await {
            Ok(msg) => pb::CheckTaskResponse { result: true, msg },
            Err(failure) => pb::CheckTaskResponse { result: false, msg: failure.to_string() },
        }
    }

    /// pause-task, resume-task, stop-task. The answer's `op` is the one asked for.
    pub async fn operate_task(&self, request: pb::OperateTaskRequest, actor: Actor) -> pb::OperateTaskResponse {
        let answer =
            |result: bool, msg: String, sources| pb::OperateTaskResponse { op: request.op, result, msg, sources };
        let op = match request.op() {
            pb::TaskOp::Pause => TaskOp::Pause,
            pb::TaskOp::Resume => TaskOp::Resume,
            pb::TaskOp::Delete | pb::TaskOp::Stop => TaskOp::Stop,
            other => return answer(false, format!("invalid operate {} on task", other.as_str_name()), Vec::new()),
        };
        if let Err(msg) = known_subtasks(&self.backend.status(), &request.name, &request.sources) {
            return answer(false, msg, Vec::new());
        }
        let operate = OperateTask { op, name: request.name.clone(), sources: request.sources.clone() };
        match bounded(COMMAND_LIMIT, self.backend.operate_task(operate, actor)).await {
            Ok(results) => {
                let status = self.backend.status();
                let sources = results.iter().map(|result| operated(result, &status, &request.name, op)).collect();
                answer(true, String::new(), sources)
            }
            Err(failure) => {
                let (result, msg) = refused(&failure);
                answer(result, msg, Vec::new())
            }
        }
    }

    /// binlog skip, replace, revert, inject, list; on each of the task's sources.
    pub async fn handle_error(&self, request: pb::HandleErrorRequest, actor: Actor) -> pb::HandleErrorResponse {
        let refuse = |msg: String| pb::HandleErrorResponse { msg, ..Default::default() };
        let Some(op) = event_op(request.op()) else { return refuse("invalid operation".to_owned()) };
        let status = self.backend.status();
        let mut sources = request.sources;
        if sources.is_empty() {
            let of_task = status.tasks.iter().filter(|task| task.name == request.task);
            sources.extend(of_task.map(|task| task.source_id.clone()));
        }
        if sources.is_empty() {
            let task = request.task;
            let none = format!("task {task} has no source or not exist, please check the task name and status");
            return refuse(unless_loading(&status, none));
        }
        let mut answers = Vec::new();
        for source in sources {
            if !status.sources.iter().any(|known| known.source_id == source) {
                answers.push(not_handled(&status, source));
                continue;
            }
            let order = EventOrder {
                op,
                task: request.task.clone(),
                place: request.binlog_pos.clone(),
                statements: request.sqls.clone(),
            };
            let answer = match self.backend.order_event(source.clone(), order, actor.clone()).await {
                Ok(msg) => pb::CommonWorkerResponse { result: true, msg, source, worker: status.worker.clone() },
                Err(refusal) => pb::CommonWorkerResponse { msg: refusal.to_string(), source, ..Default::default() },
            };
            answers.push(answer);
        }
        pb::HandleErrorResponse { result: true, msg: String::new(), sources: answers }
    }

    /// binlog-schema list, update, delete; on each of the sources named.
    pub async fn operate_schema(&self, request: pb::OperateSchemaRequest, actor: Actor) -> pb::OperateSchemaResponse {
        let refuse = |msg: &str| pb::OperateSchemaResponse { msg: msg.to_owned(), ..Default::default() };
        let op = schema_op(request.op(), request.schema, request.from_source, request.from_target);
        let Some(op) = op else { return refuse("invalid operation") };
        if request.sources.is_empty() {
            return refuse("must specify at least one source");
        }
        let status = self.backend.status();
        let mut answers = Vec::new();
        for source in request.sources {
            if !status.sources.iter().any(|known| known.source_id == source) {
                answers.push(not_handled(&status, source));
                continue;
            }
            let (task, database, table) = (request.task.clone(), request.database.clone(), request.table.clone());
            let order = SchemaOrder { op: op.clone(), task, database, table };
            let ordered = bounded(COMMAND_LIMIT, self.backend.order_schema(source.clone(), order, actor.clone())).await;
            answers.push(match ordered {
                Ok(msg) => pb::CommonWorkerResponse { result: true, msg, source, worker: status.worker.clone() },
                Err(failure) => pb::CommonWorkerResponse { msg: failure.to_string(), source, ..Default::default() },
            });
        }
        pb::OperateSchemaResponse { result: true, msg: String::new(), sources: answers }
    }

    /// query-status. Never waits.
    pub fn query_status(&self, request: &pb::QueryStatusListRequest) -> pb::QueryStatusListResponse {
        let status = self.backend.status();
        let refuse = |msg: String| pb::QueryStatusListResponse { result: false, msg, sources: Vec::new() };
        let unknown: Vec<&str> = request
            .sources
            .iter()
            .map(String::as_str)
            .filter(|id| !status.sources.iter().any(|source| source.source_id == *id))
            .collect();
        if !unknown.is_empty() {
            return refuse(unless_loading(&status, format!("sources [{}] haven't been added", unknown.join(" "))));
        }
        if status.loading && request.name.is_empty() {
            return refuse(still_loading().to_string());
        }
        let has_task = |id: &str| status.tasks.iter().any(|t| t.name == request.name && t.source_id == id);
        let wanted = |id: &String| match (request.sources.is_empty(), request.name.is_empty()) {
            (false, _) => request.sources.contains(id),
            (true, true) => true,
            (true, false) => has_task(id),
        };
        let sources: Vec<_> = status
            .sources
            .iter()
            .filter(|source| wanted(&source.source_id))
            .map(|source| source_response(&status, source, &request.name, relay_in_use(source)))
            .collect();
        if sources.is_empty() && !request.name.is_empty() {
            return refuse(unless_loading(&status, format!("task {} has no source or not exist", request.name)));
        }
        pb::QueryStatusListResponse { result: true, msg: String::new(), sources }
    }
}

/// The name in a task file; empty where there is none.
fn task_name(yaml: &str) -> String {
    #[derive(serde::Deserialize, Default)]
    struct Named {
        #[serde(default)]
        name: String,
    }
    serde_norway::from_str::<Named>(yaml).unwrap_or_default().name
}

/// What the operator should know of a task: options without effect, and the like. One line each, none twice.
fn notes(status: &AgentStatus, task: &str) -> String {
    let all: std::collections::BTreeSet<&str> =
        status.tasks.iter().filter(|t| t.name == task).flat_map(|t| &t.notes).map(String::as_str).collect();
    all.into_iter()
        .filter(|note| worth_an_answer(note))
        .map(|note| format!("note: {note}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A source that is not this agent's.
fn not_handled(status: &AgentStatus, source: String) -> pb::CommonWorkerResponse {
    let msg = unless_loading(status, format!("source {source} relevant worker-client not found"));
    pb::CommonWorkerResponse { msg, source, ..Default::default() }
}

/// Whether the task is there, and on each of the sources named; else DM's text for what is not.
fn known_subtasks(status: &AgentStatus, task: &str, sources: &[String]) -> Result<(), String> {
    let exists = status.tasks.iter().any(|t| t.name == task);
    if status.loading && !exists {
        return Err(still_loading().to_string());
    }
    if sources.is_empty() {
        let msg = || format!("task {task} has no source or not exist, please check the task name and status");
        return if exists { Ok(()) } else { Err(msg()) };
    }
    if !exists {
        let remedy = "Please use `query-status` command to see tasks.";
        return Err(not_there(46016, format!("subtasks with name {task} need to be operate not exist"), remedy));
    }
    let on = |id: &str| status.tasks.iter().any(|t| t.name == task && t.source_id == id);
    let missing: Vec<&str> = sources.iter().map(String::as_str).filter(|id| !on(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(not_there(46017, format!("sources [{}] need to be operate not exist", missing.join(" ")), ""))
}

/// The scheduler's two refusals that no other part of the agent meets.
fn not_there(code: i32, message: String, workaround: &str) -> String {
    let (class, scope, level) = ("dm-master", "internal", "medium");
    let (class, scope, level) = (class.to_owned(), scope.to_owned(), level.to_owned());
    let failure =
        Failure { code, class, scope, level, message, raw_cause: String::new(), workaround: workaround.to_owned() };
    failure.to_string()
}

/// A source's answer; where the stage is reached but errors stand beside it, `result` stays true and they are told.
fn operated(result: &SourceResult, status: &AgentStatus, task: &str, op: TaskOp) -> pb::CommonWorkerResponse {
    let mut answer = source_answer(result);
    if answer.result && answer.msg.is_empty() && op == TaskOp::Pause {
        let parked = status.tasks.iter().find(|t| t.name == task && t.source_id == result.source);
        if let Some(t) = parked.filter(|t| t.stage == Stage::Paused && !t.failures.is_empty()) {
            answer.msg = worker_error(&t.failures);
        }
    }
    answer
}
