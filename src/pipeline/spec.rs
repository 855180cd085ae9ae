//! What a pipeline is made of: all that a task says, compiled and connected.

use std::sync::Arc;
use std::time::Duration;

use super::declared::DeclaredStore;
use super::exceptions::Exceptions;
use super::guide::Begun;
use super::pace::Paces;
use crate::checkpoint::Ledger;
use crate::meta::MetaTables;
use crate::model::{Flavor, Location, SourceTable};
use crate::mysql::Endpoint;
use crate::relay::Relay;
use crate::snapshot::CopyOptions;
use crate::transform::{Rules, Transform};

/// What a pipeline is made of.
#[derive(Clone)]
pub struct PipelineSpec {
    /// Name under which the relay log is protected.
    pub name: String,
    /// Dialect of the source.
    pub flavor: Flavor,
    /// The source, asked only what a checkpoint does not tell.
    pub source: Endpoint,
    /// The source's relay log.
    pub relay: Relay,
    /// Rules for names.
    pub rules: Rules,
    /// The same, compiled.
    pub transform: Arc<Transform>,
    /// The downstream.
    pub downstream: Endpoint,
    /// The task's tables there.
    pub tables: MetaTables,
    /// `worker-count`.
    pub lanes: u32,
    /// Where to start if nothing is stored; `None` where a copy finds that out.
    pub fresh_start: Option<Location>,
    /// Up to here rows may be downstream already, if nothing is stored.
    pub fresh_safe: Option<Location>,
    /// `checkpoint-flush-interval`.
    pub flush_interval: Duration,
    /// How long a pause waits for the end of a large transaction.
    pub drain_limit: Duration,
    /// `safe-mode`.
    pub always_safe: bool,
    /// `safe-mode-duration`.
    pub safe_duration: Duration,
    /// What this machine keeps of its positions.
    pub ledger: Arc<dyn Ledger>,
    /// Another worker may take the task over: its positions must be downstream.
    pub moves: bool,
    /// Events that are treated otherwise than logged.
    pub exceptions: Arc<Exceptions>,
    /// What is declared of the source's tables.
    pub declared: Arc<dyn DeclaredStore>,
    /// What becomes of existing rows.
    pub copy: CopyPlan,
    /// Tables that an operator wants read again.
    pub orders: Vec<SourceTable>,
    /// What the task's former pipelines learned of how much the downstream takes.
    pub paces: Paces,
}

impl PipelineSpec {
    /// The downstream, as the ledger names it.
    pub fn target(&self) -> String {
        target_of(&self.downstream)
    }
}

/// Host and port of a downstream.
pub fn target_of(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host, endpoint.port)
}

/// What a task does about existing rows.
#[derive(Clone)]
pub struct CopyPlan {
    /// They are copied before the binlog is followed.
    pub copies: bool,
    /// The task ends where the target equals the source at one place.
    pub ends: bool,
    /// How they are copied.
    pub options: CopyOptions,
    /// Told where the binlog begins to count.
    pub begun: Begun,
}
