//! What is found where: two gRPC services and four pages.
//!
//! Pages are reads, open to everybody who can connect. Whatever is not there is told in the protocol it was asked in.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::service::Routes;

use super::agent_service::AgentService;
use super::detail;
use super::journal::Journal;
use super::master_service::MasterService;
use crate::control::backend::Backend;
use crate::control::master_api::MasterApi;
use crate::control::metrics;
use crate::control::proto::agent::agent_server::AgentServer;
use crate::control::proto::pb::master_server::MasterServer;
use crate::control::proto::status_json;

/// Largest message taken.
const REQUEST_LIMIT: usize = 16 * 1024 * 1024;

/// Everything that is served. `address` is what `list-member` shows.
pub fn router(backend: Arc<dyn Backend>, journal: Arc<Journal>, address: String) -> Router {
    let api = MasterApi::new(backend.clone(), address);
    let master = MasterServer::new(MasterService::new(api, journal.clone())).max_decoding_message_size(REQUEST_LIMIT);
    let agent = AgentServer::new(AgentService::new(backend.clone(), journal)).max_decoding_message_size(REQUEST_LIMIT);
    Routes::new(master).add_service(agent).into_axum_router().merge(pages(backend)).reset_fallback().fallback(not_found)
}

/// The four pages alone: what is served to peers of whom nothing is known.
pub fn pages_alone(backend: Arc<dyn Backend>) -> Router {
    pages(backend).fallback(not_found)
}

fn pages(backend: Arc<dyn Backend>) -> Router {
    Router::new()
        .route("/status", get(status_page))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .with_state(backend)
}

/// Whether a request speaks gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn status_page(State(backend): State<Arc<dyn Backend>>) -> Response {
    let status = detail::reply(&backend.status(), backend.ready(), SystemTime::now());
    ([(CONTENT_TYPE, "application/json")], status_json(&status)).into_response()
}

async fn metrics_page(State(backend): State<Arc<dyn Backend>>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&backend.status(), backend.ready())).into_response()
}

async fn ready_page(State(backend): State<Arc<dyn Backend>>) -> Response {
    if backend.ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store is being opened or the tasks are being loaded\n")
            .into_response()
    }
}

async fn not_found(request: Request<axum::body::Body>) -> Response {
    if !is_grpc(request.headers()) {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
    tonic::Status::unimplemented(format!("unknown service {service}")).into_http()
}
