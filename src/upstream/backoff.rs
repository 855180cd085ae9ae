//! The pause before the next try to reach a source: longer after each failure, never the same for all agents.

use std::time::Duration;

/// The first pause.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest one: a source that was restarted is followed again about as soon as a dm-worker would.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Doubling pauses with jitter. The randomness comes from the caller, so that a run can be repeated.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new() -> Self {
        Backoff::default()
    }

    /// The pause after one more failure: between half of and the whole of 0.2 s, 0.4 s, … 10 s. `random` gives a number
    /// from 0 (the half) to below 1 (the whole).
    pub fn next(&mut self, random: impl FnOnce() -> f64) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1u32.checked_shl(self.failures.min(20)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(LONGEST_PAUSE);
        let share = random();
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
        whole.mul_f64(0.5 + share / 2.0)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Something came from the source: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_begins_again() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.next(|| 1.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000]);
        backoff.reset();
        assert_eq!(backoff.next(|| 0.0).as_millis(), 100);
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn any_number_of_failures_and_any_randomness_is_bounded() {
        let mut backoff = Backoff { failures: u32::MAX };
        for random in [f64::NAN, f64::INFINITY, -7.0, 7.0] {
            let pause = backoff.next(|| random);
            assert!(pause <= LONGEST_PAUSE && pause >= LONGEST_PAUSE / 2);
        }
    }
}
