//! Row images made by hand: every type with the values that are known to go wrong, and arbitrary bytes.

use proptest::prelude::*;

use super::super::decimal::tests::pack;
use super::*;
use crate::model::{SourceTable, TableName};

fn layout(kinds: &[ColumnKind]) -> TableLayout {
    let columns =
        kinds.iter().map(|kind| Column { kind: *kind, nullable: true, unsigned: None, collation: None }).collect();
    TableLayout { source: SourceTable(TableName::new("db", "t")), columns, names: None }
}

fn image(bytes: &[u8]) -> RowImage<'_> {
    RowImage { present: None, bytes, resolved_json: &[] }
}

/// Reads one column, and checks that skipping ends where reading does.
fn one(kind: ColumnKind, unsigned: Option<bool>, value: &[u8]) -> Value<'static> {
    let mut layout = layout(&[kind]);
    layout.columns[0].unsigned = unsigned;
    let mut bytes = vec![0];
    bytes.extend(value);
    assert_eq!(skip_image(&layout, None, &bytes), Ok(bytes.len()), "{kind:?}");
    assert!(skip_image(&layout, None, &bytes[..bytes.len() - 1]).is_err(), "{kind:?}");
    let (image, mut got) = (image(Vec::leak(bytes)), None);
    image
        .visit(&layout, |_, value| {
            got = Some(value);
            Ok(())
        })
        .unwrap();
    let got = got.unwrap();
    let integer = match got {
        Value::Int(number) => Some((number as u64, false)),
        Value::UInt(number) => Some((number, true)),
        _ => None,
    };
    assert_eq!(image.integer(&layout, 0), integer, "{kind:?}");
    got
}

#[test]
fn integers() {
    use ColumnKind as K;
    assert_eq!(one(K::TinyInt, None, &[0x80]), Value::Int(-128));
    assert_eq!(one(K::TinyInt, Some(true), &[0xff]), Value::UInt(255));
    assert_eq!(one(K::SmallInt, Some(true), &[0x40, 0x9c]), Value::UInt(40_000));
    assert_eq!(one(K::MediumInt, Some(false), &[0xff, 0xff, 0xff]), Value::Int(-1));
    assert_eq!(one(K::MediumInt, None, &[0, 0, 0x80]), Value::Int(-8_388_608));
    assert_eq!(one(K::MediumInt, Some(true), &[0xff, 0xff, 0xff]), Value::UInt(16_777_215));
    assert_eq!(one(K::Int, Some(true), &3_000_000_000u32.to_le_bytes()), Value::UInt(3_000_000_000));
    assert_eq!(one(K::BigInt, Some(true), &[0xff; 8]), Value::UInt(u64::MAX));
    assert_eq!(one(K::BigInt, None, &i64::MIN.to_le_bytes()), Value::Int(i64::MIN));
}

#[test]
fn masks_where_signedness_is_not_in_the_layout() {
    assert_eq!(mask_unsigned(ColumnKind::TinyInt, -1), 255);
    assert_eq!(mask_unsigned(ColumnKind::SmallInt, -1), 65_535);
    assert_eq!(mask_unsigned(ColumnKind::MediumInt, -1), 16_777_215);
    assert_eq!(mask_unsigned(ColumnKind::Int, -1), 4_294_967_295);
    assert_eq!(mask_unsigned(ColumnKind::BigInt, -1), u64::MAX);
}

#[test]
fn the_other_fixed_types() {
    use ColumnKind as K;
    assert_eq!(one(K::Float, None, &0.1f32.to_le_bytes()), Value::Float(0.1));
    assert_eq!(one(K::Double, None, &(-0.0f64).to_le_bytes()), Value::Double(-0.0));
    assert_eq!(one(K::Year, None, &[0]), Value::Year(0));
    assert_eq!(one(K::Year, None, &[124]), Value::Year(2024));
    let decimal = K::Decimal { precision: 10, scale: 2 };
    assert_eq!(one(decimal, None, &pack(true, "12345678", "99")), Value::Decimal("-12345678.99".into()));
    assert_eq!(one(K::Bit { bits: 12 }, None, &[0x0a, 0xaa]), Value::Bit(0xaaa));
    assert_eq!(one(K::Enum { bytes: 2 }, None, &[0x01, 0x02]), Value::Enum(0x201));
    assert_eq!(one(K::Set { bytes: 3 }, None, &[1, 0, 3]), Value::Set(0x30001));
    let stamp = K::Timestamp { fraction: 3, old: false };
    let want = Value::Timestamp { seconds: 1, micros: 123_000, fraction: 3 };
    assert_eq!(one(stamp, None, &[0, 0, 0, 1, 0x04, 0xce]), want);
    let want = Value::Timestamp { seconds: 0x7fff_ffff, micros: 0, fraction: 0 };
    assert_eq!(one(K::Timestamp { fraction: 0, old: true }, None, &[0xff, 0xff, 0xff, 0x7f]), want);
    let time = Value::Time { negative: true, hours: 0, minutes: 0, seconds: 0, micros: 500_000, fraction: 1 };
    assert_eq!(one(K::Time { fraction: 1, old: false }, None, &[0x7f, 0xff, 0xff, 0xce]), time);
}

#[test]
fn strings_and_blobs() {
    use ColumnKind as K;
    assert_eq!(one(K::Char { max_bytes: 255 }, None, b"\x02ab"), Value::Bytes(b"ab"[..].into()));
    assert_eq!(one(K::Char { max_bytes: 256 }, None, b"\x02\0ab"), Value::Bytes(b"ab"[..].into()));
    assert_eq!(one(K::VarChar { max_bytes: 300 }, None, b"\x01\0x"), Value::Bytes(b"x"[..].into()));
    assert_eq!(one(K::Blob { length_bytes: 3 }, None, b"\x01\0\0x"), Value::Bytes(b"x"[..].into()));
    assert_eq!(one(K::Json { length_bytes: 4 }, None, b"\x02\0\0\0\x04\x01"), Value::Json(b"\x04\x01"[..].into()));
    assert_eq!(one(K::CompressedVarChar { max_bytes: 50 }, None, b"\x02\0b"), Value::Bytes(b"b"[..].into()));
    assert_eq!(one(K::Vector { length_bytes: 4 }, None, b"\x01\0\0\0x"), Value::Bytes(b"x"[..].into()));
}

#[test]
fn nulls_and_absent_columns() {
    let layout = layout(&[ColumnKind::TinyInt, ColumnKind::TinyInt, ColumnKind::TinyInt]);
    let mut image = image(&[0b10, 5]);
    image.present = Some(&[true, false, true]);
    let mut got = Vec::new();
    image
        .visit(&layout, |index, value| {
            got.push((index, value));
            Ok(())
        })
        .unwrap();
    assert_eq!(got, [(0, Value::Int(5)), (2, Value::Null)]);
    assert_eq!(skip_image(&layout, image.present, &[0b10, 5, 99]), Ok(2));
}

#[test]
fn an_integer_is_found_behind_other_columns() {
    let layout = layout(&[ColumnKind::VarChar { max_bytes: 40 }, ColumnKind::Int, ColumnKind::Int]);
    let at = |image: RowImage<'_>, column| image.integer(&layout, column).map(|(number, _)| number as i64);
    let whole = image(b"\0\x02ab\xff\xff\xff\xff\x07\0\0\0");
    assert_eq!((at(whole, 0), at(whole, 1), at(whole, 2), at(whole, 3)), (None, Some(-1), Some(7), None));
    let nulls = image(b"\x03\x07\0\0\0");
    assert_eq!((at(nulls, 1), at(nulls, 2)), (None, Some(7)));
    let partial = RowImage { present: Some(&[false, false, true]), ..image(b"\0\x07\0\0\0") };
    assert_eq!((at(partial, 1), at(partial, 2)), (None, Some(7)));
    assert_eq!(at(image(b"\0\x02ab\xff\xff\xff"), 1), None);
}

#[test]
fn a_resolved_value_stands_for_the_diff() {
    let layout = layout(&[ColumnKind::Json { length_bytes: 4 }, ColumnKind::TinyInt]);
    let mut image = image(&[0, 0, 0, 0, 0, 9]);
    let resolved = [(0, vec![4, 1])];
    image.resolved_json = &resolved;
    let mut got = Vec::new();
    image
        .visit(&layout, |_, value| {
            got.push(value);
            Ok(())
        })
        .unwrap();
    assert_eq!(got, [Value::Json([4, 1][..].into()), Value::Int(9)]);
}

#[test]
fn the_visitor_s_error_ends_the_walk() {
    let layout = layout(&[ColumnKind::TinyInt, ColumnKind::TinyInt]);
    let error = RowError::Malformed { column: 0, what: "not wanted" };
    let mut seen = 0;
    let result = image(&[0, 1, 2]).visit(&layout, |_, _| {
        seen += 1;
        Err(error.clone())
    });
    assert_eq!((result, seen), (Err(error), 1));
}

fn any_kind() -> impl Strategy<Value = ColumnKind> {
    use ColumnKind as K;
    prop_oneof![
        Just(K::MediumInt),
        Just(K::BigInt),
        Just(K::Year),
        (1u8..66, 0u8..31).prop_map(|(p, s)| K::Decimal { precision: p.max(s), scale: s }),
        (0u8..7, any::<bool>()).prop_map(|(fraction, old)| K::Time { fraction, old }),
        (0u8..7, any::<bool>()).prop_map(|(fraction, old)| K::DateTime { fraction, old }),
        (0u8..7, any::<bool>()).prop_map(|(fraction, old)| K::Timestamp { fraction, old }),
        (1u8..65).prop_map(|bits| K::Bit { bits }),
        any::<u16>().prop_map(|max_bytes| K::VarChar { max_bytes }),
        any::<u16>().prop_map(|max_bytes| K::CompressedVarChar { max_bytes }),
        (1u8..5).prop_map(|length_bytes| K::CompressedBlob { length_bytes }),
        (1u8..5).prop_map(|length_bytes| K::Json { length_bytes }),
        (1u8..9).prop_map(|bytes| K::Set { bytes }),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_both_walks_agree(
        kinds in prop::collection::vec(any_kind(), 0..12),
        present in prop::option::of(prop::collection::vec(any::<bool>(), 0..14)),
        (bytes, wanted) in (prop::collection::vec(any::<u8>(), 0..300), any::<u16>()),
    ) {
        let layout = layout(&kinds);
        let mut image = image(&bytes);
        image.present = present.as_deref();
        let skipped = skip_image(&layout, image.present, &bytes);
        let read = image.visit(&layout, |_, _| Ok(()));
        if read.is_ok() {
            prop_assert!(skipped.is_ok());
        }
        if skipped.is_err() {
            prop_assert!(read.is_err());
        }
        // Stepping over values finds the others where reading all does.
        let (mut all, mut some) = (Vec::new(), Vec::new());
        let wanted = |index: usize| wanted >> (index % 16) & 1 == 1;
        let whole = image.visit(&layout, |index, value| {
            all.push((index, format!("{value:?}")));
            Ok(())
        });
        let partly = image.visit_some(&layout, kinds.len(), wanted, |index, value| {
            some.push((index, format!("{value:?}")));
            Ok(())
        });
        if whole.is_ok() {
            all.retain(|(index, _)| wanted(*index));
            prop_assert_eq!((partly, some), (Ok(()), all));
        }
    }

    #[test]
    fn integers_come_back(value in any::<i64>()) {
        let bytes = value.to_le_bytes();
        for (kind, width) in [
            (ColumnKind::TinyInt, 1), (ColumnKind::SmallInt, 2), (ColumnKind::MediumInt, 3), (ColumnKind::Int, 4),
            (ColumnKind::BigInt, 8),
        ] {
            let shift = 64 - 8 * width;
            let (signed, plain) = ((value << shift) >> shift, ((value as u64) << shift) >> shift);
            let data = &bytes[..width as usize];
            prop_assert_eq!(one(kind, None, data), Value::Int(signed));
            prop_assert_eq!(one(kind, Some(true), data), Value::UInt(plain));
            prop_assert_eq!(mask_unsigned(kind, signed), plain);
        }
    }
}
