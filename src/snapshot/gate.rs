//! The gate that every piece of the copy's work goes through: a read of a chunk, a write of one.
//!
//! Open wide it costs nothing and holds nobody. While others use the source it is narrowed: so many pieces at a time; below one,
//! one piece at a time with a rest behind it that is in proportion to it. Work of several pieces, a chunk's transaction, stays
//! inside and rests between them. Who stands inside waits for no one else's turn, so that the gate can hold nobody for ever.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The longest rest behind one piece of work.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Timers are late by up to so much: a rest that was longer for that makes the next one shorter.
const LATE: Duration = Duration::from_millis(2);

/// How far it is open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Width {
    /// As far as it goes.
    Wide,
    /// For so many pieces of work at a time; below one, for one in that share of the time.
    Narrow(f64),
}

#[derive(Debug)]
struct State {
    width: Width,
    /// Pieces of work inside.
    inside: usize,
    /// Nobody works before.
    rest_until: Option<Instant>,
    /// By how much the last rest was longer than it should have been.
    late: Duration,
    /// Which part of the time that work takes is work, and not waiting for what others have.
    part: f64,
    /// Work that must not be held up.
    urgent: usize,
}

impl State {
    /// The share of the time that is for work; `None` where there are no rests.
    fn share(&self) -> Option<f64> {
        match self.width {
            Width::Narrow(share) if share < 1.0 && self.urgent == 0 => Some(share),
            Width::Narrow(_) | Width::Wide => None,
        }
    }

    /// Until when everybody rests.
    fn rests(&self) -> Option<Instant> {
        let held = matches!(self.width, Width::Narrow(_)) && self.urgent == 0;
        self.rest_until.filter(|until| held && Instant::now() < *until)
    }

    /// Work begins.
    fn begin(&mut self) {
        if let Some(until) = self.rest_until.take() {
            self.late = Instant::now().saturating_duration_since(until).min(LATE);
        }
    }

    /// So much work was done: rest is due for it.
    fn worked(&mut self, long: Duration) {
        let Some(share) = self.share() else { return };
        let rest = long.mul_f64(self.part * (1.0 / share.max(0.001) - 1.0)).min(LONGEST_REST);
        let due = rest.saturating_sub(self.late);
        self.late = self.late.saturating_sub(rest);
        if !due.is_zero() {
            self.rest_until = Some(Instant::now() + due).max(self.rest_until);
        }
    }
}

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// Somebody may be let in.
    changed: Notify,
    /// Rests may be over.
    wider: Notify,
    /// Pieces of work that have begun; with how many are at it, it tells what an instant was like.
    begun: AtomicU64,
    at_it: AtomicUsize,
}

/// Stands for a piece of work; its end is the work's.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    /// When its present piece began; `None` while it rests.
    since: Option<Instant>,
}

/// Work that must not be held up: as long as this is there, the gate is wide.
#[derive(Debug)]
pub(super) struct Urgent(Arc<Gate>);

impl Gate {
    pub fn new(width: Width) -> Self {
        let state = State { width, inside: 0, rest_until: None, late: Duration::ZERO, part: 1.0, urgent: 0 };
        Gate {
            state: Mutex::new(state),
            changed: Notify::new(),
            wider: Notify::new(),
            begun: AtomicU64::new(0),
            at_it: AtomicUsize::new(0),
        }
    }

    /// Waits for the turn of a piece of work.
    pub async fn enter(self: &Arc<Self>) -> Pass {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.try_enter() {
                Ok(()) => return Pass { gate: Arc::clone(self), since: Some(self.begin()) },
                Err(Some(until)) => {
                    tokio::select! {
                        () = &mut changed => {}
                        () = sleep_until(until) => {}
                    }
                }
                Err(None) => changed.await,
            }
        }
    }

    fn try_enter(&self) -> Result<(), Option<Instant>> {
        let mut state = self.state();
        if let (Width::Narrow(at_a_time), 0) = (state.width, state.urgent) {
            if state.inside >= (at_a_time as usize).max(1) {
                return Err(None);
            }
            if let Some(until) = state.rests() {
                return Err(Some(until));
            }
        }
        state.inside += 1;
        Ok(())
    }

    /// The turn of a piece of work where it has come; else when to ask again.
    pub fn pass(self: &Arc<Self>) -> Result<Pass, Instant> {
        match self.try_enter() {
            Ok(()) => Ok(Pass { gate: Arc::clone(self), since: Some(self.begin()) }),
            Err(until) => Err(until.unwrap_or_else(|| Instant::now() + LATE)),
        }
    }

    /// A piece of work begins.
    fn begin(&self) -> Instant {
        self.state().begin();
        self.at_it.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        Instant::now()
    }

    /// Waits until nobody needs to rest.
    async fn rested(&self) {
        loop {
            let mut wider = std::pin::pin!(self.wider.notified());
            wider.as_mut().enable();
            let Some(until) = self.state().rests() else { return };
            tokio::select! {
                () = &mut wider => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Makes it wider or narrower, for whoever comes.
    pub fn set(&self, width: Width) {
        let mut state = self.state();
        state.width = width;
        drop(state);
        self.changed.notify_waiters();
        self.wider.notify_waiters();
    }

    /// Makes it no narrower than for so many pieces at a time.
    pub fn at_least(&self, level: f64) {
        if matches!(self.width(), Width::Narrow(now) if now < level) {
            self.set(Width::Narrow(level));
        }
    }

    /// Rests are due for this part of the time that work takes: the rest of it is waiting.
    pub fn bill(&self, part: f64) {
        self.state().part = part;
    }

    pub fn width(&self) -> Width {
        self.state().width
    }

    /// Whether work is to be done in small pieces, with rests between.
    pub fn has_rests(&self) -> bool {
        self.state().share().is_some()
    }

    /// Lets nobody in for so long.
    pub fn rest(&self, long: Duration) {
        self.state().rest_until = Some(Instant::now() + long);
    }

    /// Nobody is held up until the end of what this gives.
    pub fn urgent(self: &Arc<Self>) -> Urgent {
        self.state().urgent += 1;
        self.changed.notify_waiters();
        self.wider.notify_waiters();
        Urgent(Arc::clone(self))
    }

    /// What is inside now, and a number that moves with each piece of work.
    pub fn at_work(&self) -> (usize, u64) {
        (self.at_it.load(Ordering::SeqCst), self.begun.load(Ordering::SeqCst))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers that are whole at any instant.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Rests between two pieces of the same work, as behind one, and lets nobody in.
    pub async fn breathe(&mut self) {
        self.end_piece();
        self.gate.rested().await;
        self.since = Some(self.gate.begin());
    }

    fn end_piece(&mut self) {
        if let Some(since) = self.since.take() {
            self.gate.at_it.fetch_sub(1, Ordering::SeqCst);
            self.gate.state().worked(since.elapsed());
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end_piece();
        self.gate.state().inside -= 1;
        self.gate.changed.notify_one();
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.state().urgent -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::spawn;

    fn gate(width: Width) -> Arc<Gate> {
        Arc::new(Gate::new(width))
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_inside_and_the_next_waits_for_one_to_leave() {
        let gate = gate(Width::Narrow(2.9));
        let (one, _two) = (gate.enter().await, gate.enter().await);
        let third = spawn("third", {
            let gate = Arc::clone(&gate);
            async move { drop(gate.enter().await) }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!third.is_finished() && gate.at_work() == (2, 2));
        drop(one);
        third.await.unwrap();
        assert_eq!(gate.at_work(), (1, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_time_is_work() {
        let gate = gate(Width::Narrow(0.25));
        let began = Instant::now();
        for _ in 0..8 {
            let _pass = gate.enter().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = began.elapsed().as_millis();
        assert!((7 * 40 + 10..=8 * 40 + 20).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_not_work_and_who_does_not_wait_is_told_when() {
        let gate = gate(Width::Narrow(0.25));
        gate.bill(0.5);
        let began = Instant::now();
        for _ in 0..8 {
            let pass = gate.pass().unwrap();
            assert!(gate.pass().is_err(), "one at a time");
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(pass);
            sleep_until(gate.pass().unwrap_err()).await;
        }
        let took = began.elapsed().as_millis();
        assert!((8 * 25 - 10..=8 * 25 + 20).contains(&took), "{took} ms");
        gate.at_least(3.0);
        let passes: Vec<_> = (0..3).map(|_| gate.pass().unwrap()).collect();
        assert!(gate.pass().is_err() && passes.len() == 3);
        gate.set(Width::Wide);
        gate.at_least(3.0);
        assert_eq!(gate.width(), Width::Wide);
    }

    #[tokio::test(start_paused = true)]
    async fn work_of_several_pieces_rests_between_them_and_lets_nobody_in() {
        let gate = gate(Width::Narrow(0.25));
        let (began, mut pass) = (Instant::now(), gate.enter().await);
        let other = spawn("other", {
            let gate = Arc::clone(&gate);
            async move { drop(gate.enter().await) }
        });
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let resting = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                gate.at_work().0
            };
            let ((), at_work) = tokio::join!(pass.breathe(), resting);
            assert_eq!((at_work, gate.at_work().0), (0, 1));
        }
        let took = began.elapsed().as_millis();
        assert!((8 * 40 - 20..=8 * 40 + 20).contains(&took) && !other.is_finished(), "{took} ms");
        drop(pass);
        other.await.unwrap();
        assert_eq!(gate.at_work().0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn rests_that_were_too_long_make_the_next_ones_shorter() {
        let gate = gate(Width::Narrow(0.5));
        let (began, mut pass) = (Instant::now(), gate.enter().await);
        // Rests are due of less than a timer can tell.
        for _ in 0..1000 {
            tokio::time::advance(Duration::from_micros(300)).await;
            pass.breathe().await;
        }
        let took = began.elapsed().as_millis();
        assert!((500..=700).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_goes_on_when_it_opens_and_who_goes_away_resting_was_not_at_work() {
        let gate = gate(Width::Narrow(0.001));
        let resting = |gate: &Arc<Gate>| {
            let gate = Arc::clone(gate);
            spawn("resting", async move {
                let mut pass = gate.enter().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
                gate.rest(Duration::from_secs(1000));
                pass.breathe().await;
            })
        };
        let rests = resting(&gate);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!rests.is_finished() && gate.at_work().0 == 0);
        rests.abort();
        assert!(rests.await.is_err());
        assert_eq!(gate.at_work().0, 0);
        gate.set(Width::Narrow(0.5));
        gate.rest(Duration::ZERO);
        let rests = resting(&gate);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!rests.is_finished());
        gate.set(Width::Wide);
        rests.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_in_when_it_opens() {
        let gate = gate(Width::Narrow(0.001));
        drop(gate.enter().await);
        gate.rest(Duration::from_secs(1000));
        let waiting = |gate: &Arc<Gate>| {
            let gate = Arc::clone(gate);
            spawn("waiting", async move { drop(gate.enter().await) })
        };
        let held = waiting(&gate);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!held.is_finished());
        let urgent = gate.urgent();
        held.await.unwrap();
        drop(urgent);
        gate.rest(Duration::from_secs(1000));
        let held = waiting(&gate);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!held.is_finished());
        gate.set(Width::Wide);
        held.await.unwrap();
    }
}
