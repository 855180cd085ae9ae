//! How much of the copy's work is let through while others use the source: learned from what a tiny statement takes there.
//!
//! A pure value. Statements that were on their way while nothing of the copy was at work say what is usual; those beside its work
//! say how many more it makes slow. More than one in a thousand of all statements, and the copy makes itself smaller at once;
//! else it grows, a little at a time: whoever waits for it does not notice, and whoever it would harm has not been harmed for long.
//! At first it doubles, until a statement is slow: where nobody minds it is soon all that it can be. It never comes down below its
//! floor, so that every copy ends.

use std::collections::VecDeque;
use std::time::Duration;

/// Statements without the copy that are remembered, and how many it takes to know what is usual.
const USUAL: usize = 800;
const KNOWN: usize = 60;
/// Of these, the part that is not slow; and from where on a statement is slow, as a multiple and at least beyond it.
const QUANTILE: f64 = 0.9;
const SLOW: f64 = 1.3;
const LEEWAY: Duration = Duration::from_micros(300);
/// Part of all statements that the copy may make slow, and how many it takes to believe that it does.
const HARM: f64 = 0.001;
const PROOF: f64 = 1.5;
/// What of former windows still counts in the next.
const MEMORY: f64 = 0.93;
/// How it shrinks and grows, a window.
const LESS: f64 = 0.6;
const MORE: f64 = 1.05;
/// And as long as nothing was slow, by so many statements beside its work at each level: a step too many is felt for a second, and
/// by one in a hundred for long.
const FAST: f64 = 2.0;
const ENOUGH: f64 = 150.0;
/// Where it begins.
pub(super) const FIRST: f64 = 0.2;

/// What the copy did while a statement was on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing, all the time.
    Rest,
    /// It was at work for some of it.
    Work,
}

/// Learns the level: pieces of work at a time; below one, the share of time of one.
#[derive(Debug)]
pub(super) struct Governor {
    level: f64,
    floor: f64,
    most: f64,
    /// Nothing was slow so far.
    fast: bool,
    usual: VecDeque<Duration>,
    /// From where on a statement is slow, as the last window left it.
    slow_from: Option<Duration>,
    /// Of all statements lately: beside work, slow ones of these, and beside rest.
    work: f64,
    slow: f64,
    rest: f64,
}

impl Governor {
    /// Between a floor and what the copy can do at most; begins with little.
    pub fn new(floor: f64, most: f64) -> Self {
        let most = most.max(1.0);
        let floor = floor.clamp(0.001, 1.0);
        Governor {
            level: FIRST.max(floor),
            floor,
            most,
            fast: true,
            usual: VecDeque::new(),
            slow_from: None,
            work: 0.0,
            slow: 0.0,
            rest: 0.0,
        }
    }

    pub fn level(&self) -> f64 {
        self.level
    }

    /// It is not to come down below this any more.
    pub fn keep_above(&mut self, floor: f64) {
        self.floor = floor.clamp(0.001, self.most);
        self.level = self.level.max(self.floor);
    }

    /// Whether it knows what is usual.
    pub fn knows(&self) -> bool {
        self.usual.len() >= KNOWN
    }

    /// A statement took so long.
    pub fn took(&mut self, took: Duration, beside: Beside) {
        match beside {
            Beside::Rest => {
                self.rest += 1.0;
                self.usual.push_back(took);
                if self.usual.len() > USUAL {
                    self.usual.pop_front();
                }
            }
            Beside::Work => {
                let Some(from) = self.slow_from else { return };
                self.work += 1.0;
                if took > from {
                    self.slow += 1.0;
                }
            }
        }
    }

    /// What is slow, by what is usual; `None` as long as that is not known.
    fn learn(&mut self) -> Option<Duration> {
        if !self.knows() {
            return None;
        }
        let mut sorted: Vec<Duration> = self.usual.iter().copied().collect();
        sorted.sort_unstable();
        let usual = *sorted.get((sorted.len() as f64 * QUANTILE) as usize)?;
        Some(usual.mul_f64(SLOW).max(usual + LEEWAY))
    }

    /// A window ends: the level for the next.
    pub fn decide(&mut self) -> f64 {
        let counted = self.slow_from;
        self.slow_from = self.learn();
        let all = self.work + self.rest;
        let Some(from) = counted.filter(|_| all >= 1.0) else { return self.level };
        let slow_anyway = self.usual.iter().filter(|took| **took > from).count() as f64 / self.usual.len() as f64;
        let harm = (self.slow - slow_anyway * self.work) / all;
        // A single one may be by chance, and says no more than that the next step is to be a small one.
        self.fast &= self.slow < 1.0;
        let step = match (harm > HARM && self.slow >= PROOF, self.fast) {
            (true, _) => Some(LESS),
            (false, true) => Some(FAST).filter(|_| self.work >= ENOUGH),
            (false, false) => None,
        };
        if let Some(step) = step {
            self.level = (self.level * step).clamp(self.floor, self.most);
            // What was seen was seen at the former level.
            (self.work, self.slow, self.rest) = (0.0, 0.0, 0.0);
            return self.level;
        }
        if harm < HARM / 2.0 {
            self.level = (self.level * MORE).min(self.most);
        }
        for count in [&mut self.work, &mut self.slow, &mut self.rest] {
            *count *= MEMORY;
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the level comes to where, of statements beside work, the copy makes so many slow at a level.
    fn comes_to(floor: f64, harmed: impl Fn(f64) -> f64) -> f64 {
        let mut governor = Governor::new(floor, 20.0);
        let mut random = 1_u64;
        let mut levels = Vec::new();
        for window in 0..1500 {
            for _ in 0..100 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let dice = (random >> 33) as f64 / f64::from(1_u32 << 31);
                let busy = governor.level().min(0.9);
                let beside = if dice < busy { Beside::Work } else { Beside::Rest };
                let second = (random >> 20 & 0xffff) as f64 / 65536.0;
                let slow = beside == Beside::Work && second < harmed(governor.level());
                let usual = Duration::from_micros(100 + (random >> 40 & 63));
                governor.took(if slow { Duration::from_millis(3) } else { usual }, beside);
            }
            governor.decide();
            if window > 200 {
                levels.push(governor.level());
            }
        }
        levels.iter().sum::<f64>() / levels.len() as f64
    }

    #[test]
    fn where_nobody_is_harmed_it_does_all_it_can() {
        let level = comes_to(0.1, |_| 0.0);
        assert!(level > 19.0, "{level}");
    }

    #[test]
    fn where_all_are_harmed_it_comes_down_to_its_floor_and_no_further() {
        let level = comes_to(0.1, |_| 0.8);
        assert!((0.09..0.2).contains(&level), "{level}");
    }

    #[test]
    fn between_it_finds_what_harms_few() {
        // One piece at a time harms nobody, two do.
        let level = comes_to(0.1, |level| if level >= 2.0 { 0.2 } else { 0.0 });
        assert!((0.8..2.2).contains(&level), "{level}");
        let few = comes_to(0.05, |_| 0.03);
        assert!((0.05..0.8).contains(&few), "{few}");
    }

    #[test]
    fn where_nobody_minds_it_is_soon_all_it_can_be_and_one_who_does_ends_that() {
        let windows = |slow_at: f64| {
            let mut governor = Governor::new(0.1, 20.0);
            let levels = (0..12).map(|_| {
                let took = Duration::from_millis(if governor.level() >= slow_at { 5 } else { 1 });
                (0..60).for_each(|_| governor.took(Duration::from_millis(1), Beside::Rest));
                (0..160)
                    .for_each(|n| governor.took(if n == 0 { took } else { Duration::from_millis(1) }, Beside::Work));
                governor.decide()
            });
            levels.collect::<Vec<_>>()
        };
        assert_eq!(windows(100.0)[..4], [FIRST, 2.0 * FIRST, 4.0 * FIRST, 8.0 * FIRST]);
        assert_eq!(windows(100.0)[8], 20.0);
        let harmed = windows(1.0);
        assert!(harmed.iter().all(|level| *level <= 8.0 * FIRST) && harmed[11] < 1.0, "{harmed:?}");
    }

    #[test]
    fn its_floor_may_rise() {
        let mut governor = Governor::new(0.1, 20.0);
        governor.keep_above(3.0);
        assert_eq!(governor.level(), 3.0);
        governor.keep_above(50.0);
        assert_eq!(governor.level(), 20.0);
    }

    #[test]
    fn it_stays_where_it_is_until_it_knows_what_is_usual() {
        let mut governor = Governor::new(0.1, 20.0);
        (0..500).for_each(|_| governor.took(Duration::from_secs(1), Beside::Work));
        assert_eq!((governor.decide(), governor.knows()), (FIRST, false));
    }
}
