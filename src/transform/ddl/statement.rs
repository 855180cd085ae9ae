//! A statement's text, lexed and parsed, goes to what plans statements of its kind.

use super::super::Transform;
use super::super::filter::Filters;
use super::cursor::{Cursor, Edit};
use super::lex::{Dialect, Token, TokenKind, lex};
use super::parse::parse;
use super::parsed::Parsed;
use super::plan::{Planner, edited, skipped};
use super::{DdlInput, DdlPlan};
use crate::error::{Code, Failure};
use crate::model::SourceTable;

/// See [`Transform::statement`]. `filters` are asked about the statement's whole text; what the first table of `renamed` is
/// called in the text, the second is.
pub(in crate::transform) fn plan(
    transform: &Transform,
    input: &DdlInput<'_>,
    filters: Filters<'_>,
    renamed: Option<(&SourceTable, &SourceTable)>,
) -> Result<DdlPlan, Failure> {
    // Clients send texts with NUL bytes at the end, and servers log them.
    let text = input.text.trim_matches(|c: char| c.is_ascii_control() || c == ' ');
    let tokens = lex(text, Dialect { sql_mode: input.sql_mode, flavor: transform.flavor });
    if let Some(disarmed) = disarmed(text, &tokens) {
        return plan(transform, &DdlInput { text: &disarmed, ..*input }, filters, renamed);
    }
    let meaningful: Vec<Token> = tokens.iter().copied().filter(|token| !token.is_trivia()).collect();
    let planner = Planner { transform, input, filters, renamed, text, all: &tokens, tokens: &meaningful };
    if let Some(what) = unfinished(&tokens) {
        return planner.refuse(Code::ParseDdl, what);
    }
    let parsed = match parse(Cursor::new(text, &meaningful)) {
        Ok(parsed) => parsed,
        Err(misread) => return planner.misread(&misread),
    };
    if let Some(of_a_tool) = planner.online(&parsed)? {
        return Ok(of_a_tool);
    }
    match parsed {
        Parsed::Skipped(what) => Ok(skipped(format!("{what} is not replicated"))),
        Parsed::Dml(table) => planner.dml(table.as_ref()),
        Parsed::Schema(statement) => planner.schema(statement),
        Parsed::Table(statement) => planner.table(statement),
        Parsed::Each(statement) => planner.each(&statement),
        Parsed::Prefixed(start) => {
            let text = text.get(start..).unwrap_or_default();
            plan(transform, &DdlInput { text, ..*input }, filters, renamed)
        }
    }
}

/// The text without `/*M!`, if that begins a mere comment in it: the source, not a MariaDB, ignored what a MariaDB
/// target would execute.
fn disarmed(text: &str, tokens: &[Token]) -> Option<String> {
    let armed = |token: &&Token| token.kind == TokenKind::Comment && token.text(text).starts_with("/*M!");
    let behind_star = |token: &Token| token.start + "/*".len();
    let space = |at| Edit { span: at..at, text: " ".to_owned() };
    let edits: Vec<Edit> = tokens.iter().filter(armed).map(behind_star).map(space).collect();
    (!edits.is_empty()).then(|| edited(text, edits))
}

/// What the text leaves open at its end.
fn unfinished(tokens: &[Token]) -> Option<&'static str> {
    let of_version = |token: &&Token| matches!(token.kind, TokenKind::VersionOpen | TokenKind::VersionClose);
    if tokens.iter().any(|token| token.kind == TokenKind::Unterminated) {
        return Some("a string, a quoted name or a comment does not end");
    }
    let open = tokens.iter().rev().find(of_version).is_some_and(|token| token.kind == TokenKind::VersionOpen);
    open.then_some("a comment with a version number does not end")
}
