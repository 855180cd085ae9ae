//! Existing rows into an empty target, against what people use for that: mysqldump piped into mysql, mydumper and myloader.
//!
//! Ours is the copy itself, from nothing to DM's row: structures, tables, rows, marks. What stands behind it, the replay of
//! what was logged meanwhile, is none here: nothing writes to the source. With writers on, paused, killed, and with large rows, it is a whole agent's.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dm_agent::meta::MetaTables;
use dm_agent::model::{Flavor, Secret};
use dm_agent::mysql::Endpoint;
use dm_agent::pipeline::TaskGuide;
use dm_agent::snapshot::{CopyOptions, CopyOutcome, CopyProgress, CopySpec, copy};
use dm_agent::transform::{BlockAllowRules, Rules, Transform};
use tokio::sync::watch;

use super::copy_agent;
use crate::bed::{Bed, source};
use crate::meter::own_cpu;
use crate::outcome::{Goal, Measure, Row};
use crate::rounds;
use crate::support::db::Db;
use crate::support::process::fresh_folder;
use crate::support::servers::{Kind, Server};
use crate::support::sysbench::Sysbench;
use crate::table::number;

/// Tables.
pub const TABLES: u32 = 4;
/// Rows of each.
pub const ROWS: u32 = 500_000;
/// Where they are.
pub const SCHEMA: &str = "bench_copy";
/// Nothing that is measured takes longer.
const LIMIT: Duration = Duration::from_secs(600);
/// Rows of a table of large ones, and megabytes of each: a gigabyte in all.
const LARGE_ROWS: u32 = 16;
const LARGE_MB: u32 = 16;

/// A source with all tables of so many rows each, and a connection to it.
pub async fn filled_source(rows: u32) -> (Server, Db) {
    let source = source(Kind::MariaDb).await;
    let mut from = source.root().await;
    from.run(&format!("CREATE DATABASE {SCHEMA}")).await;
    from.run("SET GLOBAL sync_binlog = 0").await;
    from.run("SET GLOBAL innodb_flush_log_at_trx_commit = 2").await;
    Sysbench { port: source.port, schema: SCHEMA.to_owned(), tables: TABLES, rows }.prepare();
    (source, from)
}

/// Both references, and what a whole agent's copy takes.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let maria = bed.maria().await;
    let (source, mut from) = filled_source(ROWS).await;
    let mut to = maria.root().await;
    let rows = f64::from(TABLES * ROWS);
    let mut dump = line("snapshot, mysqldump", "mysqldump | mysql", 2.0);
    let mut loader = line("snapshot, myloader", "mydumper, myloader -t 4", 1.1);
    for round in 0..rounds() {
        let (seconds, cpu) = ours(&source, maria, round).await;
        check_equal(&mut from, &mut to).await;
        clear(&mut to).await;
        let by_dump = timed(|| mysqldump(&source, maria));
        check_equal(&mut from, &mut to).await;
        clear(&mut to).await;
        let by_loader = timed(|| mydumper(&source, maria));
        check_equal(&mut from, &mut to).await;
        clear(&mut to).await;
        for (line, reference) in [(&mut dump, by_dump), (&mut loader, by_loader)] {
            line.ours.0.push(rows / seconds);
            line.reference.0.push(rows / reference);
            line.cpu.0.push(cpu * 1e6 / rows);
            line.work = format!("{} rows in {seconds:.1} s, the other {reference:.1} s", number(rows));
        }
    }
    let by_agent = copy_agent::run(&source, &mut from).await;
    let memory = memory(&source, maria, &mut from).await;
    check_large(&mut from, &mut to).await;
    clear(&mut to).await;
    [vec![dump, loader], by_agent, vec![memory]].concat()
}

/// Rows of many megabytes.
async fn memory(source: &Server, target: &Server, from: &mut Db) -> Row {
    for table in 1..=TABLES {
        from.run(&format!("DROP TABLE {SCHEMA}.sbtest{table}")).await;
        from.run(&format!("CREATE TABLE {SCHEMA}.large{table} (id INT PRIMARY KEY, b LONGBLOB)")).await;
        for id in 0..LARGE_ROWS {
            let value = format!("REPEAT(CHAR({}), {})", 33 + id, LARGE_MB << 20);
            from.run(&format!("INSERT INTO {SCHEMA}.large{table} VALUES ({id}, {value})")).await;
        }
    }
    copy_agent::memory(source, target, format!("{TABLES} tables of {LARGE_ROWS} rows of {LARGE_MB} MB")).await
}

async fn check_large(source: &mut Db, target: &mut Db) {
    for table in 1..=TABLES {
        let sql = format!("SELECT id, LENGTH(b), CRC32(b) FROM {SCHEMA}.large{table} ORDER BY id");
        assert_eq!(target.texts(&sql).await, source.texts(&sql).await, "large{table} differs from the source");
    }
}

fn line(case: &str, against: &'static str, least: f64) -> Row {
    Row {
        case: case.to_owned(),
        unit: "rows/s",
        against,
        goals: vec![Goal::AtLeast(Measure::Ratio, least)],
        ..Row::default()
    }
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port: server.port,
        user: "root".into(),
        password: Secret::new(""),
        session: Default::default(),
        tls: None,
    }
}

fn spec(source: &Server, target: &Server, task: &str) -> CopySpec {
    let rules = Rules {
        block_allow: BlockAllowRules { do_dbs: vec![SCHEMA.to_owned()], ..Default::default() },
        routes: Vec::new(),
        filters: Vec::new(),
        expressions: Vec::new(),
        online: Default::default(),
        case_sensitive: false,
        meta_schema: "dm_meta".into(),
        flavor: Flavor::MariaDb,
    };
    let guide = TaskGuide {
        transform: Arc::new(Transform::new(&rules).expect("rules")),
        flavor: Flavor::MariaDb,
        downstream: Flavor::MariaDb,
        begun: std::sync::Arc::new(|_| Box::pin(async { Ok(()) })),
        collations: None,
    };
    CopySpec {
        source: endpoint(source),
        flavor: Flavor::MariaDb,
        downstream: endpoint(target),
        tables: MetaTables::new("dm_meta", task, "mysql-01"),
        guide: Arc::new(guide),
        options: CopyOptions::default(),
    }
}

/// Seconds, and seconds of CPU.
async fn ours(source: &Server, target: &Server, round: usize) -> (f64, f64) {
    let (progress, told) = watch::channel(CopyProgress::default());
    let (began, cpu) = (Instant::now(), own_cpu());
    let copying =
        copy(spec(source, target, &format!("copy_{round}")), false, Box::pin(std::future::pending()), progress);
    let outcome = tokio::time::timeout(LIMIT, copying).await.expect("the copy ends");
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    let spent = (began.elapsed().as_secs_f64(), own_cpu() - cpu);
    eprintln!("bench:   ours {:.1} s, {} chunks", spent.0, told.borrow().chunks_written);
    spent
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

fn account(server: &Server) -> String {
    format!("-h127.0.0.1 -P{} -udm -pdmpw", server.port)
}

fn shell(command: &str) {
    let output = Command::new("bash").args(["-o", "pipefail", "-c", command]).output().expect("run bash");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn mysqldump(source: &Server, target: &Server) {
    let (from, to) = (account(source), account(target));
    shell(&format!("mysqldump {from} --single-transaction --databases {SCHEMA} | mysql {to}"));
}

fn mydumper(source: &Server, target: &Server) {
    let folder = fresh_folder("mydumper");
    let (from, to, folder) = (account(source), account(target), folder.display());
    let [from, to] = [from, to]
        .map(|account| account.replace("-h", "-h ").replace("-P", "-P ").replace("-u", "-u ").replace("-p", "-p "));
    shell(&format!("mydumper {from} -B {SCHEMA} -t 4 -o {folder}/dump && myloader {to} -d {folder}/dump -t 4"));
    std::fs::remove_dir_all(folder.to_string()).expect("remove the dump");
}

/// Removes the copy.
pub async fn clear(target: &mut Db) {
    target.run(&format!("DROP DATABASE IF EXISTS {SCHEMA}")).await;
}

/// Speed counts only where the result is right.
pub async fn check_equal(source: &mut Db, target: &mut Db) {
    for table in 1..=TABLES {
        let sql = format!("SELECT COUNT(*), SUM(CRC32(CONCAT_WS('#', id, k, c, pad))) FROM {SCHEMA}.sbtest{table}");
        assert_eq!(target.texts(&sql).await, source.texts(&sql).await, "sbtest{table} differs from the source");
    }
}
