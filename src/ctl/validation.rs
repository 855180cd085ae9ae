//! validation: passed on to a dm-master. An agent that stands alone says that it does not validate.

use std::io::Write;

use super::args::{ErrorChoice, ErrorState, TableStage, ValidationCommand};
use super::connect::Session;
use super::error::CtlError;
use super::tasks::task_name;
use super::{Verdict, emit};
use crate::control::proto::pb;

/// One of its subcommands.
pub async fn run(
    mut session: Session,
    command: ValidationCommand,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let name = |task: Option<String>| task.as_deref().map(task_name).transpose().map(Option::unwrap_or_default);
    match command {
        ValidationCommand::Start { task, mode, start_time, .. } => {
            let mode = mode.map(pb::start_validation_request::Mode::ModeValue);
            let start_time = start_time.map(pb::start_validation_request::StartTime::StartTimeValue);
            let request = pb::StartValidationRequest { mode, start_time, sources, task_name: name(task)? };
            let answer = session.master.start_validation(request).await?.into_inner();
            emit("pb.StartValidationResponse", &answer, out)?;
            Ok(Verdict::of(answer.result, &answer.sources))
        }
        ValidationCommand::Stop { task, .. } => {
            let request = pb::StopValidationRequest { sources, task_name: name(task)? };
            let answer = session.master.stop_validation(request).await?.into_inner();
            emit("pb.StopValidationResponse", &answer, out)?;
            Ok(Verdict::of(answer.result, &answer.sources))
        }
        ValidationCommand::Status { task, table_stage } => {
            let stage = match table_stage {
                None => pb::Stage::InvalidStage,
                Some(TableStage::Running) => pb::Stage::Running,
                Some(TableStage::Stopped) => pb::Stage::Stopped,
            };
            let request = pb::GetValidationStatusRequest { task_name: task_name(&task)?, filter_status: stage.into() };
            let answer = session.master.get_validation_status(request).await?.into_inner();
            emit("pb.GetValidationStatusResponse", &answer, out)?;
            Ok(Verdict::of(answer.result, &[]))
        }
        ValidationCommand::ShowError { task, error } => {
            let state = match error {
                ErrorState::All => pb::ValidateErrorState::InvalidErr,
                ErrorState::Ignored => pb::ValidateErrorState::IgnoredErr,
                ErrorState::Unprocessed => pb::ValidateErrorState::NewErr,
            };
            let request = pb::GetValidationErrorRequest { err_state: state.into(), task_name: task_name(&task)? };
            let answer = session.master.get_validation_error(request).await?.into_inner();
            emit("pb.GetValidationErrorResponse", &answer, out)?;
            Ok(Verdict::of(answer.result, &[]))
        }
        ValidationCommand::IgnoreError(choice) => judge(session, pb::ValidationErrOp::IgnoreErrOp, choice, out).await,
        ValidationCommand::ResolveError(choice) => judge(session, pb::ValidationErrOp::ResolveErrOp, choice, out).await,
        ValidationCommand::ClearError(choice) => judge(session, pb::ValidationErrOp::ClearErrOp, choice, out).await,
        ValidationCommand::Update { task, cutover_binlog_pos, cutover_binlog_gtid } => {
            let request = pb::UpdateValidationRequest {
                task_name: task_name(&task)?,
                sources,
                binlog_pos: cutover_binlog_pos,
                binlog_gtid: cutover_binlog_gtid,
            };
            let answer = session.master.update_validation(request).await?.into_inner();
            emit("pb.UpdateValidationResponse", &answer, out)?;
            Ok(Verdict::of(answer.result, &answer.sources))
        }
    }
}

/// What becomes of a row that differs.
async fn judge(
    mut session: Session,
    op: pb::ValidationErrOp,
    choice: ErrorChoice,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let request = pb::OperateValidationErrorRequest {
        op: op.into(),
        is_all_error: choice.all,
        task_name: task_name(&choice.task)?,
        err_id: choice.id.unwrap_or_default(),
    };
    let answer = session.master.operate_validation_error(request).await?.into_inner();
    emit("pb.OperateValidationErrorResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}
