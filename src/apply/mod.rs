//! Lanes: statements, positions, the fence, retries, DDL.
//!
//! Invariants:
//! - A lane's part of a group and the lane's new position are one downstream transaction. After any crash the stored
//!   position says exactly what is done.
//! - That position is written `WHERE epoch = ours`. Zero rows matched means another owner: roll back, write nothing more.
//! - Where a mark cannot be in the same transaction, the caller has stored how far it dispatches, and what was sent once
//!   is sent again in safe mode only.
//! - *Applied* is said only after the downstream acknowledged COMMIT; where the answer was lost, the stored position is
//!   read on a new connection before anything is sent again.
//! - DDL runs on the connection that holds the task's lock on the server, and only after the epoch was checked under it.
//! - A DDL statement's intent is stored before it runs, with a fingerprint of its tables, and cleared in the transaction
//!   that moves the positions past it. It runs in the session that it had on the source.

mod batch;
mod ddl;
mod ddl_clauses;
mod ddl_effect;
mod ddl_lock;
mod ddl_step;
mod deletes;
mod introspect;
mod literal;
mod parts;
mod statement;
mod values;
mod writer;

pub use crate::downstream::{DdlSession, Downstream, DownstreamOptions, Zone};
pub use ddl::{DdlRun, Intents, StoredIntents, is_because_of_rows, is_of_plan};
pub use ddl_lock::DdlLock;
pub use ddl_step::{DdlClause, DdlStep, Only};
pub use introspect::{
    Cascade, Part, fetch_cascades, fetch_parent_columns, fetch_schema_charset, fetch_structure, fetch_structures,
};
pub use literal::write_literal;
pub use parts::{Shape, StatementInfo};
pub use statement::StatementCursor;
pub use writer::{ApplyError, Job, JobDone, STATEMENT_ROWS, Writer, WriterStats};
