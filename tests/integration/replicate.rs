//! Source to target, in every combination of makes and of binlog settings: equal at the end, nothing lost, nothing twice.

use std::time::Duration;

use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};
use crate::support::sysbench::Sysbench;
use crate::support::workload::{Mix, Workload};

/// A random workload, started while the task runs.
async fn replicates(label: &str, source: &Server, target: &Server, options: &LinkOptions, steps: usize) {
    let mut link = Link::start(label, source, target, options).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    workload.run(&mut link.source, steps).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn mysql_to_mariadb() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    replicates("my_ma", &source, &target, &LinkOptions::default(), 600).await;
}

#[tokio::test]
async fn mysql_to_mysql() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MySql).await;
    let options = LinkOptions { task_extra: routes("my_my"), ..LinkOptions::default() };
    replicates_routed("my_my", &source, &target, &options).await;
}

#[tokio::test]
async fn mariadb_to_mysql() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    replicates("ma_my", &source, &target, &LinkOptions::default(), 600).await;
}

#[tokio::test]
async fn mariadb_to_mariadb() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MariaDb).await;
    let options = LinkOptions { task_extra: routes("ma_ma"), ..LinkOptions::default() };
    replicates_routed("ma_ma", &source, &target, &options).await;
}

/// Source and target are the same server here, so every schema goes to another name: rows and DDL alike.
fn routes(label: &str) -> String {
    format!("routes:\n  copy: {{schema-pattern: \"{label}_*\", target-schema: copy_of_{label}}}\n")
}

async fn replicates_routed(label: &str, source: &Server, target: &Server, options: &LinkOptions) {
    let options = LinkOptions { instance_extra: "  route-rules: [copy]\n".into(), ..options.clone() };
    let mut link = Link::start(label, source, target, &options).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    workload.run(&mut link.source, 400).await;
    let to = format!("copy_of_{label}");
    let pair = [(link.schema.as_str(), to.as_str())];
    crate::support::oracle::eventually_equal(&mut link.source, &mut link.target, &pair, Duration::from_secs(120)).await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn by_position_without_gtids() {
    let source = shared(Kind::MySql, &ServerOptions { gtid: false, ..ServerOptions::default() }).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let options = LinkOptions { by_position: true, ..LinkOptions::default() };
    replicates("pos", &source, &target, &options, 300).await;
}

#[tokio::test]
async fn compressed_transactions_with_full_metadata_of_mysql() {
    let options = ServerOptions { compression: true, row_metadata: "FULL", ..ServerOptions::default() };
    let source = shared(Kind::MySql, &options).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    replicates("zstd", &source, &target, &LinkOptions::default(), 300).await;
}

#[tokio::test]
async fn compressed_events_with_full_metadata_of_mariadb() {
    let options = ServerOptions { compression: true, row_metadata: "FULL", ..ServerOptions::default() };
    let source = shared(Kind::MariaDb, &options).await;
    let target = shared(Kind::MySql, &ServerOptions::default()).await;
    replicates("zlib", &source, &target, &LinkOptions::default(), 300).await;
}

#[tokio::test]
async fn minimal_row_images_without_checksums() {
    for (label, image) in [("minimal", "MINIMAL"), ("noblob", "NOBLOB")] {
        let options = ServerOptions { row_image: image, checksum: false, ..ServerOptions::default() };
        let source = Server::start(Kind::MySql, &options).await;
        let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
        replicates(label, &source, &target, &LinkOptions::default(), 200).await;
    }
}

/// An event above 16 MiB is split into several packets of the protocol.
#[tokio::test]
async fn events_larger_than_a_packet() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("large", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)").await;
    for (id, size) in [(1, 16_777_215 - 60), (2, 17_000_000), (3, 34_000_000)] {
        link.source.run(&format!("INSERT INTO t VALUES ({id}, REPEAT(CHAR({id} + 64), {size}))")).await;
    }
    link.source.run("UPDATE t SET b = CONCAT(b, 'tail') WHERE id = 2").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// The source's binlog files change under the reader's feet.
#[tokio::test]
async fn over_rotated_and_purged_binlogs() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("rotate", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    for id in 0..20 {
        link.source.run(&format!("INSERT INTO t VALUES ({id})")).await;
        link.source.run("FLUSH BINARY LOGS").await;
    }
    link.wait_equal().await;
    let last = crate::support::fixture::location(&mut link.source, link.kind).await.file;
    link.source.run(&format!("PURGE BINARY LOGS TO '{last}'")).await;
    link.source.run("INSERT INTO t VALUES (100)").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn sysbench_load_in_several_threads() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("bench", &source, &target, &LinkOptions::default()).await;
    let load = Sysbench { port: source.port, schema: link.schema.clone(), tables: 4, rows: 1000 };
    let prepare = load.clone();
    tokio::task::spawn_blocking(move || prepare.prepare()).await.expect("prepare");
    let mut run = load.run(4, Duration::from_secs(5));
    crate::support::eventually("sysbench has ended", Duration::from_secs(60), async || {
        run.exit_status().ok_or_else(|| run.log_text())
    })
    .await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}
