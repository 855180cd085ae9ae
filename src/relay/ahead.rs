//! The thread that compresses chunks while the storage thread waits for the disk.
//!
//! It only helps: it gets work where more than one chunk waits, and what it does not bring back in time the storage thread does
//! itself. So nothing depends on it, and nothing is lost with it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::chunk::Encoder;
use super::core::Core;

/// Runs until the gate stops it.
pub(super) fn spawn(core: Arc<Core>) -> io::Result<JoinHandle<()>> {
    let mut encoder = Encoder::new()?;
    std::thread::Builder::new().name("relay-encode".to_owned()).spawn(move || {
        while let Some((chunk, effort)) = core.gate.borrow() {
            let mut value = core.gate.memory();
            let encoded = encoder.encode(&chunk, effort, &mut value);
            core.gate.bring_back(chunk.header.start, encoded.ok().map(|()| value));
        }
    })
}
