//! The bodies of CREATE TABLE and ALTER TABLE, as far as they name other tables.
//!
//! Everything is found by reserved words in the places where the grammar has them: REFERENCES at any depth of
//! parentheses, the others only outside all of them. A quoted name is never taken for a keyword.

use super::clauses::{self, Clause};
use super::cursor::{Cursor, Edit, Misread};
use super::parsed::{Role, TableStatement};

/// What follows the name in CREATE TABLE.
pub(super) fn definition(c: &mut Cursor<'_>, statement: &mut TableStatement) -> Result<(), Misread> {
    let mut ahead = c.clone();
    let parenthesised = ahead.eat_symbol("(");
    if ahead.eat(&["LIKE"]) {
        *c = ahead;
        statement.tables.push((Role::Read, c.table_name()?));
        statement.only_names = true;
        if parenthesised && !c.eat_symbol(")") {
            return Err(c.misread("a closing parenthesis"));
        }
        return Ok(());
    }
    let mut depth = 0_usize;
    while !c.at_end() {
        if depth == 0 && begins_query(c) {
            statement.refusal = Some(
                "CREATE TABLE … SELECT was logged as a statement, so that its rows depend on what the target holds",
            );
        }
        if depth == 0 && c.is(&["START", "TRANSACTION"]) {
            statement.edits.push(without_start_transaction(c));
            continue;
        }
        step(c, statement, &mut depth)?;
    }
    closed(c, depth)
}

/// Fails where the text ends inside parentheses: it was cut off.
fn closed(c: &Cursor<'_>, depth: usize) -> Result<(), Misread> {
    if depth == 0 { Ok(()) } else { Err(c.misread("a closing parenthesis")) }
}

/// Whether the rows of a new table come from a query that begins here: outside parentheses, or in the first ones.
fn begins_query(c: &Cursor<'_>) -> bool {
    const QUERY: &[&str] = &["SELECT", "WITH", "VALUES", "TABLE"];
    let mut ahead = c.clone();
    while ahead.eat_symbol("(") {}
    // MariaDB's WITH SYSTEM VERSIONING is an option.
    (ahead.is_one_of(QUERY) && !ahead.is(&["WITH", "SYSTEM"])) || c.is(&["AS"])
}

/// MySQL logs an atomic CREATE TABLE … SELECT with this option, which only a replica's applier understands: what
/// follows in the same transaction are the rows.
fn without_start_transaction(c: &mut Cursor<'_>) -> Edit {
    let start = if c.behind_symbol(",") { c.previous_end() - 1 } else { c.position() };
    c.eat(&["START", "TRANSACTION"]);
    Edit { span: start..c.previous_end(), text: String::new() }
}

/// What follows the name in ALTER TABLE: clauses with commas between them.
pub(super) fn alterations(c: &mut Cursor<'_>, statement: &mut TableStatement) -> Result<(), Misread> {
    lock_wait(c);
    let mut renames = 0_usize;
    let mut comma = None;
    while !c.at_end() {
        let (start, tables, event) = (c.position(), statement.tables.len(), clauses::event_of(c));
        renames += usize::from(renamed(c, statement)?);
        if !exchanged(c, statement)? {
            converted(c, statement)?;
        }
        let mut depth = 0_usize;
        while !(c.at_end() || depth == 0 && c.is_symbol(0, ",")) {
            if depth == 0 && c.position() > start && clauses::begins_tail(c) {
                break;
            }
            step(c, statement, &mut depth)?;
        }
        closed(c, depth)?;
        let span = start..c.previous_end().max(start);
        let tables = tables..statement.tables.len();
        statement.clauses.push(Clause { span, comma: comma.take(), event, tables });
        let at = c.position();
        if c.eat_symbol(",") {
            comma = Some(at..c.previous_end());
        }
    }
    statement.only_names = statement.clauses.len() == 1 && renames == 1;
    Ok(())
}

/// `RENAME [TO | AS | =] table`; RENAME COLUMN, INDEX and KEY are something else.
fn renamed(c: &mut Cursor<'_>, statement: &mut TableStatement) -> Result<bool, Misread> {
    if !c.is(&["RENAME"]) || ["COLUMN", "INDEX", "KEY"].iter().any(|object| c.is(&["RENAME", object])) {
        return Ok(false);
    }
    c.advance();
    if !c.eat(&["TO"]) && !c.eat(&["AS"]) {
        c.eat_symbol("=");
    }
    statement.tables.push((Role::Changed, c.table_name()?));
    Ok(true)
}

/// `EXCHANGE PARTITION name WITH TABLE table`.
fn exchanged(c: &mut Cursor<'_>, statement: &mut TableStatement) -> Result<bool, Misread> {
    if !c.eat(&["EXCHANGE", "PARTITION"]) {
        return Ok(false);
    }
    c.plain_name()?;
    c.need(&["WITH", "TABLE"], "WITH TABLE")?;
    statement.tables.push((Role::Changed, c.table_name()?));
    Ok(true)
}

/// MariaDB's `CONVERT PARTITION name TO TABLE table` and `CONVERT TABLE table TO PARTITION …`.
fn converted(c: &mut Cursor<'_>, statement: &mut TableStatement) -> Result<(), Misread> {
    if c.eat(&["CONVERT", "PARTITION"]) {
        c.plain_name()?;
        c.need(&["TO", "TABLE"], "TO TABLE")?;
    } else if !c.eat(&["CONVERT", "TABLE"]) {
        return Ok(());
    }
    statement.tables.push((Role::Changed, c.table_name()?));
    Ok(())
}

/// MariaDB's `WAIT seconds` and `NOWAIT`.
pub(super) fn lock_wait(c: &mut Cursor<'_>) {
    if c.eat(&["WAIT"]) {
        c.advance();
    } else {
        c.eat(&["NOWAIT"]);
    }
}

/// Passes one token, or a clause that names tables.
fn step(c: &mut Cursor<'_>, statement: &mut TableStatement, depth: &mut usize) -> Result<(), Misread> {
    if c.eat_symbol("(") {
        *depth += 1;
    } else if c.eat_symbol(")") {
        *depth = depth.checked_sub(1).ok_or_else(|| c.misread("as many opening as closing parentheses, then"))?;
    } else if !c.behind_symbol(".") && c.eat(&["REFERENCES"]) {
        statement.tables.push((Role::Mentioned, c.table_name()?));
    } else if *depth == 0 && c.is(&["UNION"]) && (c.is_symbol(1, "=") || c.is_symbol(1, "(")) {
        union(c, statement)?;
    } else {
        c.advance();
    }
    Ok(())
}

/// The option `UNION [=] (table, …)` of a merge table.
fn union(c: &mut Cursor<'_>, statement: &mut TableStatement) -> Result<(), Misread> {
    let mut ahead = c.clone();
    ahead.advance();
    ahead.eat_symbol("=");
    ahead.eat_symbol("(");
    if ahead.is_symbol(0, ")") || ahead.is_one_of(&["SELECT"]) {
        // No tables, or part of a query, which is refused elsewhere.
        c.advance();
        return Ok(());
    }
    *c = ahead;
    loop {
        statement.tables.push((Role::Mentioned, c.table_name()?));
        if !c.eat_symbol(",") {
            break;
        }
    }
    if c.eat_symbol(")") { Ok(()) } else { Err(c.misread("a closing parenthesis")) }
}
