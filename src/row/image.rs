//! Walking a row image: one column decoder a type, values borrowed from the image.
//!
//! Invariant: [`skip_image`], [`RowImage::visit`] and `Fields` agree on where each value ends, because all take the bytes
//! of a value through the same widths; whatever the bytes are, none reads beyond them.

use std::borrow::Cow;

use super::compressed::column_value;
use super::decimal::{decimal_len, decimal_text};
use super::temporal;
use super::types::{Column, ColumnKind, RowImage, TableLayout, Value};
use super::wire::{Cursor, be};
use super::{RowError, temporal::fraction_len};

/// Bytes of the image that `bytes` begins with: its null bits and the values of the columns that are `present` (`None`:
/// all).
pub fn skip_image(layout: &TableLayout, present: Option<&[bool]>, bytes: &[u8]) -> Result<usize, RowError> {
    let (mut nulls, mut at) = split_nulls(layout, present, bytes)?;
    for (index, column) in layout.columns.iter().enumerate() {
        if is_present(present, index) && !nulls.next() {
            skip_value(column.kind, &mut at).ok_or(RowError::Truncated { column: index })?;
        }
    }
    Ok(bytes.len() - at.rest().len())
}

impl<'a> RowImage<'a> {
    /// Calls `visit(column index, value)` for each present column in order; the first error ends the walk.
    #[inline]
    pub fn visit(
        self,
        layout: &TableLayout,
        mut visit: impl FnMut(usize, Value<'a>) -> Result<(), RowError>,
    ) -> Result<(), RowError> {
        self.visit_some(layout, layout.columns.len(), |_| true, &mut visit)
    }

    /// The same for those of the first `count` columns that are `wanted`; the values between are only stepped over.
    #[inline]
    pub fn visit_some(
        self,
        layout: &TableLayout,
        count: usize,
        wanted: impl Fn(usize) -> bool,
        mut visit: impl FnMut(usize, Value<'a>) -> Result<(), RowError>,
    ) -> Result<(), RowError> {
        let (mut nulls, mut at) = split_nulls(layout, self.present, self.bytes)?;
        for (index, column) in layout.columns.iter().enumerate().take(count) {
            if !is_present(self.present, index) {
                continue;
            }
            let null = nulls.next();
            match wanted(index) {
                true if null => visit(index, Value::Null)?,
                true => {
                    let value = read_value(column, index, &mut at)?;
                    visit(index, self.resolved(index).map_or(value, |json| Value::Json(Cow::Borrowed(json))))?;
                }
                false if null => {}
                false => skip_value(column.kind, &mut at).ok_or(RowError::Truncated { column: index })?,
            }
        }
        Ok(())
    }

    /// The same step by step, for who knows the columns beforehand.
    #[inline]
    pub(crate) fn fields(self, layout: &TableLayout) -> Result<Fields<'a>, RowError> {
        let (nulls, at) = split_nulls(layout, self.present, self.bytes)?;
        Ok(Fields { nulls, at, image: self })
    }

    /// The value of the first column, which most keys are.
    #[inline]
    pub fn first(self, layout: &TableLayout) -> Result<Option<Value<'a>>, RowError> {
        let Some(column) = layout.columns.first().filter(|_| self.has(0)) else { return Ok(None) };
        let mut fields = self.fields(layout)?;
        Ok(Some(if fields.is_null() { Value::Null } else { fields.value(column, 0)? }))
    }

    /// An integer in its own bits, sign-extended, and whether its column is said to be unsigned: what [`RowImage::value`] has as
    /// [`Value::Int`] and [`Value::UInt`]. `None` where the column is another, is not there, is NULL or cannot be read. Values
    /// are large; for keys this takes a tenth of the time.
    #[inline]
    pub fn integer(self, layout: &TableLayout, column: usize) -> Option<(u64, bool)> {
        use ColumnKind as K;
        let (mut nulls, mut at) = split_nulls(layout, self.present, self.bytes).ok()?;
        for (index, before) in layout.columns.iter().enumerate().take(column) {
            if is_present(self.present, index) && !nulls.next() {
                skip_value(before.kind, &mut at)?;
            }
        }
        let wanted = layout.columns.get(column).filter(|_| is_present(self.present, column) && !nulls.next())?;
        let signed = match wanted.kind {
            K::TinyInt => i8::from_le_bytes(at.array()?).into(),
            K::SmallInt => i16::from_le_bytes(at.array()?).into(),
            K::MediumInt => {
                let [a, b, c] = at.array()?;
                (i32::from_le_bytes([0, a, b, c]) >> 8).into()
            }
            K::Int => i32::from_le_bytes(at.array()?).into(),
            K::BigInt => i64::from_le_bytes(at.array()?),
            _ => return None,
        };
        let unsigned = wanted.unsigned == Some(true);
        Some((if unsigned { mask_unsigned(wanted.kind, signed) } else { signed as u64 }, unsigned))
    }

    /// The value of one column; `None` where it is not in the image.
    #[inline]
    pub fn value(self, layout: &TableLayout, column: usize) -> Result<Option<Value<'a>>, RowError> {
        let mut found = None;
        self.visit_some(
            layout,
            column + 1,
            |index| index == column,
            |_, value| {
                found = Some(value);
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// The whole value of a column of which the image only holds a diff.
    #[inline]
    fn resolved(self, index: usize) -> Option<&'a [u8]> {
        if self.resolved_json.is_empty() {
            return None;
        }
        self.resolved_json.iter().find(|(column, _)| *column == index).map(|(_, json)| json.as_slice())
    }
}

/// An image of which each present column is taken in turn: first whether it is NULL, and if not, its value, in one of the
/// other ways.
pub(crate) struct Fields<'a> {
    nulls: Nulls<'a>,
    at: Cursor<'a>,
    image: RowImage<'a>,
}

impl<'a> Fields<'a> {
    /// Whether the next present column is NULL; then it has no value to be taken.
    #[inline]
    pub(crate) fn is_null(&mut self) -> bool {
        self.nulls.next()
    }

    /// Takes a value of this many bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self, index: usize) -> Result<[u8; N], RowError> {
        self.at.array().ok_or(RowError::Truncated { column: index })
    }

    /// Takes the bytes of a CHAR or VARCHAR.
    #[inline]
    pub(crate) fn text(&mut self, max_bytes: u16, index: usize) -> Result<&'a [u8], RowError> {
        self.at.prefixed(length_width(max_bytes)).ok_or(RowError::Truncated { column: index })
    }

    /// Takes the value of the column `index`, whatever it is.
    #[inline]
    pub(crate) fn value(&mut self, column: &Column, index: usize) -> Result<Value<'a>, RowError> {
        let value = read_value(column, index, &mut self.at)?;
        Ok(self.image.resolved(index).map_or(value, |json| Value::Json(Cow::Borrowed(json))))
    }

    /// Steps over a value.
    #[inline]
    pub(crate) fn skip(&mut self, column: &Column, index: usize) -> Result<(), RowError> {
        skip_value(column.kind, &mut self.at).ok_or(RowError::Truncated { column: index })
    }
}

/// What a signed reading of an integer column means where the column is unsigned: the bits above its width go.
pub fn mask_unsigned(kind: ColumnKind, value: i64) -> u64 {
    let value = value as u64;
    match kind {
        ColumnKind::TinyInt => value & 0xff,
        ColumnKind::SmallInt => value & 0xffff,
        ColumnKind::MediumInt => value & 0xff_ffff,
        ColumnKind::Int => value & 0xffff_ffff,
        _ => value,
    }
}

#[inline]
fn is_present(present: Option<&[bool]>, index: usize) -> bool {
    present.is_none_or(|present| present.get(index).copied().unwrap_or(false))
}

/// The null bits of the present columns, one after the other. No bits read as not NULL: who walks an image has taken as
/// many as there are columns.
struct Nulls<'a> {
    rest: std::slice::Iter<'a, u8>,
    /// What is left of the byte at work, below a bit that marks its end.
    bits: u32,
}

impl Nulls<'_> {
    #[inline]
    fn next(&mut self) -> bool {
        if self.bits <= 1 {
            self.bits = 0x100 | u32::from(self.rest.next().copied().unwrap_or(0));
        }
        let null = self.bits & 1 == 1;
        self.bits >>= 1;
        null
    }
}

/// Null bits of the present columns, and what follows them.
#[inline]
fn split_nulls<'a>(
    layout: &TableLayout,
    present: Option<&[bool]>,
    bytes: &'a [u8],
) -> Result<(Nulls<'a>, Cursor<'a>), RowError> {
    let count = match present {
        None => layout.columns.len(),
        Some(present) => present.iter().take(layout.columns.len()).filter(|present| **present).count(),
    };
    let mut at = Cursor::new(bytes);
    let nulls = at.take(count.div_ceil(8)).ok_or(RowError::Truncated { column: 0 })?;
    Ok((Nulls { rest: nulls.iter(), bits: 0 }, at))
}

/// Bytes of the length before a CHAR or VARCHAR.
#[inline]
fn length_width(max_bytes: u16) -> usize {
    if max_bytes > 255 { 2 } else { 1 }
}

/// Where a value's bytes end: a fixed width, or a length of so many bytes before them.
enum Extent {
    Fixed(usize),
    Prefixed(usize),
}

#[inline]
fn extent(kind: ColumnKind) -> Option<Extent> {
    use ColumnKind as K;
    Some(match kind {
        K::TinyInt | K::Year => Extent::Fixed(1),
        K::SmallInt => Extent::Fixed(2),
        K::MediumInt | K::Date | K::Time { old: true, .. } => Extent::Fixed(3),
        K::Int | K::Float | K::Timestamp { old: true, .. } => Extent::Fixed(4),
        K::BigInt | K::Double | K::DateTime { old: true, .. } => Extent::Fixed(8),
        K::Decimal { precision, scale } => Extent::Fixed(decimal_len(precision, scale)?),
        K::Time { fraction, .. } => Extent::Fixed(3 + fraction_len(fraction)),
        K::DateTime { fraction, .. } => Extent::Fixed(5 + fraction_len(fraction)),
        K::Timestamp { fraction, .. } => Extent::Fixed(4 + fraction_len(fraction)),
        K::Bit { bits } => Extent::Fixed(usize::from(bits).div_ceil(8)),
        K::Enum { bytes } | K::Set { bytes } => Extent::Fixed(usize::from(bytes)),
        K::Char { max_bytes } | K::VarChar { max_bytes } | K::CompressedVarChar { max_bytes } => {
            Extent::Prefixed(length_width(max_bytes))
        }
        K::Blob { length_bytes }
        | K::Json { length_bytes }
        | K::Geometry { length_bytes }
        | K::Vector { length_bytes }
        | K::CompressedBlob { length_bytes } => Extent::Prefixed(usize::from(length_bytes)),
    })
}

#[inline]
fn skip_value(kind: ColumnKind, at: &mut Cursor<'_>) -> Option<()> {
    match extent(kind)? {
        Extent::Fixed(len) => at.take(len),
        Extent::Prefixed(width) => at.prefixed(width),
    }
    .map(|_| ())
}

#[inline]
fn int<'a>(column: &Column, signed: i64) -> Value<'a> {
    match column.unsigned {
        Some(true) => Value::UInt(mask_unsigned(column.kind, signed)),
        _ => Value::Int(signed),
    }
}

#[inline]
fn read_value<'a>(column: &Column, index: usize, at: &mut Cursor<'a>) -> Result<Value<'a>, RowError> {
    use ColumnKind as K;
    let malformed = |what| RowError::Malformed { column: index, what };
    let value = match column.kind {
        K::TinyInt => at.array().map(|b| int(column, i8::from_le_bytes(b).into())),
        K::SmallInt => at.array().map(|b| int(column, i16::from_le_bytes(b).into())),
        K::MediumInt => at.array().map(|[a, b, c]| int(column, (i32::from_le_bytes([0, a, b, c]) >> 8).into())),
        K::Int => at.array().map(|b| int(column, i32::from_le_bytes(b).into())),
        K::BigInt => at.array().map(|b| int(column, i64::from_le_bytes(b))),
        K::Float => at.array().map(|b| Value::Float(f32::from_le_bytes(b))),
        K::Double => at.array().map(|b| Value::Double(f64::from_le_bytes(b))),
        K::Year => at.u8().map(|year| Value::Year(if year == 0 { 0 } else { 1900 + u16::from(year) })),
        K::Date => temporal::date(at),
        K::Time { old: true, .. } => temporal::old_time(at),
        K::Time { fraction, .. } => temporal::time(at, fraction),
        K::DateTime { old: true, .. } => temporal::old_datetime(at),
        K::DateTime { fraction, .. } => return datetime(at, index, fraction),
        K::Timestamp { old: true, .. } => temporal::old_timestamp(at),
        K::Timestamp { fraction, .. } => temporal::timestamp(at, fraction),
        K::Bit { bits } => at.take(usize::from(bits).div_ceil(8)).map(|bytes| Value::Bit(be(bytes))),
        K::Enum { bytes } => at.uint(usize::from(bytes)).map(|index| Value::Enum(index as u16)),
        K::Set { bytes } => at.uint(usize::from(bytes)).map(Value::Set),
        K::Char { max_bytes } | K::VarChar { max_bytes } => {
            at.prefixed(length_width(max_bytes)).map(|bytes| Value::Bytes(Cow::Borrowed(bytes)))
        }
        K::Blob { length_bytes } | K::Geometry { length_bytes } | K::Vector { length_bytes } => {
            at.prefixed(length_bytes.into()).map(|bytes| Value::Bytes(Cow::Borrowed(bytes)))
        }
        K::Json { length_bytes } => at.prefixed(length_bytes.into()).map(|json| Value::Json(Cow::Borrowed(json))),
        K::Decimal { precision, scale } => {
            let len = decimal_len(precision, scale).ok_or_else(|| malformed("scale above precision"))?;
            let bytes = at.take(len).ok_or(RowError::Truncated { column: index })?;
            let text = decimal_text(precision, scale, bytes).ok_or_else(|| malformed("not a packed decimal"))?;
            Some(Value::Decimal(Cow::Owned(text)))
        }
        K::CompressedVarChar { .. } | K::CompressedBlob { .. } => return decompressed(column.kind, index, at),
    };
    value.ok_or(RowError::Truncated { column: index })
}

fn datetime<'a>(at: &mut Cursor<'a>, index: usize, fraction: u8) -> Result<Value<'a>, RowError> {
    let len = 5 + fraction_len(fraction);
    let bytes = at.take(len).ok_or(RowError::Truncated { column: index })?;
    temporal::datetime(&mut Cursor::new(bytes), fraction)
        .ok_or(RowError::Malformed { column: index, what: "a datetime before year 0" })
}

fn decompressed<'a>(kind: ColumnKind, index: usize, at: &mut Cursor<'a>) -> Result<Value<'a>, RowError> {
    let width = match kind {
        ColumnKind::CompressedVarChar { max_bytes } => length_width(max_bytes),
        ColumnKind::CompressedBlob { length_bytes } => usize::from(length_bytes),
        _ => return Err(RowError::Malformed { column: index, what: "not a compressed column" }),
    };
    let bytes = at.prefixed(width).ok_or(RowError::Truncated { column: index })?;
    column_value(bytes).map(Value::Bytes).map_err(|what| RowError::Malformed { column: index, what })
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
