//! From raw events in memory to SQL text: decode, bind, group, compact, write statements. CPU of one thread, everything included
//! that lies between the relay log and the downstream's connection, but the channels between.

use std::ops::Range;
use std::sync::Arc;

use dm_agent::apply::{Shape, StatementCursor, fetch_structure};
use dm_agent::decode::{Decoded, Decoder, Progress, RowsEvent, TableFilter};
use dm_agent::dispatch::{Change, ChangeEvent, GroupBuilder, SafeMode};
use dm_agent::model::{Flavor, Location, RowMark, RowOrdinal, SourceTable, TargetTable};
use dm_agent::schema::{BoundTable, Dialect, TableStructure, bind};
use hashbrown::HashMap;

use crate::bed::Bed;
use crate::events::Events;
use crate::meter::thread_cpu;
use crate::outcome::{Goal, Measure, Row};
use crate::rig::LANES;
use crate::rounds;
use crate::support::db::Address;
use crate::support::docs::SourceLocation;
use crate::support::servers::Server;
use crate::table::number;

/// Row changes a group: what a downstream takes in about 100 ms.
const GROUP: u64 = 4_000;
/// Bytes of images a group at most.
const GROUP_BYTES: usize = 3 << 20;
/// Bytes that are decoded in one go.
const RUN: usize = 256 << 10;
/// As lanes cut statements.
const SHAPE: Shape = Shape { rows: 500, bytes: 512 << 10, limit: 16 << 20, safe: SafeMode::Off, lists: true };

/// Small events.
pub async fn oltp(bed: &mut Bed) -> Vec<Row> {
    let (oltp, _) = bed.oltp().await;
    oltp.extend_to(3).await;
    let from = oltp.prepared.clone().expect("the tables were filled").end;
    let events = Events::read(&oltp.source, &oltp.start, &oltp.end().end, usize::MAX);
    let tables = structures(&oltp.source, "oltp").await;
    vec![measure("decode to statement, OLTP", &events, &tables, &from, 0.5)]
}

/// Large events.
pub async fn bulk(bed: &mut Bed) -> Vec<Row> {
    let bulk = bed.bulk().await;
    let events = Events::read(&bulk.source, &bulk.before, &bulk.mark.end, usize::MAX);
    let tables = structures(&bulk.source, "bulk").await;
    vec![measure("decode to statement, bulk", &events, &tables, &bulk.before, 0.25)]
}

fn measure(case: &str, events: &Events, tables: &Tables, from: &SourceLocation, target: f64) -> Row {
    let mut line = Row { case: case.into(), unit: "µs", ..Row::default() };
    line.goals = vec![Goal::AtMost(Measure::Ours, target)];
    // As the relay log hands them out.
    let runs = events.runs(RUN);
    for _ in 0..rounds() {
        let mut path = Path::new(events.start.clone(), tables);
        for run in &runs {
            for (at, event) in run.iter() {
                path.event(run.bytes(), at..at + event.len(), from);
            }
        }
        path.end_group();
        let Spent { decode, group, write } = path.spent;
        let rows = path.rows as f64;
        line.ours.0.push((decode + group + write) * 1e6 / rows);
        let part = |seconds: f64| number(seconds * 1e9 / rows);
        line.work = format!(
            "{} row changes: decode {} + group {} + write {} ns; {} bytes of SQL a row",
            number(rows),
            part(decode),
            part(group),
            part(write),
            number(path.sql_bytes as f64 / rows)
        );
    }
    line
}

type Tables = HashMap<String, TableStructure>;

/// What the tables of a schema look like.
async fn structures(source: &Server, schema: &str) -> Tables {
    let mut db = source.root().await;
    let names =
        db.texts(&format!("SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}'")).await;
    let mut conn = mysql_async::Conn::new(Address::root(source.port).opts()).await.expect("connect");
    let mut tables = Tables::new();
    for name in names {
        let target = TargetTable(dm_agent::model::TableName::new(schema, name[0].as_str()));
        tables.insert(name[0].clone(), fetch_structure(&mut conn, &target).await.expect("read a structure"));
    }
    tables
}

struct Everything;

impl TableFilter for Everything {
    fn wants(&self, _: &SourceTable) -> bool {
        true
    }
}

#[derive(Default)]
struct Spent {
    decode: f64,
    group: f64,
    write: f64,
}

/// The stages in a row, without what is between them.
struct Path<'a> {
    decoder: Decoder,
    out: Vec<Decoded>,
    tables: &'a Tables,
    bindings: HashMap<usize, Arc<BoundTable>>,
    /// Events of the group so far, and their changes.
    events: Vec<Arc<ChangeEvent>>,
    changes: u64,
    bytes: usize,
    at: RowMark,
    sql: Vec<u8>,
    sql_bytes: usize,
    rows: u64,
    /// When decoding of the present group began.
    since: f64,
    spent: Spent,
}

impl<'a> Path<'a> {
    fn new(start: Location, tables: &'a Tables) -> Self {
        Path {
            decoder: Decoder::new(Flavor::MySql, start.clone(), false),
            out: Vec::new(),
            tables,
            bindings: HashMap::new(),
            events: Vec::new(),
            changes: 0,
            bytes: 0,
            at: RowMark::at(start),
            sql: Vec::new(),
            sql_bytes: 0,
            rows: 0,
            since: thread_cpu(),
            spent: Spent::default(),
        }
    }

    /// Takes an event; what ends at or before `from` in the binlog is decoded and not counted.
    fn event(&mut self, run: &bytes::Bytes, event: Range<usize>, from: &SourceLocation) {
        let progress = self.decoder.feed(run, event, &Everything, &mut self.out).expect("decode");
        assert_eq!(progress, Progress::Done, "the source does not compress");
        let mut out = std::mem::take(&mut self.out);
        for decoded in out.drain(..) {
            match decoded {
                Decoded::Rows(rows) => self.rows(rows),
                Decoded::Commit { location, .. } => {
                    let counted =
                        (location.position.file.name(), location.position.offset) > (&from.file, from.position);
                    self.at = RowMark::at(location);
                    if !counted {
                        (self.bytes, self.changes, self.since) = (0, 0, thread_cpu());
                        self.events.clear();
                    } else if self.changes >= GROUP {
                        self.end_group();
                    }
                }
                Decoded::Begin { .. } | Decoded::Statement(_) | Decoded::Restart => {}
                Decoded::Prepared { .. } | Decoded::XaCommit { .. } | Decoded::XaRollback { .. } => {}
            }
        }
        self.out = out;
        if self.bytes >= GROUP_BYTES {
            self.end_group();
        }
    }

    /// As intake does it.
    fn rows(&mut self, event: RowsEvent) {
        let address = Arc::as_ptr(&event.layout) as usize;
        let table = self.bindings.entry(address).or_insert_with(|| {
            let name = &event.layout.source.0;
            let structure = self.tables.get(&*name.table).unwrap_or_else(|| panic!("no structure of {name:?}"));
            let bound = bind(&event.layout, &TargetTable(name.clone()), structure, Dialect::MySql);
            Arc::new(bound.expect("bind"))
        });
        let RowsEvent { rows, span, .. } = event;
        let first = RowOrdinal(self.changes);
        self.changes += rows.len() as u64;
        self.bytes += rows.image_bytes();
        self.events.push(Arc::new(ChangeEvent::new(Arc::clone(table), rows, first, span)));
    }

    fn end_group(&mut self) {
        let decoded = thread_cpu();
        self.rows += self.changes;
        let mut builder = GroupBuilder::new(LANES as usize, LANES as usize, false, SafeMode::Off);
        for event in self.events.drain(..) {
            let mut next = Change::first(event);
            while let Some(change) = next {
                builder.push(&change, &[]).expect("deal out");
                next = change.following();
            }
        }
        let group = builder.finish(self.at.clone(), self.at.clone(), 0, 0);
        let grouped = thread_cpu();
        for share in &group.shares {
            let mut cursor = StatementCursor::new(share, SHAPE);
            while cursor.next(&mut self.sql).expect("write a statement").is_some() {
                self.sql_bytes += self.sql.len();
            }
        }
        drop(group);
        let written = thread_cpu();
        self.spent.decode += decoded - self.since;
        self.spent.group += grouped - decoded;
        self.spent.write += written - grouped;
        (self.bytes, self.changes, self.since) = (0, 0, written);
    }
}
