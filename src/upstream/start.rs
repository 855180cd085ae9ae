//! Finding a place in the binlog: by time, and the GTIDs up to a position.
//!
//! Both read the source's binlog once, over a stream of their own that takes no server id and so disturbs no replica.
//! Every location that comes out is the end of a transaction.

use std::time::Duration;

use uuid::Uuid;

use super::dump::{DumpRequest, DumpStart, Extent};
use super::error::{ErrorClass, Phase, ReadError};
use super::gtid_codec::{decode_list, decode_set};
use super::reader::{Batch, BinlogReader};
use crate::binlog::{EventHeader, FrameError, StreamTracker, body, kind};
use crate::error::{Code, Failure, Scope};
use crate::model::{BinlogFile, BinlogPosition, Flavor, GtidSet, Location};
use crate::mysql::Endpoint;

/// A stream that has nothing to send says so this often while it is read to its end.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Why a place was not found.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No transaction is as late as that.
    #[error("start-time {0} is too late, no binlog location matches it")]
    TooLate(String),
    /// The source has no binlog file.
    #[error("the source has no binlog file")]
    NoBinlog,
    /// A position that is not the end of a transaction, or past the end of the binlog.
    #[error("{0} is not the end of a transaction in the binlog of the source")]
    NoBoundary(BinlogPosition),
    /// The source could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event could not be understood.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl StartError {
    /// As an operator sees it.
    pub fn failure(&self) -> Failure {
        let code = match self {
            StartError::TooLate(_) => Code::StartTimeTooLate,
            StartError::NoBinlog => Code::NoMasterStatus,
            StartError::NoBoundary(_) => Code::BinlogPosition,
            StartError::Read(error) => return error.failure(Phase::Stream),
            StartError::Frame(_) => Code::StreamEvent,
        };
        Failure::new(code, self.to_string())
    }

    /// As an operator sees it who did not ask for GTIDs: a checkpoint was stored without them and is to be completed.
    pub fn of_checkpoint(&self, position: &BinlogPosition) -> Failure {
        let failure = self.failure();
        if matches!(self, StartError::Read(error) if error.class() == ErrorClass::Retry) {
            return failure;
        }
        let text = format!(
            "the checkpoint at {position} was stored without a GTID set, and the source does not tell the set of that \
             place: {}",
            failure.message
        );
        Failure::new(Code::BinlogPosition, text).scope(Scope::Upstream).cause(failure.raw_cause).workaround(
            "Please write the GTID set of that place into binlog_gtid of the task's row in <task>_syncer_checkpoint, then \
             resume-task; or start the task anew with --remove-meta.",
        )
    }
}

/// The location in front of the first transaction whose clock shows `since` (seconds since the epoch) or later. `files`
/// are the source's binlog files, oldest first; `label` is the time as the operator gave it.
pub async fn find_start(
    endpoint: &Endpoint,
    flavor: Flavor,
    files: &[BinlogFile],
    since: u32,
    label: &str,
) -> Result<Location, StartError> {
    // The last file that began before the time holds it, or the next one's first transaction does. Creation times grow
    // with the files, so each step halves what is left.
    let (mut low, mut high) = (0, files.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if created(endpoint, flavor, &files[middle]).await? < since { low = middle + 1 } else { high = middle }
    }
    let file = files.get(low.saturating_sub(1)).ok_or(StartError::NoBinlog)?;
    let mut scan = Scan::open(endpoint, flavor, file).await?;
    let mut goes_beyond = false;
    while let Some(batch) = scan.batch().await? {
        for (_, event) in batch.events.iter() {
            let header = EventHeader::parse(event)?;
            goes_beyond |= header.timestamp >= since;
            if header.timestamp >= since && scan.begins_transaction(&header) {
                return Ok(scan.location());
            }
            scan.feed(&header, event)?;
        }
    }
    // A file was begun or ended as late as that, and no transaction came yet: the next one will.
    if goes_beyond { Ok(scan.location()) } else { Err(StartError::TooLate(label.to_owned())) }
}

/// All GTIDs up to `position`, which must be the end of a transaction; `purged` (MySQL's `gtid_purged`) is added, since
/// what is purged need not be listed in the file.
pub async fn gtids_at(
    endpoint: &Endpoint,
    flavor: Flavor,
    position: &BinlogPosition,
    purged: &GtidSet,
) -> Result<GtidSet, StartError> {
    let no_boundary = || StartError::NoBoundary(position.clone());
    let found = |scan: &Scan| {
        let mut set = scan.location().gtids;
        set.extend(purged);
        set
    };
    let mut scan = Scan::open(endpoint, flavor, &position.file).await?;
    while let Some(batch) = scan.batch().await? {
        for (_, event) in batch.events.iter() {
            let header = EventHeader::parse(event)?;
            scan.note_head(&header);
            if scan.has_reached(position) {
                return if scan.is_at(position) { Ok(found(&scan)) } else { Err(no_boundary()) };
            }
            scan.feed(&header, event)?;
        }
    }
    if scan.is_at(position) { Ok(found(&scan)) } else { Err(no_boundary()) }
}

/// When a file was begun: its first event's clock.
async fn created(endpoint: &Endpoint, flavor: Flavor, file: &BinlogFile) -> Result<u32, StartError> {
    let mut scan = Scan::open(endpoint, flavor, file).await?;
    while let Some(batch) = scan.batch().await? {
        for (_, event) in batch.events.iter() {
            let header = EventHeader::parse(event)?;
            if header.kind == kind::FORMAT_DESCRIPTION {
                return Ok(header.timestamp);
            }
        }
    }
    Err(StartError::NoBoundary(BinlogPosition::new(file.clone(), BinlogPosition::FIRST_OFFSET)))
}

/// One pass over the binlog from the start of a file.
struct Scan {
    reader: BinlogReader,
    tracker: StreamTracker,
    /// What the file's head says was executed before it.
    before: GtidSet,
    /// Whether what stands at the start of every file, in front of the first transaction, is read.
    head_read: bool,
    /// End of the file before the one the scan is in.
    last_file_end: Option<BinlogPosition>,
    /// Transactions that the scan has passed.
    transactions: u64,
}

impl Scan {
    async fn open(endpoint: &Endpoint, flavor: Flavor, file: &BinlogFile) -> Result<Self, StartError> {
        let position = BinlogPosition::new(file.clone(), BinlogPosition::FIRST_OFFSET);
        let request = DumpRequest {
            flavor,
            server_id: 0,
            start: DumpStart::Position(position.clone()),
            extent: Extent::ToEnd,
            heartbeat: HEARTBEAT,
            replica_uuid: Uuid::nil(),
            report_host: String::new(),
        };
        let reader = BinlogReader::connect(endpoint, &request).await?;
        let tracker = StreamTracker::new(flavor, Location::new(position, GtidSet::empty(flavor)), false);
        Ok(Scan {
            reader,
            tracker,
            before: GtidSet::empty(flavor),
            head_read: false,
            last_file_end: None,
            transactions: 0,
        })
    }

    /// The next events; `None` at the end of the binlog.
    async fn batch(&mut self) -> Result<Option<Batch>, StartError> {
        match self.reader.next_batch().await {
            Ok(batch) => Ok(Some(batch)),
            Err(ReadError::Ended) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an event with this header, not fed yet, is the first of a transaction.
    fn begins_transaction(&self, header: &EventHeader) -> bool {
        let may = matches!(
            header.kind,
            kind::GTID
                | kind::ANONYMOUS_GTID
                | kind::GTID_TAGGED
                | kind::MARIA_GTID
                | kind::QUERY
                | kind::MARIA_QUERY_COMPRESSED
                | kind::TRANSACTION_PAYLOAD
        );
        may && self.tracker.open().is_none()
    }

    /// To be called with each event's header before it is fed.
    fn note_head(&mut self, header: &EventHeader) {
        let of_head = matches!(
            header.kind,
            kind::FORMAT_DESCRIPTION
                | kind::PREVIOUS_GTIDS
                | kind::MARIA_GTID_LIST
                | kind::MARIA_BINLOG_CHECKPOINT
                | kind::MARIA_START_ENCRYPTION
        );
        let made_up = header.kind == kind::ROTATE && header.is_artificial();
        self.head_read |= !(of_head || made_up);
    }

    /// A rotate says that the file is over: one that stands in it with its own end, a made-up one (behind a shutdown)
    /// with the end of what was before it.
    fn note_file_end(&mut self, header: &EventHeader) {
        let mut end = self.tracker.position().clone();
        if !header.is_artificial() {
            end.offset += u64::from(header.size);
            self.last_file_end = Some(end);
        } else if self.head_read && end.offset > BinlogPosition::FIRST_OFFSET {
            self.last_file_end = Some(end);
        }
    }

    fn feed(&mut self, header: &EventHeader, event: &[u8]) -> Result<(), StartError> {
        if header.kind == kind::ROTATE {
            self.note_file_end(header);
        }
        let tracked = self.tracker.feed(event)?;
        self.transactions += u64::from(tracked.ends_transaction);
        let checksum = self.tracker.checksum();
        let set = match header.kind {
            kind::PREVIOUS_GTIDS => Some(decode_set(body(event, checksum)?)),
            kind::MARIA_GTID_LIST => Some(decode_list(body(event, checksum)?)),
            _ => None,
        };
        if let Some(set) = set {
            let what = "GTID set";
            self.before.extend(&set.ok_or(FrameError::Malformed { kind: header.kind, what })?);
        }
        Ok(())
    }

    /// Where the scan stands, with everything executed up to there.
    fn location(&self) -> Location {
        let mut location = self.tracker.location().clone();
        let mut set = self.before.clone();
        set.extend(&location.gtids);
        location.gtids = set;
        location
    }

    /// Whether the scan is between two transactions and at or behind `position`.
    fn has_reached(&self, position: &BinlogPosition) -> bool {
        self.head_read && self.tracker.open().is_none() && self.tracker.location().position >= *position
    }

    /// Whether `position` means the place where the scan stands. Every byte of a file's head means its end, and the end
    /// of a file the start of the next.
    fn is_at(&self, position: &BinlogPosition) -> bool {
        let here = &self.tracker.location().position;
        let in_head = self.transactions == 0 && here.file == position.file && position.offset <= here.offset;
        here == position || in_head || self.last_file_end.as_ref() == Some(position)
    }
}
