//! Expression filters at work: the downstream is asked which rows of an event are to be left out.
//!
//! Each value that an expression needs is sent as a column of the type, character set and collation that its column has
//! downstream, a row of the binlog a row of the question; the answer is what the server's own arithmetic and collations make
//! of it. A type for which that is not certain stops the task before the first row is judged.
//!
//! Invariant: the verdict on a row depends on its values, on the expressions and on the table's structure alone, so that a
//! replay after a crash leaves out what was left out before.

use std::sync::Arc;

use super::Intake;
use super::asks::{Answer, Question};
use crate::apply::write_literal;
use crate::decode::RowsEvent;
use crate::error::{Code, Failure};
use crate::row::{ChangeKind, ColumnKind, RowError, RowImage, Value};
use crate::schema::{BoundColumn, BoundTable, Dialect, Encoding};
use crate::transform::{Expression, RowCondition};

/// Rows that are asked about at once.
const ROWS: usize = 500;
/// Bytes of a question, about; a row is not cut.
const BYTES: usize = 512 << 10;

/// The conditions of a table, with where their values are.
#[derive(Debug)]
pub(super) struct BoundConditions {
    all: Vec<BoundCondition>,
}

#[derive(Debug)]
struct BoundCondition {
    kind: ChangeKind,
    /// True where the change is left out; over columns `b…` and `a…`.
    sql: String,
    /// Columns of the layout that it needs of the row before, and after.
    before: Vec<usize>,
    after: Vec<usize>,
    /// For messages.
    shown: String,
}

/// What makes a literal a column of the right type.
struct Cast {
    head: String,
    tail: String,
}

impl BoundConditions {
    /// Binds a table's conditions. One that names a column which the table does not have leaves nothing out, as in DM: it is
    /// given to `idle`. Fails where a column's type cannot be sent without a doubt.
    pub(super) fn bind(
        conditions: &[RowCondition],
        bound: &BoundTable,
        mut idle: impl FnMut(&str, &str),
    ) -> Result<Option<Arc<BoundConditions>>, Failure> {
        let mut all = Vec::new();
        'conditions: for condition in conditions {
            let mut parts = Vec::new();
            let mut found = [Vec::new(), Vec::new()];
            for (side, (prefix, expression)) in
                [("b", &condition.before), ("a", &condition.after)].into_iter().enumerate()
            {
                let Some(expression) = expression else { continue };
                for name in expression.columns() {
                    let Some(place) = place(bound, name) else {
                        idle(expression.text(), name);
                        continue 'conditions;
                    };
                    if cast(bound, place).is_none() {
                        return Err(unsure(bound, expression, name));
                    }
                    found[side].push(place);
                }
                for part in expression.parts() {
                    let places: Vec<usize> = part.columns.iter().filter_map(|name| place(bound, name)).collect();
                    if let Some(why) = doubt(bound, &places, part.dates) {
                        return Err(ambiguous(bound, expression, why));
                    }
                }
                let known = |name: &str| place(bound, name).map_or_else(String::new, |at| format!("{prefix}{at}"));
                parts.push(format!("({}) IS TRUE", expression.renamed(known)));
            }
            let shown: Vec<&str> =
                [&condition.before, &condition.after].into_iter().flatten().map(Expression::text).collect();
            let [mut before, mut after] = found;
            for columns in [&mut before, &mut after] {
                columns.sort_unstable();
                columns.dedup();
            }
            let (sql, shown) = (parts.join(" AND "), shown.join("` and `"));
            all.push(BoundCondition { kind: condition.kind, sql, before, after, shown });
        }
        Ok((!all.is_empty()).then(|| Arc::new(BoundConditions { all })))
    }

    fn of(&self, kind: ChangeKind) -> impl Iterator<Item = &BoundCondition> {
        self.all.iter().filter(move |condition| condition.kind == kind)
    }
}

/// The layout's column of that name: by the source's names where it writes them, else by those downstream.
fn place(bound: &BoundTable, name: &str) -> Option<usize> {
    let same = |other: &str| other.to_lowercase() == name.to_lowercase();
    match &bound.layout.names {
        Some(names) => names.iter().position(|known| same(known)),
        None => {
            let quoted = format!("`{}`", name.replace('`', "``"));
            bound.columns.iter().position(|column| column.quoted.to_lowercase() == quoted.to_lowercase())
        }
    }
}

/// How a column's literals are sent; `None` where that is not certain to compare as the column does.
fn cast(bound: &BoundTable, place: usize) -> Option<Cast> {
    use ColumnKind as K;
    let (column, known) = (bound.layout.columns.get(place)?, bound.columns.get(place)?);
    let to = |kind: String| Cast { head: "CAST(".to_owned(), tail: format!(" AS {kind})") };
    Some(match column.kind {
        _ if known.formatted => return None,
        K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt => {
            let unsigned = column.unsigned == Some(true) || matches!(known.encoding, Encoding::Unsigned(_));
            to(if unsigned { "UNSIGNED" } else { "SIGNED" }.to_owned())
        }
        K::Float if bound.dialect != Dialect::TiDb => to("FLOAT".to_owned()),
        K::Float | K::Double => Cast { head: "(0e0+".to_owned(), tail: ")".to_owned() },
        K::Decimal { precision, scale } => to(format!("DECIMAL({precision},{scale})")),
        K::Date => to("DATE".to_owned()),
        K::DateTime { fraction, .. } => to(format!("DATETIME({fraction})")),
        K::Time { fraction, .. } => to(format!("TIME({fraction})")),
        K::Char { .. } | K::VarChar { .. } | K::Blob { .. } => text(known)?,
        _ => return None,
    })
}

fn text(column: &BoundColumn) -> Option<Cast> {
    match &column.encoding {
        Encoding::Text(_) | Encoding::Utf8Or(_) => {
            let (charset, collation) = (column.text_charset.as_ref()?, column.text_collation.as_ref()?);
            let plain = |name: &str| name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
            if !plain(charset) || !plain(collation) {
                return None;
            }
            Some(Cast { head: "CONVERT(".to_owned(), tail: format!(" USING {charset}) COLLATE {collation}") })
        }
        Encoding::Binary { .. } => Some(Cast { head: "CAST(".to_owned(), tail: " AS BINARY)".to_owned() }),
        _ => None,
    }
}

fn unsure(bound: &BoundTable, expression: &Expression, name: &str) -> Failure {
    let text = format!(
        "expression filter `{}` of {} needs column `{name}`, whose type cannot be compared outside of its table without a \
         doubt (ENUM, SET, BIT, YEAR, TIMESTAMP, JSON, ZEROFILL, FLOAT and DOUBLE with digits, and types of one server alone)",
        expression.text(),
        bound.source
    );
    Failure::new(Code::ExpressionGrammar, text).workaround(REMOVE)
}

const REMOVE: &str = "Please remove the filter (update-task) and filter these rows downstream, with a view.";

/// Why columns, each of which can be sent, are not certain to be compared with each other as in their table, or with dates.
fn doubt(bound: &BoundTable, places: &[usize], dates: bool) -> Option<&'static str> {
    // A value that is sent has its collation by COLLATE, which in a table no column has: of two that differ, another may win.
    let collation = |&place: &usize| {
        let column = bound.columns.get(place)?;
        match &column.encoding {
            Encoding::Text(_) | Encoding::Utf8Or(_) => Some(column.text_collation.as_deref()),
            Encoding::Binary { .. } => Some(None),
            _ => None,
        }
    };
    let mut collations = places.iter().filter_map(collation);
    if let Some(first) = collations.next()
        && collations.any(|other| other != first)
    {
        return Some(
            "compares texts of several collations, and which of them counts is another matter outside of the table",
        );
    }
    let is = |wanted: fn(ColumnKind) -> bool| {
        places.iter().any(|&place| bound.layout.columns.get(place).is_some_and(|column| wanted(column.kind)))
    };
    let dates = dates || is(|kind| matches!(kind, ColumnKind::Date | ColumnKind::DateTime { .. }));
    (dates && is(|kind| matches!(kind, ColumnKind::Time { .. })))
        .then_some("compares a TIME column with dates: servers take the time as one of the day on which they are asked")
}

fn ambiguous(bound: &BoundTable, expression: &Expression, why: &str) -> Failure {
    let text = format!("expression filter `{}` of {} {why}", expression.text(), bound.source);
    Failure::new(Code::ExpressionGrammar, text).workaround(REMOVE)
}

impl Intake {
    /// Which rows of an event go on; `None` for all of them.
    pub(super) async fn rows_that_pass(
        &mut self,
        conditions: &BoundConditions,
        bound: &BoundTable,
        event: &RowsEvent,
    ) -> Result<Option<Vec<bool>>, Failure> {
        let conditions: Vec<&BoundCondition> = conditions.of(event.rows.kind()).collect();
        if conditions.is_empty() {
            return Ok(None);
        }
        let shown: Vec<String> = conditions.iter().map(|condition| format!("`{}`", condition.shown)).collect();
        let doing = format!("evaluate expression filter {} of {}", shown.join(", "), bound.source);
        let mut passes = vec![true; event.rows.len()];
        let mut next = 0;
        while next < event.rows.len() {
            let mut sql = Vec::new();
            next = question(&mut sql, &conditions, bound, event, next)?;
            let Answer::LeftOut(rows) = self.asks.retried(Question::LeftOut { sql: &sql, doing: &doing }).await? else {
                return Err(Failure::new(Code::ExpressionGrammar, doing));
            };
            for row in rows {
                if let Some(pass) = usize::try_from(row).ok().and_then(|row| passes.get_mut(row)) {
                    *pass = false;
                }
            }
        }
        let left_out = passes.iter().filter(|passes| !**passes).count();
        if left_out > 0 {
            // Named as a dm-worker names them: scripts add these numbers up.
            let table = &bound.source;
            match event.rows.kind() {
                ChangeKind::Insert => tracing::debug!(%table, "number of filtered insert" = left_out, "filtered rows"),
                ChangeKind::Update => tracing::debug!(%table, "number of filtered update" = left_out, "filtered rows"),
                ChangeKind::Delete => tracing::debug!(%table, "number of filtered delete" = left_out, "filtered rows"),
            }
        }
        Ok((left_out > 0).then_some(passes))
    }
}

/// Writes the question about the rows from `first` on; gives back the first one that it is not about.
fn question(
    out: &mut Vec<u8>,
    conditions: &[&BoundCondition],
    bound: &BoundTable,
    event: &RowsEvent,
    first: usize,
) -> Result<usize, Failure> {
    let needed = |of: fn(&BoundCondition) -> &Vec<usize>| {
        let mut all: Vec<usize> = conditions.iter().flat_map(|condition| of(condition)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let (before, after) = (needed(|condition| &condition.before), needed(|condition| &condition.after));
    let any: Vec<String> = conditions.iter().map(|condition| format!("({})", condition.sql)).collect();
    out.extend(b"SELECT r.n FROM (SELECT u.* FROM (");
    let mut row = first;
    while row < event.rows.len() && row < first + ROWS && (row == first || out.len() < BYTES) {
        if row > first {
            out.extend(b" UNION ALL ");
        }
        out.extend(format!("SELECT {row} AS n").bytes());
        write_side(out, "b", &before, bound, event.rows.before(row))?;
        write_side(out, "a", &after, bound, event.rows.after(row))?;
        row += 1;
    }
    // Servers are to make a table of it first, and to judge its columns: constants are compared and overflow otherwise. A limit
    // has them do so, a MariaDB one of a SELECT, and a MySQL a second row.
    if row == first + 1 {
        let nulls = ", NULL".repeat(before.len() + after.len());
        out.extend(format!(" UNION ALL SELECT {}{nulls}", event.rows.len()).bytes());
    }
    out.extend(format!(") AS u LIMIT {ROWS}) AS r WHERE {}", any.join(" OR ")).bytes());
    Ok(row)
}

fn write_side(
    out: &mut Vec<u8>,
    prefix: &str,
    places: &[usize],
    bound: &BoundTable,
    image: Option<RowImage<'_>>,
) -> Result<(), Failure> {
    for &place in places {
        let column = &bound.columns[place];
        let value = image.map(|image| image.value(&bound.layout, place)).transpose().map_err(|error| unread(&error))?;
        let Some(value) = value.flatten() else {
            let text = format!(
                "upstream didn't log enough columns in binlog: an expression filter of {} needs column {}",
                bound.source, column.quoted
            );
            return Err(Failure::new(Code::ColumnNotInBinlog, text));
        };
        if let Some(what) = doubtful(&value, bound.dialect) {
            let text = format!(
                "an expression filter of {} meets {what} in column {}, which servers compare differently",
                bound.source, column.quoted
            );
            return Err(Failure::new(Code::ExpressionGrammar, text)
                .workaround("Please change the filter (update-task), then resume-task."));
        }
        let Some(Cast { head, tail }) = cast(bound, place) else { continue };
        out.extend(format!(", {head}").bytes());
        write_literal(out, &value, column, bound.dialect).map_err(|error| unread(&error))?;
        out.extend(format!("{tail} AS {prefix}{place}").bytes());
    }
    Ok(())
}

/// A value that is not the same to every server, or everywhere in one.
fn doubtful(value: &Value<'_>, dialect: Dialect) -> Option<&'static str> {
    match *value {
        // `0000-00-00` and its like.
        Value::Date { month, day, .. } | Value::DateTime { month, day, .. } if month == 0 || day == 0 => {
            Some("a date without a day")
        }
        // To a MariaDB, `t*1e0` is 16767216 for `-01:00:00` outside of a stored table.
        Value::Time { negative: true, .. } if dialect == Dialect::MariaDb => Some("a negative time"),
        _ => None,
    }
}

fn unread(error: &RowError) -> Failure {
    Failure::new(Code::StreamEvent, format!("read a row: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::testing::{change, table};
    use crate::model::RowOrdinal;

    fn condition(kind: ChangeKind, before: Option<&str>, after: Option<&str>) -> RowCondition {
        let parse = |text: Option<&str>| text.map(|text| Expression::parse(text).unwrap());
        RowCondition { kind, before: parse(before), after: parse(after) }
    }

    fn bind(conditions: &[RowCondition]) -> (Option<Arc<BoundConditions>>, Vec<String>) {
        let bound = table("t", "t", &[("PRIMARY", &[0])]);
        let mut idle = Vec::new();
        let found =
            BoundConditions::bind(conditions, &bound, |text, name| idle.push(format!("{text}: {name}"))).unwrap();
        (found, idle)
    }

    #[test]
    fn a_condition_on_a_column_that_is_not_there_leaves_nothing_out() {
        let conditions =
            [condition(ChangeKind::Insert, None, Some("V > 1")), condition(ChangeKind::Insert, None, Some("gone > 1"))];
        let (found, idle) = bind(&conditions);
        assert_eq!(found.unwrap().of(ChangeKind::Insert).count(), 1);
        assert_eq!(idle, ["gone > 1: gone"]);
        assert!(bind(&conditions[1..]).0.is_none());
    }

    #[test]
    fn both_sides_of_an_update_must_be_true() {
        let conditions = [
            condition(ChangeKind::Update, Some("u = 1"), Some("v = 2 or u")),
            condition(ChangeKind::Update, None, Some("id")),
        ];
        let found = bind(&conditions).0.unwrap();
        let all: Vec<_> =
            found.of(ChangeKind::Update).map(|one| (one.sql.as_str(), &one.before[..], &one.after[..])).collect();
        let none: &[usize] = &[];
        assert_eq!(
            all,
            [("(b1 = 1) IS TRUE AND (a2 = 2 or a1) IS TRUE", &[1][..], &[1, 2][..]), ("(a0) IS TRUE", none, &[0][..])]
        );
    }

    #[test]
    fn what_servers_are_not_at_one_about_is_told() {
        let time = |negative| Value::Time { negative, hours: 1, minutes: 0, seconds: 0, micros: 0, fraction: 0 };
        assert!(doubtful(&time(true), Dialect::MariaDb).is_some() && doubtful(&time(true), Dialect::MySql).is_none());
        assert!(doubtful(&time(false), Dialect::MariaDb).is_none());
        let date = |day| Value::Date { year: 2020, month: 1, day };
        assert!(doubtful(&date(0), Dialect::MySql).is_some() && doubtful(&date(1), Dialect::MariaDb).is_none());
    }

    #[test]
    fn values_are_sent_as_what_their_columns_are() {
        let bound = table("t", "t", &[("PRIMARY", &[0])]);
        let row = |id: i32, u: Option<i32>, v: i32| [Some(Some(id)), Some(u), Some(Some(v))];
        let change = change(&bound, Some(row(1, None, 3)), Some(row(1, Some(-2), 4)), RowOrdinal::default());
        let mut out = Vec::new();
        write_side(&mut out, "b", &[1], &bound, change.before()).unwrap();
        write_side(&mut out, "a", &[1, 2], &bound, change.after()).unwrap();
        let expected = ", CAST(NULL AS SIGNED) AS b1, CAST(-2 AS SIGNED) AS a1, CAST(4 AS SIGNED) AS a2";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(write_side(&mut Vec::new(), "a", &[0], &bound, None).is_err());
    }
}
