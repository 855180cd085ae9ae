//! Commands on relay logs: start, stop, pause, resume, purge.
//!
//! What is wished of a relay log is stored before it is done. Nothing here removes what a task still needs.

use std::sync::Arc;

use mysql_async::Conn;

use super::api::SourceResult;
use super::endpoint::endpoint;
use super::records::SourceRecord;
use super::source::Source;
use super::sources::flavor;
use super::start::{complete_gtids, connect};
use super::{Supervisor, read, store_failure, write};
use crate::config::SourceConfig;
use crate::error::{Code, Failure};
use crate::model::{BinlogFile, BinlogPosition, GtidSet, Location};
use crate::mysql::Endpoint;
use crate::relay::RelayError;
use crate::store::Namespace;
use crate::task::{Stage, TaskStatus};
use crate::upstream::{DumpStart, Preflight, ServerFacts, Want, failure_of};

/// What is wished of a source's relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayWish {
    /// Receive although no task needs it.
    Start,
    /// Receive only what tasks need.
    Stop,
    /// Do not receive.
    Pause,
    /// Receive again.
    Resume,
}

impl Supervisor {
    /// Where receiving begins while no task says where. Whatever is wrong names the source.
    pub(super) async fn relay_begin(&self, config: &SourceConfig, record: &SourceRecord) -> Result<Location, Failure> {
        let named = |failure: Failure| failure.at(format!("source {}", config.source_id));
        let from = endpoint(&config.from, self.key().as_ref());
        let mut conn = connect(&from).await.map_err(named)?;
        relay_begin(config, record, &from, &mut conn).await.map_err(named)
    }

    /// Receives without a task: on from where the relay log ends, or from where it is to begin.
    pub(super) async fn begin_receiving(&self, source: &Arc<Source>, record: &SourceRecord) -> Result<(), Failure> {
        if source.relay.state().start.is_some() {
            source.start_receiving();
            return Ok(());
        }
        let begin = self.relay_begin(&source.settings().config, record).await?;
        source.reach_back_to(&begin).await
    }

    /// start-relay, stop-relay, pause-relay, resume-relay.
    pub async fn relay(&self, wish: RelayWish, source_id: &str) -> Result<SourceResult, Failure> {
        self.admit()?;
        let command = match wish {
            RelayWish::Start => "start-relay",
            RelayWish::Stop => "stop-relay",
            RelayWish::Pause => "pause-relay",
            RelayWish::Resume => "resume-relay",
        };
        let _claim = self.claim_source(source_id, command, false)?;
        let source = self.source(source_id)?;
        let Some(mut record) = read(&self.inner.sources).get(source_id).map(|entry| entry.record.clone()) else {
            return Ok(self.done(source_id));
        };
        match wish {
            RelayWish::Start => record.relay_wanted = true,
            RelayWish::Stop => record.relay_wanted = false,
            RelayWish::Pause => record.relay_paused = true,
            RelayWish::Resume => record.relay_paused = false,
        }
        let stored = self.inner.db.put(Namespace::Source, source_id, &record).await;
        stored.map_err(|error| store_failure(&error, "store what is wished of the relay"))?;
        if let Some(entry) = write(&self.inner.sources).get_mut(source_id) {
            entry.record = record.clone();
        }
        match wish {
            RelayWish::Pause => source.set_paused(true).await,
            RelayWish::Resume => {
                source.set_paused(false).await;
                source.kick().await;
            }
            RelayWish::Stop if !self.has_tasks(source_id) => source.stop_receiving().await,
            RelayWish::Stop => {}
            RelayWish::Start => self.begin_receiving(&source, &record).await?,
        }
        Ok(self.done(source_id))
    }

    /// Removes relay log before `filename`, as far as no subtask needs it. Refused as a whole, as DM does, while a
    /// subtask of the source is parked.
    pub async fn purge_relay(&self, source_id: &str, filename: &str) -> Result<(), Failure> {
        self.admit()?;
        let source = self.source(source_id)?;
        let of_source = |task: &TaskStatus| task.source_id == source_id;
        let parked = self
            .status()
            .tasks
            .into_iter()
            .filter(of_source)
            .map(|task| (task.name, task.stage))
            .find(|(_, stage)| matches!(stage, Stage::New | Stage::Paused | Stage::Pausing));
        if let Some((task, stage)) = parked {
            let stage = stage.as_str();
            return Err(Failure::new(
                Code::PurgeForbidden,
                format!("relay log purge is forbidden temporarily, because sub task {task} current stage is {stage}"),
            ));
        }
        let file = BinlogFile::parse(filename)
            .map_err(|error| Failure::new(Code::PurgeArguments, format!("purge-relay --filename: {error}")))?;
        match source.relay.purge_before(file).await {
            Ok(report) => {
                tracing::info!(source = source_id, ?report, "relay log purged");
                Ok(())
            }
            Err(RelayError::NotStarted) => Ok(()),
            Err(error) => Err(Failure::from(&error)),
        }
    }
}

/// Where receiving begins while no task says where: by the source's own words, or at the server's present end.
async fn relay_begin(
    config: &SourceConfig,
    record: &SourceRecord,
    endpoint: &Endpoint,
    conn: &mut Conn,
) -> Result<Location, Failure> {
    let facts = ServerFacts::read(conn).await?;
    let Some(start) = &config.relay_start else {
        return facts
            .location
            .ok_or_else(|| Failure::new(Code::NoMasterStatus, "the source did not tell where its binlog ends"));
    };
    let flavor = flavor(&record.flavor)?;
    let gtids = GtidSet::parse(flavor, &start.binlog_gtid)
        .map_err(|error| Failure::new(Code::ParseGtid, format!("relay-binlog-gtid: {error}")))?;
    let file = match start.binlog_name.as_str() {
        // A set that names nothing, such as `uuid:0`: all that is there.
        "" if config.enable_gtid && gtids.is_empty() && !start.binlog_gtid.is_empty() => {
            facts.binlogs.first().map_or_else(BinlogFile::unknown, |first| first.file.clone())
        }
        "" => BinlogFile::unknown(),
        name => BinlogFile::parse(name)
            .map_err(|error| Failure::new(Code::BinlogPosition, format!("relay-binlog-name: {error}")))?,
    };
    let location = Location::new(BinlogPosition::new(file, BinlogPosition::FIRST_OFFSET), gtids);
    let by_gtid = config.enable_gtid && !location.gtids.is_empty();
    if !by_gtid && location.position.file == BinlogFile::unknown() {
        return Err(Failure::new(Code::ConfigSource, "relay-binlog-gtid: names no place while `enable-gtid` is false")
            .workaround("Please set `enable-gtid`, or give `relay-binlog-name`."));
    }
    let dump = match by_gtid {
        true => DumpStart::Gtids(location.gtids.clone()),
        false => DumpStart::Position(location.position.clone()),
    };
    let want = Want {
        flavor: Some(flavor),
        server_id: record.server_id,
        enable_gtid: config.enable_gtid,
        start: Some(dump),
        start_is_given: true,
    };
    if let Some(failure) = failure_of(&Preflight::read(conn, &want).await?.check(&want)) {
        return Err(failure);
    }
    complete_gtids(endpoint, flavor, &facts, location).await
}
