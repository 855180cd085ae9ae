//! How many of the writers work at once: learned from what they get done.
//!
//! A pure value. A target that answers late gains by many connections, one that is short of cores loses by them. It begins with
//! a few; every now and then a neighbouring number is tried for a moment, and kept where more gets written.

/// Writers at the beginning.
const FIRST: usize = 4;
/// Looks that make a window, of which one gives a rate.
const LOOKS: u32 = 5;
/// Windows between two trials of another number, and windows of a trial, of which the first is left out: in it chunks end that
/// were begun before.
const SETTLED: u32 = 8;
const TRIAL: u32 = 3;
/// How much better another number must be.
const BETTER: f64 = 1.08;
/// Weight of the newest rate.
const NEWEST: f64 = 0.4;

/// Learns the number.
#[derive(Debug)]
pub(super) struct Crew {
    /// Numbers in ascending order.
    levels: Vec<usize>,
    settled: usize,
    trial: Option<usize>,
    /// Where the next trial goes.
    upwards: bool,
    /// Rates of the settled number and of the trial.
    rates: [Option<f64>; 2],
    windows: u32,
    looks: u32,
    /// What was done at the beginning of the window.
    before: u64,
}

impl Crew {
    /// Of at most that many writers, where so much is done already.
    pub fn new(most: usize, done: u64) -> Self {
        let most = most.max(1);
        let mut levels: Vec<usize> =
            std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < most).collect();
        levels.push(most);
        let settled = levels.iter().rposition(|n| *n <= FIRST).unwrap_or_default();
        Crew { levels, settled, trial: None, upwards: true, rates: [None; 2], windows: 0, looks: 0, before: done }
    }

    /// How many may work now.
    pub fn at_work(&self) -> usize {
        self.levels[self.trial.unwrap_or(self.settled)]
    }

    /// Called at an even pace with what is done in all.
    pub fn look(&mut self, done: u64) {
        self.looks += 1;
        if self.looks < LOOKS {
            return;
        }
        let rate = done.saturating_sub(self.before) as f64;
        (self.looks, self.before) = (0, done);
        self.windows += 1;
        let known = &mut self.rates[usize::from(self.trial.is_some())];
        if self.trial.is_none() || self.windows > 1 {
            *known = Some(known.map_or(rate, |known| known + NEWEST * (rate - known)));
        }
        match self.trial {
            Some(trial) if self.windows >= TRIAL => self.end_trial(trial),
            None if self.windows >= SETTLED => self.begin_trial(),
            _ => {}
        }
    }

    /// What was done says nothing: something else than the number of writers bounds it.
    pub fn pass_over(&mut self, done: u64) {
        (self.looks, self.before) = (0, done);
        (self.trial, self.windows) = (None, 0);
    }

    fn begin_trial(&mut self) {
        let neighbour = |upwards: bool| match upwards {
            true => Some(self.settled + 1).filter(|at| *at < self.levels.len()),
            false => self.settled.checked_sub(1),
        };
        self.trial = neighbour(self.upwards).or_else(|| neighbour(!self.upwards));
        self.windows = 0;
        self.rates[1] = None;
    }

    fn end_trial(&mut self, trial: usize) {
        let [old, new] = self.rates;
        if new > old.map(|old| old * BETTER) {
            self.settled = trial;
            self.rates[0] = new;
        } else {
            self.upwards = !self.upwards;
        }
        (self.trial, self.windows) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is settled after a while where `rate` gives what so many writers do between two looks.
    fn settles(most: usize, rate: impl Fn(usize) -> f64) -> usize {
        let (mut crew, mut done) = (Crew::new(most, 7), 7.0);
        for _ in 0..2000 {
            done += rate(crew.at_work());
            crew.look(done as u64);
        }
        crew.levels[crew.settled]
    }

    #[test]
    fn a_target_far_away_gets_all_writers() {
        assert_eq!(settles(16, |writers| 1000.0 * writers as f64), 16);
    }

    #[test]
    fn a_target_with_few_cores_gets_few() {
        let rate = |writers: usize| 10_000.0 * (writers.min(2) as f64) / (1.0 + 0.02 * writers as f64);
        assert_eq!(settles(16, rate), 4);
        assert_eq!(settles(16, |writers| 10_000.0 / (writers as f64)), 1);
    }

    #[test]
    fn it_begins_with_a_few_and_never_leaves_its_bounds() {
        assert_eq!((Crew::new(16, 0).at_work(), Crew::new(3, 0).at_work(), Crew::new(0, 0).at_work()), (4, 3, 1));
        let mut crew = Crew::new(1, 0);
        (0..100).for_each(|done| crew.look(done));
        assert_eq!(crew.at_work(), 1);
    }

    #[test]
    fn a_trial_that_wins_nothing_is_short() {
        let mut crew = Crew::new(16, 0);
        let at_work: Vec<usize> = (1..=200)
            .map(|look| {
                crew.look(look * 100);
                crew.at_work()
            })
            .collect();
        let tried = at_work.iter().filter(|writers| **writers != 4).count();
        assert!((1..=60).contains(&tried), "{tried} of 200 looks");
    }
}
