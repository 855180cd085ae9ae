//! `kill -9` of a process that writes a relay log: what it said was relayed is there afterwards, and nothing else than
//! what was written.
//!
//! The child is this test binary itself, told by an environment variable to write instead of to test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dm_agent::binlog::EventRun;
use dm_agent::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location};
use dm_agent::relay::{ReadItem, Relay, RelayConfig};

const CHILD: &str = "DM_AGENT_TEST_RELAY_CHILD";
/// Kills of each test.
const KILLS: u64 = 4;
/// How far behind the end a task is, where there is one: what it has passed is removed all the time.
const TASK_BEHIND: u64 = 6 << 20;

fn config(dir: &Path) -> RelayConfig {
    RelayConfig {
        segment_bytes: 4 << 20,
        free_floor_bytes: 0,
        flush_interval: Duration::from_millis(10),
        ..RelayConfig::new(dir.to_owned(), Flavor::MySql)
    }
}

fn start() -> Location {
    at(4)
}

fn at(offset: u64) -> Location {
    let position = BinlogPosition::new(BinlogFile::parse("bin.000001").unwrap(), offset);
    Location::new(position, GtidSet::empty(Flavor::MySql))
}

/// A statement that stands alone, and so is a transaction; it ends at `end`, which its text repeats.
fn event(offset: u64) -> Bytes {
    let text = format!("create table t{offset} ({})", "x".repeat((offset % 7919) as usize));
    let size = 19 + 14 + text.len();
    let mut bytes = 1u32.to_le_bytes().to_vec();
    bytes.push(2);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend((offset as u32 + size as u32).to_le_bytes());
    bytes.extend([0; 2 + 14]);
    bytes.extend(text.bytes());
    bytes.into()
}

/// Writes for ever, and prints each location that was relayed. With a task the log is purged behind it.
async fn write(dir: PathBuf, task: bool) {
    let relay = Relay::open(config(&dir)).await.unwrap();
    if relay.state().start.is_none() {
        relay.start_at(start(), "server").await.unwrap();
    }
    let mut writer = relay.writer().unwrap();
    writer.restart("server").unwrap();
    let mut offset = writer.resume_location().unwrap().position.offset;
    let mut said = 0;
    if task {
        relay.protect("task", &relay.state().start.unwrap());
        relay.arm_purge();
    }
    loop {
        let events: Vec<_> = (0..20)
            .map(|_| {
                let event = event(offset);
                offset += event.len() as u64;
                event
            })
            .collect();
        writer.append(EventRun::join(&events).unwrap()).await.unwrap();
        let relayed = relay.state().relayed.unwrap().0.position.offset;
        if relayed != said {
            said = relayed;
            println!("relayed {relayed}");
            let applied = relayed.saturating_sub(TASK_BEHIND);
            if task && applied > relay.state().start.unwrap().position.offset {
                relay.protect("task", &at(applied));
            }
        }
    }
}

/// Where the log begins.
async fn check(dir: &Path, relayed: u64) -> u64 {
    let began = Instant::now();
    let relay = Relay::open(config(dir)).await.unwrap();
    let opened = began.elapsed();
    let state = relay.state();
    let end = state.received.unwrap().0.position.offset;
    assert!(end >= relayed, "{relayed} was relayed, the log ends at {end}");
    let from = state.start.unwrap();
    let mut reader = relay.reader(&from).await.unwrap();
    let mut offset = from.position.offset;
    while reader.lsn() < state.received_lsn {
        // The child only writes whole transactions: one that was cut is not yielded.
        let wait = tokio::time::timeout(Duration::from_secs(20), reader.next());
        let Ok(item) = wait.await else { break };
        if let ReadItem::Events { runs, .. } = item.unwrap() {
            for found in runs.iter().flat_map(EventRun::events) {
                assert_eq!(found, event(offset), "at {offset}");
                offset += found.len() as u64;
            }
        }
        if offset == end {
            break;
        }
    }
    assert_eq!(offset, end);
    println!("relayed {relayed}, found {end}, opened in {opened:?}");
    relay.close().await.unwrap();
    from.position.offset
}

#[test]
fn what_was_relayed_survives_kill_9() {
    kills("what_was_relayed_survives_kill_9", false);
}

#[test]
fn what_was_relayed_survives_kill_9_while_the_log_is_purged() {
    kills("what_was_relayed_survives_kill_9_while_the_log_is_purged", true);
}

/// As many as `KILLS` in the environment says.
fn how_many() -> u64 {
    std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

fn kills(test: &str, task: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(dir) = std::env::var_os(CHILD) {
        return runtime.block_on(write(dir.into(), task));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut begins = 4;
    for kill in 1..=how_many() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = lines.filter_map(|line| line.strip_prefix("relayed ")?.parse::<u64>().ok());
        let relayed = said.nth(20 * (1 + kill % 4) as usize).expect("the child relays");
        child.kill().unwrap();
        let relayed = said.last().unwrap_or(relayed);
        child.wait().unwrap();
        begins = runtime.block_on(check(dir.path(), relayed));
    }
    assert_eq!(begins > 4, task, "something was purged where a task has passed it");
}
