//! Sources and tasks of one agent: what is wanted, what is, and the steps between.

mod api;

pub use api::{
    Actor, AgentStatus, OperateTask, Receiving, RelayStatus, Runway, SourceResult, SourceStatus, StartTask, TaskOp,
};
