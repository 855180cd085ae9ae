//! The process around the agent: boot order, lock, log, signals, service manager, shutdown order.
//!
//! Everything here is set up before the runtime exists, so that what fails, fails with one line and an exit code.
//! Nothing here knows of tasks; `boot` starts what does.

use std::io::Write;

mod backend;
pub mod boot;
mod cluster;
pub mod hardening;
pub mod lock;
pub mod logging;
pub mod notify;
mod output;
mod service;
pub mod signals;
mod unified;

pub use boot::run;

/// Prints without `println!`'s panic on a closed pipe.
pub fn print(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
