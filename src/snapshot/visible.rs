//! What is applied and no read of the source sees yet: before a table is read again, it must have come to light.
//!
//! A source logs a transaction before it shows it. One that waits for a semi-synchronous replica stays unseen for as long as
//! that takes, up to `rpl_semi_sync_source_timeout`; one of XA from XA PREPARE to XA COMMIT, which is logged without rows. Both
//! may be applied already where the task stands, and rows that are read without them would stay so.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::prepared::wait_for_ends;
use super::source::Source;
use super::spec::{CopyProgress, CopySpec};
use crate::error::Failure;
use crate::model::{Flavor, Location};

/// How long transactions that are logged are waited for: longer than a source waits for replicas by default. One that has lost
/// some, as after a failover, never has them, and a table is read again just for that.
const WAIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until a read sees all that was applied up to `behind`.
pub(super) async fn wait_until_visible(
    spec: &CopySpec,
    source: &Source,
    behind: Option<&Location>,
    progress: &watch::Sender<CopyProgress>,
) -> Result<(), Failure> {
    let say = |waiting| progress.send_modify(|progress| progress.activity = waiting);
    let lost = match behind {
        // A MariaDB tells what it has logged.
        Some(behind) if spec.flavor == Flavor::MySql && !behind.gtids.is_empty() => {
            wait_for_commits(spec, source, behind, &say).await?
        }
        _ => None,
    };
    let hidden = wait_for_ends(source, "the table was to be read again", say).await?;
    progress.send_modify(|progress| {
        progress.activity = String::new();
        progress.notes.extend(lost.into_iter().chain(hidden));
    });
    Ok(())
}

async fn wait_for_commits(
    spec: &CopySpec,
    source: &Source,
    behind: &Location,
    say: &impl Fn(String),
) -> Result<Option<String>, Failure> {
    let mut conn = source.connect().await?;
    let begun = Instant::now();
    loop {
        if spec.guide.location(&mut conn).await?.gtids.contains(&behind.gtids) {
            return Ok(None);
        }
        if begun.elapsed() >= WAIT {
            let note = "the source does not have all transactions that are applied: a table that was read again has what the \
                        source has";
            return Ok(Some(note.to_owned()));
        }
        say("waiting until the source shows what it has logged".to_owned());
        tokio::time::sleep(PAUSE).await;
    }
}
