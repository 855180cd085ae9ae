//! Behind a copy: tables are read again where their structure changes, and the window ends where the target equals the source.
//!
//! Invariant: what the window is stored as holds for whoever goes on at the stored marks. So it is stored before a statement's
//! end is, and forgotten only when the marks are beyond it.

use tokio::sync::watch;

use super::super::Stop;
use super::super::item::DdlItem;
use super::super::progress::AgainProgress;
use super::{Coordinator, Ended, Safe};
use crate::error::{Code, Failure};
use crate::meta::StoredMark;
use crate::model::{Location, RowMark, SourceTable};
use crate::mysql::Connector;
use crate::pipeline::window::Window;
use crate::pipeline::{Outcome, Parked};
use crate::snapshot::{
    CopyProgress, CopySpec, Reread, Rereading, Stopping, drop_leftover, empty, is_alone, read_again, record,
};

/// How often stale tables are read again at the window's end, before a person is asked.
const HEALS: u32 = 5;
/// How long the source may take to say where it is.
const ASK: std::time::Duration = std::time::Duration::from_secs(30);

impl Coordinator {
    /// Brings the window up to date behind a statement that has run and whose end is not stored.
    /// `taken_for_done` where it was refused because of what came with the structures of the copy.
    pub(super) async fn settle_window(
        &mut self,
        ddl: &DdlItem,
        taken_for_done: bool,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(), Ended> {
        let Some(mut window) = self.options.windows.now() else { return Ok(()) };
        // Those that gave way to it, besides.
        let way = ddl.over_rows.iter().filter(|table| window.is_stale(table) && !ddl.again.contains(table));
        let again: Vec<SourceTable> = ddl.again.iter().chain(way).cloned().collect();
        if again.is_empty() && ddl.emptied.is_empty() {
            return Ok(());
        }
        // A statement on its way is what stale tables wait for.
        self.heals = 0;
        for table in &ddl.emptied {
            window.begins_empty(table);
        }
        if taken_for_done {
            // The new name was there, so the old one may still be.
            let copy = self.options.copy.clone();
            let fence = copy.tables.move_all_lanes(self.options.claimed.epoch, &StoredMark::from(&self.applied));
            for table in &ddl.renamed {
                if !drop_leftover(&copy, table, &fence).await? {
                    return Err(Ended::Fenced);
                }
            }
        }
        for table in &again {
            self.read_table_again(table, false, &mut window, stop).await?;
        }
        self.take_window(window).await
    }

    /// Takes away the rows that a statement was refused for, where they may be together as they never were on the source:
    /// behind a copy they are of several instants. The statement's tables are read again when it has run. False where that
    /// is not the reason, or where others' rows would go, too.
    ///
    /// Killed in between: that they are to be read again is stored before the first row goes.
    pub(super) async fn make_way(&mut self, ddl: &DdlItem, stop: &watch::Receiver<Stop>) -> Result<bool, Ended> {
        let Some(mut window) = self.options.windows.now() else { return Ok(false) };
        if ddl.over_rows.is_empty() || !window.mixes_instants(&self.applied.location) {
            return Ok(false);
        }
        let copy = self.options.copy.clone();
        for table in &ddl.over_rows {
            if !is_alone(&copy, table).await? {
                return Ok(false);
            }
            window.mark_stale(table);
        }
        self.store_window(&window).await?;
        self.options.windows.set(Some(window));
        let fence = copy.tables.move_all_lanes(self.options.claimed.epoch, &StoredMark::from(&self.applied));
        for table in &ddl.over_rows {
            tracing::info!(%table, "emptied: a DDL statement was refused for rows that are of several instants");
            self.progress.send_modify(|progress| progress.activity = format!("emptying {table}, to read it again"));
            let emptied = tokio::select! {
                biased;
                () = stopping(stop) => return Err(Ended::Interrupted),
                emptied = empty(&copy, table, &fence) => emptied?,
            };
            if !emptied {
                return Err(Ended::Fenced);
            }
        }
        Ok(true)
    }

    /// Tables that are stale at the window's end are read again there: whatever was logged before is applied, so that the
    /// target's table is what the source's was, unless it is another one again.
    pub(super) async fn heal_stale(&mut self, stop: &mut watch::Receiver<Stop>) -> Result<(), Ended> {
        let due = |window: &Window| window.has_stale() && window.is_over(&self.applied.location);
        if self.ready.is_some() || !self.at_one_boundary() || !self.options.windows.is(due) {
            return Ok(());
        }
        let Some(mut window) = self.options.windows.now() else { return Ok(()) };
        // What lanes are given may change here, and so may the bindings.
        self.store_together().await?;
        let until = window.until().clone();
        for table in window.stale() {
            self.read_table_again(&table, true, &mut window, stop).await?;
        }
        self.heals += 1;
        // Nothing more has come that could explain it, or it never does.
        if window.has_stale() && (*window.until() == until || self.heals >= HEALS) {
            window.check_end()?;
        }
        self.take_window(window).await
    }

    /// Stores a window, and goes on with it.
    async fn take_window(&mut self, window: Window) -> Result<(), Ended> {
        if self.options.windows.now().as_ref() != Some(&window) {
            self.store_window(&window).await?;
        }
        if !matches!(self.safe_until, Some(Safe::Always)) && !window.is_over(&self.applied.location) {
            self.safe_until = Some(Safe::At(RowMark::at(window.until().clone())));
        }
        self.options.windows.set(Some(window));
        self.publish();
        Ok(())
    }

    /// Reads one table again where all lanes stand, and says in `window` what follows from it. `makes` it where only the
    /// source has it.
    pub(super) async fn read_table_again(
        &mut self,
        table: &SourceTable,
        makes: bool,
        window: &mut Window,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(), Ended> {
        let copy = self.options.copy.clone();
        if copy.guide.target(table)?.is_none() {
            // The task does not want it any more.
            window.begins_empty(table);
            return Ok(());
        }
        tracing::info!(%table, "read again");
        self.progress.send_modify(|progress| progress.activity = format!("reading {table} again"));
        let fence = copy.tables.move_all_lanes(self.options.claimed.epoch, &StoredMark::from(&self.applied));
        let spares_others = window.is_ordered(table);
        // As it is stored with the lanes, so that whoever goes on there knows it again.
        let place = serde_json::to_string(&StoredMark::from(&self.applied)).ok();
        let behind = Some(self.applied.location.clone());
        let how = Rereading { makes, spares_others, fence: Some(fence), behind, place };
        match self.reading(&copy, table, &how, stop).await? {
            Reread::Done { at, exact, made, rows } => {
                window.read_again(table, &at, exact);
                if made {
                    window.made_at_end();
                }
                tracing::info!(%table, rows, at = %at, "has been read again");
                self.progress.send_modify(|progress| {
                    progress.read_again = (progress.read_again.0 + 1, format!("{table} was read again: {rows} rows"));
                });
            }
            Reread::Nowhere => drop(window.begins_empty(table)),
            Reread::Differs(why) => {
                tracing::info!(%table, why, "has another structure on the source by now: its rows wait for the next statement");
                window.differs(table, &source_now(&copy).await?);
            }
            Reread::Stopped => return Err(Ended::Interrupted),
            Reread::Fenced => return Err(Ended::Fenced),
        }
        Ok(())
    }

    /// Reads, and shows how far that is.
    async fn reading(
        &self,
        copy: &CopySpec,
        table: &SourceTable,
        how: &Rereading,
        stop: &watch::Receiver<Stop>,
    ) -> Result<Reread, Failure> {
        let (sender, mut seen) = watch::channel(CopyProgress::default());
        let mut reading = std::pin::pin!(read_again(copy, table, how, stopping(stop), sender));
        let show = |copy: &CopyProgress| {
            self.progress.send_modify(|progress| {
                for note in &copy.notes {
                    progress.note(note.clone());
                }
                let Some(at_work) = copy.at_work.first() else { return };
                progress.activity = match copy.activity.as_str() {
                    "" => format!("reading {table} again"),
                    waits => waits.to_owned(),
                };
                let reading = Some((at_work.rows, at_work.estimate));
                match progress.again.iter_mut().find(|known| known.table == *table) {
                    Some(known) => known.reading = reading,
                    None => progress.again.push(AgainProgress { table: table.clone(), reading }),
                }
            });
        };
        loop {
            tokio::select! {
                biased;
                done = &mut reading => {
                    // What it had to say last.
                    show(&seen.borrow_and_update());
                    return done;
                }
                Ok(()) = seen.changed() => show(&seen.borrow_and_update()),
            }
        }
    }

    /// Stores what is left to be done.
    pub(super) async fn store_window(&mut self, window: &Window) -> Result<(), Ended> {
        let (tables, epoch) = (self.options.tables.clone(), self.options.claimed.epoch);
        let fence = tables.move_all_lanes(epoch, &StoredMark::from(&self.applied));
        let conn = self.control().await?;
        match record(conn, &tables, Some(&window.to_replay()), Some(&fence)).await? {
            true => Ok(()),
            false => Err(Ended::Fenced),
        }
    }

    /// Forgets the window when a restart would begin behind it. A failure costs nothing: it is looked at again.
    pub(super) async fn close_window(&mut self) {
        let passed = |window: &Window| window.is_over(&self.stored.location) && !window.has_stale();
        if !self.options.windows.is(passed) || self.stored.is_inside() {
            return;
        }
        let tables = self.options.tables.clone();
        let fence = tables.move_all_lanes(self.options.claimed.epoch, &StoredMark::from(&self.stored));
        let Ok(conn) = self.control().await else { return };
        match record(conn, &tables, None, Some(&fence)).await {
            Ok(_) => {
                tracing::info!(at = %self.stored.location, "the target equals the source at one place, the exact mode begins");
                self.options.windows.set(None);
            }
            Err(error) => tracing::warn!(%error, "that the replay is over is not stored, will be tried again"),
        }
    }

    /// Whether the task has come to its own end.
    pub(super) fn has_ended(&self) -> bool {
        let over = !self.options.windows.is(|window| !window.is_over(&self.applied.location) || window.has_stale());
        self.options.ends && over && self.ready.is_none() && self.at_one_boundary()
    }

    /// Stores the end, exactly.
    pub(super) async fn finish(mut self) -> Outcome {
        self.safe_until = None;
        match self.park().await {
            Outcome::Parked(Parked { applied: Some(applied), exact: true }) => Outcome::Finished(Some(applied)),
            other => other,
        }
    }
}

/// Ready when the pipeline is to stop.
pub(in crate::pipeline) fn stopping(stop: &watch::Receiver<Stop>) -> Stopping {
    let mut stop = stop.clone();
    Box::pin(async move {
        // A sender that is gone stops it too.
        let _ = stop.wait_for(|stop| *stop != Stop::Run).await;
    })
}

/// Where the source is.
async fn source_now(copy: &crate::snapshot::CopySpec) -> Result<Location, Failure> {
    let connector = Connector::new(copy.source.clone());
    let asked = async {
        let mut conn =
            connector.connect().await.map_err(|error| connector.failure(&error, crate::error::Scope::Upstream))?;
        copy.guide.location(&mut conn).await
    };
    tokio::time::timeout(ASK, asked).await.unwrap_or_else(|_| {
        Err(Failure::new(Code::InvalidConnection, "ask the source where it is: no answer within 30 s"))
    })
}
