//! Who wants to know when what the master wants is done: dm-master polls a worker right after it wrote a wish, and a status
//! that tells how things were before would cost its user a second.
//!
//! Invariant: everybody is answered, at the latest when their time is up, and nobody holds the loop up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::plan::{Subject, TaskId};
use crate::error::Failure;
use crate::supervisor::{Held, HeldTask};
use crate::task::{Stage, Unit};

/// Requests that wait to be taken in.
const REQUESTS: usize = 64;

/// Somebody wants to know.
pub(super) struct Settle {
    /// Of one subtask, or empty for all.
    task: String,
    deadline: Instant,
    done: oneshot::Sender<()>,
}

/// What others may know of the loop.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The source that could not be opened, and why.
    pub source_failure: Option<(String, Failure)>,
    /// What of the master's wishes cannot be read or understood; empty for nothing.
    pub problem: String,
}

/// Asks the loop.
#[derive(Clone)]
pub struct Reconciled {
    requests: mpsc::Sender<Settle>,
    view: watch::Receiver<View>,
}

impl Reconciled {
    /// The way to ask, and where the questions come out.
    pub(super) fn new(view: watch::Receiver<View>) -> (Reconciled, mpsc::Receiver<Settle>) {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        (Reconciled { requests, view }, inbox)
    }

    /// Returns when what was wanted at the time of the call is done, of one subtask or, with an empty name, of all; at
    /// the latest after `limit`.
    pub async fn settle(&self, task: &str, limit: Duration) {
        let (done, told) = oneshot::channel();
        let request = Settle { task: task.to_owned(), deadline: Instant::now() + limit, done };
        // A full queue, or a loop that has ended, settles nothing.
        if self.requests.try_send(request).is_ok() {
            let _ = tokio::time::timeout(limit, told).await;
        }
    }

    /// What is known.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }
}

struct Waiter {
    settle: Settle,
    /// The read that must be done before.
    read: u64,
}

/// Those who wait.
#[derive(Default)]
pub(super) struct Waiters(Vec<Waiter>);

/// How things are, as far as answers depend on it.
pub(super) struct Scene<'a> {
    /// Reads that are done.
    pub reads: u64,
    /// Without a lease nothing is done for the master, so nothing is waited for.
    pub away: bool,
    /// What is under way.
    pub busy: &'a BTreeSet<Subject>,
    /// What is to be done and has not just failed.
    pub planned: &'a BTreeSet<Subject>,
    /// What there is.
    pub held: &'a Held,
    /// Subtasks that were made or resumed just now, and how long an answer waits for them.
    pub begun: &'a BTreeMap<TaskId, Instant>,
}

impl Waiters {
    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more, who is to be answered behind the read of this number.
    pub fn add(&mut self, settle: Settle, read: u64) {
        self.0.push(Waiter { settle, read });
    }

    /// Answers everybody whom nothing keeps waiting.
    pub fn answer(&mut self, scene: &Scene<'_>) {
        let now = Instant::now();
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|one| scene.keeps(one, now));
        self.0 = stay;
        for waiter in go {
            // Whoever asked may have lost patience.
            let _ = waiter.settle.done.send(());
        }
    }
}

impl Scene<'_> {
    fn keeps(&self, waiter: &Waiter, now: Instant) -> bool {
        let settle = &waiter.settle;
        if settle.deadline <= now || settle.done.is_closed() || self.away {
            return false;
        }
        let name = &settle.task;
        let about = |subject: &Subject| match subject {
            Subject::Source(_) => true,
            Subject::Task(task) => name.is_empty() || task.name == *name,
        };
        let moves = |(key, task): (&(String, String), &HeldTask)| {
            let id = TaskId { source: key.0.clone(), name: key.1.clone() };
            let begun = self.begun.get(&id).is_some_and(|until| now < *until);
            (name.is_empty() || key.1 == *name) && is_moving(task, begun)
        };
        self.reads < waiter.read
            || self.busy.iter().any(about)
            || self.planned.iter().any(about)
            || self.held.tasks.iter().any(moves)
    }
}

/// Whether a subtask is on its way to where it was told to be.
fn is_moving(task: &HeldTask, begun: bool) -> bool {
    match task.status.stage {
        Stage::New | Stage::Pausing | Stage::Resuming | Stage::Stopping => true,
        Stage::Running => {
            let at_work = task.status.activity == "applying" || task.status.unit == Unit::Load;
            begun && !at_work && task.status.failures.is_empty()
        }
        Stage::Paused | Stage::Stopped | Stage::Finished => false,
    }
}
