//! Rates, backlog, lag and the time left of one subtask.
//!
//! Lag is the age of the oldest change that is not applied. While something waits it grows with the clock, whatever the
//! stream does; it is zero only when everything received is applied and the source was heard of just now.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Location;
use crate::pipeline::Progress;
use crate::relay::Relay;

/// Rates are averaged over about this time.
const WINDOW: f64 = 5.0;
/// A source that was heard of within this time has nothing that we have not received.
const FRESH: Duration = Duration::from_secs(5);

/// What is known of a source now.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Its clock minus ours, in seconds.
    pub offset: f64,
    /// When it was last heard of.
    pub heard: Option<SystemTime>,
    /// Where it says that its binlog ends; `None` while it cannot be asked.
    pub master: Option<Location>,
}

/// The readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// See [`crate::task::TaskStatus::lag`].
    pub lag: Option<Duration>,
    /// Bytes received and not applied.
    pub backlog_bytes: Option<u64>,
    /// Row changes applied by all pipelines of this process.
    pub rows_total: u64,
    /// Averaged.
    pub rows_per_second: f64,
    /// Averaged.
    pub bytes_per_second: f64,
    /// Time left.
    pub eta: Option<Duration>,
}

/// Takes progress in and gives readings out.
pub struct Meter {
    relay: Relay,
    /// Rows of pipelines that ended.
    rows_before: u64,
    rows: u64,
    lsn: Option<u64>,
    applied_at: Option<u32>,
    /// The source's clock at the oldest change that waits.
    waiting_since: Option<f64>,
    /// Where it was before the restart.
    kept: Option<Location>,
    sampled: Instant,
    sampled_rows: u64,
    sampled_lsn: u64,
    rows_per_second: f64,
    bytes_per_second: f64,
}

impl Meter {
    /// For a subtask that reads this relay log.
    pub fn new(relay: Relay) -> Self {
        Meter {
            relay,
            rows_before: 0,
            rows: 0,
            lsn: None,
            applied_at: None,
            waiting_since: None,
            kept: None,
            sampled: Instant::now(),
            sampled_rows: 0,
            sampled_lsn: 0,
            rows_per_second: 0.0,
            bytes_per_second: 0.0,
        }
    }

    /// Goes on from what was kept over a restart: since when something waits, and where it was.
    pub fn restore(&mut self, waiting_since: Option<f64>, applied: Option<&Location>) {
        self.waiting_since = waiting_since;
        self.kept = applied.cloned();
    }

    /// Since when something waits, by the source's clock in seconds since the epoch.
    pub fn waiting_since(&self) -> Option<f64> {
        self.waiting_since
    }

    /// Takes in how far a pipeline is.
    pub fn take(&mut self, progress: &Progress) {
        if progress.rows < self.rows {
            self.rows_before += self.rows;
        }
        self.rows = progress.rows;
        if let Some(lsn) = progress.applied_lsn {
            self.lsn = Some(lsn);
        }
        if let Some(timestamp) = progress.applied_timestamp {
            self.applied_at = Some(timestamp);
        }
    }

    /// Reads, for a subtask that is applied up to `applied`.
    pub fn read(&mut self, running: bool, pulse: &Pulse, applied: Option<&Location>) -> Reading {
        let state = self.relay.state();
        if self.lsn.is_none()
            && let Some(kept) = &self.kept
        {
            self.lsn = self.relay.lsn_of(kept).map(|lsn| lsn.0);
        }
        let rows_total = self.rows_before + self.rows;
        let received = state.received.as_ref().map(|received| &received.0);
        // Bytes alone mislead: what the source sends at a connect is no change, and moves no location.
        let all_received = matches!((applied, received), (Some(applied), Some(received)) if applied.covers(received));
        let backlog_bytes = match all_received {
            true => Some(0),
            false => self.lsn.map(|lsn| state.received_lsn.0.saturating_sub(lsn)),
        };
        self.sample(rows_total);
        let now = clock(SystemTime::now()) + pulse.offset;
        // What the source has and we have not received waits as well.
        let behind_master =
            matches!((&pulse.master, received), (Some(master), Some(received)) if !received.covers(master));
        let caught_up = backlog_bytes == Some(0) && !behind_master;
        if caught_up {
            self.waiting_since = None;
        } else if backlog_bytes.is_some() {
            // What a running task applied last is older than what waits; a parked one found it waiting at some time.
            let seen = match self.applied_at {
                Some(at) if running => f64::from(at),
                _ if state.newest_timestamp > 0 => f64::from(state.newest_timestamp),
                _ => now,
            };
            let since = self.waiting_since.get_or_insert(seen);
            if running {
                *since = since.max(seen);
            }
        }
        let age = |since: f64| Duration::try_from_secs_f64((now - since).max(0.0)).ok();
        let lag = match (caught_up, pulse.heard) {
            (true, None) => None,
            (true, Some(at)) => {
                let silent = SystemTime::now().duration_since(at).unwrap_or_default();
                Some(if silent <= FRESH { Duration::ZERO } else { silent })
            }
            (false, _) => self.waiting_since.and_then(age),
        };
        let nearing = self.bytes_per_second - state.bytes_per_second;
        let eta = match backlog_bytes {
            Some(0) => Some(Duration::ZERO),
            Some(bytes) if running && nearing > 0.0 => Duration::try_from_secs_f64(bytes as f64 / nearing).ok(),
            _ => None,
        };
        Reading {
            lag,
            backlog_bytes,
            rows_total,
            rows_per_second: if running { self.rows_per_second } else { 0.0 },
            bytes_per_second: if running { self.bytes_per_second } else { 0.0 },
            eta: eta.filter(|_| running),
        }
    }

    fn sample(&mut self, rows_total: u64) {
        let elapsed = self.sampled.elapsed().as_secs_f64();
        if elapsed < 0.2 {
            return;
        }
        let lsn = self.lsn.unwrap_or(0);
        let weight = 1.0 - (-elapsed / WINDOW).exp();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / elapsed;
        self.rows_per_second += (rate(rows_total, self.sampled_rows) - self.rows_per_second) * weight;
        let bytes = if self.sampled_lsn == 0 { 0.0 } else { rate(lsn, self.sampled_lsn) };
        self.bytes_per_second += (bytes - self.bytes_per_second) * weight;
        (self.sampled, self.sampled_rows, self.sampled_lsn) = (Instant::now(), rows_total, lsn);
    }
}

fn clock(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
