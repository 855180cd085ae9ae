//! The process itself, under the names that every Prometheus client gives it, and DM's share of the processor.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::page::Page;

/// Ticks of a second in /proc, which Linux fixed long ago.
const TICKS: f64 = 100.0;
/// Between two looks at the processor's share; two scrapes in a row see the same.
const WINDOW: Duration = Duration::from_secs(1);

/// When the share was last looked at, what was used up to then, and the share.
static LAST: Mutex<Option<(Instant, f64, f64)>> = Mutex::new(None);

/// What /proc says; a system that says less has fewer families.
pub fn families(page: &mut Page) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some(used) = Used::parse(&stat) else { return };
    let mut gauge = |name: &str, help: &str, value: f64| {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    };
    gauge("dm_worker_cpu_usage", "the cpu usage of worker", share(used.cpu_seconds));
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", used.virtual_bytes);
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", used.resident_pages * page_size());
    if let Some(boot) = boot_time() {
        let help = "Start time of the process since unix epoch in seconds.";
        gauge("process_start_time_seconds", help, boot + used.started_seconds);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Reading it opens one more.
        gauge("process_open_fds", "Number of open file descriptors.", open.count().saturating_sub(1) as f64);
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge("process_max_fds", "Maximum number of open file descriptors.", most as f64);
    }
    let help = "Total user and system CPU time spent in seconds.";
    page.family("process_cpu_seconds_total", "counter", help);
    page.sample("process_cpu_seconds_total", &[], used.cpu_seconds);
}

/// Percent of one processor, over the time since the look before.
fn share(cpu_seconds: f64) -> f64 {
    let now = Instant::now();
    // Nothing panics while holding it.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let share = match *last {
        Some((at, _, share)) if now.duration_since(at) < WINDOW => return share,
        Some((at, before, _)) => (cpu_seconds - before) * 100.0 / now.duration_since(at).as_secs_f64(),
        None => 0.0,
    };
    *last = Some((now, cpu_seconds, share));
    share
}

fn page_size() -> f64 {
    rustix::param::page_size() as f64
}

/// When the machine was started, in seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Of /proc/self/stat.
#[derive(Debug, PartialEq)]
struct Used {
    cpu_seconds: f64,
    started_seconds: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Used {
    fn parse(stat: &str) -> Option<Used> {
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Numbered from 3 in proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Used {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            started_seconds: field(22)? / TICKS,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_proc_is_read_by_its_numbers() {
        let line =
            "4711 (dm (agent) x) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4200 1000000 250 18446744073709551615";
        let used = Used { cpu_seconds: 2.0, started_seconds: 42.0, virtual_bytes: 1e6, resident_pages: 250.0 };
        assert_eq!(Used::parse(line), Some(used));
        assert_eq!(Used::parse("1 (x) S 1"), None);
    }

    #[test]
    fn this_process_has_all_of_them() {
        let mut page = Page::default();
        families(&mut page);
        for name in ["cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds", "max_fds"] {
            let sample = page.text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            let value: f64 = sample.unwrap_or_else(|| panic!("{name} in {}", page.text)).parse().unwrap();
            assert!(value > 0.0 || name == "cpu_seconds_total", "{name}: {value}");
        }
        assert!(page.text.contains("dm_worker_cpu_usage "));
    }
}
