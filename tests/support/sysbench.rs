//! Load by sysbench.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::{Process, fresh_folder, tail};

/// What to run against which server.
#[derive(Debug, Clone)]
pub struct Sysbench {
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Schema; must exist.
    pub schema: String,
    /// Number of tables.
    pub tables: u32,
    /// Rows in each.
    pub rows: u32,
}

impl Sysbench {
    /// Arguments that say where and what.
    pub fn args(&self) -> Vec<String> {
        vec![
            "--db-driver=mysql".into(),
            "--mysql-host=127.0.0.1".into(),
            format!("--mysql-port={}", self.port),
            "--mysql-user=dm".into(),
            "--mysql-password=dmpw".into(),
            format!("--mysql-db={}", self.schema),
            format!("--tables={}", self.tables),
            format!("--table-size={}", self.rows),
            // Prepared statements of its client library are refused by some servers.
            "--db-ps-mode=disable".into(),
        ]
    }

    /// Creates and fills the tables.
    pub fn prepare(&self) {
        let output = Command::new("sysbench").arg("oltp_write_only").args(self.args()).arg("prepare").output();
        let output = output.unwrap_or_else(|error| panic!("run sysbench: {error}"));
        assert!(output.status.success(), "sysbench prepare: {}", tail(&String::from_utf8_lossy(&output.stdout), 20));
    }

    /// Writes for `time` or until dropped, in the background.
    pub fn run(&self, threads: u32, time: Duration) -> Process {
        let mut args = vec!["oltp_write_only".to_owned()];
        args.extend(self.args());
        args.push(format!("--threads={threads}"));
        args.push(format!("--time={}", time.as_secs().max(1)));
        // Deadlocks and duplicate keys between threads are part of the load.
        args.push("--mysql-ignore-errors=1213,1205,1020,1062".into());
        args.push("run".into());
        Process::start("sysbench", Path::new("sysbench"), &args, &[], &fresh_folder("sysbench").join("run.log"))
    }
}
