//! What a copy that ended early leaves: a restart reads what is not marked, a former owner writes nothing, and a copy that does
//! not count is begun anew.

use std::time::Duration;

use dm_agent::snapshot::{CopyOutcome, CopyProgress, Standing};

use crate::copy_bench::{Bench, LIMIT, fill, stopped_at};
use crate::support::fixture::shared_pair;
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{Kind, Server, ServerOptions};

#[tokio::test]
async fn a_copy_that_was_stopped_goes_on_behind_its_marks() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sr", &source, &target).await;
    bench.spec.options.chunk_rows = Some(500);
    fill(&mut bench.source, "a", 60_000).await;
    fill(&mut bench.source, "b", 60_000).await;
    let (outcome, before, took) = stopped_at(&bench, 20_000).await;
    assert!(matches!(outcome, CopyOutcome::Stopped), "{outcome:?}");
    assert!(took < Duration::from_millis(400), "it took {took:?} to stop");
    let from = before.from.clone().expect("it had begun");
    assert_eq!(bench.standing().await, Standing::Copying(from.clone()));
    assert!(bench.marks().await > 0);
    let (outcome, last) = bench.told().await;
    let CopyOutcome::Copied(replay) = outcome else { panic!("{outcome:?}") };
    assert_eq!(replay.from, from, "L0 stays that of the first start");
    bench.equal().await;
    assert_eq!((last.rows_written, last.rows_read), (120_000, 120_000), "rows that were marked are not read again");
}

/// kill -9 is dropping the copy where it stands: nothing of it runs on.
#[tokio::test]
async fn a_copy_that_was_killed_many_times_reads_little_again() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sk", &source, &target).await;
    bench.spec.options.chunk_rows = Some(500);
    fill(&mut bench.source, "t", 100_000).await;
    bench.source.run("CREATE TABLE keyless (a INT, b INT)").await;
    bench.source.run("INSERT INTO keyless SELECT id, k FROM t LIMIT 20000").await;
    let (mut kills, mut again) = (0, 0);
    for kill in 1..=20 {
        let (copy, mut told) = bench.begin();
        let outcome = tokio::select! {
            outcome = copy => Some(outcome),
            _ = told.wait_for(|progress| progress.rows_written >= kill * 5_000) => None,
        };
        if outcome.is_some() {
            break;
        }
        kills += 1;
        let last = told.borrow().clone();
        again += last.rows_read.saturating_sub(last.rows_written);
    }
    println!("{kills} kills, {again} rows in flight in all of them");
    assert!(kills >= 10, "it was killed {kills} times only");
    // A kill may cost 5% of the rows; here with chunks of 500 rows it costs what four writers and their queue hold.
    assert!(again <= kills * 120_000 / 20, "{again} rows were read in vain");
    bench.copied().await;
    bench.equal().await;
}

#[tokio::test]
async fn two_copies_of_one_task_do_not_write_both() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sf", &source, &target).await;
    bench.spec.options.chunk_rows = Some(200);
    fill(&mut bench.source, "t", 60_000).await;
    let (first, mut told) = bench.begin();
    let second = async {
        told.wait_for(|progress| progress.rows_written > 2_000).await.expect("the first one is at work");
        bench.run().await
    };
    let (first, second) = tokio::time::timeout(LIMIT, async { tokio::join!(first, second) }).await.expect("both end");
    assert!(matches!(first, CopyOutcome::Fenced), "{first:?}");
    assert!(matches!(second, CopyOutcome::Copied(_)), "{second:?}");
    bench.equal().await;
}

#[tokio::test]
async fn a_master_that_removes_the_meta_tables_voids_the_marks() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut bench = Bench::new("sv", &source, &target).await;
    bench.spec.options.chunk_rows = Some(500);
    fill(&mut bench.source, "t", 30_000).await;
    let (outcome, before, _) = stopped_at(&bench, 5_000).await;
    assert!(matches!(outcome, CopyOutcome::Stopped), "{outcome:?}");
    // What dm-master does: DM's tables by name, none of ours.
    for suffix in ["syncer_checkpoint", "loader_checkpoint", "onlineddl"] {
        let table = bench.meta(suffix);
        bench.target.run(&format!("DROP TABLE IF EXISTS {table}")).await;
    }
    assert_eq!(bench.standing().await, Standing::Fresh);
    bench.source.run("DELETE FROM t WHERE id < 100").await;
    // The rows are the user's own: they would stay without the table's, as the copy only replaces.
    let table = format!("{}.t", bench.schema);
    bench.target.run(&format!("TRUNCATE TABLE {table}")).await;
    let replay = bench.copied().await;
    assert!(!before.from.expect("it had begun").covers(&replay.from), "L0 is a new one");
    bench.equal().await;
    // The row alone is gone: that copy is over, and what followed it is not known any more.
    let row = bench.meta("syncer_checkpoint");
    bench.target.run(&format!("DELETE FROM {row}")).await;
    assert_eq!(bench.standing().await, Standing::Fresh);
}

/// The servers come and go: a target that is back soon is waited for, a source that stays away parks the copy, and what is
/// marked is kept.
#[tokio::test]
async fn servers_that_vanish_cost_what_was_in_flight() {
    let options = ServerOptions::default();
    let mut source = Server::start(Kind::MariaDb, &options).await;
    let mut target = Server::start(Kind::MySql, &options).await;
    let mut bench = Bench::new("sg", &source, &target).await;
    bench.spec.options.chunk_rows = Some(200);
    fill(&mut bench.source, "t", 120_000).await;
    let (copying, mut told) = bench.begin();
    let faults = async {
        told.wait_for(|progress| progress.rows_written > 5_000).await.expect("it is at work");
        target.restart().await;
        let before = told.borrow().rows_written;
        told.wait_for(|progress| progress.rows_written > before + 5_000).await.expect("it goes on");
        source.freeze();
        let stands = |progress: &CopyProgress| progress.activity.contains("the source sends no rows");
        told.wait_for(stands).await.expect("it is told who is waited for");
        source.thaw();
        told.wait_for(|progress| !stands(progress)).await.expect("it goes on");
        source.kill9();
    };
    let (outcome, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(copying, faults) }).await.expect("it ends");
    let CopyOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.scope, "upstream", "{failure}");
    let text = failure.to_string();
    assert!(text.contains("`t` behind key (") && text.contains("by itself, behind what is marked"), "{text}");
    source.restart().await;
    bench.source = source.root().await;
    bench.target = target.root().await;
    let (outcome, last) = bench.told().await;
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    assert_eq!((last.rows_written, last.rows_read), (120_000, 120_000));
    bench.equal().await;
}

/// A COMMIT whose answer is lost: rows without a key would be there twice if it were sent again unseen.
#[tokio::test]
async fn rows_without_a_key_come_once_over_connections_that_break() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let proxy = Proxy::start(target.port);
    let mut bench = Bench::new("sb", &source, &target).await;
    bench.spec.downstream.port = proxy.port;
    bench.spec.options.chunk_rows = Some(100);
    bench.source.run("CREATE TABLE keyless (a INT, b VARCHAR(10))").await;
    bench.source.run("INSERT INTO keyless VALUES (1, 'x'), (2, 'y')").await;
    for _ in 0..13 {
        bench.source.run("INSERT INTO keyless SELECT * FROM keyless").await;
    }
    let (copying, mut told) = bench.begin();
    let mut cuts = 0;
    let faults = async {
        // Every answer but COMMIT's lets its statement go with the connection; which one is cut varies with the bytes.
        while told.wait_for(|progress| progress.rows_written > cuts * 1_000).await.is_ok() && cuts < 14 {
            cuts += 1;
            proxy.set(Fault::CutAfter(37 + 11 * (cuts % 5)));
        }
    };
    let (outcome, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(copying, faults) }).await.expect("it ends");
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    println!("{cuts} connections were cut");
    assert!(cuts >= 10, "only {cuts} connections were cut");
    bench.equal().await;
}

/// What changes while the copy stands still is seen by the next start, for tables that are not there whole.
#[tokio::test]
async fn a_table_that_changed_between_two_starts_is_left_as_stale() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sz", &source, &target).await;
    bench.spec.options.readers = 1;
    bench.spec.options.chunk_rows = Some(300);
    // The second one is larger than what is on its way when the copy is told to stop.
    for (table, rows) in [("a", 6_000), ("b", 40_000), ("c", 6_000), ("d", 6_000)] {
        fill(&mut bench.source, table, rows).await;
    }
    // The first one is there whole, the second in parts.
    let (outcome, _, _) = stopped_at(&bench, 8_000).await;
    assert!(matches!(outcome, CopyOutcome::Stopped), "{outcome:?}");
    bench
        .source
        .run_all([
            "ALTER TABLE b DROP PRIMARY KEY, MODIFY id VARCHAR(20), ADD PRIMARY KEY (k, id)",
            "DROP TABLE c",
            "CREATE INDEX later ON d (c)",
            "CREATE TABLE new_one (id INT PRIMARY KEY)",
        ])
        .await;
    let replay = bench.copied().await;
    let stale: Vec<&str> = replay.stale.iter().map(|table| &*table.0.table).collect();
    assert_eq!(stale, ["b", "c"]);
    let count = |table: &str| format!("SELECT COUNT(*) FROM {}.{table}", bench.schema);
    let (a, d) = (count("a"), count("d"));
    assert_eq!((bench.target.number(&a).await, bench.target.number(&d).await), (6_000, 6_000));
    // It is logged behind L0, and comes with the binlog.
    let new_one = format!(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'new_one' AND table_schema = '{}'",
        bench.schema
    );
    assert_eq!(bench.target.number(&new_one).await, 0);
}
