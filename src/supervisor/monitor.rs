//! The supervisor's own watch over what nobody else looks after: the disk under the state directory, drivers that broke
//! off, what could not be loaded, and whether everything still moves.
//!
//! Invariants: no task is silently dead; where the checkpoint store has no room left, every task is parked with reason `disk`, and is released when
//! there is room again, whatever other reasons it has. A restart forgets nothing: the reason is stored like any other, and
//! the first look takes it away if the room is there.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::source::Source;
use super::{Inner, Supervisor, TaskEntry, TaskKey, read};
use crate::model::ByteSize;
use crate::store::{Namespace, free_bytes};
use crate::task::{Park, ParkReason, Stage, TaskHandle};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);
/// How often what could not be loaded is tried again.
const MEND: Duration = Duration::from_secs(15);
/// What has not moved for this long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// Free bytes that the checkpoint store needs: below, tasks are parked while their reasons can still be stored.
const NEEDED: u64 = 16 << 20;
/// Free bytes at which they go on.
const ENOUGH: u64 = 24 << 20;

/// Whether tasks are to be parked for want of room, where they were (`short`) or were not before.
fn is_short(free: u64, short: bool) -> bool {
    free < if short { ENOUGH } else { NEEDED }
}

/// Looks for as long as there is a supervisor.
pub(super) async fn watch(inner: Weak<Inner>) {
    let mut short = false;
    let mut mended = Instant::now();
    while let Some(inner) = inner.upgrade() {
        let supervisor = Supervisor { inner };
        short = supervisor.look_at_disk(short).await;
        supervisor.revive_drivers().await;
        supervisor.pass_exceptions().await;
        supervisor.pass_declared().await;
        if mended.elapsed() >= MEND {
            supervisor.mend().await;
            mended = Instant::now();
        }
        // Behind every write that is under way: the store's thread still goes round.
        if supervisor.inner.db.get::<u64>(Namespace::Meta, "generation").await.is_ok() {
            supervisor.inner.beat.strike();
        }
        drop(supervisor);
        tokio::time::sleep(LOOK).await;
    }
}

impl Supervisor {
    /// What has not moved for so long that it will hardly move again: a loop that is jammed, a disk that hangs. A parked
    /// task moves, and so does one whose source or downstream does not answer.
    pub fn stuck(&self) -> Option<String> {
        if self.inner.beat.age() > STUCK {
            return Some("the checkpoint store".to_owned());
        }
        let task = |((source, task), entry): (&TaskKey, &TaskEntry)| {
            let stuck = !entry.driver.is_finished() && entry.handle.quiet_for() > STUCK;
            stuck.then(|| format!("task {task} of source {source}"))
        };
        if let Some(task) = read(&self.inner.tasks).iter().find_map(task) {
            return Some(task);
        }
        let stuck = |source: &Arc<Source>| source.relay.state().quiet_for > STUCK;
        self.all_sources().iter().find(|source| stuck(source)).map(|source| format!("the relay log of {}", source.id))
    }

    async fn look_at_disk(&self, short: bool) -> bool {
        let dir = self.inner.options.state_dir.clone();
        // A disk that does not say how full it is changes nothing.
        let Ok(Ok(free)) = tokio::task::spawn_blocking(move || free_bytes(&dir)).await else { return short };
        let now = is_short(free, short);
        let handles: Vec<TaskHandle> = read(&self.inner.tasks).values().map(|entry| entry.handle.clone()).collect();
        for handle in handles {
            let status = handle.status();
            if status.stage == Stage::Stopped {
                continue;
            }
            let parked = status.parks.contains_key(&ParkReason::Disk);
            let changed = match (now, parked) {
                (true, false) => {
                    let dir = self.inner.options.state_dir.display();
                    let (free, needed) = (ByteSize(free), ByteSize(NEEDED));
                    let note = format!("{free} are free under {dir}, {needed} are needed");
                    handle.park(ParkReason::Disk, Park::now("dm-agent").note(note)).await
                }
                (false, true) => handle.unpark(&[ParkReason::Disk]).await,
                _ => continue,
            };
            if let Err(failure) = changed {
                // The reason holds all the same; it is only not on disk.
                tracing::warn!(error = %failure, "store that the disk is full");
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Beat, spawn};

    #[test]
    fn room_comes_back_only_when_there_is_more_than_was_missing() {
        assert!(!is_short(NEEDED, false));
        assert!(is_short(NEEDED - 1, false));
        assert!(is_short(ENOUGH - 1, true));
        assert!(!is_short(ENOUGH, true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_does_not_move_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = crate::supervisor::broken::tests::supervisor(dir.path()).await;
        assert_eq!(supervisor.stuck(), None, "a parked task moves");
        let key: TaskKey = ("s".to_owned(), "t".to_owned());
        let put = |driver| {
            let mut tasks = crate::supervisor::write(&supervisor.inner.tasks);
            let entry = tasks.get_mut(&key).unwrap();
            entry.driver = driver;
            entry.handle = entry.handle.clone().with_beat(Beat::of_age(STUCK + LOOK));
        };
        put(spawn("subtask", std::future::pending()));
        assert_eq!(supervisor.stuck().as_deref(), Some("task t of source s"));
        // One that has ended is begun anew, and not waited for.
        let ended = spawn("subtask", async {});
        while !ended.is_finished() {
            tokio::task::yield_now().await;
        }
        put(ended);
        assert_eq!(supervisor.stuck(), None);
        supervisor.revive_drivers().await;
        assert_eq!(supervisor.stuck(), None);
        supervisor.shut_down().await;
    }
}
