//! Commands and output of dm-agentctl.
//!
//! ```text
//! args ─► connect ─► tasks, sources, cluster (dmctl's commands) ─► json ─► standard output
//!                └─► own (status, log-level, events, resync)    ─► screen ─┘
//! ```
//! Owns no state. Invariant: standard output holds the answer and nothing else, in dmctl's JSON where dmctl has the
//! command; everything said besides goes to standard error. What an answer means for a script is the exit code.

mod args;
mod cluster;
mod configs;
mod connect;
mod duration;
mod error;
pub mod json;
mod old;
mod own;
mod screen;
mod sources;
mod statements;
mod table;
mod tasks;
mod validation;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use connect::Session;
use error::CtlError;

use crate::control::proto::pb::CommonWorkerResponse;

/// What an answer says as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All done.
    Done,
    /// Refused, or failed on a source at least.
    Refused,
}

impl Verdict {
    fn of(result: bool, sources: &[CommonWorkerResponse]) -> Verdict {
        if result && sources.iter().all(|source| source.result) { Verdict::Done } else { Verdict::Refused }
    }
}

/// Runs a command line; the exit code is in its help text.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args::gos_switches(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // When even this cannot be printed, the code still says it.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 1 } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: make a runtime: {error}");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(run(cli, &mut io::stdout())) {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Refused) => ExitCode::from(2),
        // A closed pipe, as of `| head`, is the reader's choice.
        Err(CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli, out: &mut (dyn Write + Send)) -> Result<Verdict, CtlError> {
    check_usage(&cli)?;
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dm-agentctl", &mut script);
            out.write_all(&script)?;
            Ok(Verdict::Done)
        }
        Command::OperateSource { print_sample_config: true, .. } => {
            out.write_all(sources::SAMPLE.as_bytes())?;
            Ok(Verdict::Done)
        }
        command => {
            let session = connect::open(&cli.target).await?;
            dispatch(command, session, cli.sources, out).await
        }
    }
}

/// What the grammar cannot say.
fn check_usage(cli: &Cli) -> Result<(), CtlError> {
    let usage = |command: &str, what: &str| {
        let mut grammar = Cli::command();
        // Gives each command its whole name.
        grammar.build();
        let text = grammar.find_subcommand_mut(command).map(|c| c.render_long_help().to_string()).unwrap_or_default();
        Err(CtlError::Usage(format!("{what}\n\n{text}")))
    };
    let one_source = "give a task, or one source with -s whose tasks are all meant";
    match &cli.command {
        Command::PauseTask(choice) if choice.task.is_none() && cli.sources.len() != 1 => {
            usage("pause-task", one_source)
        }
        Command::ResumeTask(choice) if choice.task.is_none() && cli.sources.len() != 1 => {
            usage("resume-task", one_source)
        }
        Command::StopTask(choice) if choice.task.is_none() && cli.sources.len() != 1 => usage("stop-task", one_source),
        Command::PauseRelay if cli.sources.is_empty() => usage("pause-relay", "name the source with -s"),
        Command::ResumeRelay if cli.sources.is_empty() => usage("resume-relay", "name the source with -s"),
        Command::PurgeRelay { .. } if cli.sources.is_empty() => usage("purge-relay", "name the source with -s"),
        Command::StartRelay { .. } if cli.sources.len() != 1 => usage("start-relay", "name one source with -s"),
        Command::StopRelay { .. } if cli.sources.len() != 1 => usage("stop-relay", "name one source with -s"),
        Command::OperateSchema { .. } if cli.sources.is_empty() => usage("operate-schema", "name the source with -s"),
        Command::BinlogSchema(_) if cli.sources.is_empty() => usage("binlog-schema", "name the source with -s"),
        _ => Ok(()),
    }
}

async fn dispatch(
    command: Command,
    session: Session,
    only: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    match command {
        Command::Status { watch, json, interval } => own::status(session, watch.then_some(interval.0), json, out).await,
        Command::LogLevel { level } => own::log_level(session, level, out).await,
        Command::Events { follow, last } => own::events(session, follow, last, out).await,
        Command::ResyncTable { task, table } => own::resync_table(session, task, table, only, out).await,
        Command::StartTask { file, remove_meta, start_time } => {
            tasks::start(session, &file, only, remove_meta, start_time, out).await
        }
        Command::UpdateTask { file } => tasks::update(session, &file, only, out).await,
        Command::CheckTask { file, error, warn, start_time } => {
            tasks::check(session, &file, error, warn, start_time, out).await
        }
        Command::PauseTask(choice) => tasks::operate(session, tasks::Op::Pause, choice, only, out).await,
        Command::ResumeTask(choice) => tasks::operate(session, tasks::Op::Resume, choice, only, out).await,
        Command::StopTask(choice) => tasks::operate(session, tasks::Op::Stop, choice, only, out).await,
        Command::QueryStatus { task, more } => tasks::query(session, task, more, only, out).await,
        Command::OperateSource { operation, files, worker, .. } => {
            sources::operate(session, operation, &files, worker, only, out).await
        }
        Command::StartRelay { workers } => sources::relay(session, true, only, workers, out).await,
        Command::StopRelay { workers } => sources::relay(session, false, only, workers, out).await,
        Command::PauseRelay => sources::park_relay(session, true, only, out).await,
        Command::ResumeRelay => sources::park_relay(session, false, only, out).await,
        Command::PurgeRelay { filename, sub_dir } => sources::purge(session, only, filename, sub_dir, out).await,
        Command::TransferSource { source_id, worker } => sources::transfer(session, source_id, worker, out).await,
        Command::GetConfig { kind, name, file } => cluster::get_config(session, kind, name, file, out).await,
        Command::ListMember { leader, master, worker, name } => {
            cluster::list_member(session, (leader, master, worker), name, out).await
        }
        Command::OfflineMember { master, name, .. } => cluster::offline_member(session, master, name, out).await,
        Command::OperateLeader { operation } => cluster::operate_leader(session, operation, out).await,
        Command::ShardDdlLock { command: Some(args::LockCommand::Unlock(unlock)), .. }
        | Command::UnlockDdlLock(unlock) => cluster::unlock_ddl_lock(session, unlock, only, out).await,
        Command::ShardDdlLock { task, .. } => cluster::shard_ddl_lock(session, task, only, out).await,
        Command::Encrypt { plain_text } => cluster::encrypt(session, plain_text, out).await,
        Command::Decrypt { cipher_text } => cluster::decrypt(session, cipher_text, out).await,
        Command::Config(command) => configs::run(session, command, only, out).await,
        Command::Validation(command) => validation::run(session, command, only, out).await,
        Command::HandleError { place, operation, sqls } => {
            cluster::binlog(session, old::binlog(operation, place, sqls)?, only, out).await
        }
        Command::OperateSchema { operation, task, file, database, table, flush, sync } => {
            let place = args::TablePlace { task, database, table };
            cluster::binlog_schema(session, old::schema(operation, place, file, flush, sync)?, only, out).await
        }
        Command::Binlog(command) => cluster::binlog(session, command, only, out).await,
        Command::BinlogSchema(command) => cluster::binlog_schema(session, command, only, out).await,
        // Answered before anything was connected.
        Command::Completions { .. } => Ok(Verdict::Done),
    }
}

/// Prints an answer as dmctl would.
fn emit<M: prost::Message>(full_name: &str, answer: &M, out: &mut (dyn Write + Send)) -> Result<(), CtlError> {
    let text = json::print(full_name, answer)
        .ok_or_else(|| CtlError::Unreachable(format!("the answer cannot be printed as {full_name}")))?;
    Ok(out.write_all(text.as_bytes())?)
}

fn read_file(path: &Path) -> Result<String, CtlError> {
    std::fs::read_to_string(path).map_err(|error| CtlError::Usage(format!("read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
