//! A look at a source every two seconds, over a connection of its own: where its binlog ends, its clock, how long it
//! keeps its files. Also starts a receiver again that ended without being told to.
//!
//! Nothing waits for it: a source that does not answer is one of which nothing is known.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::source::{Settings, Source};
use crate::error::{Failure, Scope};
use crate::model::Location;
use crate::mysql::Connector;
use crate::store::free_bytes;
use crate::upstream::{ServerFacts, location_now};

/// How often the source is asked where it stands.
const LOOK: Duration = Duration::from_secs(2);
/// Longest wait for its answer.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked for more than its place.
const FACTS: Duration = Duration::from_secs(60);

/// Looks for as long as there is a source.
pub(super) async fn watch(source: Weak<Source>) {
    let mut eye = Eye::default();
    while let Some(source) = source.upgrade() {
        eye.look(&source).await;
        drop(source);
        tokio::time::sleep(LOOK).await;
    }
}

/// A connection, and what was learned over it.
#[derive(Default)]
struct Eye {
    conn: Option<mysql_async::Conn>,
    facts: Option<(ServerFacts, Instant)>,
    /// What the connection was made with.
    settings: Option<Arc<Settings>>,
}

impl Eye {
    async fn look(&mut self, source: &Source) {
        source.revive().await;
        let dir = source.relay_dir();
        if let Ok(Ok(free)) = tokio::task::spawn_blocking(move || free_bytes(&dir)).await {
            source.set_free_bytes(free);
        }
        let settings = source.settings();
        if self.settings.as_ref().is_none_or(|old| !Arc::ptr_eq(old, &settings)) {
            (self.conn, self.settings) = (None, Some(settings));
        }
        let asked = SystemTime::now();
        match tokio::time::timeout(LOOK_LIMIT, self.ask(source)).await {
            Ok(Ok(location)) => {
                // Where another server's binlog ends says nothing of ours.
                let ours = self.facts.as_ref().is_some_and(|(facts, _)| source.is_of(facts));
                source.seen_at(asked, location.filter(|_| ours));
            }
            _ => {
                self.conn = None;
                source.seen_at(asked, None);
            }
        }
        source.remember().await;
    }

    async fn ask(&mut self, source: &Source) -> Result<Option<Location>, Failure> {
        let fresh = self.facts.as_ref().is_some_and(|(_, at)| at.elapsed() < FACTS);
        if self.conn.is_none() {
            let connector = Connector::new(source.settings().receive.endpoint.clone());
            let connected = connector.connect().await;
            self.conn = Some(connected.map_err(|error| connector.failure(&error, Scope::Upstream))?);
            self.facts = None;
        }
        let Some(conn) = &mut self.conn else { return Ok(None) };
        if self.facts.is_none() || !fresh {
            let facts = ServerFacts::read(conn).await?;
            source.learn(&facts);
            self.facts = Some((facts, Instant::now()));
        }
        match &self.facts {
            Some((facts, _)) => location_now(conn, facts.flavor, facts.version).await,
            None => Ok(None),
        }
    }
}
