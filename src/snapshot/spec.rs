//! What a copy is told, and what it tells: plain data.

use std::sync::Arc;

use mysql_async::Conn;

use crate::error::Failure;
use crate::meta::MetaTables;
use crate::model::{Flavor, Location, SourceTable, TargetTable};
use crate::mysql::Endpoint;

/// A copy of one source for one task.
#[derive(Clone)]
pub struct CopySpec {
    /// The source.
    pub source: Endpoint,
    /// Its dialect.
    pub flavor: Flavor,
    /// The downstream, with the task's session variables.
    pub downstream: Endpoint,
    /// The task's tables there.
    pub tables: MetaTables,
    /// What other parts know.
    pub guide: Arc<dyn Guide>,
    /// How it is done.
    pub options: CopyOptions,
}

/// What the copy needs and other stages know.
#[tonic::async_trait]
pub trait Guide: Send + Sync {
    /// Where the rows of a table go; `None` where the task does not want them.
    fn target(&self, table: &SourceTable) -> Result<Option<TargetTable>, Failure>;

    /// Where statements on a whole schema go; `None` where the task does not want them.
    fn schema(&self, schema: &str) -> Result<Option<String>, Failure>;

    /// Schemas, and tables in them, that the task asks for by name.
    fn named(&self) -> Vec<(String, Option<String>)>;

    /// What makes a table, view or database downstream, from its definition as the source prints it with `schema` as the
    /// default; empty where the task does not want it.
    async fn definition(&self, source: &mut Conn, schema: &str, sql: &str) -> Result<Vec<Definition>, Failure>;

    /// Where the source's binlog ends now.
    async fn location(&self, conn: &mut Conn) -> Result<Location, Failure>;

    /// The copy begins, or goes on: what the source logs from here on will be needed. Returns when it is certain that it will
    /// be there.
    async fn begun(&self, location: &Location) -> Result<(), Failure>;
}

/// A statement that makes something downstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The text, all names qualified.
    pub sql: String,
    /// The `sql_mode` flags that decide how it reads.
    pub sql_modes: Vec<&'static str>,
}

/// What of the time a copy takes at least while others use the source, in percent.
pub const YIELD_FLOOR: u32 = 20;

/// How a copy is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// Connections that read, each one table at a time (`mydumpers.threads`).
    pub readers: usize,
    /// Connections that write, at most (`loaders.pool-size`).
    pub writers: usize,
    /// What becomes of rows that are there before the copy (`loaders.on-duplicate-logical`).
    pub existing: Existing,
    /// Bytes of one statement at most (`--statement-size`); `None` for our own measure. A row is never cut.
    pub statement_bytes: Option<usize>,
    /// Rows of one chunk at most (`mydumpers.rows`); `None` for as many as are written in about 100 ms.
    pub chunk_rows: Option<u64>,
    /// Bytes of one chunk at most (`mydumpers.chunk-filesize`); `None` for our own measure.
    pub chunk_bytes: Option<usize>,
    /// Rows that are wanted, as the condition of a WHERE (`--where`); `None` for all.
    pub condition: Option<String>,
    /// Whether views are made too (`--no-views` is DM's default).
    pub views: bool,
    /// While others use the source: percent of the time that it reads or writes one chunk at least. From 100 on it does not yield.
    pub yield_floor: u32,
    /// Tables get the collations that they have on the source, or none are made.
    pub strict_collation: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        CopyOptions {
            readers: 4,
            writers: 16,
            existing: Existing::Replace,
            statement_bytes: None,
            chunk_rows: None,
            chunk_bytes: None,
            condition: None,
            views: false,
            yield_floor: YIELD_FLOOR,
            strict_collation: false,
        }
    }
}

/// What becomes of rows that are downstream before the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// The source's replace them.
    #[default]
    Replace,
    /// A table that has some is refused.
    Refuse,
    /// They stay.
    Keep,
}

/// What a downstream says of a task's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// None is begun, or what there is of it does not count any more.
    Fresh,
    /// One is under way; what the source logs from here on is needed.
    Copying(Location),
    /// DM's row is there: the task replicates. With what the copy left to be done, where it was ours and that is not over.
    Copied(Option<Replay>),
}

/// What is to be done behind a copy: the binlog from `from` on, idempotently up to `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// L0: where the binlog begins to count.
    pub from: Location,
    /// When all structures had been read: of a DDL statement between `from` and here the effect may be there already.
    pub structures_at: Location,
    /// L1: behind the last read. The exact mode begins here.
    pub until: Location,
    /// Tables that were copied as they were at one location: what was logged up to there is in them, and what is logged
    /// behind it is not, so that it must be applied exactly.
    pub starts: Vec<(SourceTable, Location)>,
    /// Tables whose structure changed before they were read whole: their rows cannot be applied until a DDL statement leads
    /// to [`read_again`](super::read_again).
    pub stale: Vec<SourceTable>,
    /// Of these, the ones that an operator ordered to be read again.
    pub ordered: Vec<SourceTable>,
    /// All tables were copied, each bit by bit: up to `until` none of them is as it was at one location.
    pub of_copy: bool,
}

/// How a copy ended.
#[derive(Debug)]
pub enum CopyOutcome {
    /// Everything is there, and DM's row is written.
    Copied(Replay),
    /// It was stopped; the next one goes on behind the marks.
    Stopped,
    /// Another owner has taken the task over.
    Fenced,
    /// It failed; what is marked is kept.
    Failed(Failure),
}

/// How a table is read again.
#[derive(Debug, Clone, Default)]
pub struct Rereading {
    /// It is made first where only the source has it.
    pub makes: bool,
    /// Where the task has other sources, rows of theirs may be in it: then none is deleted.
    pub spares_others: bool,
    /// An UPDATE that each transaction runs and that must match a row; `None` where nothing fences.
    pub fence: Option<String>,
    /// Everything up to here is applied, and must be seen by a read before one begins.
    pub behind: Option<Location>,
    /// Where everything else stands meanwhile. What was read at this very place, and interrupted, is gone on with; `None` to
    /// read from the beginning always.
    pub place: Option<String>,
}

/// How the reading of one table ended.
#[derive(Debug)]
pub enum Reread {
    /// The table's rows are there.
    Done {
        /// Behind the read.
        at: Location,
        /// The rows are those at just this location (a start for the table). Otherwise its changes up to here must be
        /// applied idempotently.
        exact: bool,
        /// Its target was missing, and was made.
        made: bool,
        /// How many they are.
        rows: u64,
    },
    /// Source and target have other columns now, or one of them has no such table: a DDL statement is on its way.
    Differs(String),
    /// Neither side has such a table.
    Nowhere,
    /// It was stopped, at a place that only a new reading makes good.
    Stopped,
    /// The fence did not match.
    Fenced,
}

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Reading structures, making tables.
    #[default]
    Prepare,
    /// Rows.
    Copy,
    /// All rows are there.
    Done,
}

/// How far a copy is. Counts include what was done before a restart.
#[derive(Debug, Clone, Default)]
pub struct CopyProgress {
    /// What it does.
    pub phase: Phase,
    /// L0, when known.
    pub from: Option<Location>,
    /// Tables made downstream, and those that are to be made, while that is what it does.
    pub made: (u64, u64),
    /// Tables to copy.
    pub tables_total: u64,
    /// Tables that are there whole, or left as stale.
    pub tables_done: u64,
    /// Rows of all tables, as the source estimates.
    pub rows_estimated: u64,
    /// Bytes of all tables' rows, as the source estimates.
    pub bytes_estimated: u64,
    /// Rows read.
    pub rows_read: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Rows written, committed.
    pub rows_written: u64,
    /// Bytes of them.
    pub bytes_written: u64,
    /// Chunks written since the start or resume.
    pub chunks_written: u64,
    /// Tables at work.
    pub at_work: Vec<TableProgress>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// What is being waited for.
    pub activity: String,
}

/// How far one table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProgress {
    /// Which.
    pub table: SourceTable,
    /// Rows written.
    pub rows: u64,
    /// Rows that it has, as the source estimates.
    pub estimate: u64,
}
