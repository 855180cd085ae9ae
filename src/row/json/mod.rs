//! MySQL's binary JSON: reading it, printing it as text and as SQL, and applying partial updates to it.
//!
//! A value is a type byte and its data; an object or array has a directory of entries in front, with offsets from its own
//! start. Invariant: no input makes a walk loop, overflow the stack or grow beyond its own size: nesting is limited to
//! [`MAX_DEPTH`], and a [`Budget`] of the document's own length is spent on everything visited, so that overlapping
//! entries, which no server writes, cannot multiply.

mod patch;
mod sql;
mod text;

pub use patch::apply_diffs;
pub use sql::{is_text_lossless, to_sql};
pub use text::to_text;

use super::wire::Cursor;

/// Deepest nesting that is read. The server's own limit is 100.
pub const MAX_DEPTH: usize = 128;

/// What can be wrong with a JSON value or a diff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are no binary JSON.
    #[error("binary JSON is malformed: {0}")]
    Malformed(&'static str),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("JSON is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A partial update names a place that the value before it does not have.
    #[error("partial update of JSON at {path}: {what}")]
    Path {
        /// The path in the diff.
        path: String,
        /// What is wrong there.
        what: &'static str,
    },
}

pub(super) type Result<T> = std::result::Result<T, JsonError>;

const CUT: JsonError = JsonError::Malformed("it is cut short");

/// Type bytes.
mod tag {
    pub(super) const SMALL_OBJECT: u8 = 0;
    pub(super) const LARGE_OBJECT: u8 = 1;
    pub(super) const SMALL_ARRAY: u8 = 2;
    pub(super) const LARGE_ARRAY: u8 = 3;
    pub(super) const LITERAL: u8 = 4;
    pub(super) const INT16: u8 = 5;
    pub(super) const UINT16: u8 = 6;
    pub(super) const INT32: u8 = 7;
    pub(super) const UINT32: u8 = 8;
    pub(super) const INT64: u8 = 9;
    pub(super) const UINT64: u8 = 10;
    pub(super) const DOUBLE: u8 = 11;
    pub(super) const STRING: u8 = 12;
    pub(super) const OPAQUE: u8 = 15;
}

/// Column type numbers of opaque values that have a text of their own.
mod opaque {
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const DECIMAL: u8 = 246;
}

/// One value, borrowed from the document.
#[derive(Debug, Clone, Copy)]
enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    String(&'a [u8]),
    Opaque { kind: u8, data: &'a [u8] },
    Container(Container<'a>),
}

/// What may still be visited of a document.
struct Budget(usize);

impl Budget {
    fn of(document: &[u8]) -> Self {
        Budget(document.len().saturating_add(8))
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or(JsonError::Malformed("its parts overlap"))?;
        Ok(())
    }
}

/// Splits a document into type byte and data. An empty one is what the server makes of a missing value: `null`.
fn split(document: &[u8]) -> (u8, &[u8]) {
    document.split_first().map_or((tag::LITERAL, &[0][..]), |(tag, data)| (*tag, data))
}

fn root(document: &[u8]) -> Result<Json<'_>> {
    let (tag, data) = split(document);
    Json::parse(tag, data)
}

impl<'a> Json<'a> {
    fn parse(tag: u8, data: &'a [u8]) -> Result<Self> {
        let mut at = Cursor::new(data);
        Ok(match tag {
            tag::SMALL_OBJECT..=tag::LARGE_ARRAY => Json::Container(Container::parse(tag, data)?),
            tag::LITERAL => match at.u8().ok_or(CUT)? {
                0 => Json::Null,
                1 => Json::Bool(true),
                2 => Json::Bool(false),
                _ => return Err(JsonError::Malformed("unknown literal")),
            },
            tag::INT16 => Json::Int(i16::from_le_bytes(at.array().ok_or(CUT)?).into()),
            tag::UINT16 => Json::UInt(at.u16().ok_or(CUT)?.into()),
            tag::INT32 => Json::Int(i32::from_le_bytes(at.array().ok_or(CUT)?).into()),
            tag::UINT32 => Json::UInt(at.u32().ok_or(CUT)?.into()),
            tag::INT64 => Json::Int(i64::from_le_bytes(at.array().ok_or(CUT)?)),
            tag::UINT64 => Json::UInt(at.u64().ok_or(CUT)?),
            tag::DOUBLE => Json::Double(f64::from_le_bytes(at.array().ok_or(CUT)?)),
            tag::STRING => Json::String(variable(&mut at)?),
            tag::OPAQUE => Json::Opaque { kind: at.u8().ok_or(CUT)?, data: variable(&mut at)? },
            _ => return Err(JsonError::Malformed("unknown type of value")),
        })
    }

    /// What visiting the value itself, without members, takes from the budget.
    fn cost(&self) -> usize {
        match self {
            Json::String(bytes) | Json::Opaque { data: bytes, .. } => bytes.len() + 1,
            _ => 1,
        }
    }
}

/// Bytes behind a length of seven bits a byte, the lowest first, the upper bit set where more follow.
fn variable<'a>(at: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let mut len = 0usize;
    for shift in [0, 7, 14, 21, 28] {
        let byte = at.u8().ok_or(CUT)?;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return at.take(len).ok_or(CUT);
        }
    }
    Err(JsonError::Malformed("a length has more than five bytes"))
}

/// An object or array: exactly its bytes.
#[derive(Debug, Clone, Copy)]
struct Container<'a> {
    object: bool,
    /// Offsets have four bytes rather than two.
    large: bool,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Container<'a> {
    fn parse(tag: u8, data: &'a [u8]) -> Result<Self> {
        let object = matches!(tag, tag::SMALL_OBJECT | tag::LARGE_OBJECT);
        let large = matches!(tag, tag::LARGE_OBJECT | tag::LARGE_ARRAY);
        let width = if large { 4 } else { 2 };
        let mut at = Cursor::new(data);
        let (count, size) = (at.uint(width).ok_or(CUT)? as usize, at.uint(width).ok_or(CUT)? as usize);
        let bytes = data.get(..size).ok_or(CUT)?;
        let container = Container { object, large, count, bytes };
        match container.values_at().checked_add(count.saturating_mul(1 + width)) {
            Some(end) if end <= size => Ok(container),
            _ => Err(CUT),
        }
    }

    fn width(&self) -> usize {
        if self.large { 4 } else { 2 }
    }

    /// Where the value entries begin: behind count, size and key entries.
    fn values_at(&self) -> usize {
        let keys = if self.object { self.count.saturating_mul(self.width() + 2) } else { 0 };
        keys.saturating_add(2 * self.width())
    }

    fn key(&self, index: usize) -> Result<&'a [u8]> {
        let mut at = Cursor::new(self.bytes.get(2 * self.width() + index * (self.width() + 2)..).ok_or(CUT)?);
        let offset = at.uint(self.width()).ok_or(CUT)? as usize;
        let len = usize::from(at.u16().ok_or(CUT)?);
        Cursor::new(self.bytes.get(offset..).ok_or(CUT)?).take(len).ok_or(CUT)
    }

    /// Type byte and data of a member; the data of small numbers and literals stand in the entry itself.
    fn member(&self, index: usize) -> Result<(u8, &'a [u8])> {
        let mut at = Cursor::new(self.bytes.get(self.values_at() + index * (1 + self.width())..).ok_or(CUT)?);
        let tag = at.u8().ok_or(CUT)?;
        let entry = at.take(self.width()).ok_or(CUT)?;
        if is_inlined(tag, self.large) {
            return Ok((tag, entry));
        }
        let offset = super::wire::le(entry) as usize;
        Ok((tag, self.bytes.get(offset..).ok_or(CUT)?))
    }

    fn value(&self, index: usize) -> Result<Json<'a>> {
        let (tag, data) = self.member(index)?;
        Json::parse(tag, data)
    }
}

/// Whether a value of this type stands in its entry.
fn is_inlined(tag: u8, large: bool) -> bool {
    match tag {
        tag::LITERAL | tag::INT16 | tag::UINT16 => true,
        tag::INT32 | tag::UINT32 => large,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
