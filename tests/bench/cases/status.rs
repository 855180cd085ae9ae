//! How long `query-status` takes over the socket, when the agent has most to do and when nobody answers it.

use std::time::{Duration, Instant};

use crate::admin::Admin;
use crate::backlog::Backlog;
use crate::bed::Bed;
use crate::history::{Oltp, TASK, put_mark};
use crate::outcome::{Latencies, Row};
use crate::rig::Rig;
use crate::rounds;
use crate::support::proxy::{Fault, Proxy};

/// Questions a round.
const QUESTIONS: usize = 400;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(2);

/// Both situations.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let loaded = under_load(bed).await;
    let cut_off = black_holed(bed).await;
    vec![
        loaded.line("query-status under full load", 99, 10.0),
        cut_off.line("query-status, both servers black-holed", 99, 10.0),
    ]
}

async fn under_load(bed: &mut Bed) -> Latencies {
    let (oltp, maria) = bed.oltp().await;
    oltp.extend_to(3).await;
    let mut backlog = Backlog::begin(oltp, maria).await;
    let mut times = Latencies::default();
    for _ in 0..rounds() {
        backlog.refill().await;
        backlog.rig.admin.resume(TASK).await;
        backlog.wait_busy().await;
        ask(&mut backlog.rig.admin, TASK, &mut times).await;
        backlog.rig.admin.pause(TASK).await;
    }
    times
}

async fn black_holed(bed: &mut Bed) -> Latencies {
    let (oltp, maria) = bed.oltp().await;
    let (up, down) = (Proxy::start(oltp.source.port), Proxy::start(maria.port));
    let mut rig = Rig::start_at(&oltp.source, up.port).await;
    let mut source = oltp.source.root().await;
    let start = crate::support::fixture::location(&mut source, oltp.source.kind).await;
    source
        .run_all(["CREATE DATABASE IF NOT EXISTS hole", "CREATE TABLE IF NOT EXISTS hole.mark (id INT PRIMARY KEY)"])
        .await;
    let mut task = Oltp::task("hole", maria, &start);
    (task.schemas, task.target_port) = (vec!["hole".into()], down.port);
    rig.start_task(&task).await;
    let mut times = Latencies::default();
    for round in 0..rounds() {
        let mark = put_mark(&mut source, oltp.source.kind, "hole", 2 * round as u32).await;
        mark.wait(&mut maria.root().await).await;
        up.set(Fault::BlackHole);
        down.set(Fault::BlackHole);
        put_mark(&mut source, oltp.source.kind, "hole", 2 * round as u32 + 1).await;
        ask(&mut rig.admin, "hole", &mut times).await;
        up.set(Fault::None);
        down.set(Fault::None);
    }
    source.run("DROP DATABASE hole").await;
    times
}

async fn ask(admin: &mut Admin, task: &str, times: &mut Latencies) {
    times.begin_round();
    for _ in 0..QUESTIONS {
        let began = Instant::now();
        admin.query_status(task).await;
        times.push(began.elapsed().as_secs_f64());
        tokio::time::sleep(PAUSE).await;
    }
}
