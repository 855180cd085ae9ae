//! Memory of large rows, so that it is gone when they are.
//!
//! The C library maps large blocks one by one and unmaps them when they are freed, but whenever one of up to 32 MB is, it takes
//! blocks of that size for common, and keeps them in its arenas from then on, among others and with holes between. Rows of 16 MB
//! then take twice what is in use. Larger blocks it never takes for common. Room that nobody writes to costs nothing.

use mysql_async::{Row, Value};

/// Bytes from which on a row is large.
pub(super) const LARGE: usize = 1 << 20;
/// Room that makes a block one that is unmapped when it is freed.
pub(super) const SIZE: usize = (32 << 20) + (256 << 10);

/// Lets go of a row.
pub(super) fn let_go(mut row: Row) {
    for at in 0..row.len() {
        if !matches!(row.as_ref(at), Some(Value::Bytes(bytes)) if bytes.capacity() >= LARGE) {
            continue;
        }
        if let Some(Value::Bytes(mut bytes)) = row.take(at) {
            bytes.reserve_exact(SIZE.saturating_sub(bytes.len()));
        }
    }
}
