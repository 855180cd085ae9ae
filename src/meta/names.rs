//! Table names, definitions and statements for one task and source.

use super::rows::{DdlIntent, DmRow, PROOF, SHADOW_LANE, SafeNote, StoredMark};
use crate::mysql::quote;

/// Longest name of a table, in characters.
const NAME_LIMIT: usize = 64;

/// The tables of one task, for one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaTables {
    schema: String,
    task: String,
    source: String,
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl MetaTables {
    /// For `task` and `source` in `schema` (DM's `meta-schema`).
    pub fn new(schema: &str, task: &str, source: &str) -> Self {
        MetaTables { schema: schema.into(), task: task.into(), source: source.into() }
    }

    /// What tells this task and source from all others on a downstream.
    pub fn identity(&self) -> String {
        format!("{}\0{}\0{}", self.schema, self.task, self.source)
    }

    pub(super) fn table(&self, suffix: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name(suffix)))
    }

    /// A table's name. A task's may be so long that its checkpoint table's just fits; the longest suffixes are those of a
    /// copy, which are shortened for such a task.
    fn name(&self, suffix: &str) -> String {
        let name = format!("{}_{suffix}", self.task);
        if name.chars().count() <= NAME_LIMIT {
            return name;
        }
        format!("{}_{}", self.task, suffix.replace("snapshot", "snap"))
    }

    /// Task name.
    pub fn task(&self) -> &str {
        &self.task
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn create_schema(&self) -> String {
        format!("CREATE DATABASE IF NOT EXISTS {}", identifier(&self.schema))
    }

    fn checkpoint(&self) -> String {
        self.table("syncer_checkpoint")
    }

    pub(super) fn lane(&self) -> String {
        self.table("agent_lane")
    }

    fn ddl(&self) -> String {
        self.table("agent_ddl")
    }

    fn mapping(&self) -> String {
        self.table("agent_mapping")
    }

    /// Statements that create what is missing.
    pub fn create(&self) -> Vec<String> {
        vec![
            self.create_schema(),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    cp_schema VARCHAR(128) NOT NULL,
                    cp_table VARCHAR(128) NOT NULL,
                    binlog_name VARCHAR(128),
                    binlog_pos INT UNSIGNED,
                    binlog_gtid TEXT,
                    exit_safe_binlog_name VARCHAR(128) DEFAULT '',
                    exit_safe_binlog_pos INT UNSIGNED DEFAULT 0,
                    exit_safe_binlog_gtid TEXT,
                    table_info JSON NOT NULL,
                    is_global BOOLEAN,
                    create_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
                    update_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
                    UNIQUE KEY uk_id_schema_table (id, cp_schema, cp_table)
                )",
                self.checkpoint()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    ghost_schema VARCHAR(128) NOT NULL,
                    ghost_table VARCHAR(128) NOT NULL,
                    ddls TEXT,
                    update_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
                    UNIQUE KEY uk_id_schema_table (id, ghost_schema, ghost_table)
                )",
                self.table("onlineddl")
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    lane INT NOT NULL,
                    lanes INT UNSIGNED NOT NULL,
                    epoch BIGINT UNSIGNED NOT NULL,
                    binlog_name VARCHAR(128) NOT NULL,
                    binlog_pos BIGINT UNSIGNED NOT NULL,
                    binlog_gtid LONGTEXT NOT NULL,
                    row_ordinal BIGINT UNSIGNED NOT NULL,
                    open_gtid VARCHAR(255) NOT NULL DEFAULT '',
                    update_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
                    PRIMARY KEY (id, lane)
                ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
                self.lane()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    epoch BIGINT UNSIGNED NOT NULL,
                    binlog_name VARCHAR(128) NOT NULL,
                    binlog_pos BIGINT UNSIGNED NOT NULL,
                    binlog_gtid LONGTEXT NOT NULL,
                    step INT UNSIGNED NOT NULL,
                    fingerprint LONGTEXT NOT NULL,
                    refused LONGTEXT,
                    statement LONGTEXT NOT NULL,
                    update_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
                    PRIMARY KEY (id)
                ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
                self.ddl()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (
                    id VARCHAR(32) NOT NULL,
                    epoch BIGINT UNSIGNED NOT NULL,
                    target_schema VARCHAR(128) NOT NULL,
                    target_table VARCHAR(128) NOT NULL,
                    mapping LONGTEXT NOT NULL,
                    update_time timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
                    PRIMARY KEY (id, epoch, target_schema, target_table)
                ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
                self.mapping()
            ),
        ]
    }

    /// A statement of [`Self::create`] with DM's unique key as the primary key, which serves DM as well, for servers that
    /// want one in every table.
    pub fn with_primary_key(statement: &str) -> String {
        let begin = statement.find("UNIQUE KEY ").unwrap_or(statement.len());
        let end = statement[begin..].find('(').map_or(begin, |at| begin + at);
        format!("{}PRIMARY KEY {}", &statement[..begin], &statement[end..])
    }

    /// A table that is made to try a statement on and dropped again; of this task and source alone.
    pub fn scratch(&self) -> String {
        let name = format!("agent_try_{:032x}", xxhash_rust::xxh3::xxh3_128(self.identity().as_bytes()));
        format!("{}.{}", identifier(&self.schema), identifier(&name))
    }

    /// Statements that succeed where our tables are there and can be read.
    pub fn probe(&self) -> [String; 4] {
        [self.lane(), self.ddl(), self.mapping(), self.checkpoint()]
            .map(|table| format!("SELECT id FROM {table} LIMIT 1"))
    }

    /// Reads engines of our own tables that have no transactions.
    pub fn select_loose_engines(&self) -> String {
        self.loose_engines_of(&["agent_lane", "agent_ddl", "agent_mapping"])
    }

    pub(super) fn loose_engines_of(&self, suffixes: &[&str]) -> String {
        let names: Vec<String> = suffixes.iter().map(|suffix| quote(&self.name(suffix))).collect();
        format!(
            "SELECT t.engine FROM information_schema.tables t JOIN information_schema.engines e ON e.engine=t.engine \
             WHERE table_schema={} AND table_name IN ({}) AND COALESCE(e.transactions,'NO')<>'YES'",
            quote(&self.schema),
            names.join(",")
        )
    }

    /// Columns that a table of an earlier version lacks: how to ask for one (a count), and how to add it.
    pub fn later_columns(&self) -> Vec<[String; 2]> {
        let ask = |suffix: &str, column: &str| {
            format!(
                "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema={} AND table_name={} AND \
                 column_name={}",
                quote(&self.schema),
                quote(&self.name(suffix)),
                quote(column)
            )
        };
        let open = "open_gtid VARCHAR(255) NOT NULL DEFAULT '' AFTER row_ordinal";
        let refused = "refused LONGTEXT AFTER fingerprint";
        vec![
            [ask("agent_lane", "open_gtid"), format!("ALTER TABLE {} ADD COLUMN {open}", self.lane())],
            [ask("agent_ddl", "refused"), format!("ALTER TABLE {} ADD COLUMN {refused}", self.ddl())],
        ]
    }

    /// Reads which changes the lanes of this epoch were given, and how: `target_schema, target_table, mapping`. The row
    /// with empty names is the task's own.
    pub fn select_mappings(&self, epoch: u64) -> String {
        format!(
            "SELECT target_schema, target_table, mapping FROM {} WHERE id={} AND epoch={epoch}",
            self.mapping(),
            quote(&self.source)
        )
    }

    /// Forgets the mappings of all epochs but this one.
    pub fn delete_mappings_but(&self, epoch: u64) -> String {
        format!("DELETE FROM {} WHERE id={} AND epoch<>{epoch}", self.mapping(), quote(&self.source))
    }

    /// Hands the mappings of one epoch to another.
    pub fn hand_on_mappings(&self, from: u64, to: u64) -> String {
        format!("UPDATE {} SET epoch={to} WHERE id={} AND epoch={from}", self.mapping(), quote(&self.source))
    }

    /// Stores a table's mapping, or with empty names the task's. Under its writer's epoch: what an agent that was replaced
    /// still writes is read by nobody.
    pub fn write_mapping(&self, epoch: u64, schema: &str, table: &str, mapping: &str) -> String {
        format!(
            "REPLACE INTO {} (id, epoch, target_schema, target_table, mapping) VALUES ({}, {epoch}, {}, {}, {})",
            self.mapping(),
            quote(&self.source),
            quote(schema),
            quote(table),
            quote(mapping)
        )
    }

    /// Makes sure that there is a row to lock for whoever claims the task.
    pub fn insert_shadow(&self) -> String {
        format!(
            "INSERT IGNORE INTO {} (id, lane, lanes, epoch, binlog_name, binlog_pos, binlog_gtid, row_ordinal) \
             VALUES ({}, {SHADOW_LANE}, 0, 0, '', 0, '', 0)",
            self.lane(),
            quote(&self.source)
        )
    }

    /// Removes DM's rows for single tables: their structures would be older than what we made of the tables, and a
    /// dm-worker reads them anew where there are none.
    pub fn delete_table_rows(&self) -> String {
        format!("DELETE FROM {} WHERE id={} AND is_global=0", self.checkpoint(), quote(&self.source))
    }

    /// For each table, statements that look whether it has anything of this source, and that forget it (`--remove-meta`).
    /// The tables stay: another source may use them.
    pub fn forget(&self) -> Vec<[String; 2]> {
        let id = quote(&self.source);
        let tables =
            ["syncer_checkpoint", "onlineddl", "loader_checkpoint", "agent_lane", "agent_ddl", "agent_mapping"];
        let copy = ["agent_snapshot_chunk", "agent_snapshot_table", "agent_snapshot"];
        tables
            .into_iter()
            .chain(copy)
            .map(|suffix| format!("FROM {} WHERE id={id}", self.table(suffix)))
            .map(|rest| [format!("SELECT id {rest} LIMIT 1"), format!("DELETE {rest}")])
            .collect()
    }

    /// Reads DM's global row: `binlog_name, binlog_pos, binlog_gtid, exit_safe_binlog_name, exit_safe_binlog_pos,
    /// exit_safe_binlog_gtid`. Locks it.
    pub fn select_dm_row(&self) -> String {
        format!(
            "SELECT COALESCE(binlog_name,''), COALESCE(binlog_pos,0), COALESCE(binlog_gtid,''), \
             COALESCE(exit_safe_binlog_name,''), COALESCE(exit_safe_binlog_pos,0), COALESCE(exit_safe_binlog_gtid,'') \
             FROM {} WHERE id={} AND is_global=1 AND cp_schema='' AND cp_table='' FOR UPDATE",
            self.checkpoint(),
            quote(&self.source)
        )
    }

    /// As [`Self::select_dm_row`] without locking, which needs fewer rights.
    pub fn read_dm_row(&self) -> String {
        self.select_dm_row().trim_end_matches(" FOR UPDATE").to_owned()
    }

    /// Reads all lane rows, the shadow first: `lane, lanes, epoch, binlog_name, binlog_pos, binlog_gtid, row_ordinal,
    /// open_gtid`. Locks them.
    pub fn select_lanes(&self) -> String {
        format!(
            "SELECT lane, lanes, epoch, binlog_name, binlog_pos, binlog_gtid, row_ordinal, open_gtid FROM {} WHERE id={} \
             ORDER BY lane FOR UPDATE",
            self.lane(),
            quote(&self.source)
        )
    }

    /// Reads one lane's row as [`Self::select_lanes`] does. Locks it: a transaction whose COMMIT is under way is waited for.
    pub fn select_lane(&self, lane: u32) -> String {
        format!(
            "SELECT lane, lanes, epoch, binlog_name, binlog_pos, binlog_gtid, row_ordinal, open_gtid FROM {} WHERE id={} \
             AND lane={lane} FOR UPDATE",
            self.lane(),
            quote(&self.source)
        )
    }

    /// Removes all lane rows but the shadow, whose epoch carries on.
    pub fn delete_lanes(&self) -> String {
        format!("DELETE FROM {} WHERE id={} AND lane>={}", self.lane(), quote(&self.source), SHADOW_LANE + 1)
    }

    /// Writes these lanes' rows, whatever stands there.
    pub fn upsert_lanes<'m>(
        &self,
        lanes: u32,
        epoch: u64,
        rows: impl IntoIterator<Item = (i32, &'m StoredMark)>,
    ) -> String {
        let source = quote(&self.source);
        let row = |(lane, mark): (i32, &StoredMark)| {
            format!(
                "({source}, {lane}, {lanes}, {epoch}, {}, {}, {}, {}, {})",
                quote(&mark.file),
                mark.offset,
                quote(&mark.gtids),
                mark.ordinal,
                quote(&mark.open)
            )
        };
        let rows: Vec<String> = rows.into_iter().map(row).collect();
        format!(
            "INSERT INTO {} (id, lane, lanes, epoch, binlog_name, binlog_pos, binlog_gtid, row_ordinal, open_gtid) VALUES \
             {} ON DUPLICATE KEY UPDATE lanes=VALUES(lanes), epoch=VALUES(epoch), binlog_name=VALUES(binlog_name), \
             binlog_pos=VALUES(binlog_pos), binlog_gtid=VALUES(binlog_gtid), row_ordinal=VALUES(row_ordinal), \
             open_gtid=VALUES(open_gtid)",
            self.lane(),
            rows.join(", ")
        )
    }

    /// Moves these lanes to `mark`, for the owner of `epoch` only. Fewer rows matched than lanes means fenced off.
    pub fn move_lanes(&self, lanes: &[u32], epoch: u64, mark: &StoredMark) -> String {
        let lanes: Vec<String> = lanes.iter().map(u32::to_string).collect();
        self.move_where(&format!("lane IN ({})", lanes.join(",")), epoch, mark)
    }

    /// Moves all lanes to `mark`, for the owner of `epoch` only. No row matched means fenced off.
    pub fn move_all_lanes(&self, epoch: u64, mark: &StoredMark) -> String {
        self.move_where(&format!("lane>{SHADOW_LANE}"), epoch, mark)
    }

    /// Takes the proof from every mark inside a transaction, for the owner of `epoch` only: what is done of it is then
    /// applied again in safe mode. No row matched means fenced off.
    pub fn void_marks(&self, epoch: u64) -> String {
        format!(
            "UPDATE {} SET open_gtid=SUBSTRING_INDEX(open_gtid,'{PROOF}',1) WHERE id={} AND lane>{SHADOW_LANE} AND \
             epoch={epoch}",
            self.lane(),
            quote(&self.source)
        )
    }

    fn move_where(&self, which: &str, epoch: u64, mark: &StoredMark) -> String {
        format!(
            "UPDATE {} SET binlog_name={}, binlog_pos={}, binlog_gtid={}, row_ordinal={}, open_gtid={} WHERE id={} AND \
             {which} AND epoch={epoch}",
            self.lane(),
            quote(&mark.file),
            mark.offset,
            quote(&mark.gtids),
            mark.ordinal,
            quote(&mark.open),
            quote(&self.source)
        )
    }

    /// Writes DM's global row and, for the same transaction, the shadow that repeats it.
    pub fn write_dm_row(&self, row: &DmRow, note: SafeNote, epoch: u64) -> [String; 2] {
        let (at, exit) = (&row.location, &row.exit_safe);
        let global = format!(
            "INSERT INTO {} (id, cp_schema, cp_table, binlog_name, binlog_pos, binlog_gtid, exit_safe_binlog_name, \
             exit_safe_binlog_pos, exit_safe_binlog_gtid, table_info, is_global) VALUES ({}, '', '', {}, {}, {}, {}, {}, {}, \
             'null', 1) ON DUPLICATE KEY UPDATE binlog_name=VALUES(binlog_name), binlog_pos=VALUES(binlog_pos), \
             binlog_gtid=VALUES(binlog_gtid), exit_safe_binlog_name=VALUES(exit_safe_binlog_name), \
             exit_safe_binlog_pos=VALUES(exit_safe_binlog_pos), exit_safe_binlog_gtid=VALUES(exit_safe_binlog_gtid), \
             is_global=VALUES(is_global)",
            self.checkpoint(),
            quote(&self.source),
            quote(&at.file),
            at.offset,
            quote(&at.gtids),
            quote(&exit.file),
            exit.offset,
            quote(&exit.gtids)
        );
        let shadow = StoredMark::boundary(note.as_str().to_owned(), 0, row.fingerprint());
        [global, self.upsert_lanes(0, epoch, [(SHADOW_LANE, &shadow)])]
    }

    /// Stores that a DDL statement is about to run, or was refused.
    pub fn write_intent(&self, epoch: u64, intent: &DdlIntent) -> String {
        let DdlIntent { mark, step, fingerprint, refused, statement } = intent;
        format!(
            "REPLACE INTO {} (id, epoch, binlog_name, binlog_pos, binlog_gtid, step, fingerprint, refused, statement) VALUES \
             ({}, {epoch}, {}, {}, {}, {step}, {}, {}, {})",
            self.ddl(),
            quote(&self.source),
            quote(&mark.file),
            mark.offset,
            quote(&mark.gtids),
            quote(fingerprint),
            refused.as_ref().map_or_else(|| "NULL".to_owned(), |text| quote(text)),
            quote(statement)
        )
    }

    /// Reads the intent, if any: `binlog_name, binlog_pos, binlog_gtid, step, fingerprint, refused, statement`.
    pub fn select_intent(&self) -> String {
        format!(
            "SELECT binlog_name, binlog_pos, binlog_gtid, step, fingerprint, refused, statement FROM {} WHERE id={}",
            self.ddl(),
            quote(&self.source)
        )
    }

    /// Clears the intent.
    pub fn delete_intent(&self) -> String {
        format!("DELETE FROM {} WHERE id={}", self.ddl(), quote(&self.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../tests/golden/meta/60-t3-gtid-just-started.txt");

    /// Column names of a table that a stock dm-worker made, as `SHOW CREATE TABLE` lists them.
    fn recorded_columns(table: &str) -> Vec<&'static str> {
        let begin = RECORDED.find(&format!("CREATE TABLE `{table}`")).expect("the table is recorded");
        let lines = RECORDED[begin..].lines().skip(1).take_while(|line| line.starts_with("  `"));
        lines.filter_map(|line| line.split('`').nth(1)).collect()
    }

    #[test]
    fn the_longest_name_of_a_task_leaves_room_for_every_table() {
        let task = "ü".repeat(NAME_LIMIT - "_syncer_checkpoint".len());
        let longest = MetaTables::new("dm_meta", &task, "s");
        let names: Vec<String> = longest.forget().iter().map(|[select, _]| select.clone()).collect();
        assert!(names.len() > 8);
        for statement in &names {
            let name = statement.split('`').nth(3).expect("a table is named");
            assert!(name.chars().count() <= NAME_LIMIT, "{name}");
        }
        let usual = MetaTables::new("dm_meta", "t", "s");
        assert!(usual.forget().iter().any(|[select, _]| select.contains("`t_agent_snapshot_table`")));
    }

    fn our_columns(create: &str) -> Vec<&str> {
        let inside = create.split_once('(').expect("a list").1;
        let lines = inside.lines().map(str::trim).filter(|line| !line.is_empty());
        let names = lines.map(|line| line.split(' ').next().unwrap_or_default());
        names.take_while(|name| *name != "UNIQUE").collect()
    }

    #[test]
    fn dms_tables_have_dms_columns() {
        let created = MetaTables::new("dm_meta", "t3", "mysql-02").create();
        for (table, suffix) in [("t3_syncer_checkpoint", "syncer_checkpoint"), ("t3_onlineddl", "onlineddl")] {
            let ours = created.iter().find(|sql| sql.contains(suffix)).expect("we make it");
            assert_eq!(our_columns(ours), recorded_columns(table), "{table}");
        }
    }

    #[test]
    fn dms_unique_key_can_be_the_primary_key() {
        let create = MetaTables::new("dm_meta", "t3", "mysql-02").create();
        let sql = MetaTables::with_primary_key(&create[1]);
        assert!(sql.contains("PRIMARY KEY (id, cp_schema, cp_table)") && !sql.contains("UNIQUE"), "{sql}");
    }

    #[test]
    fn names_with_quotes_stay_names() {
        let tables = MetaTables::new("a`b", "t`x", "it's");
        let sql = tables.select_dm_row();
        assert!(sql.contains("`a``b`.`t``x_syncer_checkpoint`") && sql.contains("id='it''s'"), "{sql}");
    }
}
