//! Whom to ask: finds the socket or the master, and opens a channel to it.
//!
//! Invariant: nothing is sent before it is clear who is asked, and whoever cannot be reached is named with what to try.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::args::Target;
use super::duration::GoDuration;
use super::error::CtlError;
use crate::config::Environment;
use crate::control::proto::agent::agent_client::AgentClient;
use crate::control::proto::pb::master_client::MasterClient;

/// Where the daemon of the system has its socket.
const SYSTEM_SOCKET: &str = "/run/dm-agent/admin.sock";

/// How long an answer may take where nothing else is said.
const USUAL_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a master may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer taken.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// An open way to whoever answers.
#[derive(Clone)]
pub struct Session {
    /// DM's service.
    pub master: MasterClient<Channel>,
    /// The agent's own; a dm-master does not have it.
    pub agent: Option<AgentClient<Channel>>,
}

/// `--config`, in dmctl's form.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    master_addr: Option<String>,
    rpc_timeout: Option<String>,
    ssl_ca: Option<PathBuf>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
}

/// Opens a channel as the command line says.
pub async fn open(target: &Target) -> Result<Session, CtlError> {
    let target = with_file(target)?;
    let timeout = target.rpc_timeout.map_or(USUAL_TIMEOUT, |d| d.0);
    match &target.master_addr {
        Some(addresses) => {
            let channel = reach_master(addresses, &target, timeout).await?;
            Ok(Session { master: master_client(channel), agent: None })
        }
        None => {
            let named = std::env::var_os("DM_AGENT_SOCKET").filter(|value| !value.is_empty()).map(PathBuf::from);
            let given = target.socket.clone().or(named);
            let path = match given {
                Some(path) => path,
                None => {
                    let environment = Environment::of_process();
                    find_socket(environment.admin_socket_candidates(), environment.worker_sockets())?
                }
            };
            let channel = reach_socket(&path, timeout).await?;
            let agent = AgentClient::new(channel.clone()).max_decoding_message_size(ANSWER_LIMIT);
            Ok(Session { master: master_client(channel), agent: Some(agent) })
        }
    }
}

fn master_client(channel: Channel) -> MasterClient<Channel> {
    MasterClient::new(channel).max_decoding_message_size(ANSWER_LIMIT)
}

/// The first that somebody listens on, of where this user's or the system's daemon puts its own. Where none of them is
/// alive, the one worker of a cluster that is. The nearest where there is nobody, so that an error can name one.
fn find_socket(candidates: Vec<PathBuf>, workers: Vec<PathBuf>) -> Result<PathBuf, CtlError> {
    if let Some(path) = candidates.iter().find(|path| alive(path)) {
        return Ok(path.clone());
    }
    let mut workers: Vec<PathBuf> = workers.into_iter().filter(|path| alive(path)).collect();
    if workers.len() > 1 {
        let paths: Vec<String> = workers.iter().map(|path| format!("\n  --socket {}", path.display())).collect();
        return Err(CtlError::Usage(format!("several agents run here; say which one is meant:{}", paths.concat())));
    }
    let left = candidates.iter().find(|path| path.exists()).or(candidates.first()).cloned();
    Ok(workers.pop().or(left).unwrap_or_else(|| PathBuf::from(SYSTEM_SOCKET)))
}

/// Whether somebody listens, be it that we may not come in.
fn alive(path: &Path) -> bool {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

/// Fills in from the file what the command line leaves open. A socket on the command line keeps the file's master out.
fn with_file(target: &Target) -> Result<Target, CtlError> {
    let mut target = target.clone();
    let Some(path) = &target.config else { return Ok(target) };
    let text = super::read_file(path)?;
    let usage = |why: String| CtlError::Usage(format!("{}: {why}", path.display()));
    let file: File = toml::from_str(&text).map_err(|error| usage(error.to_string()))?;
    if target.rpc_timeout.is_none()
        && let Some(text) = file.rpc_timeout
    {
        target.rpc_timeout = Some(text.parse::<GoDuration>().map_err(|why| usage(format!("rpc-timeout: {why}")))?);
    }
    let address = file.master_addr.filter(|address| !address.is_empty() && target.socket.is_none());
    target.master_addr = target.master_addr.or(address);
    target.ssl_ca = target.ssl_ca.or(file.ssl_ca);
    target.ssl_cert = target.ssl_cert.or(file.ssl_cert);
    target.ssl_key = target.ssl_key.or(file.ssl_key);
    Ok(target)
}

async fn reach_socket(path: &Path, timeout: Duration) -> Result<Channel, CtlError> {
    // Tried once by hand, since the channel's own error does not say what the system said.
    if let Err(error) = UnixStream::connect(path).await {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "is dm-agent running? Another socket can be named with --socket",
            std::io::ErrorKind::ConnectionRefused => "nobody listens there: dm-agent is not running",
            std::io::ErrorKind::PermissionDenied => "you must be root, the agent's user, or in the socket's group",
            _ => "another socket can be named with --socket",
        };
        return Err(CtlError::Unreachable(format!("cannot reach {}: {error} ({hint})", path.display())));
    }
    let socket = path.to_owned();
    // The name is only for the protocol's sake; nothing looks it up.
    let endpoint = Endpoint::from_static("http://dm-agent.invalid").timeout(timeout);
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let failed =
        |error: tonic::transport::Error| CtlError::Unreachable(format!("cannot reach {}: {error}", path.display()));
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

async fn reach_master(addresses: &str, target: &Target, timeout: Duration) -> Result<Channel, CtlError> {
    let tls = tls_config(target)?;
    let mut failures = Vec::new();
    for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let bare = address.trim_start_matches("http://").trim_start_matches("https://");
        let wrong = |error: tonic::transport::Error| CtlError::Usage(format!("--master-addr {address}: {error}"));
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{bare}")).map_err(wrong)?;
        endpoint = endpoint.timeout(timeout).connect_timeout(CONNECT_TIMEOUT);
        if let Some(tls) = &tls {
            endpoint = endpoint.tls_config(tls.clone()).map_err(wrong)?;
        }
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => failures.push(format!("{address}: {}", root_cause(&error))),
        }
    }
    Err(CtlError::Unreachable(format!("cannot reach a dm-master ({})", failures.join("; "))))
}

fn tls_config(target: &Target) -> Result<Option<ClientTlsConfig>, CtlError> {
    if target.ssl_ca.is_none() && target.ssl_cert.is_none() {
        return Ok(None);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(path) = &target.ssl_ca {
        tls = tls.ca_certificate(Certificate::from_pem(super::read_file(path)?));
    }
    if let (Some(cert), Some(key)) = (&target.ssl_cert, &target.ssl_key) {
        tls = tls.identity(Identity::from_pem(super::read_file(cert)?, super::read_file(key)?));
    }
    Ok(Some(tls))
}

/// The innermost error; the outer ones only say that something with transport went wrong.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (near, far) = (path("near.sock"), path("far.sock"));
        let candidates = || vec![near.clone(), far.clone()];
        assert_eq!(find_socket(candidates(), vec![]).unwrap(), near, "nobody: the nearest is named");
        assert_eq!(find_socket(vec![], vec![]).unwrap(), Path::new(SYSTEM_SOCKET));
        std::fs::write(&far, "").unwrap();
        assert_eq!(find_socket(candidates(), vec![]).unwrap(), far, "left behind");
        let (one, two) = (path("w1.sock"), path("w2.sock"));
        let listen = |path: &Path| std::os::unix::net::UnixListener::bind(path).unwrap();
        let _one = listen(&one);
        assert_eq!(find_socket(candidates(), vec![one.clone(), path("gone.sock")]).unwrap(), one);
        let _two = listen(&two);
        let error = find_socket(candidates(), vec![one.clone(), two.clone()]).unwrap_err().to_string();
        assert!(error.contains(&one.display().to_string()) && error.contains(&two.display().to_string()), "{error}");
        let _near = listen(&near);
        assert_eq!(find_socket(candidates(), vec![one, two]).unwrap(), near, "an agent that stands alone goes first");
    }
}
