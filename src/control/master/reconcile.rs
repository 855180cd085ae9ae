//! The loop that makes what is what is wanted: read, plan, carry out, and again.
//!
//! ```text
//! watch, requests, time ─► read (one at a time) ─► plan ─► actions (one a subject, beside each other) ─► plan …
//! lease ─────────────────────────────────────────► plan
//! ```
//! Invariants. The loop itself never waits for etcd, a source, a downstream or a subtask: reads and actions are tasks of
//! its own, so that a lost lease fences at once whatever else goes on. An action that failed is tried again after a pause,
//! and at once when something else is wanted. Whoever asks to be told when things have settled gets an answer in its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::etcd::{Etcd, ReadError, hints};
use super::lease::Tenure;
use super::plan::{Action, Standing, Subject, TaskId, plan};
use super::settle::{Reconciled, Scene, Settle, View, Waiters};
use super::supervised::{actual, carry_out};
use super::wanted::Wanted;
use crate::error::{Code, Failure};
use crate::runtime::{Owned, spawn};
use crate::supervisor::Supervisor;

/// A lease that no master has answered to for so long counts all the same.
const GRACE: Duration = Duration::from_secs(5);
/// Everything is read again after this long, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(30);
/// Between a read or a watch that failed and the next.
const RETRY: Duration = Duration::from_millis(500);
/// How often the loop looks at the time while nobody waits, and while somebody does.
const TICK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(10));
/// First and longest pause after an action that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long an answer waits for a subtask to be at work, after it was made and after it was resumed.
const AT_WORK: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_millis(100));
/// How long a worker is waited for by its cluster.
#[derive(Debug, Clone, Copy)]
pub struct Ttls {
    /// Usually.
    pub usual: Duration,
    /// While it keeps a relay log by name.
    pub relay: Duration,
}

struct Pause {
    failures: u32,
    until: Instant,
}

type Done = (Action, Result<(), Failure>);

/// The loop.
pub struct Reconciler {
    etcd: Etcd,
    supervisor: Supervisor,
    /// Where subtasks live.
    data: Handle,
    tenure: watch::Receiver<Tenure>,
    /// The revision and the cluster that the lease is held since and in, and since when we know.
    held_since: Option<(i64, u64, Instant)>,
    ttl: watch::Sender<Duration>,
    ttls: Ttls,
    requests: mpsc::Receiver<Settle>,
    view: watch::Sender<View>,
    wanted: Option<Wanted>,
    reading: Option<Owned<Result<Wanted, ReadError>>>,
    reads: (u64, u64),
    read_again: bool,
    read_at: Instant,
    last_problem: String,
    watching: Option<(Option<String>, Owned<Status>)>,
    hints: (mpsc::Sender<()>, mpsc::Receiver<()>),
    running: JoinSet<Done>,
    busy: BTreeSet<Subject>,
    fencing: BTreeSet<TaskId>,
    pauses: BTreeMap<Subject, Pause>,
    /// Subtasks that were made or resumed just now, and how long an answer waits for them.
    begun: BTreeMap<TaskId, Instant>,
    waiters: Waiters,
}

impl Reconciler {
    /// A loop, and the way to ask it.
    pub fn new(
        etcd: Etcd,
        supervisor: Supervisor,
        data: Handle,
        tenure: watch::Receiver<Tenure>,
        ttl: watch::Sender<Duration>,
        ttls: Ttls,
    ) -> (Reconciler, Reconciled) {
        let (view, seen) = watch::channel(View::default());
        let (reconciled, requests) = Reconciled::new(seen);
        let reconciler = Reconciler {
            etcd,
            supervisor,
            data,
            tenure,
            held_since: None,
            ttl,
            ttls,
            requests,
            view,
            wanted: None,
            reading: None,
            reads: (0, 0),
            read_again: true,
            read_at: Instant::now(),
            last_problem: String::new(),
            watching: None,
            hints: hints(),
            running: JoinSet::new(),
            busy: BTreeSet::new(),
            fencing: BTreeSet::new(),
            pauses: BTreeMap::new(),
            begun: BTreeMap::new(),
            waiters: Waiters::default(),
        };
        (reconciler, reconciled)
    }

    /// Runs until `stop`; what is under way then is finished.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.step();
            let tick = if self.waiters.is_empty() { TICK.0 } else { TICK.1 };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.tenure.changed() => if changed.is_err() { break },
                Some(done) = self.running.join_next(), if !self.running.is_empty() => self.done(done.ok()),
                read = finished(&mut self.reading) => self.read(read),
                Some(settle) = self.requests.recv() => self.wait(settle),
                _ = self.hints.1.recv() => self.read_again = true,
                status = ended(&mut self.watching) => self.watch_ended(&status),
                () = tokio::time::sleep(tick) => {}
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Everything that follows from how things are.
    fn step(&mut self) {
        let tenure = *self.tenure.borrow_and_update();
        self.held_since = match (tenure, self.held_since) {
            (Tenure::Lost, _) => None,
            (Tenure::Held { since, cluster }, Some(known)) if (known.0, known.1) == (since, cluster) => Some(known),
            (Tenure::Held { since, cluster }, _) => {
                self.read_again = true;
                Some((since, cluster, Instant::now()))
            }
        };
        self.read_again |= self.read_at.elapsed() >= RESYNC;
        if self.read_again && self.reading.is_none() && self.may_read() {
            (self.read_again, self.read_at) = (false, Instant::now());
            self.reads.0 += 1;
            let etcd = self.etcd.clone();
            let source = self.wanted.as_ref().and_then(|wanted| wanted.source.as_ref()).map(|source| source.id.clone());
            self.reading = Some(spawn("read-wanted", async move { etcd.wanted(source).await }));
        }
        self.act();
        self.answer();
    }

    /// After a failure there is a pause.
    fn may_read(&self) -> bool {
        self.last_problem.is_empty() || self.read_at.elapsed() >= RETRY
    }

    fn standing(&self) -> Standing {
        let (Some((since, cluster, at)), Some(wanted)) = (self.held_since, &self.wanted) else {
            return Standing::Away;
        };
        // A master that sees a worker come back writes again what it has given it. Before that, what is there may be of
        // the time before, and given to another one in the next moment.
        let confirmed = wanted.given_at().is_some_and(|given| given > since) || at.elapsed() >= GRACE;
        let current = wanted.cluster == cluster && wanted.revision >= since;
        if confirmed && current { Standing::Owner } else { Standing::Away }
    }

    fn act(&mut self) {
        let nothing = Wanted::default();
        let wanted = self.wanted.as_ref().unwrap_or(&nothing);
        let actions = plan(wanted, &actual(&self.supervisor, self.etcd.worker()), self.standing());
        for action in actions {
            let subject = action.subject();
            let paused = self.pauses.get(&subject).is_some_and(|pause| Instant::now() < pause.until);
            // Nothing that is under way holds a fence up.
            let waits = match &action {
                Action::Fence(task) => !self.fencing.insert(task.clone()),
                _ => paused || self.busy.contains(&subject) || self.is_in_the_way(&action),
            };
            if !waits {
                self.begin(action, subject);
            }
        }
    }

    /// Whether something is under way that the action would meet: a source is not closed while one of its subtasks is being
    /// made, nor the other way round. Wishes that follow each other quickly ask for both.
    fn is_in_the_way(&self, action: &Action) -> bool {
        match action {
            Action::Start { task, .. } => self.busy.contains(&Subject::Source(task.source.clone())),
            Action::Unbind(source) => {
                self.busy.iter().any(|busy| matches!(busy, Subject::Task(task) if task.source == *source))
            }
            _ => false,
        }
    }

    fn begin(&mut self, action: Action, subject: Subject) {
        if let Subject::Task(task) = &subject {
            tracing::info!(action = action.as_str(), task = %task.name, source = %task.source, "master");
        } else {
            tracing::info!(action = action.as_str(), ?subject, "master");
        }
        let limit = match &action {
            Action::Start { wish, .. } if wish.run => Some(AT_WORK.0),
            Action::Resume { .. } | Action::Readmit(_) => Some(AT_WORK.1),
            _ => None,
        };
        if let (Some(limit), Subject::Task(task)) = (limit, &subject) {
            self.begun.insert(task.clone(), Instant::now() + limit);
        }
        if !matches!(action, Action::Fence(_)) {
            self.busy.insert(subject);
        }
        let (supervisor, etcd, data) = (self.supervisor.clone(), self.etcd.clone(), self.data.clone());
        self.running.spawn(async move {
            let result = match action.clone() {
                Action::ClearStartTime { task, given } => etcd
                    .clear_start_time(&task, &given)
                    .await
                    .map_err(|error| Failure::new(Code::NotSet, "clear the start time").cause(error.to_string())),
                Action::ClaimLoad { task, bound_born } => {
                    etcd.claim_load(&task, bound_born).await.map_err(|error| unsaid(&error))
                }
                Action::ReleaseLoad { task, bound_born, loader } => {
                    etcd.release_load(&task, bound_born, &loader).await.map_err(|error| unsaid(&error))
                }
                other => data.spawn(async move { carry_out(&supervisor, other).await }).await.unwrap_or_else(|error| {
                    Err(Failure::new(Code::NotSet, "a step for the master broke off").cause(error.to_string()))
                }),
            };
            (action, result)
        });
    }

    fn done(&mut self, done: Option<Done>) {
        // An action never panics: what it runs is caught where it runs.
        let Some((action, result)) = done else { return };
        let subject = action.subject();
        match &action {
            Action::Fence(task) => drop(self.fencing.remove(task)),
            _ => drop(self.busy.remove(&subject)),
        }
        if action.writes() {
            self.read_again = true;
        }
        match result {
            Ok(()) => {
                self.pauses.remove(&subject);
                if let Subject::Source(_) = subject {
                    self.view.send_modify(|view| view.source_failure = None);
                }
            }
            Err(failure) => {
                tracing::error!(action = action.as_str(), ?subject, error = %failure, "a step for the master failed");
                if let Some(kind) = action.dm_name() {
                    self.supervisor.operation_failed(kind);
                }
                let failures = self.pauses.get(&subject).map_or(0, |pause| pause.failures) + 1;
                let pause = BACKOFF.0.saturating_mul(1 << failures.min(10)).min(BACKOFF.1);
                if let Subject::Source(id) = &subject {
                    let failed = Some((id.clone(), failure));
                    self.view.send_modify(|view| view.source_failure = failed);
                }
                self.pauses.insert(subject, Pause { failures, until: Instant::now() + pause });
            }
        }
    }

    fn read(&mut self, read: Result<Wanted, ReadError>) {
        self.reading = None;
        let wanted = match read {
            Ok(wanted) => wanted,
            Err(error) => {
                self.problem(error.to_string());
                self.read_again = true;
                return;
            }
        };
        self.reads.1 = self.reads.0;
        self.problem(wanted.problems.join("; "));
        if self.wanted.as_ref().is_none_or(|before| differs(before, &wanted)) {
            self.pauses.clear();
        }
        let source = wanted.source.as_ref().map(|source| source.id.clone());
        if self.watching.as_ref().is_none_or(|(watched, _)| *watched != source) {
            let (etcd, wanted, hints) = (self.etcd.clone(), wanted.clone(), self.hints.0.clone());
            let watch = spawn("watch-wanted", async move { etcd.watch(&wanted, hints).await });
            self.watching = Some((source, watch));
        }
        let relay = wanted.relay_for.is_some();
        let ttl = if relay { self.ttls.relay } else { self.ttls.usual };
        self.ttl.send_if_modified(|now| std::mem::replace(now, ttl) != ttl);
        self.wanted = Some(wanted);
    }

    /// Told once, not at each try.
    fn problem(&mut self, problem: String) {
        if !problem.is_empty() && problem != self.last_problem {
            tracing::warn!(problem, "what the master wants");
        }
        self.view.send_if_modified(|view| {
            let other = view.problem != problem;
            view.problem.clone_from(&problem);
            other
        });
        self.last_problem = problem;
    }

    fn watch_ended(&mut self, status: &Status) {
        tracing::debug!(code = ?status.code(), why = status.message(), "the watch has ended");
        self.watching = None;
        self.read_again = true;
        if self.last_problem.is_empty() {
            // The next watch begins with the next read, which must not come at once again and again.
            self.last_problem = "the watch has ended".to_owned();
            self.read_at = Instant::now();
        }
    }

    fn wait(&mut self, settle: Settle) {
        self.read_again = true;
        // A read that is under way may have begun before what the asker did.
        self.waiters.add(settle, self.reads.0 + 1);
    }

    fn answer(&mut self) {
        if self.waiters.is_empty() {
            self.begun.clear();
            return;
        }
        let standing = self.standing();
        let wanted = self.wanted.clone().unwrap_or_default();
        let open = plan(&wanted, &actual(&self.supervisor, self.etcd.worker()), standing);
        let planned = open.iter().map(Action::subject).filter(|subject| !self.pauses.contains_key(subject));
        self.waiters.answer(&Scene {
            reads: self.reads.1,
            away: standing == Standing::Away,
            busy: &self.busy,
            planned: &planned.collect(),
            held: &self.supervisor.held(),
            begun: &self.begun,
        });
    }
}

/// Whether anything but the revision is different.
fn differs(before: &Wanted, after: &Wanted) -> bool {
    Wanted { revision: 0, ..before.clone() } != Wanted { revision: 0, ..after.clone() }
}

fn unsaid(error: &ReadError) -> Failure {
    Failure::new(Code::NotSet, "say in etcd who loads existing rows").cause(error.to_string())
}

async fn finished(reading: &mut Option<Owned<Result<Wanted, ReadError>>>) -> Result<Wanted, ReadError> {
    match reading {
        Some(reading) => reading.await.unwrap_or(Err(ReadError::Odd)),
        None => std::future::pending().await,
    }
}

async fn ended(watching: &mut Option<(Option<String>, Owned<Status>)>) -> Status {
    match watching {
        Some((_, watch)) => watch.await.unwrap_or_else(|error| Status::aborted(error.to_string())),
        None => std::future::pending().await,
    }
}
