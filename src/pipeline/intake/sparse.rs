//! Whether what intake hands on is sparse in the relay log.
//!
//! A row event lies in a block of a quarter of a megabyte, and keeps all of it in memory while it waits. Where most of the log is
//! of tables that are not wanted, or of rows that a filter leaves out, thousands of small events would each hold a block of their
//! own, many times what they count for. Those are copied out of it; of a stream that is wanted nothing is.

/// What an event holds beside its images, about, and what an item takes.
const EVENT: u64 = 512;
/// So many times what waits may be held by it.
const TIMES: u64 = 8;
/// How much of the log a dense stretch lets pass behind it, and a sparse one takes back.
const BLOCK: i64 = 256 << 10;

/// How much of the log may be held.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// Relay log up to the last event that was handed on.
    last: u64,
    /// What has passed beyond what may be held.
    beyond: i64,
}

impl Sparse {
    /// An event with so many bytes of images is handed on, with relay log up to `lsn`: whether it is to be copied.
    pub(super) fn is(&mut self, lsn: u64, bytes: usize) -> bool {
        // Behind a new beginning the log may be counted from elsewhere.
        let passed = lsn.saturating_sub(std::mem::replace(&mut self.last, lsn)).min(2 * BLOCK as u64);
        if passed == 0 {
            // Out of one event of the log, a compressed transaction: what of that is not wanted nobody counts.
            return true;
        }
        let may = (TIMES * (bytes as u64 + EVENT)).min(2 * BLOCK as u64);
        self.beyond = (self.beyond + passed as i64 - may as i64).clamp(-BLOCK, BLOCK);
        self.beyond > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_dense_stream_nothing_is_copied_and_of_a_sparse_one_everything() {
        let (mut sparse, mut lsn) = (Sparse::default(), 0);
        let mut copied = |gap: u64, bytes: usize, events: usize| {
            let is = |_: &usize| {
                lsn += gap;
                sparse.is(lsn, bytes)
            };
            (0..events).filter(is).count()
        };
        assert_eq!(copied(300, 20, 1000), 0, "small transactions");
        assert_eq!(copied(8300, 8100, 1000), 0, "rows of one large transaction");
        assert!(copied(300_000, 100, 1000) > 998, "one wanted row in much else");
        assert!(copied(300, 20, 1000) < 100, "dense again");
        assert_eq!(copied(300, 20, 1000), 0);
        // Two together, and then nothing for long: the second is not let off for being near the first.
        let pairs: usize = (0..100).map(|_| copied(300_000, 100, 1) + copied(200, 100, 1)).sum();
        assert!(pairs > 196, "{pairs} of 200");
        assert_eq!(copied(0, 100, 10), 10, "a compressed transaction");
    }
}
