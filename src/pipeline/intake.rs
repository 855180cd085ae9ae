//! From the relay log to items: decode, filter and route, bind to the downstream tables.
//!
//! Runs ahead of the lanes as far as the queue has room, except at DDL: what a table looks like downstream is only known
//! when everything before was applied, so intake waits until the statement has run and then forgets all bindings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::{oneshot, watch};

use super::exceptions::{Exceptions, Treatment};
use super::former::skip;
use super::item::{DdlItem, IntakeEnd, Item, ItemSender};
use super::mapping::TableMappings;
use super::progress::Progress;
use crate::apply::{DdlStep, Downstream, fetch_structure};
use crate::decode::Progress as Decoding;
use crate::decode::{Decoded, Decoder, RowsEvent, Statement, TableFilter};
use crate::dispatch::{Change, EventSpan, LaneSkip};
use crate::error::{Code, Failure, Retry, Scope, driver_failure, retry_of};
use crate::meta::MetaTables;
use crate::model::{BinlogPosition, Location, RowMark, RowOrdinal, SourceTable, TableName, TargetTable};
use crate::relay::{ReadItem, RelayReader};
use crate::row::{ChangeKind, ColumnKind, TableLayout};
use crate::schema::{BindError, BoundTable, TableStructure, bind};
use crate::transform::{DdlInput, DdlPlan, TargetStatement, Transform};

/// Bytes of a compressed transaction that are decoded at a time.
const DRAIN_BYTES: usize = 1 << 20;
/// Bindings kept; a source with more tables in use binds again now and then.
const BINDINGS: usize = 10_000;
/// How long a lost connection is retried before the task parks.
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Reads, decodes and binds.
pub struct Intake {
    reader: RelayReader,
    decoder: Decoder,
    transform: Arc<Transform>,
    downstream: Downstream,
    conn: Option<Conn>,
    /// By the layout's address; the layout is kept, so that the address stays its own.
    bindings: HashMap<usize, (Arc<TableLayout>, Option<Arc<BoundTable>>)>,
    /// Everything up to here is applied on all lanes; `None` once that is passed.
    done: Option<RowMark>,
    /// The open transaction is done already.
    skipping: bool,
    open: Location,
    ddl_steps: u32,
    progress: watch::Sender<Progress>,
    items: ItemSender,
    mappings: TableMappings,
    /// `None` where no mark is stored with the rows: a table without a key cannot be applied then.
    tables: Option<MetaTables>,
    epoch: u64,
    exceptions: Arc<Exceptions>,
    /// Row changes of the open transaction were sent.
    sent_rows: bool,
}

/// What intake needs to know.
pub struct IntakeOptions {
    /// The relay log, from where the task goes on.
    pub reader: RelayReader,
    /// Its decoder.
    pub decoder: Decoder,
    /// Rules for names.
    pub transform: Arc<Transform>,
    /// Where table structures are.
    pub downstream: Downstream,
    /// What is done up to here is left out.
    pub start: RowMark,
    /// How tables' changes are dealt out.
    pub mappings: TableMappings,
    /// Where what is going on is shown.
    pub progress: watch::Sender<Progress>,
    /// Where mappings are stored; `None` where no mark is stored with the rows, and lanes never stand apart.
    pub tables: Option<MetaTables>,
    /// By whom.
    pub epoch: u64,
    /// Events that are treated otherwise than logged.
    pub exceptions: Arc<Exceptions>,
}

/// Asks the rules whether rows are worth decoding. Where the rules cannot agree, they are: the failure shows then.
struct Wanted<'a>(&'a Transform);

impl TableFilter for Wanted<'_> {
    fn wants(&self, table: &SourceTable) -> bool {
        !matches!(self.0.table(table), Ok(None))
    }
}

/// What intake asks the downstream.
enum Question<'a> {
    /// What a table looks like.
    Structure(&'a TargetTable),
    /// To store something.
    Store(&'a str),
}

/// Intake ended without a failure: nobody takes its items any more.
struct Gone;

enum End {
    Gone,
    Ended(IntakeEnd),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        End::Gone
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        End::Ended(IntakeEnd::Failed(failure))
    }
}

impl Intake {
    /// Sends to `items`.
    pub fn new(options: IntakeOptions, items: ItemSender) -> Self {
        let IntakeOptions {
            reader,
            decoder,
            transform,
            downstream,
            start,
            mappings,
            progress,
            tables,
            epoch,
            exceptions,
        } = options;
        let open = start.location.clone();
        Intake {
            reader,
            decoder,
            transform,
            downstream,
            conn: None,
            bindings: HashMap::new(),
            done: Some(start),
            skipping: false,
            open,
            ddl_steps: 0,
            progress,
            items,
            mappings,
            tables,
            epoch,
            exceptions,
            sent_rows: false,
        }
    }

    /// Runs until nobody takes its items, or until a failure, which is its last item.
    pub async fn run(mut self) {
        let transform = Arc::clone(&self.transform);
        let end = loop {
            let step = match self.reader.next().await {
                Ok(ReadItem::Events { events, end_lsn }) => self.events(events, end_lsn.0, &transform).await,
                Ok(ReadItem::Restart) => self.restart().await,
                Err(error) => Err(End::Ended(IntakeEnd::Relay(error))),
            };
            match step {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Ended(end)) => break end,
            }
        };
        // Whether anyone still listens does not matter now.
        let _ = self.items.send(Err(end), 0).await;
    }

    async fn events(&mut self, events: Vec<Bytes>, end_lsn: u64, transform: &Transform) -> Result<(), End> {
        let total: usize = events.iter().map(Bytes::len).sum();
        let mut lsn = end_lsn - total as u64;
        let mut out = Vec::new();
        for event in events {
            lsn += event.len() as u64;
            let failure = |error: crate::decode::DecodeError| End::from(error.failure());
            let mut state = self.decoder.feed(event, &Wanted(transform), &mut out).map_err(failure)?;
            loop {
                for decoded in out.drain(..) {
                    self.take(decoded, lsn).await?;
                }
                if state == Decoding::Done {
                    break;
                }
                state = self.decoder.drain(&Wanted(transform), &mut out, DRAIN_BYTES).map_err(failure)?;
            }
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), End> {
        let mut out = Vec::new();
        self.decoder.restart(&mut out);
        for decoded in out {
            self.take(decoded, 0).await?;
        }
        Ok(())
    }

    async fn take(&mut self, decoded: Decoded, lsn: u64) -> Result<(), End> {
        match decoded {
            Decoded::Begin { gtid, start, .. } => {
                self.skipping = match &self.done {
                    // Another transaction than the one expected is the former's to report.
                    Some(done) => matches!(skip(done, gtid.as_ref(), &start), Ok(LaneSkip::All)),
                    None => false,
                };
                if !self.skipping {
                    self.done = None;
                    self.open = start.clone();
                    (self.ddl_steps, self.sent_rows) = (0, false);
                    self.send(Item::Begin { gtid, start }, 0).await?;
                }
            }
            Decoded::Rows(rows) if !self.skipping => self.rows(rows).await?,
            Decoded::Statement(statement) if !self.skipping => self.statement(statement).await?,
            Decoded::Rows(_) | Decoded::Statement(_) => {}
            Decoded::Commit { location, timestamp } => {
                let behind = self.done.as_ref().is_some_and(|done| !location.covers(&done.location));
                if !std::mem::take(&mut self.skipping) && !behind {
                    self.send(Item::Commit { location, timestamp, lsn }, 0).await?;
                }
            }
            Decoded::Restart => {
                self.skipping = false;
                self.send(Item::Restart, 0).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, item: Item, bytes: usize) -> Result<(), Gone> {
        if self.items.send(Ok(item), bytes).await { Ok(()) } else { Err(Gone) }
    }

    async fn rows(&mut self, event: RowsEvent) -> Result<(), End> {
        if let Some(exception) = self.exceptions.at(&event.start).cloned() {
            let place = self.place(&event);
            if !exception.statements.is_empty() && !self.sent_rows {
                let steps = self.steps_of(&exception.statements, 0, event.timestamp, &place)?;
                self.run_ddl(steps, &place).await?;
            } else if !exception.statements.is_empty() {
                // Lanes are at work on the rows before it, and a replay could not tell whether it has run.
                let text = "statements can be run before the first row change of a transaction only";
                return Err(Failure::new(Code::NotSet, text).at(&place).into());
            }
            if exception.treatment != Treatment::Inject {
                self.tell_skipped(&event.start, &format!("row changes of {}", event.layout.source));
                return Ok(());
            }
        }
        let Some(table) = self.binding(&event).await? else { return Ok(()) };
        let span = Arc::new(EventSpan { start: event.start, end: event.end });
        let kind: ChangeKind = event.kind;
        let changes: Vec<Change> = (0u32..)
            .zip(event.rows)
            .map(|(row, rows)| Change {
                table: Arc::clone(&table),
                kind,
                rows,
                ordinal: RowOrdinal { event: event.ordinal, row },
                span: Arc::clone(&span),
            })
            .collect();
        self.sent_rows = true;
        let bytes = changes.iter().map(Change::bytes).sum();
        Ok(self.send(Item::Changes(changes), bytes).await?)
    }

    /// The binding of an event's table; `None` where the rules do not want it.
    async fn binding(&mut self, event: &RowsEvent) -> Result<Option<Arc<BoundTable>>, Failure> {
        let address = Arc::as_ptr(&event.layout) as usize;
        if let Some((_, binding)) = self.bindings.get(&address) {
            return Ok(binding.clone());
        }
        let binding = match self.transform.table(&event.layout.source)? {
            None => None,
            Some(target) => match self.bind(event, &target).await {
                Ok(bound) => Some(Arc::new(bound)),
                Err(failure) if failure.known_code() == Some(Code::NoDownstreamTable) && is_sequence(&event.layout) => {
                    let source = &event.layout.source;
                    tracing::warn!(table = %source, "a sequence that the downstream does not have is left out");
                    let note = format!(
                        "{source} is a MariaDB sequence, and sequences are not replicated: its state is left out. \
                         Create it downstream by hand (MariaDB only) to have it follow"
                    );
                    self.progress.send_if_modified(|progress| progress.notes.insert(note));
                    None
                }
                Err(failure) => return Err(failure.at(self.place(event))),
            },
        };
        if self.bindings.len() >= BINDINGS {
            self.bindings.clear();
        }
        self.bindings.insert(address, (Arc::clone(&event.layout), binding.clone()));
        Ok(binding)
    }

    async fn bind(&mut self, event: &RowsEvent, target: &TargetTable) -> Result<BoundTable, Failure> {
        let Some(structure) = self.retried(Question::Structure(target)).await? else {
            return Err(Failure::new(Code::ReadDownstreamTable, format!("no structure of {target}")));
        };
        let bound = bind(&event.layout, target, &structure, self.downstream.dialect);
        if let Ok(BoundTable { identity: None, .. }) = &bound
            && self.tables.is_none()
        {
            let message = format!(
                "target table {target} has no key, and positions cannot be kept downstream: after an interruption its rows would come twice"
            );
            return Err(Failure::new(Code::ConfigTask, message).scope(Scope::Downstream).workaround(
                "Please grant CREATE on the task's meta-schema, give the table a primary key, or leave it out by the \
                 block-allow-list; then resume-task.",
            ));
        }
        let bound = bound.map_err(|error| {
            if let BindError::NeitherKeyNorTransactions { .. } = &error {
                let remedy = format!(
                    "Please run ALTER TABLE {target} ENGINE=InnoDB downstream, or give it a primary key, then resume-task."
                );
                return Failure::new(Code::ConfigTask, format!("target table {target}: {error}"))
                    .scope(Scope::Downstream)
                    .workaround(remedy);
            }
            let verb = match event.kind {
                ChangeKind::Insert => "insert",
                ChangeKind::Update => "update",
                ChangeKind::Delete => "delete",
            };
            let source = &event.layout.source;
            Failure::new(
                Code::ColumnCount,
                format!("gen {verb} sqls failed, sourceTable: {source}, targetTable: {target}: {error}"),
            )
        });
        let mut bound = bound?;
        if let Some(rule) = self.mappings.settle(&mut bound)?
            && let Some(tables) = &self.tables
        {
            // Before the first change is dealt out by it.
            let name = &target.0;
            let sql = tables.write_mapping(self.epoch, &name.schema, &name.table, &rule);
            self.retried(Question::Store(&sql)).await?;
        }
        Ok(bound)
    }

    /// Asks the downstream, on a new connection where one is lost, for as long as lanes would.
    async fn retried(&mut self, question: Question<'_>) -> Result<Option<TableStructure>, Failure> {
        let started = Instant::now();
        loop {
            let failure = match self.ask(&question).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.conn = None;
            let lost =
                matches!(failure.known_code(), Some(Code::DriverError | Code::InvalidConnection | Code::BadConnection));
            if !(lost || retry_of(&failure) == Retry::InPlace) || started.elapsed() >= RETRY_LIMIT {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn ask(&mut self, question: &Question<'_>) -> Result<Option<TableStructure>, Failure> {
        if self.conn.is_none() {
            self.conn = Some(self.downstream.connect().await?);
        }
        let Some(conn) = self.conn.as_mut() else { return Err(Failure::new(Code::DriverError, "no connection")) };
        match question {
            Question::Structure(target) => fetch_structure(conn, target).await.map(Some),
            Question::Store(sql) => {
                let stored = self.downstream.limited(conn.query_drop(*sql)).await;
                let doing = "store how a table's changes are dealt out";
                stored
                    .map(|()| None)
                    .map_err(|error| driver_failure(&error, Code::Checkpoint, Scope::Downstream, doing))
            }
        }
    }

    fn place(&self, event: &RowsEvent) -> String {
        place(&event.start, &event.end, &self.open)
    }

    async fn statement(&mut self, statement: Statement) -> Result<(), End> {
        let Statement { text, sql_mode, timestamp, .. } = &statement;
        // A statement that cannot be replicated may hold rows or passwords: only its place is told.
        let place = place(&statement.start, &statement.end, &self.open);
        // Its transaction has nothing else: the place of either means it.
        let exception =
            self.exceptions.at(&statement.start).or_else(|| self.exceptions.at(&self.open.position)).cloned();
        let mut steps = Vec::new();
        if let Some(exception) = &exception {
            steps = self.steps_of(&exception.statements, *sql_mode, *timestamp, &place)?;
        }
        if exception.as_ref().is_none_or(|exception| exception.treatment == Treatment::Inject) {
            let input = DdlInput { schema: &statement.schema, text, sql_mode: *sql_mode };
            match self.transform.statement(&input).map_err(|failure| failure.at(&place))? {
                DdlPlan::Skip { reason } => tracing::debug!(pos = %statement.start, reason, "statement left out"),
                DdlPlan::Run(targets) => steps.extend(targets.into_iter().map(|target| step(target, *timestamp))),
            }
        } else {
            self.tell_skipped(&statement.start, "a statement");
        }
        if steps.is_empty() {
            return Ok(());
        }
        self.run_ddl(steps, &format!("{place}, origin SQL: [{text}]")).await
    }

    /// What an operator's statements come to downstream.
    fn steps_of(
        &self,
        statements: &[String],
        sql_mode: u64,
        timestamp: u32,
        place: &str,
    ) -> Result<Vec<DdlStep>, Failure> {
        let mut steps = Vec::new();
        for text in statements {
            let input = DdlInput { schema: "", text, sql_mode };
            match self.transform.statement(&input).map_err(|failure| failure.at(place))? {
                DdlPlan::Skip { reason } => tracing::warn!(reason, "an operator's statement is left out"),
                DdlPlan::Run(targets) => steps.extend(targets.into_iter().map(|target| step(target, timestamp))),
            }
        }
        Ok(steps)
    }

    /// Hands DDL over, and waits until it has run.
    async fn run_ddl(&mut self, steps: Vec<DdlStep>, place: &str) -> Result<(), End> {
        let first_step = self.ddl_steps;
        self.ddl_steps += steps.len() as u32;
        let (done, ran) = oneshot::channel();
        self.send(Item::Ddl(DdlItem { steps, first_step, place: place.into(), done }), 0).await?;
        // Its sender goes with the coordinator.
        let ran = ran.await.map_err(|_| Gone)?;
        self.bindings.clear();
        if ran {
            // Before it ran all lanes were moved to its start.
            self.mappings.forget();
        }
        Ok(())
    }

    fn tell_skipped(&self, at: &BinlogPosition, what: &str) {
        tracing::warn!(%at, "left out by an operator's order");
        let note = format!("{what} at {at} left out by an operator's order");
        self.progress.send_if_modified(|progress| progress.notes.insert(note));
    }
}

fn step(target: TargetStatement, timestamp: u32) -> DdlStep {
    let schema = target.schema_only.map(|schema| TargetTable(TableName::new(schema, "")));
    DdlStep {
        sql: target.sql,
        targets: target.targets.into_iter().chain(schema).collect(),
        sql_modes: target.sql_modes,
        timestamp,
    }
}

/// Whether a table has the one shape that MariaDB gives every sequence: its values in eight columns, none of them NULL.
/// A table that looks like this by chance is taken for one only where the downstream does not have it.
fn is_sequence(layout: &TableLayout) -> bool {
    use ColumnKind::{BigInt, TinyInt};
    let shape = [BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, TinyInt, BigInt];
    let columns = &layout.columns;
    let names = ["next_not_cached_value", "minimum_value", "maximum_value", "start_value", "increment"];
    columns.len() == shape.len()
        && columns.iter().zip(shape).all(|(column, kind)| column.kind == kind && !column.nullable)
        && layout.names.iter().all(|all| names.iter().zip(all.iter()).all(|(known, name)| **known == **name))
}

fn place(start: &BinlogPosition, end: &BinlogPosition, open: &Location) -> String {
    let at = |position| format!("[position: {position}, gtid-set: {}]", open.gtids);
    format!("startLocation: {}, endLocation: {}", at(start), at(end))
}
