//! DM's configuration files and ours: raw to checked, every problem reported at once, secrets redacted.
