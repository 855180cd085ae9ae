//! Streams made by hand, event by event.

use proptest::prelude::*;

use super::*;
use crate::error::{Retry, retry_of};
use crate::model::{BinlogPosition, GtidSet, SourceTable};
use crate::row::{ChangeKind, RowImage, Value};

struct All;
impl TableFilter for All {
    fn wants(&self, _: &SourceTable) -> bool {
        true
    }
}

struct Only(&'static str);
impl TableFilter for Only {
    fn wants(&self, table: &SourceTable) -> bool {
        &*table.0.table == self.0
    }
}

/// A stream that gives each event its end position.
struct Stream {
    decoder: Decoder,
    offset: u32,
    out: Vec<Decoded>,
}

fn raw(kind: u8, end: u32, flags: u16, body: &[u8]) -> Bytes {
    let mut bytes = 7u32.to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(((crate::binlog::HEADER_LEN + body.len()) as u32).to_le_bytes());
    bytes.extend(end.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(body);
    bytes.into()
}

fn query(text: &[u8]) -> Vec<u8> {
    let mut body = vec![0u8; 13];
    body[8] = 2;
    body.extend(b"db\0");
    body.extend(text);
    body
}

/// INT and VARCHAR(20).
fn table_map(id: u8, table: &str) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0, 0, 0, 1, 0, 2, b'd', b'b', 0, table.len() as u8];
    body.extend(table.bytes());
    body.extend([0, 2, 3, 15, 2, 20, 0, 2]);
    body
}

fn row(id: u8, name: &str) -> Vec<u8> {
    let mut bytes = vec![0, id, 0, 0, 0, name.len() as u8];
    bytes.extend(name.bytes());
    bytes
}

/// A version 2 event with all columns.
fn rows(id: u8, update: bool, images: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 3];
    if update {
        body.push(3);
    }
    images.iter().for_each(|image| body.extend(image));
    body
}

fn start() -> Location {
    Location::new(BinlogPosition::parse("bin.000001", 4).unwrap(), GtidSet::empty(Flavor::MySql))
}

impl Stream {
    fn new(flavor: Flavor) -> Stream {
        let mut start = start();
        start.gtids = GtidSet::empty(flavor);
        Stream { decoder: Decoder::new(flavor, start, false), offset: 4, out: Vec::new() }
    }

    fn try_feed(&mut self, filter: &dyn TableFilter, kind: u8, body: &[u8]) -> Result<Progress, DecodeError> {
        self.offset += (crate::binlog::HEADER_LEN + body.len()) as u32;
        let event = raw(kind, self.offset, 0, body);
        self.feed_raw(filter, &event)
    }

    /// An event in the midst of others that came with it.
    fn feed_raw(&mut self, filter: &dyn TableFilter, event: &[u8]) -> Result<Progress, DecodeError> {
        let run = Bytes::from([b"before".as_slice(), event, b"behind"].concat());
        self.decoder.feed(&run, 6..6 + event.len(), filter, &mut self.out)
    }

    fn feed(&mut self, kind: u8, body: &[u8]) -> &mut Self {
        assert_eq!(self.try_feed(&All, kind, body).unwrap(), Progress::Done);
        self
    }

    /// What came out, in short.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out).iter().map(short).collect()
    }
}

fn short(item: &Decoded) -> String {
    match item {
        Decoded::Begin { gtid, start, .. } => {
            let gtid = gtid.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("begin {gtid}@{}", start.position.offset)
        }
        Decoded::Rows(rows) => {
            format!("{:?} {} #{} x{}", rows.rows.kind(), rows.layout.source.0.table, rows.ordinal, rows.rows.len())
        }
        Decoded::Statement(statement) => statement.text.clone(),
        Decoded::Commit { location, .. } => format!("commit {}@{}", location.gtids, location.position.offset),
        Decoded::Prepared { xid } => format!("prepared {xid}"),
        Decoded::XaCommit { xid } => format!("committed {xid}"),
        Decoded::XaRollback { xid, .. } => format!("undo {xid}"),
        Decoded::Restart => "restart".to_owned(),
    }
}

fn values(image: RowImage<'_>, rows: &RowsEvent) -> Vec<String> {
    let mut values = Vec::new();
    image
        .visit(&rows.layout, |_, value| {
            values.push(format!("{value:?}"));
            Ok(())
        })
        .unwrap();
    values
}

const GTID: [u8; 25] = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn a_transaction_of_rows() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::GTID, &GTID).feed(kind::QUERY, &query(b"BEGIN")).feed(kind::TABLE_MAP, &table_map(9, "t"));
    stream.feed(kind::WRITE_ROWS_V2, &rows(9, false, &[row(1, "a"), row(2, "b")]));
    stream.feed(kind::TABLE_MAP, &table_map(9, "t"));
    stream.feed(kind::UPDATE_ROWS_V2, &rows(9, true, &[row(1, "a"), row(1, "z")]));
    stream.feed(kind::TABLE_MAP, &table_map(9, "t")).feed(kind::DELETE_ROWS_V2, &rows(9, false, &[row(2, "b")]));
    stream.feed(kind::XID, &[0; 8]);
    let Decoded::Rows(update) = &stream.out[2] else { panic!("no update") };
    assert_eq!((update.rows.kind(), update.rows.len()), (ChangeKind::Update, 1));
    let after = update.rows.after(0).unwrap();
    assert_eq!(values(after, update), ["Int(1)", "Bytes([122])"]);
    let Decoded::Rows(insert) = &stream.out[1] else { panic!("no insert") };
    assert!(std::sync::Arc::ptr_eq(&insert.layout, &update.layout), "equal table maps share a layout");
    assert!(insert.span.end <= update.span.start);
    let sid = "01010101-0101-0101-0101-010101010101";
    let end = stream.offset;
    assert_eq!(
        stream.take(),
        [
            format!("begin {sid}:5@4"),
            "Insert t #0 x2".to_owned(),
            "Update t #1 x1".to_owned(),
            "Delete t #2 x1".to_owned(),
            format!("commit {sid}:5@{end}"),
        ]
    );
}

#[test]
fn filtered_tables_are_counted_and_not_split() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::QUERY, &query(b"BEGIN"));
    for event in [(9, "other"), (10, "t")] {
        stream.try_feed(&Only("t"), kind::TABLE_MAP, &table_map(event.0, event.1)).map(drop).unwrap();
        // Rows that could not be split: nobody looks at them.
        let images = if event.1 == "t" { vec![row(1, "a")] } else { vec![vec![0, 1]] };
        stream.try_feed(&Only("t"), kind::WRITE_ROWS_V2, &rows(event.0, false, &images)).map(drop).unwrap();
    }
    assert_eq!(stream.take(), ["begin @4", "Insert t #1 x1"]);
}

#[test]
fn columns_that_are_absent() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::QUERY, &query(b"BEGIN"));
    for _ in 0..2 {
        stream.feed(kind::TABLE_MAP, &table_map(9, "t"));
        let body = [&[9, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 1, 2][..], &[0, 7, 0, 0, 0], &[0, 1, b'n']].concat();
        stream.feed(kind::UPDATE_ROWS_V2, &body);
    }
    let presents: Vec<_> = stream
        .out
        .iter()
        .filter_map(|item| match item {
            Decoded::Rows(rows) => rows.rows.after(0).unwrap().present,
            _ => None,
        })
        .collect();
    assert_eq!(*presents[0], [false, true]);
    assert!(std::ptr::eq(presents[0], presents[1]));
}

#[test]
fn statements_and_brackets() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::QUERY, &query(b"create table t (a int)"));
    stream.feed(kind::QUERY, &query(b"BEGIN")).feed(kind::QUERY, &query(b"SAVEPOINT `a`"));
    stream.feed(kind::QUERY, &query(b"ROLLBACK TO `a`")).feed(kind::QUERY, &query(b"insert into t values (1)"));
    stream.feed(kind::QUERY, &query(b"ROLLBACK"));
    stream.feed(kind::ANONYMOUS_GTID, &[0; 25]).feed(kind::QUERY, &query(b"drop table t"));
    let out = stream.take();
    let texts: Vec<_> = out.iter().map(|text| text.split('@').next().unwrap()).collect();
    assert_eq!(
        texts,
        [
            "begin ",
            "create table t (a int)",
            "commit ",
            "begin ",
            "insert into t values (1)",
            "commit ",
            "begin ",
            "drop table t",
            "commit "
        ]
    );
}

#[test]
fn the_location_moves_outside_of_transactions_too() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::PREVIOUS_GTIDS, &[0; 8]).feed(kind::STOP, &[]);
    assert_eq!(stream.take(), ["commit @31", "commit @50"]);
    let rotate = [&4u64.to_le_bytes()[..], b"bin.000002"].concat();
    stream.feed(kind::ROTATE, &rotate);
    assert_eq!(stream.take(), ["commit @4"]);
    let fake = raw(kind::ROTATE, 0, EventHeader::FLAG_ARTIFICIAL, &rotate);
    assert_eq!(stream.feed_raw(&All, &fake).unwrap(), Progress::Done);
    assert_eq!(stream.take(), [""; 0]);
}

#[test]
fn xa_transactions() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::GTID, &GTID).feed(kind::QUERY, &query(b"XA START X'61',X'',1"));
    stream.feed(kind::TABLE_MAP, &table_map(9, "t")).feed(kind::WRITE_ROWS_V2, &rows(9, false, &[row(1, "a")]));
    let prepare = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a'];
    stream.feed(kind::QUERY, &query(b"XA END X'61',X'',1")).feed(kind::XA_PREPARE, &prepare);
    let prepared = "prepared X'61',X'',1".to_owned();
    assert_eq!(stream.take()[2], prepared);
    stream.feed(kind::GTID, &GTID).feed(kind::QUERY, &query(b"XA COMMIT X'61',X'',1"));
    assert_eq!(stream.take()[1], "committed X'61',X'',1");
    stream.feed(kind::GTID, &GTID);
    stream.feed(kind::QUERY, &query(b"XA ROLLBACK X'61',X'',1"));
    assert_eq!(stream.take()[1], "undo X'61',X'',1");
    // In one phase it is a commit.
    let mut one_phase = prepare;
    one_phase[0] = 1;
    stream
        .feed(kind::GTID, &GTID)
        .feed(kind::QUERY, &query(b"XA START X'61',X'',1"))
        .feed(kind::XA_PREPARE, &one_phase);
    assert!(!stream.take().contains(&prepared));
    assert!(stream.try_feed(&All, kind::XA_PREPARE, &prepare[..12]).is_err());
}

#[test]
fn a_cut_transaction_is_forgotten() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::GTID, &GTID).feed(kind::QUERY, &query(b"BEGIN")).feed(kind::TABLE_MAP, &table_map(9, "t"));
    stream.feed(kind::WRITE_ROWS_V2, &rows(9, false, &[row(1, "a")]));
    stream.decoder.restart(&mut stream.out);
    stream.offset = 4;
    stream.feed(kind::GTID, &GTID).feed(kind::QUERY, &query(b"BEGIN"));
    // The source crashed and went on with another transaction.
    stream.feed(kind::GTID, &GTID);
    let sid = "01010101-0101-0101-0101-010101010101";
    let begin = format!("begin {sid}:5@4");
    assert_eq!(stream.take(), [&begin, "Insert t #0 x1", "restart", &begin, "restart", &begin]);
}

#[test]
fn what_may_not_be_skipped_is_an_error() {
    let error = |kind: u8, body: &[u8]| Stream::new(Flavor::MySql).try_feed(&All, kind, body).unwrap_err();
    assert!(matches!(error(99, &[]), DecodeError::UnknownEvent { kind: 99, .. }));
    assert!(matches!(error(kind::INTVAR, &[0; 9]), DecodeError::StatementFormat { what: "INTVAR", .. }));
    assert_eq!(error(kind::USER_VAR, &[0; 9]).failure().code, 36014);
    let incident = error(kind::INCIDENT, b"\x01\0\x04lost");
    assert!(matches!(&incident, DecodeError::Incident { message, .. } if message == "lost"));
    assert_eq!(incident.failure().code, 11038);
    assert_eq!(retry_of(&incident.failure()), Retry::Never);
    let mut stream = Stream::new(Flavor::MySql);
    let ignorable = raw(99, 23, EventHeader::FLAG_IGNORABLE, b"");
    assert_eq!(stream.feed_raw(&All, &ignorable).unwrap(), Progress::Done);
    stream.feed(kind::QUERY, &query(b"BEGIN"));
    let missing = stream.try_feed(&All, kind::WRITE_ROWS_V2, &rows(9, false, &[row(1, "a")])).unwrap_err();
    assert!(matches!(missing, DecodeError::NoTableMap { table_id: 9, .. }));
}

#[test]
fn a_row_that_is_cut_short_is_an_error() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::QUERY, &query(b"BEGIN")).feed(kind::TABLE_MAP, &table_map(9, "t"));
    let error = stream.try_feed(&All, kind::WRITE_ROWS_V2, &rows(9, false, &[row(1, "a")[..5].to_vec()])).unwrap_err();
    assert!(matches!(error, DecodeError::Rows { .. }));
    assert!(error.failure().raw_cause.contains("column 1"));
}

fn maria_gtid(flags: u8, extra: &[u8]) -> Vec<u8> {
    let mut body = vec![8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags];
    body.extend(extra);
    body.resize(body.len().max(19), 0);
    body
}

#[test]
fn mariadb_compressed_events() {
    use crate::row::compressed_for_tests as compress;
    let mut stream = Stream::new(Flavor::MariaDb);
    stream.feed(kind::MARIA_GTID, &maria_gtid(0, &[])).feed(kind::TABLE_MAP, &table_map(9, "t"));
    let head = [9, 0, 0, 0, 0, 0, 1, 0, 2, 3];
    let body = [&head[..], &compress(&[row(1, "a"), row(2, "b")].concat())].concat();
    stream.feed(kind::MARIA_WRITE_ROWS_COMPRESSED_V1, &body).feed(kind::XID, &[0; 8]);
    stream.feed(kind::MARIA_GTID, &maria_gtid(1, &[]));
    stream.feed(kind::MARIA_QUERY_COMPRESSED, &query(&compress(b"create table u (a int)")));
    let out = stream.take();
    assert_eq!(out[..2], ["begin 0-1-8@4", "Insert t #0 x2"]);
    assert_eq!(out[4], "create table u (a int)");
    assert!(out[5].starts_with("commit 0-1-8@"));
}

#[test]
fn a_two_phase_alter_counts_once() {
    let mut stream = Stream::new(Flavor::MariaDb);
    for extra in [&[2u8][..], &[4, 8, 0, 0, 0, 0, 0, 0, 0], &[8, 8, 0, 0, 0, 0, 0, 0, 0]] {
        stream.feed(kind::MARIA_GTID, &maria_gtid(1, extra)).feed(kind::QUERY, &query(b"alter table t force"));
    }
    let texts: Vec<_> = stream.take().iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(texts, ["begin", "commit", "begin", "alter", "commit", "begin", "commit"]);
}

/// A compressed transaction of so many rows events.
fn payload(count: u8) -> Vec<u8> {
    let mut inner = raw(kind::QUERY, 0, 0, &query(b"BEGIN")).to_vec();
    for id in 0..count {
        inner.extend(raw(kind::TABLE_MAP, 0, 0, &table_map(9, "t")));
        inner.extend(raw(kind::WRITE_ROWS_V2, 0, 0, &rows(9, false, &[row(id, "abc")])));
    }
    inner.extend(raw(kind::XID, 0, 0, &[0; 8]));
    let compressed = zstd::encode_all(&inner[..], 3).unwrap();
    let mut body = vec![2, 1, 0];
    body.extend([3, 3, 252]);
    body.extend((inner.len() as u16).to_le_bytes());
    body.extend([1, 3, 252]);
    body.extend((compressed.len() as u16).to_le_bytes());
    body.push(0);
    body.extend(compressed);
    body
}

#[test]
fn compressed_transactions_come_out_in_parts() {
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::GTID, &GTID);
    assert_eq!(stream.try_feed(&All, kind::TRANSACTION_PAYLOAD, &payload(20)).unwrap(), Progress::More);
    let mut parts = 1;
    stream.decoder.restart(&mut stream.out);
    while stream.decoder.drain(&All, &mut stream.out, 300).unwrap() == Progress::More {
        parts += 1;
    }
    assert!(parts > 5 && !stream.decoder.pending());
    let end = stream.offset;
    let Decoded::Rows(rows) = &stream.out[1] else { panic!("no rows") };
    assert_eq!(rows.span.end, u64::from(end));
    assert_eq!(values(rows.rows.after(0).unwrap(), rows)[1], format!("{:?}", Value::Bytes(b"abc"[..].into())));
    let out = stream.take();
    assert_eq!((out.len(), out[20].as_str()), (22, "Insert t #19 x1"));
    assert!(out[21].starts_with("commit 01010101-0101-0101-0101-010101010101:5@"));
}

#[test]
fn a_damaged_compressed_transaction_is_an_error() {
    let whole = payload(5);
    for damage in [1, 8, 20] {
        let mut stream = Stream::new(Flavor::MySql);
        stream.feed(kind::GTID, &GTID);
        let mut body = whole.clone();
        body.truncate(whole.len() - damage);
        let size = (body.len() - 14) as u16;
        body[11..13].copy_from_slice(&size.to_le_bytes());
        let mut result = stream.try_feed(&All, kind::TRANSACTION_PAYLOAD, &body);
        if result.is_ok() {
            result = stream.decoder.drain(&All, &mut stream.out, usize::MAX);
        }
        assert!(matches!(result, Err(DecodeError::Payload { .. })), "{result:?}");
        assert!(!stream.take().iter().any(|item| item.starts_with("commit")));
    }
}

#[test]
fn partial_json_updates() {
    // One INT and one JSON column; the document is {"a": 1}.
    let map = [&[9, 0, 0, 0, 0, 0, 1, 0, 2, b'd', b'b', 0, 1, b't', 0][..], &[2, 3, 245, 1, 4, 2]].concat();
    let document = [0, 1, 0, 12, 0, 11, 0, 1, 0, 5, 1, 0, b'a'];
    let before = [&[0, 1, 0, 0, 0, document.len() as u8, 0, 0, 0][..], &document].concat();
    let diff = [0, 3, b'$', b'.', b'a', 3, 5, 2, 0];
    let after = [&[1, 1, 0, 1, 0, 0, 0, diff.len() as u8, 0, 0, 0][..], &diff].concat();
    let plain = [&[0, 0, 2, 0, 0, 0, document.len() as u8, 0, 0, 0][..], &document].concat();
    let head = [9, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 3, 3];
    let body = [&head[..], &before, &after, &before, &plain].concat();
    let mut stream = Stream::new(Flavor::MySql);
    stream.feed(kind::QUERY, &query(b"BEGIN")).feed(kind::TABLE_MAP, &map).feed(kind::PARTIAL_UPDATE_ROWS, &body);
    let Decoded::Rows(rows) = &stream.out[1] else { panic!("no rows") };
    let json = |row: usize| {
        let image = rows.rows.after(row).unwrap();
        let mut text = String::new();
        image
            .visit(&rows.layout, |_, value| {
                if let Value::Json(json) = value {
                    text = crate::row::json::to_text(&json).unwrap();
                }
                Ok(())
            })
            .unwrap();
        text
    };
    assert_eq!((json(0), json(1)), (r#"{"a": 2}"#.to_owned(), r#"{"a": 1}"#.to_owned()));
    // Without the column before the change there is nothing to apply the diff to.
    let head = [9, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 1, 3];
    let body = [&head[..], &[0, 1, 0, 0, 0], &after].concat();
    stream.feed(kind::TABLE_MAP, &map);
    let error = stream.try_feed(&All, kind::PARTIAL_UPDATE_ROWS, &body).unwrap_err();
    assert!(matches!(error, DecodeError::PartialJson { column: 1, source: None, .. }));
}

#[test]
fn brackets() {
    for text in ["BEGIN", "commit", " ROLLBACK ", "ROLLBACK TO a", "SAVEPOINT a", "release savepoint a", "XA END X''"] {
        assert!(bracket(text.as_bytes()).is_some(), "{text}");
    }
    for text in ["", "BEGINNING", "create table xa (a int)", "release", "xa", "# XA START"] {
        assert!(bracket(text.as_bytes()).is_none(), "{text}");
    }
}

fn any_kind() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(kind::TABLE_MAP),
        Just(kind::WRITE_ROWS_V2),
        Just(kind::UPDATE_ROWS_V1),
        Just(kind::PARTIAL_UPDATE_ROWS),
        Just(kind::TRANSACTION_PAYLOAD),
        Just(kind::QUERY),
        Just(kind::MARIA_QUERY_COMPRESSED),
        Just(kind::MARIA_UPDATE_ROWS_COMPRESSED_V1),
        Just(kind::MARIA_GTID),
        any::<u8>(),
    ]
}

proptest! {
    #[test]
    fn arbitrary_events_never_panic(
        events in prop::collection::vec((any_kind(), prop::collection::vec(any::<u8>(), 0..120)), 1..8),
        maria in any::<bool>(),
    ) {
        let mut stream = Stream::new(if maria { Flavor::MariaDb } else { Flavor::MySql });
        for (kind, body) in events {
            let _ = stream.try_feed(&All, kind, &body);
            let _ = stream.decoder.drain(&All, &mut stream.out, 10);
        }
    }

    #[test]
    fn damaged_events_never_panic(
        which in 0usize..4, at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut events = [
            (kind::QUERY, query(b"BEGIN")),
            (kind::TABLE_MAP, table_map(9, "t")),
            (kind::UPDATE_ROWS_V2, rows(9, true, &[row(1, "a"), row(1, "z")])),
            (kind::TRANSACTION_PAYLOAD, payload(3)),
        ];
        let body = &mut events[which].1;
        let at = at.index(body.len());
        body[at] = byte;
        let mut stream = Stream::new(Flavor::MySql);
        for (kind, body) in events {
            let _ = stream.try_feed(&All, kind, &body);
            let _ = stream.decoder.drain(&All, &mut stream.out, usize::MAX);
        }
    }
}
