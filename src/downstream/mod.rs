//! The downstream as all who write to it see it: connections with one session, how texts are written for that session, and
//! the session of a DDL statement.
//!
//! Below the stages: lanes apply changes through it, and the copy writes rows. Invariant: every connection has the same
//! `sql_mode`, time zone and character set, whatever the task or the server says, because literals are written for those.

mod ddl_session;
mod session;
mod text;

pub use ddl_session::{DdlSession, SessionError, Zone};
pub use session::{Downstream, DownstreamOptions, STATEMENT_TIMEOUT, limited};
pub use text::{escape_into, hex_into, write_text};
