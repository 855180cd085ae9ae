//! Up to when all changes of a source have been received, by the source's own clock.
//!
//! Receive lag and the upstream half of the runway are made of it. Invariant: nothing that the source wrote up to
//! [`Horizon::reached`] is missing here. Only two things move it: an event, by its own time (never beyond when it came),
//! and a proof that the source had nothing more (a heartbeat right behind our end, or its own word where its binlog
//! ends). So a silent stream that is alive has no lag, and one that is dead has one that grows with the clock. It is kept
//! over restarts, or a source that is down then would seem to lag by the age of its last event.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clock::seconds;
use crate::model::Location;

/// A proof this fresh says that there is nothing to receive; the source is asked, and says by itself, every two seconds.
const FRESH: Duration = Duration::from_secs(5);

/// What is known. Stored with the source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Horizon {
    /// The source's clock, seconds since the epoch.
    pub reached: Option<f64>,
    /// The source's clock minus ours, which is the steady one all over here.
    pub offset: f64,
    /// How long the source keeps binlog files; zero for ever, `None` while it never told.
    pub keeps: Option<Duration>,
    /// Which server it was.
    pub identity: String,
    /// Where the source said that its binlog ended, and when (by our clock) it was asked.
    #[serde(skip)]
    pub end: Option<(SystemTime, Location)>,
    /// When, by our clock, it was last proved that the source had nothing more.
    #[serde(skip)]
    proof: Option<SystemTime>,
    /// The newest event's own time; 0 before the first.
    #[serde(skip)]
    newest: f64,
    /// A newest event's time from before the stream was begun anew, which says nothing about the new one.
    #[serde(skip)]
    stale_newest: u32,
}

impl Horizon {
    /// The newest event received has this time; at `came` something last came from the source.
    pub fn saw_event(&mut self, newest: u32, came: SystemTime) {
        if newest == 0 || newest == self.stale_newest {
            return;
        }
        self.stale_newest = 0;
        // A session may set any time for its events.
        self.newest = f64::from(newest).min(seconds(came) + self.offset);
        self.raise(self.newest);
    }

    /// At this time (ours) the source had nothing that we have not.
    pub fn was_at_end(&mut self, at: SystemTime) {
        self.proof = self.proof.max(Some(at));
        self.raise(seconds(at) + self.offset);
    }

    /// Everything up to here has come.
    pub fn has_received(&mut self, received: &Location) {
        // Sets decide where there are any: a stream that is opened by a set begins at the start of a file, and its
        // position goes back to there until something new comes.
        let has = |end: &Location| match received.gtids.is_empty() || end.gtids.is_empty() {
            true => received.position >= end.position,
            false => received.gtids.contains(&end.gtids),
        };
        if let Some((at, _)) = self.end.as_ref().filter(|(_, end)| has(end)) {
            let at = *at;
            self.was_at_end(at);
        }
    }

    /// The stream begins anew, perhaps earlier.
    pub fn forget(&mut self, newest: u32) {
        *self = Horizon {
            offset: self.offset,
            keeps: self.keeps,
            identity: std::mem::take(&mut self.identity),
            stale_newest: newest,
            ..Horizon::default()
        };
    }

    /// How far received lags behind the source at `now`; `connected` where its stream is open and alive.
    pub fn lag(&self, now: SystemTime, connected: bool) -> Option<Duration> {
        // Where events have come since the proof, they tell more exactly.
        let silent = |at: &SystemTime| self.newest <= seconds(*at) + self.offset;
        let fresh = |at: &SystemTime| now.duration_since(*at).unwrap_or_default() <= FRESH;
        if connected && self.proof.is_some_and(|at| fresh(&at) && silent(&at)) {
            return Some(Duration::ZERO);
        }
        let behind = seconds(now) + self.offset - self.reached?;
        Duration::try_from_secs_f64(behind.max(0.0)).ok()
    }

    /// When, by our clock, the source may at the earliest remove something that was not received, if nothing more is:
    /// a file goes when it has not changed for that long, and what is missing was written later than what was reached.
    pub fn purged_at(&self) -> Option<SystemTime> {
        let keeps = self.keeps.filter(|keeps| !keeps.is_zero())?;
        let since = Duration::try_from_secs_f64((self.reached? - self.offset).max(0.0)).ok()?;
        UNIX_EPOCH.checked_add(since)?.checked_add(keeps)
    }

    /// Whether it is worth storing beside what was stored: small steps are not.
    pub fn differs(&self, stored: &Horizon, step: f64) -> bool {
        let moved = match (self.reached, stored.reached) {
            (Some(now), Some(before)) => (now - before).abs() >= step,
            (now, before) => now.is_some() != before.is_some(),
        };
        moved || self.keeps != stored.keeps || self.identity != stored.identity
    }

    fn raise(&mut self, at: f64) {
        self.reached = Some(self.reached.map_or(at, |reached| reached.max(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn lag(horizon: &Horizon, now: u64, connected: bool) -> Option<u64> {
        horizon.lag(at(now), connected).map(|lag| lag.as_secs())
    }

    fn location(offset: u64, set: &str) -> Location {
        use crate::model::{BinlogPosition, Flavor, GtidSet};
        Location::new(BinlogPosition::parse("b.000001", offset).unwrap(), GtidSet::parse(Flavor::MySql, set).unwrap())
    }

    #[test]
    fn the_sources_own_word_proves_the_end() {
        const SET: &str = "9231c604-e680-11f1-ab28-628677c36cd1:1-2";
        let mut horizon = Horizon { end: Some((at(1000), location(600, SET))), ..Horizon::default() };
        horizon.has_received(&location(158, "9231c604-e680-11f1-ab28-628677c36cd1:1"));
        assert_eq!(horizon.reached, None);
        // By set, whatever the position: a stream opened by a set begins at the start of a file.
        horizon.has_received(&location(158, SET));
        assert_eq!((horizon.reached, lag(&horizon, 1003, true)), (Some(1000.0), Some(0)));
        // A busy stream is measured by its events.
        horizon.saw_event(1002, at(1003));
        assert_eq!(lag(&horizon, 1003, true), Some(1));
        let mut horizon = Horizon { end: Some((at(1000), location(600, ""))), ..Horizon::default() };
        horizon.has_received(&location(599, ""));
        assert_eq!(horizon.reached, None);
        horizon.has_received(&location(600, ""));
        assert_eq!(horizon.reached, Some(1000.0));
    }

    #[test]
    fn a_silent_stream_that_lives_has_no_lag_and_a_dead_one_has() {
        let mut horizon = Horizon::default();
        assert_eq!(lag(&horizon, 5000, true), None, "nothing is known yet");
        horizon.saw_event(1000, at(1000));
        horizon.was_at_end(at(5000));
        assert_eq!(lag(&horizon, 5002, true), Some(0));
        // Not the age of the last event, but the time since the source was last known to have nothing more.
        assert_eq!(lag(&horizon, 5060, true), Some(60));
        // The connection is gone, though a moment ago all was well.
        assert_eq!(lag(&horizon, 5001, false), Some(1));
    }

    #[test]
    fn the_sources_clock_counts() {
        let mut horizon = Horizon { offset: 100.0, ..Horizon::default() };
        horizon.saw_event(1050, at(1000));
        assert_eq!(lag(&horizon, 1000, false), Some(50));
        horizon.was_at_end(at(1000));
        assert_eq!(lag(&horizon, 1007, false), Some(7));
    }

    #[test]
    fn events_from_the_future_hide_no_lag_and_old_ones_take_nothing_back() {
        let mut horizon = Horizon::default();
        horizon.saw_event(u32::MAX, at(1000));
        assert_eq!(lag(&horizon, 1030, false), Some(30));
        horizon.saw_event(500, at(1040));
        assert_eq!(lag(&horizon, 1030, false), Some(30));
        horizon.forget(500);
        assert_eq!(lag(&horizon, 1030, false), None);
        horizon.saw_event(500, at(1040));
        assert_eq!(horizon.reached, None, "still the time from before");
        horizon.saw_event(400, at(1040));
        assert_eq!(horizon.reached, Some(400.0));
    }

    #[test]
    fn what_is_missing_is_kept_from_when_it_was_written() {
        let day = Duration::from_secs(86_400);
        let mut horizon = Horizon { offset: 100.0, keeps: Some(day), ..Horizon::default() };
        assert_eq!(horizon.purged_at(), None);
        horizon.was_at_end(at(1000));
        assert_eq!(horizon.purged_at(), Some(at(1000) + day));
        horizon.keeps = Some(Duration::ZERO);
        assert_eq!(horizon.purged_at(), None);
    }
}
