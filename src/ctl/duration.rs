//! Durations on the command line: the configuration's form, and never zero.

use std::str::FromStr;
use std::time::Duration;

use crate::config::parse_duration;

/// A duration given in Go's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = parse_duration(text).filter(|duration| !duration.is_zero());
        parsed.map(GoDuration).ok_or_else(|| format!("'{text}' is no duration: give something like 30s, 10m or 1h30m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_for_no_time() {
        assert_eq!("1h30m".parse::<GoDuration>().map(|d| d.0.as_secs()), Ok(5_400));
        for text in ["", "10", "0", "0s", "-1s"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?} was accepted");
        }
    }
}
