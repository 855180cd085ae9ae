//! Receiving at full speed: from an agent's start, with a parked task and everything still to come, until all of it is on disk.
//!
//! The reference, mysqlbinlog, writes the same events to a file and does not flush it. Both are measured from the start of
//! the process. How fast the source is by itself is told by a third one, which receives and checks the events and throws them
//! away.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dm_agent::model::{BinlogPosition, Flavor, Secret};
use dm_agent::mysql::Endpoint;
use dm_agent::upstream::{BinlogReader, DumpRequest, DumpStart, Extent, ReadError};

use crate::admin::Admin;
use crate::bed::Bed;
use crate::meter::cpu_of;
use crate::outcome::{Goal, Measure, Row, Series};
use crate::rig::{Mark, Rig, options};
use crate::rounds;
use crate::support::agent::{Agent, AgentOptions};
use crate::support::process::{copy_folder, fresh_folder};
use crate::support::servers::{Server, mysql_program};
use crate::table::number;

/// Small events.
pub async fn oltp(bed: &mut Bed) -> Vec<Row> {
    let (oltp, _) = bed.oltp().await;
    oltp.extend_to(3).await;
    let rows: u64 = oltp.stretches.iter().map(|stretch| stretch.rows).sum();
    let pulled = pull(&oltp.source, &oltp.state, &oltp.start.file, &oltp.end(), rows).await;
    let disk = Row {
        case: "relay disk use, OLTP".into(),
        unit: "MB",
        ours: pulled.disk.clone(),
        reference: pulled.raw.clone(),
        against: "raw binlog",
        goals: vec![Goal::AtMost(Measure::Ratio, 0.6)],
        ..Row::default()
    };
    let memory = Row {
        case: "RSS parked, receiving at full speed".into(),
        unit: "MB",
        ours: Series::one(pulled.line.rss.max()),
        goals: vec![Goal::AtMost(Measure::Ours, 128.0)],
        ..Row::default()
    };
    let goals = vec![Goal::AtLeast(Measure::Ratio, 4.0)];
    let thrown = Row { case: "the source alone, OLTP".into(), ..pulled.thrown };
    vec![Row { case: "relay pull, OLTP".into(), goals, ..pulled.line }, thrown, disk, memory]
}

/// Large events.
pub async fn bulk(bed: &mut Bed) -> Vec<Row> {
    let bulk = bed.bulk().await;
    let pulled = pull(&bulk.source, &bulk.state, &bulk.before.file, &bulk.mark, bulk.rows).await;
    let goals = vec![Goal::AtLeast(Measure::Ratio, 3.0)];
    let thrown = Row { case: "the source alone, bulk".into(), ..pulled.thrown };
    vec![Row { case: "relay pull, bulk".into(), goals, ..pulled.line }, thrown]
}

struct Pulled {
    line: Row,
    /// The source alone.
    thrown: Row,
    disk: Series,
    raw: Series,
}

async fn pull(source: &Server, state: &Path, first: &str, end: &Mark, rows: u64) -> Pulled {
    let row = || Row { unit: "MB/s", against: "mysqlbinlog --raw", ..Row::default() };
    let mut pulled = Pulled { line: row(), thrown: row(), disk: Series::default(), raw: Series::default() };
    let line = &mut pulled.line;
    // Removed at the end only: ext4 looks at every file that went in the last minute before it creates one, and a relay log
    // has many.
    let mut done = Vec::new();
    for _ in 0..rounds() {
        let state_dir = fresh_folder("pull").join("state");
        copy_folder(state, &state_dir);
        settle();
        let began = Instant::now();
        let agent = Agent::start(&AgentOptions { state_dir: Some(state_dir), ..options() }).await;
        let mut rig = Rig { admin: Admin::connect(&agent.socket()).await, agent };
        let relay = rig.wait_relayed(&end.end).await.relay.expect("a source has a relay log");
        let took = began.elapsed().as_secs_f64();
        let raw = relay.raw_bytes as f64 / 1e6;
        line.ours.0.push(raw / took);
        line.cpu.0.push(cpu_of(rig.agent.pid()) * 1e6 / rows as f64);
        line.rss.0.push(rig.agent.peak_rss_kb() as f64 / 1024.0);
        pulled.disk.0.push(allocated(&rig.agent.state_dir().join("relay")) as f64 / 1e6);
        pulled.raw.0.push(raw);
        rig.agent.terminate();
        done.push(rig.agent.state_dir());

        let folder = fresh_folder("mysqlbinlog");
        settle();
        let took = mysqlbinlog(source, first, &folder);
        let written = allocated(&folder) as f64 / 1e6;
        line.reference.0.push(raw / took);
        assert!(written > 0.9 * raw, "mysqlbinlog wrote {written} of {raw} MB");
        pulled.thrown.ours.0.push(raw / throw_away(source, first).await);
        pulled.thrown.reference.0.push(raw / took);
        done.push(folder);
    }
    done.iter().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
    line.work = format!("{} MB, {} row changes", number(pulled.raw.median()), number(rows as f64));
    pulled
}

/// What was left to be written is not the next one's cost: a start of the agent makes the whole system write it.
fn settle() {
    rustix::fs::sync();
}

/// Pulls everything once more, as a file; the seconds that took.
fn mysqlbinlog(source: &Server, first: &str, folder: &Path) -> f64 {
    let mut command = Command::new("timeout");
    command.arg("120").arg(mysql_program("mysqlbinlog"));
    command.args(["--no-defaults", "--read-from-remote-server", "--raw", "--to-last-log", "--host=127.0.0.1"]);
    command.args([format!("--port={}", source.port), "--user=dm".into(), "--password=dmpw".into()]);
    command.arg("--get-server-public-key");
    command.arg(format!("--result-file={}/", folder.display())).arg(first);
    let began = Instant::now();
    let output = command.output().expect("run mysqlbinlog");
    let took = began.elapsed().as_secs_f64();
    assert!(output.status.success(), "mysqlbinlog: {}", String::from_utf8_lossy(&output.stderr));
    took
}

/// Pulls everything once more and keeps nothing; the seconds that took.
async fn throw_away(source: &Server, first: &str) -> f64 {
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port: source.port,
        user: "dm".into(),
        password: Secret::new("dmpw"),
        session: Default::default(),
        tls: None,
    };
    let request = DumpRequest {
        flavor: Flavor::MySql,
        server_id: 0,
        start: DumpStart::Position(BinlogPosition::parse(first, 4).expect("a binlog file's name")),
        extent: Extent::ToEnd,
        heartbeat: Duration::from_secs(2),
        replica_uuid: uuid::Uuid::nil(),
        report_host: String::new(),
    };
    let began = Instant::now();
    let mut reader = BinlogReader::connect(&endpoint, &request).await.expect("connect");
    loop {
        match reader.next_batch().await {
            Ok(_) => {}
            Err(ReadError::Ended) => return began.elapsed().as_secs_f64(),
            Err(error) => panic!("receive: {error}"),
        }
    }
}

/// Bytes that a folder's files take on disk.
fn allocated(folder: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * 512,
                // A file that went meanwhile takes nothing.
                Err(_) => {}
            }
        }
    }
    bytes
}
