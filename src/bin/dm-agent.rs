//! The daemon: arguments, configuration, run, exit code.

use std::io::{stderr, stdout};
use std::process::ExitCode;

use dm_agent::config::{Environment, Invocation};
use dm_agent::daemon;

/// dm-worker's exit code for a command line or file that it refuses.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    match Invocation::from_command_line(arguments, Environment::of_process()) {
        Ok(Invocation::Print(text)) => {
            daemon::print(&mut stdout(), &text);
            ExitCode::SUCCESS
        }
        Ok(Invocation::Run(config)) => {
            if !config.announcement.is_empty() {
                daemon::print(&mut stdout(), &format!("{}\n", config.announcement));
            }
            daemon::run(*config)
        }
        Err(error) => {
            daemon::print(&mut stderr(), &error.stderr);
            daemon::print(&mut stdout(), &error.stdout);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}
