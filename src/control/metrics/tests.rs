//! Pages made of statuses made up here, held to what a real worker showed.

use super::*;
use crate::control::pb_status::tests::{agent, running_task, source};

/// Families of a real worker that are not here, because what they count does not exist here, or because measuring each
/// event would cost more than it tells. README says what to ask for instead where alerts do.
const LEFT_OUT: &[&str] = &[
    // Each event, statement or queue by itself: rows go in groups, and there are no queues of jobs.
    "dm_relay_read_binlog_duration",
    "dm_relay_read_transform_duration",
    "dm_relay_write_duration",
    "dm_relay_write_size",
    "dm_syncer_add_job_duration",
    "dm_syncer_added_jobs_total",
    "dm_syncer_binlog_event_size",
    "dm_syncer_binlog_transform_cost",
    "dm_syncer_conflict_detect_duration",
    "dm_syncer_finished_jobs_total",
    "dm_syncer_query_duration_time",
    "dm_syncer_queue_size",
    "dm_syncer_read_binlog_duration",
    "dm_syncer_stmt_duration_time",
];

/// The labels of a family's first sample, in order; `le` too.
fn labels_of(page: &str, name: &str) -> String {
    let own = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_bucket{"))
    };
    let sample = page.lines().find(own).unwrap_or_else(|| panic!("no sample of {name}"));
    let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
    let mut names: Vec<&str> = labels.split(',').map(|label| label.split('=').next().unwrap()).collect();
    // Go prints them sorted, and the bound of a bucket last; DM's own tests look for samples with their labels so.
    if let Some((&"le", rest)) = names.split_last() {
        assert!(rest.is_sorted(), "{sample}");
        names.sort_unstable();
    }
    assert!(names.is_sorted(), "{sample}");
    names.join(",")
}

#[test]
fn families_of_dm_have_its_types_and_labels_and_none_is_forgotten() {
    let list = include_str!("../../../tests/golden/http/metrics-list.txt");
    let mut task = running_task();
    task.totals.groups.add(std::time::Duration::from_millis(3));
    task.totals.event_rows.add(3);
    let page = render(&agent(vec![source()], vec![task]), true);
    let mut ours: Vec<&str> = Vec::new();
    for line in page.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter(|l| !l.starts_with("dm_agent_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        if name.starts_with("process_") {
            assert!(list.lines().last().unwrap().split(' ').any(|other| other == name), "{name}");
            continue;
        }
        let golden = list.lines().find(|l| l.split(" | ").next() == Some(name)).unwrap_or_else(|| panic!("{name}"));
        let columns: Vec<&str> = golden.split(" | ").collect();
        assert_eq!((columns[1], columns[2]), (kind, labels_of(&page, name).as_str()), "{name}");
        ours.push(name);
    }
    let families = list.lines().filter_map(|line| line.split_once(" | ")).map(|(name, _)| name);
    let mut all: Vec<&str> = families.filter(|name| name.starts_with("dm_")).collect();
    all.sort_unstable();
    ours.extend(LEFT_OUT);
    ours.sort_unstable();
    assert_eq!(ours, all, "each family of a real worker is here, or is left out for a reason, and not both");
}

#[test]
fn what_needs_someone_is_counted_apart_from_what_heals() {
    let mut task = running_task();
    (task.failed, task.healing) = (7, 5);
    let page = render(&agent(vec![source()], vec![task]), true);
    let sample = |healing: bool, count: u64| {
        format!(
            r#"dm_syncer_exit_with_error_count{{resumable_err="{healing}",source_id="mysql-01",task="t1"}} {count}"#
        )
    };
    for line in [sample(true, 5), sample(false, 2)] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
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
    let labels = "source_id=\"mysql-01\",task=\"t1\"";
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

/// Not in the recorded list, since its worker committed nothing in batches; DM's own tests ask for it as here.
#[test]
fn transactions_downstream_are_told_by_statements_and_rows() {
    let mut task = running_task();
    let page = render(&agent(vec![source()], vec![task.clone()]), true);
    assert!(!page.contains("dm_syncer_replication_transaction_batch"), "{page}");
    task.totals.commits.statements.add(2);
    task.totals.commits.rows.add(30);
    let page = render(&agent(vec![source()], vec![task]), true);
    let name = "dm_syncer_replication_transaction_batch";
    let labels = r#"queueNo="q_0",source_id="mysql-01",task="t1""#;
    for line in [
        format!(r#"{name}_count{{{labels},type="statements",worker="worker1"}} 1"#),
        format!(r#"{name}_sum{{{labels},type="rows",worker="worker1"}} 30"#),
        format!(r#"{name}_bucket{{{labels},type="rows",worker="worker1",le="20"}} 0"#),
        format!(r#"{name}_bucket{{{labels},type="rows",worker="worker1",le="50"}} 1"#),
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
