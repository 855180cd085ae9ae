//! How much is done at once while others need the same cores: what takes a fraction of a millisecond.
//!
//! A thread that wakes up waits for one that is at work for as long as the system lets that go on, a few milliseconds. So the
//! work of a chunk is done in pieces that are over before that, and nobody who meets one has lost much. What a piece may hold is
//! learned from how long pieces took; the chunk stays one transaction with one mark, however many pieces it has.
//!
//! Nothing is done sooner than it takes, but much is done later: where all cores are busy, most of a piece's time is waiting for
//! one. So what counts is the quickest of each few pieces, and what the others take says which part of the time is work. Where
//! that is little, pieces are larger and not smaller: each of them waits, and whoever meets one waits for more than that anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a read or a write should take.
const AIM: Duration = Duration::from_micros(250);
/// What is known of one thing more moves by so much where it took less, and where it took more: one in six takes less then.
const QUICKER: f64 = 0.95;
const SLOWER: f64 = 1.01;
/// Weight of the newest piece in what part is work.
const NEWEST: f64 = 0.02;
/// From which part on down all cores are busy: above it pieces take longer now and then, as they do everywhere. And what is made of
/// the least part at most: some of the waiting is for what the piece itself wants done.
const BUSY: f64 = 0.6;
const LARGER: f64 = 2.5;

/// Learns how much of something makes a piece.
#[derive(Debug)]
pub(super) struct Piece {
    aim: Duration,
    least: u64,
    most: u64,
    /// Seconds that one takes; the bits of a number.
    cost: AtomicU64,
    /// Which part of a piece's time is work; the bits of a number.
    work: AtomicU64,
}

impl Piece {
    /// Begins with so many, and stays between bounds.
    pub fn new(aim: Duration, first: u64, least: u64, most: u64) -> Self {
        let cost = aim.as_secs_f64() / first as f64;
        Piece { aim, least, most, cost: AtomicU64::new(cost.to_bits()), work: AtomicU64::new(1_f64.to_bits()) }
    }

    /// How much makes one.
    pub fn size(&self) -> u64 {
        let fits = self.aim.as_secs_f64() / number(&self.cost) / self.work();
        (fits.round() as u64).clamp(self.least, self.most)
    }

    /// So much was done at once. Who overwrites what another has just learned matters little.
    pub fn took(&self, had: u64, took: Duration) {
        // The last piece of something says little.
        if had < self.size() / 2 {
            return;
        }
        let (took, cost) = (took.as_secs_f64().max(1e-6), number(&self.cost));
        let one = took / had as f64;
        let next = cost * if one < cost { QUICKER } else { SLOWER };
        self.cost.store(next.to_bits(), Ordering::Relaxed);
        let (work, now) = (number(&self.work), (cost / one).min(1.0));
        self.work.store((work + NEWEST * (now - work)).to_bits(), Ordering::Relaxed);
    }

    /// Which part of the time is work, and not waiting.
    pub fn work(&self) -> f64 {
        (number(&self.work) / BUSY).clamp(1.0 / LARGER, 1.0)
    }
}

fn number(bits: &AtomicU64) -> f64 {
    f64::from_bits(bits.load(Ordering::Relaxed))
}

/// What the copy reads and writes at once; shared by all readers and writers.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Rows of one read.
    pub rows: Piece,
    /// Bytes of one write.
    pub bytes: Piece,
}

impl Pieces {
    pub fn new() -> Self {
        Pieces { rows: Piece::new(AIM, 50, 10, 1000), bytes: Piece::new(AIM, 8 << 10, 1 << 10, 256 << 10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write that takes 100 µs and 20 ns a byte, as often as it takes to learn that, and each time as many times as long.
    fn learned(times: impl Fn(u32) -> u64) -> Piece {
        let piece = Pieces::new().bytes;
        for write in 0..1000 {
            let nanos = 100_000 + 20 * piece.size();
            piece.took(piece.size(), Duration::from_nanos(nanos * times(write)));
        }
        piece
    }

    #[test]
    fn pieces_come_to_take_what_they_should() {
        let piece = learned(|_| 1);
        assert!((6_500..9_000).contains(&piece.size()) && piece.work() > 0.9, "{piece:?}");
        let rows = Pieces::new().rows;
        for _ in 0..1000 {
            rows.took(rows.size(), Duration::from_micros(4 * rows.size()));
        }
        assert!((56..72).contains(&rows.size()), "{rows:?}");
    }

    #[test]
    fn where_all_cores_are_busy_they_grow_and_waiting_is_told_from_work() {
        let piece = learned(|write| if write % 4 == 0 { 1 } else { 4 });
        assert!((9_000..16_000).contains(&piece.size()) && (0.4..0.9).contains(&piece.work()), "{piece:?}");
    }

    #[test]
    fn they_stay_in_their_bounds_and_short_ones_are_passed_over() {
        let Pieces { rows, bytes } = Pieces::new();
        for _ in 0..1000 {
            bytes.took(bytes.size(), Duration::from_secs(1));
            rows.took(rows.size(), Duration::ZERO);
        }
        assert_eq!((bytes.size(), rows.size()), (1 << 10, 1000));
        let before = format!("{rows:?}");
        rows.took(3, Duration::from_secs(1));
        assert_eq!(format!("{rows:?}"), before);
    }
}
