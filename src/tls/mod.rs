//! TLS from PEM files, for database connections and for the cluster's.
//!
//! A leaf. Files are read where a connection is made, so that renewed ones are picked up without a restart; a private
//! key never shows in `Debug`, logs or errors.

mod client;
mod cluster;
mod files;
mod verifier;

pub use client::{client_config, server_name};
pub use cluster::{cluster_client, cluster_server};
pub use files::{Pem, TlsError, TlsFiles};
pub use verifier::{is_nameless, needs_no_name};
