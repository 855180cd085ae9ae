//! Two small clients of the admin socket: HTTP GET, and gRPC's QueryStatus, which `dm-agentctl query-status` sends.
//!
//! They exist to measure the answer of the agent itself, without the start of a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

/// An HTTP answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// GET over a Unix socket.
pub async fn get(socket: &Path, path: &str) -> Result<HttpAnswer, String> {
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let bytes = exchange(socket, request.as_bytes()).await?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no end of headers in {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(HttpAnswer { status: status.ok_or_else(|| format!("no status in {head:?}"))?, body: body.into() })
}

/// Sends bytes and reads whatever comes until the agent closes.
pub async fn exchange(socket: &Path, request: &[u8]) -> Result<Vec<u8>, String> {
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        // Refused input may close the connection while it is being sent: what was answered still counts.
        let sent = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            Err(error) if answer.is_empty() && sent.is_ok() => Err(error),
            _ => Ok(answer),
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), talk).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 20 s".into()),
    }
}

/// `pb.QueryStatusListRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct QueryStatusListRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    sources: Vec<String>,
}

/// The part of `pb.QueryStatusListResponse` that every answer has.
#[derive(Clone, PartialEq, prost::Message)]
struct QueryStatusListResponse {
    #[prost(bool, tag = "1")]
    result: bool,
    #[prost(string, tag = "2")]
    msg: String,
}

/// `pb.Master` over the admin socket.
pub struct MasterClient {
    channel: Channel,
}

impl MasterClient {
    /// Connects.
    pub async fn connect(socket: &Path) -> MasterClient {
        let path: PathBuf = socket.into();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is needed by the library and used for nothing.
        let endpoint = Endpoint::from_static("http://localhost").timeout(Duration::from_secs(20));
        let channel = endpoint.connect_with_connector(connector).await.expect("connect to the admin socket");
        MasterClient { channel }
    }

    /// QueryStatus of a task; the error is the answer's message.
    pub async fn query_status(&self, task: &str) -> Result<(), String> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| error.to_string())?;
        let request = QueryStatusListRequest { name: task.into(), sources: Vec::new() };
        let codec = ProstCodec::<QueryStatusListRequest, QueryStatusListResponse>::default();
        let path = "/pb.Master/QueryStatus".parse().expect("a path");
        let answer =
            client.unary(tonic::Request::new(request), path, codec).await.map_err(|error| error.to_string())?;
        let answer = answer.into_inner();
        if answer.result { Ok(()) } else { Err(answer.msg) }
    }
}
