//! What the process gives up at its start: core dumps, and files that others may read.
//!
//! Passwords and rows are in memory. A core dump would write them to disk, or hand them to a collector: a size limit of
//! zero stops the first, "not dumpable" also the second, and it keeps other processes of the same user from attaching.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};

/// Restricts the process. Call it before any file is created and any thread started.
pub fn harden(allow_core_dump: bool) -> std::io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    if !allow_core_dump {
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}
