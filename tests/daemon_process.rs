//! The daemon as a process: what it prints and answers its exit code with, how it starts, reloads and stops.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dm-agent"));
    command.env_clear();
    command
}

fn run(arguments: &[&str]) -> Output {
    agent().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn prints_and_exits() {
    for flag in ["-V", "--V", "--version"] {
        let output = run(&[flag]);
        let version = concat!("Release Version: dm-agent ", env!("CARGO_PKG_VERSION"), "\n");
        assert!(output.status.success() && stdout(&output).starts_with(version), "{flag}");
        // Each line begins as dm-worker's does.
        for line in
            ["Git Commit Hash: ", "Git Branch: ", "UTC Build Time: ", "Go Version: ", "Failpoint Build: false\n"]
        {
            assert!(stdout(&output).contains(&format!("\n{line}")), "{flag}: {}", stdout(&output));
        }
    }
    let help = run(&["--help"]);
    assert!(help.status.success());
    for flag in ["--config", "--join", "--worker-addr", "--keepalive-ttl", "--state-dir", "--admin-socket", "-L"] {
        assert!(stdout(&help).contains(flag), "{flag}");
    }
    let sample = run(&["-print-sample-config"]);
    assert!(sample.status.success() && stdout(&sample).contains("relay-budget"));
}

#[test]
fn refuses_with_dm_workers_words_and_code() {
    let output = run(&["--nosuchflag"]);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(2), "parse cmd flags err: parse dm-worker config flag set\n")
    );
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("flag provided but not defined: -nosuchflag\n"));
    let output = run(&["--join", "127.0.0.1:8261"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output).lines().next(), Some("parse cmd flags err: host:port '' not valid"));
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("s");
    let output = run(&["--state-dir", state.to_str().unwrap(), "--log-file", "/nowhere/log"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).starts_with("init logger error init logger failed\n  open log /nowhere/log"));
}

/// An agent under a service manager of ours.
struct Service {
    child: Child,
    manager: UnixDatagram,
}

impl Service {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(directory, arguments, Stdio::null())
    }

    fn start_with(directory: &Path, arguments: &[&str], stderr: Stdio) -> Self {
        Self::start_with_env(directory, arguments, stderr, &[])
    }

    fn start_with_env(directory: &Path, arguments: &[&str], stderr: Stdio, env: &[(&str, &str)]) -> Self {
        let socket = directory.join("notify");
        let _ = std::fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        let child = agent()
            .env("NOTIFY_SOCKET", &socket)
            .envs(env.iter().copied())
            .args(["--state-dir", &path("state"), "--admin-socket", &path("admin.sock")])
            .args(arguments)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Service { child, manager }
    }

    fn told(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Reads on until something that contains this is told.
    fn await_told(&self, text: &str) -> String {
        loop {
            let told = self.told();
            if told.contains(text) {
                return told;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn starts_reloads_and_stops_under_a_service_manager() {
    let directory = tempfile::tempdir().unwrap();
    let (config, log) = (directory.path().join("a.toml"), directory.path().join("log"));
    std::fs::write(&config, "log-level = 'info'\n").unwrap();
    let mut service =
        Service::start(directory.path(), &["-config", config.to_str().unwrap(), "-log-file", log.to_str().unwrap()]);
    service.await_told("READY=1");

    // A second agent is told the first one's pid.
    let state = directory.path().join("state");
    let second = run(&["--state-dir", state.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&format!("(pid {})", service.child.id())) && text.contains("agent.state-dir"), "{text}");

    std::fs::write(&config, "log-level = 'warn'\nname = 'other'\n").unwrap();
    service.signal(rustix::process::Signal::HUP);
    assert!(service.await_told("RELOADING=1").contains("MONOTONIC_USEC="));
    service.await_told("READY=1");
    // A file that is wrong now changes nothing.
    std::fs::write(&config, "log-level = 'loud'\n").unwrap();
    service.signal(rustix::process::Signal::USR1);
    service.await_told("RELOADING=1");
    service.await_told("READY=1");

    service.signal(rustix::process::Signal::TERM);
    service.await_told("STOPPING=1");
    assert!(service.child.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("other changes of the configuration take effect at a restart"), "{text}");
    assert!(text.contains("reload configuration") && !text.contains("\"message\":\"stop\""), "level is warn: {text}");
    // The lock went with the process.
    let mut third = Service::start(directory.path(), &[]);
    third.await_told("READY=1");
    third.signal(rustix::process::Signal::INT);
    assert!(third.child.wait().unwrap().success());
}

#[test]
fn nothing_is_dumped_and_nothing_is_readable_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start(directory.path(), &[]);
    service.await_told("READY=1");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    let mode = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/lock")), (0o700, 0o600));
    service.signal(rustix::process::Signal::QUIT);
    assert!(service.child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start_with(directory.path(), &[], Stdio::piped());
    drop(service.child.stderr.take());
    service.await_told("READY=1");
    service.signal(rustix::process::Signal::HUP);
    service.await_told("RELOADING=1");
    service.signal(rustix::process::Signal::TERM);
    assert!(service.child.wait().unwrap().success());
}

/// An order to stop while the agent is still starting is followed, and the service manager is told that starting takes
/// its time.
#[test]
fn a_stop_while_starting_is_followed() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let mut service = Service::start(directory.path(), &[]);
        service.await_told("EXTEND_TIMEOUT_USEC=");
        service.signal(rustix::process::Signal::TERM);
        assert!(service.child.wait().unwrap().success());
        assert!(!directory.path().join("admin.sock").exists());
    }
}

#[test]
fn the_watchdog_is_told_while_everything_moves() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start_with_env(directory.path(), &[], Stdio::null(), &[("WATCHDOG_USEC", "400000")]);
    service.await_told("READY=1");
    service.await_told("WATCHDOG=1");
    service.await_told("WATCHDOG=1");
    service.signal(rustix::process::Signal::TERM);
    service.await_told("EXTEND_TIMEOUT_USEC=");
    assert!(service.child.wait().unwrap().success());
}
