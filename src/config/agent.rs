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

    /// Where the daemon puts its admin socket by default, beside its state if there is no runtime directory.
    pub fn admin_socket(&self, state_dir: &Path) -> PathBuf {
        let directory = match (&self.runtime_directory, &self.xdg_runtime_dir) {
            (Some(directory), _) => directory.clone(),
            (None, _) if self.is_root => "/run/dm-agent".into(),
            (None, Some(directory)) => directory.join("dm-agent"),
            (None, None) => state_dir.to_owned(),
        };
        directory.join("admin.sock")
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
    /// Key of encrypted passwords in source and task files, read from `secret-key-path`.
    pub secret_key: Option<SecretKey>,
    /// Where log lines go when there is no log file.
    pub log_target: LogTarget,
    /// Whether the kernel may write a core dump, which holds passwords and rows.
    pub allow_core_dump: bool,
}

impl AgentConfig {
    /// Reads the table's keys; what is missing gets its default.
    pub(super) fn read(section: &Section<'_>, environment: &Environment) -> Self {
        let path = |key| section.text(key).filter(|path| !path.is_empty()).map(PathBuf::from);
        let state_dir = path("state-dir").or_else(|| environment.state_dir());
        if state_dir.is_none() {
            section.problem(
                "state-dir",
                "has no default because neither HOME nor XDG_STATE_HOME is set; give a directory",
            );
        }
        let state_dir = state_dir.unwrap_or_default();
        let admin_socket = path("admin-socket").unwrap_or_else(|| environment.admin_socket(&state_dir));
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
    }
}
