//! DDL in the coordinator's loop: no lane is at work, and everything before the statement is applied.
//!
//! The loop stands still until the statement has ended, and the progress says since when it runs, so that nobody is told
//! that the task is parked while the server still alters a table. A stop interrupts it only where it waits for a lock.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::super::Stop;
use super::super::here::BookIntents;
use super::super::item::{DdlEnd, DdlItem};
use super::super::progress::RunningDdl;
use super::{Coordinator, Ended};
use crate::apply::{DdlLock, DdlRun, Intents, StoredIntents, is_because_of_rows, is_of_plan};
use crate::checkpoint::Kept;
use crate::error::{Code, Failure};
use crate::meta::{DdlIntent, StoredMark};

impl Coordinator {
    pub(super) async fn run_ddl(&mut self, ddl: DdlItem, stop: &mut watch::Receiver<Stop>) -> Result<(), Ended> {
        if !self.ahead.is_empty() {
            // Its intent would set them back. A lane only gets behind a statement when its end is stored for all.
            let text = format!("lanes stand beyond a DDL statement that has not run ({})", ddl.place);
            return Err(Failure::new(Code::NotSet, text).into());
        }
        let first = ddl.steps.first().map_or("", |step| step.sql.as_str());
        let shown: String = first.chars().take(200).collect();
        tracing::info!(statement = %shown, "DDL");
        if self.book.kept() == Kept::Here && self.applied != self.stored {
            // Rows before it must not be replayed onto what it makes of their tables.
            self.store_here(&StoredMark::from(&self.applied), false, None, &self.options.tables.clone()).await?;
        }
        let running = RunningDdl { statement: shown.clone(), since: SystemTime::now() };
        self.progress.send_modify(|progress| {
            progress.activity = format!("running DDL: {shown}");
            progress.ddl = Some(running);
        });
        let result = match self.run_over_rows(&ddl, stop).await {
            Ok((intent, taken_for_done)) => self.settle_window(&ddl, taken_for_done, stop).await.map(|()| intent),
            Err(ended) => Err(ended),
        };
        let lost =
            |failure: &Failure| matches!(failure.known_code(), Some(Code::InvalidConnection | Code::DriverError));
        if !matches!(&result, Err(Ended::Failed(failure)) if lost(failure)) {
            // Where the answer was lost, the statement may still be at work.
            self.progress.send_modify(|progress| progress.ddl = None);
        }
        let intent = result?;
        // As a dm-worker says it.
        tracing::info!(place = %ddl.place, "finish to handle ddls in normal mode");
        self.ddl_may_be_done = false;
        (self.intent, self.ddl_start) = (intent, Some(self.applied.clone()));
        // Intake may have gone: then the stop that follows ends the loop.
        let _ = ddl.done.send(DdlEnd::Ran);
        self.publish();
        Ok(())
    }

    /// As [`Self::run_steps`], and once more without the rows where it was refused for rows that never were together.
    async fn run_over_rows(
        &mut self,
        ddl: &DdlItem,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(Option<DdlIntent>, bool), Ended> {
        let refused = match self.run_steps(ddl, stop).await {
            Err(Ended::Failed(failure)) if is_because_of_rows(&failure) => failure,
            ended => return ended,
        };
        match self.make_way(ddl, stop).await? {
            true => self.run_steps(ddl, stop).await,
            false => Err(Ended::Failed(refused)),
        }
    }

    /// The intent that is left, and whether a step counted as done because it came with the structures of the copy.
    async fn run_steps(
        &mut self,
        ddl: &DdlItem,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(Option<DdlIntent>, bool), Ended> {
        let start = StoredMark::from(&self.applied);
        let (tables, downstream) = (self.options.tables.clone(), self.options.downstream.clone());
        let (epoch, lock, progress) = (self.options.claimed.epoch, DdlLock::new(&tables), self.progress.clone());
        let mut intent = self.intent.take();
        let other = |intent: &mut DdlIntent| intent.mark == start && !is_of_plan(intent, ddl.first_step, &ddl.steps);
        if let Some(other) = intent.take_if(other) {
            tracing::warn!(statement = %other.statement, "it was begun, or refused, and another one is ordered in its place");
        }
        self.control().await?;
        let Some(conn) = self.control.as_mut() else { return Ok((intent, false)) };
        let (mut with_rows, mut here);
        let intents: &mut dyn Intents = match self.book.kept() {
            Kept::Downstream => {
                with_rows = StoredIntents { tables: &tables, epoch };
                &mut with_rows
            }
            Kept::Here => {
                here = BookIntents(&mut self.book);
                &mut here
            }
        };
        let stopping = std::pin::pin!(async {
            // A sender that is gone stops it too.
            let _ = stop.wait_for(|stop| *stop != Stop::Run).await;
        });
        let scratch = tables.scratch();
        let mut run = DdlRun {
            downstream: &downstream,
            intents,
            lock: &lock,
            start: &start,
            place: Arc::clone(&ddl.place),
            stopping,
            stopped: false,
            may_be_done: self.ddl_may_be_done,
            came_with_copy: self.options.windows.is(|window| {
                let mut touched = ddl.again.iter().chain(&ddl.emptied);
                window.structures_may_have(&self.applied.location) || touched.any(|table| window.is_stale(table))
            }),
            taken_for_done: false,
            refused: None,
            scratch: &scratch,
            was_there: Vec::new(),
            say: &|waits| progress.send_modify(|progress| progress.activity = waits),
        };
        let mut result = Ok(());
        for (number, step) in (ddl.first_step..).zip(&ddl.steps) {
            result = run.run(conn, number, step, &mut intent).await;
            if result.is_err() {
                break;
            }
        }
        let (taken_for_done, refused, was_there) = (run.taken_for_done, run.refused.take(), run.was_there);
        for statement in was_there {
            let shown: String = statement.chars().take(200).collect();
            let note = format!("its effect was there already downstream, so it counts as done: {shown}");
            self.progress.send_if_modified(|progress| progress.note(note));
        }
        if result.is_err() {
            // As it is stored: of the steps before it none is run again.
            self.intent = refused;
            // The next one begins with a connection that holds nothing.
            self.control = None;
        }
        result?;
        Ok((intent, taken_for_done))
    }
}
