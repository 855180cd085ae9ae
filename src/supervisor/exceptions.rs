//! Commands on events that cannot be applied: `binlog skip`, `replace`, `inject`, `revert`, `list`.
//!
//! Stored before they are answered, kept over restarts, forgotten when the checkpoint has passed the event or the task is
//! stopped. A running pipeline is ended at a boundary and begun anew with them, so that they hold for every event that is
//! not applied yet. One that is applied already cannot be treated otherwise any more: as in DM that is no refusal, but here
//! the answer says that nothing changes, and nothing is stored.

use serde::Serialize;

use super::recipe::{StoredRecipe, compile};
use super::{Supervisor, TaskKey, read};
use crate::config::SubtaskConfig;
use crate::error::{Code, Failure};
use crate::model::{BinlogPosition, Flavor};
use crate::pipeline::{Exception, Exceptions, Treatment, start_location};
use crate::task::{ParkReason, Stage, TaskHandle, TaskStatus};
use crate::transform::{DdlInput, DdlPlan};

/// What is to become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOp {
    /// It is left out.
    Skip,
    /// DDL takes its place.
    Replace,
    /// What was said of it is void.
    Revert,
    /// DDL runs before it.
    Inject,
    /// Nothing: what has been said is told.
    List,
}

/// binlog skip, replace, revert, inject, list.
#[derive(Debug, Clone)]
pub struct EventOrder {
    /// Which of them.
    pub op: EventOp,
    /// Task name.
    pub task: String,
    /// `file:offset`; empty for the event that the task failed at.
    pub place: String,
    /// For replace and inject.
    pub statements: Vec<String>,
}

/// DM's words without a code, or a failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EventRefusal {
    /// A text that tools match on.
    #[error("{0}")]
    Said(String),
    /// With code, class and remedy.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// An order as DM lists it: the request that made it.
#[derive(Serialize)]
struct Listed<'a> {
    op: u8,
    task: &'a str,
    #[serde(rename = "binlogPos")]
    place: String,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    sqls: &'a [String],
}

impl Supervisor {
    /// Does what is ordered about an event of a subtask; answers a text that is empty but for a list.
    pub async fn order_event(&self, source_id: &str, order: &EventOrder) -> Result<String, EventRefusal> {
        self.admit()?;
        let key: TaskKey = (source_id.to_owned(), order.task.clone());
        let found = read(&self.inner.tasks).get(&key).map(|entry| (entry.handle.clone(), entry.recipe.clone()));
        let Some((handle, recipe)) = found else {
            let text = format!("sub task with name {} not found", order.task);
            return Err(Failure::new(Code::SubTaskNotFound, text).into());
        };
        let status = handle.status();
        let at = place(source_id, order, &status)?;
        if order.op == EventOp::List {
            return Ok(list(&recipe, order, &at).await?);
        }
        if let Some(ddl) = &status.ddl {
            let text = "DDL was sent downstream, and whether it has run is not known yet";
            return Err(Failure::new(Code::NotSet, text)
                .cause(ddl.statement.clone())
                .workaround("Please `resume-task` first: its end is found out then.")
                .into());
        }
        let treatment = match order.op {
            EventOp::Revert => {
                if let Some(flushed) = &status.flushed {
                    // What is passed is forgotten, though perhaps not at this instant.
                    recipe.change_exceptions(|all| all.pass(&flushed.0.position)).await?;
                }
                if !recipe.change_exceptions(|all| all.revert(&at)).await? {
                    let text = format!("error operator not exist, position: {at}");
                    return Err(Failure::new(Code::NoException, text).into());
                }
                self.take_effect(&key, &handle).await?;
                return Ok(String::new());
            }
            EventOp::Replace => Treatment::Replace,
            EventOp::Inject => Treatment::Inject,
            EventOp::Skip | EventOp::List => Treatment::Skip,
        };
        if treatment != Treatment::Skip {
            check_statements(&recipe.subtask()?, recipe.flavor(), &order.statements)?;
        }
        if let Some(applied) = status.applied.as_ref().filter(|applied| applied.0.position > at) {
            let text = format!("the event at {at} is applied already: the task stands at {}", applied.0.position);
            tracing::warn!(task = %order.task, source = source_id, "{text}, so the order about it changes nothing");
            return Ok(format!(
                "nothing changes: {text}. The place of the event that it failed at is `startLocation` of the failure."
            ));
        }
        let exception = Exception {
            file: at.file.name().to_owned(),
            offset: at.offset,
            treatment,
            statements: if treatment == Treatment::Skip { Vec::new() } else { order.statements.clone() },
        };
        tracing::warn!(task = %order.task, source = source_id, %at, ?treatment, "an event is to be treated otherwise");
        let set = |all: &mut Exceptions| {
            all.set(exception);
            true
        };
        recipe.change_exceptions(set).await?;
        self.take_effect(&key, &handle).await?;
        Ok(String::new())
    }

    /// A task that failed tries again; one that runs begins anew at a boundary. Who paused it resumes it.
    async fn take_effect(&self, key: &TaskKey, handle: &TaskHandle) -> Result<(), Failure> {
        match handle.status().stage {
            Stage::Running => handle.renew().await,
            _ => {
                if let Ok(source) = self.source(&key.0) {
                    source.kick().await;
                }
                handle.unpark(&[ParkReason::Error]).await
            }
        }
    }

    /// Orders about events that the checkpoint has passed are forgotten.
    pub(super) async fn pass_exceptions(&self) {
        let tasks: Vec<_> = read(&self.inner.tasks)
            .values()
            .filter(|entry| entry.recipe.has_exceptions())
            .map(|entry| (entry.handle.clone(), entry.recipe.clone()))
            .collect();
        for (handle, recipe) in tasks {
            let Some(flushed) = handle.status().flushed else { continue };
            let position = flushed.0.position;
            // Where it cannot be stored it is tried again at the next look.
            let _ = recipe.change_exceptions(|all| all.pass(&position)).await;
        }
    }
}

async fn list(recipe: &StoredRecipe, order: &EventOrder, from: &BinlogPosition) -> Result<String, Failure> {
    let all = recipe.exceptions().await?;
    let listed = all.0.iter().filter_map(|one| {
        let position = one.position().filter(|position| position >= from)?;
        // DM's numbers.
        let op = match one.treatment {
            Treatment::Skip => 1,
            Treatment::Replace => 2,
            Treatment::Inject => 4,
        };
        Some(Listed { op, task: &order.task, place: position.to_string(), sqls: &one.statements })
    });
    let listed: Vec<_> = listed.collect();
    serde_json::to_string(&listed).map_err(|error| Failure::new(Code::NotSet, "list").cause(error.to_string()))
}

/// The event that is meant.
fn place(source_id: &str, order: &EventOrder, status: &TaskStatus) -> Result<BinlogPosition, EventRefusal> {
    if !order.place.is_empty() {
        let wrong = || {
            let text = format!("invalid --binlog-pos {} in handle-error operation", order.place);
            Failure::new(Code::BinlogPosition, text).workaround("Please give it as `mysql-bin.000003:3270`.")
        };
        let (file, offset) = order.place.rsplit_once(':').ok_or_else(wrong)?;
        let offset = offset.parse().map_err(|_| wrong())?;
        return Ok(BinlogPosition::parse(file, offset).map_err(|_| wrong())?);
    }
    let Some(failure) = status.failures.last() else {
        return Err(EventRefusal::Said(format!("source '{source_id}' has no error")));
    };
    let found = start_location(&failure.message);
    let is_statement = failure.message.contains(", origin SQL: [")
        || matches!(failure.known_code(), Some(Code::ParseDdl | Code::StatementFormat));
    match found {
        Some(at) if is_statement || matches!(order.op, EventOp::Inject | EventOp::List) => Ok(at),
        _ => Err(EventRefusal::Said(
            "only support to handle ddl error currently, see \
             https://docs.pingcap.com/tidb-data-migration/stable/error-handling for other errors"
                .to_owned(),
        )),
    }
}

/// Refuses what is no DDL, and what would have no effect.
fn check_statements(subtask: &SubtaskConfig, flavor: Flavor, statements: &[String]) -> Result<(), Failure> {
    let (_, transform) = compile(subtask, flavor)?;
    let refuse = |message: String| Err(Failure::new(Code::NotDdl, message));
    if statements.is_empty() {
        return refuse("no statement is given".to_owned());
    }
    for text in statements {
        let plan = |schema: &str| transform.statement(&DdlInput { schema, text, sql_mode: 0 });
        match plan("") {
            Ok(DdlPlan::Run(_)) => {}
            Ok(DdlPlan::Online(_)) => {
                return refuse("the statement has no effect downstream: an online DDL tool's table".to_owned());
            }
            Ok(DdlPlan::Skip { reason, .. }) => {
                return refuse(format!("the statement has no effect downstream: {reason}"));
            }
            Err(failure) if failure.known_code() == Some(Code::StatementFormat) => {
                return refuse("only support replace or inject with DDL currently".to_owned());
            }
            // With a schema it is understood: it lacks one.
            Err(_) if plan("a").is_ok() => {
                let text = format!("injected DDL {text} without schema name not valid");
                return Err(Failure::new(Code::NoSchemaName, text));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: Option<(&str, Code)>) -> TaskStatus {
        let failures = message.map(|(text, code)| Failure::new(code, text)).into_iter().collect();
        TaskStatus { failures, ..TaskStatus::new("t1", "mysql-01", Stage::Paused) }
    }

    fn order(op: EventOp, place: &str) -> EventOrder {
        EventOrder { op, task: "t1".to_owned(), place: place.to_owned(), statements: Vec::new() }
    }

    #[test]
    fn the_event_is_the_one_named_or_the_one_that_failed() {
        const DDL: &str = "startLocation: [position: (b.000003, 1234), gtid-set: ], endLocation: [position: (b.000003, \
                           1400), gtid-set: ], origin SQL: [alter table d.t add x int]: execute statement failed";
        const ROWS: &str = "startLocation: [position: (b.000003, 900), gtid-set: ], endLocation: [position: (b.000003, \
                            1000), gtid-set: ]: gen insert sqls failed";
        let skip = order(EventOp::Skip, "");
        let at = |order: &EventOrder, status: &TaskStatus| {
            place("mysql-01", order, status).map(|at| at.to_string()).map_err(|refusal| refusal.to_string())
        };
        let ddl = status(Some((DDL, Code::ExecuteFailed)));
        assert_eq!(at(&skip, &ddl).unwrap(), "(b.000003, 1234)");
        assert_eq!(at(&order(EventOp::Skip, "b.000009:77"), &ddl).unwrap(), "(b.000009, 77)");
        assert_eq!(at(&skip, &status(None)).unwrap_err(), "source 'mysql-01' has no error");
        let rows = status(Some((ROWS, Code::ColumnCount)));
        assert!(at(&skip, &rows).unwrap_err().starts_with("only support to handle ddl error currently"));
        assert_eq!(at(&order(EventOp::Inject, ""), &rows).unwrap(), "(b.000003, 900)");
        for code in [Code::ParseDdl, Code::StatementFormat] {
            assert_eq!(at(&skip, &status(Some((ROWS, code)))).unwrap(), "(b.000003, 900)");
        }
        for bad in ["b.000009", ":4", "b:4", "b.000009:x", "b.000009:-1"] {
            assert!(at(&order(EventOp::Skip, bad), &ddl).unwrap_err().contains(bad), "{bad}");
        }
    }
}
