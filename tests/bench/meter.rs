//! CPU and memory of a process and of this one, and time.

use std::path::Path;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::support::process::read_lossy;

/// CPU that this thread has used, in seconds.
pub fn thread_cpu() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

/// CPU that all threads of this process have used, in seconds.
pub fn own_cpu() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

fn seconds(clock: ClockId) -> f64 {
    let at = clock_gettime(clock);
    at.tv_sec as f64 + at.tv_nsec as f64 / 1e9
}

/// CPU that a process has used, in seconds; in steps of 10 ms.
pub fn cpu_of(pid: u32) -> f64 {
    let stat = read_lossy(Path::new(&format!("/proc/{pid}/stat")));
    // The name, in parentheses, may hold anything; user and system time are fields 14 and 15, the name is field 2.
    let ticks = |index: usize| -> f64 {
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ').nth(index - 3).and_then(|field| field.parse().ok()).unwrap_or(f64::NAN)
    };
    (ticks(14) + ticks(15)) / rustix::param::clock_ticks_per_second() as f64
}

/// Sets the peak of a process's resident memory to what it is now.
pub fn reset_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset the peak of resident memory");
}

/// What ran between two instants.
pub struct Stretch {
    began: Instant,
    pid: u32,
    cpu: f64,
}

/// Time and CPU of an agent's work.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Seconds.
    pub wall: f64,
    /// Seconds of CPU.
    pub cpu: f64,
}

impl Stretch {
    /// Begins now.
    pub fn begin(pid: u32) -> Stretch {
        Stretch { cpu: cpu_of(pid), pid, began: Instant::now() }
    }

    /// Ends now.
    pub fn end(self) -> Spent {
        Spent { wall: self.began.elapsed().as_secs_f64(), cpu: cpu_of(self.pid) - self.cpu }
    }
}
