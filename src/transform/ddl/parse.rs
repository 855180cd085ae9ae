//! Finds out what a statement is, and where in it the names stand that routes may change.
//!
//! This is no SQL parser: it reads a statement's head, follows the few clauses that name other tables, and leaves the
//! rest alone. What begins with words it does not know is not guessed at but reported.

use std::ops::Range;

use super::DdlKind;
use super::cursor::{Cursor, Edit, Misread, NameRef};
use super::parsed::{EachStatement, Parsed, SchemaStatement, TableStatement};
use super::table;

/// Statements that begin so concern the server, sessions or rights, or change no data.
const SKIPPED: &[&str] = &[
    "SAVEPOINT",
    "RELEASE",
    "FLUSH",
    "ANALYZE",
    "OPTIMIZE",
    "REPAIR",
    "CHECK",
    "CHECKSUM",
    "GRANT",
    "REVOKE",
    "SET",
    "INSTALL",
    "UNINSTALL",
];

/// Statements that begin so change rows, or may through a function they call.
const DML: &[&str] = &["INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "SELECT", "DO"];

/// What CREATE, ALTER and DROP do not replicate.
const SKIPPED_OBJECTS: &[&str] = &[
    "VIEW",
    "TRIGGER",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "PACKAGE",
    "LIBRARY",
    "USER",
    "ROLE",
    "SERVER",
    "TABLESPACE",
    "LOGFILE",
    "RESOURCE",
    "REFERENCE",
    "SEQUENCE",
    "INSTANCE",
];

/// Words between CREATE, ALTER or DROP and what the statement is about.
const MODIFIERS: &[&str] = &[
    "AGGREGATE",
    "ONLINE",
    "OFFLINE",
    "IGNORE",
    "UNIQUE",
    "FULLTEXT",
    "SPATIAL",
    "VECTOR",
    "UNDO",
    "EXTERNAL",
    "JSON",
    "RELATIONAL",
    "DUALITY",
    "MATERIALIZED",
];

/// Reads a statement.
pub(super) fn parse(mut c: Cursor<'_>) -> Result<Parsed, Misread> {
    let Some(first) = c.word(0) else {
        return match c.at_end() {
            true => Ok(Parsed::Skipped("a text without a statement".to_owned())),
            false => Err(c.misread("a statement")),
        };
    };
    let first = first.to_ascii_uppercase();
    if first == "SET" && c.is(&["SET", "STATEMENT"]) && c.word(2).is_some() {
        return set_statement(c);
    }
    if SKIPPED.contains(&first.as_str()) {
        return Ok(Parsed::Skipped(first));
    }
    if DML.contains(&first.as_str()) {
        return Ok(Parsed::Dml(insert_target(c)));
    }
    let parsed = match first.as_str() {
        "CREATE" => create(&mut c)?,
        "ALTER" => alter(&mut c)?,
        "DROP" => drop(&mut c)?,
        "RENAME" => rename(&mut c)?,
        "TRUNCATE" => {
            c.advance();
            c.eat(&["TABLE"]);
            Parsed::Table(TableStatement::new(DdlKind::TruncateTable, c.table_name()?))
        }
        _ => return Err(c.misread("a DDL statement")),
    };
    if !matches!(parsed, Parsed::Skipped(_)) {
        c.only_statement()?;
    }
    Ok(parsed)
}

/// MariaDB's `SET STATEMENT a=1, b=2 FOR statement`.
fn set_statement(mut c: Cursor<'_>) -> Result<Parsed, Misread> {
    while !c.at_end() {
        if c.eat(&["FOR"]) {
            return Ok(Parsed::Prefixed(c.position()));
        }
        c.advance();
    }
    Err(c.misread("FOR"))
}

/// The table of INSERT and REPLACE; the others may change several.
fn insert_target(mut c: Cursor<'_>) -> Option<NameRef> {
    if !c.eat(&["INSERT"]) && !c.eat(&["REPLACE"]) {
        return None;
    }
    while c.is_one_of(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]) {
        c.advance();
    }
    c.table_name().ok()
}

/// What stands between the verb and the object.
#[derive(Default)]
struct Modifiers {
    temporary: bool,
    /// Where OR REPLACE stands.
    or_replace: Option<Range<usize>>,
}

fn modifiers(c: &mut Cursor<'_>) -> Modifiers {
    let mut found = Modifiers::default();
    loop {
        if c.is(&["OR", "REPLACE"]) {
            let start = c.position();
            c.eat(&["OR", "REPLACE"]);
            found.or_replace = Some(start..c.previous_end());
        } else if c.eat(&["TEMPORARY"]) {
            found.temporary = true;
        } else if c.eat(&["ALGORITHM"]) {
            c.eat_symbol("=");
            c.advance();
        } else if c.eat(&["DEFINER"]) {
            account(c);
        } else if c.eat(&["SQL", "SECURITY"]) || c.is_one_of(MODIFIERS) {
            c.advance();
        } else {
            return found;
        }
    }
}

/// `= user@host`, `= 'user'@'host'`, `= CURRENT_USER()`, `= role`.
fn account(c: &mut Cursor<'_>) {
    c.eat_symbol("=");
    c.advance();
    if c.eat_symbol("@") {
        c.advance();
    }
    if c.eat_symbol("(") {
        c.eat_symbol(")");
    }
}

/// Objects that are not replicated, whatever verb stands before them.
fn skipped_object(c: &Cursor<'_>, verb: &str, found: &Modifiers) -> Option<Parsed> {
    if found.temporary {
        return Some(Parsed::Skipped(format!("{verb} TEMPORARY")));
    }
    let object = c.word(0)?.to_ascii_uppercase();
    SKIPPED_OBJECTS.contains(&object.as_str()).then(|| Parsed::Skipped(format!("{verb} {object}")))
}

/// Text to be inserted at the next token, parted from what stands before it.
fn insertion(c: &Cursor<'_>, text: &str) -> Edit {
    let at = c.position();
    let parted = c.text().get(..at).is_some_and(|before| before.ends_with(|last: char| last.is_whitespace()));
    Edit { span: at..at, text: if parted { text.to_owned() } else { format!(" {text}") } }
}

/// Passes IF NOT EXISTS, or says where it is to be put.
fn if_not_exists(c: &mut Cursor<'_>) -> Option<Edit> {
    (!c.eat(&["IF", "NOT", "EXISTS"])).then(|| insertion(c, "IF NOT EXISTS "))
}

/// Passes IF EXISTS, or says where it is to be put.
fn if_exists(c: &mut Cursor<'_>) -> Option<Edit> {
    (!c.eat(&["IF", "EXISTS"])).then(|| insertion(c, "IF EXISTS "))
}

fn create(c: &mut Cursor<'_>) -> Result<Parsed, Misread> {
    c.advance();
    let found = modifiers(c);
    if let Some(skipped) = skipped_object(c, "CREATE", &found) {
        return Ok(skipped);
    }
    let replaces = found.or_replace.is_some();
    let mut edits: Vec<Edit> = found.or_replace.into_iter().map(|span| Edit { span, text: String::new() }).collect();
    if c.eat(&["TABLE"]) {
        edits.extend(if_not_exists(c));
        let mut statement = TableStatement::new(DdlKind::CreateTable, c.table_name()?);
        statement.edits = edits;
        statement.replaces = replaces;
        table::definition(c, &mut statement)?;
        return Ok(Parsed::Table(statement));
    }
    if c.eat(&["DATABASE"]) || c.eat(&["SCHEMA"]) {
        edits.extend(if_not_exists(c));
        let name = c.plain_name()?;
        let kind = DdlKind::CreateDatabase;
        return Ok(Parsed::Schema(SchemaStatement { kind, name: Some(name.name), span: name.span, edits, replaces }));
    }
    c.need(&["INDEX"], "DATABASE, TABLE, INDEX or another object")?;
    c.eat(&["IF", "NOT", "EXISTS"]);
    c.plain_name()?;
    if c.eat(&["USING"]) || c.eat(&["TYPE"]) {
        c.advance();
    }
    c.need(&["ON"], "ON")?;
    // An index has no other name on the target, so OR REPLACE stays.
    Ok(Parsed::Table(TableStatement::new(DdlKind::CreateIndex, c.table_name()?)))
}

fn alter(c: &mut Cursor<'_>) -> Result<Parsed, Misread> {
    c.advance();
    let found = modifiers(c);
    if let Some(skipped) = skipped_object(c, "ALTER", &found) {
        return Ok(skipped);
    }
    if c.eat(&["TABLE"]) {
        c.eat(&["IF", "EXISTS"]);
        let mut statement = TableStatement::new(DdlKind::AlterTable, c.table_name()?);
        table::alterations(c, &mut statement)?;
        return Ok(Parsed::Table(statement));
    }
    if !c.eat(&["DATABASE"]) {
        c.need(&["SCHEMA"], "DATABASE, TABLE or another object")?;
    }
    let (kind, edits, replaces) = (DdlKind::AlterDatabase, Vec::new(), false);
    let named = names_a_schema(c);
    if named {
        let name = c.plain_name()?;
        return Ok(Parsed::Schema(SchemaStatement { kind, name: Some(name.name), span: name.span, edits, replaces }));
    }
    let at = c.position();
    Ok(Parsed::Schema(SchemaStatement { kind, name: None, span: at..at, edits, replaces }))
}

/// Whether ALTER DATABASE is followed by a name, or at once by an option of the default schema. Options that begin with
/// a word which can also be a name (CHARSET, ENCRYPTION) are read as that name by the servers, so that none comes first;
/// but MariaDB takes COMMENT for an option where its text follows.
fn names_a_schema(c: &Cursor<'_>) -> bool {
    let comment = c.is(&["COMMENT"]) && c.word(1).is_none();
    !comment && !c.is_one_of(&["CHARACTER", "COLLATE", "DEFAULT", "READ"])
}

fn drop(c: &mut Cursor<'_>) -> Result<Parsed, Misread> {
    c.advance();
    let found = modifiers(c);
    if let Some(skipped) = skipped_object(c, "DROP", &found) {
        return Ok(skipped);
    }
    if c.eat(&["TABLE"]) || c.eat(&["TABLES"]) {
        let edits = if_exists(c).into_iter().collect();
        return list(c, DdlKind::DropTable, edits, |c| Ok(vec![c.table_name()?]));
    }
    if c.eat(&["DATABASE"]) || c.eat(&["SCHEMA"]) {
        let edits = if_exists(c).into_iter().collect();
        let name = c.plain_name()?;
        let (kind, replaces) = (DdlKind::DropDatabase, false);
        return Ok(Parsed::Schema(SchemaStatement { kind, name: Some(name.name), span: name.span, edits, replaces }));
    }
    c.need(&["INDEX"], "DATABASE, TABLE, INDEX or another object")?;
    c.eat(&["IF", "EXISTS"]);
    c.plain_name()?;
    c.need(&["ON"], "ON")?;
    Ok(Parsed::Table(TableStatement::new(DdlKind::DropIndex, c.table_name()?)))
}

fn rename(c: &mut Cursor<'_>) -> Result<Parsed, Misread> {
    c.advance();
    if c.is(&["USER"]) {
        return Ok(Parsed::Skipped("RENAME USER".to_owned()));
    }
    if !c.eat(&["TABLES"]) {
        c.need(&["TABLE"], "TABLE or USER")?;
    }
    c.eat(&["IF", "EXISTS"]);
    list(c, DdlKind::RenameTable, Vec::new(), |c| {
        let from = c.table_name()?;
        table::lock_wait(c);
        c.need(&["TO"], "TO")?;
        Ok(vec![from, c.table_name()?])
    })
}

/// Items with commas between them, up to the options or the end.
fn list(
    c: &mut Cursor<'_>,
    kind: DdlKind,
    edits: Vec<Edit>,
    item: impl Fn(&mut Cursor<'_>) -> Result<Vec<NameRef>, Misread>,
) -> Result<Parsed, Misread> {
    let start = c.position();
    let mut items = vec![item(c)?];
    while c.eat_symbol(",") {
        items.push(item(c)?);
    }
    let list = start..c.previous_end();
    if !c.at_end() && !c.is_one_of(&["RESTRICT", "CASCADE", "WAIT", "NOWAIT"]) {
        return Err(c.misread("a comma or the end"));
    }
    Ok(Parsed::Each(EachStatement { kind, list, items, edits }))
}
