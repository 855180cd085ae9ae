//! Rates, backlog, lag and the time left of one subtask.
//!
//! Lag is the age of the oldest change that is not applied, by the source's clock. While something waits it grows with
//! the clock, whatever the stream does. When everything received is applied it is the receive lag: zero only where the
//! source has proved that it has nothing more. What waits came later than what was applied last, and later than the time
//! at which nothing waited: the later of the two is where the age begins, so that a change after a quiet hour is not an
//! hour old.

use std::time::{Duration, Instant};

use super::status::{CopyStatus, Totals, work};
use crate::clock::{seconds, steady};
use crate::error::Failure;
use crate::model::Location;
use crate::pipeline::{CopyPhase, Doing, Durations, Progress};
use crate::relay::Relay;

/// Rates are averaged over about this time, in seconds; over all the time that there was while that is less.
const WINDOW: f64 = 5.0;

/// What the last `elapsed` seconds count in an average that began `age` seconds ago.
fn weight(elapsed: f64, age: f64) -> f64 {
    (1.0 - (-elapsed / WINDOW).exp()).max(elapsed / age.max(elapsed))
}

/// What is known of a source now.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Its clock minus ours, in seconds.
    pub offset: f64,
    /// Its clock up to which everything is received, seconds since the epoch; `None` while that is not known.
    pub reached: Option<f64>,
    /// How far received lags behind it; `None` while that is not known.
    pub lag: Option<Duration>,
    /// Why nothing more can come from it: another server has taken its place.
    pub stranger: Option<Failure>,
}

/// The readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// See [`crate::task::TaskStatus::lag`].
    pub lag: Option<Duration>,
    /// Bytes received and not applied.
    pub backlog_bytes: Option<u64>,
    /// What all pipelines of this process did.
    pub totals: Totals,
    /// Averaged.
    pub rows_per_second: f64,
    /// Averaged.
    pub bytes_per_second: f64,
    /// Time left.
    pub eta: Option<Duration>,
    /// Rows and bytes of the copy a second, averaged, and its time left.
    pub copy: (f64, f64, Option<Duration>),
}

/// Since when the oldest change waits. All times are the source's, in seconds since the epoch.
#[derive(Debug, Default)]
struct Waiting {
    since: Option<f64>,
    /// `since` is only what is known to be too late: nothing has been applied yet.
    guessed: bool,
    /// Up to here everything was applied.
    clear_until: Option<f64>,
}

impl Waiting {
    /// Nothing waits, and everything up to `reached` has come.
    fn none(&mut self, reached: Option<f64>) {
        (self.since, self.guessed) = (None, false);
        self.clear_until = reached.or(self.clear_until);
    }

    /// Something waits; its age. `applied` is the time of what was applied last, `newest` of what was received last.
    fn some(&mut self, applied: Option<u32>, newest: u32, now: f64) -> Option<Duration> {
        let applied = applied.map(f64::from);
        let later = match (applied, self.clear_until) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        let since = match (self.since, later) {
            (Some(since), Some(later)) if !self.guessed => since.max(later),
            (Some(since), None) => since,
            (_, Some(later)) => later,
            (None, None) => f64::from(newest).min(now),
        };
        self.guessed = later.is_none() && (self.guessed || self.since.is_none());
        self.since = Some(since);
        Duration::try_from_secs_f64((now - since).max(0.0)).ok()
    }
}

/// Takes progress in and gives readings out.
pub struct Meter {
    relay: Relay,
    /// Of pipelines that ended.
    before: Totals,
    /// Of the present one.
    present: Totals,
    lsn: Option<u64>,
    applied_at: Option<u32>,
    /// The source's clock minus ours, as it was last told.
    offset: f64,
    lags: Durations,
    waiting: Waiting,
    /// Where it was before the restart.
    kept: Option<Location>,
    /// Since when it runs: what was before counts for nothing in a rate.
    runs_since: Instant,
    sampled: Instant,
    sampled_rows: u64,
    sampled_lsn: u64,
    rows_per_second: f64,
    bytes_per_second: f64,
    /// Rows and bytes of the copy: now, at the last sample, and a second. `None` before a pipeline told.
    copied: Option<[Copied; 2]>,
    copied_per_second: (f64, f64),
    /// Of what [`CopyStatus::work`] counts.
    work_per_second: f64,
}

/// Rows and bytes of the copy that are written, and its work that is done.
#[derive(Debug, Clone, Copy, Default)]
struct Copied {
    rows: u64,
    bytes: u64,
    work: u64,
}

impl Meter {
    /// For a subtask that reads this relay log.
    pub fn new(relay: Relay) -> Self {
        Meter {
            relay,
            before: Totals::default(),
            present: Totals::default(),
            lsn: None,
            applied_at: None,
            offset: 0.0,
            lags: Durations::default(),
            waiting: Waiting::default(),
            kept: None,
            runs_since: Instant::now(),
            sampled: Instant::now(),
            sampled_rows: 0,
            sampled_lsn: 0,
            rows_per_second: 0.0,
            bytes_per_second: 0.0,
            copied: None,
            copied_per_second: (0.0, 0.0),
            work_per_second: 0.0,
        }
    }

    /// Goes on from what was kept over a restart: since when something waits, and where it was.
    pub fn restore(&mut self, waiting_since: Option<f64>, applied: Option<&Location>) {
        self.waiting.since = waiting_since;
        self.kept = applied.cloned();
    }

    /// Since when something waits, by the source's clock in seconds since the epoch.
    pub fn waiting_since(&self) -> Option<f64> {
        self.waiting.since
    }

    /// Takes in how far a pipeline is.
    pub fn take(&mut self, progress: &Progress) {
        self.present.rows = progress.rows;
        self.present.transactions = progress.transactions;
        self.present.unmatched = progress.unmatched;
        self.present.filtered_rows = progress.filtered_rows;
        self.present.sent_bytes = progress.sent_bytes;
        // Groups that were applied since are told together, and are of one age within a moment.
        let groups = progress.groups.count.saturating_sub(self.present.groups.count);
        if let Some(timestamp) = progress.applied_timestamp.filter(|_| groups > 0) {
            let age = seconds(steady()) + self.offset - f64::from(timestamp);
            self.lags.add_times(Duration::try_from_secs_f64(age.max(0.0)).unwrap_or_default(), groups);
        }
        (self.present.groups, self.present.flushes) = (progress.groups, progress.flushes);
        (self.present.event_rows, self.present.commits) = (progress.event_rows, progress.commits);
        if let Some(lsn) = progress.applied_lsn {
            // Where it goes back, what comes again was applied before.
            self.present.bytes += self.lsn.map_or(0, |before| lsn.saturating_sub(before));
            self.lsn = Some(lsn);
        }
        if let Some(timestamp) = progress.applied_timestamp {
            self.applied_at = Some(timestamp);
        }
        if let Doing::Copying(copy) = &progress.doing
            && copy.phase != CopyPhase::Prepare
        {
            let work = work(copy.rows_written, copy.bytes_written, copy.tables_done);
            let now = Copied { rows: copy.rows_written, bytes: copy.bytes_written, work };
            // What was there before a restart was not written now.
            self.copied.get_or_insert([now; 2])[0] = now;
        }
    }

    /// A pipeline has ended; the next one counts from zero.
    pub fn pipeline_ended(&mut self) {
        self.before = self.totals();
        self.present = Totals::default();
        (self.copied, self.copied_per_second, self.work_per_second) = (None, (0.0, 0.0), 0.0);
    }

    fn totals(&self) -> Totals {
        let (a, b) = (&self.before, &self.present);
        Totals {
            rows: a.rows + b.rows,
            transactions: a.transactions + b.transactions,
            unmatched: a.unmatched + b.unmatched,
            filtered_rows: a.filtered_rows + b.filtered_rows,
            bytes: a.bytes + b.bytes,
            sent_bytes: a.sent_bytes + b.sent_bytes,
            groups: a.groups.plus(&b.groups),
            flushes: a.flushes.plus(&b.flushes),
            lags: self.lags,
            event_rows: a.event_rows.plus(&b.event_rows),
            commits: a.commits.plus(&b.commits),
        }
    }

    /// Reads, for a subtask that is applied up to `applied`.
    pub fn read(
        &mut self,
        running: bool,
        pulse: &Pulse,
        applied: Option<&Location>,
        copy: Option<&CopyStatus>,
    ) -> Reading {
        self.offset = pulse.offset;
        let state = self.relay.state();
        if self.lsn.is_none()
            && let Some(kept) = &self.kept
        {
            self.lsn = self.relay.lsn_of(kept).map(|lsn| lsn.0);
        }
        let totals = self.totals();
        let received = state.received.as_ref().map(|received| &received.0);
        // Bytes alone mislead: what the source sends at a connect is no change, and moves no location.
        let all_received = matches!((applied, received), (Some(applied), Some(received)) if applied.covers(received));
        let backlog_bytes = match all_received {
            true => Some(0),
            false => self.lsn.map(|lsn| state.received_lsn.0.saturating_sub(lsn)),
        };
        self.sample(running, totals.rows);
        let lag = match (all_received, backlog_bytes) {
            (true, _) => {
                self.waiting.none(pulse.reached);
                pulse.lag
            }
            (false, None) => None,
            (false, Some(_)) => {
                let now = seconds(steady()) + pulse.offset;
                self.waiting.some(self.applied_at, state.newest_timestamp, now)
            }
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
            totals,
            rows_per_second: if running { self.rows_per_second } else { 0.0 },
            bytes_per_second: if running { self.bytes_per_second } else { 0.0 },
            eta: eta.filter(|_| running),
            copy: self.copy_rates(running, copy),
        }
    }

    fn copy_rates(&self, running: bool, copy: Option<&CopyStatus>) -> (f64, f64, Option<Duration>) {
        let Some(copy) = copy.filter(|_| running && self.copied.is_some()) else { return (0.0, 0.0, None) };
        let (rows, bytes) = self.copied_per_second;
        let (done, all) = copy.work();
        let (left, pace) = (all.saturating_sub(done) as f64, self.work_per_second);
        let eta = if pace > 0.0 && copy.tables > 0 { Duration::try_from_secs_f64(left / pace).ok() } else { None };
        (rows, bytes, eta)
    }

    fn sample(&mut self, running: bool, rows_total: u64) {
        let elapsed = self.sampled.elapsed().as_secs_f64();
        if elapsed < 0.2 {
            return;
        }
        let lsn = self.lsn.unwrap_or(0);
        if !running {
            self.runs_since = Instant::now();
            (self.rows_per_second, self.bytes_per_second) = (0.0, 0.0);
            (self.sampled, self.sampled_rows, self.sampled_lsn) = (self.runs_since, rows_total, lsn);
            return;
        }
        let weight = weight(elapsed, self.runs_since.elapsed().as_secs_f64());
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / elapsed;
        self.rows_per_second += (rate(rows_total, self.sampled_rows) - self.rows_per_second) * weight;
        let bytes = if self.sampled_lsn == 0 { 0.0 } else { rate(lsn, self.sampled_lsn) };
        self.bytes_per_second += (bytes - self.bytes_per_second) * weight;
        if let Some([now, then]) = &mut self.copied {
            let (rows, bytes) = &mut self.copied_per_second;
            *rows += (rate(now.rows, then.rows) - *rows) * weight;
            *bytes += (rate(now.bytes, then.bytes) - *bytes) * weight;
            self.work_per_second += (rate(now.work, then.work) - self.work_per_second) * weight;
            *then = *now;
        }
        (self.sampled, self.sampled_rows, self.sampled_lsn) = (Instant::now(), rows_total, lsn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_begins_with_what_there_is() {
        let (mut average, mut age) = (0.0, 0.0);
        let mut feed = |value: f64| {
            age += 0.5;
            average += (value - average) * weight(0.5, age);
            average
        };
        assert!((0..4).all(|_| (feed(100.0) - 100.0).abs() < 1e-9), "no ramp from zero");
        let after = (0..40).fold(0.0, |_, _| feed(50.0));
        assert!((50.0..52.0).contains(&after), "what is long ago counts no more: {after}");
    }

    fn secs(lag: Option<Duration>) -> Option<u64> {
        lag.map(|lag| lag.as_secs())
    }

    #[test]
    fn a_change_after_a_quiet_hour_is_new() {
        let mut waiting = Waiting::default();
        waiting.none(Some(3600.0));
        assert_eq!(secs(waiting.some(Some(10), 3601, 3602.0)), Some(2), "not 3592");
        // It grows with the clock while nothing is applied, and shrinks with what is.
        assert_eq!(secs(waiting.some(Some(10), 3700, 3720.0)), Some(120));
        assert_eq!(secs(waiting.some(Some(3690), 3700, 3720.0)), Some(30));
    }

    #[test]
    fn a_restart_keeps_the_age() {
        let mut waiting = Waiting { since: Some(1000.0), ..Waiting::default() };
        assert_eq!(secs(waiting.some(None, 5000, 5000.0)), Some(4000), "nothing applied yet");
        assert_eq!(secs(waiting.some(Some(900), 5000, 5000.0)), Some(4000), "a replay is older than what waits");
        assert_eq!(secs(waiting.some(Some(4000), 5000, 5000.0)), Some(1000));
    }

    #[test]
    fn a_first_guess_gives_way_to_what_is_applied() {
        let mut waiting = Waiting::default();
        assert_eq!(secs(waiting.some(None, 5000, 5000.0)), Some(0));
        assert_eq!(secs(waiting.some(None, 5600, 5600.0)), Some(600));
        assert_eq!(secs(waiting.some(Some(2000), 5600, 5600.0)), Some(3600), "it began far back");
    }
}
