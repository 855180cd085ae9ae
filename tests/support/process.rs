//! Child processes that never outlive the tests, and folders that go with them.
//!
//! Invariant: when this process ends, in whatever way, every child is killed and the run's folder is removed. Children get
//! SIGKILL from the kernel when their parent *thread* ends, so all are started by one thread that lives as long as the process. The
//! folder is removed by a watcher process whose standard input ends with this process. `KEEP_TEST_FILES=1` keeps the folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that starts every child.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<SpawnRequest>>> = LazyLock::new(|| {
    let (requests, inbox) = mpsc::channel::<SpawnRequest>();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, answer) in inbox {
                // The test may have given up; its child then has no owner and must not stay.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        })
        .expect("start the spawner thread");
    Mutex::new(requests)
});

/// The run's folder, short because socket paths are limited to 107 bytes.
static RUN_FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("dma-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("create the run's folder");
    if std::env::var_os("KEEP_TEST_FILES").is_none() {
        watch_folder(&folder);
    }
    folder
});

/// Starts the process that removes the folder once this process is gone; servers that are being killed may still write, so it tries
/// more than once.
fn watch_folder(folder: &Path) {
    let watcher = Command::new("/bin/sh")
        .arg("-c")
        .arg("cat >/dev/null; for _ in 1 2 3 4 5; do rm -rf \"$1\" 2>/dev/null && break; sleep 0.2; done")
        .arg("watcher")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // an interrupt from the terminal must not reach it
        .spawn()
        .expect("start the watcher");
    // Its standard input must stay open until the very end.
    std::mem::forget(watcher);
}

/// A new folder of its own below the run's folder.
pub fn fresh_folder(label: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let folder = RUN_FOLDER.join(format!("{label}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&folder).expect("create a folder for a test");
    folder
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    // Its content and not itself: the copy of a link would be the folder.
    let content = from.join(".");
    let status = Command::new("cp").args(["-a", "--reflink=auto", "--sparse=always"]).arg(content).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "copy {} to {}", from.display(), to.display());
}

/// A TCP port nobody listens on now, outside the range the kernel gives to outgoing connections, so that a server that is restarted
/// finds its port free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    // Runs beside each other begin at different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + start.wrapping_add(step) % COUNT) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// A child process with its output in a file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    label: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with both outputs appended to `log`.
    pub fn start(label: &str, program: &Path, args: &[String], envs: &[(String, String)], log: &Path) -> Process {
        let output = open_log(log);
        // exec keeps the process id, so the signals below reach the program itself.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .envs(envs.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("duplicate the log's descriptor"))
            .stderr(output)
            .process_group(0);
        let child = spawn(command).unwrap_or_else(|error| panic!("start {label} ({}): {error}", program.display()));
        Process { child, label: label.into(), log: log.into() }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Sends a signal; nothing happens if the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_some() {
            return;
        }
        // Not waited for yet, so the id still names this process.
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id is positive");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.label));
    }

    /// SIGSTOP, and waits until every thread stands still: the signal reaches them one after the other.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.stands_still() {
            assert!(Instant::now() < deadline, "{} does not stop", self.label);
            std::thread::yield_now();
        }
    }

    /// Whether every thread is stopped.
    fn stands_still(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return true };
        threads.flatten().all(|thread| {
            let stat = read_lossy(&thread.path().join("stat"));
            // The state follows the name, which is in parentheses and may hold anything. An empty file: the thread has ended.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// kill -9, and waits for the end.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end, at most for `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end within {limit:?} after SIGTERM", self.label);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything it has written so far.
    pub fn log_text(&self) -> String {
        read_lossy(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ({})\n{}", self.label, self.log.display(), tail(&self.log_text(), 40));
        }
    }
}

fn spawn(command: Command) -> io::Result<Child> {
    let (answer, outcome) = mpsc::channel();
    let requests = SPAWNER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    requests.send((command, answer)).expect("the spawner lives as long as the process");
    outcome.recv().expect("the spawner answers every request")
}

fn open_log(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("open a log file")
}

/// A file's text; empty if it does not exist, odd bytes replaced.
pub fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// The last `count` lines.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
