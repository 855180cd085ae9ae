//! config: one configuration, or all of them to files and back.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::args::{ConfigCommand, Configuration};
use super::cluster;
use super::connect::Session;
use super::error::CtlError;
use super::{Verdict, read_file};
use crate::control::proto::pb;

/// Below the directory of an export.
const SOURCES: &str = "sources";
/// The same for tasks.
const TASKS: &str = "tasks";

/// One of its subcommands.
pub async fn run(
    session: Session,
    command: ConfigCommand,
    only: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let (kind, Configuration { name, path }) = match command {
        ConfigCommand::Export { path } => return export(session, &path, out).await,
        ConfigCommand::Import { path } => return import(session, &path, only, out).await,
        ConfigCommand::Task(which) => (pb::CfgType::TaskType, which),
        ConfigCommand::Source(which) => (pb::CfgType::SourceType, which),
        ConfigCommand::Worker(which) => (pb::CfgType::WorkerType, which),
        ConfigCommand::Master(which) => (pb::CfgType::MasterType, which),
        ConfigCommand::TaskTemplate(which) => (pb::CfgType::TaskTemplateType, which),
    };
    cluster::show_config(session, kind, name, path, out).await
}

async fn export(mut session: Session, directory: &Path, out: &mut (dyn Write + Send)) -> Result<Verdict, CtlError> {
    let sources = session.master.list_source_configs(()).await?.into_inner();
    let tasks = session.master.list_task_configs(()).await?.into_inner();
    for (result, msg) in [(sources.result, sources.msg), (tasks.result, tasks.msg)] {
        if !result {
            return Err(CtlError::Refused(msg));
        }
    }
    let write = |kind: &str, name: &str, text: &str| {
        let path = directory.join(kind).join(file_name(name)?);
        let wrong = |error| CtlError::Usage(format!("write {}: {error}", path.display()));
        std::fs::create_dir_all(directory.join(kind)).map_err(wrong)?;
        write_secret(&path, text).map_err(wrong)
    };
    sources.source_configs.iter().try_for_each(|(name, text)| write(SOURCES, name, text))?;
    tasks.task_configs.iter().try_for_each(|(name, text)| write(TASKS, name, text))?;
    let (some, more) = (sources.source_configs.len(), tasks.task_configs.len());
    writeln!(out, "export configs to directory `{}` succeed", directory.display())?;
    if session.agent.is_some() && some + more > 0 {
        eprintln!("note: passwords are masked; put them in before the files are imported");
    }
    Ok(Verdict::Done)
}

/// A master's files have passwords in them: only their owner may read them, also one that was there before.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Names of sources and tasks come from elsewhere: none may lead out of the directory.
fn file_name(name: &str) -> Result<String, CtlError> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(CtlError::Usage(format!("{name:?} cannot be the name of a file; show it with `config source`")));
    }
    Ok(format!("{name}.yaml"))
}

/// Everything is read, and looked at for masks, before anything is created.
async fn import(
    mut session: Session,
    directory: &Path,
    only: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let (sources, tasks) = (files(&directory.join(SOURCES))?, files(&directory.join(TASKS))?);
    if sources.is_empty() && tasks.is_empty() {
        let what = format!("{}: there is no {SOURCES}/*.yaml and no {TASKS}/*.yaml", directory.display());
        return Err(CtlError::Usage(format!("{what}; give the directory of a `config export` with --path")));
    }
    for (path, text) in sources.iter().chain(&tasks) {
        if text.contains(crate::config::MASK) {
            let what = format!("{}: a password is masked", path.display());
            return Err(CtlError::Usage(format!("{what}; put it in, then import again")));
        }
    }
    for (path, config) in sources {
        let op = pb::SourceOp::StartSource.into();
        let request = pb::OperateSourceRequest { op, config: vec![config], ..Default::default() };
        let answer = session.master.operate_source(request).await?.into_inner();
        if Verdict::of(answer.result, &answer.sources) == Verdict::Refused {
            return refused(&path, &answer.msg, &answer.sources);
        }
        writeln!(out, "created the source of {}", path.display())?;
    }
    for (path, task) in tasks {
        let request = pb::StartTaskRequest { task, sources: only.clone(), ..Default::default() };
        let answer = session.master.start_task(request).await?.into_inner();
        if Verdict::of(answer.result, &answer.sources) == Verdict::Refused {
            return refused(&path, &answer.msg, &answer.sources);
        }
        writeln!(out, "started the task of {}", path.display())?;
    }
    Ok(Verdict::Done)
}

/// What was created before stays: the next import says that it exists.
fn refused(path: &Path, msg: &str, sources: &[pb::CommonWorkerResponse]) -> Result<Verdict, CtlError> {
    let of_sources = sources.iter().filter(|source| !source.result).map(|source| source.msg.as_str());
    let texts: Vec<&str> = std::iter::once(msg).chain(of_sources).filter(|text| !text.is_empty()).collect();
    Err(CtlError::Refused(format!("{}: {}", path.display(), texts.join("; "))))
}

fn files(directory: &Path) -> Result<Vec<(PathBuf, String)>, CtlError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CtlError::Usage(format!("read {}: {error}", directory.display()))),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    paths.sort();
    paths.into_iter().map(|path| read_file(&path).map(|text| (path, text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_their_owner_reads_exported_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.yaml");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write_secret(&path, "password: longer").unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_secret(&path, "password: p").unwrap();
        assert_eq!((mode(), std::fs::read_to_string(&path).unwrap().as_str()), (0o600, "password: p"));
    }

    #[test]
    fn names_stay_in_their_directory() {
        assert_eq!(file_name("mysql-01").unwrap(), "mysql-01.yaml");
        for name in ["", "../x", "a/b", ".hidden", "a\0b"] {
            assert!(file_name(name).is_err(), "{name:?}");
        }
    }
}
