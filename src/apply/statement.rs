//! Statements for a share's work, one at a time, so that a large group is never held as text.

use std::sync::Arc;

use super::deletes::write_deletes;
use super::literal::{is_json, write_literal};
use super::parts::{Shape, StatementInfo, info, write_names, write_table};
use super::values::RowWriter;
use crate::dispatch::{Change, NetInsert, NetUpdate, Share, Step};
use crate::model::EventSpan;
use crate::row::{ChangeKind, RowError, RowImage, Value};
use crate::schema::{BoundTable, Dialect};

/// Walks a share and writes one statement after the other.
pub struct StatementCursor<'a> {
    share: &'a Share,
    shape: Shape,
    table: usize,
    step: usize,
    phase: usize,
    row: usize,
}

impl<'a> StatementCursor<'a> {
    /// From the start of `share`.
    pub fn new(share: &'a Share, shape: Shape) -> Self {
        StatementCursor { share, shape, table: 0, step: 0, phase: 0, row: 0 }
    }

    /// Writes the next statement into `sql` (cleared first); `None` at the end.
    pub fn next(&mut self, sql: &mut Vec<u8>) -> Result<Option<StatementInfo>, RowError> {
        sql.clear();
        while let Some(table) = self.share.tables.get(self.table) {
            let Some(step) = table.steps.get(self.step) else {
                (self.table, self.step) = (self.table + 1, 0);
                continue;
            };
            let written = match (step, self.phase) {
                (Step::Keyed(nets), 0) => write_deletes(sql, nets.deletes(self.row), self.shape)?,
                (Step::Keyed(nets), 1) => write_updates(sql, nets.updates(self.row), self.shape)?,
                (Step::Keyed(nets), 2) => write_inserts(sql, nets.inserts(self.row), self.shape)?,
                (Step::InOrder(changes), 0) => write_in_order(sql, &changes[self.row..], self.shape)?,
                _ => {
                    (self.step, self.phase, self.row) = (self.step + 1, 0, 0);
                    continue;
                }
            };
            match written {
                Some(info) => {
                    self.row += info.rows as usize;
                    return Ok(Some(info));
                }
                None => (self.phase, self.row) = (self.phase + 1, 0),
            }
        }
        Ok(None)
    }
}

fn write_inserts<'r>(
    sql: &mut Vec<u8>,
    rows: impl Iterator<Item = NetInsert<'r>>,
    shape: Shape,
) -> Result<Option<StatementInfo>, RowError> {
    let mut rows = rows.peekable();
    let Some(NetInsert { table, .. }) = rows.peek().copied() else { return Ok(None) };
    let rows = rows.map(|row| (row.table, row.after, row.span));
    let written = write_values(sql, shape.verb(table), rows, shape)?;
    Ok(written.map(|Written { rows, relaxed, span }| info(ChangeKind::Insert, rows, table, span, relaxed)))
}

fn write_updates<'r>(
    sql: &mut Vec<u8>,
    rows: impl Iterator<Item = NetUpdate<'r>>,
    shape: Shape,
) -> Result<Option<StatementInfo>, RowError> {
    let mut rows = rows.peekable();
    let Some(NetUpdate { table, before, after, span }) = rows.peek().copied() else { return Ok(None) };
    if after.present.is_some() {
        let relaxed = write_update(sql, table, before, after)?;
        return Ok(Some(info(ChangeKind::Update, 1, table, span, relaxed)));
    }
    let whole = rows.take_while(|row| row.after.present.is_none()).map(|row| (row.table, row.after, row.span));
    let tail = if shape.safe.covers(table) { String::new() } else { on_duplicate_key(table) };
    let room = Shape { limit: shape.limit.saturating_sub(tail.len()), ..shape };
    let written = write_values(sql, shape.verb(table), whole, room)?;
    sql.extend(tail.bytes());
    Ok(written.map(|Written { rows, relaxed, span }| {
        let info = info(ChangeKind::Update, rows, table, span, relaxed);
        StatementInfo { counts: false, ..info }
    }))
}

/// All columns but the key from the row that would have been inserted.
fn on_duplicate_key(table: &BoundTable) -> String {
    let key = table.identity.as_deref().unwrap_or(&[]);
    let assigned = table.columns.iter().enumerate();
    let assigned = assigned.filter(|(at, column)| column.writable && !key.contains(at));
    let mut names = assigned.map(|(_, column)| column.quoted.as_str()).peekable();
    let only = key.first().map(|&column| table.columns[column].quoted.as_str()).filter(|_| names.peek().is_none());
    let mut text = String::from(" ON DUPLICATE KEY UPDATE ");
    for (at, name) in names.chain(only).enumerate() {
        for part in [if at > 0 { "," } else { "" }, name, "=VALUES(", name, ")"] {
            text.push_str(part);
        }
    }
    text
}

/// How much of some rows went into a statement.
struct Written<'r> {
    rows: usize,
    relaxed: bool,
    /// Where the last of them came from.
    span: &'r EventSpan,
}

/// `VERB INTO t (…) VALUES (…),(…)` for as many of `rows` as share the first one's columns and fit; `None` for no rows.
fn write_values<'r>(
    sql: &mut Vec<u8>,
    verb: &str,
    rows: impl Iterator<Item = (&'r Arc<BoundTable>, RowImage<'r>, &'r EventSpan)>,
    shape: Shape,
) -> Result<Option<Written<'r>>, RowError> {
    let mut rows = rows.peekable();
    let Some((table, RowImage { present, .. }, first)) = rows.peek().copied() else { return Ok(None) };
    let writer = RowWriter::new(table, present);
    let mut written = Written { rows: 0, relaxed: false, span: first };
    write_insert_head(sql, verb, table, present);
    for (of, image, span) in rows {
        if !Arc::ptr_eq(of, table) || image.present != present {
            break;
        }
        let before = sql.len();
        if written.rows > 0 {
            if written.rows == shape.rows || before > shape.bytes {
                break;
            }
            sql.push(b',');
        }
        let relaxed = writer.write(sql, image)?;
        if written.rows > 0 && sql.len() > shape.limit {
            sql.truncate(before);
            break;
        }
        written = Written { rows: written.rows + 1, relaxed: written.relaxed | relaxed, span };
    }
    Ok(Some(written))
}

fn write_insert_head(sql: &mut Vec<u8>, verb: &str, table: &BoundTable, present: Option<&[bool]>) {
    let has = |at: usize| present.is_none_or(|present| present.get(at).copied().unwrap_or(false));
    let columns = table.columns.iter().enumerate().filter(|(at, column)| column.writable && has(*at));
    sql.extend_from_slice(verb.as_bytes());
    sql.extend_from_slice(b" INTO ");
    write_table(sql, table);
    sql.extend_from_slice(b" (");
    write_names(sql, columns.map(|(_, column)| column.quoted.as_str()));
    sql.extend_from_slice(b") VALUES ");
}

fn write_update(
    sql: &mut Vec<u8>,
    table: &BoundTable,
    before: RowImage<'_>,
    after: RowImage<'_>,
) -> Result<bool, RowError> {
    let (mut comma, mut relaxed) = (false, false);
    sql.extend(format!("UPDATE {} SET ", table.target).bytes());
    after.visit(&table.layout, |column, value| {
        let bound = &table.columns[column];
        if bound.writable {
            if std::mem::replace(&mut comma, true) {
                sql.push(b',');
            }
            sql.extend(bound.quoted.bytes());
            sql.push(b'=');
            relaxed |= write_literal(sql, &value, bound, table.dialect)?;
        }
        Ok(())
    })?;
    write_where(sql, table, before)?;
    Ok(relaxed)
}

/// By the key where there is one, else by every column, byte for byte.
fn write_where(sql: &mut Vec<u8>, table: &BoundTable, before: RowImage<'_>) -> Result<(), RowError> {
    let mut and = false;
    sql.extend(b" WHERE ");
    before.visit(&table.layout, |column, value| {
        if table.identity.as_ref().is_some_and(|key| !key.contains(&column)) {
            return Ok(());
        }
        if std::mem::replace(&mut and, true) {
            sql.extend(b" AND ");
        }
        write_equal(sql, table, column, &value)
    })?;
    sql.extend(b" LIMIT 1");
    Ok(())
}

fn write_equal(sql: &mut Vec<u8>, table: &BoundTable, column: usize, value: &Value<'_>) -> Result<(), RowError> {
    let bound = &table.columns[column];
    if *value == Value::Null {
        sql.extend(format!("{} IS NULL", bound.quoted).bytes());
        return Ok(());
    }
    if is_json(table.layout.columns[column].kind) && table.dialect != Dialect::MariaDb {
        sql.extend(format!("{}=CAST(", bound.quoted).bytes());
        write_literal(sql, value, bound, table.dialect)?;
        sql.extend(b" AS JSON)");
        return Ok(());
    }
    sql.extend(format!("{}=", bound.quoted).bytes());
    write_literal(sql, value, bound, table.dialect)?;
    // Rows that differ only in case or accents are different rows where no key says otherwise.
    if let (None, Some(charset)) = (&table.identity, &bound.text_charset)
        && !bound.compares_by_bytes
    {
        sql.extend(format!(" AND {} COLLATE {charset}_bin=", bound.quoted).bytes());
        write_literal(sql, value, bound, table.dialect)?;
    }
    Ok(())
}

fn write_in_order<'r>(
    sql: &mut Vec<u8>,
    changes: &'r [Change],
    shape: Shape,
) -> Result<Option<StatementInfo>, RowError> {
    let Some(first) = changes.first() else { return Ok(None) };
    let (table, span) = (first.table(), first.span());
    match (first.kind(), first.before(), first.after()) {
        (ChangeKind::Insert, _, Some(_)) => {
            let same = changes.iter().take_while(|change| change.kind() == ChangeKind::Insert);
            let image = |change: &'r Change| change.after().map(|image| (change.table(), image, change.span()));
            let written = write_values(sql, shape.verb(table), same.filter_map(image), shape)?;
            Ok(written.map(|Written { rows, relaxed, span }| info(ChangeKind::Insert, rows, table, span, relaxed)))
        }
        (ChangeKind::Update, Some(before), Some(after)) => {
            let relaxed = write_update(sql, table, before, after)?;
            Ok(Some(info(ChangeKind::Update, 1, table, span, relaxed)))
        }
        (ChangeKind::Delete, Some(before), _) => {
            sql.extend(format!("DELETE FROM {}", table.target).bytes());
            write_where(sql, table, before)?;
            Ok(Some(info(ChangeKind::Delete, 1, table, span, false)))
        }
        // The decoder gives each kind its images.
        _ => Err(RowError::TableMap { what: "a row change without its image" }),
    }
}
