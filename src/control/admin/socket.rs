//! The socket file: made with the right mode from the first instant, and never in place of something alive or foreign.
//!
//! Invariant: the file is never more open than 0660, whatever the umask. A socket file that nobody listens on is
//! removed; anything else at the path is left alone. On a clean stop the file goes, but only if it is still ours.

use std::fs::{DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Of a directory made for the socket.
const DIRECTORY_MODE: u32 = 0o750;

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something else is at the path.
    #[error("{} exists and is no socket: choose another `admin-socket`, or move the file away", .0.display())]
    NotASocket(PathBuf),
    /// Somebody listens there.
    #[error("another process listens on {}: stop it, or choose another `admin-socket`", .0.display())]
    Taken(PathBuf),
    /// Anybody could put a socket of his own there.
    #[error("everybody may write to the directory of {}: choose an `admin-socket` in a directory of your own", .0.display())]
    OpenDirectory(PathBuf),
    /// The kernel takes 107 bytes.
    #[error("the path {} is too long for a socket: choose an `admin-socket` of at most 107 bytes", .0.display())]
    TooLong(PathBuf),
    /// The system refused.
    #[error("{doing} {}: {source}; choose an `admin-socket` in a directory that the agent may write to", .path.display())]
    Io {
        /// Verb and object.
        doing: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is bound and listens, not served yet.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file at the path, removed when dropped as long as it is the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    gid: u32,
}

impl AdminSocket {
    /// Makes the directory where it is missing, removes a stale socket, binds and listens.
    pub fn bind(path: &Path) -> Result<AdminSocket, SocketError> {
        let address = SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong(path.to_owned()))?;
        let failed =
            |doing: &'static str| move |source: io::Error| SocketError::Io { doing, path: path.to_owned(), source };
        prepare_directory(path)?;
        remove_stale(path, &address)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| failed("make a socket for")(e.into()))?;
        // Linux gives the file the mode of the unbound socket, less the umask: so it is never more open than this.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(SOCKET_MODE)).map_err(|e| failed("set the mode of")(e.into()))?;
        rustix::net::bind(&fd, &address).map_err(|e| match e {
            Errno::ADDRINUSE => SocketError::Taken(path.to_owned()),
            e => failed("bind")(e.into()),
        })?;
        std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed("set the mode of"))?;
        rustix::net::listen(&fd, BACKLOG).map_err(|e| failed("listen on")(e.into()))?;
        let made = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
        let (device, inode, gid) = (made.dev(), made.ino(), made.gid());
        let file = SocketFile { path: path.to_owned(), device, inode, gid };
        Ok(AdminSocket { listener: UnixListener::from(fd), file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The group whose members may operate.
    pub(super) fn gid(&self) -> u32 {
        self.gid
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: &Metadata| found.dev() == self.device && found.ino() == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| ours(&found))
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "remove admin socket");
        }
    }
}

fn prepare_directory(path: &Path) -> Result<(), SocketError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |doing| move |source| SocketError::Io { doing, path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed("make the directory"))?;
    let found = std::fs::metadata(directory).map_err(failed("look at"))?;
    if found.mode() & 0o002 != 0 { Err(SocketError::OpenDirectory(path.to_owned())) } else { Ok(()) }
}

/// A socket file is stale only when a connect is refused: nobody has it open for listening.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let failed = |doing: &'static str| move |source| SocketError::Io { doing, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(SocketError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|e| failed("make a socket for")(e.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove the stale socket")(error)),
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        // A full backlog is a listener too.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Taken(path.to_owned())),
        Err(error) => Err(failed("try")(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn is_made_with_its_directory_and_its_mode_and_goes_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/dm-agent/admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), SOCKET_MODE);
        assert_eq!(mode(path.parent().unwrap()) & !DIRECTORY_MODE, 0);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = AdminSocket::bind(&path).unwrap();
        let error = AdminSocket::bind(&path).unwrap_err();
        assert!(matches!(&error, SocketError::Taken(p) if *p == path), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
        UnixStream::connect(first.path()).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = AdminSocket::bind(&path).unwrap_err();
        assert!(matches!(&error, SocketError::NotASocket(p) if *p == path), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(AdminSocket::bind(&link), Err(SocketError::NotASocket(_))));
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = AdminSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }

    #[test]
    fn long_paths_and_open_directories_are_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(AdminSocket::bind(&long), Err(SocketError::TooLong(_))));
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let error = AdminSocket::bind(&dir.path().join("a.sock")).unwrap_err();
        assert!(matches!(error, SocketError::OpenDirectory(_)), "{error}");
    }
}
