//! From nothing to tables that can be copied: structures read, tables made downstream, and which tables are stale from the
//! beginning, because they changed meanwhile.
//!
//! Which tables are about to be made is stored before they are. So a table that lacks what the source has by now is known for
//! one that we made too early, which the binlog behind L0 explains, and is not mistaken for one that does not fit.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::job::Job;
use super::look::{Look, Wanted, loose_tables, of_source, of_target, structure_of, structures};
use super::make::Maker;
use super::named::check_named;
use super::plan::{TablePlan, narrower_keys};
use super::prepared::wait_for_ends;
use super::problems::Problems;
use super::source::Source;
use super::spec::{CopyProgress, CopySpec};
use super::state::{TableEnd, TableState};
use super::structure::Structure;
use crate::downstream::Downstream;
use crate::error::{Code, Failure, Scope};
use crate::model::{SourceTable, TargetTable};
use crate::runtime::spawn;

/// Tables looked at or made at the same time.
pub(super) const AT_A_TIME: usize = 8;
/// How many tables are done until that is told again.
const TOLD: usize = 50;
/// Notes that are kept; the log has all.
const NOTES: usize = 50;

/// Works on both ends at once.
pub(super) struct Preparing<'a> {
    pub spec: &'a CopySpec,
    pub source: &'a Source,
    pub downstream: &'a Downstream,
    pub progress: &'a watch::Sender<CopyProgress>,
}

impl Preparing<'_> {
    /// Both ends as they are.
    pub async fn look(&self) -> Result<Look, Failure> {
        self.say("reading the structures of both ends");
        Look::take(self.spec, self.source, self.downstream).await
    }

    /// Makes the databases that the task wants.
    pub async fn databases(&self) -> Result<(), Failure> {
        self.say("creating databases downstream");
        let (mut source, mut target) = (self.source.connect().await?, self.downstream.connect().await?);
        let maker = Maker { spec: self.spec, downstream: self.downstream, progress: self.progress };
        let notes = maker.all_schemas(&mut source, &mut target).await?;
        notes.into_iter().for_each(|note| self.note(note));
        Ok(())
    }

    /// Makes what is missing downstream.
    pub async fn make(&self, look: &Look, missing: Vec<Wanted>, problems: &mut Problems) -> Result<(), Failure> {
        self.say("creating tables downstream");
        let mut source = self.source.connect().await?;
        let mut target = self.downstream.connect().await?;
        let maker = Maker { spec: self.spec, downstream: self.downstream, progress: self.progress };
        maker.schemas(&mut source, &mut target, &look.wanted).await?;
        let (tables, views): (Vec<Wanted>, Vec<Wanted>) = missing.into_iter().partition(|wanted| !wanted.view);
        self.make_tables(unique_targets(tables), problems).await?;
        maker.views(&mut source, &mut target, views, problems).await
    }

    /// All tables to copy, planned and checked. Everything that would fail later is named at once.
    pub async fn plan(&self, look: &Look, seen: &Seen, mut problems: Problems) -> Result<Planned, Failure> {
        let mut source = self.source.connect().await?;
        let notes = check_named(self.spec, &mut source, look, &mut problems).await?;
        notes.into_iter().for_each(|note| self.note(note));
        self.check_kinds(look, &mut problems);
        let planned = self.planned(look, seen, &mut problems);
        let mut target = self.downstream.connect().await?;
        let loose = loose_tables(&mut target).await.map_err(of_target)?;
        self.check_engines(&planned.jobs, &loose, &mut target, &mut problems).await?;
        self.say("checking rights and tables");
        self.check_tables(&planned.jobs, &mut problems).await?;
        problems.failure("the copy of existing rows cannot begin", "resume-task").map_or(Ok(planned), Err)
    }

    /// What was prepared before L0 must have ended before a row is read.
    pub async fn wait_for_prepared(&self) -> Result<(), Failure> {
        let note = wait_for_ends(self.source, "the copy began", |waiting| self.say(&waiting)).await?;
        note.into_iter().for_each(|note| self.note(note));
        Ok(())
    }

    fn say(&self, activity: &str) {
        self.progress.send_modify(|progress| progress.activity = activity.to_owned());
    }

    pub(super) fn note(&self, note: String) {
        tracing::warn!("{note}");
        self.progress.send_modify(|progress| {
            if !progress.notes.contains(&note) && progress.notes.len() < NOTES {
                progress.notes.push(note);
            }
        });
    }

    /// Several at a time.
    async fn make_tables(&self, missing: Vec<Wanted>, problems: &mut Problems) -> Result<(), Failure> {
        let steps = Steps::of_making(self.progress, missing.len());
        let queue = Arc::new(Mutex::new(VecDeque::from(missing)));
        let mut workers = Vec::new();
        for _ in 0..AT_A_TIME.min(lock(&queue).len()) {
            let (spec, source, downstream) = (self.spec.clone(), self.source.clone(), self.downstream.clone());
            let (queue, progress, steps) = (Arc::clone(&queue), self.progress.clone(), steps.clone());
            workers.push(spawn("snapshot tables", async move {
                let mut problems = Problems::default();
                let (mut from, mut to) = (source.connect().await?, downstream.connect().await?);
                let maker = Maker { spec: &spec, downstream: &downstream, progress: &progress };
                loop {
                    let next = lock(&queue).pop_front();
                    let Some(wanted) = next else { return Ok(problems) };
                    maker.table(&mut from, &mut to, &wanted, &mut problems).await?;
                    steps.done();
                }
            }));
        }
        for worker in workers {
            problems.extend(ended(worker.await)?);
        }
        Ok(())
    }

    fn planned(&self, look: &Look, seen: &Seen, problems: &mut Problems) -> Planned {
        let shares = look.shares();
        let mut planned = Planned::default();
        // One that is not seen any more has been dropped or renamed: that statement is on its way.
        for (wanted, from) in look.tables() {
            let shared = shares.get(&wanted.target).is_some_and(|count| *count > 1);
            let changed = seen.changed(&wanted.source, from);
            let ours = seen.made(&wanted.source);
            let Some(to) = look.target(wanted) else {
                // It could not be made: either that is a problem of its own, or it was not there at that moment.
                planned.stale.push((wanted.clone(), from.fingerprint()));
                continue;
            };
            match TablePlan::new(wanted.source.clone(), wanted.target.clone(), from, to) {
                // What we made is of the structure that was then.
                Ok(_) if ours && (changed || (!shared && to.has_more_than(from))) => {
                    planned.stale.push((wanted.clone(), from.fingerprint()));
                }
                Ok(plan) => {
                    for key in narrower_keys(from, to) {
                        if ours && shared {
                            problems.add(
                                Scope::Downstream,
                                format!(
                                    "{} was made like another table of its sources, and `{key}` is no unique key of {}: rows of \
                                     it would replace each other",
                                    wanted.target, wanted.source
                                ),
                                format!(
                                    "drop {0}, and create it by hand with keys that rows of all its sources differ by, or route \
                                     them to tables of their own; then stop-task, and start-task with --remove-meta, or",
                                    wanted.target
                                ),
                            );
                            continue;
                        }
                        self.note(format!(
                            "unique key `{key}` of {} is none of {}: of rows that are alike by it only the last stays",
                            wanted.target, wanted.source
                        ));
                    }
                    planned.jobs.push(self.job(planned.jobs.len(), wanted, from, TablePlan { shared, ..plan }));
                }
                Err(_) if changed || (ours && !shared) => planned.stale.push((wanted.clone(), from.fingerprint())),
                Err(missing) => problems.add(
                    Scope::Downstream,
                    format!("{} lacks columns of {}: {}", wanted.target, wanted.source, missing.join(", ")),
                    format!("add them to {}, or drop it so that it is made", wanted.target),
                ),
            }
        }
        planned
    }

    fn job(&self, number: usize, wanted: &Wanted, from: &Structure, plan: TablePlan) -> Job {
        let plan =
            TablePlan { transactional: wanted.transactional, condition: self.spec.options.condition.clone(), ..plan };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Job::new(number, plan, (wanted.rows, wanted.bytes), from.fingerprint())
    }
}

/// Tables as they are to be copied.
#[derive(Default)]
pub(super) struct Planned {
    pub jobs: Vec<Job>,
    /// Tables whose structure changed while both ends were looked at, with their fingerprints: a DDL statement behind L0
    /// explains it, and they are read again there.
    pub stale: Vec<(Wanted, u64)>,
}

/// What was seen of tables, and which of them the copy makes. Stored before they are made, so that after a kill a table that
/// is of an earlier structure than the source's is still known for ours.
#[derive(Default)]
pub(super) struct Seen {
    made: BTreeMap<SourceTable, u32>,
    /// Fingerprints of the source's tables, as they were seen first.
    first: HashMap<SourceTable, u64>,
}

impl Seen {
    /// What a former start stored.
    pub fn stored(tables: impl IntoIterator<Item = (SourceTable, u32, u64)>) -> Self {
        let mut seen = Seen::default();
        for (table, number, fingerprint) in tables {
            seen.first.insert(table.clone(), fingerprint);
            seen.made.insert(table, number);
        }
        seen
    }

    /// Takes a look in.
    pub fn take(&mut self, look: &Look) {
        for (wanted, structure) in look.tables() {
            self.first.entry(wanted.source.clone()).or_insert_with(|| structure.fingerprint());
        }
    }

    /// These are about to be made: what of that is to be stored before, as number, table and state.
    pub fn make(&mut self, missing: &[Wanted]) -> Vec<(u32, SourceTable, TableState)> {
        let mut new = Vec::new();
        for wanted in missing.iter().filter(|wanted| !wanted.view) {
            let number = u32::try_from(self.made.len()).unwrap_or(u32::MAX);
            if self.made.contains_key(&wanted.source) {
                continue;
            }
            self.made.insert(wanted.source.clone(), number);
            let fingerprint = self.first.get(&wanted.source).copied().unwrap_or_default();
            let state = TableState { fingerprint, rows: wanted.rows, bytes: wanted.bytes, end: TableEnd::Open };
            new.push((number, wanted.source.clone(), state));
        }
        new
    }

    fn made(&self, table: &SourceTable) -> bool {
        self.made.contains_key(table)
    }

    fn changed(&self, table: &SourceTable, now: &Structure) -> bool {
        self.first.get(table).is_some_and(|first| *first != now.fingerprint())
    }
}

/// Whether no table lacks columns downstream.
pub(super) fn fits(look: &Look) -> bool {
    look.tables().all(|(wanted, from)| {
        let plan = |to| TablePlan::new(wanted.source.clone(), wanted.target.clone(), from, to);
        look.target(wanted).is_some_and(|to| plan(to).is_ok())
    })
}

/// Counts what is done to many tables, for whoever looks.
#[derive(Clone)]
pub(super) struct Steps {
    progress: watch::Sender<CopyProgress>,
    what: &'static str,
    all: usize,
    done: Arc<AtomicUsize>,
    makes: bool,
}

impl Steps {
    /// None is done yet.
    pub fn new(progress: &watch::Sender<CopyProgress>, what: &'static str, all: usize) -> Self {
        Steps { progress: progress.clone(), what, all, done: Arc::default(), makes: false }
    }

    /// The same, of tables that are made.
    fn of_making(progress: &watch::Sender<CopyProgress>, all: usize) -> Self {
        progress.send_modify(|progress| progress.made = (0, all as u64));
        Steps { makes: true, ..Steps::new(progress, "creating tables downstream", all) }
    }

    /// One more is.
    pub fn done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(TOLD) {
            let Steps { what, all, .. } = self;
            self.progress.send_modify(|progress| {
                progress.activity = format!("{what}: {done} of {all}");
                if self.makes {
                    progress.made.0 = done as u64;
                }
            });
        }
    }
}

/// Tables that go into one target have it made once.
fn unique_targets(tables: Vec<Wanted>) -> Vec<Wanted> {
    let mut seen = BTreeSet::new();
    tables.into_iter().filter(|wanted| seen.insert(wanted.target.clone())).collect()
}

pub(super) fn lock<T>(queue: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A queue is whole at any instant.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn ended(outcome: Result<Result<Problems, Failure>, tokio::task::JoinError>) -> Result<Problems, Failure> {
    outcome.unwrap_or_else(|error| Err(Failure::new(Code::NotSet, format!("prepare the copy: {error}"))))
}

/// Plans of tables that a former start has stored; the state of those that are other tables by now says so.
pub(super) async fn planned_again(
    preparing: &Preparing<'_>,
    stored: &[(SourceTable, TableState)],
) -> Result<Vec<Result<Job, String>>, Failure> {
    let mut source = preparing.source.connect().await?;
    let mut target = preparing.downstream.connect().await?;
    let mut wanted = Vec::new();
    for (name, state) in stored {
        let Some(to) = preparing.spec.guide.target(name)? else { continue };
        let transactional = true;
        let (rows, bytes) = (state.rows, state.bytes);
        wanted.push(Wanted { source: name.clone(), target: to, view: false, transactional, rows, bytes });
    }
    let loose = loose_tables(&mut source).await.map_err(of_source)?;
    wanted.iter_mut().for_each(|wanted| wanted.transactional = !loose.contains(&wanted.source.0));
    let here = structures(&mut source, &wanted, |wanted| &wanted.source.0).await.map_err(of_source)?;
    let there = structures(&mut target, &wanted, |wanted| &wanted.target.0).await.map_err(of_target)?;
    let mut into: HashMap<&TargetTable, usize> = HashMap::new();
    wanted.iter().for_each(|wanted| *into.entry(&wanted.target).or_default() += 1);
    let by_name: HashMap<&SourceTable, &Wanted> = wanted.iter().map(|wanted| (&wanted.source, wanted)).collect();
    let mut jobs = Vec::new();
    for (number, (name, state)) in stored.iter().enumerate() {
        let Some(wanted) = by_name.get(name).copied() else {
            jobs.push(Err("the task does not want it any more".to_owned()));
            continue;
        };
        if state.end != TableEnd::Open {
            jobs.push(Err(String::new()));
            continue;
        }
        let Some(from) = structure_of(&here, &name.0) else {
            jobs.push(Err("it was dropped or renamed".to_owned()));
            continue;
        };
        if from.fingerprint() != state.fingerprint {
            jobs.push(Err("its columns or its key changed".to_owned()));
            continue;
        }
        let lacks = |what: &str| {
            Failure::new(Code::NoDownstreamTable, format!("{} {what}", wanted.target))
                .workaround("Please make it as it was when the copy began, or start the task anew with --remove-meta.")
        };
        let to = structure_of(&there, &wanted.target.0).ok_or_else(|| lacks("is not there any more"))?;
        let plan = TablePlan::new(name.clone(), wanted.target.clone(), from, to)
            .map_err(|missing| lacks(&format!("lacks columns: {}", missing.join(", "))))?;
        let shared = into.get(&wanted.target).is_some_and(|count| *count > 1);
        jobs.push(Ok(preparing.job(number, wanted, from, TablePlan { shared, ..plan })));
    }
    Ok(jobs)
}
