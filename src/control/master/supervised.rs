//! The supervisor, as the plan sees it: what there is, and how an action is carried out.

use super::plan::{Action, Actual, CopyPart, LeasePark, SourceState, TaskState};
use super::wanted::RelayWish;
use crate::error::Failure;
use crate::supervisor::{HeldSource, HeldTask, LEASE, SourceOrder, Supervisor, TaskOrder};
use crate::task::{ParkReason, Stage, TaskStatus, Unit};

/// A subtask that failed, or was fenced, in its copy is at it still, but not at work.
fn copy_part(status: &TaskStatus) -> CopyPart {
    match (status.stage, status.unit) {
        (Stage::Paused, _) if status.parks.contains_key(&ParkReason::Master) => CopyPart::Parked,
        (Stage::Running, Unit::Dump | Unit::Load) => CopyPart::AtWork,
        (Stage::Running, Unit::Sync) if status.activity == "applying" => CopyPart::Over,
        (Stage::Finished, _) => CopyPart::Over,
        _ => CopyPart::Unknown,
    }
}

/// What there is.
pub(super) fn actual(supervisor: &Supervisor, worker: &str) -> Actual {
    let held = supervisor.held();
    let relay = |paused: bool| if paused { RelayWish::Pause } else { RelayWish::Run };
    let source = |source: HeldSource| SourceState { config: source.toml, relay: source.relay.map(relay) };
    let task = |task: HeldTask| {
        let lease = task.status.parks.get(&ParkReason::Lease);
        TaskState {
            mark: task.mark,
            paused: task.status.parks.contains_key(&ParkReason::Master),
            lease: lease.map(|park| if park.by == LEASE { LeasePark::Lost } else { LeasePark::Fenced }),
            idle: matches!(task.status.stage, Stage::Paused | Stage::Finished),
            flushed: task.status.flushed.is_some(),
            copy: copy_part(&task.status),
        }
    };
    Actual {
        worker: worker.to_owned(),
        sources: held.sources.into_iter().map(|(id, held)| (id, source(held))).collect(),
        tasks: held.tasks.into_iter().map(|(key, held)| (key, task(held))).collect(),
    }
}

/// Does it. What is done in etcd is not for here.
pub(super) async fn carry_out(supervisor: &Supervisor, action: Action) -> Result<(), Failure> {
    let paused = |wish: Option<RelayWish>| wish.map(|wish| wish == RelayWish::Pause);
    match action {
        Action::Fence(task) => supervisor.fence(&task.source, &task.name).await,
        Action::Bind(wish) => {
            let order = SourceOrder { id: wish.id, toml: wish.config.unwrap_or_default(), relay: paused(wish.relay) };
            supervisor.bind_source(&order).await
        }
        Action::Configure { source, config } => supervisor.configure_source(&source, &config).await,
        Action::Relay { source, wish } => supervisor.switch_relay(&source, paused(wish)).await,
        Action::Unbind(source) => supervisor.unbind_source(&source).await,
        Action::Start { task, wish, mark, known } => {
            let order = TaskOrder {
                source: task.source,
                name: task.name,
                toml: wish.config.unwrap_or_default(),
                mark,
                run: wish.run,
                stopped: wish.stopped,
                start_time: wish.start_time.map(|given| given.text).unwrap_or_default(),
                unheeded: wish.unheeded,
                known,
            };
            supervisor.start_bound(&order).await
        }
        Action::Pause { task, mark } => supervisor.pause_bound(&task.source, &task.name, mark).await,
        Action::Resume { task, config, mark } => supervisor.resume_bound(&task.source, &task.name, mark, config).await,
        Action::Readmit(task) => supervisor.readmit(&task.source, &task.name).await,
        Action::Drop(task) => supervisor.drop_bound(&task.source, &task.name).await,
        Action::Release(task) => supervisor.release_task(&task.source, &task.name).await,
        // Carried out where etcd is.
        Action::ClearStartTime { .. } | Action::ClaimLoad { .. } | Action::ReleaseLoad { .. } => Ok(()),
    }
}
