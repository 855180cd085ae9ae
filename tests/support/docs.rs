//! Source and task files in DM's YAML, as an operator would write them.

use super::servers::Kind;

/// A source file.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// `source-id`.
    pub id: String,
    /// Dialect.
    pub kind: Kind,
    /// `from.port`.
    pub port: u16,
    /// `from.password`.
    pub password: String,
    /// `enable-gtid`.
    pub gtid: bool,
    /// Further top-level lines.
    pub extra: String,
}

impl SourceFile {
    /// A source with the users of `servers`.
    pub fn new(id: &str, kind: Kind, port: u16) -> SourceFile {
        SourceFile { id: id.into(), kind, port, password: "dmpw".into(), gtid: true, extra: String::new() }
    }

    /// The YAML text.
    pub fn yaml(&self) -> String {
        format!(
            "source-id: {}\nflavor: {}\nenable-gtid: {}\nfrom:\n  host: 127.0.0.1\n  port: {}\n  user: dm\n  password: {}\n{}",
            self.id,
            self.kind.flavor(),
            self.gtid,
            self.port,
            self.password,
            self.extra
        )
    }
}

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLocation {
    /// Binlog file.
    pub file: String,
    /// Position in it.
    pub position: u64,
    /// GTID set, empty where the source has none.
    pub gtid: String,
}

/// A task file for one source.
#[derive(Debug, Clone)]
pub struct TaskFile {
    /// `name`.
    pub name: String,
    /// `mysql-instances[0].source-id`.
    pub source_id: String,
    /// `target-database.port`.
    pub target_port: u16,
    /// `block-allow-list` of schemas.
    pub schemas: Vec<String>,
    /// Where to start; `None` leaves `meta` out.
    pub start: Option<SourceLocation>,
    /// `worker-count` of the syncer.
    pub workers: u32,
    /// `target-database.user`, with the tests' one password.
    pub target_user: String,
    /// Further lines of `target-database`, each with two spaces before it.
    pub target_extra: String,
    /// Further lines of the instance, each with two spaces before it.
    pub instance_extra: String,
    /// Further top-level lines.
    pub extra: String,
    /// `task-mode`.
    pub mode: &'static str,
}

impl TaskFile {
    /// An incremental task.
    pub fn new(name: &str, source_id: &str, target_port: u16) -> TaskFile {
        TaskFile {
            name: name.into(),
            source_id: source_id.into(),
            target_port,
            schemas: Vec::new(),
            start: None,
            workers: 8,
            target_user: "dm".into(),
            target_extra: String::new(),
            instance_extra: String::new(),
            extra: String::new(),
            mode: "incremental",
        }
    }

    /// The YAML text.
    pub fn yaml(&self) -> String {
        let meta = match &self.start {
            Some(start) => format!(
                "  meta:\n    binlog-name: \"{}\"\n    binlog-pos: {}\n    binlog-gtid: \"{}\"\n",
                start.file,
                start.position,
                start.gtid.replace('\n', "")
            ),
            None => String::new(),
        };
        format!(
            "name: {name}\ntask-mode: {mode}\nignore-checking-items: [all]\n\
             target-database:\n  host: 127.0.0.1\n  port: {port}\n  user: {user}\n  password: dmpw\n{target}\
             mysql-instances:\n- source-id: {source}\n  block-allow-list: only\n  syncer-config-name: sync\n{meta}{instance}\
             block-allow-list:\n  only:\n    do-dbs: [{schemas}]\n\
             syncers:\n  sync: {{worker-count: {workers}, batch: 100, checkpoint-flush-interval: 5}}\n{extra}",
            name = self.name,
            mode = self.mode,
            port = self.target_port,
            user = self.target_user,
            source = self.source_id,
            target = self.target_extra,
            instance = self.instance_extra,
            schemas = self.schemas.join(", "),
            workers = self.workers,
            extra = self.extra,
        )
    }
}
