//! `<task>_onlineddl`: what online DDL tools did to shadow tables that have not taken the real ones' places.
//!
//! A row is a shadow table. `ddls` holds JSON in DM's form, with fields of ours beside DM's, which a dm-worker passes over
//! when it reads and drops when it writes: where each statement stood, so that none is counted twice in a replay, and
//! what is known of earlier tables of the same name.

use serde::{Deserialize, Serialize};

use super::names::MetaTables;
use super::rows::SHADOW_LANE;
use crate::mysql::quote;

/// What was done to a shadow table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OnlineDdl {
    /// Schema of the real table.
    pub schema: String,
    /// Name of the real table.
    pub table: String,
    /// Statements in their order. A dm-worker leaves the text of one empty that a filter leaves out, and writes `null` for
    /// none.
    #[serde(default, deserialize_with = "list")]
    pub ddls: Vec<String>,
    /// Where they stood; `None` in a row that a dm-worker wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<OnlineDdlPlaces>,
    /// Earlier tables of the same name, the oldest first, as long as a replay may need them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<OnlineDdl>,
}

fn list<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Where in the source's binlog a shadow table was created, changed, and given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OnlineDdlPlaces {
    /// It was created; `None` where that was not seen.
    pub begun: Option<StatementPlace>,
    /// It took the real table's place, or was dropped.
    pub ended: Option<StatementPlace>,
    /// Of each statement, and the `sql_mode` bits that it was logged with.
    pub ddls: Vec<(StatementPlace, u64)>,
}

/// Where a statement's transaction begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatementPlace {
    /// Binlog file.
    pub file: String,
    /// Offset in it.
    pub pos: u64,
    /// GTID; empty without one.
    pub gtid: String,
}

impl MetaTables {
    fn online_ddl(&self) -> String {
        self.table("onlineddl")
    }

    /// Reads `ghost_schema, ghost_table, ddls` of this source.
    pub fn select_online_ddl(&self) -> String {
        let id = quote(self.source());
        format!("SELECT ghost_schema, ghost_table, COALESCE(ddls,'') FROM {} WHERE id={id}", self.online_ddl())
    }

    /// Writes a row, for the owner of `epoch` only: no row changed means fenced off.
    pub fn write_online_ddl(&self, epoch: u64, [schema, table]: [&str; 2], ddls: &str) -> String {
        let (schema, table, ddls) = (quote(schema), quote(table), quote(ddls));
        format!(
            "REPLACE INTO {} (id, ghost_schema, ghost_table, ddls) SELECT id, {schema}, {table}, {ddls} FROM {}",
            self.online_ddl(),
            self.owned_by(epoch)
        )
    }

    /// Removes a row, for the owner of `epoch` only.
    pub fn delete_online_ddl(&self, epoch: u64, [schema, table]: [&str; 2]) -> String {
        format!(
            "DELETE FROM {} WHERE id={} AND ghost_schema={} AND ghost_table={} AND EXISTS (SELECT 1 FROM {})",
            self.online_ddl(),
            quote(self.source()),
            quote(schema),
            quote(table),
            self.owned_by(epoch)
        )
    }

    /// The row that there is as long as nobody else has claimed the task.
    fn owned_by(&self, epoch: u64) -> String {
        format!("{} WHERE id={} AND lane={SHADOW_LANE} AND epoch={epoch}", self.lane(), quote(self.source()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_dm_worker_is_read_and_one_of_ours_is_one_of_its() {
        let theirs = r#"{"schema":"d","table":"t","ddls":["ALTER TABLE `d`.`_t_gho` ADD COLUMN `c` INT"]}"#;
        let read: OnlineDdl = serde_json::from_str(theirs).unwrap();
        assert_eq!((read.table.as_str(), read.ddls.len(), &read.agent), ("t", 1, &None));
        assert_eq!(serde_json::to_string(&read).unwrap(), theirs);
        let place = StatementPlace { file: "b.000001".into(), pos: 4, gtid: String::new() };
        let agent = OnlineDdlPlaces { begun: Some(place.clone()), ended: None, ddls: vec![(place, 7)] };
        let ours = OnlineDdl { agent: Some(agent), earlier: vec![read.clone()], ..read };
        let text = serde_json::to_string(&ours).unwrap();
        assert!(text.starts_with(theirs.strip_suffix('}').unwrap()), "{text}");
        assert_eq!(serde_json::from_str::<OnlineDdl>(&text).unwrap(), ours);
        for none in [r#"{"schema":"d","table":"t"}"#, r#"{"schema":"d","table":"t","ddls":null}"#] {
            assert_eq!(serde_json::from_str::<OnlineDdl>(none).unwrap().ddls, Vec::<String>::new());
        }
    }
}
