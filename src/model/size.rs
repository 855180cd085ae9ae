//! Sizes as a person reads them.

use std::fmt;

/// Bytes, printed in the largest unit that leaves a number before it: `512 B`, `1.5 KiB`, `48.0 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well_from_nothing_to_the_largest() {
        let texts = [0, 1023, 1024, 1536, 48 << 20, 1 << 30, u64::MAX].map(|bytes| ByteSize(bytes).to_string());
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "48.0 MiB", "1.0 GiB", "16384.0 PiB"]);
    }
}
