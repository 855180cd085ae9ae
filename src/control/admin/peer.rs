//! Who is at the other end, and what that allows.
//!
//! Invariant: the level comes from what the kernel says about the peer at accept, never from what it sends. Where
//! something cannot be found out, the level is the lower one. In a user namespace, ids of outside all look like the
//! overflow id; that id is nobody's, and grants nothing.

use std::fmt;
use std::fs;

use crate::supervisor::Actor;

/// What a peer may do. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Look: status, lists, configurations with secrets masked, metrics.
    Read,
    /// Park and unpark: pause, resume, purge relay.
    Operate,
    /// Everything: create and remove sources and tasks, change the log level.
    Admin,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Read => "read",
            Level::Operate => "operate",
            Level::Admin => "admin",
        })
    }
}

/// The process at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its process id, where it can be seen from here.
    pub pid: Option<i32>,
    /// What it may do.
    pub level: Level,
}

impl Peer {
    /// As it stands in park reasons and logs.
    pub fn actor(&self) -> Actor {
        Actor { name: self.to_string() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, " pid {pid}"))
    }
}

/// What the kernel said at accept.
#[derive(Debug, Clone, Copy)]
pub struct Credentials {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, if it can be seen.
    pub pid: Option<i32>,
}

/// Who we are, to compare with.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    uid: u32,
    socket_gid: u32,
    overflow_uid: u32,
    overflow_gid: u32,
}

impl Host {
    /// This process, with a socket of this group.
    pub fn this(socket_gid: u32) -> Host {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let overflow_uid = number("/proc/sys/kernel/overflowuid").unwrap_or(65534);
        let overflow_gid = number("/proc/sys/kernel/overflowgid").unwrap_or(65534);
        Host { uid: rustix::process::geteuid().as_raw(), socket_gid, overflow_uid, overflow_gid }
    }

    /// The peer with its level, its supplementary groups looked up where they matter.
    pub fn peer(&self, cred: Credentials) -> Peer {
        let level = self.level(cred, || groups_of(cred));
        Peer { uid: cred.uid, pid: cred.pid, level }
    }

    fn level(&self, cred: Credentials, supplementary: impl FnOnce() -> Vec<u32>) -> Level {
        if cred.uid == 0 || (cred.uid == self.uid && cred.uid != self.overflow_uid) {
            return Level::Admin;
        }
        let group = self.socket_gid;
        if group != self.overflow_gid && (cred.gid == group || supplementary().contains(&group)) {
            return Level::Operate;
        }
        Level::Read
    }
}

/// The supplementary groups of a process: from the process itself, or, where `/proc` does not show it, from the local
/// group file. Groups that only a directory service knows then stay unknown.
fn groups_of(cred: Credentials) -> Vec<u32> {
    let status = cred.pid.filter(|pid| *pid > 0).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    match status.and_then(|text| groups_in_status(&text, cred.uid)) {
        Some(groups) => groups,
        None => {
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            let group = fs::read_to_string("/etc/group").unwrap_or_default();
            groups_in_files(&passwd, &group, cred.uid)
        }
    }
}

/// `None` unless it is of a process of this user: the id may have been given to another one since.
fn groups_in_status(status: &str, uid: u32) -> Option<Vec<u32>> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let effective: u32 = field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    let groups = field("Groups:")?;
    (effective == uid).then(|| groups.split_whitespace().filter_map(|gid| gid.parse().ok()).collect())
}

fn groups_in_files(passwd: &str, group: &str, uid: u32) -> Vec<u32> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let uid = uid.to_string();
    let user = passwd.lines().map(fields).find(|f| f.get(2) == Some(&uid)).and_then(|f| f.first().cloned());
    let Some(user) = user.filter(|name| !name.is_empty()) else { return Vec::new() };
    let member = |list: &String| list.split(',').any(|name| name == user);
    let groups = group.lines().map(fields).filter(|f| f.get(3).is_some_and(member));
    groups.filter_map(|f| f.get(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { uid: 990, socket_gid: 980, overflow_uid: 65534, overflow_gid: 65534 };

    fn level(uid: u32, gid: u32, supplementary: &[u32]) -> Level {
        HOST.level(Credentials { uid, gid, pid: None }, || supplementary.to_vec())
    }

    #[test]
    fn levels_follow_user_and_group() {
        assert_eq!(level(0, 0, &[]), Level::Admin);
        assert_eq!(level(990, 1, &[]), Level::Admin);
        assert_eq!(level(1000, 980, &[]), Level::Operate);
        assert_eq!(level(1000, 1000, &[27, 980]), Level::Operate);
        assert_eq!(level(1000, 1000, &[27]), Level::Read);
        assert!(Level::Read < Level::Operate && Level::Operate < Level::Admin);
    }

    #[test]
    fn ids_of_outside_a_namespace_grant_nothing() {
        let nobody = Host { uid: 65534, socket_gid: 65534, ..HOST };
        assert_eq!(nobody.level(Credentials { uid: 65534, gid: 65534, pid: None }, || vec![65534]), Level::Read);
    }

    #[test]
    fn groups_come_from_the_process_of_that_user_only() {
        let status = "Name:\tx\nUid:\t1\t1000\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t27 980 \n";
        assert_eq!(groups_in_status(status, 1000), Some(vec![27, 980]));
        assert_eq!(groups_in_status(status, 1), None);
        assert_eq!(groups_in_status("", 0), None);
    }

    #[test]
    fn groups_come_from_the_files_where_the_process_is_hidden() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbroken\n";
        let group = "sudo:x:27:bob,ann\nannex:x:28:annex\ndm:x:980:ann\nbad:x:y:ann\n";
        assert_eq!(groups_in_files(passwd, group, 1000), [27, 980]);
        assert_eq!(groups_in_files(passwd, group, 1001), Vec::<u32>::new());
    }
}
