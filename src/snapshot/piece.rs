//! How much is read or written at once while others need the same cores: what takes a fraction of a millisecond.
//!
//! A thread that wakes up waits for one that is at work for as long as the system lets that go on, a few milliseconds. So the
//! work of a chunk is done in pieces that are over before that, and nobody who meets one has lost much. What a piece may hold is
//! learned from how long pieces took; the chunk stays one transaction with one mark, however many pieces it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a piece should take.
const AIM: Duration = Duration::from_micros(400);
/// Where it begins, and bounds: of rows that are read, and of bytes that are written.
const ROWS: (u64, u64, u64) = (50, 10, 1000);
const BYTES: (u64, u64, u64) = (8 << 10, 1 << 10, 256 << 10);

/// Learns it; shared by all readers and writers.
#[derive(Debug)]
pub(super) struct Pieces {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Pieces {
    pub fn new() -> Self {
        Pieces { rows: AtomicU64::new(ROWS.0), bytes: AtomicU64::new(BYTES.0) }
    }

    /// Rows of one read.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes of one write.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// So many rows were read at once.
    pub fn read(&self, rows: u64, took: Duration) {
        learn(&self.rows, ROWS, rows, took);
    }

    /// So many bytes were written at once.
    pub fn wrote(&self, bytes: usize, took: Duration) {
        learn(&self.bytes, BYTES, bytes as u64, took);
    }
}

/// A tenth of the way: what interrupts a piece says nothing about the next. Who overwrites what another has just learned matters
/// little.
fn learn(known: &AtomicU64, (_, least, most): (u64, u64, u64), had: u64, took: Duration) {
    let now = known.load(Ordering::Relaxed);
    // The last piece of something says little.
    if had < now / 2 {
        return;
    }
    let right = had as f64 * (AIM.as_secs_f64() / took.as_secs_f64().max(1e-6)).min(4.0);
    let next = now as f64 + (right - now as f64) / 10.0;
    known.store((next.round() as u64).clamp(least, most), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_to_take_what_they_should() {
        let pieces = Pieces::new();
        // A write takes 100 µs and 20 ns a byte, a read 4 µs a row.
        for _ in 0..200 {
            let bytes = pieces.bytes();
            pieces.wrote(bytes, Duration::from_nanos(100_000 + 20 * bytes as u64));
            pieces.read(pieces.rows(), Duration::from_micros(4 * pieces.rows()));
        }
        assert!((14_000..16_000).contains(&pieces.bytes()), "{}", pieces.bytes());
        assert!((90..110).contains(&pieces.rows()), "{}", pieces.rows());
    }

    #[test]
    fn they_stay_in_their_bounds_and_short_ones_are_passed_over() {
        let pieces = Pieces::new();
        for _ in 0..200 {
            pieces.wrote(pieces.bytes(), Duration::from_secs(1));
            pieces.read(pieces.rows(), Duration::ZERO);
        }
        assert_eq!((pieces.bytes() as u64, pieces.rows()), (BYTES.1, ROWS.2));
        pieces.read(3, Duration::from_secs(1));
        assert_eq!(pieces.rows(), ROWS.2);
    }
}
