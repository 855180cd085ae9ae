//! What the numbers were measured on.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::outcome::Series;
use crate::support::process::{fresh_folder, read_lossy};
use crate::support::servers::Kind;
use crate::table::number;

/// Machine, system and disk, a line each.
pub fn describe() -> Vec<String> {
    let cpus = read_lossy(Path::new("/proc/cpuinfo"));
    let of_cpu = |key: &str| {
        let line = cpus.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(": ")).map_or("?", |(_, value)| value)
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read_lossy(Path::new("/proc/meminfo"));
    let kilobytes: f64 = memory.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(f64::NAN);
    let kernel = read_lossy(Path::new("/proc/sys/kernel/osrelease"));
    let load = read_lossy(Path::new("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    vec![
        format!(
            "machine: {} x {}, {} GB, Linux {}",
            cores,
            of_cpu("model name"),
            number(kilobytes / 1e6),
            kernel.trim()
        ),
        format!("before the run: load {load}; fdatasync of 4 KiB {} ms by median", number(fdatasync().median())),
    ]
}

/// Milliseconds of small durable writes where the servers have their data.
fn fdatasync() -> Series {
    let folder = fresh_folder("disk");
    let mut file = File::create(folder.join("probe")).expect("create a file");
    let mut times = Series::default();
    for _ in 0..100 {
        file.write_all(&[7; 4096]).expect("write");
        let began = Instant::now();
        file.sync_data().expect("fdatasync");
        times.0.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times
}

/// Versions of what is measured against.
pub fn servers() -> String {
    let version = |program: &Path, flag: &str| {
        let output = std::process::Command::new(program).args(["--no-defaults", flag]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let from = text.find("Ver ").map_or(0, |at| at + 4);
        text[from..].split(" for ").next().unwrap_or("?").trim().to_owned()
    };
    let sysbench = std::process::Command::new("sysbench").arg("--version").output();
    let sysbench = sysbench.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let (mysql, maria) = (Kind::MySql.program(), Kind::MariaDb.program());
    format!("MySQL {}, MariaDB {}, {sysbench}", version(&mysql, "--version"), version(&maria, "--version"))
}
