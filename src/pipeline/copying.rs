//! Before the binlog is followed: whether existing rows are to be copied, and the copy.
//!
//! Invariant: what is to be done is decided by what stands downstream, at each start anew; nothing on this machine is asked.
//! So a kill at any instant, another worker and a `--remove-meta` all come to the same.

use std::sync::Arc;

use mysql_async::Conn;
use tokio::sync::{OnceCell, watch};

use super::coordinator::stopping;
use super::guide::TaskGuide;
use super::progress::{Doing, Progress};
use super::spec::PipelineSpec;
use super::window::Window;
use super::{Outcome, Parked, Stop};
use crate::apply::{Downstream, DownstreamOptions};
use crate::checkpoint::Claimed;
use crate::error::{Code, Failure};
use crate::meta::StoredMark;
use crate::model::{Flavor, SourceTable};
use crate::schema::Dialect;
use crate::snapshot;
use crate::snapshot::{CopyOutcome, CopyProgress, CopySpec, Guide, Standing, copy, look};

/// What comes first.
pub(super) enum First {
    /// Follow the binlog; with what is left to be done behind a copy, and the connection by which that was found out just
    /// now.
    Follow(Option<Window>, Option<Box<(Downstream, Conn)>>),
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
        collations: spec.copy.options.strict_collation.then(OnceCell::new),
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

/// Whether a table of a task that follows the binlog can be read again: `Ok` with what the operator should know of it.
pub async fn may_read_again(spec: &PipelineSpec, table: &SourceTable) -> Result<Option<String>, Failure> {
    let downstream = Downstream::open(DownstreamOptions { endpoint: spec.downstream.clone() }).await?;
    if downstream.checks_foreign_keys {
        let text = "a table cannot be read again with `foreign_key_checks` on in the session of `target-database`: rows \
                    that are replaced would take others with them";
        return Err(Failure::new(Code::ConfigTask, text).workaround(
            "Please take it out of `target-database.session` (update-task), or repair the table by hand.",
        ));
    }
    snapshot::may_read_again(&copy_spec(spec, downstream.dialect), table).await
}

/// Takes an operator's orders in: stored downstream, where whoever goes on finds them.
pub(super) async fn take_orders(
    spec: &PipelineSpec,
    claimed: &Claimed,
    window: Option<Window>,
    conn: &mut Conn,
) -> Result<Window, Failure> {
    let mut window = window.unwrap_or_else(|| Window::opened(&claimed.start.location));
    spec.orders.iter().for_each(|table| window.order(table));
    let fence = spec.tables.move_all_lanes(claimed.epoch, &StoredMark::from(&claimed.start));
    if !snapshot::open(conn, &spec.tables, &window.to_replay(), &fence).await? {
        // Whoever has it now shows itself at the first group; nothing is stored, so nothing is lost but the order.
        return Err(Failure::new(Code::Checkpoint, "another agent has taken the task over"));
    }
    Ok(window)
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
    let (standing, downstream, conn) = match seen {
        Ok(seen) => seen,
        Err(failure) => return failed(failure),
    };
    let mut just_now = true;
    let replay = match standing {
        Standing::Copied(None) if spec.copy.ends => return First::Over(Outcome::Finished(None)),
        Standing::Copied(replay) => replay,
        Standing::Fresh | Standing::Copying(_) if !spec.copy.copies => None,
        Standing::Fresh | Standing::Copying(_) if downstream.checks_foreign_keys => return failed(foreign_keys()),
        Standing::Fresh | Standing::Copying(_) => {
            just_now = false;
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
    First::Follow(replay.as_ref().map(Window::new), just_now.then(|| Box::new((downstream, conn))))
}

async fn look_downstream(
    spec: &PipelineSpec,
    progress: &watch::Sender<Progress>,
) -> Result<(Standing, Downstream, Conn), Failure> {
    progress.send_modify(|progress| "connecting to the downstream".clone_into(&mut progress.activity));
    let options = DownstreamOptions { endpoint: spec.downstream.clone() };
    let (downstream, mut conn) = Downstream::open_connected(options).await?;
    progress.send_modify(|progress| "reading the checkpoint".clone_into(&mut progress.activity));
    Ok((look(&mut conn, &spec.tables, spec.flavor).await?, downstream, conn))
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
