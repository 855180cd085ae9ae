//! `dm-agentctl --master-addr`: what dmctl asks a dm-master, and what it prints of the answer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::agent::{Answer, run_ctl};
use crate::support::certificates::Authority;
use crate::support::process::{free_port, fresh_folder};
use crate::support::recorded_master::RecordedMaster;

/// Nobody listens there: a command that asks it instead of the master fails.
fn no_socket() -> &'static Path {
    Path::new("/nonexistent/admin.sock")
}

async fn ctl(words: &[&str]) -> Answer {
    run_ctl(no_socket(), words).await
}

/// Files that the recorded commands name.
fn files() -> PathBuf {
    let folder = fresh_folder("ctl-files");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    for entry in std::fs::read_dir(golden).expect("the recorded configurations") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("copy");
    }
    for name in ["schema.sql", "bad.sql"] {
        std::fs::write(folder.join(name), format!("-- {name}\n")).expect("write");
    }
    folder
}

/// A recorded line as the words that the shell made of it; what was quoted is a statement, or a time with a space in it.
fn words(line: &str, folder: &Path) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.split(' ').peekable();
    while let Some(word) = rest.next() {
        let is_file = [".yaml", ".sql"].iter().any(|end| word.ends_with(end));
        words.push(if is_file { folder.join(word).display().to_string() } else { word.to_owned() });
        if word == "--start-time" {
            words.push(rest.by_ref().collect::<Vec<_>>().join(" "));
        }
        let statement = ["insert", "create", "alter"].contains(&rest.peek().copied().unwrap_or_default());
        if statement && words[0] == "binlog" {
            words.push(rest.by_ref().collect::<Vec<_>>().join(" "));
        }
    }
    words
}

/// Every answer that was recorded from a real master goes over the wire and comes out as dmctl printed it, to the byte.
#[tokio::test]
async fn recorded_answers_are_printed_as_dmctl_did() {
    let (master, folder) = (RecordedMaster::start(None).await, files());
    let mut checked = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/dmctl")).expect("recordings") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a recording");
        let line = text.lines().next().and_then(|line| line.strip_prefix("$ dmctl ")).expect("a command").to_owned();
        let (Some(start), Some(end)) = (text.find("\n{\n"), text.rfind("\n}\n")) else { continue };
        let body = &text[start + 1..end + 3];
        let answer: Value = serde_json::from_str(body).expect("JSON");
        // Summaries that dmctl made of answers that were not recorded beside them.
        if answer.get("tasks").is_some() || (answer.get("taskName").is_some()) {
            continue;
        }
        master.answers(answer.clone());
        let mut words = words(&line, &folder);
        // A query without a task or source is shown in short.
        if words == ["query-status"] && answer["result"] == true {
            continue;
        }
        words.extend(["--master-addr".to_owned(), master.address.clone()]);
        let given: Vec<&str> = words.iter().map(String::as_str).collect();
        let printed = ctl(&given).await;
        assert_eq!(printed.stdout, body, "{}: {printed:#?}", path.display());
        let failed = answer["sources"].as_array().is_some_and(|all| all.iter().any(|one| one["result"] == false));
        let expected = if answer["result"] == true && !failed { 0 } else { 2 };
        assert_eq!(printed.exit, Some(expected), "{}: {printed:#?}", path.display());
        checked += 1;
    }
    assert!(checked > 120, "only {checked} recordings were checked");
}

/// What dmctl's flags come to in the request.
#[tokio::test]
async fn flags_become_the_requests_of_dmctl() {
    let (master, folder) = (RecordedMaster::start(None).await, files());
    let task = std::fs::read_to_string(folder.join("task-minimal.yaml")).expect("a task");
    let source = std::fs::read_to_string(folder.join("source-minimal.yaml")).expect("a source");
    master.answers(json!({"result": true}));
    for (line, method, request) in [
        (
            "start-task task-minimal.yaml --remove-meta -s a,b",
            "StartTask",
            json!({"task": task, "removeMeta": true, "sources": ["a", "b"]}),
        ),
        (
            "start-task task-minimal.yaml --start-time 2026-01-01 00:00:00",
            "StartTask",
            json!({"task": task, "startTime": "2026-01-01 00:00:00"}),
        ),
        ("pause-task t1 -s a", "OperateTask", json!({"op": "Pause", "name": "t1", "sources": ["a"]})),
        ("resume-task t1", "OperateTask", json!({"op": "Resume", "name": "t1"})),
        ("stop-task task-minimal.yaml", "OperateTask", json!({"op": "Delete", "name": "t1"})),
        ("check-task task-minimal.yaml -e 3 -w 4", "CheckTask", json!({"task": task, "errCnt": "3", "warnCnt": "4"})),
        ("query-status t1 -s a", "QueryStatus", json!({"name": "t1", "sources": ["a"]})),
        (
            "operate-source create source-minimal.yaml -w w1",
            "OperateSource",
            json!({"op": "StartSource", "config": [source], "workerName": "w1"}),
        ),
        (
            "operate-source update source-minimal.yaml",
            "OperateSource",
            json!({"op": "UpdateSource", "config": [source]}),
        ),
        ("operate-source stop -s a", "OperateSource", json!({"op": "StopSource", "sourceID": ["a"]})),
        ("operate-source show", "OperateSource", json!({"op": "ShowSource"})),
        (
            "start-relay -s a w1 w2",
            "OperateRelay",
            json!({"op": "StartRelayV2", "source": "a", "worker": ["w1", "w2"]}),
        ),
        ("stop-relay -s a", "OperateRelay", json!({"op": "StopRelayV2", "source": "a"})),
        ("pause-relay -s a", "OperateWorkerRelayTask", json!({"op": "PauseRelay", "sources": ["a"]})),
        (
            "purge-relay -s a -f b.000002 --sub-dir u.000001",
            "PurgeWorkerRelay",
            json!({"sources": ["a"], "filename": "b.000002", "subDir": "u.000001"}),
        ),
        ("transfer-source a w2", "TransferSource", json!({"source": "a", "worker": "w2"})),
        ("list-member -w -n w1,w2", "ListMember", json!({"worker": true, "names": ["w1", "w2"]})),
        ("offline-member -w -n w1", "OfflineMember", json!({"type": "worker", "name": "w1"})),
        ("operate-leader evict", "OperateLeader", json!({"op": "EvictLeaderOp"})),
        ("get-config task t1", "GetCfg", json!({"type": "TaskType", "name": "t1"})),
        ("config master m1", "GetCfg", json!({"type": "MasterType", "name": "m1"})),
        ("shard-ddl-lock tp -s a", "ShowDDLLocks", json!({"task": "tp", "sources": ["a"]})),
        (
            "shard-ddl-lock unlock id -o a -f -a exec -d db -t tb -s b",
            "UnlockDDLLock",
            json!({"ID": "id", "replaceOwner": "a", "forceRemove": true, "sources": ["b"], "op": "ExecLock", "database": "db", "table": "tb"}),
        ),
        (
            "binlog skip t1 -b b.000001:4 -s a",
            "HandleError",
            json!({"op": "Skip", "task": "t1", "binlogPos": "b.000001:4", "sources": ["a"]}),
        ),
        (
            "binlog replace t1 alter table d.t add column e int",
            "HandleError",
            json!({"op": "Replace", "task": "t1", "sqls": ["alter table d.t add column e int"]}),
        ),
        (
            "binlog-schema list t1 d t -s a",
            "OperateSchema",
            json!({"op": "GetSchema", "task": "t1", "sources": ["a"], "database": "d", "table": "t"}),
        ),
        (
            "binlog-schema update t1 d t schema.sql -s a",
            "OperateSchema",
            json!({"op": "SetSchema", "task": "t1", "sources": ["a"], "database": "d", "table": "t", "schema": "-- schema.sql\n", "flush": true, "sync": true}),
        ),
        (
            "binlog-schema delete t1 d t -s a",
            "OperateSchema",
            json!({"op": "RemoveSchema", "task": "t1", "sources": ["a"], "database": "d", "table": "t"}),
        ),
        ("validation start --mode fast t1", "StartValidation", json!({"mode_value": "fast", "taskName": "t1"})),
        (
            "validation status --table-stage running t1",
            "GetValidationStatus",
            json!({"taskName": "t1", "filterStatus": "Running"}),
        ),
        ("encrypt x", "Encrypt", json!({"plaintext": "x"})),
    ] {
        master.answers(json!({"result": true}));
        let mut words = words(line, &folder);
        words.extend(["--master-addr".to_owned(), master.address.clone()]);
        let given: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = ctl(&given).await;
        assert_eq!(answer.exit, Some(0), "{answer:#?}");
        assert_eq!(master.asked(), [(method.to_owned(), request)], "{line}");
    }
}

/// Whom it asks, and over what: several addresses, a file in dmctl's form, certificates.
#[tokio::test]
async fn a_master_is_found_and_spoken_to_with_certificates() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let (ours, theirs) = (authority.issue("dmctl"), foreign.issue("stranger"));
    let master = RecordedMaster::start(Some(&authority.issue("master"))).await;
    master.answers(json!({"result": true}));
    let path = |path: &Path| path.display().to_string();
    let (ca, cert, key) = (path(&ours.ca), path(&ours.cert), path(&ours.key));
    let ask = ["transfer-source", "a", "w2", "--master-addr", &master.address];
    let with = |more: &[&str]| -> Vec<String> { ask.iter().chain(more).map(|word| (*word).to_owned()).collect() };
    let run = async |words: Vec<String>| ctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;

    run(with(&["--ssl-ca", &ca, "--ssl-cert", &cert, "--ssl-key", &key])).await.expect_success();
    // An address that nobody has is passed over, and a scheme in front of one is understood.
    let several = format!("127.0.0.1:{},https://{}", free_port(), master.address);
    let answer = run(vec![
        "transfer-source".into(),
        "a".into(),
        "w2".into(),
        "--master-addr".into(),
        several,
        "--ssl-ca".into(),
        ca.clone(),
        "--ssl-cert".into(),
        cert.clone(),
        "--ssl-key".into(),
        key.clone(),
    ])
    .await;
    answer.expect_success();
    let file = fresh_folder("ctl-config").join("dmctl.toml");
    let toml = format!(
        "master-addr = \"{}\"\nrpc-timeout = \"10m\"\nssl-ca = \"{ca}\"\nssl-cert = \"{cert}\"\nssl-key = \"{key}\"\n",
        master.address
    );
    std::fs::write(&file, toml).expect("write dmctl.toml");
    ctl(&["transfer-source", "a", "w2", "--config", &path(&file)]).await.expect_success();
    assert_eq!(master.asked().len(), 3);

    for (what, more) in [
        ("no certificates", vec![]),
        ("none of ours", vec!["--ssl-ca", &ca]),
        (
            "a stranger's",
            vec![
                "--ssl-ca",
                &ca,
                "--ssl-cert",
                theirs.cert.to_str().unwrap(),
                "--ssl-key",
                theirs.key.to_str().unwrap(),
            ],
        ),
        ("another authority", vec!["--ssl-ca", theirs.ca.to_str().unwrap(), "--ssl-cert", &cert, "--ssl-key", &key]),
        ("no such file", vec!["--ssl-ca", "/nonexistent/ca.pem"]),
    ] {
        let began = Instant::now();
        let refused = run(with(&more)).await;
        assert_eq!((refused.exit, refused.stdout.as_str()), (Some(1), ""), "{what}: {refused:#?}");
        assert!(refused.stderr.starts_with("Error: ") && !refused.stderr.contains("panicked"), "{what}: {refused:#?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
    }
    assert_eq!(master.asked().len(), 3, "nobody without a certificate gets through");
}

/// What is no master, or answers nothing, is told; nothing waits longer than it was allowed to.
#[tokio::test]
async fn what_is_no_master_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("an address").to_string();
    let serving = tokio::spawn(async move {
        for turn in 0_u32.. {
            let (mut stream, _) = listener.accept().await.expect("accept");
            tokio::spawn(async move {
                match turn % 3 {
                    0 => drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await),
                    1 => drop(stream.write_all(&[0xff; 4096]).await),
                    // Says nothing, until the other side goes.
                    _ => while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {},
                }
            });
        }
    });
    for _ in 0..3 {
        let began = Instant::now();
        let answer = ctl(&["query-status", "t1", "--master-addr", &address, "--rpc-timeout", "2s"]).await;
        assert_eq!((answer.exit, answer.stdout.as_str()), (Some(1), ""), "{answer:#?}");
        assert!(answer.stderr.starts_with("Error: "), "{answer:#?}");
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    }
    serving.abort();
    let master = RecordedMaster::start(None).await;
    master.answers(json!({"result": "no such field type", "nonsense": 7}));
    let answer = ctl(&["query-status", "t1", "--master-addr", &master.address]).await;
    assert_eq!(answer.exit, Some(1), "{answer:#?}");
    for words in [
        &["status", "--master-addr", &master.address][..],
        &["query-status", "--master-addr", "not an address"],
        &["query-status", "--master-addr", "127.0.0.1:1"],
        &["query-status", "--master-addr", ","],
    ] {
        let answer = ctl(words).await;
        assert_eq!((answer.exit, answer.stdout.as_str()), (Some(1), ""), "{answer:#?}");
    }
}
