//! The receiving half: from the source's binlog into its relay log, for as long as the source is there.
//!
//! Independent of every task: a parked one stops nothing here. Each connection begins at the end of the last complete
//! transaction that the relay log has; what came of a cut one is void there. At the disk budget or floor it disconnects
//! and waits for room: nothing is ever deleted to make some.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mysql_async::Conn;
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::{Code, Failure, Scope};
use crate::model::{Flavor, Location};
use crate::mysql::{Connector, Endpoint};
use crate::relay::{Relay, RelayError, RelayWriter};
use crate::upstream::{
    Backoff, Batch, BinlogReader, DumpRequest, DumpStart, ErrorClass, Extent, Phase, Preflight, ReadError, ServerFacts,
    Want, failure_of,
};

/// A source that has nothing new says so this often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long to wait where trying again helps only if someone did something meanwhile.
const LONG_PAUSE: Duration = Duration::from_secs(15);

/// What a receiver needs to know.
#[derive(Debug, Clone)]
pub struct ReceiveSpec {
    /// The source.
    pub endpoint: Endpoint,
    /// Its dialect.
    pub flavor: Flavor,
    /// Ask by GTID set rather than by position.
    pub enable_gtid: bool,
    /// Our server id as a replica.
    pub server_id: u32,
    /// Our identity as a replica.
    pub replica_uuid: Uuid,
    /// Shown by `SHOW REPLICAS`.
    pub report_host: String,
}

/// What a receiver does now.
#[derive(Debug, Clone, PartialEq)]
pub enum Receive {
    /// Connecting.
    Connecting,
    /// Events and heartbeats come in.
    Running,
    /// The last try failed; the next one is at this time.
    Retrying {
        /// When.
        at: SystemTime,
        /// What failed.
        failure: Failure,
    },
    /// Nothing can be received until someone does something, or the disk has room.
    Stopped {
        /// Why.
        failure: Failure,
    },
}

/// A receiver at one instant.
#[derive(Debug, Clone)]
pub struct ReceiveState {
    /// What it does.
    pub doing: Receive,
    /// When something last came from the source.
    pub last_contact: Option<SystemTime>,
    /// What the source said of itself at the last connect.
    pub facts: Option<ServerFacts>,
}

impl Default for ReceiveState {
    fn default() -> Self {
        ReceiveState { doing: Receive::Connecting, last_contact: None, facts: None }
    }
}

/// Why a connection ended.
enum Broken {
    Read(ReadError, Phase),
    /// The source is not fit, or cannot be asked.
    Preflight(Failure),
    Relay(RelayError),
}

/// Receives until it is dropped. Every wait inside may be dropped.
pub async fn receive(spec: ReceiveSpec, relay: Relay, state: watch::Sender<ReceiveState>) {
    let mut backoff = Backoff::new();
    loop {
        let Err(broken) = connect_and_receive(&spec, &relay, &state, &mut backoff).await;
        let failed = |failure: Failure| {
            tracing::warn!(error = %failure, "receiving broke");
            failure
        };
        let pause = match broken {
            Broken::Relay(error @ RelayError::Full(_)) => {
                let failure = failed(Failure::from(&error));
                state.send_modify(|state| state.doing = Receive::Stopped { failure });
                wait_for_room(&relay).await;
                continue;
            }
            Broken::Relay(RelayError::Superseded) => continue,
            Broken::Relay(error) => {
                let failure = failed(Failure::from(&error));
                state.send_modify(|state| state.doing = Receive::Stopped { failure });
                LONG_PAUSE
            }
            Broken::Read(error, phase) if error.class() == ErrorClass::Stop => {
                let failure = failed(error.failure(phase));
                let heals = matches!(error, ReadError::AccessDenied(_) | ReadError::DuplicateServerId(_));
                let pause = if heals { backoff.next(rand::random::<f64>).min(LONG_PAUSE) } else { LONG_PAUSE };
                state.send_modify(|state| state.doing = Receive::Stopped { failure });
                pause
            }
            Broken::Read(error, phase) => retry(failed(error.failure(phase)), &state, &mut backoff),
            Broken::Preflight(failure) => retry(failed(failure), &state, &mut backoff),
        };
        tokio::time::sleep(pause).await;
    }
}

fn retry(failure: Failure, state: &watch::Sender<ReceiveState>, backoff: &mut Backoff) -> Duration {
    let pause = backoff.next(rand::random::<f64>);
    state.send_modify(|state| state.doing = Receive::Retrying { at: SystemTime::now() + pause, failure });
    pause
}

async fn wait_for_room(relay: &Relay) {
    loop {
        match relay.writer() {
            Ok(writer) => match writer.writable().await {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(LONG_PAUSE).await,
            },
            Err(_) => tokio::time::sleep(LONG_PAUSE).await,
        }
    }
}

async fn connect_and_receive(
    spec: &ReceiveSpec,
    relay: &Relay,
    state: &watch::Sender<ReceiveState>,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, Broken> {
    let mut writer = relay.writer().map_err(Broken::Relay)?;
    writer.writable().await.map_err(Broken::Relay)?;
    let from = writer.resume_location().map_err(Broken::Relay)?;
    let start = start_of(spec, &from);
    let facts = check(spec, &start).await.map_err(Broken::Preflight)?;
    let identity = facts.identity.clone();
    state.send_modify(|state| state.facts = Some(facts));
    let request = DumpRequest {
        flavor: spec.flavor,
        server_id: spec.server_id,
        start,
        extent: Extent::Follow,
        heartbeat: HEARTBEAT,
        replica_uuid: spec.replica_uuid,
        report_host: spec.report_host.clone(),
    };
    let mut reader = BinlogReader::connect(&spec.endpoint, &request).await.map_err(|e| Broken::Read(e, Phase::Open))?;
    // The first batch shows whether the start was accepted.
    let mut batch = reader.next_batch().await.map_err(|e| Broken::Read(e, Phase::Stream))?;
    writer.restart(&identity).map_err(Broken::Relay)?;
    tracing::info!(%from, "receiving");
    loop {
        backoff.reset();
        state.send_if_modified(|state| {
            state.last_contact = Some(SystemTime::now());
            std::mem::replace(&mut state.doing, Receive::Running) != Receive::Running
        });
        let Batch { events, .. } = batch;
        store(&mut writer, events).await.map_err(Broken::Relay)?;
        batch = reader.next_batch().await.map_err(|e| Broken::Read(e, Phase::Stream))?;
    }
}

async fn store(writer: &mut RelayWriter, events: Vec<Bytes>) -> Result<(), RelayError> {
    if events.is_empty() { Ok(()) } else { writer.append(events).await }
}

/// How the source is asked for what follows `from`.
pub fn start_of(spec: &ReceiveSpec, from: &Location) -> DumpStart {
    let unknown = from.position.file.name().is_empty();
    if !from.gtids.is_empty() && (spec.enable_gtid || unknown) {
        DumpStart::Gtids(from.gtids.clone())
    } else {
        DumpStart::Position(from.position.clone())
    }
}

/// Asks the source what it is, and refuses to go on where it cannot work.
pub async fn check(spec: &ReceiveSpec, start: &DumpStart) -> Result<ServerFacts, Failure> {
    let connector = Connector::new(spec.endpoint.clone());
    let mut conn: Conn = connector.connect().await.map_err(|error| connector.failure(&error, Scope::Upstream))?;
    let want = Want {
        flavor: Some(spec.flavor),
        server_id: spec.server_id,
        enable_gtid: spec.enable_gtid,
        start: Some(start.clone()),
    };
    let preflight = Preflight::read(&mut conn, &want).await?;
    let problems = preflight.check(&want);
    for problem in &problems {
        tracing::debug!(%problem, "preflight");
    }
    let facts = preflight.facts().clone();
    // Closing politely is not worth a wait.
    drop(conn);
    match failure_of(&problems) {
        Some(failure) => Err(failure),
        None if facts.identity.is_empty() => {
            Err(Failure::new(Code::NoMasterStatus, "the source did not say which server it is"))
        }
        None => Ok(facts),
    }
}
