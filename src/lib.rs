//! dm-agent: the worker-side agent daemon of TiDB Data Migration.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod apply;
pub mod binlog;
pub mod checkpoint;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod decode;
pub mod dispatch;
pub mod error;
pub mod meta;
pub mod model;
pub mod mysql;
pub mod pipeline;
pub mod relay;
pub mod row;
pub mod runtime;
pub mod schema;
pub mod store;
pub mod supervisor;
pub mod task;
pub mod transform;
pub mod upstream;
