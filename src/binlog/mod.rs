//! The outer form of the binlog: event headers, types, checksums, and where transactions begin and end.
//!
//! This is what the relay log must know of an event to store it and what the decoder starts from; it reads no rows and
//! no schema. A leaf like `model`: bytes in, values out, no I/O. Facts are from the servers' own documentation of the
//! version 4 format (MySQL 5.0 and later, MariaDB 5.3 and later).

mod frame;
mod run;
mod tracker;

pub use frame::{CHECKSUM_LEN, EventHeader, FrameError, HEADER_LEN, QueryBody, body, kind, verify_checksum};
pub use run::EventRun;
pub use tracker::{OpenTransaction, StreamTracker, Tracked};
