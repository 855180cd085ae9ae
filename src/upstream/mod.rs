//! The connection to the source: login, preflight, the binlog reader and its reconnects.
//!
//! Statements that give rows go through mysql_async; the stream itself is read over a connection of our own, because
//! this is where every byte passes: an event is copied once, into the memory from which the relay log stores it, each one's
//! checksum is verified, and a source that went silent is noticed. Nothing here decides what to read or keeps it; callers say from where and take the raw events.

mod auth;
mod backoff;
mod blocks;
mod cursor;
mod dump;
mod error;
mod facts;
mod framer;
mod gtid_codec;
mod handshake;
mod preflight;
mod reader;
mod sieve;
mod start;
mod tables;
mod wire;

pub use backoff::{Backoff, FIRST_PAUSE, LONGEST_PAUSE};
pub use dump::{DumpRequest, DumpStart, Extent};
pub use error::{ErrorClass, Phase, ReadError, ServerRefusal};
pub use facts::{BinlogSize, ServerFacts, ServerVersion, location_now};
pub use preflight::{Preflight, Problem, Severity, Want, failure_of};
pub use reader::{Batch, BinlogReader, Heartbeat};
pub use start::{StartError, find_start, gtids_at};
pub use tables::{
    SourceCascade, SourceColumn, SourceColumns, ZoneOffset, local_time, logs_cascades, source_cascades,
    source_collations, source_columns, source_schema_charset, source_tables, zone_offset,
};
