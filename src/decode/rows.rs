//! Rows events: which table, which columns, and where each row image ends. Values are not looked at.
//!
//! Versions 1 and 2, MariaDB's compressed ones, and MySQL's partial updates, whose JSON columns are made whole here, while
//! the image before the change is at hand.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::error::DecodeError;
use super::tables::{OpenTable, Tables, table_id};
use crate::binlog::kind;
use crate::model::EventSpan;
use crate::row::json::apply_diffs;
use crate::row::{
    ChangeKind, ColumnKind, Cursor, EventRows, Present, ResolvedJson, RowError, RowImage, RowPlaces, TableLayout,
    Value, event_part, skip_image,
};

/// Bit of a rows event's flags: it is the last of its statement.
const END_OF_STATEMENT: u16 = 1;
/// Ids of rows events without a table, which servers send only to end a statement.
const NO_TABLE: [u64; 3] = [0x00ff_ffff, 0xffff_ffff, 0xffff_ffff_ffff];
/// Bit of a partial update's value options: some columns are diffs.
const PARTIAL_JSON: u64 = 1;
/// Column bitmaps kept.
const CACHED_BITMAPS: usize = 16;

/// What type number a rows event of either flavour stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) change: ChangeKind,
    /// Version 2 has a length and extra data behind the flags.
    extra: bool,
    compressed: bool,
    partial: bool,
}

impl Form {
    pub(super) fn of(event: u8) -> Option<Form> {
        let change = match event {
            kind::WRITE_ROWS_V1 | kind::WRITE_ROWS_V2 | kind::MARIA_WRITE_ROWS_COMPRESSED_V1 => ChangeKind::Insert,
            kind::DELETE_ROWS_V1 | kind::DELETE_ROWS_V2 | kind::MARIA_DELETE_ROWS_COMPRESSED_V1 => ChangeKind::Delete,
            kind::UPDATE_ROWS_V1 | kind::UPDATE_ROWS_V2 | kind::MARIA_UPDATE_ROWS_COMPRESSED_V1 => ChangeKind::Update,
            kind::PARTIAL_UPDATE_ROWS => ChangeKind::Update,
            _ => return None,
        };
        Some(Form {
            change,
            extra: matches!(event, kind::WRITE_ROWS_V2..=kind::DELETE_ROWS_V2 | kind::PARTIAL_UPDATE_ROWS),
            compressed: event >= kind::MARIA_WRITE_ROWS_COMPRESSED_V1,
            partial: event == kind::PARTIAL_UPDATE_ROWS,
        })
    }
}

/// The rows of one event, whose table is wanted.
pub(super) struct SplitRows {
    pub(super) layout: Arc<TableLayout>,
    pub(super) rows: EventRows,
}

/// Splits rows events; keeps the few distinct column bitmaps.
#[derive(Debug, Default)]
pub(super) struct RowSplitter {
    bitmaps: Vec<Arc<[bool]>>,
}

impl RowSplitter {
    /// Splits the body of a rows event, these bytes of `run`; `None` for rows that nobody wants and for an event that
    /// only ends a statement.
    pub(super) fn split(
        &mut self,
        form: Form,
        run: &Bytes,
        body: Range<usize>,
        tables: &mut Tables,
        span: &EventSpan,
    ) -> Result<Option<SplitRows>, DecodeError> {
        let cut = || span.malformed("rows", "it is cut short");
        let mut at = Cursor::new(&run[body.clone()]);
        let id = table_id(at.take(6).ok_or_else(cut)?);
        let ends = at.u16().ok_or_else(cut)? & END_OF_STATEMENT != 0;
        let split = match tables.get(id) {
            Some(OpenTable { wanted: false, .. }) => None,
            Some(OpenTable { layout, .. }) => {
                let layout = Arc::clone(layout);
                let body = body.end - at.rest().len()..body.end;
                let rows = self.wanted(form, run, body, &layout, span)?;
                Some(SplitRows { layout, rows })
            }
            None if NO_TABLE.contains(&id) => None,
            None => return Err(DecodeError::NoTableMap { table_id: id, at: span.start() }),
        };
        if ends {
            tables.end_statement();
        }
        Ok(split)
    }

    fn wanted(
        &mut self,
        form: Form,
        run: &Bytes,
        body: Range<usize>,
        layout: &TableLayout,
        span: &EventSpan,
    ) -> Result<EventRows, DecodeError> {
        let cut = || span.malformed("rows", "it is cut short");
        let mut at = Cursor::new(&run[body.clone()]);
        if form.extra {
            // The length counts itself.
            let len = usize::from(at.u16().ok_or_else(cut)?);
            len.checked_sub(2).and_then(|len| at.take(len)).ok_or_else(cut)?;
        }
        let width = at.lenenc_len().ok_or_else(cut)?;
        if width != layout.columns.len() {
            return Err(span.malformed("rows", "it has another number of columns than its table map"));
        }
        let first = self.bitmap(at.take(width.div_ceil(8)).ok_or_else(cut)?, width);
        let (before, after) = match form.change {
            ChangeKind::Insert => (None, first),
            ChangeKind::Delete => (first, None),
            ChangeKind::Update => (first, self.bitmap(at.take(width.div_ceil(8)).ok_or_else(cut)?, width)),
        };
        let bytes = if form.compressed {
            Bytes::from(event_part(at.rest()).map_err(|what| span.malformed("compressed rows", what))?)
        } else {
            run.slice(body.end - at.rest().len()..body.end)
        };
        let data = &bytes[..];
        // Before any place is counted in 32 bits.
        let too_large = || span.malformed("rows", "it has more than 4 GiB");
        u32::try_from(data.len()).map_err(|_| too_large())?;
        let mut rows = RowPlaces::default();
        let mut images = Images { layout, data, at: 0, span };
        while images.at < data.len() {
            match form.change {
                ChangeKind::Insert => rows.push(0..0, images.next(&after)?, data.len()),
                ChangeKind::Delete => rows.push(images.next(&before)?, 0..0, data.len()),
                ChangeKind::Update if form.partial => {
                    let old = images.next(&before)?;
                    let (new, resolved) = images.partial(old.clone(), &before, &after)?;
                    if let Some(json) = resolved {
                        rows.resolve(new.start, json);
                    }
                    rows.push(old, new, data.len());
                }
                ChangeKind::Update => rows.push(images.next(&before)?, images.next(&after)?, data.len()),
            }
        }
        EventRows::new(form.change, bytes, [before, after], rows).ok_or_else(too_large)
    }

    /// The columns that a bitmap names; `None` for all.
    fn bitmap(&mut self, bits: &[u8], width: usize) -> Present {
        let is_set = |index: usize| bits[index / 8] >> (index % 8) & 1 == 1;
        let (whole, last) = (width / 8, (1u8 << (width % 8)) - 1);
        if bits[..whole].iter().all(|byte| *byte == 0xff) && (last == 0 || bits[whole] & last == last) {
            return None;
        }
        let same = |known: &&Arc<[bool]>| known.len() == width && (0..width).all(|index| known[index] == is_set(index));
        if let Some(known) = self.bitmaps.iter().find(same) {
            return Some(known.clone());
        }
        if self.bitmaps.len() >= CACHED_BITMAPS {
            self.bitmaps.clear();
        }
        let present: Arc<[bool]> = (0..width).map(is_set).collect();
        self.bitmaps.push(present.clone());
        Some(present)
    }
}

/// The images of an event, and how far they are split.
struct Images<'a> {
    layout: &'a TableLayout,
    data: &'a [u8],
    at: usize,
    span: &'a EventSpan,
}

impl<'a> Images<'a> {
    /// Where the next image lies.
    fn next(&mut self, present: &Present) -> Result<Range<usize>, DecodeError> {
        let start = self.at;
        let len = skip_image(self.layout, present.as_deref(), &self.data[start..]);
        let len = len.map_err(|source| self.error(source))?;
        if len == 0 {
            // A table without columns, or an image of none: the rest would be split for ever.
            return Err(self.span.malformed("rows", "a row has no bytes"));
        }
        self.at += len;
        Ok(start..self.at)
    }

    fn error(&self, source: RowError) -> DecodeError {
        DecodeError::Rows { table: self.layout.source.clone(), at: self.span.start(), source }
    }

    /// The image after a partial update: options, a bit for each JSON column of the table (those absent from the image
    /// included), then an image in which a column with its bit set holds diffs.
    fn partial(
        &mut self,
        old: Range<usize>,
        before: &'a Present,
        after: &'a Present,
    ) -> Result<(Range<usize>, Option<ResolvedJson>), DecodeError> {
        let cut = || self.span.malformed("partial update", "it is cut short");
        let mut at = Cursor::new(&self.data[self.at..]);
        let options = at.lenenc().ok_or_else(cut)?;
        let mut diffs = Vec::new();
        if options & PARTIAL_JSON != 0 {
            let json: Vec<usize> = (0..self.layout.columns.len())
                .filter(|index| matches!(self.layout.columns[*index].kind, ColumnKind::Json { .. }))
                .collect();
            let bits = at.take(json.len().div_ceil(8)).ok_or_else(cut)?;
            let is_set = |bit: usize| bits[bit / 8] >> (bit % 8) & 1 == 1;
            diffs.extend(json.iter().enumerate().filter(|(bit, _)| is_set(*bit)).map(|(_, column)| *column));
        }
        self.at = self.data.len() - at.rest().len();
        let new = self.next(after)?;
        if diffs.is_empty() {
            return Ok((new, None));
        }
        let image = |place: &Range<usize>, present: &'a Present| RowImage {
            present: present.as_deref(),
            bytes: &self.data[place.clone()],
            resolved_json: &[],
        };
        let resolved = self.resolve(image(&old, before), image(&new, after), &diffs)?;
        Ok((new, Some(resolved.into())))
    }

    fn resolve(
        &self,
        before: RowImage<'_>,
        after: RowImage<'_>,
        columns: &[usize],
    ) -> Result<Vec<(usize, Vec<u8>)>, DecodeError> {
        let old = json_values(self.layout, before, columns).map_err(|source| self.error(source))?;
        let diffs = json_values(self.layout, after, columns).map_err(|source| self.error(source))?;
        let error = |column, source| DecodeError::PartialJson {
            table: self.layout.source.clone(),
            column,
            at: self.span.start(),
            source,
        };
        let mut resolved = Vec::with_capacity(diffs.len());
        for (column, diff) in diffs {
            let (_, old) = old.iter().find(|(other, _)| *other == column).ok_or_else(|| error(column, None))?;
            resolved.push((column, apply_diffs(old, diff).map_err(|source| error(column, Some(source)))?));
        }
        Ok(resolved)
    }
}

/// The bytes of JSON columns in an image, without those that are NULL or absent.
fn json_values<'a>(
    layout: &TableLayout,
    image: RowImage<'a>,
    columns: &[usize],
) -> Result<Vec<(usize, &'a [u8])>, RowError> {
    let mut values = Vec::new();
    image.visit(layout, |index, value| {
        if let Value::Json(std::borrow::Cow::Borrowed(json)) = value
            && columns.contains(&index)
        {
            values.push((index, json));
        }
        Ok(())
    })?;
    Ok(values)
}
