//! What a copy cannot do is said before it begins, all at once, or with table and chunk; and what is marked is kept.

use dm_agent::snapshot::{CopyOutcome, Existing};

use crate::copy_bench::{Bench, fill};
use crate::support::fixture::shared_pair;
use crate::support::servers::{Kind, Server, ServerOptions, shared};

#[tokio::test]
async fn rows_that_were_there_are_replaced_kept_or_refused() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    for existing in [Existing::Replace, Existing::Keep, Existing::Refuse] {
        let mut bench = Bench::new("se", &source, &target).await;
        bench.spec.options.existing = existing;
        let create = "CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE, v VARCHAR(10))";
        bench.source.run_all([create, "INSERT INTO t VALUES (1, 10, 'new'), (2, 20, 'new')"]).await;
        let schema = bench.schema.clone();
        bench.target.run_all([format!("CREATE DATABASE {schema}"), format!("USE {schema}"), create.to_owned()]).await;
        // One with the same key, and one that holds another row's unique value.
        bench.target.run("INSERT INTO t VALUES (1, 11, 'old'), (7, 20, 'old')").await;
        let rows = "SELECT CONCAT(id, ':', u, ':', v) FROM t ORDER BY id";
        match existing {
            Existing::Replace => {
                bench.copied().await;
                assert_eq!(bench.target.texts(rows).await, [["1:10:new"], ["2:20:new"]]);
            }
            Existing::Keep => {
                bench.copied().await;
                assert_eq!(bench.target.texts(rows).await, [["1:11:old"], ["7:20:old"]]);
            }
            Existing::Refuse => {
                let text = bench.refusal().await;
                assert!(text.contains("`t` has rows before the copy") && text.contains("TRUNCATE TABLE"), "{text}");
                assert_eq!(bench.target.texts(rows).await, [["1:11:old"], ["7:20:old"]]);
            }
        }
    }
}

#[tokio::test]
async fn everything_that_would_fail_later_is_said_at_once() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sp", &source, &target).await;
    let schema = bench.schema.clone();
    let user = format!("u_{schema}");
    bench
        .source
        .run_all([
            "CREATE TABLE secret (id INT PRIMARY KEY)".to_owned(),
            "CREATE TABLE other (id INT PRIMARY KEY, a INT, b INT)".to_owned(),
            "CREATE TABLE keyless (a INT)".to_owned(),
            format!("CREATE USER {user} IDENTIFIED WITH caching_sha2_password BY ''"),
            format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}"),
            format!("GRANT INSERT ON {schema}.secret TO {user}"),
            format!("GRANT SELECT ON {schema}.other TO {user}"),
            format!("GRANT SELECT ON {schema}.keyless TO {user}"),
        ])
        .await;
    bench.target.run_all([format!("CREATE DATABASE {schema}"), format!("USE {schema}")]).await;
    bench.target.run_all(["CREATE TABLE other (id INT PRIMARY KEY)", "CREATE TABLE keyless (a INT)"]).await;
    bench.target.run("INSERT INTO keyless VALUES (1)").await;
    bench.spec.source.user = user;
    let text = bench.refusal().await;
    for part in [
        "lacks columns of",
        "other`: a, b",
        "secret",
        "GRANT SELECT",
        "LOCK TABLES",
        "keyless` has rows before the copy, and it has no key",
    ] {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
    let rows = format!("SELECT COUNT(*) FROM {schema}.keyless");
    assert_eq!(bench.target.number(&rows).await, 1, "nothing was written");
}

#[tokio::test]
async fn a_source_with_small_images_is_refused() {
    let options = ServerOptions { row_image: "MINIMAL", ..ServerOptions::default() };
    let source = shared(Kind::MySql, &options).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut bench = Bench::new("si", &source, &target).await;
    bench.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    let text = bench.refusal().await;
    assert!(text.contains("binlog_row_image of the source is MINIMAL") && text.contains("SET GLOBAL"), "{text}");
}

#[tokio::test]
async fn a_row_that_the_target_refuses_is_named_and_what_is_marked_is_kept() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sx", &source, &target).await;
    bench.spec.options.chunk_rows = Some(100);
    bench.spec.options.writers = 1;
    fill(&mut bench.source, "t", 1_000).await;
    bench.source.run("UPDATE t SET k = 70000 WHERE id = 777").await;
    let schema = bench.schema.clone();
    bench.target.run_all([format!("CREATE DATABASE {schema}"), format!("USE {schema}")]).await;
    bench.target.run("CREATE TABLE t (id INT PRIMARY KEY, k SMALLINT, c VARCHAR(120))").await;
    let text = bench.refusal().await;
    assert!(text.contains("Error 1264") && text.contains("`t` behind key (700)"), "{text}");
    assert!(text.contains("as wide in") && text.contains("goes on behind it"), "{text}");
    let there = bench.target.number("SELECT COUNT(*) FROM t").await;
    // The writer may be at the next ones when the failure is told.
    assert!((700..1_000).contains(&there) && there % 100 == 0, "{there} rows are there");
    bench.target.run("ALTER TABLE t MODIFY k INT").await;
    bench.copied().await;
    assert_eq!(bench.target.number("SELECT COUNT(*) FROM t WHERE k = 70000").await, 1);
    assert_eq!(bench.target.number("SELECT COUNT(*) FROM t").await, 1_000);
}

/// The target's tablespace is full: the copy fails with what to do, and goes on behind its marks when there is room.
#[tokio::test]
async fn a_target_that_is_full_costs_nothing_but_time() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let args = ["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M:autoextend:max:22M"];
    let options = ServerOptions { args: args.map(String::from).into(), ..ServerOptions::default() };
    let mut target = Server::start(Kind::MariaDb, &options).await;
    let mut bench = Bench::new("sfull", &source, &target).await;
    bench.spec.options.chunk_rows = Some(1000);
    fill(&mut bench.source, "t", 120_000).await;
    let text = bench.refusal().await;
    assert!(text.contains("Error 1114") && text.contains("behind key"), "{text}");
    assert!(text.contains("make room on the downstream's disk"), "{text}");
    let there = bench.target.number(&format!("SELECT COUNT(*) FROM {}.t", bench.schema)).await;
    println!("{there} rows were there when it was full");
    assert!((1..120_000).contains(&there));
    target.restart_with(vec!["--innodb-data-file-path=ibdata1:12M:autoextend".into()]).await;
    bench.target = target.root().await;
    let (outcome, last) = bench.told().await;
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    assert_eq!((last.rows_written, last.rows_read), (120_000, 120_000), "what is marked is kept");
    bench.equal().await;
}

/// An account is not shown what it has no right on: what the task asks for by name is asked about by name.
#[tokio::test]
async fn what_is_named_and_not_seen_is_told() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(from, to).await;
        let mut bench = Bench::new("snm", &source, &target).await;
        let (schema, user) = (bench.schema.clone(), format!("u_{}", bench.schema));
        bench
            .source
            .run_all([
                "CREATE TABLE t (id INT PRIMARY KEY)".to_owned(),
                "INSERT INTO t VALUES (1), (2)".to_owned(),
                format!("CREATE USER {user} IDENTIFIED BY ''"),
                format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}"),
            ])
            .await;
        bench.spec.source.user = user.clone();
        let text = bench.refusal().await;
        let grant = format!("GRANT SELECT, SHOW VIEW ON `{schema}`.* TO");
        assert!(text.contains(&format!("no right on schema `{schema}`")) && text.contains(&grant), "{text}");
        bench.source.run(&format!("GRANT SELECT ON {schema}.* TO {user}")).await;
        bench.source.run(&format!("RENAME TABLE t TO {schema}.u")).await;
        bench.copied().await;
        assert_eq!(bench.target.number(&format!("SELECT COUNT(*) FROM {schema}.u")).await, 2);

        let mut absent = Bench::new("snn", &source, &target).await;
        absent.source.run(&format!("DROP DATABASE {}", absent.schema)).await;
        let (outcome, last) = absent.told().await;
        assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
        let note = format!("the source has no schema `{}`", absent.schema);
        assert!(last.notes.iter().any(|told| told.contains(&note)), "{:?}", last.notes);
    }
}

/// A downstream that makes no database, and one that takes nothing at all.
#[tokio::test]
async fn a_downstream_that_takes_nothing_is_told_with_what_to_do() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = Server::start(Kind::MariaDb, &ServerOptions::default()).await;
    let mut bench = Bench::new("sro", &source, &target).await;
    let schema = bench.schema.clone();
    fill(&mut bench.source, "t", 10).await;
    bench.target.run("CREATE USER few IDENTIFIED BY ''").await;
    bench.target.run("GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON dm_meta.* TO few").await;
    bench.spec.downstream.user = "few".into();
    let text = bench.refusal().await;
    assert!(text.contains("create database") && text.contains(&format!("GRANT CREATE ON `{schema}`.*")), "{text}");
    bench.target.run(&format!("GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON {schema}.* TO few")).await;
    bench.target.run("SET GLOBAL read_only = 1").await;
    let text = bench.refusal().await;
    assert!(text.contains("Error 1290") && text.contains("make the downstream writable (read_only)"), "{text}");
    bench.target.run("SET GLOBAL read_only = 0").await;
    bench.copied().await;
    bench.equal().await;
}

/// Kinds of tables that a binlog cannot be applied to, or that take no rows together with a mark.
#[tokio::test]
async fn tables_of_odd_kinds_are_refused_by_name() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut bench = Bench::new("skd", &source, &target).await;
    bench
        .source
        .run_all([
            "CREATE TABLE old (id INT PRIMARY KEY) WITH SYSTEM VERSIONING",
            "CREATE TABLE heap (id INT PRIMARY KEY) ENGINE=MEMORY",
            "CREATE SEQUENCE counter",
        ])
        .await;
    let (outcome, last) = bench.told().await;
    let CopyOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    let text = failure.to_string();
    for part in [
        "`old` is system-versioned",
        "DROP SYSTEM VERSIONING",
        "`heap` has an engine without transactions",
        "ENGINE=InnoDB",
    ] {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
    assert!(
        last.notes.iter().any(|note| note.contains("1 sequences of the source are not copied")),
        "{:?}",
        last.notes
    );
    let heap = format!("ALTER TABLE {}.heap ENGINE=InnoDB", bench.schema);
    bench.target.run(&heap).await;
    bench.source.run("ALTER TABLE old DROP SYSTEM VERSIONING").await;
    bench.copied().await;
    bench.equal().await;
}
