//! Table maps made by hand, byte by byte.

use proptest::prelude::*;

use super::*;

fn map(types: &[u8], parameters: &[u8], optional: &[u8]) -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
    body.extend(b"\x02db\0\x01t\0");
    body.push(types.len() as u8);
    body.extend(types);
    body.push(parameters.len() as u8);
    body.extend(parameters);
    body.extend(vec![0b1010_1010; types.len().div_ceil(8)]);
    body.extend(optional);
    body
}

fn kinds(types: &[u8], parameters: &[u8]) -> Result<Vec<ColumnKind>, RowError> {
    let (_, layout) = parse_table_map(Flavor::MySql, &map(types, parameters, &[]))?;
    Ok(layout.columns.into_iter().map(|column| column.kind).collect())
}

#[test]
fn names_ids_and_nullability() {
    let (id, layout) = parse_table_map(Flavor::MySql, &map(&[3, 3], &[], &[])).unwrap();
    assert_eq!((id, layout.source.to_string()), (7, "`db`.`t`".to_owned()));
    assert_eq!(layout.columns.iter().map(|c| c.nullable).collect::<Vec<_>>(), [false, true]);
    assert_eq!(layout.names, None);
}

#[test]
fn every_type_number() {
    use ColumnKind as K;
    let got = kinds(
        &[1, 2, 9, 3, 8, 4, 5, 13, 10, 7, 11, 12, 17, 18, 19, 16, 15, 141, 140, 242, 245, 252, 255, 246],
        &[4, 8, 3, 6, 1, 4, 1, 0x2c, 1, 50, 0, 2, 4, 4, 3, 4, 10, 2],
    );
    let want = [
        K::TinyInt,
        K::SmallInt,
        K::MediumInt,
        K::Int,
        K::BigInt,
        K::Float,
        K::Double,
        K::Year,
        K::Date,
        K::Timestamp { fraction: 0, old: true },
        K::Time { fraction: 0, old: true },
        K::DateTime { fraction: 0, old: true },
        K::Timestamp { fraction: 3, old: false },
        K::DateTime { fraction: 6, old: false },
        K::Time { fraction: 1, old: false },
        K::Bit { bits: 12 },
        K::VarChar { max_bytes: 300 },
        K::CompressedVarChar { max_bytes: 50 },
        K::CompressedBlob { length_bytes: 2 },
        K::Vector { length_bytes: 4 },
        K::Json { length_bytes: 4 },
        K::Blob { length_bytes: 3 },
        K::Geometry { length_bytes: 4 },
        K::Decimal { precision: 10, scale: 2 },
    ];
    assert_eq!(got.unwrap(), want);
}

#[test]
fn the_real_types_of_strings() {
    use ColumnKind as K;
    let got = kinds(&[254, 254, 254, 254, 254], &[254, 40, 247, 1, 248, 8, 0xde, 0x20, 0xee, 0xfc]).unwrap();
    // 0xde lacks bit 0x20, which stands for 0x200, and 0xee lacks bit 0x10, which stands for 0x100.
    let want = [
        K::Char { max_bytes: 40 },
        K::Enum { bytes: 1 },
        K::Set { bytes: 8 },
        K::Char { max_bytes: 0x220 },
        K::Char { max_bytes: 0x1fc },
    ];
    assert_eq!(got, want);
    assert_eq!(kinds(&[254], &[0xce, 0x20]).unwrap(), [K::Char { max_bytes: 800 }]);
}

#[test]
fn unknown_types_and_impossible_parameters_are_refused() {
    assert_eq!(kinds(&[3, 20], &[]), Err(RowError::UnknownType { column: 1, kind: 20 }));
    assert!(kinds(&[246], &[2, 3]).is_err());
    assert!(kinds(&[252], &[5]).is_err());
    assert!(kinds(&[16], &[1, 8]).is_err());
    assert!(kinds(&[18], &[7]).is_err());
    assert!(kinds(&[15], &[7]).is_err());
}

#[test]
fn optional_metadata() {
    // INT, VARCHAR, ENUM, YEAR, BIGINT, CHAR, GEOMETRY
    let types = [3, 15, 254, 13, 8, 254, 255];
    let parameters = [80, 0, 247, 1, 254, 10, 4];
    let mut optional = vec![1, 1, 0b0110_0000];
    optional.extend([2, 5, 45, 1, 252, 63, 0]);
    optional.extend([10, 1, 8]);
    optional.extend([77, 3, 1, 2, 3]);
    optional.extend([4, 14]);
    (b'a'..=b'g').for_each(|letter| optional.extend([1, letter]));
    let (_, layout) = parse_table_map(Flavor::MySql, &map(&types, &parameters, &optional)).unwrap();
    let unsigned: Vec<_> = layout.columns.iter().map(|c| c.unsigned).collect();
    assert_eq!(unsigned, [Some(false), None, None, Some(true), Some(true), None, None]);
    let collations: Vec<_> = layout.columns.iter().map(|c| c.collation).collect();
    assert_eq!(collations, [None, Some(45), Some(8), None, None, Some(63), None]);
    assert_eq!(layout.names.unwrap().join(","), "a,b,c,d,e,f,g");
}

#[test]
fn vectors_count_as_character_columns() {
    let optional = [3, 2, 28, 63];
    let (_, layout) = parse_table_map(Flavor::MySql, &map(&[15, 245, 242, 255], &[6, 0, 4, 4, 4], &optional)).unwrap();
    let collations: Vec<_> = layout.columns.iter().map(|c| c.collation).collect();
    assert_eq!(collations, [Some(28), None, Some(63), None]);
}

#[test]
fn optional_metadata_that_does_not_fit_is_refused() {
    let refused = |optional: &[u8]| parse_table_map(Flavor::MySql, &map(&[3, 15], &[80, 0], optional)).is_err();
    assert!(refused(&[1, 2, 0, 0]), "two bytes of signs for one number");
    assert!(refused(&[2, 3, 45, 1, 8]), "collation for a second character column");
    assert!(refused(&[3, 2, 8, 8]), "two collations for one column");
    assert!(refused(&[4, 2, 1, b'a']), "one name for two columns");
    assert!(refused(&[1, 5, 0]), "cut short");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        types in prop::collection::vec(any::<u8>(), 0..20),
        parameters in prop::collection::vec(any::<u8>(), 0..40),
        optional in prop::collection::vec(any::<u8>(), 0..40),
        raw in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        for flavor in [Flavor::MySql, Flavor::MariaDb] {
            let _ = parse_table_map(flavor, &map(&types, &parameters, &optional));
            let _ = parse_table_map(flavor, &raw);
        }
    }
}
