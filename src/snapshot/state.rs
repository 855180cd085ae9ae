//! What of a copy is stored downstream: reading it, claiming it, moving it on.
//!
//! A claim raises the epoch of all slots in one transaction that waits for whoever still writes; what it reads there is
//! whole. Killed at any place, the next claim finds the state before or behind it.

use std::collections::HashMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::spec::{Replay, Standing};
use crate::downstream::limited;
use crate::error::{Code, Failure, Scope, driver_failure, server_error_code};
use crate::meta::{AGAIN, COPY_SLOT, ChunkMark, MetaTables, StoredMark};
use crate::model::{Flavor, Location, RowMark, SourceTable, TableName};

/// Unknown database, unknown table: nothing of ours is there.
const ABSENT: [u16; 2] = [1049, 1146];
/// No right to see or make it.
const DENIED: [u16; 5] = [1044, 1142, 1143, 1227, 1370];
/// The server wants a primary key in every table (`sql_require_primary_key`).
const NEEDS_PRIMARY_KEY: u16 = 3750;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// Structures are being read and made.
    Prepare,
    /// Tables are stored, rows are being copied.
    Copy,
    /// DM's row is written.
    Copied,
}

/// The copy's own row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopyState {
    /// Also in the witness.
    pub token: String,
    pub step: Step,
    /// L0.
    pub from: StoredMark,
    /// When the structures had been read.
    #[serde(default)]
    pub structures_at: Option<StoredMark>,
    /// Behind it.
    #[serde(default)]
    pub replay: Option<StoredReplay>,
}

/// [`Replay`] without what [`CopyState`] has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredReplay {
    pub until: StoredMark,
    /// Schema, table, location.
    pub starts: Vec<(String, String, StoredMark)>,
    pub stale: Vec<(String, String)>,
    #[serde(default)]
    pub ordered: Vec<(String, String)>,
    /// Earlier versions did not say.
    #[serde(default)]
    pub of_copy: bool,
}

/// One table of the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableState {
    /// Of the source's structure when the copy began.
    pub fingerprint: u64,
    /// Estimates of the source.
    pub rows: u64,
    pub bytes: u64,
    #[serde(default)]
    pub end: TableEnd,
}

/// How a table's copy ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TableEnd {
    /// It did not yet.
    #[default]
    Open,
    /// It is there whole.
    Done { rows: u64, bytes: u64, start: Option<StoredMark> },
    /// Its structure changed meanwhile.
    Stale { why: String },
}

/// A table and its marks, as they were stored.
#[derive(Debug)]
pub(super) struct StoredTable {
    pub number: u32,
    pub name: SourceTable,
    pub state: TableState,
    /// By number.
    pub marks: Vec<ChunkMark>,
}

/// What a claim found.
#[derive(Debug)]
pub(super) struct Claimed {
    pub epoch: u64,
    /// `None` where no copy counts.
    pub state: Option<CopyState>,
    /// DM's row is there.
    pub dm_row: bool,
}

pub(super) fn stored(location: &Location) -> StoredMark {
    StoredMark::from(&RowMark::at(location.clone()))
}

pub(super) fn location(mark: &StoredMark, flavor: Flavor) -> Result<Location, Failure> {
    let unreadable = |text| Failure::new(Code::Checkpoint, format!("read the state of the copy: {text}"));
    Ok(mark.to_mark(flavor).map_err(unreadable)?.location)
}

pub(super) fn failed(error: &mysql_async::Error) -> Failure {
    driver_failure(error, Code::Checkpoint, Scope::Downstream, "read and store the state of the copy")
}

fn is_one_of(error: &mysql_async::Error, codes: &[u16]) -> bool {
    server_error_code(error).is_some_and(|code| codes.contains(&code))
}

/// Whether there is a copy to do. Reads only, and only downstream.
pub async fn look(conn: &mut Conn, tables: &MetaTables, flavor: Flavor) -> Result<Standing, Failure> {
    let dm_row = unless_absent(limited(conn.query_first::<mysql_async::Row, _>(tables.read_dm_row())).await)?;
    let copy = unless_absent(limited(conn.query_first::<(u64, String), _>(tables.read_copy())).await)?;
    let tokens = unless_absent(limited(conn.query::<String, _>(tables.select_witness())).await.map(Some))?;
    let state = copy.and_then(|(_, text)| current(&text, &tokens.unwrap_or_default()));
    match (dm_row.is_some(), state) {
        (false, Some(state)) if state.step != Step::Copied => Ok(Standing::Copying(location(&state.from, flavor)?)),
        (false, _) => Ok(Standing::Fresh),
        (true, state) => {
            let replay = state.filter(|state| state.step == Step::Copied);
            Ok(Standing::Copied(replay.map(|state| to_replay(&state, flavor)).transpose()?.flatten()))
        }
    }
}

/// The answer; nothing where what is asked for is not there, or not for this account.
fn unless_absent<T>(answer: Result<Option<T>, mysql_async::Error>) -> Result<Option<T>, Failure> {
    match answer {
        Err(error) if is_one_of(&error, &ABSENT) || is_one_of(&error, &DENIED) => Ok(None),
        answer => answer.map_err(|error| failed(&error)),
    }
}

/// The state, if it reads and its witness is there. What does not read is of another version: that copy does not count.
fn current(text: &str, tokens: &[String]) -> Option<CopyState> {
    let state: CopyState = serde_json::from_str(text).ok()?;
    tokens.contains(&state.token).then_some(state)
}

fn to_replay(state: &CopyState, flavor: Flavor) -> Result<Option<Replay>, Failure> {
    let Some(replay) = &state.replay else { return Ok(None) };
    let source = |schema: &str, table: &str| SourceTable(TableName::new(schema, table));
    let starts = replay.starts.iter().map(|(schema, table, at)| Ok((source(schema, table), location(at, flavor)?)));
    Ok(Some(Replay {
        from: location(&state.from, flavor)?,
        structures_at: location(state.structures_at.as_ref().unwrap_or(&state.from), flavor)?,
        until: location(&replay.until, flavor)?,
        starts: starts.collect::<Result<_, Failure>>()?,
        stale: replay.stale.iter().map(|(schema, table)| source(schema, table)).collect(),
        ordered: replay.ordered.iter().map(|(schema, table)| source(schema, table)).collect(),
        of_copy: replay.of_copy,
    }))
}

pub(super) fn from_replay(replay: &Replay) -> StoredReplay {
    let names = |table: &SourceTable| (table.0.schema.to_string(), table.0.table.to_string());
    let start = |(table, at): &(SourceTable, Location)| {
        let (schema, table) = names(table);
        (schema, table, stored(at))
    };
    StoredReplay {
        until: stored(&replay.until),
        starts: replay.starts.iter().map(start).collect(),
        stale: replay.stale.iter().map(names).collect(),
        ordered: replay.ordered.iter().map(names).collect(),
        of_copy: replay.of_copy,
    }
}

pub(super) fn to_text(state: &impl Serialize) -> String {
    // Plain values with text keys: nothing in them can fail to become JSON.
    serde_json::to_string(state).unwrap_or_default()
}

/// Stores what of the replay is still to be done, as it changes: tables read again, a later `until`. `fence` is an UPDATE
/// that must match a row; false where it did not. `None` for the replay: it is over.
pub async fn record(
    conn: &mut Conn,
    tables: &MetaTables,
    replay: Option<&Replay>,
    fence: Option<&str>,
) -> Result<bool, Failure> {
    limited(conn.query_drop("BEGIN")).await.map_err(|error| failed(&error))?;
    let written = record_in_transaction(conn, tables, replay, fence).await;
    let end = if matches!(written, Ok(true)) { "COMMIT" } else { "ROLLBACK" };
    let ended = limited(conn.query_drop(end)).await;
    let written = written?;
    ended.map_err(|error| failed(&error))?;
    Ok(written)
}

/// Makes sure that [`open`] will find its tables, and may write them.
pub(super) async fn make_room(conn: &mut Conn, tables: &MetaTables) -> Result<(), Failure> {
    create(conn, tables).await?;
    limited(conn.query_drop(tables.insert_slots([COPY_SLOT]))).await.map_err(|error| unwritable(&error))
}

/// Stores what is left to be done where no copy was, or none is left: tables that are to be read again. `fence` is an UPDATE
/// that must match a row; false where it did not.
pub async fn open(conn: &mut Conn, tables: &MetaTables, replay: &Replay, fence: &str) -> Result<bool, Failure> {
    make_room(conn, tables).await?;
    let opened = open_in_transaction(conn, tables, replay, fence).await;
    if !matches!(opened, Ok(true)) {
        let _ = limited(conn.query_drop("ROLLBACK")).await;
    }
    opened.map_err(|error| unwritable(&error))
}

async fn open_in_transaction(
    conn: &mut Conn,
    tables: &MetaTables,
    replay: &Replay,
    fence: &str,
) -> Result<bool, mysql_async::Error> {
    limited(conn.query_drop("BEGIN")).await?;
    limited(conn.query_drop(fence)).await?;
    if conn.affected_rows() == 0 {
        return Ok(false);
    }
    let slots: Vec<(i32, u64, String)> = limited(conn.query(tables.select_slots())).await?;
    let tokens: Vec<String> = limited(conn.query(tables.select_witness())).await?;
    let own = slots.iter().find(|(slot, _, _)| *slot == COPY_SLOT);
    let before = own.and_then(|(_, _, text)| current(text, &tokens)).filter(|state| state.step == Step::Copied);
    let token = match before {
        Some(state) => state.token,
        None => {
            let token = Uuid::new_v4().to_string();
            for statement in tables.write_witness(&token) {
                limited(conn.query_drop(statement)).await?;
            }
            token
        }
    };
    let state = CopyState {
        token,
        step: Step::Copied,
        from: stored(&replay.from),
        structures_at: Some(stored(&replay.structures_at)),
        replay: Some(from_replay(replay)),
    };
    limited(conn.query_drop(tables.write_copy(None, &to_text(&state)))).await?;
    // A new order is one of the whole table.
    limited(conn.query_drop(tables.delete_chunks(AGAIN, None))).await?;
    limited(conn.query_drop("COMMIT")).await?;
    Ok(true)
}

async fn record_in_transaction(
    conn: &mut Conn,
    tables: &MetaTables,
    replay: Option<&Replay>,
    fence: Option<&str>,
) -> Result<bool, Failure> {
    if let Some(fence) = fence {
        limited(conn.query_drop(fence)).await.map_err(|error| failed(&error))?;
        if conn.affected_rows() == 0 {
            return Ok(false);
        }
    }
    let slots: Vec<(i32, u64, String)> =
        limited(conn.query(tables.select_slots())).await.map_err(|error| failed(&error))?;
    let own = slots.into_iter().find(|(slot, _, _)| *slot == COPY_SLOT);
    let Some((_, _, text)) = own else { return Ok(true) };
    let Ok(mut state) = serde_json::from_str::<CopyState>(&text) else { return Ok(true) };
    state.replay = replay.map(from_replay);
    // What was being read again has been, or is not wanted so any more.
    unless_absent(limited(conn.query_drop(tables.delete_chunks(AGAIN, None))).await.map(Some))?;
    if let Some(replay) = replay {
        state.structures_at = Some(stored(&replay.structures_at));
    }
    limited(conn.query_drop(tables.write_copy(None, &to_text(&state)))).await.map_err(|error| failed(&error))?;
    Ok(true)
}

/// Creates what is missing.
pub(super) async fn create(conn: &mut Conn, tables: &MetaTables) -> Result<(), Failure> {
    let mut statements = tables.create();
    statements.extend(tables.create_copy().into_iter().skip(1));
    for statement in statements {
        let mut made = limited(conn.query_drop(statement.as_str())).await;
        if made.as_ref().is_err_and(|error| is_one_of(error, &[NEEDS_PRIMARY_KEY])) {
            made = limited(conn.query_drop(MetaTables::with_primary_key(&statement))).await;
        }
        match made {
            // They may be there all the same: then the claim works.
            Err(error) if is_one_of(&error, &DENIED) => {
                tracing::warn!(%error, "a table of the copy's state cannot be created");
            }
            made => made.map_err(|error| failed(&error))?,
        }
    }
    let engine: Option<String> =
        limited(conn.query_first(tables.select_loose_copy_engines())).await.map_err(|error| failed(&error))?;
    match engine {
        None => Ok(()),
        Some(engine) => {
            let text = format!("the marks of the copy would be in a table of engine {engine}, without transactions");
            Err(Failure::new(Code::Checkpoint, text)
                .scope(Scope::Downstream)
                .workaround("Please drop the <task>_agent_snapshot… tables in the task's meta-schema, allow InnoDB, and resume-task."))
        }
    }
}

/// Takes the copy over, with `writers` slots.
pub(super) async fn claim(conn: &mut Conn, tables: &MetaTables, writers: usize) -> Result<Claimed, Failure> {
    claim_slots(conn, tables, writers).await.map_err(|error| unwritable(&error))
}

fn unwritable(error: &mysql_async::Error) -> Failure {
    let mut failure = failed(error);
    if is_one_of(error, &DENIED) || is_one_of(error, &ABSENT) {
        failure.workaround =
            "Please grant CREATE, SELECT, INSERT, UPDATE and DELETE on the task's meta-schema (dm_meta) \
                              downstream to the account of `target-database`, then resume-task."
                .to_owned();
    }
    failure
}

async fn claim_slots(conn: &mut Conn, tables: &MetaTables, writers: usize) -> Result<Claimed, mysql_async::Error> {
    let writers = i32::try_from(writers).unwrap_or(i32::MAX);
    limited(conn.query_drop(tables.insert_slots(COPY_SLOT..writers))).await?;
    limited(conn.query_drop("BEGIN")).await?;
    let slots: Vec<(i32, u64, String)> = limited(conn.query(tables.select_slots())).await?;
    let epoch = 1 + slots.iter().map(|(_, epoch, _)| *epoch).max().unwrap_or_default();
    limited(conn.query_drop(tables.claim_slots(epoch))).await?;
    let tokens: Vec<String> = limited(conn.query(tables.select_witness())).await?;
    let dm_row: Option<mysql_async::Row> = limited(conn.query_first(tables.read_dm_row())).await?;
    limited(conn.query_drop("COMMIT")).await?;
    let own = slots.iter().find(|(slot, _, _)| *slot == COPY_SLOT);
    let state = own.and_then(|(_, _, text)| current(text, &tokens));
    Ok(Claimed { epoch, state, dm_row: dm_row.is_some() })
}

/// Runs statements in one transaction that moves the copy's own slot. False where another owner has it.
pub(super) async fn store(
    conn: &mut Conn,
    tables: &MetaTables,
    epoch: u64,
    statements: &[String],
) -> Result<bool, Failure> {
    let stored = store_in_transaction(conn, tables, epoch, statements).await;
    if !matches!(stored, Ok(true)) {
        let _ = limited(conn.query_drop("ROLLBACK")).await;
    }
    stored.map_err(|error| failed(&error))
}

async fn store_in_transaction(
    conn: &mut Conn,
    tables: &MetaTables,
    epoch: u64,
    statements: &[String],
) -> Result<bool, mysql_async::Error> {
    limited(conn.query_drop("BEGIN")).await?;
    limited(conn.query_drop(tables.move_slot(COPY_SLOT, epoch))).await?;
    if conn.affected_rows() == 0 {
        return Ok(false);
    }
    for statement in statements {
        limited(conn.query_drop(statement.as_str())).await?;
    }
    limited(conn.query_drop("COMMIT")).await?;
    Ok(true)
}

/// Reads the tables of the copy with their marks.
pub(super) async fn load(conn: &mut Conn, tables: &MetaTables) -> Result<Vec<StoredTable>, Failure> {
    type Table = (u32, String, String, String);
    type Chunk = (u32, u64, Option<String>, Option<String>, u64, u64);
    let rows: Vec<Table> = limited(conn.query(tables.select_copy_tables())).await.map_err(|error| failed(&error))?;
    let chunks: Vec<Chunk> = limited(conn.query(tables.select_chunks())).await.map_err(|error| failed(&error))?;
    let mut marks: HashMap<u32, Vec<ChunkMark>> = HashMap::new();
    for (table, seq, low, high, rows, bytes) in chunks {
        marks.entry(table).or_default().push(ChunkMark { seq, low, high, rows, bytes });
    }
    let table = |(number, schema, table, text): Table| {
        let state = serde_json::from_str(&text).map_err(|error| {
            let text = format!("read the state of the copy: {schema}.{table}: {error}");
            Failure::new(Code::Checkpoint, text).workaround("Please start the task anew with --remove-meta.")
        })?;
        let marks = marks.remove(&number).unwrap_or_default();
        Ok(StoredTable { number, name: SourceTable(TableName::new(schema, table)), state, marks })
    };
    rows.into_iter().map(table).collect()
}
