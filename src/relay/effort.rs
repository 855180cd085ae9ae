//! How hard a chunk is compressed: what the disk saves against what receiving loses.
//!
//! The rule: as hard as there is time for. While chunks wait, compressing or the disk holds the source up, and the cheap way
//! is taken; with nothing waiting there is a core to spare, and the disk gets the benefit. Both ways keep the relay log of
//! OLTP rows below 0.6 of the binlog. Measured on one core, as the store rounds the pages up, against the raw bytes:
//!
//! | | OLTP binlog, small events | multi-row inserts, large events |
//! |---|---|---|
//! | thorough | 0.42, 720 MB/s | 0.10, 1,650 MB/s |
//! | quick | 0.53, 1,250 MB/s | 0.13, 2,450 MB/s |
//!
//! Both are zstd's fast levels with entropy coding, which they leave out by themselves: it is most of what there is to gain
//! where nothing repeats, as in random digits. Whatever the effort was, a chunk is read in the same way.

/// Chunks that wait where there is no time left.
const PRESSED: usize = 4;

/// How hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// For the disk's sake.
    Thorough,
    /// For the source's sake.
    Quick,
}

impl Effort {
    /// The right one where so many chunks wait.
    pub fn with_waiting(chunks: usize) -> Effort {
        if chunks >= PRESSED { Effort::Quick } else { Effort::Thorough }
    }

    /// zstd's level for it.
    pub fn level(self) -> i32 {
        match self {
            Effort::Thorough => -2,
            Effort::Quick => -12,
        }
    }

    /// The shortest repetition that is taken, and the binary logarithm of the places that are remembered; 0 for what the level
    /// has by itself. Being quick, those that save one byte are not worth their code.
    pub fn search(self) -> (u32, u32) {
        match self {
            Effort::Thorough => (0, 0),
            Effort::Quick => (6, 11),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_makes_it_quick() {
        assert_eq!(Effort::with_waiting(0), Effort::Thorough);
        assert_eq!(Effort::with_waiting(PRESSED), Effort::Quick);
        assert!(Effort::Quick.level() < Effort::Thorough.level());
    }
}
