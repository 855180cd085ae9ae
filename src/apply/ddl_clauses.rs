//! Clauses of an ALTER TABLE that run only where they are needed, for a downstream that has no `IF [NOT] EXISTS` there.
//!
//! The source decided each of them by its table, and downstream the table is the same at that place. So asking it gives
//! the same answer; and where an interrupted statement is run again, its fingerprint has told that it had not run.

use mysql_async::Conn;

use super::ddl_step::{DdlStep, Only};
use super::introspect::has_part;
use crate::error::Failure;

/// The statement with the clauses that are needed; `None` where none is.
pub async fn needed(conn: &mut Conn, step: &DdlStep) -> Result<Option<String>, Failure> {
    let Some(table) = step.targets.first().filter(|_| !step.clauses.is_empty()) else {
        return Ok(Some(step.sql.clone()));
    };
    let mut texts = Vec::with_capacity(step.clauses.len());
    for clause in &step.clauses {
        let run = match &clause.only {
            Some(Only { there, part, name }) => has_part(conn, table, *part, name).await? == *there,
            None => true,
        };
        if run {
            texts.push(clause.text.as_str());
        }
    }
    Ok((!texts.is_empty()).then(|| format!("{}{}", step.sql, texts.join(", "))))
}
