//! Room on the disk: what may go, whether there is room for more, and the last reserve.
//!
//! Invariants: nothing goes that a task or a reader has not passed. A segment leaves the manifest before its directory is
//! removed, so that a crash in between leaves a directory that nobody misses.

use std::time::{Instant, SystemTime};

use super::super::purge::{self, Held, PurgeReport};
use super::super::{Boundary, FullReason, Lsn, RelayError};
use super::Storage;
use crate::model::{BinlogFile, Location};
use crate::store::{self, StoreError};

/// Free bytes below which nothing is written, whatever the floor: a write that meets a full disk makes the store
/// unusable for the rest of the process. What was received meanwhile waits in memory.
const RESERVE: u64 = 24 << 20;

impl Storage {
    /// Looks at the disk before anything is written to it; says that the log is full where there is no room at all.
    pub(super) fn is_starved(&mut self) -> Result<bool, StoreError> {
        let config = &self.core.config;
        let free =
            store::free_bytes(&config.dir).map_err(|error| StoreError::from_io("measure", &config.dir, error))?;
        self.starved = free < RESERVE;
        if self.starved {
            let floor = config.free_floor_bytes.max(RESERVE);
            let reason = Some(FullReason::FreeFloor { free, floor });
            if std::mem::replace(&mut self.core.shared.log().full, reason) != reason {
                self.core.shared.ring();
            }
        }
        Ok(self.starved)
    }

    /// Removes what every task has passed, as far as it need not be kept. Without a task only age counts: whoever starts
    /// one may need the rest.
    pub(super) fn purge_passed(&mut self) -> Result<(), RelayError> {
        let Some(oldest_kept) = self.oldest_kept()? else { return Ok(()) };
        let count = {
            let log = self.core.shared.log();
            if !log.armed || (log.tasks.is_empty() && oldest_kept.is_none()) {
                return Ok(());
            }
            let segments: Vec<_> = log.segments.values().collect();
            let limit = match oldest_kept {
                None => Lsn(u64::MAX),
                Some(oldest) => purge::end_of_older(&segments, oldest),
            };
            purge::removable(&segments, |boundary| {
                boundary.lsn <= limit && purge::passed_by_all(boundary, &log.tasks, &log.readers)
            })
        };
        self.remove_oldest(count).map(drop)
    }

    /// Whether it is time to look, and how old what is kept may be: everything may go for `Some(None)`, nothing for
    /// `None`, else what is older than the time (seconds by the source's clock).
    fn oldest_kept(&mut self) -> Result<Option<Option<u32>>, StoreError> {
        let Some(retention) = self.core.config.retention else { return Ok(Some(None)) };
        if retention.interval.is_zero() || Instant::now() < self.next_look || !self.core.shared.log().armed {
            return Ok(None);
        }
        self.next_look = Instant::now() + retention.interval;
        let dir = &self.core.config.dir;
        let fail = |error| StoreError::from_io("measure", dir, error);
        if retention.remain_bytes > 0
            && store::free_bytes(dir).map_err(fail)? < retention.remain_bytes
            && !self.core.shared.log().tasks.is_empty()
        {
            return Ok(Some(None));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires = retention.expires;
        let oldest = u32::try_from(now.saturating_sub(expires).as_secs()).unwrap_or(u32::MAX);
        Ok((!expires.is_zero()).then_some(Some(oldest)))
    }

    /// Whether there is room, after removing what nobody needs if there is none.
    pub(super) fn check_room(&mut self) -> Result<(), RelayError> {
        loop {
            let reason = self.lack_of_room()?;
            let (count, seal) = {
                let mut log = self.core.shared.log();
                if reason.is_none() || !log.armed {
                    let changed = log.full != reason;
                    log.full = reason;
                    drop(log);
                    if changed {
                        self.core.shared.ring();
                    }
                    return Ok(());
                }
                let segments: Vec<_> = log.segments.values().collect();
                let passed = |boundary: &Boundary| purge::passed_by_all(boundary, &log.tasks, &log.readers);
                let allowed = purge::removable(&segments, passed);
                let end_passed = segments.last().is_some_and(|last| !last.sealed && passed(&last.end));
                (purge::oldest_group(&segments, allowed), end_passed)
            };
            match (count, seal) {
                (0, true) => self.seal_all()?,
                (0, false) => {
                    let changed = std::mem::replace(&mut self.core.shared.log().full, reason) != reason;
                    if changed {
                        self.core.shared.ring();
                    }
                    return Ok(());
                }
                (count, _) => drop(self.remove_oldest(count)?),
            }
        }
    }

    fn lack_of_room(&self) -> Result<Option<FullReason>, StoreError> {
        let config = &self.core.config;
        let fail = |error| StoreError::from_io("measure", &config.dir, error);
        let free = store::free_bytes(&config.dir).map_err(fail)?;
        let log = self.core.shared.log();
        // Once full, it stays so until there is room for more than a moment.
        let margin = if log.full.is_some() { config.flush_bytes } else { 0 };
        let used = log.disk_bytes() + (log.received_lsn.0 - log.stored_lsn.0) + margin;
        // Twice the reserve: what is on its way when the floor is reached still has to fit.
        let (budget, floor) = (config.budget_bytes, config.free_floor_bytes.max(2 * RESERVE));
        Ok(match () {
            () if used >= budget => Some(FullReason::Budget { used: used - margin, budget }),
            () if free < floor.saturating_add(margin) => Some(FullReason::FreeFloor { free, floor }),
            () => None,
        })
    }

    /// Removes the oldest `count` segments; the bytes they took.
    fn remove_oldest(&mut self, count: usize) -> Result<u64, RelayError> {
        if count == 0 {
            return Ok(0);
        }
        let (gone, bytes) = {
            let mut log = self.core.shared.log();
            let gone: Vec<u64> = log.segments.keys().take(count).copied().collect();
            let mut bytes = 0;
            for seq in &gone {
                if let Some(segment) = log.segments.remove(seq) {
                    bytes += segment.disk_bytes;
                    log.origin = Some(segment.end);
                }
            }
            (gone, bytes)
        };
        self.write_manifest()?;
        self.remove_dirs(gone);
        Ok(bytes)
    }

    pub(super) fn purge_before(&mut self, file: &BinlogFile) -> Result<PurgeReport, RelayError> {
        let (count, held) = {
            let log = self.core.shared.log();
            let segments: Vec<_> = log.segments.values().collect();
            let asked = purge::removable(&segments, |boundary| purge::before_file(boundary, file));
            let count = purge::removable(&segments, |boundary| {
                purge::before_file(boundary, file) && purge::passed_by_all(boundary, &log.tasks, &log.readers)
            });
            let limit = segments.get(asked).map(|next| &next.begin).or(segments.last().map(|last| &last.end));
            let held = limit.filter(|_| count < asked).and_then(|limit| {
                let holder = |(_, at): &(&String, &Location)| !at.covers(&limit.location);
                let (task, at) = log.tasks.iter().find(holder)?;
                Some(Held { task: task.clone(), at: at.clone() })
            });
            (count, held)
        };
        if let (0, Some(held)) = (count, &held) {
            return Err(RelayError::Protected { task: held.task.clone(), at: Box::new(held.at.clone()) });
        }
        let bytes = self.remove_oldest(count)?;
        Ok(PurgeReport { segments: count as u64, bytes, held })
    }
}
