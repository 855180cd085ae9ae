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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the memory that this process has in its memory: the part that is there, in kB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_is_let_go_is_gone() {
        let before = resident();
        for _ in 0..20 {
            let mut block: Vec<u8> = Vec::with_capacity(SIZE);
            block.resize(16 << 20, 7);
            assert!(resident() > before + (12 << 10));
        }
        assert!(resident() < before + (12 << 10), "{} kB, before {before}", resident());
    }
}
