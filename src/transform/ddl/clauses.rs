//! The clauses of an ALTER TABLE: which event each is to a filter, and the statement without some of them.
//!
//! DM makes a statement of its own of each clause and asks its filters about each. Here they stay one statement, so that
//! those which a filter leaves out are taken out of its text.

use std::ops::Range;

use super::super::events::Event;
use super::cursor::{Cursor, Edit};

/// One clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// Where it stands, without commas.
    pub span: Range<usize>,
    /// The comma before it; None for the first, and for what follows the last without one (PARTITION BY).
    pub comma: Option<Range<usize>>,
    /// What it does.
    pub event: ClauseEvent,
    /// Which of the statement's tables it names.
    pub tables: Range<usize>,
}

/// What a clause does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClauseEvent {
    One(Event),
    /// It gives a column another definition: one of these, by what the column was.
    Modified(Vec<Event>),
    /// How the others are run.
    Rider,
}

/// What may follow ADD where an index or a constraint is added.
const CONSTRAINTS: &[&str] =
    &["CONSTRAINT", "PRIMARY", "UNIQUE", "INDEX", "KEY", "FULLTEXT", "SPATIAL", "VECTOR", "FOREIGN", "CHECK"];
/// What may follow DROP where it is no column; to DM these have no name of their own.
const NO_COLUMN: &[&str] = &["FOREIGN", "CHECK", "CONSTRAINT", "PERIOD", "SYSTEM"];
/// What a column's new definition may be to a filter, whatever the column is called.
const MODIFIED: &[Event] = &[
    Event::ValueRangeDecrease,
    Event::PrecisionDecrease,
    Event::ModifyColumn,
    Event::RemoveAutoIncrement,
    Event::DropPrimaryKey,
    Event::DropUniqueKey,
    Event::ModifyDefaultValue,
    Event::ModifyCharset,
    Event::ModifyCollation,
];

/// Whether a clause begins here that needs no comma before it.
pub(super) fn begins_tail(c: &Cursor<'_>) -> bool {
    c.is(&["PARTITION", "BY"]) || c.is(&["REMOVE", "PARTITIONING"])
}

/// What the clause does that begins here.
pub(super) fn event_of(c: &Cursor<'_>) -> ClauseEvent {
    let partition = |verb: &str| c.is(&[verb, "PARTITION"]);
    if c.is(&["MODIFY"]) || c.is(&["CHANGE"]) {
        return modified(c.clone());
    }
    if c.is_one_of(&["ALGORITHM", "LOCK"]) || c.is(&["WITH", "VALIDATION"]) || c.is(&["WITHOUT", "VALIDATION"]) {
        return ClauseEvent::Rider;
    }
    ClauseEvent::One(match () {
        () if c.is(&["ADD"]) => added(c),
        () if c.is(&["DROP"]) => dropped(c),
        () if c.is(&["RENAME", "COLUMN"]) => Event::RenameColumn,
        () if c.is(&["RENAME", "INDEX"]) || c.is(&["RENAME", "KEY"]) => Event::RenameIndex,
        () if c.is(&["RENAME"]) => Event::RenameTable,
        () if partition("TRUNCATE") => Event::TruncateTablePartition,
        () if partition("REORGANIZE") => Event::ReorganizePartition,
        () if partition("REBUILD") => Event::RebuildPartition,
        () if partition("COALESCE") => Event::CoalescePartition,
        () if partition("EXCHANGE") => Event::ExchangePartition,
        () if c.is(&["ALTER"]) => default_changed(c.clone()),
        () if c.is(&["CONVERT", "TO"]) => Event::ModifyCharset,
        () if begins_tail(c) => Event::AlterTable,
        () => options(c.clone()),
    })
}

fn added(c: &Cursor<'_>) -> Event {
    let constraint = CONSTRAINTS.iter().any(|word| c.is(&["ADD", word]));
    if constraint { Event::ModifyConstraint } else { Event::AlterTable }
}

fn dropped(c: &Cursor<'_>) -> Event {
    if c.is(&["DROP", "PRIMARY"]) {
        Event::DropPrimaryKey
    } else if c.is(&["DROP", "INDEX"]) || c.is(&["DROP", "KEY"]) {
        Event::DropIndex
    } else if c.is(&["DROP", "PARTITION"]) {
        Event::DropTablePartition
    } else if NO_COLUMN.iter().any(|word| c.is(&["DROP", word])) {
        Event::AlterTable
    } else {
        Event::DropColumn
    }
}

/// `ALTER [COLUMN] name SET DEFAULT …` and `… DROP DEFAULT`; ALTER INDEX and ALTER CHECK are something else.
fn default_changed(mut c: Cursor<'_>) -> Event {
    c.eat(&["ALTER"]);
    if !c.eat(&["COLUMN"]) && c.is_one_of(&["INDEX", "KEY", "CHECK", "CONSTRAINT"]) {
        return Event::AlterTable;
    }
    c.advance();
    let changes = c.is(&["SET", "DEFAULT"]) || c.is(&["DROP", "DEFAULT"]);
    if changes { Event::ModifyDefaultValue } else { Event::AlterTable }
}

/// MODIFY and CHANGE: which event it is depends on what the column was.
fn modified(mut c: Cursor<'_>) -> ClauseEvent {
    let changes = c.is(&["CHANGE"]);
    c.advance();
    c.eat(&["COLUMN"]);
    c.eat(&["IF", "EXISTS"]);
    let old = c.plain_name().map(|name| name.name.to_lowercase());
    let renamed = changes && c.plain_name().map(|name| name.name.to_lowercase()) != old;
    let (mut depth, mut placed) = (0_usize, false);
    while !(c.at_end() || depth == 0 && c.is_symbol(0, ",")) {
        placed |= depth == 0 && c.is_one_of(&["FIRST", "AFTER"]);
        match () {
            () if c.is_symbol(0, "(") => depth += 1,
            () if c.is_symbol(0, ")") => depth = depth.saturating_sub(1),
            () => {}
        }
        c.advance();
    }
    let otherwise = match (placed, renamed) {
        (true, _) => Event::ModifyColumnsOrder,
        (false, true) => Event::RenameColumn,
        (false, false) => Event::AlterTable,
    };
    ClauseEvent::Modified(MODIFIED.iter().copied().chain([otherwise]).collect())
}

/// Options of the table: the first that has a name of its own decides.
fn options(mut c: Cursor<'_>) -> Event {
    while !c.at_end() && !c.is_symbol(0, ",") {
        match () {
            () if c.is(&["CHARACTER", "SET"]) || c.is(&["CHARSET"]) => return Event::ModifyCharset,
            () if c.is(&["COLLATE"]) => return Event::ModifyCollation,
            () if c.is(&["ENGINE"]) => return Event::ModifyStorageEngine,
            // What stands behind it is a value.
            () if c.eat_symbol("=") => {}
            () => {}
        }
        c.advance();
    }
    Event::AlterTable
}

/// The edits that leave only the `kept` ones of the clauses in the text.
pub(super) fn without_others(clauses: &[Clause], kept: &[bool]) -> Vec<Edit> {
    let gone = |span: &Range<usize>| Edit { span: span.clone(), text: " ".to_owned() };
    let mut edits = Vec::new();
    let mut first = true;
    for (clause, &kept) in clauses.iter().zip(kept) {
        if !kept {
            edits.push(gone(&clause.span));
        }
        // A comma stays before each that is kept and not the first.
        if let Some(comma) = clause.comma.as_ref().filter(|_| first || !kept) {
            edits.push(gone(comma));
        }
        first &= !kept;
    }
    edits
}
