//! Arguments of the commands about single events and about what their rows look like, with their old forms.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Where an event is, for `binlog`.
#[derive(Debug, Args)]
pub struct EventPlace {
    /// Task name, or its file.
    pub task: String,
    /// Position as file:offset; without it, the event that the task stopped at.
    #[arg(short, long, default_value = "", value_name = "FILE:OFFSET")]
    pub binlog_pos: String,
}

/// `binlog`.
#[derive(Debug, Subcommand)]
pub enum BinlogCommand {
    /// Leave the event out.
    Skip(EventPlace),
    /// Run these DDL statements in its place.
    Replace {
        /// Where.
        #[command(flatten)]
        place: EventPlace,
        /// Statements, with semicolons between them.
        #[arg(required = true)]
        sqls: Vec<String>,
    },
    /// Take an earlier skip, replace or inject back.
    Revert(EventPlace),
    /// Run these DDL statements before it.
    Inject {
        /// Where.
        #[command(flatten)]
        place: EventPlace,
        /// Statements, with semicolons between them.
        #[arg(required = true)]
        sqls: Vec<String>,
    },
    /// What is registered at or behind the position.
    List(EventPlace),
}

/// A table, for `binlog-schema`.
#[derive(Debug, Args)]
pub struct TablePlace {
    /// Task name, or its file.
    pub task: String,
    /// Upstream database.
    pub database: String,
    /// Upstream table.
    pub table: String,
}

/// `binlog-schema`.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Show it.
    List(TablePlace),
    /// Set it, from a file with a CREATE TABLE statement or from a server.
    Update {
        /// Which.
        #[command(flatten)]
        place: TablePlace,
        /// File with the statement.
        #[arg(required_unless_present_any = ["from_source", "from_target"])]
        file: Option<PathBuf>,
        /// Take it from the source.
        #[arg(long, conflicts_with_all = ["from_target", "file"])]
        from_source: bool,
        /// Take it from the downstream.
        #[arg(long, conflicts_with = "file")]
        from_target: bool,
        /// Write the checkpoint at once; --flush=false: not.
        #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        flush: bool,
        /// Tell the master, for optimistic shard merging; --sync=false: not.
        #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        sync: bool,
    },
    /// Forget it.
    Delete(TablePlace),
}

/// What the old handle-error does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OldErrorVerb {
    /// Leave the event out.
    Skip,
    /// Run other statements in its place.
    Replace,
    /// Take it back.
    Revert,
}

/// What the old operate-schema does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OldSchemaVerb {
    /// Show it.
    Get,
    /// Set it.
    Set,
    /// Forget it.
    Remove,
}
