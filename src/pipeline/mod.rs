//! Builds the stages of one task, owns them, stops them.
