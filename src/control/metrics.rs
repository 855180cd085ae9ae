//! The agent's status as Prometheus text (exposition format 0.0.4).
//!
//! Made anew from one snapshot at each scrape: nothing is counted here, so nothing can drift from what `query-status`
//! says. Counters begin at zero with the process, as Prometheus expects. Families with DM's names keep DM's types and labels (`tests/golden/http/metrics-list.txt`), so that its boards
//! go on working; what DM has no name for is called `dm_agent_*`. A value that is not known has no sample.

mod dm;
mod page;
mod process;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::supervisor::{AgentStatus, Receiving};
use crate::task::{CopyStatus, ParkReason, TaskStatus};
use page::Page;

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families at this instant.
pub fn render(status: &AgentStatus, ready: bool) -> String {
    let mut page = Page::default();
    page.family("dm_agent_info", "gauge", "the agent: always 1");
    page.sample("dm_agent_info", &[("worker", &status.worker), ("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("dm_agent_ready", "gauge", "1 when the store is open and the tasks are loaded");
    page.sample("dm_agent_ready", &[], u8::from(ready));
    task_families(&mut page, status);
    dm::families(&mut page, status);
    source_families(&mut page, status);
    process::families(&mut page);
    page.text
}

fn task_families(page: &mut Page, status: &AgentStatus) {
    page.family("dm_agent_task_parked", "gauge", "1 for each reason the task is parked for; it runs when all are 0");
    let reasons = [ParkReason::Operator, ParkReason::Master, ParkReason::Error, ParkReason::Lease, ParkReason::Disk];
    for task in &status.tasks {
        for reason in reasons {
            let labels = [("task", &*task.name), ("source_id", &*task.source_id), ("reason", reason.as_str())];
            page.sample("dm_agent_task_parked", &labels, u8::from(task.parks.contains_key(&reason)));
        }
    }
    type Count = fn(&TaskStatus) -> u64;
    let counters: [(&str, &str, Count); 8] = [
        ("dm_agent_task_rows_total", "row changes applied", |t| t.totals.rows),
        ("dm_agent_task_transactions_total", "source transactions applied", |t| t.totals.transactions),
        ("dm_agent_task_applied_bytes_total", "binlog bytes applied", |t| t.totals.bytes),
        ("dm_agent_task_sent_bytes_total", "bytes of SQL sent downstream", |t| t.totals.sent_bytes),
        ("dm_agent_task_unmatched_total", "updates and deletes that met no row", |t| t.totals.unmatched),
        ("dm_agent_task_filtered_rows_total", "row changes that filters left out", |t| t.totals.filtered_rows),
        ("dm_agent_task_starts_total", "times applying was begun: starts, resumes, tries of its own", |t| t.starts),
        ("dm_agent_task_errors_total", "times the task failed", |t| t.failed),
    ];
    for (name, help, count) in counters {
        page.per_task((name, "counter", help), status, false, |t| Some(count(t)));
    }
    let groups = ("dm_agent_task_group_seconds", "seconds from dealing a group out to the commit of the last lane");
    page.durations(groups, status, false, |t| &t.groups);
    let rate = ("dm_agent_task_rows_per_second", "gauge", "row changes applied a second, averaged over some seconds");
    page.per_task(rate, status, false, |t| Some(t.rows_per_second));
    let rate = ("dm_agent_task_bytes_per_second", "gauge", "binlog bytes applied a second, averaged over some seconds");
    page.per_task(rate, status, false, |t| Some(t.bytes_per_second));
    let backlog = ("dm_agent_task_backlog_bytes", "gauge", "binlog bytes received and not applied yet");
    page.per_task(backlog, status, false, |t| t.backlog_bytes);
    let copied = ("dm_agent_task_copy_progress", "gauge", "part of the existing rows that is copied, 0 to 1");
    page.per_task(copied, status, false, |t| t.copy.as_ref().map(CopyStatus::fraction));
    let copied = ("dm_agent_task_copied_rows", "gauge", "existing rows copied");
    page.per_task(copied, status, false, |t| t.copy.as_ref().map(|copy| copy.rows_written));
    let copied = ("dm_agent_task_copied_bytes", "gauge", "bytes of existing rows copied");
    page.per_task(copied, status, false, |t| t.copy.as_ref().map(|copy| copy.bytes_written));
    let failures = ("dm_agent_task_failures", "gauge", "failures the task is showing now");
    page.per_task(failures, status, false, |t| Some(t.failures.len()));
    let safe = ("dm_agent_task_safe_mode", "gauge", "1 while the task repairs with DM's safe mode");
    page.per_task(safe, status, false, |t| Some(u8::from(t.safe_mode.is_some())));
}

fn source_families(page: &mut Page, status: &AgentStatus) {
    page.family("dm_agent_source_receiving", "gauge", "1 for the state the binlog reader is in");
    for source in &status.sources {
        for (state, holds) in [
            ("running", matches!(source.receiving, Receiving::Running)),
            ("retrying", matches!(source.receiving, Receiving::Retrying { .. })),
            ("stopped", matches!(source.receiving, Receiving::Stopped { .. })),
            ("paused", matches!(source.receiving, Receiving::Paused)),
            ("idle", matches!(source.receiving, Receiving::Idle)),
        ] {
            let labels = [("source_id", &*source.source_id), ("state", state)];
            page.sample("dm_agent_source_receiving", &labels, u8::from(holds));
        }
    }
    let lag = ("dm_agent_receive_lag_seconds", "gauge", "seconds between the source's clock and the newest received");
    page.per_source(lag, status, |s| s.receive_lag.map(|lag| lag.as_secs_f64()));
    let bytes = ("dm_agent_received_bytes_total", "counter", "binlog bytes received");
    page.per_source(bytes, status, |s| Some(s.relay.received_bytes));
    let breaks = ("dm_agent_receive_breaks_total", "counter", "connections to the source that broke");
    page.per_source(breaks, status, |s| Some(s.relay.breaks.all));
    let disk = ("dm_agent_relay_disk_bytes", "gauge", "bytes of relay log on disk");
    page.per_source(disk, status, |s| Some(s.relay.disk_bytes));
    let raw = ("dm_agent_relay_raw_bytes", "gauge", "bytes of binlog held in the relay log, uncompressed");
    page.per_source(raw, status, |s| Some(s.relay.raw_bytes));
    let budget = ("dm_agent_relay_budget_bytes", "gauge", "disk budget of the relay log");
    page.per_source(budget, status, |s| Some(s.relay.budget_bytes));
    let segments = ("dm_agent_relay_segments", "gauge", "segments of relay log on disk");
    page.per_source(segments, status, |s| Some(s.relay.segments));
    let rate = ("dm_agent_relay_bytes_per_second", "gauge", "binlog bytes received a second, over the last minute");
    page.per_source(rate, status, |s| Some(s.relay.bytes_per_second));
    let until = ("dm_agent_runway_until_seconds", "gauge", "unix time until which it is safe to stay parked");
    let unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    page.per_source(until, status, |s| s.relay.runway.as_ref().map(|runway| unix(runway.until)));
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
mod tests;
