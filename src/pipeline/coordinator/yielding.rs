//! The replay behind a copy makes room for others on the source, as the copy did: small groups, few connections, rests between.
//!
//! Only up to the window's end. What comes behind it is ordinary catching up, where the lag is what counts. And never so that the
//! replay comes to no end: what is logged meanwhile waits, so it must gain on the source, whoever feels it.
//!
//! A group that is dealt out is never held up, and a park asks for no turn: it takes what it did before.

use std::time::{Duration, Instant};

use super::Coordinator;
use crate::pipeline::pace::Size;
use crate::snapshot::{Part, Room, Turn};

/// How many seconds of the source it must replay in one; and from where on it may take less of the time again.
const LEAST_GAIN: f64 = 1.2;
const MUCH: f64 = 4.0;
/// How often that is looked at: timestamps are whole seconds.
const LOOK: Duration = Duration::from_secs(3);
/// What the level is when it is first raised.
const FIRST: f64 = 0.4;

/// A turn, and how large the group was to be.
pub(super) type Turned = (Turn, Part);

/// See the top of the file.
pub(super) struct Yielding {
    room: Room,
    gain: Gain,
    /// The next group waits for its turn until then.
    resting: Option<tokio::time::Instant>,
}

/// Whether a group may be formed and dealt out.
pub(super) enum Go {
    /// With its turn, where one is needed.
    Now(Option<Turned>),
    /// Not yet.
    Later,
}

impl Coordinator {
    /// Room for others from the start of a replay on.
    pub(super) fn make_room(&mut self) {
        if self.replays() {
            let room = Room::for_replay(&self.options.copy, self.writers.len());
            self.yielding = room.map(|room| Yielding { room, gain: Gain::new(self.writers.len()), resting: None });
        }
    }

    /// Whether rows are of several instants still.
    fn replays(&self) -> bool {
        self.options.windows.is(|window| window.mixes_instants(&self.applied.location))
    }

    /// What the next group should be like.
    pub(super) fn size(&self) -> Size {
        let (rows, bytes) = self.former.waiting();
        let size = self.pace.size(rows, bytes);
        match self.yielding.as_ref().and_then(|yielding| yielding.room.part()) {
            Some(part) => {
                Size { rows: part.changes.min(self.pace.rows()), shares: part.connections.min(size.shares).max(1) }
            }
            None => size,
        }
    }

    /// Row changes that are worth forming a group for while another is at work.
    pub(super) fn worth_a_group(&self) -> u64 {
        if self.yielding.is_some() { self.size().rows } else { self.pace.rows() }
    }

    /// Whether the next group may go. It is formed only then: what comes in while it rests goes along.
    pub(super) fn turn(&mut self) -> Go {
        let Some(yielding) = &mut self.yielding else { return Go::Now(None) };
        let part = yielding.room.part();
        match yielding.room.turn() {
            Ok(turn) => {
                yielding.resting = None;
                Go::Now(part.map(|part| (turn, part)))
            }
            Err(until) => {
                yielding.resting = Some(until);
                Go::Later
            }
        }
    }

    /// Until when the next group waits.
    pub(super) fn resting(&self) -> Option<tokio::time::Instant> {
        self.yielding.as_ref().and_then(|yielding| yielding.resting)
    }

    /// A group of so many changes, up to that second of the source, is applied in its turn.
    pub(super) fn gave_way(&mut self, turned: Option<Turned>, changes: u64, timestamp: u32) {
        let Some(yielding) = &mut self.yielding else { return };
        if let Some((turn, part)) = turned {
            yielding.room.done(turn, part, changes);
        }
        if let Some(level) = yielding.gain.look(timestamp, Instant::now()) {
            yielding.room.keep_above(level);
        }
        // Behind the window the lag is what counts.
        if !self.replays() {
            self.yielding = None;
        }
    }

    /// To whom the replay yields, and how far.
    pub(super) fn yields_to(&self) -> Option<String> {
        let (others, level) = self.yielding.as_ref()?.room.yields_to()?;
        let how = if level < 1.0 {
            format!("{:.0}% of the time", level * 100.0)
        } else {
            format!("on {} connections at most", level as u64)
        };
        Some(format!("yielding to others on the source ({others} statements/s): {how}"))
    }
}

/// Ready when the rest is over; never without one.
pub(super) async fn rested(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Whether the replay gains on the source, by the source's own clock, and what the level is to be at least so that it does.
#[derive(Debug)]
struct Gain {
    /// Where it was at the last look.
    from: Option<(u32, Instant)>,
    level: f64,
    most: f64,
}

impl Gain {
    fn new(connections: usize) -> Self {
        Gain { from: None, level: 0.0, most: connections.max(1) as f64 }
    }

    /// Everything up to the source's second `reached` is applied. Gives a new level.
    fn look(&mut self, reached: u32, now: Instant) -> Option<f64> {
        if reached == 0 {
            return None;
        }
        let Some((from, at)) = self.from else {
            self.from = Some((reached, now));
            return None;
        };
        let took = now.saturating_duration_since(at);
        if took < LOOK {
            return None;
        }
        self.from = Some((reached, now));
        let gain = f64::from(reached.saturating_sub(from)) / took.as_secs_f64();
        let next = if gain < LEAST_GAIN {
            (2.0 * self.level).clamp(FIRST, self.most)
        } else if gain > MUCH {
            self.level / 2.0
        } else {
            self.level
        };
        (next != std::mem::replace(&mut self.level, next)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The levels where the source's clock moves by so many seconds a second.
    fn levels(gains: &[f64]) -> Vec<Option<f64>> {
        let (mut gain, mut now, mut reached) = (Gain::new(4), Instant::now(), 1000.0);
        gain.look(reached as u32, now);
        let look = |by: &f64| {
            now += LOOK;
            reached += by * LOOK.as_secs_f64();
            gain.look(reached as u32, now)
        };
        gains.iter().map(look).collect()
    }

    #[test]
    fn a_replay_that_gains_stays_as_it_is() {
        assert_eq!(levels(&[3.0, 20.0, 1.5]), [None, None, None]);
    }

    #[test]
    fn one_that_does_not_gets_more_until_it_does_and_gives_it_back() {
        let level = |level| Some(level);
        assert_eq!(
            levels(&[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 9.0, 9.0]),
            [level(0.4), level(0.8), level(1.6), level(3.2), level(4.0), None, None, level(2.0), level(1.0)]
        );
    }

    #[test]
    fn a_look_that_is_too_early_says_nothing() {
        let (mut gain, now) = (Gain::new(4), Instant::now());
        assert_eq!([gain.look(0, now), gain.look(7, now), gain.look(7, now + LOOK / 2)], [None; 3]);
        assert_eq!(gain.look(7, now + LOOK), Some(FIRST));
    }
}
