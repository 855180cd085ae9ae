//! XA transactions that were prepared and are rolled back later.
//!
//! A source logs such a transaction's rows when it is prepared, and they are applied then, as any replica does it; nearly
//! all are committed a moment later. Where one is rolled back, its rows are read from the relay log once more and undone,
//! the last one first. Until then the source held locks on all of them, so nobody else has changed them meanwhile.
//! Invariant: undone is only what this task is certain to have applied, and only from whole images.

use std::collections::HashMap;
use std::sync::Arc;

use super::binding::Binding;
use super::{End, Filters, Intake, Wanted, place};
use crate::decode::Progress as Decoding;
use crate::decode::{Decoded, Decoder, RowsEvent};
use crate::error::{Code, Failure};
use crate::model::{BinlogPosition, EventSpan, Flavor, Location};
use crate::pipeline::exceptions::Treatment;
use crate::relay::{ReadItem, Relay};
use crate::transform::Transform;

/// Rows that are kept in memory to be undone.
const LIMIT_BYTES: usize = 64 << 20;
/// Transactions remembered; of others the whole relay log is searched.
const KNOWN: usize = 4096;
/// Bytes of a compressed transaction that are decoded at a time.
const DRAIN_BYTES: usize = 1 << 20;

/// Where prepared transactions are found again.
pub struct Prepared {
    relay: Relay,
    flavor: Flavor,
    /// Everything behind this that is before the task's place was applied by it.
    since: Location,
    /// Starts of those seen, by identifier.
    known: HashMap<String, Location>,
}

impl Prepared {
    /// Of a task that was started at `since`.
    pub fn new(relay: Relay, flavor: Flavor, since: Location) -> Self {
        Prepared { relay, flavor, since, known: HashMap::new() }
    }

    /// One was prepared, in the transaction that begins at `start`.
    pub(super) fn saw(&mut self, xid: String, start: &Location) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(xid, start.clone());
    }

    /// The rows of the last transaction of that identifier that was prepared before `end`.
    async fn find(&self, xid: &str, end: &Location, transform: &Transform) -> Result<Found, Failure> {
        let from = match self.known.get(xid) {
            Some(start) => start.clone(),
            None => match self.relay.state().start {
                Some(start) => start,
                None => return Ok(Found::Lost("the relay log is empty")),
            },
        };
        let certain = self.known.contains_key(xid);
        let all_of_it = self.since.covers(&from);
        let mut reader = self.relay.reader(&from).await.map_err(|error| Failure::from(&error))?;
        let begin = reader.boundary().clone();
        let mut decoder = Decoder::new(self.flavor, begin.location.clone(), begin.checksum);
        let mut search = Search { xid, start: begin.location, rows: Vec::new(), bytes: 0, found: None };
        let mut out = Vec::new();
        'search: loop {
            let runs = match reader.next().await.map_err(|error| Failure::from(&error))? {
                ReadItem::Events { runs, .. } => runs,
                ReadItem::Restart => {
                    decoder.restart(&mut out);
                    Vec::new()
                }
            };
            let events = runs.iter().flat_map(|run| run.iter().map(|(at, event)| (run.bytes(), at..at + event.len())));
            for (run, event) in events {
                let fed = decoder.feed(run, event, &Wanted(transform), &mut out);
                let mut state = fed.map_err(|error| error.failure())?;
                loop {
                    if out.drain(..).any(|decoded| search.ends(decoded, end)) {
                        break 'search;
                    }
                    if state == Decoding::Done {
                        break;
                    }
                    state =
                        decoder.drain(&Wanted(transform), &mut out, DRAIN_BYTES).map_err(|error| error.failure())?;
                }
            }
        }
        Ok(match search.found {
            // None of its rows are this task's, whenever it was prepared.
            Some((_, Some(rows))) if rows.is_empty() => Found::Rows(rows),
            Some((start, _)) if !certain && !start.covers(&self.since) => {
                Found::Lost("it was prepared before the task was started last")
            }
            Some((_, Some(rows))) => Found::Rows(rows),
            Some((_, None)) => Found::Lost("it has more than 64 MiB of rows"),
            None if all_of_it => Found::BeforeUs,
            None => Found::Lost("the relay log does not have it any more"),
        })
    }
}

/// A transaction that was prepared.
enum Found {
    Rows(Vec<RowsEvent>),
    /// It was prepared before the place where the task began: nothing of it was applied.
    BeforeUs,
    /// Why it cannot be undone.
    Lost(&'static str),
}

struct Search<'a> {
    xid: &'a str,
    /// Start of the open transaction.
    start: Location,
    rows: Vec<RowsEvent>,
    bytes: usize,
    /// The last one that fits, with its rows where they are not too many.
    found: Option<(Location, Option<Vec<RowsEvent>>)>,
}

impl Search<'_> {
    /// Takes a step; `true` at the transaction that begins at `end`.
    fn ends(&mut self, decoded: Decoded, end: &Location) -> bool {
        match decoded {
            Decoded::Begin { start, .. } => {
                if start.covers(end) {
                    return true;
                }
                (self.start, self.bytes) = (start, 0);
                self.rows.clear();
            }
            Decoded::Rows(mut rows) => {
                self.bytes += rows.rows.image_bytes();
                if self.bytes <= LIMIT_BYTES {
                    // Else each would hold a block of the log.
                    rows.rows.detach();
                    self.rows.push(rows);
                } else {
                    self.rows.clear();
                }
            }
            Decoded::Prepared { xid } if xid == self.xid => {
                let rows = (self.bytes <= LIMIT_BYTES).then(|| std::mem::take(&mut self.rows));
                self.found = Some((self.start.clone(), rows));
            }
            _ => {}
        }
        false
    }
}

impl Intake {
    /// Undoes what a prepared transaction did, where the relay log is read up to `lsn`.
    pub(super) async fn undo(
        &mut self,
        xid: &str,
        start: &BinlogPosition,
        end: &BinlogPosition,
        lsn: u64,
    ) -> Result<(), End> {
        let exception = self.exceptions.at(start).or_else(|| self.exceptions.at(&self.open.position));
        if exception.is_some_and(|exception| exception.treatment == Treatment::Skip) {
            self.tell_skipped(start, "the rollback of a prepared transaction");
            return Ok(());
        }
        let transform = Arc::clone(&self.transform);
        let found = self.prepared.find(xid, &self.open, &transform).await;
        let whole = |events: &Vec<RowsEvent>| events.iter().all(|event| event.rows.is_whole());
        let events = match found {
            Ok(Found::Rows(events)) if whole(&events) => events,
            Ok(Found::Rows(_)) => return Err(self.not_undone(xid, start, end, "its row images are not whole").into()),
            Ok(Found::BeforeUs) => {
                tracing::info!(xid, "a transaction that was prepared before the task's start was rolled back");
                return Ok(());
            }
            Ok(Found::Lost(why)) => return Err(self.not_undone(xid, start, end, why).into()),
            Err(failure) => return Err(self.not_undone(xid, start, end, &failure.message).into()),
        };
        tracing::info!(xid, events = events.len(), "a prepared transaction was rolled back, its rows are undone");
        for (ordinal, event) in (0..).zip(events.into_iter().rev()) {
            // It stands where the rollback stands.
            let span = EventSpan { file: start.file.clone(), start: start.offset, end: end.offset };
            // What a filter left out was never applied.
            if matches!(transform.changes(&event.layout.source, event.rows.kind()), Ok(false)) {
                continue;
            }
            let mut event = event;
            if let Some(passes) = self.applied_of(&event).await? {
                event.rows.retain(|row| passes[row]);
                if event.rows.is_empty() {
                    continue;
                }
            }
            let rows = event.rows.undoing();
            self.rows_past(Filters::Asked, RowsEvent { rows, ordinal, span, ..event }, lsn).await?;
        }
        Ok(())
    }

    /// Which rows of an event expression filters have let pass; `None` for all of them.
    async fn applied_of(&mut self, event: &RowsEvent) -> Result<Option<Vec<bool>>, Failure> {
        match self.binding(event).await? {
            Some(Binding { table, conditions: Some(conditions), .. }) => {
                self.rows_that_pass(&conditions, &table, event).await
            }
            _ => Ok(None),
        }
    }

    /// One that was prepared before the task's start and is committed behind it: its rows are on neither side of the start.
    pub(super) async fn check_commit(&mut self, xid: &str) {
        if self.prepared.known.contains_key(xid) {
            return;
        }
        let transform = Arc::clone(&self.transform);
        if let Ok(Found::BeforeUs) = self.prepared.find(xid, &self.open, &transform).await {
            self.note(format!(
                "XA transaction {xid} was prepared before the task's start and committed behind it: its rows, \
                 where they are of the task's tables, are missing (start before it, or compare the tables)"
            ));
        }
    }

    fn not_undone(&self, xid: &str, start: &BinlogPosition, end: &BinlogPosition, why: &str) -> Failure {
        let text = format!("prepared XA transaction {xid} was rolled back, its rows were applied, and {why}");
        Failure::new(Code::StatementFormat, text).at(place(start, end, &self.open)).workaround(
            "Please undo the transaction's changes downstream, then use `binlog skip`; or copy its tables again.",
        )
    }
}
