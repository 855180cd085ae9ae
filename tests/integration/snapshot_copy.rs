//! The copy of existing rows by itself, on real servers: what arrives, what a restart reads again, who is fenced off, and what
//! is refused. The replay behind it is tested end to end elsewhere.

use std::sync::Arc;
use std::time::Duration;

use dm_agent::model::{Flavor, Location, Secret, SourceTable, TableName};
use dm_agent::mysql::{Connector, Endpoint};
use dm_agent::pipeline::TaskGuide;
use dm_agent::snapshot::{
    CopyOptions, CopyOutcome, CopyProgress, CopySpec, Existing, Replay, Reread, Rereading, Standing, copy, look,
    read_again,
};
use dm_agent::transform::{BlockAllowRules, RouteRule, Rules, Transform};
use tokio::sync::watch;

use crate::support::db::Db;
use crate::support::fixture::shared_pair;
use crate::support::oracle;
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{Kind, Server, ServerOptions, fresh_schema, shared};
use crate::types;

const LIMIT: Duration = Duration::from_secs(120);

/// A task that copies one schema, and both ends to look at.
struct Bench {
    spec: CopySpec,
    source: Db,
    target: Db,
    schema: String,
    /// What the task was told of L0.
    begun: watch::Receiver<Option<Location>>,
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

fn flavor(kind: Kind) -> Flavor {
    match kind {
        Kind::MySql => Flavor::MySql,
        Kind::MariaDb => Flavor::MariaDb,
    }
}

impl Bench {
    async fn new(label: &str, source: &Server, target: &Server) -> Bench {
        Bench::routed(label, source, target, |_| Vec::new()).await
    }

    async fn routed(
        label: &str,
        source: &Server,
        target: &Server,
        routes: impl FnOnce(&str) -> Vec<RouteRule>,
    ) -> Bench {
        let schema = fresh_schema(label);
        let rules = Rules {
            block_allow: BlockAllowRules { do_dbs: vec![schema.clone()], ..Default::default() },
            routes: routes(&schema),
            filters: Vec::new(),
            expressions: Vec::new(),
            case_sensitive: false,
            meta_schema: "dm_meta".into(),
            flavor: flavor(source.kind),
        };
        let (told, begun) = watch::channel(None);
        let guide = TaskGuide {
            transform: Arc::new(Transform::new(&rules).expect("rules")),
            flavor: flavor(source.kind),
            downstream: flavor(target.kind),
            begun: Arc::new(move |location| {
                told.send_replace(Some(location));
                Box::pin(async { Ok(()) })
            }),
        };
        let spec = CopySpec {
            source: endpoint(source),
            flavor: flavor(source.kind),
            downstream: endpoint(target),
            tables: dm_agent::meta::MetaTables::new("dm_meta", &format!("t_{schema}"), "mysql-01"),
            guide: Arc::new(guide),
            options: CopyOptions { readers: 3, writers: 4, ..CopyOptions::default() },
        };
        let mut bench = Bench { spec, source: source.root().await, target: target.root().await, schema, begun };
        bench.source.run(&format!("CREATE DATABASE {0}", bench.schema)).await;
        bench.source.run(&format!("USE {0}", bench.schema)).await;
        bench
    }

    /// Copies to the end; whatever it ends with.
    async fn run(&self) -> CopyOutcome {
        let (progress, _) = watch::channel(CopyProgress::default());
        let copy = copy(self.spec.clone(), false, Box::pin(std::future::pending()), progress);
        tokio::time::timeout(LIMIT, copy).await.expect("the copy ends")
    }

    async fn copied(&self) -> Replay {
        match self.run().await {
            CopyOutcome::Copied(replay) => replay,
            other => panic!("the copy ended with {other:?}"),
        }
    }

    async fn refusal(&self) -> String {
        match self.run().await {
            CopyOutcome::Failed(failure) => failure.to_string(),
            other => panic!("the copy ended with {other:?}"),
        }
    }

    async fn equal(&mut self) {
        let pair = [(self.schema.as_str(), self.schema.as_str())];
        if let Some(difference) = oracle::compare(&mut self.source, &mut self.target, &pair).await {
            panic!("the target differs:\n{difference}");
        }
    }

    async fn standing(&self) -> Standing {
        let mut conn = Connector::new(self.spec.downstream.clone()).connect().await.expect("connect");
        look(&mut conn, &self.spec.tables, self.spec.flavor).await.expect("look")
    }

    /// Marks of chunks, as they are stored.
    async fn marks(&mut self) -> u64 {
        self.target.number(&format!("SELECT COUNT(*) FROM dm_meta.t_{}_agent_snapshot_chunk", self.schema)).await
    }

    fn meta(&self, suffix: &str) -> String {
        format!("dm_meta.t_{}_{suffix}", self.schema)
    }
}

/// A table with rows 1 to `rows`, filled by doubling.
async fn fill(db: &mut Db, table: &str, rows: u64) {
    db.run_all([
        format!(
            "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY AUTO_INCREMENT, k INT NOT NULL, c VARCHAR(120), KEY (k))"
        ),
        format!("INSERT INTO {table} VALUES (1, 1, REPEAT('x', 100))"),
    ])
    .await;
    let mut there = 1;
    while there < rows {
        let more = there.min(rows - there);
        db.run(&format!(
            "INSERT INTO {table} SELECT id + {there}, k + 1, CONCAT(REPEAT('x', 90), id) FROM {table} WHERE id <= {more}"
        ))
        .await;
        there += more;
    }
}

#[tokio::test]
async fn tables_of_all_shapes_arrive_and_dms_row_appears_at_the_end() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(from, to).await;
        let mut bench = Bench::new("sc", &source, &target).await;
        fill(&mut bench.source, "big", 20_000).await;
        bench
            .source
            .run_all([
                "CREATE TABLE empty_one (id INT PRIMARY KEY)",
                "CREATE TABLE `odd ``näme` (`a b` VARCHAR(20), `c``d` INT, v INT, PRIMARY KEY (`a b`, `c``d`)) CHARACTER SET utf8mb4",
                "INSERT INTO `odd ``näme` VALUES ('é', 1, 1), ('é', 2, NULL), ('z''\\\\', 0, 3), ('汉', -5, 4)",
                "CREATE TABLE keyless (a INT, b VARCHAR(10))",
                "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
                "CREATE TABLE by_unique (a INT NOT NULL, b INT, t TEXT, UNIQUE KEY u (a))",
                "INSERT INTO by_unique VALUES (3, 1, 'p'), (1, NULL, 'q'), (2, 5, NULL)",
                "CREATE TABLE parent (id INT PRIMARY KEY)",
                "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
                "INSERT INTO parent VALUES (1), (2)",
                "INSERT INTO child VALUES (1, 1), (2, 2), (3, 1)",
                "CREATE TABLE parts (id INT NOT NULL, y INT NOT NULL, PRIMARY KEY (id, y)) PARTITION BY HASH (y) PARTITIONS 4",
                "INSERT INTO parts VALUES (1, 1), (2, 1), (3, 2), (3, 3)",
                "CREATE TABLE gen (id INT PRIMARY KEY, a INT, twice INT GENERATED ALWAYS AS (a * 2) STORED, z INT)",
                "INSERT INTO gen (id, a, z) VALUES (1, 10, 1), (2, NULL, 2)",
            ])
            .await;
        assert_eq!(bench.standing().await, Standing::Fresh);
        let replay = bench.copied().await;
        bench.equal().await;
        assert_eq!(bench.begun.borrow_and_update().as_ref(), Some(&replay.from));
        assert_eq!(bench.standing().await, Standing::Copied(Some(replay.clone())));
        let keyless = SourceTable(TableName::new(bench.schema.as_str(), "keyless"));
        assert_eq!(replay.starts.iter().map(|(table, _)| table).collect::<Vec<_>>(), [&keyless]);
        assert!(replay.stale.is_empty() && replay.until.covers(&replay.from));
        let row = format!(
            "SELECT CONCAT(binlog_name, binlog_pos, ' ', exit_safe_binlog_name, exit_safe_binlog_pos) FROM {}",
            bench.meta("syncer_checkpoint")
        );
        let (from, until) = (&replay.from.position, &replay.until.position);
        let wanted = format!("{}{} {}{}", from.file.name(), from.offset, until.file.name(), until.offset);
        assert_eq!(bench.target.text(&row).await, wanted);
        assert_eq!(bench.marks().await, 0);
    }
}

/// Stops when enough is written; gives what was read by then.
async fn stopped_at(bench: &Bench, rows: u64) -> (CopyOutcome, CopyProgress, Duration) {
    let (progress, mut told) = watch::channel(CopyProgress::default());
    let (stop, mut stopped) = watch::channel(None);
    let stopping = Box::pin(async move {
        let _ = stopped.wait_for(Option::is_some).await;
    });
    let watcher = async move {
        let reached = told.wait_for(|progress| progress.rows_written >= rows).await.map(|_| ());
        stop.send_replace(Some(std::time::Instant::now()));
        (reached.is_ok(), stop, told)
    };
    let copy = copy(bench.spec.clone(), false, stopping, progress);
    let (outcome, (_, stop, told)) =
        tokio::time::timeout(LIMIT, async { tokio::join!(copy, watcher) }).await.expect("the copy ends");
    let took = stop.borrow().map(|at: std::time::Instant| at.elapsed()).unwrap_or_default();
    let last = told.borrow().clone();
    (outcome, last, took)
}

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
    let (progress, told) = watch::channel(CopyProgress::default());
    let again = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
    let outcome = tokio::time::timeout(LIMIT, again).await.expect("the copy ends");
    let CopyOutcome::Copied(replay) = outcome else { panic!("{outcome:?}") };
    assert_eq!(replay.from, from, "L0 stays that of the first start");
    bench.equal().await;
    let last = told.borrow().clone();
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
        let (progress, mut told) = watch::channel(CopyProgress::default());
        let copy = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
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
    let (progress, mut told) = watch::channel(CopyProgress::default());
    let first = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
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
        let (progress, mut told) = watch::channel(CopyProgress::default());
        let copying = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
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
            let name = SourceTable(TableName::new(schema.as_str(), table));
            let (progress, _) = watch::channel(CopyProgress::default());
            let pending = Box::pin(std::future::pending());
            let done =
                read_again(&bench.spec, &name, &Rereading::default(), pending, progress).await.expect("it is read");
            let Reread::Done { exact, .. } = done else { panic!("{done:?}") };
            assert_eq!(exact, table == "w");
        }
        bench.equal().await;
        // A column that the source has and the target does not: its DDL is on its way.
        bench.source.run("ALTER TABLE t ADD COLUMN n INT").await;
        let name = SourceTable(TableName::new(schema.as_str(), "t"));
        let fence = Some(format!("UPDATE {schema}.t SET k = k WHERE id = 0 AND 1 = 0"));
        let (progress, _) = watch::channel(CopyProgress::default());
        let done =
            read_again(&bench.spec, &name, &Rereading::default(), Box::pin(std::future::pending()), progress.clone())
                .await;
        assert!(matches!(&done, Ok(Reread::Differs(why)) if why.contains("lacks columns: n")), "{done:?}");
        bench.target.run("ALTER TABLE t ADD COLUMN n INT").await;
        let done = read_again(
            &bench.spec,
            &name,
            &Rereading { fence, ..Rereading::default() },
            Box::pin(std::future::pending()),
            progress,
        )
        .await;
        assert!(matches!(done, Ok(Reread::Fenced)), "{done:?}");
    }
}

#[tokio::test]
async fn shards_go_into_one_table() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let route = |schema: &str| {
        vec![RouteRule {
            schema_pattern: schema.to_owned(),
            table_pattern: "s_*".to_owned(),
            target_schema: format!("{schema}_all"),
            target_table: "s".to_owned(),
        }]
    };
    let mut bench = Bench::routed("sm", &source, &target, route).await;
    for (table, first) in [("s_1", 1), ("s_2", 100_000)] {
        fill(&mut bench.source, table, 3_000).await;
        bench.source.run(&format!("UPDATE {table} SET id = id + {first} ORDER BY id DESC")).await;
    }
    bench.copied().await;
    let merged = format!("{}_all.s", bench.schema);
    assert_eq!(bench.target.number(&format!("SELECT COUNT(*) FROM {merged}")).await, 6_000);
    // One shard read again leaves the other's rows alone.
    bench.target.run(&format!("DELETE FROM {merged} WHERE id IN (2, 3)")).await;
    let name = SourceTable(TableName::new(bench.schema.as_str(), "s_1"));
    let (progress, _) = watch::channel(CopyProgress::default());
    let done = read_again(&bench.spec, &name, &Rereading::default(), Box::pin(std::future::pending()), progress).await;
    assert!(matches!(done, Ok(Reread::Done { exact: false, .. })), "{done:?}");
    assert_eq!(bench.target.number(&format!("SELECT COUNT(*) FROM {merged}")).await, 6_000);
}

/// Writes every value of the types file; how many the source took. The target's tables are made by hand where `twins` is set.
async fn write_types(bench: &mut Bench, target: Kind, twins: bool) -> usize {
    let schema = bench.schema.clone();
    bench.source.run(types::LOOSE_MODE).await;
    bench.source.run("SET SESSION time_zone = '+03:00'").await;
    bench.target.run_all([types::LOOSE_MODE.to_owned(), format!("CREATE DATABASE {schema}")]).await;
    let mut stored = 0;
    for column in types::columns() {
        let twin = types::on_target(column.definition, target);
        if twin == types::NOT_THERE || !types::create(&mut bench.source, &schema, &column, column.definition).await {
            continue;
        }
        if twins {
            assert!(types::create(&mut bench.target, &schema, &column, &twin).await, "the target refuses {twin}");
        }
        for (index, value) in column.values.iter().enumerate() {
            let sql = format!("INSERT INTO {} (id, v) VALUES ({index}, {value})", column.table);
            stored += usize::from(bench.source.try_run(&sql).await.is_ok());
        }
        bench.source.run(&format!("INSERT INTO {} (id, v) VALUES (1000, NULL)", column.table)).await;
    }
    stored
}

#[tokio::test]
async fn every_type_is_copied() {
    for (from, to, twins, at_least) in [
        (Kind::MySql, Kind::MariaDb, true, 190),
        (Kind::MySql, Kind::MySql, false, 190),
        (Kind::MariaDb, Kind::MySql, true, 160),
        (Kind::MariaDb, Kind::MariaDb, false, 160),
    ] {
        let source = shared(from, &ServerOptions::default()).await;
        // Never the source itself: the schema has the same name on both sides.
        let args = vec!["--log-bin-trust-function-creators=1".into(), "--local-infile=ON".into()];
        let target = shared(to, &ServerOptions { args, ..ServerOptions::default() }).await;
        let mut bench = Bench::new("st", &source, &target).await;
        let stored = write_types(&mut bench, to, twins).await;
        println!("{from:?} to {to:?}: {stored} values");
        assert!(stored >= at_least, "only {stored} values of the file were stored by the source");
        bench.source.run("SET SESSION time_zone = '+00:00'").await;
        let before = loads(&mut bench).await;
        bench.copied().await;
        bench.equal().await;
        assert!(loads(&mut bench).await > before + 20, "most types can be loaded");
    }
}

/// `LOAD DATA` statements that the target has run.
async fn loads(bench: &mut Bench) -> u64 {
    let row = bench.target.rows("SHOW GLOBAL STATUS LIKE 'Com_load'").await.remove(0);
    String::from_utf8_lossy(row[1].as_deref().expect("a value")).parse().expect("a number")
}

/// What a load would take in another way than an INSERT is written by INSERTs, and so are the rows behind it.
#[tokio::test]
async fn what_a_load_does_not_take_as_it_is_comes_by_statements() {
    let source = shared(Kind::MariaDb, &ServerOptions::default()).await;
    for (kind, infile) in [(Kind::MySql, "ON"), (Kind::MySql, "OFF"), (Kind::MariaDb, "ON")] {
        let args = vec![format!("--local-infile={infile}")];
        let target = shared(kind, &ServerOptions { args, ..ServerOptions::default() }).await;
        let mut bench = Bench::new("sl", &source, &target).await;
        bench.spec.options.chunk_rows = Some(2);
        let schema = bench.schema.clone();
        // What is too long by blanks only is cut, with a note.
        bench.source.run("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40), b VARBINARY(40), n DECIMAL(20, 5))").await;
        bench.target.run(&format!("CREATE DATABASE {schema}")).await;
        let twin = "(id INT PRIMARY KEY, v VARCHAR(4), b VARBINARY(40), n DECIMAL(20, 5))";
        bench.target.run(&format!("CREATE TABLE {schema}.t {twin}")).await;
        bench
            .source
            .run(
                r"INSERT INTO t VALUES (1, 'a\\\tb', x'00095C0A1A27', -1.5), (2, '\\N', '\\', NULL), (3, NULL, '', 0),
                (4, 'blan                 ', NULL, 7), (5, '', '\n', 8), (6, '\t\n\\\'', '\\n', 9)",
            )
            .await;
        bench.copied().await;
        let rows = "SELECT id, TRIM(v), HEX(b), n FROM t ORDER BY id";
        let wanted = bench.source.texts(rows).await;
        bench.target.run(&format!("USE {schema}")).await;
        assert_eq!(bench.target.texts(rows).await, wanted, "{kind:?} {infile}");
    }
}

/// Every type that can be a key, with nine values of it.
fn keys() -> Vec<(&'static str, Vec<String>)> {
    let many = |value: fn(usize) -> String| (0..9).map(value).collect::<Vec<_>>();
    vec![
        ("BIGINT UNSIGNED", many(|n| format!("{}", u64::MAX - n as u64))),
        ("DECIMAL(30,10)", many(|n| format!("-1.{n}000000001"))),
        ("DOUBLE", many(|n| format!("{n} / 7 - 0.5"))),
        ("FLOAT", many(|n| format!("{n} / 7 - 0.5"))),
        ("BIT(40)", many(|n| format!("{n} * 4294967"))),
        ("DATE", many(|n| format!("'2024-02-2{n}'"))),
        ("DATETIME(6)", many(|n| format!("'2024-02-29 23:59:59.00000{n}'"))),
        ("TIMESTAMP(3)", many(|n| format!("'2024-03-31 02:30:00.00{n}'"))),
        ("TIME(2)", many(|n| format!("'-12:00:00.0{n}'"))),
        ("YEAR", many(|n| format!("{}", 1990 + n))),
        (
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            many(|n| format!(r"'é{}\\'''", char::from(b'a' + n as u8))),
        ),
        ("CHAR(10) CHARACTER SET latin1", many(|n| format!("_latin1 x'6{}e8'", n + 1))),
        ("VARCHAR(10) CHARACTER SET gbk", many(|n| format!("_gbk x'b{n}5c'"))),
        ("VARCHAR(10) CHARACTER SET utf16", many(|n| format!("CONVERT('x{n}' USING utf16)"))),
        ("BINARY(4)", many(|n| format!("x'00ff0{n}'"))),
        ("VARBINARY(9)", many(|n| format!("x'27{n}0'"))),
        ("ENUM('z','y','x','w','v','u','t','s','r')", many(|n| format!("{}", n + 1))),
        ("SET('z','y','x','w')", many(|n| format!("{n}"))),
    ]
}

/// A table is cut by whatever its key is: each row comes once.
#[tokio::test]
async fn every_type_of_key_cuts_a_table() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(from, to).await;
        let mut bench = Bench::new("sy", &source, &target).await;
        bench.spec.options.chunk_rows = Some(2);
        let keys = keys();
        for (at, (definition, values)) in keys.iter().enumerate() {
            bench.source.run(&format!("CREATE TABLE k{at:02} (k {definition} NOT NULL PRIMARY KEY, v INT)")).await;
            for (row, value) in values.iter().enumerate() {
                bench.source.run(&format!("INSERT INTO k{at:02} VALUES ({value}, {row})")).await;
            }
            // Several of each: the second column decides.
            bench
                .source
                .run_all([
                    format!(
                        "CREATE TABLE c{at:02} (k {definition} NOT NULL, n INT NOT NULL, v INT, PRIMARY KEY (k, n))"
                    ),
                    format!("INSERT INTO c{at:02} SELECT k, 5, v FROM k{at:02}"),
                    format!("INSERT INTO c{at:02} SELECT k, -5, v FROM k{at:02} WHERE v MOD 2 = 0"),
                    format!("INSERT INTO c{at:02} SELECT k, 8, v FROM k{at:02}"),
                ])
                .await;
        }
        let (progress, told) = watch::channel(CopyProgress::default());
        let copying = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
        let outcome = tokio::time::timeout(LIMIT, copying).await.expect("the copy ends");
        assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
        bench.equal().await;
        assert_eq!(told.borrow().rows_read, keys.len() as u64 * (9 + 9 + 5 + 9), "no row is read twice");
    }
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
    let (progress, mut told) = watch::channel(CopyProgress::default());
    let copying = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
    let faults = async {
        told.wait_for(|progress| progress.rows_written > 5_000).await.expect("it is at work");
        target.restart().await;
        let before = told.borrow().rows_written;
        told.wait_for(|progress| progress.rows_written > before + 5_000).await.expect("it goes on");
        source.kill9();
    };
    let (outcome, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(copying, faults) }).await.expect("it ends");
    let CopyOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.scope, "upstream", "{failure}");
    source.restart().await;
    bench.source = source.root().await;
    bench.target = target.root().await;
    let (progress, told) = watch::channel(CopyProgress::default());
    let again = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
    let outcome = tokio::time::timeout(LIMIT, again).await.expect("the copy ends");
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    assert_eq!((told.borrow().rows_written, told.borrow().rows_read), (120_000, 120_000));
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
    let (progress, mut told) = watch::channel(CopyProgress::default());
    let copying = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
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

#[tokio::test]
async fn views_are_made_in_whatever_order_they_depend_on_each_other() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("sw", &source, &target).await;
    bench.spec.options.views = true;
    bench
        .source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "INSERT INTO t VALUES (1, 2), (2, 3)",
            "CREATE VIEW z AS SELECT id, v FROM t WHERE v > 2",
            "CREATE VIEW a AS SELECT id + 1 AS n FROM z",
        ])
        .await;
    bench.copied().await;
    let view = format!("SELECT n FROM {}.a", bench.schema);
    assert_eq!(bench.target.texts(&view).await, [["3"]]);
}

/// Many tables: made, copied and stored several at a time.
#[tokio::test]
async fn a_thousand_tables_arrive() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut bench = Bench::new("s1k", &source, &target).await;
    let tables: u32 = std::env::var("TABLES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    for table in 0..tables {
        bench.source.run(&format!("CREATE TABLE t{table} (id INT PRIMARY KEY)")).await;
        if table % 3 != 0 {
            bench.source.run(&format!("INSERT INTO t{table} VALUES ({table}), (-1)")).await;
        }
    }
    let began = std::time::Instant::now();
    bench.copied().await;
    println!("{tables} tables in {:?}", began.elapsed());
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
        assert!(text.contains("neither a key nor an engine with transactions"), "{text}");
        bench.target.run(&format!("ALTER TABLE {schema}.m ENGINE=InnoDB")).await;
        // Each row has a transaction of its own: their number says which location it is.
        let mut writer = source.root().await;
        let (progress, told) = watch::channel(CopyProgress::default());
        let copying = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
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

#[tokio::test]
async fn only_rows_that_are_wanted_come() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::new("so", &source, &target).await;
    bench.spec.options.condition = Some("id % 3 = 0 OR id = 1".into());
    bench.spec.options.chunk_rows = Some(100);
    fill(&mut bench.source, "t", 3_000).await;
    bench.copied().await;
    let rows = format!("SELECT CONCAT(COUNT(*), ' ', SUM(id % 3 = 0)) FROM {}.t", bench.schema);
    assert_eq!(bench.target.text(&rows).await, "1001 1000");
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
    let (progress, told) = watch::channel(CopyProgress::default());
    let again = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
    let outcome = tokio::time::timeout(LIMIT, again).await.expect("the copy ends");
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    assert_eq!((told.borrow().rows_written, told.borrow().rows_read), (120_000, 120_000), "what is marked is kept");
    bench.equal().await;
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
        let (progress, mut told) = watch::channel(CopyProgress::default());
        let copying = copy(bench.spec.clone(), false, Box::pin(std::future::pending()), progress);
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

/// Names, columns, keys and options of every odd kind.
#[tokio::test]
async fn odd_tables_arrive() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql), (Kind::MySql, Kind::MySql)] {
        let source = shared(from, &ServerOptions::default()).await;
        let args = vec!["--log-bin-trust-function-creators=1".into()];
        let target = shared(to, &ServerOptions { args, ..ServerOptions::default() }).await;
        let mut bench = Bench::new("sodd", &source, &target).await;
        bench.spec.options.views = true;
        bench.spec.options.chunk_rows = Some(2);
        bench
            .source
            .run_all([
                "CREATE TABLE `select` (`from` INT PRIMARY KEY, `a.b` VARCHAR(9), `x y` INT, `ü``\"'` INT)",
                "INSERT INTO `select` VALUES (1, 'p', 2, 3), (2, 'q', NULL, 4), (3, 'r', 1, 5)",
                "CREATE TABLE `汉字 t` (`键` VARCHAR(20) CHARACTER SET gbk PRIMARY KEY, v INT)",
                "INSERT INTO `汉字 t` VALUES ('汉', 1), ('字', 2), ('啊', 3)",
                "CREATE TABLE hidden (id INT PRIMARY KEY, a INT, secret VARCHAR(20) INVISIBLE DEFAULT 'h')",
                "INSERT INTO hidden (id, a, secret) VALUES (1, 2, 'x'), (2, 3, DEFAULT), (3, 4, 'y')",
                "CREATE TABLE ranges (d DATE NOT NULL, n INT NOT NULL, PRIMARY KEY (d, n)) PARTITION BY RANGE COLUMNS (d) \
                 (PARTITION p0 VALUES LESS THAN ('2020-01-01'), PARTITION p1 VALUES LESS THAN (MAXVALUE))",
                "INSERT INTO ranges VALUES ('2019-05-05', 1), ('2024-02-29', 2), ('2024-02-29', 3)",
                "CREATE TABLE subs (id INT NOT NULL, y INT NOT NULL, PRIMARY KEY (id, y)) PARTITION BY RANGE (y) \
                 SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN \
                 MAXVALUE)",
                "INSERT INTO subs VALUES (1, 1), (2, 99), (3, 5)",
                "CREATE TABLE nodes (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES nodes (id))",
                "INSERT INTO nodes VALUES (1, NULL), (2, 1), (3, 2)",
                "CREATE TABLE zeros (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT=500",
                "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
                "INSERT INTO zeros VALUES (0, 1), (-5, 2), (7, 3)",
                "CREATE TABLE computed (a INT NOT NULL, b INT AS (a * 2) STORED, UNIQUE KEY (a), CHECK (a < 100))",
                "INSERT INTO computed (a) VALUES (1), (2), (3)",
                "CREATE VIEW `a view` AS SELECT `from` + 1 AS n FROM `select`",
            ])
            .await;
        if from == Kind::MySql {
            bench
                .source
                .run_all([
                    "SET SESSION sql_generate_invisible_primary_key = 1",
                    "CREATE TABLE made_up (a INT)",
                    "SET SESSION sql_generate_invisible_primary_key = 0",
                    "INSERT INTO made_up VALUES (1), (1), (NULL)",
                ])
                .await;
        }
        bench.copied().await;
        bench.equal().await;
        let view = format!("SELECT SUM(n) FROM {}.`a view`", bench.schema);
        assert_eq!(bench.target.text(&view).await, "9");
    }
}
