//! What is known of the server behind a source, and what follows from it: its status, its runway, whether it is another one.
//!
//! Locks are taken in one order, `receiver`, `state`, `horizon`, and let go of before a call that takes another: a status
//! must never wait in a circle.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::super::api::{CONNECTING, Receiving, RelayStatus, Runway, SourceStatus};
use super::{REMEMBER, Source, lock};
use crate::clock::{steady, told};
use crate::error::{Code, Failure};
use crate::model::{Location, Received};
use crate::pipeline::Receive;
use crate::relay::{RelayError, RelayState, RunwayLimit, runway};
use crate::store::Namespace;
use crate::upstream::ServerFacts;

impl Source {
    /// The server said of itself.
    pub(in crate::supervisor) fn learn(&self, facts: &ServerFacts) {
        let mut horizon = lock(&self.horizon);
        horizon.offset = facts.clock_offset;
        horizon.keeps = Some(facts.binlog_expiry().unwrap_or_default());
        if horizon.identity.is_empty() {
            horizon.identity.clone_from(&facts.identity);
        }
    }

    /// It was asked at `at` where its binlog ends.
    pub(in crate::supervisor) fn seen_at(&self, at: SystemTime, location: Option<Location>) {
        lock(&self.horizon).end = location.map(|location| (at, location));
    }

    /// Stores what is known, for the status after a restart.
    pub(in crate::supervisor) async fn remember(&self) {
        self.refresh(&self.relay.state());
        let now = lock(&self.horizon).clone();
        let moved = now.differs(&lock(&self.remembered), REMEMBER);
        // A disk without room costs only what the status would know after a restart.
        if moved && self.db.put(Namespace::Relay, &self.id, &now).await.is_ok() {
            *lock(&self.remembered) = now;
        }
    }

    /// Whether the relay log's server is this one, as far as is known.
    pub(in crate::supervisor) fn is_of(&self, facts: &ServerFacts) -> bool {
        let held = self.relay.state().identity;
        held.is_empty() || held == facts.identity
    }

    /// Another server takes the former one's place, and nobody needs the former one's binlog: the relay log begins anew
    /// where the new one stands.
    pub(in crate::supervisor) async fn become_another(&self, facts: &ServerFacts) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        let receiving = lock(&self.receiver).is_some();
        self.stop_receiving().await;
        let now = facts
            .location
            .clone()
            .ok_or_else(|| Failure::new(Code::NoMasterStatus, "the source did not tell where its binlog ends"))?;
        self.relay.start_at(now, &facts.identity).await.map_err(|error| Failure::from(&error))?;
        self.forget_horizon();
        lock(&self.horizon).identity.clone_from(&facts.identity);
        if receiving {
            self.start_receiving();
        }
        Ok(())
    }

    pub(super) fn forget_horizon(&self) {
        let newest = self.relay.state().newest_timestamp;
        self.state.send_modify(|state| state.caught_up = None);
        lock(&self.horizon).forget(newest);
    }

    /// Takes in what came since the last time.
    pub(super) fn refresh(&self, relay: &RelayState) {
        let state = self.state.borrow();
        let mut horizon = lock(&self.horizon);
        horizon.saw_event(relay.newest_timestamp, state.last_contact.unwrap_or_else(steady));
        if let Some(at) = state.caught_up {
            horizon.was_at_end(at);
        }
        if let Some(received) = &relay.received {
            horizon.has_received(&received.0);
        }
        if let Some(facts) = &state.facts {
            // The receiver goes on only with a server that fits.
            horizon.identity.clone_from(&facts.identity);
        }
    }

    pub(super) fn receive_lag(&self) -> Option<Duration> {
        let connected = self.state.borrow().doing == Receive::Running;
        lock(&self.horizon).lag(steady(), connected)
    }

    /// The source at this instant.
    pub fn status(&self) -> SourceStatus {
        let relay = self.relay.state();
        self.refresh(&relay);
        let state = self.state.borrow().clone();
        let receiving = self.receiving(&relay, state.doing);
        let runway = self.runway(&relay, &receiving);
        let receive_lag = self.receive_lag();
        let asked = lock(&self.horizon).end.as_ref().map(|(_, location)| location.clone());
        let master = match &receiving {
            Receiving::Running => later_of(asked, relay.received.as_ref()),
            // It may have lost what it sent.
            _ => asked,
        };
        SourceStatus {
            source_id: self.id.clone(),
            flavor: self.flavor,
            master,
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
                received_bytes: relay.received_lsn.0.saturating_sub(self.opened_at),
                breaks: state.breaks,
                oldest: relay.start,
                runway,
            },
            receiving,
        }
    }

    fn receiving(&self, relay: &RelayState, doing: Receive) -> Receiving {
        let receives = lock(&self.receiver).is_some();
        let paused = *lock(&self.paused);
        let faulted = lock(&self.faulted).is_some();
        match (receives, paused) {
            (_, true) => Receiving::Paused,
            (false, _) => match (faulted, doing) {
                (true, Receive::Stopped { failure }) => Receiving::Stopped { failure },
                _ => Receiving::Idle,
            },
            (true, false) => match (&relay.full, doing) {
                (Some(full), _) => Receiving::Stopped { failure: Failure::from(&RelayError::Full(*full)) },
                (_, Receive::Running) => Receiving::Running,
                (_, Receive::Connecting) => {
                    Receiving::Retrying { at: SystemTime::now(), failure: Failure::new(Code::StreamStart, CONNECTING) }
                }
                (_, Receive::Retrying { at, failure }) => Receiving::Retrying { at, failure },
                (_, Receive::Stopped { failure }) => Receiving::Stopped { failure },
            },
        }
    }

    /// While receiving goes on, the relay log fills up; while it stands still, the source purges what was not received.
    fn runway(&self, relay: &RelayState, receiving: &Receiving) -> Option<Runway> {
        let needed = self.tasks.load(Ordering::Relaxed) > 0;
        let stands = match receiving {
            Receiving::Running => false,
            Receiving::Idle => return None,
            // What follows is gone from the source, or was never there: nothing is safe any more.
            Receiving::Stopped { failure } if failure.known_code() == Some(Code::StreamEvent) => return None,
            Receiving::Retrying { .. } | Receiving::Stopped { .. } | Receiving::Paused => needed,
        };
        let horizon = lock(&self.horizon);
        if stands && horizon.keeps.is_some() {
            let until = told(horizon.purged_at()?);
            return Some(Runway { until, limit: RunwayLimit::UpstreamPurge.as_str() });
        }
        let left = runway(relay, self.limits.budget, *self.free.borrow(), self.limits.floor, None)?;
        Some(Runway { until: SystemTime::now() + left.left, limit: left.limit.as_str() })
    }
}

/// Where the source stands: it is asked every two seconds, and what came from it meanwhile is newer than its answer. A
/// source that cannot be asked stands nowhere, whatever came from it before.
pub(super) fn later_of(seen: Option<Location>, received: Option<&Received>) -> Option<Location> {
    match (seen, received) {
        (Some(seen), Some(Received(received))) if received.covers(&seen) => Some(received.clone()),
        (seen, _) => seen,
    }
}
