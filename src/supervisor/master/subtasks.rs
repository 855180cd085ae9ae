//! Subtasks that a master makes, pauses, resumes and ends here.

use std::sync::Arc;

use super::super::broken::{TASK_REMEDY, damaged};
use super::super::recipe::{StoredRecipe, said};
use super::super::records::{FORM, MasterMark, MasterRecord, TaskRecord, protected};
use super::super::source::Source;
use super::super::{Supervisor, TaskKey, read, store_failure, write};
use super::{LEASE, NOT_STARTED, TaskOrder};
use crate::config::SubtaskConfig;
use crate::error::{Code, Failure};
use crate::meta::StoredMark;
use crate::store::{Changes, Namespace, StoreError};
use crate::task::{Park, ParkReason, ParkRecord, Recipe, TaskHandle, forget, record_key};

/// Who parks a subtask because its stage says so.
const MASTER: &str = "dm-master";

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

impl Supervisor {
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
        if let Ok(subtask) = recipe.subtask() {
            tracing::info!(config = %outline(&subtask), "subtask created");
        }
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

    pub(super) async fn release(&self, source: &Source, key: &TaskKey) {
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
}

/// What a subtask is made with, for the log: nothing that could be secret, and session variables by name and value, since a
/// master adds some.
fn outline(subtask: &SubtaskConfig) -> serde_json::Value {
    let to = &subtask.to;
    serde_json::json!({
        "name": subtask.name,
        "source-id": subtask.source_id,
        "mode": subtask.mode.as_str(),
        "meta-schema": subtask.meta_schema,
        "to": { "host": to.host, "port": to.port, "user": to.user, "session": to.session },
    })
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
