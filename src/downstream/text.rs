//! Texts and bytes as SQL literals for the session that every connection to the downstream has: `utf8mb4`, backslash escapes
//! on.

use std::io::Write as _;

use crate::schema::is_ascii_compatible;

/// Text in `charset`, so that neither the session's character set nor a trailing backslash byte can change it.
pub fn write_text(out: &mut Vec<u8>, bytes: &[u8], charset: &str) {
    let as_is =
        matches!(charset, "utf8mb4" | "utf8mb3" | "ascii") || (is_ascii_compatible(charset) && bytes.is_ascii());
    if as_is {
        out.push(b'\'');
        escape_into(out, bytes);
        out.push(b'\'');
    } else {
        let _ = write!(out, "_{charset} x'");
        hex_into(out, bytes);
        out.push(b'\'');
    }
}

/// Bytes in hexadecimal, without quotes.
pub fn hex_into(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Escapes what ends a literal or what terminals and logs choke on.
pub fn escape_into(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len());
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    // Most text has nothing to escape, and is copied at once; else only the blocks are looked at byte by byte that have.
    let mut copied = 0;
    for (at, block) in blocks.iter().enumerate() {
        if has_special(block) {
            out.extend_from_slice(&bytes[copied..at * BLOCK]);
            escape_block(out, block);
            copied = (at + 1) * BLOCK;
        }
    }
    let mut last = [b' '; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    if has_special(&last) {
        out.extend_from_slice(&bytes[copied..blocks.len() * BLOCK]);
        escape_block(out, rest);
    } else {
        out.extend_from_slice(&bytes[copied..]);
    }
}

/// Bytes that are looked at in a few vector instructions.
const BLOCK: usize = 32;

/// Not inlined and without a way out inside: within another loop the compiler makes forty times as many instructions of it.
#[inline(never)]
fn has_special(block: &[u8; BLOCK]) -> bool {
    let is_special = |byte: u8| (byte == b'\'') | (byte == b'\\') | (byte == 0) | (byte == 0x1a);
    block.iter().fold(false, |any, &byte| any | is_special(byte))
}

fn escape_block(out: &mut Vec<u8>, block: &[u8]) {
    for &byte in block {
        match byte {
            b'\'' | b'\\' => out.extend([b'\\', byte]),
            0 => out.extend(b"\\0"),
            0x1a => out.extend(b"\\Z"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Texts around the sizes of blocks, with few or many bytes to be escaped.
        #[test]
        fn escapes_each_byte_that_needs_it_and_no_other(
            mut bytes in prop::collection::vec(b' '..=b'\x7f', 0..600),
            special in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"'\\\0\x1a"[..])), 0..4),
        ) {
            let len = bytes.len();
            for (at, byte) in special.into_iter().filter(|_| len > 0) {
                bytes[at.index(len)] = byte;
            }
            let mut wanted = Vec::new();
            for &byte in &bytes {
                match byte {
                    b'\'' | b'\\' => wanted.extend([b'\\', byte]),
                    0 => wanted.extend(b"\\0"),
                    0x1a => wanted.extend(b"\\Z"),
                    _ => wanted.push(byte),
                }
            }
            let mut got = Vec::new();
            escape_into(&mut got, &bytes);
            prop_assert_eq!(got, wanted);
        }
    }
}
