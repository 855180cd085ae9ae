//! Stored sources and tasks that cannot be loaded: still there, still holding their names and their relay log, and seen
//! in every status with what is wrong.
//!
//! They disturb no others. The monitor tries them again now and then, since a full disk or a source that could not be
//! opened may have been the reason; an operator can try at once (`resume-task`), replace (`operate-source update`) or
//! remove them (`stop-task`, `operate-source stop`).

use std::collections::BTreeMap;

use super::api::{Receiving, RelayStatus, SourceStatus};
use super::records::{SourceRecord, TaskRecord, protected};
use super::{Supervisor, TaskKey, read, store_failure, write};
use crate::error::{Code, Failure};
use crate::model::Flavor;
use crate::store::{Namespace, StoreError};
use crate::task::{Park, ParkReason, ParkRecord, Stage, TaskStatus, record_key};

/// What could not be loaded, and why.
#[derive(Debug, Default)]
pub(super) struct Broken {
    pub sources: BTreeMap<String, Failure>,
    pub tasks: BTreeMap<TaskKey, BrokenTask>,
}

/// A task that cannot be loaded.
#[derive(Debug, Clone)]
pub(super) struct BrokenTask {
    pub failure: Failure,
    /// Why it was parked, as far as that can be read.
    pub record: ParkRecord,
    /// Its source counts it among those that need the relay log.
    counted: bool,
}

/// A record that does not parse, or was written by a version that is not known.
pub(super) fn damaged(error: &StoreError, what: &str, remedy: &str) -> Failure {
    Failure::new(Code::NotSet, format!("the stored record of {what} cannot be read"))
        .cause(error.to_string())
        .workaround(remedy)
}

pub(super) const SOURCE_REMEDY: &str = "Please give its file again with `operate-source update`: its relay log and its \
                                        tasks are kept. Or remove it with `stop-task` and `operate-source stop`.";
pub(super) const TASK_REMEDY: &str = "Please `stop-task` it and start it again from its file: it goes on from the \
                                      checkpoint downstream. `resume-task` tries to load it again.";

/// The source as its status shows it.
pub(super) fn source_status(id: &str, failure: &Failure) -> SourceStatus {
    SourceStatus {
        source_id: id.to_owned(),
        flavor: Flavor::MySql,
        receiving: Receiving::Stopped { failure: failure.clone() },
        master: None,
        server_identity: String::new(),
        received: None,
        relayed: None,
        receive_lag: None,
        relay: RelayStatus::default(),
    }
}

/// The task as its status shows it: paused by an error, beside whatever it was parked for before.
pub(super) fn task_status(key: &TaskKey, broken: &BrokenTask) -> TaskStatus {
    let mut parks = broken.record.parks.clone();
    parks.entry(ParkReason::Error).or_insert_with(|| Park::now("dm-agent"));
    TaskStatus {
        parks,
        failures: vec![broken.failure.clone()],
        activity: "it cannot be loaded".to_owned(),
        ..TaskStatus::new(&key.1, &key.0, Stage::Paused)
    }
}

impl Supervisor {
    pub(super) fn source_is_broken(&self, id: &str, failure: Failure) {
        tracing::error!(source = %id, error = %failure, "a stored source cannot be opened");
        write(&self.inner.broken).sources.insert(id.to_owned(), failure);
    }

    /// Keeps the name, and all of the relay log that it may need.
    pub(super) async fn task_is_broken(&self, key: TaskKey, failure: Failure) {
        let (source_id, name) = &key;
        tracing::error!(task = %name, source = %source_id, error = %failure, "a stored task cannot be loaded");
        let stored = record_key(source_id, name);
        let record = self.inner.db.get::<ParkRecord>(Namespace::Park, &stored).await.ok().flatten().unwrap_or_default();
        let mut task = BrokenTask { failure, record, counted: false };
        self.hold_relay(&key, &mut task).await;
        write(&self.inner.broken).tasks.insert(key, task);
    }

    /// Protects what a task needs that cannot say so itself; all there is where nothing is known.
    async fn hold_relay(&self, key: &TaskKey, task: &mut BrokenTask) {
        let (source_id, name) = key;
        let Ok(source) = self.source(source_id) else { return };
        if std::mem::replace(&mut task.counted, true) {
            return;
        }
        let stored =
            self.inner.db.get::<TaskRecord>(Namespace::Task, &record_key(source_id, name)).await.ok().flatten();
        let start = stored.and_then(|stored| stored.start?.to_mark(source.flavor).ok());
        let flushed = task.record.flushed.as_ref().and_then(|mark| mark.to_mark(source.flavor).ok());
        let needed = flushed.or(start).map(|mark| mark.location).or(source.relay.state().start);
        if let Some(needed) = needed {
            source.relay.protect(&protected(name, source_id), &needed);
        }
        source.task_added();
        source.start_receiving();
    }

    /// Gives up what [`Self::hold_relay`] took, for a task that is removed.
    pub(super) fn forget_broken(&self, key: &TaskKey) {
        let task = write(&self.inner.broken).tasks.remove(key);
        if let (Some(BrokenTask { counted: true, .. }), Ok(source)) = (task, self.source(&key.0)) {
            source.relay.release(&protected(&key.1, &key.0));
            source.task_removed();
        }
    }

    /// Tries everything that could not be loaded once more.
    pub(super) async fn mend(&self) {
        let (sources, tasks): (Vec<String>, Vec<TaskKey>) = {
            let broken = read(&self.inner.broken);
            (broken.sources.keys().cloned().collect(), broken.tasks.keys().cloned().collect())
        };
        if sources.is_empty() && tasks.is_empty() {
            return;
        }
        for id in sources {
            // Whoever changes it just now does it better.
            let Ok(_claim) = self.claim_source(&id, "loading it", true) else { return };
            if let Err(failure) = self.mend_source(&id).await {
                write(&self.inner.broken).sources.entry(id).and_modify(|known| *known = failure);
            }
        }
        for key in tasks {
            let Ok(_claim) = self.claim_tasks(vec![key.clone()], "loading it") else { return };
            // Its failure is in the status; whoever asks by `resume-task` is told.
            let _ = self.mend_task(&key).await;
        }
        // Every task has said what it needs, or has been held for.
        self.all_sources().iter().for_each(|source| source.relay.arm_purge());
    }

    async fn mend_source(&self, id: &str) -> Result<(), Failure> {
        let stored = self.inner.db.get::<SourceRecord>(Namespace::Source, id).await;
        let stored = stored.map_err(|error| damaged(&error, &format!("source {id}"), SOURCE_REMEDY))?;
        let Some(record) = stored else {
            write(&self.inner.broken).sources.remove(id);
            return Ok(());
        };
        self.load_source(id, record).await?;
        write(&self.inner.broken).sources.remove(id);
        Ok(())
    }

    /// Loads it as it is stored; its failure stays where that fails again. The caller has claimed it.
    pub(super) async fn mend_task(&self, key: &TaskKey) -> Result<(), Failure> {
        let stored = record_key(&key.0, &key.1);
        let record = self.inner.db.get::<TaskRecord>(Namespace::Task, &stored).await;
        let record = record.map_err(|error| damaged(&error, &format!("task {}", key.1), TASK_REMEDY))?;
        let Some(record) = record else {
            self.forget_broken(key);
            return Ok(());
        };
        let loaded = self.load_task(&stored, &record).await;
        let Some(mut task) = read(&self.inner.broken).tasks.get(key).cloned() else { return loaded };
        match loaded {
            Ok(()) => {
                write(&self.inner.broken).tasks.remove(key);
                if task.counted {
                    // The load counted it as well.
                    self.source(&key.0)?.task_removed();
                }
                Ok(())
            }
            Err(failure) => {
                task.failure = failure.clone();
                self.hold_relay(key, &mut task).await;
                write(&self.inner.broken).tasks.insert(key.clone(), task);
                Err(failure)
            }
        }
    }

    /// Pause on a task that cannot be loaded: it must stay parked once it can be.
    pub(super) async fn park_broken(&self, key: &TaskKey, park: Park) -> Result<(), Failure> {
        let Some(mut record) = read(&self.inner.broken).tasks.get(key).map(|task| task.record.clone()) else {
            return Err(Failure::new(Code::SubTaskNotFound, "the subtask has ended"));
        };
        record.parks.entry(ParkReason::Operator).or_insert(park);
        let stored = self.inner.db.put(Namespace::Park, &record_key(&key.0, &key.1), &record).await;
        stored.map_err(|error| store_failure(&error, "store why the task is parked"))?;
        write(&self.inner.broken).tasks.entry(key.clone()).and_modify(|task| task.record = record);
        Ok(())
    }

    /// Resume on a task that cannot be loaded: tries again, without the reasons that an operator may lift.
    pub(super) async fn resume_broken(&self, key: &TaskKey) -> Result<(), Failure> {
        let _claim = self.claim_tasks(vec![key.clone()], "resume-task")?;
        let Some(mut record) = read(&self.inner.broken).tasks.get(key).map(|task| task.record.clone()) else {
            return Ok(());
        };
        let stays = |reason: &ParkReason| match reason {
            ParkReason::Master | ParkReason::Disk => true,
            ParkReason::Lease => self.inner.options.joined,
            ParkReason::Operator | ParkReason::Error => false,
        };
        record.parks.retain(|reason, _| stays(reason));
        record.failures.clear();
        let stored = self.inner.db.put(Namespace::Park, &record_key(&key.0, &key.1), &record).await;
        stored.map_err(|error| store_failure(&error, "store why the task is parked"))?;
        write(&self.inner.broken).tasks.entry(key.clone()).and_modify(|task| task.record = record);
        self.mend_task(key).await
    }

    /// A driver that broke off: the task is parked with an error that says so, by a new driver.
    pub(super) async fn revive_drivers(&self) {
        let ended: Vec<TaskKey> = read(&self.inner.tasks)
            .iter()
            .filter(|(_, entry)| entry.driver.is_finished() && entry.handle.status().stage != Stage::Stopped)
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            let Ok(_claim) = self.claim_tasks(vec![key.clone()], "its repair") else { continue };
            if !self.is_open() {
                return;
            }
            let Some(entry) = write(&self.inner.tasks).remove(&key) else { continue };
            let why = entry.driver.await.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
            let failure = Failure::new(Code::NotSet, "the task's driver broke off by a fault of the agent itself")
                .cause(why)
                .workaround("Please report it with the agent's log, then resume-task.");
            tracing::error!(task = %key.1, source = %key.0, error = %failure, "driver");
            let stored = record_key(&key.0, &key.1);
            let mut record = ParkRecord { parks: entry.handle.status().parks, ..ParkRecord::default() };
            if let Ok(Some(kept)) = self.inner.db.get::<ParkRecord>(Namespace::Park, &stored).await {
                record = kept;
            }
            record.parks.insert(ParkReason::Error, Park::now("dm-agent"));
            record.failures = vec![failure.clone()];
            // The new one must not run before that is known; where it cannot be stored it waits as one that cannot load.
            let kept = self.inner.db.put(Namespace::Park, &stored, &record).await;
            self.task_is_broken(key.clone(), failure).await;
            if let Ok(source) = self.source(&key.0) {
                source.task_removed();
            }
            if kept.is_ok() {
                let _ = self.mend_task(&key).await;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::SourceEntry;
    use super::super::records::FORM;
    use super::super::source::RelayLimits;
    use super::*;
    use crate::model::Location;
    use crate::runtime::spawn;
    use crate::store::CheckpointDb;
    use crate::supervisor::SupervisorOptions;

    const SOURCE: &str = "source-id: s\nfrom: {host: 127.0.0.1, port: 1, user: u, password: p}\n";
    const TASK: &str = "name: t\ntask-mode: incremental\n\
                        target-database: {host: 127.0.0.1, port: 1, user: u, password: p}\n\
                        mysql-instances: [{source-id: s}]\n";

    /// A supervisor with one source that nobody listens at and one task that an operator has paused.
    pub async fn supervisor(dir: &std::path::Path) -> Supervisor {
        let db = CheckpointDb::open(dir.join("checkpoint")).await.unwrap();
        let record = SourceRecord {
            form: FORM,
            yaml: SOURCE.to_owned(),
            flavor: "mysql".to_owned(),
            server_id: 7,
            replica_uuid: uuid::Uuid::nil(),
            relay_wanted: false,
            relay_paused: false,
            toml: None,
        };
        db.put(Namespace::Source, "s", &record).await.unwrap();
        let at = Location::new(
            crate::model::BinlogPosition::parse("b.000001", 4).unwrap(),
            crate::model::GtidSet::empty(Flavor::MySql),
        );
        let start = Some((&crate::model::RowMark::at(at)).into());
        let record = TaskRecord { form: FORM, yaml: TASK.to_owned(), start, safe_until: None, master: None };
        db.put(Namespace::Task, &record_key("s", "t"), &record).await.unwrap();
        let mut parked = ParkRecord::default();
        parked.parks.insert(ParkReason::Operator, Park::now("someone"));
        db.put(Namespace::Park, &record_key("s", "t"), &parked).await.unwrap();
        let options = SupervisorOptions {
            worker: "w".to_owned(),
            state_dir: dir.to_owned(),
            secret_key: None,
            limits: RelayLimits { dir: dir.join("relay"), budget: 1 << 30, floor: 0 },
            drain_limit: Duration::from_secs(1),
            copy_yield_floor: 20,
            joined: false,
        };
        let supervisor = Supervisor::new(options, db);
        assert!(!supervisor.is_open(), "nothing is taken before everything is loaded");
        supervisor.load_sources().await.unwrap();
        supervisor.load_tasks().await.unwrap();
        supervisor.inner.phase.store(super::super::Phase::Open as u8, std::sync::atomic::Ordering::Release);
        supervisor
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_driver_that_panics_leaves_a_parked_task_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = supervisor(dir.path()).await;
        let key: TaskKey = ("s".to_owned(), "t".to_owned());
        let dead = spawn("subtask", async { panic!("a fault put in by the test") });
        while !dead.is_finished() {
            tokio::task::yield_now().await;
        }
        write(&supervisor.inner.tasks).get_mut(&key).unwrap().driver = dead;
        supervisor.revive_drivers().await;
        let task = supervisor.status().tasks.remove(0);
        let reasons: Vec<ParkReason> = task.parks.keys().copied().collect();
        assert_eq!(reasons, [ParkReason::Operator, ParkReason::Error], "the operator's reason is still there");
        assert!(task.failures[0].message.contains("the task's driver broke off"), "{:?}", task.failures);
        assert!(read(&supervisor.inner.broken).tasks.is_empty(), "a new driver has it");
        // And it listens.
        let handle = read(&supervisor.inner.tasks)[&key].handle.clone();
        handle.park(ParkReason::Master, Park::now("test")).await.unwrap();
        supervisor.shut_down().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_read_never_runs_unparked() {
        let dir = tempfile::tempdir().unwrap();
        let first = supervisor(dir.path()).await;
        first.inner.db.put(Namespace::Park, &record_key("s", "t"), &"garbage").await.unwrap();
        let key: TaskKey = ("s".to_owned(), "t".to_owned());
        drop(write(&first.inner.tasks).remove(&key));
        first.load_tasks().await.unwrap();
        let task = first.status().tasks.remove(0);
        assert_eq!(task.stage, Stage::Paused);
        assert!(task.failures[0].message.contains("why task t is parked"), "{:?}", task.failures);
        assert!(first.claim_names("t", vec![key.clone()]).is_err(), "its name stays taken");
        assert!(first.mend_task(&key).await.is_err());
        first.park_broken(&key, Park::now("someone")).await.unwrap();
        first.mend_task(&key).await.unwrap();
        let task = first.status().tasks.remove(0);
        assert!(task.parks.contains_key(&ParkReason::Operator) && task.failures.is_empty(), "{task:?}");
        let sources: Vec<&str> = vec!["s"];
        assert_eq!(read(&first.inner.sources).keys().map(String::as_str).collect::<Vec<_>>(), sources);
        let SourceEntry { source, .. } = write(&first.inner.sources).remove("s").unwrap();
        drop(source);
        first.shut_down().await;
    }
}
