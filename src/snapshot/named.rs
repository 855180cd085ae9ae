//! What the task asks for and does not get: a source shows an account only what it has a right on, so that what is missing is not
//! told by what is seen.
//!
//! Asked about by name it is: "no right" and "not there" are two answers. A list of patterns names nothing that could be asked
//! about; where it lets nothing through, that is noted.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::look::Look;
use super::plan::ident;
use super::problems::Problems;
use super::source::{answered, query_failed};
use super::spec::CopySpec;
use crate::error::{Failure, Scope, server_error_code};

/// Adds what is named and may not be read to `problems`; gives what the operator should know.
pub(super) async fn check_named(
    spec: &CopySpec,
    conn: &mut Conn,
    look: &Look,
    problems: &mut Problems,
) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for (schema, table) in spec.guide.named() {
        let seen = look.wanted.iter().map(|wanted| &wanted.source.0).any(|name| {
            let alike = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
            alike(&name.schema, &schema) && table.as_ref().is_none_or(|table| alike(&name.table, table))
        });
        if seen {
            continue;
        }
        let (what, ask) = match &table {
            None => (format!("schema {}", ident(&schema)), format!("USE {}", ident(&schema))),
            Some(table) => {
                let name = format!("{}.{}", ident(&schema), ident(table));
                (format!("table {name}"), format!("SELECT 1 FROM {name} LIMIT 0"))
            }
        };
        match answered(conn.query_drop(ask.as_str())).await {
            // A view, or a schema without tables.
            Ok(()) if table.is_some() => {}
            Ok(()) => {
                notes.push(format!("{what} has no table that the source's account sees: nothing of it is copied"))
            }
            Err(error) => match server_error_code(&error) {
                Some(1044 | 1142 | 1143) => problems.add(
                    Scope::Upstream,
                    format!("the source's account has no right on {what}, which the block-allow-list asks for"),
                    format!("run `GRANT SELECT, SHOW VIEW ON {}.* TO <user>` on the source", ident(&schema)),
                ),
                Some(1049 | 1146) => notes.push(format!(
                    "the source has no {what}, which the block-allow-list asks for: nothing of it is copied"
                )),
                Some(_) => {}
                None => return Err(query_failed(&error, &ask)),
            },
        }
    }
    if look.wanted.is_empty() && notes.is_empty() && problems.is_empty() {
        notes.push(format!(
            "nothing is copied: of {} tables that the source's account sees the block-allow-list lets none through (tables that \
             it has no right on are not shown)",
            look.others
        ));
    }
    Ok(notes)
}
