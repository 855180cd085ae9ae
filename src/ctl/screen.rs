//! The status on one screen, for a person at three in the morning.
//!
//! Pure: the same reply and the same progress give the same text. What is not known is called unknown, never zero. All
//! times are UTC.

use std::collections::HashMap;
use std::fmt::Write;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::control::proto::agent::{
    AgainTable, Copy, Failure, Location, ReceiveState, Relay, Source, StatusReply, Task,
};

/// Cells of a progress bar.
const BAR: usize = 30;

/// A column for what a line is about.
const LABEL: usize = 13;

/// What a watch remembers, to tell how much of a catch-up is done: the largest backlog of each task since it last had
/// none.
#[derive(Debug, Default)]
pub struct Progress {
    peaks: HashMap<(String, String), u64>,
}

impl Progress {
    /// The done part, from 0 to 1; `None` with nothing to compare with.
    fn done(&mut self, task: &Task) -> Option<f64> {
        let key = (task.source_id.clone(), task.name.clone());
        match task.backlog_bytes {
            Some(0) | None => {
                self.peaks.remove(&key);
                None
            }
            Some(left) => {
                let peak = self.peaks.entry(key).or_insert(left);
                *peak = (*peak).max(left);
                (*peak > left).then(|| 1.0 - left as f64 / *peak as f64)
            }
        }
    }
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Columns, for breaking lines between words; `None` for lines of any length, as a file or a pipe takes them.
    pub columns: Option<usize>,
    /// Lines; `None` for any number.
    pub lines: Option<usize>,
}

/// The whole screen.
pub fn render(status: &StatusReply, progress: &mut Progress, room: Room) -> String {
    let columns = room.columns.map(|columns| columns.max(NARROWEST));
    let mut page = Page { text: String::new(), columns };
    let ready = if status.ready { "ready" } else { "NOT READY: still loading" };
    let (worker, version, pid) = (&status.worker, &status.version, status.pid);
    page.plain(&format!("dm-agent {worker}, version {version}, pid {pid}, {ready}, {} UTC", clock(status.now_ms)));
    match (status.sources.is_empty(), status.in_cluster) {
        (true, false) => page.plain("\nNo source yet. Add one: dm-agentctl operate-source create <file>"),
        (true, true) => {
            page.plain("\nNo source is bound to this worker: dm-agentctl list-member --master-addr <host:port>")
        }
        (false, _) => {}
    }
    for source in &status.sources {
        put_source(&mut page, source, status.now_ms);
        for task in status.tasks.iter().filter(|task| task.source_id == source.source_id) {
            put_task(&mut page, task, status.now_ms, progress);
        }
    }
    let orphan = |task: &&Task| !status.sources.iter().any(|source| source.source_id == task.source_id);
    for task in status.tasks.iter().filter(orphan) {
        put_task(&mut page, task, status.now_ms, progress);
    }
    match room.lines {
        Some(lines) => cut(&page.text, lines),
        None => page.text,
    }
}

/// The first lines, and how many are left out.
fn cut(text: &str, lines: usize) -> String {
    let all = text.lines().count();
    // One for the cursor.
    let fit = lines.saturating_sub(1).max(1);
    if all <= fit {
        return text.to_owned();
    }
    let shown: Vec<&str> = text.lines().take(fit - 1).collect();
    format!("{}\n(and {} lines more: make the window higher)\n", shown.join("\n"), all - shown.len())
}

/// Where a window is narrower than this, lines are broken by the terminal.
const NARROWEST: usize = 40;

/// The text in lines of so many columns, broken between words where that is possible.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > columns {
            lines.push(String::new());
            used = 0;
        }
        while let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            let rest = word.split_off(word.len().min(columns.saturating_sub(used).max(1)));
            used += word.len();
            line.extend(word);
            if rest.is_empty() {
                break;
            }
            // Such as a GTID set that is longer than a line.
            word = rest;
            lines.push(String::new());
            used = 0;
        }
    }
    lines
}

struct Page {
    text: String,
    columns: Option<usize>,
}

impl Page {
    fn plain(&mut self, line: &str) {
        // An empty line before a heading is no part of it.
        let (before, line) = line.strip_prefix('\n').map_or(("", line), |line| ("\n", line));
        let lines = self.columns.map_or_else(|| vec![line.to_owned()], |columns| broken(line, columns));
        let _ = writeln!(self.text, "{before}{}", lines.join("\n  "));
    }

    fn row(&mut self, label: &str, value: &str) {
        // Writing to a string cannot fail.
        let value = value.replace('\n', " ");
        let indent = LABEL + 3;
        let lines = match self.columns {
            Some(columns) => broken(&value, columns.saturating_sub(indent)),
            None => vec![value],
        };
        let _ = writeln!(self.text, "  {label:<LABEL$} {}", lines.join(&format!("\n{:indent$}", "")));
    }

    fn failure(&mut self, failure: &Failure) {
        self.row("FAILURE", &format!("{} ({}, {})", failure.message, failure.code, failure.class));
        if !failure.raw_cause.is_empty() {
            self.row("  cause", &failure.raw_cause);
        }
        if !failure.workaround.is_empty() {
            self.row("  remedy", &failure.workaround);
        }
    }
}

fn put_source(page: &mut Page, source: &Source, now_ms: i64) {
    let state = match source.receiving() {
        ReceiveState::Running => "receiving".to_owned(),
        ReceiveState::Retrying => match source.retry_at_ms {
            Some(at) => format!("NOT RECEIVING, next try {}", ahead(at - now_ms)),
            None => "NOT RECEIVING, trying again".to_owned(),
        },
        ReceiveState::Stopped => "NOT RECEIVING until someone acts".to_owned(),
        ReceiveState::Paused => "NOT RECEIVING: paused by pause-relay".to_owned(),
        ReceiveState::Idle => "idle: no task needs it".to_owned(),
        ReceiveState::Unspecified => "unknown".to_owned(),
    };
    page.plain(&format!("\nSOURCE {} ({}): {state}", source.source_id, source.flavor));
    if let Some(failure) = &source.failure {
        page.failure(failure);
    }
    page.row("source is at", &place(source.master.as_ref(), "unknown: not reached"));
    let lag = source.receive_lag_ms.map_or(String::new(), |ms| format!(", {} behind the source's clock", span(ms)));
    page.row("received", &(place(source.received.as_ref(), "nothing yet") + &lag));
    page.row("on disk", &place(source.relayed.as_ref(), "nothing yet"));
    if let Some(relay) = &source.relay {
        put_relay(page, relay, now_ms);
    }
}

/// Of 365 days.
const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

fn put_relay(page: &mut Page, relay: &Relay, now_ms: i64) {
    let used = match relay.budget_bytes {
        0 => size(relay.disk_bytes),
        budget => {
            let percent = relay.disk_bytes as f64 / budget as f64 * 100.0;
            format!("{} of {} used ({percent:.0} %)", size(relay.disk_bytes), size(budget))
        }
    };
    let segments = if relay.segments == 1 { "1 segment".to_owned() } else { format!("{} segments", relay.segments) };
    page.row("relay log", &format!("{used}, {segments}, growing {}", rate(relay.bytes_per_second)));
    let runway = match &relay.runway {
        // At such a rate it is a guess, and no date to plan with.
        Some(runway) if runway.until_ms - now_ms > YEAR_MS => {
            format!("safe to stay parked for more than a year; then {}", runway.limit)
        }
        Some(runway) => {
            let (until, left) = (clock(runway.until_ms), runway.until_ms - now_ms);
            format!("safe to stay parked until {until} UTC ({}); then {}", ahead(left), runway.limit)
        }
        None => "no end in sight".to_owned(),
    };
    page.row("runway", &runway);
}

fn put_task(page: &mut Page, task: &Task, now_ms: i64, progress: &mut Progress) {
    let stage = if task.stage == "Paused" { "PAUSED" } else { &task.stage };
    page.plain(&format!("\nTASK {} on {}: {stage}, {}", task.name, task.source_id, task.activity));
    for park in &task.parks {
        let (since, by) = (clock(park.since_ms), &park.by);
        let ago = span(now_ms - park.since_ms);
        let note = if park.note.is_empty() { String::new() } else { format!(": {}", park.note) };
        page.row("parked", &format!("{}, since {since} ({ago} ago), by {by}{note}", park.reason));
    }
    if let Some(at) = task.auto_resume_at_ms {
        page.row("tries again", &format!("by itself {}", ahead(at - now_ms)));
    }
    task.failures.iter().for_each(|failure| page.failure(failure));
    if let Some(copy) = task.copy.as_ref().filter(|_| task.unit != "Sync") {
        put_copy(page, task, copy);
        task.notes.iter().for_each(|note| page.row("note", note));
        return;
    }
    let lag = match task.lag_ms {
        Some(0) => "nothing waits".to_owned(),
        Some(ms) => format!("{} behind", span(ms)),
        None => "how far behind is unknown".to_owned(),
    };
    page.row("applied", &format!("{}, {lag}", place(task.applied.as_ref(), "nothing yet")));
    if let Some(row) = &task.inside_transaction {
        page.row("", &format!("inside a large transaction, {} of its rows are applied", row.row));
    }
    page.row("checkpoint", &place(task.flushed.as_ref(), "none yet"));
    let backlog = task.backlog_bytes.map_or("unknown".to_owned(), size);
    page.row("backlog", &format!("{backlog} received and not applied"));
    let (rows, bytes) = (task.rows_per_second, rate(task.bytes_per_second));
    page.row("speed", &format!("{rows:.0} rows/s, {bytes}; {} rows so far", task.rows_total));
    put_catch_up(page, task, progress);
    if task.unmatched_total > 0 {
        let found = "updates or deletes met no row since the agent's start: the target is not what the source was";
        page.row("DIFFERENCE", &format!("{} {found}", task.unmatched_total));
    }
    put_again(page, task);
    if !task.safe_mode.is_empty() {
        page.row("safe mode", &task.safe_mode);
    }
    task.notes.iter().for_each(|note| page.row("note", note));
}

/// Tables that are not what the source's are until they are read again.
fn put_again(page: &mut Page, task: &Task) {
    for table in task.again.iter().take(AT_WORK) {
        let AgainTable { name, rows_written, rows, .. } = table;
        let how = match table.reading {
            true => {
                let part = if *rows == 0 { 0.0 } else { *rows_written as f64 / *rows as f64 };
                format!("{} {rows_written} of about {rows} rows", bar(part.min(0.99)))
            }
            false if task.stage == "Running" => "waits; its changes are left out until then".to_owned(),
            false => "waits until the task runs; it is not whole".to_owned(),
        };
        page.row("read again", &format!("{name}: {how}"));
    }
    if task.again.len() > AT_WORK {
        page.row("", &format!("and {} tables more", task.again.len() - AT_WORK));
    }
}

/// The copy of existing rows: what is there, how fast, and the tables at work.
fn put_copy(page: &mut Page, task: &Task, copy: &Copy) {
    let left = match copy.eta_ms {
        _ if copy.fraction >= 1.0 => "all rows are there".to_owned(),
        Some(ms) => format!("done in {}", span(ms)),
        None if task.stage == "Running" => "time left unknown".to_owned(),
        None => "standing still".to_owned(),
    };
    page.row("copy", &format!("{}, {left}", bar(copy.fraction)));
    let Copy { tables, tables_done, rows, rows_written, bytes_written, .. } = copy;
    page.row(
        "copied",
        &format!("{tables_done} of {tables} tables, {rows_written} of about {rows} rows, {}", size(*bytes_written)),
    );
    page.row("speed", &format!("{:.0} rows/s, {}", copy.rows_per_second, rate(copy.bytes_per_second)));
    if let Some(from) = &copy.from {
        page.row("binlog", &format!("counts from {}", place(Some(from), "")));
    }
    for table in copy.at_work.iter().take(AT_WORK) {
        let part = if table.rows == 0 { 0.0 } else { table.rows_written as f64 / table.rows as f64 };
        let rows = format!("{} {} of about {} rows", bar(part.min(0.99)), table.rows_written, table.rows);
        page.row("at work", &format!("{}: {rows}", table.name));
    }
    if copy.at_work.len() > AT_WORK {
        page.row("", &format!("and {} tables more", copy.at_work.len() - AT_WORK));
    }
}

/// Tables at work that are named.
const AT_WORK: usize = 8;

fn bar(fraction: f64) -> String {
    let filled = ((fraction * BAR as f64) as usize).min(BAR);
    format!("[{}{}] {:.0} %", "#".repeat(filled), ".".repeat(BAR - filled), fraction * 100.0)
}

fn put_catch_up(page: &mut Page, task: &Task, progress: &mut Progress) {
    let done = progress.done(task);
    if task.stage != "Running" || task.backlog_bytes.unwrap_or(0) == 0 {
        return;
    }
    let eta = task.eta_ms.map_or("not getting nearer".to_owned(), |ms| format!("done in {}", span(ms)));
    let line = match done {
        Some(done) => format!("{}, {eta}", bar(done)),
        None => eta,
    };
    page.row("catching up", &line);
}

fn place(location: Option<&Location>, unknown: &str) -> String {
    match location {
        None => unknown.to_owned(),
        Some(l) if l.gtid_set.is_empty() => format!("{}:{}", l.file, l.offset),
        Some(l) if l.gtid_set.len() > 80 => format!("{}:{} (and a long GTID set, see --json)", l.file, l.offset),
        Some(l) => format!("{}:{} ({})", l.file, l.offset, l.gtid_set),
    }
}

/// A time of day with its date, UTC.
pub fn clock(ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
    at.ok().and_then(|at| at.format(format).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

/// A length of time in its two largest units.
fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => format!("{} ms", ms.max(0)),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn ahead(ms: i64) -> String {
    if ms > 0 { format!("in {}", span(ms)) } else { "now".to_owned() }
}

fn size(bytes: u64) -> String {
    scaled(bytes as f64)
}

fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", scaled(bytes_per_second))
}

fn scaled(bytes: f64) -> String {
    let mut value = bytes.max(0.0);
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::agent::{CopyTable, Park, Runway};

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
        let park = Park {
            reason: "operator".to_owned(),
            since_ms: -60_000,
            by: "uid 1000 pid 7".to_owned(),
            note: String::new(),
        };
        let screen = render(
            &status(Task { stage: "Paused".to_owned(), parks: vec![park], ..task() }),
            &mut Progress::default(),
            Room::default(),
        );
        assert!(screen.contains("TASK t1 on mysql-01: PAUSED"), "{screen}");
        assert!(screen.contains("operator, since 1969-12-31 23:59:00 (1 min 0 s ago), by uid 1000 pid 7"), "{screen}");
        assert!(
            screen.contains(
                "safe to stay parked until 1970-01-02 03:46:40 UTC (in 1 d 3 h); then the relay budget is full"
            ),
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
        assert_eq!([size(0), size(1536), size(u64::MAX)], ["0 B", "1.5 KiB", "16384.0 PiB"]);
        assert_eq!([span(-5), span(900), span(59_000), span(3_600_000)], ["0 ms", "900 ms", "59 s", "1 h 0 min"]);
        assert_eq!(clock(i64::MAX), format!("{} ms", i64::MAX));
    }
}
