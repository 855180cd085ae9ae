//! worker-addr: pages for everybody who can connect, and in a cluster gRPC for the masters, on one port.
//!
//! Invariants: with TLS nothing is served to a client without a certificate of the cluster; certificate files are read
//! for each connection, and the last good ones hold where new ones cannot be used. No connection holds the port: each has
//! the limits of [`connection`](super::connection) and one on its handshake, and their number has one too. Nothing but
//! what masters ask changes anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::any;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::backend::Backend;
use super::connection::{self, Limits};
use super::pages;
use super::proto::pb::worker_server::WorkerServer;
use super::worker_rpc::{METHODS, WorkerService};
use crate::tls::{TlsError, TlsFiles, cluster_server};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest request.
const REQUEST_LIMIT: usize = 16 * 1024 * 1024;
/// After an accept that failed: mostly too many open files, which pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port, before anything is served on it.
#[derive(Debug)]
pub struct WorkerPort {
    listener: std::net::TcpListener,
    tls: Option<Arc<Tls>>,
}

/// Why the port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The address is not there, or is taken.
    #[error(
        "worker-addr: cannot listen on {0}: {1}. Give an address of this machine and a free port, or remove `worker-addr`"
    )]
    Listen(String, #[source] std::io::Error),
    /// The certificates cannot be used.
    #[error(
        "TLS config not valid: {0}. Check `ssl-ca`, `ssl-cert` and `ssl-key`, which clients of worker-addr are met with"
    )]
    Tls(#[source] TlsError),
}

impl WorkerPort {
    /// Binds an address in Go's form, where an empty host means every address.
    pub fn bind(address: &str, tls: Option<TlsFiles>) -> Result<WorkerPort, PortError> {
        let fail = |error| PortError::Listen(address.to_owned(), error);
        let bound = match address.strip_prefix(':') {
            // A machine may be without IPv6.
            Some(port) => std::net::TcpListener::bind(format!("[::]:{port}"))
                .or_else(|_| std::net::TcpListener::bind(format!("0.0.0.0:{port}"))),
            None => std::net::TcpListener::bind(address),
        };
        let listener = bound.map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let tls = tls.map(|files| Arc::new(Tls { files, last: Mutex::new(None) }));
        Ok(WorkerPort { listener, tls })
    }

    /// Whether certificates can be used, before anything is begun with them.
    pub async fn check(tls: Option<&TlsFiles>) -> Result<(), PortError> {
        match tls {
            Some(files) => cluster_server(files).await.map(drop).map_err(PortError::Tls),
            None => Ok(()),
        }
    }

    /// Serves until `closed`.
    pub async fn serve(self, router: Router, limits: Limits, closed: CancellationToken) {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "serve worker-addr"),
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = closed.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) if connections.len() < limits.connections => {
                        let (router, tls, closed) = (router.clone(), self.tls.clone(), closed.clone());
                        connections.spawn(async move {
                            if let Err(why) = enter(stream, router, tls, limits, closed).await {
                                tracing::debug!(%peer, why, "connection to worker-addr");
                            }
                        });
                    }
                    Ok((_, peer)) => tracing::warn!(%peer, limits.connections, "too many connections on worker-addr"),
                    Err(error) => {
                        tracing::warn!(%error, "accept on worker-addr");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        // Each connection ends itself within the drain limit.
        while connections.join_next().await.is_some() {}
    }
}

/// Certificates, and what was made of them when they were good.
#[derive(Debug)]
struct Tls {
    files: TlsFiles,
    last: Mutex<Option<Arc<rustls::ServerConfig>>>,
}

impl Tls {
    async fn config(&self) -> Result<Arc<rustls::ServerConfig>, String> {
        let loaded = cluster_server(&self.files).await;
        // Nothing panics while holding it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (loaded, &*last) {
            (Ok(config), _) => {
                *last = Some(Arc::clone(&config));
                Ok(config)
            }
            (Err(error), Some(config)) => {
                tracing::warn!(%error, "the certificates of worker-addr cannot be used; those before are used on");
                Ok(Arc::clone(config))
            }
            (Err(error), None) => {
                tracing::error!(%error, "the certificates of worker-addr cannot be used");
                Err(error.to_string())
            }
        }
    }
}

async fn enter(
    stream: TcpStream,
    router: Router,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    closed: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        connection::serve(stream, router, limits, closed).await;
        return Ok(());
    };
    let acceptor = TlsAcceptor::from(tls.config().await?);
    let secured = tokio::select! {
        secured = timeout(HANDSHAKE, acceptor.accept(stream)) => secured.map_err(|_| "no handshake in time")?,
        () = closed.cancelled() => return Ok(()),
    };
    connection::serve(secured.map_err(|error| error.to_string())?, router, limits, closed).await;
    Ok(())
}

/// What is served without a cluster: the pages, as on the admin socket.
pub fn alone(backend: Arc<dyn Backend>) -> Router {
    pages_of(backend, any(pages::status)).fallback(pages::not_found)
}

/// What is served in a cluster: what masters ask, and dm-worker's pages.
pub fn in_cluster(backend: Arc<dyn Backend>, worker: WorkerService) -> Router {
    Routes::new(WorkerServer::new(worker).max_decoding_message_size(REQUEST_LIMIT))
        .into_axum_router()
        .merge(pages_of(backend, any(pages::version)))
        .reset_fallback()
        .fallback(pages::not_found)
        .layer(from_fn(known_methods))
}

/// The method is not looked at, as dm-worker does not.
fn pages_of(backend: Arc<dyn Backend>, status: axum::routing::MethodRouter<Arc<dyn Backend>>) -> Router {
    Router::new()
        .route("/status", status)
        .route("/metrics", any(pages::metrics))
        .route("/healthz", any(pages::alive))
        .route("/readyz", any(pages::ready))
        .with_state(backend)
}

async fn known_methods(request: Request, next: Next) -> Response {
    match request.uri().path().strip_prefix("/pb.Worker/") {
        Some(method) if !METHODS.contains(&method) && pages::is_grpc(request.headers()) => {
            tonic::Status::unimplemented(format!("unknown method {method} for service pb.Worker")).into_http()
        }
        _ => next.run(request).await,
    }
}
