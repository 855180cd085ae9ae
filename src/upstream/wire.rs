//! A connection of our own to a server: packets both ways, each with a limit on the wait.
//!
//! Used for the login and the binlog stream only; statements with results go through mysql_async. Reading is safe to
//! cancel: what has arrived stays in the framer.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::cursor::Cursor;
use super::error::{ReadError, ServerRefusal};
use super::framer::{Framer, Packet, frame};
use crate::mysql::{CONNECT_TIMEOUT, Endpoint, TlsFiles, client_config, server_name};

/// Longest wait for an answer, or for the peer to take what we send.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// First byte of an answer.
pub(super) mod answer {
    pub(crate) const OK: u8 = 0x00;
    pub(crate) const MORE: u8 = 0x01;
    /// Both "end of data" and "use another plugin".
    pub(crate) const END: u8 = 0xfe;
    pub(crate) const ERROR: u8 = 0xff;
}

const COM_QUERY: u8 = 0x03;

/// A byte stream: TCP, or TLS over it.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Packets over a byte stream.
pub(super) struct Channel {
    stream: Box<dyn Transport>,
    framer: Framer,
}

impl Channel {
    pub(super) fn new(stream: impl Transport + 'static) -> Self {
        Channel { stream: Box::new(stream), framer: Framer::new() }
    }

    /// Connects by TCP.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, ReadError> {
        let doing = || format!("connect to {}", endpoint.label());
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((endpoint.bare_host(), endpoint.port)))
            .await
            .map_err(|_| ReadError::lost(doing(), Some(io::ErrorKind::TimedOut.into())))?
            .map_err(|error| ReadError::lost(doing(), Some(error)))?;
        stream.set_nodelay(true).map_err(|error| ReadError::lost(doing(), Some(error)))?;
        Ok(Channel::new(stream))
    }

    /// Goes on in TLS. Anything that came ahead of it was not protected and is refused.
    pub(super) async fn secure(self, files: &TlsFiles, host: &str) -> Result<Self, ReadError> {
        if !self.framer.is_empty() {
            return Err(ReadError::Protocol("data ahead of the TLS handshake".into()));
        }
        let setup = |error: crate::mysql::TlsError| ReadError::Setup(chain(&error));
        let config = client_config(files).await.map_err(setup)?;
        let name = server_name(host).map_err(setup)?;
        let stream = timeout(ANSWER_TIMEOUT, TlsConnector::from(config).connect(name, self.stream))
            .await
            .map_err(|_| ReadError::lost("TLS handshake", Some(io::ErrorKind::TimedOut.into())))?
            .map_err(|error| match error.kind() {
                // rustls refuses a certificate with this kind.
                io::ErrorKind::InvalidData => ReadError::Setup(format!("TLS handshake with {host}: {error}")),
                _ => ReadError::lost("TLS handshake", Some(error)),
            })?;
        Ok(Channel { stream: Box::new(stream), framer: self.framer })
    }

    /// From now on large amounts come in.
    pub(super) fn expect_stream(&mut self) {
        self.framer.expect_stream();
    }

    /// A packet that is here already.
    pub(super) fn buffered(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        self.framer.next().map_err(|error| ReadError::Protocol(error.to_string()))
    }

    /// Bytes that the next packet has at least, where that is known.
    pub(super) fn least_len(&self) -> Option<usize> {
        self.framer.least_len()
    }

    /// Waits for more bytes, once, when no packet is here. Safe to cancel.
    pub(super) async fn fill(&mut self) -> Result<(), ReadError> {
        match self.framer.fill(&mut self.stream).await {
            Ok(0) => Err(ReadError::lost("the source closed the connection", None)),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ReadError::lost("the source closed the connection", None))
            }
            Err(error) => Err(ReadError::lost("read from the source", Some(error))),
        }
    }

    /// The next packet, waited for.
    pub(super) async fn receive(&mut self) -> Result<Bytes, ReadError> {
        let packet = async {
            loop {
                if let Some(packet) = self.buffered()? {
                    return Ok(packet.into_bytes());
                }
                self.fill().await?;
            }
        };
        timeout(ANSWER_TIMEOUT, packet)
            .await
            .map_err(|_| ReadError::lost("wait for an answer of the source", Some(io::ErrorKind::TimedOut.into())))?
    }

    /// Sends one packet of the exchange that is under way.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), ReadError> {
        let bytes = frame(payload, || self.framer.take_number());
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        let outcome = timeout(ANSWER_TIMEOUT, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|error| ReadError::lost("write to the source", Some(error)))
    }

    /// Begins a new exchange with a command.
    pub(super) async fn command(&mut self, payload: &[u8]) -> Result<(), ReadError> {
        self.framer.restart();
        self.send(payload).await
    }

    /// A command that is answered by OK.
    pub(super) async fn command_ok(&mut self, payload: &[u8]) -> Result<(), ReadError> {
        self.command(payload).await?;
        let packet = self.receive().await?;
        match packet.first() {
            Some(&answer::OK) => Ok(()),
            Some(&answer::ERROR) => Err(ReadError::refused(refusal(&packet))),
            _ => Err(ReadError::Protocol("a statement without a result was answered with one".into())),
        }
    }

    /// A statement that gives no rows.
    pub(super) async fn execute(&mut self, statement: &str) -> Result<(), ReadError> {
        let mut payload = Vec::with_capacity(1 + statement.len());
        payload.push(COM_QUERY);
        payload.extend_from_slice(statement.as_bytes());
        self.command_ok(&payload).await
    }
}

/// Reads an error packet; one that is cut short gives what is there.
pub(super) fn refusal(packet: &[u8]) -> ServerRefusal {
    let mut cursor = Cursor::new(packet.get(1..).unwrap_or_default());
    let code = cursor.u16().unwrap_or(0);
    let state = match cursor.rest() {
        [b'#', ..] => cursor.take(6).map(|mark| String::from_utf8_lossy(&mark[1..]).into_owned()),
        // Before the login the server sends no state.
        _ => None,
    };
    ServerRefusal {
        code,
        state: state.unwrap_or_else(|| "HY000".into()),
        text: String::from_utf8_lossy(cursor.rest()).into_owned(),
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_with_and_without_a_state() {
        let full = refusal(b"\xff\xd4\x04#HY000no such file");
        assert_eq!((full.code, full.state.as_str(), full.text.as_str()), (1236, "HY000", "no such file"));
        let early = refusal(b"\xff\x69\x04Host is not allowed");
        assert_eq!((early.code, early.text.as_str()), (1129, "Host is not allowed"));
    }

    proptest! {
        #[test]
        fn arbitrary_refusals_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = refusal(&bytes);
        }
    }
}
