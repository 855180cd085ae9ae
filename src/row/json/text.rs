//! JSON as the server prints it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Budget, Json, JsonError, MAX_DEPTH, Result, opaque, root};
use crate::row::decimal::decimal_text;
use crate::row::wire::le;

/// Base64 is broken into lines of this many characters, as the server does.
const BASE64_LINE: usize = 76;
/// The server prints a double without exponent where the decimal point would stand within these digits.
const FIXED_POINT: std::ops::RangeInclusive<i32> = -14..=15;

/// Prints a document as MySQL does: members in stored order, `", "` and `": "` between them.
pub fn to_text(document: &[u8]) -> Result<String> {
    let mut out = Vec::with_capacity(document.len() + document.len() / 4);
    write_text(&mut out, root(document)?, MAX_DEPTH, &mut Budget::of(document))?;
    String::from_utf8(out).map_err(|_| JsonError::Malformed("a string is not UTF-8"))
}

pub(super) fn write_text(out: &mut Vec<u8>, value: Json<'_>, depth: usize, budget: &mut Budget) -> Result<()> {
    budget.spend(value.cost())?;
    match value {
        Json::Null => out.extend(b"null"),
        Json::Bool(true) => out.extend(b"true"),
        Json::Bool(false) => out.extend(b"false"),
        Json::Int(number) => out.extend(number.to_string().bytes()),
        Json::UInt(number) => out.extend(number.to_string().bytes()),
        Json::Double(number) => out.extend(double(number)?.bytes()),
        Json::String(text) => quote(out, text),
        Json::Opaque { kind, data } => write_opaque(out, kind, data)?,
        Json::Container(container) => {
            let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
            out.push(if container.object { b'{' } else { b'[' });
            for index in 0..container.count {
                if index > 0 {
                    out.extend(b", ");
                }
                if container.object {
                    let key = container.key(index)?;
                    budget.spend(key.len())?;
                    quote(out, key);
                    out.extend(b": ");
                }
                write_text(out, container.value(index)?, depth, budget)?;
            }
            out.push(if container.object { b'}' } else { b']' });
        }
    }
    Ok(())
}

/// Quotes, backslashes and control characters escaped; everything else as it is.
fn quote(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            8 => out.extend(b"\\b"),
            12 => out.extend(b"\\f"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..0x20 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// The shortest digits that mean the number, with `.0` where it would look like an integer.
fn double(number: f64) -> Result<String> {
    if !number.is_finite() {
        return Err(JsonError::Malformed("a number is not finite"));
    }
    let scientific = format!("{number:e}");
    // `{:e}` of a finite number always has an exponent.
    let exponent = scientific.rsplit_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    let point = exponent + 1;
    if !FIXED_POINT.contains(&point) {
        return Ok(scientific);
    }
    let fixed = format!("{number}");
    Ok(if fixed.contains('.') { fixed } else { fixed + ".0" })
}

fn write_opaque(out: &mut Vec<u8>, kind: u8, data: &[u8]) -> Result<()> {
    match kind {
        opaque::DECIMAL => out.extend(decimal(data)?.2.bytes()),
        opaque::DATE => quoted(out, &date_text(packed(data)?)),
        opaque::DATETIME | opaque::TIMESTAMP => quoted(out, &datetime_text(packed(data)?)),
        opaque::TIME => quoted(out, &time_text(packed(data)?)),
        _ => {
            let encoded = STANDARD.encode(data);
            let mut text = format!("base64:type{kind}:");
            for (line, chunk) in encoded.as_bytes().chunks(BASE64_LINE).enumerate() {
                if line > 0 {
                    text.push('\n');
                }
                text.extend(chunk.iter().map(|byte| char::from(*byte)));
            }
            quote(out, text.as_bytes());
        }
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    quote(out, text.as_bytes());
}

/// Precision, scale and text of an opaque decimal.
pub(super) fn decimal(data: &[u8]) -> Result<(u8, u8, String)> {
    let malformed = JsonError::Malformed("a decimal is malformed");
    let [precision, scale, digits @ ..] = data else { return Err(malformed) };
    let text = decimal_text(*precision, *scale, digits).ok_or(malformed)?;
    Ok((*precision, *scale, text))
}

/// A date or time in the server's packed form: fields above 24 bits of microseconds.
pub(super) fn packed(data: &[u8]) -> Result<i64> {
    if data.len() != 8 {
        return Err(JsonError::Malformed("a date or time has not eight bytes"));
    }
    Ok(le(data) as i64)
}

fn ymd(packed: i64) -> String {
    let days = packed.unsigned_abs() >> 41;
    format!("{:04}-{:02}-{:02}", (days >> 5) / 13, (days >> 5) % 13, days & 31)
}

pub(super) fn date_text(packed: i64) -> String {
    ymd(packed)
}

pub(super) fn datetime_text(packed: i64) -> String {
    let raw = packed.unsigned_abs();
    let (hms, micros) = (raw >> 24 & 0x1_ffff, raw & 0xff_ffff);
    format!("{} {:02}:{:02}:{:02}.{micros:06}", ymd(packed), hms >> 12, hms >> 6 & 63, hms & 63)
}

pub(super) fn time_text(packed: i64) -> String {
    let sign = if packed < 0 { "-" } else { "" };
    let raw = packed.unsigned_abs();
    let (hms, micros) = (raw >> 24, raw & 0xff_ffff);
    format!("{sign}{:02}:{:02}:{:02}.{micros:06}", hms >> 12 & 0x3ff, hms >> 6 & 63, hms & 63)
}
