//! The time of day that a source's clock is compared with: what ours was when the process began, and what has passed since.
//!
//! Somebody who sets the machine's clock changes nothing of it, so lags hold; a sleep of the machine counts. A leaf. What
//! people read is told in the machine's own time ([`told`]).

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

static BEGAN: LazyLock<(SystemTime, Duration)> = LazyLock::new(|| (SystemTime::now(), passed()));

/// Since the machine started, sleep included.
fn passed() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    Duration::new(at.tv_sec.try_into().unwrap_or_default(), at.tv_nsec.try_into().unwrap_or_default())
}

/// Now, by the clock that nobody sets.
pub fn steady() -> SystemTime {
    let (began, before) = *BEGAN;
    began + passed().saturating_sub(before)
}

/// An instant of [`steady`] in the machine's own time.
pub fn told(at: SystemTime) -> SystemTime {
    let (steady, now) = (steady(), SystemTime::now());
    let moved = match now.duration_since(steady) {
        Ok(ahead) => at.checked_add(ahead),
        Err(behind) => at.checked_sub(behind.duration()),
    };
    moved.unwrap_or(at)
}

/// Seconds since the epoch; zero for what is before it.
pub fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_is_ours_while_nobody_sets_ours() {
        let (first, now) = (steady(), SystemTime::now());
        assert!((seconds(first) - seconds(now)).abs() < 1.0);
        assert!(steady() >= first);
        let soon = first + Duration::from_secs(100);
        assert!((seconds(told(soon)) - seconds(soon)).abs() < 1.0);
    }
}
