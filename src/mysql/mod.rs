//! The MySQL client side that both ends share: endpoints, TLS, SQL connections.
//!
//! A leaf below the stages: `upstream` reads a source through it and `apply` writes a target through it, and neither
//! knows the other. Invariant: a password or a private key never shows in `Debug`, logs or errors.

mod connect;
mod endpoint;
mod show;

pub use connect::{CONNECT_TIMEOUT, Connector, MAX_PACKET};
pub use endpoint::{Endpoint, SessionVariableError, quote};
pub use show::show_create_table;

pub use crate::tls::{Pem, TlsError, TlsFiles, client_config, server_name};
