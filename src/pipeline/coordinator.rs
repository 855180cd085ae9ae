//! The loop between intake and lanes: one group at work, the next one ready, checkpoints in between.
//!
//! Priorities of the loop: a stop, a writer's answer, more to take in, the clock. A group is dealt out when every writer is
//! idle, so that between groups all lanes stand at one mark and a checkpoint, a DDL statement or a park needs no further
//! agreement. A group's way is in `groups`, safe mode in `safe`. A stop ends intake first and then follows a loop of its own, in
//! `drain`; what is stored meanwhile is in `storing`.

mod ddl;
mod drain;
mod fallback;
mod groups;
mod replay;
mod safe;
mod storing;
mod writers;
mod yielding;

pub(super) use replay::stopping;

use std::time::{Duration, Instant};

use mysql_async::Conn;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::groups::{AtWork, Ready};
use self::safe::Safe;
use self::yielding::{Go, Yielding, rested};
use super::former::{FormError, Former, OtherTransaction, Want};
use super::item::{IntakeEnd, Queued};
use super::mapping::Outdated;
use super::pace::{Pace, Paces};
use super::progress::{AgainProgress, Progress};
use super::window::{Window, Windows};
use super::{Outcome, Stop};
use crate::apply::{ApplyError, Downstream, Job, JobDone};
use crate::checkpoint::{Book, Claimed, Kept, SafeWindow};
use crate::error::{Code, Failure};
use crate::meta::{DdlIntent, MetaTables};
use crate::model::{Location, RowMark};
use crate::snapshot::CopySpec;

/// Items that are taken in between two looks at everything else, while lanes are at work. Idle ones get whatever is there.
const AT_ONCE: usize = 256;
/// How long the first group of a catch-up is waited for to be a full one. A small one would keep all lanes but one idle for
/// several times as long.
const FILL: Duration = Duration::from_millis(5);
/// How often idle lanes' positions are moved along.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// What the coordinator needs to know.
pub struct CoordinatorOptions {
    /// The downstream.
    pub downstream: Downstream,
    /// The task's tables.
    pub tables: MetaTables,
    /// What was claimed.
    pub claimed: Claimed,
    /// How often DM's row is written.
    pub flush_interval: Duration,
    /// How long a pause waits for the end of a large transaction.
    pub drain_limit: Duration,
    /// DM's safe mode: always on, by the task's configuration.
    pub always_safe: bool,
    /// How long safe mode lasts where its end is not known.
    pub safe_duration: Duration,
    /// Told whenever a mark is stored that a restart begins at or after: the relay may drop what is before it.
    pub on_stored: Box<dyn Fn(&Location) + Send + Sync>,
    /// Set where lanes are given changes as before they were left apart, and not as the task wants it now.
    pub outdated: Outdated,
    /// End of what was received, for the exit-safe point of a park inside a transaction.
    pub received: Box<dyn Fn() -> Option<Location> + Send + Sync>,
    /// What is left to be done behind a copy.
    pub windows: Windows,
    /// How tables are read again there.
    pub copy: CopySpec,
    /// The task ends where the window does.
    pub ends: bool,
    /// What former pipelines learned of downstreams, and the name of this one.
    pub paces: Paces,
    /// See there.
    pub target: String,
}

/// Why the loop ended before a stop.
enum Ended {
    Failed(Failure),
    Intake(IntakeEnd),
    Fenced,
    /// A stop interrupted a DDL statement that had not begun.
    Interrupted,
    /// The transaction behind this place came otherwise than it was applied: it must be applied once more.
    OtherRows(Box<Location>),
}

impl From<ApplyError> for Ended {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Failed(failure) => Ended::Failed(failure),
            ApplyError::Fenced(_) => Ended::Fenced,
            ApplyError::Interrupted => Ended::Interrupted,
        }
    }
}

impl From<FormError> for Ended {
    fn from(error: FormError) -> Self {
        match error {
            FormError::OtherRows { at } => Ended::OtherRows(at),
            other => Ended::Failed(form_failure(&other)),
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}

/// The loop's state.
pub struct Coordinator {
    options: CoordinatorOptions,
    former: Former,
    writers: Vec<mpsc::Sender<Job>>,
    done: mpsc::Receiver<JobDone>,
    /// Owns the writers: they end with the coordinator.
    tasks: JoinSet<()>,
    control: Option<Conn>,
    control_used: Instant,
    at_work: Option<AtWork>,
    ready: Option<Ready>,
    applied: RowMark,
    /// Stored marks of lanes that a crash left ahead of `applied`. While there are any, nothing is stored: it would set
    /// those lanes back, and their rows would come twice.
    ahead: Vec<RowMark>,
    stored: RowMark,
    last_mark: Instant,
    last_flush: Instant,
    flushed: Location,
    pace: Pace,
    safe_until: Option<Safe>,
    /// What is being applied is a transaction that is applied once more, in safe mode.
    again: bool,
    /// Up to here tables without transactions may be ahead of the lanes' marks.
    loose_until: Option<RowMark>,
    /// What this machine keeps.
    book: Book,
    intent: Option<DdlIntent>,
    /// The first DDL statement may have run: another worker ended without saying how far it came.
    ddl_may_be_done: bool,
    /// Start of a DDL statement that ran and whose end is not stored yet.
    ddl_start: Option<RowMark>,
    intake_end: Option<IntakeEnd>,
    /// How often stale tables were read again at the window's end.
    heals: u32,
    /// Much waits, and nothing was dealt out yet: since when there is some of it, once there is.
    filling: Option<Option<Instant>>,
    /// Behind a copy, as long as its replay makes room for others.
    yielding: Option<Yielding>,
    progress: watch::Sender<Progress>,
}

impl Coordinator {
    /// Starts the writers, as many as there are lanes.
    pub fn new(options: CoordinatorOptions, control: Conn, progress: watch::Sender<Progress>) -> Self {
        let claimed = &options.claimed;
        let flavor = claimed.start.location.gtids.flavor();
        let safe_until = match (&claimed.safe, options.always_safe) {
            (_, true) => Some(Safe::Always),
            (Some(SafeWindow::Until(mark)), _) => {
                Some(mark.to_mark(flavor).map_or(Safe::For(options.safe_duration), Safe::At))
            }
            (Some(SafeWindow::Unknown), _) => Some(Safe::For(options.safe_duration)),
            (None, _) => None,
        };
        let window = options.windows.now();
        let safe_until = match (&window, safe_until) {
            (_, Some(Safe::Always)) => Some(Safe::Always),
            (Some(window), _) => Some(Safe::At(RowMark::at(window.until().clone()))),
            (None, safe) => safe,
        };
        match &safe_until {
            Some(Safe::At(mark)) => {
                // In a dm-worker's words and with its fields: scripts look for the places.
                tracing::info!(
                    task = options.tables.task(), unit = "binlog replication", exitPoint = %mark.location,
                    beginLocation = %claimed.start.location, "compare exitPoint and beginLocation"
                );
                tracing::info!(location = %mark.location, "enable safe-mode for safe mode exit point, will exit at");
            }
            Some(Safe::For(duration)) => {
                let seconds = duration.as_secs();
                let duration =
                    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) };
                tracing::info!(duration, "enable safe-mode because of task initialization");
            }
            Some(Safe::Always | Safe::When(_)) | None => {}
        }
        let book = claimed.book.clone();
        let with_rows = (book.kept() == Kept::Downstream).then(|| options.tables.clone());
        let loose = book.window().filter(|window| with_rows.is_some() && !claimed.start.has_reached(window));
        let pace = options.paces.of(&options.target, claimed.marks.len());
        let lanes = writers::start(&options, with_rows.as_ref(), &pace);
        fallback::note_kept_here(claimed, &progress);
        let one_sequence = options.downstream.checks_foreign_keys;
        let former = Former::new(claimed.marks.clone(), claimed.start.clone(), one_sequence);
        let now = Instant::now();
        Coordinator {
            former,
            pace,
            writers: lanes.jobs,
            done: lanes.done,
            tasks: lanes.tasks,
            control: Some(control),
            control_used: now,
            at_work: None,
            ready: None,
            applied: claimed.start.clone(),
            ahead: claimed.marks.iter().filter(|mark| **mark != claimed.start).cloned().collect(),
            stored: claimed.start.clone(),
            last_mark: now,
            last_flush: now,
            flushed: claimed.flushed.clone(),
            safe_until,
            again: false,
            loose_until: loose.cloned(),
            book,
            intent: claimed.intent.clone(),
            ddl_may_be_done: claimed.safe == Some(SafeWindow::Unknown),
            ddl_start: None,
            intake_end: None,
            heals: 0,
            filling: lanes.backlog.then_some(None),
            yielding: None,
            progress,
            options,
        }
    }

    /// Runs until a stop or a failure. `None` where the next pipeline is to go on at once: lanes that were left apart stand
    /// together again, and changes are dealt out as the task wants it now; or a transaction that was applied in part must
    /// be applied once more from its start. Both is stored.
    pub async fn run(mut self, mut items: mpsc::Receiver<Queued>, mut stop: watch::Receiver<Stop>) -> Option<Outcome> {
        self.make_room();
        self.publish();
        let mut taken = Vec::new();
        loop {
            let next = *stop.borrow_and_update();
            match next {
                Stop::Run => {}
                Stop::Drain => return Some(self.drain(items, stop).await),
                Stop::Abort => return Some(Outcome::Parked(self.inexact())),
            }
            if self.options.outdated.is_set() && self.at_one_boundary() {
                return match self.store_together().await {
                    Ok(()) => None,
                    Err(ended) => Some(self.end(ended).await),
                };
            }
            match self.heal_stale(&mut stop).await {
                Ok(()) => {}
                Err(Ended::Interrupted) => continue,
                Err(ended) => return Some(self.end(ended).await),
            }
            if self.has_ended() {
                return Some(self.finish().await);
            }
            match self.advance(&mut stop).await {
                Ok(()) => {}
                Err(Ended::Interrupted) => {
                    self.former_is_void();
                    continue;
                }
                Err(Ended::OtherRows(at)) => {
                    return match self.end(Ended::OtherRows(at)).await {
                        Outcome::Parked(_) => None,
                        failed => Some(failed),
                    };
                }
                Err(ended) => return Some(self.end(ended).await),
            }
            if self.at_work.is_none()
                && self.resting().is_none()
                && let Some(end) = self.intake_end.take()
            {
                return Some(self.end(Ended::Intake(end)).await);
            }
            let wants_more = !self.former.is_full() && self.intake_end.is_none();
            let resting = self.resting().filter(|_| self.at_work.is_none());
            let at_once = if self.at_work.is_some() || resting.is_some() { AT_ONCE } else { 1 };
            let idle = self.fills_for().unwrap_or(MARK_INTERVAL);
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    if changed.is_err() {
                        return Some(Outcome::Parked(self.inexact()));
                    }
                }
                Some(done) = self.done.recv(), if self.at_work.is_some() => {
                    if let Err(ended) = self.job_done(done) {
                        return Some(self.end(ended).await);
                    }
                }
                // A lane ends with the coordinator, or by a fault of ours: its answer would be waited for for ever.
                Some(ended) = self.tasks.join_next() => {
                    let why = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                    let failure = Failure::new(Code::NotSet, "a lane broke off by a fault of the agent itself")
                        .cause(why)
                        .workaround("Please report it with the agent's log, then resume-task.");
                    if let Some(work) = &mut self.at_work {
                        work.waiting_for = work.waiting_for.saturating_sub(1);
                    }
                    return Some(self.end(Ended::Failed(failure)).await);
                }
                count = items.recv_many(&mut taken, at_once), if wants_more => match count {
                    0 => self.take(None),
                    _ => taken.drain(..).for_each(|queued| self.take(Some(queued))),
                },
                () = rested(resting), if resting.is_some() => {}
                () = tokio::time::sleep(idle), if self.at_work.is_none() => {}
            }
        }
    }

    /// Whether no lane is at work or ahead, and no transaction partly done.
    fn at_one_boundary(&self) -> bool {
        self.at_work.is_none() && self.ahead.is_empty() && !self.applied.is_inside() && self.ddl_start.is_none()
    }

    fn take(&mut self, queued: Option<Queued>) {
        match queued {
            Some(Queued { item: Err(end), .. }) => self.intake_end = Some(end),
            Some(queued) => self.former.take(queued),
            None => {
                let failure =
                    Failure::new(Code::NotSet, "reading the relay log broke off by a fault of the agent itself")
                        .workaround("Please report it with the agent's log, then resume-task.");
                self.intake_end = Some(IntakeEnd::Failed(failure));
            }
        }
    }

    /// Deals out what can be dealt out; runs DDL and stores marks where no lane is at work.
    async fn advance(&mut self, stop: &mut watch::Receiver<Stop>) -> Result<(), Ended> {
        loop {
            if self.at_work.is_some() {
                if self.ready.is_none() && self.former.has_a_group(self.worth_a_group()) {
                    self.prepare(Want::OnlyRows)?;
                }
                return Ok(());
            }
            self.store_if_due().await?;
            if *stop.borrow() != Stop::Run {
                return Ok(());
            }
            if self.fills_for().is_some() {
                return Ok(());
            }
            let Go::Now(turn) = self.turn() else { return Ok(()) };
            if self.ready.is_none()
                && let Some(ddl) = self.prepare(Want::Next)?
            {
                drop(turn);
                self.run_ddl(ddl, stop).await?;
                continue;
            }
            match self.ready.take() {
                Some(ready) => self.deal_out(ready, turn).await?,
                None => return Ok(()),
            }
        }
    }

    /// How much longer the first group of a catch-up is waited for; `None` where it may go, or has gone.
    fn fills_for(&mut self) -> Option<Duration> {
        let since = self.filling.as_mut()?;
        if self.former.waiting().0 == 0 {
            return None;
        }
        let left = FILL.saturating_sub(since.get_or_insert_with(Instant::now).elapsed());
        if left.is_zero() || self.former.has_a_group(self.pace.rows()) || self.intake_end.is_some() {
            self.filling = None;
            return None;
        }
        Some(left)
    }

    fn publish(&self) {
        let why_safe = self.why_safe();
        let window = self.options.windows.now();
        let waiting = window.iter().flat_map(Window::stale).map(|table| AgainProgress { table, reading: None });
        let again: Vec<AgainProgress> = waiting.collect();
        self.progress.send_modify(|progress| {
            progress.again = again;
            progress.activity = "applying".to_owned();
            progress.applied = Some(self.applied.clone());
            progress.flushed = Some(self.flushed.clone());
            progress.safe_mode = why_safe;
        });
    }
}

fn form_failure(error: &FormError) -> Failure {
    match error {
        FormError::Dispatch(error) => Failure::new(Code::StreamEvent, error.to_string()),
        FormError::OtherTransaction(other @ OtherTransaction { expected, .. }) => {
            Failure::new(Code::BinlogPosition, other.to_string()).workaround(format!(
                "Please let the source be a server whose binlog goes on with transaction {expected} there, then resume-task. \
                 If there is none any more, remove that transaction's rows downstream and start the task anew with \
                 --remove-meta behind {}.",
                other.at
            ))
        }
        FormError::Keyless { at, .. } => {
            Failure::new(Code::BinlogPosition, error.to_string()).workaround(format!(
                "Please let the source be the former server until the task has passed that transaction, then resume-task. \
                 If it is gone for good, remove that transaction's rows downstream and start the task anew with --remove-meta \
                 behind {at}."
            ))
        }
        // Not a failure where it is met: the transaction is begun anew.
        FormError::OtherRows { .. } => Failure::new(Code::BinlogPosition, error.to_string()),
    }
}

/// A drain needs intake no more.
fn ended_early() -> IntakeEnd {
    IntakeEnd::Failed(Failure::new(Code::StreamEvent, "reading the relay log ended"))
}
