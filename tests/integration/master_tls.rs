//! A cluster whose parties know each other by certificates: masters, etcd, and worker-addr, both ways.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::agent::{Agent, AgentOptions};
use crate::support::certificates::{Authority, Identity};
use crate::support::cluster::{ClusterLink, WORKER, joining};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::mini_master::MiniMaster;
use crate::support::servers::Kind;

const PAGE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What a page answers to somebody with these certificates.
async fn page(identity: &Identity, address: &str) -> Result<String, String> {
    let mut stream = identity.connect(address).await.map_err(|error| error.to_string())?;
    stream.write_all(PAGE).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn everything_in_a_cluster_goes_over_tls() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let authority = Authority::new();
    let (of_master, of_agent) = (authority.issue("dm-master"), authority.issue("dm-agent"));
    let master = MiniMaster::start_as(Some(of_master.clone())).await;
    let mut options = joining(&master, WORKER, 60);
    options.top += &of_agent.toml();
    options.top += "cert-allowed-cn = [\"dm-master\"]\n";
    let mut link = ClusterLink::start_in("mtls", &source, &target, master, &options).await;
    link.pause().await.expect_quick();
    link.resume().await.expect_quick();
    link.insert(2).await;
    link.wait_equal().await;

    let address = link.agent.worker_addr();
    assert!(page(&of_master, &address).await.expect("the master may").ends_with("ok\n"));
    // A certificate of the cluster with another name, one of another cluster, none at all.
    assert!(page(&of_agent, &address).await.is_err(), "cert-allowed-cn names only the master");
    let stranger = Identity { ca: of_master.ca.clone(), ..Authority::new().issue("dm-master") };
    assert!(page(&stranger, &address).await.is_err(), "another authority");
    let mut plain = TcpStream::connect(&address).await.expect("connect");
    plain.write_all(PAGE).await.expect("write");
    let mut answer = Vec::new();
    // Whether it is closed or reset, nothing of a page comes.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("ok"), "{answer:?}");

    // Renewed files are used from the next connection on; files that make no sense change nothing.
    let shown = async || -> Result<Vec<u8>, String> {
        let stream = of_master.connect(&address).await.map_err(|error| error.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
        Ok(chain[0].to_vec())
    };
    let before = shown().await.expect("connect");
    authority.issue("dm-agent");
    let renewed = eventually("the new certificate is shown", Duration::from_secs(10), async || match shown().await? {
        now if now == before => Err("still the one before".to_owned()),
        now => Ok(now),
    })
    .await;
    std::fs::write(&of_agent.cert, "nonsense").expect("spoil the certificate");
    assert_eq!(shown().await.expect("the last good one"), renewed);
    authority.issue("dm-agent");
    link.insert(1).await;
    link.wait_equal().await;
    link.pause().await.expect_quick();
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_told() {
    let authority = Authority::new();
    let master = MiniMaster::start_as(Some(authority.issue("dm-master"))).await;
    let run = async |agent: &Agent, name: &str, lines: String| {
        let text = format!("join = \"{}\"\nworker-addr = \"127.0.0.1:1{}\"\n{lines}", master.address, "8262");
        let config = agent.file(&format!("{name}.toml"), &text);
        let state = config.replace(".toml", "-state");
        let socket = format!("{state}.sock");
        agent.run_daemon(&["--config", &config, "--state-dir", &state, "--admin-socket", &socket]).await
    };
    let host = Agent::start(&AgentOptions::default()).await;
    let stranger = Authority::new().issue("dm-agent");
    let refused = run(&host, "stranger", stranger.toml()).await;
    assert_eq!(refused.exit, Some(2), "{refused:?}");
    assert!(refused.text().contains("code=40077") && refused.text().contains("certificate"), "{refused:?}");
    let missing = Identity { cert: "/nowhere/cert.pem".into(), ..authority.issue("dm-agent") };
    let refused = run(&host, "missing", missing.toml()).await;
    assert_eq!(refused.exit, Some(2), "{refused:?}");
    for word in ["TLS config not valid", "/nowhere/cert.pem"] {
        assert!(refused.text().contains(word), "{refused:?}");
    }
}

/// Without a cluster the pages have the same certificates.
#[tokio::test]
async fn pages_of_an_agent_alone_have_tls_too() {
    let authority = Authority::new();
    let (of_agent, of_scraper) = (authority.issue("dm-agent"), authority.issue("prometheus"));
    let agent = Agent::start(&AgentOptions { top: of_agent.toml(), ..AgentOptions::default() }).await;
    let address = agent.worker_addr();
    assert!(page(&of_scraper, &address).await.expect("a certificate of the authority").ends_with("ok\n"));
    assert!(page(&Authority::new().issue("prometheus"), &address).await.is_err());
    agent.assert_quiet_log();
}
