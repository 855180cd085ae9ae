//! End to end: real servers, the real binaries. One binary, because linking is what takes time.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod blackhole;
mod claim;
mod commands;
mod downstream;
mod fallback;
mod faults;
mod lifecycle;
mod memory;
mod options;
mod park;
mod replicate;
mod schema;
mod selftest;
mod torture;
mod types;
mod upkeep;
