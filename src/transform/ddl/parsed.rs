//! What a statement is, once it is read: which tables it names where, and what it does with them.

use std::ops::Range;

use super::DdlKind;
use super::clauses::Clause;
use super::cursor::{Edit, NameRef};

/// What a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Nothing to replicate; says what it is.
    Skipped(String),
    /// It changes rows; the one table it changes, where that is certain.
    Dml(Option<NameRef>),
    /// It is about a whole schema.
    Schema(SchemaStatement),
    /// It is about one table, and perhaps mentions others.
    Table(TableStatement),
    /// It is about several tables, each for itself.
    Each(EachStatement),
    /// `SET STATEMENT … FOR` another statement, which begins at this byte.
    Prefixed(usize),
}

/// CREATE, ALTER or DROP DATABASE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SchemaStatement {
    pub kind: DdlKind,
    /// The schema as it is named; None for the default one.
    pub name: Option<String>,
    /// Where its name stands, or is to be put.
    pub span: Range<usize>,
    /// Other changes to the text.
    pub edits: Vec<Edit>,
    /// It was CREATE OR REPLACE: a DROP comes first.
    pub replaces: bool,
}

/// What a statement does with a table it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Changes it.
    Changed,
    /// Copies its structure.
    Read,
    /// Mentions it in a foreign key or a union: routed, but no reason to skip the statement.
    Mentioned,
}

/// A statement on one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableStatement {
    pub kind: DdlKind,
    /// The tables in it, the one it is about first.
    pub tables: Vec<(Role, NameRef)>,
    /// Changes to the text beside the names.
    pub edits: Vec<Edit>,
    /// It was CREATE OR REPLACE: a DROP comes first.
    pub replaces: bool,
    /// All it does is to copy or rename, so that it does nothing where both names are one on the target.
    pub only_names: bool,
    /// Why it cannot be run although it is understood.
    pub refusal: Option<&'static str>,
    /// Of an ALTER TABLE, its clauses.
    pub clauses: Vec<Clause>,
}

impl TableStatement {
    pub fn new(kind: DdlKind, table: NameRef) -> Self {
        let tables = vec![(Role::Changed, table)];
        TableStatement {
            kind,
            tables,
            edits: Vec::new(),
            replaces: false,
            only_names: false,
            refusal: None,
            clauses: Vec::new(),
        }
    }
}

/// DROP TABLE and RENAME TABLE: a list whose items stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EachStatement {
    pub kind: DdlKind,
    /// Where the whole list stands.
    pub list: Range<usize>,
    /// The tables of each item.
    pub items: Vec<Vec<NameRef>>,
    /// Changes to the text beside the list.
    pub edits: Vec<Edit>,
}
