//! Durations as Go writes them: `10m`, `1h30m`, `500ms`. Pure.

use std::str::FromStr;
use std::time::Duration;

/// A duration given in Go's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no duration: give something like 30s, 10m or 1h30m");
        let mut rest = text;
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, unit) = rest.split_at(digits);
            let length = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
            let (unit, next) = unit.split_at(length);
            let seconds = match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = next;
        }
        if total.is_zero() { Err(wrong()) } else { Ok(GoDuration(total)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        let parse = |text: &str| text.parse::<GoDuration>().map(|d| d.0.as_millis());
        assert_eq!(parse("10m"), Ok(600_000));
        assert_eq!(parse("1h30m"), Ok(5_400_000));
        assert_eq!(parse("1.5s"), Ok(1_500));
        assert_eq!(parse("500ms"), Ok(500));
        for text in ["", "10", "m", "10x", "0s", "-1s", "1..2s", "999999999999999999999h"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
