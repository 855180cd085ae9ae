//! One source of the agent: its relay log, its receiver, and a look at the source itself every few seconds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::api::{Receiving, RelayStatus, Runway, SourceStatus};
use crate::config::SourceConfig;
use crate::error::{Code, Failure, Scope};
use crate::model::{Flavor, Location, Received};
use crate::mysql::{Connector, Endpoint};
use crate::pipeline::{Receive, ReceiveSpec, ReceiveState, check, receive, start_of};
use crate::relay::{Relay, RelayConfig, RelayError, Retention, runway};
use crate::runtime::{Owned, spawn};
use crate::store::free_bytes;
use crate::task::{Pulse, RelayKeeper};
use crate::upstream::{ServerFacts, location_now};

/// How often the source is asked where it stands.
const LOOK: Duration = Duration::from_secs(2);
/// How long a task waits for the relay log to reach its place, before it parks and tries again.
const REACH: Duration = Duration::from_secs(20);
/// Longest wait for its answer.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// How its relay log is kept.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// Directory of all relay logs.
    pub dir: PathBuf,
    /// Bytes of one relay log.
    pub budget: u64,
    /// Bytes to leave free.
    pub floor: u64,
}

/// A source.
pub struct Source {
    /// Its configuration.
    pub config: SourceConfig,
    /// Its dialect.
    pub flavor: Flavor,
    /// Its connection.
    pub endpoint: Endpoint,
    /// Its relay log.
    pub relay: Relay,
    receive: ReceiveSpec,
    limits: RelayLimits,
    state: watch::Sender<ReceiveState>,
    master: watch::Sender<Option<Location>>,
    receiver: Mutex<Option<Owned<()>>>,
    paused: Mutex<bool>,
    free: watch::Sender<u64>,
    _look: Mutex<Option<Owned<()>>>,
    /// One at a time moves the relay log's start.
    moving: tokio::sync::Mutex<()>,
    /// Subtasks that need the relay log.
    tasks: AtomicUsize,
}

impl Source {
    /// Opens its relay log and starts looking at it; receives nothing yet.
    pub async fn open(config: SourceConfig, receive: ReceiveSpec, limits: RelayLimits) -> Result<Arc<Source>, Failure> {
        let flavor = receive.flavor;
        let mut relay_config = RelayConfig::new(limits.dir.join(directory(&config.source_id)), flavor);
        relay_config.budget_bytes = limits.budget;
        relay_config.free_floor_bytes = limits.floor;
        let purge = &config.purge;
        relay_config.retention =
            Some(Retention { interval: purge.interval, expires: purge.expires, remain_bytes: purge.remain_space });
        let relay = Relay::open(relay_config).await.map_err(|error| Failure::from(&error))?;
        let source = Arc::new(Source {
            endpoint: receive.endpoint.clone(),
            config,
            flavor,
            relay,
            receive,
            limits,
            state: watch::channel(ReceiveState::default()).0,
            master: watch::channel(None).0,
            receiver: Mutex::new(None),
            paused: Mutex::new(false),
            free: watch::channel(0).0,
            _look: Mutex::new(None),
            moving: tokio::sync::Mutex::new(()),
            tasks: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&source);
        let look = spawn("look-at-source", async move {
            let mut eye = Eye::default();
            while let Some(source) = weak.upgrade() {
                eye.look(&source).await;
                drop(source);
                tokio::time::sleep(LOOK).await;
            }
        });
        *lock(&source._look) = Some(look);
        Ok(source)
    }

    /// One more subtask needs the relay log.
    pub fn task_added(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
    }

    /// One subtask less does.
    pub fn task_removed(&self) {
        self.tasks.fetch_sub(1, Ordering::Relaxed);
    }

    /// Starts to receive, if the relay log has a beginning and nobody paused it.
    pub fn start_receiving(&self) {
        let mut receiver = lock(&self.receiver);
        if receiver.is_none() && !*lock(&self.paused) && self.relay.state().start.is_some() {
            self.state.send_modify(|state| state.doing = Receive::Connecting);
            let (spec, relay, state) = (self.receive.clone(), self.relay.clone(), self.state.clone());
            *receiver = Some(spawn("receive", receive(spec, relay, state)));
        }
    }

    /// Stops receiving; returns when the relay log has no writer.
    pub async fn stop_receiving(&self) {
        let receiver = lock(&self.receiver).take();
        if let Some(receiver) = receiver {
            receiver.abort();
            // Aborted: there is nothing to be learned from how it ended.
            let _ = receiver.await;
        }
    }

    /// Connects anew at once, instead of after the present pause.
    pub async fn kick(&self) {
        if !matches!(self.state.borrow().doing, Receive::Running) {
            self.stop_receiving().await;
            self.start_receiving();
        }
    }

    /// pause-relay and resume-relay.
    pub async fn set_paused(&self, paused: bool) {
        *lock(&self.paused) = paused;
        if paused { self.stop_receiving().await } else { self.start_receiving() }
    }

    /// Makes the relay log hold `location`: begins it anew where it starts later, receives on where it ends earlier (a
    /// crash cost its last moments).
    pub async fn reach_back_to(&self, location: &Location) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        let state = self.relay.state();
        let alone = self.tasks.load(Ordering::Relaxed) <= 1;
        let too_late = !state.start.as_ref().is_some_and(|start| location.covers(start));
        let too_early = !state.received.as_ref().is_some_and(|received| received.0.covers(location));
        if too_late && !alone {
            // Others need what would be dropped: only a source that can give all of it again may replace it.
            check(&self.receive, &start_of(&self.receive, location)).await?;
        }
        // A gap that nobody needs is not fetched.
        if too_late || (too_early && alone) {
            self.stop_receiving().await;
            let identity = self.state.borrow().facts.as_ref().map(|facts| facts.identity.clone()).unwrap_or_default();
            self.relay.start_at(location.clone(), &identity).await.map_err(|error| Failure::from(&error))?;
        }
        self.start_receiving();
        let mut changes = self.relay.changes();
        let reached = async {
            while !self.relay.state().received.is_some_and(|received| received.0.covers(location)) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(REACH, reached).await.map_err(|_| {
            let doing = match &self.state.borrow().doing {
                Receive::Retrying { failure, .. } | Receive::Stopped { failure } => failure.to_string(),
                _ => "receiving has not come as far yet".to_owned(),
            };
            Failure::new(Code::StreamStart, format!("the relay log does not reach {location}")).cause(doing)
        })
    }

    /// The source at this instant.
    pub fn status(&self) -> SourceStatus {
        let relay = self.relay.state();
        let state = self.state.borrow().clone();
        let receiving = match (lock(&self.receiver).is_some(), *lock(&self.paused)) {
            (_, true) => Receiving::Paused,
            (false, _) => Receiving::Idle,
            (true, false) => match (&relay.full, state.doing) {
                (Some(full), _) => Receiving::Stopped { failure: Failure::from(&RelayError::Full(*full)) },
                (_, Receive::Running) => Receiving::Running,
                (_, Receive::Connecting) => Receiving::Retrying {
                    at: SystemTime::now(),
                    failure: Failure::new(Code::StreamStart, "connecting to the source"),
                },
                (_, Receive::Retrying { at, failure }) => Receiving::Retrying { at, failure },
                (_, Receive::Stopped { failure }) => Receiving::Stopped { failure },
            },
        };
        let silent = state.last_contact.and_then(|at| SystemTime::now().duration_since(at).ok());
        // While it receives, the source speaks every two seconds.
        let receive_lag = silent.map(|silent| if silent < 2 * LOOK { Duration::ZERO } else { silent });
        let left = runway(&relay, self.limits.budget, *self.free.borrow(), self.limits.floor, None);
        SourceStatus {
            source_id: self.config.source_id.clone(),
            flavor: self.flavor,
            receiving,
            master: later_of(self.master.borrow().clone(), relay.received.as_ref()),
            server_identity: state.facts.map_or(relay.identity, |facts| facts.identity),
            received: relay.received,
            relayed: relay.relayed,
            receive_lag,
            relay: RelayStatus {
                disk_bytes: relay.disk_bytes,
                raw_bytes: relay.raw_bytes,
                budget_bytes: self.limits.budget,
                segments: relay.segments,
                bytes_per_second: relay.bytes_per_second,
                oldest: relay.start,
                runway: left.map(|left| Runway { until: SystemTime::now() + left.left, limit: left.limit.as_str() }),
            },
        }
    }

    /// Ends everything and removes the relay log where `forget` says so.
    pub async fn close(&self, forget: bool) -> Result<(), Failure> {
        self.stop_receiving().await;
        self.relay.close().await.map_err(|error| Failure::from(&error))?;
        if forget {
            let dir = self.limits.dir.join(directory(&self.config.source_id));
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "the relay log of a removed source stays on disk");
            }
        }
        Ok(())
    }
}

/// Where the source stands: it is asked every two seconds, and what came from it meanwhile is newer than its answer. A
/// source that cannot be asked stands nowhere, whatever came from it before.
fn later_of(seen: Option<Location>, received: Option<&Received>) -> Option<Location> {
    match (seen, received) {
        (Some(seen), Some(Received(received))) if received.covers(&seen) => Some(received.clone()),
        (seen, _) => seen,
    }
}

/// A directory name for any source id.
fn directory(source_id: &str) -> String {
    source_id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02x}"),
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding one of these, and each value is whole at any instant.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at the source over a connection of its own.
#[derive(Default)]
struct Eye {
    conn: Option<mysql_async::Conn>,
    facts: Option<ServerFacts>,
}

impl Eye {
    async fn look(&mut self, source: &Source) {
        let dir = source.limits.dir.clone();
        // Whatever stopped the receiver, a task that needs it gets it back.
        if source.tasks.load(Ordering::Relaxed) > 0 && source.moving.try_lock().is_ok() {
            source.start_receiving();
        }
        if let Ok(Ok(free)) = tokio::task::spawn_blocking(move || free_bytes(&dir)).await {
            source.free.send_replace(free);
        }
        let seen = tokio::time::timeout(LOOK_LIMIT, self.ask(&source.endpoint)).await;
        match seen {
            Ok(Ok(location)) => drop(source.master.send_replace(location)),
            _ => {
                self.conn = None;
                source.master.send_replace(None);
            }
        }
    }

    async fn ask(&mut self, endpoint: &Endpoint) -> Result<Option<Location>, Failure> {
        if self.conn.is_none() {
            let connector = Connector::new(endpoint.clone());
            let connected = connector.connect().await;
            let mut conn = connected.map_err(|error| connector.failure(&error, Scope::Upstream))?;
            self.facts = Some(ServerFacts::read(&mut conn).await?);
            self.conn = Some(conn);
        }
        match (&mut self.conn, &self.facts) {
            (Some(conn), Some(facts)) => location_now(conn, facts.flavor, facts.version).await,
            _ => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl RelayKeeper for Source {
    async fn reach_back(&self, location: Location) -> Result<(), Failure> {
        self.reach_back_to(&location).await
    }

    async fn repair(&self, damage: RelayError) -> Result<(), Failure> {
        let RelayError::Damaged { lsn, at, .. } = damage else { return Err(Failure::from(&damage)) };
        let _moving = self.moving.lock().await;
        // The stream that is open goes on behind the damage: another one must begin at it.
        self.stop_receiving().await;
        self.relay.drop_from(lsn, *at).await.map_err(|error| Failure::from(&error))?;
        self.start_receiving();
        Ok(())
    }

    fn pulse(&self) -> Pulse {
        let state = self.state.borrow();
        Pulse {
            offset: state.facts.as_ref().map_or(0.0, |facts| facts.clock_offset),
            heard: state.last_contact,
            master: self.master.borrow().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BinlogPosition, GtidSet};

    fn at(offset: u64, last: u64) -> Location {
        let set = format!("9231c604-e680-11f1-ab28-628677c36cd1:1-{last}");
        let position = BinlogPosition::parse("b.000001", offset).unwrap();
        Location::new(position, GtidSet::parse(Flavor::MySql, &set).unwrap())
    }

    #[test]
    fn a_source_stands_at_least_where_we_have_received_it() {
        let (early, late) = (at(100, 1), at(200, 2));
        let stands =
            |seen: &Location, received: &Location| later_of(Some(seen.clone()), Some(&Received(received.clone())));
        assert_eq!(stands(&early, &late), Some(late.clone()));
        assert_eq!(stands(&late, &early), Some(late.clone()));
        assert_eq!(later_of(Some(early.clone()), None), Some(early.clone()));
        assert_eq!(later_of(None, Some(&Received(late))), None, "a source that does not answer stands nowhere");
    }
}
