//! What is found where on the admin socket: two gRPC services and four pages.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tonic::service::Routes;

use super::agent_service::AgentService;
use super::journal::Journal;
use super::master_service::MasterService;
use crate::control::backend::Backend;
use crate::control::master_api::MasterApi;
use crate::control::pages;
use crate::control::proto::agent::agent_server::AgentServer;
use crate::control::proto::pb::master_server::MasterServer;

/// Largest message taken.
const REQUEST_LIMIT: usize = 16 * 1024 * 1024;

/// Everything that is served. `address` is what `list-member` shows.
pub fn router(backend: Arc<dyn Backend>, journal: Arc<Journal>, address: String) -> Router {
    let api = MasterApi::new(backend.clone(), address);
    let master = MasterServer::new(MasterService::new(api, journal.clone())).max_decoding_message_size(REQUEST_LIMIT);
    let agent = AgentServer::new(AgentService::new(backend.clone(), journal)).max_decoding_message_size(REQUEST_LIMIT);
    let pages = Router::new()
        .route("/status", get(pages::status))
        .route("/metrics", get(pages::metrics))
        .route("/healthz", get(pages::alive))
        .route("/readyz", get(pages::ready))
        .with_state(backend);
    let services = Routes::new(master).add_service(agent).into_axum_router();
    services.merge(pages).reset_fallback().fallback(pages::not_found)
}
