//! A pipeline's course: how it begins, how it is asked to end and cut off, and what its end means.
//!
//! Where a dm-worker does the same thing, its words for it are in the log line: scripts that drive workers look for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Driver, OURSELVES, Running};
use crate::error::{Code, Failure, Retry, retry_of};
use crate::model::{RowMark, SourceTable};
use crate::pipeline::{self, Outcome, Parked, PipelineSpec, Progress, Stop};
use crate::runtime::{Owned, spawn};
use crate::task::handle::Recipe;
use crate::task::lifecycle::Event;
use crate::task::record::TableOrder;
use crate::task::status::{Park, ParkReason, Stage};

/// How long beyond the drain limit a pipeline may take to end before it is cut off.
const GRACE: Duration = Duration::from_millis(700);

/// How long a pipeline may take to end when the lease is lost: enough for the group in flight and the checkpoint.
const HURRY: Duration = Duration::from_millis(800);

impl Driver {
    pub(super) fn start_pipeline(&mut self) {
        if self.shutdown.is_some() {
            return;
        }
        self.counts.starts += 1;
        let (stop, stop_seen) = watch::channel(Stop::Run);
        let (progress_out, progress) = watch::channel(Progress::default());
        self.notes = self.spec.recipe.notes();
        self.told.clear();
        let orders = self.record.orders.iter().map(TableOrder::table).collect();
        let run = run_pipeline(Arc::clone(&self.spec.recipe), orders, stop_seen, progress_out);
        let outcome = spawn("pipeline", run);
        self.orders_given = self.record.orders.len();
        self.running = Some(Running { stop, progress, outcome, since: Instant::now(), cut_off: None });
    }

    pub(super) fn drain(&mut self) {
        if let Some(running) = &mut self.running {
            running.stop.send_replace(Stop::Drain);
            running.cut_off = Some(Instant::now() + self.spec.drain_limit + GRACE);
        }
        // A pipeline that waits for its relay log is not there yet.
        if self.running.is_none() && self.repair.take().is_some() {
            self.event(Event::Ended);
        }
    }

    /// What cannot end in a moment is cut off.
    pub(super) fn hurry(&mut self) {
        if let Some(running) = &mut self.running {
            let soon = Instant::now() + HURRY;
            running.cut_off = running.cut_off.map(|at| at.min(soon));
        }
    }

    /// The downstream does not answer: what is in flight there is left to the stored positions.
    pub(super) fn cut_off(&mut self) {
        if let Some(running) = &mut self.running {
            // DDL goes on in the server whoever listens: parked is what the task is when it has ended, but for a task that
            // is not ours any more.
            let ours = !self.record.parks.contains_key(&ParkReason::Lease);
            let waits = self.stage == Stage::Pausing && self.shutdown.is_none() && ours;
            if waits && running.progress.borrow().ddl.is_some() {
                running.cut_off = Some(Instant::now() + GRACE);
                return;
            }
            tracing::warn!(task = %self.spec.name, "drain limit passed, the pipeline is cut off");
            running.outcome.abort();
            running.cut_off = None;
        }
    }

    pub(super) async fn ended(&mut self, outcome: Option<Outcome>) {
        self.take_progress();
        self.meter.pipeline_ended();
        self.read_again = self.read_again_told.0;
        let ran = self.running.take().map_or(Duration::ZERO, |running| running.since.elapsed());
        let applied = |mark: Option<RowMark>, driver: &mut Driver| {
            if let Some(mark) = mark {
                driver.record.applied = Some((&mark).into());
            }
        };
        match outcome {
            None => {}
            Some(Outcome::Parked(Parked { applied: mark, exact })) => {
                if exact {
                    self.record.flushed = mark.as_ref().map(|mark| (&RowMark::at(mark.location.clone())).into());
                }
                applied(mark, self);
            }
            Some(Outcome::Failed { failure, applied: mark }) => {
                applied(mark, self);
                self.failed(failure, ran);
            }
            Some(Outcome::Fenced) => self.fenced(),
            Some(Outcome::Finished(mark)) => {
                if let Some(mark) = &mark {
                    self.record.flushed = Some(mark.into());
                }
                applied(mark, self);
                self.record.finished = true;
                self.record.failures.clear();
                self.resume_at = None;
                // Nothing of the relay log will be read again.
                self.spec.keeper.release(&self.spec.name);
                self.copy_is_over();
                tracing::info!(task = %self.spec.name, source = %self.spec.source_id, "the task has come to its end");
                self.store_quietly().await;
                self.event(Event::Done);
                return;
            }
            Some(Outcome::RelayTooShort(location)) if self.stage == Stage::Running => {
                tracing::info!(%location, "the relay log begins anew where the task goes on");
                let keeper = Arc::clone(&self.spec.keeper);
                self.repair = Some(spawn("relay-repair", async move { keeper.reach_back(location).await }));
                return;
            }
            Some(Outcome::RelayDamaged(damage)) if self.stage == Stage::Running => {
                tracing::warn!(%damage, "a damaged part of the relay log is fetched again");
                let keeper = Arc::clone(&self.spec.keeper);
                self.repair = Some(spawn("relay-repair", async move { keeper.repair(damage).await }));
                return;
            }
            Some(Outcome::RelayTooShort(_) | Outcome::RelayDamaged(_)) => {}
        }
        self.store_quietly().await;
        self.event(Event::Ended);
    }

    /// In the words that scripts written for dm-worker wait for; there were no files that rows were dumped to.
    pub(super) fn copy_is_over(&mut self) {
        self.counts.copied.0 = self.counts.copied.1;
        let (task, source) = (&self.spec.name, &self.spec.source_id);
        tracing::info!(%task, %source, progress = "100.00 %", "existing rows are copied; clean dump files: there are none");
    }

    fn fenced(&mut self) {
        self.record.parks.insert(ParkReason::Lease, Park::now(OURSELVES));
        let message = format!("another agent has taken over task {} of source {}", self.spec.name, self.spec.source_id);
        tracing::error!("{message}");
        let remedy = "Please make sure that only one agent runs the task, then resume-task on that one.";
        self.record.failures = vec![Failure::new(Code::NotRunning, message).workaround(remedy)];
    }

    pub(super) async fn repaired(&mut self, result: Result<(), Failure>) {
        self.repair = None;
        if let Err(failure) = result {
            self.failed(failure, Duration::ZERO);
            self.store_quietly().await;
        }
        self.event(Event::Ended);
    }

    pub(super) fn failed(&mut self, failure: Failure, ran: Duration) {
        self.counts.failed += 1;
        self.record.parks.insert(ParkReason::Error, Park::now(OURSELVES));
        if ran >= self.spec.recipe.auto_resume().forget_after {
            self.retries = 0;
        }
        let heals = retry_of(&failure) != Retry::Never;
        self.counts.healing += u64::from(heals);
        if heals {
            tracing::warn!(task = %self.spec.name, error = %failure, "unit process error: task failed");
        } else {
            let text = "unit process error is not resumable: task failed and waits for an operator";
            tracing::error!(task = %self.spec.name, error = %failure, "{text}");
        }
        self.record.failures = vec![failure];
        self.schedule_resume();
    }

    /// Only where nothing but the error parks the task, and waiting may heal it.
    pub(super) fn schedule_resume(&mut self) {
        let only_error = self.record.parks.keys().all(|reason| *reason == ParkReason::Error);
        let heals = self.record.failures.iter().all(|failure| retry_of(failure) != Retry::Never);
        let wanted = !matches!(self.stage, Stage::Stopping) && self.shutdown.is_none();
        let auto_resume = self.spec.recipe.auto_resume();
        if auto_resume.enabled && only_error && heals && wanted {
            let pause = auto_resume.pause(self.retries, rand::random());
            self.retries += 1;
            self.resume_at = Some(Instant::now() + pause);
        }
    }

    /// What was received of the former server is still applied; nothing that follows can come from the new one.
    pub(super) async fn look_at_source(&mut self) {
        let all_applied = self.status.borrow().backlog_bytes == Some(0);
        if self.stage == Stage::Running
            && all_applied
            && let Some(failure) = self.stranger.take()
        {
            let ran = self.running.as_ref().map_or(Duration::ZERO, |running| running.since.elapsed());
            self.failed(failure, ran);
            self.store_quietly().await;
            self.event(Event::Park);
        }
    }

    pub(super) async fn resume_by_itself(&mut self) {
        self.resume_at = None;
        tracing::info!(task = %self.spec.name, retry = self.retries, "dispatch auto resume task: resuming by itself");
        self.record.parks.remove(&ParkReason::Error);
        self.store_quietly().await;
        self.event(Event::Unpark);
    }
}

/// A stop while it is still being found out what to run leaves nothing behind.
pub(super) async fn run_pipeline(
    recipe: Arc<dyn Recipe>,
    orders: Vec<SourceTable>,
    mut stop: watch::Receiver<Stop>,
    progress: watch::Sender<Progress>,
) -> Outcome {
    progress.send_modify(|progress| progress.activity = "looking at both ends".to_owned());
    let spec = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop != Stop::Run) => return Outcome::Parked(Parked { applied: None, exact: false }),
        spec = recipe.pipeline() => spec,
    };
    match spec {
        Ok(spec) => pipeline::run(PipelineSpec { orders, ..spec }, stop, progress).await,
        Err(failure) => {
            if let Some(stored) = recipe.stands_at() {
                progress.send_modify(|progress| progress.flushed = Some(stored));
            }
            Outcome::Failed { failure, applied: None }
        }
    }
}

/// `None` where it was cut off.
pub(super) async fn ended(running: &mut Option<Running>) -> Option<Outcome> {
    match running {
        Some(running) => match (&mut running.outcome).await {
            Ok(outcome) => Some(outcome),
            Err(error) if error.is_panic() => {
                let failure = Failure::new(Code::NotSet, "the pipeline broke off by a fault of the agent itself")
                    .workaround("Please report it with the agent's log, then resume-task.");
                Some(Outcome::Failed { failure, applied: None })
            }
            Err(_) => None,
        },
        None => std::future::pending().await,
    }
}

pub(super) async fn finished(repair: &mut Option<Owned<Result<(), Failure>>>) -> Result<(), Failure> {
    match repair {
        Some(repair) => repair.await.unwrap_or_else(|error| {
            Err(Failure::new(Code::NotSet, "repair of the relay log").cause(error.to_string()))
        }),
        None => std::future::pending().await,
    }
}
