//! Events that came together, back to back in one buffer.
//!
//! A source sends thousands of small events a megabyte, and what is done with each one of them by itself adds up: so the
//! relay log takes them by the run, one buffer and one reference count for all. Invariant: a run holds whole events and
//! nothing else, each as long as its header says. Nothing is said of what is in them.

use bytes::{Bytes, BytesMut};

use super::frame::{EventHeader, FrameError};

/// Whole events in order, header and, where the stream has them, checksum included. Clones share the buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventRun(Bytes);

impl EventRun {
    /// Takes bytes that are whole events; an error where they are not.
    pub fn new(bytes: Bytes) -> Result<EventRun, FrameError> {
        let mut at = 0;
        while at < bytes.len() {
            at += whole(&bytes[at..])?;
        }
        Ok(EventRun(bytes))
    }

    /// Takes bytes of which the caller knows that they are whole events: it has put them together.
    pub(crate) fn of_whole_events(bytes: Bytes) -> EventRun {
        debug_assert!(EventRun::new(bytes.clone()).is_ok());
        EventRun(bytes)
    }

    /// Copies events together.
    pub fn join<E: AsRef<[u8]>>(events: &[E]) -> Result<EventRun, FrameError> {
        let mut bytes = BytesMut::with_capacity(events.iter().map(|event| event.as_ref().len()).sum());
        events.iter().for_each(|event| bytes.extend_from_slice(event.as_ref()));
        EventRun::new(bytes.freeze())
    }

    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The events, each with the place where it begins.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let rest = self.0.get(at..).filter(|rest| !rest.is_empty())?;
            // Checked when the run was made.
            let len = whole(rest).ok()?;
            at += len;
            Some((at - len, &rest[..len]))
        })
    }

    /// The events, each as a slice of its own that keeps the whole run's buffer alive.
    pub fn events(&self) -> impl Iterator<Item = Bytes> {
        self.iter().map(|(at, event)| self.0.slice(at..at + event.len()))
    }

    /// The events that begin at `at` or behind it.
    pub fn behind(&self, at: usize) -> EventRun {
        if at == 0 {
            return self.clone();
        }
        let first = self.iter().map(|(begin, _)| begin).find(|begin| *begin >= at);
        EventRun::of_whole_events(first.map_or_else(Bytes::new, |first| self.0.slice(first..)))
    }

    /// The first `len` bytes, which must be whole events.
    pub fn first(&self, len: usize) -> EventRun {
        EventRun::of_whole_events(self.0.slice(..len))
    }
}

/// Length of the event at the front, all of which must be there.
fn whole(bytes: &[u8]) -> Result<usize, FrameError> {
    let header = EventHeader::parse(bytes)?;
    let need = header.size as usize;
    if need > bytes.len() {
        return Err(FrameError::Truncated { kind: header.kind, need, have: bytes.len() });
    }
    Ok(need)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![7, 0, 0, 0, 19, 1, 0, 0, 0];
        bytes.extend((19 + body.len() as u32).to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(body);
        bytes
    }

    proptest! {
        #[test]
        fn what_was_joined_comes_apart_again(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
            cut in 1usize..19,
        ) {
            let events: Vec<Vec<u8>> = bodies.iter().map(|body| event(body)).collect();
            let run = EventRun::join(&events).unwrap();
            prop_assert_eq!(run.len(), events.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(run.events().collect::<Vec<_>>(), events.clone());
            if let Some(first) = events.first() {
                prop_assert_eq!(run.first(first.len()).events().collect::<Vec<_>>(), &events[..1]);
                prop_assert_eq!(run.behind(cut).events().collect::<Vec<_>>(), &events[1..]);
                prop_assert_eq!(run.behind(0), run.clone());
                prop_assert!(EventRun::new(run.bytes().slice(..run.len() - cut)).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(run) = EventRun::new(bytes.into()) {
                prop_assert_eq!(run.events().map(|event| event.len()).sum::<usize>(), run.len());
            }
        }
    }
}
