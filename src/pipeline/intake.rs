//! From the relay log to items: decode, filter and route, bind to the downstream tables.
//!
//! Runs ahead of the lanes as far as the queue has room, except at DDL: what a table looks like downstream is only known
//! when everything before was applied, so intake waits until the statement has run and then forgets all bindings. What the
//! binlog leaves out, the source is asked for.

mod asks;
mod binding;
mod ddl;
mod expressions;
mod foreign_keys;
mod online;
mod prepared;
mod sparse;

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::watch;

use super::declared::{DeclaredStore, DeclaredTables};
use super::exceptions::Exceptions;
use super::former::skip;
use super::item::{IntakeEnd, Item, ItemSender};
use super::mapping::TableMappings;
use super::origin::Origin;
use super::progress::Progress;
use super::shadows::Shadows;
use super::window::{Window, Windows};
use crate::apply::Downstream;
use crate::binlog::EventRun;
use crate::decode::Progress as Decoding;
use crate::decode::{Decoded, Decoder, RowsEvent, TableFilter};
use crate::dispatch::{ChangeEvent, LaneSkip};
use crate::error::{Code, Failure};
use crate::meta::MetaTables;
use crate::model::{BinlogPosition, Gtid, Location, RowMark, RowOrdinal, SourceTable};
use crate::relay::{ReadItem, RelayReader};
use crate::row::TableLayout;
use crate::transform::Transform;
use asks::{Asks, Question};
use binding::Binding;
use foreign_keys::Cascades;
pub use prepared::Prepared;
use sparse::Sparse;

/// Bytes of a compressed transaction that are decoded at a time.
const DRAIN_BYTES: usize = 1 << 20;

/// A layout's address, and the number of what is declared of its table there.
type BindingKey = (usize, Option<usize>);

/// Reads, decodes and binds.
pub struct Intake {
    reader: RelayReader,
    decoder: Decoder,
    transform: Arc<Transform>,
    downstream: Downstream,
    asks: Asks,
    origin: Origin,
    /// By the layout's address and what is declared of its table; the layout is kept, so that the address stays its own.
    bindings: HashMap<BindingKey, (Arc<TableLayout>, Option<Binding>)>,
    cascades: Cascades,
    prepared: Prepared,
    /// Shadow tables of online DDL tools; `None` until the first statement on one.
    shadows: Option<Shadows>,
    /// Everything up to here is applied on all lanes; `None` once that is passed.
    done: Option<RowMark>,
    /// Where the lane ahead of all others stood at the start; `None` where they stood together.
    furthest: Option<RowMark>,
    /// The open transaction is done already.
    skipping: bool,
    open: Location,
    ddl_steps: u32,
    /// Number of the next row of the open transaction.
    row: RowOrdinal,
    progress: watch::Sender<Progress>,
    items: ItemSender,
    mappings: TableMappings,
    /// `None` where no mark is stored with the rows: a table without a key cannot be applied then.
    tables: Option<MetaTables>,
    epoch: u64,
    exceptions: Arc<Exceptions>,
    declared: DeclaredTables,
    declared_store: Arc<dyn DeclaredStore>,
    /// Row changes of the open transaction were sent.
    sent_rows: bool,
    /// Its GTID.
    gtid: Option<Gtid>,
    /// What is left to be done behind a copy, as it was seen last.
    window: Option<Window>,
    windows: Windows,
    /// Nothing is taken in beyond the window.
    ends: bool,
    /// Rows were copied before.
    copies: bool,
    /// Collations that a statement left to the source are said.
    strict_collation: bool,
    sparse: Sparse,
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
    /// Asked for what the binlog leaves out.
    pub origin: Origin,
    /// Transactions that were prepared and may be rolled back.
    pub prepared: Prepared,
    /// What is done up to here is left out.
    pub start: RowMark,
    /// The lane ahead of all others stands here; `None` where they stand together.
    pub furthest: Option<RowMark>,
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
    /// What is declared of the source's tables.
    pub declared: DeclaredTables,
    /// Where that is kept.
    pub declared_store: Arc<dyn DeclaredStore>,
    /// What is left to be done behind a copy.
    pub windows: Windows,
    /// Nothing is taken in beyond the window.
    pub ends: bool,
    /// Rows are copied before: the source's tables are at hand by name.
    pub copies: bool,
    /// Collations that a statement left to the source are said.
    pub strict_collation: bool,
}

/// Asks the rules whether rows are worth decoding. Where the rules cannot agree, they are: the failure shows then.
struct Wanted<'a>(&'a Transform);

impl TableFilter for Wanted<'_> {
    fn wants(&self, table: &SourceTable) -> bool {
        !matches!(self.0.table(table), Ok(None))
    }
}

/// Whether filters are asked about rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filters {
    Ask,
    /// They were, about what these rows undo.
    Asked,
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
        let IntakeOptions { reader, decoder, transform, downstream, origin, prepared, start, exceptions, .. } = options;
        let (declared, declared_store) = (options.declared, options.declared_store);
        let (mappings, progress, tables, epoch) = (options.mappings, options.progress, options.tables, options.epoch);
        let (windows, ends, copies) = (options.windows, options.ends, options.copies);
        let strict_collation = options.strict_collation;
        let open = start.location.clone();
        Intake {
            reader,
            decoder,
            transform,
            asks: Asks::new(downstream.clone(), tables.clone()),
            downstream,
            origin,
            bindings: HashMap::new(),
            cascades: Cascades::default(),
            prepared,
            shadows: None,
            done: Some(start),
            furthest: options.furthest,
            skipping: false,
            open,
            ddl_steps: 0,
            row: RowOrdinal::default(),
            progress,
            items,
            mappings,
            tables,
            epoch,
            exceptions,
            declared,
            declared_store,
            sent_rows: false,
            gtid: None,
            window: windows.now(),
            windows,
            ends,
            copies,
            strict_collation,
            sparse: Sparse::default(),
        }
    }

    /// Runs until nobody takes its items, or until a failure, which is its last item.
    pub async fn run(mut self) {
        let transform = Arc::clone(&self.transform);
        self.cascades.begin(Asks::new(self.downstream.clone(), None));
        let end = loop {
            let step = match self.reader.next().await {
                Ok(ReadItem::Events { runs, end_lsn }) => self.runs(&runs, end_lsn.0, &transform).await,
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

    async fn runs(&mut self, runs: &[EventRun], end_lsn: u64, transform: &Transform) -> Result<(), End> {
        let mut lsn = end_lsn - runs.iter().map(|run| run.len() as u64).sum::<u64>();
        let mut out = Vec::new();
        for run in runs {
            for (at, event) in run.iter() {
                let (begin, at) = (lsn, at..at + event.len());
                lsn += event.len() as u64;
                self.event(run, at, begin, &mut out, transform).await?;
            }
        }
        Ok(())
    }

    /// Takes one event of a run, which begins at this byte of the relay log.
    async fn event(
        &mut self,
        run: &EventRun,
        event: Range<usize>,
        begin: u64,
        out: &mut Vec<Decoded>,
        transform: &Transform,
    ) -> Result<(), End> {
        let failure = |error: crate::decode::DecodeError| End::from(error.failure());
        let end = begin + event.len() as u64;
        let mut state = self.decoder.feed(run.bytes(), event, &Wanted(transform), out).map_err(failure)?;
        loop {
            // Of a compressed transaction nothing is behind us before all of it is.
            let passed = if state == Decoding::Done { end } else { begin };
            for decoded in out.drain(..) {
                self.take(decoded, passed).await?;
            }
            if state == Decoding::Done {
                return Ok(());
            }
            state = self.decoder.drain(&Wanted(transform), out, DRAIN_BYTES).map_err(failure)?;
        }
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
                self.pass_window(&start).await?;
                self.prune_shadows().await?;
                self.gtid.clone_from(&gtid);
                self.skipping = match &self.done {
                    // Another transaction than the one expected is the former's to report.
                    Some(done) => matches!(skip(done, gtid.as_ref(), &start), Ok(LaneSkip::All)),
                    None => false,
                };
                self.open = start.clone();
                if !self.skipping {
                    self.done = None;
                    (self.ddl_steps, self.sent_rows, self.row) = (0, false, RowOrdinal::default());
                    self.send(Item::Begin { gtid, start }, 0).await?;
                }
            }
            Decoded::Rows(rows) if !self.skipping => self.rows(rows, lsn).await?,
            Decoded::Statement(statement) if !self.skipping => self.statement(statement).await?,
            Decoded::Prepared { xid } => self.prepared.saw(xid, &self.open),
            Decoded::XaRollback { xid, start, end } if !self.skipping => self.undo(&xid, &start, &end, lsn).await?,
            Decoded::XaCommit { xid } if !self.skipping => self.check_commit(&xid).await,
            Decoded::Rows(_) | Decoded::Statement(_) | Decoded::XaRollback { .. } | Decoded::XaCommit { .. } => {}
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

    async fn rows(&mut self, event: RowsEvent, lsn: u64) -> Result<(), End> {
        self.rows_past(Filters::Ask, event, lsn).await
    }

    async fn rows_past(&mut self, filters: Filters, event: RowsEvent, lsn: u64) -> Result<(), End> {
        if !self.exceptions.0.is_empty()
            && let Some(exception) = self.exceptions.at(&event.span.start()).cloned()
            && !self.rows_go_on(&event, &exception).await?
        {
            return Ok(());
        }
        let source = &event.layout.source;
        if self.window.as_ref().is_some_and(|window| window.leaves_out(source, self.gtid.as_ref(), &self.open)) {
            return Ok(());
        }
        // A table of which nothing comes does not have to be there downstream.
        if filters == Filters::Ask
            && !self.transform.changes(source, event.rows.kind()).map_err(|failure| failure.at(self.place(&event)))?
        {
            self.leave_out(event.rows.len());
            return Ok(());
        }
        let bound = match self.binding(&event).await {
            Err(failure) if self.turns_stale(&failure, source).await? => return Ok(()),
            bound => bound?,
        };
        let Some(Binding { table, cascade, conditions }) = bound else { return Ok(()) };
        let mut event = event;
        if let Some(conditions) = conditions.filter(|_| filters == Filters::Ask) {
            let passes = self.rows_that_pass(&conditions, &table, &event).await;
            if let Some(passes) = passes.map_err(|failure| failure.at(self.place(&event)))? {
                self.leave_out(passes.iter().filter(|pass| !**pass).count());
                event.rows.retain(|row| passes[row]);
            }
            if event.rows.is_empty() {
                return Ok(());
            }
        }
        if let Some(cascade) = cascade {
            self.check_cascade(&event, &cascade).await.map_err(|failure| failure.at(self.place(&event)))?;
        }
        let RowsEvent { mut rows, span, .. } = event;
        let (first, bytes) = (self.row, rows.image_bytes());
        if self.sparse.is(lsn, bytes) {
            rows.detach();
        }
        self.row = RowOrdinal(first.0.saturating_add(rows.len() as u64));
        self.sent_rows = true;
        let event = Arc::new(ChangeEvent::new(table, rows, first, span));
        Ok(self.send(Item::Changes { event, lsn }, bytes).await?)
    }

    /// A filter does not let rows pass.
    fn leave_out(&self, rows: usize) {
        // What is applied wakes who looks at it.
        self.progress.send_if_modified(|progress| {
            progress.filtered_rows += rows as u64;
            false
        });
    }

    /// The coordinator may have changed it.
    fn see_window(&mut self) {
        if let Some(window) = self.windows.changed() {
            self.window = window;
        }
    }

    /// Where the window ends: tables that are stale there are read again before anything behind it comes.
    async fn pass_window(&mut self, start: &Location) -> Result<(), End> {
        self.see_window();
        loop {
            let Some(window) = &self.window else { return Ok(()) };
            if !window.is_over(start) {
                return Ok(());
            }
            if !window.has_stale() {
                break;
            }
            self.window = self.windows.next().await.ok_or(Gone)?;
        }
        if self.ends {
            // The coordinator ends the task when everything before this is applied.
            std::future::pending::<()>().await;
        }
        self.window = None;
        Ok(())
    }

    /// Rows that do not fit the target's table, while it is not what it was when they were logged: the structures were
    /// read later than where the binlog begins to count, or the table changed while it was copied. The statement that
    /// explains it is still to come. Stored before the first row is left out.
    async fn turns_stale(&mut self, failure: &Failure, table: &SourceTable) -> Result<bool, Failure> {
        let unfit = matches!(failure.known_code(), Some(Code::ColumnCount | Code::NoDownstreamTable));
        let Some(window) = self.window.as_mut().filter(|_| unfit) else { return Ok(false) };
        window.mark_stale(table);
        self.windows.set(Some(window.clone()));
        tracing::info!(%table, "rows of another structure than the target's are left out until the table is read again");
        let replay = window.to_replay();
        self.asks.retried(Question::Replay(&replay)).await?;
        Ok(true)
    }

    fn place(&self, event: &RowsEvent) -> String {
        place(&event.span.start(), &event.span.end(), &self.open)
    }
}

fn place(start: &BinlogPosition, end: &BinlogPosition, open: &Location) -> String {
    let at = |position| format!("[position: {position}, gtid-set: {}]", open.gtids);
    format!("startLocation: {}, endLocation: {}", at(start), at(end))
}
