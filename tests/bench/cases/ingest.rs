//! The relay log alone: events from memory until they are durable, against a plain file flushed at the same points.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use dm_agent::model::Flavor;
use dm_agent::relay::{Relay, RelayConfig};

use crate::bed::Bed;
use crate::events::Events;
use crate::meter::own_cpu;
use crate::outcome::{Goal, Measure, Row};
use crate::rounds;
use crate::support::process::fresh_folder;
use crate::table::number;

/// Bytes of the history that are taken.
const LIMIT: usize = 256 << 20;
/// Bytes that come at a time.
const BATCH: usize = 256 << 10;

/// The OLTP history.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let (oltp, _) = bed.oltp().await;
    oltp.extend_to(3).await;
    let events = Events::read(&oltp.source, &oltp.start, &oltp.end().end, LIMIT);
    let megabytes = events.bytes.len() as f64 / 1e6;
    let mut line = Row {
        case: "relay ingest, OLTP".into(),
        unit: "MB/s",
        against: "file + fdatasync",
        goals: vec![Goal::AtLeast(Measure::Ratio, 0.15), Goal::AtLeast(Measure::Ours, 100.0)],
        work: format!("{} MB, {} events", number(megabytes), number(events.events.len() as f64)),
        ..Row::default()
    };
    for _ in 0..rounds() {
        let ingested = ingest(&events).await;
        line.ours.0.push(megabytes / ingested.wall);
        line.reference.0.push(megabytes / append(&events.bytes, &ingested.flushes));
        line.work = format!(
            "{}, {} flushes, {} s CPU",
            line.work.split(", ").take(2).collect::<Vec<_>>().join(", "),
            ingested.flushes.len(),
            number(ingested.cpu)
        );
    }
    vec![line]
}

struct Ingested {
    wall: f64,
    cpu: f64,
    /// Bytes that were durable after each flush.
    flushes: Vec<u64>,
}

async fn ingest(events: &Events) -> Ingested {
    let folder = fresh_folder("ingest");
    let config = RelayConfig { free_floor_bytes: 0, ..RelayConfig::new(folder.join("relay"), Flavor::MySql) };
    let relay = Relay::open(config).await.expect("open a relay log");
    relay.start_at(events.start.clone(), "bench").await.expect("begin a relay log");
    let mut writer = relay.writer().expect("the only writer");
    writer.restart("bench").expect("begin a stream");
    let runs = events.runs(BATCH);
    let mut changes = relay.changes();
    let watched = relay.clone();
    let length = events.bytes.len() as u64;
    let watcher = tokio::spawn(async move {
        let mut flushes: Vec<u64> = Vec::new();
        while flushes.last().is_none_or(|last| *last < length) && changes.changed().await.is_ok() {
            let relayed = watched.state().relayed_lsn.0;
            if relayed > flushes.last().copied().unwrap_or(0) {
                flushes.push(relayed);
            }
        }
        flushes
    });
    let (began, cpu) = (Instant::now(), own_cpu());
    for run in runs {
        writer.append(run).await.expect("append");
    }
    relay.flush().await.expect("flush");
    let (wall, cpu) = (began.elapsed().as_secs_f64(), own_cpu() - cpu);
    drop(writer);
    let flushes = watcher.await.expect("the watcher ends with the last flush");
    relay.close().await.expect("close");
    let _ = std::fs::remove_dir_all(folder);
    Ingested { wall, cpu, flushes }
}

/// The same bytes into a file, durable at the same points; the seconds that took.
fn append(bytes: &Bytes, flushes: &[u64]) -> f64 {
    let folder = fresh_folder("plain");
    let mut file = File::create(folder.join("log")).expect("create a file");
    let began = Instant::now();
    let mut from = 0;
    for &to in flushes {
        for piece in bytes[from as usize..to as usize].chunks(BATCH) {
            file.write_all(piece).expect("append to a file");
        }
        file.sync_data().expect("fdatasync");
        from = to;
    }
    let took = began.elapsed().as_secs_f64();
    assert_eq!(from as usize, bytes.len(), "the last flush covers everything");
    let _ = std::fs::remove_dir_all(folder);
    took
}
