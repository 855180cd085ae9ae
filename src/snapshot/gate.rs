//! The gate that every piece of the copy's work goes through: a read of a chunk, a write of one.
//!
//! Open wide it costs nothing and holds nobody. While others use the source it is narrowed: so many pieces at a time; below one,
//! one piece at a time with a rest behind it that is in proportion to it. Who stands inside waits for no one else's turn, so that
//! the gate can hold nobody for ever.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The longest rest behind one piece of work.
const LONGEST_REST: Duration = Duration::from_secs(2);

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
    /// Nobody enters before.
    rest_until: Option<Instant>,
    /// Work that must not be held up.
    urgent: usize,
}

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Notify,
    /// Pieces of work that have begun; with how many are at it, it tells what an instant was like.
    begun: AtomicU64,
    at_it: AtomicUsize,
}

/// Stands for a piece of work; its end is the work's.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    since: Instant,
}

/// Work that must not be held up: as long as this is there, the gate is wide.
#[derive(Debug)]
pub(super) struct Urgent(Arc<Gate>);

impl Gate {
    pub fn new(width: Width) -> Self {
        let state = State { width, inside: 0, rest_until: None, urgent: 0 };
        Gate { state: Mutex::new(state), changed: Notify::new(), begun: AtomicU64::new(0), at_it: AtomicUsize::new(0) }
    }

    /// Waits for the turn of a piece of work.
    pub async fn enter(self: &Arc<Self>) -> Pass {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.try_enter() {
                Ok(()) => return Pass { gate: Arc::clone(self), since: Instant::now() },
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
            if let Some(until) = state.rest_until.filter(|until| Instant::now() < *until) {
                return Err(Some(until));
            }
        }
        state.inside += 1;
        self.at_it.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Makes it wider or narrower, for whoever comes.
    pub fn set(&self, width: Width) {
        let mut state = self.state();
        state.width = width;
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn width(&self) -> Width {
        self.state().width
    }

    /// Lets nobody in for so long.
    pub fn rest(&self, long: Duration) {
        self.state().rest_until = Some(Instant::now() + long);
    }

    /// Nobody is held up until the end of what this gives.
    pub fn urgent(self: &Arc<Self>) -> Urgent {
        self.state().urgent += 1;
        self.changed.notify_waiters();
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

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.inside -= 1;
        self.gate.at_it.fetch_sub(1, Ordering::SeqCst);
        if let Width::Narrow(share) = state.width
            && share < 1.0
        {
            let rest = self.since.elapsed().mul_f64(1.0 / share.max(0.001) - 1.0).min(LONGEST_REST);
            state.rest_until = Some(Instant::now() + rest).max(state.rest_until);
        }
        drop(state);
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
