//! What a driver knows, put together as the status that everyone else reads.
//!
//! Pure: the same parts give the same status. What a running pipeline says comes before what is kept of the last one.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::handle::TaskSpec;
use super::lifecycle::{Event, step};
use super::meter::Reading;
use super::record::ParkRecord;
use super::status::{AgainStatus, Stage, TaskStatus};
use crate::model::{Applied, Checkpointed, Dispatched, Flavor, RowMark};
use crate::pipeline::Progress;

/// The parts.
pub(super) struct Parts<'a> {
    pub stage: Stage,
    pub record: &'a ParkRecord,
    /// What the operator should know of the configuration.
    pub notes: &'a [String],
    /// What the last pipeline told.
    pub told: &'a BTreeSet<String>,
    pub flavor: Flavor,
    /// Of the pipeline, while there is one.
    pub progress: Option<&'a Progress>,
    /// The relay log is brought to where the task needs it.
    pub repairing: bool,
    pub auto_resume_at: Option<SystemTime>,
    pub reading: Reading,
    /// How many tables were read again, and what is to be said of the last one.
    pub read_again: &'a (u64, String),
    /// Pipelines begun, and failures.
    pub counts: Counts,
}

/// Counts of the process's life.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Pipelines begun.
    pub starts: u64,
    /// Failures.
    pub failed: u64,
    /// Of them, those that may heal by themselves.
    pub healing: u64,
    /// Tables copied, and those that there were to copy.
    pub copied: (u64, u64),
}

/// Before the driver has done anything: what is kept of the time before.
pub(super) fn first_status(spec: &TaskSpec, record: &ParkRecord) -> TaskStatus {
    // What was parked is so from the first instant that somebody can ask.
    let stage = if record.finished {
        Stage::Finished
    } else if record.parks.is_empty() {
        Stage::New
    } else {
        step(Stage::New, Event::Start, true).0
    };
    let mut status = TaskStatus {
        parks: record.parks.clone(),
        failures: record.failures.clone(),
        ddl: record.ddl.clone(),
        notes: spec.recipe.notes(),
        ..TaskStatus::new(&spec.name, &spec.source_id, stage)
    };
    let flavor = spec.flavor;
    take_applied(&mut status, record.applied.as_ref().and_then(|mark| mark.to_mark(flavor).ok()));
    status.flushed = flushed(record, flavor);
    (status.unit, status.copy) = (record.unit, record.copy.clone());
    status.again = again(record, None);
    status
}

/// Tables that wait: in a pipeline's window, those that were when the last one ended, and those that none has taken in.
fn again(record: &ParkRecord, progress: Option<&Progress>) -> Vec<AgainStatus> {
    let mut all: Vec<AgainStatus> = match progress {
        Some(progress) if progress.applied.is_some() => progress
            .again
            .iter()
            .map(|known| AgainStatus { table: known.table.to_string(), reading: known.reading })
            .collect(),
        _ => record.again.iter().map(|table| AgainStatus { table: table.clone(), reading: None }).collect(),
    };
    for table in record.orders.iter().map(|order| order.table().to_string()) {
        if !all.iter().any(|known| known.table == table) {
            all.push(AgainStatus { table, reading: None });
        }
    }
    all
}

/// Brings a status up to date.
pub(super) fn update(status: &mut TaskStatus, parts: Parts<'_>) {
    let Parts { stage, record, flavor, progress, reading, .. } = &parts;
    let (stage, flavor, progress) = (*stage, *flavor, *progress);
    status.activity = activity(progress, record, stage, parts.repairing);
    status.stage = stage;
    status.parks.clone_from(&record.parks);
    status.failures.clone_from(&record.failures);
    status.auto_resume_at = parts.auto_resume_at;
    let mark = progress.and_then(|progress| progress.applied.clone());
    take_applied(status, mark.or_else(|| record.applied.as_ref().and_then(|mark| mark.to_mark(flavor).ok())));
    let stored = progress.and_then(|progress| progress.flushed.clone()).map(Checkpointed);
    if let Some(stored) = stored.or_else(|| flushed(record, flavor)) {
        status.flushed = Some(stored);
    }
    status.dispatched = progress.and_then(|progress| progress.dispatched.clone()).map(Dispatched);
    status.ddl.clone_from(&record.ddl);
    status.notes = parts.notes.iter().chain(parts.told).cloned().collect();
    status.unit = record.unit;
    status.again = again(record, progress);
    status.read_again.clone_from(parts.read_again);
    status.copy.clone_from(&record.copy);
    if let Some(copy) = &mut status.copy {
        (copy.rows_per_second, copy.bytes_per_second, copy.eta) = reading.copy;
    }
    status.safe_mode = progress.and_then(|progress| progress.safe_mode.clone());
    status.lag = reading.lag;
    status.backlog_bytes = reading.backlog_bytes;
    status.totals = reading.totals;
    let Counts { starts, failed, healing, copied } = parts.counts;
    (status.starts, status.failed, status.healing, status.tables_copied) = (starts, failed, healing, copied);
    status.rows_per_second = reading.rows_per_second;
    status.bytes_per_second = reading.bytes_per_second;
    status.eta = reading.eta;
}

fn activity(progress: Option<&Progress>, record: &ParkRecord, stage: Stage, repairing: bool) -> String {
    match (progress, stage) {
        _ if repairing => "waiting for the relay log".to_owned(),
        (Some(progress), Stage::Pausing) => match &progress.ddl {
            Some(ddl) => format!("pausing: {} downstream since {}", progress.activity, clock(ddl.since)),
            None => format!("draining ({})", progress.activity),
        },
        (Some(progress), _) => progress.activity.clone(),
        (None, Stage::Finished) => "finished".to_owned(),
        (None, Stage::Paused) => match &record.ddl {
            Some(ddl) => format!(
                "parked; contact was lost while DDL ran, which may still be at work downstream, since {}: {}",
                clock(ddl.since),
                ddl.statement
            ),
            None => "parked".to_owned(),
        },
        (None, _) => String::new(),
    }
}

/// `2026-11-22 19:00:00 UTC`.
fn clock(time: SystemTime) -> String {
    let at = time::OffsetDateTime::from(time);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    at.format(&format).unwrap_or_default()
}

fn take_applied(status: &mut TaskStatus, mark: Option<RowMark>) {
    if let Some(mark) = mark {
        status.inside_transaction = Some(mark.next).filter(|_| mark.is_inside());
        status.applied = Some(Applied(mark.location));
    }
}

fn flushed(record: &ParkRecord, flavor: Flavor) -> Option<Checkpointed> {
    record.flushed.as_ref().and_then(|mark| mark.to_mark(flavor).ok()).map(|mark| Checkpointed(mark.location))
}
