//! A row as a list of literals, by what is worked out of its table's columns once a statement.
//!
//! The common columns, integers and texts that are UTF-8, go from the image into the statement without a value in between;
//! all others by [`write_literal`]. Invariant: both write the same, which a property test holds them to.

use super::literal::{display, write_literal};
use crate::downstream::escape_into;
use crate::row::{Column, ColumnKind, Fields, RowError, RowImage};
use crate::schema::{BoundColumn, BoundTable, Encoding};

/// Writes rows of one table whose images hold the same columns.
pub(super) struct RowWriter<'t> {
    table: &'t BoundTable,
    steps: Vec<Step>,
}

/// What is done with one present column.
struct Step {
    index: usize,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    /// The server makes its value.
    LeaveOut,
    Signed(Width),
    Unsigned(Width),
    /// As it is but for what must be escaped.
    Text {
        max_bytes: u16,
    },
    /// By its value.
    Value,
}

/// Of an integer.
#[derive(Clone, Copy)]
enum Width {
    One,
    Two,
    Three,
    Four,
    Eight,
}

impl<'t> RowWriter<'t> {
    /// For images that hold the columns `present` (`None`: all).
    pub(super) fn new(table: &'t BoundTable, present: Option<&[bool]>) -> Self {
        let columns = table.layout.columns.iter().zip(&table.columns).enumerate();
        let has = |index: usize| present.is_none_or(|present| present.get(index).copied().unwrap_or(false));
        let there = columns.filter(|(index, _)| has(*index));
        let steps = there.map(|(index, (column, bound))| Step { index, how: how(column, bound) }).collect();
        RowWriter { table, steps }
    }

    /// Appends `(literal,literal,…)`. Gives back whether strict SQL modes would refuse a value although the source holds it.
    pub(super) fn write(&self, sql: &mut Vec<u8>, image: RowImage<'_>) -> Result<bool, RowError> {
        let mut fields = image.fields(&self.table.layout)?;
        let mut relaxed = false;
        let mut before = b'(';
        for &Step { index, how } in &self.steps {
            let null = fields.is_null();
            if let How::LeaveOut = how {
                if !null {
                    fields.skip(&self.table.layout.columns[index], index)?;
                }
                continue;
            }
            sql.push(before);
            before = b',';
            if null {
                sql.extend_from_slice(b"NULL");
            } else {
                relaxed |= self.write_value(sql, index, how, &mut fields)?;
            }
        }
        if before == b'(' {
            sql.push(b'(');
        }
        sql.push(b')');
        Ok(relaxed)
    }

    #[inline]
    fn write_value(
        &self,
        sql: &mut Vec<u8>,
        index: usize,
        how: How,
        fields: &mut Fields<'_>,
    ) -> Result<bool, RowError> {
        match how {
            How::LeaveOut => {}
            How::Signed(width) => match width {
                Width::One => display(sql, i8::from_le_bytes(fields.array(index)?)),
                Width::Two => display(sql, i16::from_le_bytes(fields.array(index)?)),
                Width::Three => {
                    let [a, b, c] = fields.array(index)?;
                    display(sql, i32::from_le_bytes([0, a, b, c]) >> 8);
                }
                Width::Four => display(sql, i32::from_le_bytes(fields.array(index)?)),
                Width::Eight => display(sql, i64::from_le_bytes(fields.array(index)?)),
            },
            How::Unsigned(width) => match width {
                Width::One => display(sql, u8::from_le_bytes(fields.array(index)?)),
                Width::Two => display(sql, u16::from_le_bytes(fields.array(index)?)),
                Width::Three => {
                    let [a, b, c] = fields.array(index)?;
                    display(sql, u32::from_le_bytes([a, b, c, 0]));
                }
                Width::Four => display(sql, u32::from_le_bytes(fields.array(index)?)),
                Width::Eight => display(sql, u64::from_le_bytes(fields.array(index)?)),
            },
            How::Text { max_bytes } => {
                let text = fields.text(max_bytes, index)?;
                sql.push(b'\'');
                escape_into(sql, text);
                sql.push(b'\'');
            }
            How::Value => {
                let value = fields.value(&self.table.layout.columns[index], index)?;
                return write_literal(sql, &value, &self.table.columns[index], self.table.dialect);
            }
        }
        Ok(false)
    }
}

fn how(column: &Column, bound: &BoundColumn) -> How {
    use ColumnKind as K;
    let width = match column.kind {
        _ if !bound.writable => return How::LeaveOut,
        K::TinyInt => Width::One,
        K::SmallInt => Width::Two,
        K::MediumInt => Width::Three,
        K::Int => Width::Four,
        K::BigInt => Width::Eight,
        K::Char { max_bytes } | K::VarChar { max_bytes } => {
            return match bound.encoding {
                Encoding::Text("utf8mb4" | "utf8mb3" | "ascii") => How::Text { max_bytes },
                _ => How::Value,
            };
        }
        _ => return How::Value,
    };
    match (column.unsigned, &bound.encoding) {
        (Some(true), _) | (_, Encoding::Unsigned(_)) => How::Unsigned(width),
        (_, Encoding::Plain) => How::Signed(width),
        _ => How::Value,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{SourceTable, TableName, TargetTable};
    use crate::row::TableLayout;
    use crate::schema::{Dialect, LaneRule};

    fn kind() -> impl Strategy<Value = ColumnKind> {
        use ColumnKind as K;
        prop_oneof![
            prop::sample::select(vec![K::TinyInt, K::SmallInt, K::MediumInt, K::Int, K::BigInt, K::Year, K::Double]),
            prop::sample::select(vec![8, 255, 256]).prop_map(|max_bytes| K::VarChar { max_bytes }),
            prop::sample::select(vec![8, 255, 256]).prop_map(|max_bytes| K::Char { max_bytes }),
            Just(K::Enum { bytes: 1 }),
        ]
    }

    fn encoding(kind: ColumnKind) -> BoxedStrategy<Encoding> {
        use ColumnKind as K;
        match kind {
            K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt => {
                prop::sample::select(vec![Encoding::Plain, Encoding::Unsigned(kind)]).boxed()
            }
            K::Char { .. } | K::VarChar { .. } => {
                let charsets = ["utf8mb4", "utf8mb3", "ascii", "latin1", "gbk"].map(Encoding::Text);
                let others = [Encoding::Binary { pad: 0 }, Encoding::Binary { pad: 4 }, Encoding::Utf8Or("latin1")];
                prop::sample::select([&charsets[..], &others[..]].concat()).boxed()
            }
            _ => Just(Encoding::Plain).boxed(),
        }
    }

    type Drawn = (ColumnKind, Encoding, Option<bool>, [bool; 3], Vec<u8>);

    /// A column with a value: its kind, how it is bound, its sign, whether it is there, NULL and written, and bytes.
    fn column() -> impl Strategy<Value = Drawn> {
        let byte = prop_oneof![any::<u8>(), prop::sample::select(b"'\\\0\x1aab".to_vec())];
        kind().prop_flat_map(move |kind| {
            let flags = [0.8, 0.2, 0.8].map(prop::bool::weighted);
            (Just(kind), encoding(kind), any::<Option<bool>>(), flags, prop::collection::vec(byte.clone(), 8..60))
        })
    }

    fn table(drawn: &[Drawn]) -> BoundTable {
        let columns = drawn.iter().map(|(kind, encoding, unsigned, ..)| {
            // Where the binlog says it, the downstream is not asked.
            let unsigned = if *encoding == Encoding::Unsigned(*kind) { None } else { *unsigned };
            Column { kind: *kind, nullable: true, unsigned, collation: None }
        });
        let bound = drawn.iter().map(|(_, encoding, _, [_, _, writable], _)| BoundColumn {
            quoted: "`c`".into(),
            encoding: encoding.clone(),
            writable: *writable,
            text_charset: None,
            text_collation: None,
            compares_by_bytes: true,
            formatted: false,
        });
        let source = SourceTable(TableName::new("s", "t"));
        BoundTable {
            source: source.clone(),
            target: TargetTable(TableName::new("d", "t")),
            layout: Arc::new(TableLayout { source, columns: columns.collect(), names: None }),
            columns: bound.collect(),
            identity: None,
            whole_primary: None,
            other_unique: Vec::new(),
            lane_rule: LaneRule::Pinned,
            lane_prefix: Vec::new(),
            dialect: Dialect::MySql,
            loose_engine: None,
            selective: false,
        }
    }

    fn image(drawn: &[Drawn]) -> Vec<u8> {
        use ColumnKind as K;
        let there: Vec<&Drawn> = drawn.iter().filter(|(.., [there, ..], _)| *there).collect();
        let mut nulls = vec![0u8; there.len().div_ceil(8)];
        let mut values = Vec::new();
        for (at, (kind, _, _, [_, null, _], bytes)) in there.into_iter().enumerate() {
            if *null {
                nulls[at / 8] |= 1 << (at % 8);
                continue;
            }
            match kind {
                K::VarChar { max_bytes } | K::Char { max_bytes } => {
                    let text = &bytes[..bytes.len().min(usize::from(*max_bytes))];
                    values.extend((text.len() as u16).to_le_bytes().iter().take(if *max_bytes > 255 { 2 } else { 1 }));
                    values.extend(text);
                }
                K::TinyInt | K::Year | K::Enum { .. } => values.push(bytes[0]),
                K::SmallInt => values.extend(&bytes[..2]),
                K::MediumInt => values.extend(&bytes[..3]),
                K::Int => values.extend(&bytes[..4]),
                _ => values.extend(&bytes[..8]),
            }
        }
        nulls.extend(values);
        nulls
    }

    proptest! {
        #[test]
        fn writes_what_its_values_are_as_literals(drawn in prop::collection::vec(column(), 1..12), cut in any::<usize>()) {
            let (table, bytes) = (table(&drawn), image(&drawn));
            let present: Vec<bool> = drawn.iter().map(|(.., [there, ..], _)| *there).collect();
            let present = (!present.iter().all(|there| *there)).then_some(&present[..]);
            let image = |bytes| RowImage { present, bytes, resolved_json: &[] };
            let by_value = |image: RowImage<'_>| {
                let (mut values, mut relaxed) = (Vec::new(), false);
                image.visit(&table.layout, |index, value| {
                    let bound = &table.columns[index];
                    if bound.writable {
                        let mut literal = Vec::new();
                        relaxed |= write_literal(&mut literal, &value, bound, table.dialect)?;
                        values.push(literal);
                    }
                    Ok(())
                })?;
                Ok::<_, RowError>(([b"(", &values.join(&b',')[..], b")"].concat(), relaxed))
            };
            let writer = RowWriter::new(&table, present);
            let at_once = |image| {
                let mut sql = Vec::new();
                writer.write(&mut sql, image).map(|relaxed| (sql, relaxed))
            };
            let whole = image(&bytes);
            prop_assert_eq!(at_once(whole), by_value(whole));
            prop_assert!(at_once(whole).is_ok());
            let short = image(&bytes[..cut % (bytes.len() + 1)]);
            prop_assert_eq!(at_once(short), by_value(short));
        }
    }
}
