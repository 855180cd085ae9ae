//! A subtask: its life cycle, the one actor that owns it, and the status everyone else reads.

mod driver;
mod handle;
mod ledger;
mod lifecycle;
mod meter;
mod record;
mod snapshot;
mod status;

pub use driver::{follows, start};
pub use handle::{AutoResume, Recipe, RelayKeeper, TaskHandle, TaskSpec};
pub use ledger::StoredLedger;
pub use lifecycle::{Effect, Event, step};
pub use meter::Pulse;
pub use record::{KEY_SEPARATOR, ParkRecord, TableOrder, forget, record_key};
pub use status::{AgainStatus, BegunDdl, CopyStatus, Park, ParkReason, Stage, TaskStatus, Totals, Unit};

pub use crate::pipeline::{DURATION_BOUNDS, Durations, SIZE_BOUNDS, Sizes};
