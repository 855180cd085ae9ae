//! Catching up after a park, against the time that the upstream took to commit the same; and against MySQL's own replica.

use std::time::{Duration, Instant};

use crate::bed::{Bed, target};
use crate::history::{Oltp, TASK};
use crate::outcome::{Goal, Measure, Row, Series};
use crate::rig::{CaughtUp, Downstream, LANES, Mark, Rig};
use crate::rounds;
use crate::support::db::Db;
use crate::support::oracle;
use crate::support::servers::{Kind, Server};
use crate::table::number;

/// The task with a MySQL target.
const NINE: &str = "nine";
/// Settings of the replica.
const REPLICA: [&str; 4] =
    ["--replica-parallel-workers=4", "--skip-replica-start", "--relay-log=relay", "--read-only=OFF"];

/// Rounds of: write parked, catch up on MariaDB, on MySQL, and with MySQL's replica.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let (oltp, maria) = bed.oltp().await;
    let nine = target(Kind::MySql, &[]).await;
    let replica = Replica::start(&oltp.source).await;
    let (mut on_maria, mut on_nine) = (Downstream::of(maria).await, Downstream::of(&nine).await);
    let mut rig = Rig::from_state(oltp.state.clone()).await;
    rig.start_task(&Oltp::task(NINE, &nine, &oltp.start)).await;
    rig.admin.pause(NINE).await;

    let filled = oltp.prepare().await;
    rig.catch_up(TASK, &filled, &mut on_maria).await;
    rig.catch_up(NINE, &filled, &mut on_nine).await;
    let mut replica = replica;
    replica.catch_up(&filled).await;

    let (mut written, mut maria_rounds, mut nine_rounds) = (Series::default(), Vec::new(), Vec::new());
    let mut replicated = Series::default();
    for _ in 0..rounds() {
        let stretch = oltp.write().await;
        let caught_up = rig.catch_up(TASK, &stretch.mark, &mut on_maria).await;
        let rows = caught_up.rows;
        written.0.push(rows as f64 / stretch.seconds);
        maria_rounds.push(caught_up);
        nine_rounds.push(rig.catch_up(NINE, &stretch.mark, &mut on_nine).await);
        replicated.0.push(rows as f64 / replica.catch_up(&stretch.mark).await);
    }
    check_equal(oltp, [&mut on_maria.db, &mut on_nine.db]).await;
    rig.agent.assert_quiet_log();
    let as_written = Row {
        case: "catch-up after a park, MariaDB".into(),
        reference: written,
        against: "as written by 4 threads",
        goals: vec![Goal::AtLeast(Measure::Ratio, 10.0), Goal::AtMost(Measure::Cpu, 6.0)],
        ..line(&maria_rounds)
    };
    let beside_replica = Row {
        case: "catch-up after a park, MySQL".into(),
        reference: replicated,
        against: "MySQL replica, 4 workers",
        goals: vec![Goal::AtLeast(Measure::Ratio, 4.0)],
        ..line(&nine_rounds)
    };
    let rss = Series(vec![as_written.rss.max(), beside_replica.rss.max()]).max();
    let memory = Row {
        case: "RSS under load".into(),
        unit: "MB",
        ours: Series::one(rss),
        goals: vec![Goal::AtMost(Measure::Ours, 256.0)],
        ..Row::default()
    };
    vec![as_written, beside_replica, memory]
}

fn line(rounds: &[CaughtUp]) -> Row {
    let last = rounds.last().expect("there was a round");
    let series = |value: fn(&CaughtUp) -> f64| Series(rounds.iter().map(value).collect());
    Row {
        unit: "rows/s",
        ours: series(CaughtUp::rate),
        cpu: series(CaughtUp::cpu),
        rss: series(|round| round.rss),
        work: format!("{} row changes, {LANES} lanes; {}", number(last.rows as f64), last.downstream()),
        ..Row::default()
    }
}

/// Speed counts only where the result is right.
async fn check_equal(oltp: &mut Oltp, targets: [&mut Db; 2]) {
    let wanted = oracle::fingerprint(&mut oltp.db, Oltp::SCHEMA).await.expect("fingerprint of the source");
    for target in targets {
        let found = oracle::fingerprint(target, Oltp::SCHEMA).await.expect("fingerprint of a target");
        assert_eq!(found, wanted, "the target differs from the source");
    }
}

/// MySQL's own replica of the same source.
struct Replica {
    _server: Server,
    db: Db,
}

impl Replica {
    async fn start(source: &Server) -> Replica {
        let server = target(Kind::MySql, &REPLICA).await;
        let mut db = server.root().await;
        db.run(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='dm', \
             SOURCE_PASSWORD='dmpw', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            source.port
        ))
        .await;
        db.run("START REPLICA IO_THREAD").await;
        Replica { _server: server, db }
    }

    /// Applies what it has received, until the mark is there; the seconds that took.
    async fn catch_up(&mut self, mark: &Mark) -> f64 {
        let received = format!(
            "SELECT GTID_SUBSET('{}', RECEIVED_TRANSACTION_SET) FROM performance_schema.replication_connection_status",
            mark.end.gtid
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.db.text(&received).await != "1" {
            assert!(
                Instant::now() < deadline,
                "the replica does not receive: {:?}",
                self.db.texts("SHOW REPLICA STATUS").await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        self.db.run("START REPLICA SQL_THREAD").await;
        mark.wait(&mut self.db).await;
        let took = began.elapsed().as_secs_f64();
        self.db.run("STOP REPLICA SQL_THREAD").await;
        took
    }
}
