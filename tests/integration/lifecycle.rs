//! The daemon itself: start, stop, a second instance, the socket.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::agent::{Agent, AgentOptions, run_ctl};
use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, location, shared_pair};
use crate::support::process::{Process, free_port, fresh_folder};
use crate::support::servers::{Kind, Server, ServerOptions};
use crate::support::socket;
use crate::support::workload::{Mix, Workload};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn answers_before_it_has_any_source() {
    let mut agent = Agent::start(&AgentOptions::default()).await;
    assert_eq!(agent.get("/healthz").await.status, 200);
    assert_eq!(agent.get("/readyz").await.status, 200);
    let metrics = agent.get("/metrics").await;
    assert!(metrics.status == 200 && metrics.body.contains("# TYPE"), "{metrics:?}");
    assert_eq!(agent.get("/nosuch").await.status, 404);
    let answer = agent.ctl(&["query-status"]).await;
    assert_eq!(answer.json(), serde_json::json!({"result": true, "msg": "", "tasks": []}));
    let mode = std::fs::metadata(agent.socket()).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    assert!(agent.terminate().success());
    assert!(!agent.socket().exists(), "a stopped agent leaves no socket");
    agent.assert_quiet_log();
}

#[tokio::test]
async fn a_second_agent_on_the_same_state_is_refused_with_the_first_ones_pid() {
    let agent = Agent::start(&AgentOptions::default()).await;
    let second = agent.run_daemon(&["--config", &agent.config()]).await;
    assert_ne!(second.exit, Some(0));
    assert!(second.text().contains(&agent.pid().to_string()), "{second:#?}");
    assert_eq!(agent.get("/healthz").await.status, 200);
}

/// A socket left by kill -9 is no obstacle; one that somebody listens on is.
#[tokio::test]
async fn a_stale_socket_is_removed_and_a_taken_one_is_not() {
    let mut agent = Agent::start(&AgentOptions::default()).await;
    agent.kill9();
    assert!(agent.socket().exists());
    agent.restart().await;

    let other = fresh_folder("other");
    let config = other.join("dm-agent.toml");
    let text = format!(
        "name = \"w2\"\nworker-addr = \"127.0.0.1:0\"\n[agent]\nstate-dir = \"{}\"\nadmin-socket = \"{}\"\n",
        other.join("state").display(),
        agent.socket().display()
    );
    std::fs::write(&config, text).expect("write a configuration");
    let second = agent.run_daemon(&["--config", &config.display().to_string()]).await;
    assert_ne!(second.exit, Some(0));
    assert!(second.text().contains("admin.sock"), "{second:#?}");
    assert_eq!(agent.get("/healthz").await.status, 200, "the first one still has its socket");
}

/// SIGTERM under load drains; the next start goes on from there.
#[tokio::test]
async fn a_stop_under_load_loses_nothing() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::start("drain", &source, &target, &LinkOptions::default()).await;
    let mut workload = Workload::from_env(Mix::default());
    link.source.run_all(workload.setup()).await;
    for _ in 0..3 {
        workload.run(&mut link.source, 60).await;
        let status = link.agent.terminate();
        assert!(status.success(), "a drained stop ends with 0, not {status}");
        link.agent.restart().await;
    }
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// With defaults, as an ordinary user would run it: XDG folders, the socket among them.
#[tokio::test]
async fn runs_with_defaults_as_an_ordinary_user() {
    let home = fresh_folder("home");
    let runtime = home.join("run");
    std::fs::create_dir_all(&runtime).expect("create a runtime folder");
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).expect("set permissions");
    // The build folder may be closed to others.
    let program = home.join("dm-agent");
    std::fs::copy(env!("CARGO_BIN_EXE_dm-agent"), &program).expect("copy the agent");
    let text = |path: &Path| path.display().to_string();
    let envs = [
        ("HOME".to_owned(), text(&home)),
        ("XDG_STATE_HOME".to_owned(), text(&home.join("state"))),
        ("XDG_RUNTIME_DIR".to_owned(), text(&runtime)),
    ];
    // Only the port is named: another run may have the default one.
    let mut args = vec!["--worker-addr".to_owned(), format!("127.0.0.1:{}", free_port())];
    let mut command = program.clone();
    if rustix::process::geteuid().is_root() {
        for path in [&home, &runtime] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("give the folder away");
        }
        let become_nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--pdeathsig", "KILL", "--"];
        args.splice(0..0, become_nobody.iter().map(|word| word.to_string()).chain([text(&program)]));
        command = "setpriv".into();
    }
    let mut process = Process::start("dm-agent", &command, &args, &envs, &home.join("log"));
    let socket = runtime.join("dm-agent/admin.sock");
    eventually("an agent with defaults answers", Duration::from_secs(20), async || {
        assert!(process.exit_status().is_none(), "it ended");
        socket::get(&socket, "/readyz").await
    })
    .await;
    run_ctl(&socket, &["query-status"]).await.expect_success();
    process.signal(Signal::INT);
    eventually("SIGINT ends it", Duration::from_secs(20), async || {
        process.exit_status().ok_or_else(|| "still running".into())
    })
    .await;
}

/// What the file leaves open is asked or chosen once, and shown: a source made again from this text is the same replica.
#[tokio::test]
async fn get_config_shows_a_source_as_it_holds() {
    let (source, _) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let agent = Agent::start(&AgentOptions::default()).await;
    let text = format!("source-id: bare\nfrom: {{host: 127.0.0.1, port: {}, user: dm, password: dmpw}}\n", source.port);
    let path = agent.file("bare.yaml", &text);
    agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    let shown =
        agent.ctl(&["get-config", "source", "bare"]).await.json()["cfg"].as_str().unwrap_or_default().to_owned();
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default();
    assert_eq!(value("flavor:"), "mysql", "{shown}");
    assert!(value("server-id:").parse::<u32>().is_ok_and(|id| id > 0), "{shown}");
}

/// Where a task began that was told to begin at the source's end, which a dm-master writes into the task: one made from this
/// text begins there, too.
#[tokio::test]
async fn get_config_shows_where_a_task_began() {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let (_, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = Link::with_mode("incremental", "began", &source, &target, &LinkOptions::default()).await;
    let end = location(&mut link.source, Kind::MySql).await;
    link.start_task().await.expect_success();
    let schema = link.schema.clone();
    link.target.run(&format!("CREATE DATABASE {schema}")).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    link.wait_equal().await;
    let shown = link.agent.ctl(&["get-config", "task", &link.task]).await.json()["cfg"].as_str().map(str::to_owned);
    let meta = format!(
        "  meta:\n    binlog-name: {}\n    binlog-pos: {}\n    binlog-gtid: {}\n",
        end.file, end.position, end.gtid
    );
    assert!(shown.as_ref().is_some_and(|text| text.contains(&meta)), "{shown:?}, not {meta}");
}
