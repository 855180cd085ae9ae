//! A subtask: its life cycle, the one actor that owns it, and the status everyone else reads.

mod status;

pub use status::{Park, ParkReason, Stage, TaskStatus};
