//! Commands on sources.

use std::sync::Arc;

use super::api::SourceResult;
use super::broken::{SOURCE_REMEDY, damaged};
use super::endpoint::{compile_filters, endpoint};
use super::eye;
use super::records::{SourceRecord, check_form};
use super::source::{Settings, Source, remove_relay_dir};
use super::start::connect;
use super::{SourceEntry, Supervisor, read, store_failure, write};
use crate::config::{DatabaseConfig, SecretKey, SourceConfig};
use crate::error::{Code, Failure};
use crate::model::Flavor;
use crate::pipeline::ReceiveSpec;
use crate::runtime::spawn;
use crate::store::{Changes, Namespace};
use crate::upstream::{Preflight, ServerFacts, Want, failure_of};

impl Supervisor {
    pub(super) async fn load_sources(&self) -> Result<(), Failure> {
        let doing = "read the stored sources";
        let stored = self.inner.db.list_each::<SourceRecord>(Namespace::Source).await;
        for (id, record) in stored.map_err(|error| store_failure(&error, doing))? {
            let loaded = match record {
                Ok(record) => {
                    self.refuse_strangers(&id, record.toml.is_some())?;
                    self.load_source(&id, record).await
                }
                Err(error) => Err(damaged(&error, &format!("source {id}"), SOURCE_REMEDY)),
            };
            // One that cannot be opened stops no other; its record stays.
            if let Err(failure) = loaded {
                self.source_is_broken(&id, failure);
            }
        }
        Ok(())
    }

    pub(super) async fn load_source(&self, id: &str, record: SourceRecord) -> Result<(), Failure> {
        check_form(record.form, &format!("source {id}"))?;
        let config = match &record.toml {
            Some(toml) => parse_toml(id, toml)?,
            None => parse(&record.yaml)?,
        };
        let source = self.open(config, &record).await?;
        write(&self.inner.sources).insert(id.to_owned(), SourceEntry { source, record });
        Ok(())
    }

    /// What a master gave must not run without it, and what an operator made is not a master's.
    fn refuse_strangers(&self, source_id: &str, of_master: bool) -> Result<(), Failure> {
        let text = match (self.inner.options.joined, of_master) {
            (true, false) => "was created without a dm-master, and `join` is set",
            (false, true) => "belongs to a dm-master, and `join` is not set",
            _ => return Ok(()),
        };
        let remedy = "Please change `join` back and stop the source there first, or choose another `agent.state-dir`.";
        Err(Failure::new(Code::WorkerConfig, format!("source {source_id} in the state folder {text}"))
            .workaround(remedy))
    }

    pub(super) fn receive_spec(&self, config: &SourceConfig, record: &SourceRecord) -> Result<ReceiveSpec, Failure> {
        Ok(ReceiveSpec {
            endpoint: endpoint(&config.from, self.key().as_ref()),
            flavor: flavor(&record.flavor)?,
            enable_gtid: config.enable_gtid,
            server_id: record.server_id,
            replica_uuid: record.replica_uuid,
            report_host: self.inner.options.worker.clone(),
        })
    }

    pub(super) async fn open(&self, config: SourceConfig, record: &SourceRecord) -> Result<Arc<Source>, Failure> {
        let receive = self.receive_spec(&config, record)?;
        let source = Source::open(config, receive, self.inner.options.limits.clone(), self.inner.db.clone()).await?;
        source.look_by(spawn("look-at-source", eye::watch(Arc::downgrade(&source))));
        if record.relay_paused {
            source.set_paused(true).await;
        } else if record.relay_wanted {
            source.start_receiving();
        }
        Ok(source)
    }

    /// Asks the server whether it can be followed as this configuration says.
    pub(super) async fn preflight(&self, config: &SourceConfig, server_id: u32) -> Result<ServerFacts, Failure> {
        let named = |failure: Failure| failure.at(format!("source {}", config.source_id));
        let from = endpoint(&config.from, self.key().as_ref());
        let mut conn = connect(&from).await.map_err(named)?;
        let want = Want { flavor: config.flavor, server_id, enable_gtid: config.enable_gtid, ..Want::default() };
        let preflight = Preflight::read(&mut conn, &want).await.map_err(named)?;
        match failure_of(&preflight.check(&want)) {
            Some(failure) => Err(named(failure)),
            None => Ok(preflight.facts().clone()),
        }
    }

    /// Adds a source: checked against the server first, stored, then opened.
    pub async fn create_source(&self, yaml: &str) -> Result<SourceResult, Failure> {
        self.admit()?;
        let config = parse(yaml)?;
        let id = config.source_id.clone();
        let _claim = self.claim_source(&id, "operate-source create", true)?;
        let known = read(&self.inner.sources).contains_key(&id) || read(&self.inner.broken).sources.contains_key(&id);
        if known {
            return Err(Failure::new(Code::SourceExists, format!("source config with ID {id} already exists")));
        }
        let server_id = config.server_id.unwrap_or_else(any_server_id);
        let facts = self.preflight(&config, server_id).await?;
        let record = SourceRecord::new(&config, facts.flavor, server_id);
        // Where it begins is found, and refused, before anything is stored.
        let begin = match record.relay_wanted {
            true => Some(self.relay_begin(&config, &record).await?),
            false => None,
        };
        let notes = said(&config);
        let source = self.open(config, &record).await?;
        source.learn(&facts);
        let stored = self.inner.db.put(Namespace::Source, &id, &record).await;
        let begun = match (stored, begin) {
            (Err(error), _) => Err(store_failure(&error, "store the source")),
            (Ok(()), Some(begin)) => source.reach_back_to(&begin).await,
            (Ok(()), None) => Ok(()),
        };
        if let Err(failure) = begun {
            // All or nothing: neither a record nor a relay log of a source that was refused.
            let _ = self.inner.db.remove(Namespace::Source, &id).await;
            self.close_source(&source, true).await;
            return Err(failure);
        }
        source.relay.arm_purge();
        write(&self.inner.sources).insert(id.clone(), SourceEntry { source, record });
        Ok(SourceResult { result: Ok(notes), ..self.done(&id) })
    }

    /// Replaces a source's configuration; its relay log stays. Checked against the server before it is taken. While
    /// the source has tasks only how to log in may change, and they need not notice.
    pub async fn update_source(&self, yaml: &str) -> Result<SourceResult, Failure> {
        self.admit()?;
        let config = parse(yaml)?;
        let id = config.source_id.clone();
        let _claim = self.claim_source(&id, "operate-source update", true)?;
        if read(&self.inner.broken).sources.contains_key(&id) {
            return self.replace_broken_source(config).await;
        }
        let source = self.source(&id)?;
        let Some(mut record) = read(&self.inner.sources).get(&id).map(|entry| entry.record.clone()) else {
            return self.source(&id).map(|_| self.done(&id));
        };
        let before = source.settings();
        let holds = |config: &SourceConfig| as_it_holds(config, source.flavor, record.server_id);
        if !same_but_for_login(&holds(&before.config), &holds(&config)) {
            self.refuse_with_tasks(&id)?;
        }
        record.server_id = config.server_id.unwrap_or(record.server_id);
        let facts = self.preflight(&config, record.server_id).await?;
        if facts.flavor != source.flavor {
            let (old, new) = (source.flavor.as_str(), facts.flavor.as_str());
            return Err(Failure::new(Code::ConfigSource, format!("source {id} is {old}, the server there is {new}"))
                .workaround("Please remove the source with `operate-source stop` and create it anew."));
        }
        record.yaml = config.to_stored_yaml();
        let relay_changed = before.config.enable_relay != config.enable_relay;
        if relay_changed {
            record.relay_wanted = config.enable_relay;
        }
        let receive = self.receive_spec(&config, &record)?;
        let stored = self.inner.db.put(Namespace::Source, &id, &record).await;
        stored.map_err(|error| store_failure(&error, "store the source"))?;
        let mut notes = said(&config);
        if before.config.purge != config.purge {
            let later = "`purge` takes effect at the next start of the agent";
            notes = if notes.is_empty() { later.to_owned() } else { format!("{notes}; {later}") };
        }
        if let Some(entry) = write(&self.inner.sources).get_mut(&id) {
            entry.record = record.clone();
        }
        source.set_settings(Settings { config, receive }).await;
        if !source.is_of(&facts) && !self.has_tasks(&id) {
            // Nobody needs what there is of the former server.
            source.become_another(&facts).await?;
        }
        match (relay_changed, record.relay_wanted) {
            (true, true) => self.begin_receiving(&source, &record).await?,
            (true, false) if !self.has_tasks(&id) => source.stop_receiving().await,
            _ => {}
        }
        Ok(SourceResult { result: Ok(notes), ..self.done(&id) })
    }

    /// A new file for a source whose stored one cannot be loaded.
    async fn replace_broken_source(&self, config: SourceConfig) -> Result<SourceResult, Failure> {
        let id = config.source_id.clone();
        let stored = self.inner.db.get::<SourceRecord>(Namespace::Source, &id).await.ok().flatten();
        let server_id =
            config.server_id.or(stored.as_ref().map(|record| record.server_id)).unwrap_or_else(any_server_id);
        let facts = self.preflight(&config, server_id).await?;
        let mut record = SourceRecord::new(&config, facts.flavor, server_id);
        if let Some(stored) = stored {
            (record.replica_uuid, record.relay_paused) = (stored.replica_uuid, stored.relay_paused);
        }
        let source = self.open(config, &record).await?;
        let stored = self.inner.db.put(Namespace::Source, &id, &record).await;
        if let Err(error) = stored {
            self.close_source(&source, false).await;
            return Err(store_failure(&error, "store the source"));
        }
        write(&self.inner.sources).insert(id.clone(), SourceEntry { source, record });
        write(&self.inner.broken).sources.remove(&id);
        // Its tasks follow at the monitor's next look; nothing may be purged before they are there.
        Ok(self.done(&id))
    }

    pub(super) async fn close_source(&self, source: &Source, forget: bool) {
        if let Err(failure) = source.close(forget).await {
            tracing::warn!(source = %source.id, error = %failure, "the relay log was not closed in order");
        }
    }

    /// Removes a source that has no tasks, and its relay log.
    pub async fn stop_source(&self, source_id: &str) -> Result<SourceResult, Failure> {
        self.admit()?;
        let _claim = self.claim_source(source_id, "operate-source stop", true)?;
        let broken = read(&self.inner.broken).sources.contains_key(source_id);
        let source = if broken { None } else { Some(self.source(source_id)?) };
        self.refuse_with_tasks(source_id)?;
        let changes = Changes::new().remove(Namespace::Source, source_id).remove(Namespace::Relay, source_id);
        let removed = self.inner.db.write(changes).await;
        removed.map_err(|error| store_failure(&error, "forget the source"))?;
        write(&self.inner.sources).remove(source_id);
        write(&self.inner.broken).sources.remove(source_id);
        match source {
            Some(source) => self.close_source(&source, true).await,
            None => remove_relay_dir(&self.inner.options.limits, source_id).await,
        }
        Ok(self.done(source_id))
    }

    pub(super) fn has_tasks(&self, source_id: &str) -> bool {
        read(&self.inner.tasks).keys().any(|key| key.0 == source_id)
            || read(&self.inner.broken).tasks.keys().any(|key| key.0 == source_id)
    }

    /// A new key for encrypted passwords reaches those who are connected already, where it makes a difference.
    pub(super) async fn renew_logins(&self, before: Option<&SecretKey>) {
        let key = self.key();
        for source in self.all_sources() {
            let settings = source.settings();
            let renewed = endpoint(&settings.config.from, key.as_ref());
            if renewed != settings.receive.endpoint {
                let receive = ReceiveSpec { endpoint: renewed, ..settings.receive.clone() };
                source.set_settings(Settings { config: settings.config.clone(), receive }).await;
            }
        }
        let tasks: Vec<_> = read(&self.inner.tasks)
            .values()
            .filter_map(|entry| Some((entry.handle.clone(), entry.recipe.subtask().ok()?.to)))
            .filter(|(_, to)| endpoint(to, before) != endpoint(to, key.as_ref()))
            .map(|(handle, _)| handle)
            .collect();
        for handle in tasks {
            // A task that ends just now needs none.
            let _ = handle.renew().await;
        }
    }

    pub(super) fn refuse_with_tasks(&self, source_id: &str) -> Result<(), Failure> {
        let mut tasks: Vec<String> =
            read(&self.inner.tasks).keys().filter(|key| key.0 == source_id).map(|key| key.1.clone()).collect();
        let broken = read(&self.inner.broken);
        tasks.extend(broken.tasks.keys().filter(|key| key.0 == source_id).map(|key| key.1.clone()));
        if tasks.is_empty() {
            return Ok(());
        }
        let tasks = tasks.join(" ");
        let message = format!("source with name {source_id} need to operate has existing tasks [{tasks}]");
        Err(Failure::new(Code::SourceHasTasks, message).workaround(
            "Please `stop-task` first. While it has tasks, `operate-source update` may change the `user`, `password`, \
             `security` and `session` of `from`, and nothing else.",
        ))
    }

    /// A source's configuration in DM's YAML as it holds, secrets masked: with the flavor that the server told and the
    /// server id that was chosen.
    pub fn source_config(&self, source_id: &str) -> Option<String> {
        let sources = read(&self.inner.sources);
        let SourceEntry { source, record } = sources.get(source_id)?;
        Some(as_it_holds(&source.settings().config, source.flavor, record.server_id).to_dm_yaml())
    }
}

/// What of a source's configuration has no effect, for the one who gave it and for the log.
pub(super) fn said(config: &SourceConfig) -> String {
    let notes = config.notes();
    notes.iter().for_each(|note| tracing::warn!(source = %config.source_id, note, "option without effect"));
    notes.join("; ")
}

fn parse(yaml: &str) -> Result<SourceConfig, Failure> {
    let config = SourceConfig::from_yaml(yaml).map_err(|error| error.to_failure(Code::ConfigSource))?;
    // A master's source is taken as it is: what is wrong with its filters stops the tasks that they are for.
    compile_filters(&config).map_err(|problems| Failure::all(Code::ConfigSource, &problems))?;
    Ok(config)
}

/// What a master stores of a source.
pub(super) fn parse_toml(id: &str, toml: &str) -> Result<SourceConfig, Failure> {
    let config = SourceConfig::from_toml(toml).map_err(|error| error.to_failure(Code::ConfigSource))?;
    if config.source_id != id {
        let other = &config.source_id;
        return Err(Failure::new(Code::ConfigSource, format!("the configuration of source {id} is that of {other}")));
    }
    Ok(config)
}

pub(super) fn flavor(text: &str) -> Result<Flavor, Failure> {
    [Flavor::MySql, Flavor::MariaDb]
        .into_iter()
        .find(|flavor| flavor.as_str() == text)
        .ok_or_else(|| Failure::new(Code::InvalidFlavor, format!("'{text}' is not a flavor")))
}

/// Such as dm-worker chooses.
pub(super) fn any_server_id() -> u32 {
    429_496_729 + rand::random_range(0..100_000)
}

/// With the flavor that the server told and the server id that was chosen, where the file left them open.
fn as_it_holds(config: &SourceConfig, flavor: Flavor, server_id: u32) -> SourceConfig {
    let mut config = config.clone();
    config.flavor.get_or_insert(flavor);
    config.server_id.get_or_insert(server_id);
    config
}

/// Whether two configurations differ at most in how to log in to the same server.
fn same_but_for_login(before: &SourceConfig, after: &SourceConfig) -> bool {
    let from = without_login(&before.from);
    // Once stored it has everything written out; both are compared in that form.
    let plain = |config: &SourceConfig| {
        let mut config = config.clone();
        config.from = from.clone();
        config.to_stored_yaml()
    };
    from == without_login(&after.from) && plain(before) == plain(after)
}

/// Where a server is, without who logs in and how.
pub(super) fn without_login(database: &DatabaseConfig) -> DatabaseConfig {
    let mut place = DatabaseConfig::default();
    place.host.clone_from(&database.host);
    place.port = database.port;
    place
}
