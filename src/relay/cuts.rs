//! Chunks that wait to be stored, and what was compressed of them ahead of that.
//!
//! Invariant: chunks leave in the order in which they came, each once. Whoever compresses ahead only borrows: a chunk may leave
//! without what was made of it, and what is brought back for one that has left is thrown away. Nobody waits for a borrower.

use std::collections::VecDeque;

use super::Lsn;
use super::chunk::Unstored;
use super::effort::Effort;

/// A chunk to be stored.
#[derive(Debug)]
pub(super) struct Cut {
    pub chunk: Unstored,
    /// Whether its segment ends with it.
    pub ends_segment: bool,
    /// What was made of it; `chunk` has no bytes any more where that is done.
    pub encoded: Encoded,
}

/// How far the bytes to store are.
#[derive(Debug)]
pub(super) enum Encoded {
    No,
    Borrowed,
    Done(Vec<u8>),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Cuts(VecDeque<Cut>);

impl Cuts {
    pub fn push(&mut self, chunk: Unstored, ends_segment: bool) {
        self.0.push_back(Cut { chunk, ends_segment, encoded: Encoded::No });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How hard the next one is to be compressed.
    pub fn effort(&self) -> Effort {
        Effort::with_waiting(self.0.len())
    }

    /// The segment ends with the newest one.
    pub fn end_segment(&mut self) {
        if let Some(last) = self.0.back_mut() {
            last.ends_segment = true;
        }
    }

    /// The oldest one, whether or not someone has borrowed it.
    pub fn take(&mut self) -> Option<Cut> {
        self.0.pop_front()
    }

    /// The oldest one, unless it is about to be brought back.
    pub fn take_unless_borrowed(&mut self) -> Option<Cut> {
        self.0.pop_front_if(|cut| !matches!(cut.encoded, Encoded::Borrowed))
    }

    /// The oldest one that nobody works on.
    pub fn borrow(&mut self) -> Option<(Unstored, Effort)> {
        let effort = self.effort();
        let cut = self.0.iter_mut().find(|cut| matches!(cut.encoded, Encoded::No))?;
        cut.encoded = Encoded::Borrowed;
        Some((cut.chunk.clone(), effort))
    }

    /// What was made of the chunk that begins at `start`; `None` if that failed.
    pub fn bring_back(&mut self, start: Lsn, value: Option<Vec<u8>>) {
        let borrowed = |cut: &&mut Cut| cut.chunk.header.start == start && matches!(cut.encoded, Encoded::Borrowed);
        if let Some(cut) = self.0.iter_mut().find(borrowed) {
            cut.encoded = match value {
                Some(value) => {
                    cut.chunk.pieces.clear();
                    Encoded::Done(value)
                }
                None => Encoded::No,
            };
        }
    }
}
