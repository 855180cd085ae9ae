//! How long everything may stay parked. Pure: numbers in, a time out.

use std::time::Duration;

use super::RelayState;

/// What ends the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunwayLimit {
    /// The relay log fills its budget.
    Budget,
    /// The file system falls to its floor.
    FreeFloor,
    /// Receiving stands still, and the source purges what was not received.
    UpstreamPurge,
}

impl RunwayLimit {
    /// What happens then, in words.
    pub fn as_str(self) -> &'static str {
        match self {
            RunwayLimit::Budget => "the relay budget is full",
            RunwayLimit::FreeFloor => "the disk is full",
            RunwayLimit::UpstreamPurge => "the upstream purges what is not received",
        }
    }
}

/// Until when nothing is lost if everything stays parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runway {
    /// Time left from now.
    pub left: Duration,
    /// What ends it.
    pub limit: RunwayLimit,
}

/// The sooner of the disk filling at the present rate, and what the caller knows of the source's purge:
/// `upstream_purge` is the time until it takes what was not received, `None` while receiving runs. `None` for no end in
/// sight. `free_bytes` is what the file system has free now, `free_floor_bytes` what must stay free.
pub fn runway(
    state: &RelayState,
    budget_bytes: u64,
    free_bytes: u64,
    free_floor_bytes: u64,
    upstream_purge: Option<Duration>,
) -> Option<Runway> {
    // Disk bytes of a raw byte, as measured on what is there; without enough of it, no compression at all.
    let ratio = match state.raw_bytes {
        enough if enough >= 64 << 20 => state.disk_bytes as f64 / enough as f64,
        _ => 1.0,
    };
    let rate = state.bytes_per_second * ratio;
    let fills = |room: u64, limit| {
        let seconds = if room == 0 { 0.0 } else { room as f64 / rate };
        Duration::try_from_secs_f64(seconds).ok().map(|left| Runway { left, limit })
    };
    [
        fills(budget_bytes.saturating_sub(state.disk_bytes), RunwayLimit::Budget),
        fills(free_bytes.saturating_sub(free_floor_bytes), RunwayLimit::FreeFloor),
        upstream_purge.map(|left| Runway { left, limit: RunwayLimit::UpstreamPurge }),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|runway| runway.left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn state(disk: u64, raw: u64, rate: f64) -> RelayState {
        RelayState { disk_bytes: disk, raw_bytes: raw, bytes_per_second: rate, ..RelayState::default() }
    }

    #[test]
    fn the_sooner_limit_wins() {
        let busy = state(GB, 2 * GB, (GB / 1024) as f64);
        let budget = runway(&busy, 2 * GB, 50 * GB, GB, None).unwrap();
        assert_eq!(budget, Runway { left: Duration::from_secs(2048), limit: RunwayLimit::Budget });
        let floor = runway(&busy, 200 * GB, 2 * GB, GB, None).unwrap();
        assert_eq!(floor, Runway { left: Duration::from_secs(2048), limit: RunwayLimit::FreeFloor });
        let purge = runway(&busy, 200 * GB, 2 * GB, GB, Some(Duration::from_secs(9))).unwrap();
        assert_eq!(purge.limit, RunwayLimit::UpstreamPurge);
    }

    #[test]
    fn a_quiet_source_has_no_end_in_sight_and_a_full_log_none_left() {
        assert_eq!(runway(&state(GB, 2 * GB, 0.0), 2 * GB, 50 * GB, GB, None), None);
        let full = runway(&state(2 * GB, 4 * GB, 0.0), 2 * GB, 50 * GB, GB, None).unwrap();
        assert_eq!(full, Runway { left: Duration::ZERO, limit: RunwayLimit::Budget });
    }
}
