//! The cases, in the order in which they run: what one writes, the next ones read.

mod apply;
mod catch_up;
mod copy_agent;
mod copy_writers;
mod decode;
mod ingest;
mod park;
mod pull;
mod snapshot;
mod status;
mod steady;
mod still;

use std::pin::Pin;

use crate::bed::Bed;
use crate::growth;
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

/// Of the first table.
pub const CASES: &[Case] = &[
    Case { name: "catch-up", run: |bed| Box::pin(catch_up::run(bed)) },
    Case { name: "pull-oltp", run: |bed| Box::pin(pull::oltp(bed)) },
    Case { name: "pull-bulk", run: |bed| Box::pin(pull::bulk(bed)) },
    Case { name: "ingest", run: |bed| Box::pin(ingest::run(bed)) },
    Case { name: "decode-oltp", run: |bed| Box::pin(decode::oltp(bed)) },
    Case { name: "decode-bulk", run: |bed| Box::pin(decode::bulk(bed)) },
    Case { name: "apply", run: |bed| Box::pin(apply::run(bed)) },
    Case { name: "snapshot", run: |bed| Box::pin(snapshot::run(bed)) },
    Case { name: "copy-writers-even", run: |_| Box::pin(copy_writers::even()) },
    Case { name: "copy-writers-fast", run: |_| Box::pin(copy_writers::fast()) },
    Case { name: "steady", run: |bed| Box::pin(steady::run(bed)) },
    Case { name: "pause-resume", run: |bed| Box::pin(park::run(bed)) },
    Case { name: "query-status", run: |bed| Box::pin(status::run(bed)) },
    Case { name: "idle-memory", run: |bed| Box::pin(still::memory(bed)) },
    Case { name: "boot", run: |bed| Box::pin(still::boot(bed)) },
];

/// Of the second one.
pub const GROWTH: &[Case] = &[Case { name: "growth", run: |bed| Box::pin(growth::run(bed)) }];
