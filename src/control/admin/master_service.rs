//! `pb.Master` on the admin socket: permission and audit around [`MasterApi`].
//!
//! Invariant: no method that changes something reaches the API before the peer's level was checked and an audit was
//! opened. What needs a cluster answers UNIMPLEMENTED and says so.

use std::sync::Arc;

use serde::Deserialize;
use tonic::{Request, Response, Status};

use super::journal::{Audit, Journal};
use super::peer::{Level, Peer};
use crate::control::master_api::{MasterApi, needs_master};
use crate::control::proto::pb::{self, master_server::Master};
use crate::supervisor::Actor;

/// The service of all peers.
pub struct MasterService {
    api: MasterApi,
    journal: Arc<Journal>,
}

/// The names in a source or task file; all that an audit line may hold of one.
#[derive(Deserialize, Default)]
struct Names {
    name: Option<String>,
    #[serde(rename = "source-id")]
    source_id: Option<String>,
}

type Answer<T> = Result<Response<T>, Status>;

impl MasterService {
    /// Over an API, with a journal for its audits.
    pub fn new(api: MasterApi, journal: Arc<Journal>) -> Self {
        MasterService { api, journal }
    }

    /// Lets a command through, or denies it; both are audited.
    fn admit<T>(
        &self,
        request: &Request<T>,
        needed: Level,
        command: &'static str,
        arguments: &str,
    ) -> Result<(Actor, Audit), Status> {
        let peer = peer_of(request)?;
        let audit = self.journal.audit(&peer, command, arguments);
        if peer.level < needed {
            audit.finish(format!("denied: has {}, needs {needed}", peer.level));
            return Err(denied(command, &peer, needed));
        }
        Ok((peer.actor(), audit))
    }
}

/// Who asks, as the connection noted it.
pub fn peer_of<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Status::permission_denied("it is not known who asks"))
}

/// The refusal, with what would help.
pub fn denied(command: &str, peer: &Peer, needed: Level) -> Status {
    let who = match needed {
        Level::Read => "",
        Level::Operate => ": root, the agent's own user, or a member of the socket's group",
        Level::Admin => ": root or the agent's own user",
    };
    Status::permission_denied(format!("{command} needs level {needed}{who}; {peer} has level {}", peer.level))
}

fn unanswered<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(needs_master(what)))
}

/// For what no master could change: this version does not do it.
fn not_done<T>(why: &str) -> Answer<T> {
    Err(Status::unimplemented(why))
}

const NO_VALIDATION: &str = "this version does not validate: compare source and target with a tool such as \
                             sync-diff-inspector while the task is parked";
const NO_LOCKS: &str = "this version does not merge shards, so there are no shard DDL locks";

fn file_names(yaml: &str) -> String {
    let names: Names = serde_norway::from_str(yaml).unwrap_or_default();
    names.name.or(names.source_id).unwrap_or_else(|| "(unreadable file)".to_owned())
}

fn with_sources(what: &str, sources: &[String]) -> String {
    if sources.is_empty() { what.to_owned() } else { format!("{what} -s {}", sources.join(",")) }
}

/// How an answer reads in the audit.
fn outcome(result: bool, msg: &str, sources: &[pb::CommonWorkerResponse]) -> String {
    if !result {
        return format!("refused: {msg}");
    }
    let failed: Vec<String> =
        sources.iter().filter(|s| !s.result).map(|s| format!("{}: {}", s.source, s.msg)).collect();
    if failed.is_empty() { "ok".to_owned() } else { format!("failed: {}", failed.join("; ")) }
}

#[tonic::async_trait]
impl Master for MasterService {
    async fn start_task(&self, request: Request<pb::StartTaskRequest>) -> Answer<pb::StartTaskResponse> {
        let body = request.get_ref();
        let mut arguments = with_sources(&file_names(&body.task), &body.sources);
        if body.remove_meta {
            arguments.push_str(" --remove-meta");
        }
        let (actor, audit) = self.admit(&request, Level::Admin, "start-task", &arguments)?;
        let answer = self.api.start_task(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn operate_task(&self, request: Request<pb::OperateTaskRequest>) -> Answer<pb::OperateTaskResponse> {
        let (level, command) = match request.get_ref().op() {
            pb::TaskOp::Pause => (Level::Operate, "pause-task"),
            pb::TaskOp::Resume => (Level::Operate, "resume-task"),
            _ => (Level::Admin, "stop-task"),
        };
        let arguments = with_sources(&request.get_ref().name, &request.get_ref().sources);
        let (actor, audit) = self.admit(&request, level, command, &arguments)?;
        let answer = self.api.operate_task(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn query_status(&self, request: Request<pb::QueryStatusListRequest>) -> Answer<pb::QueryStatusListResponse> {
        Ok(Response::new(self.api.query_status(request.get_ref())))
    }

    async fn check_task(&self, request: Request<pb::CheckTaskRequest>) -> Answer<pb::CheckTaskResponse> {
        // It changes nothing, but it connects with passwords of the caller's choice to where the caller says.
        let (_, audit) = self.admit(&request, Level::Operate, "check-task", &file_names(&request.get_ref().task))?;
        let answer = self.api.check_task(request.into_inner()).await;
        audit.finish(outcome(answer.result, &answer.msg, &[]));
        Ok(Response::new(answer))
    }

    async fn operate_source(&self, request: Request<pb::OperateSourceRequest>) -> Answer<pb::OperateSourceResponse> {
        let body = request.get_ref();
        let command = match body.op() {
            pb::SourceOp::ShowSource => {
                let actor = peer_of(&request)?.actor();
                return Ok(Response::new(self.api.operate_source(request.into_inner(), actor).await));
            }
            pb::SourceOp::UpdateSource => "operate-source update",
            pb::SourceOp::StopSource => "operate-source stop",
            _ => "operate-source create",
        };
        let names: Vec<String> = body.config.iter().map(|c| file_names(c)).chain(body.source_id.clone()).collect();
        let (actor, audit) = self.admit(&request, Level::Admin, command, &names.join(","))?;
        let answer = self.api.operate_source(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn operate_relay(&self, request: Request<pb::OperateRelayRequest>) -> Answer<pb::OperateRelayResponse> {
        let body = request.get_ref();
        let command = if body.op() == pb::RelayOpV2::StopRelayV2 { "stop-relay" } else { "start-relay" };
        let (actor, audit) = self.admit(&request, Level::Admin, command, &body.source)?;
        let answer = self.api.operate_relay(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn operate_worker_relay_task(
        &self,
        request: Request<pb::OperateWorkerRelayRequest>,
    ) -> Answer<pb::OperateWorkerRelayResponse> {
        let body = request.get_ref();
        let command = if body.op() == pb::RelayOp::ResumeRelay { "resume-relay" } else { "pause-relay" };
        let (actor, audit) = self.admit(&request, Level::Operate, command, &body.sources.join(","))?;
        let answer = self.api.operate_worker_relay(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn purge_worker_relay(
        &self,
        request: Request<pb::PurgeWorkerRelayRequest>,
    ) -> Answer<pb::PurgeWorkerRelayResponse> {
        let arguments = with_sources(&request.get_ref().filename, &request.get_ref().sources);
        let (actor, audit) = self.admit(&request, Level::Operate, "purge-relay", &arguments)?;
        let answer = self.api.purge_relay(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn get_cfg(&self, request: Request<pb::GetCfgRequest>) -> Answer<pb::GetCfgResponse> {
        Ok(Response::new(self.api.get_config(request.get_ref())))
    }

    async fn list_member(&self, request: Request<pb::ListMemberRequest>) -> Answer<pb::ListMemberResponse> {
        Ok(Response::new(self.api.list_member(request.get_ref())))
    }

    async fn list_task_configs(&self, _: Request<()>) -> Answer<pb::ListTaskConfigsResponse> {
        Ok(Response::new(self.api.list_task_configs()))
    }

    async fn list_source_configs(&self, _: Request<()>) -> Answer<pb::ListSourceConfigsResponse> {
        Ok(Response::new(self.api.list_source_configs()))
    }

    async fn transfer_source(&self, request: Request<pb::TransferSourceRequest>) -> Answer<pb::TransferSourceResponse> {
        Ok(Response::new(self.api.transfer_source(request.get_ref())))
    }

    async fn update_task(&self, request: Request<pb::UpdateTaskRequest>) -> Answer<pb::UpdateTaskResponse> {
        let arguments = with_sources(&file_names(&request.get_ref().task), &request.get_ref().sources);
        let (actor, audit) = self.admit(&request, Level::Admin, "update-task", &arguments)?;
        let answer = self.api.update_task(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn show_ddl_locks(&self, _: Request<pb::ShowDdlLocksRequest>) -> Answer<pb::ShowDdlLocksResponse> {
        not_done(NO_LOCKS)
    }

    async fn unlock_ddl_lock(&self, _: Request<pb::UnlockDdlLockRequest>) -> Answer<pb::UnlockDdlLockResponse> {
        not_done(NO_LOCKS)
    }

    async fn register_worker(&self, _: Request<pb::RegisterWorkerRequest>) -> Answer<pb::RegisterWorkerResponse> {
        unanswered("the members of a cluster")
    }

    async fn offline_member(&self, _: Request<pb::OfflineMemberRequest>) -> Answer<pb::OfflineMemberResponse> {
        unanswered("the members of a cluster")
    }

    async fn operate_leader(&self, _: Request<pb::OperateLeaderRequest>) -> Answer<pb::OperateLeaderResponse> {
        unanswered("the leader of a cluster")
    }

    async fn operate_schema(&self, request: Request<pb::OperateSchemaRequest>) -> Answer<pb::OperateSchemaResponse> {
        let body = request.get_ref();
        let (level, command) = match body.op() {
            pb::SchemaOp::SetSchema => (Level::Admin, "binlog-schema update"),
            pb::SchemaOp::RemoveSchema => (Level::Admin, "binlog-schema delete"),
            // It connects to both ends.
            _ => (Level::Operate, "binlog-schema list"),
        };
        let arguments = with_sources(&format!("{} {}.{}", body.task, body.database, body.table), &body.sources);
        let (actor, audit) = self.admit(&request, level, command, &arguments)?;
        let answer = self.api.operate_schema(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn get_sub_task_cfg(&self, _: Request<pb::GetSubTaskCfgRequest>) -> Answer<pb::GetSubTaskCfgResponse> {
        unanswered("subtask configurations as a master makes them")
    }

    async fn handle_error(&self, request: Request<pb::HandleErrorRequest>) -> Answer<pb::HandleErrorResponse> {
        let body = request.get_ref();
        let (level, command) = match body.op() {
            pb::ErrorOp::List => (Level::Read, "binlog list"),
            pb::ErrorOp::Revert => (Level::Admin, "binlog revert"),
            pb::ErrorOp::Inject => (Level::Admin, "binlog inject"),
            pb::ErrorOp::Replace => (Level::Admin, "binlog replace"),
            _ => (Level::Admin, "binlog skip"),
        };
        let arguments = with_sources(&format!("{} {}", body.task, body.binlog_pos), &body.sources);
        let (actor, audit) = self.admit(&request, level, command, arguments.trim())?;
        let answer = self.api.handle_error(request.into_inner(), actor).await;
        audit.finish(outcome(answer.result, &answer.msg, &answer.sources));
        Ok(Response::new(answer))
    }

    async fn get_master_cfg(&self, _: Request<pb::GetMasterCfgRequest>) -> Answer<pb::GetMasterCfgResponse> {
        unanswered("the configuration of a master")
    }

    async fn start_validation(&self, _: Request<pb::StartValidationRequest>) -> Answer<pb::StartValidationResponse> {
        not_done(NO_VALIDATION)
    }

    async fn stop_validation(&self, _: Request<pb::StopValidationRequest>) -> Answer<pb::StopValidationResponse> {
        not_done(NO_VALIDATION)
    }

    async fn get_validation_status(
        &self,
        _: Request<pb::GetValidationStatusRequest>,
    ) -> Answer<pb::GetValidationStatusResponse> {
        not_done(NO_VALIDATION)
    }

    async fn get_validation_error(
        &self,
        _: Request<pb::GetValidationErrorRequest>,
    ) -> Answer<pb::GetValidationErrorResponse> {
        not_done(NO_VALIDATION)
    }

    async fn operate_validation_error(
        &self,
        _: Request<pb::OperateValidationErrorRequest>,
    ) -> Answer<pb::OperateValidationErrorResponse> {
        not_done(NO_VALIDATION)
    }

    async fn update_validation(&self, _: Request<pb::UpdateValidationRequest>) -> Answer<pb::UpdateValidationResponse> {
        not_done(NO_VALIDATION)
    }

    async fn encrypt(&self, _: Request<pb::EncryptRequest>) -> Answer<pb::EncryptResponse> {
        unanswered("a master's secret key")
    }

    async fn decrypt(&self, _: Request<pb::DecryptRequest>) -> Answer<pb::DecryptResponse> {
        unanswered("a master's secret key")
    }
}
