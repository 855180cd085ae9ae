//! DDL whose effect is downstream before it comes: by hand, or by another source that is routed to the same table.

use std::time::Duration;

use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;

const LIMIT: Duration = Duration::from_secs(30);

async fn goes_on_where_it_is_there(source: Kind, target: Kind) {
    let (source, target) = shared_pair(source, target).await;
    let mut link = Link::start("there", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT, KEY ka (a), KEY kb (b))",
            "INSERT INTO t VALUES (1, 1, 1)",
        ])
        .await;
    link.wait_equal().await;
    let changes = [
        "ALTER TABLE @ ADD COLUMN c VARCHAR(20) NOT NULL DEFAULT 'x' AFTER a",
        "ALTER TABLE @ ADD COLUMN u INT UNIQUE",
        "CREATE INDEX kc ON @ (c, b)",
        "DROP INDEX kb ON @",
        "ALTER TABLE @ DROP COLUMN a",
    ];
    for (done, change) in changes.iter().enumerate() {
        link.target.run(&change.replace('@', &format!("{schema}.t"))).await;
        link.source.run(&change.replace('@', "t")).await;
        eventually("it is taken for done", LIMIT, async || {
            let notes = link.agent.status().await["tasks"][0]["notes"].to_string();
            if notes.matches("its effect was there already downstream").count() > done { Ok(()) } else { Err(notes) }
        })
        .await;
    }
    link.source.run("INSERT INTO t VALUES (2, 'y', 2, 2)").await;
    link.wait_equal().await;
    let left = "SELECT table_name FROM information_schema.tables WHERE table_schema='dm_meta' AND table_name LIKE 'agent_try%'";
    eventually("the copy of the structure is dropped", LIMIT, async || match link.target.try_rows(left).await?.len() {
        0 => Ok(()),
        count => Err(format!("{count} of them")),
    })
    .await;
}

#[tokio::test]
async fn a_change_that_is_there_is_passed_over_on_mysql() {
    goes_on_where_it_is_there(Kind::MariaDb, Kind::MySql).await;
}

#[tokio::test]
async fn a_change_that_is_there_is_passed_over_on_mariadb() {
    goes_on_where_it_is_there(Kind::MySql, Kind::MariaDb).await;
}

#[tokio::test]
async fn one_of_that_name_that_is_another_parks() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut link = Link::start("other", &source, &target, &LinkOptions::default()).await;
    let schema = link.schema.clone();
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)").await;
    link.wait_equal().await;

    link.target.run(&format!("CREATE INDEX k ON {schema}.t (a)")).await;
    link.source.run("CREATE INDEX k ON t (b)").await;
    link.wait_for_error(&["Duplicate key name 'k'"]).await;
    link.target.run(&format!("DROP INDEX k ON {schema}.t")).await;
    link.resume().await;
    link.wait_equal().await;

    // At another place among the columns: rows would be bound to it wrongly.
    link.target.run(&format!("ALTER TABLE {schema}.t ADD COLUMN c INT FIRST")).await;
    link.source.run_all(["ALTER TABLE t ADD COLUMN c INT", "INSERT INTO t VALUES (1, 2, 3, 4)"]).await;
    link.wait_for_error(&["Duplicate column name 'c'"]).await;
    link.target.run(&format!("ALTER TABLE {schema}.t DROP COLUMN c")).await;
    link.resume().await;
    eventually("the row arrives", LIMIT, async || {
        match link.target.try_rows(&format!("SELECT * FROM {schema}.t")).await?.len() {
            1 => Ok(()),
            count => Err(format!("{count} rows")),
        }
    })
    .await;
    link.wait_equal().await;
}
