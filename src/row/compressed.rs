//! MariaDB's two compressed forms: values of COMPRESSED columns, and the bodies of compressed events.
//!
//! Both are a head byte, the original length big-endian, and a deflate stream. The stated length bounds what is ever
//! allocated beyond the bytes that really come out of the stream.

use std::io::Read;

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::wire::be;

/// What is wrong with compressed bytes.
pub(crate) type Reason = &'static str;

/// A value of a COMPRESSED column as the user wrote it. Borrowed where it was too short to be worth compressing.
pub(crate) fn column_value(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, Reason> {
    // The empty value has not even a head.
    let Some((&head, rest)) = bytes.split_first() else { return Ok(bytes.into()) };
    match head >> 4 {
        0 => Ok(rest.into()),
        8 => {
            let (len, data) =
                rest.split_at_checked(usize::from(head & 7)).ok_or("compressed value without its length")?;
            let len = be(len);
            // Bit 3: the stream has no zlib header (`column_compression_zlib_wrap=OFF`, the default).
            let value = match head & 8 {
                0 => inflate(ZlibDecoder::new(data), len),
                _ => inflate(DeflateDecoder::new(data), len),
            };
            value.map(Into::into)
        }
        _ => Err("compressed with an unknown method"),
    }
}

/// The original of a compressed part of an event (`log_bin_compress=ON`).
pub(crate) fn event_part(bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    let (&head, rest) = bytes.split_first().ok_or("compressed event without its head")?;
    if head & 0x80 == 0 || head & 0x70 != 0 {
        return Err("compressed with an unknown method");
    }
    let len_bytes = usize::from(head & 0x0f);
    if !(1..=4).contains(&len_bytes) {
        return Err("length of a compressed event is malformed");
    }
    let (len, data) = rest.split_at_checked(len_bytes).ok_or("compressed event without its length")?;
    inflate(ZlibDecoder::new(data), be(len))
}

fn inflate(stream: impl Read, len: u64) -> Result<Vec<u8>, Reason> {
    let mut out = Vec::new();
    stream.take(len.saturating_add(1)).read_to_end(&mut out).map_err(|_| "deflate stream is malformed")?;
    if out.len() as u64 != len { Err("deflate stream has another length than stated") } else { Ok(out) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn compress_event_part(data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x84];
        bytes.extend((data.len() as u32).to_be_bytes());
        let mut encoder = ZlibEncoder::new(bytes, Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn raw_and_wrapped_streams_and_plain_values() {
        let text = vec![b'a'; 1000];
        let mut encoder = DeflateEncoder::new(vec![0x8a, 0x03, 0xe8], Compression::fast());
        encoder.write_all(&text).unwrap();
        assert_eq!(column_value(&encoder.finish().unwrap()).unwrap(), text);
        let mut encoder = ZlibEncoder::new(vec![0x82, 0x03, 0xe8], Compression::fast());
        encoder.write_all(&text).unwrap();
        assert_eq!(column_value(&encoder.finish().unwrap()).unwrap(), text);
        assert_eq!(column_value(b"\0b").unwrap(), &b"b"[..]);
        assert_eq!(column_value(b"").unwrap(), &b""[..]);
        assert_eq!(event_part(&compress_event_part(&text)).unwrap(), text);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let mut bytes = compress_event_part(b"abc");
        bytes[4] = 2;
        assert!(event_part(&bytes).is_err());
        bytes[4] = 4;
        assert!(event_part(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = column_value(&bytes);
            let _ = event_part(&bytes);
        }
    }
}
