//! A subtask: its life cycle, the one actor that owns it, and the status everyone else reads.

mod driver;
mod ledger;
mod lifecycle;
mod meter;
mod record;
mod status;

pub use driver::{AutoResume, KEY_SEPARATOR, RelayKeeper, TaskHandle, TaskSpec, forget, record_key, start};
pub use ledger::StoredLedger;
pub use lifecycle::{Effect, Event, step};
pub use meter::Pulse;
pub use record::ParkRecord;
pub use status::{BegunDdl, Park, ParkReason, Stage, TaskStatus};
