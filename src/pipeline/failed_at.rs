//! What was done before the event that failed, in GTIDs, as DM tells it.
//!
//! A lane knows where an event is, and what was done before its group; which transactions lie between the two nobody
//! keeps, since there are many in a group and few failures. So they are read from the relay log once more when something
//! has failed. Where that cannot be read in time, what was done before the group is told, which is true, too.

use std::time::Duration;

use super::exceptions::start_location;
use crate::binlog::{EventRun, StreamTracker};
use crate::error::Failure;
use crate::model::{BinlogPosition, GtidSet, Location, RowMark};
use crate::relay::{ReadItem, Relay};

/// How long the failure may be kept back for it. A group is what the downstream takes in about 100 ms.
const LIMIT: Duration = Duration::from_secs(2);

/// The failure with the GTIDs before the transaction that failed in place of those before its group, where `applied` ends.
pub(super) async fn with_gtids(relay: &Relay, applied: Option<&RowMark>, mut failure: Failure) -> Failure {
    let Some(start) = applied.map(|mark| &mark.location).filter(|start| !start.gtids.is_empty()) else {
        return failure;
    };
    let Some(at) = start_location(&failure.message) else { return failure };
    if let Ok(Some(gtids)) = tokio::time::timeout(LIMIT, gtids_before(relay, start, &at)).await {
        let told = |gtids: &GtidSet| format!("gtid-set: {gtids}]");
        // Of the start and of the end.
        failure.message = failure.message.replacen(&told(&start.gtids), &told(&gtids), 2);
    }
    failure
}

/// All GTIDs up to the transaction that holds the event at `at`.
async fn gtids_before(relay: &Relay, start: &Location, at: &BinlogPosition) -> Option<GtidSet> {
    let mut reader = relay.reader(start).await.ok()?;
    let begin = reader.boundary().clone();
    let mut tracker = StreamTracker::new(start.gtids.flavor(), begin.location, begin.checksum);
    loop {
        match reader.next().await.ok()? {
            ReadItem::Restart => tracker.restart(),
            ReadItem::Events { runs, .. } => {
                for (_, event) in runs.iter().flat_map(EventRun::iter) {
                    if tracker.position() >= at {
                        return Some(tracker.location().gtids.clone());
                    }
                    tracker.feed(event).ok()?;
                }
            }
        }
    }
}
