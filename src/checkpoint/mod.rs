//! What is done, as a location that a restart goes on from.
