//! End to end: real servers, the real binaries. One binary, because linking is what takes time.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod blackhole;
mod claim;
mod commands;
mod declared;
mod downstream;
mod exceptions;
mod failover;
mod fallback;
mod faults;
mod lifecycle;
mod master_ctl;
mod master_faults;
mod master_lease;
mod master_life;
mod master_move;
mod master_odd;
mod master_port;
mod master_states;
mod master_tls;
mod master_wishes;
mod memory;
mod options;
mod park;
mod replicate;
mod schema;
mod selftest;
mod snapshot;
mod snapshot_copy;
mod tls;
mod torture;
mod types;
mod upkeep;
