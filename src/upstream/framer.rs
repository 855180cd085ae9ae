//! The receive buffer: bytes in, whole packets out.
//!
//! Owns one large buffer that reads fill and packets are cut out of without copying. A packet keeps the buffer's memory
//! alive; when all packets of a buffer are gone it is used again, else a new one begins with what is left over.
//! Invariant: a packet is handed out whole or not at all, so that an abandoned read loses nothing.

use bytes::{Buf, Bytes, BytesMut};

/// The buffer of a stream.
pub(super) const STREAM_BUFFER: usize = 4 << 20;
/// The buffer while logging in.
const LOGIN_BUFFER: usize = 16 << 10;
/// A read gets at least this much room.
const LEAST_SPACE: usize = 64 << 10;
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

#[derive(Debug)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// Size of the allocation behind `buffer`.
    allocated: usize,
    /// Size of the next allocation, unless one packet needs more.
    target: usize,
    /// Number that the next packet, either way, must have.
    sequence: u8,
    /// The parts so far of a packet that takes several.
    joined: Option<BytesMut>,
}

impl Framer {
    pub(super) fn new() -> Self {
        Framer {
            buffer: BytesMut::with_capacity(LOGIN_BUFFER),
            allocated: LOGIN_BUFFER,
            target: LOGIN_BUFFER,
            sequence: 0,
            joined: None,
        }
    }

    /// From now on large amounts are expected.
    pub(super) fn expect_stream(&mut self) {
        self.target = STREAM_BUFFER;
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
        self.buffer.is_empty() && self.joined.is_none()
    }

    /// The buffer with room for the next read behind what is there.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        let missing = match self.length() {
            Some(length) => (PACKET_HEADER + length).saturating_sub(self.buffer.len()),
            None => PACKET_HEADER,
        };
        let need = missing.max(LEAST_SPACE.min(self.target / 4));
        if self.buffer.capacity() - self.buffer.len() < need {
            let keeps_size = self.allocated == self.target;
            if !(keeps_size && self.buffer.try_reclaim(need)) {
                self.allocated = self.target.max(self.buffer.len() + need);
                let mut fresh = BytesMut::with_capacity(self.allocated);
                fresh.extend_from_slice(&self.buffer);
                self.buffer = fresh;
            }
        }
        &mut self.buffer
    }

    /// Length of the packet at the front, as its header says.
    fn length(&self) -> Option<usize> {
        let head = self.buffer.first_chunk::<PACKET_HEADER>()?;
        Some(usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16)
    }

    /// The next packet's payload, if all of it is here.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        while let Some(length) = self.length() {
            if self.buffer.len() < PACKET_HEADER + length {
                return Ok(None);
            }
            let found = self.buffer[3];
            let expected = self.take_number();
            if found != expected {
                return Err(FramingError::OutOfOrder { expected, found });
            }
            self.buffer.advance(PACKET_HEADER);
            let part = self.buffer.split_to(length);
            match &mut self.joined {
                None if length < FULL_PACKET => return Ok(Some(part.freeze())),
                None => self.joined = Some(part),
                Some(joined) if joined.len() + length > LARGEST => return Err(FramingError::TooLarge),
                Some(joined) => joined.extend_from_slice(&part),
            }
            if length < FULL_PACKET {
                return Ok(self.joined.take().map(BytesMut::freeze));
            }
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

    fn feed(framer: &mut Framer, bytes: &[u8]) -> Result<Vec<Bytes>, FramingError> {
        let mut packets = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = framer.space();
            let room = space.capacity() - space.len();
            let (now, later) = rest.split_at(rest.len().min(room));
            space.extend_from_slice(now);
            rest = later;
            while let Some(packet) = framer.next()? {
                packets.push(packet);
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

    #[test]
    fn packets_of_16_mib_and_more_are_joined() {
        for length in [FULL_PACKET - 1, FULL_PACKET, FULL_PACKET + 1, 2 * FULL_PACKET + 7] {
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut framer = Framer::new();
            framer.expect_stream();
            let packets = feed(&mut framer, &framed(&[payload.clone(), b"next".to_vec()])).unwrap();
            assert!(packets[0] == payload && packets[1] == b"next"[..], "length {length}");
            assert!(framer.is_empty());
        }
    }

    #[test]
    fn the_buffer_shrinks_back_behind_a_large_packet() {
        let mut framer = Framer::new();
        framer.expect_stream();
        let large = vec![1u8; 9 << 20];
        drop(feed(&mut framer, &framed(std::slice::from_ref(&large))).unwrap());
        assert!(framer.allocated > STREAM_BUFFER);
        framer.restart();
        let small: Vec<Vec<u8>> = (0..3000).map(|_| vec![2u8; 3000]).collect();
        assert_eq!(feed(&mut framer, &framed(&small)).unwrap().len(), 3000);
        assert_eq!(framer.allocated, STREAM_BUFFER);
    }

    #[test]
    fn packets_held_elsewhere_are_not_overwritten() {
        let mut framer = Framer::new();
        let payloads: Vec<Vec<u8>> = (0..2000u32).map(|i| vec![(i % 256) as u8; 100]).collect();
        let packets = feed(&mut framer, &framed(&payloads)).unwrap();
        assert!(packets.iter().zip(&payloads).all(|(packet, payload)| packet == payload));
    }

    #[test]
    fn a_wrong_number_is_noticed() {
        let mut bytes = framed(&[b"a".to_vec()]);
        bytes[3] = 9;
        let error = feed(&mut Framer::new(), &bytes).unwrap_err();
        assert_eq!(error, FramingError::OutOfOrder { expected: 0, found: 9 });
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_packets(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..40),
            cuts in prop::collection::vec(1usize..300, 1..60),
        ) {
            let bytes = framed(&payloads);
            let mut framer = Framer::new();
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                found.extend(feed(&mut framer, now).unwrap());
                rest = later;
            }
            prop_assert_eq!(found, payloads);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = feed(&mut Framer::new(), &bytes);
        }
    }
}
