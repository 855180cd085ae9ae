//! Options, end to end: what is accepted acts or says that it does not, and a password is nowhere to be seen.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::{SourceFile, TaskFile};
use crate::support::eventually;
use crate::support::fixture::{location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, fresh_schema};

/// Looks like no other text of a run.
const PASSWORD: &str = "Gr8-Sekrit_pa55";

/// Everything that an agent says about itself: its log at `debug`, each of its pages and answers, its command line, and what refusals say.
#[tokio::test]
async fn a_password_is_nowhere_to_be_seen() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    // The tests' agents log at `debug`.
    let agent = Agent::start(&AgentOptions::default()).await;
    let (mut source_db, mut target_db) = (source.root().await, target.root().await);
    let user = fresh_schema("u");
    for db in [&mut source_db, &mut target_db] {
        db.run(&format!("CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}'")).await;
        db.run(&format!("GRANT ALL ON *.* TO {user}@'%'")).await;
    }
    let as_user = |yaml: String| yaml.replace("user: dm", &format!("user: {user}")).replace("dmpw", PASSWORD);
    let mut said = String::new();
    let good = as_user(SourceFile::new("s", source.kind, source.port).yaml());
    let task = TaskFile { schemas: vec![user.clone()], ..TaskFile::new("t", "s", target.port) };
    let task = as_user(task.yaml());
    // Files that are refused: by the grammar, by a type, by a key, by the server.
    for (command, file, text) in [
        ("operate-source", "a.yaml", good.replace("password: ", "password: '")),
        (
            "operate-source",
            "b.yaml",
            good.replace(&format!("password: {PASSWORD}"), &format!("password: [{PASSWORD}]")),
        ),
        ("operate-source", "c.yaml", good.replace("password: ", "pasword: ")),
        ("operate-source", "d.yaml", good.replace(PASSWORD, &format!("wrong-{PASSWORD}"))),
        ("operate-source", "e.yaml", good.clone() + "from: {}\n"),
        ("start-task", "f.yaml", task.replace("password: ", "password: '")),
        ("start-task", "g.yaml", task.replace(PASSWORD, &format!("wrong-{PASSWORD}"))),
    ] {
        let path = agent.file(file, &text);
        if command == "start-task" {
            let source = agent.file("source.yaml", &good);
            agent.ctl(&["operate-source", "create", &source]).await;
        }
        let answer = match command {
            "start-task" => agent.ctl(&["start-task", &path]).await,
            _ => agent.ctl(&["operate-source", "create", &path]).await,
        };
        assert_ne!(answer.exit, Some(0), "{file}: {}", answer.text());
        said += &answer.text();
    }
    let path = agent.file("task.yaml", &task);
    let started = agent.ctl(&["start-task", &path]).await;
    started.expect_success();
    // Said at `debug`, and nowhere else.
    source_db.run(&format!("CREATE DATABASE {user}_unwanted")).await;
    eventually("a statement is left out", Duration::from_secs(10), async || {
        if agent.log().contains("statement left out") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    source_db.run(&format!("CREATE DATABASE {user}")).await;
    source_db.run(&format!("CREATE TABLE {user}.t (id INT PRIMARY KEY)")).await;
    // The connections of a running task are cut, so that it says what it says of a lost one.
    target_db.run(&format!("ALTER USER {user}@'%' IDENTIFIED BY 'other'")).await;
    agent.ctl(&["pause-task", "t"]).await;
    agent.ctl(&["resume-task", "t"]).await;
    for line in [
        "status",
        "status --json",
        "query-status",
        "query-status t",
        "operate-source show",
        "get-config task t",
        "get-config source s",
        "get-config worker worker1",
        "config source s",
        "list-member",
        "events -n 0",
        "check-task",
    ] {
        let mut words: Vec<&str> = line.split(' ').collect();
        if line == "check-task" {
            words.push(&path);
        }
        said += &agent.ctl(&words).await.text();
    }
    let export = path.replace("task.yaml", "export");
    said += &agent.ctl(&["config", "export", "--path", &export]).await.text();
    for file in ["sources/s.yaml", "tasks/t.yaml"] {
        let text = std::fs::read_to_string(format!("{export}/{file}")).expect("an exported file");
        assert!(text.contains("******"), "{text}");
        said += &text;
    }
    for page in ["/status", "/metrics", "/healthz", "/readyz"] {
        said += &agent.get(page).await.body;
    }
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{}/{file}", agent.pid())).expect("the agent's process");
        said += &String::from_utf8_lossy(&bytes);
    }
    let log = agent.log();
    assert!(log.contains("DEBUG") || log.contains("\"level\":\"DEBUG\""), "the log is not at debug");
    assert!(said.contains("******") && said.len() > 5_000, "little was said: {said}");
    for (what, text) in [("an answer", &said), ("the log", &log)] {
        let line = text.lines().find(|line| line.contains(PASSWORD));
        assert_eq!(line, None, "{what} shows the password");
    }
    agent.ctl(&["stop-task", "t"]).await;
}

#[tokio::test]
async fn what_has_no_meaning_is_said_once_to_whoever_sets_it() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let agent = Agent::start(&AgentOptions { top: "keepalive-ttl = 7\n".into(), ..AgentOptions::default() }).await;
    assert!(agent.log().contains("`keepalive-ttl` has no meaning here"), "{}", agent.log());
    let file = SourceFile { extra: "charset: latin1\n".into(), ..SourceFile::new("s", source.kind, source.port) };
    let path = agent.file("source.yaml", &file.yaml());
    let created = agent.ctl(&["operate-source", "create", &path]).await;
    created.expect_success();
    assert!(created.text().contains("`charset` has no meaning here"), "{}", created.text());
    let schemas = vec![fresh_schema("notes")];
    let task = TaskFile { schemas, extra: "clean-dump-file: false\n".into(), ..TaskFile::new("t", "s", target.port) };
    let path = agent.file("task.yaml", &task.yaml());
    let started = agent.ctl(&["start-task", &path]).await;
    started.expect_success();
    let note = "`clean-dump-file` has no meaning here";
    assert!(started.text().contains(note), "{}", started.text());
    assert!(started.text().contains(r#""msg": """#) && !started.text().contains(r#""msg": "`"#), "{}", started.text());
    assert!(agent.ctl(&["status"]).await.text().contains(note));
    let log = agent.log();
    assert!(log.contains("`charset` has no meaning here") && log.contains(note), "{log}");
    agent.ctl(&["stop-task", "t"]).await;
}

/// Receiving begins at the file or set that the source names, not at the server's end.
#[tokio::test]
async fn a_relay_begins_where_the_source_says() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let mut db = source.root().await;
    db.run_all(["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "FLUSH BINARY LOGS"]).await;
    let first = db.texts("SHOW BINARY LOGS").await[0][0].clone();
    let wanted = location(&mut db, source.kind).await;
    assert_ne!(wanted.file, first);
    let agent = Agent::start(&AgentOptions::default()).await;
    let set = format!("relay-binlog-gtid: \"{}\"\n", wanted.gtid);
    for (id, extra, file) in [
        ("by-file", format!("enable-relay: true\nrelay-binlog-name: {first}\n"), &first),
        ("by-set", format!("enable-relay: true\n{set}"), &wanted.file),
    ] {
        let file_of = SourceFile { extra, ..SourceFile::new(id, source.kind, source.port) };
        let path = agent.file("source.yaml", &SourceFile { gtid: id == "by-set", ..file_of }.yaml());
        agent.ctl(&["operate-source", "create", &path]).await.expect_success();
        eventually("the relay log has what the source has", Duration::from_secs(20), async || {
            let status = agent.status().await;
            let sources = status["sources"].as_array().expect("sources").clone();
            let source = sources.iter().find(|source| source["source_id"] == id).expect("the source").clone();
            let received = source["received"]["file"] == wanted.file.as_str();
            if received { Ok(()) } else { Err(source.to_string()) }
        })
        .await;
        let status = agent.status().await;
        let text = status.to_string();
        let oldest = status["sources"].as_array().expect("sources").iter().find(|source| source["source_id"] == id);
        let oldest = &oldest.expect("the source")["relay"]["oldest"]["file"];
        assert!(oldest == file.as_str() || (id == "by-set" && oldest == ""), "{id}: {oldest} of {text}");
    }
    for (extra, words) in [
        ("enable-relay: true\nrelay-binlog-name: mysql-bin.000099\n".to_owned(), vec!["mysql-bin.000099"]),
        (format!("enable-relay: true\n{set}"), vec!["relay-binlog-gtid", "enable-gtid"]),
    ] {
        let file = SourceFile { extra, gtid: false, ..SourceFile::new("bad", source.kind, source.port) };
        let path = agent.file("source.yaml", &file.yaml());
        agent.ctl(&["operate-source", "create", &path]).await.expect_refusal(&words);
    }
}

/// An HTTP/1 exchange over TCP.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("worker-addr listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    // The other side closes, or the limit passes.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn worker_addr_serves_pages_and_takes_no_orders() {
    // The tests' agents have an address each.
    let agent = Agent::start(&AgentOptions::default()).await;
    let config = std::fs::read_to_string(agent.config()).expect("its configuration");
    let address = config.split("worker-addr = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("an address");
    let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let get = |path: &str| ask(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    for (path, word) in [("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", "dm_agent_"), ("/status", "worker1")] {
        let answer = get(path);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(word), "{path}: {answer}");
    }
    assert!(get("/pb.Master/QueryStatus").starts_with("HTTP/1.1 404"));
    let order = "POST /pb.Master/OperateTask HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\
                 Content-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(ask(port, order).contains("grpc-status: 12"), "unimplemented: {}", ask(port, order));
    assert!(ask(port, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    // A second one cannot have it, and says so.
    let other = agent.file("other.toml", &format!("worker-addr = \"127.0.0.1:{port}\"\n"));
    let state = other.replace("other.toml", "other-state");
    let socket = format!("{state}.sock");
    let refused = agent.run_daemon(&["--config", &other, "--state-dir", &state, "--admin-socket", &socket]).await;
    assert_eq!(refused.exit, Some(2), "{refused:?}");
    for word in ["worker-addr", &port.to_string(), "free port"] {
        assert!(refused.text().contains(word), "{word}: {refused:?}");
    }
}
