//! SQL connections, made one way for everyone: over TCP, with TLS, session variables and a limit on the wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, DriverError, Error, IoError, OptsBuilder, SslOpts};

use super::endpoint::Endpoint;
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::tls::{Pem, TlsFiles, client_config, is_nameless, needs_no_name};

/// Longest wait for a connection to be ready for statements.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest packet either way, the protocol's own limit.
pub const MAX_PACKET: usize = 1 << 30;
/// A peer that vanished is noticed after a few of these.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long the driver takes an idle connection for good; the servers' default `wait_timeout`.
const IDLE_SECONDS: usize = 28_800;

/// Makes SQL connections to one endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    endpoint: Arc<Endpoint>,
    session: Vec<String>,
}

impl Connector {
    /// Connections to `endpoint`.
    pub fn new(endpoint: impl Into<Arc<Endpoint>>) -> Self {
        Connector { endpoint: endpoint.into(), session: Vec::new() }
    }

    /// Adds a statement that each new connection runs, before the endpoint's own session variables, which so have the
    /// last word.
    pub fn with_session(mut self, statement: impl Into<String>) -> Self {
        self.session.push(statement.into());
        self
    }

    /// Where the connections go.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Logs in and prepares the session, in at most [`CONNECT_TIMEOUT`].
    pub async fn connect(&self) -> Result<Conn, Error> {
        let timed_out = |_| {
            let text = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
            Error::Io(IoError::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
        };
        tokio::time::timeout(CONNECT_TIMEOUT, self.login()).await.map_err(timed_out)?
    }

    /// What an operator is told when [`Self::connect`] failed.
    pub fn failure(&self, error: &Error, scope: Scope) -> Failure {
        let doing = format!("connect to {}", self.endpoint.label());
        if is_certificate(error) {
            // A lost connection heals by itself, a certificate that does not fit never does.
            return Failure::new(Code::DriverError, doing)
                .scope(scope)
                .cause(error.to_string())
                .workaround(certificate_remedy(error, &self.endpoint.host));
        }
        if let Error::Other(settings) = error {
            // What our own settings lack, with the file that it is about.
            return Failure::new(Code::DriverError, doing)
                .scope(scope)
                .cause(chain(settings.as_ref()))
                .workaround("Please correct `security` or `session` of the server's configuration.");
        }
        let failure = match dialled(error, &self.endpoint) {
            Some(cause) => Failure::new(Code::DriverError, &doing).scope(scope).cause(cause),
            None => driver_failure(error, Code::DriverError, scope, &doing),
        };
        match login_remedy(error, scope) {
            Some(remedy) if self.endpoint.password.sealed().is_some() => failure.workaround(format!(
                "{remedy} The password looks like an encrypted one that was not decrypted: check `agent.secret-key-path`."
            )),
            Some(remedy) => failure.workaround(remedy),
            None => failure,
        }
    }

    async fn login(&self) -> Result<Conn, Error> {
        let other = |error: Box<dyn std::error::Error + Send + Sync>| Error::Other(error);
        let last = self.endpoint.session_statement().map_err(|error| other(error.into()))?;
        let names = match &self.endpoint.tls {
            None => &[][..],
            Some(files) => {
                // The driver would read them too, and not say which one it cannot use.
                client_config(files).await.map_err(|error| other(error.into()))?;
                &files.allowed_cn[..]
            }
        };
        let mut conn = self.open(names).await?;
        for statement in self.session.iter().chain(&last) {
            conn.query_drop(statement.as_str()).await?;
        }
        Ok(conn)
    }

    /// The driver checks one name a connection: each allowed one is tried until the certificate carries it.
    async fn open(&self, names: &[String]) -> Result<Conn, Error> {
        let Some((last, others)) = names.split_last() else {
            return match Conn::new(self.opts(&Check::Host)).await {
                // The authority is checked before the name, so it was right; the driver cannot leave out the name alone.
                Err(error) if needs_no_name(&self.endpoint.host) && tls_error(&error).is_some_and(is_nameless) => {
                    Conn::new(self.opts(&Check::Nothing)).await
                }
                outcome => outcome,
            };
        };
        for name in others {
            match Conn::new(self.opts(&Check::Name(name))).await {
                Err(error) if is_certificate(&error) => {}
                outcome => return outcome,
            }
        }
        Conn::new(self.opts(&Check::Name(last))).await
    }

    fn opts(&self, check: &Check<'_>) -> OptsBuilder {
        let endpoint = &self.endpoint;
        OptsBuilder::default()
            .ip_or_hostname(endpoint.bare_host())
            .tcp_port(endpoint.port)
            .user(Some(endpoint.user.as_str()))
            .pass(Some(endpoint.password.expose()))
            // Otherwise a local address silently becomes the server's unix socket.
            .prefer_socket(false)
            // Rows matched, not rows changed: a fence that writes what is there already has still matched.
            .client_found_rows(true)
            .max_allowed_packet(Some(MAX_PACKET))
            .wait_timeout(Some(IDLE_SECONDS))
            .tcp_keepalive(Some(KEEPALIVE))
            // A clear password is only ever sent where TLS protects it.
            .enable_cleartext_plugin(endpoint.tls.is_some())
            .ssl_opts(endpoint.tls.as_ref().map(|files| ssl_opts(files, check)))
    }
}

/// What the driver checks a certificate for, where there is an authority.
enum Check<'a> {
    /// The authority and the host's name.
    Host,
    /// The authority and this name.
    Name(&'a str),
    Nothing,
}

/// TLS for mysql_async, which reads the files itself.
fn ssl_opts(files: &TlsFiles, check: &Check<'_>) -> SslOpts {
    let source = |pem: &Pem| match pem {
        Pem::Path(path) => path.clone().into(),
        Pem::Inline(bytes) => bytes.clone().into(),
    };
    let mut opts = SslOpts::default();
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        opts = opts.with_client_identity(Some(ClientIdentity::new(source(cert), source(key))));
    }
    match (&files.ca, check) {
        (None, _) | (_, Check::Nothing) => opts.with_danger_accept_invalid_certs(true),
        (Some(ca), check) => {
            let opts = opts.with_root_certs(vec![source(ca)]).with_disable_built_in_roots(true);
            opts.with_danger_tls_hostname_override(match check {
                Check::Name(name) => Some((*name).to_owned()),
                Check::Host | Check::Nothing => None,
            })
        }
    }
}

/// A server that nobody reaches, in a dm-worker's words: `dial tcp 127.0.0.1:4000: connect: connection refused`.
fn dialled(error: &Error, endpoint: &Endpoint) -> Option<String> {
    let Error::Io(IoError::Io(error)) = error else { return None };
    let what = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused",
        io::ErrorKind::HostUnreachable => "connect: no route to host",
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
        _ => return None,
    };
    let host = endpoint.bare_host();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("dial tcp {host}:{}: {what}", endpoint.port))
}

/// What to do where the server does not let the account in, or not as it is asked.
fn login_remedy(error: &Error, scope: Scope) -> Option<String> {
    let place = match scope {
        Scope::Upstream => "`user` and `password` of the source's `from` (`operate-source update` gives new ones)",
        _ => "`user` and `password` of the task's `target-database` (`update-task` gives new ones)",
    };
    match error {
        Error::Server(server) if matches!(server.code, 1044 | 1045 | 1130 | 1698 | 3118 | 4151) => Some(format!(
            "Please check {place}, that the account may log in from this machine, and `security`, where it REQUIREs TLS."
        )),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            Some("The server has no TLS: please set it up there, or remove `security`.".to_owned())
        }
        // MySQL asks so where there is no such account, so as not to tell.
        Error::Driver(DriverError::UnknownAuthPlugin { .. }) => Some(format!(
            "Please check {place}: MySQL asks in this way for the password of an account that it does not have. One that is \
             there needs another plugin: ALTER USER … IDENTIFIED WITH caching_sha2_password BY …"
        )),
        _ => None,
    }
}

/// What to do about a certificate that does not fit.
fn certificate_remedy(error: &Error, host: &str) -> String {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let Some(rustls::Error::InvalidCertificate(why)) = tls_error(error) else {
        return "Please check `security`, and the server's TLS settings.".to_owned();
    };
    match why {
        UnknownIssuer => "Please give the authority that signed the server's certificate as `ssl-ca`.".to_owned(),
        NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "The server's certificate carries no name (as one that MySQL makes for itself): please give the server one \
             with the name {host} among its subject alternative names. `ssl-cert` and `ssl-key` without `ssl-ca` \
             encrypt and do not check."
        ),
        NotValidForName | NotValidForNameContext { .. } => format!(
            "Please give a name that is in the server's certificate as `cert-allowed-cn`, or the server a certificate \
             with the name {host}."
        ),
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            "Please renew the server's certificate: it is expired or not valid yet; or set this machine's clock."
                .to_owned()
        }
        _ => "Please look at the server's certificate, and at `ssl-ca`.".to_owned(),
    }
}

/// What TLS itself says.
fn tls_error(error: &Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error holds is not its source, but itself.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Whether TLS failed over a certificate rather than over the network.
fn is_certificate(error: &Error) -> bool {
    match error {
        Error::Io(IoError::Tls(_)) => true,
        Error::Io(IoError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}
