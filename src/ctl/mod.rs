//! Commands and output of dm-agentctl.
