//! What an agent answers to dmctl's commands: the part of `pb.Master` that one agent can answer for itself.
//!
//! Owns the semantics of the answers and their texts: what makes the top-level `result` false and what only one
//! source's, and DM's wording (recorded in `tests/golden/dmctl`). Knows nothing of sockets, peers or
//! permissions. Every call into the backend has a limit, so that an answer always comes.

mod sources;
mod tasks;
mod text;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Backend;
use super::proto::pb;
use crate::error::{Code, Failure};
use crate::supervisor::{AgentStatus, SourceResult, still_loading};

pub use text::worker_error;

/// How long a command that needs no foreign server may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How long a command that asks source and downstream first may take.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(150);

/// Answers for the agent behind `backend`.
#[derive(Clone)]
pub struct MasterApi {
    backend: Arc<dyn Backend>,
    address: String,
}

impl MasterApi {
    /// `address` is what `list-member` shows as the worker's.
    pub fn new(backend: Arc<dyn Backend>, address: String) -> Self {
        MasterApi { backend, address }
    }

    /// get-config.
    pub fn get_config(&self, request: &pb::GetCfgRequest) -> pb::GetCfgResponse {
        let none = |kind: &str| unless_loading(&self.backend.status(), format!("{kind} not found"));
        let found = |cfg: Option<String>, kind: &str| cfg.ok_or_else(|| none(kind));
        let cfg = match request.r#type() {
            pb::CfgType::TaskType => found(self.backend.task_config(&request.name), "task"),
            pb::CfgType::SourceType => found(self.backend.source_config(&request.name), "source"),
            pb::CfgType::WorkerType => {
                let ours = self.backend.status().worker == request.name;
                found(ours.then(|| self.backend.worker_config()), "worker")
            }
            pb::CfgType::MasterType => Err(needs_master("the configuration of a master")),
            pb::CfgType::TaskTemplateType => Err(needs_master("a task template")),
            pb::CfgType::InvalidType => Err("invalid config type: give task, source or worker".to_owned()),
        };
        match cfg {
            Ok(cfg) => pb::GetCfgResponse { result: true, msg: String::new(), cfg },
            Err(msg) => pb::GetCfgResponse { result: false, msg, cfg: String::new() },
        }
    }

    /// The tasks' half of `config export`.
    pub fn list_task_configs(&self) -> pb::ListTaskConfigsResponse {
        let status = self.backend.status();
        if status.loading {
            let msg = still_loading().to_string();
            return pb::ListTaskConfigsResponse { msg, ..Default::default() };
        }
        let config = |name: &String| self.backend.task_config(name).map(|cfg| (name.clone(), cfg));
        let task_configs = status.tasks.iter().filter_map(|t| config(&t.name)).collect();
        pb::ListTaskConfigsResponse { result: true, msg: String::new(), task_configs }
    }

    /// The sources' half of `config export`.
    pub fn list_source_configs(&self) -> pb::ListSourceConfigsResponse {
        let status = self.backend.status();
        if status.loading {
            let msg = still_loading().to_string();
            return pb::ListSourceConfigsResponse { msg, ..Default::default() };
        }
        let config = |id: &String| self.backend.source_config(id).map(|cfg| (id.clone(), cfg));
        let source_configs = status.sources.iter().filter_map(|s| config(&s.source_id)).collect();
        pb::ListSourceConfigsResponse { result: true, msg: String::new(), source_configs }
    }

    /// list-member: this agent, once for each of its sources. Leader and masters are named only when asked for.
    pub fn list_member(&self, request: &pb::ListMemberRequest) -> pb::ListMemberResponse {
        use pb::members::Member;
        let all = !request.leader && !request.master && !request.worker;
        let msg = || needs_master("a leader and masters");
        let mut members = Vec::new();
        if request.leader {
            members.push(Member::Leader(pb::ListLeaderMember { msg: msg(), ..Default::default() }));
        }
        if request.master {
            members.push(Member::Master(pb::ListMasterMember { msg: msg(), ..Default::default() }));
        }
        if all || request.worker {
            members.push(Member::Worker(pb::ListWorkerMember {
                msg: String::new(),
                workers: self.workers(&request.names),
            }));
        }
        let members = members.into_iter().map(|member| pb::Members { member: Some(member) }).collect();
        pb::ListMemberResponse { result: true, msg: String::new(), members }
    }

    fn workers(&self, names: &[String]) -> Vec<pb::WorkerInfo> {
        let status = self.backend.status();
        if !names.is_empty() && !names.contains(&status.worker) {
            return Vec::new();
        }
        let info = |stage: &str, source: &str| pb::WorkerInfo {
            name: status.worker.clone(),
            addr: self.address.clone(),
            stage: stage.to_owned(),
            source: source.to_owned(),
        };
        if status.sources.is_empty() {
            return vec![info("free", "")];
        }
        status.sources.iter().map(|source| info("bound", &source.source_id)).collect()
    }
}

/// What an agent says to a command that is about the cluster.
pub fn needs_master(what: &str) -> String {
    format!("this agent answers for itself and has no say over {what}: ask a dm-master (--master-addr)")
}

/// What to say of something that is not there: it may be on disk, and not loaded yet.
fn unless_loading(status: &AgentStatus, not_there: String) -> String {
    if status.loading { still_loading().to_string() } else { not_there }
}

/// Puts a limit on a call into the backend.
async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(Code::NotSet, format!("no answer within {} s", limit.as_secs()))
            .workaround("The command may still take effect; see `query-status` and the log.")),
    }
}

/// The same as a whole-request refusal.
fn refused(failure: &Failure) -> (bool, String) {
    (false, failure.to_string())
}

/// One source's answer as it stands in the list. A worker's own failure is wrapped as a master would.
fn source_answer(result: &SourceResult) -> pb::CommonWorkerResponse {
    let (ok, msg) = match &result.result {
        Ok(msg) => (true, msg.clone()),
        Err(failure) if from_master(failure) => (false, failure.to_string()),
        Err(failure) => (false, worker_error(std::slice::from_ref(failure))),
    };
    pb::CommonWorkerResponse { result: ok, msg, source: result.source.clone(), worker: result.worker.clone() }
}

/// Failures that in a cluster the master itself would report, not the worker.
fn from_master(failure: &Failure) -> bool {
    matches!(failure.class.as_str(), "scheduler" | "dm-master")
}

#[cfg(test)]
pub(crate) mod tests;
