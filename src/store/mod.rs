//! The embedded store. `use sled` stands nowhere else.
