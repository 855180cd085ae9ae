//! Documents made by a small encoder of our own, and arbitrary bytes.

use proptest::prelude::*;
use serde_json::{Value as Tree, json};

use super::*;

/// A document from text-born JSON, packed as the server packs it.
fn encode(tree: &Tree) -> Vec<u8> {
    let (tag, data) = encode_value(tree);
    let mut document = vec![tag];
    document.extend(data);
    document
}

fn string_data(text: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let mut len = text.len();
    while len > 0x7f {
        data.push(len as u8 | 0x80);
        len >>= 7;
    }
    data.push(len as u8);
    data.extend(text.bytes());
    data
}

fn encode_value(tree: &Tree) -> (u8, Vec<u8>) {
    match tree {
        Tree::Null => (tag::LITERAL, vec![0]),
        Tree::Bool(true) => (tag::LITERAL, vec![1]),
        Tree::Bool(false) => (tag::LITERAL, vec![2]),
        Tree::String(text) => (tag::STRING, string_data(text)),
        Tree::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) if i16::try_from(n).is_ok() => (tag::INT16, (n as i16).to_le_bytes().to_vec()),
            (Some(n), _) if i32::try_from(n).is_ok() => (tag::INT32, (n as i32).to_le_bytes().to_vec()),
            (Some(n), _) if n <= i64::from(u32::MAX) => (tag::INT64, n.to_le_bytes().to_vec()),
            (_, Some(n)) => (tag::UINT64, n.to_le_bytes().to_vec()),
            _ => (tag::DOUBLE, number.as_f64().unwrap().to_le_bytes().to_vec()),
        },
        Tree::Array(members) => {
            let values: Vec<_> = members.iter().map(encode_value).collect();
            container(&[], tag::SMALL_ARRAY, &values)
        }
        Tree::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(b.0)));
            let keys: Vec<_> = sorted.iter().map(|(key, _)| key.as_bytes()).collect();
            let values: Vec<_> = sorted.iter().map(|(_, value)| encode_value(value)).collect();
            container(&keys, tag::SMALL_OBJECT, &values)
        }
    }
}

/// Small where it fits, else large.
fn container(keys: &[&[u8]], small: u8, values: &[(u8, Vec<u8>)]) -> (u8, Vec<u8>) {
    let total: usize =
        keys.iter().map(|k| k.len() + 6).sum::<usize>() + values.iter().map(|v| v.1.len() + 5).sum::<usize>();
    let large = total + 8 > 65_535;
    let width = if large { 4 } else { 2 };
    let put = |out: &mut Vec<u8>, n: usize| out.extend(&(n as u64).to_le_bytes()[..width]);
    let head = 2 * width + keys.len() * (width + 2) + values.len() * (width + 1);
    let (mut directory, mut tail) = (Vec::new(), Vec::new());
    for key in keys {
        put(&mut directory, head + tail.len());
        directory.extend((key.len() as u16).to_le_bytes());
        tail.extend_from_slice(key);
    }
    for (tag, data) in values {
        directory.push(*tag);
        if is_inlined(*tag, large) {
            let mut entry = data.clone();
            entry.resize(width, 0);
            directory.extend(entry);
        } else {
            put(&mut directory, head + tail.len());
            tail.extend(data);
        }
    }
    let mut out = Vec::new();
    put(&mut out, values.len());
    put(&mut out, head + tail.len());
    out.extend(directory);
    out.extend(tail);
    (small + u8::from(large), out)
}

fn opaque_document(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut document = vec![tag::OPAQUE, kind, data.len() as u8];
    document.extend(data);
    document
}

fn in_object(key: &str, scalar: &[u8]) -> Vec<u8> {
    let (tag, data) = container(&[key.as_bytes()], tag::SMALL_OBJECT, &[(scalar[0], scalar[1..].to_vec())]);
    let mut document = vec![tag];
    document.extend(data);
    document
}

fn sql(document: &[u8]) -> String {
    let mut out = Vec::new();
    to_sql(document, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn prints_as_the_server_does() {
    for (tree, want) in [
        (json!({"a": 1, "b": [true, null]}), r#"{"a": 1, "b": [true, null]}"#),
        (json!({"aa": 1, "b": 2, "B": 3, "": 0}), r#"{"": 0, "B": 3, "b": 2, "aa": 1}"#),
        (json!("é\n\"q\\\u{1}\u{1f}\u{8}\u{c}/"), r#""é\n\"q\\\u0001\u001f\b\f/""#),
        (json!([]), "[]"),
        (json!({}), "{}"),
        (
            json!([-1, 40_000, -40_000, 3_000_000_000i64, u64::MAX, i64::MIN]),
            "[-1, 40000, -40000, 3000000000, 18446744073709551615, -9223372036854775808]",
        ),
        (
            json!([1.0, 1e300, -0.0, 0.1, 1e14, 1e15, 1.5e-7, 1.25e22, 123456.75]),
            "[1.0, 1e300, -0.0, 0.1, 100000000000000.0, 1e15, 0.00000015, 1.25e22, 123456.75]",
        ),
    ] {
        assert_eq!(to_text(&encode(&tree)).unwrap(), want);
    }
    assert_eq!(to_text(b"").unwrap(), "null");
}

#[test]
fn large_documents_and_long_strings() {
    let tree = json!({"k": "x".repeat(70_000), "z": [1, 70_000]});
    let text = to_text(&encode(&tree)).unwrap();
    assert_eq!(text, format!("{{\"k\": \"{}\", \"z\": [1, 70000]}}", "x".repeat(70_000)));
}

fn packed_datetime(y: i64, mo: i64, d: i64, h: i64, mi: i64, s: i64, micros: i64) -> [u8; 8] {
    (((((y * 13 + mo) << 5 | d) << 17 | h << 12 | mi << 6 | s) << 24) + micros).to_le_bytes()
}

#[test]
fn opaque_values() {
    let mut decimal = vec![20, 5];
    decimal.extend(crate::row::decimal::tests::pack(false, "000000000000001", "50000"));
    let decimal = opaque_document(opaque::DECIMAL, &decimal);
    assert_eq!(to_text(&decimal).unwrap(), "1.50000");
    assert_eq!(sql(&in_object("d", &decimal)), "JSON_OBJECT(_utf8mb4'd', CAST(_utf8mb4'1.50000' AS DECIMAL(20,5)))");
    let datetime = opaque_document(opaque::DATETIME, &packed_datetime(2024, 1, 2, 3, 4, 5, 678_901));
    assert_eq!(to_text(&datetime).unwrap(), r#""2024-01-02 03:04:05.678901""#);
    let date = opaque_document(opaque::DATE, &packed_datetime(2024, 1, 2, 0, 0, 0, 0));
    assert_eq!(to_text(&date).unwrap(), r#""2024-01-02""#);
    assert_eq!(sql(&date), "JSON_EXTRACT(JSON_ARRAY(CAST(_utf8mb4'2024-01-02' AS DATE)), _utf8mb4'$[0]')");
    let time = -(((12i64 << 12 | 34 << 6 | 56) << 24) + 500_000);
    let time = opaque_document(opaque::TIME, &time.to_le_bytes());
    assert_eq!(to_text(&time).unwrap(), r#""-12:34:56.500000""#);
    let binary = opaque_document(15, &[0, 255, 1]);
    assert_eq!(to_text(&binary).unwrap(), r#""base64:type15:AP8B""#);
    assert_eq!(sql(&in_object("o", &binary)), "JSON_OBJECT(_utf8mb4'o', CAST(x'00ff01' AS BINARY))");
    let long = to_text(&opaque_document(15, &[0; 60])).unwrap();
    assert_eq!(long, format!("\"base64:type15:{}\\nAAAA\"", "A".repeat(76)));
}

#[test]
fn text_is_kept_where_it_is_lossless() {
    let tree = json!({"a": [1, 5_000_000_000u64, -5_000_000_000i64, 1.5], "q": "it's \\ \n"});
    assert_eq!(is_text_lossless(&encode(&tree)), Ok(true));
    assert_eq!(sql(&encode(&tree)), r#"_utf8mb4'{"a": [1, 5000000000, -5000000000, 1.5], "q": "it\'s \\\\ \\n"}'"#);
    // An unsigned integer that text would make signed, and the other way round.
    assert_eq!(sql(&in_object("u", &[tag::UINT16, 5, 0])), "JSON_OBJECT(_utf8mb4'u', CAST(5 AS UNSIGNED))");
    let mut signed = vec![tag::INT64];
    signed.extend(5_000_000_000i64.to_le_bytes());
    assert_eq!(sql(&in_object("i", &signed)), "JSON_OBJECT(_utf8mb4'i', 5000000000)");
}

#[test]
fn lossless_members_stay_text_beside_others() {
    let members = [encode_value(&json!({"x": [1.5]})), encode_value(&json!(-0.0)), (tag::UINT16, vec![1, 0])];
    let (tag, data) = container(&[], tag::SMALL_ARRAY, &members);
    let document = [&[tag][..], &data].concat();
    assert_eq!(sql(&document), r#"JSON_ARRAY(CAST(_utf8mb4'{"x": [1.5]}' AS JSON), -0e0, CAST(1 AS UNSIGNED))"#);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        (0..depth).fold(vec![tag::LITERAL, 0], |inner, _| {
            let (tag, data) = container(&[], tag::SMALL_ARRAY, &[(inner[0], inner[1..].to_vec())]);
            [&[tag][..], &data].concat()
        })
    };
    assert_eq!(to_text(&nested(100)).unwrap().len(), 204);
    assert_eq!(to_text(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
    assert_eq!(to_sql(&nested(5000), &mut Vec::new()), Err(JsonError::TooDeep));
}

#[test]
fn overlapping_members_cannot_multiply() {
    // Each level names the next one twice: 2^60 values if it were followed.
    let mut inner = vec![tag::LITERAL, 0];
    for _ in 0..60 {
        let size = 4 + 2 * 3 + inner.len() - 1;
        let mut document = vec![tag::SMALL_ARRAY, 2, 0];
        document.extend((size as u16).to_le_bytes());
        for _ in 0..2 {
            document.extend([inner[0], 10, 0]);
        }
        document.extend(&inner[1..]);
        inner = document;
    }
    assert!(to_text(&inner).is_err());
    assert!(is_text_lossless(&inner).is_err());
}

fn diff(operation: u8, path: &str, value: Option<Tree>) -> Vec<u8> {
    let mut bytes = vec![operation, path.len() as u8];
    bytes.extend(path.bytes());
    if let Some(value) = value {
        let value = encode(&value);
        assert!(value.len() < 251);
        bytes.push(value.len() as u8);
        bytes.extend(value);
    }
    bytes
}

#[test]
fn partial_updates() {
    let before = encode(&json!({"a": {"b c": [1, 2, 70_000]}, "k": "v"}));
    let diffs = [
        diff(0, "$.a.\"b c\"[1]", Some(json!("two"))),
        diff(1, "$.a.\"b c\"[0]", Some(json!({"new": 1.5}))),
        diff(1, "$.a.\"b c\"[99]", Some(json!(null))),
        diff(1, "$.aa", Some(json!(true))),
        diff(2, "$.k", None),
    ]
    .concat();
    let after = apply_diffs(&before, &diffs).unwrap();
    assert_eq!(to_text(&after).unwrap(), r#"{"a": {"b c": [{"new": 1.5}, 1, "two", 70000, null]}, "aa": true}"#);
    assert_eq!(apply_diffs(&before, &[]).unwrap(), before);
    let root = diff(0, "$", Some(json!([1])));
    assert_eq!(to_text(&apply_diffs(&before, &root).unwrap()).unwrap(), "[1]");
}

#[test]
fn a_partial_update_may_outgrow_the_small_form() {
    let before = encode(&json!({"a": "x".repeat(65_000), "b": 70_000}));
    let step = apply_diffs(&before, &diff(1, "$.c", Some(json!("y".repeat(200))))).unwrap();
    let after = apply_diffs(
        &step,
        &[diff(1, "$.d", Some(json!("y".repeat(200)))), diff(1, "$.e", Some(json!("z".repeat(200))))].concat(),
    )
    .unwrap();
    let text = to_text(&after).unwrap();
    assert!(text.contains("\"b\": 70000") && text.ends_with(&format!("\"e\": \"{}\"}}", "z".repeat(200))));
    assert_eq!((step[0], after[0]), (tag::SMALL_OBJECT, tag::LARGE_OBJECT));
}

#[test]
fn a_diff_that_does_not_fit_is_refused() {
    let before = encode(&json!({"a": 1}));
    for diffs in [
        diff(0, "$.b", Some(json!(1))),
        diff(1, "$.a", Some(json!(1))),
        diff(2, "$.b", None),
        diff(2, "$[0]", None),
        diff(2, "$", None),
        diff(0, "$.a.b", Some(json!(1))),
        diff(0, "x", Some(json!(1))),
        diff(9, "$.a", None),
    ] {
        assert!(apply_diffs(&before, &diffs).is_err(), "{diffs:?}");
    }
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|v| json!(v)),
        any::<i64>().prop_map(|v| json!(v)),
        any::<u64>().prop_map(|v| json!(v)),
        // Doubles that any parser reads exactly; the others are compared number by number below.
        any::<i32>().prop_map(|v| json!(f64::from(v) / 8.0)),
        "[ -~é😀\n\u{1}]{0,200}".prop_map(|v| json!(v)),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Tree::Array),
            prop::collection::btree_map("[a-z.\" ]{0,6}", inner, 0..8)
                .prop_map(|m| Tree::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn text_means_the_same_document(tree in any_tree()) {
        let text = to_text(&encode(&tree)).unwrap();
        prop_assert_eq!(serde_json::from_str::<Tree>(&text).unwrap(), tree);
    }

    #[test]
    fn doubles_are_exact_in_text_and_sql(number in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
        let document = [&[tag::DOUBLE][..], &number.to_le_bytes()].concat();
        let text = to_text(&document).unwrap();
        prop_assert!(text.contains(['.', 'e']));
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
    }

    #[test]
    fn a_member_is_removed_and_comes_back(tree in any_tree(), other in any_tree()) {
        let document = encode(&json!({"k": tree, "zz": [other]}));
        let without = apply_diffs(&document, &diff(2, "$.k", None)).unwrap();
        let member = encode(&tree);
        let mut bytes = b"\x01\x03$.k\xfe".to_vec();
        bytes.extend((member.len() as u64).to_le_bytes());
        bytes.extend(member);
        let back = apply_diffs(&without, &bytes).unwrap();
        prop_assert_eq!(to_text(&back).unwrap(), to_text(&document).unwrap());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), diffs in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = to_text(&bytes);
        let _ = to_sql(&bytes, &mut Vec::new());
        let _ = apply_diffs(&bytes, &diffs);
    }

    #[test]
    fn damaged_documents_never_panic(tree in any_tree(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&tree);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = to_text(&bytes);
        let _ = to_sql(&bytes, &mut Vec::new());
        let _ = apply_diffs(&bytes, &diff(2, "$.k", None));
    }
}
