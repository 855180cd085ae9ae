//! The writers: a task each, which ends with the coordinator. They take one job after the other.

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::CoordinatorOptions;
use crate::apply::{Job, JobDone, Writer};
use crate::meta::MetaTables;
use crate::model::Location;
use crate::pipeline::pace::Pace;

/// Binlog that is worth connections before it is decoded, in bytes.
const BACKLOG: u64 = 256 << 10;

/// As many as there are lanes.
pub(super) struct Writers {
    /// Where each takes its jobs from.
    pub jobs: Vec<mpsc::Sender<Job>>,
    /// Their answers.
    pub done: mpsc::Receiver<JobDone>,
    /// Owns them.
    pub tasks: JoinSet<()>,
    /// Much waits to be applied.
    pub backlog: bool,
}

/// Starts the writers. Where much waits, those that will be needed connect at once, while the first rows are being decoded;
/// the others when they are needed. `tables` has the lanes' marks, if these are kept with the rows.
pub(super) fn start(options: &CoordinatorOptions, tables: Option<&MetaTables>, pace: &Pace) -> Writers {
    let claimed = &options.claimed;
    let backlog = (options.received)().is_some_and(|received| is_backlog(&claimed.start.location, &received));
    let in_use = if backlog { pace.size(u64::MAX, 0).shares } else { 0 };
    let (answers, done) = mpsc::channel(claimed.marks.len().max(1));
    let mut writers = Writers { jobs: Vec::with_capacity(claimed.marks.len()), done, tasks: JoinSet::new(), backlog };
    for number in 0..claimed.marks.len() {
        let (jobs, mut inbox) = mpsc::channel::<Job>(1);
        let mut writer = Writer::new(options.downstream.clone(), tables.cloned(), number, claimed.epoch);
        let answers = answers.clone();
        writers.tasks.spawn(async move {
            if number < in_use {
                writer.warm_up().await;
            }
            while let Some(job) = inbox.recv().await {
                let result = writer.apply(&job).await;
                if answers.send(JobDone { writer: writer.number(), result }).await.is_err() {
                    return;
                }
            }
        });
        writers.jobs.push(jobs);
    }
    writers
}

/// Whether there is much between two places, as far as positions tell.
fn is_backlog(from: &Location, to: &Location) -> bool {
    let (from, to) = (&from.position, &to.position);
    from.file != to.file || to.offset.saturating_sub(from.offset) > BACKLOG
}
