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
    // Most text has nothing to escape; without a way out inside, a block is looked at in a few vector instructions.
    for block in bytes.chunks(64) {
        let any = block.iter().fold(false, |any, &byte| any | matches!(byte, b'\'' | b'\\' | 0 | 0x1a));
        if any { escape_block(out, block) } else { out.extend_from_slice(block) }
    }
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
