//! Commands on sources.

use std::sync::Arc;

use mysql_async::Conn;

use super::api::SourceResult;
use super::endpoint::endpoint;
use super::records::SourceRecord;
use super::source::Source;
use super::start::{complete_gtids, connect};
use super::{SourceEntry, Supervisor, read, store_failure, write};
use crate::config::SourceConfig;
use crate::error::{Code, Failure};
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location};
use crate::mysql::Endpoint;
use crate::pipeline::ReceiveSpec;
use crate::relay::RelayError;
use crate::store::Namespace;
use crate::task::Stage;
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
    pub(super) async fn load_sources(&self) -> Result<(), Failure> {
        let doing = "read the stored sources";
        let stored = self.inner.db.list::<SourceRecord>(Namespace::Source, "").await;
        for (source_id, record) in stored.map_err(|error| store_failure(&error, doing))? {
            let opened = match parse(&record.yaml) {
                Ok(config) => self.open(config, &record).await,
                Err(failure) => Err(failure),
            };
            // One that cannot be opened stops no other; its record stays for the next start.
            match opened {
                Ok(source) => drop(write(&self.inner.sources).insert(source_id, SourceEntry { source, record })),
                Err(failure) => {
                    tracing::error!(source = %source_id, error = %failure, "a stored source cannot be opened")
                }
            }
        }
        Ok(())
    }

    async fn open(&self, config: SourceConfig, record: &SourceRecord) -> Result<Arc<Source>, Failure> {
        let receive = ReceiveSpec {
            endpoint: endpoint(&config.from, self.key().as_ref()),
            flavor: flavor(&record.flavor)?,
            enable_gtid: config.enable_gtid,
            server_id: record.server_id,
            replica_uuid: record.replica_uuid,
            report_host: self.inner.options.worker.clone(),
        };
        let source = Source::open(config, receive, self.inner.options.limits.clone()).await?;
        if record.relay_paused {
            source.set_paused(true).await;
        } else if record.relay_wanted {
            source.start_receiving();
        }
        Ok(source)
    }

    /// Adds a source: checked against the server first, stored, then opened.
    pub async fn create_source(&self, yaml: &str) -> Result<SourceResult, Failure> {
        let config = parse(yaml)?;
        let id = config.source_id.clone();
        if read(&self.inner.sources).contains_key(&id) {
            return Err(Failure::new(Code::SourceExists, format!("source config with ID {id} already exists")));
        }
        let from = endpoint(&config.from, self.key().as_ref());
        let named = |failure: Failure| failure.at(format!("source {id}"));
        let mut conn = connect(&from).await.map_err(named)?;
        let server_id = config.server_id.unwrap_or_else(|| 429_496_729 + rand::random_range(0..100_000));
        let want = Want { flavor: config.flavor, server_id, enable_gtid: config.enable_gtid, start: None };
        let preflight = Preflight::read(&mut conn, &want).await.map_err(named)?;
        if let Some(failure) = failure_of(&preflight.check(&want)) {
            return Err(named(failure));
        }
        let record = SourceRecord {
            yaml: config.to_stored_yaml(),
            flavor: preflight.facts().flavor.as_str().to_owned(),
            server_id,
            replica_uuid: uuid::Uuid::new_v4(),
            relay_wanted: config.enable_relay,
            relay_paused: false,
        };
        // Where it begins is found, and refused, before anything is stored.
        let begin = match record.relay_wanted {
            true => Some(relay_begin(&config, &record, &from, &mut conn).await.map_err(named)?),
            false => None,
        };
        let notes = said(&config);
        let stored = self.inner.db.put(Namespace::Source, &id, &record).await;
        stored.map_err(|error| store_failure(&error, "store the source"))?;
        let source = self.open(config, &record).await?;
        source.relay.arm_purge();
        if let Some(begin) = begin {
            source.reach_back_to(&begin).await?;
        }
        write(&self.inner.sources).insert(id.clone(), SourceEntry { source, record });
        Ok(SourceResult { result: Ok(notes), ..self.done(&id) })
    }

    /// Replaces a source's configuration; its relay log and tasks stay. Tasks use it when they are resumed.
    pub async fn update_source(&self, yaml: &str) -> Result<SourceResult, Failure> {
        let config = parse(yaml)?;
        let id = config.source_id.clone();
        self.source(&id)?;
        self.refuse_with_tasks(&id)?;
        let Some(mut record) = read(&self.inner.sources).get(&id).map(|entry| entry.record.clone()) else {
            return self.source(&id).map(|_| self.done(&id));
        };
        record.yaml = config.to_stored_yaml();
        if let Some(server_id) = config.server_id {
            record.server_id = server_id;
        }
        let stored = self.inner.db.put(Namespace::Source, &id, &record).await;
        stored.map_err(|error| store_failure(&error, "store the source"))?;
        let notes = said(&config);
        let old = write(&self.inner.sources).remove(&id);
        if let Some(old) = old
            && let Err(failure) = old.source.close(false).await
        {
            tracing::warn!(error = %failure, "the relay log was not closed in order");
        }
        let source = self.open(config, &record).await?;
        source.relay.arm_purge();
        write(&self.inner.sources).insert(id.clone(), SourceEntry { source, record });
        Ok(SourceResult { result: Ok(notes), ..self.done(&id) })
    }

    /// Removes a source that has no tasks, and its relay log.
    pub async fn stop_source(&self, source_id: &str) -> Result<SourceResult, Failure> {
        let source = self.source(source_id)?;
        self.refuse_with_tasks(source_id)?;
        let removed = self.inner.db.remove(Namespace::Source, source_id).await;
        removed.map_err(|error| store_failure(&error, "forget the source"))?;
        write(&self.inner.sources).remove(source_id);
        if let Err(failure) = source.close(true).await {
            tracing::warn!(error = %failure, "the relay log of a removed source was not closed in order");
        }
        Ok(self.done(source_id))
    }

    fn refuse_with_tasks(&self, source_id: &str) -> Result<(), Failure> {
        let tasks: Vec<String> =
            read(&self.inner.tasks).keys().filter(|key| key.0 == source_id).map(|key| key.1.clone()).collect();
        let starting = self.inner.reserved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let starting = starting.iter().filter(|key| key.0 == source_id).map(|key| key.1.clone());
        let tasks: Vec<String> = tasks.into_iter().chain(starting).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        let tasks = tasks.join(" ");
        Err(Failure::new(
            Code::SourceHasTasks,
            format!("source with name {source_id} need to operate has existing tasks [{tasks}]"),
        ))
    }

    /// start-relay, stop-relay, pause-relay, resume-relay.
    pub async fn relay(&self, wish: RelayWish, source_id: &str) -> Result<SourceResult, Failure> {
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
        let needed = read(&self.inner.tasks).keys().any(|key| key.0 == source_id);
        match wish {
            RelayWish::Pause => source.set_paused(true).await,
            RelayWish::Resume => {
                source.set_paused(false).await;
                source.kick().await;
            }
            RelayWish::Stop if !needed => source.stop_receiving().await,
            RelayWish::Stop => {}
            RelayWish::Start if source.relay.state().start.is_some() => source.start_receiving(),
            RelayWish::Start => {
                let mut conn = connect(&source.endpoint).await?;
                let begin = relay_begin(&source.config, &record, &source.endpoint, &mut conn).await?;
                source.reach_back_to(&begin).await?;
            }
        }
        Ok(self.done(source_id))
    }

    /// Removes relay log before `filename`, as far as no subtask needs it. Refused as a whole, as DM does, while a
    /// subtask of the source is parked.
    pub async fn purge_relay(&self, source_id: &str, filename: &str) -> Result<(), Failure> {
        let source = self.source(source_id)?;
        let parked = read(&self.inner.tasks)
            .iter()
            .filter(|(key, _)| key.0 == source_id)
            .map(|(key, entry)| (key.1.clone(), entry.handle.status().stage))
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

    /// A source's configuration in DM's YAML as it holds, secrets masked: with the flavor that the server told and the
    /// server id that was chosen.
    pub fn source_config(&self, source_id: &str) -> Option<String> {
        let sources = read(&self.inner.sources);
        let SourceEntry { source, record } = sources.get(source_id)?;
        let mut config = source.config.clone();
        config.flavor = Some(source.flavor);
        config.server_id = Some(record.server_id);
        Some(config.to_dm_yaml())
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
        "" => BinlogFile::unknown(),
        name => BinlogFile::parse(name)
            .map_err(|error| Failure::new(Code::BinlogPosition, format!("relay-binlog-name: {error}")))?,
    };
    let location = Location::new(BinlogPosition::new(file, BinlogPosition::FIRST_OFFSET), gtids);
    let by_gtid = config.enable_gtid && !location.gtids.is_empty();
    if !by_gtid && start.binlog_name.is_empty() {
        return Err(Failure::new(Code::ConfigSource, "relay-binlog-gtid: names no place while `enable-gtid` is false")
            .workaround("Please set `enable-gtid`, or give `relay-binlog-name`."));
    }
    let dump = match by_gtid {
        true => DumpStart::Gtids(location.gtids.clone()),
        false => DumpStart::Position(location.position.clone()),
    };
    let want =
        Want { flavor: Some(flavor), server_id: record.server_id, enable_gtid: config.enable_gtid, start: Some(dump) };
    if let Some(failure) = failure_of(&Preflight::read(conn, &want).await?.check(&want)) {
        return Err(failure);
    }
    complete_gtids(endpoint, flavor, &facts, location).await
}

/// What of a source's configuration has no effect, for the one who gave it and for the log.
fn said(config: &SourceConfig) -> String {
    let notes = config.notes();
    notes.iter().for_each(|note| tracing::warn!(source = %config.source_id, note, "option without effect"));
    notes.join("; ")
}

fn parse(yaml: &str) -> Result<SourceConfig, Failure> {
    let config = SourceConfig::from_yaml(yaml).map_err(|error| error.to_failure(Code::ConfigSource))?;
    let refused = config.refusals();
    if refused.is_empty() { Ok(config) } else { Err(Failure::new(Code::ConfigSource, refused.join("; "))) }
}

fn flavor(text: &str) -> Result<Flavor, Failure> {
    [Flavor::MySql, Flavor::MariaDb]
        .into_iter()
        .find(|flavor| flavor.as_str() == text)
        .ok_or_else(|| Failure::new(Code::InvalidFlavor, format!("'{text}' is not a flavor")))
}
