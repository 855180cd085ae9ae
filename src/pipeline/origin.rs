//! Questions to the source beside the stream: what the binlog leaves out.
//!
//! The relay log makes a task independent of its source, and this must not undo that. So nothing here is needed where the
//! binlog says it all; an answer that does not come in time counts as none, and is not asked for again for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;

use crate::error::{Code, Failure, Scope};
use crate::model::{Flavor, SourceCollations, SourceTable};
use crate::mysql::{Connector, Endpoint};
use crate::upstream::{
    SourceCascade, SourceColumns, ZoneOffset, logs_cascades, source_cascades, source_collations, source_columns,
    source_schema_charset, zone_offset,
};

/// Longest wait for a connection and an answer.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a source that did not answer is left alone.
const REST: Duration = Duration::from_secs(30);

/// The source, asked now and then.
pub struct Origin {
    connector: Connector,
    /// Its dialect.
    pub flavor: Flavor,
    conn: Option<Conn>,
    rests_until: Option<Instant>,
    logs_cascades: Option<bool>,
    collations: Option<Arc<SourceCollations>>,
}

impl Origin {
    /// Connects when it is first asked.
    pub fn new(endpoint: Endpoint, flavor: Flavor) -> Self {
        let connector = Connector::new(endpoint).with_session("SET NAMES utf8mb4");
        Origin { connector, flavor, conn: None, rests_until: None, logs_cascades: None, collations: None }
    }

    /// The same, on a connection of its own.
    pub fn another(&self) -> Self {
        Origin {
            connector: self.connector.clone(),
            flavor: self.flavor,
            conn: None,
            rests_until: None,
            logs_cascades: None,
            collations: None,
        }
    }

    /// The columns of a table now; `None` where it is not there, or the source cannot be asked.
    pub async fn columns(&mut self, table: &SourceTable) -> Option<SourceColumns> {
        match self.ask(Question::Columns(table)).await {
            Some(Answer::Columns(columns)) => columns,
            _ => None,
        }
    }

    /// The default character set of a schema now; `None` where it is not there, or the source cannot be asked.
    pub async fn schema_charset(&mut self, schema: &str) -> Option<String> {
        match self.ask(Question::SchemaCharset(schema)).await {
            Some(Answer::SchemaCharset(charset)) => charset,
            _ => None,
        }
    }

    /// What it means by character sets without a collation; `None` where it cannot be asked.
    pub async fn collations(&mut self) -> Option<Arc<SourceCollations>> {
        if self.collations.is_none()
            && let Some(Answer::Collations(found)) = self.ask(Question::Collations).await
        {
            self.collations = Some(Arc::new(found));
        }
        self.collations.clone()
    }

    /// Its foreign keys that act on rows; empty where it cannot be asked.
    pub async fn cascades(&mut self) -> Vec<SourceCascade> {
        match self.ask(Question::Cascades).await {
            Some(Answer::Cascades(cascades)) => cascades,
            _ => Vec::new(),
        }
    }

    /// Whether it logs what foreign keys do to other tables; `None` where it cannot be asked.
    pub async fn logs_cascades(&mut self) -> Option<bool> {
        if self.flavor == Flavor::MariaDb {
            return Some(false);
        }
        if self.logs_cascades.is_none()
            && let Some(Answer::LogsCascades(logs)) = self.ask(Question::LogsCascades).await
        {
            self.logs_cascades = Some(logs);
        }
        self.logs_cascades
    }

    /// How far a time zone was from UTC; `None` where it does not know it, or cannot be asked.
    pub async fn zone(&mut self, zone: &str, at: u32) -> Option<ZoneOffset> {
        match self.ask(Question::Zone(zone, at)).await {
            Some(Answer::Zone(offset)) => offset,
            _ => None,
        }
    }

    /// Asks, once more on a new connection where the one at hand was closed meanwhile.
    async fn ask(&mut self, question: Question<'_>) -> Option<Answer> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.rests_until = None;
        let had_one = self.conn.is_some();
        let mut answer = self.once(question).await;
        if had_one && answer.is_err() {
            answer = self.once(question).await;
        }
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(%error, "the source was asked for what its binlog leaves out, and did not answer");
                self.rests_until = Some(Instant::now() + REST);
                None
            }
        }
    }

    async fn once(&mut self, question: Question<'_>) -> Result<Answer, Failure> {
        let conn = self.conn.take();
        let asked = async {
            let mut conn = match conn {
                Some(conn) => conn,
                None => {
                    let connected = self.connector.connect().await;
                    connected.map_err(|error| self.connector.failure(&error, Scope::Upstream))?
                }
            };
            let answer = match question {
                Question::Columns(table) => Answer::Columns(source_columns(&mut conn, table).await?),
                Question::SchemaCharset(schema) => {
                    Answer::SchemaCharset(source_schema_charset(&mut conn, schema).await?)
                }
                Question::Collations => Answer::Collations(source_collations(&mut conn).await?),
                Question::Cascades => Answer::Cascades(source_cascades(&mut conn).await?),
                Question::LogsCascades => Answer::LogsCascades(logs_cascades(&mut conn).await?),
                Question::Zone(zone, at) => Answer::Zone(zone_offset(&mut conn, zone, at).await?),
            };
            Ok((answer, conn))
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok((answer, conn))) => {
                self.conn = Some(conn);
                Ok(answer)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(no_answer()),
        }
    }
}

#[derive(Clone, Copy)]
enum Question<'a> {
    Columns(&'a SourceTable),
    SchemaCharset(&'a str),
    Collations,
    LogsCascades,
    Cascades,
    Zone(&'a str, u32),
}

enum Answer {
    Columns(Option<SourceColumns>),
    SchemaCharset(Option<String>),
    Collations(SourceCollations),
    LogsCascades(bool),
    Cascades(Vec<SourceCascade>),
    Zone(Option<ZoneOffset>),
}

fn no_answer() -> Failure {
    let text = format!("no answer within {} s", LIMIT.as_secs());
    Failure::new(Code::InvalidConnection, text).scope(Scope::Upstream)
}
