//! The commands about sources and their relay logs: operate-source, start/stop/pause/resume-relay, purge-relay.

use serde::Deserialize;

use super::text::operation_failed;
use super::{COMMAND_LIMIT, MasterApi, PREFLIGHT_LIMIT, bounded, needs_master, source_answer, unless_loading};
use crate::control::backend::RelayOp;
use crate::control::pb_status::{relay_in_use, relay_sub_dir};
use crate::control::proto::pb;
use crate::error::{Code, Failure};
use crate::supervisor::{Actor, AgentStatus, SourceResult};

/// A whole-request refusal, or one answer a source.
type Answer = Result<Vec<pb::CommonWorkerResponse>, String>;

/// What is read of a source file to know which source it is about; the rest is the backend's.
#[derive(Deserialize)]
struct SourceName {
    #[serde(rename = "source-id")]
    source_id: String,
}

impl MasterApi {
    /// operate-source.
    pub async fn operate_source(&self, request: pb::OperateSourceRequest, actor: Actor) -> pb::OperateSourceResponse {
        let answer = match request.op() {
            pb::SourceOp::ShowSource => Ok(self.show_sources(&request.source_id)),
            pb::SourceOp::StartSource => self.create_sources(&request, &actor).await,
            pb::SourceOp::UpdateSource => self.update_sources(&request.config, &actor).await,
            pb::SourceOp::StopSource => self.stop_sources(&request, &actor).await,
            pb::SourceOp::InvalidSourceOp => Err("invalid operate-source operation".to_owned()),
        };
        let (result, msg, sources) = parts(answer);
        pb::OperateSourceResponse { result, msg, sources }
    }

    fn show_sources(&self, only: &[String]) -> Vec<pb::CommonWorkerResponse> {
        let status = self.backend.status();
        let wanted = status.sources.iter().filter(|s| only.is_empty() || only.contains(&s.source_id));
        wanted.map(|s| done(&s.source_id, &status.worker)).collect()
    }

    /// All or none: when one cannot be added, those added before it are taken back.
    async fn create_sources(&self, request: &pb::OperateSourceRequest, actor: &Actor) -> Answer {
        let worker = self.backend.status().worker.clone();
        if !request.worker_name.is_empty() && request.worker_name != worker {
            return Err(no_such_worker(&request.worker_name));
        }
        let mut created: Vec<SourceResult> = Vec::new();
        for yaml in &request.config {
            match bounded(PREFLIGHT_LIMIT, self.backend.create_source(yaml.clone(), actor.clone())).await {
                Ok(result) => created.push(result),
                Err(failure) => {
                    for earlier in created {
                        let undo = self.backend.stop_source(earlier.source.clone(), actor.clone());
                        if let Err(left) = bounded(COMMAND_LIMIT, undo).await {
                            tracing::warn!(source = %earlier.source, error = %left, "undo operate-source create");
                        }
                    }
                    return Err(failure.to_string());
                }
            }
        }
        Ok(created.iter().map(source_answer).collect())
    }

    async fn update_sources(&self, configs: &[String], actor: &Actor) -> Answer {
        let mut answers = Vec::new();
        for yaml in configs {
            let updated = bounded(PREFLIGHT_LIMIT, self.backend.update_source(yaml.clone(), actor.clone())).await;
            answers.push(source_answer(&updated.map_err(|failure| failure.to_string())?));
        }
        Ok(answers)
    }

    /// Sources are named by id or by their file.
    async fn stop_sources(&self, request: &pb::OperateSourceRequest, actor: &Actor) -> Answer {
        let mut ids = request.source_id.clone();
        for yaml in &request.config {
            let named: SourceName = serde_norway::from_str(yaml).map_err(|error| {
                Failure::new(Code::ConfigSource, "read `source-id` of the source file")
                    .cause(error.to_string())
                    .to_string()
            })?;
            ids.push(named.source_id);
        }
        let mut answers = Vec::new();
        for id in ids {
            let stopped = bounded(COMMAND_LIMIT, self.backend.stop_source(id, actor.clone())).await;
            answers.push(source_answer(&stopped.map_err(|failure| failure.to_string())?));
        }
        Ok(answers)
    }

    /// start-relay, stop-relay. Without a worker name the answer lists no source, as DM's does.
    pub async fn operate_relay(&self, request: pb::OperateRelayRequest, actor: Actor) -> pb::OperateRelayResponse {
        let op = match request.op() {
            pb::RelayOpV2::StartRelayV2 => RelayOp::Start,
            pb::RelayOpV2::StopRelayV2 => RelayOp::Stop,
            pb::RelayOpV2::InvalidRelayOpV2 => {
                return pb::OperateRelayResponse { msg: "invalid relay operation".to_owned(), ..Default::default() };
            }
        };
        let (result, msg, sources) = parts(self.switch_relay(op, &request, actor).await);
        pb::OperateRelayResponse { result, msg, sources }
    }

    async fn switch_relay(&self, op: RelayOp, request: &pb::OperateRelayRequest, actor: Actor) -> Answer {
        let status = self.backend.status();
        known_source(&status, &request.source)?;
        if let Some(other) = request.worker.iter().find(|name| **name != status.worker) {
            return Err(no_such_worker(other));
        }
        let switched = bounded(COMMAND_LIMIT, self.backend.relay(op, request.source.clone(), actor)).await;
        let answer = source_answer(&switched.map_err(|failure| failure.to_string())?);
        Ok(if request.worker.is_empty() && answer.result { Vec::new() } else { vec![answer] })
    }

    /// pause-relay, resume-relay.
    pub async fn operate_worker_relay(
        &self,
        request: pb::OperateWorkerRelayRequest,
        actor: Actor,
    ) -> pb::OperateWorkerRelayResponse {
        let op = match request.op() {
            pb::RelayOp::PauseRelay => Ok(RelayOp::Pause),
            pb::RelayOp::ResumeRelay => Ok(RelayOp::Resume),
            pb::RelayOp::StopRelay | pb::RelayOp::InvalidRelayOp => Err(
                "invalid relay operation: pause and resume are possible here, start-relay and stop-relay are others",
            ),
        };
        let answer = match op {
            Ok(op) => self.park_relays(op, &request.sources, &actor).await,
            Err(msg) => Err(msg.to_owned()),
        };
        let (result, msg, sources) = parts(answer);
        pb::OperateWorkerRelayResponse { op: request.op, result, msg, sources }
    }

    async fn park_relays(&self, op: RelayOp, sources: &[String], actor: &Actor) -> Answer {
        let status = self.backend.status();
        if sources.is_empty() {
            return Err("must specify at least one source".to_owned());
        }
        for id in sources {
            known_source(&status, id)?;
        }
        let mut answers = Vec::new();
        for id in sources {
            if status.sources.iter().any(|s| s.source_id == *id && !relay_in_use(s)) {
                let msg = operation_failed("relay is disabled for this source");
                answers.push(pb::CommonWorkerResponse { result: false, msg, ..done(id, &status.worker) });
                continue;
            }
            let operated = bounded(COMMAND_LIMIT, self.backend.relay(op, id.clone(), actor.clone())).await;
            answers.push(match operated {
                Ok(result) => source_answer(&result),
                Err(failure) => {
                    let (source, worker) = (id.clone(), status.worker.clone());
                    source_answer(&SourceResult { source, worker, result: Err(failure) })
                }
            });
        }
        Ok(answers)
    }

    /// purge-relay. A worker's refusal is passed on as it is, and the answer names no worker.
    pub async fn purge_relay(
        &self,
        request: pb::PurgeWorkerRelayRequest,
        actor: Actor,
    ) -> pb::PurgeWorkerRelayResponse {
        let mut sources = Vec::new();
        for id in &request.sources {
            let (result, msg) = match self.purge_one(id, &request, &actor).await {
                Ok(()) => (true, String::new()),
                Err(msg) => (false, msg),
            };
            sources.push(pb::CommonWorkerResponse { result, msg, source: id.clone(), worker: String::new() });
        }
        pb::PurgeWorkerRelayResponse { result: true, msg: String::new(), sources }
    }

    async fn purge_one(&self, id: &str, request: &pb::PurgeWorkerRelayRequest, actor: &Actor) -> Result<(), String> {
        let status = self.backend.status();
        let source = status
            .sources
            .iter()
            .find(|s| s.source_id == id)
            .ok_or_else(|| format!("relay worker for source {id} not found, please `start-relay` first"))?;
        let arguments = |what: String| Failure::new(Code::PurgeArguments, what).to_string();
        if request.inactive || request.time != 0 || request.filename.is_empty() {
            return Err(arguments("purge-relay takes a file name: everything before that file goes".to_owned()));
        }
        let sub_dir = relay_sub_dir(source);
        if !request.sub_dir.is_empty() && request.sub_dir != sub_dir {
            return Err(arguments(format!(
                "relay sub directory {} is unknown, there is only '{sub_dir}'",
                request.sub_dir
            )));
        }
        let purge = self.backend.purge_relay(id.to_owned(), request.filename.clone(), actor.clone());
        bounded(COMMAND_LIMIT, purge).await.map_err(|failure| failure.to_string())
    }

    /// transfer-source.
    pub fn transfer_source(&self, request: &pb::TransferSourceRequest) -> pb::TransferSourceResponse {
        pb::TransferSourceResponse {
            result: false,
            msg: needs_master(&format!("where source {} runs", request.source)),
        }
    }
}

fn parts(answer: Answer) -> (bool, String, Vec<pb::CommonWorkerResponse>) {
    match answer {
        Ok(sources) => (true, String::new(), sources),
        Err(msg) => (false, msg, Vec::new()),
    }
}

fn done(source: &str, worker: &str) -> pb::CommonWorkerResponse {
    let (source, worker) = (source.to_owned(), worker.to_owned());
    pb::CommonWorkerResponse { result: true, msg: String::new(), source, worker }
}

fn known_source(status: &AgentStatus, id: &str) -> Result<(), String> {
    if status.sources.iter().any(|s| s.source_id == id) {
        return Ok(());
    }
    let unknown = Failure::new(Code::SourceNotFound, format!("source config with ID {id} not exists")).to_string();
    Err(unless_loading(status, unknown))
}

fn no_such_worker(name: &str) -> String {
    // The code that DM's scheduler gives; nothing else in the agent meets it.
    let (class, scope, level) = ("scheduler".to_owned(), "internal".to_owned(), "medium".to_owned());
    let message = format!("dm-worker with name {name} not exists");
    let (raw_cause, workaround) = (String::new(), String::new());
    Failure { code: 46004, class, scope, level, message, raw_cause, workaround }.to_string()
}
