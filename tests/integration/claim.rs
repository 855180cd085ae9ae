//! What a start goes on from: lanes that a crash left apart, rules that changed meanwhile, checkpoints of a dm-worker.
//!
//! Lanes are set apart by locks on downstream rows: a share of a group that must change a locked row waits, the others
//! commit.

use std::time::Duration;

use serde_json::Value;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::db::Db;
use crate::support::docs::SourceFile;
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// A place in the binlog; places of one server sort by it.
type Place = (String, u64);

/// How long something that needs no waiting may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Transactions of [`Apart`], and those of them that change a locked row besides: rows 2, 3 and 4 of `slow`.
const LAST: usize = 40;
const LOCKED: [(usize, u32); 3] = [(10, 2), (20, 3), (LAST, 4)];

/// Rows of the first transaction, and about as many in the next group: enough for four shares, each of two of the eight lanes.
const ROWS: usize = 1000;
/// Lanes of a share.
const SHARE: usize = 2;

/// A task whose lanes stand apart: all changes of table `slow` go to one lane. Its share is held up in the first transaction,
/// while the other lanes have committed all [`LAST`].
struct Apart {
    link: Link,
    /// Ends of the transactions on the source, from the first.
    ends: Vec<Place>,
    /// Locks on rows 2, 3 and 4 of `slow`, in order.
    locks: Vec<Db>,
}

/// Locks a row of `slow` in the target until the connection rolls back.
async fn lock(server: &Server, link: &Link, id: u32) -> Db {
    let mut db = server.root().await;
    db.run("BEGIN").await;
    db.run(&format!("SELECT * FROM {}.slow WHERE id = {id} FOR UPDATE", link.schema)).await;
    db
}

/// The marks of all lanes, by number.
async fn marks(link: &mut Link) -> Vec<Place> {
    let sql = format!(
        "SELECT binlog_name, binlog_pos FROM dm_meta.{}_agent_lane WHERE id = '{}' AND lane >= 0 ORDER BY lane",
        link.task, link.source_id
    );
    let rows = link.target.texts(&sql).await;
    rows.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a position"))).collect()
}

/// The source's end.
async fn end(link: &mut Link) -> Place {
    let at = location(&mut link.source, link.kind).await;
    (at.file, at.position)
}

async fn wait_for_marks(link: &mut Link, what: &str, holds: impl Fn(&[Place]) -> bool) {
    eventually(what, LIMIT, async || {
        let marks = marks(link).await;
        if holds(&marks) { Ok(()) } else { Err(format!("{marks:?}")) }
    })
    .await;
}

/// The task in the agent's own status.
async fn task(link: &Link) -> Value {
    link.agent.status().await["tasks"][0].clone()
}

async fn wait_until_dispatched(link: &Link, place: &Place) {
    eventually(&format!("dispatched up to {place:?}"), LIMIT, async || {
        let task = task(link).await;
        let at = &task["dispatched"];
        let there = at["file"].as_str() == Some(&place.0) && at["offset"].as_u64() == Some(place.1);
        if there { Ok(()) } else { Err(task.to_string()) }
    })
    .await;
}

impl Apart {
    async fn new(label: &str, source: &Server, target: &Server) -> Apart {
        let mut link = Link::start(label, source, target, &LinkOptions::default()).await;
        link.source
            .run_all([
                // Its second unique key keeps it on one lane.
                "CREATE TABLE slow (id INT PRIMARY KEY, u INT UNIQUE, n INT)",
                "CREATE TABLE t (id INT PRIMARY KEY, n INT)",
                "INSERT INTO slow VALUES (1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 4, 0)",
            ])
            .await;
        link.wait_equal().await;
        let mut first = lock(target, &link, 1).await;
        let mut locks = Vec::new();
        for (_, id) in LOCKED {
            locks.push(lock(target, &link, id).await);
        }
        // Which rows of `t` are not on the lanes of that share: those that arrive.
        // Neighbours go to one lane, so they are none.
        let rows: Vec<String> = (1..=ROWS).map(|id| format!("({}, 0)", 1000 * id + 500)).collect();
        let insert = format!("INSERT INTO t VALUES {}", rows.join(", "));
        link.source.run_all(["BEGIN", "UPDATE slow SET n = 1 WHERE id = 1", &insert, "COMMIT"]).await;
        let mut ends = vec![end(&mut link).await];
        let one_waits = |marks: &[Place]| marks.iter().filter(|mark| **mark < ends[0]).count() == SHARE;
        wait_for_marks(&mut link, "all shares but one have committed", one_waits).await;
        let free = link.target.texts(&format!("SELECT id FROM {}.t ORDER BY id", link.schema)).await;
        let free: Vec<&str> = free.iter().map(|row| row[0].as_str()).collect();
        assert!(free.len() > LAST, "{free:?}");
        // While the first group waits, the next one gathers: all the rest, where the relay log is at the lanes in time.
        let list = free.join(", ");
        for (number, id) in free.iter().enumerate().take(LAST + 1).skip(2) {
            let mut statements = vec!["BEGIN".to_owned()];
            match number {
                2 => statements.push(format!("DELETE FROM t WHERE id IN ({list})")),
                // An insert: a second one would meet its own row.
                _ => statements.push(format!("INSERT INTO t VALUES ({id}, {number})")),
            }
            if let Some((_, id)) = LOCKED.iter().find(|(at, _)| *at == number) {
                statements.push(format!("UPDATE slow SET n = {number} WHERE id = {id}"));
            }
            statements.push("COMMIT".to_owned());
            link.source.run_all(statements).await;
            ends.push(end(&mut link).await);
        }
        link.wait_relayed().await;
        // From the relay log's end to the lanes it is milliseconds. Too short, and the check below says so.
        tokio::time::sleep(Duration::from_millis(300)).await;
        first.run("ROLLBACK").await;
        let last = ends[LAST - 1].clone();
        let apart = move |marks: &[Place]| marks.iter().filter(|mark| **mark == last).count() == marks.len() - SHARE;
        wait_for_marks(&mut link, "all shares but one are at the end", apart).await;
        let mut apart = Apart { link, ends, locks };
        apart.kill(target).await;
        let marks = marks(&mut apart.link).await;
        assert_eq!(marks.iter().min(), Some(&apart.ends[0]), "the others stand behind the first transaction");
        apart
    }

    /// kill -9. What its connections left waiting for a lock is ended, too: the server would notice them only then.
    async fn kill(&mut self, target: &Server) {
        self.link.agent.kill9();
        self.end_orphans(target).await;
    }

    async fn end_orphans(&mut self, target: &Server) {
        let mut db = target.root().await;
        let waiting = format!(
            "SELECT id FROM information_schema.processlist WHERE user = 'dm' AND info LIKE '%{}%slow%'",
            self.link.schema
        );
        eventually("nothing of a dead agent waits", LIMIT, async || {
            let waiting = db.texts(&waiting).await;
            for row in &waiting {
                // Gone by itself is as good.
                let _ = db.try_run(&format!("KILL {}", row[0])).await;
            }
            if waiting.is_empty() { Ok(()) } else { Err(format!("{waiting:?}")) }
        })
        .await;
    }

    /// No lane stands behind where it stood, and DM's row not behind the last of them. The marks now.
    async fn check(&mut self, before: &[Place]) -> Vec<Place> {
        let now = marks(&mut self.link).await;
        assert_eq!(now.len(), before.len());
        for (lane, (now, before)) in now.iter().zip(before).enumerate() {
            assert!(now >= before, "lane {lane} was set back from {before:?} to {now:?}");
        }
        let row = self.link.checkpoint().await;
        let least = now.iter().min().expect("a lane");
        assert!((&row.file, row.position) <= (&least.0, least.1), "DM's row {row:?} is beyond {least:?}");
        now
    }
}

/// Lanes that a crash left ahead stay where they are while the others catch up: through the checkpoints of that time, another
/// crash, a pause and one more crash. Nothing is lost, nothing comes twice.
#[tokio::test]
async fn lanes_ahead_after_a_crash_are_never_set_back() {
    // Of its own: places are compared with the source's end, so nobody else may write there.
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut apart = Apart::new("ahead", &source, &target).await;
    let first = marks(&mut apart.link).await;

    // The replay stands at the first lock, for longer than marks stay without being moved along.
    apart.link.agent.restart().await;
    wait_until_dispatched(&apart.link, &apart.ends[9].clone()).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    apart.locks[0].run("ROLLBACK").await;
    // Behind it all the rest is one group.
    wait_until_dispatched(&apart.link, &apart.ends[LAST - 1].clone()).await;
    apart.kill(&target).await;
    let second = apart.check(&first).await;
    assert!(second.contains(&apart.ends[9]), "{second:?}");

    // A pause while the replay stands at the second lock, and before it has caught up.
    apart.link.agent.restart().await;
    wait_until_dispatched(&apart.link, &apart.ends[19].clone()).await;
    let (link, lock) = (&apart.link, &mut apart.locks[1]);
    let release = async {
        eventually("the pause waits for the lane", LIMIT, async || {
            let stage = task(link).await["stage"].clone();
            if stage == "Pausing" { Ok(()) } else { Err(stage.to_string()) }
        })
        .await;
        lock.run("ROLLBACK").await;
    };
    tokio::join!(link.pause(), release);
    apart.kill(&target).await;
    let third = apart.check(&second).await;
    assert!(third.contains(&apart.ends[19]), "{third:?}");

    apart.link.agent.restart().await;
    apart.locks[2].run("ROLLBACK").await;
    apart.link.resume().await;
    apart.link.wait_equal().await;
    apart.check(&third).await;
    apart.link.agent.assert_quiet_log();
}

/// The task comes back with other routes, another number of lanes and checked foreign keys while its lanes stand apart. What is
/// left of before is dealt out as before; what comes behind it goes the new way.
#[tokio::test]
async fn rules_that_change_while_lanes_are_apart_wait_until_they_are_together() {
    // Of its own: places are compared with the source's end, so nobody else may write there.
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut apart = Apart::new("rules", &source, &target).await;
    let before = marks(&mut apart.link).await;
    let schema = apart.link.schema.clone();
    apart.link.target.run(&format!("CREATE TABLE {schema}.moved LIKE {schema}.t")).await;
    apart.link.agent.restart().await;
    wait_until_dispatched(&apart.link, &apart.ends[9].clone()).await;
    apart.link.stop_task().await;
    apart.end_orphans(&target).await;
    apart.check(&before).await;

    let file = &mut apart.link.task_file;
    file.workers = 3;
    file.target_extra.push_str("  session:\n    foreign_key_checks: 1\n");
    file.instance_extra.push_str("  route-rules: [\"move\"]\n");
    file.extra.push_str(&format!(
        "routes:\n  move: {{schema-pattern: {schema}, table-pattern: t, target-schema: {schema}, target-table: moved}}\n"
    ));
    let wanted = apart.link.source.texts(&format!("SELECT id, n FROM {schema}.t ORDER BY id")).await;
    apart.link.start_task().await.expect_success();
    wait_until_dispatched(&apart.link, &apart.ends[9].clone()).await;
    apart.check(&before).await;
    apart.link.source.run("INSERT INTO t VALUES (5000, 1), (5001, 1), (5002, 1)").await;
    for lock in &mut apart.locks {
        lock.run("ROLLBACK").await;
    }
    let target = &mut apart.link.target;
    eventually("what came behind goes the new way", LIMIT, async || {
        let moved = target.texts(&format!("SELECT id FROM {schema}.moved ORDER BY id")).await;
        if moved == [["5000"], ["5001"], ["5002"]] { Ok(()) } else { Err(format!("{moved:?}")) }
    })
    .await;
    let there = target.texts(&format!("SELECT id, n FROM {schema}.t ORDER BY id")).await;
    assert_eq!(there, wanted, "all of before went the old way, once");
    let slow = "SELECT id, n FROM slow ORDER BY id";
    let slow_there = target.texts(&slow.replace("slow", &format!("{schema}.slow"))).await;
    assert_eq!(slow_there, apart.link.source.texts(slow).await);
    assert_eq!(marks(&mut apart.link).await.len(), 3, "the new number of lanes");
    apart.link.agent.assert_quiet_log();
}

/// Makes DM's row what a dm-worker without GTIDs would have left: its own place, exact, without a set.
async fn forget_gtids(link: &mut Link) {
    let sql = format!(
        "UPDATE dm_meta.{}_syncer_checkpoint SET binlog_gtid = '', exit_safe_binlog_gtid = '' WHERE id = '{}' AND is_global = 1",
        link.task, link.source_id
    );
    link.target.run(&sql).await;
}

/// The agent is gone with all that it kept; another one is given its source.
async fn replace_agent(link: &mut Link, source: &Server) {
    link.agent.kill9();
    link.agent = Agent::start(&AgentOptions::default()).await;
    let path = link.agent.file("source.yaml", &SourceFile::new(&link.source_id, source.kind, source.port).yaml());
    link.agent.ctl(&["operate-source", "create", &path]).await.expect_success();
}

/// Taken over with a position alone, by a start and by a resume: the set is completed, and never only what came since.
async fn position_alone(kind: Kind) {
    let other = if kind == Kind::MySql { Kind::MariaDb } else { Kind::MySql };
    let (source, target) = shared_pair(kind, other).await;
    let mut link = Link::start("alone", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;

    link.stop_task().await;
    forget_gtids(&mut link).await;
    replace_agent(&mut link, &source).await;
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.start_task().await.expect_success();
    link.wait_equal().await;
    link.pause().await;
    let complete = |before: &str, after: &str, parked: &str| {
        // Other tests write to the same source meanwhile.
        assert!(covers(parked, before), "{parked} lacks something of {before}");
        assert!(covers(after, parked), "{parked} has more than {after}");
    };
    let before = location(&mut link.source, kind).await;
    let parked = link.checkpoint().await;
    complete("", &before.gtid, &parked.gtid);
    assert!(covers(&parked.gtid, &link.task_file.start.clone().expect("a start").gtid), "{parked:?}");

    forget_gtids(&mut link).await;
    link.source.run("INSERT INTO t VALUES (2)").await;
    link.resume().await;
    link.wait_equal().await;
    link.pause().await;
    let after = location(&mut link.source, kind).await;
    complete(&before.gtid, &after.gtid, &link.checkpoint().await.gtid);
    link.agent.assert_quiet_log();
}

/// Whether a set has all of another: of each source in the other one the same first and no lower last number.
fn covers(set: &str, other: &str) -> bool {
    let parts = |set: &str| -> Vec<(String, u64, u64)> {
        let part = |part: &str| match part.split_once(':') {
            Some((source, range)) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (source.to_owned(), first.parse().expect("a number"), last.parse().expect("a number"))
            }
            None => {
                let (source, last) = part.rsplit_once('-').expect("domain-server-sequence");
                (source.to_owned(), 1, last.parse().expect("a number"))
            }
        };
        set.split(',').map(str::trim).filter(|text| !text.is_empty()).map(part).collect()
    };
    let set = parts(set);
    parts(other)
        .iter()
        .all(|(source, first, last)| set.iter().any(|(known, from, to)| known == source && from <= first && to >= last))
}

#[tokio::test]
async fn a_position_alone_is_completed_from_mysql() {
    position_alone(Kind::MySql).await;
}

#[tokio::test]
async fn a_position_alone_is_completed_from_mariadb() {
    position_alone(Kind::MariaDb).await;
}

/// The source has purged the place: said at a start and at a resume, and nothing is stored.
#[tokio::test]
async fn a_position_alone_that_the_source_has_purged_is_refused() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("purged", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.pause().await;
    forget_gtids(&mut link).await;
    let parked = link.checkpoint().await;
    link.source.run("FLUSH BINARY LOGS").await;
    let next = location(&mut link.source, link.kind).await.file;
    link.source.run(&format!("PURGE BINARY LOGS TO '{next}'")).await;
    link.agent.expect_error("task failed and waits for an operator");
    let words = ["without a GTID set", &parked.file, "binlog_gtid", "--remove-meta"];
    link.agent.ctl(&["resume-task", &link.task]).await.expect_refusal(&words[..2]);
    let status = link.wait_for_error(&words).await;
    assert_eq!(status["stage"], "Paused", "{status}");
    assert_eq!(link.checkpoint().await, parked, "nothing was stored");
    link.stop_task().await;
    link.start_task().await.expect_refusal(&words[..2]);
    assert_eq!(link.checkpoint().await, parked, "nothing was stored");
}

/// A former owner still writes, and it and the new one wait for each other: the server ends the claim, and it is tried again.
async fn claim_in_a_deadlock(target: Kind) {
    let (source, target) = shared_pair(Kind::MySql, target).await;
    let mut link = Link::start("knot", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.stop_task().await;
    let mut rival = target.root().await;
    // The server ends the transaction that has changed fewer rows.
    let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id})")).collect();
    let insert = format!("INSERT INTO {}.t VALUES {}", link.schema, rows.join(", "));
    let (lanes, place) =
        (format!("dm_meta.{}_agent_lane", link.task), format!("dm_meta.{}_syncer_checkpoint", link.task));
    rival.run_all(["BEGIN", &insert, &format!("SELECT * FROM {place} FOR UPDATE")]).await;
    let mut eye = target.root().await;
    let tie = async {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE time > 0 AND info LIKE '%{}%FOR UPDATE'",
            place.trim_start_matches("dm_meta.")
        );
        eventually("the claim waits", LIMIT, async || match eye.number(&sql).await {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await;
        rival.run_all([&format!("SELECT * FROM {lanes} FOR UPDATE"), "ROLLBACK"]).await;
    };
    let ((), started) = tokio::join!(tie, link.start_task());
    started.expect_success();
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.wait_equal().await;
}

#[tokio::test]
async fn a_claim_that_a_deadlock_ends_is_tried_again() {
    claim_in_a_deadlock(Kind::MariaDb).await;
    claim_in_a_deadlock(Kind::MySql).await;
}
