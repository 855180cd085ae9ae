//! The words every other module speaks: positions, GTID sets, locations, table names.
//!
//! Owns no I/O and no runtime: plain values that can be compared, parsed and printed. Everything here is what the
//! field calls it, and prints exactly as DM prints it, because the master and its users compare these texts.

mod collations;
mod gtid;
mod location;
mod position;
mod secret;
mod size;
mod table;
mod version;

pub use collations::SourceCollations;
pub use gtid::{Gtid, GtidParseError, GtidSet, MariaGtid, MariaGtidSet, MysqlGtid, MysqlGtidSet};
pub use location::{Applied, Checkpointed, Dispatched, Flavor, Location, Received, Relayed, RowMark, RowOrdinal};

pub use position::{BinlogFile, BinlogPosition, EventSpan, PositionParseError};
pub use secret::{MASK, Sealed, Secret};
pub use size::ByteSize;
pub use table::{SourceTable, TableName, TargetTable};
pub use version::VERSION_LINES;
