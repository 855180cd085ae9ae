//! Every column type with its edge values, inserted, updated and deleted, arrives equal; `tests/data/column-types.txt` has them.
//!
//! Tables are made by the test on both sides, so that types only one make knows can be given a place on the other. What the source
//! refuses to store is left out; most of the file must remain, else the test says nothing.

use std::time::Duration;

use dm_agent::apply::{fetch_structure, fetch_structures};
use dm_agent::model::{TableName, TargetTable};

use crate::support::db::{Address, Db};
use crate::support::fixture::{Link, LinkOptions, location};
use crate::support::oracle;
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const TYPES: &str = include_str!("../data/column-types.txt");

/// Both sides take whatever the source took: zero dates, days that do not exist.
pub const LOOSE_MODE: &str = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'";
const TASK_SESSION: &str = "  session:\n    sql_mode: \"ALLOW_INVALID_DATES\"\n    time_zone: \"+00:00\"\n";

/// A line of the file.
pub struct Column {
    pub table: String,
    pub definition: &'static str,
    pub values: Vec<&'static str>,
}

/// All lines of the file.
pub fn columns() -> Vec<Column> {
    let line = |(index, line): (usize, &'static str)| {
        let mut parts = line.split(" | ").map(str::trim);
        let definition = parts.next().expect("a type");
        Column { table: format!("c{index:03}"), definition, values: parts.collect() }
    };
    TYPES.lines().filter(|line| !line.trim().is_empty()).enumerate().map(line).collect()
}

/// A type that the target's make has no counterpart for.
pub const NOT_THERE: &str = "";

/// The type on the target: its own, or one that holds the same where the target's make does not know it.
pub fn on_target(definition: &str, target: Kind) -> String {
    match (target, definition) {
        (Kind::MariaDb, vector) if vector.starts_with("VECTOR") => "VARBINARY(1000)".into(),
        (Kind::MySql, packed) if packed.ends_with(" COMPRESSED") => packed.trim_end_matches(" COMPRESSED").into(),
        // Their bytes do not tell that they are no text, and the target's column cannot either: the target keeps the bytes.
        (Kind::MySql, "UUID" | "INET6" | "INET4") => NOT_THERE.into(),
        // MySQL's strict SRID handling is of no interest here.
        _ => definition.into(),
    }
}

/// Creates the table on the source; false if its make does not know the type.
pub async fn create(db: &mut Db, schema: &str, column: &Column, definition: &str) -> bool {
    // A text key beside the number keeps the column away from the row's end and the key away from its start.
    let sql = format!(
        "CREATE TABLE {schema}.{} (front VARCHAR(10) DEFAULT 'front', id INT NOT NULL PRIMARY KEY, v {definition} NULL, \
         tail INT DEFAULT 7) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        column.table
    );
    db.try_run(&sql).await.is_ok()
}

struct Setting {
    label: &'static str,
    source: Kind,
    target: Kind,
    options: ServerOptions,
    /// Values that must have been stored at least, of about 230 in the file.
    at_least: usize,
}

async fn every_type_arrives(setting: Setting) {
    let source = shared(setting.source, &setting.options).await;
    // Never the source itself: the schema has the same name on both sides.
    let target = if setting.source == setting.target {
        shared(
            setting.target,
            &ServerOptions { args: vec!["--log-bin-trust-function-creators=1".into()], ..setting.options },
        )
        .await
    } else {
        shared(setting.target, &ServerOptions::default()).await
    };
    let options = LinkOptions { target_session: TASK_SESSION.into(), ..LinkOptions::default() };
    let mut link = Link::start(setting.label, &source, &target, &options).await;
    let stored = write_all(&mut link, setting.target).await;
    assert!(stored >= setting.at_least, "only {stored} values of the file were stored by the source");
    let end = location(&mut link.source, link.kind).await;
    println!("{}: {stored} values, source at {end:?}", setting.label);
    let pair = [(link.schema.as_str(), link.schema.as_str())];
    oracle::eventually_equal(&mut link.source, &mut link.target, &pair, Duration::from_secs(60)).await;
    link.agent.assert_quiet_log();
}

/// Writes every value three ways (inserted, updated from and to NULL, deleted again) and tells how many the source took.
async fn write_all(link: &mut Link, target: Kind) -> usize {
    let schema = link.schema.clone();
    // The schema itself comes by replication.
    crate::support::eventually("the schema is there", Duration::from_secs(30), async || {
        link.target.try_run(&format!("USE {schema}")).await
    })
    .await;
    for db in [&mut link.source, &mut link.target] {
        db.run(LOOSE_MODE).await;
    }
    // The file's TIMESTAMP values are meant three hours east of Greenwich: elsewhere some are out of range, which MariaDB stores as
    // something that MySQL has no value for.
    link.source.run("SET SESSION time_zone = '+03:00'").await;
    // The target's tables are made by hand, with types of its own: the source's CREATE must not follow.
    let mut stored = 0;
    for column in columns() {
        let twin = on_target(column.definition, target);
        if twin == NOT_THERE {
            continue;
        }
        link.source.run("SET SESSION sql_log_bin = 0").await;
        let known = create(&mut link.source, &schema, &column, column.definition).await;
        link.source.run("SET SESSION sql_log_bin = 1").await;
        if !known {
            continue;
        }
        assert!(create(&mut link.target, &schema, &column, &twin).await, "the target refuses {twin}");
        stored += write_values(&mut link.source, &column).await;
    }
    link.source.run("SET SESSION time_zone = DEFAULT").await;
    stored
}

async fn write_values(db: &mut Db, column: &Column) -> usize {
    let table = &column.table;
    let mut stored = 0;
    for (index, value) in column.values.iter().enumerate() {
        let id = index * 10;
        if db.try_run(&format!("INSERT INTO {table} (id, v) VALUES ({id}, {value})")).await.is_err() {
            continue;
        }
        stored += 1;
        db.run_all([
            format!("INSERT INTO {table} (id, v) VALUES ({id} + 1, NULL), ({id} + 2, NULL)"),
            format!("UPDATE {table} SET v = {value} WHERE id = {id} + 1"),
            format!("INSERT INTO {table} (id, v, front) VALUES ({id} + 3, {value}, NULL), ({id} + 4, {value}, 'gone')"),
            format!("UPDATE {table} SET v = NULL WHERE id = {id} + 3"),
            format!("UPDATE {table} SET tail = NULL WHERE id = {id}"),
            format!("DELETE FROM {table} WHERE id = {id} + 4"),
        ])
        .await;
    }
    stored
}

#[tokio::test]
async fn mysql_to_mariadb() {
    let options = ServerOptions::default();
    every_type_arrives(Setting { label: "ty_mm", source: Kind::MySql, target: Kind::MariaDb, options, at_least: 190 })
        .await;
}

#[tokio::test]
async fn mysql_to_mariadb_with_full_metadata() {
    let options = ServerOptions { row_metadata: "FULL", compression: true, ..ServerOptions::default() };
    every_type_arrives(Setting { label: "ty_mf", source: Kind::MySql, target: Kind::MariaDb, options, at_least: 190 })
        .await;
}

#[tokio::test]
async fn mysql_to_mysql() {
    let options = ServerOptions::default();
    every_type_arrives(Setting { label: "ty_yy", source: Kind::MySql, target: Kind::MySql, options, at_least: 190 })
        .await;
}

#[tokio::test]
async fn mysql_to_mysql_with_full_metadata() {
    let options = ServerOptions { row_metadata: "FULL", compression: true, ..ServerOptions::default() };
    every_type_arrives(Setting { label: "ty_yf", source: Kind::MySql, target: Kind::MySql, options, at_least: 190 })
        .await;
}

#[tokio::test]
async fn mariadb_to_mysql() {
    let options = ServerOptions::default();
    every_type_arrives(Setting { label: "ty_ay", source: Kind::MariaDb, target: Kind::MySql, options, at_least: 160 })
        .await;
}

/// As 5.7 writes its binlog: nothing in it says what is unsigned, or in which character set a text is. The target's columns do.
#[tokio::test]
async fn mariadb_to_mysql_without_metadata() {
    let options = ServerOptions { row_metadata: "NO_LOG", ..ServerOptions::default() };
    every_type_arrives(Setting { label: "ty_an", source: Kind::MariaDb, target: Kind::MySql, options, at_least: 160 })
        .await;
}

/// Minimal and noblob images: an update carries the changed columns only, a delete the key only.
#[tokio::test]
async fn with_small_row_images() {
    for (label, image) in [("ty_min", "MINIMAL"), ("ty_nob", "NOBLOB")] {
        let options = ServerOptions { row_image: image, ..ServerOptions::default() };
        every_type_arrives(Setting { label, source: Kind::MySql, target: Kind::MariaDb, options, at_least: 190 }).await;
    }
}

/// Generated columns are computed by the target itself; invisible ones are written although `SELECT *` hides them.
#[tokio::test]
async fn generated_and_invisible_columns() {
    for (kind, metadata) in
        [(Kind::MySql, "MINIMAL"), (Kind::MySql, "FULL"), (Kind::MariaDb, "MINIMAL"), (Kind::MariaDb, "FULL")]
    {
        let options = ServerOptions { row_metadata: metadata, ..ServerOptions::default() };
        let source = shared(kind, &options).await;
        let other = if kind == Kind::MySql { Kind::MariaDb } else { Kind::MySql };
        let target = shared(other, &ServerOptions::default()).await;
        generated_and_invisible(&source, &target).await;
    }
}

async fn generated_and_invisible(source: &Server, target: &Server) {
    let mut link = Link::start("gen", source, target, &LinkOptions::default()).await;
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, twice INT GENERATED ALWAYS AS (a * 2) STORED, \
             hidden VARCHAR(20) INVISIBLE DEFAULT 'h', thrice INT GENERATED ALWAYS AS (a * 3) VIRTUAL, z INT)",
            "INSERT INTO t (id, a, z) VALUES (1, 10, 1), (2, NULL, 2)",
            "INSERT INTO t (id, a, hidden, z) VALUES (3, 30, 'seen', 3)",
            "UPDATE t SET a = a + 1, hidden = 'changed' WHERE id <> 2",
            "DELETE FROM t WHERE id = 3",
            // No key: the row is found by its values, the generated ones left out.
            "CREATE TABLE u (a INT, twice INT GENERATED ALWAYS AS (a * 2) VIRTUAL, b VARCHAR(10))",
            "INSERT INTO u (a, b) VALUES (1, 'x'), (1, 'x'), (2, NULL)",
            "UPDATE u SET b = 'y' WHERE a = 1 LIMIT 1",
            "DELETE FROM u WHERE a = 2",
        ])
        .await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Names and texts of tables that are not UTF-8, with DDL on the way.
#[tokio::test]
async fn tables_in_gbk_latin1_and_sjis() {
    for (source, target) in [(Kind::MySql, Kind::MariaDb), (Kind::MariaDb, Kind::MySql)] {
        let options = ServerOptions::default();
        let (source, target) = (shared(source, &options).await, shared(target, &options).await);
        let mut link = Link::start("cs", &source, &target, &LinkOptions::default()).await;
        for charset in ["gbk", "latin1", "sjis"] {
            let (text, other) = match charset {
                "latin1" => ("é¤ß\\\\'' ", "ÿ"),
                "gbk" => ("汉字测试\\\\''", "乗"),
                _ => ("日本語ソ表\\\\''", "能"),
            };
            link.source
                .run_all([
                    format!("CREATE TABLE `t_{charset}_é` (id VARCHAR(20) PRIMARY KEY, `sp alte` TEXT, n INT) CHARACTER SET {charset}"),
                    format!("INSERT INTO `t_{charset}_é` VALUES ('{text}', '{other}', 1), ('k', '{text}', 2)"),
                    format!("ALTER TABLE `t_{charset}_é` ADD COLUMN `ne``w` VARCHAR(20) DEFAULT '{other}' COMMENT '{text}'"),
                    format!("UPDATE `t_{charset}_é` SET `ne``w` = CONCAT(`sp alte`, '{other}') WHERE id = '{text}'"),
                    format!("DELETE FROM `t_{charset}_é` WHERE id = 'k'"),
                ])
                .await;
        }
        link.wait_equal().await;
        link.agent.assert_quiet_log();
    }
}

/// What is read of all tables of a schema at once is what is read of each of them.
async fn structures_read_together(kind: Kind) {
    let server = shared(kind, &ServerOptions::default()).await;
    let mut db = server.root().await;
    db.run_all([
        "CREATE DATABASE together",
        "USE together",
        "CREATE TABLE keyless (a INT, b VARCHAR(10) CHARACTER SET latin1)",
        "CREATE TABLE keyed (a INT UNSIGNED, b DECIMAL(5,2), c TEXT, PRIMARY KEY (b, a), UNIQUE KEY u (c(3)), KEY k (a))",
        "CREATE TABLE made (a INT PRIMARY KEY, b INT AS (a + 1) STORED, UNIQUE (b))",
        "CREATE TABLE loose (a BIGINT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE VIEW seen AS SELECT a FROM keyed",
    ])
    .await;
    let mut conn = mysql_async::Conn::new(Address::root(server.port).opts()).await.expect("connect");
    for schema in ["together", "mysql"] {
        let all = fetch_structures(&mut conn, schema, 10_000).await.expect("read them all");
        let names = "SELECT table_name FROM information_schema.tables WHERE table_schema";
        let names = db.texts(&format!("{names} = '{schema}'")).await;
        assert_eq!(all.len(), names.len());
        for name in names {
            let target = TargetTable(TableName::new(schema, name[0].as_str()));
            let single = fetch_structure(&mut conn, &target).await.expect("read one");
            assert_eq!(all[&name[0]], single, "{target}");
        }
    }
    assert!(fetch_structures(&mut conn, "together", 4).await.expect("count them").is_empty());
    db.run("DROP DATABASE together").await;
}

#[tokio::test]
async fn structures_of_mysql_read_together() {
    structures_read_together(Kind::MySql).await;
}

#[tokio::test]
async fn structures_of_mariadb_read_together() {
    structures_read_together(Kind::MariaDb).await;
}
