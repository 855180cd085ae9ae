//! Calls into the engine: its errors and its panics become errors of ours.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::StoreError;

/// Runs a call into the engine and turns its errors and its assertions into ours.
pub(super) fn guarded<T>(
    doing: &'static str,
    path: &Path,
    call: impl FnOnce() -> io::Result<T>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError::from_io(doing, path, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(StoreError::Corrupt { path: path.to_owned(), what: format!("{doing}: assertion failed: {text}") })
        }
    }
}
