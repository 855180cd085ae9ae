//! resync-table: one table of a task that follows the binlog is read again.
//!
//! What can be refused is refused before the order is stored: it stops what the task is at, and a table that is read in part
//! is not whole until it is read to its end.

use super::{Supervisor, read};
use crate::error::{Code, Failure};
use crate::model::{SourceTable, TableName};
use crate::pipeline::may_read_again;
use crate::task::{Recipe, follows};

/// resync-table.
#[derive(Debug, Clone)]
pub struct ResyncTable {
    /// Task name.
    pub task: String,
    /// Only on these sources; empty where the task has one.
    pub sources: Vec<String>,
    /// Schema on the source.
    pub schema: String,
    /// Table on the source.
    pub table: String,
}

impl Supervisor {
    /// Orders a table to be read again; answers when that is stored, with the source and what is to be known of it.
    pub async fn resync_table(&self, request: &ResyncTable) -> Result<(String, String), Failure> {
        self.admit()?;
        let found: Vec<_> = read(&self.inner.tasks)
            .iter()
            .filter(|((source, task), _)| {
                *task == request.task && (request.sources.is_empty() || request.sources.contains(source))
            })
            .map(|((source, _), entry)| (source.clone(), entry.handle.clone(), entry.recipe.clone()))
            .collect();
        let (source, handle, recipe) = match <[_; 1]>::try_from(found) {
            Ok([one]) => one,
            Err(none) if none.is_empty() => {
                let text = format!("sub task with name {} not found", request.task);
                return Err(Failure::new(Code::SubTaskNotFound, text));
            }
            Err(several) => {
                let names: Vec<&str> = several.iter().map(|(source, _, _)| source.as_str()).collect();
                let text = format!("task {} has the sources {}", request.task, names.join(", "));
                return Err(Failure::new(Code::ConfigTask, text)
                    .workaround("Please name the one that the table is on, with -s."));
            }
        };
        let status = handle.status();
        follows(status.stage, status.unit)?;
        let table = SourceTable(TableName::new(request.schema.as_str(), request.table.as_str()));
        let note = may_read_again(&recipe.pipeline().await?, &table).await?;
        handle.read_again(table).await?;
        Ok((source, note.unwrap_or_default()))
    }
}
