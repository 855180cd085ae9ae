//! The way to the masters: one connection at a time, to whichever of them answers.
//!
//! Every connection begins with the address behind the one used last. Whoever meets a master that answers wrongly or not
//! at all gives the connection up for everybody ([`Masters::give_up`]). TLS files are read at each connect. The list of addresses is replaced when the masters
//! change; those of `join` stay in it, so that a cluster that forgot us can be found again.
//!
//! Addresses of two clusters in `join` are a mistake that must not be followed to and fro: while a lease is held, only what
//! its cluster answers counts ([`Masters::check`]).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::control::proto::etcd::ResponseHeader;
use crate::tls::{TlsFiles, cluster_client, server_name};

/// How long one address may take to be connected.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A silent connection is asked whether it lives, and given up when it does not say so.
const PING: Duration = Duration::from_secs(3);

/// Addresses of masters, and how to connect to them.
#[derive(Clone)]
pub struct Masters {
    inner: Arc<Inner>,
}

struct Inner {
    join: Vec<String>,
    addresses: Mutex<Addresses>,
    current: Mutex<Line>,
    /// etcd's number of the cluster that our lease is in.
    cluster: Mutex<Option<u64>>,
    tls: Option<TlsFiles>,
}

/// Who answers is no master of the cluster that our lease is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a master of another cluster answers ({theirs:x}; this worker's lease is in {ours:x}): what it says is not followed. \
     Name the masters of one cluster in `join`"
)]
pub struct OtherCluster {
    ours: u64,
    theirs: u64,
}

/// The channel in use, numbered so that one failure that several meet gives up one channel.
struct Line {
    number: u64,
    channel: Option<Channel>,
}

#[derive(Debug, Default)]
struct Addresses {
    all: Vec<String>,
    next: usize,
}

impl Addresses {
    fn take(&mut self) -> Option<String> {
        let address = self.all.get(self.next % self.all.len().max(1)).cloned();
        self.next = self.next.wrapping_add(1);
        address
    }
}

impl Masters {
    /// `join` are addresses as `host:port`.
    pub fn new(join: Vec<String>, tls: Option<TlsFiles>) -> Self {
        let addresses = Mutex::new(Addresses { all: join.clone(), next: 0 });
        let current = Mutex::new(Line { number: 0, channel: None });
        Masters { inner: Arc::new(Inner { join, addresses, current, cluster: Mutex::new(None), tls }) }
    }

    /// From now on only what this cluster answers counts; with `None`, whatever answers.
    pub fn belong_to(&self, cluster: Option<u64>) {
        *self.cluster() = cluster;
    }

    /// Whether an answer is of the cluster that our lease is in. One without a number is taken as it is.
    pub fn check(&self, header: Option<&ResponseHeader>) -> Result<(), OtherCluster> {
        let theirs = header.map_or(0, |header| header.cluster_id);
        match *self.cluster() {
            Some(ours) if theirs != 0 && ours != theirs => Err(OtherCluster { ours, theirs }),
            _ => Ok(()),
        }
    }

    fn cluster(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        // Nothing panics while holding it.
        self.inner.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of `join`.
    pub fn join(&self) -> &[String] {
        &self.inner.join
    }

    /// Whether they are spoken to with TLS.
    pub fn uses_tls(&self) -> bool {
        self.inner.tls.is_some()
    }

    /// Takes the masters' own list over.
    pub fn update(&self, urls: impl IntoIterator<Item = String>) {
        let plain = |url: &str| url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_owned();
        let mut all: Vec<String> =
            urls.into_iter().map(|url| plain(&url)).filter(|address| !address.is_empty()).collect();
        all.extend(self.inner.join.iter().cloned());
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|address| seen.insert(address.clone()));
        let mut addresses = self.addresses();
        if addresses.all != all {
            tracing::info!(masters = ?all, "masters");
            addresses.all = all;
        }
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, Addresses> {
        // Nothing panics while holding it.
        self.inner.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel to one address alone, connected.
    pub async fn connect_to(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let (masters, address) = (self.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (masters, address) = (masters.clone(), address.clone());
            async move { masters.dial(&address).await.map(TokioIo::new) }
        });
        endpoint().connect_with_connector(connector).await
    }

    /// The channel in use, and its number. It connects when it is used, and anew, to the next address, when it is used
    /// after it broke.
    pub fn channel(&self) -> (u64, Channel) {
        let mut line = self.line();
        let channel = line.channel.get_or_insert_with(|| self.new_channel()).clone();
        (line.number, channel)
    }

    /// Whoever asks for a channel from now on gets another one than `number`.
    pub fn give_up(&self, number: u64) {
        let mut line = self.line();
        if line.number == number {
            *line = Line { number: number.wrapping_add(1), channel: None };
        }
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        // Nothing panics while holding it.
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_channel(&self) -> Channel {
        let masters = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let masters = masters.clone();
            async move {
                let address = masters.addresses().take().ok_or_else(|| io::Error::other("no master is known"))?;
                let stream = masters.dial(&address).await;
                if let Err(error) = &stream {
                    tracing::debug!(address, %error, "connect to master");
                }
                stream.map(TokioIo::new)
            }
        });
        endpoint().connect_with_connector_lazy(connector)
    }

    async fn dial(&self, address: &str) -> io::Result<Stream> {
        let dialled = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let Some(files) = &self.inner.tls else { return Ok(Stream::Plain(tcp)) };
            let config = cluster_client(files).await.map_err(io::Error::other)?;
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let name = server_name(host.trim_start_matches('[').trim_end_matches(']')).map_err(io::Error::other)?;
            let tls = TlsConnector::from(config).connect(name, tcp).await?;
            Ok(Stream::Tls(Box::new(tls)))
        };
        match timeout(CONNECT_LIMIT, dialled).await {
            Ok(stream) => stream,
            Err(_) => {
                let limit = CONNECT_LIMIT.as_secs();
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer within {limit} s")))
            }
        }
    }
}

/// The host in it is not used for connecting.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://dm-master")
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
}

/// With or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_turns_and_those_of_join_stay() {
        let masters = Masters::new(vec!["a:1".into(), "b:2".into()], None);
        let take = || masters.addresses().take().unwrap();
        assert_eq!([take(), take(), take()], ["a:1", "b:2", "a:1"]);
        masters.update(["http://c:3/".to_owned(), "https://b:2".to_owned(), String::new()]);
        let mut three = [take(), take(), take()];
        three.sort();
        assert_eq!(three, ["a:1", "b:2", "c:3"]);
    }

    #[tokio::test]
    async fn one_failure_gives_up_one_channel() {
        let masters = Masters::new(vec!["a:1".into()], None);
        let (first, _) = masters.channel();
        masters.give_up(first);
        masters.give_up(first);
        let (second, _) = masters.channel();
        assert_eq!(second, first + 1);
        assert_eq!(masters.channel().0, second);
    }

    #[test]
    fn while_a_lease_is_held_only_its_cluster_counts() {
        let masters = Masters::new(Vec::new(), None);
        let header = |cluster_id| ResponseHeader { cluster_id, ..ResponseHeader::default() };
        assert_eq!(masters.check(Some(&header(7))), Ok(()));
        masters.belong_to(Some(7));
        assert_eq!(
            [masters.check(Some(&header(7))), masters.check(Some(&header(0))), masters.check(None)],
            [Ok(()), Ok(()), Ok(())]
        );
        let other = masters.check(Some(&header(8))).unwrap_err();
        assert_eq!(other, OtherCluster { ours: 7, theirs: 8 });
        masters.belong_to(None);
        assert_eq!(masters.check(Some(&header(8))), Ok(()));
    }

    #[test]
    fn without_addresses_there_is_nothing_to_take() {
        assert_eq!(Addresses::default().take(), None);
    }
}
