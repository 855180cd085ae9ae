//! Rows that change with others by a foreign key (ON DELETE CASCADE, ON UPDATE SET NULL, …).
//!
//! Most sources do not write such changes into their binlog: the engine makes them. They arrive only if the downstream
//! makes them too, and our sessions do not check foreign keys unless the task asks for it. Invariant: a change that would
//! have changed other tables is not applied without them; the task stops and says what to set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Intake;
use super::asks::{Answer, Asks, Question};
use crate::apply::Cascade;
use crate::decode::RowsEvent;
use crate::error::{Code, Failure, Scope};
use crate::model::TargetTable;
use crate::pipeline::origin::Origin;
use crate::pipeline::progress::Progress;
use crate::row::{ChangeKind, RowImage, TableLayout};
use crate::runtime::{Owned, spawn};
use crate::schema::BoundTable;
use crate::transform::Transform;
use crate::upstream::SourceCascade;

/// How long what was read ahead counts as read just now.
const READ_AHEAD: Duration = Duration::from_secs(5);

/// What is being read.
type Reading = Owned<Result<Vec<Cascade>, Failure>>;

/// The downstream's foreign keys that change rows; `None` where they must be read anew.
#[derive(Default)]
pub(super) struct Cascades {
    known: Option<Vec<Cascade>>,
    /// They are being read since the pipeline began: a server looks through all its tables for them.
    reading: Option<(Instant, Reading)>,
    /// The source's are compared with them.
    comparing: Option<Owned<()>>,
}

impl Cascades {
    /// Begins to read them, beside what else must be known of the first tables.
    pub(super) fn begin(&mut self, mut asks: Asks) {
        self.reading = Some((Instant::now(), spawn("foreign-keys", async move { read(&mut asks).await })));
    }

    /// A statement may have changed which there are, or what their tables are called. Those that went with a statement
    /// without these words are found out when they would matter.
    pub(super) fn after(&mut self, statement: &str) {
        let statement = statement.to_ascii_uppercase();
        if ["REFERENCES", "RENAME", "FOREIGN"].iter().any(|word| statement.contains(word)) {
            (self.known, self.reading) = (None, None);
        }
    }

    fn of(&self, parent: &TargetTable) -> Vec<Cascade> {
        of(self.known.as_deref().unwrap_or_default(), parent).cloned().collect()
    }
}

/// Those that rows of this table set off.
fn of<'c>(known: &'c [Cascade], parent: &'c TargetTable) -> impl Iterator<Item = &'c Cascade> {
    known.iter().filter(move |cascade| same(&cascade.parent, parent))
}

async fn read(asks: &mut Asks) -> Result<Vec<Cascade>, Failure> {
    match asks.retried(Question::Cascades).await? {
        Answer::Cascades(cascades) => Ok(cascades),
        _ => Ok(Vec::new()),
    }
}

/// Servers that fold names to lower case do so here and there.
fn same(one: &TargetTable, other: &TargetTable) -> bool {
    one.0.schema.eq_ignore_ascii_case(&other.0.schema) && one.0.table.eq_ignore_ascii_case(&other.0.table)
}

/// When changes of a table change others.
#[derive(Debug)]
pub(super) struct CascadeRule {
    target: TargetTable,
    /// A foreign key that acts when a row goes.
    on_delete: Option<String>,
    /// Foreign keys that act when one of these columns of the layout changes.
    on_update: Vec<(String, Vec<usize>)>,
}

impl Intake {
    /// What holds for a table; `None` where nothing changes with it, or the downstream does it by itself.
    pub(super) async fn cascade_rule(&mut self, bound: &BoundTable) -> Result<Option<Arc<CascadeRule>>, Failure> {
        if self.cascades.known.is_none() {
            self.read_cascades().await?;
        }
        if self.cascades.comparing.is_none() {
            // Nothing waits for what the source says to it, and it may be away.
            let compare = Compare {
                origin: self.origin.another(),
                transform: Arc::clone(&self.transform),
                known: self.cascades.known.clone().unwrap_or_default(),
                progress: self.progress.clone(),
            };
            self.cascades.comparing = Some(spawn("foreign-keys", compare.run()));
        }
        if self.downstream.checks_foreign_keys {
            return Ok(None);
        }
        let cascades = self.cascades.of(&bound.target);
        if cascades.is_empty() {
            return Ok(None);
        }
        let place = |name: &String| {
            let quoted = format!("`{}`", name.replace('`', "``")).to_lowercase();
            bound.columns.iter().position(|column| column.quoted.to_lowercase() == quoted)
        };
        let on_delete = cascades.iter().find(|cascade| cascade.on_delete).map(Cascade::to_string);
        let mut on_update = Vec::new();
        for cascade in cascades.iter().filter(|cascade| cascade.on_update) {
            if let Answer::ParentColumns(names) = self.asks.retried(Question::ParentColumns(cascade)).await? {
                on_update.push((cascade.to_string(), names.iter().filter_map(place).collect()));
            }
        }
        Ok(Some(Arc::new(CascadeRule { target: bound.target.clone(), on_delete, on_update })))
    }

    async fn read_cascades(&mut self) -> Result<(), Failure> {
        let read_ahead = match self.cascades.reading.take() {
            Some((since, reading)) if since.elapsed() < READ_AHEAD => reading.await.ok().and_then(Result::ok),
            _ => None,
        };
        self.cascades.known = Some(match read_ahead {
            Some(cascades) => cascades,
            None => read(&mut self.asks).await?,
        });
        Ok(())
    }

    /// Fails where a change of these rows changed other tables on the source without a word in its binlog.
    pub(super) async fn check_cascade(&mut self, event: &RowsEvent, rule: &CascadeRule) -> Result<(), Failure> {
        let acting = match event.rows.kind() {
            ChangeKind::Insert => None,
            ChangeKind::Delete => rule.on_delete.clone(),
            ChangeKind::Update => {
                let changes = |columns: &[usize]| {
                    event.rows.iter().any(|row| match row {
                        (Some(before), Some(after)) => differs(&event.layout, before, after, columns),
                        _ => false,
                    })
                };
                rule.on_update.iter().find(|(_, columns)| changes(columns)).map(|(key, _)| key.clone())
            }
        };
        let Some(key) = acting else { return Ok(()) };
        match self.origin.logs_cascades().await {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => {
                let text = format!("rows of {} change others by {key}, and the source cannot be asked", rule.target);
                return Err(Failure::new(Code::InvalidConnection, text)
                    .scope(Scope::Upstream)
                    .workaround("Please make the source reachable, then resume-task."));
            }
        }
        // It may be gone since it was read.
        self.read_cascades().await?;
        if !self.cascades.of(&rule.target).iter().any(|cascade| cascade.to_string() == key) {
            return Ok(());
        }
        let text = format!(
            "this change of {} changed rows of another table by {key}, which the source does not write into its binlog, and \
             the task's sessions do not check foreign keys",
            rule.target
        );
        Err(Failure::new(Code::ConfigTask, text).scope(Scope::Downstream).workaround(
            "Please set `session: {foreign_key_checks: \"1\"}` in the task's target-database, so that the downstream makes \
             these changes itself (update-task, or stop-task and start-task; everything is then applied on one lane).",
        ))
    }
}

/// Says which of the source's foreign keys the downstream does not have, or whose parent's rows do not come: nobody tells
/// what these do. They may be younger than the place in the binlog, so this stops nothing.
struct Compare {
    origin: Origin,
    transform: Arc<Transform>,
    known: Vec<Cascade>,
    progress: watch::Sender<Progress>,
}

impl Compare {
    async fn run(mut self) {
        if self.origin.logs_cascades().await != Some(false) {
            return;
        }
        for SourceCascade { child, parent, name } in self.origin.cascades().await {
            // Rules that do not agree about a table stop the task where its rows come.
            let Ok(Some(target)) = self.transform.table(&child) else { continue };
            let parent_target = self.transform.table(&parent).ok().flatten();
            let has_it = |parent: &TargetTable| of(&self.known, parent).any(|cascade| same(&cascade.child, &target));
            if !parent_target.as_ref().is_some_and(has_it) {
                let note = format!(
                    "the source changes rows of {child} by foreign key `{name}` when rows of {parent} change, and does not \
                     write that into its binlog; downstream no foreign key does it (create it there, and set \
                     foreign_key_checks: \"1\" in the session of target-database)"
                );
                self.progress.send_if_modified(|progress| progress.note(note));
            }
        }
    }
}

/// Whether one of `columns` is another one after the change. What a small image leaves out has not changed.
fn differs(layout: &TableLayout, before: RowImage<'_>, after: RowImage<'_>, columns: &[usize]) -> bool {
    let read = |image: RowImage<'_>| {
        let mut found: Vec<(usize, String)> = Vec::with_capacity(columns.len());
        let whole = image.visit(layout, |column, value| {
            if columns.contains(&column) {
                found.push((column, format!("{value:?}")));
            }
            Ok(())
        });
        whole.map(|()| found)
    };
    match (read(before), read(after)) {
        (Ok(before), Ok(after)) => after.iter().any(|value| !before.contains(value)),
        // What cannot be read is reported where it is used.
        _ => true,
    }
}
