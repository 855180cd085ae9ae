//! worker-addr in a cluster: gRPC and pages on one port, as recorded from a dm-worker.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::agent::Agent;
use crate::support::cluster::{WORKER, joining};
use crate::support::eventually;
use crate::support::mini_master::MiniMaster;

async fn http(address: &str, request: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.map_err(|_| "no end within 10 s".to_owned())?.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn pages_are_those_of_a_dm_worker() {
    let master = MiniMaster::start().await;
    let agent = Agent::start(&joining(&master, WORKER, 60)).await;
    let address = agent.worker_addr();
    let get = async |path: &str| http(&address, &format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")).await;
    eventually("the port is open", Duration::from_secs(20), async || get("/status").await.map(drop)).await;
    let status = get("/status").await.expect("an answer");
    assert!(status.contains(" 200 OK") && status.contains("content-type: text/plain\r\n"), "{status}");
    let lines: Vec<&str> = status.split("\r\n\r\n").nth(1).expect("a body").lines().collect();
    let names = ["Release Version: ", "Git Commit Hash: ", "Git Branch: ", "UTC Build Time: ", "Go Version: "];
    assert_eq!(lines.len(), 6, "{status}");
    assert!(lines.iter().zip(names).all(|(line, name)| line.starts_with(name)), "{status}");
    assert_eq!(lines[5], "Failpoint Build: false");
    let metrics = get("/metrics").await.expect("an answer");
    assert!(metrics.contains("text/plain; version=0.0.4") && metrics.contains("dm_agent_info{"), "{metrics}");
    for path in ["/", "/nosuch", "/status/", "/metrics/"] {
        let answer = get(path).await.expect("an answer");
        assert!(
            answer.contains(" 404 Not Found") && answer.ends_with("\r\n\r\n404 page not found\n"),
            "{path}: {answer}"
        );
        assert!(answer.contains("content-type: text/plain; charset=utf-8"), "{path}: {answer}");
    }
    let profiles = get("/debug/pprof/").await.expect("an answer");
    assert!(profiles.contains(" 404 Not Found") && profiles.contains("no profiles here"), "{profiles}");
    let post =
        http(&address, "POST /status HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.expect("an answer");
    assert!(post.contains(" 200 OK"), "the method is not checked: {post}");
    // What is no HTTP at all ends the connection and nothing else.
    let _ = http(&address, "\u{0}\u{1}garbage\r\n\r\n").await;
    assert!(get("/healthz").await.expect("an answer").ends_with("ok\n"));
}

#[tokio::test]
async fn unknown_services_and_methods_are_told_in_gos_words() {
    let master = MiniMaster::start().await;
    let agent = Agent::start(&joining(&master, WORKER, 60)).await;
    eventually("the port is open", Duration::from_secs(20), async || {
        TcpStream::connect(agent.worker_addr()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", agent.worker_addr())).expect("address");
    let channel = endpoint.connect().await.expect("connect");
    for (path, text) in [
        ("/grpc.health.v1.Health/Check", "unknown service grpc.health.v1.Health"),
        ("/pb.Worker/NoSuch", "unknown method NoSuch for service pb.Worker"),
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.expect("ready");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = axum::http::uri::PathAndQuery::from_static(path);
        let status = client.unary(tonic::Request::new(()), path, codec).await.expect_err("unknown");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unimplemented, text));
    }
    agent.assert_quiet_log();
}
