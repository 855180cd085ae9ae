//! The agent's status in full, as the messages of its own service.
//!
//! Pure functions. What is not known stays absent; nothing is made up for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::proto::agent;
use crate::error::Failure;
use crate::model::Location;
use crate::supervisor::{AgentStatus, Receiving, RelayStatus, SourceStatus};
use crate::task::{AgainStatus, CopyStatus, TaskStatus};

/// Everything at this instant.
pub fn reply(status: &AgentStatus, ready: bool, now: SystemTime) -> agent::StatusReply {
    agent::StatusReply {
        worker: status.worker.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        now_ms: millis(now),
        ready,
        in_cluster: status.in_cluster,
        sources: status.sources.iter().map(source).collect(),
        tasks: status.tasks.iter().map(task).collect(),
    }
}

/// Milliseconds since 1970; negative before.
pub fn millis(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => span(after),
        Err(before) => -span(before.duration()),
    }
}

fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn source(source: &SourceStatus) -> agent::Source {
    let (receiving, retry_at, why) = match &source.receiving {
        Receiving::Running => (agent::ReceiveState::Running, None, None),
        Receiving::Retrying { at, failure } => (agent::ReceiveState::Retrying, Some(*at), Some(failure)),
        Receiving::Stopped { failure } => (agent::ReceiveState::Stopped, None, Some(failure)),
        Receiving::Paused => (agent::ReceiveState::Paused, None, None),
        Receiving::Idle => (agent::ReceiveState::Idle, None, None),
    };
    agent::Source {
        source_id: source.source_id.clone(),
        flavor: source.flavor.as_str().to_owned(),
        receiving: receiving.into(),
        retry_at_ms: retry_at.map(millis),
        failure: why.map(failure),
        master: source.master.as_ref().map(location),
        server_identity: source.server_identity.clone(),
        received: source.received.as_ref().map(|l| location(&l.0)),
        relayed: source.relayed.as_ref().map(|l| location(&l.0)),
        receive_lag_ms: source.receive_lag.map(span),
        relay: Some(relay(&source.relay)),
    }
}

fn relay(relay: &RelayStatus) -> agent::Relay {
    let runway = |r: &crate::supervisor::Runway| agent::Runway { until_ms: millis(r.until), limit: r.limit.to_owned() };
    agent::Relay {
        disk_bytes: relay.disk_bytes,
        raw_bytes: relay.raw_bytes,
        budget_bytes: relay.budget_bytes,
        segments: relay.segments,
        bytes_per_second: relay.bytes_per_second,
        oldest: relay.oldest.as_ref().map(location),
        runway: relay.runway.as_ref().map(runway),
    }
}

fn task(task: &TaskStatus) -> agent::Task {
    let park = |(reason, park): (&crate::task::ParkReason, &crate::task::Park)| agent::Park {
        reason: reason.as_str().to_owned(),
        since_ms: millis(park.since),
        by: park.by.clone(),
        note: park.note.clone(),
    };
    agent::Task {
        name: task.name.clone(),
        source_id: task.source_id.clone(),
        stage: task.stage.as_str().to_owned(),
        parks: task.parks.iter().map(park).collect(),
        failures: task.failures.iter().map(failure).collect(),
        auto_resume_at_ms: task.auto_resume_at.map(millis),
        activity: task.activity.clone(),
        dispatched: task.dispatched.as_ref().map(|l| location(&l.0)),
        applied: task.applied.as_ref().map(|l| location(&l.0)),
        inside_transaction: task.inside_transaction.map(|o| agent::RowOrdinal { row: o.0 }),
        flushed: task.flushed.as_ref().map(|l| location(&l.0)),
        lag_ms: task.lag.map(span),
        backlog_bytes: task.backlog_bytes,
        rows_total: task.totals.rows,
        unmatched_total: task.totals.unmatched,
        filtered_rows_total: task.totals.filtered_rows,
        rows_per_second: task.rows_per_second,
        bytes_per_second: task.bytes_per_second,
        eta_ms: task.eta.map(span),
        safe_mode: task.safe_mode.clone().unwrap_or_default(),
        notes: task.notes.clone(),
        unit: task.unit.as_str().to_owned(),
        copy: task.copy.as_ref().map(copy),
        again: task.again.iter().map(again).collect(),
        read_again_total: task.read_again.0,
    }
}

fn again(known: &AgainStatus) -> agent::AgainTable {
    let (rows_written, rows) = known.reading.unwrap_or_default();
    agent::AgainTable { name: known.table.clone(), reading: known.reading.is_some(), rows_written, rows }
}

fn copy(copy: &CopyStatus) -> agent::Copy {
    let at_work = |(name, rows_written, rows): &(String, u64, u64)| agent::CopyTable {
        name: name.clone(),
        rows_written: *rows_written,
        rows: *rows,
    };
    agent::Copy {
        tables: copy.tables,
        tables_done: copy.tables_done,
        rows: copy.rows,
        rows_written: copy.rows_written,
        bytes: copy.bytes,
        bytes_written: copy.bytes_written,
        rows_per_second: copy.rows_per_second,
        bytes_per_second: copy.bytes_per_second,
        eta_ms: copy.eta.map(span),
        fraction: copy.fraction(),
        at_work: copy.at_work.iter().map(at_work).collect(),
        from: copy.from.as_ref().map(|from| agent::Location {
            file: from.file.clone(),
            offset: from.offset,
            gtid_set: from.gtids.clone(),
        }),
    }
}

fn location(location: &Location) -> agent::Location {
    agent::Location {
        file: location.position.file.name().to_owned(),
        offset: location.position.offset,
        gtid_set: location.gtids.to_string(),
    }
}

fn failure(failure: &Failure) -> agent::Failure {
    agent::Failure {
        code: failure.code,
        class: failure.class.clone(),
        scope: failure.scope.clone(),
        level: failure.level.clone(),
        message: failure.message.clone(),
        raw_cause: failure.raw_cause.clone(),
        workaround: failure.workaround.clone(),
    }
}
