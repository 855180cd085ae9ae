//! MySQL 9.7 and MariaDB 10.11 servers of the tests' own: a copied data directory, a free port, gone with the test.
//!
//! `Server::start` gives a server to one test alone, which may stop, freeze or kill it. `shared` gives one that all tests of this process
//! use, each in schemas of its own; it must not be disturbed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{Mutex, OnceCell};

use super::db::{Address, Db};
use super::eventually;
use super::process::{Process, copy_folder, free_port, fresh_folder, tail};

/// How long a server may take to answer after its start, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Which product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// MySQL 9.7.
    MySql,
    /// MariaDB 10.11.
    MariaDb,
}

impl Kind {
    /// DM's `flavor`.
    pub fn flavor(self) -> &'static str {
        match self {
            Kind::MySql => "mysql",
            Kind::MariaDb => "mariadb",
        }
    }

    /// The server's program.
    pub fn program(self) -> PathBuf {
        match self {
            Kind::MySql => mysql_program("mysqld"),
            // A cache with a MariaDB in it runs the tests on that version instead of the machine's own.
            Kind::MariaDb => {
                [cache().join("mariadb/bin/mariadbd"), "/usr/sbin/mariadbd".into(), "/usr/local/sbin/mariadbd".into()]
                    .into_iter()
                    .find(|path| path.exists())
                    .unwrap_or_else(|| "mariadbd".into())
            }
        }
    }

    fn template(self) -> PathBuf {
        cache().join("templates").join(match self {
            Kind::MySql => "mysql-9.7",
            Kind::MariaDb => "mariadb",
        })
    }
}

/// A program that came with MySQL 9.7.
pub fn mysql_program(name: &str) -> PathBuf {
    cache().join("mysql-9.7/bin").join(name)
}

/// Where `tests/servers/install.sh` puts things.
fn cache() -> PathBuf {
    match std::env::var_os("DM_AGENT_CACHE") {
        Some(folder) => folder.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/dm-agent"),
    }
}

/// How a server is set up; the defaults are what a source needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerOptions {
    /// GTID mode (MySQL only: MariaDB always has GTIDs).
    pub gtid: bool,
    /// `binlog_row_image`.
    pub row_image: &'static str,
    /// `binlog_row_metadata`.
    pub row_metadata: &'static str,
    /// CRC32 of each event.
    pub checksum: bool,
    /// MySQL: zstd transaction payloads; MariaDB: zlib events.
    pub compression: bool,
    /// Time zone of its machine, as `TZ` has it; empty for this one's.
    pub zone: &'static str,
    /// Further arguments, `--name=value`.
    pub args: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            gtid: true,
            row_image: "FULL",
            row_metadata: "MINIMAL",
            checksum: true,
            compression: false,
            zone: "",
            args: Vec::new(),
        }
    }
}

impl ServerOptions {
    fn args(&self, kind: Kind) -> Vec<String> {
        let mut args = vec![
            format!("--binlog-row-image={}", self.row_image),
            format!("--binlog-row-metadata={}", self.row_metadata),
            format!("--binlog-checksum={}", if self.checksum { "CRC32" } else { "NONE" }),
        ];
        let on = |set: bool| if set { "ON" } else { "OFF" };
        match kind {
            Kind::MySql => {
                args.push(format!("--gtid-mode={}", on(self.gtid)));
                args.push(format!("--enforce-gtid-consistency={}", on(self.gtid)));
                args.push(format!("--binlog-transaction-compression={}", on(self.compression)));
                args.extend(["--mysqlx=OFF".into(), "--secure-file-priv=".into()]);
            }
            Kind::MariaDb => {
                args.push(format!("--log-bin-compress={}", on(self.compression)));
                args.push("--log-bin-compress-min-len=10".into());
                args.push("--binlog-format=ROW".into());
            }
        }
        args.extend(self.args.iter().cloned());
        args
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Which product.
    pub kind: Kind,
    /// TCP port on 127.0.0.1; stays the same over restarts.
    pub port: u16,
    /// Its own folder; `data` in it is the data directory.
    pub folder: PathBuf,
    args: Vec<String>,
    zone: &'static str,
    /// Its process.
    pub process: Process,
}

impl Server {
    /// Starts a server on a fresh data directory and waits until it answers.
    pub async fn start(kind: Kind, options: &ServerOptions) -> Server {
        let folder = fresh_folder(kind.flavor());
        copy_template(&kind.template(), &folder.join("data"));
        let port = free_port();
        let mut args = base_args(kind, &folder, port);
        args.extend(options.args(kind));
        let zone = options.zone;
        let process = launch(kind, &folder, &args, zone);
        let mut server = Server { kind, port, folder, args, zone, process };
        server.wait_until_up().await;
        server
    }

    /// A connection as administrator.
    pub async fn root(&self) -> Db {
        match Address::root(self.port).try_connect().await {
            Ok(db) => db,
            Err(error) => panic!("connect to {:?} on port {}: {error}", self.kind, self.port),
        }
    }

    /// kill -9, without a new start.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again with the same data, port and arguments, killing it first if it runs.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = launch(self.kind, &self.folder, &self.args, self.zone);
        self.wait_until_up().await;
    }

    /// The same with further arguments, which go before those it had.
    pub async fn restart_with(&mut self, more: Vec<String>) {
        self.args.extend(more);
        self.restart().await;
    }

    /// Stops the process (SIGSTOP): connections stay, nothing is answered.
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Ends `freeze`.
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    async fn wait_until_up(&mut self) {
        let address = Address::root(self.port);
        let (process, kind) = (&mut self.process, self.kind);
        eventually(&format!("{kind:?} answers"), START_LIMIT, async || {
            if let Some(status) = process.exit_status() {
                panic!("{kind:?} ended at its start ({status}):\n{}", tail(&process.log_text(), 30));
            }
            address.try_connect().await.map(drop)
        })
        .await;
    }
}

fn launch(kind: Kind, folder: &Path, args: &[String], zone: &str) -> Process {
    let envs: Vec<(String, String)> = (!zone.is_empty()).then(|| ("TZ".into(), zone.into())).into_iter().collect();
    Process::start(kind.flavor(), &kind.program(), args, &envs, &folder.join("server.log"))
}

fn base_args(kind: Kind, folder: &Path, port: u16) -> Vec<String> {
    static NEXT_SERVER_ID: AtomicU32 = AtomicU32::new(1001);
    let folder = folder.display();
    let mut args = vec![
        // Read first, or not at all: keeps the machine's own configuration out.
        "--no-defaults".to_owned(),
        format!("--datadir={folder}/data"),
        // Servers that share one folder for temporary tables meet each other's.
        format!("--tmpdir={folder}/data"),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".into(),
        format!("--socket={folder}/s.sock"),
        format!("--pid-file={folder}/s.pid"),
        format!("--server-id={}", NEXT_SERVER_ID.fetch_add(1, Ordering::Relaxed)),
        "--log-bin=mysql-bin".into(),
        "--skip-name-resolve".into(),
        "--character-set-server=utf8mb4".into(),
        "--max-allowed-packet=256M".into(),
        "--max-connections=500".into(),
        // Written at each commit, not flushed: enough for processes that are killed, and the disk is not what is tested.
        "--innodb-flush-log-at-trx-commit=2".into(),
        "--sync-binlog=0".into(),
    ];
    if kind == Kind::MySql {
        args.push(format!("--basedir={}", cache().join("mysql-9.7/root/usr").display()));
    }
    if rustix::process::geteuid().is_root() {
        args.push("--user=root".into());
    }
    args
}

fn copy_template(template: &Path, to: &Path) {
    assert!(template.exists(), "{} is missing: run tests/servers/install.sh first", template.display());
    copy_folder(template, to);
}

/// A server that tests share, by kind and options.
type Slot = Arc<OnceCell<Arc<Server>>>;

static SHARED: Mutex<Option<HashMap<(Kind, ServerOptions), Slot>>> = Mutex::const_new(None);

/// The server of this kind and set-up that all tests share, started by the first that asks.
pub async fn shared(kind: Kind, options: &ServerOptions) -> Arc<Server> {
    let slot = {
        let mut servers = SHARED.lock().await;
        servers.get_or_insert_default().entry((kind, options.clone())).or_default().clone()
    };
    slot.get_or_init(async || Arc::new(Server::start(kind, options).await)).await.clone()
}

/// A schema name no other test uses.
pub fn fresh_schema(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{label}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
