//! The daemon's configuration: dm-worker's keys, and our table `[agent]`. Read by `startup.rs`, printed here.

use std::path::PathBuf;
use std::time::Duration;

use super::agent::{AgentConfig, Environment};
use super::database::{Pem, Security};
use super::kept::{Kept, no_meaning};
use super::keys::{self, Preset};
use super::log::{LogConfig, LogFormat};

/// The daemon's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// This worker's name in its cluster, or in what a standalone agent answers.
    pub name: String,
    /// The log.
    pub log: LogConfig,
    /// dm-master addresses as `host:port`; empty for an agent that stands alone.
    pub join: Vec<String>,
    /// Address to listen on; `None` for the admin socket only, which a standalone agent may do.
    pub worker_addr: Option<String>,
    /// Address that masters dial.
    pub advertise_addr: Option<String>,
    /// How long the cluster waits for a silent worker.
    pub keepalive_ttl: Duration,
    /// The same while a relay log is assigned.
    pub relay_keepalive_ttl: Duration,
    /// TLS of the cluster's connections.
    pub security: Option<Security>,
    /// Our own table.
    pub agent: AgentConfig,
    /// The file this was read from.
    pub config_file: Option<PathBuf>,
    /// A line that dm-worker prints before it starts; empty for none.
    pub announcement: String,
    /// Values without meaning here.
    pub(super) kept: Kept,
    /// For [`WorkerConfig::reload`].
    pub(super) arguments: Vec<String>,
    pub(super) environment: Environment,
}

impl WorkerConfig {
    /// Whether this agent belongs to a cluster.
    pub fn joins(&self) -> bool {
        !self.join.is_empty()
    }

    /// What is set and has no effect here.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.kept.notes("");
        if self.joins() {
            return notes;
        }
        let ttls = [("keepalive-ttl", self.keepalive_ttl), ("relay-keepalive-ttl", self.relay_keepalive_ttl)];
        let own = |(name, ttl): &(&str, Duration)| keys::preset(keys::WORKER, name) != Some(Preset::Int(ttl.as_secs()));
        let own: Vec<String> = ttls.iter().filter(|ttl| own(ttl)).map(|(name, _)| format!("`{name}`")).collect();
        if !own.is_empty() {
            notes.push(no_meaning(&own, "", "it is for a cluster, and `join` is not set"));
        }
        if self.security.is_some() && self.worker_addr.is_none() {
            let names = ["`ssl-*`".to_owned(), "`cert-allowed-cn`".to_owned()];
            notes.push(no_meaning(&names, "", "neither `join` nor `worker-addr` is set"));
        }
        notes
    }

    /// dm-worker's TOML form, as `get-config worker` prints it.
    pub fn to_dm_toml(&self) -> String {
        let scheme = if self.security.is_some() { "https" } else { "http" };
        let join: Vec<_> = self.join.iter().map(|address| format!("{scheme}://{address}")).collect();
        let file = |pem: fn(&Security) -> &Option<Pem>| match self.security.as_ref().map(pem) {
            Some(Some(Pem::File(path))) => path.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        let format = if self.log.format == LogFormat::Json { "json" } else { "text" };
        let path =
            |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let text = |value: &str| toml::Value::from(value).to_string();
        let kept = |key| text(self.kept.text(key).unwrap_or_default());
        let entries = [
            ("name", text(&self.name)),
            ("log-level", text(&self.log.level.to_string())),
            ("log-file", text(&path(&self.log.file))),
            ("log-format", text(format)),
            ("log-rotate", kept("log-rotate")),
            ("redact-info-log", self.kept.is_set("redact-info-log").to_string()),
            ("join", text(&join.join(","))),
            ("worker-addr", text(self.worker_addr.as_deref().unwrap_or_default())),
            ("advertise-addr", text(self.advertise_addr.as_deref().unwrap_or_default())),
            ("config-file", text(&path(&self.config_file))),
            ("keepalive-ttl", self.keepalive_ttl.as_secs().to_string()),
            ("relay-keepalive-ttl", self.relay_keepalive_ttl.as_secs().to_string()),
            ("relay-dir", kept("relay-dir")),
            ("ssl-ca", text(&file(|security| &security.ca))),
            ("ssl-cert", text(&file(|security| &security.cert))),
            ("ssl-key", text(&file(|security| &security.key))),
            ("ssl-ca-base64", text("")),
            ("ssl-key-base64", text("")),
            ("ssl-cert-base64", text("")),
        ];
        entries.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }
}
