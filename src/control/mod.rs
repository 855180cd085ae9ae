//! How the agent is driven from outside.
//!
//! The control side owns no state of the data path: it reads snapshots and sends commands through [`Backend`], and it
//! translates between those and DM's protocol. What an answer says, to the letter, is decided in [`master_api`] and
//! [`pb_status`], which know nothing of sockets; [`admin`] serves them to people on this machine. In a cluster [`master`]
//! does what a dm-master wants, and `worker_rpc` answers it on worker-addr.

// `Failure` is what an operator reads, and is made only where something failed: its size does not matter.
#![allow(clippy::result_large_err)]

pub mod admin;
pub mod backend;
mod connection;
pub mod master;
pub mod master_api;
mod metrics;
mod pages;
pub mod pb_status;
pub mod proto;
mod worker_port;
mod worker_rpc;

pub use admin::{AdminServer, AdminSocket, SocketError};
pub use backend::{AgentEvent, Backend, RelayOp};
pub use worker_port::{PortError, WorkerPort};
