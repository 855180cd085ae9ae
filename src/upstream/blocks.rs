//! Memory for the events of a stream: blocks that runs are written into one behind the other, used again and again.
//!
//! Fresh memory costs a page fault each 4 KiB, as much as checking the events that are put there. So a handle on each block
//! is kept, and a block that nobody else holds any more is the next one to be written. Invariant: a block is written again
//! only when no run of it is left. How many there are follows from how long runs are kept; what is kept here without being
//! needed is let go when the stream is quiet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::framer::Packet;
use crate::binlog::EventRun;

/// Bytes of a block.
pub(super) const BLOCK: usize = 256 << 10;
/// Blocks that are watched: more than the relay log keeps in memory. Others are freed by whoever has them.
const WATCHED: usize = 96;
/// Of so many blocks that are used again, one that is free is let go of.
const SHRINK_EACH: u32 = 8;

/// The block being written, and those that were.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The run being written, and what is left of its block behind it.
    open: BytesMut,
    /// Whether a handle on the open block is among the lent ones.
    watched: bool,
    /// The first run of each block, oldest first.
    lent: VecDeque<Bytes>,
    /// Times that a block was used again.
    used_again: u32,
    /// The run, where it is one event that came in memory of its own.
    apart: Option<Bytes>,
}

impl Blocks {
    /// Bytes in the run being written.
    pub(super) fn len(&self) -> usize {
        self.apart.as_ref().map_or(self.open.len(), Bytes::len)
    }

    /// Whether so many more bytes fit behind it without moving it.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.apart.is_none() && self.open.capacity() - self.open.len() >= bytes
    }

    /// Puts one whole event behind the run. One in memory of its own is the whole run where it can be: what follows has to
    /// wait until it was taken, as [`Self::has_room`] says.
    pub(super) fn push(&mut self, event: Packet<'_>) {
        match event {
            Packet::Apart(event) if self.open.is_empty() => self.apart = Some(event),
            event => {
                if !self.has_room(event.len()) {
                    self.turn(event.len());
                }
                self.open.extend_from_slice(&event);
            }
        }
    }

    /// Ends the run.
    pub(super) fn take(&mut self) -> EventRun {
        if let Some(event) = self.apart.take() {
            return EventRun::of_whole_events(event);
        }
        if self.open.is_empty() {
            return EventRun::default();
        }
        let run = self.open.split().freeze();
        if !std::mem::replace(&mut self.watched, true) {
            if self.lent.len() >= WATCHED {
                self.lent.pop_front();
            }
            self.lent.push_back(run.clone());
        }
        EventRun::of_whole_events(run)
    }

    /// Lets go of what nobody needs.
    pub(super) fn trim(&mut self) {
        self.lent.retain(|run| !run.is_unique());
    }

    /// Turns to another block with the run being written, which usually is empty.
    fn turn(&mut self, more: usize) {
        let need = self.open.len() + more;
        let run = std::mem::take(&mut self.open);
        self.open = match self.free_block() {
            Some(block) if block.capacity() >= need => block,
            _ => BytesMut::with_capacity(need.max(BLOCK)),
        };
        self.open.extend_from_slice(&run);
        self.watched = false;
    }

    /// The oldest block, if nobody has it any more. Where the next one is free too, there may be more than are needed, or many
    /// were let go of together and all of them will be: so one of them goes now and then.
    fn free_block(&mut self) -> Option<BytesMut> {
        let block = self.lent.pop_front_if(|oldest| oldest.is_unique())?;
        self.used_again = self.used_again.wrapping_add(1);
        if self.used_again.is_multiple_of(SHRINK_EACH) {
            self.lent.pop_front_if(|next| next.is_unique());
        }
        let mut block = block.try_into_mut().ok()?;
        block.clear();
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[9..13].copy_from_slice(&(size as u32).to_le_bytes());
        bytes
    }

    #[test]
    fn runs_share_blocks_and_free_blocks_are_used_again() {
        let mut blocks = Blocks::default();
        let event = event(1000);
        let mut held: VecDeque<EventRun> = VecDeque::new();
        let mut places = std::collections::HashSet::new();
        for _ in 0..5000 {
            blocks.push(Packet::Here(&event));
            blocks.push(Packet::Here(&event));
            let run = blocks.take();
            assert_eq!(run.len(), 2000);
            places.insert(run.bytes().as_ptr() as usize / BLOCK);
            held.push_back(run);
            if held.len() > 300 {
                assert_eq!(held.pop_front().unwrap().events().next().unwrap(), event);
            }
        }
        // 300 runs of 2,000 bytes are in four blocks at most; allocations need not stand at multiples of a block.
        assert!(blocks.lent.len() <= 5 && places.len() <= 14, "{} blocks, {} places", blocks.lent.len(), places.len());
        held.clear();
        blocks.trim();
        assert!(blocks.lent.len() <= 1, "the open one may be held");
    }

    #[test]
    fn an_event_larger_than_a_block_has_one_of_its_own() {
        let mut blocks = Blocks::default();
        blocks.push(Packet::Here(&event(100)));
        assert!(!blocks.has_room(BLOCK));
        let first = blocks.take();
        let large = Bytes::from(event(3 * BLOCK));
        blocks.push(Packet::Here(&large));
        assert_eq!(blocks.take().bytes(), &large);
        blocks.push(Packet::Apart(large.clone()));
        assert!(!blocks.has_room(1), "it is to be taken");
        assert_eq!(blocks.take().bytes().as_ptr(), large.as_ptr(), "it was not copied");
        blocks.push(Packet::Here(&event(100)));
        blocks.push(Packet::Apart(large.clone()));
        assert_eq!(blocks.take().len(), 100 + large.len());
        assert_eq!(first.len(), 100);
    }
}
