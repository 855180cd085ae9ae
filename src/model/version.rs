//! What this program is, in dm-worker's words.

/// dm-worker's six lines, which deployment tools read, each with its end.
pub const VERSION_LINES: &str = concat!(
    "Release Version: dm-agent ",
    env!("CARGO_PKG_VERSION"),
    "\nGit Commit Hash: None\nGit Branch: None\nUTC Build Time: None\nGo Version: none\nFailpoint Build: false\n"
);
