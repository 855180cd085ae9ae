//! The one failure type that crosses module borders, and what to do about it.
//!
//! Each stage has a small error enum of its own with the variants its callers branch on; where an error leaves the
//! stage for a task's or an operator's eyes it becomes a [`Failure`]: DM's code, class, scope and level, a message, the
//! raw cause and a remedy. Codes and texts are DM's because the master and its users match on them
//! (`tests/golden/errors`). What is retried, and for how long, is decided here from the code, never from text.

mod code;
mod failure;
mod mysql;
mod retry;

pub use code::{Class, Code, Level, Scope};
pub use failure::Failure;
pub use mysql::{driver_failure, render_server_error, server_error_code};
pub use retry::{Retry, retry_of, server_number};
