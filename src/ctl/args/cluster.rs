//! Arguments of the commands that a dm-master has a say over: its leadership, locks of shard DDL, validation.

use clap::{Args, Subcommand, ValueEnum};

/// What to do with the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LeaderVerb {
    /// Give it up, and do not take it again.
    Evict,
    /// Take it again if elected.
    CancelEvict,
}

/// `shard-ddl-lock`.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Resolve one by force.
    Unlock(Unlock),
}

/// Which lock, and how to resolve it.
#[derive(Debug, Args)]
pub struct Unlock {
    /// As the list shows it.
    pub lock_id: String,
    /// Source that executes the statements in place of the owner.
    #[arg(short, long, default_value = "", value_name = "SOURCE-ID")]
    pub owner: String,
    /// Remove it even if that fails.
    #[arg(short, long)]
    pub force_remove: bool,
    /// Leave the statements out, or execute them.
    #[arg(short, long, value_enum, default_value = "skip")]
    pub action: LockAction,
    /// Database of the table.
    #[arg(short, long, default_value = "")]
    pub database: String,
    /// Table.
    #[arg(short, long, default_value = "")]
    pub table: String,
}

/// What becomes of a lock's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LockAction {
    /// Leave them out.
    Skip,
    /// Execute them.
    Exec,
}

/// `validation`.
#[derive(Debug, Subcommand)]
pub enum ValidationCommand {
    /// Begin, or go on.
    Start {
        /// Task name.
        #[arg(required_unless_present = "all_task", conflicts_with = "all_task")]
        task: Option<String>,
        /// Every task.
        #[arg(long)]
        all_task: bool,
        /// full or fast.
        #[arg(long)]
        mode: Option<String>,
        /// From this time of the binlog on.
        #[arg(long, value_name = "TIME")]
        start_time: Option<String>,
    },
    /// Stop.
    Stop {
        /// Task name.
        #[arg(required_unless_present = "all_task", conflicts_with = "all_task")]
        task: Option<String>,
        /// Every task.
        #[arg(long)]
        all_task: bool,
    },
    /// How far it is, table by table.
    Status {
        /// Task name.
        task: String,
        /// Only tables in this stage: running or stopped.
        #[arg(long, value_enum)]
        table_stage: Option<TableStage>,
    },
    /// Rows that differ.
    ShowError {
        /// Task name.
        task: String,
        /// Which.
        #[arg(long, value_enum, default_value = "unprocessed")]
        error: ErrorState,
    },
    /// Take differences for unimportant.
    IgnoreError(ErrorChoice),
    /// Take differences for repaired.
    ResolveError(ErrorChoice),
    /// Forget differences.
    ClearError(ErrorChoice),
    /// Move the place up to which rows are compared.
    Update {
        /// Task name.
        task: String,
        /// As file:offset.
        #[arg(long, default_value = "", value_name = "FILE:OFFSET")]
        cutover_binlog_pos: String,
        /// As a GTID set.
        #[arg(long, default_value = "", value_name = "SET")]
        cutover_binlog_gtid: String,
    },
}

/// A stage of validating a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableStage {
    /// Being compared.
    Running,
    /// No more.
    Stopped,
}

/// Which differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ErrorState {
    /// All.
    All,
    /// Those ignored.
    Ignored,
    /// Those that nobody looked at.
    Unprocessed,
}

/// One difference, or all of a task.
#[derive(Debug, Args)]
pub struct ErrorChoice {
    /// Task name.
    pub task: String,
    /// Its number.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub id: Option<u64>,
    /// All.
    #[arg(long)]
    pub all: bool,
}
