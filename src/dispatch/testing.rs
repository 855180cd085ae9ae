//! Tables and row images made by hand for tests: three INT columns `id`, `u` (NULL allowed) and `v`.

use std::sync::Arc;

use super::{Change, ChangeEvent};
use crate::model::{BinlogFile, EventSpan, RowOrdinal, SourceTable, TableName, TargetTable};
use crate::row::{ChangeKind, Column, ColumnKind, EventRows, Present, RowImage, RowPlaces, TableLayout, Value};
use crate::schema::{BoundTable, ColumnStructure, Dialect, KeyStructure, LaneRule, TableStructure, bind};

/// Columns of each table.
pub(crate) const COLUMNS: usize = 3;

/// A row, or what an image holds of it: `None` for a column that is not there, `Some(None)` for NULL.
pub(crate) type Cells = [Option<Option<i32>>; COLUMNS];

/// `s.<source>` bound to `d.<target>` with unique keys over these columns. Where lanes are found by runs, these have two
/// rows, so that a few keys are enough for all lanes.
pub(crate) fn table(source: &str, target: &str, keys: &[(&str, &[usize])]) -> Arc<BoundTable> {
    let nullable = [false, true, false];
    let column = |&nullable: &bool| Column { kind: ColumnKind::Int, nullable, unsigned: None, collation: None };
    let layout = Arc::new(TableLayout {
        source: SourceTable(TableName::new("s", source)),
        columns: nullable.iter().map(column).collect(),
        names: None,
    });
    let names = ["id", "u", "v"].iter().zip(nullable);
    let columns = names.map(|(name, nullable)| ColumnStructure {
        name: (*name).into(),
        data_type: "int".into(),
        unsigned: false,
        formatted: false,
        nullable,
        charset: None,
        collation: None,
        generated: false,
    });
    let unique_keys = keys.iter().map(|(name, columns)| KeyStructure {
        name: (*name).into(),
        columns: columns.iter().map(|&column| Some(column)).collect(),
        prefix: false,
    });
    let structure =
        TableStructure { columns: columns.collect(), unique_keys: unique_keys.collect(), loose_engine: None };
    let target = TargetTable(TableName::new("d", target));
    let mut bound = bind(&layout, &target, &structure, Dialect::MySql).expect("bind");
    if let LaneRule::Runs { bits, .. } = &mut bound.lane_rule {
        *bits = 1;
    }
    Arc::new(bound)
}

/// The same with lanes found by hash.
pub(crate) fn hashed_table(source: &str, target: &str, keys: &[(&str, &[usize])]) -> Arc<BoundTable> {
    let mut bound = Arc::into_inner(table(source, target, keys)).expect("just made");
    if let LaneRule::Runs { column, mut hashed, .. } = bound.lane_rule {
        hashed.push(column);
        bound.lane_rule = LaneRule::Spread(hashed);
    }
    Arc::new(bound)
}

/// The bytes of an image of these cells; one that holds all columns says so as the decoder does.
fn image(cells: Cells) -> (Present, Vec<u8>) {
    let there: Vec<Option<i32>> = cells.iter().flatten().copied().collect();
    let mut bytes = Vec::new();
    let nulls = there.iter().enumerate().fold(0u8, |bits, (at, value)| bits | u8::from(value.is_none()) << at);
    if !there.is_empty() {
        bytes.push(nulls);
    }
    there.iter().flatten().for_each(|value| bytes.extend(value.to_le_bytes()));
    let present = (there.len() < COLUMNS).then(|| cells.iter().map(Option::is_some).collect());
    (present, bytes)
}

/// The cells of an image.
pub(crate) fn cells(table: &BoundTable, image: RowImage<'_>) -> Cells {
    let mut cells = [None; COLUMNS];
    let read = image.visit(&table.layout, |column, value| {
        cells[column] = Some(match value {
            Value::Null => None,
            Value::Int(value) => Some(i32::try_from(value).expect("an INT fits")),
            other => panic!("{other:?} in a table of INT columns"),
        });
        Ok(())
    });
    read.expect("read an image");
    cells
}

/// A change between these rows.
pub(crate) fn change(
    table: &Arc<BoundTable>,
    before: Option<Cells>,
    after: Option<Cells>,
    ordinal: RowOrdinal,
) -> Change {
    let kind = match (before, after) {
        (None, _) => ChangeKind::Insert,
        (_, None) => ChangeKind::Delete,
        _ => ChangeKind::Update,
    };
    let (old, new) = (before.map(image).unwrap_or_default(), after.map(image).unwrap_or_default());
    let (end, bytes) = (old.1.len(), [old.1, new.1].concat());
    let all = bytes.len();
    let mut places = RowPlaces::default();
    places.push(0..end, end..all, all);
    let rows = EventRows::new(kind, bytes.into(), [old.0, new.0], places).expect("a small event");
    Change::of(&event(table, rows, ordinal), 0).expect("a change")
}

fn event(table: &Arc<BoundTable>, rows: EventRows, first: RowOrdinal) -> Arc<ChangeEvent> {
    let span = EventSpan { file: BinlogFile::parse("bin.000001").expect("a file"), start: 4, end: 4 };
    Arc::new(ChangeEvent::new(Arc::clone(table), rows, first, span))
}

/// The same change with another number.
pub(crate) fn numbered(change: &Change, ordinal: RowOrdinal) -> Change {
    Change::of(&event_of(std::slice::from_ref(change), ordinal), 0).expect("a change")
}

/// Changes of one kind, table and set of columns as those of one event, numbered from `first` on.
pub(crate) fn event_of(changes: &[Change], first: RowOrdinal) -> Arc<ChangeEvent> {
    let empty = EventRows::new(ChangeKind::Insert, Default::default(), [None, None], RowPlaces::default());
    let empty = empty.expect("a small event");
    let Some(one) = changes.first() else { return event(&table("t", "t", &[]), empty, first) };
    let columns = |image: Option<RowImage<'_>>| image.and_then(|image| image.present.map(Arc::from));
    let (mut bytes, mut images) = (Vec::new(), Vec::new());
    for change in changes {
        let columns = |change: &Change| [columns(change.before()), columns(change.after())];
        assert!(
            change.kind() == one.kind() && Arc::ptr_eq(change.table(), one.table()) && columns(change) == columns(one)
        );
        let [before, after] = [change.before(), change.after()].map(|image| {
            let start = bytes.len();
            bytes.extend(image.map_or(&[][..], |image| image.bytes));
            start..bytes.len()
        });
        images.push((before, after));
    }
    let mut places = RowPlaces::default();
    images.into_iter().for_each(|(before, after)| places.push(before, after, bytes.len()));
    let present = [columns(one.before()), columns(one.after())];
    let rows = EventRows::new(one.kind(), bytes.into(), present, places).expect("a small event");
    event(one.table(), rows, first)
}

#[test]
fn images_read_back() {
    let keyed = table("t", "t", &[("PRIMARY", &[0])]);
    let insert = |row| change(&keyed, None, Some(row), RowOrdinal::default());
    for row in [[Some(Some(-7)), Some(None), Some(Some(9))], [Some(Some(1)), None, None], [None, Some(None), None]] {
        assert_eq!(cells(&keyed, insert(row).after().expect("an image")), row);
    }
    let whole = insert([Some(Some(1)), Some(None), Some(Some(2))]);
    assert_eq!(whole.after().expect("an image").bytes, b"\x02\x01\0\0\0\x02\0\0\0");
}
