//! Arguments of the commands about configurations.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Which configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigKind {
    /// A task's.
    Task,
    /// A source's.
    Source,
    /// A worker's own.
    Worker,
    /// A master's own.
    Master,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// A task's, as it holds.
    Task(Configuration),
    /// A source's.
    Source(Configuration),
    /// A worker's own.
    Worker(Configuration),
    /// A master's own.
    Master(Configuration),
    /// A task template of DM's web interface (through a dm-master).
    TaskTemplate(Configuration),
    /// Write all sources and tasks to files: sources/<id>.yaml and tasks/<name>.yaml.
    ///
    /// An agent masks passwords: put them in before the files are imported anywhere.
    #[command(after_help = "Example:\n  dm-agentctl config export --path backup")]
    Export {
        /// Directory; made where missing.
        #[arg(short, long, default_value = "configs", value_name = "DIR")]
        path: PathBuf,
    },
    /// Create the sources and start the tasks that `config export` wrote.
    #[command(after_help = "Example:\n  dm-agentctl config import --path backup")]
    Import {
        /// Directory.
        #[arg(short, long, default_value = "configs", value_name = "DIR")]
        path: PathBuf,
    },
}

/// Which configuration, and where to.
#[derive(Debug, Args)]
pub struct Configuration {
    /// Its name.
    pub name: String,
    /// Write it to this file.
    #[arg(short, long, value_name = "FILE")]
    pub path: Option<PathBuf>,
}
