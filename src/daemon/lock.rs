//! One agent a state directory: an exclusive lock on `<state-dir>/lock`, with the owner's process id inside.
//!
//! The kernel drops the lock when the process ends, however it ends, so a lock file that was left behind means nothing. It may do
//! so a moment later than it says that the process has ended: a start right behind a kill waits for that.
//! Invariant: while a [`StateLock`] lives, no other agent reads or writes below the directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// How long the lock of a process that has ended may stay, and how often that is looked at.
const LET_GO: Duration = Duration::from_secs(1);
const LET_GO_TICK: Duration = Duration::from_millis(5);

/// The right to use a state directory. Dropping it gives the directory free.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Why there is no right.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error(
        "another dm-agent{} uses the state directory {}; stop it first, or give this one another `agent.state-dir`",
        owner.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), directory.display()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Who; `None` if it has not written it down yet.
        owner: Option<u32>,
    },
    /// Others may write there.
    #[error("others may write to the state directory {} (mode {mode:o}); run `chmod go-w` on it", directory.display())]
    Exposed {
        /// The directory.
        directory: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be created or used.
    #[error("{action} {}: {source}; give a directory of your own as `agent.state-dir`", path.display())]
    Unusable {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl StateLock {
    /// Creates the directory (mode 0700) if it is not there, and locks it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let unusable = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Unusable { action, path, source }
        };
        let created = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        created.map_err(unusable("create state directory", directory))?;
        let metadata = directory.metadata().map_err(unusable("read state directory", directory))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(LockError::Exposed { directory: directory.to_owned(), mode });
        }
        let path = directory.join("lock");
        // Not truncated: until the lock is ours, the process id in it is another's.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(unusable("open lock file", &path))?;
        let limit = Instant::now() + LET_GO;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {
                    let owner = read_owner(&mut file);
                    if !owner.is_some_and(has_ended) || Instant::now() >= limit {
                        return Err(LockError::Held { directory: directory.to_owned(), owner });
                    }
                    std::thread::sleep(LET_GO_TICK);
                }
                Err(error) => return Err(unusable("lock", &path)(error.into())),
            }
        }
        write_owner(&mut file).map_err(unusable("write lock file", &path))?;
        Ok(StateLock { _file: file })
    }
}

/// Whether there is no such process any more.
fn has_ended(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn read_owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beyond what Linux gives to any process.
    const ENDED: u32 = (1 << 22) + 1;

    #[test]
    fn a_second_owner_is_told_the_first() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/state");
        let first = StateLock::acquire(&directory).unwrap();
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let error = StateLock::acquire(&directory).unwrap_err();
        assert!(matches!(error, LockError::Held { owner: Some(pid), .. } if pid == std::process::id()));
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(first);
        StateLock::acquire(&directory).unwrap();
    }

    #[test]
    fn the_lock_of_a_process_that_has_ended_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateLock::acquire(directory.path()).unwrap();
        std::fs::write(directory.path().join("lock"), ENDED.to_string()).unwrap();
        let waiting = std::thread::spawn({
            let directory = directory.path().to_owned();
            move || StateLock::acquire(&directory).map(drop)
        });
        drop(first);
        waiting.join().unwrap().unwrap();
        let _held = StateLock::acquire(directory.path()).unwrap();
        std::fs::write(directory.path().join("lock"), ENDED.to_string()).unwrap();
        let error = StateLock::acquire(directory.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { owner: Some(ENDED), .. }), "but not for ever");
    }

    #[test]
    fn what_is_left_in_the_file_means_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("lock"), "4000000000000").unwrap();
        let _lock = StateLock::acquire(directory.path()).unwrap();
        let text = std::fs::read_to_string(directory.path().join("lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn unsafe_and_impossible_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        let error = StateLock::acquire(directory.path()).unwrap_err();
        assert!(matches!(error, LockError::Exposed { mode: 0o770, .. }), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateLock::acquire(&file.path().join("x")).unwrap_err();
        assert!(matches!(error, LockError::Unusable { action: "create state directory", .. }), "{error}");
    }
}
