//! Random transactions, kill -9 at random instants, pause, resume and stop at random; then every table equal: nothing lost, nothing
//! twice. `SEED=` replays the choices and the transactions (not the instants), `TORTURE_N=` sets the number of kills,
//! `TORTURE_LANES=` keeps the number of lanes at one; else it is drawn, and changes whenever the task is started anew.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;
use crate::support::workload::{Mix, Workload};

/// Numbers of lanes that are drawn from.
const LANES: [u32; 6] = [1, 2, 3, 8, 13, 16];

fn lanes(rng: &mut StdRng) -> u32 {
    let drawn = LANES[rng.random_range(0..LANES.len())];
    std::env::var("TORTURE_LANES").ok().and_then(|text| text.parse().ok()).unwrap_or(drawn)
}

/// Another number of lanes, and rules that say the same in other words: a change may then belong to another lane, and what a
/// crash left of before must still go to the one it was given to.
fn change_rules(link: &mut Link, rng: &mut StdRng) {
    link.task_file.workers = lanes(rng);
    let route = match rng.random_bool(0.5) {
        true => "routes:\n  same: {schema-pattern: no_such_schema, target-schema: no_such_schema}\n",
        false => "",
    };
    link.task_file.extra = route.to_owned();
    link.task_file.instance_extra = if route.is_empty() { "" } else { "  route-rules: [same]\n" }.to_owned();
}

/// What happens to the agent between two kills.
async fn disturb(link: &mut Link, rng: &mut StdRng) {
    match rng.random_range(0..6) {
        0 => {
            link.pause().await;
            link.resume().await;
        }
        1 => link.pause().await,
        2 => link.resume().await,
        3 => {
            link.stop_task().await;
            change_rules(link, rng);
            link.start_task().await.expect_success();
        }
        // Asked and not waited for: the kill comes into the middle of it.
        4 => drop(link.agent.ctl(&["pause-task", &link.task]).await),
        _ => {}
    }
}

async fn torture(label: &str, source: Kind, target: Kind, kills: u32) {
    let (source, target) = shared_pair(source, target).await;
    let mut workload = Workload::from_env(Mix { ddl: 0.03, big: 0.02 });
    let seed = workload.seed;
    let mut rng = StdRng::seed_from_u64(seed);
    let options = LinkOptions { workers: Some(lanes(&mut rng)), ..LinkOptions::default() };
    let mut link = Link::start(label, &source, &target, &options).await;
    link.source.run_all(workload.setup()).await;
    for kill in 0..kills {
        let steps = rng.random_range(5..60);
        let instant = Duration::from_millis(rng.random_range(0..400));
        {
            // The kill falls into the writing, or into the catching up after it.
            let write = workload.run(&mut link.source, steps);
            let agent = &mut link.agent;
            let kill = async {
                tokio::time::sleep(instant).await;
                agent.kill9();
            };
            tokio::join!(write, kill);
        }
        link.agent.restart().await;
        disturb(&mut link, &mut rng).await;
        // Compared now and then, so that a failure is found near its cause.
        if kill % 10 == 9 {
            link.resume().await;
            link.wait_equal_while_it_moves().await;
            println!("torture {label}: {} kills, SEED={seed}", kill + 1);
        }
    }
    link.resume().await;
    link.wait_equal_while_it_moves().await;
    link.agent.assert_quiet_log();
}

/// Copies of existing rows, begun anew again and again, with writers and DDL on, kills and pauses in the copy and in the replay
/// behind it.
async fn torture_copies(label: &str, source: Kind, target: Kind, copies: u32) {
    let (source, target) = shared_pair(source, target).await;
    let mut workload = Workload::from_env(Mix { ddl: 0.05, big: 0.02 });
    let seed = workload.seed;
    let mut rng = StdRng::seed_from_u64(seed);
    let small = "mydumpers:\n  slow: {threads: 2, rows: 7}\nloaders:\n  slow: {pool-size: 2}\n";
    let names = "  mydumper-config-name: slow\n  loader-config-name: slow\n";
    let options = LinkOptions { workers: Some(lanes(&mut rng)), ..LinkOptions::default() };
    let mut link = Link::with_mode("all", label, &source, &target, &options).await;
    link.source.run_all(workload.setup()).await;
    for copy in 0..copies {
        workload.run(&mut link.source, rng.random_range(30..200)).await;
        (link.task_file.extra, link.task_file.instance_extra) = (small.to_owned(), names.to_owned());
        if copy > 0 {
            link.stop_task().await;
            link.target.run(&format!("DROP DATABASE {}", link.schema)).await;
        }
        let path = link.agent.file("task.yaml", &link.task_file.yaml());
        link.agent.ctl(&["start-task", &path, "--remove-meta"]).await.expect_success();
        for _ in 0..rng.random_range(1..4) {
            let steps = rng.random_range(5..60);
            let instant = Duration::from_millis(rng.random_range(0..500));
            {
                let write = workload.run(&mut link.source, steps);
                let agent = &mut link.agent;
                let kill = async {
                    tokio::time::sleep(instant).await;
                    agent.kill9();
                };
                tokio::join!(write, kill);
            }
            link.agent.restart().await;
            if rng.random_bool(0.5) {
                link.pause().await;
                workload.run(&mut link.source, 10).await;
            }
            link.resume().await;
        }
        link.wait_equal().await;
        println!("torture {label}: {} copies, SEED={seed}", copy + 1);
    }
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn copies_under_kills() {
    torture_copies("tcopy", Kind::MySql, Kind::MariaDb, kills(4)).await;
    torture_copies("tcopy", Kind::MariaDb, Kind::MySql, kills(4)).await;
}

fn kills(default: u32) -> u32 {
    std::env::var("TORTURE_N").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn thirty_kills() {
    torture("torture", Kind::MySql, Kind::MariaDb, 20).await;
    torture("torture", Kind::MariaDb, Kind::MySql, 10).await;
}

/// `make torture N=1000`.
#[tokio::test]
#[ignore = "takes hours: make torture N=1000"]
async fn as_long_as_you_like() {
    torture("long", Kind::MySql, Kind::MariaDb, kills(1000)).await;
}
