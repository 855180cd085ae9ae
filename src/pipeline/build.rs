//! From a task's settings to a running pipeline: connect, claim, open the relay log, start the stages.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::coordinator::{Coordinator, CoordinatorOptions};
use super::intake::Intake;
use super::item;
use super::progress::Progress;
use super::{Outcome, Parked, Stop};
use crate::apply::{DdlLock, Downstream, DownstreamOptions};
use crate::checkpoint::{Claim, Ledger, claim};
use crate::decode::Decoder;
use crate::error::Failure;
use crate::meta::MetaTables;
use crate::model::{Flavor, Location};
use crate::mysql::Endpoint;
use crate::relay::{Relay, RelayError};
use crate::runtime::spawn;
use crate::transform::Transform;

/// What a pipeline is made of.
#[derive(Clone)]
pub struct PipelineSpec {
    /// Name under which the relay log is protected.
    pub name: String,
    /// Dialect of the source.
    pub flavor: Flavor,
    /// The source's relay log.
    pub relay: Relay,
    /// Rules for names.
    pub transform: Arc<Transform>,
    /// The downstream.
    pub downstream: Endpoint,
    /// The task's tables there.
    pub tables: MetaTables,
    /// `worker-count`.
    pub lanes: u32,
    /// Where to start if nothing is stored.
    pub fresh_start: Location,
    /// `checkpoint-flush-interval`.
    pub flush_interval: Duration,
    /// How long a pause waits for the end of a large transaction.
    pub drain_limit: Duration,
    /// `safe-mode`.
    pub always_safe: bool,
    /// `safe-mode-duration`.
    pub safe_duration: Duration,
    /// What this machine keeps of its positions.
    pub ledger: Arc<dyn Ledger>,
}

impl PipelineSpec {
    /// The downstream, as the ledger names it.
    pub fn target(&self) -> String {
        target_of(&self.downstream)
    }
}

/// Host and port of a downstream.
pub fn target_of(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host, endpoint.port)
}

/// Runs a pipeline from claim to end.
pub async fn run(spec: PipelineSpec, mut stop: watch::Receiver<Stop>, progress: watch::Sender<Progress>) -> Outcome {
    let started = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop != Stop::Run) => return Outcome::Parked(Parked { applied: None, exact: false }),
        started = start(&spec, &progress) => started,
    };
    match started {
        Ok((coordinator, intake, items)) => {
            let _intake = spawn("intake", intake.run());
            coordinator.run(items, stop).await
        }
        Err(Start::Failed(failure)) => Outcome::Failed { failure, applied: None },
        Err(Start::RelayTooShort(location)) => Outcome::RelayTooShort(location),
        Err(Start::Damaged(error)) => Outcome::RelayDamaged(error),
    }
}

enum Start {
    Failed(Failure),
    RelayTooShort(Location),
    Damaged(RelayError),
}

impl From<Failure> for Start {
    fn from(failure: Failure) -> Self {
        Start::Failed(failure)
    }
}

type Started = (Coordinator, Intake, tokio::sync::mpsc::Receiver<item::Queued>);

async fn start(spec: &PipelineSpec, progress: &watch::Sender<Progress>) -> Result<Started, Start> {
    let say = |activity: &str| progress.send_modify(|progress| progress.activity = activity.to_owned());
    say("connecting to the downstream");
    let downstream = Downstream::open(DownstreamOptions { endpoint: spec.downstream.clone() }).await?;
    let mut control = downstream.connect().await?;
    say("reading the checkpoint");
    let request = Claim {
        tables: spec.tables.clone(),
        flavor: spec.flavor,
        lanes: spec.lanes,
        fresh_start: spec.fresh_start.clone(),
        ledger: Arc::clone(&spec.ledger),
        target: spec.target(),
    };
    let claimed = claim(&mut control, &request).await?;
    if claimed.disarm {
        // Whoever stored the intent passed its check before the epoch was raised, and may be about to run the statement.
        let lock = DdlLock::new(&spec.tables);
        if lock.take(&mut control, |waits| say(&waits)).await? {
            lock.give_back(&mut control).await;
        }
    }
    tracing::info!(epoch = claimed.epoch, lanes = claimed.marks.len(), start = %claimed.start.location, "claimed");
    spec.relay.protect(&spec.name, &claimed.start.location);
    say("opening the relay log");
    let reader = match spec.relay.reader(&claimed.start.location).await {
        Ok(reader) => reader,
        Err(RelayError::NotCovered { .. } | RelayError::NotStarted) => {
            return Err(Start::RelayTooShort(claimed.start.location));
        }
        Err(error @ RelayError::Damaged { .. }) => return Err(Start::Damaged(error)),
        Err(error) => return Err(Start::Failed(Failure::from(&error))),
    };
    let begin = reader.boundary().clone();
    let decoder = Decoder::new(spec.flavor, begin.location, begin.checksum);
    let (sender, items) = item::channel();
    let intake = Intake::new(
        reader,
        decoder,
        Arc::clone(&spec.transform),
        downstream.clone(),
        claimed.start.clone(),
        progress.clone(),
        sender,
    )
    .needing_keys(claimed.kept_here.is_some());
    progress.send_modify(|progress| progress.applied_lsn = Some(begin.lsn.0));
    let (relay, name, received) = (spec.relay.clone(), spec.name.clone(), spec.relay.clone());
    let options = CoordinatorOptions {
        downstream,
        tables: spec.tables.clone(),
        claimed,
        flush_interval: spec.flush_interval,
        drain_limit: spec.drain_limit,
        always_safe: spec.always_safe,
        safe_duration: spec.safe_duration,
        on_stored: Box::new(move |location| relay.protect(&name, location)),
        received: Box::new(move || received.state().received.map(|received| received.0)),
    };
    Ok((Coordinator::new(options, control, progress.clone()), intake, items))
}
