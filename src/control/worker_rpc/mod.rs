//! `pb.Worker`: what a dm-master asks of its workers, one answer a file of `tests/golden/rpc`.
//!
//! Business failures are gRPC successes with `result: false` and the failure's full text, as DM has it; only the status of
//! a validator is a gRPC error. What this version does not have answers so that nobody takes it for done.

mod answers;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::master::Reconciled;
use super::proto::pb;
use super::proto::pb::worker_server::Worker;
use crate::control::backend::Backend;
use crate::control::pb_status::{event_op, schema_op};
use crate::error::Failure;
use crate::model::BinlogFile;
use crate::supervisor::{EventOrder, SchemaOrder, Supervisor};

pub use answers::METHODS;
pub use status::shown_stage;

/// The service.
pub struct WorkerService {
    backend: Arc<dyn Backend>,
    supervisor: Supervisor,
    reconciled: Reconciled,
    settle_limit: Duration,
}

impl WorkerService {
    /// `settle_limit` is how long a status waits for what was wanted just before.
    pub fn new(
        backend: Arc<dyn Backend>,
        supervisor: Supervisor,
        reconciled: Reconciled,
        settle_limit: Duration,
    ) -> Self {
        WorkerService { backend, supervisor, reconciled, settle_limit }
    }
}

#[tonic::async_trait]
impl Worker for WorkerService {
    /// A master writes what it wants and asks at once; a look too early costs its user a second, or ten.
    async fn query_status(
        &self,
        request: Request<pb::QueryStatusRequest>,
    ) -> Result<Response<pb::QueryStatusResponse>, Status> {
        let name = &request.get_ref().name;
        self.reconciled.settle(name, self.settle_limit).await;
        let agent = self.backend.status();
        let view = self.reconciled.view();
        let mut answer =
            status::answer(&agent, name, view.source_failure, |source| self.supervisor.relay_shown(source));
        status::add_problem(&mut answer, &view.problem);
        Ok(Response::new(answer))
    }

    async fn purge_relay(
        &self,
        request: Request<pb::PurgeRelayRequest>,
    ) -> Result<Response<pb::CommonWorkerResponse>, Status> {
        let result = self.purge(request.into_inner()).await;
        Ok(Response::new(answers::bare(result.map(|()| String::new()))))
    }

    async fn operate_schema(
        &self,
        request: Request<pb::OperateWorkerSchemaRequest>,
    ) -> Result<Response<pb::CommonWorkerResponse>, Status> {
        let request = request.into_inner();
        let source = request.source.clone();
        Ok(Response::new(match self.order_schema(request).await.and_then(answers::within_limit) {
            Ok(msg) => {
                pb::CommonWorkerResponse { result: true, msg, source, worker: self.backend.status().worker.clone() }
            }
            Err(failure) => answers::bare(Err(failure)),
        }))
    }

    async fn operate_v1_meta(
        &self,
        _: Request<pb::OperateV1MetaRequest>,
    ) -> Result<Response<pb::OperateV1MetaResponse>, Status> {
        Ok(Response::new(pb::OperateV1MetaResponse { result: true, ..Default::default() }))
    }

    async fn handle_error(
        &self,
        request: Request<pb::HandleWorkerErrorRequest>,
    ) -> Result<Response<pb::CommonWorkerResponse>, Status> {
        Ok(Response::new(self.order_event(request.into_inner()).await))
    }

    async fn get_worker_cfg(
        &self,
        _: Request<pb::GetWorkerCfgRequest>,
    ) -> Result<Response<pb::GetWorkerCfgResponse>, Status> {
        Ok(Response::new(pb::GetWorkerCfgResponse { cfg: self.backend.worker_config() }))
    }

    async fn check_subtasks_can_update(
        &self,
        request: Request<pb::CheckSubtasksCanUpdateRequest>,
    ) -> Result<Response<pb::CheckSubtasksCanUpdateResponse>, Status> {
        let checked = self.supervisor.check_update(&request.get_ref().subtask_cfg_toml_string);
        let (success, msg) = match checked {
            Ok(()) => (true, String::new()),
            Err(failure) => (false, failure.to_string()),
        };
        Ok(Response::new(pb::CheckSubtasksCanUpdateResponse { success, msg }))
    }

    async fn get_worker_validator_status(
        &self,
        request: Request<pb::GetValidationStatusRequest>,
    ) -> Result<Response<pb::GetValidationStatusResponse>, Status> {
        let agent = self.backend.status();
        Err(Status::unknown(answers::no_validator(&agent, &request.get_ref().task_name).to_string()))
    }

    async fn get_validator_error(
        &self,
        request: Request<pb::GetValidationErrorRequest>,
    ) -> Result<Response<pb::GetValidationErrorResponse>, Status> {
        let msg = answers::no_validator(&self.backend.status(), &request.get_ref().task_name).to_string();
        Ok(Response::new(pb::GetValidationErrorResponse { result: false, msg, error: Vec::new() }))
    }

    async fn operate_validator_error(
        &self,
        request: Request<pb::OperateValidationErrorRequest>,
    ) -> Result<Response<pb::OperateValidationErrorResponse>, Status> {
        let msg = answers::no_validator(&self.backend.status(), &request.get_ref().task_name).to_string();
        Ok(Response::new(pb::OperateValidationErrorResponse { result: false, msg }))
    }

    async fn update_validator(
        &self,
        request: Request<pb::UpdateValidationWorkerRequest>,
    ) -> Result<Response<pb::CommonWorkerResponse>, Status> {
        let failure = answers::no_validator(&self.backend.status(), &request.get_ref().task_name);
        Ok(Response::new(answers::bare(Err(failure))))
    }
}

impl WorkerService {
    async fn order_schema(&self, request: pb::OperateWorkerSchemaRequest) -> Result<String, Failure> {
        let source = answers::schema_source(&self.backend.status(), &request)?;
        let op = schema_op(request.op(), request.schema, request.from_source, request.from_target);
        let op = op.ok_or_else(|| answers::unsupported("binlog-schema (an operation of no name)"))?;
        let order = SchemaOrder { op, task: request.task, database: request.database, table: request.table };
        self.backend.order_schema(source, order, answers::master()).await
    }

    async fn order_event(&self, request: pb::HandleWorkerErrorRequest) -> pb::CommonWorkerResponse {
        let agent = self.backend.status();
        let source = match answers::source(&agent) {
            Ok(source) => source,
            Err(failure) => return answers::bare(Err(failure)),
        };
        let Some(op) = event_op(request.op()) else {
            return answers::bare(Err(answers::unsupported("binlog (an operation of no name)")));
        };
        let order = EventOrder { op, task: request.task, place: request.binlog_pos, statements: request.sqls };
        match self.backend.order_event(source, order, answers::master()).await {
            Ok(msg) => {
                pb::CommonWorkerResponse { result: true, msg, worker: agent.worker.clone(), ..Default::default() }
            }
            Err(refusal) => pb::CommonWorkerResponse { msg: refusal.to_string(), ..Default::default() },
        }
    }

    /// A relay log that is off has nothing to purge, and says nothing of it.
    async fn purge(&self, request: pb::PurgeRelayRequest) -> Result<(), Failure> {
        let source = answers::source(&self.backend.status())?;
        if !self.supervisor.relay_shown(&source) {
            return Ok(());
        }
        let filename = answers::purge_arguments(request)?;
        if BinlogFile::parse(&filename).is_err() {
            // As recorded (`purge-relay-badfile.txt`): nothing is before a file that no source can have.
            tracing::warn!(source, filename, "purge-relay: this is no binlog file's name, and nothing is removed");
            return Ok(());
        }
        self.backend.purge_relay(source, filename, answers::master()).await
    }
}
