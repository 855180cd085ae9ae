//! The one actor that owns a subtask.
//!
//! Everyone else sends it a [`Command`] and reads a [`TaskStatus`]. Its loop only ever waits for its own inputs; what takes
//! time (the pipeline, the relay log's repair) runs in tasks that it owns. Park reasons are stored before a command is
//! answered, so that a pause survives whatever comes next.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use super::lifecycle::{Effect, Event, step};
use super::meter::{Meter, Pulse};
use super::record::ParkRecord;
use super::status::{BegunDdl, Park, ParkReason, Stage, TaskStatus};
use crate::error::{Code, Failure, Retry, retry_of};
use crate::model::{Applied, Checkpointed, Dispatched, Location, RowMark, RowOrdinal};
use crate::pipeline::{self, Outcome, Parked, PipelineSpec, Progress, Stop};
use crate::relay::RelayError;
use crate::runtime::{Owned, spawn};
use crate::store::{Changes, CheckpointDb, Namespace};

/// How long beyond the drain limit a pipeline may take to end before it is cut off.
const GRACE: Duration = Duration::from_millis(700);
/// How often rates, lag and backlog are brought up to date.
const TICK: Duration = Duration::from_millis(100);
/// How often the applied location is kept on disk, for the status after a restart.
const KEEP: Duration = Duration::from_secs(1);
/// A pipeline that applies for this long has got over what failed before.
const SETTLED: Duration = Duration::from_secs(5);
/// Commands that wait.
const COMMANDS: usize = 16;

/// What a subtask is told.
#[derive(Debug)]
pub enum Command {
    /// Add a reason to be parked.
    Park(ParkReason, Park, oneshot::Sender<Result<(), Failure>>),
    /// Take reasons away.
    Unpark(Vec<ParkReason>, oneshot::Sender<Result<(), Failure>>),
    /// End.
    Stop(oneshot::Sender<Result<(), Failure>>),
    /// Drain for a shutdown of the daemon: nothing is stored but the checkpoint.
    Shutdown(oneshot::Sender<()>),
}

/// What the subtask's source does for it.
#[tonic::async_trait]
pub trait RelayKeeper: Send + Sync + 'static {
    /// Makes the relay log begin at or before `location`.
    async fn reach_back(&self, location: Location) -> Result<(), Failure>;
    /// Makes room to fetch a damaged part again.
    async fn repair(&self, damage: RelayError) -> Result<(), Failure>;
    /// What is known of the source now.
    fn pulse(&self) -> Pulse;
}

/// How a failed task is resumed by itself.
#[derive(Debug, Clone, Copy)]
pub struct AutoResume {
    /// Whether at all (`checker.check-enable`).
    pub enabled: bool,
    /// First pause (`checker.backoff-min`).
    pub first: Duration,
    /// How many times as long each next one is (`checker.backoff-factor`).
    pub factor: f64,
    /// Whether each pause is shortened by a random part, a half at most (`checker.backoff-jitter`).
    pub jitter: bool,
    /// Longest pause (`checker.backoff-max`).
    pub longest: Duration,
    /// Running this long makes the next failure a first one again (`checker.backoff-rollback`).
    pub forget_after: Duration,
}

impl AutoResume {
    /// The pause before the next try when `tries` were made already. `random` is from 0 to 1.
    fn pause(&self, tries: u32, random: f64) -> Duration {
        let grown = self.first.as_secs_f64() * self.factor.powi(i32::try_from(tries).unwrap_or(i32::MAX));
        let pause = grown.min(self.longest.as_secs_f64());
        Duration::from_secs_f64(if self.jitter { pause * (1.0 - random / 2.0) } else { pause })
    }
}

/// What a driver needs to know.
pub struct TaskSpec {
    /// Task name.
    pub name: String,
    /// Source id.
    pub source_id: String,
    /// What its pipelines are made of.
    pub pipeline: PipelineSpec,
    /// How it is resumed by itself.
    pub auto_resume: AutoResume,
    /// What the operator should know of its configuration.
    pub notes: Vec<String>,
    /// Its source.
    pub keeper: Arc<dyn RelayKeeper>,
    /// Where park reasons are kept.
    pub db: CheckpointDb,
}

/// A handle on a running driver.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<TaskStatus>,
}

impl TaskHandle {
    /// The status now.
    pub fn status(&self) -> TaskStatus {
        self.status.borrow().clone()
    }

    /// To wait for a status.
    pub fn watch(&self) -> watch::Receiver<TaskStatus> {
        self.status.clone()
    }

    /// Adds a reason to be parked; stored when it returns.
    pub async fn park(&self, reason: ParkReason, by: &str) -> Result<(), Failure> {
        let park = Park { since: SystemTime::now(), by: by.to_owned() };
        self.ask(|reply| Command::Park(reason, park, reply)).await
    }

    /// Takes reasons away; stored when it returns.
    pub async fn unpark(&self, reasons: &[ParkReason]) -> Result<(), Failure> {
        self.ask(|reply| Command::Unpark(reasons.to_vec(), reply)).await
    }

    /// Ends it; returns when it begins to.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.ask(Command::Stop).await
    }

    /// Drains it for a shutdown; returns when it has ended.
    pub async fn shut_down(&self) {
        let (reply, ended) = oneshot::channel();
        if self.commands.send(Command::Shutdown(reply)).await.is_ok() {
            // A driver that is gone has ended too.
            let _ = ended.await;
        }
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), Failure>>) -> Command) -> Result<(), Failure> {
        let gone = || Failure::new(Code::SubTaskNotFound, "the subtask has ended");
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

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
    shutdown: Option<oneshot::Sender<()>>,
}

/// Starts a driver. `parks` are the reasons kept from before.
pub fn start(spec: TaskSpec, record: ParkRecord) -> (TaskHandle, Owned<()>) {
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let (status, watch) = watch::channel(first_status(&spec, &record));
    let mut meter = Meter::new(spec.pipeline.relay.clone());
    let applied = watch.borrow().applied.as_ref().map(|applied| applied.0.clone());
    meter.restore(record.waiting_since, applied.as_ref());
    let driver = Driver {
        spec,
        record,
        stage: Stage::New,
        running: None,
        repair: None,
        retries: 0,
        resume_at: None,
        meter,
        status,
        kept: (None, false),
        shutdown: None,
    };
    (TaskHandle { commands, status: watch }, spawn("subtask", driver.run(inbox)))
}

fn first_status(spec: &TaskSpec, record: &ParkRecord) -> TaskStatus {
    let flavor = spec.pipeline.flavor;
    let applied = record.applied.as_ref().and_then(|mark| mark.to_mark(flavor).ok());
    let flushed = record.flushed.as_ref().and_then(|mark| mark.to_mark(flavor).ok());
    TaskStatus {
        name: spec.name.clone(),
        source_id: spec.source_id.clone(),
        // What was parked is so from the first instant that somebody can ask.
        stage: if record.parks.is_empty() { Stage::New } else { step(Stage::New, Event::Start, true).0 },
        parks: record.parks.clone(),
        failures: record.failures.clone(),
        auto_resume_at: None,
        activity: String::new(),
        dispatched: None,
        inside_transaction: applied.as_ref().map(|mark| mark.next).filter(|next| *next != RowOrdinal::default()),
        applied: applied.map(|mark| Applied(mark.location)),
        flushed: flushed.map(|mark| Checkpointed(mark.location)),
        lag: None,
        backlog_bytes: None,
        rows_total: 0,
        rows_per_second: 0.0,
        bytes_per_second: 0.0,
        eta: None,
        ddl: record.ddl.clone(),
        safe_mode: None,
        notes: spec.notes.clone(),
    }
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        if self.record.parks.contains_key(&ParkReason::Error) {
            self.schedule_resume();
        }
        self.event(Event::Start);
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
                _ = tick.tick() => self.publish(),
            }
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
                let stored = self.store().await;
                self.event(Event::Park);
                let _ = reply.send(stored);
            }
            Command::Unpark(reasons, reply) => {
                reasons.iter().for_each(|reason| drop(self.record.parks.remove(reason)));
                if reasons.contains(&ParkReason::Error) {
                    self.record.failures.clear();
                    (self.retries, self.resume_at) = (0, None);
                }
                let stored = self.store().await;
                self.event(Event::Unpark);
                let _ = reply.send(stored);
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
        let (stop, stop_seen) = watch::channel(Stop::Run);
        let (progress_out, progress) = watch::channel(Progress::default());
        let outcome = spawn("pipeline", pipeline::run(self.spec.pipeline.clone(), stop_seen, progress_out));
        self.running = Some(Running { stop, progress, outcome, since: Instant::now(), cut_off: None });
    }

    fn drain(&mut self) {
        if let Some(running) = &mut self.running {
            running.stop.send_replace(Stop::Drain);
            running.cut_off = Some(Instant::now() + self.spec.pipeline.drain_limit + GRACE);
        }
        // A pipeline that waits for its relay log is not there yet.
        if self.running.is_none() && self.repair.take().is_some() {
            self.event(Event::Ended);
        }
    }

    /// The downstream does not answer: what is in flight there is left to the stored positions.
    fn cut_off(&mut self) {
        if let Some(running) = &mut self.running {
            // DDL goes on in the server whoever listens: parked is what the task is when it has ended.
            if self.stage == Stage::Pausing && self.shutdown.is_none() && running.progress.borrow().ddl.is_some() {
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
                let park = Park { since: SystemTime::now(), by: "dm-agent".to_owned() };
                self.record.parks.insert(ParkReason::Lease, park);
                let message =
                    format!("another agent has taken over task {} of source {}", self.spec.name, self.spec.source_id);
                tracing::error!("{message}");
                self.record.failures =
                    vec![Failure::new(Code::NotRunning, message).workaround(
                        "Please make sure that only one agent runs the task, then resume-task on that one.",
                    )];
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
        let park = Park { since: SystemTime::now(), by: "dm-agent".to_owned() };
        self.record.parks.insert(ParkReason::Error, park);
        if ran >= self.spec.auto_resume.forget_after {
            self.retries = 0;
        }
        let heals = retry_of(&failure) != Retry::Never;
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
        if self.spec.auto_resume.enabled && only_error && heals && wanted {
            let pause = self.spec.auto_resume.pause(self.retries, rand::random());
            self.retries += 1;
            self.resume_at = Some(Instant::now() + pause);
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
        if let Some(mark) = &progress.applied {
            self.record.applied = Some(mark.into());
        }
        self.record.ddl =
            progress.ddl.as_ref().map(|ddl| BegunDdl { statement: ddl.statement.clone(), since: ddl.since });
        if let Some(location) = &progress.flushed {
            self.record.flushed = Some((&RowMark::at(location.clone())).into());
        }
        // Once rows are applied, or it has been at it for a while, what it failed with is over.
        let settled = running.since.elapsed() >= SETTLED && progress.activity == "applying";
        if progress.rows > 0 || settled {
            self.record.failures.clear();
        }
        self.meter.take(&progress);
    }

    fn publish(&mut self) {
        self.take_progress();
        let pulse = self.spec.keeper.pulse();
        let applied = self.status.borrow().applied.as_ref().map(|applied| applied.0.clone());
        let reading = self.meter.read(self.stage == Stage::Running, &pulse, applied.as_ref());
        self.record.waiting_since = self.meter.waiting_since();
        let progress = self.running.as_ref().map(|running| running.progress.borrow().clone());
        let activity = match (&progress, self.stage, &self.repair) {
            (_, _, Some(_)) => "waiting for the relay log".to_owned(),
            (Some(progress), Stage::Pausing, _) => match &progress.ddl {
                Some(ddl) => format!("pausing: {} downstream since {}", progress.activity, clock(ddl.since)),
                None => format!("draining ({})", progress.activity),
            },
            (Some(progress), ..) => progress.activity.clone(),
            (None, Stage::Paused, _) => match &self.record.ddl {
                Some(ddl) => format!(
                    "parked; contact was lost while DDL ran, which may still be at work downstream, since {}: {}",
                    clock(ddl.since),
                    ddl.statement
                ),
                None => "parked".to_owned(),
            },
            (None, ..) => String::new(),
        };
        let auto_resume_at = self.resume_at.map(|at| SystemTime::now() + at.saturating_duration_since(Instant::now()));
        let (stage, record, flavor) = (self.stage, &self.record, self.spec.pipeline.flavor);
        let notes = &self.spec.notes;
        self.status.send_modify(|status| {
            status.stage = stage;
            status.parks.clone_from(&record.parks);
            status.failures.clone_from(&record.failures);
            status.auto_resume_at = auto_resume_at;
            status.activity = activity;
            let mark = progress.as_ref().and_then(|progress| progress.applied.clone());
            let mark = mark.or_else(|| record.applied.as_ref().and_then(|mark| mark.to_mark(flavor).ok()));
            if let Some(mark) = mark {
                status.inside_transaction = Some(mark.next).filter(|next| *next != RowOrdinal::default());
                status.applied = Some(Applied(mark.location));
            }
            if let Some(location) = progress.as_ref().and_then(|progress| progress.flushed.clone()) {
                status.flushed = Some(Checkpointed(location));
            } else if let Some(mark) = record.flushed.as_ref().and_then(|mark| mark.to_mark(flavor).ok()) {
                status.flushed = Some(Checkpointed(mark.location));
            }
            status.dispatched = progress.as_ref().and_then(|progress| progress.dispatched.clone()).map(Dispatched);
            status.ddl.clone_from(&record.ddl);
            if let Some(progress) = &progress {
                status.notes = notes.iter().chain(&progress.notes).cloned().collect();
            }
            status.safe_mode = progress.and_then(|progress| progress.safe_mode);
            status.lag = reading.lag;
            status.backlog_bytes = reading.backlog_bytes;
            status.rows_total = reading.rows_total;
            status.rows_per_second = reading.rows_per_second;
            status.bytes_per_second = reading.bytes_per_second;
            status.eta = reading.eta;
        });
    }

    fn key(&self) -> String {
        record_key(&self.spec.source_id, &self.spec.name)
    }

    async fn store(&mut self) -> Result<(), Failure> {
        let stored = self.spec.db.put(Namespace::Park, &self.key(), &self.record).await;
        stored.map_err(|error| {
            Failure::new(Code::RelayStore, "store why the task is parked")
                .cause(error.to_string())
                .workaround("Please check the disk under the state directory.")
        })
    }

    async fn store_quietly(&mut self) {
        if let Err(failure) = self.store().await {
            tracing::error!(error = %failure, "the reason to be parked is not on disk");
        }
    }

    /// What was applied last, for the status after a restart.
    async fn keep(&mut self) {
        let applied = self.status.borrow().applied.as_ref().map(|applied| applied.0.clone());
        let now = (applied, self.record.waiting_since.is_some());
        if now != self.kept && self.stage != Stage::Stopped {
            self.store_quietly().await;
            self.kept = now;
        }
    }
}

/// Between source id and task name in a key: a character that neither has.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// Where a subtask's records stand in a namespace.
pub fn record_key(source_id: &str, task: &str) -> String {
    format!("{source_id}{KEY_SEPARATOR}{task}")
}

/// Removes what a driver kept of a subtask.
pub fn forget(changes: Changes, source_id: &str, task: &str) -> Changes {
    changes.remove(Namespace::Park, &record_key(source_id, task))
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

/// `2026-11-22 19:00:00 UTC`.
fn clock(time: SystemTime) -> String {
    let at = time::OffsetDateTime::from(time);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    at.format(&format).unwrap_or_default()
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_are_only_shortened() {
        let seconds = Duration::from_secs;
        let plain = AutoResume {
            enabled: true,
            first: seconds(2),
            factor: 3.0,
            jitter: false,
            longest: seconds(20),
            forget_after: seconds(1),
        };
        let pauses: Vec<_> = (0..5).map(|tries| plain.pause(tries, 0.9).as_secs()).collect();
        assert_eq!(pauses, [2, 6, 18, 20, 20]);
        assert_eq!(plain.pause(u32::MAX, 0.0), seconds(20));
        let jitter = AutoResume { jitter: true, ..plain };
        assert_eq!((jitter.pause(1, 0.0), jitter.pause(1, 1.0)), (seconds(6), seconds(3)));
    }
}
