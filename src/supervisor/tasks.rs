//! Commands on tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::api::{OperateTask, SourceResult, StartTask, TaskOp};
use super::broken::{TASK_REMEDY, damaged};
use super::endpoint::endpoint;
use super::master::LEASE;
use super::recipe::{NO_START_TIME, StoredRecipe, compile, parse, said, worth_an_answer};
use super::records::{FORM, TaskRecord, check_form, protected};
use super::source::Source;
use super::sources::without_login;
use super::start::StartQuestion;
use super::{Actor, Supervisor, TaskEntry, TaskKey, read, store_failure, write};
use crate::config::{SubtaskConfig, TaskConfig};
use crate::error::{Code, Failure, Scope};
use crate::model::Location;
use crate::mysql::Connector;
use crate::store::{Changes, Namespace};
use crate::task::{
    KEY_SEPARATOR, Park, ParkReason, ParkRecord, Recipe, RelayKeeper, Stage, StoredLedger, TaskHandle, TaskSpec,
    TaskStatus, Unit, forget, record_key, start,
};

/// How long a command waits for the stage that it asks for, beyond the drain limit.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tables that are made before a start counts as one, where there are that many.
const MADE: u64 = 500;
/// A pipeline that has not moved for this long when it is paused waits for a downstream that does not answer.
const STALL: Duration = Duration::from_millis(700);

const PARK_REMEDY: &str = "Nobody can tell whether it was paused, so it does not run. Please `resume-task` to run it, or \
                           `pause-task` and then `resume-task` later.";

impl Supervisor {
    pub(super) async fn load_tasks(&self) -> Result<(), Failure> {
        let doing = "read the stored tasks";
        let stored = self.inner.db.list_each::<TaskRecord>(Namespace::Task).await;
        let stored = stored.map_err(|error| store_failure(&error, doing))?;
        for (stored, record) in stored {
            let Some((source_id, name)) = stored.split_once(KEY_SEPARATOR) else {
                tracing::error!(key = %stored, "a stored task has no name");
                continue;
            };
            let loaded = match record {
                Ok(record) => self.load_task(&stored, &record).await,
                Err(error) => Err(damaged(&error, &format!("task {name}"), TASK_REMEDY)),
            };
            // One that cannot be loaded stops no other; its record stays.
            if let Err(failure) = loaded {
                self.task_is_broken((source_id.to_owned(), name.to_owned()), failure).await;
            }
        }
        self.all_sources().iter().for_each(|source| source.relay.arm_purge());
        Ok(())
    }

    pub(super) async fn load_task(&self, key: &str, record: &TaskRecord) -> Result<(), Failure> {
        let Some((source_id, name)) = key.split_once(KEY_SEPARATOR) else { return Ok(()) };
        check_form(record.form, &format!("task {name}"))?;
        if record.master.is_some() && !read(&self.inner.sources).contains_key(source_id) {
            // The source has gone elsewhere: kept for when it comes back.
            return Ok(());
        }
        let parks = self.inner.db.get::<ParkRecord>(Namespace::Park, key).await;
        // It may have been paused: it must not run as if it had not been.
        let parks = parks.map_err(|error| damaged(&error, &format!("why task {name} is parked"), PARK_REMEDY))?;
        let mut parks = parks.unwrap_or_default();
        let source = self.source(source_id)?;
        let recipe = StoredRecipe::new(self, &source, name, record.clone());
        if recipe.mark().is_some() {
            // Whatever its settings are, it is there; and it waits for the lease.
            parks.parks.entry(ParkReason::Lease).or_insert_with(|| Park::now(LEASE));
        } else {
            let mut subtask = recipe.subtask()?;
            subtask.inherit(&source.settings().config);
            compile(&subtask, source.flavor)?;
            if recipe.known_begin()?.is_none() && !subtask.mode.copies() {
                return Err(Failure::new(Code::Checkpoint, format!("stored task {name}: its start is missing")));
            }
        }
        self.add_task(&source, name, recipe, parks);
        Ok(())
    }

    /// Starts a task's driver, and keeps the relay log that it needs.
    pub(super) fn add_task(
        &self,
        source: &Arc<Source>,
        name: &str,
        recipe: Arc<StoredRecipe>,
        parks: ParkRecord,
    ) -> TaskHandle {
        // What is stored downstream is at or behind this; the pipeline says the exact place when it starts.
        let flushed = parks.flushed.as_ref().and_then(|mark| mark.to_mark(source.flavor).ok());
        let begin = || recipe.known_begin().ok().flatten().or(source.relay.state().start);
        if let Some(needed) = flushed.map(|mark| mark.location).or_else(begin).filter(|_| !parks.finished) {
            source.relay.protect(&protected(name, &source.id), &needed);
        }
        source.task_added();
        source.start_receiving();
        let spec = TaskSpec {
            name: name.to_owned(),
            source_id: source.id.clone(),
            flavor: source.flavor,
            relay: source.relay.clone(),
            drain_limit: self.inner.options.drain_limit,
            recipe: Arc::clone(&recipe) as Arc<dyn Recipe>,
            keeper: Arc::clone(source) as Arc<dyn RelayKeeper>,
            db: self.inner.db.clone(),
        };
        let (handle, driver) = start(spec, parks);
        let entry = TaskEntry { handle: handle.clone(), driver, recipe };
        write(&self.inner.tasks).insert((source.id.clone(), name.to_owned()), entry);
        handle
    }

    /// Starts a task on its sources, each on its own; a failure of the whole where nothing could be started.
    pub async fn start_task(&self, request: &StartTask) -> Result<Vec<SourceResult>, Failure> {
        self.admit()?;
        let config = parse(&request.yaml)?;
        let chosen = choose(&config, &request.sources)?;
        for subtask in &chosen {
            self.source(&subtask.source_id)?;
        }
        let keys: Vec<TaskKey> =
            chosen.iter().map(|subtask| (subtask.source_id.clone(), subtask.name.clone())).collect();
        let _claim = self.claim_names(&config.name, keys)?;
        let mut results = Vec::new();
        for subtask in chosen {
            let source_id = subtask.source_id.clone();
            let started = self.start_subtask(&config, subtask, request).await;
            // Told in the status, and by the answer where DM tells what it checked: a source's own answer is DM's.
            let started = started.map(|()| {
                said(&config.name, &subtask.notes());
                String::new()
            });
            results.push(self.result(&source_id, started));
        }
        Ok(results)
    }

    fn result(&self, source_id: &str, result: Result<String, Failure>) -> SourceResult {
        SourceResult { result, ..self.done(source_id) }
    }

    async fn start_subtask(
        &self,
        config: &TaskConfig,
        subtask: &SubtaskConfig,
        request: &StartTask,
    ) -> Result<(), Failure> {
        let source = self.source(&subtask.source_id)?;
        let name = &subtask.name;
        let mut subtask = subtask.clone();
        subtask.inherit(&source.settings().config);
        // Everything that can be refused is refused before anything is stored.
        compile(&subtask, source.flavor)?;
        let copies = subtask.mode.copies();
        if copies && !request.start_time.is_empty() {
            return Err(no_start_time());
        }
        let anew = request.remove_meta || config.remove_meta || !request.start_time.is_empty();
        let begin = self.find_begin(&source, &subtask, &request.start_time, anew).await?;
        // Where rows are copied first, the copy finds out where the binlog begins to count; what was asked is whether all
        // that is needed is there.
        let (start, safe_until) = if copies { (None, None) } else { begin.to_stored_pair() };
        let record = TaskRecord { form: FORM, yaml: config.to_stored_yaml(), start, safe_until, master: None };
        let record_key = record_key(&source.id, name);
        let changes = forget(Changes::new(), &source.id, name).put(Namespace::Task, &record_key, &record);
        let stored = self.inner.db.write(changes).await;
        stored.map_err(|error| store_failure(&error, "store the task"))?;
        // Where a checkpoint lies before this, the pipeline finds out and asks for it.
        if !copies
            && source.relay.state().start.is_none()
            && let Err(failure) = self.reach_first(&source, name, &begin.at).await
        {
            let changes = forget(Changes::new(), &source.id, name).remove(Namespace::Task, &record_key);
            if let Err(error) = self.inner.db.write(changes).await {
                tracing::error!(%error, "the record of a task that was not started stays");
            }
            return Err(failure);
        }
        let recipe = StoredRecipe::new(self, &source, name, record);
        let handle = self.add_task(&source, name, recipe, ParkRecord::default());
        self.wait_until_running(&handle).await
    }

    /// The first task of a source makes its relay log begin; counted as one that needs it meanwhile.
    async fn reach_first(&self, source: &Source, name: &str, begin: &Location) -> Result<(), Failure> {
        source.relay.protect(&protected(name, &source.id), begin);
        source.task_added();
        let begun = source.reach_back_to(begin).await;
        source.task_removed();
        if begun.is_err() {
            source.relay.release(&protected(name, &source.id));
        }
        begun
    }

    pub(super) fn ledger(&self, subtask: &SubtaskConfig) -> StoredLedger {
        StoredLedger { db: self.inner.db.clone(), key: record_key(&subtask.source_id, &subtask.name) }
    }

    /// Until it applies, or failed; a task that is still connecting when patience ends is left to it.
    async fn wait_until_running(&self, handle: &TaskHandle) -> Result<(), Failure> {
        let settled = |status: &TaskStatus| {
            // A table that is read again may take hours, and is work too.
            let reads = status.again.iter().any(|table| table.reading.is_some());
            // So are thousands of tables that are made, where it is certain that some can be.
            let makes = status.copy.as_ref().is_some_and(|copy| copy.made.0 >= MADE);
            let at_work = status.activity == "applying" || status.unit == Unit::Load || reads || makes;
            (status.stage == Stage::Running && at_work)
                || status.stage == Stage::Finished
                || !status.failures.is_empty()
        };
        let status = wait_for(handle, PATIENCE, settled).await;
        match status.failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Pauses, resumes or stops; answers when the stage is reached.
    pub async fn operate_task(&self, request: &OperateTask, actor: &Actor) -> Result<Vec<SourceResult>, Failure> {
        self.admit()?;
        let meant =
            |key: &TaskKey| key.1 == request.name && (request.sources.is_empty() || request.sources.contains(&key.0));
        let mut chosen: BTreeMap<TaskKey, Option<TaskHandle>> = read(&self.inner.tasks)
            .iter()
            .filter(|(key, _)| meant(key))
            .map(|(key, entry)| (key.clone(), Some(entry.handle.clone())))
            .collect();
        let broken = read(&self.inner.broken).tasks.keys().filter(|key| meant(key)).cloned().collect::<Vec<_>>();
        chosen.extend(broken.into_iter().map(|key| (key, None)));
        let mut results = Vec::new();
        for (key, handle) in chosen {
            let outcome = match (request.op, handle) {
                (TaskOp::Pause, Some(handle)) => self.pause(&handle, actor).await,
                (TaskOp::Resume, Some(handle)) => self.resume(&key.0, &handle).await,
                (TaskOp::Pause, None) => self.park_broken(&key, Park::now(&actor.name)).await.map(|()| String::new()),
                (TaskOp::Resume, None) => self.resume_broken(&key).await.map(|()| String::new()),
                (TaskOp::Stop, _) => self.stop(&key).await.map(|()| String::new()),
            };
            results.push(self.result(&key.0, outcome));
        }
        Ok(results)
    }

    async fn pause(&self, handle: &TaskHandle, actor: &Actor) -> Result<String, Failure> {
        let before = handle.status();
        if before.stage == Stage::Finished {
            return Err(is_finished("running"));
        }
        handle.park(ParkReason::Operator, Park::now(&actor.name)).await?;
        let parked = |status: &TaskStatus| status.stage == Stage::Paused;
        let early = wait_for(handle, STALL, parked).await;
        if !parked(&early)
            && let Some(ddl) = &early.ddl
        {
            return Ok(format!(
                "accepted; DDL is at work downstream, and the task pauses when it has ended: {}",
                ddl.statement
            ));
        }
        if !parked(&early) && early.applied == before.applied && early.inside_transaction == before.inside_transaction {
            // Nothing has moved since: the downstream does not answer, and the operator need not wait for that.
            return Ok(
                "accepted; the downstream does not answer, so the task is cut off and parks within the drain limit"
                    .to_owned(),
            );
        }
        let status = wait_for(handle, self.inner.options.drain_limit + PATIENCE, parked).await;
        if parked(&status) {
            return Ok(String::new());
        }
        let stage = status.stage.as_str();
        Err(Failure::new(Code::NotRunning, format!("the task is still {stage} ({}); it will pause", status.activity)))
    }

    async fn resume(&self, source_id: &str, handle: &TaskHandle) -> Result<String, Failure> {
        if handle.status().stage == Stage::Finished {
            return Err(is_finished("paused"));
        }
        self.source(source_id)?.kick().await;
        // Under a master the lease comes back by itself, and its stage is its own.
        let ours = [ParkReason::Operator, ParkReason::Error, ParkReason::Lease];
        handle.unpark(if self.inner.options.joined { &ours[..2] } else { &ours }).await?;
        let parks = handle.status().parks;
        if let Some(park) = parks.get(&ParkReason::Disk) {
            // What the operator can take away is gone; the rest goes by itself.
            return Err(Failure::new(Code::NotRunning, "the task stays parked: the disk has no room")
                .cause(park.note.clone())
                .workaround("Please make room under the state directory; the task goes on by itself then."));
        }
        if let Some((reason, park)) = parks.first_key_value() {
            return Ok(format!("accepted; it stays parked ({}) by {}", reason.as_str(), park.by));
        }
        self.wait_until_running(handle).await.map(|()| String::new())
    }

    pub(super) async fn stop(&self, key: &TaskKey) -> Result<(), Failure> {
        let _claim = self.claim_tasks(vec![key.clone()], "stop-task")?;
        let (source_id, name) = key;
        // Looked up anew: before the claim another command may have ended it.
        let handle = read(&self.inner.tasks).get(key).map(|entry| entry.handle.clone());
        let broken = read(&self.inner.broken).tasks.contains_key(key);
        if handle.is_none() && !broken {
            return Ok(());
        }
        if let Some(handle) = &handle {
            // A driver that is gone has stopped, perhaps in an earlier try.
            let asked = handle.stop().await;
            let gone = handle.has_ended();
            if !gone {
                asked?;
            }
            let limit = if gone { Duration::ZERO } else { self.inner.options.drain_limit + PATIENCE };
            let status = wait_for(handle, limit, |status| status.stage == Stage::Stopped).await;
            if !gone && status.stage != Stage::Stopped {
                return Err(Failure::new(Code::NotRunning, format!("the task is still {}", status.stage.as_str())));
            }
        }
        let stored = record_key(source_id, name);
        let changes = forget(Changes::new(), source_id, name).remove(Namespace::Task, &stored);
        let removed = self.inner.db.write(changes).await;
        removed.map_err(|error| store_failure(&error, "forget the task"))?;
        self.forget_broken(key);
        let Some(_entry) = write(&self.inner.tasks).remove(key) else { return Ok(()) };
        let source = self.source(source_id)?;
        source.relay.release(&protected(name, source_id));
        source.task_removed();
        let wanted = read(&self.inner.sources).get(source_id).is_some_and(|entry| entry.record.relay_wanted);
        if !wanted && !self.has_tasks(source_id) {
            source.stop_receiving().await;
        }
        Ok(())
    }

    /// Takes a new login for the downstream of a task that is there; nothing else of it may change. A running task goes
    /// on with it at a transaction boundary.
    pub async fn update_task(&self, yaml: &str, sources: &[String]) -> Result<Vec<SourceResult>, Failure> {
        self.admit()?;
        let config = parse(yaml)?;
        let chosen = choose(&config, sources)?;
        let keys: Vec<TaskKey> =
            chosen.iter().map(|subtask| (subtask.source_id.clone(), subtask.name.clone())).collect();
        let _claim = self.claim_tasks(keys.clone(), "update-task")?;
        let mut results = Vec::new();
        for key in keys {
            let updated = self.update_subtask(&config, &key).await;
            results.push(self.result(&key.0, updated.map(|()| String::new())));
        }
        Ok(results)
    }

    async fn update_subtask(&self, config: &TaskConfig, key: &TaskKey) -> Result<(), Failure> {
        let found = read(&self.inner.tasks).get(key).map(|entry| (entry.handle.clone(), Arc::clone(&entry.recipe)));
        let Some((handle, recipe)) = found else {
            let message = format!("task {} does not exist on source {}", key.1, key.0);
            return Err(Failure::new(Code::SubTaskNotFound, message).workaround("Please use `start-task`."));
        };
        if recipe.config().is_none_or(|before| plain(&before) != plain(config)) {
            let message = format!("the file changes more of task {} than how to log in to its downstream", key.1);
            return Err(Failure::new(Code::ConfigTask, message).workaround(
                "Please change nothing but `user`, `password`, `security` and `session` of `target-database`; for \
                 everything else `stop-task`, then `start-task`: it goes on from its checkpoint.",
            ));
        }
        let to = config.subtask(&key.0).map_err(|error| error.to_failure(Code::ConfigTask))?.to.clone();
        let renewed = endpoint(&to, self.key().as_ref());
        let connector = Connector::new(renewed.clone());
        drop(connector.connect().await.map_err(|error| connector.failure(&error, Scope::Downstream))?);
        let before = endpoint(&recipe.subtask()?.to, self.key().as_ref());
        recipe.change(|record| record.yaml = config.to_stored_yaml()).await?;
        if before == renewed { Ok(()) } else { handle.renew().await }
    }

    /// Checks a task's file, its sources and its downstream without starting anything; what is worth knowing comes back.
    pub async fn check_task(&self, yaml: &str, start_time: &str) -> Result<String, Failure> {
        let config = parse(yaml)?;
        let mut problems = Vec::new();
        for subtask in &config.subtasks {
            let source = self.source(&subtask.source_id)?;
            let mut subtask = subtask.clone();
            let settings = source.settings();
            subtask.inherit(&settings.config);
            let subtask = &subtask;
            problems.extend(compile(subtask, source.flavor).err());
            problems.extend((subtask.mode.copies() && !start_time.is_empty()).then(no_start_time));
            let question =
                StartQuestion { source: &settings, flavor: source.flavor, subtask, start_time, stored: None };
            problems.extend(question.answer().await.err());
            let connector = Connector::new(endpoint(&subtask.to, self.key().as_ref()));
            if let Err(error) = connector.connect().await {
                problems.push(connector.failure(&error, Scope::Downstream));
            }
        }
        if !problems.is_empty() {
            return Err(Failure::all(Code::ConfigTask, &problems));
        }
        let mut notes: Vec<String> = config.subtasks.iter().flat_map(SubtaskConfig::notes).collect();
        notes.dedup();
        notes.retain(|note| worth_an_answer(note));
        Ok(notes.join("\n"))
    }

    /// A task's configuration in DM's YAML, secrets masked. As with a dm-master, `meta` that was left out says where the task
    /// began, so that a copy of the file begins there, too.
    pub fn task_config(&self, name: &str) -> Option<String> {
        let tasks = read(&self.inner.tasks);
        let mut config = tasks.iter().find(|(key, _)| key.1 == name)?.1.recipe.config()?;
        for subtask in config.subtasks.iter_mut().filter(|subtask| subtask.meta.is_none() && !subtask.mode.copies()) {
            let key: TaskKey = (subtask.source_id.clone(), name.to_owned());
            subtask.meta = tasks.get(&key).and_then(|entry| entry.recipe.began());
        }
        Some(config.to_dm_yaml())
    }
}

/// Nothing is to be paused or resumed any more.
fn is_finished(wanted: &str) -> Failure {
    let code = if wanted == "paused" { Code::NotPaused } else { Code::NotRunning };
    Failure::new(code, format!("current stage is Finished but not {wanted}, invalid")).workaround(
        "The task has come to its end: everything is copied. Please use `stop-task` when it is not needed any more.",
    )
}

fn no_start_time() -> Failure {
    Failure::new(Code::ConfigTask, NO_START_TIME)
        .workaround("Please leave it out; or use `task-mode: incremental` where the rows are there already.")
}

/// A task's stored form without how to log in, to compare two of them.
fn plain(config: &TaskConfig) -> String {
    let mut config = config.clone();
    for subtask in &mut config.subtasks {
        subtask.to = without_login(&subtask.to);
    }
    config.to_stored_yaml()
}

fn choose<'a>(config: &'a TaskConfig, sources: &[String]) -> Result<Vec<&'a SubtaskConfig>, Failure> {
    if sources.is_empty() {
        return Ok(config.subtasks.iter().collect());
    }
    let find = |source: &String| config.subtask(source).map_err(|error| error.to_failure(Code::ConfigTask));
    sources.iter().map(find).collect()
}

/// The first status that `settled` accepts, or the one when `limit` has passed.
async fn wait_for(handle: &TaskHandle, limit: Duration, settled: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
    let mut watch = handle.watch();
    let _ = tokio::time::timeout(limit, watch.wait_for(|status| settled(status))).await;
    watch.borrow().clone()
}
