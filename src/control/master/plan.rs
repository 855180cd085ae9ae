//! From what is wanted and what is to what is to be done: a pure function.
//!
//! Invariants:
//! - It looks at two states, never at what happened between them: lost, repeated and reordered events lead to the same end.
//! - What is as wanted gives no action, so that a master that writes the same again disturbs nothing.
//! - Without a lease nothing is done but to fence.
//! - No action takes away a reason to be parked that is not a master's to take: the operator's stays.
//!
//! ```text
//! no lease            fence every subtask that is not fenced
//! source not ours     release its subtasks ─► unbind it
//! source ours         bind it ─► its settings, its relay log ─► drop, start, pause, resume its subtasks ─► say who copies
//! ```
//! Steps behind an arrow appear when those before it are done: the plan is made anew after every action.

use std::collections::BTreeMap;

use super::wanted::{Loader, RelayWish, SourceWish, StartTime, TaskWish, Wanted};
use crate::supervisor::MasterMark;

/// Whether this worker may act for the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No lease, or one of which the master has not said yet that it counts.
    Away,
    /// What is bound to us is ours.
    Owner,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actual {
    /// This worker's name.
    pub worker: String,
    /// Sources by id.
    pub sources: BTreeMap<String, SourceState>,
    /// Subtasks by source and name.
    pub tasks: BTreeMap<(String, String), TaskState>,
}

/// A source that is open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceState {
    /// The TOML that it was opened with.
    pub config: String,
    /// Whether its relay log is on, as the master's users see it.
    pub relay: Option<RelayWish>,
}

/// A subtask that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskState {
    /// What of the master's wishes it follows.
    pub mark: MasterMark,
    /// The master's reason to be parked holds.
    pub paused: bool,
    /// The lease's reason holds.
    pub lease: Option<LeasePark>,
    /// No pipeline is at work.
    pub idle: bool,
    /// A checkpoint has been stored downstream since it was started.
    pub flushed: bool,
    /// How far it is with its existing rows.
    pub copy: CopyPart,
}

/// How far a subtask is with existing rows, as masters care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyPart {
    /// It stands still, or does not know yet.
    #[default]
    Unknown,
    /// The master has paused it.
    Parked,
    /// They are being copied.
    AtWork,
    /// There is nothing to copy any more: the binlog is followed, or it has finished.
    Over,
}

/// Why a subtask is parked for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeasePark {
    /// We have lost it, or have not had it yet since the restart.
    Lost,
    /// Another agent has raised the epoch. Taking it back by ourselves could go to and fro for ever.
    Fenced,
}

/// One thing to do. Actions on different subjects may be done at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Park it for the lease, now.
    Fence(TaskId),
    /// Open a source.
    Bind(SourceWish),
    /// Take new settings over.
    Configure {
        /// Source id.
        source: String,
        /// TOML.
        config: String,
    },
    /// Switch the relay log.
    Relay {
        /// Source id.
        source: String,
        /// What it is to do; `None` for off.
        wish: Option<RelayWish>,
    },
    /// Close a source that has no subtasks any more.
    Unbind(String),
    /// Make a subtask.
    Start {
        /// Which.
        task: TaskId,
        /// What is wanted of it.
        wish: TaskWish,
        /// What it then follows.
        mark: MasterMark,
        /// All subtasks of the source that there are, by name, with the revision of their start-task; `None` where that cannot
        /// be read.
        known: BTreeMap<String, Option<i64>>,
    },
    /// Add the master's reason.
    Pause {
        /// Which.
        task: TaskId,
        /// What it then follows.
        mark: MasterMark,
    },
    /// Take away the master's reason, the error and the lease's; new settings take effect.
    Resume {
        /// Which.
        task: TaskId,
        /// TOML; `None` to go on with what it has.
        config: Option<String>,
        /// What it then follows.
        mark: MasterMark,
    },
    /// Take away the lease's reason alone: we own it again.
    Readmit(TaskId),
    /// stop-task: end it, and forget it.
    Drop(TaskId),
    /// End it here; it may come back with all its reasons.
    Release(TaskId),
    /// Existing rows are copied here: say so, as DM's workers do while they load. Masters leave the source where it is then.
    ClaimLoad {
        /// Which.
        task: TaskId,
        /// Revision at which its source was given to this worker.
        bound_born: i64,
    },
    /// Nothing is to be copied any more: who was said to do so is forgotten.
    ReleaseLoad {
        /// Which.
        task: TaskId,
        /// Revision at which its source was given to this worker.
        bound_born: i64,
        /// What is forgotten.
        loader: Loader,
    },
    /// `--start-time` was honoured: say so.
    ClearStartTime {
        /// Which.
        task: TaskId,
        /// Which writing of the key.
        given: StartTime,
    },
}

/// A subtask's source and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Source id.
    pub source: String,
    /// Task name.
    pub name: String,
}

/// What an action is about; one at a time is done for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A source.
    Source(String),
    /// A subtask.
    Task(TaskId),
}

impl Action {
    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Action::Bind(wish) => Subject::Source(wish.id.clone()),
            Action::Configure { source, .. } | Action::Relay { source, .. } | Action::Unbind(source) => {
                Subject::Source(source.clone())
            }
            Action::Fence(task)
            | Action::Start { task, .. }
            | Action::Pause { task, .. }
            | Action::Resume { task, .. }
            | Action::Readmit(task)
            | Action::Drop(task)
            | Action::Release(task)
            | Action::ClaimLoad { task, .. }
            | Action::ReleaseLoad { task, .. }
            | Action::ClearStartTime { task, .. } => Subject::Task(task.clone()),
        }
    }

    /// Whether it only writes to etcd.
    pub fn writes(&self) -> bool {
        matches!(self, Action::ClaimLoad { .. } | Action::ReleaseLoad { .. } | Action::ClearStartTime { .. })
    }

    /// A word for logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Action::Fence(_) => "fence",
            Action::Bind(_) => "bind source",
            Action::Configure { .. } => "configure source",
            Action::Relay { .. } => "switch relay",
            Action::Unbind(_) => "unbind source",
            Action::Start { .. } => "start subtask",
            Action::Pause { .. } => "pause subtask",
            Action::Resume { .. } => "resume subtask",
            Action::Readmit(_) => "readmit subtask",
            Action::Drop(_) => "drop subtask",
            Action::Release(_) => "release subtask",
            Action::ClaimLoad { .. } => "say that rows are copied here",
            Action::ReleaseLoad { .. } => "say that rows are copied no more",
            Action::ClearStartTime { .. } => "clear start time",
        }
    }

    /// What DM's metrics call it where it fails; `None` for what dm-worker does not do.
    pub fn dm_name(&self) -> Option<&'static str> {
        match self {
            Action::Bind(_) | Action::Configure { .. } | Action::Unbind(_) => Some("SourceBound"),
            Action::Relay { .. } => Some("RelaySource"),
            Action::Start { .. } => Some("Start"),
            Action::Pause { .. } => Some("Pause"),
            Action::Resume { .. } => Some("Resume"),
            Action::Drop(_) => Some("Delete"),
            Action::Fence(_) | Action::Readmit(_) | Action::Release(_) => None,
            Action::ClaimLoad { .. } | Action::ReleaseLoad { .. } | Action::ClearStartTime { .. } => None,
        }
    }
}

/// What is to be done next. At most one action for each subject.
pub fn plan(wanted: &Wanted, actual: &Actual, standing: Standing) -> Vec<Action> {
    if standing == Standing::Away {
        let unfenced = actual.tasks.iter().filter(|(_, task)| task.lease.is_none());
        return unfenced.map(|(key, _)| Action::Fence(task_id(key))).collect();
    }
    let mut actions = Vec::new();
    let ours = wanted.source.as_ref();
    for id in actual.sources.keys().filter(|id| ours.is_none_or(|source| source.id != **id)) {
        let tasks: Vec<_> = actual.tasks.keys().filter(|(source, _)| source == id).map(task_id).collect();
        match tasks.is_empty() {
            true => actions.push(Action::Unbind(id.clone())),
            false => actions.extend(tasks.into_iter().map(Action::Release)),
        }
    }
    let Some(source) = ours else { return actions };
    let Some(state) = actual.sources.get(&source.id) else {
        // A worker has one source: the one before is closed first. Without a configuration there is nothing to open.
        if actual.sources.is_empty() && source.config.is_some() {
            actions.push(Action::Bind(source.clone()));
        }
        return actions;
    };
    match &source.config {
        Some(config) if *config != state.config => {
            actions.push(Action::Configure { source: source.id.clone(), config: config.clone() });
        }
        _ if source.relay != state.relay => {
            actions.push(Action::Relay { source: source.id.clone(), wish: source.relay });
        }
        _ => {}
    }
    actions.extend(plan_tasks(wanted, actual, &source.id));
    actions
}

fn plan_tasks(wanted: &Wanted, actual: &Actual, source: &str) -> Vec<Action> {
    let held = |name: &str| actual.tasks.get(&(source.to_owned(), name.to_owned()));
    let id = |name: &str| TaskId { source: source.to_owned(), name: name.to_owned() };
    let mut actions = Vec::new();
    for (key, _) in actual.tasks.iter().filter(|(key, _)| key.0 == source) {
        let gone = !wanted.tasks.contains_key(&key.1) && !wanted.unreadable.contains(&key.1);
        match (&wanted.bound, gone) {
            (None, _) => actions.push(Action::Release(task_id(key))),
            (Some(_), true) => actions.push(Action::Drop(task_id(key))),
            (Some(_), false) => {}
        }
    }
    let Some(bound) = &wanted.bound else { return actions };
    let known = || {
        let unreadable = wanted.unreadable.iter().map(|name| (name.clone(), None));
        unreadable.chain(wanted.tasks.iter().map(|(name, wish)| (name.clone(), Some(wish.born)))).collect()
    };
    for (name, wish) in &wanted.tasks {
        let mark = MasterMark { born: wish.born, bound_born: bound.born, stage_revision: wish.stage_revision };
        match held(name) {
            None if wish.config.is_none() => {}
            None => actions.push(Action::Start { task: id(name), wish: wish.clone(), mark, known: known() }),
            Some(state) => {
                let step = plan_task(id(name), wish, mark, state);
                let said = || plan_load(id(name), bound.born, wanted.loaders.get(name), &actual.worker, state.copy);
                actions.extend(step.or_else(said));
            }
        }
    }
    // stop-task in a copy: its marks are downstream, so whoever goes on with it one day need not be this worker.
    let left = wanted.loaders.iter().filter(|(name, loader)| {
        let known = wanted.tasks.contains_key(*name) || wanted.unreadable.contains(*name) || held(name).is_some();
        !known && loader.worker == actual.worker
    });
    actions.extend(left.map(|(name, loader)| Action::ReleaseLoad {
        task: id(name),
        bound_born: bound.born,
        loader: loader.clone(),
    }));
    actions
}

/// Who loads. What fails in its copy leaves what is said: masters then prefer the worker that has its relay log. A master's
/// pause takes it back: behind one may be a transfer-source, which a master undoes where a worker is said to load.
fn plan_load(task: TaskId, bound_born: i64, loader: Option<&Loader>, worker: &str, copy: CopyPart) -> Option<Action> {
    match (copy, loader) {
        (CopyPart::AtWork, loader) if loader.is_none_or(|loader| loader.worker != worker) => {
            Some(Action::ClaimLoad { task, bound_born })
        }
        (CopyPart::Parked, Some(loader)) if loader.worker != worker => None,
        (CopyPart::Over | CopyPart::Parked, Some(loader)) => {
            Some(Action::ReleaseLoad { task, bound_born, loader: loader.clone() })
        }
        _ => None,
    }
}

fn plan_task(task: TaskId, wish: &TaskWish, mark: MasterMark, state: &TaskState) -> Option<Action> {
    let resume = |config: Option<String>| Action::Resume { task: task.clone(), config, mark };
    if state.mark.born != mark.born {
        return Some(Action::Drop(task));
    }
    if state.mark.bound_born != mark.bound_born {
        // The source was elsewhere since: what is at work here began before that, and must begin again.
        return Some(match (state.idle || state.lease.is_some(), wish.run) {
            (false, _) => Action::Fence(task),
            (true, true) if state.idle => resume(wish.config.clone()),
            (true, false) if state.idle => Action::Pause { task, mark },
            // Fenced, and still on its way to a stop.
            _ => return None,
        });
    }
    match (wish.run, state.mark.stage_revision == mark.stage_revision) {
        (true, false) => return Some(resume(wish.config.clone())),
        (false, false) => return Some(Action::Pause { task, mark }),
        (true, true) if state.paused => return Some(resume(None)),
        (false, true) if !state.paused => return Some(Action::Pause { task, mark }),
        _ => {}
    }
    if state.lease == Some(LeasePark::Lost) {
        return Some(Action::Readmit(task));
    }
    match &wish.start_time {
        Some(given) if state.flushed => Some(Action::ClearStartTime { task, given: given.clone() }),
        _ => None,
    }
}

fn task_id((source, name): &(String, String)) -> TaskId {
    TaskId { source: source.clone(), name: name.clone() }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod history;
#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
