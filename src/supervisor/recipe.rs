//! What a subtask's pipelines are made of, from its record and from the settings that hold at each start and resume.
//!
//! A master's configuration may be of any kind: refused options, a source that cannot be reached. None of that keeps the
//! subtask from being there: it is, parked with what is wrong, and resumes like any other.
//!
//! Invariant: where it starts is found once, and stored before anything is applied; a later resume never asks again, so
//! that a forgotten `--start-time` cannot make it jump.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::broken::{TASK_REMEDY, damaged};
use super::declared::StoredDeclared;
use super::endpoint::{endpoint, rules};
use super::records::{MasterMark, TaskRecord, protected};
use super::source::Source;
use super::start::Begin;
use super::{Inner, Supervisor, store_failure};
use crate::config::{OnDuplicate, StartMeta, SubtaskConfig, TaskConfig, TaskMode};
use crate::error::{Code, Failure};
use crate::meta::{MetaTables, StoredMark};
use crate::model::{Flavor, Location, RowMark};
use crate::pipeline::{CopyOptions, CopyPlan, Exceptions, Existing, Paces, PipelineSpec};
use crate::store::Namespace;
use crate::task::{AutoResume, Recipe, record_key};
use crate::transform::{Rules, Transform};

/// A recipe that is kept with its subtask.
pub(super) struct StoredRecipe {
    /// For what it gives to its pipelines.
    me: Weak<StoredRecipe>,
    supervisor: Weak<Inner>,
    source: Arc<Source>,
    name: String,
    /// As it is on disk.
    record: Mutex<TaskRecord>,
    /// One at a time changes it: a master's wish comes while a pipeline finds out where it starts.
    changing: tokio::sync::Mutex<()>,
    /// What is ordered about events, as it is on disk; `None` before it was read.
    exceptions: tokio::sync::Mutex<Option<Exceptions>>,
    /// What is declared of the source's tables.
    declared: Arc<StoredDeclared>,
    /// What pipelines have learned, for the next one.
    paces: Paces,
    /// Where the checkpoint downstream stands that a start time was to take the place of, where that was refused.
    stands_at: Mutex<Option<Location>>,
}

impl StoredRecipe {
    /// As a record has it that is stored.
    pub fn new(supervisor: &Supervisor, source: &Arc<Source>, name: &str, record: TaskRecord) -> Arc<StoredRecipe> {
        Arc::new_cyclic(|me| StoredRecipe {
            me: Weak::clone(me),
            supervisor: Arc::downgrade(&supervisor.inner),
            source: Arc::clone(source),
            name: name.to_owned(),
            record: Mutex::new(record),
            changing: tokio::sync::Mutex::new(()),
            exceptions: tokio::sync::Mutex::new(None),
            declared: Arc::new(StoredDeclared::new(supervisor.inner.db.clone(), record_key(&source.id, name))),
            paces: Paces::default(),
            stands_at: Mutex::default(),
        })
    }

    /// As it is on disk.
    pub fn record(&self) -> TaskRecord {
        // Nothing panics while holding it.
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the record; stored when it returns, and taken by the next start or resume.
    pub async fn change(&self, change: impl FnOnce(&mut TaskRecord) + Send) -> Result<(), Failure> {
        let supervisor = self.supervisor()?;
        let _changing = self.changing.lock().await;
        let mut record = self.record();
        change(&mut record);
        let kept = supervisor.inner.db.put(Namespace::Task, &self.key(), &record).await;
        kept.map_err(|error| store_failure(&error, "store the task"))?;
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }

    /// What is declared of the source's tables.
    pub fn declared(&self) -> &StoredDeclared {
        &self.declared
    }

    /// What is ordered about events.
    pub async fn exceptions(&self) -> Result<Exceptions, Failure> {
        let mut all = self.exceptions.lock().await;
        Ok(self.read_exceptions(&mut all).await?.clone())
    }

    /// Changes what is ordered about events, and stores it where `change` says that it did; says so, too.
    pub async fn change_exceptions(
        &self,
        change: impl FnOnce(&mut Exceptions) -> bool + Send,
    ) -> Result<bool, Failure> {
        let mut all = self.exceptions.lock().await;
        let mut new = self.read_exceptions(&mut all).await?.clone();
        if !change(&mut new) {
            return Ok(false);
        }
        let stored = self.supervisor()?.inner.db.put(Namespace::Operator, &self.key(), &new).await;
        stored.map_err(|error| store_failure(&error, "store what is ordered about an event"))?;
        *all = Some(new);
        Ok(true)
    }

    /// Whether there are any, as far as that is known without waiting.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions.try_lock().is_ok_and(|all| all.as_ref().is_some_and(|all| !all.0.is_empty()))
    }

    async fn read_exceptions<'a>(&self, all: &'a mut Option<Exceptions>) -> Result<&'a Exceptions, Failure> {
        if all.is_none() {
            let stored = self.supervisor()?.inner.db.get::<Exceptions>(Namespace::Operator, &self.key()).await;
            let what = format!("events of task {} that are treated otherwise", self.name);
            *all = Some(stored.map_err(|error| damaged(&error, &what, TASK_REMEDY))?.unwrap_or_default());
        }
        Ok(all.get_or_insert_default())
    }

    fn key(&self) -> String {
        record_key(&self.source.id, &self.name)
    }

    /// Dialect of its source.
    pub fn flavor(&self) -> Flavor {
        self.source.flavor
    }

    /// The subtask's settings; fit to be started.
    pub fn subtask(&self) -> Result<SubtaskConfig, Failure> {
        let record = self.record();
        match &record.master {
            Some(master) => parse_subtask(&master.toml, &self.name, &self.source.id),
            None => {
                let config = parse(&record.yaml).map_err(|failure| failure.at(format!("stored task {}", self.name)))?;
                config.subtask(&self.source.id).cloned().map_err(|error| error.to_failure(Code::ConfigTask))
            }
        }
    }

    /// For `get-config task`; `None` where a master's text makes no sense.
    pub fn config(&self) -> Option<TaskConfig> {
        let record = self.record();
        let Some(master) = &record.master else { return parse(&record.yaml).ok() };
        let subtask = SubtaskConfig::from_toml(&master.toml).ok()?;
        Some(TaskConfig { name: subtask.name.clone(), remove_meta: false, subtasks: vec![subtask] })
    }

    /// Where it began, as a task's file says it; `None` while that is not known, and inside a transaction.
    pub fn began(&self) -> Option<StartMeta> {
        let start = self.record().start.filter(|start| start.ordinal == 0)?;
        Some(StartMeta { binlog_name: start.file, binlog_pos: start.offset, binlog_gtid: start.gtids })
    }

    /// What of its master's wishes it follows; `None` where an operator made it.
    pub fn mark(&self) -> Option<MasterMark> {
        self.record().master.map(|master| master.mark)
    }

    /// Where it starts if nothing is stored downstream, as far as that is known.
    pub fn known_begin(&self) -> Result<Option<Location>, Failure> {
        self.stored_place(self.record().start)
    }

    fn stored_place(&self, stored: Option<StoredMark>) -> Result<Option<Location>, Failure> {
        let mark = stored.map(|mark| mark.to_mark(self.source.flavor)).transpose();
        let named = |text| Failure::new(Code::Checkpoint, format!("stored task {}: {text}", self.name));
        Ok(mark.map_err(named)?.map(|mark| mark.location))
    }

    fn supervisor(&self) -> Result<Supervisor, Failure> {
        let inner = self.supervisor.upgrade();
        inner.map(|inner| Supervisor { inner }).ok_or_else(|| Failure::new(Code::NotSet, "the agent is shutting down"))
    }

    /// From its record, else found now and stored; where existing rows are copied first, the copy finds it.
    async fn begin(&self, supervisor: &Supervisor, subtask: &SubtaskConfig) -> Result<Option<Begin>, Failure> {
        if let Some(at) = self.known_begin()? {
            return Ok(Some(Begin { at, safe_until: self.stored_place(self.record().safe_until)? }));
        }
        if subtask.mode.copies() {
            let stored = supervisor.stored_begin(self.source.flavor, subtask).await?;
            return Ok(stored.map(Begin::exactly));
        }
        let start_time = self.record().master.map(|master| master.start_time).unwrap_or_default();
        let found = supervisor.find_begin(&self.source, subtask, &start_time, !start_time.is_empty()).await;
        if found.is_err() && !start_time.is_empty() {
            // Nothing was forgotten: its users see where it stands, as in DM. Where it cannot be read, they see nothing.
            let stored = supervisor.stored_begin(self.source.flavor, subtask).await.ok().flatten();
            *self.stands_at.lock().unwrap_or_else(PoisonError::into_inner) = stored;
        }
        let begin = found?;
        let (start, safe_until) = begin.to_stored_pair();
        self.change(|record| (record.start, record.safe_until) = (start, safe_until)).await?;
        Ok(Some(begin))
    }

    /// A copy begins: from here on the relay log must be there, whatever becomes of this process.
    async fn copy_begins(&self, at: Location) -> Result<(), Failure> {
        let start = StoredMark::from(&RowMark::at(at.clone()));
        if self.record().start.as_ref() != Some(&start) {
            self.change(|record| record.start = Some(start)).await?;
        }
        self.source.relay.protect(&protected(&self.name, &self.source.id), &at);
        self.source.reach_back_to(&at).await
    }

    fn copy_plan(&self, subtask: &SubtaskConfig, yield_floor: u32) -> CopyPlan {
        let copy = &subtask.copy;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let me = Weak::clone(&self.me);
        CopyPlan {
            copies: subtask.mode.copies(),
            ends: subtask.mode == TaskMode::Full,
            options: CopyOptions {
                readers: copy.readers as usize,
                writers: copy.writers as usize,
                existing: match copy.on_duplicate {
                    OnDuplicate::Replace => Existing::Replace,
                    OnDuplicate::Error => Existing::Refuse,
                    OnDuplicate::Ignore => Existing::Keep,
                },
                statement_bytes: copy.statement_bytes.map(bytes),
                chunk_rows: copy.chunk_rows,
                chunk_bytes: copy.chunk_bytes.map(bytes),
                condition: copy.condition.clone(),
                views: copy.views,
                yield_floor,
                strict_collation: subtask.strict_collation,
            },
            begun: Arc::new(move |at| {
                let me = Weak::clone(&me);
                Box::pin(async move {
                    let gone = || Failure::new(Code::NotSet, "the task has been stopped");
                    me.upgrade().ok_or_else(gone)?.copy_begins(at).await
                })
            }),
        }
    }
}

#[tonic::async_trait]
impl Recipe for StoredRecipe {
    async fn pipeline(&self) -> Result<PipelineSpec, Failure> {
        let supervisor = self.supervisor()?;
        *self.stands_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let settings = self.source.settings();
        let mut subtask = self.subtask()?;
        subtask.inherit(&settings.config);
        // Everything that can be refused is refused before anything is stored.
        let (rules, transform) = compile(&subtask, self.source.flavor)?;
        let begin = self.begin(&supervisor, &subtask).await?;
        let (fresh_start, fresh_safe) = begin.map_or((None, None), |begin| (Some(begin.at), begin.safe_until));
        Ok(PipelineSpec {
            name: protected(&self.name, &self.source.id),
            flavor: self.source.flavor,
            source: settings.receive.endpoint.clone(),
            relay: self.source.relay.clone(),
            rules,
            transform: Arc::new(transform),
            downstream: endpoint(&subtask.to, supervisor.key().as_ref()),
            tables: MetaTables::new(&subtask.meta_schema, &subtask.name, &subtask.source_id),
            lanes: subtask.syncer.worker_count.max(1),
            fresh_start,
            fresh_safe,
            flush_interval: subtask.syncer.checkpoint_flush_interval,
            drain_limit: supervisor.inner.options.drain_limit,
            always_safe: subtask.syncer.safe_mode,
            safe_duration: subtask.syncer.safe_mode_duration,
            ledger: Arc::new(supervisor.ledger(&subtask)),
            moves: supervisor.inner.options.joined,
            exceptions: Arc::new(self.exceptions().await?),
            declared: self.declared.clone(),
            copy: self.copy_plan(&subtask, supervisor.inner.options.copy_yield_floor),
            orders: Vec::new(),
            paces: self.paces.clone(),
        })
    }

    fn auto_resume(&self) -> AutoResume {
        let settings = self.source.settings();
        let checker = &settings.config.checker;
        AutoResume {
            enabled: checker.enabled,
            first: checker.backoff_min,
            factor: checker.backoff_factor,
            jitter: checker.backoff_jitter,
            longest: checker.backoff_max,
            forget_after: checker.backoff_rollback,
        }
    }

    fn stands_at(&self) -> Option<Location> {
        self.stands_at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn notes(&self) -> Vec<String> {
        let config = self.config();
        let subtask = config.as_ref().and_then(|config| config.subtask(&self.source.id).ok());
        let notes = match self.record().master {
            Some(_) => SubtaskConfig::notes_under_master,
            None => SubtaskConfig::notes,
        };
        let mut notes = subtask.map(notes).unwrap_or_default();
        let copies = subtask.is_some_and(|subtask| subtask.mode.copies());
        if copies && self.record().master.is_some_and(|master| !master.start_time.is_empty()) {
            notes.push(NO_START_TIME.to_owned());
        }
        for word in self.record().master.iter().flat_map(|master| &master.unheeded) {
            notes.push(format!("`{word}` of start-task has no effect here: {}", why_unheeded(word)));
        }
        notes
    }
}

/// Of a place to start, where a copy finds it.
pub(super) const NO_START_TIME: &str = "`--start-time` has no meaning where existing rows are copied first: the binlog counts from the beginning of the copy on";

/// Of a word of start-task.
fn why_unheeded(word: &str) -> &'static str {
    match word {
        "safe_mode_duration" => {
            "rows that may be downstream already need `safe-mode: true` in `syncers` until they are passed"
        }
        "wait_time_on_stop" => "a stop waits for the end of a transaction as long as `agent.pause-drain-limit` says",
        _ => "this version does not know it",
    }
}

/// A subtask's rules for names, and the same compiled.
pub(super) fn compile(subtask: &SubtaskConfig, flavor: Flavor) -> Result<(Rules, Transform), Failure> {
    let rules = rules(subtask, flavor);
    match Transform::new(&rules) {
        Ok(transform) => Ok((rules, transform)),
        Err(problems) => Err(Failure::all(Code::ConfigTask, &problems)),
    }
}

/// The subtask that a master's text describes; fit to be started.
fn parse_subtask(toml: &str, name: &str, source_id: &str) -> Result<SubtaskConfig, Failure> {
    let config = SubtaskConfig::from_toml(toml).map_err(|error| error.to_failure(Code::ConfigTask))?;
    if config.name != name || config.source_id != source_id {
        let (other, of) = (&config.name, &config.source_id);
        let text =
            format!("the configuration of subtask {name} of source {source_id} is that of {other} of source {of}");
        return Err(Failure::new(Code::ConfigTask, text));
    }
    let refused = config.refusals();
    if refused.is_empty() {
        return Ok(config);
    }
    Err(Failure::new(Code::ConfigTask, format!("task {name}: {}", refused.join("; ")))
        .workaround("Please change the task as the message says, then start it again; or leave it to a dm-worker."))
}

/// A task file, checked; what it asks for and cannot be had is refused, all of it at once.
pub(super) fn parse(yaml: &str) -> Result<TaskConfig, Failure> {
    let config = TaskConfig::from_yaml(yaml).map_err(|error| error.to_failure(Code::ConfigTask))?;
    let mut refused: Vec<String> = Vec::new();
    for refusal in config.subtasks.iter().flat_map(SubtaskConfig::refusals) {
        // What all sources share is said once.
        if !refused.contains(&refusal) {
            refused.push(refusal);
        }
    }
    if refused.is_empty() {
        return Ok(config);
    }
    Err(Failure::new(Code::ConfigTask, format!("task {}: {}", config.name, refused.join("; "))))
}

/// Whether a note is for whoever starts or checks a task. Nearly every file has the key that gets it past DM's own checks,
/// and its answers are DM's then; the status and the log name it.
pub fn worth_an_answer(note: &str) -> bool {
    !note.starts_with("`ignore-checking-items` ")
}

/// What of a task has no effect, for the log.
pub(super) fn said(task: &str, notes: &[String]) {
    notes.iter().for_each(|note| tracing::warn!(task, note, "option without effect"));
}
