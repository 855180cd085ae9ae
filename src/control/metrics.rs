//! The agent's status as Prometheus text (exposition format 0.0.4).
//!
//! Made anew from one snapshot at each scrape: nothing is counted here, so nothing can drift from what `query-status`
//! says. Counters begin at zero with the process, as Prometheus expects. Families with DM's names keep DM's types and labels (`tests/golden/http/metrics-list.txt`), so that its boards
//! go on working; what DM has no name for is called `dm_agent_*`. A value that is not known has no sample.

use std::fmt::{Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::Location;
use crate::supervisor::{AgentStatus, Receiving, SourceStatus};
use crate::task::{DURATION_BOUNDS, ParkReason, Stage, TaskStatus};

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
    syncer_families(&mut page, status);
    relay_families(&mut page, status);
    source_families(&mut page, status);
    page.text
}

/// Text under construction.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// A family with at most one sample for each task; one without samples is left out.
    fn per_task<T: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        status: &AgentStatus,
        labelled_worker: bool,
        value: impl Fn(&TaskStatus) -> Option<T>,
    ) {
        let samples: Vec<_> = status.tasks.iter().filter_map(|t| value(t).map(|v| (t, v))).collect();
        if samples.is_empty() {
            return;
        }
        self.family(name, kind, help);
        for (task, value) in samples {
            let labels = [("task", &*task.name), ("source_id", &*task.source_id), ("worker", &*status.worker)];
            self.sample(name, if labelled_worker { &labels } else { &labels[..2] }, value);
        }
    }

    /// The same for each source.
    fn per_source<T: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        status: &AgentStatus,
        value: impl Fn(&SourceStatus) -> Option<T>,
    ) {
        let samples: Vec<_> = status.sources.iter().filter_map(|s| value(s).map(|v| (s, v))).collect();
        if samples.is_empty() {
            return;
        }
        self.family(name, kind, help);
        for (source, value) in samples {
            self.sample(name, &[("source_id", &*source.source_id)], value);
        }
    }
}

fn task_families(page: &mut Page, status: &AgentStatus) {
    let help = "state of task, 0 - invalidStage, 1 - New, 2 - Running, 3 - Paused, 4 - Stopped, 5 - Finished, \
                6 - Pausing, 7 - Resuming, 8 - Stopping";
    let shown = |t: &TaskStatus| !matches!(t.stage, Stage::Stopped | Stage::Finished);
    page.per_task(("dm_worker_task_state", "gauge", help), status, true, |t| shown(t).then_some(t.stage as i32));
    page.family("dm_agent_task_parked", "gauge", "1 for each reason the task is parked for; it runs when all are 0");
    let reasons = [ParkReason::Operator, ParkReason::Master, ParkReason::Error, ParkReason::Lease, ParkReason::Disk];
    for task in &status.tasks {
        for reason in reasons {
            let labels = [("task", &*task.name), ("source_id", &*task.source_id), ("reason", reason.as_str())];
            page.sample("dm_agent_task_parked", &labels, u8::from(task.parks.contains_key(&reason)));
        }
    }
    type Count = fn(&TaskStatus) -> u64;
    let counters: [(&str, &str, Count); 7] = [
        ("dm_agent_task_rows_total", "row changes applied", |t| t.totals.rows),
        ("dm_agent_task_transactions_total", "source transactions applied", |t| t.totals.transactions),
        ("dm_agent_task_applied_bytes_total", "binlog bytes applied", |t| t.totals.bytes),
        ("dm_agent_task_sent_bytes_total", "bytes of SQL sent downstream", |t| t.totals.sent_bytes),
        ("dm_agent_task_unmatched_total", "updates and deletes that met no row", |t| t.totals.unmatched),
        ("dm_agent_task_starts_total", "times applying was begun: starts, resumes, tries of its own", |t| t.starts),
        ("dm_agent_task_errors_total", "times the task failed", |t| t.failed),
    ];
    for (name, help, count) in counters {
        page.per_task((name, "counter", help), status, false, |t| Some(count(t)));
    }
    group_durations(page, status);
    let rate = ("dm_agent_task_rows_per_second", "gauge", "row changes applied a second, averaged over some seconds");
    page.per_task(rate, status, false, |t| Some(t.rows_per_second));
    let rate = ("dm_agent_task_bytes_per_second", "gauge", "binlog bytes applied a second, averaged over some seconds");
    page.per_task(rate, status, false, |t| Some(t.bytes_per_second));
    let backlog = ("dm_agent_task_backlog_bytes", "gauge", "binlog bytes received and not applied yet");
    page.per_task(backlog, status, false, |t| t.backlog_bytes);
    let failures = ("dm_agent_task_failures", "gauge", "failures the task is showing now");
    page.per_task(failures, status, false, |t| Some(t.failures.len()));
    let safe = ("dm_agent_task_safe_mode", "gauge", "1 while the task repairs with DM's safe mode");
    page.per_task(safe, status, false, |t| Some(u8::from(t.safe_mode.is_some())));
}

/// How long groups take from being dealt out to the last lane's commit.
fn group_durations(page: &mut Page, status: &AgentStatus) {
    const NAME: &str = "dm_agent_task_group_seconds";
    if status.tasks.is_empty() {
        return;
    }
    page.family(NAME, "histogram", "seconds from dealing a group out to the commit of the last lane");
    for task in &status.tasks {
        let groups = &task.totals.groups;
        let labels = [("task", &*task.name), ("source_id", &*task.source_id)];
        let bounds = DURATION_BOUNDS.iter().map(f64::to_string).zip(groups.up_to);
        for (bound, count) in bounds.chain([("+Inf".to_owned(), groups.count)]) {
            page.sample(&format!("{NAME}_bucket"), &[labels[0], labels[1], ("le", &bound)], count);
        }
        page.sample(&format!("{NAME}_sum"), &labels, groups.seconds);
        page.sample(&format!("{NAME}_count"), &labels, groups.count);
    }
}

fn syncer_families(page: &mut Page, status: &AgentStatus) {
    let lag = ("dm_syncer_replication_lag_gauge", "gauge", "replication lag gauge in second between mysql and syncer");
    page.per_task(lag, status, true, |t| t.lag.map(|lag| lag.as_secs_f64()));
    let done = ("dm_syncer_finished_transaction_total", "counter", "total number of finished transaction");
    page.per_task(done, status, true, |t| Some(t.totals.transactions));
    let left = ("dm_syncer_remaining_time", "gauge", "the remaining time in second to catch up master");
    page.per_task(left, status, true, |t| t.eta.map(|eta| eta.as_secs_f64()));
    let master = |t: &TaskStatus| status.sources.iter().find(|s| s.source_id == t.source_id)?.master.as_ref();
    let samples: Vec<(&TaskStatus, &str, &Location)> = status
        .tasks
        .iter()
        .flat_map(|t| [("master", master(t)), ("syncer", t.flushed.as_ref().map(|l| &l.0))].map(|(n, l)| (t, n, l)))
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
    page.per_source(breaks, status, |s| Some(s.relay.breaks));
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
mod tests {
    use super::*;
    use crate::control::pb_status::tests::{agent, running_task, source};

    #[test]
    fn families_of_dm_have_its_types_and_labels() {
        let list = include_str!("../../tests/golden/http/metrics-list.txt");
        let page = render(&agent(vec![source()], vec![running_task()]), true);
        let mut checked = 0;
        for line in page.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter(|l| !l.starts_with("dm_agent_")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let golden = list.lines().find(|l| l.split(" | ").next() == Some(name)).unwrap_or_else(|| panic!("{name}"));
            let columns: Vec<&str> = golden.split(" | ").collect();
            assert_eq!(columns[1], kind, "{name}");
            let sample = page.lines().find(|l| l.starts_with(&format!("{name}{{"))).unwrap();
            let labels = sample.split_once('{').unwrap().1.split_once('}').unwrap().0;
            let mut names: Vec<&str> = labels.split(',').map(|l| l.split('=').next().unwrap()).collect();
            names.sort_unstable();
            assert_eq!(names.join(","), columns[2], "{name}");
            checked += 1;
        }
        assert_eq!(checked, 9, "{page}");
    }

    #[test]
    fn no_family_comes_twice_and_labels_are_escaped() {
        let mut task = running_task();
        task.name = "a\"b\\c\nd".to_owned();
        let page = render(&agent(vec![source()], vec![task]), false);
        let mut types: Vec<&str> = page.lines().filter(|l| l.starts_with("# TYPE ")).collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
        assert!(page.contains(r#"task="a\"b\\c\nd""#), "{page}");
    }

    #[test]
    fn counters_and_durations_are_cumulative() {
        let mut task = running_task();
        task.totals.transactions = 7;
        for millis in [3, 90, 90, 60_000] {
            task.totals.groups.add(std::time::Duration::from_millis(millis));
        }
        let page = render(&agent(vec![source()], vec![task]), true);
        let labels = "task=\"t1\",source_id=\"mysql-01\"";
        for line in [
            format!("dm_agent_task_transactions_total{{{labels}}} 7"),
            format!("dm_agent_task_group_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("dm_agent_task_group_seconds_bucket{{{labels},le=\"0.1\"}} 3"),
            format!("dm_agent_task_group_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("dm_agent_task_group_seconds_count{{{labels}}} 4"),
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn what_is_not_known_has_no_sample() {
        let mut task = running_task();
        task.lag = None;
        let page = render(&agent(vec![source()], vec![task]), true);
        assert!(!page.contains("dm_syncer_replication_lag_gauge"), "{page}");
    }
}
