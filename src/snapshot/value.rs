//! Values: how each column is asked for at the source, and how its answer is written as a literal.
//!
//! Answers come in the text protocol, in UTC, with texts as the bytes that are stored. What the server would round or make
//! ambiguous as text is asked for otherwise: numbers behind ENUM and SET, floats as doubles.

use std::io::Write as _;

use super::structure::Column;
use crate::downstream::{escape_into, hex_into, write_text};

/// What a column's answers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Digits that are a literal as they are.
    Number,
    /// A double's digits.
    Double,
    /// Big-endian bits.
    Bits,
    /// The number of a member; 0 is the error value, which strict modes refuse.
    Enum,
    /// Text in a character set.
    Text(String),
    /// Dates, times, UUIDs, addresses: ASCII that a string literal stands for.
    Quoted,
    /// Bytes as they are stored.
    Bytes,
    /// A document as text.
    Json,
}

impl Kind {
    /// Of a column of the source.
    pub fn of(column: &Column) -> Kind {
        match column.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "decimal" | "numeric" | "year"
            | "set" => Kind::Number,
            "float" | "double" | "real" => Kind::Double,
            "bit" => Kind::Bits,
            "enum" => Kind::Enum,
            "date" | "time" | "datetime" | "timestamp" | "uuid" | "inet4" | "inet6" => Kind::Quoted,
            "json" => Kind::Json,
            _ => match &column.charset {
                Some(charset) if charset != "binary" => Kind::Text(charset.clone()),
                _ => Kind::Bytes,
            },
        }
    }

    /// What asks for it, given the column's quoted name.
    pub fn expression(&self, column: &Column, name: &str) -> String {
        match (self, column.data_type.as_str()) {
            // By number: a member's text may be in no character set that the target knows.
            (Kind::Enum, _) | (_, "set") => format!("CAST({name} AS UNSIGNED)"),
            // A float's text has six digits; as a double it has all of them.
            (Kind::Double, _) => format!("{name}*1e0"),
            _ => name.to_owned(),
        }
    }

    /// Whether one value may be large.
    pub fn is_long(column: &Column) -> bool {
        matches!(
            column.data_type.as_str(),
            "blob" | "mediumblob" | "longblob" | "text" | "mediumtext" | "longtext" | "json" | "geometry" | "vector"
        )
    }

    /// Whether one value may have megabytes.
    pub fn is_huge(column: &Column) -> bool {
        Kind::is_long(column) && !matches!(column.data_type.as_str(), "blob" | "text" | "vector")
    }

    /// Appends the literal of an answer. True for a value that strict modes refuse although the source holds it.
    pub fn write(&self, out: &mut Vec<u8>, answer: Option<&[u8]>) -> bool {
        let Some(bytes) = answer else {
            out.extend(b"NULL");
            return false;
        };
        match self {
            // The column has another type by now, and holds texts: they are no part of a statement.
            Kind::Number | Kind::Double | Kind::Enum if !is_number(bytes) => quote_into(out, bytes),
            Kind::Number => out.extend(bytes),
            Kind::Double => {
                out.extend(bytes);
                // Without an exponent it would be a decimal, and lose the sign of zero.
                if !bytes.contains(&b'e') {
                    out.extend(b"e0");
                }
            }
            Kind::Bits => {
                let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
                let _ = write!(out, "{number}");
            }
            Kind::Enum => {
                out.extend(bytes);
                return bytes == b"0";
            }
            Kind::Text(charset) => write_text(out, bytes, charset),
            Kind::Json => write_text(out, bytes, "utf8mb4"),
            Kind::Quoted => quote_into(out, bytes),
            Kind::Bytes => {
                out.extend(b"_binary'");
                escape_into(out, bytes);
                out.push(b'\'');
            }
        }
        false
    }

    /// The literal of a key's answer, for a comparison: always UTF-8, so that it can be stored with a mark.
    pub fn key_literal(&self, answer: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        match (self, answer) {
            (Kind::Bytes, Some(bytes)) => {
                out.extend(b"x'");
                hex_into(&mut out, bytes);
                out.push(b'\'');
            }
            // Text that claims a character set and is none of it is still compared by its bytes.
            (Kind::Text(charset), Some(bytes)) if std::str::from_utf8(bytes).is_err() => {
                let _ = write!(out, "_{charset} x'");
                hex_into(&mut out, bytes);
                out.push(b'\'');
            }
            (kind, answer) => {
                kind.write(&mut out, answer);
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn quote_into(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'\'');
    escape_into(out, bytes);
    out.push(b'\'');
}

/// Whether an answer is a literal as it stands.
fn is_number(bytes: &[u8]) -> bool {
    let part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    bytes.iter().all(part) && bytes.iter().any(u8::is_ascii_digit)
}

/// What a load makes of a field, so that it is the value that an INSERT would have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    /// The bytes as they are.
    AsItIs,
    /// The number that its digits say: as a text it would be taken for a member, or for a year of two digits.
    Number,
    /// A text in that character set: as bytes it is refused, or read in units.
    Text(String),
}

/// Types whose text a load reads as an INSERT does. Not here: GEOMETRY and VECTOR, which want a function.
const TYPES: [&str; 28] = [
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "integer",
    "bigint",
    "decimal",
    "numeric",
    "float",
    "double",
    "real",
    "bit",
    "date",
    "time",
    "datetime",
    "timestamp",
    "char",
    "varchar",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "binary",
    "varbinary",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
];
/// Of these the answers are numbers that stand for something.
const NUMBERED: [&str; 3] = ["enum", "set", "year"];
/// Of these the answers are ASCII, and as bytes they would be the value itself.
const SPELLED: [&str; 3] = ["uuid", "inet4", "inet6"];
/// Character sets whose bytes cannot be taken as they are: a load reads them in units.
const WIDE: [&str; 4] = ["ucs2", "utf16", "utf16le", "utf32"];
/// Of JSON, and of the text that MariaDB has for it.
const DOCUMENTS: &str = "utf8mb4";

/// How values of a column can be loaded, if they can.
pub(super) fn field(column: &Column, twin: &Column) -> Option<Field> {
    let (kind, same) = (column.data_type.as_str(), column.data_type == twin.data_type);
    let is_text = |column: &Column| column.charset.as_deref() == Some(DOCUMENTS) && TYPES.contains(&&*column.data_type);
    if twin.data_type == "json" {
        return (kind == "json" || is_text(column)).then(|| Field::Text(DOCUMENTS.to_owned()));
    }
    if kind == "json" {
        return (twin.data_type == "longtext" && is_text(twin)).then_some(Field::AsItIs);
    }
    if !same || column.charset != twin.charset {
        return None;
    }
    match column.charset.as_deref() {
        _ if NUMBERED.contains(&kind) => Some(Field::Number),
        _ if SPELLED.contains(&kind) => Some(Field::Text("latin1".to_owned())),
        Some(charset) if WIDE.contains(&charset) => Some(Field::Text(charset.to_owned())),
        _ => TYPES.contains(&kind).then_some(Field::AsItIs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(kind: &Kind, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        kind.write(&mut out, Some(bytes));
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn numbers_stay_what_they_are() {
        assert_eq!(literal(&Kind::Number, b"-12345678901234567890.12"), "-12345678901234567890.12");
        assert_eq!(literal(&Kind::Double, b"-0"), "-0e0");
        assert_eq!(literal(&Kind::Double, b"1.7976931348623157e308"), "1.7976931348623157e308");
        assert_eq!(literal(&Kind::Bits, &[0x0a, 0xaa]), "2730");
        assert_eq!(literal(&Kind::Bits, &[0xff; 8]), "18446744073709551615");
    }

    #[test]
    fn what_is_no_number_any_more_is_no_statement() {
        for kind in [Kind::Number, Kind::Double, Kind::Enum] {
            assert_eq!(literal(&kind, b"0); DROP TABLE t -- "), "'0); DROP TABLE t -- '");
            assert_eq!(literal(&kind, b""), "''");
            assert_eq!(kind.key_literal(Some(b"x' OR 1")), "'x\\' OR 1'");
        }
    }

    #[test]
    fn an_enum_that_holds_nothing_is_told() {
        let mut out = Vec::new();
        assert!(Kind::Enum.write(&mut out, Some(b"0")));
        assert!(!Kind::Enum.write(&mut out, Some(b"10")) && !Kind::Enum.write(&mut out, None));
    }

    #[test]
    fn keys_are_utf8() {
        assert_eq!(Kind::Bytes.key_literal(Some(b"\xff'")), "x'FF27'");
        assert_eq!(Kind::Text("gbk".into()).key_literal(Some(b"\xb5\x5c")), "_gbk x'B55C'");
        assert_eq!(Kind::Text("utf8mb4".into()).key_literal(Some("é'".as_bytes())), "'é\\''");
        assert_eq!(Kind::Text("utf8mb4".into()).key_literal(Some(b"\xc3")), "_utf8mb4 x'C3'");
    }
}
