//! What a subtask is told, and by whom: its commands, the handle that sends them, and what its source does for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::meter::Pulse;
use super::status::{Park, ParkReason, TaskStatus};
use crate::error::{Code, Failure};
use crate::model::{Flavor, Location, SourceTable};
use crate::pipeline::PipelineSpec;
use crate::relay::{Relay, RelayError};
use crate::runtime::Beat;
use crate::store::CheckpointDb;

/// What a subtask is told.
pub(super) enum Command {
    /// Add a reason to be parked.
    Park(ParkReason, Park, oneshot::Sender<Result<(), Failure>>),
    /// Take reasons away.
    Unpark(Vec<ParkReason>, oneshot::Sender<Result<(), Failure>>),
    /// Read a table again.
    ReadAgain(SourceTable, oneshot::Sender<Result<(), Failure>>),
    /// Its recipe says something else now.
    Renew(oneshot::Sender<Result<(), Failure>>),
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
    /// A task needs nothing of the relay log any more.
    fn release(&self, task: &str);
    /// What is known of the source now.
    fn pulse(&self) -> Pulse;
}

/// What its pipelines are made of, asked anew at each start and resume: settings may have changed meanwhile.
#[tonic::async_trait]
pub trait Recipe: Send + Sync + 'static {
    /// What the next pipeline is made of; may have to ask both ends. A failure parks the task like one of the pipeline.
    /// Dropped where the task is parked meanwhile, so that what it did so far must be fit to be done again.
    async fn pipeline(&self) -> Result<PipelineSpec, Failure>;
    /// How it is resumed by itself.
    fn auto_resume(&self) -> AutoResume;
    /// What the operator should know of the settings that hold now.
    fn notes(&self) -> Vec<String>;
    /// Where the checkpoint downstream stands, as far as a [`Recipe::pipeline`] that failed has seen it.
    fn stands_at(&self) -> Option<Location>;
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
    pub(super) fn pause(&self, tries: u32, random: f64) -> Duration {
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
    /// Dialect of the source.
    pub flavor: Flavor,
    /// The source's relay log.
    pub relay: Relay,
    /// How long a pause waits for the end of a large transaction.
    pub drain_limit: Duration,
    /// What its pipelines are made of.
    pub recipe: Arc<dyn Recipe>,
    /// Its source.
    pub keeper: Arc<dyn RelayKeeper>,
    /// Where park reasons are kept.
    pub db: CheckpointDb,
}

/// A handle on a running driver.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<TaskStatus>,
    pub(super) beat: Beat,
}

impl TaskHandle {
    /// The same with another beat, as of a driver that does not move.
    #[cfg(test)]
    pub fn with_beat(self, beat: Beat) -> Self {
        TaskHandle { beat, ..self }
    }

    /// The status now.
    pub fn status(&self) -> TaskStatus {
        self.status.borrow().clone()
    }

    /// To wait for a status.
    pub fn watch(&self) -> watch::Receiver<TaskStatus> {
        self.status.clone()
    }

    /// Adds a reason to be parked; stored when it returns. Where it cannot be stored it holds all the same, as long as
    /// this process lives.
    pub async fn park(&self, reason: ParkReason, park: Park) -> Result<(), Failure> {
        self.ask(|reply| Command::Park(reason, park, reply)).await
    }

    /// Takes reasons away; stored when it returns.
    pub async fn unpark(&self, reasons: &[ParkReason]) -> Result<(), Failure> {
        self.ask(|reply| Command::Unpark(reasons.to_vec(), reply)).await
    }

    /// Has a table read again at the next boundary; stored when it returns. Refused where it does not follow the binlog now.
    pub async fn read_again(&self, table: SourceTable) -> Result<(), Failure> {
        self.ask(|reply| Command::ReadAgain(table, reply)).await
    }

    /// Its recipe says something else now: a running pipeline is ended at a boundary, and another one begun.
    pub async fn renew(&self) -> Result<(), Failure> {
        self.ask(Command::Renew).await
    }

    /// How long ago its driver last went round its loop, parked or not.
    pub fn quiet_for(&self) -> Duration {
        self.beat.age()
    }

    /// Whether its driver is gone.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Ends it; returns when it begins to. Refused, and nothing changes, where the end could not be stored.
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
