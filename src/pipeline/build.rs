//! From a task's settings to a running pipeline: connect, claim, open the relay log, start the stages.

use std::sync::Arc;

use mysql_async::Conn;
use tokio::sync::watch;

use super::coordinator::{Coordinator, CoordinatorOptions};
use super::copying::{First, copy_spec, first, take_orders};
use super::declared::DeclaredTables;
use super::failed_at::with_gtids;
use super::former;
use super::intake::{Intake, IntakeOptions, Prepared};
use super::item;
use super::mapping::{Outdated, TableMappings, TaskMapping};
use super::origin::Origin;
use super::progress::Progress;
use super::spec::PipelineSpec;
use super::window::{Window, Windows};
use super::{Outcome, Parked, Stop};
use crate::apply::{DdlLock, Downstream, DownstreamOptions};
use crate::checkpoint::{Claim, Claimed, History, claim};
use crate::decode::Decoder;
use crate::error::{Code, Failure, Scope, server_number};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location};
use crate::mysql::{Connector, Endpoint};
use crate::relay::{RelayError, RelayReader};
use crate::runtime::spawn;
use crate::transform::Transform;
use crate::upstream::{ServerFacts, gtids_at};

/// The server has no key of the name that a statement gives as its index.
const NO_SUCH_KEY: u16 = 1176;

/// Runs a pipeline from claim to end.
pub async fn run(
    mut spec: PipelineSpec,
    mut stop: watch::Receiver<Stop>,
    progress: watch::Sender<Progress>,
) -> Outcome {
    let mut looked_again = false;
    loop {
        // Where it begins anew by itself, what is left behind a copy may be another.
        let (window, connected) = match first(&spec, &stop, &progress).await {
            First::Follow(window, connected) => (window, connected),
            First::Over(outcome) => return outcome,
        };
        let started = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::Run) => return Outcome::Parked(Parked { applied: None, exact: false }),
            started = start(&spec, window, connected, &progress) => started,
        };
        match started {
            Ok((coordinator, intake, items)) => {
                if progress.borrow().orders_taken {
                    spec.orders.clear();
                }
                let _intake = spawn("intake", intake.run());
                match coordinator.run(items, stop.clone()).await {
                    Some(Outcome::Failed { failure, .. }) if is_restructured(&failure) && !looked_again => {
                        tracing::warn!(error = %failure.raw_cause, "a table was changed downstream, and is looked at again");
                        looked_again = true;
                        continue;
                    }
                    Some(Outcome::Failed { failure, applied }) => {
                        let failure = with_gtids(&spec.relay, applied.as_ref(), failure).await;
                        return Outcome::Failed { failure, applied };
                    }
                    Some(outcome) => return outcome,
                    None => {}
                }
                tracing::info!("the lanes stand together again, changes are dealt out as the task says now");
            }
            Err(Start::Failed(failure)) => return Outcome::Failed { failure, applied: None },
            Err(Start::RelayTooShort(location)) => return Outcome::RelayTooShort(location),
            Err(Start::Damaged(error)) => return Outcome::RelayDamaged(error),
        }
    }
}

/// Whether a statement was written for a key that its table has no more. Only bindings that are made anew know better.
fn is_restructured(failure: &Failure) -> bool {
    server_number(failure) == Some(NO_SUCH_KEY)
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

async fn start(
    spec: &PipelineSpec,
    window: Option<Window>,
    connected: Option<Box<(Downstream, Conn)>>,
    progress: &watch::Sender<Progress>,
) -> Result<Started, Start> {
    let held = Held::take(spec, window, connected, progress).await?;
    tracing::info!(
        epoch = held.claimed.epoch, lanes = held.claimed.marks.len(), start = %held.claimed.start.location, "claimed"
    );
    spec.relay.protect(&spec.name, &held.claimed.start.location);
    say(progress, "opening the relay log");
    let reader = open_relay(spec, &held.claimed.start.location).await?;
    progress.send_modify(|progress| progress.applied_lsn = Some(reader.boundary().lsn.0));
    let (sender, items) = item::channel();
    let windows = Windows::new(held.window.clone());
    let intake = Intake::new(held.intake(spec, reader, windows.share(), progress)?, sender);
    let (control, options) = held.coordinator(spec, windows);
    Ok((Coordinator::new(options, control, progress.clone()), intake, items))
}

fn say(progress: &watch::Sender<Progress>, activity: &str) {
    progress.send_modify(|progress| progress.activity = activity.to_owned());
}

async fn open_relay(spec: &PipelineSpec, from: &Location) -> Result<RelayReader, Start> {
    match spec.relay.reader(from).await {
        Ok(reader) => Ok(reader),
        Err(RelayError::NotCovered { .. } | RelayError::NotStarted) => Err(Start::RelayTooShort(from.clone())),
        Err(error @ RelayError::Damaged { .. }) => Err(Start::Damaged(error)),
        Err(error) => Err(Start::Failed(Failure::from(&error))),
    }
}

/// A task that was taken over: what is stored of it, and what follows from that.
struct Held {
    downstream: Downstream,
    control: Conn,
    claimed: Claimed,
    /// Where it would have started with nothing stored.
    fresh_start: Location,
    transform: Arc<Transform>,
    outdated: Outdated,
    declared: DeclaredTables,
    window: Option<Window>,
}

impl Held {
    /// Connects and claims the task.
    async fn take(
        spec: &PipelineSpec,
        window: Option<Window>,
        connected: Option<Box<(Downstream, Conn)>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Held, Failure> {
        say(progress, "connecting to the downstream");
        let (mut downstream, mut control) = match connected {
            Some(connected) => *connected,
            None => Downstream::open_connected(DownstreamOptions { endpoint: spec.downstream.clone() }).await?,
        };
        say(progress, "reading the checkpoint");
        let known = spec.fresh_start.as_ref().or(window.as_ref().map(Window::from)).cloned();
        let fresh_start = known.ok_or_else(|| {
            let text = "the checkpoint has gone while the task was being started";
            Failure::new(Code::Checkpoint, text).workaround("Please resume-task.")
        })?;
        let wanted = TaskMapping::of(&spec.rules, downstream.checks_foreign_keys);
        let history = SourceHistory { endpoint: &spec.source, flavor: spec.flavor };
        let claimed = claim(&mut control, &claim_of(spec, &wanted, &fresh_start), &history).await?;
        if claimed.disarm {
            // Whoever stored the intent passed its check before the epoch was raised, and may be about to run the statement.
            let lock = DdlLock::new(&spec.tables);
            if lock.take(&mut control, |waits| say(progress, &waits)).await? {
                lock.give_back(&mut control).await;
            }
        }
        let (in_use, transform, outdated) = mapping_in_use(spec, &claimed, &wanted)?;
        if in_use.one_sequence != downstream.checks_foreign_keys {
            let options = checking_foreign_keys(&spec.downstream, in_use.one_sequence);
            (downstream, control) = Downstream::open_connected(options).await?;
        }
        let declared = declared_from(spec, &claimed).await?;
        let window = with_orders(spec, &claimed, window, &mut control, &outdated, progress).await?;
        Ok(Held { downstream, control, claimed, fresh_start, transform, outdated, declared, window })
    }

    fn intake(
        &self,
        spec: &PipelineSpec,
        reader: RelayReader,
        windows: Windows,
        progress: &watch::Sender<Progress>,
    ) -> Result<IntakeOptions, Failure> {
        let (claimed, begin) = (&self.claimed, reader.boundary().clone());
        Ok(IntakeOptions {
            reader,
            decoder: Decoder::new(spec.flavor, begin.location, begin.checksum),
            transform: Arc::clone(&self.transform),
            downstream: self.downstream.clone(),
            origin: Origin::new(spec.source.clone(), spec.flavor),
            prepared: Prepared::new(spec.relay.clone(), spec.flavor, self.fresh_start.clone()),
            start: claimed.start.clone(),
            furthest: former::furthest(&claimed.marks, &claimed.start),
            mappings: TableMappings::new(&claimed.mapping.tables, self.outdated.clone())?,
            progress: progress.clone(),
            tables: claimed.kept_here.is_none().then(|| spec.tables.clone()),
            epoch: claimed.epoch,
            exceptions: Arc::clone(&spec.exceptions),
            declared: self.declared.clone(),
            declared_store: Arc::clone(&spec.declared),
            windows,
            ends: spec.copy.ends,
            copies: spec.copy.copies,
            strict_collation: spec.copy.options.strict_collation,
        })
    }

    fn coordinator(self, spec: &PipelineSpec, windows: Windows) -> (Conn, CoordinatorOptions) {
        let (relay, name, received) = (spec.relay.clone(), spec.name.clone(), spec.relay.clone());
        let options = CoordinatorOptions {
            copy: copy_spec(spec, self.downstream.dialect),
            windows,
            ends: spec.copy.ends,
            paces: spec.paces.clone(),
            target: spec.target(),
            downstream: self.downstream,
            tables: spec.tables.clone(),
            claimed: self.claimed,
            flush_interval: spec.flush_interval,
            drain_limit: spec.drain_limit,
            always_safe: spec.always_safe,
            safe_duration: spec.safe_duration,
            outdated: self.outdated,
            on_stored: Box::new(move |location| relay.protect(&name, location)),
            received: Box::new(move || received.state().received.map(|received| received.0)),
        };
        (self.control, options)
    }
}

fn claim_of(spec: &PipelineSpec, wanted: &TaskMapping, fresh_start: &Location) -> Claim {
    Claim {
        tables: spec.tables.clone(),
        flavor: spec.flavor,
        lanes: spec.lanes,
        mapping: wanted.to_text(),
        fresh_start: fresh_start.clone(),
        fresh_safe: spec.fresh_safe.clone(),
        ledger: Arc::clone(&spec.ledger),
        target: spec.target(),
        moves: spec.moves,
    }
}

/// Orders count from a place where all lanes stand together, at the end of a transaction; where they do not, the next
/// pipeline takes them, which begins as soon as they do.
async fn with_orders(
    spec: &PipelineSpec,
    claimed: &Claimed,
    window: Option<Window>,
    control: &mut Conn,
    outdated: &Outdated,
    progress: &watch::Sender<Progress>,
) -> Result<Option<Window>, Failure> {
    if spec.orders.is_empty() {
        return Ok(window);
    }
    let together = !claimed.start.is_inside() && claimed.marks.iter().all(|mark| *mark == claimed.start);
    let window = match (&claimed.kept_here, together) {
        (Some(why), _) => {
            let note = format!(
                "tables ordered by `resync-table` are not read again: positions are kept on this machine ({why}), and a \
                 table that is read in part must be known downstream"
            );
            tracing::warn!("{note}");
            progress.send_if_modified(|progress| progress.notes.insert(note));
            window
        }
        (None, false) => {
            outdated.set();
            return Ok(window);
        }
        (None, true) => Some(take_orders(spec, claimed, window, control).await?),
    };
    progress.send_modify(|progress| progress.orders_taken = true);
    Ok(window)
}

/// What lanes are given: as the task wants it now, or as before, until lanes that a crash left apart stand together.
fn mapping_in_use(
    spec: &PipelineSpec,
    claimed: &Claimed,
    wanted: &TaskMapping,
) -> Result<(TaskMapping, Arc<Transform>, Outdated), Failure> {
    let outdated = Outdated::default();
    let in_use = TaskMapping::parse(&claimed.mapping.text)?;
    if claimed.marks.len() != spec.lanes.max(1) as usize {
        outdated.set();
    }
    if in_use == *wanted {
        return Ok((in_use, Arc::clone(&spec.transform), outdated));
    }
    outdated.set();
    tracing::info!("lanes were left apart: the rules of before hold until they stand together");
    // These rules were compiled before; nothing but a fault of ours makes them fail now.
    let transform = Transform::new(&in_use.rules(&spec.rules)).map_err(|mut problems| {
        problems.pop().unwrap_or_else(|| Failure::new(Code::Checkpoint, "compile the stored rules"))
    })?;
    Ok((in_use, Arc::new(transform), outdated))
}

/// What is declared, what is new of it from the first place on that no lane was given yet.
async fn declared_from(spec: &PipelineSpec, claimed: &Claimed) -> Result<DeclaredTables, Failure> {
    let marks = claimed.marks.iter().chain([&claimed.start]).map(|mark| &mark.location.position);
    let Some(furthest) = marks.max().cloned() else { return Ok(DeclaredTables::default()) };
    spec.declared.change(Box::new(move |all| all.settle(&furthest))).await
}

fn checking_foreign_keys(endpoint: &Endpoint, checks: bool) -> DownstreamOptions {
    let mut endpoint = endpoint.clone();
    endpoint.session.retain(|name, _| !name.eq_ignore_ascii_case("foreign_key_checks"));
    endpoint.session.insert("foreign_key_checks".to_owned(), u8::from(checks).to_string());
    DownstreamOptions { endpoint }
}

/// Asks the source itself, and only when a checkpoint without GTIDs is taken over.
struct SourceHistory<'a> {
    endpoint: &'a Endpoint,
    flavor: Flavor,
}

impl History for SourceHistory<'_> {
    async fn gtids_at(&self, position: &BinlogPosition) -> Result<GtidSet, Failure> {
        let connector = Connector::new(self.endpoint.clone());
        let connected = connector.connect().await;
        let mut conn = connected.map_err(|error| connector.failure(&error, Scope::Upstream))?;
        let facts = ServerFacts::read(&mut conn).await?;
        if facts.location.is_none_or(|now| now.gtids.is_empty()) {
            return Ok(GtidSet::empty(self.flavor));
        }
        let found = gtids_at(self.endpoint, self.flavor, position, &facts.purged).await;
        found.map_err(|error| error.of_checkpoint(position))
    }
}
