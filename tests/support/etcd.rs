//! A real etcd of a test's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dm_agent::control::proto::etcd::kv_client::KvClient;
use dm_agent::control::proto::etcd::{
    CompactionRequest, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

use super::certificates::Identity;
use super::eventually;
use super::process::{Process, free_port, fresh_folder};

/// A running etcd.
pub struct Etcd {
    folder: PathBuf,
    /// Client port on 127.0.0.1; stays the same over restarts.
    pub port: u16,
    peer_port: u16,
    process: Process,
    /// With TLS, whoever connects shows a certificate.
    identity: Option<Identity>,
    /// The port that it tells its members' clients, where that is another one.
    advertised: u16,
}

impl Etcd {
    /// Starts one on fresh data and waits until it answers.
    pub async fn start(identity: Option<Identity>, advertised: Option<u16>) -> Etcd {
        let (folder, port, peer_port) = (fresh_folder("etcd"), free_port(), free_port());
        let advertised = advertised.unwrap_or(port);
        let process = launch(&folder, port, peer_port, identity.as_ref(), advertised);
        let etcd = Etcd { folder, port, peer_port, process, identity, advertised };
        etcd.wait_until_up().await;
        etcd
    }

    /// A channel to it.
    pub fn channel(&self) -> Channel {
        if self.identity.is_some() {
            return self.stream_channel();
        }
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).expect("an address");
        endpoint.timeout(Duration::from_secs(10)).connect_lazy()
    }

    /// A channel without a limit on its calls, for streams.
    pub fn stream_channel(&self) -> Channel {
        let address = format!("127.0.0.1:{}", self.port);
        match &self.identity {
            Some(identity) => identity.channel(&address),
            None => Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy(),
        }
    }

    async fn wait_until_up(&self) {
        eventually("etcd answers", Duration::from_secs(30), async || {
            let get = RangeRequest { key: b"/".to_vec(), ..Default::default() };
            KvClient::new(self.channel()).range(get).await.map(drop).map_err(|status| status.to_string())
        })
        .await;
    }

    /// kill -9, without a new start.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again with the same data.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = launch(&self.folder, self.port, self.peer_port, self.identity.as_ref(), self.advertised);
        self.wait_until_up().await;
    }

    /// SIGSTOP.
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Ends `freeze`.
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Keys from `key` on up to and without `end`.
    pub async fn range(&self, key: &str, end: &str) -> Vec<KeyValue> {
        let get = RangeRequest { key: key.into(), range_end: end.into(), ..Default::default() };
        KvClient::new(self.channel()).range(get).await.expect("read from etcd").into_inner().kvs
    }

    /// One key.
    pub async fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(key, "").await.pop()
    }

    /// Several writes and removals at one revision; which one is answered.
    pub async fn write(&self, ops: Vec<RequestOp>) -> i64 {
        let txn = TxnRequest { success: ops, ..Default::default() };
        let answer = KvClient::new(self.channel()).txn(txn).await.expect("write to etcd").into_inner();
        answer.header.expect("a header").revision
    }

    /// Forgets history before a revision.
    pub async fn compact(&self, revision: i64) {
        let request = CompactionRequest { revision, physical: true };
        KvClient::new(self.channel()).compact(request).await.expect("compact etcd");
    }
}

/// A write.
pub fn put(key: &str, value: &str) -> RequestOp {
    put_bytes(key, value.as_bytes())
}

/// A write of anything.
pub fn put_bytes(key: &str, value: &[u8]) -> RequestOp {
    let put = PutRequest { key: key.into(), value: value.into(), lease: 0 };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

/// A removal.
pub fn delete(key: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
}

fn launch(folder: &Path, port: u16, peer_port: u16, identity: Option<&Identity>, advertised: u16) -> Process {
    let scheme = if identity.is_some() { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut args = vec![
        format!("--data-dir={}", folder.join("data").display()),
        "--name=m1".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={scheme}://127.0.0.1:{advertised}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=m1={peer}"),
    ];
    if let Some(Identity { ca, cert, key }) = identity {
        args.push(format!("--trusted-ca-file={}", ca.display()));
        args.push(format!("--cert-file={}", cert.display()));
        args.push(format!("--key-file={}", key.display()));
        args.push("--client-cert-auth".to_owned());
    }
    Process::start("etcd", Path::new("etcd"), &args, &[], &folder.join("etcd.log"))
}
