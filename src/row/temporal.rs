//! Dates and times: the packed big-endian formats since MySQL 5.6, and the decimal ones before, which MariaDB still
//! writes where `mysql56_temporal_format` is off.
//!
//! Values are passed on as they are stored: zero and invalid dates mean something to the server that wrote them.

use super::types::Value;
use super::wire::{Cursor, be, le};

/// Bytes that a fraction of so many digits takes.
#[inline]
pub(super) fn fraction_len(fraction: u8) -> usize {
    usize::from(fraction.div_ceil(2))
}

/// Microseconds in units of a stored fraction: stored in hundredths, ten-thousandths or millionths.
fn micros_of(stored: i64, len: usize) -> i64 {
    match len {
        1 => stored * 10_000,
        2 => stored * 100,
        _ => stored,
    }
}

pub(super) fn date<'a>(at: &mut Cursor<'a>) -> Option<Value<'a>> {
    let raw = le(&at.array::<3>()?) as u32;
    Some(Value::Date { year: (raw >> 9) as u16, month: (raw >> 5 & 15) as u8, day: (raw & 31) as u8 })
}

/// A negative TIME is stored as its two's complement *including* the fraction, so the integer part of one with a fraction
/// is one too low and the fraction counts upwards from there.
pub(super) fn time<'a>(at: &mut Cursor<'a>, fraction: u8) -> Option<Value<'a>> {
    let len = fraction_len(fraction);
    let bytes = at.take(3 + len)?;
    let raw = be(bytes) as i64 - (0x80_0000 << (8 * len));
    let magnitude = raw.unsigned_abs();
    let micros = micros_of((magnitude & ((1 << (8 * len)) - 1)) as i64, len) as u32;
    let hms = (magnitude >> (8 * len)) as u32;
    Some(Value::Time {
        negative: raw < 0,
        hours: hms >> 12,
        minutes: (hms >> 6 & 63) as u8,
        seconds: (hms & 63) as u8,
        micros,
        fraction,
    })
}

pub(super) fn datetime<'a>(at: &mut Cursor<'a>, fraction: u8) -> Option<Value<'a>> {
    let packed = be(&at.array::<5>()?);
    let len = fraction_len(fraction);
    let micros = micros_of(be(at.take(len)?) as i64, len) as u32;
    // The top bit is the sign; there are no negative datetimes.
    let packed = packed.checked_sub(0x80_0000_0000)?;
    let (ymd, hms) = (packed >> 17, packed & 0x1_ffff);
    let months = ymd >> 5;
    Some(Value::DateTime {
        year: (months / 13) as u16,
        month: (months % 13) as u8,
        day: (ymd & 31) as u8,
        hour: (hms >> 12) as u8,
        minute: (hms >> 6 & 63) as u8,
        second: (hms & 63) as u8,
        micros,
        fraction,
    })
}

pub(super) fn timestamp<'a>(at: &mut Cursor<'a>, fraction: u8) -> Option<Value<'a>> {
    let seconds = be(&at.array::<4>()?) as u32;
    let len = fraction_len(fraction);
    let micros = micros_of(be(at.take(len)?) as i64, len) as u32;
    Some(Value::Timestamp { seconds, micros, fraction })
}

pub(super) fn old_time<'a>(at: &mut Cursor<'a>) -> Option<Value<'a>> {
    let raw = le(&at.array::<3>()?) as i32;
    let signed = (raw << 8) >> 8;
    let decimal = signed.unsigned_abs();
    Some(Value::Time {
        negative: signed < 0,
        hours: decimal / 10_000,
        minutes: (decimal / 100 % 100) as u8,
        seconds: (decimal % 100) as u8,
        micros: 0,
        fraction: 0,
    })
}

pub(super) fn old_datetime<'a>(at: &mut Cursor<'a>) -> Option<Value<'a>> {
    let decimal = at.u64()?;
    let (date, time) = (decimal / 1_000_000, decimal % 1_000_000);
    Some(Value::DateTime {
        year: u16::try_from(date / 10_000).ok()?,
        month: (date / 100 % 100) as u8,
        day: (date % 100) as u8,
        hour: (time / 10_000) as u8,
        minute: (time / 100 % 100) as u8,
        second: (time % 100) as u8,
        micros: 0,
        fraction: 0,
    })
}

pub(super) fn old_timestamp<'a>(at: &mut Cursor<'a>) -> Option<Value<'a>> {
    Some(Value::Timestamp { seconds: at.u32()?, micros: 0, fraction: 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The server's way to the bytes: integer part floored, the remainder of the division added in two's complement.
    fn pack_time(negative: bool, h: u32, m: u8, s: u8, micros: u32, fraction: u8) -> Vec<u8> {
        let hms = i64::from(h) << 12 | i64::from(m) << 6 | i64::from(s);
        let len = fraction_len(fraction);
        let stored = i64::from(micros) / [1_000_000, 10_000, 100, 1][len];
        let packed = (hms << (8 * len)) + if len == 0 { 0 } else { stored };
        let packed = if negative { -packed } else { packed } + (0x80_0000 << (8 * len));
        packed.to_be_bytes()[8 - 3 - len..].to_vec()
    }

    #[test]
    fn negative_times_with_fractions() {
        let minus_half = [0x7f, 0xff, 0xff, 0xce];
        let want = Value::Time { negative: true, hours: 0, minutes: 0, seconds: 0, micros: 500_000, fraction: 1 };
        assert_eq!(time(&mut Cursor::new(&minus_half), 1), Some(want));
        let want = Value::Time { negative: true, hours: 12, minutes: 34, seconds: 56, micros: 900_000, fraction: 2 };
        assert_eq!(time(&mut Cursor::new(&pack_time(true, 12, 34, 56, 900_000, 2)), 2), Some(want));
        let want = Value::Time { negative: true, hours: 838, minutes: 59, seconds: 59, micros: 0, fraction: 0 };
        assert_eq!(time(&mut Cursor::new(&[0x4b, 0x91, 0x05]), 0), Some(want));
    }

    #[test]
    fn old_formats() {
        let want = Value::Time { negative: true, hours: 12, minutes: 34, seconds: 56, micros: 0, fraction: 0 };
        assert_eq!(old_time(&mut Cursor::new(&(-123_456i32).to_le_bytes()[..3])), Some(want));
        let want =
            Value::DateTime { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 58, micros: 0, fraction: 0 };
        assert_eq!(old_datetime(&mut Cursor::new(&20_240_229_235_958u64.to_le_bytes())), Some(want));
    }

    #[test]
    fn zero_and_invalid_dates_stay() {
        assert_eq!(date(&mut Cursor::new(&[0, 0, 0])), Some(Value::Date { year: 0, month: 0, day: 0 }));
        let raw = 2023u32 << 9 | 2 << 5 | 31;
        let want = Value::Date { year: 2023, month: 2, day: 31 };
        assert_eq!(date(&mut Cursor::new(&raw.to_le_bytes()[..3])), Some(want));
        let zero = Value::DateTime { year: 0, month: 0, day: 0, hour: 0, minute: 0, second: 0, micros: 0, fraction: 0 };
        assert_eq!(datetime(&mut Cursor::new(&[0x80, 0, 0, 0, 0]), 0), Some(zero));
        assert_eq!(datetime(&mut Cursor::new(&[0x7f, 0, 0, 0, 0]), 0), None);
    }

    proptest! {
        #[test]
        fn times_come_back(negative in any::<bool>(), hours in 0u32..839, minutes in 0u8..60, seconds in 0u8..60,
                           micros in 0u32..1_000_000, fraction in 0u8..7) {
            let unit = [1_000_000, 10_000, 10_000, 100, 100, 1, 1][usize::from(fraction)];
            let micros = micros / unit * unit;
            prop_assume!(!negative || hours + u32::from(minutes) + u32::from(seconds) + micros > 0);
            let bytes = pack_time(negative, hours, minutes, seconds, micros, fraction);
            let want = Value::Time { negative, hours, minutes, seconds, micros, fraction };
            prop_assert_eq!(time(&mut Cursor::new(&bytes), fraction), Some(want));
        }

        #[test]
        fn datetimes_come_back(year in 0u16..10_000, month in 0u8..13, day in 0u8..32, hour in 0u8..24,
                               minute in 0u8..60, second in 0u8..60, micros in 0u32..1_000_000) {
            let ymd = (u64::from(year) * 13 + u64::from(month)) << 5 | u64::from(day);
            let packed = (ymd << 17 | u64::from(hour) << 12 | u64::from(minute) << 6 | u64::from(second)) + 0x80_0000_0000;
            let mut bytes = packed.to_be_bytes()[3..].to_vec();
            bytes.extend(&micros.to_be_bytes()[1..]);
            let want = Value::DateTime { year, month, day, hour, minute, second, micros, fraction: 6 };
            prop_assert_eq!(datetime(&mut Cursor::new(&bytes), 6), Some(want));
        }
    }
}
