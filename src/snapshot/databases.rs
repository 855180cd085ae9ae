//! Databases downstream: those that tables are to be made in, and those that have no table yet, as whatever the binlog makes in
//! them behind L0 needs them.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::look::{SYSTEM, Wanted};
use super::make::Maker;
use super::plan::ident;
use super::source::{answered, query_failed};
use crate::downstream::limited;
use crate::error::{Code, Failure, Scope, driver_failure, server_number};
use crate::mysql::quote;

/// A database of the source: its name, character set and collation.
type Found = (String, String, String);

impl Maker<'_> {
    /// Makes the databases of tables that are to be made, with the character set that the source's has.
    pub async fn schemas(&self, source: &mut Conn, target: &mut Conn, wanted: &[Wanted]) -> Result<(), Failure> {
        let mut schemas: BTreeMap<&str, &str> = BTreeMap::new();
        for wanted in wanted {
            schemas.entry(&wanted.target.0.schema).or_insert(&wanted.source.0.schema);
        }
        let found = found(source).await?;
        for (to, from) in schemas {
            let like = found.iter().find(|(name, _, _)| name == from);
            self.database(target, to, like).await?;
        }
        Ok(())
    }

    /// Makes the databases that the task wants, whether they have tables or not. One that cannot be made is noted: it may be
    /// that nothing ever comes for it.
    pub async fn all_schemas(&self, source: &mut Conn, target: &mut Conn) -> Result<Vec<String>, Failure> {
        let mut notes = Vec::new();
        for like in &found(source).await? {
            let Some(to) = self.spec.guide.schema(&like.0)? else { continue };
            match self.database(target, &to, Some(like)).await {
                Err(failure) if server_number(&failure).is_some() && !self.spec.options.strict_collation => {
                    notes.push(format!("{}: {}. {}", failure.message, failure.raw_cause, failure.workaround));
                }
                made => made?,
            }
        }
        Ok(notes)
    }

    async fn database(&self, target: &mut Conn, to: &str, like: Option<&Found>) -> Result<(), Failure> {
        let doing = format!("create database {}", ident(to));
        let failed = |error| {
            let failure = driver_failure(&error, Code::ExecuteFailed, Scope::Downstream, &doing);
            match server_number(&failure) {
                Some(1044) => failure.workaround(format!(
                    "Please run `GRANT CREATE ON {0}.* TO <user>` downstream, or create it by hand, then resume-task.",
                    ident(to)
                )),
                _ => failure,
            }
        };
        let sql = format!("SELECT 1 FROM information_schema.schemata WHERE schema_name={}", quote(to));
        let there: Option<u64> = limited(target.query_first(sql)).await.map_err(failed)?;
        if there.is_some() {
            return Ok(());
        }
        let mut sql = format!("CREATE DATABASE IF NOT EXISTS {}", ident(to));
        if let Some((_, charset, collation)) = like {
            sql.push_str(&format!(" DEFAULT CHARACTER SET {charset} COLLATE {collation}"));
        }
        self.run(target, sql, &doing).await.map_err(failed)
    }
}

/// The source's databases, as far as the account sees them.
async fn found(source: &mut Conn) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata WHERE \
         schema_name NOT IN ({SYSTEM}) ORDER BY schema_name"
    );
    answered(source.query(sql.as_str())).await.map_err(|error| query_failed(&error, &sql))
}
