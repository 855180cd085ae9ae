//! The status on one screen, for a person at three in the morning.
//!
//! Pure: the same reply and the same progress give the same text. What is not known is called unknown, never zero. All
//! times are UTC.

mod page;
#[cfg(test)]
mod tests;
mod units;

use std::collections::HashMap;

use self::page::Page;
pub use self::units::clock;
use self::units::{ahead, bar, rate, span};
use crate::control::proto::agent::{AgainTable, Copy, Location, ReceiveState, Relay, Source, StatusReply, Task};
use crate::model::ByteSize;

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
    let mut page = Page::new(room.columns);
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
    page.text(room.lines)
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
    let unasked = match source.receiving() {
        ReceiveState::Running => "unknown: not asked yet",
        _ => "unknown: not reached",
    };
    page.row("source is at", &place(source.master.as_ref(), unasked));
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
        0 => ByteSize(relay.disk_bytes).to_string(),
        budget => {
            let percent = relay.disk_bytes as f64 / budget as f64 * 100.0;
            format!("{} of {} used ({percent:.0} %)", ByteSize(relay.disk_bytes), ByteSize(budget))
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
    let doing = if task.activity.is_empty() { String::new() } else { format!(", {}", task.activity) };
    page.plain(&format!("\nTASK {} on {}: {stage}{doing}", task.name, task.source_id));
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
    let backlog = task.backlog_bytes.map_or("unknown".to_owned(), |bytes| ByteSize(bytes).to_string());
    page.row("backlog", &format!("{backlog} received and not applied"));
    let (rows, bytes) = (task.rows_per_second, rate(task.bytes_per_second));
    page.row("speed", &format!("{rows:.0} rows/s, {bytes}; {} rows so far", task.rows_total));
    put_catch_up(page, task, progress);
    if task.filtered_rows_total > 0 {
        page.row("filtered", &format!("{} rows left out by filters so far", task.filtered_rows_total));
    }
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
        &format!("{tables_done} of {tables} tables, {rows_written} of about {rows} rows, {}", ByteSize(*bytes_written)),
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
