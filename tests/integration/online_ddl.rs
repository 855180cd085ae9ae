//! gh-ost and pt-online-schema-change at work on the source: the statements and row copies that they log, writers between.

use std::time::Duration;

use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::servers::Kind;

const LIMIT: Duration = Duration::from_secs(60);

/// What a tool runs to change `t`; `@` stands where it copies and the application writes.
struct Tool {
    steps: &'static [&'static str],
    shadow: &'static str,
}

/// With its changelog table, and the sentry that guards the cut-over.
const GH_OST: Tool = Tool {
    steps: &[
        "drop /* gh-ost */ table if exists `_t_gho`",
        "create /* gh-ost */ table `_t_ghc` (id BIGINT AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64) NOT NULL, UNIQUE KEY (hint))",
        "create /* gh-ost */ table `_t_gho` like `t`",
        "alter /* gh-ost */ table `_t_gho` add column c INT NOT NULL DEFAULT 7 AFTER id, add key kc (c)",
        "insert into `_t_ghc` (hint) values ('state')",
        "@",
        "create /* gh-ost */ table `_t_del` (id INT) COMMENT='ghost-cut-over-sentry'",
        "drop /* gh-ost */ table if exists `_t_del`",
        "rename /* gh-ost */ table `t` to `_t_del`, `_t_gho` to `t`",
        "drop /* gh-ost */ table if exists `_t_ghc`",
    ],
    shadow: "_t_gho",
};

const PT_OSC: Tool = Tool {
    steps: &[
        "CREATE TABLE `_t_new` (`id` INT NOT NULL, `v` VARCHAR(40) DEFAULT NULL, PRIMARY KEY (`id`))",
        "ALTER TABLE `_t_new` ADD COLUMN c INT NOT NULL DEFAULT 7 AFTER id",
        "ALTER TABLE `_t_new` ADD KEY kc (c)",
        "@",
        "RENAME TABLE `t` TO `_t_old`, `_t_new` TO `t`",
        "DROP TABLE IF EXISTS `_t_old`",
    ],
    shadow: "_t_new",
};

/// The next step of a tool, with what happens beside it.
async fn step(link: &mut Link, tool: &Tool, number: usize) {
    match tool.steps[number] {
        "@" => {
            let copied = format!("INSERT IGNORE INTO {} (id, v) SELECT id, v FROM t LOCK IN SHARE MODE", tool.shadow);
            let replaced = format!("REPLACE INTO {} (id, v) VALUES (1, 'both')", tool.shadow);
            link.source.run_all(["UPDATE t SET v = 'both' WHERE id = 1", &copied, &replaced]).await;
        }
        statement => link.source.run(statement).await,
    }
}

/// The table has the new structure and the source's rows, and nothing of the tool's is downstream.
async fn changed(link: &mut Link) {
    let schema = link.schema.clone();
    link.source.run_all(["INSERT INTO t (id, v) VALUES (-1, 'new')", "UPDATE t SET c = 8 WHERE id = 2"]).await;
    let rows = format!("SELECT id, c, v FROM {schema}.t ORDER BY id");
    let wanted = link.source.texts(&rows).await;
    eventually("the changed table is the source's", LIMIT, async || match link.target.try_rows(&rows).await {
        Ok(_) if link.target.texts(&rows).await == wanted => Ok(()),
        other => Err(format!("{other:?}, source {wanted:?}; {}", link.status().await)),
    })
    .await;
    let tables = format!("SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}' ORDER BY 1");
    assert_eq!(link.target.texts(&tables).await, [["t"]], "tables downstream");
    let index = format!(
        "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = '{schema}' AND index_name = 'kc'"
    );
    assert_eq!(link.target.texts(&index).await, [["1"]], "the index");
}

/// A task that follows, with the table that a tool is to change.
async fn with_table(label: &str, [source, target]: [Kind; 2], by_position: bool) -> Link {
    let (source, target) = shared_pair(source, target).await;
    let options = LinkOptions { by_position, ..LinkOptions::default() };
    let mut link = Link::start(label, &source, &target, &options).await;
    link.source
        .run_all(["CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40))", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"])
        .await;
    link.wait_equal().await;
    link
}

async fn a_tool_at_work(label: &str, tool: &Tool, kinds: [Kind; 2], by_position: bool) {
    let mut link = with_table(label, kinds, by_position).await;
    for number in 0..tool.steps.len() {
        step(&mut link, tool, number).await;
    }
    changed(&mut link).await;
    // Once more under the same names, as a second change does it.
    link.source.run_all(["DROP TABLE IF EXISTS _t_del", "CREATE TABLE _t_new LIKE t"]).await;
    link.source.run_all(["ALTER TABLE _t_new DROP KEY kc", "INSERT INTO _t_new SELECT * FROM t"]).await;
    link.source.run("ALTER TABLE _t_new ADD KEY kc (c, v)").await;
    link.source.run_all(["RENAME TABLE t TO _t_old, _t_new TO t", "DROP TABLE _t_old"]).await;
    link.source.run("DELETE FROM t WHERE id = 1").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
    let left = format!("SELECT ghost_table FROM dm_meta.{}_onlineddl", link.task);
    eventually("what was stored is forgotten once it is passed", LIMIT, async || {
        link.source.run("REPLACE INTO t (id, v) VALUES (50, 'x')").await;
        match link.target.try_rows(&left).await?.len() {
            0 => Ok(()),
            count => Err(format!("{count} rows")),
        }
    })
    .await;
}

#[tokio::test]
async fn gh_ost_on_mysql() {
    a_tool_at_work("gho", &GH_OST, [Kind::MySql, Kind::MariaDb], false).await;
}

#[tokio::test]
async fn gh_ost_on_mariadb() {
    a_tool_at_work("ghm", &GH_OST, [Kind::MariaDb, Kind::MySql], true).await;
}

#[tokio::test]
async fn pt_osc_on_mysql() {
    a_tool_at_work("pto", &PT_OSC, [Kind::MySql, Kind::MariaDb], true).await;
}

#[tokio::test]
async fn pt_osc_on_mariadb() {
    a_tool_at_work("ptm", &PT_OSC, [Kind::MariaDb, Kind::MySql], false).await;
}

/// A row is downstream.
async fn arrived(link: &mut Link, id: usize) {
    let row = format!("SELECT id FROM {}.t WHERE id = {id}", link.schema);
    eventually("the row arrives", LIMIT, async || match link.target.try_rows(&row).await?.len() {
        1 => Ok(()),
        _ => Err(link.status().await.to_string()),
    })
    .await;
}

#[tokio::test]
async fn kills_between_all_steps_change_nothing() {
    for (tool, parity) in [(&GH_OST, 0), (&GH_OST, 1), (&PT_OSC, 0), (&PT_OSC, 1)] {
        let mut link = with_table("ghk", [Kind::MySql, Kind::MariaDb], false).await;
        for number in 0..tool.steps.len() {
            step(&mut link, tool, number).await;
            if !tool.steps[..=number].contains(&"@") {
                link.source.run(&format!("INSERT INTO t (id, v) VALUES ({}, 'before the copy')", 10 + number)).await;
                arrived(&mut link, 10 + number).await;
            }
            // Behind a park no lane goes back to what was before; behind a kill alone the least of them decides.
            let parks = number % 2 == parity;
            if parks {
                link.pause().await;
            }
            link.agent.kill9();
            link.agent.restart().await;
            if parks {
                link.resume().await;
            }
        }
        changed(&mut link).await;
    }
}

#[tokio::test]
async fn a_change_that_began_before_the_task_parks_and_is_made_by_hand() {
    let mut link = with_table("ghb", [Kind::MySql, Kind::MariaDb], false).await;
    let schema = link.schema.clone();
    link.stop_task().await;
    link.source.run_all(["CREATE TABLE _t_gho LIKE t", "ALTER TABLE _t_gho ADD COLUMN c INT"]).await;
    link.task_file.start = Some(location(&mut link.source, link.kind).await);
    let path = link.agent.file("task.yaml", &link.task_file.yaml());
    link.agent.ctl(&["start-task", "--remove-meta", &path]).await.expect_success();
    link.source
        .run_all(["ALTER TABLE _t_gho ADD COLUMN d INT", "INSERT INTO _t_gho (id, v) SELECT id, v FROM t"])
        .await;
    link.source.run("RENAME TABLE t TO _t_del, _t_gho TO t").await;
    let parts = ["36046", &format!("online ddl metadata for ghost temporary table `{schema}`.`_t_gho` not found")];
    link.wait_for_error(&parts).await;
    let replace = format!("ALTER TABLE {schema}.t ADD COLUMN c INT, ADD COLUMN d INT");
    link.agent.ctl(&["binlog", "replace", &link.task, &replace]).await.expect_success();
    link.source.run_all(["DROP TABLE _t_del", "INSERT INTO t VALUES (3, 'c', 3, 4)"]).await;
    link.wait_equal().await;
}

/// A tool is at work while rows are copied: its tables are not, and its change is made where the binlog has it.
#[tokio::test]
async fn a_tool_at_work_while_rows_are_copied() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("all", "gha", &source, &target, &LinkOptions::default()).await;
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40))",
            "SET SESSION cte_max_recursion_depth = 100000",
            "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
             SELECT i, CONCAT('row ', i) FROM n",
            // Of a change that was given up.
            "CREATE TABLE _u_gho (id INT PRIMARY KEY)",
            "INSERT INTO _u_gho VALUES (1)",
        ])
        .await;
    link.start_task().await.expect_success();
    for number in 0..GH_OST.steps.len() {
        step(&mut link, &GH_OST, number).await;
    }
    changed(&mut link).await;
}
