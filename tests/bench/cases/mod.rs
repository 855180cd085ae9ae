//! The cases, in the order in which they run: what one writes, the next ones read.

mod catch_up;
mod decode;
mod ingest;
mod pull;

use std::pin::Pin;

use crate::bed::Bed;
use crate::outcome::Row;

/// How a case is run.
type Run = for<'a> fn(&'a mut Bed) -> Pin<Box<dyn Future<Output = Vec<Row>> + 'a>>;

/// A case: one or more lines of the table that come from the same work.
pub struct Case {
    /// For `CASE=`.
    pub name: &'static str,
    /// Measures.
    pub run: Run,
}

/// All of them.
pub const CASES: &[Case] = &[
    Case { name: "catch-up", run: |bed| Box::pin(catch_up::run(bed)) },
    Case { name: "pull-oltp", run: |bed| Box::pin(pull::oltp(bed)) },
    Case { name: "pull-bulk", run: |bed| Box::pin(pull::bulk(bed)) },
    Case { name: "ingest", run: |bed| Box::pin(ingest::run(bed)) },
    Case { name: "decode-oltp", run: |bed| Box::pin(decode::oltp(bed)) },
    Case { name: "decode-bulk", run: |bed| Box::pin(decode::bulk(bed)) },
];
