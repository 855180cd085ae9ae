//! The command line: drives an agent over its admin socket, or a dm-master over TCP.

use std::process::ExitCode;

fn main() -> ExitCode {
    dm_agent::ctl::main(std::env::args_os())
}
