//! Tables and statements of a task's copy: who owns it, its tables, the marks of their chunks.
//!
//! `<task>_agent_snapshot` has a row for the copy itself ([`COPY_SLOT`]) and one for each writer, all with the owner's
//! epoch. `<task>_agent_snapshot_table` has the tables by number, `<task>_agent_snapshot_chunk` their marks. The witness is a
//! row in `<task>_loader_checkpoint`, a table that DM's loader had once and that a dm-master drops with the task's meta.

use super::names::MetaTables;
use crate::mysql::quote;

/// The slot of the copy's own row.
pub const COPY_SLOT: i32 = -1;

/// Number of the table that is being read again: its one mark says how far that is.
pub const AGAIN: u32 = u32::MAX;

/// One mark: a chunk that is there whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMark {
    /// Its number in the table; numbers grow with keys.
    pub seq: u64,
    /// The key that it begins behind, as the copy wrote it; `None` for the table's beginning.
    pub low: Option<String>,
    /// The key that it ends with; `None` for the table's end.
    pub high: Option<String>,
    /// Rows in it.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn text_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), quote)
}

impl MetaTables {
    fn copy(&self) -> String {
        self.table("agent_snapshot")
    }

    fn copy_tables(&self) -> String {
        self.table("agent_snapshot_table")
    }

    fn copy_chunks(&self) -> String {
        self.table("agent_snapshot_chunk")
    }

    fn witness(&self) -> String {
        self.table("loader_checkpoint")
    }

    fn id(&self) -> String {
        quote(self.source())
    }

    /// Statements that create what a copy needs and is missing; the schema first.
    pub fn create_copy(&self) -> Vec<String> {
        let stamp = "update_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP";
        let ours = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";
        vec![
            self.create_schema(),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    slot INT NOT NULL,
                    epoch BIGINT UNSIGNED NOT NULL,
                    moves BIGINT UNSIGNED NOT NULL DEFAULT 0,
                    state LONGTEXT NOT NULL,
                    {stamp},
                    PRIMARY KEY (id, slot)
                ) {ours}",
                self.copy()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    tbl INT UNSIGNED NOT NULL,
                    source_schema VARCHAR(128) NOT NULL,
                    source_table VARCHAR(128) NOT NULL,
                    state LONGTEXT NOT NULL,
                    {stamp},
                    PRIMARY KEY (id, tbl)
                ) {ours}",
                self.copy_tables()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    tbl INT UNSIGNED NOT NULL,
                    seq BIGINT UNSIGNED NOT NULL,
                    low LONGTEXT,
                    high LONGTEXT,
                    row_count BIGINT UNSIGNED NOT NULL,
                    byte_count BIGINT UNSIGNED NOT NULL,
                    PRIMARY KEY (id, tbl, seq)
                ) {ours}",
                self.copy_chunks()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id CHAR(32) NOT NULL,
                    filename VARCHAR(255) NOT NULL,
                    cp_schema VARCHAR(128) NOT NULL,
                    cp_table VARCHAR(128) NOT NULL,
                    `offset` BIGINT NOT NULL,
                    end_pos BIGINT NOT NULL,
                    create_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
                    {stamp},
                    UNIQUE KEY uk_id_f (id, filename)
                )",
                self.witness()
            ),
        ]
    }

    /// Reads engines of the copy's tables that have no transactions.
    pub fn select_loose_copy_engines(&self) -> String {
        self.loose_engines_of(&["agent_snapshot", "agent_snapshot_table", "agent_snapshot_chunk"])
    }

    /// Makes sure that these slots have rows, of no epoch yet.
    pub fn insert_slots(&self, slots: impl IntoIterator<Item = i32>) -> String {
        let id = self.id();
        let rows: Vec<String> = slots.into_iter().map(|slot| format!("({id}, {slot}, 0, '')")).collect();
        format!("INSERT IGNORE INTO {} (id, slot, epoch, state) VALUES {}", self.copy(), rows.join(","))
    }

    /// Reads all slots: `slot, epoch, state`. Locks them: whoever still writes is waited for.
    pub fn select_slots(&self) -> String {
        format!("SELECT slot, epoch, state FROM {} WHERE id={} ORDER BY slot FOR UPDATE", self.copy(), self.id())
    }

    /// Reads the copy's own row: `epoch, state`.
    pub fn read_copy(&self) -> String {
        format!("SELECT epoch, state FROM {} WHERE id={} AND slot={COPY_SLOT}", self.copy(), self.id())
    }

    /// Gives all slots to the owner of `epoch`.
    pub fn claim_slots(&self, epoch: u64) -> String {
        format!("UPDATE {} SET epoch={epoch}, moves=moves+1 WHERE id={}", self.copy(), self.id())
    }

    /// Moves a slot, for the owner of `epoch` only. No row matched means fenced off.
    pub fn move_slot(&self, slot: i32, epoch: u64) -> String {
        format!("UPDATE {} SET moves=moves+1 WHERE id={} AND slot={slot} AND epoch={epoch}", self.copy(), self.id())
    }

    /// Stores the copy's state, for the owner of `epoch` only; for everyone where it is `None`. No row matched means fenced
    /// off.
    pub fn write_copy(&self, epoch: Option<u64>, state: &str) -> String {
        let owner = epoch.map_or_else(String::new, |epoch| format!(" AND epoch={epoch}"));
        format!(
            "UPDATE {} SET moves=moves+1, state={} WHERE id={} AND slot={COPY_SLOT}{owner}",
            self.copy(),
            quote(state),
            self.id()
        )
    }

    /// Whether the task has other sources that write to this downstream: a row or none.
    pub fn select_other_sources(&self) -> [String; 2] {
        ["syncer_checkpoint", "agent_snapshot"]
            .map(|suffix| format!("SELECT 1 FROM {} WHERE id<>{} LIMIT 1", self.table(suffix), self.id()))
    }

    /// Forgets all tables and marks of the copy.
    pub fn delete_copied(&self) -> [String; 2] {
        [self.copy_tables(), self.copy_chunks()].map(|table| format!("DELETE FROM {table} WHERE id={}", self.id()))
    }

    /// Reads the witness: tokens.
    pub fn select_witness(&self) -> String {
        format!("SELECT filename FROM {} WHERE id={} AND end_pos=-1", self.witness(), self.id())
    }

    /// Puts `token` in the place of all witnesses.
    pub fn write_witness(&self, token: &str) -> [String; 2] {
        [
            format!("DELETE FROM {} WHERE id={} AND end_pos=-1", self.witness(), self.id()),
            format!(
                "INSERT INTO {} (id, filename, cp_schema, cp_table, `offset`, end_pos) VALUES ({}, {}, '', '', 0, -1)",
                self.witness(),
                self.id(),
                quote(token)
            ),
        ]
    }

    /// Reads the copy's tables: `tbl, source_schema, source_table, state`.
    pub fn select_copy_tables(&self) -> String {
        format!(
            "SELECT tbl, source_schema, source_table, state FROM {} WHERE id={} ORDER BY tbl",
            self.copy_tables(),
            self.id()
        )
    }

    /// Stores tables: number, schema, table, state.
    pub fn write_copy_tables<'a>(&self, tables: impl IntoIterator<Item = (u32, &'a str, &'a str, String)>) -> String {
        let id = self.id();
        let row = |(number, schema, table, state): (u32, &str, &str, String)| {
            format!("({id}, {number}, {}, {}, {})", quote(schema), quote(table), quote(&state))
        };
        let rows: Vec<String> = tables.into_iter().map(row).collect();
        format!(
            "REPLACE INTO {} (id, tbl, source_schema, source_table, state) VALUES {}",
            self.copy_tables(),
            rows.join(",")
        )
    }

    /// Reads all marks: `tbl, seq, low, high, row_count, byte_count`.
    pub fn select_chunks(&self) -> String {
        format!(
            "SELECT tbl, seq, low, high, row_count, byte_count FROM {} WHERE id={} ORDER BY tbl, seq",
            self.copy_chunks(),
            self.id()
        )
    }

    /// Reads the mark of the table that is being read again: `low, high, row_count`.
    pub fn select_again(&self) -> String {
        format!(
            "SELECT low, high, row_count FROM {} WHERE id={} AND tbl={AGAIN} AND high IS NOT NULL",
            self.copy_chunks(),
            self.id()
        )
    }

    /// Whether a mark is there: a row or none.
    pub fn select_chunk(&self, table: u32, seq: u64) -> String {
        format!("SELECT seq FROM {} WHERE id={} AND tbl={table} AND seq={seq}", self.copy_chunks(), self.id())
    }

    /// Writes marks of one table.
    pub fn write_chunks<'a>(&self, table: u32, marks: impl IntoIterator<Item = &'a ChunkMark>) -> String {
        let id = self.id();
        let row = |mark: &ChunkMark| {
            let ChunkMark { seq, low, high, rows, bytes } = mark;
            let [low, high] = [low, high].map(|key| text_or_null(key.as_deref()));
            format!("({id}, {table}, {seq}, {low}, {high}, {rows}, {bytes})")
        };
        let rows: Vec<String> = marks.into_iter().map(row).collect();
        format!(
            "REPLACE INTO {} (id, tbl, seq, low, high, row_count, byte_count) VALUES {}",
            self.copy_chunks(),
            rows.join(",")
        )
    }

    /// Forgets the marks of a table, those up to `seq` where it is given.
    pub fn delete_chunks(&self, table: u32, up_to: Option<u64>) -> String {
        let end = up_to.map_or_else(String::new, |seq| format!(" AND seq<={seq}"));
        format!("DELETE FROM {} WHERE id={} AND tbl={table}{end}", self.copy_chunks(), self.id())
    }
}
