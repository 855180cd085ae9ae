//! The one actor that owns a subtask.
//!
//! Everyone else sends it a [`Command`] and reads a [`TaskStatus`]. Its loop only ever waits for its own inputs; what takes
//! time (the pipeline, the relay log's repair) runs in tasks that it owns. Park reasons are stored before a command is
//! answered, so that a pause survives whatever comes next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use super::handle::{Command, Recipe, TaskHandle, TaskSpec};
use super::lifecycle::{Effect, Event, step};
use super::meter::Meter;
use super::record::{ParkRecord, TableOrder};
use super::snapshot::{Counts, Parts, first_status, update};
use super::status::{BegunDdl, Park, ParkReason, Stage, TaskStatus, Unit};
use crate::error::{Code, Failure, Retry, retry_of};
use crate::model::{Location, RowMark, SourceTable};
use crate::pipeline::{self, Doing, Outcome, Parked, PipelineSpec, Progress, Stop};
use crate::runtime::{Beat, Owned, spawn};
use crate::store::{Changes, Namespace, StoreError};

/// How long beyond the drain limit a pipeline may take to end before it is cut off.
const GRACE: Duration = Duration::from_millis(700);
/// How long a pipeline may take to end when the lease is lost: enough for the group in flight and the checkpoint.
const HURRY: Duration = Duration::from_millis(800);
/// How often rates, lag and backlog are brought up to date.
const TICK: Duration = Duration::from_millis(100);
/// How often the applied location is kept on disk, for the status after a restart.
const KEEP: Duration = Duration::from_secs(1);
/// A pipeline that applies for this long has got over what failed before.
const SETTLED: Duration = Duration::from_secs(5);
/// Who parks where nobody asked for it.
const OURSELVES: &str = "dm-agent";
/// Commands that wait.
const COMMANDS: usize = 16;

struct Running {
    stop: watch::Sender<Stop>,
    progress: watch::Receiver<Progress>,
    outcome: Owned<Outcome>,
    since: Instant,
    /// When a drain is cut off.
    cut_off: Option<Instant>,
}

struct Driver {
    spec: TaskSpec,
    /// What the operator should know of the settings that the present pipeline was made with.
    notes: Vec<String>,
    /// What that pipeline told them, which stays when it has ended.
    told: BTreeSet<String>,
    record: ParkRecord,
    stage: Stage,
    running: Option<Running>,
    /// Work on the relay log that a pipeline asked for.
    repair: Option<Owned<Result<(), Failure>>>,
    retries: u32,
    resume_at: Option<Instant>,
    meter: Meter,
    status: watch::Sender<TaskStatus>,
    /// What was stored last: applied, and whether anything waited.
    kept: (Option<Location>, bool),
    /// The last try to store something failed.
    unstored: bool,
    /// Pipelines begun, and failures.
    counts: Counts,
    /// Why nothing more can come from the source.
    stranger: Option<Failure>,
    /// How many of the orders the present pipeline was given; 0 when it has taken them in.
    orders_given: usize,
    /// Tables that former pipelines have read again.
    read_again: u64,
    /// Of all of them, and what is to be said of the last one.
    read_again_told: (u64, String),
    /// Moves with each round of the loop.
    beat: Beat,
    shutdown: Option<oneshot::Sender<()>>,
}

/// Starts a driver. `parks` are the reasons kept from before.
pub fn start(spec: TaskSpec, record: ParkRecord) -> (TaskHandle, Owned<()>) {
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let beat = Beat::new();
    let (status, watch) = watch::channel(first_status(&spec, &record));
    let mut meter = Meter::new(spec.relay.clone());
    let notes = spec.recipe.notes();
    let applied = watch.borrow().applied.as_ref().map(|applied| applied.0.clone());
    meter.restore(record.waiting_since, applied.as_ref());
    let driver = Driver {
        spec,
        notes,
        told: BTreeSet::new(),
        record,
        stage: Stage::New,
        running: None,
        repair: None,
        retries: 0,
        resume_at: None,
        meter,
        status,
        kept: (None, false),
        unstored: false,
        counts: Counts::default(),
        stranger: None,
        orders_given: 0,
        read_again: 0,
        read_again_told: (0, String::new()),
        beat: beat.clone(),
        shutdown: None,
    };
    (TaskHandle { commands, status: watch, beat }, spawn("subtask", driver.run(inbox)))
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        if self.record.parks.contains_key(&ParkReason::Error) {
            self.schedule_resume();
        }
        self.event(if self.record.finished { Event::Done } else { Event::Start });
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut keep = Instant::now();
        while self.stage != Stage::Stopped {
            let resume_at = self.resume_at.map(tokio::time::Instant::from_std);
            let cut_off = self.running.as_ref().and_then(|running| running.cut_off).map(tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                outcome = ended(&mut self.running) => self.ended(outcome).await,
                repaired = finished(&mut self.repair) => self.repaired(repaired).await,
                () = until(cut_off) => self.cut_off(),
                () = until(resume_at) => self.resume_by_itself().await,
                _ = tick.tick() => {
                    self.publish();
                    self.look_at_source().await;
                }
            }
            self.beat.strike();
            if self.shutdown.is_some() && self.running.is_none() {
                break;
            }
            if keep.elapsed() >= KEEP {
                keep = Instant::now();
                self.keep().await;
            }
        }
        self.keep().await;
        if let Some(shutdown) = self.shutdown.take() {
            // Whoever asked may have lost patience.
            let _ = shutdown.send(());
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Park(reason, park, reply) => {
                self.record.parks.entry(reason).or_insert(park);
                if reason != ParkReason::Error {
                    self.resume_at = None;
                }
                if reason == ParkReason::Lease {
                    // Another owner may begin soon. Waiting for the disk must not hold this up, and need not: without a
                    // lease nothing runs after a restart.
                    self.event(Event::Park);
                    self.hurry();
                }
                let stored = self.store().await;
                self.event(Event::Park);
                let _ = reply.send(stored);
            }
            Command::Unpark(reasons, reply) => {
                let before = (self.record.parks.clone(), self.record.failures.clone(), self.retries, self.resume_at);
                reasons.iter().for_each(|reason| drop(self.record.parks.remove(reason)));
                if reasons.contains(&ParkReason::Error) {
                    self.record.failures.clear();
                    (self.retries, self.resume_at) = (0, None);
                } else if self.resume_at.is_none() && self.record.parks.contains_key(&ParkReason::Error) {
                    // What kept it from trying again by itself may be gone.
                    self.schedule_resume();
                }
                let stored = self.store().await;
                if stored.is_err() {
                    // What is refused does not hold: a restart would find the task parked.
                    let full = self.record.parks.remove(&ParkReason::Disk);
                    (self.record.parks, self.record.failures, self.retries, self.resume_at) = before;
                    if let Some(full) = full {
                        self.record.parks.entry(ParkReason::Disk).or_insert(full);
                        self.resume_at = None;
                    }
                }
                self.event(Event::Unpark);
                let _ = reply.send(stored);
            }
            Command::ReadAgain(table, reply) => {
                let _ = reply.send(self.read_again(&table).await);
            }
            Command::Renew(reply) => {
                // The end of one pipeline begins the next, unless the task is to park anyway.
                if self.stage == Stage::Running {
                    self.drain();
                }
                let _ = reply.send(Ok(()));
            }
            Command::Stop(reply) => {
                self.resume_at = None;
                self.event(Event::Stop);
                let _ = reply.send(Ok(()));
            }
            Command::Shutdown(reply) => {
                self.resume_at = None;
                self.shutdown = Some(reply);
                self.drain();
            }
        }
        self.publish();
    }

    /// Stores the order, and ends the pipeline at a boundary: the next one takes it in before anything else.
    async fn read_again(&mut self, table: &SourceTable) -> Result<(), Failure> {
        follows(self.stage, self.record.unit)?;
        let order = TableOrder::from(table);
        if !self.record.orders.contains(&order) {
            self.record.orders.push(order);
            if let Err(failure) = self.store().await {
                self.record.orders.pop();
                return Err(failure);
            }
        }
        tracing::info!(task = %self.spec.name, source = %self.spec.source_id, %table, "is ordered to be read again");
        self.drain();
        Ok(())
    }

    /// Goes on in the table, and does what it says.
    fn event(&mut self, event: Event) {
        let (stage, effect) = step(self.stage, event, !self.record.parks.is_empty());
        if stage != self.stage {
            tracing::info!(task = %self.spec.name, source = %self.spec.source_id, from = self.stage.as_str(), to = stage.as_str(), "stage");
        }
        self.stage = stage;
        match effect {
            Effect::None | Effect::Remove => {}
            Effect::StartPipeline => self.start_pipeline(),
            Effect::Drain => self.drain(),
        }
        self.publish();
    }

    fn start_pipeline(&mut self) {
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

    fn drain(&mut self) {
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
    fn hurry(&mut self) {
        if let Some(running) = &mut self.running {
            let soon = Instant::now() + HURRY;
            running.cut_off = running.cut_off.map(|at| at.min(soon));
        }
    }

    /// The downstream does not answer: what is in flight there is left to the stored positions.
    fn cut_off(&mut self) {
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

    async fn ended(&mut self, outcome: Option<Outcome>) {
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
            Some(Outcome::Fenced) => {
                self.record.parks.insert(ParkReason::Lease, Park::now(OURSELVES));
                let message =
                    format!("another agent has taken over task {} of source {}", self.spec.name, self.spec.source_id);
                tracing::error!("{message}");
                self.record.failures =
                    vec![Failure::new(Code::NotRunning, message).workaround(
                        "Please make sure that only one agent runs the task, then resume-task on that one.",
                    )];
            }
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

    async fn repaired(&mut self, result: Result<(), Failure>) {
        self.repair = None;
        if let Err(failure) = result {
            self.failed(failure, Duration::ZERO);
            self.store_quietly().await;
        }
        self.event(Event::Ended);
    }

    fn failed(&mut self, failure: Failure, ran: Duration) {
        self.counts.failed += 1;
        self.record.parks.insert(ParkReason::Error, Park::now(OURSELVES));
        if ran >= self.spec.recipe.auto_resume().forget_after {
            self.retries = 0;
        }
        let heals = retry_of(&failure) != Retry::Never;
        self.counts.healing += u64::from(heals);
        if heals {
            tracing::warn!(task = %self.spec.name, error = %failure, "task failed");
        } else {
            tracing::error!(task = %self.spec.name, error = %failure, "task failed and waits for an operator");
        }
        self.record.failures = vec![failure];
        self.schedule_resume();
    }

    /// Only where nothing but the error parks the task, and waiting may heal it.
    fn schedule_resume(&mut self) {
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
    async fn look_at_source(&mut self) {
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

    async fn resume_by_itself(&mut self) {
        self.resume_at = None;
        tracing::info!(task = %self.spec.name, retry = self.retries, "resuming by itself");
        self.record.parks.remove(&ParkReason::Error);
        self.store_quietly().await;
        self.event(Event::Unpark);
    }

    fn take_progress(&mut self) {
        let Some(running) = &mut self.running else { return };
        let progress = running.progress.borrow_and_update().clone();
        self.told.clone_from(&progress.notes);
        if let Some(mark) = &progress.applied {
            self.record.applied = Some(mark.into());
        }
        self.record.take_doing(&progress.doing);
        if progress.applied.is_some() {
            self.record.again = progress.again.iter().map(|known| known.table.to_string()).collect();
        }
        if progress.orders_taken && self.orders_given > 0 {
            // They stand downstream. Where this is not stored any more, a table is read once more than it need be.
            self.record.orders.drain(..self.orders_given);
            self.orders_given = 0;
            self.kept = (None, false);
        }
        if progress.read_again.0 > 0 {
            self.read_again_told = (self.read_again + progress.read_again.0, progress.read_again.1.clone());
        }
        self.record.ddl =
            progress.ddl.as_ref().map(|ddl| BegunDdl { statement: ddl.statement.clone(), since: ddl.since });
        if let Some(location) = &progress.flushed {
            self.record.flushed = Some((&RowMark::at(location.clone())).into());
        }
        // Once rows are applied, or it has been at it for a while, what it failed with is over.
        let copies = matches!(&progress.doing, Doing::Copying(copy) if copy.chunks_written > 0);
        let settled = running.since.elapsed() >= SETTLED && (progress.activity == "applying" || copies);
        // But not while it drains because of one.
        let parks = self.record.parks.contains_key(&ParkReason::Error);
        if !parks && (progress.rows > 0 || settled) {
            self.record.failures.clear();
        }
        self.meter.take(&progress);
    }

    fn publish(&mut self) {
        self.take_progress();
        let pulse = self.spec.keeper.pulse();
        self.stranger.clone_from(&pulse.stranger);
        let applied = self.status.borrow().applied.as_ref().map(|applied| applied.0.clone());
        let copy = self.record.copy.as_ref();
        let reading = self.meter.read(self.stage == Stage::Running, &pulse, applied.as_ref(), copy);
        self.record.waiting_since = self.meter.waiting_since();
        let progress = self.running.as_ref().map(|running| running.progress.borrow().clone());
        let parts = Parts {
            stage: self.stage,
            record: &self.record,
            notes: &self.notes,
            told: &self.told,
            flavor: self.spec.flavor,
            progress: progress.as_ref(),
            repairing: self.repair.is_some(),
            auto_resume_at: self.resume_at.map(|at| SystemTime::now() + at.saturating_duration_since(Instant::now())),
            reading,
            read_again: &self.read_again_told,
            counts: self.counts,
        };
        self.status.send_modify(|status| update(status, parts));
    }

    fn key(&self) -> String {
        record_key(&self.spec.source_id, &self.spec.name)
    }

    /// Where the disk has no room for it, that is one more reason to be parked; whoever looks after the disk takes it
    /// away again.
    async fn store(&mut self) -> Result<(), Failure> {
        let stored = self.spec.db.put(Namespace::Park, &self.key(), &self.record).await;
        if let Err(error @ StoreError::Full { .. }) = &stored {
            let full = Park::now(OURSELVES).note(error.to_string());
            self.record.parks.entry(ParkReason::Disk).or_insert(full);
            self.resume_at = None;
        }
        stored.map_err(|error| {
            Failure::new(Code::RelayStore, "store why the task is parked")
                .cause(error.to_string())
                .workaround("Please make room on the disk under the state directory, or repair it.")
        })
    }

    /// Said once, not each second while a disk stays full.
    async fn store_quietly(&mut self) {
        match self.store().await {
            Ok(()) => self.unstored = false,
            Err(failure) => {
                if !std::mem::replace(&mut self.unstored, true) {
                    tracing::error!(task = %self.spec.name, error = %failure, "what is kept of the task is not on disk");
                }
            }
        }
    }

    /// What was applied last, for the status after a restart.
    async fn keep(&mut self) {
        let applied = self.status.borrow().applied.as_ref().map(|applied| applied.0.clone());
        let now = (applied, self.record.waiting_since.is_some());
        if now != self.kept && self.stage != Stage::Stopped {
            self.store_quietly().await;
            if !self.unstored {
                self.kept = now;
            } else if self.stage == Stage::Running && !self.record.parks.is_empty() {
                self.event(Event::Park);
            }
        }
    }
}

/// Fails where a task does not follow the binlog now.
pub fn follows(stage: Stage, unit: Unit) -> Result<(), Failure> {
    if stage != Stage::Running {
        let text = format!("current stage is {} but not running, invalid", stage.as_str());
        return Err(Failure::new(Code::NotRunning, text).workaround(
            "A table is read again while its task runs. Please resume-task, then give the command again.",
        ));
    }
    if unit != Unit::Sync {
        let text = "the task still copies existing rows, this table's too";
        return Err(Failure::new(Code::NotRunning, text)
            .workaround("Please wait until it follows the binlog (`status` says so), then give the command again."));
    }
    Ok(())
}

/// Between source id and task name in a key: a character that neither has.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// Where a subtask's records stand in a namespace.
pub fn record_key(source_id: &str, task: &str) -> String {
    format!("{source_id}{KEY_SEPARATOR}{task}")
}

/// Removes what is kept of a subtask beside its record: why it was parked, what was ordered about events, and what was
/// declared of tables.
pub fn forget(changes: Changes, source_id: &str, task: &str) -> Changes {
    let key = record_key(source_id, task);
    changes.remove(Namespace::Park, &key).remove(Namespace::Operator, &key).remove(Namespace::Schema, &key)
}

/// A stop while it is still being found out what to run leaves nothing behind.
async fn run_pipeline(
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
        Err(failure) => Outcome::Failed { failure, applied: None },
    }
}

/// `None` where it was cut off.
async fn ended(running: &mut Option<Running>) -> Option<Outcome> {
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

async fn finished(repair: &mut Option<Owned<Result<(), Failure>>>) -> Result<(), Failure> {
    match repair {
        Some(repair) => repair.await.unwrap_or_else(|error| {
            Err(Failure::new(Code::NotSet, "repair of the relay log").cause(error.to_string()))
        }),
        None => std::future::pending().await,
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
