//! What intake hands to the coordinator, over a channel bounded in items and in bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::apply::DdlStep;
use crate::dispatch::ChangeEvent;
use crate::error::Failure;
use crate::model::{Gtid, Location, SourceTable};
use crate::relay::RelayError;

/// Bytes of row images between intake and lanes, in KiB; with the group at work and the one prepared this bounds memory.
const QUEUE_KIB: u32 = 9 * 1024;
/// The most that one item takes of it. What is left when a queue is not full is always enough for it, so that a large
/// row cannot wait for room that only it could make.
const ITEM_KIB: u32 = 3 * 1024;
/// Items between intake and coordinator.
const QUEUE_ITEMS: usize = 1024;

/// One step of the source's history, ready to be applied.
#[derive(Debug)]
pub enum Item {
    /// A transaction begins.
    Begin {
        /// Its GTID.
        gtid: Option<Gtid>,
        /// End of the one before.
        start: Location,
    },
    /// Row changes of the open transaction.
    Changes {
        /// Those of one event.
        event: Arc<ChangeEvent>,
        /// Bytes of relay log up to there.
        lsn: u64,
    },
    /// DDL of the open transaction; intake waits until it ran.
    Ddl(DdlItem),
    /// The transaction is complete, or the location moved without one.
    Commit {
        /// Its end.
        location: Location,
        /// The source's clock, seconds since the epoch; 0 for unknown.
        timestamp: u32,
        /// Bytes of relay log up to there.
        lsn: u64,
    },
    /// The stream began again behind the last commit.
    Restart,
}

/// A DDL statement and who waits for it.
#[derive(Debug)]
pub struct DdlItem {
    /// Statements in order.
    pub steps: Vec<DdlStep>,
    /// Number of the first one in its source transaction.
    pub first_step: u32,
    /// Where it came from, in DM's words.
    pub place: Arc<str>,
    /// Tables whose structure it changes, behind a copy that is not replayed yet: they are read again when it has run.
    pub again: Vec<SourceTable>,
    /// Tables that it makes empty or takes away.
    pub emptied: Vec<SourceTable>,
    /// Of them, those that have another name behind it.
    pub renamed: Vec<SourceTable>,
    /// Tables whose rows may make the downstream refuse it: it narrows columns, or makes keys.
    pub over_rows: Vec<SourceTable>,
    /// Told when all have run.
    pub done: oneshot::Sender<DdlEnd>,
}

/// How a DDL statement ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlEnd {
    /// It ran now, and what is left to be done behind a copy is up to date.
    Ran,
    /// Rows behind it are applied already.
    Passed,
}

/// Why intake ended.
#[derive(Debug)]
pub enum IntakeEnd {
    /// Something cannot be decoded, routed or bound.
    Failed(Failure),
    /// The relay log does not give what it should.
    Relay(RelayError),
}

/// An item and the room it takes.
pub struct Queued {
    /// The item, or why intake ended.
    pub item: Result<Item, IntakeEnd>,
    /// Bytes of row images in it.
    pub bytes: usize,
    /// Given back when the item's changes are done with.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Intake's end of the channel.
#[derive(Clone)]
pub struct ItemSender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// The channel.
pub fn channel() -> (ItemSender, mpsc::Receiver<Queued>) {
    let (queue, items) = mpsc::channel(QUEUE_ITEMS);
    (ItemSender { queue, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)) }, items)
}

impl ItemSender {
    /// Waits for room, then sends. `false` when nobody receives any more.
    pub async fn send(&self, item: Result<Item, IntakeEnd>, bytes: usize) -> bool {
        let kib = u32::try_from(bytes / 1024).unwrap_or(ITEM_KIB).min(ITEM_KIB);
        let room = match kib {
            0 => None,
            kib => match Arc::clone(&self.room).acquire_many_owned(kib).await {
                Ok(room) => Some(room),
                Err(_) => return false,
            },
        };
        self.queue.send(Queued { item, bytes, room }).await.is_ok()
    }
}
