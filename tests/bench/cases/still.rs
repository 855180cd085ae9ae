//! An agent that has nothing to do: its memory, and how long it takes to start with much stored.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dm_agent::binlog::EventRun;
use dm_agent::model::Flavor;
use dm_agent::relay::{Relay, RelayConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bed::Bed;
use crate::outcome::{Goal, Measure, Row, Series};
use crate::rig::{Rig, SOURCE};
use crate::rounds;
use crate::support::agent::Agent;
use crate::table::number;

/// Raw relay log at a boot.
const RELAY_BYTES: u64 = 2 << 30;
/// Bytes of one of its events.
const EVENT_BYTES: usize = 64 << 10;
/// Starts a round.
const BOOTS: usize = 5;

/// One parked task, everything received.
pub async fn memory(bed: &mut Bed) -> Vec<Row> {
    let (oltp, _) = bed.oltp().await;
    oltp.extend_to(1).await;
    let mut rig = Rig::from_state(oltp.state.clone()).await;
    rig.wait_relayed(&oltp.end().end).await;
    let mut rss = Series::default();
    for _ in 0..rounds() {
        rig.agent.terminate();
        rig.agent.restart().await;
        // What start and recovery took is given back, or it is not: both count.
        tokio::time::sleep(Duration::from_secs(3)).await;
        rss.0.push(rig.agent.rss_kb() as f64 / 1024.0);
    }
    let goals = vec![Goal::AtMost(Measure::Ours, 30.0)];
    vec![Row { case: "RSS idle, one parked task".into(), unit: "MB", ours: rss, goals, ..Row::default() }]
}

/// From the start of the process until it says that it is ready.
pub async fn boot(bed: &mut Bed) -> Vec<Row> {
    let (oltp, _) = bed.oltp().await;
    let mut rig = Rig::from_state(oltp.state.clone()).await;
    rig.agent.terminate();
    let (raw, segments) = fill_relay(&rig.agent).await;
    let mut seconds = Series::default();
    for _ in 0..rounds() {
        let mut round = Series::default();
        for _ in 0..BOOTS {
            let began = Instant::now();
            rig.agent.restart().await;
            round.0.push(began.elapsed().as_secs_f64());
            rig.agent.terminate();
        }
        seconds.0.push(round.max());
    }
    let work =
        format!("{} MB of relay log in {segments} segments; the slowest of {BOOTS} starts", number(raw as f64 / 1e6));
    let goals = vec![Goal::AtMost(Measure::Ours, 0.5)];
    vec![Row { case: "boot to READY".into(), unit: "s", ours: seconds, work, goals, ..Row::default() }]
}

/// Appends to the relay log of an agent that does not run; raw bytes and segments that it has then.
async fn fill_relay(agent: &Agent) -> (u64, u64) {
    let dir = agent.state_dir().join("relay").join(SOURCE);
    assert!(dir.exists(), "the agent keeps its relay log in {}", dir.display());
    let relay = Relay::open(RelayConfig { free_floor_bytes: 0, ..RelayConfig::new(dir, Flavor::MySql) }).await;
    let relay = relay.expect("open the relay log");
    let mut writer = relay.writer().expect("the only writer");
    writer.restart(&relay.state().identity).expect("go on");
    let mut offset = writer.resume_location().expect("it was begun").position.offset;
    let mut random = StdRng::seed_from_u64(1);
    let texts: Vec<Vec<u8>> = (0..64).map(|_| text(&mut random)).collect();
    let mut written = 0;
    while written < RELAY_BYTES {
        let events: Vec<Bytes> = texts.iter().map(|text| statement(text, &mut offset)).collect();
        written += events.iter().map(|event| event.len() as u64).sum::<u64>();
        writer.append(EventRun::join(&events).expect("whole events")).await.expect("append");
    }
    drop(writer);
    relay.flush().await.expect("flush");
    let state = relay.state();
    relay.close().await.expect("close");
    (state.raw_bytes, state.segments)
}

/// Text that compresses about as rows do.
fn text(random: &mut StdRng) -> Vec<u8> {
    let words = (0..EVENT_BYTES / 24).map(|_| format!("{:08x}-column-value--", random.random::<u32>()));
    words.collect::<String>().into_bytes()
}

/// A statement that stands alone, as an event with a checksum, behind `offset`.
fn statement(text: &[u8], offset: &mut u64) -> Bytes {
    const HEADER: usize = 19;
    const QUERY: u8 = 2;
    let size = HEADER + 14 + 7 + text.len() + 4;
    *offset += size as u64;
    let mut event = 1_700_000_000u32.to_le_bytes().to_vec();
    event.push(QUERY);
    event.extend(1u32.to_le_bytes());
    event.extend((size as u32).to_le_bytes());
    event.extend((*offset as u32).to_le_bytes());
    event.extend([0; 2 + 14]);
    event.extend(b"create ");
    event.extend(text);
    event.extend([0; 4]);
    event.into()
}
