//! The one actor that owns a subtask.
//!
//! Everyone else sends it a [`Command`] and reads a [`TaskStatus`]. Its loop only ever waits for its own inputs; what takes
//! time (the pipeline, the relay log's repair) runs in tasks that it owns. Park reasons are stored before a command is
//! answered, so that a pause survives whatever comes next. This file has the loop, the commands and what is published;
//! `course` has the pipelines' begin and end, `keep` what is stored.

mod course;
mod keep;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use self::course::{ended, finished};
use super::handle::{Command, TaskHandle, TaskSpec};
use super::lifecycle::{Effect, Event, step};
use super::meter::Meter;
use super::record::{ParkRecord, TableOrder};
use super::snapshot::{Counts, Parts, first_status, update};
use super::status::{BegunDdl, Park, ParkReason, Stage, TaskStatus, Unit};
use crate::error::{Code, Failure};
use crate::model::{Location, RowMark, SourceTable};
use crate::pipeline::{Doing, Outcome, Progress, Stop};
use crate::runtime::{Beat, Owned, spawn};

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
    /// What is kept on disk is to be stored at once.
    due: bool,
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
        due: false,
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
            if std::mem::take(&mut self.due) || keep.elapsed() >= KEEP {
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
        // Whoever asked may have gone away meanwhile.
        match command {
            Command::Park(reason, park, reply) => drop(reply.send(self.park(reason, park).await)),
            Command::Unpark(reasons, reply) => drop(reply.send(self.unpark(&reasons).await)),
            Command::ReadAgain(table, reply) => drop(reply.send(self.read_again(&table).await)),
            Command::Renew(reply) => {
                // The end of one pipeline begins the next, unless the task is to park anyway.
                if self.stage == Stage::Running {
                    self.drain();
                }
                drop(reply.send(Ok(())));
            }
            Command::Stop(reply) => drop(reply.send(self.stop().await)),
            Command::Shutdown(reply) => {
                self.resume_at = None;
                self.shutdown = Some(reply);
                self.drain();
            }
        }
        self.publish();
    }

    /// Adds a reason; it holds even where it cannot be stored.
    async fn park(&mut self, reason: ParkReason, park: Park) -> Result<(), Failure> {
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
        stored
    }

    /// Takes reasons away. What cannot be stored does not hold: a restart would find the task parked.
    async fn unpark(&mut self, reasons: &[ParkReason]) -> Result<(), Failure> {
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
            let full = self.record.parks.remove(&ParkReason::Disk);
            (self.record.parks, self.record.failures, self.retries, self.resume_at) = before;
            if let Some(full) = full {
                self.record.parks.entry(ParkReason::Disk).or_insert(full);
                self.resume_at = None;
            }
        }
        self.event(Event::Unpark);
        stored
    }

    /// Ends the task, unless its end could not be stored either: a restart would find it running.
    async fn stop(&mut self) -> Result<(), Failure> {
        if let Err(failure) = self.store().await {
            if !self.record.parks.is_empty() {
                self.event(Event::Park);
            }
            return Err(failure);
        }
        self.resume_at = None;
        self.event(Event::Stop);
        Ok(())
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

    fn take_progress(&mut self) {
        let Some(running) = &mut self.running else { return };
        let progress = running.progress.borrow_and_update().clone();
        self.told.clone_from(&progress.notes);
        if let Some(mark) = &progress.applied {
            self.record.applied = Some(mark.into());
        }
        let unit = self.record.unit;
        self.record.take_doing(&progress.doing);
        if let Some(copy) = &self.record.copy {
            self.counts.copied = (copy.tables_done, copy.tables);
        }
        let copied = unit == Unit::Load && self.record.unit == Unit::Sync;
        if self.record.unit != unit {
            // After a kill, too, a task that copies says so from the first status on.
            (self.kept, self.due) = ((None, false), true);
        }
        if progress.applied.is_some() {
            self.record.again = progress.again.iter().map(|known| known.table.to_string()).collect();
        }
        if progress.orders_taken && self.orders_given > 0 {
            // They stand downstream. Where this is not stored any more, a table is read once more from its beginning.
            self.record.orders.drain(..self.orders_given);
            self.orders_given = 0;
            (self.kept, self.due) = ((None, false), true);
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
        if copied {
            self.copy_is_over();
        }
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

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
