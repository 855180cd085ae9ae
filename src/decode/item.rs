//! What the decoder hands on.

use std::sync::Arc;

use crate::model::{BinlogPosition, EventSpan, Gtid, Location, SourceTable};
use crate::row::{EventRows, TableLayout};

/// One step of a source's history. A transaction is `Begin`, any number of `Rows` and `Statement`, then `Commit`.
#[derive(Debug, Clone)]
pub enum Decoded {
    /// A transaction begins; comes for statements that stand alone (DDL) too.
    Begin {
        /// Its GTID, where the source has them.
        gtid: Option<Gtid>,
        /// End of the transaction before it.
        start: Location,
        /// The source's clock, seconds since the epoch.
        timestamp: u32,
    },
    /// Rows of one table changed.
    Rows(RowsEvent),
    /// A statement that is neither a transaction's bracket nor row data: DDL, or something to be ignored or refused.
    Statement(Statement),
    /// The transaction that ends here was prepared (XA): its rows come now, and whether they stay is said later, by a
    /// transaction of its own.
    Prepared {
        /// Its identifier, as statements about it have it.
        xid: String,
    },
    /// A transaction that was prepared before is committed: its rows have come.
    XaCommit {
        /// Its identifier.
        xid: String,
    },
    /// A transaction that was prepared before is rolled back: what it did is to be undone.
    XaRollback {
        /// Its identifier.
        xid: String,
        /// Start of the event in the binlog.
        start: BinlogPosition,
        /// End of it.
        end: BinlogPosition,
    },
    /// The transaction is complete. Also sent, without a `Begin`, where the location moves with no transaction (a rotate,
    /// a format description), so that checkpoints move on a quiet source.
    Commit {
        /// End of the transaction.
        location: Location,
        /// The source's clock at its last event, seconds since the epoch; 0 where the event has none.
        timestamp: u32,
    },
    /// The stream begins again behind the last commit (a reconnect cut a transaction): forget what came since.
    Restart,
}

/// The rows of one event, in order.
#[derive(Debug, Clone)]
pub struct RowsEvent {
    /// Their shape.
    pub layout: Arc<TableLayout>,
    /// What was done, and the images.
    pub rows: EventRows,
    /// Number of this rows event in its transaction, from 0, events of filtered tables counted.
    pub ordinal: u32,
    /// The event in the binlog (for compressed transactions: the outer one).
    pub span: EventSpan,
    /// The source's clock, seconds since the epoch.
    pub timestamp: u32,
}

/// A statement as the source logged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Default schema when it ran; empty for none.
    pub schema: String,
    /// Its text, converted to UTF-8.
    pub text: String,
    /// `sql_mode` bits it ran with, from the status variables.
    pub sql_mode: u64,
    /// Collation numbers: client character set, connection collation, server collation (status variable 4).
    pub charset: Option<[u16; 3]>,
    /// Number of the collation that utf8mb4 without one meant to it, where the source says so (MySQL 8.0 and later,
    /// MariaDB 11.2 and later).
    pub utf8mb4_collation: Option<u16>,
    /// `time_zone` it ran with, where it depends on it; `SYSTEM` for that of the source's machine.
    pub time_zone: Option<String>,
    /// `foreign_key_checks` was off.
    pub no_foreign_key_checks: bool,
    /// Error it ended with on the source; 0 for none.
    pub error_code: u16,
    /// Start of the event in the binlog.
    pub start: BinlogPosition,
    /// End of it.
    pub end: BinlogPosition,
    /// The source's clock, seconds since the epoch.
    pub timestamp: u32,
}

/// Says which tables' rows are worth decoding. Rows of others are counted and dropped.
pub trait TableFilter {
    /// Whether rows of `table` are wanted. A decoder may ask once for all: what is said of a table holds for as long as the
    /// decoder is used.
    fn wants(&self, table: &SourceTable) -> bool;
}
