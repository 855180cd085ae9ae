//! MySQL's compressed transactions: a TRANSACTION_PAYLOAD event holds all events of one, compressed.
//!
//! It is decompressed as a stream, one inner event at a time, so that a huge transaction needs the memory of its largest
//! event. Inner events have no checksum. Invariant: what comes out is exactly as long as the event says; anything else,
//! a stream cut short included, is an error and never a shorter transaction.

use std::io::{self, BufReader, Read};

use bytes::{Buf, Bytes, buf::Reader};

use super::error::DecodeError;
use crate::binlog::{EventHeader, HEADER_LEN};
use crate::model::EventSpan;
use crate::row::Cursor;

const COMPRESSED_WITH_ZSTD: u64 = 0;
const NOT_COMPRESSED: u64 = 255;

enum Stream {
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Reader<Bytes>>>>),
    Plain(Reader<Bytes>),
}

/// A compressed transaction, read up to some inner event.
pub(super) struct Payload {
    stream: Stream,
    /// Bytes that have not come out yet.
    left: u64,
    pub(super) span: EventSpan,
    /// The outer event's clock.
    pub(super) timestamp: u32,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("left", &self.left).field("span", &self.span).finish_non_exhaustive()
    }
}

/// The fields before the compressed bytes: type, length and value each, all length-encoded; type 0 ends them.
fn fields(body: &[u8]) -> Option<(u64, Option<u64>, &[u8])> {
    let mut at = Cursor::new(body);
    let (mut size, mut compression, mut original) = (None, None, None);
    loop {
        let field = at.lenenc()?;
        if field == 0 {
            break;
        }
        let mut value = Cursor::new(at.lenenc_bytes()?);
        match field {
            1 => size = Some(value.lenenc_len()?),
            2 => compression = Some(value.lenenc()?),
            3 => original = Some(value.lenenc()?),
            _ => {}
        }
    }
    let data = at.rest();
    let data = match size {
        Some(size) => data.get(..size)?,
        None => data,
    };
    Some((compression?, original, data))
}

impl Payload {
    pub(super) fn open(body: &Bytes, span: EventSpan, timestamp: u32) -> Result<Payload, DecodeError> {
        let malformed = |what| span.malformed("TRANSACTION_PAYLOAD", what);
        let (compression, original, data) = fields(body).ok_or_else(|| malformed("its fields are malformed"))?;
        let reader = body.slice_ref(data).reader();
        let (stream, left) = match (compression, original) {
            (COMPRESSED_WITH_ZSTD, Some(original)) => {
                let decoder = zstd::stream::read::Decoder::new(reader)
                    .map_err(|source| DecodeError::Payload { at: span.start(), source })?;
                (Stream::Zstd(Box::new(decoder)), original)
            }
            (COMPRESSED_WITH_ZSTD, None) => return Err(malformed("its uncompressed size is missing")),
            (NOT_COMPRESSED, original) => (Stream::Plain(reader), original.unwrap_or(data.len() as u64)),
            _ => return Err(malformed("it is compressed with an unknown method")),
        };
        Ok(Payload { stream, left, span, timestamp })
    }

    /// The next inner event: its header, and its body.
    pub(super) fn next(&mut self) -> Result<Option<(EventHeader, Bytes)>, DecodeError> {
        if self.left == 0 {
            return match self.read(1)?.len() {
                0 => Ok(None),
                _ => Err(self.malformed("it is longer than it says")),
            };
        }
        let head = self.exactly(HEADER_LEN as u64)?;
        let header = EventHeader::parse(&head).map_err(|source| self.span.frame(source))?;
        let body = self.exactly(u64::from(header.size) - HEADER_LEN as u64)?;
        Ok(Some((header, body.into())))
    }

    fn malformed(&self, what: &'static str) -> DecodeError {
        self.span.malformed("TRANSACTION_PAYLOAD", what)
    }

    fn exactly(&mut self, len: u64) -> Result<Vec<u8>, DecodeError> {
        self.left = self.left.checked_sub(len).ok_or_else(|| self.malformed("an inner event goes beyond its end"))?;
        let bytes = self.read(len)?;
        if bytes.len() as u64 != len {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(DecodeError::Payload { at: self.span.start(), source });
        }
        Ok(bytes)
    }

    /// Up to `len` bytes. Memory grows with what comes out, not with what a damaged header asks for.
    fn read(&mut self, len: u64) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = Vec::new();
        let read = match &mut self.stream {
            Stream::Zstd(stream) => stream.take(len).read_to_end(&mut bytes),
            Stream::Plain(stream) => stream.take(len).read_to_end(&mut bytes),
        };
        read.map_err(|source| DecodeError::Payload { at: self.span.start(), source })?;
        Ok(bytes)
    }
}
