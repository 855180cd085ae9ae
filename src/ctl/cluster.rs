//! The commands that are about a cluster, or that pass through one to a worker: configurations, members, binlog
//! operations, table structures, shard locks.

use std::io::Write;
use std::path::PathBuf;

use super::args::{BinlogCommand, ConfigKind, EventPlace, LeaderVerb, LockAction, SchemaCommand, TablePlace, Unlock};
use super::connect::Session;
use super::error::CtlError;
use super::tasks::task_name;
use super::{Verdict, emit, read_file, statements};
use crate::control::proto::pb;

/// get-config; with a file, the configuration goes there and the answer says so.
pub async fn get_config(
    session: Session,
    kind: ConfigKind,
    name: String,
    file: Option<PathBuf>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let kind = match kind {
        ConfigKind::Task => pb::CfgType::TaskType,
        ConfigKind::Source => pb::CfgType::SourceType,
        ConfigKind::Worker => pb::CfgType::WorkerType,
        ConfigKind::Master => pb::CfgType::MasterType,
    };
    show_config(session, kind, name, file, out).await
}

/// The same by DM's own kinds.
pub async fn show_config(
    mut session: Session,
    kind: pb::CfgType,
    name: String,
    file: Option<PathBuf>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let answer = session.master.get_cfg(pb::GetCfgRequest { r#type: kind.into(), name }).await?.into_inner();
    match file {
        Some(path) if answer.result => {
            std::fs::write(&path, &answer.cfg)
                .map_err(|error| CtlError::Usage(format!("write {}: {error}", path.display())))?;
            eprintln!("written to {}", path.display());
        }
        _ => emit("pb.GetCfgResponse", &answer, out)?,
    }
    Ok(Verdict::of(answer.result, &[]))
}

/// list-member.
pub async fn list_member(
    mut session: Session,
    (leader, master, worker): (bool, bool, bool),
    names: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let request = pb::ListMemberRequest { leader, master, worker, names };
    let answer = session.master.list_member(request).await?.into_inner();
    emit("pb.ListMemberResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}

/// offline-member.
pub async fn offline_member(
    mut session: Session,
    master: bool,
    name: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let kind = if master { "master" } else { "worker" };
    let request = pb::OfflineMemberRequest { r#type: kind.to_owned(), name };
    let answer = session.master.offline_member(request).await?.into_inner();
    emit("pb.OfflineMemberResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}

/// operate-leader.
pub async fn operate_leader(
    mut session: Session,
    operation: LeaderVerb,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let op = match operation {
        LeaderVerb::Evict => pb::LeaderOp::EvictLeaderOp,
        LeaderVerb::CancelEvict => pb::LeaderOp::CancelEvictLeaderOp,
    };
    let answer = session.master.operate_leader(pb::OperateLeaderRequest { op: op.into() }).await?.into_inner();
    emit("pb.OperateLeaderResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}

/// shard-ddl-lock.
pub async fn shard_ddl_lock(
    mut session: Session,
    task: Option<String>,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let task = task.as_deref().map(task_name).transpose()?.unwrap_or_default();
    let answer = session.master.show_ddl_locks(pb::ShowDdlLocksRequest { task, sources }).await?.into_inner();
    emit("pb.ShowDDLLocksResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}

/// shard-ddl-lock unlock.
pub async fn unlock_ddl_lock(
    mut session: Session,
    unlock: Unlock,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let op = match unlock.action {
        LockAction::Skip => pb::UnlockDdlLockOp::SkipLock,
        LockAction::Exec => pb::UnlockDdlLockOp::ExecLock,
    };
    let request = pb::UnlockDdlLockRequest {
        id: unlock.lock_id,
        replace_owner: unlock.owner,
        force_remove: unlock.force_remove,
        op: op.into(),
        sources,
        database: unlock.database,
        table: unlock.table,
    };
    let answer = session.master.unlock_ddl_lock(request).await?.into_inner();
    emit("pb.UnlockDDLLockResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &[]))
}

/// decrypt: prints the plain text alone.
pub async fn decrypt(
    mut session: Session,
    ciphertext: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let answer = session.master.decrypt(pb::DecryptRequest { ciphertext }).await?.into_inner();
    if !answer.result {
        return Err(CtlError::Refused(answer.msg));
    }
    writeln!(out, "{}", answer.plaintext)?;
    Ok(Verdict::Done)
}

/// encrypt: prints the cipher text alone.
pub async fn encrypt(
    mut session: Session,
    plaintext: String,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let answer = session.master.encrypt(pb::EncryptRequest { plaintext }).await?.into_inner();
    if !answer.result {
        return Err(CtlError::Refused(answer.msg));
    }
    writeln!(out, "{}", answer.ciphertext)?;
    Ok(Verdict::Done)
}

/// binlog skip, replace, revert, inject, list.
pub async fn binlog(
    mut session: Session,
    command: BinlogCommand,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let (op, place, sqls) = match command {
        BinlogCommand::Skip(place) => (pb::ErrorOp::Skip, place, Vec::new()),
        BinlogCommand::Replace { place, sqls } => (pb::ErrorOp::Replace, place, statements::split(&sqls)),
        BinlogCommand::Revert(place) => (pb::ErrorOp::Revert, place, Vec::new()),
        BinlogCommand::Inject { place, sqls } => (pb::ErrorOp::Inject, place, statements::split(&sqls)),
        BinlogCommand::List(place) => (pb::ErrorOp::List, place, Vec::new()),
    };
    let EventPlace { task, binlog_pos } = place;
    check_place(&binlog_pos)?;
    let request = pb::HandleErrorRequest { op: op.into(), task: task_name(&task)?, sources, binlog_pos, sqls };
    let answer = session.master.handle_error(request).await?.into_inner();
    emit("pb.HandleErrorResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

/// `file:offset`, or nothing.
fn check_place(text: &str) -> Result<(), CtlError> {
    let right = |(file, offset): (&str, &str)| !file.is_empty() && offset.parse::<u32>().is_ok();
    if text.is_empty() || text.rsplit_once(':').is_some_and(right) {
        return Ok(());
    }
    Err(CtlError::Usage(format!("--binlog-pos {text}: give file:offset, such as mysql-bin.000003:3270")))
}

/// binlog-schema list, update, delete.
pub async fn binlog_schema(
    mut session: Session,
    command: SchemaCommand,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let about = |op: pb::SchemaOp, place: TablePlace| -> Result<pb::OperateSchemaRequest, CtlError> {
        let TablePlace { task, database, table } = place;
        let (op, task) = (op.into(), task_name(&task)?);
        Ok(pb::OperateSchemaRequest { op, task, sources, database, table, ..Default::default() })
    };
    let request = match command {
        SchemaCommand::List(place) => about(pb::SchemaOp::GetSchema, place)?,
        SchemaCommand::Delete(place) => about(pb::SchemaOp::RemoveSchema, place)?,
        SchemaCommand::Update { place, file, from_source, from_target, flush, sync } => {
            let schema = file.map(|path| read_file(&path)).transpose()?.unwrap_or_default();
            let about = about(pb::SchemaOp::SetSchema, place)?;
            pb::OperateSchemaRequest { schema, flush, sync, from_source, from_target, ..about }
        }
    };
    let answer = session.master.operate_schema(request).await?.into_inner();
    emit("pb.OperateSchemaResponse", &answer, out)?;
    Ok(Verdict::of(answer.result, &answer.sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_checked_before_anybody_is_asked() {
        for right in ["", "mysql-bin.000003:3270", "mysql-bin|000001.000003:4"] {
            assert!(check_place(right).is_ok(), "{right:?} was refused");
        }
        for wrong in ["xyz", ":4", "mysql-bin.000003:", "mysql-bin.000003:x", "mysql-bin.000003:-1"] {
            assert!(check_place(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
