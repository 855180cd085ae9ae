//! Groups: what is waiting is taken at once, compacted by key, and dealt out to lanes.
//!
//! Invariants, held by the property tests in `model_tests`:
//! - Applying a group's shares in any interleaving gives the same table as applying its changes one by one.
//! - A change's lane depends on nothing but its table's structure, its key and the number of lanes, so that a replay
//!   after a crash finds each change in the lane whose mark tells whether it is done.
//! - Within a share and table: deletes, then updates, then inserts, one change a key and wave. An update that changes a
//!   value of another unique key becomes a delete and an insert, so that values can move between rows in any order.

mod change;
mod error;
mod group;
mod key;
mod keys;
#[cfg(test)]
mod model_tests;
mod net;
mod number;
#[cfg(test)]
mod selective_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use change::{Change, ChangeEvent, LaneSkip, SafeMode};
pub use error::DispatchError;
pub use group::{Group, GroupBuilder, Share, Step, TableWork};
pub use net::{NetDelete, NetInsert, NetUpdate, Nets};
