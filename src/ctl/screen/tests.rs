//! What a person reads, state by state.

use super::*;
use crate::control::proto::agent::{CopyTable, Failure, Park, Runway};

fn task() -> Task {
    Task {
        name: "t1".to_owned(),
        source_id: "mysql-01".to_owned(),
        stage: "Running".to_owned(),
        activity: "applying".to_owned(),
        backlog_bytes: Some(1000),
        lag_ms: Some(60_000),
        eta_ms: Some(90_000),
        ..Task::default()
    }
}

#[test]
fn a_copy_shows_what_is_there_and_the_tables_at_work() {
    let table = |number: u64| CopyTable { name: format!("`s`.`t{number}`"), rows_written: 5 * number, rows: 100 };
    let copy = Copy {
        tables: 12,
        tables_done: 2,
        rows: 1000,
        rows_written: 500,
        bytes_written: 3 << 20,
        rows_per_second: 250.0,
        eta_ms: Some(2000),
        fraction: 0.5,
        at_work: (1..=10).map(table).collect(),
        ..Copy::default()
    };
    let task = Task { unit: "Load".to_owned(), copy: Some(copy), ..task() };
    let text = render(&status(task.clone()), &mut Progress::default(), Room::default());
    for line in [
        "[###############...............] 50 %, done in 2 s",
        "2 of 12 tables, 500 of about 1000 rows, 3.0 MiB",
        "`s`.`t2`: [###...........................] 10 % 10 of about 100 rows",
        "and 2 tables more",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("checkpoint") && !text.contains("backlog"), "{text}");
    let synced = Task { unit: "Sync".to_owned(), ..task };
    assert!(!render(&status(synced), &mut Progress::default(), Room::default()).contains("tables"));
}

#[test]
fn who_gives_sources_is_told() {
    let text = |in_cluster| {
        render(&StatusReply { in_cluster, ..StatusReply::default() }, &mut Progress::default(), Room::default())
    };
    assert!(text(false).contains("operate-source create"));
    assert!(text(true).contains("No source is bound to this worker") && !text(true).contains("operate-source"));
}

#[test]
fn a_runway_of_decades_is_no_date() {
    let text = |until_ms| {
        let mut status = status(task());
        let relay = status.sources[0].relay.as_mut().expect("it has one");
        relay.runway.as_mut().expect("it has one").until_ms = until_ms;
        render(&status, &mut Progress::default(), Room::default())
    };
    assert!(text(100_000_000).contains("safe to stay parked until 1970-01-02"));
    let long = text(30 * YEAR_MS);
    assert!(long.contains("safe to stay parked for more than a year; then the relay budget is full"), "{long}");
}

#[test]
fn changes_that_met_no_row_are_told() {
    let text = |task| render(&status(task), &mut Progress::default(), Room::default());
    assert!(!text(task()).contains("DIFFERENCE"));
    let differs = text(Task { unmatched_total: 3, ..task() });
    assert!(differs.contains("DIFFERENCE    3 updates or deletes met no row"), "{differs}");
}

fn status(task: Task) -> StatusReply {
    let runway = Runway { until_ms: 100_000_000, limit: "the relay budget is full".to_owned() };
    let relay = Relay { disk_bytes: 512 << 20, budget_bytes: 1 << 30, runway: Some(runway), ..Relay::default() };
    let source = Source {
        source_id: "mysql-01".to_owned(),
        receiving: ReceiveState::Running.into(),
        relay: Some(relay),
        ..Source::default()
    };
    StatusReply { ready: true, sources: vec![source], tasks: vec![task], ..StatusReply::default() }
}

#[test]
fn a_parked_task_says_why_since_when_and_how_long_it_may_stay() {
    let park =
        Park { reason: "operator".to_owned(), since_ms: -60_000, by: "uid 1000 pid 7".to_owned(), note: String::new() };
    let screen = render(
        &status(Task { stage: "Paused".to_owned(), parks: vec![park], ..task() }),
        &mut Progress::default(),
        Room::default(),
    );
    assert!(screen.contains("TASK t1 on mysql-01: PAUSED"), "{screen}");
    assert!(screen.contains("operator, since 1969-12-31 23:59:00 (1 min 0 s ago), by uid 1000 pid 7"), "{screen}");
    assert!(
        screen
            .contains("safe to stay parked until 1970-01-02 03:46:40 UTC (in 1 d 3 h); then the relay budget is full"),
        "{screen}"
    );
    assert!(screen.contains("512.0 MiB of 1.0 GiB used (50 %)"), "{screen}");
    assert!(!screen.contains("catching up"), "{screen}");
}

#[test]
fn progress_is_measured_against_the_largest_backlog_seen() {
    let mut progress = Progress::default();
    let first = render(&status(task()), &mut progress, Room::default());
    assert!(first.contains("catching up   done in 1 min 30 s"), "{first}");
    let later = render(&status(Task { backlog_bytes: Some(250), ..task() }), &mut progress, Room::default());
    assert!(later.contains("[######################........] 75 %"), "{later}");
    render(&status(Task { backlog_bytes: Some(0), ..task() }), &mut progress, Room::default());
    assert!(progress.peaks.is_empty());
}

#[test]
fn failures_come_with_their_remedy_and_unknown_is_not_zero() {
    let failure = Failure {
        message: "execute\nstatement".to_owned(),
        raw_cause: "Error 1062".to_owned(),
        workaround: "Remove the row.".to_owned(),
        ..Failure::default()
    };
    let task = Task { failures: vec![failure], lag_ms: None, backlog_bytes: None, ..task() };
    let screen = render(&status(task), &mut Progress::default(), Room::default());
    assert!(screen.contains("FAILURE       execute statement"), "{screen}");
    assert!(screen.contains("remedy      Remove the row."), "{screen}");
    assert!(screen.contains("how far behind is unknown"), "{screen}");
    assert!(screen.contains("backlog       unknown"), "{screen}");
}

#[test]
fn a_narrow_window_breaks_lines_between_words_and_loses_nothing() {
    let failure = Failure { message: "word ".repeat(30) + &"x".repeat(90), ..Failure::default() };
    let status = status(Task { failures: vec![failure], ..task() });
    let wide = render(&status, &mut Progress::default(), Room::default());
    let words = |text: &str| text.split_whitespace().collect::<String>();
    for columns in [40, 60, 80, 120] {
        let narrow = render(&status, &mut Progress::default(), Room { columns: Some(columns), lines: None });
        assert_eq!(words(&narrow), words(&wide));
        let longest = narrow.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(columns + 2), "{columns}: {longest:?}\n{narrow}");
    }
    assert!(wide.lines().any(|line| line.len() > 200), "a pipe gets whole lines");
    let low = render(&status, &mut Progress::default(), Room { columns: None, lines: Some(6) });
    assert_eq!(low.lines().count(), 5);
    assert!(low.ends_with("lines more: make the window higher)\n"), "{low}");
}

#[test]
fn sizes_and_spans_read_well() {
    assert_eq!([rate(-1.0), rate(1536.4), rate(f64::NAN)], ["0 B/s", "1.5 KiB/s", "0 B/s"]);
    assert_eq!([span(-5), span(900), span(59_000), span(3_600_000)], ["0 ms", "900 ms", "59 s", "1 h 0 min"]);
    assert_eq!(clock(i64::MAX), format!("{} ms", i64::MAX));
}

#[test]
fn what_a_failure_says_stands_before_where_it_is() {
    let message = "startLocation: [position: (mysql-bin.000001, 1042), gtid-set: a-b:1-3], \
                   endLocation: [position: (mysql-bin.000001, 1084), gtid-set: a-b:1-3], origin SQL: [drop x]: no table";
    let failure = Failure { message: message.to_owned(), code: 7, class: "c".to_owned(), ..Failure::default() };
    let screen = render(&status(Task { failures: vec![failure], ..task() }), &mut Progress::default(), Room::default());
    assert!(screen.contains("FAILURE       origin SQL: [drop x]: no table (7, c)\n"), "{screen}");
    assert!(screen.contains("    at          mysql-bin.000001:1042\n"), "{screen}");
}
