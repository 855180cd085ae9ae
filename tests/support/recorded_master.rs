//! A dm-master that answers what a real one answered, over TCP, with TLS where it has an identity. It keeps what it was asked.

use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut};
use dm_agent::control::proto::descriptor;
use dm_agent::tls::cluster_server;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::certificates::Identity;

/// A method's name and its request as JSON, fields that are empty left out.
pub type Asked = (String, Value);

#[derive(Default)]
struct State {
    answer: Value,
    asked: Vec<Asked>,
}

/// The master.
pub struct RecordedMaster {
    /// Address for `--master-addr`.
    pub address: String,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl Drop for RecordedMaster {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl RecordedMaster {
    /// Serves on a free port.
    pub async fn start(identity: Option<&Identity>) -> RecordedMaster {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let tls = match identity {
            Some(identity) => Some(cluster_server(&identity.files()).await.expect("certificates of the test")),
            None => None,
        };
        let served = Arc::clone(&state);
        let router = axum::Router::new().fallback(move |request| answer(request, Arc::clone(&served)));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let (service, tls) = (TowerToHyperService::new(router.clone()), tls.clone());
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    match tls {
                        None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                            drop(builder.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        RecordedMaster { address, state, serving }
    }

    /// What every call is answered with from now on; what was asked before is forgotten.
    pub fn answers(&self, answer: Value) {
        *self.state.lock().expect("nothing panics with it") = State { answer, asked: Vec::new() };
    }

    /// What it was asked since.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().expect("nothing panics with it").asked.clone()
    }
}

async fn answer(request: axum::extract::Request, state: Arc<Mutex<State>>) -> axum::response::Response {
    let path = request.uri().path().to_owned();
    let service = tower::service_fn(move |request: tonic::Request<Vec<u8>>| {
        let answered = call(&path, request.get_ref(), &state);
        async move { answered.map(tonic::Response::new) }
    });
    let response = tonic::server::Grpc::new(Raw).unary(service, request.map(tonic::body::Body::new)).await;
    response.map(axum::body::Body::new)
}

fn call(path: &str, request: &[u8], state: &Mutex<State>) -> Result<Vec<u8>, Status> {
    let pool = descriptor("pb.QueryStatusListRequest").expect("a message of DM's").parent_pool().clone();
    let service = pool.get_service_by_name("pb.Master").expect("DM's service");
    let method = service.methods().find(|method| path == format!("/pb.Master/{}", method.name()));
    let method = method.ok_or_else(|| Status::unimplemented(path.to_owned()))?;
    let wrong = |error: &dyn std::fmt::Display| Status::internal(format!("{}: {error}", method.name()));
    let asked = DynamicMessage::decode(method.input(), request).map_err(|error| wrong(&error))?;
    let mut json = Vec::new();
    let options = SerializeOptions::new().use_proto_field_name(true);
    let written = asked.serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options);
    written.map_err(|error| wrong(&error))?;
    let json = serde_json::from_slice(&json).map_err(|error| wrong(&error))?;
    let mut state = state.lock().expect("nothing panics with it");
    state.asked.push((method.name().to_owned(), json));
    // A recording that is no answer to this method fails the call, and the test with it.
    let answer = DynamicMessage::deserialize(method.output(), state.answer.clone()).map_err(|error| wrong(&error))?;
    Ok(answer.encode_to_vec())
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}
