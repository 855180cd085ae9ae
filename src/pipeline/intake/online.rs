//! Statements of online DDL tools: what they do to shadow tables is stored, and run when these take the real ones' places.
//!
//! Stored before anything behind it is taken in, so that no lane can stand behind a statement that is not stored.

use super::Intake;
use super::asks::{Answer, Question};
use crate::error::{Code, Failure};
use crate::model::{SourceTable, TableName};
use crate::pipeline::shadows::{Here, Place, ShadowChange, Shadows};
use crate::transform::{DdlInput, DdlPlan, OnlineStep, TargetStatement};

/// What comes of a tool's statement.
#[derive(Default)]
pub(super) struct FromTool {
    /// To be run downstream.
    pub run: Vec<TargetStatement>,
    /// Tables of the source whose structure has changed where filters leave that out.
    pub left_out: Vec<SourceTable>,
}

impl Intake {
    /// Remembers what is to be remembered of a statement, logged with these `sql_mode` bits.
    pub(super) async fn online(&mut self, parts: Vec<OnlineStep>, sql_mode: u64) -> Result<FromTool, Failure> {
        // Where this fails, what is stored is read anew.
        let mut shadows = match self.shadows.take() {
            Some(shadows) => shadows,
            None => self.stored_shadows().await?,
        };
        let (at, before) = (Place::new(&self.open.position, self.gtid.as_ref()), self.open.clone());
        let here = Here { at: &at, before: &before };
        let mut made = FromTool::default();
        for part in parts {
            let changed = match part {
                OnlineStep::Run(statement) => {
                    made.run.push(*statement);
                    continue;
                }
                OnlineStep::Stays { real, renamed } => {
                    self.note(format!(
                        "{real} was renamed to {renamed} on the source, a name of online DDL tools: it stays downstream, and \
                         until a shadow table takes its place nothing comes for it (`trash-table-rules`)"
                    ));
                    continue;
                }
                OnlineStep::Begin { shadow, real } => shadows.begin(&shadow, &real, here).then_some(shadow),
                OnlineStep::Record { shadow, real, text } => {
                    tracing::info!(%shadow, %real, "an online DDL tool's statement is kept for the real table");
                    shadows.record(&shadow, &real, (text, sql_mode), here).then_some(shadow)
                }
                OnlineStep::Forget { shadow } => shadows.forget(&shadow, here).then_some(shadow),
                OnlineStep::Swap { shadow, real } => {
                    let changes = shadows.swap(&shadow, here).ok_or_else(|| unknown(&shadow, &real))?;
                    tracing::info!(%shadow, %real, statements = changes.len(), "an online DDL tool is done");
                    self.of_shadow(&changes, &shadow, &real, &mut made)?;
                    Some(shadow)
                }
            };
            if let Some(shadow) = changed {
                self.store_shadow(&shadow, &shadows).await?;
            }
        }
        self.shadows = Some(shadows);
        Ok(made)
    }

    /// Plans what was done to a shadow for the real table.
    fn of_shadow(
        &self,
        changes: &[ShadowChange],
        shadow: &SourceTable,
        real: &SourceTable,
        made: &mut FromTool,
    ) -> Result<(), Failure> {
        // A dm-worker leaves those empty that a filter leaves out.
        for ShadowChange { text, sql_mode, .. } in changes.iter().filter(|change| !change.text.is_empty()) {
            let input = DdlInput { schema: &shadow.0.schema, text, sql_mode: *sql_mode };
            match self.transform.of_shadow(&input, shadow, real)? {
                DdlPlan::Run(run) => {
                    made.run.extend(run);
                    self.note_times(text, real);
                }
                DdlPlan::Skip { reason, filtered } => {
                    tracing::warn!(%shadow, %real, reason, "an online DDL tool's statement is left out");
                    made.left_out.extend(filtered);
                }
                DdlPlan::Online(_) => {
                    let text =
                        format!("online ddl meta invalid: of shadow table {shadow}: it is about another: {text}");
                    return Err(Failure::new(Code::OnlineDdlMeta, text).workaround(BY_HAND));
                }
            }
        }
        Ok(())
    }

    /// A new column's default may be the present time: on the source that was when the tool copied each row, which nobody
    /// logs for the real table.
    fn note_times(&self, text: &str, real: &SourceTable) {
        let upper = text.to_ascii_uppercase();
        let adds = upper.contains("ADD") && upper.contains("DEFAULT");
        if adds && ["CURRENT_TIMESTAMP", "NOW(", "LOCALTIME"].iter().any(|now| upper.contains(now)) {
            self.note(format!(
                "an online DDL tool gave {real} a column whose default is the present time: in rows that were there it is the \
                 time of the change, on the source that of copying each row (`dm-agentctl resync-table` makes it equal)"
            ));
        }
    }

    /// Forgets what no replay needs any more, as far as the checkpoint is stored.
    pub(super) async fn prune_shadows(&mut self) -> Result<(), Failure> {
        let mut shadows = match self.shadows.take_if(|shadows| shadows.is_any_over()) {
            Some(shadows) => shadows,
            None if self.shadows.is_some() || !self.transform.knows_tools() => return Ok(()),
            // As a former run left it.
            None => self.stored_shadows().await?,
        };
        let flushed = self.progress.borrow().flushed.clone();
        for shadow in flushed.map(|flushed| shadows.prune(&flushed)).unwrap_or_default() {
            self.store_shadow(&shadow, &shadows).await?;
        }
        self.shadows = Some(shadows);
        Ok(())
    }

    async fn stored_shadows(&mut self) -> Result<Shadows, Failure> {
        let Some(tables) = &self.tables else { return Ok(Shadows::default()) };
        let sql = tables.select_online_ddl();
        let Answer::Rows(rows) = self.asks.retried(Question::Rows(&sql)).await? else { return Ok(Shadows::default()) };
        let rows = rows.into_iter().map(|(schema, table, text)| (SourceTable(TableName::new(schema, table)), text));
        Shadows::read(rows.collect(), self.origin.flavor)
    }

    async fn store_shadow(&mut self, shadow: &SourceTable, shadows: &Shadows) -> Result<(), Failure> {
        let Some(tables) = &self.tables else { return Ok(()) };
        let name: [&str; 2] = [&shadow.0.schema, &shadow.0.table];
        let sql = match shadows.stored(shadow) {
            Some(text) => tables.write_online_ddl(self.epoch, name, &text),
            None => tables.delete_online_ddl(self.epoch, name),
        };
        self.asks.retried(Question::Store(&sql)).await.map(|_| ())
    }
}

const BY_HAND: &str = "Please give the downstream table the structure that the source's has now: `binlog replace <task> \
                       \"ALTER TABLE …\"`, or by hand and then `binlog skip <task>`.";

fn unknown(shadow: &SourceTable, real: &SourceTable) -> Failure {
    let text = format!(
        "online ddl metadata for ghost temporary table {shadow} not found: it takes the place of {real}, and what an online \
         DDL tool did to it before the task's start is not known"
    );
    Failure::new(Code::OnlineDdlNotFound, text).workaround(BY_HAND)
}
