//! Tables and views made downstream, from the definitions that the source prints.
//!
//! Nothing that is there is changed. A collation that the downstream does not know is replaced by the one of the same
//! character set that compares most alike, and that is noted: what a column can hold stays the same. Where the task wants the
//! source's collations or none, it is not replaced.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;

use super::look::Wanted;
use super::plan::ident;
use super::problems::Problems;
use super::source::{answered, query_failed};
use super::spec::{CopyProgress, CopySpec};
use super::structure::text;
use crate::downstream::{DdlSession, Downstream, SessionError, limited};
use crate::error::{Code, Failure, Retry, Scope, driver_failure, render_server_error, retry_of, server_error_code};
use crate::mysql::quote;

/// Unknown collation.
const UNKNOWN_COLLATION: u16 = 1273;
/// How many unknown collations one definition may have.
const COLLATIONS: usize = 32;
/// The table is there already.
const EXISTS: u16 = 1050;

pub(super) struct Maker<'a> {
    pub spec: &'a CopySpec,
    pub downstream: &'a Downstream,
    pub progress: &'a watch::Sender<CopyProgress>,
}

impl Maker<'_> {
    /// Makes one table.
    pub async fn table(
        &self,
        source: &mut Conn,
        target: &mut Conn,
        wanted: &Wanted,
        problems: &mut Problems,
    ) -> Result<(), Failure> {
        let show = format!("SHOW CREATE TABLE {}", wanted.source);
        let definition: Option<mysql_async::Row> = match answered(source.query_first(show.as_str())).await {
            Ok(row) => row,
            // Dropped a moment ago.
            Err(error) if server_error_code(&error) == Some(1146) => return Ok(()),
            Err(mysql_async::Error::Server(error)) => {
                let schema = ident(&wanted.source.0.schema);
                let remedy = format!("run `GRANT SELECT ON {schema}.* TO <user>` on the source");
                problems.add(Scope::Upstream, format!("{show}: {}", error.message), remedy);
                return Ok(());
            }
            Err(error) => return Err(query_failed(&error, &show)),
        };
        let sql = definition.as_ref().and_then(|row| text(row, 1)).unwrap_or_default();
        // In a dm-worker's words, which it says of each table of a dump.
        tracing::debug!(table = %wanted.source, "init table info");
        self.define(source, target, wanted, &sql, problems).await
    }

    /// Makes views, in whatever order they depend on each other.
    pub async fn views(
        &self,
        source: &mut Conn,
        target: &mut Conn,
        views: Vec<Wanted>,
        problems: &mut Problems,
    ) -> Result<(), Failure> {
        let mut waiting = views;
        while !waiting.is_empty() {
            let (mut later, mut found) = (Vec::new(), Problems::default());
            let before = waiting.len();
            for wanted in waiting {
                let mut own = Problems::default();
                self.view(source, target, &wanted, &mut own).await?;
                if !own.is_empty() {
                    found.extend(own);
                    later.push(wanted);
                }
            }
            if later.len() == before {
                problems.extend(found);
                return Ok(());
            }
            waiting = later;
        }
        Ok(())
    }

    async fn view(
        &self,
        source: &mut Conn,
        target: &mut Conn,
        wanted: &Wanted,
        problems: &mut Problems,
    ) -> Result<(), Failure> {
        let show = format!("SHOW CREATE VIEW {}", wanted.source);
        let row: Option<mysql_async::Row> = match answered(source.query_first(show.as_str())).await {
            Ok(row) => row,
            Err(mysql_async::Error::Server(error)) => {
                let schema = ident(&wanted.source.0.schema);
                let remedy = format!("run `GRANT SELECT, SHOW VIEW ON {schema}.* TO <user>` on the source");
                problems.add(Scope::Upstream, format!("{show}: {}", error.message), remedy);
                return Ok(());
            }
            Err(error) => return Err(query_failed(&error, &show)),
        };
        let sql = row.as_ref().and_then(|row| text(row, 1)).unwrap_or_default();
        // Its text names other tables, which no rule of ours can rename with certainty.
        let Some(body) = sql.find(" VIEW ").map(|at| &sql[at..]) else { return Ok(()) };
        if wanted.source.0 != wanted.target.0 {
            let text = format!(
                "view {} is routed to {}, and what it reads cannot be renamed in it",
                wanted.source, wanted.target
            );
            problems.add(Scope::Downstream, text, format!("create {} by hand", wanted.target));
            return Ok(());
        }
        let sql = format!("CREATE SQL SECURITY INVOKER{body}");
        let usage = format!("USE {}", ident(&wanted.target.0.schema));
        let doing = format!("create view {}", wanted.target);
        let made = match limited(target.query_drop(usage)).await {
            Ok(()) => self.run(target, sql, &doing).await,
            refused => refused,
        };
        refused(made, &doing, &format!("create {} by hand, or leave it out", wanted.target), problems)
    }

    async fn define(
        &self,
        source: &mut Conn,
        target: &mut Conn,
        wanted: &Wanted,
        sql: &str,
        problems: &mut Problems,
    ) -> Result<(), Failure> {
        let doing = format!("create table {}", wanted.target);
        let remedy = format!("create {} downstream by hand, with what fits there", wanted.target);
        let definitions = match self.spec.guide.definition(source, &wanted.source.0.schema, sql).await {
            Ok(definitions) => definitions,
            Err(failure) if retry_of(&failure) != Retry::Never => return Err(failure),
            Err(failure) => {
                problems.add(Scope::Upstream, format!("{doing}: {}", failure.message), remedy);
                return Ok(());
            }
        };
        for definition in definitions {
            let session =
                DdlSession { sql_modes: definition.sql_modes, foreign_keys_off: true, ..DdlSession::default() };
            match session.enter(target, self.downstream.dialect).await {
                Ok(()) => {}
                Err(SessionError::Server(error)) => {
                    return Err(driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, &doing));
                }
                // None is asked for.
                Err(SessionError::Zone(_)) => {}
            }
            let made = self.run(target, definition.sql, &doing).await;
            session.leave(target, self.downstream).await;
            refused(made, &doing, &remedy, problems)?;
        }
        Ok(())
    }

    /// Runs a definition, with other collations where the downstream does not know them.
    pub(super) async fn run(&self, conn: &mut Conn, mut sql: String, doing: &str) -> Result<(), mysql_async::Error> {
        for _ in 0..COLLATIONS {
            // No limit: an empty table is made at once, and a server that is gone is found by TCP keepalive.
            let error = match conn.query_drop(sql.as_str()).await {
                Ok(()) => return Ok(()),
                Err(mysql_async::Error::Server(error)) if error.code == EXISTS => return Ok(()),
                Err(mysql_async::Error::Server(error))
                    if error.code == UNKNOWN_COLLATION && !self.spec.options.strict_collation =>
                {
                    error
                }
                Err(error) => return Err(error),
            };
            let unknown = error.message.split('\'').nth(1).unwrap_or_default().to_owned();
            let Some(known) = self.known_collation(conn, &unknown).await? else {
                return Err(mysql_async::Error::Server(error));
            };
            sql = replace_word(&sql, &unknown, &known);
            self.progress.send_modify(|progress| {
                let note =
                    format!("the downstream does not know the collation {unknown}: {known} is used in its place");
                if !progress.notes.contains(&note) {
                    tracing::warn!(doing, "{note}");
                    progress.notes.push(note);
                }
            });
        }
        conn.query_drop(sql).await
    }

    /// The first of the collations most alike that the downstream has.
    async fn known_collation(&self, conn: &mut Conn, unknown: &str) -> Result<Option<String>, mysql_async::Error> {
        for candidate in alike(unknown) {
            let sql = format!(
                "SELECT 1 FROM information_schema.collations WHERE {} IN (collation_name, CONCAT('utf8mb4_', collation_name))",
                quote(&candidate)
            );
            let there: Option<u64> = limited(conn.query_first(sql)).await?;
            if there.is_some() && candidate != unknown {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }
}

/// Collations of the same character set, those that compare most alike first.
fn alike(collation: &str) -> Vec<String> {
    let Some((charset, rule)) = collation.split_once('_') else { return Vec::new() };
    let sensitivity = ["ai_ci", "as_ci", "as_cs"].into_iter().find(|end| rule.ends_with(end));
    let no_pad = rule.starts_with("0900") || rule.contains("nopad");
    let mut names = Vec::new();
    if rule.ends_with("bin") {
        if no_pad {
            names.extend(["nopad_bin".to_owned(), "0900_bin".to_owned()]);
        }
        names.push("bin".to_owned());
    } else if let Some(end) = sensitivity {
        if no_pad {
            names.push(format!("uca1400_nopad_{end}"));
            names.push(format!("0900_{end}"));
        }
        names.extend([format!("uca1400_{end}"), format!("0900_{end}")]);
        if end == "as_cs" {
            names.push("bin".to_owned());
        }
    }
    names.extend(["unicode_520_ci".to_owned(), "unicode_ci".to_owned(), "general_ci".to_owned()]);
    names.into_iter().map(|name| format!("{charset}_{name}")).collect()
}

/// Every whole word `from` as `to`.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, behind) = (&rest[..at], &rest[at + from.len()..]);
        let whole = !before.ends_with(is_word) && !behind.starts_with(is_word);
        out.push_str(before);
        out.push_str(if whole { to } else { from });
        rest = behind;
    }
    out.push_str(rest);
    out
}

fn refused(
    made: Result<(), mysql_async::Error>,
    doing: &str,
    remedy: &str,
    problems: &mut Problems,
) -> Result<(), Failure> {
    match made {
        Ok(()) => Ok(()),
        Err(mysql_async::Error::Server(error)) => {
            let remedy = match error.code {
                1044 | 1142 => "grant CREATE on the target schemas downstream".to_owned(),
                _ => remedy.to_owned(),
            };
            problems.add(Scope::Downstream, format!("{doing}: {}", render_server_error(&error)), remedy);
            Ok(())
        }
        Err(error) => Err(driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, doing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collations_without_padding_come_first_where_it_had_none() {
        assert_eq!(alike("utf8mb4_0900_ai_ci")[0], "utf8mb4_uca1400_nopad_ai_ci");
        assert_eq!(alike("utf8mb4_uca1400_ai_ci")[1], "utf8mb4_0900_ai_ci");
        assert_eq!(alike("utf8mb4_0900_bin")[0], "utf8mb4_nopad_bin");
        assert!(alike("utf8mb4_0900_as_cs").contains(&"utf8mb4_bin".to_owned()));
        assert!(alike("binary").is_empty());
    }

    #[test]
    fn only_whole_words_are_replaced() {
        assert_eq!(replace_word("a_b COLLATE=b_c, x_b_c b_c", "b_c", "d"), "a_b COLLATE=d, x_b_c d");
    }
}
