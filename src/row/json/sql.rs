//! JSON as an SQL expression that makes the same value again, types included, on MySQL 8 and later.
//!
//! Text is enough for most documents. A decimal, a date, a binary string or an integer whose signedness text does not
//! tell is built with JSON_OBJECT, JSON_ARRAY and CAST around it; members that text is enough for stay text. Strings carry
//! the introducer `_utf8mb4`, so that the expression means the same under `SET NAMES binary`. Not kept: the column type of
//! binary strings, which no expression can choose; their bytes are.

use super::text::{date_text, datetime_text, decimal, packed, time_text, write_text};
use super::{Budget, Container, Json, JsonError, MAX_DEPTH, Result, opaque, root};

/// Whether the document's text, parsed again by a server, gives the same value with the same types.
pub fn is_text_lossless(document: &[u8]) -> Result<bool> {
    lossless(root(document)?, MAX_DEPTH, &mut Budget::of(document))
}

/// Writes the expression: a string literal where text is lossless, else a call. Backslash escapes must be on in the
/// session.
pub fn to_sql(document: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let value = root(document)?;
    let mut writer = Writer { document, out };
    if lossless(value, MAX_DEPTH, &mut writer.budget())? {
        return writer.text(value);
    }
    if let Json::Container(container) = value {
        return writer.container(container, MAX_DEPTH, &mut Budget::of(document));
    }
    // A scalar becomes JSON by being put into an array and taken out again: CAST refuses binary strings.
    writer.out.extend(b"JSON_EXTRACT(JSON_ARRAY(");
    writer.value(value, MAX_DEPTH, &mut Budget::of(document))?;
    writer.out.extend(b"), _utf8mb4'$[0]')");
    Ok(())
}

/// A server's parser makes a signed integer of what fits 32 bits or is negative, and an unsigned one of everything above.
fn lossless(value: Json<'_>, depth: usize, budget: &mut Budget) -> Result<bool> {
    budget.spend(value.cost())?;
    Ok(match value {
        Json::Null | Json::Bool(_) | Json::Double(_) | Json::String(_) => true,
        Json::Int(number) => number <= i64::from(u32::MAX),
        Json::UInt(number) => number > u64::from(u32::MAX),
        Json::Opaque { .. } => false,
        Json::Container(container) => {
            let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
            for index in 0..container.count {
                if !lossless(container.value(index)?, depth, budget)? {
                    return Ok(false);
                }
            }
            true
        }
    })
}

struct Writer<'d, 'o> {
    document: &'d [u8],
    out: &'o mut Vec<u8>,
}

impl Writer<'_, '_> {
    fn budget(&self) -> Budget {
        Budget::of(self.document)
    }

    /// The value's JSON text as a string literal.
    fn text(&mut self, value: Json<'_>) -> Result<()> {
        let mut text = Vec::new();
        write_text(&mut text, value, MAX_DEPTH, &mut self.budget())?;
        self.literal(&text)
    }

    fn literal(&mut self, text: &[u8]) -> Result<()> {
        std::str::from_utf8(text).map_err(|_| JsonError::Malformed("a string is not UTF-8"))?;
        self.out.extend(b"_utf8mb4'");
        for &byte in text {
            match byte {
                b'\'' | b'\\' => self.out.extend([b'\\', byte]),
                0 => self.out.extend(b"\\0"),
                b'\n' => self.out.extend(b"\\n"),
                b'\r' => self.out.extend(b"\\r"),
                0x1a => self.out.extend(b"\\Z"),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'\'');
        Ok(())
    }

    fn container(&mut self, container: Container<'_>, depth: usize, budget: &mut Budget) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.out.extend(if container.object { &b"JSON_OBJECT("[..] } else { b"JSON_ARRAY(" });
        for index in 0..container.count {
            if index > 0 {
                self.out.extend(b", ");
            }
            if container.object {
                let key = container.key(index)?;
                budget.spend(key.len())?;
                self.literal(key)?;
                self.out.extend(b", ");
            }
            self.value(container.value(index)?, depth, budget)?;
        }
        self.out.push(b')');
        Ok(())
    }

    /// An argument of JSON_OBJECT or JSON_ARRAY.
    fn value(&mut self, value: Json<'_>, depth: usize, budget: &mut Budget) -> Result<()> {
        budget.spend(value.cost())?;
        match value {
            Json::Null => self.out.extend(b"NULL"),
            Json::Bool(true) => self.out.extend(b"TRUE"),
            Json::Bool(false) => self.out.extend(b"FALSE"),
            Json::Int(number) => self.out.extend(number.to_string().bytes()),
            Json::UInt(number) => self.out.extend(format!("CAST({number} AS UNSIGNED)").bytes()),
            // An exponent makes a double of what would be a decimal.
            Json::Double(number) => self.out.extend(format!("{number:e}").bytes()),
            Json::String(text) => self.literal(text)?,
            Json::Opaque { kind, data } => self.opaque(kind, data)?,
            Json::Container(container) => {
                if lossless(value, depth, &mut self.budget())? {
                    self.out.extend(b"CAST(");
                    self.text(value)?;
                    self.out.extend(b" AS JSON)");
                } else {
                    self.container(container, depth, budget)?;
                }
            }
        }
        Ok(())
    }

    fn opaque(&mut self, kind: u8, data: &[u8]) -> Result<()> {
        let expression = match kind {
            opaque::DECIMAL => {
                let (precision, scale, text) = decimal(data)?;
                format!("CAST(_utf8mb4'{text}' AS DECIMAL({precision},{scale}))")
            }
            opaque::DATE => format!("CAST(_utf8mb4'{}' AS DATE)", date_text(packed(data)?)),
            opaque::TIME => format!("CAST(_utf8mb4'{}' AS TIME(6))", time_text(packed(data)?)),
            opaque::DATETIME | opaque::TIMESTAMP => {
                format!("CAST(_utf8mb4'{}' AS DATETIME(6))", datetime_text(packed(data)?))
            }
            _ => {
                let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("CAST(x'{hex}' AS BINARY)")
            }
        };
        self.out.extend(expression.bytes());
        Ok(())
    }
}
