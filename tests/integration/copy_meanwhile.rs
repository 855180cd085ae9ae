//! What others do on the source while rows are copied: tables that change, transactions that are prepared; and a table that is
//! read again.

use dm_agent::model::{SourceTable, TableName};
use dm_agent::snapshot::{CopyOutcome, CopyProgress, Reread, Rereading};

use crate::copy_bench::{Bench, LIMIT, fill};
use crate::support::fixture::shared_pair;
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// The table is another one before it is read: what makes it so is in the binlog, and is not the copy's.
#[tokio::test]
async fn a_table_that_changes_while_it_is_copied_is_left_as_stale() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    for statement in ["ALTER TABLE z_last DROP COLUMN k", "DROP TABLE z_last", "RENAME TABLE z_last TO y_last"] {
        let mut bench = Bench::new("sd", &source, &target).await;
        bench.spec.options.readers = 1;
        bench.spec.options.chunk_rows = Some(500);
        fill(&mut bench.source, "a_first", 40_000).await;
        fill(&mut bench.source, "z_last", 1_000).await;
        let (copying, mut told) = bench.begin();
        let (db, changed) = (&mut bench.source, statement);
        let change = async move {
            told.wait_for(|progress| progress.rows_written > 0).await.expect("it is at work");
            db.run(changed).await;
        };
        let (outcome, ()) = tokio::join!(copying, change);
        let CopyOutcome::Copied(replay) = outcome else { panic!("{statement}: {outcome:?}") };
        let stale = SourceTable(TableName::new(bench.schema.as_str(), "z_last"));
        assert_eq!(replay.stale, [stale], "{statement}");
        let first = format!("SELECT COUNT(*) FROM {}.a_first", bench.schema);
        assert_eq!(bench.target.number(&first).await, 40_000);
    }
}

#[tokio::test]
async fn a_table_is_read_again_whole() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(from, to).await;
        let mut bench = Bench::new("sa", &source, &target).await;
        bench.spec.options.chunk_rows = Some(300);
        fill(&mut bench.source, "t", 2_000).await;
        bench.source.run_all(["CREATE TABLE w (a INT)", "INSERT INTO w VALUES (1), (1), (2)"]).await;
        bench.copied().await;
        let schema = bench.schema.clone();
        bench.target.run(&format!("USE {schema}")).await;
        // Rows too many, too few, and others; and on the source some that are new.
        bench
            .target
            .run_all([
                "DELETE FROM t WHERE id BETWEEN 500 AND 900",
                "UPDATE t SET c = 'spoilt' WHERE id < 50",
                "INSERT INTO t (id, k, c) VALUES (999999, 1, 'extra'), (-5, 1, 'extra')",
                "INSERT INTO w VALUES (9)",
            ])
            .await;
        bench.source.run("INSERT INTO t (k, c) VALUES (3, 'behind')").await;
        for table in ["t", "w"] {
            let done = bench.again(table, Rereading::default()).await.expect("it is read");
            let Reread::Done { exact, .. } = done else { panic!("{done:?}") };
            assert_eq!(exact, table == "w");
        }
        bench.equal().await;
        // A column that the source has and the target does not: its DDL is on its way.
        bench.source.run("ALTER TABLE t ADD COLUMN n INT").await;
        let fence = Some(format!("UPDATE {schema}.t SET k = k WHERE id = 0 AND 1 = 0"));
        let done = bench.again("t", Rereading::default()).await;
        assert!(matches!(&done, Ok(Reread::Differs(why)) if why.contains("lacks columns: n")), "{done:?}");
        bench.target.run("ALTER TABLE t ADD COLUMN n INT").await;
        let done = bench.again("t", Rereading { fence, ..Rereading::default() }).await;
        assert!(matches!(done, Ok(Reread::Fenced)), "{done:?}");
    }
}

/// Tables without a key, of engines with and without snapshots, are those of one location.
#[tokio::test]
async fn tables_without_a_key_are_of_one_location() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(from, to).await;
        let mut bench = Bench::new("sq", &source, &target).await;
        let schema = bench.schema.clone();
        bench.source.run_all(["CREATE TABLE w (a INT)", "CREATE TABLE m (a INT) ENGINE=MyISAM"]).await;
        bench.source.run("INSERT INTO m VALUES (1), (1)").await;
        // A target that would lose its rows' place with them is refused.
        bench
            .target
            .run_all([format!("CREATE DATABASE {schema}"), format!("CREATE TABLE {schema}.m (a INT) ENGINE=MyISAM")])
            .await;
        let text = bench.refusal().await;
        // With GTIDs not even those that have a key could be written.
        let why = match to {
            Kind::MySql => "an engine without transactions",
            Kind::MariaDb => "neither a key nor an engine with transactions",
        };
        assert!(text.contains(why) && text.contains("ENGINE=InnoDB"), "{text}");
        bench.target.run(&format!("ALTER TABLE {schema}.m ENGINE=InnoDB")).await;
        // Each row has a transaction of its own: their number says which location it is.
        let mut writer = source.root().await;
        let (copying, told) = bench.begin();
        let writing = async {
            let (mut places, mut rows) = (Vec::new(), 0);
            while told.has_changed().is_ok() {
                rows += 1;
                writer.run(&format!("INSERT INTO {schema}.w VALUES ({rows})")).await;
                places.push(crate::support::fixture::location(&mut writer, from).await);
            }
            places
        };
        let (outcome, places) =
            tokio::time::timeout(LIMIT, async { tokio::join!(copying, writing) }).await.expect("both end");
        let CopyOutcome::Copied(replay) = outcome else { panic!("{outcome:?}") };
        let (_, start) = replay.starts.iter().find(|(table, _)| &*table.0.table == "w").expect("w has a start");
        let there = bench.target.number(&format!("SELECT COUNT(*) FROM {schema}.w")).await;
        println!("{from:?}: {there} of {} rows at {start}", places.len());
        let last = |place: &crate::support::docs::SourceLocation| {
            (place.file.clone(), place.position) <= (start.position.file.name().to_owned(), start.position.offset)
        };
        assert_eq!(there, places.iter().filter(|place| last(place)).count() as u64, "{start}");
        assert_eq!(bench.target.number(&format!("SELECT COUNT(*) FROM {schema}.m")).await, 2);
    }
}

/// An XA transaction that was prepared before the copy is waited for: behind its beginning only its end is logged, without
/// rows.
#[tokio::test]
async fn xa_transactions_that_were_prepared_before_are_waited_for() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        // No other test's transactions.
        let source = Server::start(from, &ServerOptions::default()).await;
        let target = shared(to, &ServerOptions::default()).await;
        let mut bench = Bench::new("sxa", &source, &target).await;
        let schema = bench.schema.clone();
        bench.source.run_all(["CREATE TABLE k (id INT PRIMARY KEY)", "CREATE TABLE w (a INT)"]).await;
        let mut other = source.root().await;
        other
            .run_all([
                format!("USE {schema}"),
                "XA START 'a b','c',7".into(),
                "INSERT INTO k VALUES (1)".into(),
                "INSERT INTO w VALUES (1)".into(),
                "XA END 'a b','c',7".into(),
                "XA PREPARE 'a b','c',7".into(),
            ])
            .await;
        let (copying, mut told) = bench.begin();
        let ending = async {
            let waits = |progress: &CopyProgress| progress.activity.contains("waiting for 1 XA transactions");
            let seen = told.wait_for(waits).await.expect("it waits").activity.clone();
            other.run("XA COMMIT 'a b','c',7").await;
            seen
        };
        let (outcome, seen) =
            tokio::time::timeout(LIMIT, async { tokio::join!(copying, ending) }).await.expect("it ends");
        assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
        assert!(seen.ends_with("X'612062',X'63',7"), "{seen}");
        bench.equal().await;
    }
}
