//! Where a position cannot be in one transaction with the rows: safe mode for what was dispatched and not covered, and exact again after it.
//! kill -9 under load, then every table equal.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::db::Db;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const TABLES: [&str; 3] = ["plain", "pair", "uniques"];

/// Keyed tables, so that safe mode can repair them. Keys come from small ranges: rows come, go and swap unique values within one window.
async fn create_tables(link: &mut Link) {
    link.source
        .run_all([
            "CREATE TABLE plain (id INT PRIMARY KEY, v BIGINT, pad VARCHAR(200))",
            "CREATE TABLE pair (a INT, b VARCHAR(20), v BIGINT, PRIMARY KEY (a, b))",
            "CREATE TABLE uniques (id INT PRIMARY KEY, u INT, v BIGINT, UNIQUE KEY u (u))",
        ])
        .await;
    link.wait_equal().await;
}

fn seed() -> u64 {
    let seed =
        std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| rand::random::<u32>().into());
    println!("SEED={seed}");
    seed
}

fn change(rng: &mut StdRng) -> String {
    let (id, v) = (rng.random_range(0..40), rng.random::<u32>());
    match (TABLES[rng.random_range(0..TABLES.len())], rng.random_range(0..4)) {
        ("plain", 0) => {
            format!("REPLACE INTO plain (id, v, pad) VALUES ({id}, {v}, REPEAT('x', {}))", rng.random_range(0..200))
        }
        ("plain", 1) => format!("UPDATE plain SET v = {v} WHERE id BETWEEN {id} AND {}", id + 5),
        ("plain", 2) => format!("UPDATE IGNORE plain SET id = {} WHERE id = {id}", rng.random_range(0..40)),
        ("plain", _) => format!("DELETE FROM plain WHERE id = {id}"),
        ("pair", 0 | 1) => format!("REPLACE INTO pair VALUES ({}, 'k{}', {v})", id % 6, v % 5),
        ("pair", 2) => format!("UPDATE IGNORE pair SET b = 'k{}', v = {v} WHERE a = {}", v % 5, id % 6),
        ("pair", _) => format!("DELETE FROM pair WHERE a = {} AND b = 'k{}'", id % 6, v % 5),
        (_, 0) => format!("INSERT IGNORE INTO uniques VALUES ({id}, {}, {v})", v % 60),
        (_, 1) => format!("UPDATE IGNORE uniques SET u = {}, v = {v} WHERE id = {id}", v % 60),
        (_, 2) => format!("UPDATE uniques SET v = v + 1 WHERE id < {id}"),
        _ => format!("DELETE FROM uniques WHERE id = {id}"),
    }
}

/// Transactions over all tables.
async fn write(db: &mut Db, rng: &mut StdRng, transactions: usize) {
    for _ in 0..transactions {
        db.run("BEGIN").await;
        for _ in 0..rng.random_range(1..8) {
            db.run(&change(rng)).await;
        }
        db.run("COMMIT").await;
    }
}

/// Kills under load, with a look at the tables now and then.
async fn survives_kills(link: &mut Link, kills: u32, mut disturb: impl AsyncFnMut(&mut Link, u32)) {
    let mut rng = StdRng::seed_from_u64(seed());
    for kill in 0..kills {
        let instant = Duration::from_millis(rng.random_range(0..900));
        let transactions = rng.random_range(50..300);
        {
            let agent = &mut link.agent;
            let kill = async {
                tokio::time::sleep(instant).await;
                agent.kill9();
            };
            tokio::join!(write(&mut link.source, &mut rng, transactions), kill);
        }
        link.agent.restart().await;
        disturb(link, kill).await;
        if kill % 4 == 3 {
            wait_behind_the_replay(link, kill).await;
        }
    }
    wait_behind_the_replay(link, kills).await;
}

/// Equal, with something that only comes behind what is replayed: a replay goes through older states, and the target may have
/// been equal before it began.
async fn wait_behind_the_replay(link: &mut Link, round: u32) {
    link.source.run(&format!("REPLACE INTO plain (id, v, pad) VALUES (1000002, {round}, '')")).await;
    link.wait_equal().await;
}

/// The task in the agent's own status.
async fn task(link: &Link) -> serde_json::Value {
    let status = link.agent.status().await;
    status["tasks"].as_array().and_then(|tasks| tasks.first().cloned()).unwrap_or_else(|| panic!("no task in {status}"))
}

async fn wait_for_note(link: &Link, words: &[&str]) {
    eventually(&format!("a note with {words:?}"), Duration::from_secs(20), async || {
        let notes = task(link).await["notes"].to_string();
        if words.iter().all(|word| notes.contains(word)) { Ok(()) } else { Err(notes) }
    })
    .await;
}

/// Exact again: safe mode ends with the window.
async fn wait_for_exact_mode(link: &mut Link) {
    let mut round = 0;
    eventually("safe mode ends", Duration::from_secs(20), async || {
        round += 1;
        link.source.run(&format!("REPLACE INTO plain (id, v, pad) VALUES (1000001, {round}, '')")).await;
        match task(link).await["safe_mode"].as_str() {
            None | Some("") => Ok(()),
            Some(why) => Err(why.to_owned()),
        }
    })
    .await;
    // Equal only when the last of these has come.
    link.wait_equal().await;
}

/// Some tables of the target have no transactions, others have: rows of the former stay when a lane's transaction is rolled back.
#[tokio::test]
async fn target_tables_without_transactions() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("fb_engine", &source, &target, &LinkOptions::default()).await;
    create_tables(&mut link).await;
    for (table, engine) in [("plain", "MyISAM"), ("uniques", "Aria TRANSACTIONAL=0")] {
        link.target.run(&format!("ALTER TABLE {}.{table} ENGINE={engine}", link.schema)).await;
    }
    // The structures are read anew after DDL.
    link.source.run("CREATE TABLE later (id INT PRIMARY KEY)").await;
    survives_kills(&mut link, 12, async |_, _| {}).await;
    // Noted at the first change: after the last start there may have been none.
    link.source.run("REPLACE INTO plain VALUES (2000000, 0, '')").await;
    link.source.run("REPLACE INTO uniques VALUES (2000000, 2000000, 0)").await;
    wait_for_note(&link, &["plain", "MyISAM", "uniques", "Aria"]).await;
    wait_for_exact_mode(&mut link).await;
    // Parked exact: nothing is applied again, so a resume needs no safe mode.
    link.pause().await;
    link.resume().await;
    link.source.run("REPLACE INTO plain (id, v, pad) VALUES (7, 7, '7')").await;
    link.wait_equal().await;
    assert_eq!(task(&link).await["safe_mode"].as_str().unwrap_or_default(), "");
    link.agent.assert_quiet_log();
}

/// Without a key, nobody could tell after a crash which rows are there.
#[tokio::test]
async fn a_table_with_neither_key_nor_transactions_is_refused() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("fb_keyless", &source, &target, &LinkOptions::default()).await;
    link.agent.expect_error("task failed");
    link.source.run("CREATE TABLE t (id INT)").await;
    link.wait_equal().await;
    link.target.run(&format!("ALTER TABLE {}.t ENGINE=MyISAM", link.schema)).await;
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.wait_for_error(&["`t`", "MyISAM", "ENGINE=InnoDB", "resume-task"]).await;
    link.target.run(&format!("ALTER TABLE {}.t ENGINE=InnoDB", link.schema)).await;
    link.resume().await;
    link.wait_equal().await;
}

/// An account that may write the schema and nothing in dm_meta.
async fn account(target: &Server, name: &str) -> String {
    let mut root = target.root().await;
    root.run_all([
        format!("CREATE USER {name}@'%' IDENTIFIED BY 'dmpw'"),
        format!("GRANT ALL ON `{name}\\_%`.* TO {name}@'%'"),
    ])
    .await;
    name.to_owned()
}

async fn no_right_to_keep_positions(label: &str, kind: Kind) {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(kind, &ServerOptions::default()).await;
    let source = if kind == Kind::MySql { shared(Kind::MariaDb, &ServerOptions::default()).await } else { source };
    let user = account(&target, label).await;
    let options = LinkOptions { target_user: Some(user.clone()), ..LinkOptions::default() };
    let mut link = Link::start(label, &source, &target, &options).await;
    create_tables(&mut link).await;
    wait_for_note(&link, &["kept on this machine", "denied"]).await;
    survives_kills(&mut link, 12, async |link, kill| match kill % 3 {
        // DDL in the window.
        0 => link.source.run(&format!("ALTER TABLE plain ADD COLUMN c{kill} INT DEFAULT {kill}, DROP COLUMN pad, ADD COLUMN pad VARCHAR(200) AFTER v")).await,
        1 => {
            link.stop_task().await;
            link.start_task().await.expect_success();
        }
        _ => {
            link.pause().await;
            link.resume().await;
        }
    })
    .await;
    wait_for_exact_mode(&mut link).await;
    // A table without a key is refused: its rows could come twice.
    link.agent.expect_error("task failed");
    link.source.run_all(["CREATE TABLE keyless (id INT)", "INSERT INTO keyless VALUES (1)"]).await;
    link.wait_for_error(&["`keyless`", "no key", "CREATE"]).await;
    // With the right, positions move to the downstream, and all is exact.
    target.root().await.run_all([format!("GRANT ALL ON dm_meta.* TO {user}@'%'")]).await;
    link.resume().await;
    link.wait_equal().await;
    let lanes = format!("SELECT COUNT(*) FROM dm_meta.{}_agent_lane WHERE lane >= 0", link.task);
    assert!(link.target.number(&lanes).await > 0);
    survives_kills(&mut link, 3, async |_, _| {}).await;
    // And never back: what is kept downstream decides.
    link.stop_task().await;
    target.root().await.run_all([format!("REVOKE ALL ON dm_meta.* FROM {user}@'%'")]).await;
    link.start_task().await.expect_refusal(&["denied"]);
}

#[tokio::test]
async fn an_account_without_rights_on_dm_meta_of_mariadb() {
    no_right_to_keep_positions("fba", Kind::MariaDb).await;
}

#[tokio::test]
async fn an_account_without_rights_on_dm_meta_of_mysql() {
    no_right_to_keep_positions("fby", Kind::MySql).await;
}
