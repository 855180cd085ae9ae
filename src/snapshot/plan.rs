//! One table's copy, planned: which columns, by which key, and the SQL that reads a range of it and writes rows.

use std::time::Duration;

use super::spec::Existing;
use super::structure::{Column, Key, Structure};
use super::value::{self, Field, Kind};
use crate::model::{SourceTable, TargetTable};

/// Longest wait for a row that the source has only to send, and for one that it may have to look for.
const PATIENCE: Duration = Duration::from_secs(300);
const LONG_PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// A key's values as literals, one for each of its columns.
pub(super) type Bound = Vec<String>;

/// Bounds as they are stored with a mark.
pub(super) fn bound_text(bound: &Bound) -> String {
    serde_json::to_string(bound).unwrap_or_default()
}

/// Back from [`bound_text`].
pub(super) fn bound_of(text: &str) -> Option<Bound> {
    serde_json::from_str(text).ok()
}

/// A column that is read.
#[derive(Debug, Clone)]
pub(super) struct ReadColumn {
    pub name: String,
    pub kind: Kind,
    /// How a load makes its value, where it is loaded.
    pub field: Field,
    expression: String,
}

/// How a table is copied.
#[derive(Debug, Clone)]
pub(super) struct TablePlan {
    pub source: SourceTable,
    pub target: TargetTable,
    /// What is read: first the columns that are written, then those of the key that are not.
    pub columns: Vec<ReadColumn>,
    /// How many of them are written.
    pub written: usize,
    /// Places of the key's columns, in its order; `None` for a table that is read whole at one location.
    pub key: Option<Vec<usize>>,
    /// The key's index at the source.
    pub index: String,
    /// Other source tables go into the same target.
    pub shared: bool,
    /// The source's engine has transactions.
    pub transactional: bool,
    /// One value may be large.
    pub long: bool,
    /// One value may have megabytes.
    pub huge: bool,
    /// Rows may be sent as lines of [`load`].
    pub loadable: bool,
    /// The target has an AUTO_INCREMENT column.
    pub counts: bool,
    /// The key's columns sort alike on both sides, so that a range there is the same range here.
    pub sorts_alike: bool,
    /// Rows that are wanted.
    pub condition: Option<String>,
}

pub(super) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl TablePlan {
    /// Fits source and target together. The error names the columns that the target lacks.
    pub fn new(
        source: SourceTable,
        target: TargetTable,
        here: &Structure,
        there: &Structure,
    ) -> Result<TablePlan, Vec<String>> {
        let mut missing = Vec::new();
        let mut columns: Vec<ReadColumn> = Vec::new();
        let mut loadable = true;
        let mut places = vec![None; here.columns.len()];
        for (at, column) in here.columns.iter().enumerate() {
            let field = match there.column(&column.name) {
                // It computes them itself.
                Some(twin) if twin.generated => continue,
                Some(twin) => value::field(column, twin),
                None if column.generated => continue,
                None => {
                    missing.push(column.name.clone());
                    continue;
                }
            };
            loadable &= field.is_some();
            places[at] = Some(columns.len());
            columns.push(ReadColumn { field: field.unwrap_or(Field::AsItIs), ..read_column(column) });
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let written = columns.len();
        // Rows that the target cannot tell apart by a key would be there twice after a replay.
        let identity = here.identity().filter(|_| there.identity().is_some());
        let key = identity.map(|key| key_places(key, here, &mut places, &mut columns));
        let sorts_alike = identity.is_some_and(|key| sorts_alike(key, here, there));
        Ok(TablePlan {
            source,
            target,
            columns,
            written,
            key,
            index: identity.map(|key| key.name.clone()).unwrap_or_default(),
            shared: false,
            transactional: true,
            // Without a key nothing is replaced, and a load would leave out what is there twice.
            loadable: loadable && written > 0 && identity.is_some(),
            counts: there.counts,
            long: here.columns.iter().any(Kind::is_long),
            huge: here.columns.iter().any(Kind::is_huge),
            sorts_alike,
            condition: None,
        })
    }

    fn select(&self) -> String {
        let list: Vec<&str> = self.columns.iter().map(|column| column.expression.as_str()).collect();
        // Nothing to write is still rows to count.
        if list.is_empty() { "SELECT 1".to_owned() } else { format!("SELECT {}", list.join(",")) }
    }

    /// Reads up to `limit` rows behind `low`, up to `high` and with it, in the key's order.
    pub fn select_range(&self, low: Option<&Bound>, high: Option<&Bound>, limit: u64) -> String {
        let Some(key) = &self.key else { return self.select_all() };
        let names: Vec<String> = key.iter().map(|at| ident(&self.columns[*at].name)).collect();
        let mut conditions: Vec<String> = Vec::new();
        conditions.extend(low.map(|bound| beyond(&names, bound, ">", ">")));
        conditions.extend(high.map(|bound| beyond(&names, bound, "<", "<=")));
        conditions.extend(self.condition.iter().map(|condition| format!("({condition})")));
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!(
            "{} FROM {} FORCE INDEX ({}){filter} ORDER BY {} LIMIT {limit}",
            self.select(),
            self.source,
            ident(&self.index),
            names.join(",")
        )
    }

    /// Reads all rows.
    pub fn select_all(&self) -> String {
        let filter = self.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        format!("{} FROM {}{filter}", self.select(), self.source)
    }

    /// Deletes the target's rows in a range, as [`Self::select_range`] has it.
    pub fn delete_range(&self, low: Option<&Bound>, high: Option<&Bound>) -> String {
        let key = self.key.as_deref().unwrap_or_default();
        let names: Vec<String> = key.iter().map(|at| ident(&self.columns[*at].name)).collect();
        let mut conditions: Vec<String> = Vec::new();
        conditions.extend(low.map(|bound| beyond(&names, bound, ">", ">")));
        conditions.extend(high.map(|bound| beyond(&names, bound, "<", "<=")));
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("DELETE FROM {}{filter}", self.target)
    }

    /// What stands before and behind the rows of a statement that writes.
    pub fn insert(&self, existing: Existing) -> (String, String) {
        let names: Vec<String> = self.columns[..self.written].iter().map(|column| ident(&column.name)).collect();
        let columns = names.join(",");
        let (verb, tail) = match (&self.key, existing) {
            (None, _) => ("INSERT", String::new()),
            (Some(_), Existing::Replace | Existing::Refuse) => ("REPLACE", String::new()),
            // Not IGNORE, which would hide other errors as well.
            (Some(_), Existing::Keep) => {
                let first = names.first().cloned().unwrap_or_default();
                ("INSERT", format!(" ON DUPLICATE KEY UPDATE {first}={}.{first}", self.target))
            }
        };
        (format!("{verb} INTO {} ({columns}) VALUES ", self.target), tail)
    }

    /// Needs the rights and the columns that the copy needs, and changes nothing.
    pub fn probe_target(&self) -> String {
        let names: Vec<String> = self.columns[..self.written].iter().map(|column| ident(&column.name)).collect();
        let columns = names.join(",");
        let verb = if self.key.is_some() { "REPLACE" } else { "INSERT" };
        format!("{verb} INTO {0} ({columns}) SELECT {columns} FROM {0} WHERE 1=0", self.target)
    }

    /// How long the source may take to the next row.
    pub fn patience(&self) -> Duration {
        // A condition may pass over most of a table.
        if self.condition.is_some() { LONG_PATIENCE } else { PATIENCE }
    }

    /// The key of a row: `answer` gives a column's answer by its place.
    pub fn bound<'a>(&self, answer: impl Fn(usize) -> Option<&'a [u8]>) -> Bound {
        let key = self.key.as_deref().unwrap_or_default();
        key.iter().map(|at| self.columns[*at].kind.key_literal(answer(*at))).collect()
    }
}

fn read_column(column: &Column) -> ReadColumn {
    let kind = Kind::of(column);
    let expression = kind.expression(column, &ident(&column.name));
    ReadColumn { name: column.name.clone(), kind, field: Field::AsItIs, expression }
}

fn key_places(key: &Key, here: &Structure, places: &mut [Option<usize>], columns: &mut Vec<ReadColumn>) -> Vec<usize> {
    let of = |at: &usize| {
        *places[*at].get_or_insert_with(|| {
            columns.push(read_column(&here.columns[*at]));
            columns.len() - 1
        })
    };
    key.columns.iter().flatten().map(of).collect()
}

/// Unique keys of the target by which rows of the source that are two there may be one here: such a key has columns that no
/// unique key of the source has, or compares texts more coarsely.
pub(super) fn narrower_keys(here: &Structure, there: &Structure) -> Vec<String> {
    let alike = |one: &Column, other: &Column| {
        let binary = |column: &Column| column.collation.as_deref().is_none_or(|name| name.ends_with("bin"));
        one.collation == other.collation || binary(other) || !binary(one)
    };
    let implied = |key: &Key| {
        here.keys.iter().any(|own| {
            own.columns.iter().all(|part| {
                let Some(own) = part.map(|at| &here.columns[at]) else { return false };
                key.columns
                    .iter()
                    .flatten()
                    .map(|at| &there.columns[*at])
                    .any(|twin| twin.name.eq_ignore_ascii_case(&own.name) && alike(own, twin))
            })
        })
    };
    // What is missing at the source is the target's own: no row of the source has a value for it.
    let known = |key: &&Key| {
        key.columns.iter().all(|part| part.is_some_and(|at| here.column(&there.columns[at].name).is_some()))
    };
    there.keys.iter().filter(known).filter(|key| !implied(key)).map(|key| key.name.clone()).collect()
}

fn sorts_alike(key: &Key, here: &Structure, there: &Structure) -> bool {
    key.columns.iter().flatten().all(|at| {
        let column = &here.columns[*at];
        there.column(&column.name).is_some_and(|twin| {
            !twin.generated && twin.data_type == column.data_type && twin.collation == column.collation
        })
    })
}

/// `(a, b) > (1, 2)` in the form of which every optimiser makes a range of an index: `a>=1 AND (a>1 OR (a=1 AND b>2))`.
fn beyond(names: &[String], bound: &[String], strict: &str, last: &str) -> String {
    let Some(((name, rest), (value, others))) = names.split_first().zip(bound.split_first()) else {
        return "1=1".to_owned();
    };
    if rest.is_empty() {
        return format!("{name}{last}{value}");
    }
    format!(
        "({name}{strict}={value} AND ({name}{strict}{value} OR ({name}={value} AND {})))",
        beyond(rest, others, strict, last)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    fn column(name: &str, data_type: &str) -> Column {
        Column {
            name: name.into(),
            data_type: data_type.into(),
            column_type: data_type.into(),
            nullable: false,
            charset: None,
            collation: None,
            generated: false,
        }
    }

    fn structure(columns: Vec<Column>, key: &[usize]) -> Structure {
        let keys = if key.is_empty() {
            Vec::new()
        } else {
            vec![Key { name: "PRIMARY".into(), columns: key.iter().map(|at| Some(*at)).collect() }]
        };
        Structure { columns, keys, counts: false }
    }

    fn plan(here: &Structure, there: &Structure) -> Result<TablePlan, Vec<String>> {
        let name = || TableName::new("a`b", "t");
        TablePlan::new(SourceTable(name()), TargetTable(name()), here, there)
    }

    #[test]
    fn composite_keys_become_ranges() {
        let table = structure(vec![column("a", "int"), column("b", "int"), column("c", "int")], &[0, 2]);
        let plan = plan(&table, &table).unwrap();
        let (low, high) = (vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned(), "4".to_owned()]);
        assert_eq!(
            plan.select_range(Some(&low), Some(&high), 7),
            "SELECT `a`,`b`,`c` FROM `a``b`.`t` FORCE INDEX (`PRIMARY`) WHERE (`a`>=1 AND (`a`>1 OR (`a`=1 AND `c`>2))) AND \
             (`a`<=3 AND (`a`<3 OR (`a`=3 AND `c`<=4))) ORDER BY `a`,`c` LIMIT 7"
        );
        assert_eq!(plan.select_range(None, None, 7).matches("WHERE").count(), 0);
    }

    #[test]
    fn generated_columns_are_left_to_the_target() {
        let generated = |name: &str| Column { generated: true, ..column(name, "int") };
        let here = structure(vec![column("a", "int"), generated("b"), generated("c")], &[0]);
        let there = structure(vec![column("a", "int"), generated("b"), column("C", "int")], &[0]);
        let plan = plan(&here, &there).unwrap();
        let names: Vec<&str> = plan.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn a_key_that_the_target_computes_is_read_and_not_written() {
        let generated = |name: &str| Column { generated: true, ..column(name, "int") };
        let table = structure(vec![column("a", "int"), generated("k")], &[1]);
        let plan = plan(&table, &table).unwrap();
        assert_eq!((plan.written, plan.key.as_deref()), (1, Some(&[1][..])));
        assert!(plan.insert(Existing::Replace).0.ends_with("(`a`) VALUES "));
    }

    #[test]
    fn missing_columns_are_all_named_and_a_target_without_a_key_makes_a_table_one_without() {
        let here = structure(vec![column("a", "int"), column("b", "int"), column("c", "int")], &[0]);
        assert_eq!(plan(&here, &structure(vec![column("a", "int")], &[0])).unwrap_err(), ["b", "c"]);
        let keyless = structure(here.columns.clone(), &[]);
        assert!(plan(&here, &keyless).unwrap().key.is_none());
        assert!(plan(&keyless, &here).unwrap().key.is_none());
    }

    #[test]
    fn keys_that_only_the_target_has_or_that_fold_more_are_found() {
        let text = |collation: &str| Column { collation: Some(collation.into()), ..column("b", "varchar") };
        let of = |collation: &str, keys: &[&[usize]]| {
            let mut table = structure(vec![column("a", "int"), text(collation)], &[]);
            let key = |(at, columns): (usize, &&[usize])| Key {
                name: format!("k{at}"),
                columns: columns.iter().map(|column| Some(*column)).collect(),
            };
            table.keys = keys.iter().enumerate().map(key).collect();
            table
        };
        let here = of("utf8mb4_bin", &[&[0]]);
        assert!(narrower_keys(&here, &of("utf8mb4_bin", &[&[0]])).is_empty());
        assert!(narrower_keys(&here, &of("utf8mb4_bin", &[&[0, 1]])).is_empty());
        assert_eq!(narrower_keys(&here, &of("utf8mb4_bin", &[&[0], &[1]])), ["k1"]);
        let texts = of("utf8mb4_bin", &[&[1]]);
        assert_eq!(narrower_keys(&texts, &of("utf8mb4_general_ci", &[&[1]])), ["k0"]);
        assert!(narrower_keys(&of("utf8mb4_general_ci", &[&[1]]), &texts).is_empty());
    }

    #[test]
    fn bounds_come_back_as_they_were() {
        let bound = vec!["'é\\''".to_owned(), "x'00'".to_owned()];
        assert_eq!(bound_of(&bound_text(&bound)), Some(bound));
    }
}
