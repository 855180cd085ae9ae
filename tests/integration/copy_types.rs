//! Every type of column arrives as it is, and every type of key cuts a table; by loads and by statements.

use dm_agent::snapshot::CopyOutcome;

use crate::copy_bench::Bench;
use crate::support::fixture::shared_pair;
use crate::support::servers::{Kind, Server, ServerOptions, shared};
use crate::types;

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
        let (outcome, last) = bench.told().await;
        assert!(matches!(outcome, CopyOutcome::Copied(_)), "{outcome:?}");
        bench.equal().await;
        assert_eq!(last.rows_read, keys.len() as u64 * (9 + 9 + 5 + 9), "no row is read twice");
    }
}

/// Columns whose answers are numbers that stand for something, or bytes that are no text: loaded, and what an INSERT would have
/// written. A value that strict modes refuse is written by a statement.
#[tokio::test]
async fn what_stands_for_something_else_is_loaded() {
    let members: Vec<String> = (0..64).map(|member| format!("'m{member}'")).collect();
    for (from, to) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let source = shared(from, &ServerOptions::default()).await;
        // Of its own, as its loads are counted.
        let args = vec!["--local-infile=ON".into()];
        let target = Server::start(to, &ServerOptions { args, ..ServerOptions::default() }).await;
        let mut bench = Bench::new("sst", &source, &target).await;
        bench.spec.options.chunk_rows = Some(100);
        let create = |table: &str| {
            format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, e ENUM('10','2','1','') CHARACTER SET latin1, s SET({}), y YEAR, \
                 b BIT(12), w BIT(64), u VARCHAR(20) CHARACTER SET utf16, j JSON)",
                members.join(",")
            )
        };
        bench
            .source
            .run_all([
                create("good"),
                create("odd"),
                r#"INSERT INTO good VALUES (1, '10', 'm0', 0, b'0', 0, '', '{}'),
                (2, '1', 'm0,m63', 1901, b'101010101010', 18446744073709551615, 'h😀', '{"a": "\\n\\t\\\\", "é": 1.5}'),
                (3, '2', '', 2000, 10, x'5c0a095c4e', '\t\n\\', '[null, true]'),
                (4, '', 18446744073709551615, 2155, 9, x'0a', 'N', '"x"'), (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
                (6, 3, 1, 70, 92, 92, '汉', '0')"#
                    .into(),
                "SET SESSION sql_mode = ''".into(),
                "INSERT INTO odd SELECT * FROM good".into(),
                "INSERT INTO odd (id, e) VALUES (7, 'no member'), (8, 0)".into(),
            ])
            .await;
        bench.copied().await;
        bench.equal().await;
        let numbers = format!(
            "SELECT id, e + 0, HEX(CAST(s AS UNSIGNED)), y + 0, b + 0, w + 0, HEX(u) FROM {}.odd ORDER BY id",
            bench.schema
        );
        assert_eq!(bench.target.texts(&numbers).await, bench.source.texts(&numbers).await);
        // A table that was not taken is a load that was begun, too: both were, and one of them was written again.
        assert_eq!(loads(&mut bench).await, 2, "{from:?} to {to:?}");
    }
}
