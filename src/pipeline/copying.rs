//! Before the binlog is followed: whether existing rows are to be copied, and the copy.
//!
//! Invariant: what is to be done is decided by what stands downstream, at each start anew; nothing on this machine is asked.
//! So a kill at any instant, another worker and a `--remove-meta` all come to the same.

use std::sync::Arc;

use tokio::sync::watch;

use super::build::PipelineSpec;
use super::coordinator::stopping;
use super::guide::{Begun, TaskGuide};
use super::progress::{Doing, Progress};
use super::window::Window;
use super::{Outcome, Parked, Stop};
use crate::apply::{Downstream, DownstreamOptions};
use crate::error::{Code, Failure};
use crate::model::Flavor;
use crate::schema::Dialect;
use crate::snapshot::{CopyOptions, CopyOutcome, CopyProgress, CopySpec, Guide, Standing, copy, look};

/// What a task does about existing rows.
#[derive(Clone)]
pub struct CopyPlan {
    /// They are copied before the binlog is followed.
    pub copies: bool,
    /// The task ends where the target equals the source at one place.
    pub ends: bool,
    /// How they are copied.
    pub options: CopyOptions,
    /// Told where the binlog begins to count.
    pub begun: Begun,
}

/// What comes first.
pub(super) enum First {
    /// Follow the binlog; with what is left to be done behind a copy.
    Follow(Option<Window>),
    /// It is over already.
    Over(Outcome),
}

/// The copy of this task.
pub(super) fn copy_spec(spec: &PipelineSpec, dialect: Dialect) -> CopySpec {
    let downstream = match dialect {
        Dialect::MariaDb => Flavor::MariaDb,
        Dialect::MySql | Dialect::TiDb => Flavor::MySql,
    };
    let guide = TaskGuide {
        transform: Arc::clone(&spec.transform),
        flavor: spec.flavor,
        downstream,
        begun: Arc::clone(&spec.copy.begun),
    };
    CopySpec {
        source: spec.source.clone(),
        flavor: spec.flavor,
        downstream: spec.downstream.clone(),
        tables: spec.tables.clone(),
        guide: Arc::new(guide) as Arc<dyn Guide>,
        options: spec.copy.options.clone(),
    }
}

/// Looks at what stands downstream, and copies what is not copied yet.
pub(super) async fn first(
    spec: &PipelineSpec,
    stop: &watch::Receiver<Stop>,
    progress: &watch::Sender<Progress>,
) -> First {
    let parked = || First::Over(Outcome::Parked(Parked { applied: None, exact: false }));
    let failed = |failure| First::Over(Outcome::Failed { failure, applied: None });
    let seen = tokio::select! {
        biased;
        () = stopping(stop) => return parked(),
        seen = look_downstream(spec, progress) => seen,
    };
    let (standing, downstream) = match seen {
        Ok(seen) => seen,
        Err(failure) => return failed(failure),
    };
    let replay = match standing {
        Standing::Copied(None) if spec.copy.ends => return First::Over(Outcome::Finished(None)),
        Standing::Copied(replay) => replay,
        Standing::Fresh | Standing::Copying(_) if !spec.copy.copies => None,
        Standing::Fresh | Standing::Copying(_) if downstream.checks_foreign_keys => return failed(foreign_keys()),
        Standing::Fresh | Standing::Copying(_) => {
            match run_copy(copy_spec(spec, downstream.dialect), stop, progress).await {
                CopyOutcome::Copied(replay) => Some(replay),
                CopyOutcome::Stopped => return parked(),
                CopyOutcome::Fenced => return First::Over(Outcome::Fenced),
                CopyOutcome::Failed(failure) => return failed(failure),
            }
        }
    };
    if replay.is_some() && downstream.checks_foreign_keys {
        return failed(foreign_keys());
    }
    progress.send_modify(|progress| {
        let before = std::mem::take(&mut progress.doing);
        progress.doing = match before {
            Doing::Copying(copy) | Doing::Ending(Some(copy)) if spec.copy.ends => Doing::Ending(Some(copy)),
            _ if spec.copy.ends => Doing::Ending(None),
            _ => Doing::Following,
        };
    });
    First::Follow(replay.as_ref().map(Window::new))
}

async fn look_downstream(
    spec: &PipelineSpec,
    progress: &watch::Sender<Progress>,
) -> Result<(Standing, Downstream), Failure> {
    progress.send_modify(|progress| "connecting to the downstream".clone_into(&mut progress.activity));
    let downstream = Downstream::open(DownstreamOptions { endpoint: spec.downstream.clone() }).await?;
    let mut conn = downstream.connect().await?;
    progress.send_modify(|progress| "reading the checkpoint".clone_into(&mut progress.activity));
    Ok((look(&mut conn, &spec.tables, spec.flavor).await?, downstream))
}

/// Replay replaces rows, and where foreign keys are checked that changes other tables' rows.
fn foreign_keys() -> Failure {
    Failure::new(
        Code::ConfigTask,
        "existing rows cannot be copied, and what changed meanwhile be replayed, with `foreign_key_checks` on in the session \
         of `target-database`",
    )
    .workaround(
        "Please take it out of `target-database.session`, and start the task again; it can be put there when the copy is \
         replayed (update-task).",
    )
}

async fn run_copy(spec: CopySpec, stop: &watch::Receiver<Stop>, progress: &watch::Sender<Progress>) -> CopyOutcome {
    let (sender, mut seen) = watch::channel(CopyProgress::default());
    let mut copying = std::pin::pin!(copy(spec, false, stopping(stop), sender));
    let show = |copy: &CopyProgress| {
        progress.send_modify(|progress| {
            progress.activity.clone_from(&copy.activity);
            progress.notes.extend(copy.notes.iter().cloned());
            progress.doing = Doing::Copying(Box::new(copy.clone()));
        });
    };
    show(&CopyProgress { activity: "looking at both ends".to_owned(), ..CopyProgress::default() });
    loop {
        tokio::select! {
            biased;
            outcome = &mut copying => {
                show(&seen.borrow());
                return outcome;
            }
            Ok(()) = seen.changed() => show(&seen.borrow_and_update()),
        }
    }
}
