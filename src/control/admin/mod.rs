//! The admin socket: who may ask what on this machine, served on a thread of its own.
//!
//! ```text
//! socket ─► server ─► connection ─► routes ─┬─► master_service (pb.Master)   ─► master_api ─► Backend
//!  bind      accept     limits      router  ├─► agent_service (dmagent.Agent)             ─► Backend
//!  stale?    peer       idle                └─► GET /status /metrics /healthz /readyz
//! ```
//! Invariants: it answers whatever the data path does, because it shares no thread with it and every wait has a limit;
//! each change is authorised by the peer's credentials as the kernel gave them at accept, and leaves one audit line.

mod agent_service;
pub(super) mod detail;
mod journal;
mod master_service;
mod peer;
mod routes;
mod server;
mod socket;

pub use server::AdminServer;
pub use socket::{AdminSocket, SocketError};

#[cfg(test)]
mod tests;
