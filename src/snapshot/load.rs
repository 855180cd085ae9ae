//! Rows as lines of `LOAD DATA LOCAL`, which costs the target about two thirds of what the same rows cost as literals.
//!
//! Invariant: what is loaded is what the INSERT would have written. So only columns go this way whose text is read as the same
//! value by both, of one type and character set on both sides, or of which an expression makes that value; `REPLACE` keeps the strict mode, which `LOCAL` alone would
//! leave; and where the server has as much as a warning, the chunk is rolled back and written as statements, made from the
//! same lines. A server that does not take `LOCAL` gets statements from the first chunk on.

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, InfileData};

use super::apart;
use super::plan::{TablePlan, ident};
use super::value::Field;
use crate::downstream::limited;
use crate::schema::Dialect;

/// Bytes that are sent at once, and of a block of lines unless one line has more.
pub(super) const BLOCK: usize = 256 << 10;
/// What a server makes of loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It does not take them.
    Not,
    /// One after the other, where a table has an AUTO_INCREMENT column: each locks that to its end.
    InTurn,
    /// However many at once.
    Freely,
}

/// How a server takes loads. One that writes statements to its binlog does not count, nor a cluster, which may cut a load into
/// transactions.
pub(super) async fn taken(conn: &mut Conn, dialect: Dialect) -> Taken {
    match dialect {
        Dialect::MySql | Dialect::MariaDb if is_taken(conn).await => {
            let mode = limited(conn.query_first::<u8, _>("SELECT @@innodb_autoinc_lock_mode")).await;
            if matches!(mode, Ok(Some(2))) { Taken::Freely } else { Taken::InTurn }
        }
        Dialect::MySql | Dialect::MariaDb | Dialect::TiDb => Taken::Not,
    }
}

async fn is_taken(conn: &mut Conn) -> bool {
    let asked =
        limited(conn.query_first::<(u8, u8, String), _>("SELECT @@local_infile, @@log_bin, @@binlog_format")).await;
    let Ok(Some((1, log, format))) = asked else { return false };
    let cluster = limited(conn.query_first::<(String, String), _>("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'")).await;
    let alone = match cluster {
        Ok(Some((_, on))) => !on.eq_ignore_ascii_case("on"),
        Ok(None) => true,
        Err(_) => false,
    };
    alone && (log == 0 || format == "ROW")
}

/// The statement that loads lines.
pub(super) fn statement(plan: &TablePlan) -> String {
    let (mut fields, mut values) = (Vec::new(), Vec::new());
    for (at, column) in plan.columns[..plan.written].iter().enumerate() {
        let name = ident(&column.name);
        let value = match &column.field {
            Field::AsItIs => {
                fields.push(name);
                continue;
            }
            Field::Number => format!("{name}=CAST(@f{at} AS UNSIGNED)"),
            Field::Text(charset) => format!("{name}=CONVERT(@f{at} USING {charset})"),
        };
        fields.push(format!("@f{at}"));
        values.push(value);
    }
    let values = if values.is_empty() { String::new() } else { format!(" SET {}", values.join(",")) };
    format!(
        "LOAD DATA LOCAL INFILE 'rows' REPLACE INTO TABLE {} CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY \
         '\\\\' LINES TERMINATED BY '\\n' ({}){values}",
        plan.target,
        fields.join(",")
    )
}

/// Sends lines of so many rows. Gives how many rows made way for them where the server took each of them, and every value as it
/// is.
pub(super) async fn send(
    conn: &mut Conn,
    statement: &str,
    lines: &[Bytes],
    rows: u64,
) -> Result<Option<u64>, mysql_async::Error> {
    offer(conn, lines.iter().flat_map(slices).collect());
    let answer = limited(conn.query_drop(statement)).await;
    // Where it did not ask for them.
    offer(conn, Vec::new());
    answer?;
    // A row that was replaced counts twice.
    let replaced = conn.affected_rows().checked_sub(rows);
    Ok(replaced.filter(|_| conn.last_ok_packet().is_some_and(|answer| answer.warnings() == 0)))
}

/// What the server gets when it next asks for a file.
fn offer(conn: &mut Conn, blocks: Vec<Bytes>) {
    conn.set_infile_handler(async move {
        let stream: InfileData = Box::pin(tokio_stream::iter(blocks.into_iter().map(Ok)));
        Ok(stream)
    });
}

/// Lines of a chunk that go one after the other, in as many pieces as it takes.
#[derive(Debug)]
pub(super) struct Cut<'a> {
    blocks: &'a [Bytes],
    /// Bytes of the first block that are gone.
    gone: usize,
    /// Rows that are left.
    rows: u64,
}

impl<'a> Cut<'a> {
    /// Nothing is gone.
    pub fn new(blocks: &'a [Bytes], rows: u64) -> Self {
        Cut { blocks, gone: 0, rows }
    }

    /// The next piece with its rows: whole lines of about that many bytes, or all that is left.
    pub fn next(&mut self, bytes: Option<usize>) -> Option<(Vec<Bytes>, u64)> {
        let (first, others) = self.blocks.split_first()?;
        let rest = first.slice(self.gone..);
        let end = bytes.map_or(rest.len(), |bytes| {
            let behind = bytes.clamp(1, rest.len()) - 1;
            // Inside values the byte that ends lines is escaped.
            rest[behind..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| behind + at + 1)
        });
        if bytes.is_some() && end < rest.len() {
            self.gone += end;
            let piece = rest.slice(..end);
            return Some(self.piece(vec![piece]));
        }
        (self.blocks, self.gone) = (others, 0);
        let mut piece = vec![rest];
        if bytes.is_none() {
            piece.extend(std::mem::take(&mut self.blocks).iter().cloned());
        }
        Some(self.piece(piece))
    }

    fn piece(&mut self, piece: Vec<Bytes>) -> (Vec<Bytes>, u64) {
        let ends = |piece: &[Bytes]| piece.iter().flatten().filter(|byte| **byte == b'\n').count() as u64;
        let rows = if self.blocks.is_empty() { self.rows } else { ends(&piece) };
        self.rows = self.rows.saturating_sub(rows);
        (piece, rows)
    }
}

/// Parts of a block, none larger than [`BLOCK`], without a copy.
fn slices(block: &Bytes) -> Vec<Bytes> {
    (0..block.len()).step_by(BLOCK).map(|at| block.slice(at..block.len().min(at + BLOCK))).collect()
}

/// Makes lines out of rows.
#[derive(Debug, Default)]
pub(super) struct Lines {
    blocks: Vec<Bytes>,
    current: Vec<u8>,
}

impl Lines {
    /// Adds a row of about `bytes`.
    pub fn add<'a>(&mut self, plan: &TablePlan, bytes: usize, value: impl Fn(usize) -> Option<&'a [u8]>) {
        let room = bytes + bytes / 16 + 2 * plan.written + 16;
        if !self.current.is_empty() && self.current.len() + room > BLOCK {
            self.close();
        }
        if self.current.is_empty() {
            // Once: a large row that grew would be there twice for a moment.
            let room = room.max(if bytes < BLOCK / 16 { BLOCK } else { 0 });
            self.current.reserve_exact(if bytes >= apart::LARGE { room.max(apart::SIZE) } else { room });
        }
        for at in 0..plan.written {
            if at > 0 {
                self.current.push(b'\t');
            }
            // Numbers, too: a column may have become a text since the plan was made.
            match value(at) {
                None => self.current.extend(b"\\N"),
                Some(bytes) => escape_into(&mut self.current, bytes),
            }
        }
        self.current.push(b'\n');
    }

    fn close(&mut self) {
        self.blocks.push(Bytes::from(std::mem::take(&mut self.current)));
    }

    /// The lines since the last time.
    pub fn take(&mut self) -> Vec<Bytes> {
        if !self.current.is_empty() {
            self.close();
        }
        std::mem::take(&mut self.blocks)
    }
}

/// Escapes what ends a field or a line.
fn escape_into(out: &mut Vec<u8>, bytes: &[u8]) {
    // As for literals: most blocks have nothing to escape.
    for block in bytes.chunks(64) {
        let any = block.iter().fold(false, |any, &byte| any | matches!(byte, b'\\' | b'\t' | b'\n'));
        if !any {
            out.extend_from_slice(block);
            continue;
        }
        for &byte in block {
            match byte {
                b'\\' => out.extend(b"\\\\"),
                b'\t' => out.extend(b"\\t"),
                b'\n' => out.extend(b"\\n"),
                _ => out.push(byte),
            }
        }
    }
}

/// The rows of a block of lines as they were added.
pub(super) fn rows(block: &[u8]) -> impl Iterator<Item = Vec<Option<Vec<u8>>>> + '_ {
    // Bytes that end lines and fields are escaped inside values, so that no other of them is left.
    let lines = block.strip_suffix(b"\n").into_iter().flat_map(|lines| lines.split(|byte| *byte == b'\n'));
    lines.map(|line| line.split(|byte| *byte == b'\t').map(unescaped).collect())
}

fn unescaped(field: &[u8]) -> Option<Vec<u8>> {
    if field == b"\\N" {
        return None;
    }
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next().map(|byte| match byte {
                b't' => b'\t',
                b'n' => b'\n',
                other => *other,
            })),
            _ => out.push(byte),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{SourceTable, TableName, TargetTable};
    use crate::snapshot::structure::{Column, Key, Structure};
    use crate::snapshot::value::field;

    fn column(name: &str, data_type: &str, charset: Option<&str>) -> Column {
        Column {
            name: name.into(),
            data_type: data_type.into(),
            column_type: data_type.into(),
            nullable: true,
            charset: charset.map(str::to_owned),
            collation: None,
            generated: false,
        }
    }

    fn plan(columns: Vec<Column>) -> TablePlan {
        let table =
            Structure { columns, keys: vec![Key { name: "PRIMARY".into(), columns: vec![Some(0)] }], counts: false };
        let name = || TableName::new("a", "t");
        TablePlan::new(SourceTable(name()), TargetTable(name()), &table, &table).unwrap()
    }

    #[test]
    fn only_columns_that_both_sides_read_alike_are_loaded() {
        let text = |charset| column("c", "varchar", Some(charset));
        let alike = |column: &Column| field(column, column);
        assert_eq!((alike(&text("gbk")), alike(&column("a", "bit", None))), (Some(Field::AsItIs), Some(Field::AsItIs)));
        assert_eq!(alike(&text("utf16")), Some(Field::Text("utf16".into())));
        assert_eq!(alike(&column("a", "enum", Some("latin1"))), Some(Field::Number));
        assert_eq!(field(&text("latin1"), &text("utf8mb4")), None);
        assert_eq!(field(&column("a", "double", None), &column("a", "decimal", None)), None);
        assert_eq!(field(&column("a", "enum", Some("latin1")), &text("latin1")), None);
        let (json, long) = (column("a", "json", None), column("a", "longtext", Some("utf8mb4")));
        assert_eq!(
            (field(&json, &long), field(&long, &json)),
            (Some(Field::AsItIs), Some(Field::Text("utf8mb4".into())))
        );
        assert_eq!(field(&json, &column("a", "longtext", Some("latin1"))), None);
        for other in ["geometry", "point", "vector"] {
            assert_eq!(alike(&column("a", other, None)), None, "{other}");
        }
    }

    #[test]
    fn the_statement_says_how_lines_are_made() {
        assert_eq!(
            statement(&plan(vec![column("a", "int", None), column("b`", "blob", None)])),
            r"LOAD DATA LOCAL INFILE 'rows' REPLACE INTO TABLE `a`.`t` CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' (`a`,`b```)"
        );
        let made =
            statement(&plan(vec![column("a", "year", None), column("b", "int", None), column("c", "json", None)]));
        assert!(made.ends_with("(@f0,`b`,@f2) SET `a`=CAST(@f0 AS UNSIGNED),`c`=CONVERT(@f2 USING utf8mb4)"), "{made}");
    }

    #[test]
    fn blocks_are_cut_and_nothing_is_copied() {
        let block = Bytes::from(vec![b'x'; 2 * BLOCK + 1]);
        let parts = slices(&block);
        assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [BLOCK, BLOCK, 1]);
        assert_eq!(parts[1].as_ptr(), block[BLOCK..].as_ptr());
        assert!(slices(&Bytes::new()).is_empty());
    }

    #[test]
    fn a_large_row_gets_room_that_is_unmapped_at_its_end() {
        let plan = plan(vec![column("a", "longblob", None)]);
        let room = |bytes: usize| {
            let (mut lines, value) = (Lines::default(), vec![b'x'; bytes]);
            lines.add(&plan, bytes, |_| Some(&value[..]));
            lines.current.capacity()
        };
        assert!(room(apart::LARGE) >= apart::SIZE && room(apart::LARGE - 1) < 2 * apart::LARGE);
        assert!(apart::SIZE > 32 << 20 && room(100) == BLOCK);
    }

    proptest! {
        /// Lines have as many ends as rows, and give back what was put in, whatever it was.
        #[test]
        fn lines_give_rows_back(
            given in prop::collection::vec(
                prop::collection::vec(
                    prop::option::of(prop::collection::vec(prop::sample::select(&b"\\\t\nNnt0\0ab\xff'"[..]), 0..200)), 2,
                ),
                1..20,
            ),
        ) {
            let plan = plan(vec![column("a", "blob", None), column("b", "blob", None)]);
            let mut lines = Lines::default();
            for row in &given {
                let bytes = row.iter().flatten().map(Vec::len).sum();
                lines.add(&plan, bytes, |at| row[at].as_deref());
            }
            let blocks = lines.take();
            let ends = blocks.iter().flatten().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(ends, given.len());
            let back: Vec<_> = blocks.iter().flat_map(|block| rows(block)).collect();
            prop_assert_eq!(back, given);
            prop_assert!(lines.take().is_empty());
        }

        /// Pieces are whole lines, all of them, and know how many.
        #[test]
        fn pieces_are_whole_lines(
            lengths in prop::collection::vec(0_usize..300, 1..40),
            ends in prop::collection::vec(any::<bool>(), 40),
            sizes in prop::collection::vec(prop::option::weighted(0.9, 0_usize..500), 1..10),
        ) {
            let mut blocks = vec![Vec::new()];
            for (length, end) in lengths.iter().zip(&ends) {
                let block = blocks.last_mut().unwrap();
                block.extend(std::iter::repeat_n(b'x', *length));
                block.push(b'\n');
                if *end {
                    blocks.push(Vec::new());
                }
            }
            let blocks: Vec<Bytes> = blocks.into_iter().filter(|block| !block.is_empty()).map(Bytes::from).collect();
            let mut cut = Cut::new(&blocks, lengths.len() as u64);
            let (mut all, mut rows, mut sizes) = (Vec::new(), 0, sizes.into_iter().cycle());
            while let Some((piece, of)) = sizes.next().and_then(|size| cut.next(size)) {
                let piece = piece.concat();
                prop_assert!(piece.ends_with(b"\n"));
                prop_assert_eq!(piece.iter().filter(|byte| **byte == b'\n').count() as u64, of);
                all.extend(piece);
                rows += of;
            }
            prop_assert_eq!((all, rows), (blocks.concat(), lengths.len() as u64));
        }
    }
}
