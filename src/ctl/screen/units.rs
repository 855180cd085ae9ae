//! Times, sizes and parts as a person reads them.

use time::OffsetDateTime;
use time::macros::format_description;

use crate::model::ByteSize;

/// Cells of a progress bar.
const BAR: usize = 30;

/// A time of day with its date, UTC.
pub fn clock(ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
    at.ok().and_then(|at| at.format(format).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

/// A length of time in its two largest units.
pub(super) fn span(ms: i64) -> String {
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

pub(super) fn ahead(ms: i64) -> String {
    if ms > 0 { format!("in {}", span(ms)) } else { "now".to_owned() }
}

pub(super) fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", ByteSize(bytes_per_second.max(0.0).round() as u64))
}

pub(super) fn bar(fraction: f64) -> String {
    let filled = ((fraction * BAR as f64) as usize).min(BAR);
    format!("[{}{}] {:.0} %", "#".repeat(filled), ".".repeat(BAR - filled), fraction * 100.0)
}
