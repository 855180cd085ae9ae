//! The servers' packed decimal: groups of nine digits in four bytes, big-endian, the sign in the first bit.
//!
//! A negative number has all its bits inverted. Digits that fill no whole group stand first in the integer part and last
//! in the fraction, in as few bytes as they need.

/// Bytes that 0 to 9 digits take.
const BYTES_OF_DIGITS: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// The most digits the servers' arithmetic ever holds; columns have at most 65.
pub(crate) const MAX_DIGITS: u8 = 81;
/// Enough for [`MAX_DIGITS`] however they are split.
const MAX_BYTES: usize = 48;

/// Bytes of a decimal, or `None` where the scale is above the precision.
#[inline]
pub(crate) fn decimal_len(precision: u8, scale: u8) -> Option<usize> {
    let (integer, scale) = (usize::from(precision.checked_sub(scale)?), usize::from(scale));
    Some(integer / 9 * 4 + BYTES_OF_DIGITS[integer % 9] + scale / 9 * 4 + BYTES_OF_DIGITS[scale % 9])
}

/// The number as text with all digits of its scale, such as `-0.05`; `None` where the bytes are no such number.
pub(crate) fn decimal_text(precision: u8, scale: u8, bytes: &[u8]) -> Option<String> {
    if precision == 0 || precision > MAX_DIGITS || decimal_len(precision, scale)? != bytes.len() {
        return None;
    }
    let mut storage = [0u8; MAX_BYTES];
    let raw = storage.get_mut(..bytes.len())?;
    raw.copy_from_slice(bytes);
    let negative = raw[0] & 0x80 == 0;
    raw[0] ^= 0x80;
    if negative {
        raw.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let (integer, scale) = (usize::from(precision - scale), usize::from(scale));
    let mut digits = Digits { raw, text: Vec::with_capacity(usize::from(precision) + 3) };
    if negative {
        digits.text.push(b'-');
    }
    let start = digits.text.len();
    digits.group(integer % 9)?;
    for _ in 0..integer / 9 {
        digits.group(9)?;
    }
    let zeros = digits.text[start..].iter().take_while(|digit| **digit == b'0').count();
    digits.text.drain(start..start + zeros);
    if digits.text.len() == start {
        digits.text.push(b'0');
    }
    if scale > 0 {
        digits.text.push(b'.');
    }
    for _ in 0..scale / 9 {
        digits.group(9)?;
    }
    digits.group(scale % 9)?;
    String::from_utf8(digits.text).ok()
}

struct Digits<'a> {
    raw: &'a [u8],
    text: Vec<u8>,
}

impl Digits<'_> {
    /// Writes the next group, of `count` digits.
    fn group(&mut self, count: usize) -> Option<()> {
        let (bytes, rest) = self.raw.split_at_checked(BYTES_OF_DIGITS[count])?;
        self.raw = rest;
        let mut number = bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let mut text = [b'0'; 9];
        for digit in text[..count].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.text.extend_from_slice(&text[..count]);
        // More than the digits can say: these bytes are no decimal.
        (number == 0).then_some(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same packing, written from digits: an independent way to the bytes.
    pub(crate) fn pack(negative: bool, integer: &str, fraction: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut put = |digits: &str| {
            let number: u32 = digits.parse().unwrap();
            bytes.extend(&number.to_be_bytes()[4 - BYTES_OF_DIGITS[digits.len()]..]);
        };
        let (head, groups) = integer.split_at(integer.len() % 9);
        if !head.is_empty() {
            put(head);
        }
        (0..groups.len() / 9).for_each(|i| put(&groups[i * 9..i * 9 + 9]));
        (0..fraction.len() / 9).for_each(|i| put(&fraction[i * 9..i * 9 + 9]));
        let tail = &fraction[fraction.len() / 9 * 9..];
        if !tail.is_empty() {
            put(tail);
        }
        if negative {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        bytes[0] ^= 0x80;
        bytes
    }

    #[test]
    fn the_manual_s_example_and_the_edges() {
        let bytes = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(decimal_text(14, 4, &bytes).as_deref(), Some("1234567890.1234"));
        let negative: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        assert_eq!(decimal_text(14, 4, &negative).as_deref(), Some("-1234567890.1234"));
        assert_eq!(decimal_text(10, 2, &pack(true, "00000000", "05")).as_deref(), Some("-0.05"));
        assert_eq!(decimal_text(9, 9, &pack(false, "", "000000001")).as_deref(), Some("0.000000001"));
        assert_eq!(decimal_text(5, 0, &pack(false, "00000", "")).as_deref(), Some("0"));
        assert_eq!(decimal_text(2, 0, &[0x80 | 100]), None);
        assert_eq!(decimal_text(2, 3, &[0x80]), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back(
            negative in any::<bool>(),
            integer in "[0-9]{1,35}",
            fraction in "[0-9]{0,30}",
        ) {
            let bytes = pack(negative, &integer, &fraction);
            let (precision, scale) = ((integer.len() + fraction.len()) as u8, fraction.len() as u8);
            let trimmed = integer.trim_start_matches('0');
            let mut want = String::from(if negative { "-" } else { "" });
            want.push_str(if trimmed.is_empty() { "0" } else { trimmed });
            if !fraction.is_empty() {
                want.push('.');
                want.push_str(&fraction);
            }
            prop_assert_eq!(decimal_text(precision, scale, &bytes), Some(want));
        }

        #[test]
        fn arbitrary_bytes_never_panic(p in any::<u8>(), s in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decimal_text(p, s, &bytes);
            if let Some(len) = decimal_len(p, s) {
                let _ = decimal_text(p, s, &vec![0x5a; len]);
            }
        }
    }
}
