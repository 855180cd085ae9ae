//! How long a pause and a resume take, in the midst of catching up and with nothing to do.

use std::time::{Duration, Instant};

use crate::backlog::Backlog;
use crate::bed::Bed;
use crate::history::TASK;
use crate::outcome::{Latencies, Row};
use crate::rounds;

/// Pauses a round under load: over three rounds a hundred, so that a percentile means something.
const BUSY: u32 = 34;
/// Pauses a round with nothing to do.
const IDLE: u32 = 34;

/// Pause under full catch-up, resume to the first commit, pause when idle.
pub async fn run(bed: &mut Bed) -> Vec<Row> {
    let (oltp, maria) = bed.oltp().await;
    oltp.extend_to(3).await;
    let mut backlog = Backlog::begin(oltp, maria).await;
    let (mut busy, mut resume, mut idle) = (Latencies::default(), Latencies::default(), Latencies::default());
    for _ in 0..rounds() {
        busy.begin_round();
        resume.begin_round();
        for number in 0..BUSY {
            backlog.refill().await;
            resume.push(resume_to_first_commit(&mut backlog).await);
            // At any instant of a group's life, and of the sizing of groups behind a resume.
            tokio::time::sleep(Duration::from_millis(u64::from(number * 37 % 200))).await;
            busy.push(pause(&mut backlog).await);
        }
        backlog.run_dry().await;
        idle.begin_round();
        for _ in 0..IDLE {
            tokio::time::sleep(Duration::from_millis(20)).await;
            idle.push(pause(&mut backlog).await);
            backlog.rig.admin.resume(TASK).await;
        }
        backlog.rig.admin.pause(TASK).await;
    }
    vec![
        busy.line("pause under full catch-up", 50, 100.0),
        busy.line("pause under full catch-up", 99, 200.0),
        idle.line("pause when idle", 99, 20.0),
        resume.line("resume to first commit", 99, 200.0),
    ]
}

/// From the call to parked, with the checkpoint stored; in seconds.
async fn pause(backlog: &mut Backlog<'_>) -> f64 {
    let began = Instant::now();
    backlog.rig.admin.pause(TASK).await;
    let took = began.elapsed().as_secs_f64();
    let task = backlog.rig.task(TASK).await;
    assert_eq!((task.stage.as_str(), &task.applied), ("Paused", &task.flushed), "parked, with its checkpoint stored");
    took
}

/// From the call until something is downstream that was not; in seconds.
async fn resume_to_first_commit(backlog: &mut Backlog<'_>) -> f64 {
    let before = backlog.lanes().await;
    let mut admin = backlog.rig.admin.clone();
    let began = Instant::now();
    let resumed = tokio::spawn(async move { admin.resume(TASK).await });
    while backlog.lanes().await == before {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing is applied after a resume");
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let took = began.elapsed().as_secs_f64();
    resumed.await.expect("resume-task");
    took
}
