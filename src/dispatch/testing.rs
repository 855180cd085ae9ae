//! Tables and row images made by hand for tests: three INT columns `id`, `u` (NULL allowed) and `v`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Change, EventSpan};
use crate::model::{BinlogPosition, RowOrdinal, SourceTable, TableName, TargetTable};
use crate::row::{ChangeKind, Column, ColumnKind, ReadRow, RowImage, RowPair, TableLayout, Value};
use crate::schema::{BoundTable, ColumnStructure, Dialect, KeyStructure, TableStructure, bind};

/// Columns of each table.
pub(crate) const COLUMNS: usize = 3;

/// A row, or what an image holds of it: `None` for a column that is not there, `Some(None)` for NULL.
pub(crate) type Cells = [Option<Option<i32>>; COLUMNS];

/// `s.<source>` bound to `d.<target>` with unique keys over these columns.
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
    Arc::new(bind(&layout, &target, &structure, Dialect::MySql).expect("bind"))
}

/// The image of these cells; one that holds all columns says so as the decoder does.
pub(crate) fn image(cells: Cells) -> RowImage {
    let there: Vec<Option<i32>> = cells.iter().flatten().copied().collect();
    let mut bytes = BytesMut::new();
    let nulls = there.iter().enumerate().fold(0u8, |bits, (at, value)| bits | u8::from(value.is_none()) << at);
    if !there.is_empty() {
        bytes.put_u8(nulls);
    }
    there.iter().flatten().for_each(|value| bytes.put_i32_le(*value));
    let present = (there.len() < COLUMNS).then(|| cells.iter().map(Option::is_some).collect());
    RowImage { present, bytes: bytes.freeze(), resolved_json: None }
}

/// The cells of an image.
pub(crate) fn cells(table: &BoundTable, image: &RowImage) -> Cells {
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
    let position = BinlogPosition::parse("bin.000001", 4).expect("a position");
    let rows = RowPair { before: before.map(image), after: after.map(image) };
    let span = Arc::new(EventSpan { start: position.clone(), end: position });
    Change { table: Arc::clone(table), kind, rows, ordinal, span }
}

#[test]
fn images_read_back() {
    let keyed = table("t", "t", &[("PRIMARY", &[0])]);
    for row in [[Some(Some(-7)), Some(None), Some(Some(9))], [Some(Some(1)), None, None], [None, Some(None), None]] {
        assert_eq!(cells(&keyed, &image(row)), row);
    }
    assert_eq!(
        image([Some(Some(1)), Some(None), Some(Some(2))]).bytes,
        Bytes::from_static(b"\x02\x01\0\0\0\x02\0\0\0")
    );
}
