//! Asking for a binlog stream: the session's variables, the registration and the dump command, for both flavours.

use std::time::Duration;

use uuid::Uuid;

use super::error::{ReadError, ServerRefusal};
use super::gtid_codec::encode_set;
use crate::model::{BinlogPosition, Flavor, GtidSet};
use crate::mysql::quote;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;

/// End the stream at the end of the binlog instead of waiting for more.
const FLAG_NON_BLOCK: u16 = 0x01;
/// MariaDB: send ANNOTATE_ROWS events too, so that positions match the source's.
const FLAG_ANNOTATE: u16 = 0x02;
/// MySQL: the request carries a GTID set.
const FLAG_THROUGH_GTID: u16 = 0x04;

/// Longest host name that servers of all versions take.
const HOST_LEN: usize = 60;

/// Which stream is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRequest {
    /// Dialect of the source.
    pub flavor: Flavor,
    /// Our server id; unique among the source's replicas. Not used with [`Extent::ToEnd`].
    pub server_id: u32,
    /// Where to begin.
    pub start: DumpStart,
    /// How far to go.
    pub extent: Extent,
    /// How often the source says something when nothing happens; after three times that it counts as dead.
    pub heartbeat: Duration,
    /// Our identity as a replica; a new connection with the same one ends the older.
    pub replica_uuid: Uuid,
    /// Host name shown by `SHOW REPLICAS`; may be empty.
    pub report_host: String,
}

/// Where a stream begins. Either must be the end of a transaction: inside one, table maps would be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpStart {
    /// At a byte; an unknown file means the oldest one.
    Position(BinlogPosition),
    /// Behind everything in the set, wherever that is.
    Gtids(GtidSet),
}

/// How far a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// As long as the connection lives, as a registered replica.
    Follow,
    /// To the present end of the binlog, then [`ReadError::Ended`]. Disturbs no replica: it takes no server id.
    ToEnd,
}

impl DumpRequest {
    /// The statements that prepare the session.
    pub(super) fn session(&self) -> Vec<String> {
        let nanos = self.heartbeat.as_nanos();
        let mut statements = vec![
            // By both names: servers before 8.0.26 know the old ones only, later ones prefer the new.
            "SET @source_binlog_checksum = @@global.binlog_checksum, \
             @master_binlog_checksum = @@global.binlog_checksum"
                .to_owned(),
            format!("SET @source_heartbeat_period = {nanos}, @master_heartbeat_period = {nanos}"),
        ];
        if self.extent == Extent::Follow {
            let uuid = quote(&self.replica_uuid.to_string());
            statements.push(format!("SET @replica_uuid = {uuid}, @slave_uuid = {uuid}"));
        }
        if self.flavor == Flavor::MariaDb {
            // Without it GTID events arrive disguised as BEGIN.
            statements.push("SET @mariadb_slave_capability = 4".to_owned());
            if let DumpStart::Gtids(set) = &self.start {
                let state = quote(&set.to_string());
                statements.push(format!(
                    "SET @slave_connect_state = {state}, @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0"
                ));
            }
        }
        statements
    }

    /// Says who we are; `None` for a stream that is not a replica's.
    pub(super) fn registration(&self) -> Option<Vec<u8>> {
        if self.extent == Extent::ToEnd {
            return None;
        }
        let host = self.report_host.as_bytes();
        let host = &host[..host.len().min(HOST_LEN)];
        let mut bytes = vec![COM_REGISTER_SLAVE];
        bytes.extend_from_slice(&self.server_id.to_le_bytes());
        bytes.push(host.len() as u8);
        bytes.extend_from_slice(host);
        // No user, no password, no port, rank and source id: nobody needs them.
        bytes.extend_from_slice(&[0; 2 + 2 + 4 + 4]);
        Some(bytes)
    }

    /// The dump command.
    pub(super) fn command(&self) -> Result<Vec<u8>, ReadError> {
        let (server_id, mut flags) = match self.extent {
            Extent::Follow => (self.server_id, 0),
            Extent::ToEnd => (0, FLAG_NON_BLOCK),
        };
        match (&self.start, self.flavor) {
            (DumpStart::Gtids(GtidSet::MySql(set)), Flavor::MySql) => {
                let set = encode_set(set);
                let mut bytes = vec![COM_BINLOG_DUMP_GTID];
                bytes.extend_from_slice(&(flags | FLAG_THROUGH_GTID).to_le_bytes());
                bytes.extend_from_slice(&server_id.to_le_bytes());
                // No file name: the set decides.
                bytes.extend_from_slice(&0u32.to_le_bytes());
                bytes.extend_from_slice(&BinlogPosition::FIRST_OFFSET.to_le_bytes());
                bytes.extend_from_slice(&u32::try_from(set.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend_from_slice(&set);
                Ok(bytes)
            }
            (DumpStart::Gtids(set), flavor) if set.flavor() != flavor => Err(ReadError::Setup(format!(
                "'{set}' is a GTID set of {}, and the source is {}",
                set.flavor().as_str(),
                flavor.as_str()
            ))),
            (start, flavor) => {
                let position = match start {
                    DumpStart::Position(position) => Some(position),
                    // MariaDB takes its set from the session.
                    DumpStart::Gtids(_) => None,
                };
                if flavor == Flavor::MariaDb {
                    flags |= FLAG_ANNOTATE;
                }
                let offset = position.map_or(BinlogPosition::FIRST_OFFSET, |at| at.offset);
                let offset = u32::try_from(offset.max(BinlogPosition::FIRST_OFFSET)).map_err(|_| too_far(offset))?;
                let mut bytes = vec![COM_BINLOG_DUMP];
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.extend_from_slice(&flags.to_le_bytes());
                bytes.extend_from_slice(&server_id.to_le_bytes());
                bytes.extend_from_slice(position.map_or("", |at| at.file.name()).as_bytes());
                Ok(bytes)
            }
        }
    }
}

/// The request has 32 bits for the offset, whatever the file's size is.
fn too_far(offset: u64) -> ReadError {
    ReadError::BadPosition(ServerRefusal {
        code: 1236,
        state: "HY000".into(),
        text: format!(
            "a stream cannot begin at offset {offset}, beyond 4 GiB, by position; use GTIDs (enable-gtid) instead"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(flavor: Flavor, start: DumpStart, extent: Extent) -> DumpRequest {
        DumpRequest {
            flavor,
            server_id: 0x01020304,
            start,
            extent,
            heartbeat: Duration::from_secs(2),
            replica_uuid: Uuid::nil(),
            report_host: "agent".into(),
        }
    }

    fn set(flavor: Flavor, text: &str) -> DumpStart {
        DumpStart::Gtids(GtidSet::parse(flavor, text).unwrap())
    }

    #[test]
    fn position_request() {
        let start = DumpStart::Position(BinlogPosition::parse("b.000001", 0x1234).unwrap());
        let follow = request(Flavor::MySql, start.clone(), Extent::Follow).command().unwrap();
        assert_eq!(follow, b"\x12\x34\x12\0\0\0\0\x04\x03\x02\x01b.000001");
        let once = request(Flavor::MariaDb, start, Extent::ToEnd);
        assert_eq!(once.command().unwrap(), b"\x12\x34\x12\0\0\x03\0\0\0\0\0b.000001");
        assert_eq!(once.registration(), None);
    }

    #[test]
    fn offsets_beyond_32_bits_are_refused_with_a_way_out() {
        let start = DumpStart::Position(BinlogPosition::parse("b.000001", 1 << 33).unwrap());
        let error = request(Flavor::MySql, start, Extent::Follow).command().unwrap_err();
        assert!(matches!(&error, ReadError::BadPosition(refusal) if refusal.text.contains("enable-gtid")));
    }

    #[test]
    fn mariadb_takes_the_set_from_the_session() {
        let request = request(Flavor::MariaDb, set(Flavor::MariaDb, "0-1-7"), Extent::Follow);
        assert!(request.session().iter().any(|statement| statement.contains("@slave_connect_state = '0-1-7'")));
        assert_eq!(request.command().unwrap(), b"\x12\x04\0\0\0\x02\0\x04\x03\x02\x01");
    }

    #[test]
    fn a_set_of_the_other_flavor_is_refused() {
        for flavor in [Flavor::MySql, Flavor::MariaDb] {
            let other = if flavor == Flavor::MySql { Flavor::MariaDb } else { Flavor::MySql };
            let error = request(flavor, DumpStart::Gtids(GtidSet::empty(other)), Extent::Follow).command().unwrap_err();
            assert!(matches!(error, ReadError::Setup(_)));
        }
    }

    #[test]
    fn registration_carries_id_and_host() {
        let start = set(Flavor::MySql, "");
        let bytes = request(Flavor::MySql, start, Extent::Follow).registration().unwrap();
        assert_eq!(bytes[..11], *b"\x15\x04\x03\x02\x01\x05agent");
        assert_eq!(bytes.len(), 23);
    }
}
