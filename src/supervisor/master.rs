//! Commands of a master: sources and subtasks that it gives and takes.
//!
//! They are steps, not wishes: what is wanted, and in what order steps are taken, is decided by `control::master`, which
//! asks [`Supervisor::held`] what there is. Each step may be repeated; each stores what it does before it does it.
//!
//! Invariants: a subtask of a master is loaded parked for the lease, and runs only after [`Supervisor::readmit`]. An
//! operator's reason outlives everything but stop-task: also that the source was elsewhere in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::broken::{TASK_REMEDY, damaged};
use super::eye::lacks;
use super::recipe::StoredRecipe;
use super::records::{FORM, MasterRecord, SourceRecord, TaskRecord};
use super::source::{Settings, Source};
use super::sources::{RelayWish, any_server_id, parse_toml, said as told};
use super::tasks::{protected, said};
use super::{SourceEntry, Supervisor, TaskEntry, TaskKey, read, store_failure, write};
use crate::config::{SecretKey, SourceConfig, SubtaskConfig};
use crate::error::{Code, Failure};
use crate::meta::StoredMark;
use crate::model::Flavor;
use crate::store::{Changes, Namespace, StoreError};
use crate::task::{KEY_SEPARATOR, Park, ParkReason, ParkRecord, Recipe, TaskHandle, TaskStatus, forget, record_key};

/// Who parks a subtask because the lease is lost, or has not been had yet.
pub const LEASE: &str = "lease with dm-master";
/// Longest wait for a source that is asked who it is.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Who parks a subtask because its stage says so.
const MASTER: &str = "dm-master";
/// Note on the park of a subtask that was made with the stage Stopped, until its first resume.
pub const NOT_STARTED: &str = "not started here yet (stage Stopped)";

/// What of its master's wishes a subtask follows: etcd revisions, kept with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MasterMark {
    /// Of the start-task that made it.
    pub born: i64,
    /// At which its source was given to this worker.
    pub bound_born: i64,
    /// Of the stage that was applied last.
    pub stage_revision: i64,
}

/// A source to be opened.
#[derive(Debug, Clone)]
pub struct SourceOrder {
    /// Its id.
    pub id: String,
    /// Its configuration as a master stores it.
    pub toml: String,
    /// Whether its relay log is on without a task, and `true` in it for paused.
    pub relay: Option<bool>,
}

/// A subtask to be made.
#[derive(Debug, Clone)]
pub struct TaskOrder {
    /// Its source.
    pub source: String,
    /// Its name.
    pub name: String,
    /// Its configuration as a master stores it.
    pub toml: String,
    /// What it follows from now on.
    pub mark: MasterMark,
    /// Whether it is to run.
    pub run: bool,
    /// Whether it is made to be started later (OpenAPI).
    pub stopped: bool,
    /// `--start-time`; empty for none.
    pub start_time: String,
    /// Words of its start-task that have no effect here.
    pub unheeded: Vec<String>,
    /// All subtasks of its source that there are, by name, with the revision of their start-task; `None` where that cannot be
    /// read.
    pub known: BTreeMap<String, Option<i64>>,
}

/// What there is, as far as a master is concerned.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Sources by id.
    pub sources: BTreeMap<String, HeldSource>,
    /// Subtasks by source and name.
    pub tasks: BTreeMap<(String, String), HeldTask>,
}

/// A source that is open.
#[derive(Debug, Clone)]
pub struct HeldSource {
    /// The TOML it was opened with.
    pub toml: String,
    /// As in [`SourceOrder`].
    pub relay: Option<bool>,
}

/// A subtask that is there.
#[derive(Debug, Clone)]
pub struct HeldTask {
    /// What it follows.
    pub mark: MasterMark,
    /// How it is.
    pub status: TaskStatus,
}

/// What is kept of a subtask that is made.
#[derive(Default)]
struct Before {
    /// It was made by the same start-task.
    same: bool,
    /// The source was elsewhere in between.
    bound_anew: bool,
    start: Option<StoredMark>,
    safe_until: Option<StoredMark>,
    parks: ParkRecord,
}

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
    /// What there is. A source that could not be loaded is there with other settings than any that are wanted, and so is
    /// opened anew; a subtask that could not be loaded is not, and so is made anew.
    pub fn held(&self) -> Held {
        let relay = |record: &SourceRecord| record.relay_wanted.then_some(record.relay_paused);
        let source = |entry: &SourceEntry| HeldSource {
            toml: entry.record.toml.clone().unwrap_or_default(),
            relay: relay(&entry.record).filter(|paused| *paused || entry.source.relay.state().start.is_some()),
        };
        let task = |entry: &TaskEntry| HeldTask {
            mark: entry.recipe.mark().unwrap_or_default(),
            status: entry.handle.status(),
        };
        let mut sources: BTreeMap<_, _> =
            read(&self.inner.sources).iter().map(|(id, entry)| (id.clone(), source(entry))).collect();
        for id in read(&self.inner.broken).sources.keys() {
            sources.insert(id.clone(), HeldSource { toml: String::new(), relay: None });
        }
        Held { sources, tasks: read(&self.inner.tasks).iter().map(|(key, entry)| (key.clone(), task(entry))).collect() }
    }

    /// The cluster's key for passwords; empty where it has none, and then one of our own stays.
    pub async fn take_cluster_key(&self, key: &[u8]) {
        if key.is_empty() {
            return;
        }
        match SecretKey::from_bytes(key) {
            Ok(key) => self.set_secret_key(Some(key)).await,
            Err(error) => tracing::error!(%error, "the masters' key for passwords"),
        }
    }

    /// Whether the relay log of a source is on for a master's users.
    pub fn relay_shown(&self, source_id: &str) -> bool {
        read(&self.inner.sources).get(source_id).is_some_and(|entry| entry.record.relay_wanted)
    }

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
        told(&config);
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
    async fn drop_other_history(&self, source: &Source, known: Option<&BTreeMap<String, Option<i64>>>) {
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

    /// Makes a subtask. One that was here before, of the same start-task, keeps where it started and what an operator
    /// said; of another one, everything is forgotten.
    pub async fn start_bound(&self, order: &TaskOrder) -> Result<(), Failure> {
        self.admit()?;
        let task: TaskKey = (order.source.clone(), order.name.clone());
        let _claim = self.claim_tasks(vec![task.clone()], "start-task")?;
        let source = self.source(&order.source)?;
        self.drop_other_history(&source, Some(&order.known)).await;
        let Before { same, bound_anew, start, safe_until, mut parks } = self.before(order).await?;
        parks.parks.retain(|reason, _| matches!(reason, ParkReason::Operator | ParkReason::Error));
        if !order.run {
            let note = if order.stopped { NOT_STARTED.to_owned() } else { String::new() };
            parks.parks.insert(ParkReason::Master, Park { note, ..Park::now(MASTER) });
        }
        let master = MasterRecord {
            toml: order.toml.clone(),
            mark: order.mark,
            start_time: order.start_time.clone(),
            unheeded: order.unheeded.clone(),
        };
        let record = TaskRecord { form: FORM, yaml: String::new(), start, safe_until, master: Some(master) };
        let key = record_key(&order.source, &order.name);
        let mut changes = Changes::new();
        if !same {
            changes = forget(changes, &order.source, &order.name);
        } else if bound_anew {
            // Another worker may have run DDL meanwhile: what was declared of tables may not hold any more.
            changes = changes.remove(Namespace::Schema, &key);
        }
        let changes = changes.put(Namespace::Task, &key, &record).put(Namespace::Park, &key, &parks);
        let written = self.inner.db.write(changes).await;
        written.map_err(|error| store_failure(&error, "store the task"))?;
        self.forget_broken(&task);
        let recipe = StoredRecipe::new(self, &source, &order.name, record);
        said(&order.name, &recipe.notes());
        self.add_task(&source, &order.name, recipe, parks);
        source.kick().await;
        Ok(())
    }

    /// What is kept of the same subtask: where it started, and why it was parked. Where that cannot be read nobody can
    /// tell whether an operator parked it, and it waits for one.
    async fn before(&self, order: &TaskOrder) -> Result<Before, Failure> {
        let key = record_key(&order.source, &order.name);
        let record = self.inner.db.get::<TaskRecord>(Namespace::Task, &key).await;
        let parks = self.inner.db.get::<ParkRecord>(Namespace::Park, &key).await;
        let of_this_start =
            |record: &TaskRecord| record.master.as_ref().is_some_and(|m| m.mark.born == order.mark.born);
        let error = match (record, parks) {
            (Ok(Some(record)), Ok(parks)) if of_this_start(&record) => {
                let mut parks = parks.unwrap_or_default();
                // The master starts it anew: what it failed with before is over.
                parks.parks.remove(&ParkReason::Error);
                parks.failures.clear();
                let bound_anew = record.master.is_some_and(|m| m.mark.bound_born != order.mark.bound_born);
                let TaskRecord { start, safe_until, .. } = record;
                return Ok(Before { same: true, bound_anew, start, safe_until, parks });
            }
            (Ok(_), Ok(_)) => return Ok(Before::default()),
            (Err(error), _) | (_, Err(error)) => error,
        };
        if !matches!(error, StoreError::Corrupt { .. }) {
            return Err(store_failure(&error, "read the stored task"));
        }
        let mut parks = ParkRecord::default();
        parks.parks.insert(ParkReason::Error, Park::now("dm-agent"));
        parks.failures.push(damaged(&error, &format!("task {}", order.name), TASK_REMEDY));
        Ok(Before { parks, ..Before::default() })
    }

    /// Adds the master's reason to be parked.
    pub async fn pause_bound(&self, source: &str, name: &str, mark: MasterMark) -> Result<(), Failure> {
        let (handle, recipe) = self.bound(source, name)?;
        handle.park(ParkReason::Master, Park::now(MASTER)).await?;
        follow(&recipe, mark, None).await
    }

    /// Takes away the master's reason, an error, and the lease's; with settings where they are new.
    pub async fn resume_bound(
        &self,
        source: &str,
        name: &str,
        mark: MasterMark,
        toml: Option<String>,
    ) -> Result<(), Failure> {
        let (handle, recipe) = self.bound(source, name)?;
        follow(&recipe, mark, toml).await?;
        if !handle.status().failures.is_empty() {
            self.source(source)?.kick().await;
        }
        handle.unpark(&[ParkReason::Master, ParkReason::Error, ParkReason::Lease]).await
    }

    /// Adds the lease's reason: it stops now, not at its leisure.
    pub async fn fence(&self, source: &str, name: &str) -> Result<(), Failure> {
        self.bound(source, name)?.0.park(ParkReason::Lease, Park::now(LEASE)).await
    }

    /// Takes away the lease's reason.
    pub async fn readmit(&self, source: &str, name: &str) -> Result<(), Failure> {
        self.bound(source, name)?.0.unpark(&[ParkReason::Lease]).await
    }

    /// Whether a subtask's settings may become these while it is there.
    pub fn check_update(&self, toml: &str) -> Result<(), Failure> {
        if toml.trim().is_empty() {
            return Err(Failure::new(Code::TaskNameEmpty, "task name should not be empty"));
        }
        let new = SubtaskConfig::from_toml(toml).map_err(|error| error.to_failure(Code::ConfigTask))?;
        let refused = new.refusals();
        if !refused.is_empty() {
            return Err(Failure::new(Code::ConfigTask, refused.join("; ")));
        }
        let old = self.bound(&new.source_id, &new.name)?.1.subtask()?;
        may_change(old, &new)
    }

    /// stop-task.
    pub async fn drop_bound(&self, source: &str, name: &str) -> Result<(), Failure> {
        self.admit()?;
        self.stop(&(source.to_owned(), name.to_owned())).await
    }

    /// Ends a subtask here and keeps its record: the source has gone elsewhere, and may come back.
    pub async fn release_task(&self, source: &str, name: &str) -> Result<(), Failure> {
        self.admit()?;
        let key: TaskKey = (source.to_owned(), name.to_owned());
        let _claim = self.claim_tasks(vec![key.clone()], "releasing it")?;
        let source = self.source(source)?;
        self.release(&source, &key).await;
        Ok(())
    }

    async fn release(&self, source: &Source, key: &TaskKey) {
        let Some(handle) = read(&self.inner.tasks).get(key).map(|entry| entry.handle.clone()) else { return };
        handle.shut_down().await;
        write(&self.inner.tasks).remove(key);
        source.relay.release(&protected(&key.1, &key.0));
        source.task_removed();
    }

    fn bound(&self, source: &str, name: &str) -> Result<(TaskHandle, Arc<StoredRecipe>), Failure> {
        let key: TaskKey = (source.to_owned(), name.to_owned());
        let tasks = read(&self.inner.tasks);
        let found = tasks.get(&key).map(|entry| (entry.handle.clone(), Arc::clone(&entry.recipe)));
        found.ok_or_else(|| Failure::new(Code::SubTaskNotFound, format!("sub task with name {name} not found")))
    }

    async fn remove_other_relay_logs(&self) {
        let held: Vec<String> = read(&self.inner.sources).keys().map(|id| super::source::directory(id)).collect();
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

/// Stores a new mark, and with it new settings.
async fn follow(recipe: &StoredRecipe, mark: MasterMark, toml: Option<String>) -> Result<(), Failure> {
    let change = |record: &mut TaskRecord| {
        let master = record.master.get_or_insert_default();
        master.mark = mark;
        if let Some(toml) = toml {
            master.toml = toml;
        }
    };
    recipe.change(change).await
}

/// Whether other settings may take effect at the next resume: those of how changes are applied, of which tables, and of
/// how to reach the downstream.
fn may_change(mut old: SubtaskConfig, new: &SubtaskConfig) -> Result<(), Failure> {
    old.syncer = new.syncer.clone();
    old.block_allow_list = new.block_allow_list.clone();
    old.routes.clone_from(&new.routes);
    old.filter_rules.clone_from(&new.filter_rules);
    old.expression_filters.clone_from(&new.expression_filters);
    old.to = new.to.clone();
    old.note_same_as(new);
    if old == *new {
        return Ok(());
    }
    let text = format!("task {}: only rules, `syncers` settings and the target's connection can be changed", new.name);
    Err(Failure::new(Code::ConfigTask, text).workaround("Please stop the task and start it with the new settings."))
}
