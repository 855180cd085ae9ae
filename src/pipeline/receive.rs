//! The receiving half: from the source's binlog into its relay log, for as long as the source is there.
//!
//! Independent of every task: a parked one stops nothing here. Each connection begins at the end of the last complete
//! transaction that the relay log has; what came of a cut one is void there. At the disk budget or floor it disconnects
//! and waits for room: nothing is ever deleted to make some.

use std::time::{Duration, SystemTime};

use mysql_async::Conn;
use tokio::sync::watch;
use uuid::Uuid;

use crate::binlog::EventRun;
use crate::clock::steady;
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
    /// When the source last said that it had nothing beyond what we have: a heartbeat right behind our end.
    pub caught_up: Option<SystemTime>,
    /// Connections that broke.
    pub breaks: Breaks,
    /// Why nothing that follows can come from this server: it is another one than the relay log's.
    pub stranger: Option<Failure>,
    /// What the source said of itself at the last connect.
    pub facts: Option<ServerFacts>,
}

impl Default for ReceiveState {
    fn default() -> Self {
        ReceiveState {
            doing: Receive::Connecting,
            last_contact: None,
            caught_up: None,
            breaks: Breaks::default(),
            stranger: None,
            facts: None,
        }
    }
}

/// How often receiving broke, and with what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaks {
    /// In all.
    pub all: u64,
    /// Of them, those after which someone has to act.
    pub stopped: u64,
    /// An event had another checksum than the source gave it.
    pub damaged: u64,
    /// What came could not be stored.
    pub unstored: u64,
}

impl Breaks {
    fn count(&mut self, broken: &Broken) {
        let stopped = match broken {
            Broken::Relay(RelayError::Superseded) | Broken::Preflight(_) => false,
            Broken::Read(error, _) => error.class() == ErrorClass::Stop,
            Broken::Relay(_) | Broken::Stranger(_) => true,
        };
        self.all += 1;
        self.stopped += u64::from(stopped);
        self.damaged += u64::from(matches!(broken, Broken::Read(ReadError::Checksum(_), _)));
        // A budget is no failure of the disk.
        let unstored =
            matches!(broken, Broken::Relay(error) if !matches!(error, RelayError::Full(_) | RelayError::Superseded));
        self.unstored += u64::from(unstored);
    }
}

/// Why a connection ended.
enum Broken {
    Read(ReadError, Phase),
    /// The source is not fit, or cannot be asked.
    Preflight(Failure),
    /// Another server answers there, and positions of one mean nothing on the other.
    Stranger(Failure),
    Relay(RelayError),
}

/// Receives until it is dropped. Every wait inside may be dropped.
pub async fn receive(spec: ReceiveSpec, relay: Relay, state: watch::Sender<ReceiveState>) {
    let mut backoff = Backoff::new();
    loop {
        let Err(broken) = connect_and_receive(&spec, &relay, &state, &mut backoff).await;
        state.send_modify(|state| state.breaks.count(&broken));
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
                // Another replica of our server id is thrown out by the next connection as we were by it: not soon.
                let heals = matches!(error, ReadError::AccessDenied(_));
                let pause = if heals { backoff.next(rand::random::<f64>).min(LONG_PAUSE) } else { LONG_PAUSE };
                state.send_modify(|state| state.doing = Receive::Stopped { failure });
                pause
            }
            Broken::Read(error, phase) => retry(failed(error.failure(phase)), &state, &mut backoff),
            Broken::Preflight(failure) => retry(failed(failure), &state, &mut backoff),
            Broken::Stranger(failure) => {
                let failure = failed(failure);
                state.send_modify(|state| {
                    (state.stranger, state.doing) = (Some(failure.clone()), Receive::Stopped { failure });
                });
                LONG_PAUSE
            }
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
    let (facts, unfit) = ask(spec, &start).await.map_err(Broken::Preflight)?;
    let identity = facts.identity.clone();
    if let Some(failure) = stranger(&spec.endpoint, &relay.state().identity, &identity, &start) {
        return Err(Broken::Stranger(failure));
    }
    // Said second: what a position lacks on another server is no news.
    if let Some(failure) = unfit {
        return Err(Broken::Preflight(failure));
    }
    state.send_modify(|state| (state.stranger, state.facts) = (None, Some(facts)));
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
            state.last_contact = Some(steady());
            std::mem::replace(&mut state.doing, Receive::Running) != Receive::Running
        });
        let Batch { events, heartbeat } = batch;
        store(&mut writer, events).await.map_err(Broken::Relay)?;
        // One further on tells of transactions that are being skipped for us: more may come.
        if let Some(beat) = heartbeat
            && relay.state().received.is_some_and(|received| received.0.position == beat.position)
        {
            state.send_modify(|state| state.caught_up = Some(beat.at));
        }
        batch = reader.next_batch().await.map_err(|e| Broken::Read(e, Phase::Stream))?;
    }
}

async fn store(writer: &mut RelayWriter, events: EventRun) -> Result<(), RelayError> {
    if events.is_empty() { Ok(()) } else { writer.append(events).await }
}

/// What is wrong where the server is not the one whose binlog we hold. A GTID set means the same on every server of a
/// topology; a file and an offset mean something on one server only.
fn stranger(endpoint: &Endpoint, held: &str, found: &str, start: &DumpStart) -> Option<Failure> {
    if held.is_empty() || held == found || matches!(start, DumpStart::Gtids(_)) {
        return None;
    }
    let (host, port) = (&endpoint.host, endpoint.port);
    let message = format!(
        "the server at {host}:{port} is {found}, the relay log and the checkpoints are of {held}: positions of one mean \
         nothing on the other"
    );
    Some(Failure::new(Code::BinlogPosition, message).scope(Scope::Upstream).workaround(
        "Please let the address lead to the former server again. Where the server was replaced on purpose: stop-task, \
         then `operate-source update` with `enable-gtid: true` if both have the same GTIDs, else `operate-source stop` \
         and `create`, and start the task at a position of the new server.",
    ))
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
    match ask(spec, start).await? {
        (_, Some(failure)) => Err(failure),
        (facts, None) => Ok(facts),
    }
}

/// What the source is, and why it cannot be received from, if it cannot.
async fn ask(spec: &ReceiveSpec, start: &DumpStart) -> Result<(ServerFacts, Option<Failure>), Failure> {
    let connector = Connector::new(spec.endpoint.clone());
    let mut conn: Conn = connector.connect().await.map_err(|error| connector.failure(&error, Scope::Upstream))?;
    let want = Want {
        flavor: Some(spec.flavor),
        server_id: spec.server_id,
        enable_gtid: spec.enable_gtid,
        start: Some(start.clone()),
        start_is_given: false,
    };
    let preflight = Preflight::read(&mut conn, &want).await?;
    let problems = preflight.check(&want);
    for problem in &problems {
        tracing::debug!(%problem, "preflight");
    }
    let facts = preflight.facts().clone();
    // Closing politely is not worth a wait.
    drop(conn);
    let nameless = || {
        let failure = Failure::new(Code::NoMasterStatus, "the source did not say which server it is");
        facts.identity.is_empty().then_some(failure)
    };
    let unfit = failure_of(&problems).or_else(nameless);
    Ok((facts, unfit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BinlogPosition, GtidSet, Secret};

    #[test]
    fn a_position_counts_on_its_own_server_only() {
        let endpoint = Endpoint {
            host: "db".into(),
            port: 3306,
            user: "u".into(),
            password: Secret::new("p"),
            session: Default::default(),
            tls: None,
        };
        let position = DumpStart::Position(BinlogPosition::parse("b.000001", 4).unwrap());
        let set = DumpStart::Gtids(GtidSet::empty(Flavor::MySql));
        let failure = stranger(&endpoint, "a", "b", &position).unwrap();
        assert!(failure.message.contains("db:3306 is b") && failure.workaround.contains("enable-gtid"), "{failure}");
        assert_eq!(stranger(&endpoint, "a", "b", &set), None);
        assert_eq!(stranger(&endpoint, "a", "a", &position), None);
        assert_eq!(stranger(&endpoint, "", "b", &position), None, "nothing is held yet");
    }
}
