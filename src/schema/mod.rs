//! Table structures, and how a row of the binlog maps onto the columns of its downstream table.
//!
//! A leaf: plain values that the pipeline fills from `information_schema`, and the binding that dispatch (keys, lanes)
//! and apply (statements) both read. A binding is made once for each distinct table map and holds everything that
//! would otherwise be decided row by row.

mod bind;
mod charset;
mod origin;
mod structure;

pub use bind::{BindError, BoundColumn, BoundTable, Encoding, LaneRule, TableRule, bind, bind_with};
pub use charset::{charset_of_collation, is_ascii_compatible, reads_alike};
pub use origin::{OriginColumn, OriginTable};
pub use structure::{ColumnStructure, Dialect, KeyStructure, TableStructure};
