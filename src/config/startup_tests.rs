//! The command line and the file of the daemon, against what a real dm-worker printed (golden `worker-cli`).

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn environment() -> Environment {
    Environment { home: Some("/home/u".into()), host_name: "host1".into(), ..Environment::default() }
}

fn run(line: &str) -> Result<WorkerConfig, StartError> {
    let arguments = line.split_whitespace().map(str::to_owned).collect();
    match Invocation::from_command_line(arguments, environment())? {
        Invocation::Run(config) => Ok(*config),
        Invocation::Print(text) => panic!("{line} prints {text}"),
    }
}

/// Runs with a file that has this text, then with more flags.
fn run_file(text: &str, line: &str) -> Result<WorkerConfig, StartError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    std::fs::write(&path, text).unwrap();
    run(&format!("--config {} {line}", path.display()))
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/golden/config/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn no_argument_is_enough() {
    let config = run("").unwrap();
    assert_eq!((config.name.as_str(), config.joins(), config.worker_addr.clone()), ("host1", false, None));
    assert_eq!(config.agent.state_dir, Path::new("/home/u/.local/state/dm-agent"));
    assert_eq!(config.agent.admin_socket, Path::new("/home/u/.local/state/dm-agent/admin.sock"));
    assert_eq!((config.agent.relay_budget, config.agent.pause_drain_limit), (64 << 30, Duration::from_secs(2)));
    assert_eq!((config.log, config.announcement.as_str()), (LogConfig::default(), ""));
}

#[test]
fn a_dm_worker_file_is_taken_unchanged() {
    let config = run_file(&golden("worker-full.toml"), "").unwrap();
    assert_eq!((config.name.as_str(), config.join.as_slice()), ("worker1", &["127.0.0.1:8261".to_owned()][..]));
    assert_eq!(config.worker_addr.as_deref(), Some("127.0.0.1:8262"));
    assert_eq!((config.keepalive_ttl.as_secs(), config.relay_keepalive_ttl.as_secs()), (60, 1800));
    assert_eq!(config.log.format, LogFormat::Unified);
    assert_eq!((config.security.clone(), config.notes().len()), (None, 0));
}

#[test]
fn prints_the_file_as_dm_worker_does() {
    let text = "name = 'worker1'\nlog-file = 'DIR/w1/worker.log'\njoin = 'http://127.0.0.1:18261'\n\
                worker-addr = '127.0.0.1:8262'\nadvertise-addr = '127.0.0.1:18262'\n";
    let mut config = run_file(text, "").unwrap();
    config.config_file = None;
    assert_eq!(config.to_dm_toml(), golden("get-config-worker.toml"));
}

#[test]
fn flags_go_before_the_file() {
    let text = "name = 'a'\nlog-level = 'warn'\n[agent]\nstate-dir = '/s'\nrelay-budget = '1GiB'\n";
    let config = run_file(text, "-name b --state-dir /t").unwrap();
    assert_eq!((config.name.as_str(), config.log.level.level), ("b", LogLevel::Warn));
    assert_eq!((config.agent.state_dir.as_path(), config.agent.relay_budget), (Path::new("/t"), 1 << 30));
}

#[test]
fn a_changed_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    std::fs::write(&path, "log-level = 'info'").unwrap();
    let config = run(&format!("--config {}", path.display())).unwrap();
    std::fs::write(&path, "log-level = 'debug'").unwrap();
    assert_eq!(config.reload().unwrap().log.level.level, LogLevel::Debug);
    std::fs::write(&path, "log-level = 'x'").unwrap();
    assert!(config.reload().is_err());
}

#[test]
fn refusals_begin_with_dm_workers_line() {
    let head = |result: Result<WorkerConfig, StartError>| {
        result.unwrap_err().stdout.lines().next().unwrap_or_default().to_owned()
    };
    let err = |text: &str| format!("parse cmd flags err: {text}");
    assert_eq!(head(run("--nosuchflag")), err("parse dm-worker config flag set"));
    assert!(run("--nosuchflag").unwrap_err().stderr.starts_with("flag provided but not defined: -nosuchflag\n"));
    assert_eq!(head(run("extra-arg")), err("'extra-arg' is an invalid flag"));
    assert_eq!(head(run("--join 127.0.0.1:8261")), err("host:port '' not valid"));
    for address in [":8262", "0.0.0.0:8262"] {
        let text = format!(
            "worker-addr ({address}) must include the 'host' part (should not be '0.0.0.0') when advertise-addr is not set"
        );
        assert_eq!(head(run(&format!("--worker-addr {address} --join 127.0.0.1:8261"))), err(&text));
    }
    assert_eq!(head(run("--worker-addr 127.0.0.1 --join 127.0.0.1:8261")), err("host:port '127.0.0.1' not valid"));
    assert_eq!(head(run("--config /nowhere/none.toml")), err("toml decode file"));
    let a = run_file("worker-addr = '127.0.0.1:8262'\nnosuchkey = 1\n", "");
    assert_eq!(head(a), err("worker config contains unknown configuration options: nosuchkey"));
    assert_eq!(head(run_file("keepalive-ttl = 'soon'\n", "")), err("toml decode file"));
    for advertise in ["0.0.0.0:8262", ":8262"] {
        let text = format!("worker-addr = '127.0.0.1:8262'\nadvertise-addr = '{advertise}'\n");
        let expected =
            "host:port 'advertise-addr (%s) must include the 'host' part and should not be '0.0.0.0'' not valid";
        assert_eq!(head(run_file(&text, "")), err(&format!("{expected}%!(EXTRA string={advertise})")));
    }
    let level = run("--worker-addr 127.0.0.1:8262 --join 127.0.0.1:8261 -L nolevel").unwrap_err().stdout;
    assert_eq!(
        level,
        "worker name is not given, we will set AdvertiseAddr 127.0.0.1:8262 as the worker name\ninit logger error init logger \
         failed\n  log-level: \"nolevel\" is not a log level; give `debug`, `info`, `warn`, `error` or `fatal`\n"
    );
}

#[test]
fn everything_wrong_is_said_below() {
    let text = "nam = 'x'\nkeepalive-ttl = 0\njoin = 'nohost'\nworker-addr = 'x'\nssl-cert = 'c'\n[agent]\nrelay-budgt = 1\n\
                relay-budget = '1QB'\nsecret-key-path = '/nowhere'\nlog-target = 'here'\n";
    let error = run_file(text, "-L loud").unwrap_err();
    assert_eq!(
        error.stdout.lines().collect::<Vec<_>>(),
        [
            "parse cmd flags err: toml decode file",
            "  join: \"nohost\" is not an address; give the masters as `host:port`, separated by commas",
            "  agent.relay-budget: \"1QB\" is not a size; give a number with a unit, such as `64GiB`",
            "  agent.secret-key-path: read secret key file /nowhere: No such file or directory (os error 2); give the file that \
             dm-master's `secret-key-path` names",
            "  agent.log-target: \"here\" is not known; give `auto`, `stderr`, `journald`",
            "  agent.relay-budgt: is not a known key; did you mean `relay-budget`?",
            "  keepalive-ttl: 0 is not a whole number in range; give a number from 1 to 2592000",
            "  ssl-key: is missing; give the private key that belongs to `ssl-cert`",
            "  nam: is not a known key; did you mean `name`?",
            "  host:port 'x' not valid",
            "  log-level: \"loud\" is not a log level; give `debug`, `info`, `warn`, `error` or `fatal`",
        ]
    );
}

/// What stands behind `[agent]` is in that table, whatever it was meant for.
#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    let error = run_file("state-dir = '/x'\n[agent]\njoin = '127.0.0.1:8261'\n", "").unwrap_err();
    assert_eq!(
        error.stdout.lines().skip(1).collect::<Vec<_>>(),
        [
            "  agent.join: is not a known key; it belongs to the top level of the file",
            "  state-dir: is not a known key; it belongs in `agent`",
        ]
    );
}

#[test]
fn limits_and_missing_homes_are_named() {
    let error = run_file("[agent]\nrelay-budget = '1MiB'\npause-drain-limit = '2h'\n", "").unwrap_err();
    assert_eq!(error.stdout.lines().count(), 3, "{error}");
    let error = Invocation::from_command_line(Vec::new(), Environment::default()).unwrap_err();
    assert!(error.stdout.contains("agent.state-dir: has no default because neither HOME"), "{error}");
    let long = "x".repeat(120);
    assert!(run(&format!("--admin-socket /{long}")).unwrap_err().stdout.contains("longer than the 107 bytes"));
}

#[test]
fn secret_keys_come_from_a_file_or_a_credential() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("secret-key"),
        "35eb3ba5aae6702e05f5459be6dfe51cad4d8c80b10a742633ec017932791107\n",
    )
    .unwrap();
    let environment = Environment { credentials_directory: Some(directory.path().into()), ..environment() };
    let Invocation::Run(config) = Invocation::from_command_line(Vec::new(), environment).unwrap() else {
        panic!("runs")
    };
    let key = config.agent.secret_key.as_ref().unwrap();
    assert_eq!(key.reveal(&Secret::new("4k8KBGQHFKVhYQq1xzB29UB2JgSI")).expose(), "dmpw");
    assert_eq!(run("").unwrap().agent.secret_key, None);
}

#[test]
fn samples_say_what_the_defaults_are() {
    let with_sample = run_file(SAMPLE, "").unwrap();
    let without = run("").unwrap();
    assert_eq!((&with_sample.agent, &with_sample.log), (&without.agent, &without.log));
    assert_eq!((with_sample.keepalive_ttl, with_sample.notes()), (without.keepalive_ttl, Vec::new()));
    // Uncommented, every key is known and of the right type; only the files that it names do not exist.
    let uncommented: String = SAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .filter(|line| !line.starts_with("secret-key-path"))
        .collect();
    let config = run_file(&uncommented, "").unwrap();
    assert!(config.joins() && config.security.is_some());

    let read = |name: &str| std::fs::read_to_string(format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let source = SourceConfig::from_yaml(&read("source.yaml")).unwrap();
    assert!(source.notes().is_empty());
    let task = TaskConfig::from_yaml(&read("task.yaml")).unwrap();
    let subtask = task.subtask(&source.source_id).unwrap();
    assert_eq!((subtask.refusals(), subtask.syncer.clone()), (Vec::new(), SyncerConfig::default()));
}

proptest! {
    #[test]
    fn any_command_line_is_read_or_refused(arguments in proptest::collection::vec("-{0,3}[a-zA-Z=:.\\-]{0,12}", 0..6)) {
        // A file that happens to be named must not be read in a test.
        prop_assume!(!arguments.iter().any(|argument| argument.trim_start_matches('-').starts_with("config")));
        let _ = Invocation::from_command_line(arguments, environment());
    }

    #[test]
    fn any_file_is_read_or_refused(text in prop_oneof!["(?s).{0,80}", "([a-z-]{1,14} = ['\"0-9a-z\\[\\]]{0,6}\n){0,5}"]) {
        let _ = run_file(&text, "");
    }
}
