//! From raw events to transactions: what a source did, in its order, with nothing routed or filtered by content yet.
//!
//! Invariant: every event fed in ends up in exactly one [`Decoded`] item, or is one of the kinds known to carry no change.
//! An unknown event that is not flagged ignorable is an error, never skipped: a lost change is worse than a stopped task.

mod decoder;
mod error;
mod item;
mod payload;
mod rows;
mod span;
mod statement;
mod tables;

pub use decoder::{Decoder, Progress};
pub use error::DecodeError;
pub use item::{Decoded, RowsEvent, Statement, TableFilter};
