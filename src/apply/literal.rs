//! Values as SQL literals for a `utf8mb4` session with backslash escapes on.
//!
//! Text keeps its own character set by an introducer where the session's would change it; that also lets the server
//! convert where the downstream column has another one. Numbers are written so that they come back bit for bit.

use std::io::Write as _;

use crate::downstream::{escape_into, write_text};
use crate::row::{ColumnKind, RowError, Value, json, mask_unsigned};
use crate::schema::{BoundColumn, Dialect, Encoding};

/// Appends `value` as a literal for `column`. Gives back whether strict SQL modes would refuse it although the source
/// holds it (ENUM's error value).
pub fn write_literal(
    out: &mut Vec<u8>,
    value: &Value<'_>,
    column: &BoundColumn,
    dialect: Dialect,
) -> Result<bool, RowError> {
    match value {
        Value::Null => out.extend(b"NULL"),
        Value::Int(number) => match column.encoding {
            Encoding::Unsigned(kind) => display(out, mask_unsigned(kind, *number)),
            _ => display(out, *number),
        },
        Value::UInt(number) | Value::Bit(number) | Value::Set(number) => display(out, *number),
        // The exact double of a float has a short form that reads back to the same float.
        Value::Float(number) => exponent(out, f64::from(*number)),
        Value::Double(number) => exponent(out, *number),
        Value::Decimal(text) => out.extend(text.as_bytes()),
        Value::Year(year) => display(out, *year),
        Value::Enum(index) => {
            display(out, *index);
            return Ok(*index == 0);
        }
        Value::Bytes(bytes) => write_bytes(out, bytes, &column.encoding),
        Value::Json(bytes) => write_json(out, bytes, dialect)?,
        temporal => write_temporal(out, temporal),
    }
    Ok(false)
}

pub(super) fn display(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// With an exponent a literal is a double, not a decimal.
fn exponent(out: &mut Vec<u8>, value: f64) {
    let _ = write!(out, "{value:e}");
}

fn write_temporal(out: &mut Vec<u8>, value: &Value<'_>) {
    out.push(b'\'');
    match *value {
        Value::Date { year, month, day } => write_date(out, year, month, day),
        Value::Time { negative, hours, minutes, seconds, micros, fraction } => {
            if negative {
                out.push(b'-');
            }
            // Hours have two digits at least, and up to three.
            if hours < 10 {
                out.push(b'0');
            }
            display(out, hours);
            out.push(b':');
            two(out, minutes);
            out.push(b':');
            two(out, seconds);
            write_fraction(out, micros, fraction);
        }
        Value::DateTime { year, month, day, hour, minute, second, micros, fraction } => {
            write_date(out, year, month, day);
            write_clock(out, hour, minute, second);
            write_fraction(out, micros, fraction);
        }
        Value::Timestamp { seconds: 0, micros: 0, .. } => out.extend(b"0000-00-00 00:00:00"),
        Value::Timestamp { seconds, micros, fraction } => {
            write_utc(out, seconds);
            write_fraction(out, micros, fraction);
        }
        _ => {}
    }
    out.push(b'\'');
}

fn write_date(out: &mut Vec<u8>, year: u16, month: u8, day: u8) {
    digits::<4>(out, u32::from(year));
    out.push(b'-');
    two(out, month);
    out.push(b'-');
    two(out, day);
}

/// With the space before it.
fn write_clock(out: &mut Vec<u8>, hour: u8, minute: u8, second: u8) {
    out.push(b' ');
    two(out, hour);
    out.push(b':');
    two(out, minute);
    out.push(b':');
    two(out, second);
}

fn write_fraction(out: &mut Vec<u8>, micros: u32, fraction: u8) {
    if fraction > 0 {
        out.push(b'.');
        let start = out.len();
        digits::<6>(out, micros);
        out.truncate(start + usize::from(fraction.min(6)));
    }
}

fn two(out: &mut Vec<u8>, value: u8) {
    digits::<2>(out, u32::from(value));
}

/// Appends `N` digits; a value with more has all of its own.
fn digits<const N: usize>(out: &mut Vec<u8>, value: u32) {
    let (mut text, mut rest) = ([b'0'; N], value);
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if rest == 0 { out.extend_from_slice(&text) } else { display(out, value) }
}

/// Civil date from days since the epoch (Hinnant's algorithm), time from the rest. The apply session is in UTC.
fn write_utc(out: &mut Vec<u8>, seconds: u32) {
    let (days, rest) = (i64::from(seconds / 86_400), seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // 32 bits of seconds end in 2106, and a day has 86,400.
    write_date(out, year as u16, month as u8, day as u8);
    write_clock(out, (rest / 3600) as u8, (rest / 60 % 60) as u8, (rest % 60) as u8);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8], encoding: &Encoding) {
    match *encoding {
        Encoding::Text(charset) => write_text(out, bytes, charset),
        Encoding::Utf8Or(other) => {
            let charset = if std::str::from_utf8(bytes).is_ok() { "utf8mb4" } else { other };
            write_text(out, bytes, charset);
        }
        Encoding::Uuid => write_uuid(out, &padded(bytes, 16)),
        Encoding::Inet { bytes: width } => write_inet(out, &padded(bytes, width)),
        Encoding::Binary { pad } => {
            out.extend(b"_binary'");
            escape_into(out, bytes);
            (bytes.len()..pad).for_each(|_| out.extend(b"\\0"));
            out.push(b'\'');
        }
        _ => {
            out.extend(b"_binary'");
            escape_into(out, bytes);
            out.push(b'\'');
        }
    }
}

/// The image strips trailing zeros of fixed-length values.
fn padded(bytes: &[u8], width: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(width.max(bytes.len()), 0);
    padded
}

/// MariaDB stores a UUID of versions 1 to 5 with its groups in reverse order, others as they are; the variant and version
/// bits tell which.
fn write_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    let reversed = bytes[6] & 0x80 != 0 && bytes[8] > 0 && bytes[8] < 0x60;
    let groups: [&[u8]; 5] = if reversed {
        [&bytes[12..16], &bytes[10..12], &bytes[8..10], &bytes[6..8], &bytes[0..6]]
    } else {
        [&bytes[0..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..16]]
    };
    for (at, group) in groups.into_iter().enumerate() {
        out.push(if at == 0 { b'\'' } else { b'-' });
        // As MariaDB prints them: the column may be one of text.
        for byte in group {
            let _ = write!(out, "{byte:02x}");
        }
    }
    out.push(b'\'');
}

fn write_inet(out: &mut Vec<u8>, bytes: &[u8]) {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        let _ = write!(out, "'{}'", std::net::Ipv4Addr::from(four));
    } else if let Ok(sixteen) = <[u8; 16]>::try_from(bytes) {
        // An IPv4 address in it is printed as one.
        match (sixteen[..12].iter().all(|byte| *byte == 0), &sixteen[12..]) {
            (true, [a, b, c, d]) if (*a, *b) != (0, 0) => {
                let _ = write!(out, "'::{a}.{b}.{c}.{d}'");
            }
            _ => {
                let _ = write!(out, "'{}'", std::net::Ipv6Addr::from(sixteen));
            }
        }
    }
}

/// MySQL keeps the types inside a document only if they are built as expressions; the others store text.
fn write_json(out: &mut Vec<u8>, bytes: &[u8], dialect: Dialect) -> Result<(), RowError> {
    let malformed = |_| RowError::Malformed { column: 0, what: "binary JSON" };
    if dialect == Dialect::MySql {
        return json::to_sql(bytes, out).map_err(malformed);
    }
    let text = json::to_text(bytes).map_err(malformed)?;
    write_text(out, text.as_bytes(), "utf8mb4");
    Ok(())
}

/// The kinds whose equality the server judges by value and not by text.
pub fn is_json(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::Json { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(encoding: Encoding) -> BoundColumn {
        BoundColumn {
            quoted: "`c`".into(),
            encoding,
            writable: true,
            text_charset: None,
            text_collation: None,
            compares_by_bytes: true,
            formatted: false,
        }
    }

    fn literal(value: Value<'_>, encoding: Encoding) -> String {
        let mut out = Vec::new();
        write_literal(&mut out, &value, &column(encoding), Dialect::MySql).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_keep_every_bit() {
        assert_eq!(literal(Value::Int(-1), Encoding::Unsigned(ColumnKind::MediumInt)), "16777215");
        assert_eq!(literal(Value::Int(-1), Encoding::Plain), "-1");
        for number in [0.1, -0.0, 1.797_693_134_862_315_7e308, 1.0 / 3.0] {
            let text = literal(Value::Double(number), Encoding::Plain);
            assert!(text.contains('e'), "{text} would be a decimal");
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
        let float = 16_777_217f32 / 3.0;
        assert_eq!(literal(Value::Float(float), Encoding::Plain).parse::<f64>().unwrap() as f32, float);
    }

    #[test]
    fn times_are_utc_and_keep_their_digits() {
        let at = |seconds, micros, fraction| literal(Value::Timestamp { seconds, micros, fraction }, Encoding::Plain);
        assert_eq!(at(0, 0, 3), "'0000-00-00 00:00:00'");
        assert_eq!(at(1_709_251_199, 0, 0), "'2024-02-29 23:59:59'");
        assert_eq!(at(2_147_483_647, 999_000, 3), "'2038-01-19 03:14:07.999'");
        let time = |negative, hours, micros, fraction| {
            literal(Value::Time { negative, hours, minutes: 0, seconds: 7, micros, fraction }, Encoding::Plain)
        };
        assert_eq!(time(true, 0, 500_000, 1), "'-00:00:07.5'");
        assert_eq!((time(false, 9, 0, 0), time(false, 838, 42, 6)), ("'09:00:07'".into(), "'838:00:07.000042'".into()));
        let date = |year, month, day| literal(Value::Date { year, month, day }, Encoding::Plain);
        assert_eq!((date(0, 0, 0), date(9999, 12, 31)), ("'0000-00-00'".into(), "'9999-12-31'".into()));
    }

    #[test]
    fn text_keeps_its_character_set() {
        let text = |bytes: &'static [u8], charset| literal(Value::Bytes(bytes.into()), Encoding::Text(charset));
        assert_eq!(text(b"it's \\ \0", "utf8mb4"), "'it\\'s \\\\ \\0'");
        assert_eq!(text(b"abc", "latin1"), "'abc'");
        assert_eq!(text(b"\xb5\x5c", "gbk"), "_gbk x'B55C'");
        assert_eq!(text(b"\0a", "ucs2"), "_ucs2 x'0061'");
        let either = |bytes: &'static [u8]| literal(Value::Bytes(bytes.into()), Encoding::Utf8Or("latin1"));
        assert_eq!(either("é".as_bytes()), "'é'");
        assert_eq!(either(b"\xe9"), "_latin1 x'E9'");
    }

    #[test]
    fn fixed_length_bytes_are_padded() {
        assert_eq!(literal(Value::Bytes(b"\x01"[..].into()), Encoding::Binary { pad: 3 }), "_binary'\u{1}\\0\\0'");
        let inet = literal(Value::Bytes(b"\x0a"[..].into()), Encoding::Inet { bytes: 4 });
        assert_eq!(inet, "'10.0.0.0'");
    }

    #[test]
    fn uuid_groups_are_put_back() {
        // 123e4567-e89b-12d3-a456-426655440000 as MariaDB stores it.
        let stored = b"\x42\x66\x55\x44\x00\x00\xa4\x56\x12\xd3\xe8\x9b\x12\x3e\x45\x67";
        let text = literal(Value::Bytes(stored[..].into()), Encoding::Uuid);
        assert_eq!(text, "'123e4567-e89b-12d3-a456-426655440000'");
    }
}
