//! The commands about sources and their relay logs.

use std::io::Write;
use std::path::PathBuf;

use super::args::SourceVerb;
use super::connect::Session;
use super::error::CtlError;
use super::{Verdict, emit, read_file};
use crate::control::proto::pb;

/// A source file to start from, every key with its default.
pub const SAMPLE: &str = include_str!("../../config/source.yaml");

/// operate-source.
pub async fn operate(
    mut session: Session,
    verb: Option<SourceVerb>,
    files: &[PathBuf],
    worker: Option<String>,
    source_id: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let op = match verb {
        Some(SourceVerb::Create) => pb::SourceOp::StartSource,
        Some(SourceVerb::Update) => pb::SourceOp::UpdateSource,
        Some(SourceVerb::Stop) => pb::SourceOp::StopSource,
        Some(SourceVerb::Show) => pb::SourceOp::ShowSource,
        None => return Err(CtlError::Usage("say what to do: create, update, stop or show".to_owned())),
    };
    let named = !files.is_empty() || (op == pb::SourceOp::StopSource && !source_id.is_empty());
    if op != pb::SourceOp::ShowSource && !named {
        return Err(CtlError::Usage("name the source's file; for stop, -s with its id does as well".to_owned()));
    }
    let config = files.iter().map(|file| read_file(file)).collect::<Result<Vec<_>, _>>()?;
    let request =
        pb::OperateSourceRequest { op: op.into(), config, source_id, worker_name: worker.unwrap_or_default() };
    let answer = session.master.operate_source(request).await?.into_inner();
    emit("pb.OperateSourceResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// start-relay and stop-relay, of one source.
pub async fn relay(
    mut session: Session,
    start: bool,
    sources: Vec<String>,
    worker: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let op = if start { pb::RelayOpV2::StartRelayV2 } else { pb::RelayOpV2::StopRelayV2 };
    let source = sources.into_iter().next().unwrap_or_default();
    let request = pb::OperateRelayRequest { op: op.into(), source, worker };
    let answer = session.master.operate_relay(request).await?.into_inner();
    emit("pb.OperateRelayResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// pause-relay and resume-relay.
pub async fn park_relay(
    mut session: Session,
    pause: bool,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let op = if pause { pb::RelayOp::PauseRelay } else { pb::RelayOp::ResumeRelay };
    let request = pb::OperateWorkerRelayRequest { op: op.into(), sources };
    let answer = session.master.operate_worker_relay_task(request).await?.into_inner();
    emit("pb.OperateWorkerRelayResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// purge-relay.
pub async fn purge(
    mut session: Session,
    sources: Vec<String>,
    filename: String,
    sub_dir: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    if session.agent.is_none() && sub_dir.is_empty() {
        eprintln!("note: without --sub-dir the file is taken to be of the newest relay directory");
    }
    let request = pb::PurgeWorkerRelayRequest { sources, inactive: false, time: 0, filename, sub_dir };
    let answer = session.master.purge_worker_relay(request).await?.into_inner();
    emit("pb.PurgeWorkerRelayResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// transfer-source.
pub async fn transfer(
    mut session: Session,
    source: String,
    worker: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let answer = session.master.transfer_source(pb::TransferSourceRequest { source, worker }).await?.into_inner();
    emit("pb.TransferSourceResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}
