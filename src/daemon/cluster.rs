//! From the daemon's configuration to a membership.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::WorkerConfig;
use crate::control::Backend;
use crate::control::master::{Cluster, ClusterOptions, JoinError, Ttls};
use crate::supervisor::{Supervisor, tls_files};

/// Joins the masters of `join`, in the background.
pub fn join(
    config: &WorkerConfig,
    supervisor: &Supervisor,
    backend: Arc<dyn Backend>,
    data: &Handle,
) -> Result<Cluster, JoinError> {
    let address = |address: &Option<String>| address.clone().unwrap_or_default();
    let options = ClusterOptions {
        worker: config.name.clone(),
        join: config.join.clone(),
        worker_addr: address(&config.worker_addr),
        advertise_addr: address(&config.advertise_addr),
        ttls: Ttls { usual: config.keepalive_ttl, relay: config.relay_keepalive_ttl },
        tls: config.security.as_ref().map(tls_files),
        drain_limit: config.agent.pause_drain_limit,
    };
    Cluster::start(options, supervisor.clone(), backend, data.clone())
}
