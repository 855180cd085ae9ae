//! Expression filters against a model: random expressions over rows of edge values. What arrives is what the target server itself
//! says of the expression in a table of those rows.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::db::Db;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::servers::Kind;

/// One for each expression.
const TABLES: usize = 60;
const ROWS: usize = 24;
/// Of the smallest table.
const MANY: u64 = 3000;
/// Servers have faults of their own: of 20,000 random expressions one or two give something else in another table, too (of a
/// number compared with a date, of STRCMP with a number). `SEED` looks for others.
const USUAL_SEED: u64 = 1;
/// As filters are judged.
const MODE: &str = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'";

type Column = (&'static str, &'static str, &'static [&'static str]);

const NUMBERS: &[Column] = &[
    ("i", "INT", &["0", "1", "-1", "2", "7", "100", "2147483647", "-2147483648"]),
    ("ti", "TINYINT UNSIGNED", &["0", "1", "2", "255"]),
    ("mi", "MEDIUMINT UNSIGNED", &["0", "1", "16777215"]),
    ("bu", "BIGINT UNSIGNED", &["0", "1", "9223372036854775808", "18446744073709551615"]),
    ("bi", "BIGINT", &["0", "5", "-9223372036854775808", "9223372036854775807"]),
    ("f", "FLOAT", &["0", "0.1", "1.5", "-2.25", "1e10", "0.333333"]),
    ("d", "DOUBLE", &["0", "0.1", "-1.5", "1e300", "0.3"]),
    ("de", "DECIMAL(10,3)", &["0", "0.1", "1.5", "-9999999.999", "1.001"]),
];
const DATES: &[Column] = &[
    ("dt", "DATE", &["'2020-01-01'", "'1999-12-31'", "'2024-02-29'", "'2023-02-31'"]),
    ("dm", "DATETIME(3)", &["'2020-01-01'", "'2020-01-01 00:00:00.001'", "'1999-12-31 23:59:59.999'"]),
    ("dn", "DATETIME", &["'2020-01-01 00:00:00'", "'2019-05-05 10:11:12'"]),
];
const TIMES: &[Column] = &[
    ("t", "TIME", &["'00:00:00'", "'838:59:59'", "'10:11:12'"]),
    ("tf", "TIME(2)", &["'00:00:00.01'", "'10:11:12.50'"]),
];
/// Of one collation each.
const TEXTS: &[Column] = &[
    (
        "c",
        "CHAR(5) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        &["''", "'a'", "'A'", "'é'", "'1'", "'%'", "'a  b'"],
    ),
    ("v", "VARCHAR(20) CHARACTER SET latin1", &["''", "'a'", "'A '", "'ü'", "'Ü'", "'10'", "'2020-01-01'", "'a_b'"]),
    (
        "b",
        "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        &["''", "'a'", "'A'", "'a '", "'日本'", "'1e1'", "'😀'", "'it''s'", "'\\\\'", "'12:00:00'"],
    ),
    ("g", "VARCHAR(20) CHARACTER SET gbk", &["''", "'a'", "'礬'", "'你好'"]),
    (
        "x",
        "TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci",
        &["''", "'a'", "'a '", "'É'", "'ß'", "'ss'", "'2020-01-01 00:00:00'"],
    ),
    ("vn", "VARBINARY(10)", &["''", "'a'", "'A'", "'a\\0'", "'1'", "x'FF00E9'"]),
    ("bn", "BINARY(4)", &["'a'", "'abcd'", "''", "x'FFFE0000'"]),
    ("bl", "BLOB", &["''", "'xyz'", "'A'", "x'80'"]),
];

fn all_columns() -> impl Iterator<Item = &'static Column> {
    [NUMBERS, DATES, TIMES, TEXTS].into_iter().flatten()
}

/// Writes expressions over some of the columns.
struct Writer {
    rng: StdRng,
    names: Vec<&'static str>,
    dates: bool,
}

impl Writer {
    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(&mut self.rng).expect("something to choose from")
    }

    /// One of some words.
    fn word(&mut self, from: &'static str) -> &'static str {
        self.pick(&from.split_whitespace().collect::<Vec<_>>())
    }

    /// Of one comparison, or of two that have nothing in common.
    fn expression(&mut self) -> String {
        let one = self.comparison();
        if self.rng.random_bool(0.7) {
            return one;
        }
        let (joined, other) = (self.word("AND OR XOR && ||"), self.comparison());
        format!("({one}) {joined} ({other})")
    }

    /// Over columns that may be compared with each other.
    fn comparison(&mut self) -> String {
        self.dates = self.rng.random_bool(0.6);
        let times = if self.dates { DATES } else { TIMES };
        self.names = NUMBERS.iter().chain(times).map(|column| column.0).collect();
        if let Some((text, ..)) = TEXTS.choose(&mut self.rng) {
            self.names.extend([*text; 6]);
        }
        let depth = self.rng.random_range(1..4);
        // A filter without a column is none.
        loop {
            let text = self.part(depth);
            if self.names.iter().any(|name| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *name))
            {
                return text;
            }
        }
    }

    fn leaf(&mut self) -> String {
        const LITERALS: &str = "0 1 2 7 0.1 1.5 -1 100 1e1 .5 1.001 18446744073709551615 NULL TRUE FALSE 'a' 'A' '' 'é' \
                                'É' 'ü' '日本' '1' '10' '%a%' 'a_' 'ss' '10:11:12' '😀' '0.1' 'it''s'";
        const DATED: &[&str] = &["DATE '2020-01-01'", "TIMESTAMP '2020-01-01 00:00:00'", "'2020-01-01'", "'2020-1-1'"];
        let names = self.names.clone();
        match self.rng.random_range(0..20) {
            0..13 => self.pick(&names),
            13 if self.dates => self.pick(DATED),
            _ => self.word(LITERALS),
        }
        .to_owned()
    }

    /// GREATEST and LEAST are left out: of a text and a date a MySQL makes a number of its own in a table.
    fn part(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.leaf();
        }
        let (a, b, c) = (self.part(depth - 1), self.part(depth - 1), self.part(depth - 1));
        match self.rng.random_range(0..20) {
            0..6 => format!("({a} {} {b})", self.word("= <> < > <= >= <=> !=")),
            6..8 => format!("({a} {} {b})", self.word("+ - * / % DIV MOD")),
            8..10 => format!("({a} {} {b})", self.word("AND OR XOR && ||")),
            10 => format!("{}({a})", self.pick(&["NOT ", "-", "!"])),
            11 => format!("({a} {})", self.pick(&["IS NULL", "IS NOT NULL", "IS TRUE"])),
            12 => format!("({a} LIKE {b})"),
            13 => format!("({a} BETWEEN {b} AND {c})"),
            14 => format!("({a} {}IN ({b}, {c}))", self.pick(&["", "NOT "])),
            15 => format!("CASE WHEN {a} THEN {b} ELSE {c} END"),
            16 | 17 => {
                const ONE: &str = "ABS CEIL FLOOR ROUND SIGN ISNULL LENGTH CHAR_LENGTH LOWER UPPER TRIM RTRIM REVERSE HEX \
                                   CRC32 HOUR MINUTE SECOND";
                const DATED: &str = "YEAR MONTH DAY DAYOFWEEK WEEKDAY DATE TO_DAYS";
                let name = if self.dates && self.rng.random_bool(0.4) { self.word(DATED) } else { self.word(ONE) };
                format!("{name}({a})")
            }
            18 => format!("{}({a}, {b})", self.word("IFNULL NULLIF COALESCE CONCAT LEFT INSTR")),
            _ => format!("{}({a}, {b}, {c})", self.word("IF SUBSTRING REPLACE FIELD CONCAT_WS")),
        }
    }
}

/// The values of all rows, as one INSERT has them behind VALUES.
fn rows(rng: &mut StdRng) -> String {
    let row = |id: usize, rng: &mut StdRng| {
        let value = |(_, _, values): &Column| {
            let value = if rng.random_bool(0.12) { None } else { values.choose(rng) };
            format!(",{}", value.unwrap_or(&"NULL"))
        };
        format!("({id}{})", all_columns().map(value).collect::<String>())
    };
    (0..ROWS).map(|id| row(id, rng)).collect::<Vec<_>>().join(",")
}

/// Which rows the server leaves when those are gone for which the expression is true; `None` where it does not take that.
async fn left(db: &mut Db, table: &str, expression: &str) -> Option<Vec<String>> {
    let sql = format!("SELECT id FROM {table} WHERE NOT (({expression}) IS TRUE) ORDER BY id");
    Some(texts(db.try_rows(&sql).await.ok()?))
}

fn texts(rows: Vec<Vec<Option<Vec<u8>>>>) -> Vec<String> {
    let text = |row: Vec<Option<Vec<u8>>>| String::from_utf8_lossy(row[0].as_deref().unwrap_or_default()).into_owned();
    rows.into_iter().map(text).collect()
}

async fn judges_as_the_target_does(label: &str, kinds: (Kind, Kind)) {
    let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or(USUAL_SEED);
    println!("SEED={seed}");
    let mut writer = Writer { rng: StdRng::seed_from_u64(seed), names: Vec::new(), dates: false };
    let (source, target) = shared_pair(kinds.0, kinds.1).await;
    let mut link = Link::with_mode("incremental", label, &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.task_file.start = Some(location(&mut link.source, link.kind).await);
    let columns: Vec<String> = all_columns().map(|(name, definition, _)| format!("{name} {definition}")).collect();
    let definition = format!("(id INT PRIMARY KEY, {})", columns.join(", "));
    let values = rows(&mut writer.rng);
    let model = format!("{schema}_model");
    for db in [&mut link.source, &mut link.target] {
        db.run(MODE).await;
    }
    link.target.run_all([format!("CREATE DATABASE {schema}"), format!("CREATE DATABASE {model}")]).await;
    link.target.run(&format!("CREATE TABLE {model}.t {definition}")).await;
    link.target.run(&format!("INSERT INTO {model}.t VALUES {values}")).await;

    let mut cases = Vec::new();
    while cases.len() < TABLES {
        let expression = writer.expression();
        if let Some(expected) = left(&mut link.target, &format!("{model}.t"), &expression).await {
            cases.push((format!("e{:02}", cases.len()), expression, expected));
        }
    }
    let mut names = Vec::new();
    link.task_file.extra = "expression-filter:\n".to_owned();
    for (table, expression, _) in &cases {
        let quoted = expression.replace('\'', "''");
        link.task_file.extra +=
            &format!("  {table}: {{schema: {schema}, table: {table}, insert-value-expr: '{quoted}'}}\n");
        names.push(table.as_str());
    }
    link.task_file.extra += &format!("  many: {{schema: {schema}, table: many, insert-value-expr: id % 7 = 0}}\n");
    link.task_file.instance_extra = format!("  expression-filters: [{}, many]\n", names.join(", "));
    link.start_task().await.expect_success();
    for (table, ..) in &cases {
        link.source.run(&format!("CREATE TABLE {table} {definition}")).await;
    }
    for (table, ..) in &cases {
        link.source.run(&format!("INSERT INTO {table} VALUES {values}")).await;
    }
    // More rows an event than one question is about.
    let many: Vec<String> = (1..=MANY).map(|id| format!("({id})")).collect();
    link.source.run("CREATE TABLE many (id SMALLINT PRIMARY KEY)").await;
    link.source.run(&format!("INSERT INTO many VALUES {}", many.join(","))).await;
    link.source.run_all(["CREATE TABLE last (id INT PRIMARY KEY)", "INSERT INTO last VALUES (1)"]).await;
    eventually("the last row is there", Duration::from_secs(60), async || {
        let found = link.target.try_rows(&format!("SELECT id FROM {schema}.last")).await?;
        if found.is_empty() { Err(link.status().await.to_string()) } else { Ok(()) }
    })
    .await;
    let passed = link.target.number(&format!("SELECT COUNT(*) FROM {schema}.many WHERE id % 7 <> 0")).await;
    assert_eq!(passed, MANY - MANY / 7);
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {schema}.many")).await, passed);
    let mut selective = 0;
    for (table, expression, expected) in &cases {
        let found = texts(link.target.rows(&format!("SELECT id FROM {schema}.{table} ORDER BY id")).await);
        assert_eq!(&found, expected, "{expression}");
        selective += usize::from(!expected.is_empty() && expected.len() < ROWS);
    }
    assert!(selective > TABLES / 4, "only {selective} of the expressions told rows apart");
}

#[tokio::test]
async fn mariadb_judges_rows_as_in_its_tables() {
    judges_as_the_target_does("judgea", (Kind::MySql, Kind::MariaDb)).await;
}

#[tokio::test]
async fn mysql_judges_rows_as_in_its_tables() {
    judges_as_the_target_does("judgeb", (Kind::MariaDb, Kind::MySql)).await;
}
