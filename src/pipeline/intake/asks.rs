//! What intake asks the downstream: structures, foreign keys, expressions; and what it stores there before it goes on.
//!
//! One connection, made when it is first needed and again where it is lost. Nothing here is remembered, but structures that
//! were read with another table's, for a moment: where many tables of a schema are asked for one after the other, the rest of
//! them is read at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::apply::{
    Cascade, Downstream, fetch_cascades, fetch_parent_columns, fetch_schema_charset, fetch_structure, fetch_structures,
};
use crate::error::{Code, Failure, Retry, Scope, driver_failure, retry_of};
use crate::meta::MetaTables;
use crate::model::TargetTable;
use crate::schema::TableStructure;
use crate::snapshot::{Replay, record};

/// How long a lost connection is retried before the task parks.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// After so many tables of a schema in a row the others are read with the next one.
const MANY: u32 = 8;
/// Tables of a schema that are worth being read together, at most.
const TOGETHER: u64 = 2_000;
/// How long a structure counts that was read with others.
const AHEAD: Duration = Duration::from_secs(5);

/// What intake asks the downstream.
pub(super) enum Question<'a> {
    /// What a table looks like.
    Structure(&'a TargetTable),
    /// To store something.
    Store(&'a str),
    /// What is stored: rows of three texts.
    Rows(&'a str),
    /// Which foreign keys change other tables' rows.
    Cascades,
    /// What one of them refers to.
    ParentColumns(&'a Cascade),
    /// The default character set of a schema.
    SchemaCharset(&'a str),
    /// To store what is left to be done behind a copy.
    Replay(&'a Replay),
    /// Which rows an expression filter leaves out.
    LeftOut { sql: &'a [u8], doing: &'a str },
}

/// What it answers.
pub(super) enum Answer {
    Structure(TableStructure),
    Stored,
    Rows(Vec<(String, String, String)>),
    Cascades(Vec<Cascade>),
    ParentColumns(Vec<String>),
    SchemaCharset(Option<String>),
    LeftOut(Vec<u64>),
}

/// Asks the downstream.
pub(super) struct Asks {
    downstream: Downstream,
    /// `None` where nothing is stored there.
    tables: Option<MetaTables>,
    conn: Option<Conn>,
    /// The session reads expressions as they are written, whatever the task's `sql_mode` says.
    plain_session: bool,
    ahead: Ahead,
}

/// Structures that were read with others', and what lets us read them.
#[derive(Default)]
struct Ahead {
    schema: String,
    /// Tables of the schema that were asked for one by one.
    single: u32,
    read: Option<(Instant, HashMap<String, TableStructure>)>,
}

impl Ahead {
    /// The table's structure, if it was read just now.
    fn take(&mut self, target: &TargetTable) -> Option<TableStructure> {
        let (since, read) = self.read.as_mut()?;
        if self.schema != *target.0.schema || since.elapsed() >= AHEAD {
            *self = Ahead::default();
            return None;
        }
        read.remove(&*target.0.table)
    }

    /// What a table looks like.
    async fn structure(&mut self, conn: &mut Conn, target: &TargetTable) -> Result<TableStructure, Failure> {
        if let Some(known) = self.take(target) {
            return Ok(known);
        }
        if self.counts(target) {
            self.read = Some((Instant::now(), fetch_structures(conn, &target.0.schema, TOGETHER).await?));
            if let Some(known) = self.take(target) {
                return Ok(known);
            }
        }
        fetch_structure(conn, target).await
    }

    /// Counts a table that is asked for. Whether its schema's others are to be read, too.
    fn counts(&mut self, target: &TargetTable) -> bool {
        if self.schema != *target.0.schema {
            *self = Ahead { schema: target.0.schema.to_string(), ..Ahead::default() };
        }
        self.single += 1;
        self.single > MANY && self.read.is_none()
    }
}

impl Asks {
    /// Connects when it is first asked.
    pub(super) fn new(downstream: Downstream, tables: Option<MetaTables>) -> Self {
        Asks { downstream, tables, conn: None, plain_session: false, ahead: Ahead::default() }
    }

    /// Tables may have changed.
    pub(super) fn forget(&mut self) {
        self.ahead = Ahead::default();
    }

    /// Asks the downstream, on a new connection where one is lost, for as long as lanes would.
    pub(super) async fn retried(&mut self, question: Question<'_>) -> Result<Answer, Failure> {
        let started = Instant::now();
        loop {
            let failure = match self.ask(&question).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.conn = None;
            let lost =
                matches!(failure.known_code(), Some(Code::DriverError | Code::InvalidConnection | Code::BadConnection));
            if !(lost || retry_of(&failure) == Retry::InPlace) || started.elapsed() >= RETRY_LIMIT {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn ask(&mut self, question: &Question<'_>) -> Result<Answer, Failure> {
        if self.conn.is_none() {
            (self.conn, self.plain_session) = (Some(self.downstream.connect().await?), false);
        }
        let plain = self.downstream.set_mode(true);
        let Some(conn) = self.conn.as_mut() else { return Err(Failure::new(Code::DriverError, "no connection")) };
        match question {
            Question::Structure(target) => self.ahead.structure(conn, target).await.map(Answer::Structure),
            Question::Cascades => fetch_cascades(conn).await.map(Answer::Cascades),
            Question::ParentColumns(cascade) => fetch_parent_columns(conn, cascade).await.map(Answer::ParentColumns),
            Question::SchemaCharset(schema) => fetch_schema_charset(conn, schema).await.map(Answer::SchemaCharset),
            Question::LeftOut { sql, doing } => {
                let failed = |error| driver_failure(&error, Code::ExpressionGrammar, Scope::Downstream, doing);
                if !std::mem::replace(&mut self.plain_session, true) {
                    self.downstream.limited(conn.query_drop(plain)).await.map_err(failed)?;
                }
                self.downstream.limited(conn.query(*sql)).await.map(Answer::LeftOut).map_err(failed)
            }
            Question::Replay(replay) => {
                let Some(tables) = &self.tables else { return Ok(Answer::Stored) };
                // Nobody is fenced off by it: it is true for whoever goes on, and only the owner comes here.
                record(conn, tables, Some(replay), None).await.map(|_| Answer::Stored)
            }
            Question::Store(sql) => {
                let stored = self.downstream.limited(conn.query_drop(*sql)).await;
                stored.map(|()| Answer::Stored).map_err(|error| of_meta(&error, "store what a replay needs"))
            }
            Question::Rows(sql) => {
                let rows = self.downstream.limited(conn.query(*sql)).await;
                rows.map(Answer::Rows).map_err(|error| of_meta(&error, "read what is known of shadow tables"))
            }
        }
    }
}

/// Of our tables.
fn of_meta(error: &mysql_async::Error, doing: &str) -> Failure {
    driver_failure(error, Code::Checkpoint, Scope::Downstream, doing)
}
