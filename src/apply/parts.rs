//! What all statements are made of: their shape, what is told of each, names and keys.

use std::sync::Arc;

use super::literal::write_literal;
use crate::dispatch::SafeMode;
use crate::model::EventSpan;
use crate::row::{ChangeKind, RowError, RowImage};
use crate::schema::BoundTable;

/// How statements are cut and formed.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows a statement at most; 1 to find a refused row.
    pub rows: usize,
    /// Bytes of SQL a statement, about.
    pub bytes: usize,
    /// Bytes of SQL that the server takes at most. Only a statement of one row can be longer, and is not to be sent.
    pub limit: usize,
    /// Whose statements may meet their own effect.
    pub safe: SafeMode,
    /// Whether the server takes `VALUES` as a table.
    pub lists: bool,
}

impl Shape {
    pub(super) fn verb(self, table: &BoundTable) -> &'static str {
        if self.safe.covers(table) { "REPLACE" } else { "INSERT" }
    }
}

/// What a statement is about.
#[derive(Debug, Clone)]
pub struct StatementInfo {
    /// What it does.
    pub kind: ChangeKind,
    /// Rows it changes; for deletes and single updates also the rows that it must match.
    pub rows: u64,
    /// Whether the rows matched tell anything (not for upserts).
    pub counts: bool,
    /// Some value is refused by strict SQL modes although the source holds it.
    pub relaxed: bool,
    /// Its table.
    pub table: Arc<BoundTable>,
    /// Where its last row came from.
    pub span: EventSpan,
}

impl StatementInfo {
    /// The statement with `?` for its values, as DM prints it.
    pub fn template(&self) -> String {
        let table = &self.table;
        let names = |columns: &mut dyn Iterator<Item = usize>, glue: &str, tail: &str| {
            columns.map(|at| format!("{}{tail}", table.columns[at].quoted)).collect::<Vec<_>>().join(glue)
        };
        let writable = || (0..table.columns.len()).filter(|&at| table.columns[at].writable);
        let key: Vec<usize> = table.identity.clone().unwrap_or_else(|| (0..table.columns.len()).collect());
        let filter = names(&mut key.into_iter(), " AND ", " = ?");
        match self.kind {
            ChangeKind::Insert => {
                let marks = vec!["?"; writable().count()].join(",");
                format!("INSERT INTO {} ({}) VALUES ({marks})", table.target, names(&mut writable(), ",", ""))
            }
            ChangeKind::Update => {
                format!("UPDATE {} SET {} WHERE {filter} LIMIT 1", table.target, names(&mut writable(), ", ", " = ?"))
            }
            ChangeKind::Delete => format!("DELETE FROM {} WHERE {filter} LIMIT 1", table.target),
        }
    }
}

pub(super) fn info(
    kind: ChangeKind,
    rows: usize,
    table: &Arc<BoundTable>,
    span: &EventSpan,
    relaxed: bool,
) -> StatementInfo {
    StatementInfo {
        kind,
        rows: rows as u64,
        counts: kind != ChangeKind::Insert,
        relaxed,
        table: Arc::clone(table),
        span: span.clone(),
    }
}

pub(super) fn write_key_names(sql: &mut Vec<u8>, table: &BoundTable, identity: &[usize]) {
    let names = identity.iter().map(|&column| table.columns[column].quoted.as_str());
    match identity {
        [_] => write_names(sql, names),
        _ => {
            sql.push(b'(');
            write_names(sql, names);
            sql.push(b')');
        }
    }
}

pub(super) fn write_names<'t>(sql: &mut Vec<u8>, names: impl Iterator<Item = &'t str>) {
    for (at, name) in names.enumerate() {
        if at > 0 {
            sql.push(b',');
        }
        sql.extend_from_slice(name.as_bytes());
    }
}

/// The target's name. Small groups have few rows a statement, so that its words count too.
pub(super) fn write_table(sql: &mut Vec<u8>, table: &BoundTable) {
    let name = &table.target.0;
    for (before, name) in [(&b"`"[..], &name.schema), (b"`.`", &name.table)] {
        sql.extend_from_slice(before);
        for part in name.as_bytes().split_inclusive(|byte| *byte == b'`') {
            sql.extend_from_slice(part);
            if part.ends_with(b"`") {
                sql.push(b'`');
            }
        }
    }
    sql.push(b'`');
}

pub(super) fn write_key_values(
    sql: &mut Vec<u8>,
    table: &BoundTable,
    identity: &[usize],
    image: RowImage<'_>,
) -> Result<(), RowError> {
    if let [only] = identity {
        if let Some(value) = image.value(&table.layout, *only)? {
            write_literal(sql, &value, &table.columns[*only], table.dialect)?;
        }
        return Ok(());
    }
    let count = identity.iter().max().map_or(0, |last| last + 1);
    if identity.is_sorted() {
        let mut before = b'(';
        image.visit_some(
            &table.layout,
            count,
            |column| identity.contains(&column),
            |column, value| {
                sql.push(std::mem::replace(&mut before, b','));
                write_literal(sql, &value, &table.columns[column], table.dialect).map(|_| ())
            },
        )?;
        sql.push(b')');
        return Ok(());
    }
    let mut parts: Vec<Vec<u8>> = vec![Vec::new(); identity.len()];
    image.visit_some(
        &table.layout,
        count,
        |column| identity.contains(&column),
        |column, value| {
            if let Some(at) = identity.iter().position(|&wanted| wanted == column) {
                write_literal(&mut parts[at], &value, &table.columns[column], table.dialect)?;
            }
            Ok(())
        },
    )?;
    sql.push(b'(');
    sql.extend(parts.join(&b','));
    sql.push(b')');
    Ok(())
}
