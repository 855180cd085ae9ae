//! The binlog reader: one connection, one stream of raw events.
//!
//! Owns the connection from login to its end; it never reconnects, since only the caller knows from where. Invariants:
//! events come out whole, verified and in order; dropping a future of [`BinlogReader::next_batch`] loses nothing.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use super::auth::login;
use super::blocks::Blocks;
use super::dump::{DumpRequest, Extent};
use super::error::ReadError;
use super::sieve::{Sieve, Sifted};
use super::wire::{Channel, answer, refusal};
use crate::binlog::EventRun;
use crate::clock::steady;
use crate::model::BinlogPosition;
use crate::mysql::Endpoint;

/// The source sends in pieces as large as the largest packet that it had from us, else in pieces of 16 KiB, each of which wakes
/// us up: with pieces of this size it sends half as fast again, at less cost for both sides.
const PIECE_BYTES: usize = 256 << 10;
/// A batch ends when it has this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Heartbeats that may be missed before the source counts as dead.
const MISSED_HEARTBEATS: u32 = 3;
/// Never give up sooner than this, however short the heartbeat is.
const LEAST_SILENCE: Duration = Duration::from_secs(3);

/// What came in one go.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Whole raw events in order, with header and, where the stream has them, checksum. A run that is kept keeps a block of
    /// 256 KiB alive, which runs that came before and after it share. Empty where only a heartbeat came.
    pub events: EventRun,
    /// The newest heartbeat behind the events, if one came.
    pub heartbeat: Option<Heartbeat>,
}

/// The source said that it is alive and has nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// How far its stream has come, transactions that it skipped for us included.
    pub position: BinlogPosition,
    /// When it arrived here.
    pub at: SystemTime,
}

/// A stream of events from a source.
pub struct BinlogReader {
    channel: Channel,
    sieve: Sieve,
    blocks: Blocks,
    extent: Extent,
    silence: Duration,
    /// Since when nothing has come although we listened; kept over dropped futures, so that they hide no silence.
    listening_since: Option<Instant>,
    /// What a batch could not deliver together with the events before it.
    pending: Option<ReadError>,
    version: String,
}

impl std::fmt::Debug for BinlogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BinlogReader").field("version", &self.version).field("sieve", &self.sieve).finish()
    }
}

impl BinlogReader {
    /// Connects, logs in, prepares the session and asks for the stream. That the source refuses the start position
    /// shows at the first [`Self::next_batch`].
    pub async fn connect(endpoint: &Endpoint, request: &DumpRequest) -> Result<Self, ReadError> {
        let command = request.command()?;
        let session = endpoint.session_statement().map_err(|error| ReadError::Setup(error.to_string()))?;
        let (mut channel, version) = login_wide(endpoint).await?;
        for statement in session.iter().chain(&request.session()) {
            channel.execute(statement).await?;
        }
        if let Some(registration) = request.registration() {
            channel.command_ok(&registration).await?;
        }
        channel.command(&command).await?;
        channel.expect_stream();
        Ok(Self::streaming(channel, request, version))
    }

    fn streaming(channel: Channel, request: &DumpRequest, version: String) -> Self {
        BinlogReader {
            channel,
            sieve: Sieve::new(),
            blocks: Blocks::default(),
            extent: request.extent,
            silence: (request.heartbeat * MISSED_HEARTBEATS).max(LEAST_SILENCE),
            listening_since: None,
            pending: None,
            version,
        }
    }

    /// The source's version as it prints it.
    pub fn server_version(&self) -> &str {
        &self.version
    }

    /// All complete events that are here, up to about 256 KiB, else the first that come. Safe to cancel. After an error
    /// the stream is over. The caller's own delay does not count as the source's silence.
    pub async fn next_batch(&mut self) -> Result<Batch, ReadError> {
        loop {
            if let Some(batch) = self.collect()? {
                self.listening_since = None;
                return Ok(batch);
            }
            let since = *self.listening_since.get_or_insert_with(Instant::now);
            let fill = timeout_at(since + self.silence, self.channel.fill());
            fill.await.map_err(|_| ReadError::Silent(self.silence))??;
            self.listening_since = Some(Instant::now());
        }
    }

    /// Takes what is in the window.
    fn collect(&mut self) -> Result<Option<Batch>, ReadError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let mut heartbeat = None;
        while self.blocks.len() < BATCH_BYTES {
            // A run that has something in it ends where its block does.
            if self.blocks.len() > 0 && self.channel.least_len().is_some_and(|least| !self.blocks.has_room(least)) {
                break;
            }
            match self.sift() {
                Ok(Some(Sifted::Event)) => {}
                Ok(Some(Sifted::Heartbeat(position))) => {
                    heartbeat = Some(Heartbeat { position, at: steady() });
                    self.blocks.trim();
                }
                Ok(None) => break,
                Err(error) if self.blocks.len() == 0 => return Err(error),
                Err(error) => {
                    self.pending = Some(error);
                    break;
                }
            }
        }
        let something = self.blocks.len() > 0 || heartbeat.is_some();
        Ok(something.then(|| Batch { events: self.blocks.take(), heartbeat }))
    }

    /// The next packet of the stream, if all of it is here; an event is put into the run.
    fn sift(&mut self) -> Result<Option<Sifted>, ReadError> {
        let Some(packet) = self.channel.buffered()? else { return Ok(None) };
        match packet.first() {
            Some(&answer::OK) => {
                let event = packet.skip(1);
                let sifted = self.sieve.take(&event)?;
                if sifted == Sifted::Event {
                    self.blocks.push(event);
                }
                Ok(Some(sifted))
            }
            Some(&answer::ERROR) => Err(ReadError::refused(refusal(&packet))),
            Some(&answer::END) if packet.len() < 9 => Err(match self.extent {
                Extent::ToEnd => ReadError::Ended,
                Extent::Follow => ReadError::lost("the source ended the stream", None),
            }),
            _ => Err(ReadError::Protocol("a packet of the stream is no event".into())),
        }
    }
}

/// Logs in, and sends a packet of [`PIECE_BYTES`]. A source that does not take it (its `max_allowed_packet` is less, or something
/// between us and it minds) is left alone with it.
async fn login_wide(endpoint: &Endpoint) -> Result<(Channel, String), ReadError> {
    let (mut channel, version) = login(endpoint).await?;
    let statement = format!("DO 0 /*{}*/", " ".repeat(PIECE_BYTES));
    match channel.execute(&statement).await {
        Ok(()) => Ok((channel, version)),
        Err(error) => {
            tracing::debug!(%error, "the source takes no large packet");
            login(endpoint).await
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use uuid::Uuid;

    use super::*;
    use crate::binlog::kind;
    use crate::model::Flavor;
    use crate::upstream::dump::DumpStart;
    use crate::upstream::framer::frame;
    use crate::upstream::sieve::tests::{description, event, rotate};

    fn reader(extent: Extent) -> (BinlogReader, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let request = DumpRequest {
            flavor: Flavor::MySql,
            server_id: 1,
            start: DumpStart::Position(BinlogPosition::parse("b.000001", 4).unwrap()),
            extent,
            heartbeat: Duration::from_secs(5),
            replica_uuid: Uuid::nil(),
            report_host: String::new(),
        };
        (BinlogReader::streaming(Channel::new(ours), &request, "9.7.4".into()), theirs)
    }

    /// Packets of a stream that carries checksums, with what was asked for behind its head.
    fn stream(events: &[Vec<u8>], tail: Option<&[u8]>) -> Vec<u8> {
        let head = [rotate("b.000001", true), description(true)];
        let packets = head.iter().chain(events).map(|event| [&[0], &event[..]].concat());
        let mut number = 0u8;
        let mut next = || {
            number = number.wrapping_add(1);
            number.wrapping_sub(1)
        };
        packets.chain(tail.map(<[u8]>::to_vec)).flat_map(|packet| frame(&packet, &mut next)).collect()
    }

    #[tokio::test]
    async fn events_before_an_error_are_delivered_before_it() {
        let (mut reader, mut server) = reader(Extent::Follow);
        let xid = event(kind::XID, 200, &[0; 8], true);
        let purged = b"\xff\xd4\x04#HY000Could not find first log file name in binary log index file";
        server.write_all(&stream(std::slice::from_ref(&xid), Some(purged))).await.unwrap();
        let batch = reader.next_batch().await.unwrap();
        let events: Vec<Bytes> = batch.events.events().collect();
        assert_eq!(events.len(), 3);
        assert_eq!(events[2], xid);
        assert!(matches!(reader.next_batch().await, Err(ReadError::Purged(_))));
    }

    #[tokio::test]
    async fn the_end_is_an_end_only_where_it_was_asked_for() {
        for extent in [Extent::Follow, Extent::ToEnd] {
            let (mut reader, mut server) = reader(extent);
            server.write_all(&stream(&[], Some(b"\xfe\0\0\x02\0"))).await.unwrap();
            reader.next_batch().await.unwrap();
            let error = reader.next_batch().await.unwrap_err();
            assert_eq!(matches!(error, ReadError::Ended), extent == Extent::ToEnd);
            assert_eq!(matches!(error, ReadError::Lost { .. }), extent == Extent::Follow);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_missed_heartbeats_are_silence() {
        let (mut reader, mut server) = reader(Extent::Follow);
        let beat = event(kind::HEARTBEAT, 300, b"b.000001", true);
        server.write_all(&stream(&[beat], None)).await.unwrap();
        let batch = reader.next_batch().await.unwrap();
        assert_eq!(batch.heartbeat.unwrap().position, BinlogPosition::parse("b.000001", 300).unwrap());
        let before = Instant::now();
        assert!(matches!(reader.next_batch().await, Err(ReadError::Silent(_))));
        assert_eq!(before.elapsed().as_secs(), 15);
    }

    #[tokio::test]
    async fn a_dropped_future_loses_nothing() {
        let (mut reader, mut server) = reader(Extent::Follow);
        let events = [event(kind::XID, 200, &[0; 8], true), event(kind::XID, 231, &[1; 8], true)];
        let mut found = Vec::new();
        for byte in stream(&events, None) {
            server.write_all(&[byte]).await.unwrap();
            // Polled once and dropped if it is not ready, in the middle of every packet.
            let ready = tokio::select! { biased; batch = reader.next_batch() => Some(batch), () = async {} => None };
            found.extend(ready.into_iter().flat_map(|batch| batch.unwrap().events.events().collect::<Vec<_>>()));
        }
        assert_eq!(&found[2..], &events[..]);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_futures_hide_no_silence() {
        let (mut reader, _server) = reader(Extent::Follow);
        let mut polls = 0;
        let error = loop {
            match tokio::time::timeout(Duration::from_secs(1), reader.next_batch()).await {
                Err(_) => polls += 1,
                Ok(outcome) => break outcome.unwrap_err(),
            }
        };
        assert!(matches!(error, ReadError::Silent(_)) && (13..=15).contains(&polls), "{polls}");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            cuts in prop::collection::vec(1usize..150, 1..30),
        ) {
            let events: Vec<Vec<u8>> = bodies.iter().map(|body| event(kind::TABLE_MAP, 9, body, true)).collect();
            let bytes = stream(&events, Some(b"\xfe\0\0\x02\0"));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let found = runtime.block_on(async {
                let (mut reader, mut server) = reader(Extent::ToEnd);
                let send = async {
                    let mut rest = &bytes[..];
                    for cut in cuts.iter().cycle() {
                        if rest.is_empty() {
                            break;
                        }
                        let (now, later) = rest.split_at(rest.len().min(*cut));
                        server.write_all(now).await.unwrap();
                        tokio::task::yield_now().await;
                        rest = later;
                    }
                };
                let receive = async {
                    let mut found: Vec<Bytes> = Vec::new();
                    loop {
                        match reader.next_batch().await {
                            Ok(batch) => found.extend(batch.events.events()),
                            Err(ReadError::Ended) => return found,
                            Err(error) => panic!("{error}"),
                        }
                    }
                };
                tokio::join!(send, receive).1
            });
            prop_assert_eq!(&found[2..], &events[..]);
        }

        #[test]
        fn arbitrary_streams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (mut reader, mut server) = reader(Extent::Follow);
                server.write_all(&bytes).await.unwrap();
                drop(server);
                while reader.next_batch().await.is_ok() {}
            });
        }
    }
}
