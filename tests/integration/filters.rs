//! Filters: what they leave out stays out, what follows finds what it should, and what is forbidden stops the task.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;

const LIMIT: Duration = Duration::from_secs(30);

async fn rows(link: &mut Link, sql: &str, expected: &[&[&str]]) {
    eventually("the rows are there", LIMIT, async || {
        // The table may not have come yet.
        let found = link.target.try_rows(sql).await?;
        let text = |cell: Option<Vec<u8>>| cell.map_or("NULL".to_owned(), |cell| String::from_utf8_lossy(&cell).into());
        let rows: Vec<Vec<String>> = found.into_iter().map(|row| row.into_iter().map(text).collect()).collect();
        if rows == expected { Ok(()) } else { Err(format!("{rows:?}: {}", link.status().await)) }
    })
    .await;
}

async fn left_out(link: &Link, expected: u64) {
    eventually("the rows that are left out are counted", LIMIT, async || {
        let page = link.agent.get("/metrics").await.body;
        let line = page.lines().find(|line| line.starts_with("dm_agent_task_filtered_rows_total")).unwrap_or_default();
        match line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok()) {
            Some(count) if count == expected => Ok(()),
            _ => Err(format!("{line:?}, not {expected}")),
        }
    })
    .await;
}

/// Rules of the source and of the task, over a kill.
#[tokio::test]
async fn events_are_left_out_by_kind_table_and_text() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let options = LinkOptions {
        task_extra: "filters:\n  archive: {schema-pattern: \"events_*\", table-pattern: archive, events: [delete], action: Ignore}\n  \
                     shy: {schema-pattern: \"events_*\", table-pattern: sh?, events: [Insert], action: Ignore}\n  \
                     whole: {schema-pattern: \"EVENTS_*\", events: [drop column, drop table], sql-pattern: [\"index\\\\s+secret\"], action: Ignore}\n  \
                     sealed: {schema-pattern: \"events_*\", table-pattern: sealed, events: [truncate table], action: Error}\n"
            .into(),
        instance_extra: "  filter-rules: [archive, shy, whole, sealed]\n".into(),
        ..LinkOptions::default()
    };
    let mut link = Link::start("events", &source, &target, &options).await;
    let schema = link.schema.clone();
    for table in ["archive", "shy", "sealed", "t"] {
        link.source.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT)")).await;
    }
    link.source
        .run_all([
            "INSERT INTO archive VALUES (1, 1), (2, 2), (3, 3)",
            "DELETE FROM archive WHERE id < 3",
            "UPDATE archive SET v = 33 WHERE id = 3",
            "INSERT INTO shy VALUES (1, 1), (2, 2), (3, 3)",
            "INSERT INTO t VALUES (1, 1)",
        ])
        .await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.t"), &[&["1", "1"]]).await;
    rows(
        &mut link,
        &format!("SELECT id, v FROM {schema}.archive ORDER BY id"),
        &[&["1", "1"], &["2", "2"], &["3", "33"]],
    )
    .await;
    // One of those rows is there all the same: changes of the others make none, under whatever key.
    link.target.run(&format!("INSERT INTO {schema}.shy VALUES (2, 2)")).await;
    link.source
        .run_all([
            "BEGIN",
            "UPDATE shy SET v = v + 10",
            "UPDATE shy SET id = 9 WHERE id = 1",
            "UPDATE shy SET v = v + 10",
            "DELETE FROM shy WHERE id = 3",
            "COMMIT",
            "UPDATE t SET v = 2",
        ])
        .await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.t"), &[&["1", "2"]]).await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.shy"), &[&["2", "22"]]).await;
    left_out(&link, 2 + 3).await;
    link.agent.kill9();
    link.agent.restart().await;

    // Statements: one that is left out, one by its text, one of which a clause is left out.
    link.source
        .run_all([
            "DROP TABLE shy",
            "CREATE INDEX secret ON t (v)",
            "ALTER TABLE t ADD COLUMN w INT DEFAULT 7, DROP COLUMN v",
            "INSERT INTO archive VALUES (5, 5)",
        ])
        .await;
    rows(&mut link, &format!("SELECT id, v FROM {schema}.archive WHERE id > 3"), &[&["5", "5"]]).await;
    rows(&mut link, &format!("SELECT id, v, w FROM {schema}.t"), &[&["1", "2", "7"]]).await;
    rows(&mut link, &format!("SELECT id FROM {schema}.shy"), &[&["2"]]).await;
    let index = format!(
        "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema='{schema}' AND index_name='secret'"
    );
    assert_eq!(link.target.number(&index).await, 0);

    // Now source and target have other columns: nothing is guessed.
    link.source.run("INSERT INTO t VALUES (2, 8)").await;
    link.wait_for_error(&["Column count doesn't match value count: 3 (columns) vs 2 (values)"]).await;
    link.agent.ctl(&["pause-task", &link.task]).await;
    let words = ["binlog-schema", "update", &link.task, &schema, "t", "--from-source", "-s", &link.source_id];
    link.agent.ctl(&words).await.expect_success();
    link.agent.ctl(&["resume-task", &link.task]).await;
    rows(&mut link, &format!("SELECT id, w FROM {schema}.t ORDER BY id"), &[&["1", "7"], &["2", "8"]]).await;

    // And what is forbidden.
    link.source.run_all(["TRUNCATE TABLE t", "TRUNCATE TABLE sealed", "INSERT INTO sealed VALUES (1, 1)"]).await;
    link.wait_for_error(&["36015", "event truncate table on `", "`.`sealed`"]).await;
    rows(&mut link, &format!("SELECT COUNT(*) FROM {schema}.t"), &[&["0"]]).await;
    link.agent.ctl(&["binlog", "skip", &link.task]).await.expect_success();
    rows(&mut link, &format!("SELECT id FROM {schema}.sealed"), &[&["1"]]).await;
}

/// Rules that are wrong are refused at once, each with a word on it.
#[tokio::test]
async fn wrong_rules_are_refused() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("incremental", "wrong", &source, &target, &LinkOptions::default()).await;
    link.task_file.instance_extra = "  filter-rules: [f, g]\n".into();
    for (filters, words) in [
        (
            "{f: {schema-pattern: a, events: [drop tables], action: Do}, g: {schema-pattern: a*b, action: Do}}",
            &["event type drop tables not valid", "last character"][..],
        ),
        ("{f: {schema-pattern: a, sql-pattern: [\"(\"], action: Do}, g: {schema-pattern: b, action: Do}}", &["20037"]),
        ("{f: {schema-pattern: a}, g: {schema-pattern: b, action: Do}}", &["action"]),
        ("{f: {schema-pattern: a, action: Do}}", &["`filters`"]),
    ] {
        link.task_file.extra = format!("filters: {filters}\n");
        link.start_task().await.expect_refusal(words);
    }
}

/// By the target's own arithmetic and collations, over a kill, with columns that come and go.
#[tokio::test]
async fn rows_are_left_out_by_what_they_hold() {
    for (label, kinds) in [("rowsa", (Kind::MySql, Kind::MariaDb)), ("rowsb", (Kind::MariaDb, Kind::MySql))] {
        let (source, target) = shared_pair(kinds.0, kinds.1).await;
        let mut link = Link::with_mode("incremental", label, &source, &target, &LinkOptions::default()).await;
        let schema = link.schema.clone();
        link.task_file.start = Some(crate::support::fixture::location(&mut link.source, link.kind).await);
        link.target.run(&format!("CREATE DATABASE {schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")).await;
        let filters = [
            ("even", "c", "insert-value-expr", "c % 2 = 0 and price > 1.50"),
            ("muller", "n", "insert-value-expr", "name != 'm\u{dc}ller' or bin = 'x'"),
            ("old", "d", "insert-value-expr", "`day` < '2020-01-01' or at >= '2030-05-05 10:00:00.5'"),
            ("above", "u", "update-old-value-expr", "v > 100"),
            ("step", "u", "update-new-value-expr", "v = 50"),
            ("kept", "u", "delete-value-expr", "id < 3"),
        ];
        link.task_file.extra = "expression-filter:\n".to_owned();
        for (name, table, key, expression) in filters {
            link.task_file.extra +=
                &format!("  {name}: {{schema: {schema}, table: {table}, {key}: \"{expression}\"}}\n");
        }
        link.task_file.extra += &format!(
            "  both: {{schema: {schema}, table: u, update-old-value-expr: v = 1, update-new-value-expr: v = 2}}\n"
        );
        link.task_file.instance_extra = "  expression-filters: [even, muller, old, above, step, kept, both]\n".into();
        link.start_task().await.expect_success();
        link.source
            .run_all([
                "CREATE TABLE c (id INT PRIMARY KEY, c BIGINT UNSIGNED, price DECIMAL(10,2))",
                "CREATE TABLE n (id INT PRIMARY KEY, name VARCHAR(20) CHARACTER SET latin1, bin VARCHAR(5) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)",
                "CREATE TABLE d (id INT PRIMARY KEY, `day` DATE, at DATETIME(1))",
                "CREATE TABLE u (id INT PRIMARY KEY, v INT)",
                "INSERT INTO c VALUES (1, 2, 1.49), (2, 4, 1.51), (3, 5, 9), (4, 18446744073709551614, 2), (5, NULL, 2)",
                "INSERT INTO n VALUES (1, 'M\u{fc}ller', 'X'), (2, 'Other', 'X'), (3, 'm\u{fc}ller', 'x'), (4, NULL, NULL)",
                "INSERT INTO d VALUES (1, '2019-12-31', NULL), (2, '2020-01-01', '2030-05-05 10:00:00.4'), (3, NULL, '2030-05-05 10:00:00.5')",
                "INSERT INTO u VALUES (1, 1), (2, 101), (3, 7), (4, 7)",
                "UPDATE u SET v = v + 1",
                "UPDATE u SET v = 50 WHERE id = 4",
                "DELETE FROM u WHERE id IN (2, 3)",
                "UPDATE u SET id = 9, v = 3 WHERE id = 1",
            ])
            .await;
        let ids = |table: &str| format!("SELECT id FROM {schema}.{table} ORDER BY id");
        // Row 1 had 1 and then 2: that update is left out, and the one from 2 to 3 is not.
        rows(
            &mut link,
            &format!("SELECT id, v FROM {schema}.u ORDER BY id"),
            &[&["2", "101"], &["4", "8"], &["9", "3"]],
        )
        .await;
        rows(&mut link, &ids("c"), &[&["1"], &["3"], &["5"]]).await;
        rows(&mut link, &ids("n"), &[&["1"], &["4"]]).await;
        rows(&mut link, &ids("d"), &[&["2"]]).await;
        left_out(&link, 2 + 2 + 2 + 2 + 1 + 1).await;

        // What was left out makes no row later; a column that goes takes its filter along.
        link.agent.kill9();
        link.agent.restart().await;
        link.source
            .run_all([
                "UPDATE c SET price = 3",
                "ALTER TABLE c DROP COLUMN c",
                "INSERT INTO c VALUES (6, 2)",
                "ALTER TABLE c ADD COLUMN c INT AS (id + 1) STORED",
                "INSERT INTO c (id, price) VALUES (7, 3), (8, 3)",
            ])
            .await;
        rows(
            &mut link,
            &format!("SELECT id, price FROM {schema}.c ORDER BY id"),
            &[&["1", "3.00"], &["3", "3.00"], &["5", "3.00"], &["6", "2.00"], &["8", "3.00"]],
        )
        .await;
        eventually("the status tells that a filter is idle", LIMIT, async || {
            let notes = link.agent.status().await["tasks"][0]["notes"].to_string();
            if notes.contains("leaves nothing out: the table has no column `c`") { Ok(()) } else { Err(notes) }
        })
        .await;
    }
}

/// What cannot be evaluated for certain is refused at the start, or stops the task before it judges a row.
#[tokio::test]
async fn expressions_without_certainty_are_refused() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("incremental", "unsure", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.task_file.instance_extra = "  expression-filters: [e]\n".into();
    link.task_file.start = Some(crate::support::fixture::location(&mut link.source, link.kind).await);
    let filter = |text: &str| format!("expression-filter: {{e: {{schema: {schema}, table: t, {text}}}}}\n");
    for (text, words) in [
        ("insert-value-expr: ts > NOW()", &["20041", "NOW() is no function"][..]),
        ("insert-value-expr: a, delete-value-expr: b", &["20039"]),
        ("insert-value-expr: a in (select 1)", &["`select` cannot be used"]),
    ] {
        link.task_file.extra = filter(text);
        link.start_task().await.expect_refusal(words);
    }
    link.task_file.extra = filter("insert-value-expr: e = 'x'");
    link.start_task().await.expect_success();
    link.target.run(&format!("CREATE DATABASE {schema}")).await;
    link.source
        .run_all(["CREATE TABLE t (id INT PRIMARY KEY, e ENUM('x', 'y'))", "INSERT INTO t VALUES (1, 'y')"])
        .await;
    link.wait_for_error(&["20041", "expression filter `e = 'x'`", "ENUM"]).await;
    assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {schema}.t")).await, 0);
}

/// A row of the tables that the filters are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    v: i64,
    w: i64,
}

/// What a source holds, and what is to be downstream: each row change by itself, in order.
#[derive(Default)]
struct Model {
    source: BTreeMap<i64, Held>,
    target: BTreeMap<i64, Held>,
    next: i64,
    left_out: u64,
}

impl Model {
    fn insert(&mut self, row: Held) -> i64 {
        // Never one that was there: of a row whose deletion was left out the target has its own.
        self.next += 1;
        self.source.insert(self.next, row);
        match row.v % 3 {
            0 => self.left_out += 1,
            _ => drop(self.target.insert(self.next, row)),
        }
        self.next
    }

    fn update(&mut self, id: i64, new_id: i64, row: Held) {
        let old = self.source.remove(&id).expect("it is there");
        self.source.insert(new_id, row);
        if (id, old) == (new_id, row) {
            // Not logged.
        } else if old.w == 1 && row.v % 5 == 0 {
            self.left_out += 1;
        } else if self.target.remove(&id).is_some() {
            self.target.insert(new_id, row);
        }
    }

    fn delete(&mut self, id: i64) {
        let old = self.source.remove(&id).expect("it is there");
        if old.w == 2 {
            self.left_out += 1;
        } else {
            self.target.remove(&id);
        }
    }

    /// Some statement, which changes one row or some.
    fn statement(&mut self, rng: &mut StdRng) -> String {
        let from = *self.source.keys().nth(rng.random_range(0..self.source.len().max(1))).unwrap_or(&0);
        let some: Vec<(i64, Held)> = self.source.range(from..from + 5).map(|(id, row)| (*id, *row)).collect();
        match rng.random_range(0..5) {
            0 | 1 => {
                let mut rows = Vec::new();
                for _ in 0..rng.random_range(1..5) {
                    let row = Held { v: rng.random_range(0..30), w: rng.random_range(0..4) };
                    rows.push(format!("({}, {}, {})", self.insert(row), row.v, row.w));
                }
                format!("INSERT INTO t VALUES {}", rows.join(", "))
            }
            2 => {
                let (more, w) = (rng.random_range(1..9), rng.random_range(0..4));
                some.iter().for_each(|(id, row)| self.update(*id, *id, Held { v: row.v + more, w }));
                format!("UPDATE t SET v = v + {more}, w = {w} WHERE id BETWEEN {from} AND {}", from + 4)
            }
            3 if !some.is_empty() => {
                self.next += 1;
                self.update(from, self.next, some[0].1);
                format!("UPDATE t SET id = {} WHERE id = {from}", self.next)
            }
            _ => {
                some.iter().take(2).for_each(|(id, _)| self.delete(*id));
                format!("DELETE FROM t WHERE id BETWEEN {from} AND {} ORDER BY id LIMIT 2", from + 4)
            }
        }
    }
}

/// One row after the other, under kills: what lanes have done, and what they have not, is judged again as it was.
#[tokio::test]
async fn rows_are_left_out_again_after_kills() {
    let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| rand::random::<u32>().into());
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("incremental", "again", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.task_file.start = Some(crate::support::fixture::location(&mut link.source, link.kind).await);
    link.target.run(&format!("CREATE DATABASE {schema}")).await;
    link.task_file.extra = format!(
        "expression-filter:\n  come: {{schema: {schema}, table: t, insert-value-expr: v % 3 = 0}}\n  \
         stay: {{schema: {schema}, table: t, delete-value-expr: w = 2}}\n  \
         turn: {{schema: {schema}, table: t, update-old-value-expr: w = 1, update-new-value-expr: v % 5 = 0}}\n"
    );
    link.task_file.instance_extra = "  expression-filters: [come, stay, turn]\n".into();
    link.start_task().await.expect_success();
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT, w INT)").await;
    let mut model = Model::default();
    for _ in 0..4 {
        let instant = Duration::from_millis(rng.random_range(0..700));
        let (agent, source) = (&mut link.agent, &mut link.source);
        let write = async {
            for _ in 0..80 {
                source.run("BEGIN").await;
                for _ in 0..rng.random_range(1..8) {
                    source.run(&model.statement(&mut rng)).await;
                }
                source.run("COMMIT").await;
            }
        };
        let kill = async {
            tokio::time::sleep(instant).await;
            agent.kill9();
        };
        tokio::join!(write, kill);
        link.agent.restart().await;
    }
    link.source.run("INSERT INTO t VALUES (1000000, 1, 1)").await;
    let mut expected: Vec<Vec<String>> =
        model.target.iter().map(|(id, row)| vec![id.to_string(), row.v.to_string(), row.w.to_string()]).collect();
    expected.push(vec!["1000000".into(), "1".into(), "1".into()]);
    eventually("the last row is there", LIMIT, async || {
        match link.target.number(&format!("SELECT COUNT(*) FROM {schema}.t WHERE id = 1000000")).await {
            0 => Err(link.status().await.to_string()),
            _ => Ok(()),
        }
    })
    .await;
    let found = link.target.texts(&format!("SELECT id, v, w FROM {schema}.t ORDER BY id")).await;
    assert!(model.left_out > 100, "only {} changes are left out", model.left_out);
    assert_eq!(found, expected);
    link.agent.assert_quiet_log();
}
