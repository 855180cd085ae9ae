//! Lanes: statements, positions, the fence, retries, DDL.
//!
//! Invariants:
//! - A lane's part of a group and the lane's new position are one downstream transaction. After any crash the stored
//!   position says exactly what is done.
//! - That position is written `WHERE epoch = ours`. Zero rows matched means another owner: roll back, write nothing more.
//! - *Applied* is said only after the downstream acknowledged COMMIT; where the answer was lost, the stored position is
//!   read on a new connection before anything is sent again.
//! - A DDL statement's intent is stored before it runs, with a fingerprint of its tables, and cleared in the transaction
//!   that moves the positions past it.

mod ddl;
mod introspect;
mod literal;
mod session;
mod statement;
mod writer;

pub use ddl::{DdlRun, DdlStep};
pub use introspect::fetch_structure;
pub use session::{Downstream, DownstreamOptions};
pub use statement::{Shape, StatementCursor, StatementInfo};
pub use writer::{ApplyError, Job, JobDone, Writer, WriterStats};
