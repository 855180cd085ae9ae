//! Sources that a master gives to this worker, and takes away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::eye::lacks;
use super::super::records::{FORM, SourceRecord, TaskRecord};
use super::super::relays::RelayWish;
use super::super::source::{Settings, Source, directory};
use super::super::sources::{any_server_id, parse_toml, said};
use super::super::{SourceEntry, Supervisor, TaskKey, read, store_failure, write};
use super::SourceOrder;
use crate::config::{SourceConfig, SubtaskConfig};
use crate::error::{Code, Failure};
use crate::model::Flavor;
use crate::store::Namespace;
use crate::task::KEY_SEPARATOR;

/// Longest wait for a source that is asked who it is.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The server id that every worker of a source uses. Several may keep its relay log at a time, and a MariaDB drops a
/// replica for another one with its id, where a MySQL looks at their UUIDs: there each worker has an id of its own, as a
/// dm-worker's relay has.
fn common_server_id(config: &SourceConfig, flavor: Flavor) -> Option<u32> {
    config.server_id.filter(|_| flavor != Flavor::MariaDb)
}

fn flavor_of(config: &SourceConfig) -> Result<Flavor, Failure> {
    let id = &config.source_id;
    config
        .flavor
        .ok_or_else(|| Failure::new(Code::InvalidFlavor, format!("the configuration of source {id} names no flavor")))
}

impl Supervisor {
    /// Opens a source; needs no connection to it. What was kept of another one's relay log goes.
    pub async fn bind_source(&self, order: &SourceOrder) -> Result<(), Failure> {
        self.admit()?;
        let claim = self.claim_source(&order.id, "binding it", true)?;
        let config = parse_toml(&order.id, &order.toml)?;
        let flavor = flavor_of(&config)?;
        let record = SourceRecord {
            form: FORM,
            yaml: String::new(),
            flavor: flavor.as_str().to_owned(),
            server_id: common_server_id(&config, flavor).unwrap_or_else(any_server_id),
            replica_uuid: uuid::Uuid::new_v4(),
            relay_wanted: false,
            relay_paused: false,
            toml: Some(order.toml.clone()),
        };
        let stored = self.inner.db.put(Namespace::Source, &order.id, &record).await;
        stored.map_err(|error| store_failure(&error, "store the source"))?;
        said(&config);
        let source = self.open(config, &record).await?;
        self.drop_other_history(&source, None).await;
        source.relay.arm_purge();
        write(&self.inner.sources).insert(order.id.clone(), SourceEntry { source, record });
        write(&self.inner.broken).sources.remove(&order.id);
        self.remove_other_relay_logs().await;
        drop(claim);
        self.switch_relay(&order.id, order.relay).await
    }

    /// Takes new settings of a source over. Its subtasks begin anew where they inherit something else now.
    pub async fn configure_source(&self, id: &str, toml: &str) -> Result<(), Failure> {
        self.admit()?;
        if read(&self.inner.broken).sources.contains_key(id) {
            let order = SourceOrder { id: id.to_owned(), toml: toml.to_owned(), relay: None };
            return self.bind_source(&order).await;
        }
        let _claim = self.claim_source(id, "new settings", true)?;
        let config = parse_toml(id, toml)?;
        let source = self.source(id)?;
        let Some(mut record) = read(&self.inner.sources).get(id).map(|entry| entry.record.clone()) else {
            return Ok(());
        };
        if flavor_of(&config)? != source.flavor {
            // The relay log is of no use any more, and everything that reads it is made for the other dialect.
            let tasks: Vec<TaskKey> = read(&self.inner.tasks).keys().filter(|key| key.0 == id).cloned().collect();
            for key in tasks {
                self.release(&source, &key).await;
            }
            return self.forget_source(&source, true).await;
        }
        record.toml = Some(toml.to_owned());
        record.server_id = common_server_id(&config, source.flavor).unwrap_or(record.server_id);
        let stored = self.inner.db.put(Namespace::Source, id, &record).await;
        stored.map_err(|error| store_failure(&error, "store the source"))?;
        let before = source.settings();
        let receive = self.receive_spec(&config, &record)?;
        if let Some(entry) = write(&self.inner.sources).get_mut(id) {
            entry.record = record;
        }
        let mut but_for_relay = config.clone();
        but_for_relay.enable_relay = before.config.enable_relay;
        if but_for_relay == before.config {
            return Ok(());
        }
        source.set_settings(Settings { config, receive }).await;
        self.renew_inherited(&source, &before.config).await;
        self.follow_server(&source).await;
        Ok(())
    }

    /// Subtasks that inherit something else now.
    async fn renew_inherited(&self, source: &Source, before: &SourceConfig) {
        let now = source.settings();
        let inherits = |subtask: &SubtaskConfig, source: &SourceConfig| {
            let mut subtask = subtask.clone();
            subtask.inherit(source);
            subtask
        };
        let of_source: Vec<_> = read(&self.inner.tasks)
            .iter()
            .filter(|(key, _)| key.0 == source.id)
            .map(|(_, entry)| (entry.handle.clone(), Arc::clone(&entry.recipe)))
            .collect();
        for (handle, recipe) in of_source {
            let other = recipe.subtask().is_ok_and(|s| inherits(&s, before) != inherits(&s, &now.config));
            if other {
                // A task that ends just now needs no renewal.
                let _ = handle.renew().await;
            }
        }
    }

    /// Whether something is stored of a source's subtasks, also of those that are elsewhere now; with `known` of those that
    /// there are, since one that was stopped elsewhere has left its record here. Where that cannot be read, it is taken to be so.
    async fn has_records(&self, id: &str, known: Option<&BTreeMap<String, Option<i64>>>) -> bool {
        let of_it = |key: &str, record: Option<&TaskRecord>| {
            let Some((_, name)) = key.split_once(KEY_SEPARATOR).filter(|(source, _)| *source == id) else {
                return false;
            };
            let Some(known) = known else { return true };
            let born = record.and_then(|record| record.master.as_ref()).map(|master| master.mark.born);
            known.get(name).is_some_and(|now| now.is_none() || born.is_none() || *now == born)
        };
        match self.inner.db.list_each::<TaskRecord>(Namespace::Task).await {
            Ok(stored) => stored.iter().any(|(key, record)| of_it(key, record.as_ref().ok())),
            Err(_) => true,
        }
    }

    /// Before a first subtask: what is left here of an earlier time may be of a binlog that was reset since, and an open
    /// stream does not show that at once.
    pub(super) async fn drop_other_history(&self, source: &Source, known: Option<&BTreeMap<String, Option<i64>>>) {
        if source.received().is_some() && !self.has_records(&source.id, known).await {
            self.follow_server(source).await;
        }
    }

    /// Where another server has taken the former one's place, or the same one's binlog was reset, and nobody needs the
    /// former binlog, it goes. A server that does not answer is asked by the receiver again and again.
    async fn follow_server(&self, source: &Source) {
        let settings = source.settings();
        if self.has_tasks(&source.id) {
            return;
        }
        let received = source.received();
        let asked = self.preflight(&settings.config, settings.receive.server_id);
        if let Ok(Ok(facts)) = tokio::time::timeout(ASK_LIMIT, asked).await
            && (!source.is_of(&facts)
                || facts.location.as_ref().zip(received.as_ref()).is_some_and(|(now, had)| lacks(now, had).is_some()))
            && let Err(failure) = source.become_another(&facts).await
        {
            tracing::warn!(source = %source.id, error = %failure, "begin the relay log anew for another server");
        }
    }

    /// Switches what is wished of the relay log: off, or on and perhaps paused.
    pub async fn switch_relay(&self, id: &str, relay: Option<bool>) -> Result<(), Failure> {
        let now = read(&self.inner.sources).get(id).map(|entry| (entry.record.relay_wanted, entry.record.relay_paused));
        let Some((wanted, paused)) = now else { return self.source(id).map(drop) };
        if paused != relay.unwrap_or(false) {
            let wish = if paused { RelayWish::Resume } else { RelayWish::Pause };
            self.relay(wish, id).await?;
        }
        match relay {
            None if wanted => self.relay(RelayWish::Stop, id).await.map(drop),
            None => Ok(()),
            Some(_) => self.relay(RelayWish::Start, id).await.map(drop),
        }
    }

    /// Closes a source that has no subtasks here. Its relay log stays on disk, in case it comes back.
    pub async fn unbind_source(&self, id: &str) -> Result<(), Failure> {
        self.admit()?;
        let _claim = self.claim_source(id, "unbinding it", true)?;
        // Their records stay, as those of subtasks that could be loaded do.
        let broken: Vec<TaskKey> = read(&self.inner.broken).tasks.keys().filter(|key| key.0 == id).cloned().collect();
        broken.iter().for_each(|key| self.forget_broken(key));
        if read(&self.inner.broken).sources.contains_key(id) {
            let removed = self.inner.db.remove(Namespace::Source, id).await;
            removed.map_err(|error| store_failure(&error, "forget the source"))?;
            write(&self.inner.broken).sources.remove(id);
            return Ok(());
        }
        let source = self.source(id)?;
        self.refuse_with_tasks(id)?;
        self.forget_source(&source, false).await
    }

    async fn forget_source(&self, source: &Source, with_relay_log: bool) -> Result<(), Failure> {
        let removed = self.inner.db.remove(Namespace::Source, &source.id).await;
        removed.map_err(|error| store_failure(&error, "forget the source"))?;
        write(&self.inner.sources).remove(&source.id);
        self.close_source(source, with_relay_log).await;
        Ok(())
    }

    async fn remove_other_relay_logs(&self) {
        let held: Vec<String> = read(&self.inner.sources).keys().map(|id| directory(id)).collect();
        let dir = self.inner.options.limits.dir.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let entries = std::fs::read_dir(dir)?;
            for entry in entries.flatten() {
                if !held.iter().any(|name| entry.file_name().to_str() == Some(name)) && entry.file_type()?.is_dir() {
                    tracing::info!(path = %entry.path().display(), "the relay log of another source is removed");
                    std::fs::remove_dir_all(entry.path())?;
                }
            }
            std::io::Result::Ok(())
        })
        .await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "remove relay logs of other sources");
        }
    }
}
