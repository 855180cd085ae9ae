//! Layouts bound to structures made up here.

use super::*;
use crate::model::TableName;
use crate::schema::KeyStructure;

fn column(name: &str, data_type: &str, collation: Option<&str>) -> ColumnStructure {
    ColumnStructure {
        name: name.into(),
        data_type: data_type.into(),
        unsigned: false,
        formatted: false,
        nullable: false,
        charset: collation.map(|c| c.split('_').next().unwrap().into()),
        collation: collation.map(Into::into),
        generated: false,
    }
}

fn layout(kinds: &[ColumnKind]) -> Arc<TableLayout> {
    let columns = kinds.iter().map(|&kind| Column { kind, nullable: false, unsigned: None, collation: None }).collect();
    Arc::new(TableLayout { source: SourceTable(TableName::new("s", "t")), columns, names: None })
}

fn key(name: &str, columns: &[usize]) -> KeyStructure {
    KeyStructure { name: name.into(), columns: columns.iter().map(|&c| Some(c)).collect(), prefix: false }
}

fn bound(structure: TableStructure, layout: &Arc<TableLayout>) -> Result<BoundTable, BindError> {
    bind(layout, &TargetTable(TableName::new("d", "t")), &structure, Dialect::MySql)
}

#[test]
fn keys_are_spread_by_runs_or_hash_and_folding_collations_stay_together() {
    let shape = layout(&[ColumnKind::Int, ColumnKind::VarChar { max_bytes: 80 }]);
    let int = || column("a", "int", None);
    let text = || column("b", "varchar", Some("utf8mb4_general_ci"));
    let table = |keys| TableStructure { columns: vec![int(), text()], unique_keys: keys, loose_engine: None };
    let rule = |keys| bound(table(keys), &shape).unwrap().lane_rule;
    let runs = |column, hashed: &[usize]| LaneRule::Runs { column, bits: RUN_BITS, hashed: hashed.to_vec() };
    assert_eq!(rule(vec![key("PRIMARY", &[0])]), runs(0, &[]));
    assert_eq!(rule(vec![key("PRIMARY", &[1])]), LaneRule::Pinned);
    assert_eq!(rule(vec![key("PRIMARY", &[1, 0])]), runs(0, &[]));
    // In the key's order: the last one makes neighbours.
    assert_eq!(rule(vec![key("PRIMARY", &[0, 1])]), LaneRule::Spread(vec![0]));
    assert_eq!(rule(vec![key("PRIMARY", &[0]), key("u", &[1])]), LaneRule::Pinned);
    assert_eq!(rule(vec![]), LaneRule::Pinned);
    let three = layout(&[ColumnKind::Int, ColumnKind::BigInt, ColumnKind::Blob { length_bytes: 2 }]);
    let rule = |last, keys| {
        let columns = vec![int(), column("i", "bigint", None), column("c", last, None)];
        bound(TableStructure { columns, unique_keys: keys, loose_engine: None }, &three).unwrap().lane_rule
    };
    assert_eq!(rule("varbinary", vec![key("PRIMARY", &[0, 1])]), runs(1, &[0]));
    assert_eq!(rule("varbinary", vec![key("PRIMARY", &[1, 0])]), runs(0, &[1]));
    assert_eq!(rule("varbinary", vec![key("PRIMARY", &[0, 2])]), LaneRule::Spread(vec![0, 2]));
    // Few of its rows stand on a page, and few are in a group.
    assert_eq!(rule("blob", vec![key("PRIMARY", &[0, 1])]), LaneRule::Spread(vec![0, 1]));
}

#[test]
fn a_table_is_dealt_out_by_a_rule_of_before() {
    let shape = layout(&[ColumnKind::Int, ColumnKind::Int]);
    let table = |keys| {
        let columns = vec![column("a", "int", None), column("b`c", "int", None)];
        bound(TableStructure { columns, unique_keys: keys, loose_engine: None }, &shape).unwrap()
    };
    let all = [vec![], vec![key("PRIMARY", &[1])], vec![key("PRIMARY", &[0]), key("u", &[1])]];
    for before in &all {
        let before = table(before.clone());
        let stored = serde_json::to_string(&before.rule()).unwrap();
        for now in &all {
            let mut now = table(now.clone());
            now.follow(&serde_json::from_str(&stored).unwrap()).unwrap();
            assert_eq!((&now.identity, &now.lane_rule), (&before.identity, &before.lane_rule));
            assert_eq!(now.rule(), before.rule());
        }
    }
    // As versions wrote it that knew no runs.
    let mut now = table(all[1].clone());
    now.follow(&serde_json::from_str(r#"{"identity":["`b``c`"],"spread":["`b``c`"]}"#).unwrap()).unwrap();
    assert_eq!(now.lane_rule, LaneRule::Spread(vec![1]));
    now.follow(&serde_json::from_str(r#"{"identity":["`b``c`"],"spread":null}"#).unwrap()).unwrap();
    assert_eq!(now.lane_rule, LaneRule::Pinned);
    let renamed = vec![column("a", "int", None), column("c", "int", None)];
    let mut renamed =
        bound(TableStructure { columns: renamed, unique_keys: vec![], loose_engine: None }, &shape).unwrap();
    let rule = table(all[1].clone()).rule();
    assert_eq!(renamed.follow(&rule), Err(BindError::NoSuchColumn { name: "b`c".into() }));
}

#[test]
fn a_nullable_unique_key_is_no_identity() {
    let shape = layout(&[ColumnKind::Int]);
    let nullable = ColumnStructure { nullable: true, ..column("a", "int", None) };
    let table = TableStructure { columns: vec![nullable], unique_keys: vec![key("u", &[0])], loose_engine: None };
    assert!(bound(table, &shape).unwrap().is_ordered());
}

#[test]
fn counts_must_agree_without_names_and_names_decide_with_them() {
    let structure = || TableStructure {
        columns: vec![column("a", "int", None), column("b", "int", None)],
        unique_keys: vec![],
        loose_engine: None,
    };
    let shape = layout(&[ColumnKind::Int]);
    assert_eq!(bound(structure(), &shape).unwrap_err(), BindError::ColumnCount { columns: 2, values: 1 });
    let mut named = (*shape).clone();
    named.names = Some(vec!["B".into()]);
    assert_eq!(bound(structure(), &Arc::new(named)).unwrap().columns[0].quoted, "`b`");
}

/// A text column without metadata: what the source says of it, whether that holds, what the downstream has.
fn text_between(now: Option<&str>, holds: bool, here: Option<&str>) -> Result<Encoding, BindError> {
    let shape = layout(&[ColumnKind::VarChar { max_bytes: 80 }]);
    let mut own = column("a", "varchar", None);
    own.charset = here.map(Into::into);
    let structure = TableStructure { columns: vec![own], unique_keys: vec![], loose_engine: None };
    let of_source = |charset: &str| OriginColumn {
        name: "A".into(),
        data_type: "varchar".into(),
        charset: (!charset.is_empty()).then(|| charset.into()),
        unsigned: None,
    };
    let origin = now.map(|now| OriginTable { columns: vec![of_source(now)], holds, by_name: false });
    let target = TargetTable(TableName::new("d", "t"));
    let bound = bind_with(&shape, &target, &structure, Dialect::MySql, origin.as_ref())?;
    Ok(bound.columns[0].encoding.clone())
}

#[test]
fn a_text_is_what_the_source_says_while_that_is_certain() {
    use Encoding::{Binary, Text, Utf8Or};
    for (now, holds, here, expected) in [
        (None, true, Some("latin1"), Text("latin1")),
        (Some("latin1"), true, Some("utf8mb4"), Text("latin1")),
        (Some("latin1"), true, None, Binary { pad: 0 }),
        (Some(""), true, Some("utf8mb4"), Binary { pad: 0 }),
        // Altered since: only what both say is certain.
        (Some("utf8mb3"), false, Some("utf8mb4"), Text("utf8mb4")),
        (Some("latin1"), false, Some("utf8mb4"), Utf8Or("latin1")),
        (Some("utf8mb4"), false, Some("latin1"), Utf8Or("latin1")),
        (Some(""), false, Some("latin1"), Text("latin1")),
    ] {
        assert_eq!(text_between(now, holds, here), Ok(expected), "{now:?} {holds} {here:?}");
    }
    for (now, here) in [("gbk", "utf8mb4"), ("latin1", "cp1251"), ("utf8mb4", "sjis")] {
        let refused = text_between(Some(now), false, Some(here));
        assert!(matches!(refused, Err(BindError::CharsetUnknown { .. })), "{now} {here}: {refused:?}");
    }
}

#[test]
fn types_of_mariadb_are_texts_in_columns_of_text_only() {
    let shape = layout(&[ColumnKind::Char { max_bytes: 16 }]);
    let of_source = OriginColumn { name: "a".into(), data_type: "uuid".into(), charset: None, unsigned: None };
    let origin = OriginTable { columns: vec![of_source], holds: true, by_name: false };
    let encoding = |own: ColumnStructure| {
        let structure = TableStructure { columns: vec![own], unique_keys: vec![], loose_engine: None };
        let target = TargetTable(TableName::new("d", "t"));
        let bound = bind_with(&shape, &target, &structure, Dialect::MySql, Some(&origin)).unwrap();
        bound.columns[0].encoding.clone()
    };
    assert_eq!(encoding(column("a", "char", Some("utf8mb4_bin"))), Encoding::Uuid);
    assert_eq!(encoding(column("a", "binary", None)), Encoding::Binary { pad: 16 });
}

#[test]
fn a_key_that_the_downstream_made_up_is_no_column_of_the_source() {
    let columns = || vec![column("my_row_id", "bigint", None), column("a", "int", None)];
    let keys = || vec![key("PRIMARY", &[0])];
    let structure = || TableStructure { columns: columns(), unique_keys: keys(), loose_engine: None };
    let one = bound(structure(), &layout(&[ColumnKind::Int])).unwrap();
    assert_eq!((one.columns[0].quoted.as_str(), one.identity), ("`a`", None));
    let both = bound(structure(), &layout(&[ColumnKind::BigInt, ColumnKind::Int])).unwrap();
    assert_eq!(both.identity, Some(vec![0]));
}

#[test]
fn declared_columns_are_found_by_their_names() {
    let of = |name: &str, unsigned| OriginColumn {
        name: name.into(),
        data_type: "int".into(),
        charset: None,
        unsigned: Some(unsigned),
    };
    let origin = |columns| OriginTable { columns, holds: true, by_name: true };
    let structure = || TableStructure {
        columns: vec![column("x", "int", None), column("b", "int", None), column("a", "bigint", None)],
        unique_keys: vec![key("PRIMARY", &[2])],
        loose_engine: None,
    };
    let shape = layout(&[ColumnKind::Int, ColumnKind::Int]);
    let target = TargetTable(TableName::new("d", "t"));
    let bound = |origin: &OriginTable| bind_with(&shape, &target, &structure(), Dialect::MySql, Some(origin));
    let table = bound(&origin(vec![of("A", true), of("b", false)])).unwrap();
    let names: Vec<&str> = table.columns.iter().map(|column| column.quoted.as_str()).collect();
    assert_eq!((names.as_slice(), table.identity), (&["`a`", "`b`"][..], Some(vec![0])));
    assert_eq!(table.columns[0].encoding, Encoding::Unsigned(ColumnKind::Int));
    assert_eq!(table.columns[1].encoding, Encoding::Plain);
    let other = bound(&origin(vec![of("a", false), of("c", false)])).unwrap_err();
    assert_eq!(other, BindError::NoSuchColumn { name: "c".into() });
    let three = bound(&origin(vec![of("a", false), of("b", false), of("x", false)])).unwrap_err();
    assert_eq!(three, BindError::ColumnCount { columns: 3, values: 2 });
    // What the source writes counts more.
    let mut named = (*shape).clone();
    named.names = Some(vec!["b".into(), "x".into()]);
    let table = bind_with(&Arc::new(named), &target, &structure(), Dialect::MySql, Some(&origin(vec![of("a", false)])));
    assert_eq!(table.unwrap().columns[1].quoted, "`x`");
}
