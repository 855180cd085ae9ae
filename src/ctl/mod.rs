//! Commands and output of dm-agentctl.
pub mod json;
