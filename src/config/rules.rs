//! The rules of a task: which tables, where to, which events. Read and printed here, compiled in `transform`.

use regex::Regex;

use super::database::table;
use super::keys::{self, Tables};
use super::node::Node;
use super::section::Section;

/// A route: tables that match the patterns go to the target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteRule {
    /// Its name in the task file; `route-01`, … where the file came without names.
    pub name: String,
    /// Source schemas, with `*`, `?` and `[…]`.
    pub schema_pattern: String,
    /// Source tables; empty for a route of the whole schema.
    pub table_pattern: String,
    /// Target schema.
    pub target_schema: String,
    /// Target table; empty to keep the table's name.
    pub target_table: String,
    /// Fill a column from the table's name.
    pub extract_table: Option<Extract>,
    /// Fill a column from the schema's name.
    pub extract_schema: Option<Extract>,
    /// Fill a column from the source's id.
    pub extract_source: Option<Extract>,
}

/// Part of a name that goes into a column of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// The column.
    pub target_column: String,
    /// Regular expression; its first group is the value.
    pub regexp: String,
}

impl RouteRule {
    pub(super) fn read(name: String, section: Section<'_>) -> Self {
        let extract = |key, tables: Tables, regexp| {
            section.section(key, tables).and_then(|section| Extract::read(section, regexp))
        };
        let rule = RouteRule {
            name,
            extract_table: extract("extract-table", &[keys::EXTRACT_TABLE], "table-regexp"),
            extract_schema: extract("extract-schema", &[keys::EXTRACT_SCHEMA], "schema-regexp"),
            extract_source: extract("extract-source", &[keys::EXTRACT_SOURCE], "source-regexp"),
            schema_pattern: section
                .required_text("schema-pattern", "give the source schemas, such as `shop*`")
                .unwrap_or_default(),
            table_pattern: section.text("table-pattern").unwrap_or_default(),
            target_schema: section.required_text("target-schema", "give the schema to write to").unwrap_or_default(),
            target_table: section.text("target-table").unwrap_or_default(),
        };
        section.finish();
        rule
    }

    pub(super) fn to_node(&self) -> Node {
        let mut entries = Vec::new();
        for (key, regexp, extract) in [
            ("extract-table", "table-regexp", &self.extract_table),
            ("extract-schema", "schema-regexp", &self.extract_schema),
            ("extract-source", "source-regexp", &self.extract_source),
        ] {
            if let Some(extract) = extract {
                let column = Node::text(&extract.target_column);
                entries
                    .push((key.to_owned(), table([("target-column", column), (regexp, Node::text(&extract.regexp))])));
            }
        }
        for (key, value) in [
            ("schema-pattern", &self.schema_pattern),
            ("table-pattern", &self.table_pattern),
            ("target-schema", &self.target_schema),
            ("target-table", &self.target_table),
        ] {
            entries.push((key.to_owned(), Node::text(value)));
        }
        Node::Table(entries)
    }
}

impl Extract {
    fn read(section: Section<'_>, regexp: &'static str) -> Option<Self> {
        let target_column = section.required_text("target-column", "give the column to fill");
        let expression =
            section.required_text(regexp, "give a regular expression with one group, such as `^ord_(.*)$`");
        if let Some(expression) = &expression {
            check_regex(&section, regexp, expression, None);
        }
        section.finish();
        Some(Extract { target_column: target_column?, regexp: expression? })
    }
}

/// An event filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// Its name in the task file; `filter-01`, … where the file came without names.
    pub name: String,
    /// Source schemas.
    pub schema_pattern: String,
    /// Source tables.
    pub table_pattern: String,
    /// DM's names of events.
    pub events: Vec<String>,
    /// Regular expressions on DDL statements.
    pub sql_pattern: Vec<String>,
    /// `Do`, `Ignore` or `Error`.
    pub action: String,
}

impl FilterRule {
    pub(super) fn read(name: String, section: Section<'_>) -> Self {
        const ACTIONS: &[(&str, &str)] = &[("Do", "Do"), ("Ignore", "Ignore"), ("Error", "Error")];
        let rule = FilterRule {
            name,
            schema_pattern: section
                .required_text("schema-pattern", "give the source schemas, such as `shop*`")
                .unwrap_or_default(),
            table_pattern: section.text("table-pattern").unwrap_or_default(),
            events: section.texts("events").unwrap_or_default(),
            sql_pattern: section.texts("sql-pattern").unwrap_or_default(),
            action: section.choice("action", ACTIONS).unwrap_or_default().to_owned(),
        };
        if section.node("action").is_none() {
            section.problem("action", "is missing; give `Ignore` to leave out what the rule names, `Do` to leave out all else, or `Error` to stop at it");
        }
        section.finish();
        rule
    }

    /// Whether both are for the same tables, as DM compares them.
    pub(super) fn is_for_the_same_as(&self, other: &FilterRule, case_sensitive: bool) -> bool {
        let same = |one: &str, other: &str| match case_sensitive {
            true => one == other,
            false => one.to_lowercase() == other.to_lowercase(),
        };
        same(&self.schema_pattern, &other.schema_pattern) && same(&self.table_pattern, &other.table_pattern)
    }

    pub(super) fn to_node(&self) -> Node {
        table([
            ("schema-pattern", Node::text(&self.schema_pattern)),
            ("table-pattern", Node::text(&self.table_pattern)),
            ("events", Node::texts(&self.events)),
            ("sql-pattern", Node::texts(&self.sql_pattern)),
            ("action", Node::text(&self.action)),
        ])
    }
}

/// A filter on row values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionFilter {
    /// Its name in the task file; `expr-filter-01`, … where the file came without names.
    pub name: String,
    /// Source schema.
    pub schema: String,
    /// Source table.
    pub table: String,
    /// Inserts for which this is true are dropped.
    pub insert_value: String,
    /// Updates, by the row before.
    pub update_old_value: String,
    /// Updates, by the row after.
    pub update_new_value: String,
    /// Deletes for which this is true are dropped.
    pub delete_value: String,
}

impl ExpressionFilter {
    pub(super) fn read(name: String, section: Section<'_>) -> Self {
        let filter = ExpressionFilter {
            name,
            schema: section.required_text("schema", "give the source schema").unwrap_or_default(),
            table: section.required_text("table", "give the source table").unwrap_or_default(),
            insert_value: section.text("insert-value-expr").unwrap_or_default(),
            update_old_value: section.text("update-old-value-expr").unwrap_or_default(),
            update_new_value: section.text("update-new-value-expr").unwrap_or_default(),
            delete_value: section.text("delete-value-expr").unwrap_or_default(),
        };
        section.finish();
        filter
    }

    pub(super) fn to_node(&self) -> Node {
        table([
            ("schema", Node::text(&self.schema)),
            ("table", Node::text(&self.table)),
            ("insert-value-expr", Node::text(&self.insert_value)),
            ("update-old-value-expr", Node::text(&self.update_old_value)),
            ("update-new-value-expr", Node::text(&self.update_new_value)),
            ("delete-value-expr", Node::text(&self.delete_value)),
        ])
    }
}

/// Which source tables a task takes. Names may hold `*` and `?`, and a leading `~` makes one a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockAllowRules {
    /// Take only these schemas; empty for all.
    pub do_dbs: Vec<String>,
    /// Take only these tables; empty for all.
    pub do_tables: Vec<TablePattern>,
    /// Leave these schemas out.
    pub ignore_dbs: Vec<String>,
    /// Leave these tables out.
    pub ignore_tables: Vec<TablePattern>,
}

/// A schema and a table pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    /// Schema pattern.
    pub db: String,
    /// Table pattern.
    pub tbl: String,
}

impl BlockAllowRules {
    /// Whether every table is taken.
    pub fn is_empty(&self) -> bool {
        *self == BlockAllowRules::default()
    }

    pub(super) fn read(section: Section<'_>) -> Self {
        let dbs = |key| {
            let names = section.texts(key).unwrap_or_default();
            names.iter().for_each(|name| check_pattern(&section, key, name));
            names
        };
        let tables = |key| section.sections(key, &[keys::TABLE]).into_iter().filter_map(TablePattern::read).collect();
        let rules = BlockAllowRules {
            do_dbs: dbs("do-dbs"),
            do_tables: tables("do-tables"),
            ignore_dbs: dbs("ignore-dbs"),
            ignore_tables: tables("ignore-tables"),
        };
        section.finish();
        rules
    }

    pub(super) fn to_node(&self) -> Node {
        let tables = |patterns: &[TablePattern]| Node::List(patterns.iter().map(TablePattern::to_node).collect());
        table([
            ("do-tables", tables(&self.do_tables)),
            ("do-dbs", Node::texts(&self.do_dbs)),
            ("ignore-tables", tables(&self.ignore_tables)),
            ("ignore-dbs", Node::texts(&self.ignore_dbs)),
        ])
    }
}

impl TablePattern {
    fn read(section: Section<'_>) -> Option<Self> {
        let db = section.required_text("db-name", "give the schema");
        let tbl = section.required_text("tbl-name", "give the table, or `*` for all");
        for (key, name) in [("db-name", &db), ("tbl-name", &tbl)] {
            if let Some(name) = name {
                check_pattern(&section, key, name);
            }
        }
        section.finish();
        Some(TablePattern { db: db?, tbl: tbl? })
    }

    fn to_node(&self) -> Node {
        table([("db-name", Node::text(&self.db)), ("tbl-name", Node::text(&self.tbl))])
    }
}

/// A leading `~` makes the rest a regular expression.
fn check_pattern(section: &Section<'_>, key: &str, pattern: &str) {
    if let Some(expression) = pattern.strip_prefix('~') {
        check_shown(section, key, pattern, expression, None);
    }
}

/// Reports an expression that does not compile, or has another number of groups than it should.
pub(super) fn check_regex(section: &Section<'_>, key: &str, expression: &str, groups: Option<usize>) {
    check_shown(section, key, expression, expression, groups);
}

/// `shown` is the value as the file has it.
fn check_shown(section: &Section<'_>, key: &str, shown: &str, expression: &str, groups: Option<usize>) {
    match Regex::new(expression) {
        Err(error) => {
            // The last line says what is wrong; those before draw the place.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            section.problem(key, format!("{shown:?} is not a regular expression ({reason}); correct it"));
        }
        Ok(regex) => {
            let found = regex.captures_len() - 1;
            if groups.is_some_and(|groups| groups != found) {
                section.problem(
                    key,
                    format!("{expression:?} has {found} groups; put the table's name into exactly one `(…)`"),
                );
            }
        }
    }
}
