//! Durations and sizes as they are written in configuration: Go's `5m0s`, and `64GiB`.

use std::time::Duration;

/// A unit's name and its length in nanoseconds.
const SPANS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// A unit's name and its size in bytes. A bare letter is binary, as in DM.
const SIZES: &[(&str, f64)] = &[
    ("", 1.0),
    ("b", 1.0),
    ("k", 1024.0),
    ("kb", 1e3),
    ("kib", 1024.0),
    ("m", 1048576.0),
    ("mb", 1e6),
    ("mib", 1048576.0),
    ("g", 1073741824.0),
    ("gb", 1e9),
    ("gib", 1073741824.0),
    ("t", 1099511627776.0),
    ("tb", 1e12),
    ("tib", 1099511627776.0),
];

/// No duration in a configuration is longer than this: 100 years.
const LONGEST: f64 = 100.0 * 365.0 * 86400.0 * 1e9;

/// Parses Go's form: numbers with a unit each, `1h30m`, `1.5s`, `0`. No sign.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let (number, behind) = split_number(rest)?;
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        total += number * SPANS.iter().find(|(name, _)| *name == unit)?.1;
        rest = behind;
    }
    (!text.is_empty() && total <= LONGEST).then(|| Duration::from_nanos(total as u64))
}

/// Prints as Go does: `5m0s`, `30m0s`, `1.5s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let fraction = duration.subsec_nanos();
    if seconds == 0 && fraction != 0 {
        return match fraction {
            nanos if nanos % 1_000_000 == 0 => format!("{}ms", nanos / 1_000_000),
            nanos if nanos % 1_000 == 0 => format!("{}µs", nanos / 1_000),
            nanos => format!("{nanos}ns"),
        };
    }
    let mut last = (seconds % 60).to_string();
    if fraction != 0 {
        last = format!("{last}.{fraction:09}").trim_end_matches('0').to_owned();
    }
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{last}s"),
        (0, minutes) => format!("{minutes}m{last}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
    }
}

/// Parses a size in bytes: `64GiB`, `500m`, `1.5 TB`, `4096`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let unit = unit.trim().to_ascii_lowercase();
    let bytes = number * SIZES.iter().find(|(name, _)| *name == unit)?.1;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// The leading number, and what is behind it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in
            [("5m0s", 300_000), ("30m", 1_800_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("0", 0), ("10ms", 10)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 s", "5x", "1..5s", "1e9s", "99999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in ["5m0s", "30m0s", "1h0m0s", "10s", "1.5s", "250ms", "0s", "1m0.25s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("64GiB", 64 << 30), ("500m", 500 << 20), ("1.5kb", 1500), ("4096", 4096), ("1 TB", 1_000_000_000_000)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "1QB", "1.1.1G", "99999999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not(text in ".*") {
            parse_duration(&text);
            parse_size(&text);
        }

        #[test]
        fn durations_read_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            let back = parse_duration(&format_duration(duration)).unwrap();
            prop_assert!(back.abs_diff(duration) < Duration::from_micros(2), "{back:?}");
        }
    }
}
