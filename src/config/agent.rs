//! Our own table of the daemon's file, `[agent]`, and what of the process's environment its defaults come from.
//!
//! Every key has a default that works, for root, for a service under systemd and for an ordinary user without a
//! session.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::password::SecretKey;
use super::section::Section;

/// Longest path of a Unix socket on Linux, without the closing zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// The part of the environment that defaults come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// Whether we are root.
    pub is_root: bool,
    /// This host's name.
    pub host_name: String,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$STATE_DIRECTORY` of systemd, the first of them.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY` of systemd, the first of them.
    pub runtime_directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY` of systemd.
    pub credentials_directory: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
}

impl Environment {
    /// What this process was started with. Relative paths count as not set, as the XDG rules say.
    pub fn of_process() -> Self {
        let path = |name: &str| {
            let value = std::env::var_os(name)?;
            // systemd joins several directories with colons.
            let text = value.to_string_lossy();
            let first = PathBuf::from(text.split(':').next().unwrap_or_default());
            first.is_absolute().then_some(first)
        };
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Environment {
            is_root: rustix::process::geteuid().is_root(),
            host_name: if host_name.is_empty() { "dm-agent".to_owned() } else { host_name },
            home: path("HOME"),
            state_directory: path("STATE_DIRECTORY"),
            runtime_directory: path("RUNTIME_DIRECTORY"),
            credentials_directory: path("CREDENTIALS_DIRECTORY"),
            xdg_state_home: path("XDG_STATE_HOME"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
        }
    }

    /// Where state goes by default; `None` where nothing says where this user's files are.
    pub fn state_dir(&self) -> Option<PathBuf> {
        if let Some(directory) = &self.state_directory {
            return Some(directory.clone());
        }
        if self.is_root {
            return Some("/var/lib/dm-agent".into());
        }
        let home = self.home.as_ref().map(|home| home.join(".local/state"));
        Some(self.xdg_state_home.clone().or(home)?.join("dm-agent"))
    }

    /// The same for a worker of a cluster. Several of them run on one machine without knowing of each other, so each has
    /// a folder of its name there; systemd has given each service a directory of its own already.
    fn worker_state_dir(&self, worker: &str) -> Option<PathBuf> {
        let directory = self.state_dir()?;
        Some(if self.state_directory.is_some() { directory } else { directory.join(folder_name(worker)) })
    }

    /// Where an agent that stands alone puts its admin socket by default, beside its state if there is no runtime
    /// directory.
    pub fn admin_socket(&self, state_dir: &Path) -> PathBuf {
        self.runtime_dir().unwrap_or_else(|| state_dir.to_owned()).join("admin.sock")
    }

    fn worker_admin_socket(&self, worker: &str, state_dir: &Path) -> PathBuf {
        match self.runtime_dir() {
            Some(directory) if self.runtime_directory.is_none() => directory.join(folder_name(worker)),
            Some(directory) => directory,
            // It has the name already.
            None => state_dir.to_owned(),
        }
        .join("admin.sock")
    }

    fn runtime_dir(&self) -> Option<PathBuf> {
        match (&self.runtime_directory, &self.xdg_runtime_dir) {
            (Some(directory), _) => Some(directory.clone()),
            (None, _) if self.is_root => Some("/run/dm-agent".into()),
            (None, directory) => directory.as_ref().map(|directory| directory.join("dm-agent")),
        }
    }

    /// Where a command line looks for a running agent's socket, nearest first: this user's own, then the system's.
    pub fn admin_socket_candidates(&self) -> Vec<PathBuf> {
        let mut candidates = Vec::new();
        if let Some(state_dir) = self.state_dir() {
            candidates.push(self.admin_socket(&state_dir));
            candidates.push(state_dir.join("admin.sock"));
        }
        candidates.push("/run/dm-agent/admin.sock".into());
        let mut seen = std::collections::BTreeSet::new();
        candidates.retain(|path| seen.insert(path.clone()));
        candidates
    }

    /// The sockets that workers of a cluster have made in the places of [`Self::admin_socket_candidates`], in folders of
    /// their names.
    pub fn worker_sockets(&self) -> Vec<PathBuf> {
        let mut sockets = std::collections::BTreeSet::new();
        for directory in self.admin_socket_candidates().iter().filter_map(|path| path.parent()) {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let made = entries.flatten().map(|entry| entry.path().join("admin.sock"));
            sockets.extend(made.filter(|path| path.exists()));
        }
        sockets.into_iter().collect()
    }
}

/// A worker's name as a folder's: what is no letter, digit, dot, dash, underscore or colon becomes `%` and its two digits.
fn folder_name(worker: &str) -> String {
    let mut folder = String::with_capacity(worker.len());
    for byte in worker.bytes() {
        match byte {
            b'.' if folder.is_empty() => folder.push_str("%2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' => folder.push(char::from(byte)),
            other => folder.push_str(&format!("%{other:02x}")),
        }
    }
    folder
}

/// Where log lines go when there is no log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// The journal when standard error is connected to it, else standard error.
    #[default]
    Auto,
    /// Standard error.
    Stderr,
    /// The journal.
    Journald,
}

/// The table `[agent]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Everything that must outlive the process: store, relay log, lock. Created 0700.
    pub state_dir: PathBuf,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// Bytes that the relay log of one source may take on disk. At the budget the reader stops.
    pub relay_budget: u64,
    /// Free bytes to leave on the disk under the state directory. Below it the readers stop.
    pub free_disk_floor: u64,
    /// How long a pause lets a large transaction finish before it parks inside it.
    pub pause_drain_limit: Duration,
    /// Percent of the time that a copy of existing rows works at least while others use its source; 100: it does not yield.
    pub copy_yield_floor: u32,
    /// Key of encrypted passwords in source and task files, read from `secret-key-path`.
    pub secret_key: Option<SecretKey>,
    /// Where log lines go when there is no log file.
    pub log_target: LogTarget,
    /// Whether the kernel may write a core dump, which holds passwords and rows.
    pub allow_core_dump: bool,
}

impl AgentConfig {
    /// Reads the table's keys; what is missing gets its default, which for a `worker` of a cluster has its name in it.
    pub(super) fn read(section: &Section<'_>, environment: &Environment, worker: Option<&str>) -> Self {
        let path = |key| section.text(key).filter(|path| !path.is_empty()).map(PathBuf::from);
        let usual = || match worker {
            Some(name) => environment.worker_state_dir(name),
            None => environment.state_dir(),
        };
        let state_dir = path("state-dir").or_else(usual);
        if state_dir.is_none() {
            section.problem(
                "state-dir",
                "has no default because neither HOME nor XDG_STATE_HOME is set; give a directory",
            );
        }
        let state_dir = state_dir.unwrap_or_default();
        let admin_socket = path("admin-socket").unwrap_or_else(|| match worker {
            Some(name) => environment.worker_admin_socket(name, &state_dir),
            None => environment.admin_socket(&state_dir),
        });
        if admin_socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            let path = admin_socket.display();
            section.problem(
                "admin-socket",
                format!("{path} is longer than the {SOCKET_PATH_LIMIT} bytes of a socket's path; give a shorter one"),
            );
        }
        let config = AgentConfig {
            state_dir,
            admin_socket,
            relay_budget: section.size("relay-budget").unwrap_or(64 << 30),
            free_disk_floor: section.size("free-disk-floor").unwrap_or(1 << 30),
            pause_drain_limit: section.duration("pause-drain-limit").unwrap_or(Duration::from_secs(2)),
            copy_yield_floor: section.int("copy-yield-floor", 1..=100).unwrap_or(20),
            secret_key: read_secret_key(section, path("secret-key-path"), environment),
            log_target: section
                .choice(
                    "log-target",
                    &[("auto", LogTarget::Auto), ("stderr", LogTarget::Stderr), ("journald", LogTarget::Journald)],
                )
                .unwrap_or_default(),
            allow_core_dump: section.flag("allow-core-dump").unwrap_or(false),
        };
        check_limits(section, &config);
        config
    }
}

/// Limits so small that nothing could run within them are mistakes of the unit.
fn check_limits(section: &Section<'_>, config: &AgentConfig) {
    if config.relay_budget < 64 << 20 {
        section
            .problem("relay-budget", "is less than 64MiB, so that not even one segment of relay log fits; give more");
    }
    if config.pause_drain_limit > Duration::from_secs(3600) {
        section.problem("pause-drain-limit", "is longer than an hour; give a shorter one, such as `2s`");
    }
}

/// The key named by the file, or handed over by systemd's `LoadCredential=secret-key:…`.
fn read_secret_key(section: &Section<'_>, path: Option<PathBuf>, environment: &Environment) -> Option<SecretKey> {
    let credential = environment.credentials_directory.as_ref().map(|directory| directory.join("secret-key"));
    let path = path.or(credential.filter(|path| path.exists()))?;
    match SecretKey::from_file(&path) {
        Ok(key) => Some(key),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            section.problem(
                "secret-key-path",
                format!("{error}{cause}; give the file that dm-master's `secret-key-path` names"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_for_everyone() {
        let root = Environment { is_root: true, ..Environment::default() };
        assert_eq!(root.state_dir().unwrap(), Path::new("/var/lib/dm-agent"));
        assert_eq!(root.admin_socket_candidates()[0], Path::new("/run/dm-agent/admin.sock"));

        let user = Environment {
            home: Some("/home/u".into()),
            xdg_runtime_dir: Some("/run/user/1000".into()),
            ..Environment::default()
        };
        let state_dir = user.state_dir().unwrap();
        assert_eq!(state_dir, Path::new("/home/u/.local/state/dm-agent"));
        assert_eq!(user.admin_socket(&state_dir), Path::new("/run/user/1000/dm-agent/admin.sock"));
        assert_eq!(user.admin_socket_candidates().len(), 3);

        let without_session = Environment { home: Some("/home/u".into()), ..Environment::default() };
        assert_eq!(without_session.admin_socket(&state_dir), state_dir.join("admin.sock"));
        assert_eq!(Environment::default().state_dir(), None);

        let service = Environment {
            is_root: true,
            state_directory: Some("/var/lib/other".into()),
            runtime_directory: Some("/run/other".into()),
            ..Environment::default()
        };
        assert_eq!(service.state_dir().unwrap(), Path::new("/var/lib/other"));
        assert_eq!(service.admin_socket(Path::new("/x")), Path::new("/run/other/admin.sock"));
        assert_eq!(service.worker_state_dir("w").unwrap(), Path::new("/var/lib/other"), "one service, one worker");
        assert_eq!(service.worker_admin_socket("w", Path::new("/x")), Path::new("/run/other/admin.sock"));
    }

    #[test]
    fn workers_on_one_machine_do_not_meet() {
        let root = Environment { is_root: true, ..Environment::default() };
        let user = Environment { home: Some("/home/u".into()), ..Environment::default() };
        for (environment, worker, state_dir, socket) in [
            (&root, "worker1", "/var/lib/dm-agent/worker1", "/run/dm-agent/worker1/admin.sock"),
            (&root, "10.0.0.1:8262", "/var/lib/dm-agent/10.0.0.1:8262", "/run/dm-agent/10.0.0.1:8262/admin.sock"),
            (&root, "../a b", "/var/lib/dm-agent/%2e.%2fa%20b", "/run/dm-agent/%2e.%2fa%20b/admin.sock"),
            (&user, "w", "/home/u/.local/state/dm-agent/w", "/home/u/.local/state/dm-agent/w/admin.sock"),
        ] {
            let found = environment.worker_state_dir(worker).unwrap();
            assert_eq!(found, Path::new(state_dir));
            assert_eq!(environment.worker_admin_socket(worker, &found), Path::new(socket));
        }
    }

    #[test]
    fn a_workers_socket_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let user = Environment { xdg_runtime_dir: Some(directory.path().to_owned()), ..Environment::default() };
        let user = Environment { home: Some(directory.path().join("home")), ..user };
        let socket = user.worker_admin_socket("w1", Path::new("/x"));
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        std::fs::write(&socket, "").unwrap();
        assert!(user.worker_sockets().contains(&socket), "{:?}", user.worker_sockets());
    }
}
