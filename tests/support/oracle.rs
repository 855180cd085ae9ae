//! Do two servers hold the same? Compares every table of a schema, its definition roughly and its rows exactly, and shows what differs.
//!
//! Rows are compared as multisets: order means nothing, so a table needs no key and the servers' collations do not matter.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use super::db::Db;
use super::rows::{self, Cell, Column, Form};

/// How many rows of each kind a difference shows.
const SHOWN: usize = 5;

/// Schema names on the source and on the target.
pub type SchemaPair<'a> = (&'a str, &'a str);

/// Waits until the target has what the source has now, then compares every table; panics with what differs. Nothing may write to the
/// source meanwhile.
pub async fn eventually_equal(source: &mut Db, target: &mut Db, pairs: &[SchemaPair<'_>], limit: Duration) {
    let deadline = Instant::now() + limit;
    for (from, to) in pairs {
        let wanted = fingerprint(source, from).await.expect("fingerprint of the source");
        loop {
            // A table may be dropped between two questions.
            if fingerprint(target, to).await.as_ref() == Ok(&wanted) || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    if let Some(difference) = compare(source, target, pairs).await {
        panic!("the target differs from the source (waited up to {limit:?}):\n{difference}");
    }
}

/// A short text that is equal for schemas with equal tables and rows; values that the two makes print differently are left out.
pub async fn fingerprint(db: &mut Db, schema: &str) -> Result<String, String> {
    let mut text = String::new();
    for (table, columns) in rows::tables(db, schema).await? {
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        let sums = db.try_rows(&rows::fingerprint_sql(schema, &table, &columns)).await?;
        let sums: Vec<String> = sums[0].iter().map(shown).collect();
        let _ = writeln!(text, "{table}({}) {}", names.join(","), sums.join(" "));
    }
    Ok(text)
}

/// Everything that differs, readable; `None` if nothing does.
pub async fn compare(source: &mut Db, target: &mut Db, pairs: &[SchemaPair<'_>]) -> Option<String> {
    let mut report = String::new();
    for (from, to) in pairs {
        let left = rows::tables(source, from).await.expect("tables of the source");
        let right = rows::tables(target, to).await.expect("tables of the target");
        for table in left.keys().chain(right.keys().filter(|table| !left.contains_key(*table))) {
            match (left.get(table), right.get(table)) {
                (Some(left), Some(right)) => {
                    let difference = compare_table(source, target, (*from, *to), table, left, right).await;
                    report.push_str(&difference.unwrap_or_default());
                }
                (Some(_), None) => drop(writeln!(report, "{from}.{table} is missing in the target")),
                _ => drop(writeln!(report, "{to}.{table} is in the target only")),
            }
        }
        let left = rows::indexes(source, from).await.expect("indexes of the source");
        let right = rows::indexes(target, to).await.expect("indexes of the target");
        if left != right {
            let only = |some: &[String], other: &[String]| -> Vec<String> {
                some.iter().filter(|line| !other.contains(line)).cloned().collect()
            };
            let _ = writeln!(
                report,
                "indexes: source only {:?}, target only {:?}",
                only(&left, &right),
                only(&right, &left)
            );
        }
    }
    (!report.is_empty()).then_some(report)
}

/// The rows of one table; `None` if equal.
async fn compare_table(
    source: &mut Db,
    target: &mut Db,
    (from, to): SchemaPair<'_>,
    table: &str,
    left: &[Column],
    right: &[Column],
) -> Option<String> {
    let names = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    if names(left) != names(right) {
        return Some(format!(
            "{from}.{table}: columns {:?} in the source, {:?} in the target\n",
            names(left),
            names(right)
        ));
    }
    let forms: Vec<Form> = left.iter().zip(right).map(|(left, right)| rows::form(left, right)).collect();
    let with_forms = |columns: &[Column]| columns.iter().cloned().zip(forms.iter().copied()).collect::<Vec<_>>();
    let source_rows = rows::read(source, from, table, &with_forms(left)).await.expect("rows of the source");
    let target_rows = rows::read(target, to, table, &with_forms(right)).await.expect("rows of the target");
    let (missing, extra) = subtract(&source_rows, &target_rows);
    if missing.is_empty() && extra.is_empty() {
        return None;
    }
    let mut report = format!(
        "{from}.{table}: {} rows in the source, {} in the target; {} in the source only, {} in the target only\n",
        source_rows.len(),
        target_rows.len(),
        missing.len(),
        extra.len()
    );
    describe(&mut report, left, &missing, &extra);
    Some(report)
}

/// Rows of two sorted lists that have no partner in the other one.
fn subtract<'a>(left: &'a [Vec<Cell>], right: &'a [Vec<Cell>]) -> (Vec<&'a [Cell]>, Vec<&'a [Cell]>) {
    let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if a == b => {
                left.next();
                right.next();
            }
            (Some(a), b) if b.is_none_or(|b| a < b) => only_left.extend(left.next().map(Vec::as_slice)),
            (_, Some(_)) => only_right.extend(right.next().map(Vec::as_slice)),
            _ => return (only_left, only_right),
        }
    }
}

/// Rows that have the same primary key on both sides are shown as one, with the columns that differ.
fn describe(report: &mut String, columns: &[Column], missing: &[&[Cell]], extra: &[&[Cell]]) {
    let keys: Vec<usize> = (0..columns.len()).filter(|index| columns[*index].primary).collect();
    let key_of = |row: &[Cell]| keys.iter().map(|index| row[*index].clone()).collect::<Vec<Cell>>();
    let mut twins: BTreeMap<Vec<Cell>, &[Cell]> = BTreeMap::new();
    if !keys.is_empty() {
        twins = extra.iter().map(|row| (key_of(row), *row)).collect();
    }
    let all: Vec<usize> = (0..columns.len()).collect();
    for row in missing.iter().take(SHOWN) {
        let line = match twins.get(&key_of(row)) {
            Some(twin) => {
                let differing: Vec<usize> = all.iter().copied().filter(|index| row[*index] != twin[*index]).collect();
                let (key, left) = (pick(columns, row, &keys), pick(columns, row, &differing));
                format!("  row {key}: source {left}; target {}", pick(columns, twin, &differing))
            }
            None => format!("  only in the source: {}", pick(columns, row, &all)),
        };
        let _ = writeln!(report, "{line}");
    }
    let missing_keys: Vec<Vec<Cell>> = missing.iter().map(|row| key_of(row)).collect();
    let unpaired = extra.iter().filter(|row| keys.is_empty() || !missing_keys.contains(&key_of(row)));
    for row in unpaired.take(SHOWN) {
        let _ = writeln!(report, "  only in the target: {}", pick(columns, row, &all));
    }
}

fn pick(columns: &[Column], row: &[Cell], indexes: &[usize]) -> String {
    let parts: Vec<String> =
        indexes.iter().map(|index| format!("{}={}", columns[*index].name, shown(&row[*index]))).collect();
    parts.join(" ")
}

/// A value for people: short, odd bytes escaped.
fn shown(cell: &Cell) -> String {
    const LIMIT: usize = 60;
    match cell {
        None => "NULL".into(),
        Some(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            match text.char_indices().nth(LIMIT) {
                Some((end, _)) => format!("{}… ({} bytes)", text[..end].escape_debug(), bytes.len()),
                None => text.escape_debug().to_string(),
            }
        }
    }
}
