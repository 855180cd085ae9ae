//! The port that workers join at: registrations are answered here, everything else goes on to etcd.

use std::sync::Arc;

use dm_agent::control::proto::pb;
use dm_agent::tls::cluster_server;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;
use tower::Service;

use super::members::State;
use crate::support::certificates::Identity;

/// Registrations here, everything else to etcd.
pub(super) async fn front(listener: TcpListener, etcd: Channel, state: Arc<Mutex<State>>, identity: Option<Identity>) {
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (mut etcd, state) = (etcd.clone(), Arc::clone(&state));
        async move {
            if request.uri().path() == "/pb.Master/RegisterWorker" {
                return register(request, state).await;
            }
            // Ready at once: calls are queued.
            if std::future::poll_fn(|cx| etcd.poll_ready(cx)).await.is_err() {
                return tonic::Status::unavailable("etcd is gone").into_http();
            }
            match etcd.call(request.map(tonic::body::Body::new)).await {
                Ok(response) => response.map(axum::body::Body::new),
                Err(error) => tonic::Status::unavailable(error.to_string()).into_http(),
            }
        }
    });
    let Some(identity) = identity else { return axum::serve(listener, router).await.expect("serve workers") };
    let config = cluster_server(&identity.files()).await.expect("certificates of the test");
    loop {
        let (stream, _) = listener.accept().await.expect("accept a worker");
        let (acceptor, service) = (TlsAcceptor::from(config.clone()), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // Whoever shows no certificate of the cluster is not spoken to.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let builder = auto::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn register(request: axum::extract::Request, state: Arc<Mutex<State>>) -> axum::response::Response {
    let service = tower::service_fn(move |request: tonic::Request<pb::RegisterWorkerRequest>| {
        let state = Arc::clone(&state);
        async move {
            let pb::RegisterWorkerRequest { name, address } = request.into_inner();
            let mut state = state.lock().await;
            let answer = match state.registered.get(&name) {
                Some(known) if *known != address => pb::RegisterWorkerResponse {
                    result: false,
                    msg: format!(
                        "[code=46003:class=scheduler:scope=internal:level=medium], Message: dm-worker with name \
                         {{\"name\":\"{name}\",\"addr\":\"{known}\"}} already exists"
                    ),
                    secret_key: Vec::new(),
                },
                _ => {
                    state.registered.insert(name, address);
                    let secret_key = state.secret_key.clone();
                    pb::RegisterWorkerResponse { result: true, msg: String::new(), secret_key }
                }
            };
            Ok::<_, tonic::Status>(tonic::Response::new(answer))
        }
    });
    let codec = ProstCodec::<pb::RegisterWorkerResponse, pb::RegisterWorkerRequest>::default();
    let response = tonic::server::Grpc::new(codec).unary(service, request.map(tonic::body::Body::new)).await;
    response.map(axum::body::Body::new)
}
