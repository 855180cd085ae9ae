//! A look at a source every two seconds, over a connection of its own: where its binlog ends, its clock, how long it
//! keeps its files. Also starts a receiver again that ended without being told to.
//!
//! Nothing waits for it: a source that does not answer is one of which nothing is known. One whose binlog ends before what
//! was received of it has lost that (RESET, a backup restored in place): an open stream does not show it, since the source
//! goes on sending heartbeats from the file that is gone. So the stream is opened anew, and the source says it itself.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::source::{Settings, Source};
use crate::clock::steady;
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
/// Looks that must show by GTIDs alone that the source lacks what it sent: one that waits for a semi-synchronous replica
/// counts a transaction as its own only later. A position tells at once, but for the instant between two answers.
const LOOKS_BY_SET: u32 = 30;
const LOOKS_BY_POSITION: u32 = 2;

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
    /// How sure it is that the source lacks what it sent, in looks by set.
    doubt: u32,
}

/// How much one look adds to the doubt that the source still has what was received before it: `None` where it has.
pub(super) fn lacks(now: &Location, received: &Location) -> Option<u32> {
    if now.position < received.position {
        return Some(LOOKS_BY_SET.div_ceil(LOOKS_BY_POSITION));
    }
    (!received.gtids.is_empty() && !now.gtids.contains(&received.gtids)).then_some(1)
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
        let (asked, received) = (steady(), source.received());
        match tokio::time::timeout(LOOK_LIMIT, self.ask(source)).await {
            Ok(Ok(location)) => {
                // Where another server's binlog ends says nothing of ours.
                let ours = self.facts.as_ref().is_some_and(|(facts, _)| source.is_of(facts));
                let location = location.filter(|_| ours);
                let lacking = location.as_ref().zip(received.as_ref()).and_then(|(now, received)| lacks(now, received));
                self.doubt = lacking.map_or(0, |more| self.doubt + more);
                source.seen_at(asked, location);
                if self.doubt >= LOOKS_BY_SET {
                    self.doubt = 0;
                    source.reconnect().await;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BinlogPosition, Flavor, GtidSet};

    #[test]
    fn a_source_lacks_what_it_sent_by_position_at_once_and_by_set_after_a_while() {
        let at = |offset, set: &str| {
            let set = set.replace("u", "9231c604-e680-11f1-ab28-628677c36cd1");
            let position = BinlogPosition::parse("b.000007", offset).unwrap();
            Location::new(position, GtidSet::parse(Flavor::MySql, &set).unwrap())
        };
        assert_eq!(lacks(&at(500, "u:1-9"), &at(500, "u:1-9")), None);
        assert_eq!(lacks(&at(700, "u:1-9"), &at(500, "u:1-8")), None);
        assert_eq!(lacks(&at(700, ""), &at(500, "")), None);
        assert_eq!(lacks(&at(700, "u:1-8"), &at(500, "u:1-9")), Some(1));
        assert_eq!(lacks(&at(400, "u:1-9"), &at(500, "u:1-9")), Some(LOOKS_BY_SET / LOOKS_BY_POSITION));
    }
}
