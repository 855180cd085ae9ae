//! The master of a worker that has joined a cluster: membership, the lease, and what the master wants.
//!
//! ```text
//! register ─► keepalive ─► guard ──tenure──┐
//!                                          ▼
//! etcd ──watch, read, decode──► wanted ─► plan ─► reconcile ─► supervisor
//! ```
//! A thread of its own, so that a lost lease is seen whatever the data path does. Nothing here decides by events: events
//! only say that it is time to look ([`plan`]).

mod channel;
mod decode;
mod etcd;
mod keys;
mod lease;
mod local;
mod plan;
mod reconcile;
mod register;
mod session;
mod settle;
mod supervised;
mod wanted;

pub use local::LocalBackend;
pub use reconcile::Ttls;
pub use session::{Cluster, ClusterOptions, JoinError};
pub use settle::Reconciled;
