//! Tables, views and databases of every shape arrive.

use dm_agent::model::{SourceTable, TableName};
use dm_agent::snapshot::{CopyOutcome, Reread, Rereading, Standing};
use dm_agent::transform::RouteRule;

use crate::copy_bench::{Bench, fill};
use crate::support::fixture::shared_pair;
use crate::support::servers::{Kind, ServerOptions, shared};

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

/// All tables `s_*` go into one.
fn into_one(schema: &str) -> Vec<RouteRule> {
    vec![RouteRule {
        schema_pattern: schema.to_owned(),
        table_pattern: "s_*".to_owned(),
        target_schema: format!("{schema}_all"),
        target_table: "s".to_owned(),
    }]
}

#[tokio::test]
async fn shards_go_into_one_table() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::routed("sm", &source, &target, into_one).await;
    for (table, first) in [("s_1", 1), ("s_2", 100_000)] {
        fill(&mut bench.source, table, 3_000).await;
        bench.source.run(&format!("UPDATE {table} SET id = id + {first} ORDER BY id DESC")).await;
    }
    bench.copied().await;
    let merged = format!("{}_all.s", bench.schema);
    assert_eq!(bench.target.number(&format!("SELECT COUNT(*) FROM {merged}")).await, 6_000);
    // One shard read again leaves the other's rows alone.
    bench.target.run(&format!("DELETE FROM {merged} WHERE id IN (2, 3)")).await;
    let done = bench.again("s_1", Rereading::default()).await;
    assert!(matches!(done, Ok(Reread::Done { exact: false, .. })), "{done:?}");
    assert_eq!(bench.target.number(&format!("SELECT COUNT(*) FROM {merged}")).await, 6_000);
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

/// Of rows with one key that are in two tables only one stays: that is told. Tables of which rows differ by other keys are not put
/// into one that was made like the first of them.
#[tokio::test]
async fn shards_whose_keys_meet_are_told() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut bench = Bench::routed("smk", &source, &target, into_one).await;
    for (table, first) in [("s_1", 1), ("s_2", 11)] {
        bench.source.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, b INT)")).await;
        bench.source.run(&format!("INSERT INTO {table} VALUES ({first}, 1), ({first} + 1, 1), (20, {first})")).await;
    }
    let (outcome, last) = bench.told().await;
    assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
    let told =
        |note: &String| note.starts_with("1 rows of") && note.contains("of rows with one key only the last stays");
    assert_eq!(last.notes.iter().filter(|note| told(note)).count(), 1, "{:?}", last.notes);

    let mut other = Bench::routed("smo", &source, &target, into_one).await;
    other.source.run("CREATE TABLE s_1 (a INT PRIMARY KEY, b INT)").await;
    other.source.run("CREATE TABLE s_2 (a INT, b INT PRIMARY KEY)").await;
    let text = other.refusal().await;
    assert!(text.contains("`PRIMARY` is no unique key of") && text.contains("create it by hand"), "{text}");
}

/// What is made behind L0 in a database that has no table yet needs the database.
#[tokio::test]
async fn databases_without_tables_are_made() {
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let (source, target) = shared_pair(from, to).await;
        let mut bench = Bench::new("semp", &source, &target).await;
        let schema = bench.schema.clone();
        bench.source.run(&format!("ALTER DATABASE {schema} CHARACTER SET latin1 COLLATE latin1_german1_ci")).await;
        bench.copied().await;
        let sql =
            format!("SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = '{schema}'");
        assert_eq!(bench.target.text(&sql).await, "latin1_german1_ci");
    }
}
