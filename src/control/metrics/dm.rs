//! Families with DM's names, types and labels (`tests/golden/http/metrics-list.txt`), so that its boards and alerts go on
//! working. What has no meaning here, or would cost what it measures, is not there rather than zero: the test names it.

use super::page::{Page, SizesOf};
use crate::control::pb_status::relay_sub_dir;
use crate::control::worker_rpc::shown_stage;
use crate::model::Location;
use crate::supervisor::{AgentStatus, Breaks, SourceStatus};
use crate::task::{Stage, TaskStatus};

/// All of them that one status tells.
pub fn families(page: &mut Page, status: &AgentStatus) {
    worker_families(page, status);
    syncer_families(page, status);
    copy_families(page, status);
    relay_families(page, status);
}

fn worker_families(page: &mut Page, status: &AgentStatus) {
    let help = "state of task, 0 - invalidStage, 1 - New, 2 - Running, 3 - Paused, 4 - Stopped, 5 - Finished, \
                6 - Pausing, 7 - Resuming, 8 - Stopping";
    let shown = |t: &TaskStatus| !matches!(t.stage, Stage::Stopped | Stage::Finished);
    page.per_task(("dm_worker_task_state", "gauge", help), status, true, |t| {
        shown(t).then(|| shown_stage(status, t) as i32)
    });
    if !status.operate_errors.is_empty() {
        page.family("dm_worker_operate_error", "counter", "number of different operate error");
    }
    for (kind, count) in &status.operate_errors {
        page.sample("dm_worker_operate_error", &[("worker", &status.worker), ("type", kind)], count);
    }
}

fn syncer_families(page: &mut Page, status: &AgentStatus) {
    let lag = ("dm_syncer_replication_lag_gauge", "gauge", "replication lag gauge in second between mysql and syncer");
    page.per_task(lag, status, true, |t| t.lag.map(|lag| lag.as_secs_f64()));
    let done = ("dm_syncer_finished_transaction_total", "counter", "total number of finished transaction");
    page.per_task(done, status, true, |t| Some(t.totals.transactions));
    let left = ("dm_syncer_remaining_time", "gauge", "the remaining time in second to catch up master");
    page.per_task(left, status, true, |t| t.eta.map(|eta| eta.as_secs_f64()));
    // There is no merging of shards, and so no lock to wait for.
    let lock = ("dm_syncer_shard_lock_resolving", "gauge", "waiting shard DDL lock to be resolved");
    page.per_task(lock, status, false, |_| Some(0));
    // What DM sends as one transaction is a group here.
    let txn = ("dm_syncer_txn_duration_time", "Bucketed histogram of processing time (s) of a txn.");
    page.durations(txn, status, true, |t| &t.groups);
    let lag = ("dm_syncer_replication_lag", "replication lag histogram in second between mysql and syncer");
    page.durations(lag, status, true, |t| &t.lags);
    let flushes = ("dm_syncer_flush_checkpoints_time_interval", "checkpoint flushed time interval in seconds");
    page.durations(flushes, status, true, |t| &t.flushes);
    // What is done a second while something is at work downstream.
    let ideal = ("dm_syncer_ideal_qps", "gauge", "the highest QPS that can be achieved ideally");
    page.per_task(ideal, status, true, |t| {
        (t.totals.groups.seconds > 0.0).then(|| t.totals.rows as f64 / t.totals.groups.seconds)
    });
    let events = ("dm_syncer_binlog_event_row", "number of rows in a binlog event");
    page.sizes(events, status, &[(&[], |t| &t.event_rows)]);
    // Lanes are no queues: all of them are one here.
    let batches = (
        "dm_syncer_replication_transaction_batch",
        "number of sql's contained in a transaction that executed to downstream",
    );
    let queue = ("queueNo", "q_0");
    let of: [(&[(&str, &str)], SizesOf); 2] = [
        (&[queue, ("type", "statements")], |t| &t.commits.statements),
        (&[queue, ("type", "rows")], |t| &t.commits.rows),
    ];
    page.sizes(batches, status, &of);
    task_errors(page, status);
    let master = |t: &TaskStatus| status.sources.iter().find(|s| s.source_id == t.source_id)?.master.as_ref();
    let samples: Vec<(&TaskStatus, &str, &Location)> = status
        .tasks
        .iter()
        .flat_map(|t| [("master", master(t)), ("syncer", t.applied.as_ref().map(|l| &l.0))].map(|(n, l)| (t, n, l)))
        .filter_map(|(t, node, location)| Some((t, node, location?)))
        .collect();
    if samples.is_empty() {
        return;
    }
    let mut family = |name: &str, help: &str, value: fn(&Location) -> u64| {
        page.family(name, "gauge", help);
        for (task, node, location) in &samples {
            let labels = [("node", *node), ("source_id", &*task.source_id), ("task", &*task.name)];
            page.sample(name, &labels, value(location));
        }
    };
    family("dm_syncer_binlog_pos", "current binlog pos", |l| l.position.offset);
    family("dm_syncer_binlog_file", "current binlog file index", |l| l.position.file.sequence());
}

/// Of the tools that a dm-worker dumps and loads with: tables, once they are copied.
fn copy_families(page: &mut Page, status: &AgentStatus) {
    let copied = |t: &TaskStatus| (t.tables_copied.1 > 0).then_some(t.tables_copied);
    let dumped = ("dumpling_dump_finished_tables", "counter", "counter for dumpling finished tables");
    page.per_task(dumped, status, false, |t| copied(t).map(|(done, _)| done));
    let known: Vec<_> = status.tasks.iter().filter_map(|t| Some((t, copied(t)?))).collect();
    if !known.is_empty() {
        page.family("lightning_tables", "counter", "count number of tables processed");
    }
    for (task, (done, all)) in known {
        for (state, count) in [("pending", all), ("completed", done)] {
            let own = [("task", &*task.name), ("source_id", &*task.source_id)];
            let labels = [own[0], own[1], ("result", "success"), ("state", state)];
            page.sample("lightning_tables", &labels, count);
        }
    }
}

/// Alerts ask for those that need someone.
fn task_errors(page: &mut Page, status: &AgentStatus) {
    const NAME: &str = "dm_syncer_exit_with_error_count";
    if status.tasks.is_empty() {
        return;
    }
    page.family(NAME, "counter", "counter for syncer exits with error");
    for task in &status.tasks {
        for (resumable, count) in [("true", task.healing), ("false", task.failed.saturating_sub(task.healing))] {
            let labels = [("task", &*task.name), ("source_id", &*task.source_id), ("resumable_err", resumable)];
            page.sample(NAME, &labels, count);
        }
    }
}

/// DM's relay families know one source a worker and have no label for it. The first source keeps DM's form; where
/// there are more, every sample says which source it is of.
fn relay_families(page: &mut Page, status: &AgentStatus) {
    let several = status.sources.len() > 1;
    let mut family = |name: &str, help: &str, label: (&str, &str), value: &dyn Fn(&SourceStatus) -> Option<u64>| {
        let samples: Vec<_> = status.sources.iter().filter_map(|s| value(s).map(|v| (s, v))).collect();
        if samples.is_empty() {
            return;
        }
        page.family(name, "gauge", help);
        for (source, value) in samples {
            let labels = [label, ("source_id", &*source.source_id)];
            page.sample(name, if several { &labels } else { &labels[..1] }, value);
        }
    };
    let relayed = |s: &SourceStatus| s.relayed.as_ref().map(|l| l.0.position.clone());
    let node = ("node", "relay");
    family("dm_relay_binlog_pos", "current binlog pos in current binlog file", node, &|s| Some(relayed(s)?.offset));
    family("dm_relay_binlog_file", "current binlog file index", node, &|s| Some(relayed(s)?.file.sequence()));
    let space = "the space of storage for relay component";
    family("dm_relay_space", space, ("type", "capacity"), &|s| Some(s.relay.budget_bytes));
    let left = |s: &SourceStatus| Some(s.relay.budget_bytes.saturating_sub(s.relay.disk_bytes));
    // The second type of the same family: its samples follow those of the first without another header.
    for source in &status.sources {
        let labels = [("type", "available"), ("source_id", &*source.source_id)];
        page.sample("dm_relay_space", if several { &labels } else { &labels[..1] }, left(source).unwrap_or_default());
    }
    relay_counts(page, status, several);
}

fn relay_counts(page: &mut Page, status: &AgentStatus, several: bool) {
    let known: Vec<&SourceStatus> = status.sources.iter().filter(|s| !s.server_identity.is_empty()).collect();
    if !known.is_empty() {
        page.family("dm_relay_sub_dir_index", "gauge", "current relay sub directory index");
    }
    for source in known {
        // One relay log a source, as `relaySubDir` says.
        let sub_dir = relay_sub_dir(source);
        let labels = [("node", "relay"), ("uuid", &*sub_dir), ("source_id", &*source.source_id)];
        page.sample("dm_relay_sub_dir_index", if several { &labels } else { &labels[..2] }, 1);
    }
    if status.sources.is_empty() {
        return;
    }
    type Count = fn(&Breaks) -> u64;
    let counts: [(&str, &str, Count); 3] = [
        ("dm_relay_read_error_count", "read binlog from master error count", |b| b.all.saturating_sub(b.unstored)),
        ("dm_relay_write_error_count", "write relay log error count", |b| b.unstored),
        ("dm_relay_data_corruption", "counter of relay log data corruption", |b| b.damaged),
    ];
    for (name, help, count) in counts {
        page.family(name, "counter", help);
        for source in &status.sources {
            let labels = [("source_id", &*source.source_id)];
            page.sample(name, if several { &labels[..] } else { &[] }, count(&source.relay.breaks));
        }
    }
    let name = "dm_relay_exit_with_error_count";
    page.family(name, "counter", "counter of relay unit exits with error");
    for source in &status.sources {
        // What is simply tried again is a read error, no exit.
        let labels = [("resumable_err", "false"), ("source_id", &*source.source_id)];
        page.sample(name, if several { &labels } else { &labels[..1] }, source.relay.breaks.stopped);
    }
}
