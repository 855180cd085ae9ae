//! What the integration tests share: real servers, a proxy that misbehaves on request, the agent as a process, and an oracle that
//! says whether two servers hold the same rows.
//!
//! Nothing here knows the agent's internals: tests talk to the binaries as an operator does.

pub mod agent;
pub mod certificates;
pub mod cluster;
pub mod db;
pub mod docs;
pub mod etcd;
pub mod fixture;
pub mod mini_master;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod recorded_master;
pub mod rows;
pub mod servers;
pub mod socket;
pub mod sysbench;
pub mod workload;
pub mod writer;

use std::time::{Duration, Instant};

/// Polls `probe` until it gives a value, at most for `limit`; the last refusal is in the panic's message.
///
/// Polling is for what happens in other processes, which offer nothing to wait on.
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let refusal = match probe().await {
            Ok(value) => return value,
            Err(refusal) => refusal,
        };
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}: {refusal}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
