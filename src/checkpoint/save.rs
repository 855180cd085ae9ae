//! Moving the stored checkpoint on, at a point where all lanes are done up to one mark.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{Code, Failure, Scope, driver_failure};
use crate::meta::{DmRow, MetaTables, SafeNote, StoredMark};

/// Longest wait for one statement.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a checkpoint was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SaveError {
    /// The downstream refused or did not answer.
    #[error("{0}")]
    Failed(Failure),
    /// Another owner has raised the epoch.
    #[error("another agent has taken the task over")]
    Fenced,
}

/// Moves all lanes to `mark`, clears a DDL intent that it passes, and with `row` writes DM's row and its shadow; one
/// transaction. The caller guarantees that no lane is at work and that all are done up to `mark`.
pub async fn save(
    conn: &mut Conn,
    tables: &MetaTables,
    epoch: u64,
    mark: &StoredMark,
    clear_intent: bool,
    row: Option<&(DmRow, SafeNote)>,
) -> Result<(), SaveError> {
    run(conn, "BEGIN").await?;
    if run(conn, &tables.move_all_lanes(epoch, mark)).await? == 0 {
        run(conn, "ROLLBACK").await?;
        return Err(SaveError::Fenced);
    }
    if clear_intent {
        run(conn, &tables.delete_intent()).await?;
    }
    if let Some((row, note)) = row {
        for statement in tables.write_dm_row(row, *note, epoch) {
            run(conn, &statement).await?;
        }
    }
    run(conn, "COMMIT").await?;
    Ok(())
}

/// Takes the proof from the marks inside a transaction: what is done of it is not known.
pub async fn void(conn: &mut Conn, tables: &MetaTables, epoch: u64) -> Result<(), SaveError> {
    match run(conn, &tables.void_marks(epoch)).await? {
        0 => Err(SaveError::Fenced),
        _ => Ok(()),
    }
}

async fn run(conn: &mut Conn, sql: &str) -> Result<u64, SaveError> {
    let doing = "store the checkpoint";
    match tokio::time::timeout(LIMIT, conn.query_drop(sql)).await {
        Ok(Ok(())) => Ok(conn.affected_rows()),
        Ok(Err(error)) => Err(SaveError::Failed(driver_failure(&error, Code::Checkpoint, Scope::Downstream, doing))),
        Err(_) => {
            let failure = Failure::new(Code::InvalidConnection, format!("{doing}: no answer within 30 s"));
            Err(SaveError::Failed(failure.scope(Scope::Downstream)))
        }
    }
}
