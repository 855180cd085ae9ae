//! The pages that both the admin socket and worker-addr serve, and what is told of one that is not there.
//!
//! All are reads, open to everybody who can connect.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::admin::detail;
use super::backend::Backend;
use super::metrics;
use super::proto::status_json;
use crate::model::VERSION_LINES;

/// What is told to Go's tools.
const NO_PPROF: &str = "404 no profiles here: dm-agent is no Go program; /metrics has its memory and processor time\n";

/// Whether a request speaks gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The full status as JSON.
pub async fn status(State(backend): State<Arc<dyn Backend>>) -> Response {
    let status = detail::reply(&backend.status(), backend.ready(), SystemTime::now());
    ([(CONTENT_TYPE, "application/json")], status_json(&status)).into_response()
}

/// dm-worker's six lines.
pub async fn version() -> Response {
    ([(CONTENT_TYPE, "text/plain")], VERSION_LINES).into_response()
}

/// For Prometheus.
pub async fn metrics(State(backend): State<Arc<dyn Backend>>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&backend.status(), backend.ready())).into_response()
}

/// Whether the process lives.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Whether it is loaded.
pub async fn ready(State(backend): State<Arc<dyn Backend>>) -> Response {
    if backend.ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the store is being opened or the tasks are being loaded\n")
            .into_response()
    }
}

/// Whatever is not there is told in the protocol it was asked in, and in Go's words.
pub async fn not_found(request: Request) -> Response {
    if is_grpc(request.headers()) {
        let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        return tonic::Status::unimplemented(format!("unknown service {service}")).into_http();
    }
    let pprof = request.uri().path().starts_with("/debug/pprof");
    let text = if pprof { NO_PPROF } else { "404 page not found\n" };
    let mut response = (StatusCode::NOT_FOUND, text).into_response();
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
