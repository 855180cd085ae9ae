//! The receive window: bytes in, whole packets out.
//!
//! Owns one window that reads fill again and again and packets are looked at in, so that what comes in stays in the
//! processor's cache; whoever wants to keep a packet copies it. A packet that is large beside the window is put together in
//! a buffer of its own, which reads fill directly, and is handed out with it. Invariant: a packet is handed out whole or not
//! at all, so that an abandoned read loses nothing.

use std::io;
use std::ops::{Deref, Range};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The window of a stream: what a core's second cache holds beside the copy.
pub(super) const STREAM_WINDOW: usize = 256 << 10;
/// The window while logging in.
const LOGIN_WINDOW: usize = 16 << 10;
/// This part of the window makes a packet a large one, and a read gets at least this much room.
const LARGE_PART: usize = 4;
/// A packet of this length continues in the next one.
const FULL_PACKET: usize = 0xff_ffff;
const PACKET_HEADER: usize = 4;
/// Largest joined packet: the protocol's 1 GiB and some room for what surrounds a row of that size.
const LARGEST: usize = (1 << 30) + (1 << 20);

/// What came is no packet of this conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("packets are out of order, expected number {expected}, found {found}")]
    OutOfOrder { expected: u8, found: u8 },
    #[error("a packet of more than {LARGEST} bytes")]
    TooLarge,
}

/// The payload of a packet.
#[derive(Debug)]
pub(super) enum Packet<'a> {
    /// In the window, until the next call.
    Here(&'a [u8]),
    /// A large one, in its own buffer.
    Apart(Bytes),
}

impl Deref for Packet<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Packet::Here(payload) => payload,
            Packet::Apart(payload) => payload,
        }
    }
}

impl Packet<'_> {
    /// Keeps it.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Packet::Here(payload) => Bytes::copy_from_slice(payload),
            Packet::Apart(payload) => payload,
        }
    }

    /// Without its first bytes, of which there must be so many.
    pub(super) fn skip(self, count: usize) -> Self {
        match self {
            Packet::Here(payload) => Packet::Here(&payload[count..]),
            Packet::Apart(mut payload) => {
                payload.advance(count);
                Packet::Apart(payload)
            }
        }
    }
}

/// A packet that is put together apart from the window.
#[derive(Debug)]
struct Large {
    payload: BytesMut,
    /// Bytes of the present part that are still to come.
    missing: usize,
    /// Whether another part follows this one.
    continues: bool,
}

#[derive(Debug)]
pub(super) struct Framer {
    window: Vec<u8>,
    /// What of the window was handed out or moved away.
    used: usize,
    /// Number that the next packet, either way, must have.
    sequence: u8,
    large: Option<Large>,
}

impl Framer {
    pub(super) fn new() -> Self {
        Framer { window: Vec::with_capacity(LOGIN_WINDOW), used: 0, sequence: 0, large: None }
    }

    /// From now on large amounts are expected.
    pub(super) fn expect_stream(&mut self) {
        self.window.reserve_exact(STREAM_WINDOW - self.window.len().min(STREAM_WINDOW));
    }

    /// Begins a new exchange.
    pub(super) fn restart(&mut self) {
        self.sequence = 0;
    }

    /// The number for a packet to be sent.
    pub(super) fn take_number(&mut self) -> u8 {
        let number = self.sequence;
        self.sequence = number.wrapping_add(1);
        number
    }

    /// Whether bytes are here that belong to no packet handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.used == self.window.len() && self.large.is_none()
    }

    /// Reads once from `stream`; how many bytes came. Safe to cancel.
    pub(super) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<usize> {
        self.make_room();
        match &mut self.large {
            // Most of it is still to come: no detour through the window, which is empty now.
            Some(large) if self.window.is_empty() && large.missing >= self.window.capacity() / LARGE_PART => {
                let count = stream.read_buf(&mut (&mut large.payload).limit(large.missing)).await?;
                large.missing -= count;
                Ok(count)
            }
            _ => {
                // A vector that is full would grow.
                let room = self.window.capacity() - self.window.len();
                stream.read_buf(&mut (&mut self.window).limit(room)).await
            }
        }
    }

    /// Moves what is left to the front where the room behind it is small.
    fn make_room(&mut self) {
        let capacity = self.window.capacity();
        if self.used == self.window.len() {
            self.window.clear();
            self.used = 0;
        } else if capacity - self.window.len() < capacity / LARGE_PART {
            self.window.drain(..self.used);
            self.used = 0;
        }
    }

    /// What is in the window and was not handed out.
    fn rest(&self) -> &[u8] {
        &self.window[self.used..]
    }

    /// Bytes that the next packet has at least, where that is known.
    pub(super) fn least_len(&self) -> Option<usize> {
        match &self.large {
            Some(large) => Some(large.payload.len() + large.missing),
            None => self.next_len(),
        }
    }

    /// Length of the packet at the front of the window, as its header says.
    fn next_len(&self) -> Option<usize> {
        let head = self.rest().first_chunk::<PACKET_HEADER>()?;
        Some(usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16)
    }

    /// The next packet's payload, if all of it is here.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, FramingError> {
        if self.large.is_none() {
            let Some(length) = self.next_len() else { return Ok(None) };
            if length < self.window.capacity() / LARGE_PART {
                if self.rest().len() < PACKET_HEADER + length {
                    return Ok(None);
                }
                let payload = self.take_head(length)?;
                self.used = payload.end;
                return Ok(Some(Packet::Here(&self.window[payload])));
            }
            self.take_head(length)?;
            let payload = BytesMut::with_capacity(length);
            self.large = Some(Large { payload, missing: length, continues: length == FULL_PACKET });
        }
        self.next_large().map(|whole| whole.map(Packet::Apart))
    }

    /// Checks the header at the front and leaves it behind; where in the window the payload of `length` bytes is.
    fn take_head(&mut self, length: usize) -> Result<Range<usize>, FramingError> {
        let found = self.window[self.used + 3];
        let expected = self.take_number();
        if found != expected {
            return Err(FramingError::OutOfOrder { expected, found });
        }
        self.used += PACKET_HEADER;
        Ok(self.used..self.used + length)
    }

    /// Goes on with the large packet; all of it, if it is complete.
    fn next_large(&mut self) -> Result<Option<Bytes>, FramingError> {
        while let Some(large) = &mut self.large {
            let here = &self.window[self.used..];
            let part = &here[..here.len().min(large.missing)];
            large.payload.extend_from_slice(part);
            large.missing -= part.len();
            self.used += part.len();
            if large.missing > 0 {
                return Ok(None);
            }
            if !large.continues {
                return Ok(self.large.take().map(|large| large.payload.freeze()));
            }
            let Some(length) = self.next_len() else { return Ok(None) };
            self.take_head(length)?;
            let Some(large) = &mut self.large else { break };
            if large.payload.len() + length > LARGEST {
                return Err(FramingError::TooLarge);
            }
            large.payload.reserve(length);
            (large.missing, large.continues) = (length, length == FULL_PACKET);
        }
        Ok(None)
    }
}

/// Cuts a payload into packets with their headers, in one buffer.
pub(super) fn frame(payload: &[u8], mut number: impl FnMut() -> u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + PACKET_HEADER);
    let mut rest = payload;
    loop {
        let (part, behind) = rest.split_at(rest.len().min(FULL_PACKET));
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
        bytes.push(number());
        bytes.extend_from_slice(part);
        rest = behind;
        // A packet of full length always has a successor, if only an empty one.
        if part.len() < FULL_PACKET {
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives the bytes in reads of at most `most` each; the packets, kept.
    fn feed(framer: &mut Framer, bytes: &[u8], most: usize) -> Result<Vec<Bytes>, FramingError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut packets = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut now = &rest[..rest.len().min(most)];
            let count = runtime.block_on(framer.fill(&mut now)).unwrap();
            assert!(count > 0, "there is always room");
            rest = &rest[count..];
            while let Some(packet) = framer.next()? {
                packets.push(packet.into_bytes());
            }
        }
        Ok(packets)
    }

    fn framed(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut number = 0u8;
        let mut next = || {
            number = number.wrapping_add(1);
            number.wrapping_sub(1)
        };
        payloads.iter().flat_map(|payload| frame(payload, &mut next)).collect()
    }

    fn counting(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn packets_of_16_mib_and_more_are_joined() {
        for length in [FULL_PACKET - 1, FULL_PACKET, FULL_PACKET + 1, 2 * FULL_PACKET + 7] {
            let payload = counting(length);
            let mut framer = Framer::new();
            framer.expect_stream();
            let packets = feed(&mut framer, &framed(&[payload.clone(), b"next".to_vec()]), 300_000).unwrap();
            assert!(packets[0] == payload && packets[1] == b"next"[..], "length {length}");
            assert!(framer.is_empty());
        }
    }

    #[test]
    fn the_window_stays_as_it_is_beside_large_packets() {
        let mut framer = Framer::new();
        framer.expect_stream();
        let window = framer.window.capacity();
        let payloads = [counting(9 << 20), counting(10), counting(window / LARGE_PART), counting(window)];
        assert_eq!(feed(&mut framer, &framed(&payloads), usize::MAX).unwrap(), payloads);
        assert_eq!(framer.window.capacity(), window);
    }

    #[test]
    fn packets_that_are_kept_are_not_overwritten() {
        let mut framer = Framer::new();
        let payloads: Vec<Vec<u8>> = (0..2000u32).map(|i| vec![(i % 256) as u8; 100 + i as usize * 3]).collect();
        assert_eq!(feed(&mut framer, &framed(&payloads), 5000).unwrap(), payloads);
    }

    #[test]
    fn a_wrong_number_is_noticed() {
        let mut bytes = framed(&[b"a".to_vec()]);
        bytes[3] = 9;
        let error = feed(&mut Framer::new(), &bytes, 100).unwrap_err();
        assert_eq!(error, FramingError::OutOfOrder { expected: 0, found: 9 });
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_packets(
            lengths in prop::collection::vec(prop_oneof![4 => 0usize..400, 1 => 0usize..40_000], 0..40),
            cuts in prop::collection::vec(prop_oneof![4 => 1usize..300, 1 => 1usize..30_000], 1..60),
        ) {
            let payloads: Vec<Vec<u8>> = lengths.into_iter().map(counting).collect();
            let bytes = framed(&payloads);
            let mut framer = Framer::new();
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                found.extend(feed(&mut framer, now, usize::MAX).unwrap());
                rest = later;
            }
            prop_assert_eq!(found, payloads);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = feed(&mut Framer::new(), &bytes, usize::MAX);
        }
    }
}
