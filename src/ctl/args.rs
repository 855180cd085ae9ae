//! The command line's grammar and its help texts.
//!
//! Names and flags are dmctl's where dmctl has the command, so that scripts keep working; the
//! words are our own. Parsing only: nothing here acts. This file has the commands; what families of them take stands beside.

mod cluster;
mod configs;
mod events;
mod switches;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::cluster::*;
pub use self::configs::*;
pub use self::events::*;
pub use self::switches::gos_switches;
use super::duration::GoDuration;
use super::table::TableArg;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  wrong usage, or nobody could be reached
  2  an answer came, and it was a refusal or a failure of at least one source
     (dmctl exits with 0 here; the JSON on standard output is the same)

Without --master-addr the agent on this machine is asked: over --socket, else
over $DM_AGENT_SOCKET, else over the first in use of
  $XDG_RUNTIME_DIR/dm-agent/admin.sock
  admin.sock in your state directory (~/.local/state/dm-agent)
  /run/dm-agent/admin.sock
  the socket of the one worker of a cluster that runs here

Start with `dm-agentctl status`.";

/// Look after a dm-agent: create sources, start tasks, park them, see how they are.
#[derive(Debug, Parser)]
#[command(name = "dm-agentctl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// Only these sources; may be given again, or as a list with commas.
    #[arg(short = 's', long = "source", global = true, value_delimiter = ',', value_name = "SOURCE-ID")]
    pub sources: Vec<String>,
    /// Whom to ask, and how.
    #[command(flatten)]
    pub target: Target,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Whom to ask, and how.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Connection")]
pub struct Target {
    /// Admin socket of the agent.
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Ask a dm-master instead: host:port, several with commas.
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "socket")]
    pub master_addr: Option<String>,
    /// How long to wait for an answer, such as 30s or 10m [default: 10m].
    #[arg(long, global = true, value_name = "DURATION")]
    pub rpc_timeout: Option<GoDuration>,
    /// CA certificates that the dm-master's is checked against, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub ssl_ca: Option<PathBuf>,
    /// Our certificate for the dm-master, PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "ssl_key")]
    pub ssl_cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "ssl_cert")]
    pub ssl_key: Option<PathBuf>,
    /// TOML file with master-addr, rpc-timeout, ssl-ca, ssl-cert, ssl-key; the command line goes first.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How everything is, on one screen.
    ///
    /// For each source: whether it receives, up to where, how full the relay log is, and until when it is safe to stay
    /// parked. For each task: its stage, why it is parked and by whom, what is applied, how far behind, when it will
    /// have caught up, and what went wrong with what to do about it.
    #[command(after_help = "Example:\n  dm-agentctl status --watch")]
    Status {
        /// Again and again, until interrupted; shows the progress of a catch-up.
        #[arg(short, long)]
        watch: bool,
        /// As JSON; with --watch one object after the other.
        #[arg(long)]
        json: bool,
        /// Between two looks with --watch, 200ms at least.
        #[arg(long, default_value = "1s", value_name = "DURATION")]
        interval: GoDuration,
    },
    /// Add, change, remove or list sources.
    ///
    /// A source is an upstream MySQL or MariaDB server, described by a YAML file in DM's form. It must have no tasks
    /// when it is removed.
    #[command(
        after_help = "Examples:\n  dm-agentctl operate-source create mysql-01.yaml\n  dm-agentctl operate-source stop -s mysql-01\n  dm-agentctl operate-source show"
    )]
    OperateSource {
        /// What to do with it.
        #[arg(value_enum, required_unless_present = "print_sample_config")]
        operation: Option<SourceVerb>,
        /// Source files; for stop, -s with the source's id does as well.
        files: Vec<PathBuf>,
        /// Bind the new source to this worker.
        #[arg(short, long, value_name = "NAME")]
        worker: Option<String>,
        /// Print a source file to start from, and do nothing else.
        #[arg(short, long)]
        print_sample_config: bool,
    },
    /// Start a task from its YAML file.
    ///
    /// Goes on from the task's checkpoint if there is one, else from where the file's `meta` or --start-time says.
    /// Refused while a task of that name exists, paused or running.
    #[command(after_help = "Example:\n  dm-agentctl start-task task.yaml --start-time '2026-11-22 14:00:00'")]
    StartTask {
        /// Task file.
        file: PathBuf,
        /// Forget the task's checkpoint first.
        #[arg(long)]
        remove_meta: bool,
        /// Start at this time of the binlog, in the time zone of the task or the source: '2026-11-22 14:00:00' or
        /// 2026-11-22T14:00:00.
        #[arg(long, default_value = "", value_name = "TIME")]
        start_time: String,
    },
    /// Give a task a new login for its downstream, from its YAML file.
    ///
    /// The task stays as it is, parked or running; a running one takes the new login at the end of a transaction. Nothing
    /// but user, password, security and session of `target-database` may differ from the file it was started with.
    #[command(after_help = "Example:\n  dm-agentctl update-task task.yaml")]
    UpdateTask {
        /// Task file.
        file: PathBuf,
    },
    /// Check a task file against its source and downstream, and change nothing.
    #[command(after_help = "Example:\n  dm-agentctl check-task task.yaml")]
    CheckTask {
        /// Task file.
        file: PathBuf,
        /// Most errors to show.
        #[arg(short, long, default_value_t = 10)]
        error: i64,
        /// Most warnings to show.
        #[arg(short, long, default_value_t = 10)]
        warn: i64,
        /// The time that the task would be started at.
        #[arg(long, default_value = "", value_name = "TIME")]
        start_time: String,
    },
    /// Park a task: receiving goes on, applying stops.
    ///
    /// It stops at the end of a transaction, with an exact checkpoint. While parked the relay log keeps receiving, so
    /// the source may purge its binlogs; `status` says until when that is safe. It stays parked over restarts until
    /// resume-task, whatever else happens.
    #[command(
        after_help = "Examples:\n  dm-agentctl pause-task t1\n  dm-agentctl pause-task task.yaml\n  dm-agentctl pause-task -s mysql-01     (every task of that source)"
    )]
    PauseTask(TaskChoice),
    /// Let a parked task go on from its checkpoint.
    ///
    /// Clears what it failed with and takes back the operator's pause. It stays parked if another reason holds, such
    /// as a full disk; `status` says which.
    #[command(
        after_help = "Examples:\n  dm-agentctl resume-task t1\n  dm-agentctl resume-task -s mysql-01    (every task of that source)"
    )]
    ResumeTask(TaskChoice),
    /// End a task: its status and the protection of its relay log go.
    ///
    /// Replicated data and the checkpoint in dm_meta stay; start-task with the same name goes on from there.
    #[command(
        after_help = "Examples:\n  dm-agentctl stop-task t1\n  dm-agentctl stop-task -s mysql-01      (every task of that source)"
    )]
    StopTask(TaskChoice),
    /// The status in DM's form: of all tasks in short, of one task or source in full.
    #[command(after_help = "Examples:\n  dm-agentctl query-status\n  dm-agentctl query-status t1")]
    QueryStatus {
        /// Task name, or its file.
        task: Option<String>,
        /// All in full.
        #[arg(long)]
        more: bool,
    },
    /// Receive a source's binlog although no task needs it yet.
    #[command(after_help = "Example:\n  dm-agentctl start-relay -s mysql-01")]
    StartRelay {
        /// Workers, in a cluster that names them.
        workers: Vec<String>,
    },
    /// Receive only what tasks need.
    #[command(after_help = "Example:\n  dm-agentctl stop-relay -s mysql-01")]
    StopRelay {
        /// Workers, in a cluster that names them.
        workers: Vec<String>,
    },
    /// Stop receiving from a source. Mind the source's own purge.
    #[command(after_help = "Example:\n  dm-agentctl pause-relay -s mysql-01")]
    PauseRelay,
    /// Receive again after pause-relay.
    #[command(after_help = "Example:\n  dm-agentctl resume-relay -s mysql-01")]
    ResumeRelay,
    /// Remove relay log before a binlog file, as far as no task needs it.
    #[command(after_help = "Example:\n  dm-agentctl purge-relay -s mysql-01 -f mysql-bin.000006")]
    PurgeRelay {
        /// The first file to keep.
        #[arg(short, long)]
        filename: String,
        /// Relay directory the name is of, such as <server-uuid>.000001.
        #[arg(long, default_value = "")]
        sub_dir: String,
    },
    /// Show a configuration as it holds, passwords masked.
    #[command(
        visible_alias = "get-task-config",
        after_help = "Example:\n  dm-agentctl get-config task t1 --file t1.yaml"
    )]
    GetConfig {
        /// Of what.
        #[arg(value_enum)]
        kind: ConfigKind,
        /// Its name.
        name: String,
        /// Write it to this file.
        #[arg(short, long)]
        file: Option<PathBuf>,
    },
    /// List members: of an agent itself, or of a dm-master's cluster.
    #[command(after_help = "Example:\n  dm-agentctl list-member --worker")]
    ListMember {
        /// Only the leader.
        #[arg(short, long)]
        leader: bool,
        /// Only masters.
        #[arg(short, long)]
        master: bool,
        /// Only workers.
        #[arg(short, long)]
        worker: bool,
        /// Only members of these names.
        #[arg(short, long, value_delimiter = ',')]
        name: Vec<String>,
    },
    /// Change the log level of a running agent.
    #[command(
        after_help = "Examples:\n  dm-agentctl log-level debug\n  dm-agentctl log-level info,relay=debug,apply=warn"
    )]
    LogLevel {
        /// debug, info, warn, error or fatal; levels of single modules behind it, as in info,relay=debug.
        level: String,
    },
    /// Repair one table: read it again from the source while its task runs.
    ///
    /// At the next transaction boundary the task stands still, with everything before applied, and the table's rows
    /// downstream are made those of the source: rows that are missing come, rows that the source does not have go, rows
    /// that differ are replaced. A table with a key goes range by range, each in one transaction, so that whoever reads
    /// it downstream sees the rows as they were or as they are; one without a key is emptied first. Other tables wait
    /// meanwhile, and the relay log receives. Then the task goes on, and replays what was logged while the table was
    /// read.
    ///
    /// `status` shows how far it is. A pause, a crash or another worker in the middle loses nothing: the table is read
    /// from its beginning when the task goes on. It answers when the order is stored, and refuses what is known to fail:
    /// a task that does not follow the binlog now, a table that it does not replicate, a view, other columns downstream,
    /// a source with binlog_row_image other than FULL, a table without a key whose target has rows of others.
    #[command(
        after_help = "Examples:\n  dm-agentctl resync-table t1 shop.orders\n  dm-agentctl resync-table t1 '`my.db`.`t`' -s mysql-01"
    )]
    ResyncTable {
        /// Task name.
        task: String,
        /// The table's name on the source; parts with a dot in them in backticks.
        #[arg(value_name = "SCHEMA.TABLE")]
        table: TableArg,
    },
    /// What happened lately: stages, failures, and who commanded what.
    #[command(after_help = "Example:\n  dm-agentctl events --follow")]
    Events {
        /// Go on with new ones as they happen.
        #[arg(short, long)]
        follow: bool,
        /// The last so many; 0 for all that are kept.
        #[arg(short = 'n', long, default_value_t = 50)]
        last: u32,
    },
    /// Skip, replace or inject events.
    #[command(subcommand)]
    Binlog(BinlogCommand),
    /// Show how a table looks downstream, or say which columns its rows on the source have.
    #[command(subcommand)]
    BinlogSchema(SchemaCommand),
    /// Move a source to another free worker (through a dm-master).
    #[command(after_help = "Example:\n  dm-agentctl transfer-source mysql-01 worker2 --master-addr 10.0.0.1:8261")]
    TransferSource {
        /// Source.
        source_id: String,
        /// Worker that is to have it.
        worker: String,
    },
    /// Remove a member that is gone for good (through a dm-master).
    #[command(
        after_help = "Example:\n  dm-agentctl offline-member --worker --name worker3 --master-addr 10.0.0.1:8261"
    )]
    OfflineMember {
        /// It is a master.
        #[arg(short, long, conflicts_with = "worker", required_unless_present = "worker")]
        master: bool,
        /// It is a worker.
        #[arg(short, long)]
        worker: bool,
        /// Its name.
        #[arg(short, long)]
        name: String,
    },
    /// Make a dm-master give up the leadership, or allow it again.
    #[command(after_help = "Example:\n  dm-agentctl operate-leader evict --master-addr 10.0.0.1:8261")]
    OperateLeader {
        /// What to do.
        #[arg(value_enum)]
        operation: LeaderVerb,
    },
    /// Shard DDL locks that are not resolved (through a dm-master).
    #[command(
        visible_alias = "show-ddl-locks",
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  dm-agentctl shard-ddl-lock --master-addr 10.0.0.1:8261\n  dm-agentctl shard-ddl-lock unlock 't1-`shop`.`orders`' --master-addr 10.0.0.1:8261"
    )]
    ShardDdlLock {
        /// Only of this task.
        task: Option<String>,
        /// To resolve one.
        #[command(subcommand)]
        command: Option<LockCommand>,
    },
    /// Encrypt a password with a dm-master's key.
    #[command(after_help = "Example:\n  dm-agentctl encrypt 'secret' --master-addr 10.0.0.1:8261")]
    Encrypt {
        /// The text.
        plain_text: String,
    },
    /// Decrypt a password with a dm-master's key.
    #[command(hide = true)]
    Decrypt {
        /// The text.
        cipher_text: String,
    },
    /// Show configurations, or write all of them to files and read them back.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Compare what was replicated with the source, row by row (through a dm-master).
    #[command(subcommand)]
    Validation(ValidationCommand),
    /// Old form of `binlog skip`, `replace` and `revert`.
    #[command(hide = true)]
    HandleError {
        /// Where.
        #[command(flatten)]
        place: EventPlace,
        /// What to do.
        #[arg(value_enum)]
        operation: OldErrorVerb,
        /// Statements, for replace.
        sqls: Vec<String>,
    },
    /// Old form of `binlog-schema`.
    #[command(hide = true)]
    OperateSchema {
        /// What to do.
        #[arg(value_enum)]
        operation: OldSchemaVerb,
        /// Task name, or its file.
        task: String,
        /// File with the statement, for set.
        file: Option<PathBuf>,
        /// Upstream database.
        #[arg(short, long)]
        database: String,
        /// Upstream table.
        #[arg(short, long)]
        table: String,
        /// Write the checkpoint at once; --flush=false: not.
        #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        flush: bool,
        /// Tell the master, for optimistic shard merging; --sync=false: not.
        #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        sync: bool,
    },
    /// Old form of `shard-ddl-lock unlock`.
    #[command(hide = true)]
    UnlockDdlLock(Unlock),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  dm-agentctl completions bash > /etc/bash_completion.d/dm-agentctl")]
    Completions {
        /// Which.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Which tasks a command is about.
#[derive(Debug, Args)]
pub struct TaskChoice {
    /// Task name, or its file; without it -s names the source whose tasks are all meant.
    pub task: Option<String>,
    /// With -s alone: so many at a time.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    pub batch_size: u16,
}

/// What to do with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceVerb {
    /// Add it.
    Create,
    /// Change it.
    Update,
    /// Remove it.
    Stop,
    /// List what there is.
    Show,
}
