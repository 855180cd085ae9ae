//! How large groups are and how many connections share one: learned from how long the downstream takes.
//!
//! A pure value. Rows a group follow the time wanted; connections follow the rate seen: a downstream that answers late
//! gains by many, one that is short of cores loses by them. A neighbouring number is tried for a few groups: soon at first and
//! after each change of mind, then more seldom, since a trial costs; but now and then, so that what was learned does not stay
//! when it is true no more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a group should take downstream.
const GROUP_TIME: Duration = Duration::from_millis(100);
/// Row changes a group, at least and at most.
const GROUP_ROWS: (u64, u64) = (256, 20_000);
/// Row changes that are worth a connection more, and bytes that count as one of them.
const SHARE_ROWS: u64 = 128;
const ROW_BYTES: u64 = 512;
/// Groups between two trials of another number, at least and at most.
const BETWEEN: (u32, u32) = (16, 64);
/// Groups of a trial. What counts is the one in the middle, of these and of as many before: a downstream that stands still
/// for a moment, as servers do now and then while they write pages out, says nothing about numbers.
const TRIAL: usize = 5;
/// How much better another number must be.
const BETTER: f64 = 1.1;

/// The size of a group to form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Row changes, about.
    pub rows: u64,
    /// Shares, at most.
    pub shares: usize,
}

/// What the pipelines of one task have learned, handed from one to the next: a park changes nothing of what the downstream
/// can take. It is only where each of them begins, so nothing is lost with it when the process ends.
#[derive(Debug, Clone, Default)]
pub struct Paces(Arc<Mutex<Option<(String, Pace)>>>);

impl Paces {
    /// What is known of this downstream for at most so many shares; a new one where nothing is.
    pub(super) fn of(&self, target: &str, most: usize) -> Pace {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = |(of, pace): &&(String, Pace)| of == target && pace.most() == most.max(1);
        known.as_ref().filter(of_this).map_or_else(|| Pace::new(most), |(_, pace)| pace.clone())
    }

    /// Keeps what was learned of this downstream.
    pub(super) fn keep(&self, target: &str, pace: &Pace) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((target.to_owned(), pace.clone()));
    }
}

/// The rates of the last few groups.
#[derive(Debug, Clone, Default)]
struct Rates(VecDeque<f64>);

impl Rates {
    fn add(&mut self, rate: f64) {
        if self.0.len() >= TRIAL {
            self.0.pop_front();
        }
        self.0.push_back(rate);
    }

    fn median(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Learns the size.
#[derive(Debug, Clone)]
pub struct Pace {
    rows: u64,
    /// Numbers of shares in ascending order, with the rates of the last groups, in rows a second.
    levels: Vec<(usize, Rates)>,
    /// The best one so far.
    settled: usize,
    /// Groups since the last trial ended, or began.
    groups: u32,
    trial: Option<usize>,
    /// Groups until the next one.
    between: u32,
    /// Where the next trial goes.
    upwards: bool,
}

impl Pace {
    /// For at most this many shares; begins in the middle.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let below = std::iter::successors(Some(1), |shares| Some(shares * 2)).take_while(|&n| n < most);
        let levels: Vec<(usize, Rates)> = below.chain([most]).map(|n| (n, Rates::default())).collect();
        let settled = levels.iter().rposition(|(shares, _)| *shares <= 4).unwrap_or_default();
        Pace { rows: 4_000, levels, settled, groups: 0, trial: None, between: BETWEEN.0, upwards: true }
    }

    /// Row changes of the next group, about.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next group's size where that many changes and bytes wait.
    pub fn size(&self, waiting: u64, bytes: usize) -> Size {
        let work = waiting.max(bytes as u64 / ROW_BYTES);
        let worth = usize::try_from(work / SHARE_ROWS).unwrap_or(usize::MAX);
        // A full group always goes by what was learned: where rows are slow, a small one may be full.
        let shares = if waiting >= self.rows { self.level() } else { self.level().min(worth).max(1) };
        Size { rows: self.rows, shares }
    }

    fn most(&self) -> usize {
        self.levels.last().map_or(1, |(shares, _)| *shares)
    }

    fn level(&self) -> usize {
        self.levels[self.trial.unwrap_or(self.settled)].0
    }

    /// A group of that many changes was asked for in `size` and took that long.
    pub fn done(&mut self, size: Size, rows: u64, took: Duration) {
        if rows < GROUP_ROWS.0 {
            return;
        }
        let took = took.as_secs_f64().max(0.001);
        // Towards what would have taken the time wanted, by half.
        let fit = rows as f64 * GROUP_TIME.as_secs_f64() / took;
        self.rows = ((self.rows + fit as u64) / 2).clamp(GROUP_ROWS.0, GROUP_ROWS.1);
        // Neither a small group nor one that was formed before the last change of mind tells anything.
        if size.shares == self.level() {
            self.learn(rows as f64 / took);
        }
    }

    fn learn(&mut self, rate: f64) {
        self.levels[self.trial.unwrap_or(self.settled)].1.add(rate);
        self.groups += 1;
        match self.trial {
            Some(trial) => self.judge(trial),
            None if self.groups >= self.between => self.begin_trial(),
            None => {}
        }
    }

    /// Ends a trial as soon as the median of its groups is sure to be better, or not: a worse number costs in each of them.
    fn judge(&mut self, trial: usize) {
        let wanted = self.levels[self.settled].1.median().map_or(0.0, |known| known * BETTER);
        let rates = &self.levels[trial].1.0;
        let better = rates.iter().filter(|rate| **rate > wanted).count();
        if better > TRIAL / 2 {
            (self.settled, self.between) = (trial, BETWEEN.0);
        } else if rates.len() - better > TRIAL / 2 {
            (self.upwards, self.between) = (!self.upwards, (2 * self.between).min(BETWEEN.1));
        } else {
            return;
        }
        (self.trial, self.groups) = (None, 0);
    }

    fn begin_trial(&mut self) {
        let neighbour = |upwards: bool| match upwards {
            true => Some(self.settled + 1).filter(|&at| at < self.levels.len()),
            false => self.settled.checked_sub(1),
        };
        let next = neighbour(self.upwards).or_else(|| neighbour(!self.upwards));
        if let Some(next) = next {
            // What was seen long ago counts no more.
            self.levels[next].1 = Rates::default();
        }
        (self.trial, self.groups) = (next, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A downstream that takes `fixed` a group and row-wise time that shrinks with the shares up to its cores.
    fn settles(cores: f64, wait_a_row: f64, cpu_a_row: f64) -> (usize, u64) {
        let mut pace = Pace::new(16);
        for _ in 0..1000 {
            let size = pace.size(u64::MAX, 0);
            let (rows, shares) = (size.rows as f64, size.shares as f64);
            let took = (rows * wait_a_row / shares).max(rows * cpu_a_row / shares.min(cores)) + 0.002 * shares;
            pace.done(size, size.rows, Duration::from_secs_f64(took));
        }
        (pace.levels[pace.settled].0, pace.rows)
    }

    #[test]
    fn learns_within_the_first_groups() {
        let mut pace = Pace::new(16);
        for _ in 0..45 {
            let size = pace.size(u64::MAX, 0);
            pace.done(size, size.rows, Duration::from_secs_f64(size.rows as f64 * 0.001 / size.shares as f64));
        }
        assert_eq!(pace.levels[pace.settled].0, 16);
    }

    #[test]
    fn a_server_that_stands_still_now_and_then_changes_no_mind() {
        let mut pace = Pace::new(16);
        for group in 0..500 {
            let size = pace.size(u64::MAX, 0);
            let stands_still = if group % 3 == 0 { 0.2 } else { 0.0 };
            pace.done(size, size.rows, Duration::from_secs_f64(size.rows as f64 * 0.000_01 + stands_still));
            assert_eq!(pace.levels[pace.settled].0, 4);
        }
    }

    #[test]
    fn a_trial_of_a_number_that_is_worse_ends_when_that_is_sure() {
        let mut pace = Pace::new(16);
        let groups = (0..100).take_while(|_| {
            let size = pace.size(u64::MAX, 0);
            let rate = if size.shares == 4 { 100_000.0 } else { 50_000.0 };
            pace.done(size, size.rows, Duration::from_secs_f64(size.rows as f64 / rate));
            !(pace.trial.is_none() && pace.between > BETWEEN.0)
        });
        assert_eq!(groups.count() as u32, BETWEEN.0 + 2);
        assert_eq!(pace.levels[pace.settled].0, 4);
    }

    #[test]
    fn a_downstream_far_away_gets_all_connections() {
        let (shares, rows) = settles(8.0, 0.001, 0.000_01);
        assert!(shares == 16 && (800..1800).contains(&rows), "{shares} shares, {rows} rows");
    }

    #[test]
    fn a_downstream_with_few_cores_gets_few() {
        let (shares, rows) = settles(2.0, 0.0, 0.000_02);
        assert!((2..=4).contains(&shares) && rows > 5000, "{shares} shares, {rows} rows");
    }

    #[test]
    fn what_was_learned_is_kept_for_the_same_downstream_and_number_of_lanes() {
        let (paces, mut pace) = (Paces::default(), Pace::new(16));
        assert_eq!(paces.of("a", 16).rows(), Pace::new(16).rows());
        for _ in 0..100 {
            pace.done(pace.size(u64::MAX, 0), pace.rows(), Duration::from_millis(10));
        }
        assert!(pace.rows() > 2 * Pace::new(16).rows());
        paces.keep("a", &pace);
        let rows = |target, lanes| paces.of(target, lanes).rows();
        assert_eq!(
            (rows("a", 16), rows("a", 8), rows("b", 16)),
            (pace.rows(), Pace::new(8).rows(), Pace::new(16).rows())
        );
    }

    #[test]
    fn small_groups_take_one_connection() {
        let shares = |waiting, bytes| Pace::new(16).size(waiting, bytes).shares;
        assert_eq!(shares(20, 4_000), 1);
        assert_eq!(shares(1_000_000, 0), 4);
        assert_eq!(shares(20, 4 << 20), 4, "few large rows");
        assert_eq!(Pace::new(1).size(1_000_000, 0).shares, 1);
    }
}
