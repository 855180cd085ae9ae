//! Bad input of every kind: an error that names the key or place, the value and the remedy; the agent lives on, and no panic is in its log.

use std::path::PathBuf;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::{SourceFile, TaskFile};
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::process::fresh_folder;
use crate::support::servers::{Kind, Server, ServerOptions, shared};
use crate::support::socket;

/// The agent answers, and has not panicked. ERROR lines are what these tests provoke.
pub async fn assert_alive(agent: &Agent) {
    assert_eq!(agent.get("/healthz").await.status, 200);
    let panics: Vec<String> =
        agent.log().lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// An agent with the source `s`.
async fn agent_with_source(source: &Server) -> Agent {
    let agent = Agent::start(&AgentOptions::default()).await;
    let path = agent.file("source.yaml", &SourceFile::new("s", source.kind, source.port).yaml());
    agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    agent
}

#[tokio::test]
async fn daemon_configuration_with_several_mistakes() {
    let folder = fresh_folder("badconf");
    let path = folder.join("dm-agent.toml");
    let text = "name = \"w\"\nkeepalive-tll = 60\nkeepalive-ttl = \"soon\"\n[agent]\nstate-dirr = \"/x\"\n";
    std::fs::write(&path, text).expect("write a configuration");
    let agent = Agent::start(&AgentOptions::default()).await;
    let answer = agent.run_daemon(&["--config", &path.display().to_string()]).await;
    assert_ne!(answer.exit, Some(0));
    for word in ["keepalive-tll", "keepalive-ttl", "state-dirr"] {
        assert!(answer.text().contains(word), "all problems at once, {word} too: {answer:#?}");
    }
    let answer = agent.run_daemon(&["--config", "/nonexistent/dm-agent.toml"]).await;
    assert!(answer.exit != Some(0) && answer.text().contains("/nonexistent/dm-agent.toml"), "{answer:#?}");
}

#[tokio::test]
async fn source_files_with_mistakes() {
    let (source, _) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let agent = Agent::start(&AgentOptions::default()).await;
    let good = SourceFile::new("s", Kind::MySql, source.port).yaml();
    let bad = [
        ("no yaml", "source-id: [".to_owned(), vec!["YAML", "line 2"]),
        ("unknown key", format!("{good}nonsense-key: 1\n"), vec!["nonsense-key"]),
        ("mistyped", good.replace("enable-gtid: true", "enable-gtid: maybe"), vec!["enable-gtid"]),
        ("flavor", good.replace("flavor: mysql", "flavor: oracle"), vec!["flavor", "oracle"]),
        ("password", good.replace("dmpw", "wrong"), vec!["1045", "dm"]),
    ];
    for (what, text, words) in bad {
        let path = agent.file("source.yaml", &text);
        let answer = agent.ctl(&["operate-source", "create", &path]).await;
        println!("{what}: {}", answer.text());
        answer.expect_refusal(&words);
    }
    assert_alive(&agent).await;
    // None of them has left anything behind.
    let path = agent.file("source.yaml", &good);
    agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    agent.ctl(&["operate-source", "create", &path]).await.expect_refusal(&["s", "already exists"]);
}

#[tokio::test]
async fn task_files_with_mistakes() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let agent = agent_with_source(&source).await;
    let task = TaskFile { schemas: vec!["d".into()], ..TaskFile::new("t", "s", target.port) };
    let good = task.yaml();
    let bad = [
        ("unknown key", format!("{good}nonsense-key: 1\n"), vec!["nonsense-key"]),
        ("mistyped", good.replace("worker-count: 8", "worker-count: many"), vec!["worker-count"]),
        ("mode", good.replace("task-mode: incremental", "task-mode: sideways"), vec!["task-mode", "sideways"]),
        ("unknown source", good.replace("source-id: s", "source-id: nobody"), vec!["nobody"]),
        ("missing list", good.replace("block-allow-list: only", "block-allow-list: other"), vec!["other"]),
        ("regular expression", good.replace("[d]", "[\"~(\"]"), vec!["~("]),
        ("target's password", good.replace("dmpw", "wrong"), vec!["1045"]),
        ("no name", good.replace("name: t\n", ""), vec!["name"]),
    ];
    for (what, text, words) in bad {
        let path = agent.file("task.yaml", &text);
        let answer = agent.ctl(&["start-task", &path]).await;
        println!("{what}: {}", answer.text());
        answer.expect_refusal(&words);
    }
    let path = agent.file("task.yaml", &good);
    agent.ctl(&["start-task", &path]).await.expect_success();
    agent.ctl(&["start-task", &path]).await.expect_refusal(&["46014", "already exist"]);
    assert_alive(&agent).await;
}

/// A source that cannot be replicated from is refused with the variable, its value and what to do.
#[tokio::test]
async fn a_source_with_statement_binlog() {
    let options = ServerOptions { args: vec!["--binlog-format=STATEMENT".into()], ..ServerOptions::default() };
    let (source, target) =
        (Server::start(Kind::MariaDb, &options).await, shared(Kind::MySql, &ServerOptions::default()).await);
    let agent = Agent::start(&AgentOptions::default()).await;
    let path = agent.file("source.yaml", &SourceFile::new("s", Kind::MariaDb, source.port).yaml());
    let create = agent.ctl(&["operate-source", "create", &path]).await;
    let task = TaskFile { schemas: vec!["d".into()], ..TaskFile::new("t", "s", target.port) };
    let path = agent.file("task.yaml", &task.yaml());
    let start = agent.ctl(&["start-task", &path]).await;
    let status = agent.ctl(&["query-status", "t"]).await;
    let said = format!("{}\n{}\n{}", create.text(), start.text(), status.text());
    for word in ["binlog_format", "STATEMENT", "ROW"] {
        assert!(said.contains(word), "{word} is not in:\n{said}");
    }
    assert_alive(&agent).await;
}

/// The source goes over to statements while the task runs: nothing is left out silently, receiving goes on, and what the message says
/// to do works.
async fn statements_at_run_time(kind: Kind) {
    let source = Server::start(kind, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = Link::start("statement", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.agent.expect_error("was logged as a statement");
    link.source.run_all(["SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1)"]).await;
    link.wait_for_error(&["was logged as a statement", "binlog_format", "downstream by hand, then `binlog skip` it"])
        .await;
    link.source.run_all(["SET SESSION binlog_format = 'ROW'", "INSERT INTO t VALUES (2)"]).await;
    link.target.run(&format!("INSERT INTO {}.t VALUES (1)", link.schema)).await;
    link.agent.ctl(&["binlog", "skip", &link.task]).await.expect_success();
    link.wait_equal().await;
    assert_alive(&link.agent).await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn statements_at_run_time_on_mysql() {
    statements_at_run_time(Kind::MySql).await;
}

#[tokio::test]
async fn statements_at_run_time_on_mariadb() {
    statements_at_run_time(Kind::MariaDb).await;
}

/// Accounts that are not there, or with another password, on both ends: the account, the place and what to do.
#[tokio::test]
async fn accounts_that_may_not_log_in() {
    let agent = Agent::start(&AgentOptions::default()).await;
    for kind in [Kind::MySql, Kind::MariaDb] {
        let server = shared(kind, &ServerOptions::default()).await;
        let good = SourceFile::new(kind.flavor(), kind, server.port).yaml();
        for (right, wrong) in [("user: dm", "user: nobody"), ("password: dmpw", "password: other")] {
            let path = agent.file("source.yaml", &good.replace(right, wrong));
            let answer = agent.ctl(&["operate-source", "create", &path]).await;
            answer.expect_refusal(&[&server.port.to_string(), "`user` and `password` of the source's `from`"]);
        }
        let path = agent.file("source.yaml", &good.replace("dmpw", "4k8KBGQHFKVhYQq1xzB29UB2JgSI"));
        let no_key = agent.ctl(&["operate-source", "create", &path]).await;
        no_key.expect_refusal(&["looks like an encrypted one", "`agent.secret-key-path`"]);
        let path = agent.file("source.yaml", &good);
        agent.ctl(&["operate-source", "create", &path]).await.expect_success();
        let task = TaskFile::new("t", kind.flavor(), server.port).yaml();
        for (right, wrong) in [("user: dm", "user: nobody"), ("password: dmpw", "password: other")] {
            let path = agent.file("task.yaml", &task.replace(right, wrong));
            let answer = agent.ctl(&["start-task", &path]).await;
            answer.expect_refusal(&[&server.port.to_string(), "`user` and `password` of the task's `target-database`"]);
        }
    }
    assert_alive(&agent).await;
}

/// Rows that the target refuses park the task with the statement's table and the server's own words; repaired, it goes on.
#[tokio::test]
async fn rows_the_target_refuses() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("refuse", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    link.wait_equal().await;
    let schema = link.schema.clone();
    let cases = [
        (
            "duplicate key",
            format!("INSERT INTO {schema}.t VALUES (1, 0)"),
            "INSERT INTO t VALUES (1, 1)",
            "1062",
            format!("DELETE FROM {schema}.t WHERE id = 1"),
        ),
        (
            "out of range",
            format!("ALTER TABLE {schema}.t MODIFY v TINYINT"),
            "INSERT INTO t VALUES (2, 1000)",
            "1264",
            format!("ALTER TABLE {schema}.t MODIFY v INT"),
        ),
        (
            "missing table",
            format!("RENAME TABLE {schema}.t TO {schema}.away"),
            "INSERT INTO t VALUES (3, 3)",
            "1146",
            format!("RENAME TABLE {schema}.away TO {schema}.t"),
        ),
        (
            "column count",
            format!("ALTER TABLE {schema}.t DROP COLUMN v"),
            "INSERT INTO t VALUES (4, 4)",
            "olumn",
            format!("ALTER TABLE {schema}.t ADD COLUMN v INT"),
        ),
    ];
    for (what, spoil, change, word, repair) in cases {
        println!("{what}");
        link.pause().await;
        link.target.run(&spoil).await;
        link.resume().await;
        link.agent.expect_error(word);
        link.source.run(change).await;
        link.wait_for_error(&[word, "t"]).await;
        link.target.run(&repair).await;
        if what == "column count" {
            // The column's values are gone with it.
            link.target
                .run(&format!("UPDATE {schema}.t SET v = CASE id WHEN 1 THEN 1 WHEN 2 THEN 1000 ELSE 3 END"))
                .await;
        }
        link.resume().await;
        link.wait_equal().await;
        assert_alive(&link.agent).await;
    }
    link.agent.assert_quiet_log();
}

/// Bytes that are no HTTP and no gRPC.
#[tokio::test]
async fn malformed_requests() {
    let agent = Agent::start(&AgentOptions::default()).await;
    let mut long = b"GET /".to_vec();
    long.extend(std::iter::repeat_n(b'a', 1 << 20));
    let requests: [&[u8]; 7] = [
        b"\0\0\0\0\0\0\0\0",
        b"GET /status",
        b"POST /status HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"DELETE /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET /../../etc/passwd HTTP/1.0\r\n\r\n",
        &long,
    ];
    for request in requests {
        // Any answer, or none; not success, and not silence for ever.
        let answer = socket::exchange(&agent.socket(), request).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(!text.contains(" 200 "), "{text}");
        assert!(!text.contains("root:"), "{text}");
    }
    assert_alive(&agent).await;
    agent.assert_quiet_log();
}

/// Command lines that make no sense: exit code 2 or DM's, words, no panic.
#[tokio::test]
async fn commands_with_mistakes() {
    let agent = Agent::start(&AgentOptions::default()).await;
    let commands: [&[&str]; 5] = [
        &["no-such-command"],
        &["start-task", "/nonexistent/task.yaml"],
        &["pause-task", "nobody"],
        &["purge-relay", "-s", "nobody", "--filename", "mysql-bin.000001"],
        &["operate-source", "sideways", "x.yaml"],
    ];
    for command in commands {
        let answer = agent.ctl(command).await;
        assert!(!answer.text().trim().is_empty(), "{answer:#?}");
        assert!(!answer.text().contains("panicked"), "{answer:#?}");
        let refused = answer.exit != Some(0) || !answer.succeeded();
        assert!(refused, "{answer:#?}");
    }
    assert_alive(&agent).await;
}

/// Files of the state folder, largest first.
fn state_files(agent: &Agent) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![agent.state_dir()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("read the state folder").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).map_or(0, |meta| meta.len())));
    files
}

/// The state on disk is damaged while the agent is down: bits flipped, ends cut off. It says so, or fetches again from the source; what
/// it applies stays right.
async fn damaged_state(label: &str, damage: fn(&mut Vec<u8>)) {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start(label, &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, pad VARCHAR(2000))").await;
    link.wait_equal().await;
    link.pause().await;
    for id in 0..300 {
        link.source.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('p', 2000))")).await;
    }
    link.wait_relayed().await;
    link.agent.terminate();
    let largest = state_files(&link.agent).into_iter().next().expect("a state file");
    let mut bytes = std::fs::read(&largest).expect("read a state file");
    damage(&mut bytes);
    std::fs::write(&largest, bytes).expect("write a state file");
    println!("damaged {}", largest.display());
    // Parked or not afterwards, it must come up, and end up equal.
    link.agent.restart().await;
    link.resume().await;
    link.wait_equal().await;
    assert_alive(&link.agent).await;
}

#[tokio::test]
async fn bits_flipped_on_disk() {
    damaged_state("flip", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    })
    .await;
}

#[tokio::test]
async fn a_file_cut_short_on_disk() {
    damaged_state("short", |bytes| bytes.truncate(bytes.len() * 2 / 3)).await;
}

/// A checkpoint store that cannot be read: the agent says which and what to do, touches nothing, and that works. What is done is known
/// downstream, so nothing is lost or comes twice.
#[tokio::test]
async fn a_damaged_checkpoint_store() {
    let (source, target) = shared_pair(Kind::MariaDb, Kind::MySql).await;
    let mut link = Link::start("store", &source, &target, &LinkOptions::default()).await;
    link.source.run_all(["CREATE TABLE t (id INT)", "INSERT INTO t VALUES (1), (2)"]).await;
    link.wait_equal().await;
    link.agent.terminate();
    link.source.run("INSERT INTO t VALUES (3)").await;
    let store = link.agent.state_dir().join("checkpoint");
    let slabs = |agent: &Agent| -> Vec<(PathBuf, Vec<u8>)> {
        let files = state_files(agent).into_iter().filter(|file| file.starts_with(store.join("slabs")));
        files.map(|file| (file.clone(), std::fs::read(file).expect("read a file of pages"))).collect()
    };
    // All of them: which hold what is needed is the engine's affair.
    for (file, bytes) in slabs(&link.agent) {
        let damaged: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x55).collect();
        std::fs::write(file, damaged).expect("write a file of pages");
    }
    let damaged = slabs(&link.agent);
    let refused = link.agent.run_daemon(&["--config", &link.agent.config()]).await;
    assert_eq!(refused.exit, Some(1), "{refused:#?}");
    for word in [&*store.display().to_string(), "is damaged", "move its directory away"] {
        assert!(refused.stderr.contains(word), "{word} is missing: {refused:#?}");
    }
    assert!(slabs(&link.agent) == damaged, "what is damaged was touched");

    std::fs::rename(&store, store.with_extension("damaged")).expect("move it away");
    link.agent.restart().await;
    let path = link.agent.file("source.yaml", &SourceFile::new(&link.source_id, link.kind, source.port).yaml());
    link.agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    link.start_task().await.expect_success();
    link.wait_equal().await;
    assert_alive(&link.agent).await;
}

/// A checkpoint store whose log has lost its end, as after a copy that was not whole: wherever it is cut, the agent knows of the pause or
/// says that the store is damaged. It never applies.
#[tokio::test]
async fn a_checkpoint_store_that_lost_its_end() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("lostend", &source, &target, &LinkOptions::default()).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
    link.wait_equal().await;
    link.pause().await;
    link.source.run("INSERT INTO t VALUES (1)").await;
    link.agent.kill9();
    let store = link.agent.state_dir().join("checkpoint");
    let whole = state_files(&link.agent)
        .into_iter()
        .filter(|file| file.starts_with(&store) || file.ends_with("checkpoint.tally"));
    let whole: Vec<(PathBuf, Vec<u8>)> =
        whole.map(|file| (file.clone(), std::fs::read(file).expect("read the store"))).collect();
    let logs = || whole.iter().filter(|(file, bytes)| file.starts_with(store.join("metadata")) && !bytes.is_empty());
    let cuts: Vec<(&PathBuf, usize)> =
        logs().flat_map(|(file, bytes)| (0..8).map(move |part| (file, bytes.len() * part / 8))).collect();
    assert!(cuts.len() >= 8, "no log to cut: {:?}", whole.iter().map(|(file, _)| file).collect::<Vec<_>>());
    let mut refused = 0;
    for (file, length) in cuts {
        std::fs::remove_dir_all(&store).expect("remove the store");
        for (file, bytes) in &whole {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("make a folder");
            std::fs::write(file, bytes).expect("write the store");
        }
        let log = std::fs::OpenOptions::new().write(true).open(file).expect("open the log");
        log.set_len(length as u64).expect("cut the log");
        match link.agent.try_restart().await {
            Ok(()) => assert_eq!(link.status().await["stage"], "Paused", "{} cut at {length}", file.display()),
            Err(status) => {
                refused += 1;
                assert_eq!(status.code(), Some(1), "{} cut at {length}: {}", file.display(), link.agent.log());
            }
        }
        assert_eq!(link.target.number(&format!("SELECT COUNT(*) FROM {}.t", link.schema)).await, 0);
    }
    println!("{refused} refused");
    assert!(refused > 0 && link.agent.log().contains("is damaged"), "{}", link.agent.log());
}

/// A disk budget that is too small for what comes: the reader stops and says so, nothing unapplied is deleted, and after the resume all
/// of it arrives.
#[tokio::test]
async fn a_full_relay_budget() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let options = LinkOptions {
        agent: AgentOptions { agent: "relay-budget = \"64MiB\"\n".into(), ..AgentOptions::default() },
        ..LinkOptions::default()
    };
    let mut link = Link::start("budget", &source, &target, &options).await;
    link.source.run("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)").await;
    link.wait_equal().await;
    link.pause().await;
    link.source.run("SET SESSION group_concat_max_len = 67108864").await;
    for id in 0..60 {
        // Random, so that a compressing store cannot make it small; about 2 MB each.
        let rows = "(SELECT 1 FROM information_schema.COLUMNS LIMIT 2000) r";
        let bytes = "GROUP_CONCAT(RANDOM_BYTES(1000) SEPARATOR '')";
        link.source.run(&format!("INSERT INTO t SELECT {id}, {bytes} FROM {rows}")).await;
    }
    crate::support::eventually(
        "the status says that the budget is full",
        std::time::Duration::from_secs(60),
        async || {
            let source = link.agent.source_status().await;
            let full =
                source["receiving"] == "RECEIVE_STATE_STOPPED" && source["failure"].to_string().contains("budget");
            if full { Ok(()) } else { Err(source.to_string()) }
        },
    )
    .await;
    link.resume().await;
    link.wait_equal().await;
    assert_alive(&link.agent).await;
}
