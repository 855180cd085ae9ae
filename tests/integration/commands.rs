//! Commands at the same time: each takes effect or is refused with a word why, and what is left is whole.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::agent::{Agent, AgentOptions, run_ctl};
use crate::support::docs::{SourceFile, TaskFile};
use crate::support::eventually;
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const SOURCES: [&str; 2] = ["one", "two"];
const TASKS: [&str; 2] = ["a", "b"];
/// Commands in flight at a time, and how often.
const WIDTH: usize = 6;
const ROUNDS: usize = 12;

struct Files {
    sources: Vec<String>,
    /// By source, then task.
    tasks: Vec<Vec<String>>,
}

async fn write_files(agent: &Agent, source: &Server, target: &Server) -> Files {
    let sources = SOURCES
        .iter()
        .map(|id| agent.file(&format!("{id}.yaml"), &SourceFile::new(id, Kind::MySql, source.port).yaml()))
        .collect();
    let task = |source: &str, task: &str| {
        let file = TaskFile { schemas: vec!["no_such_schema".into()], ..TaskFile::new(task, source, target.port) };
        agent.file(&format!("{source}-{task}.yaml"), &file.yaml())
    };
    let tasks = SOURCES.iter().map(|source| TASKS.iter().map(|name| task(source, name)).collect()).collect();
    Files { sources, tasks }
}

fn any_command(random: &mut StdRng, files: &Files) -> Vec<String> {
    let (source, task) = (random.random_range(0..SOURCES.len()), random.random_range(0..TASKS.len()));
    let (id, name) = (SOURCES[source], TASKS[task]);
    let words: Vec<&str> = match random.random_range(0..12) {
        0 | 1 => vec!["operate-source", "create", &files.sources[source]],
        2 => vec!["operate-source", "stop", "-s", id],
        3 => vec!["operate-source", "update", &files.sources[source]],
        4..=6 => vec!["start-task", &files.tasks[source][task]],
        7 => vec!["pause-task", name, "-s", id],
        8 => vec!["resume-task", name, "-s", id],
        9 => vec!["stop-task", name, "-s", id],
        10 => vec!["start-relay", "-s", id],
        _ => vec!["pause-relay", "-s", id],
    };
    words.into_iter().map(str::to_owned).collect()
}

/// What there is, as far as it does not move by itself: sources, tasks, and whether an operator parked them.
async fn picture(agent: &Agent) -> Vec<String> {
    let status = agent.status().await;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut lines: Vec<String> =
        list(&status["sources"]).iter().map(|s| format!("source {}", s["source_id"])).collect();
    for task in list(&status["tasks"]) {
        let reasons: Vec<String> = list(&task["parks"]).iter().map(|park| park["reason"].to_string()).collect();
        let stage = if reasons.is_empty() { "runs".to_owned() } else { reasons.join(",") };
        lines.push(format!("task {} of {}: {stage}", task["name"], task["source_id"]));
    }
    lines
}

/// Random commands, several at a time. Every one answers; afterwards no task is without its source, everything is as it is
/// stored, and all of it can be taken down again.
#[tokio::test]
async fn any_commands_at_once_leave_a_whole_agent() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut agent = Agent::start(&AgentOptions::default()).await;
    let files = write_files(&agent, &source, &target).await;
    let mut taken = 0;
    for round in 0..ROUNDS {
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..WIDTH {
            let (socket, words) = (agent.socket(), any_command(&mut random, &files));
            running.spawn(async move {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                run_ctl(&socket, &words).await
            });
        }
        for answer in running.join_all().await {
            assert!(matches!(answer.exit, Some(0 | 2)), "round {round}: no answer: {answer:#?}");
            assert!(answer.exit == Some(0) || answer.text().contains("msg"), "refused without a word: {answer:#?}");
            assert!(!answer.text().contains("broke off"), "{answer:#?}");
            taken += usize::from(answer.exit == Some(0));
        }
        let status = agent.status().await;
        let sources: Vec<String> =
            status["sources"].as_array().into_iter().flatten().map(|s| s["source_id"].to_string()).collect();
        for task in status["tasks"].as_array().into_iter().flatten() {
            assert!(sources.contains(&task["source_id"].to_string()), "round {round}: an orphan: {status}");
            assert_ne!(task["stage"], "Stopped", "round {round}: a task that is over and still there: {status}");
        }
    }
    assert!(taken > ROUNDS, "only {taken} commands took effect");
    // Two sources with different server ids never meet; the same one twice would be told apart by now.
    let before = eventually("everything has settled", Duration::from_secs(30), async || {
        let lines = picture(&agent).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if lines == picture(&agent).await { Ok(lines) } else { Err(format!("{lines:?}")) }
    })
    .await;
    assert!(agent.terminate().success());
    agent.restart().await;
    assert_eq!(picture(&agent).await, before, "what is stored is what was shown");
    for (source, id) in SOURCES.iter().enumerate() {
        for name in TASKS {
            agent.ctl(&["stop-task", name, "-s", id]).await;
        }
        agent.ctl(&["operate-source", "stop", "-s", id]).await;
        // Everything is gone: it can be made again.
        agent.ctl(&["operate-source", "create", &files.sources[source]]).await.expect_success();
        agent.ctl(&["start-task", &files.tasks[source][0]]).await.expect_success();
    }
    let panics = agent.log().lines().filter(|line| line.contains("panicked")).count();
    assert_eq!(panics, 0);
}

/// One id, one name, many at once: exactly one makes it.
#[tokio::test]
async fn only_one_of_many_creates_or_starts() {
    let source = shared(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let agent = Agent::start(&AgentOptions::default()).await;
    // Names of its own: what is stored downstream goes by source and task, and both tests share the target.
    let source_yaml = SourceFile::new("single", Kind::MySql, source.port).yaml();
    let source_file = agent.file("single.yaml", &source_yaml);
    let task = TaskFile { schemas: vec!["no_such_schema".into()], ..TaskFile::new("lone", "single", target.port) };
    let task_file = agent.file("lone.yaml", &task.yaml());
    let many = async |words: Vec<String>| {
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let (socket, words) = (agent.socket(), words.clone());
            running.spawn(async move { run_ctl(&socket, &words.iter().map(String::as_str).collect::<Vec<_>>()).await });
        }
        running.join_all().await
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let created = many(words(&["operate-source", "create", &source_file])).await;
    assert_eq!(created.iter().filter(|answer| answer.succeeded()).count(), 1, "{created:#?}");
    let started = many(words(&["start-task", &task_file])).await;
    assert_eq!(started.iter().filter(|answer| answer.succeeded()).count(), 1, "{started:#?}");
    assert!(started.iter().all(|answer| answer.succeeded() || answer.text().contains("46014")), "{started:#?}");
    let paused = many(words(&["pause-task", "lone"])).await;
    assert!(paused.iter().all(|answer| answer.succeeded()), "{paused:#?}");
    let stopped = many(words(&["stop-task", "lone"])).await;
    assert!(stopped.iter().any(|answer| answer.succeeded()), "{stopped:#?}");
    assert_eq!(agent.status().await["tasks"].as_array().map_or(0, Vec::len), 0);
    agent.ctl(&["operate-source", "stop", "-s", "single"]).await.expect_success();
    agent.assert_quiet_log();
}
