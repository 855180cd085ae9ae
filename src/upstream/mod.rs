//! The connection to the source: login, preflight, the binlog reader and its reconnects.
