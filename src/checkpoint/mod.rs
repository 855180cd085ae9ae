//! What is done, as a location that a restart goes on from.
//!
//! Invariants:
//! - A stored location never passes what is applied, and never goes back while one owner runs.
//! - At start DM's row decides (see "Which checkpoint wins" in the crate documentation): ours, and the lanes hold; another's, and it
//!   wins; missing, and everything starts over.
//! - Whoever claims the task raises the epoch in the transaction that reads the rows, so that what it read is final.

mod claim;
mod decide;
mod ledger;
mod save;
mod stored;

pub use claim::{Claim, Claimed, History, claim};
pub use decide::{Decision, SafeWindow, decide};
pub use ledger::{Book, Kept, Ledger, LedgerRecord, kept_here};
pub use save::{SaveError, save, void};
pub use stored::{Mapping, forget, peek};
