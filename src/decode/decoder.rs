//! The decoder: raw events in, the steps of transactions out.
//!
//! Where transactions begin and end is the tracker's word, the same as the relay's. Here are the statements between: their
//! table maps, rows and texts. Invariant: after an error nothing more comes out, since a transaction with a hole in it
//! must never be committed; the caller makes a new decoder at the last commit.

use std::ops::Range;

use bytes::Bytes;

use super::error::DecodeError;
use super::item::{Decoded, RowsEvent, TableFilter};
use super::payload::Payload;
use super::rows::{Form, RowSplitter, SplitRows};
use super::statement::statement;
use super::tables::Tables;
use crate::binlog::{EventHeader, HEADER_LEN, QueryBody, StreamTracker, body, kind};
use crate::model::{EventSpan, Flavor, Location};
use crate::row::{Cursor, event_part};

/// Types of LOAD DATA events before MySQL 5.0.3.
const OLD_LOADS: [u8; 6] = [6, 8, 9, 10, 11, 12];

/// Whether all of what was fed has come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a compressed transaction comes out of `drain`"]
pub enum Progress {
    /// Everything is out; feed the next event.
    Done,
    /// A compressed transaction is open: call [`Decoder::drain`] until it is [`Progress::Done`].
    More,
}

/// Which half of a two-phase ALTER (MariaDB's `binlog_alter_two_phase`) the open transaction is. The statement stands in
/// each; it counts where it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum AlterPhase {
    #[default]
    Whole,
    /// START or ROLLBACK: nothing to be done.
    Void,
}

/// Decodes one stream.
#[derive(Debug)]
pub struct Decoder {
    tracker: StreamTracker,
    /// Where the event at work stands.
    span: EventSpan,
    inside: Inside,
    payload: Option<Payload>,
    broken: bool,
}

/// What is known inside of a transaction.
#[derive(Debug)]
struct Inside {
    flavor: Flavor,
    tables: Tables,
    splitter: RowSplitter,
    /// Rows events of the open transaction so far.
    ordinal: u32,
    alter: AlterPhase,
}

impl Decoder {
    /// Starts at a transaction boundary. `checksum` is what events carry until a format description says it.
    pub fn new(flavor: Flavor, start: Location, checksum: bool) -> Decoder {
        let at = &start.position;
        Decoder {
            span: EventSpan { file: at.file.clone(), start: at.offset, end: at.offset },
            tracker: StreamTracker::new(flavor, start, checksum),
            inside: Inside {
                flavor,
                tables: Tables::new(flavor),
                splitter: RowSplitter::default(),
                ordinal: 0,
                alter: AlterPhase::Whole,
            },
            payload: None,
            broken: false,
        }
    }

    /// Takes one whole event in, these bytes of `run` (header to checksum; the checksum was verified by whoever received
    /// it), and appends what it means to `out`: only rows keep the run. A compressed transaction only begins here; what was
    /// left of the one before is drained first.
    pub fn feed(
        &mut self,
        run: &Bytes,
        event: Range<usize>,
        filter: &dyn TableFilter,
        out: &mut Vec<Decoded>,
    ) -> Result<Progress, DecodeError> {
        if self.broken || self.payload.is_some() {
            let _ = self.drain(filter, out, usize::MAX)?;
        }
        let result = self.take(run, event, filter, out);
        self.broken |= result.is_err();
        result
    }

    /// Goes on with a compressed transaction, until about `limit_bytes` of its events are decoded or it ends; at least
    /// one event, so that repeating it always ends.
    pub fn drain(
        &mut self,
        filter: &dyn TableFilter,
        out: &mut Vec<Decoded>,
        limit_bytes: usize,
    ) -> Result<Progress, DecodeError> {
        if self.broken {
            return Err(self.span.malformed("any", "the decoder was used after an error"));
        }
        let Some(payload) = self.payload.take() else { return Ok(Progress::Done) };
        let result = self.inner_events(payload, filter, out, limit_bytes);
        self.broken |= result.is_err();
        result
    }

    /// Whether a compressed transaction waits for [`Decoder::drain`].
    pub fn pending(&self) -> bool {
        self.payload.is_some()
    }

    /// The stream begins again behind the last commit: forgets the open transaction. A compressed transaction that is
    /// being drained was received whole, so it stays.
    pub fn restart(&mut self, out: &mut Vec<Decoded>) {
        if self.payload.is_none() {
            self.tracker.restart();
            self.inside.reset();
            out.push(Decoded::Restart);
        }
    }

    fn take(
        &mut self,
        run: &Bytes,
        event: Range<usize>,
        filter: &dyn TableFilter,
        out: &mut Vec<Decoded>,
    ) -> Result<Progress, DecodeError> {
        let position = self.tracker.position();
        self.span.start = position.offset;
        if !self.span.file.is_same(&position.file) {
            self.span.file = position.file.clone();
        }
        let mut before = self.tracker.open().is_none().then(|| self.tracker.location().clone());
        let at = |source| self.span.frame(source);
        let begin = event.start;
        let event = &run[event];
        let tracked = self.tracker.feed(event).map_err(at)?;
        let header = tracked.header;
        let inner = body(event, self.tracker.checksum()).map_err(at)?;
        // It begins behind the header.
        let inner = begin + HEADER_LEN..begin + HEADER_LEN + inner.len();
        self.span.end = self.tracker.position().offset;
        if before.is_none() && begins_anew(&header) {
            // The source never wrote the end of the open transaction: it crashed, and rolled it back.
            out.push(Decoded::Restart);
            before = Some(self.tracker.location().clone());
        }
        if (tracked.in_transaction || tracked.ends_transaction)
            && let Some(start) = before.take()
        {
            self.inside.reset();
            // One that ends with its first event had no GTID event before it.
            let gtid = self.tracker.open().and_then(|open| open.gtid.clone());
            out.push(Decoded::Begin { gtid, start, timestamp: header.timestamp });
        }
        if header.kind == kind::TRANSACTION_PAYLOAD {
            let payload = Payload::open(&run.slice(inner), self.span.clone(), header.timestamp)?;
            self.payload = Some(payload);
            return Ok(Progress::More);
        }
        if Form::of(header.kind).is_some() && !tracked.in_transaction {
            return Err(self.span.malformed("rows", "it stands outside of any transaction"));
        }
        self.inside.event(&header, run, inner, &self.span, filter, out)?;
        let moved = before.is_some_and(|before| before.position != self.tracker.location().position);
        if tracked.ends_transaction || moved && !tracked.in_transaction {
            self.commit(header.timestamp, out);
        }
        Ok(Progress::Done)
    }

    fn commit(&mut self, timestamp: u32, out: &mut Vec<Decoded>) {
        self.inside.reset();
        out.push(Decoded::Commit { location: self.tracker.location().clone(), timestamp });
    }

    fn inner_events(
        &mut self,
        mut payload: Payload,
        filter: &dyn TableFilter,
        out: &mut Vec<Decoded>,
        limit_bytes: usize,
    ) -> Result<Progress, DecodeError> {
        let mut decoded = 0usize;
        loop {
            let Some((header, body)) = payload.next()? else {
                self.commit(payload.timestamp, out);
                return Ok(Progress::Done);
            };
            if header.kind == kind::TRANSACTION_PAYLOAD {
                return Err(payload.span.malformed("TRANSACTION_PAYLOAD", "it holds another one"));
            }
            let all = 0..body.len();
            self.inside.event(&header, &body, all, &payload.span, filter, out)?;
            decoded = decoded.saturating_add(header.size as usize);
            if decoded >= limit_bytes {
                self.payload = Some(payload);
                return Ok(Progress::More);
            }
        }
    }
}

impl Inside {
    /// Forgets what belongs to a transaction.
    fn reset(&mut self) {
        self.tables.end_statement();
        self.ordinal = 0;
        self.alter = AlterPhase::Whole;
    }

    /// One event, of the stream or of a compressed transaction; its body are these bytes of `run`. Every type that is known
    /// stands here by name.
    fn event(
        &mut self,
        header: &EventHeader,
        run: &Bytes,
        body: Range<usize>,
        span: &EventSpan,
        filter: &dyn TableFilter,
        out: &mut Vec<Decoded>,
    ) -> Result<(), DecodeError> {
        if let Some(form) = Form::of(header.kind) {
            return self.rows(form, header, run, body, span, out);
        }
        let body = &run[body];
        match header.kind {
            kind::TABLE_MAP => self.tables.map(body, filter, span),
            kind::QUERY | kind::MARIA_QUERY_COMPRESSED => self.query(header, body, span, out),
            kind::MARIA_GTID => {
                self.alter = alter_phase(body);
                Ok(())
            }
            kind::XA_PREPARE => {
                let xid = xa_prepared(body).ok_or_else(|| span.malformed("XA_PREPARE", "it is cut short"))?;
                out.extend(xid.map(|xid| Decoded::Prepared { xid }));
                Ok(())
            }
            // The tracker has read these.
            kind::FORMAT_DESCRIPTION | kind::ROTATE | kind::XID => Ok(()),
            kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED => Ok(()),
            // These carry no change. A server decrypts its binlog before it sends it.
            kind::STOP | kind::HEARTBEAT | kind::HEARTBEAT_V2 | kind::IGNORABLE | kind::ROWS_QUERY => Ok(()),
            kind::PREVIOUS_GTIDS | kind::TRANSACTION_CONTEXT | kind::VIEW_CHANGE => Ok(()),
            kind::MARIA_ANNOTATE_ROWS | kind::MARIA_BINLOG_CHECKPOINT | kind::MARIA_GTID_LIST => Ok(()),
            kind::MARIA_START_ENCRYPTION => Ok(()),
            kind::INCIDENT => Err(incident(body, span)),
            other => match statement_format(other) {
                Some(what) => Err(DecodeError::StatementFormat { what, at: span.start() }),
                None if header.is_ignorable() => Ok(()),
                None => Err(DecodeError::UnknownEvent { kind: other, at: span.start() }),
            },
        }
    }

    fn rows(
        &mut self,
        form: Form,
        header: &EventHeader,
        run: &Bytes,
        body: Range<usize>,
        span: &EventSpan,
        out: &mut Vec<Decoded>,
    ) -> Result<(), DecodeError> {
        let ordinal = self.ordinal;
        self.ordinal = ordinal.checked_add(1).ok_or_else(|| span.malformed("rows", "too many in a transaction"))?;
        if let Some(SplitRows { layout, rows }) = self.splitter.split(form, run, body, &mut self.tables, span)? {
            let (span, timestamp) = (span.clone(), header.timestamp);
            out.push(Decoded::Rows(RowsEvent { layout, rows, ordinal, span, timestamp }));
        }
        Ok(())
    }

    fn query(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        span: &EventSpan,
        out: &mut Vec<Decoded>,
    ) -> Result<(), DecodeError> {
        let query = QueryBody::parse(body).map_err(|source| span.frame(source))?;
        let text = match header.kind {
            kind::MARIA_QUERY_COMPRESSED => {
                &event_part(query.statement).map_err(|what| span.malformed("compressed QUERY", what))?
            }
            _ => query.statement,
        };
        match bracket(text) {
            // With rows before it in its own transaction it ends that one; else it undoes one prepared before.
            Some(Bracket::XaRollback) if self.ordinal == 0 => {
                let (start, end) = (span.start(), span.end());
                out.push(Decoded::XaRollback { xid: xid_of(text), start, end });
                Ok(())
            }
            Some(Bracket::XaCommit) if self.ordinal == 0 => {
                out.push(Decoded::XaCommit { xid: xid_of(text) });
                Ok(())
            }
            Some(_) => {
                // A transaction without an engine of transactions ends with a statement. In a dm-worker's words.
                if text != b"BEGIN" {
                    tracing::debug!(place = %span.start(), "originSQL: {}", String::from_utf8_lossy(text));
                }
                Ok(())
            }
            None if self.alter == AlterPhase::Void => Ok(()),
            None => {
                let statement = statement(self.flavor, &query, text, span, header.timestamp)?;
                out.push(Decoded::Statement(statement));
                Ok(())
            }
        }
    }
}

/// Whether this event can only stand outside of a transaction, so that one open before it never ended.
fn begins_anew(header: &EventHeader) -> bool {
    match header.kind {
        kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED | kind::MARIA_GTID => true,
        kind::FORMAT_DESCRIPTION => !header.is_artificial(),
        _ => false,
    }
}

/// Statements that only say where a transaction begins, ends or can be rolled back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    XaRollback,
    XaCommit,
    Other,
}

fn bracket(text: &[u8]) -> Option<Bracket> {
    if text == b"BEGIN" {
        return Some(Bracket::Other);
    }
    let mut words = text.trim_ascii().split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let first = words.next()?;
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT"].iter().any(|name| is(first, name)) {
        return Some(Bracket::Other);
    }
    let second = words.next()?;
    if is(first, "RELEASE") && is(second, "SAVEPOINT") {
        return Some(Bracket::Other);
    }
    match is(first, "XA") {
        true if is(second, "ROLLBACK") => Some(Bracket::XaRollback),
        true if is(second, "COMMIT") => Some(Bracket::XaCommit),
        true => Some(Bracket::Other),
        false => None,
    }
}

/// What stands behind `XA ROLLBACK` or `XA COMMIT`, in one form.
fn xid_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words = text.split_whitespace().skip(2).collect::<String>();
    words.to_ascii_uppercase()
}

/// The identifier in an XA_PREPARE event, in the form that the servers log statements about it in; the inner `None` where
/// it was committed in one phase. The outer one where the event is cut short.
fn xa_prepared(body: &[u8]) -> Option<Option<String>> {
    let mut at = Cursor::new(body);
    let one_phase = at.u8()? != 0;
    let (format, global, branch) = (at.u32()?, at.u32()?, at.u32()?);
    let mut part = |length: u32| {
        let bytes = at.take(length as usize)?;
        Some(bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>())
    };
    let (global, branch) = (part(global)?, part(branch)?);
    Some((!one_phase).then(|| format!("X'{global}',X'{branch}',{format}")))
}

/// Names of the event types that only statement format has.
fn statement_format(event: u8) -> Option<&'static str> {
    Some(match event {
        kind::INTVAR => "INTVAR",
        kind::RAND => "RAND",
        kind::USER_VAR => "USER_VAR",
        kind::BEGIN_LOAD_QUERY => "BEGIN_LOAD_QUERY",
        kind::EXECUTE_LOAD_QUERY => "EXECUTE_LOAD_QUERY",
        event if OLD_LOADS.contains(&event) => "LOAD",
        _ => return None,
    })
}

/// A number, and a message behind its length.
fn incident(body: &[u8], span: &EventSpan) -> DecodeError {
    let mut at = Cursor::new(body);
    let message = at.u16().and_then(|_| at.prefixed(1)).unwrap_or_default();
    DecodeError::Incident { at: span.start(), message: String::from_utf8_lossy(message).into_owned() }
}

/// The extra flags of MariaDB's GTID event stand behind a group commit id and an XID, where these are; the zeros that
/// fill a short event up read as no flags.
fn alter_phase(body: &[u8]) -> AlterPhase {
    const GROUP_COMMIT_ID: u8 = 2;
    const PREPARED_OR_COMPLETED_XA: u8 = 0x40 | 0x80;
    const START_OR_ROLLBACK_ALTER: u8 = 2 | 8;
    let extra = || {
        let mut at = Cursor::new(body);
        let _ = at.take(12)?;
        let flags = at.u8()?;
        if flags & GROUP_COMMIT_ID != 0 {
            at.take(8)?;
        }
        if flags & PREPARED_OR_COMPLETED_XA != 0 {
            at.take(4)?;
            let (global, branch) = (at.u8()?, at.u8()?);
            at.take(usize::from(global) + usize::from(branch))?;
        }
        at.u8()
    };
    match extra() {
        Some(flags) if flags & START_OR_ROLLBACK_ALTER != 0 => AlterPhase::Void,
        _ => AlterPhase::Whole,
    }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
