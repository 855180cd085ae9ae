//! `systemd/dm-agent.service` against the daemon that it starts: what the unit says and what the daemon does agree.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const UNIT: &str = include_str!("../systemd/dm-agent.service");
const SYSUSERS: &str = include_str!("../systemd/dm-agent.sysusers");
const SAMPLE: &str = include_str!("../config/dm-agent.toml");
const AGENT: &str = env!("CARGO_BIN_EXE_dm-agent");
const LIMIT: Duration = Duration::from_secs(20);

/// All values of a key of `[Service]`, in order.
fn values(key: &str) -> Vec<&'static str> {
    let service = UNIT.split_once("[Service]").expect("a section [Service]").1;
    let service = service.split_once("[Install]").expect("a section [Install]").0;
    let assignment = |line: &'static str| line.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value);
    service.lines().filter_map(assignment).collect()
}

fn value(key: &str) -> &'static str {
    match values(key)[..] {
        [value] => value,
        ref other => panic!("{key} is there {} times", other.len()),
    }
}

fn seconds(key: &str) -> u64 {
    value(key).parse().unwrap_or_else(|_| panic!("{key} is no number of seconds"))
}

/// The command's arguments, with `config` in place of the unit's file.
fn arguments(config: &Path) -> Vec<String> {
    let mut words = value("ExecStart").split(' ');
    assert_eq!(words.next(), Some("/usr/bin/dm-agent"));
    let own = |word: &str| match word {
        "/etc/dm-agent/dm-agent.toml" => config.display().to_string(),
        word => word.to_owned(),
    };
    words.map(own).collect()
}

fn agent(arguments: &[String]) -> Command {
    let mut command = Command::new(AGENT);
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// Kills the daemon when the test fails.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(daemon: &Daemon, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon.0), signal).expect("send a signal");
}

/// Reads notifications until one contains this.
fn await_told(manager: &UnixDatagram, text: &str) {
    let deadline = Instant::now() + LIMIT;
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("waiting for {text}: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).contains(text) {
            return;
        }
    }
    panic!("{text} was not told");
}

/// What systemd would give it: directories, a place to notify, a watchdog. The sample configuration is the one installed.
#[test]
fn the_daemon_does_what_the_unit_relies_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::write(path("dm-agent.toml"), SAMPLE).expect("write the sample");
    for directory in ["state", "run"] {
        std::fs::create_dir(path(directory)).expect("make a directory");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(path(directory), mode).expect("set its mode");
    }
    let manager = UnixDatagram::bind(path("notify")).expect("bind the notify socket");
    manager.set_read_timeout(Some(LIMIT)).expect("limit the wait");
    // A watchdog of the unit's kind, only faster.
    let child = agent(&arguments(&path("dm-agent.toml")))
        .env("NOTIFY_SOCKET", path("notify"))
        .env("STATE_DIRECTORY", path("state"))
        .env("RUNTIME_DIRECTORY", path("run"))
        .env("WATCHDOG_USEC", "1000000")
        .stderr(Stdio::null())
        .spawn();
    let mut daemon = Daemon(child.expect("start the daemon"));
    assert_eq!(value("Type"), "notify");
    await_told(&manager, "READY=1");
    assert!(path("run/admin.sock").exists() && path("state/checkpoint").exists(), "it uses systemd's directories");
    await_told(&manager, "WATCHDOG=1");
    assert_eq!(value("ExecReload"), "/bin/kill -USR1 $MAINPID");
    signal(&daemon, rustix::process::Signal::USR1);
    await_told(&manager, "RELOADING=1");
    await_told(&manager, "READY=1");
    signal(&daemon, rustix::process::Signal::TERM);
    await_told(&manager, "STOPPING=1");
    assert_eq!(daemon.0.wait().expect("its end").code(), Some(0));
    assert!(!path("run/admin.sock").exists());
}

#[test]
fn limits_agree_with_the_daemons() {
    // A drain tells systemd of what it needs beyond this; the default needs none.
    assert!(seconds("TimeoutStopSec") >= 10 && seconds("WatchdogSec") >= 20);
    assert_eq!((value("StateDirectoryMode"), value("UMask"), value("LimitCORE")), ("0700", "0077", "0"));
    for directory in ["StateDirectory", "RuntimeDirectory", "ConfigurationDirectory"] {
        assert_eq!(value(directory), "dm-agent");
    }
    assert!(SYSUSERS.lines().any(|line| line.starts_with(&format!("u {} ", value("User")))));
    assert_eq!(value("Restart"), "on-failure");
    // The daemon switches core dumps off itself, and would not start where it may not.
    let filters = values("SystemCallFilter");
    let denied = filters.iter().position(|filter| filter.contains("@resources")).expect("a filter");
    assert!(filters[denied + 1..].contains(&"setrlimit prlimit64"));
    // Peers of the admin socket are told apart by their ids.
    assert!(values("PrivateUsers").is_empty());
}

#[test]
fn a_configuration_that_cannot_run_is_not_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("dm-agent.toml");
    std::fs::write(&config, "nam = 1\n").expect("write a configuration");
    let output = agent(&arguments(&config)).output().expect("run the daemon");
    assert_eq!(output.status.code().map(|code| code.to_string()).as_deref(), Some(value("RestartPreventExitStatus")));
}

/// systemd's own judgement, where it is installed.
#[test]
fn systemd_accepts_the_unit() {
    let analyze = |arguments: &[&str]| -> Option<Output> {
        match Command::new("systemd-analyze").args(arguments).output() {
            Ok(output) => Some(output),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("systemd-analyze: {error}"),
        }
    };
    if analyze(&["--version"]).is_none() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("dm-agent.service");
    std::fs::write(&unit, UNIT.replace("/usr/bin/dm-agent", AGENT)).expect("write the unit");
    let unit = unit.display().to_string();
    let verified = analyze(&["verify", "--man=no", &unit]).expect("it is there");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("dm-agent")).collect();
    assert!(about_ours.is_empty(), "{said}");
    // Exposure in tenths: 1.5 at most.
    let judged = analyze(&["security", "--offline=true", "--threshold=15", &unit]).expect("it is there");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
