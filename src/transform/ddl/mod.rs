//! DDL: what must be run on the target for a statement that the source logged.
//!
//! A statement is lexed completely, parsed shallowly and rewritten by replacing spans, so that whatever is not a name of
//! a table or schema stays as its author wrote it. Every name comes out qualified and in backticks: the target needs no
//! default schema and no particular quoting mode.
//!
//! IF EXISTS and IF NOT EXISTS are added to CREATE and DROP of databases and tables, as DM does; nowhere else, where they
//! would hide that source and target differ. A statement on several tables that each stand for themselves (DROP, RENAME)
//! becomes several, so that each is filtered alone; clauses of one ALTER TABLE stay together, without those that an event
//! filter leaves out. As in DM, a statement that
//! involves a table which is not wanted is skipped as a whole: a rename to or from such a table, a copy of its structure.

mod adapt;
mod clauses;
mod collate;
mod columns;
mod cursor;
pub(super) mod lex;
mod online;
mod parse;
mod parsed;
mod plan;
mod statement;
mod table;

#[cfg(test)]
mod tests;

pub use collate::SessionCollations;
pub use columns::{CreateColumn, create_columns};
pub use online::OnlineStep;
pub(super) use statement::plan;

use crate::model::{SourceTable, TargetTable};

/// A statement as the source logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdlInput<'a> {
    /// Default schema when it ran; empty for none.
    pub schema: &'a str,
    /// Its text.
    pub text: &'a str,
    /// `sql_mode` bits it ran with.
    pub sql_mode: u64,
}

/// What to do about a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DdlPlan {
    /// Nothing.
    Skip {
        /// Why, for the log. Holds names, but nothing else of the statement.
        reason: String,
        /// Wanted tables that it is about where an event filter leaves it out: it has changed them on the source.
        filtered: Vec<SourceTable>,
    },
    /// Run these, in order; never empty.
    Run(Vec<TargetStatement>),
    /// It is about tables of an online DDL tool: do this, in order; never empty.
    Online(Vec<OnlineStep>),
}

/// One statement for the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatement {
    /// The text, all names qualified. Where there are `clauses`, what stands before them.
    pub sql: String,
    /// Clauses, parted by commas, where some of them are run only if they are needed.
    pub clauses: Vec<TargetClause>,
    /// Names of the `sql_mode` flags that decide how the text reads and that were set on the source: the session that
    /// runs it must have these of [`READING_MODES`](TargetStatement::READING_MODES), and none of the others there.
    pub sql_modes: Vec<&'static str>,
    /// `sql_mode` bits that the source logged it with.
    pub sql_mode: u64,
    /// What it is.
    pub kind: DdlKind,
    /// The source's tables in it, the one it is about first. Empty for statements on a whole schema. Tables that it only
    /// mentions, as in a foreign key, are not among them.
    pub sources: Vec<SourceTable>,
    /// The target's tables that it changes: what is known about their structure is void once it ran.
    pub targets: Vec<TargetTable>,
    /// The target's schema, for statements on a whole one: what is known about all tables in it is void once it ran.
    pub schema_only: Option<String>,
    /// Wanted tables of the source that the same statement has changed there where event filters leave a part of it out.
    pub left_out: Vec<SourceTable>,
}

/// A clause of an ALTER TABLE, or a whole statement, that is run under a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetClause {
    /// Its text, without the condition.
    pub text: String,
    /// The condition; `None` for always.
    pub condition: Option<ClauseCondition>,
}

/// That a part of the table is there, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClauseCondition {
    /// It must be there.
    pub there: bool,
    /// What.
    pub part: ClausePart,
    /// Its name, unquoted.
    pub name: String,
}

/// What has a name in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are SQL's words
pub enum ClausePart {
    Column,
    Index,
    ForeignKey,
}

impl TargetStatement {
    /// The `sql_mode` flags that change what a DDL text means, by bit.
    pub const READING_MODES: &'static [(u64, &'static str)] = &[
        (1, "REAL_AS_FLOAT"),
        (1 << 1, "PIPES_AS_CONCAT"),
        (lex::ANSI_QUOTES, "ANSI_QUOTES"),
        (1 << 3, "IGNORE_SPACE"),
        (1 << 9, ORACLE),
        (lex::NO_BACKSLASH_ESCAPES, "NO_BACKSLASH_ESCAPES"),
        (1 << 29, "HIGH_NOT_PRECEDENCE"),
    ];
}

/// Another grammar, which only a MariaDB has.
const ORACLE: &str = "ORACLE";

/// Kinds of statements that are replicated. Event filters tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are the statements
pub enum DdlKind {
    CreateDatabase,
    AlterDatabase,
    DropDatabase,
    CreateTable,
    AlterTable,
    DropTable,
    RenameTable,
    TruncateTable,
    CreateIndex,
    DropIndex,
}
