//! The log as a whole: written, read, reopened, damaged, filled and purged.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::testing::{SERVER, Source};
use super::*;
use crate::binlog::EventRun;
use crate::model::{BinlogFile, Location};

fn config(dir: &Path) -> RelayConfig {
    RelayConfig {
        segment_bytes: 1 << 20,
        free_floor_bytes: 0,
        tail_bytes: 256 << 10,
        flush_interval: Duration::from_millis(5),
        ..RelayConfig::new(dir.to_owned(), Flavor::MySql)
    }
}

fn run(events: Vec<Bytes>) -> EventRun {
    EventRun::join(&events).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn begun(config: RelayConfig) -> Relay {
    let relay = Relay::open(config).await.unwrap();
    relay.start_at(Source::start(), SERVER).await.unwrap();
    relay
}

/// Reads until `end`: the events, and how many restarts there were.
async fn read_to(reader: &mut RelayReader, end: Lsn) -> Result<(Vec<Bytes>, usize), RelayError> {
    let (mut all, mut restarts) = (Vec::new(), 0);
    while reader.lsn() < end {
        match reader.next().await? {
            ReadItem::Events { runs, end_lsn } => {
                assert!(runs.iter().all(|run| !run.is_empty()));
                all.extend(runs.iter().flat_map(EventRun::events));
                assert_eq!(end_lsn, reader.lsn());
            }
            ReadItem::Restart => restarts += 1,
        }
    }
    Ok((all, restarts))
}

/// Waits for a state, with a limit.
async fn until(relay: &Relay, what: &str, holds: impl Fn(&RelayState) -> bool) {
    let mut changes = relay.changes();
    let wait = async {
        while !holds(&relay.state()) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", relay.state()));
}

/// Writes `count` transactions of about `size` bytes and flushes; the events and the location behind each.
async fn fill(relay: &Relay, source: &mut Source, count: usize, size: usize) -> Vec<(Vec<Bytes>, Location)> {
    let mut writer = relay.writer().unwrap();
    writer.restart(SERVER).unwrap();
    writer.append(run(source.connect())).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..count {
        let events = source.transaction(4, size / 2);
        writer.append(run(events.clone())).await.unwrap();
        made.push((events, source.location()));
    }
    relay.flush().await.unwrap();
    made
}

#[tokio::test]
async fn a_reader_follows_the_writer_before_any_flush() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(RelayConfig { flush_interval: Duration::from_secs(3600), ..config(dir.path()) }).await;
    let mut writer = relay.writer().unwrap();
    assert!(matches!(relay.writer(), Err(RelayError::WriterTaken)));
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    let mut source = Source::new(3);
    writer.restart(SERVER).unwrap();
    let connect = source.connect();
    writer.append(run(connect.clone())).await.unwrap();
    let first = source.transaction(2, 50);
    let (appended, read) = tokio::join!(writer.append(run(first.clone())), async {
        let end = Lsn((connect.iter().chain(&first).map(|event| event.len()).sum::<usize>()) as u64);
        read_to(&mut reader, end).await
    });
    appended.unwrap();
    assert_eq!(read.unwrap().0, [connect, first].concat());
    let state = relay.state();
    assert_eq!(state.received.unwrap().0, source.location());
    assert_eq!(state.relayed.unwrap().0, Source::start(), "nothing was flushed");
    relay.flush().await.unwrap();
    assert_eq!(relay.state().relayed.unwrap().0, source.location());
    drop(writer);
    relay.writer().unwrap();
}

#[tokio::test]
async fn a_burst_is_durable_without_waiting_for_the_tick() {
    let dir = tempfile::tempdir().unwrap();
    let config = RelayConfig { flush_interval: Duration::from_secs(3600), ..config(dir.path()) };
    let relay = begun(RelayConfig { segment_bytes: 64 << 20, ..config }).await;
    let mut source = Source::new(8);
    let mut writer = relay.writer().unwrap();
    writer.restart(SERVER).unwrap();
    writer.append(run(source.connect())).await.unwrap();
    // What comes behind a pause, and is less than a burst, does wait: a machine that makes one in the middle gets another burst.
    for _ in 0..20 {
        let burst: Vec<EventRun> = (0..8).map(|_| run(source.transaction(4, 500_000))).collect();
        for events in burst {
            writer.append(events).await.unwrap();
        }
        let end = writer.end_lsn();
        let mut changes = relay.changes();
        let is_there = async { while relay.state().relayed_lsn != end && changes.changed().await.is_ok() {} };
        if tokio::time::timeout(Duration::from_secs(1), is_there).await.is_ok() {
            assert_eq!(relay.state().relayed_lsn, end);
            return;
        }
    }
    panic!("no burst's end came to disk: {:?}", relay.state());
}

#[tokio::test]
async fn a_cut_transaction_is_followed_by_a_restart_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(config(dir.path())).await;
    let mut source = Source::new(5);
    let first = source.transaction(2, 100);
    let behind_first = source.location();
    let whole = source.transaction(3, 100);
    let mut writer = relay.writer().unwrap();
    writer.restart(SERVER).unwrap();
    writer.append(run(first.clone())).await.unwrap();
    writer.append(run(whole[..3].to_vec())).await.unwrap();
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    let cut_at = writer.end_lsn();
    let (mut seen, restarts) = read_to(&mut reader, cut_at).await.unwrap();
    assert_eq!((seen.len(), restarts), (first.len() + 3, 0));
    assert_eq!(writer.resume_location().unwrap(), behind_first);
    writer.restart(SERVER).unwrap();
    writer.append(run(whole.clone())).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), ReadItem::Restart);
    seen = read_to(&mut reader, writer.end_lsn()).await.unwrap().0;
    assert_eq!(seen, whole);
    let end = writer.end_lsn();
    relay.close().await.unwrap();

    let relay = Relay::open(config(dir.path())).await.unwrap();
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    let (events, restarts) = read_to(&mut reader, end).await.unwrap();
    assert_eq!((events, restarts), ([&first[..], &whole[..3], &whole[..]].concat(), 1));
    // From behind the first transaction both tries of the second one follow.
    let mut reader = relay.reader(&behind_first).await.unwrap();
    assert_eq!(reader.boundary().location, behind_first);
    assert!(read_to(&mut reader, end).await.unwrap().0.ends_with(&whole));
}

#[tokio::test]
async fn what_it_does_not_hold_is_not_covered() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::open(config(dir.path())).await.unwrap();
    assert!(matches!(relay.writer(), Err(RelayError::NotStarted)));
    assert!(matches!(relay.reader(&Source::start()).await, Err(RelayError::NotCovered { .. })));
    relay.start_at(Source::start(), SERVER).await.unwrap();
    let mut source = Source::new(9);
    fill(&relay, &mut source, 3, 300).await;
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    source.transaction(1, 10);
    assert!(matches!(relay.reader(&source.location()).await, Err(RelayError::NotCovered { .. })));
    relay.start_at(source.location(), SERVER).await.unwrap();
    assert!(matches!(relay.reader(&Source::start()).await, Err(RelayError::NotCovered { .. })));
    assert!(matches!(reader.next().await, Err(RelayError::NotCovered { .. })));
    assert_eq!(relay.reader(&source.location()).await.unwrap().boundary().location, source.location());
    relay.close().await.unwrap();
    let relay = Relay::open(config(dir.path())).await.unwrap();
    assert_eq!(relay.state().start, Some(source.location()));
}

#[tokio::test]
async fn segments_go_when_every_task_has_passed_them() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(config(dir.path())).await;
    let mut source = Source::new(11);
    relay.protect("parked", &Source::start());
    let made = fill(&relay, &mut source, 60, 100_000).await;
    let before = relay.state();
    assert!(before.segments >= 4, "{before:?}");
    relay.protect("ahead", &source.location());
    relay.arm_purge();
    let file = BinlogFile::parse("bin.000002").unwrap();
    match relay.purge_before(file.clone()).await {
        Err(RelayError::Protected { task, .. }) => assert_eq!(task, "parked"),
        other => panic!("{other:?}"),
    }
    assert_eq!(relay.state().segments, before.segments);
    relay.protect("parked", &made[30].1);
    until(&relay, "purged up to the parked task", |state| state.segments < before.segments).await;
    let mut reader = relay.reader(&made[30].1).await.unwrap();
    let rest: Vec<_> = made[31..].iter().flat_map(|(events, _)| events.clone()).collect();
    let events = read_to(&mut reader, relay.state().received_lsn).await.unwrap().0;
    assert!(events.ends_with(&rest));
    relay.release("parked");
    drop(reader);
    until(&relay, "only the active segment is left", |state| state.segments <= 1).await;
    let on_disk = std::fs::read_dir(dir.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert!(on_disk.count() <= 2, "the active segment and the next one");
}

#[tokio::test]
async fn a_purge_by_hand_stops_at_the_file_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(config(dir.path())).await;
    let mut source = Source::new(13);
    fill(&relay, &mut source, 30, 100_000).await;
    let mut writer = relay.writer().unwrap();
    writer.append(run(source.rotate())).await.unwrap();
    drop(writer);
    let behind = source.location();
    fill(&relay, &mut source, 30, 100_000).await;
    relay.protect("t", &behind);
    let report = relay.purge_before(BinlogFile::parse("bin.000002").unwrap()).await.unwrap();
    assert!(report.segments >= 1 && report.bytes > 0 && report.held.is_none(), "{report:?}");
    relay.reader(&behind).await.unwrap();
    let report = relay.purge_before(BinlogFile::parse("bin.000003").unwrap()).await;
    assert!(matches!(report, Err(RelayError::Protected { .. })), "{report:?}");
}

#[tokio::test]
async fn at_the_budget_it_stops_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(RelayConfig { budget_bytes: 9 << 20, flush_bytes: 1 << 20, ..config(dir.path()) }).await;
    relay.protect("parked", &Source::start());
    relay.arm_purge();
    let mut source = Source::new(17);
    let mut writer = relay.writer().unwrap();
    let mut reason = None;
    for _ in 0..2_000 {
        let events = source.transaction(4, 30_000);
        match writer.append(run(events)).await {
            Ok(()) => {}
            Err(RelayError::Full(full)) => {
                reason = Some(full);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(reason, Some(FullReason::Budget { .. })));
    assert_eq!(relay.state().full, reason);
    relay.reader(&Source::start()).await.expect("nothing that the parked task needs was removed");
    relay.protect("parked", &relay.state().received.unwrap().0);
    tokio::time::timeout(Duration::from_secs(30), writer.writable()).await.unwrap().unwrap();
    assert_eq!(relay.state().full, None);
    writer.append(run(source.connect())).await.unwrap();
}

#[tokio::test]
async fn at_the_free_floor_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(RelayConfig { free_floor_bytes: u64::MAX, ..config(dir.path()) }).await;
    until(&relay, "full", |state| matches!(state.full, Some(FullReason::FreeFloor { .. }))).await;
    let mut writer = relay.writer().unwrap();
    let mut source = Source::new(37);
    assert!(matches!(writer.append(run(source.connect())).await, Err(RelayError::Full(_))));
    assert_eq!(relay.state().received_lsn, Lsn(0));
}

#[tokio::test]
async fn a_reader_alone_keeps_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(config(dir.path())).await;
    let mut source = Source::new(19);
    let made = fill(&relay, &mut source, 40, 100_000).await;
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    relay.protect("t", &source.location());
    relay.arm_purge();
    // A tick that could have purged has passed when another flush was done.
    fill(&relay, &mut source, 1, 10).await;
    fill(&relay, &mut source, 1, 10).await;
    let all: Vec<_> = made.iter().flat_map(|(events, _)| events.clone()).collect();
    let read = read_to(&mut reader, relay.state().received_lsn).await.unwrap().0;
    assert_eq!(read[2..2 + all.len()], all[..]);
}

#[tokio::test]
async fn damage_is_reported_and_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(config(dir.path())).await;
    let mut source = Source::new(23);
    let made = fill(&relay, &mut source, 40, 100_000).await;
    let end = relay.state().received_lsn;
    relay.close().await.unwrap();
    // The second segment's pages are all damaged.
    let victim = super::segment::segment_dir(dir.path(), 1).join("slabs");
    for entry in std::fs::read_dir(victim).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(100).step_by(1000).for_each(|byte| *byte ^= 0x55);
        std::fs::write(path, bytes).unwrap();
    }
    let relay = Relay::open(config(dir.path())).await.unwrap();
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    let (mut seen, mut damage) = (Vec::new(), None);
    while damage.is_none() {
        match reader.next().await {
            Ok(ReadItem::Events { runs, .. }) => seen.extend(runs.iter().flat_map(EventRun::events)),
            Ok(ReadItem::Restart) => panic!("no restart there"),
            Err(error) => damage = Some(error),
        }
    }
    let Some(RelayError::Damaged { lsn, at, segment: 1, .. }) = damage else { panic!("{damage:?}") };
    let all: Vec<_> = made.iter().flat_map(|(events, _)| events.clone()).collect();
    assert_eq!(seen[2..], all[..seen.len() - 2]);
    assert!(reader.lsn() <= lsn && lsn < end);

    let mut writer = relay.writer().unwrap();
    relay.drop_from(lsn, *at.clone()).await.unwrap();
    assert!(matches!(writer.append(run(source.connect())).await, Err(RelayError::Superseded)));
    assert_eq!(writer.resume_location().unwrap(), at.location);
    writer.restart(SERVER).unwrap();
    let again = made.iter().position(|(_, behind)| *behind == at.location).map_or(0, |last| last + 1);
    for (events, _) in &made[again..] {
        writer.append(run(events.clone())).await.unwrap();
    }
    let done: Vec<_> = made[..again].iter().flat_map(|(events, _)| events.clone()).collect();
    let rest: Vec<_> = made[again..].iter().flat_map(|(events, _)| events.clone()).collect();
    let end = writer.end_lsn();
    // The reader that met the damage goes on, and so does a new one, also after another start.
    let (events, restarts) = read_to(&mut reader, end).await.unwrap();
    assert_eq!(restarts, 1);
    assert!(events.ends_with(&rest));
    relay.close().await.unwrap();
    let relay = Relay::open(config(dir.path())).await.unwrap();
    let mut reader = relay.reader(&Source::start()).await.unwrap();
    let (events, restarts) = read_to(&mut reader, end).await.unwrap();
    assert_eq!(restarts, 1);
    assert!(events[2..].starts_with(&done) && events.ends_with(&rest));
}

#[tokio::test]
async fn without_its_manifest_it_reads_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let relay = begun(config(dir.path())).await;
    let mut source = Source::new(29);
    fill(&relay, &mut source, 40, 100_000).await;
    let before = relay.state();
    relay.close().await.unwrap();
    std::fs::write(dir.path().join("manifest.json"), b"{").unwrap();
    let relay = Relay::open(config(dir.path())).await.unwrap();
    let state = relay.state();
    assert_eq!((state.start_lsn, state.received_lsn), (before.start_lsn, before.received_lsn));
    assert_eq!((state.start, state.received), (before.start, before.received));
}

/// What was relayed before a crash, and a reader from every boundary.
fn survives(seed: u64, sizes: &[(usize, usize)], crash_every: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (mut source, mut made) = (Source::new(seed), Vec::new());
    let open = || Relay::open(config(dir.path()));
    runtime().block_on(async {
        let relay = begun(config(dir.path())).await;
        relay.close().await.unwrap();
    });
    for (index, round) in sizes.chunks(crash_every.max(1)).enumerate() {
        runtime().block_on(async {
            let relay = open().await.unwrap();
            let mut writer = relay.writer().unwrap();
            writer.restart(SERVER).unwrap();
            assert_eq!(writer.resume_location().unwrap(), source.location());
            writer.append(run(source.connect())).await.unwrap();
            for &(rows, size) in round {
                let events = source.transaction(rows, size);
                let cut = events.len() / 2;
                writer.append(run(events[..cut].to_vec())).await.unwrap();
                writer.append(run(events[cut..].to_vec())).await.unwrap();
                made.push((events, source.location()));
            }
            if index % 2 == 0 {
                // A transaction that the end of the process cuts.
                let mut lost = Source::new(seed);
                (lost.file, lost.offset, lost.gtid) = (source.file, source.offset, source.gtid);
                let events = lost.transaction(3, 40_000);
                writer.append(run(events[..3].to_vec())).await.unwrap();
            }
            relay.close().await.unwrap();
        });
    }
    runtime().block_on(async {
        let relay = open().await.unwrap();
        let end = relay.state().received_lsn;
        for from in 0..=made.len() {
            let location = if from == 0 { Source::start() } else { made[from - 1].1.clone() };
            let mut reader = relay.reader(&location).await.unwrap();
            assert!(location.covers(&reader.boundary().location));
            let mut tracker = crate::binlog::StreamTracker::new(
                Flavor::MySql,
                reader.boundary().location.clone(),
                reader.boundary().checksum,
            );
            let mut transaction: Vec<Bytes> = Vec::new();
            let mut complete = Vec::new();
            while reader.lsn() < end {
                match reader.next().await.unwrap() {
                    ReadItem::Restart => {
                        transaction.clear();
                        tracker.restart();
                    }
                    ReadItem::Events { runs, .. } => {
                        for event in runs.iter().flat_map(EventRun::events) {
                            let tracked = tracker.feed(&event).unwrap();
                            transaction.push(event);
                            if tracked.ends_transaction {
                                complete.push((std::mem::take(&mut transaction), tracker.location().clone()));
                            } else if !tracked.in_transaction {
                                transaction.clear();
                            }
                        }
                    }
                }
            }
            assert!(complete.len() >= made.len() - from);
            assert!(complete.ends_with(&made[from..]), "from {from}");
        }
    });
}

/// As many as the environment's `PROPTEST_CASES` says, else a few: each writes and reads megabytes.
fn cases(few: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(6), ..ProptestConfig::default() })]

    #[test]
    fn every_reader_sees_the_same_bytes(
        seed in any::<u64>(),
        sizes in prop::collection::vec((0usize..4, prop_oneof![3 => 1usize..200, 2 => 1usize..60_000, 1 => 1usize..700_000]), 1..24),
        crash_every in 3usize..20,
    ) {
        survives(seed, &sizes, crash_every);
    }
}

/// Not a benchmark, but a floor: `cargo test --release -- --ignored --nocapture relay_rate`.
#[test]
#[ignore = "measures, in release mode only"]
fn relay_rate() {
    let dir = tempfile::tempdir_in(std::env::var("RELAY_DIR").unwrap_or("/tmp".into())).unwrap();
    let mut source = Source::new(31);
    let batch: Vec<Bytes> = (0..200).flat_map(|_| source.transaction(4, 2_000)).collect();
    let batch = run(batch);
    let bytes = batch.len();
    let total: usize = 2 << 30;
    runtime().block_on(async {
        let relay = begun(RelayConfig::new(dir.path().to_owned(), Flavor::MySql)).await;
        let mut writer = relay.writer().unwrap();
        let began = Instant::now();
        for _ in 0..total / bytes {
            writer.append(batch.clone()).await.unwrap();
        }
        relay.flush().await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        let state = relay.state();
        println!(
            "ingest {:.0} MB/s, disk/raw {:.2}, {} segments",
            state.received_lsn.0 as f64 / 1e6 / seconds,
            state.disk_bytes as f64 / state.raw_bytes as f64,
            state.segments
        );
        relay.close().await.unwrap();
        let began = Instant::now();
        let relay = Relay::open(RelayConfig::new(dir.path().to_owned(), Flavor::MySql)).await.unwrap();
        println!("open {:?}", began.elapsed());
        relay.close().await.unwrap();
        std::fs::remove_file(dir.path().join("manifest.json")).unwrap();
        let began = Instant::now();
        let relay = Relay::open(RelayConfig::new(dir.path().to_owned(), Flavor::MySql)).await.unwrap();
        println!("open by walking through {} segments {:?}", relay.state().segments, began.elapsed());
        let mut reader = relay.reader(&Source::start()).await.unwrap();
        let (began, end) = (Instant::now(), relay.state().received_lsn);
        let mut events = 0;
        while reader.lsn() < end {
            if let ReadItem::Events { runs, .. } = reader.next().await.unwrap() {
                events += runs.iter().flat_map(EventRun::iter).count();
            }
        }
        println!("read {:.0} MB/s, {events} events", end.0 as f64 / 1e6 / began.elapsed().as_secs_f64());
    });
}
