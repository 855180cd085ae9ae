//! What a task says about names, as plain values; the configuration is mapped to these.
//!
//! Nothing is checked here: [`Transform::new`](super::Transform::new) compiles the rules and reports every problem at
//! once.

use serde::{Deserialize, Serialize};

use crate::model::Flavor;

/// Everything that decides which tables are replicated and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Which schemas and tables are replicated at all.
    pub block_allow: BlockAllowRules,
    /// Under which names; an unmatched table keeps its own.
    pub routes: Vec<RouteRule>,
    /// Which events of them are left out.
    pub filters: Vec<FilterRule>,
    /// Which row changes are left out by what their rows hold.
    pub expressions: Vec<ExpressionRule>,
    /// Which of them belong to online DDL tools.
    pub online: OnlineDdlRules,
    /// Whether patterns and names are compared with regard to case.
    pub case_sensitive: bool,
    /// The schema that holds checkpoints; never replicated.
    pub meta_schema: String,
    /// The source's dialect, which decides what some comments mean.
    pub flavor: Flavor,
}

/// DM's `block-allow-list`. All names are patterns; a leading `~` makes one a Go regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockAllowRules {
    /// Where not empty, a schema must match one of these.
    pub do_dbs: Vec<String>,
    /// Where not empty, a table must match one of these: schema pattern, table pattern.
    pub do_tables: Vec<(String, String)>,
    /// Where `do_dbs` is empty, a schema must match none of these.
    pub ignore_dbs: Vec<String>,
    /// Where `do_tables` is empty, a table must match none of these.
    pub ignore_tables: Vec<(String, String)>,
}

/// One of DM's `routes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteRule {
    /// Which schemas.
    pub schema_pattern: String,
    /// Which tables in them; empty makes the rule one for whole schemas.
    pub table_pattern: String,
    /// Schema on the target.
    pub target_schema: String,
    /// Table on the target; empty keeps the name.
    pub target_table: String,
}

/// DM's `shadow-table-rules` and `trash-table-rules`: Go regular expressions with one group, the real table's name. Empty
/// where tables of that name are as any other (`online-ddl: false`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OnlineDdlRules {
    /// Tables that take the real one's place in the end.
    pub shadow: Vec<String>,
    /// Tables that are left behind, or help.
    pub trash: Vec<String>,
}

/// One of DM's event filters (`filters`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// Which schemas.
    pub schema_pattern: String,
    /// Which tables in them; empty makes the rule one for whole schemas and all that is in them.
    pub table_pattern: String,
    /// DM's names of events.
    pub events: Vec<String>,
    /// Go regular expressions on the text of statements.
    pub sql_pattern: Vec<String>,
    /// What is done.
    pub action: FilterAction,
}

/// What an event filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterAction {
    /// Leaves out what it names.
    Ignore,
    /// Leaves out what it does not name.
    Do,
    /// Stops the task at what it names.
    Error,
}

/// One of DM's expression filters: SQL that is true for row changes which are left out. Empty texts are not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpressionRule {
    /// Schema on the source.
    pub schema: String,
    /// Table on the source.
    pub table: String,
    /// On inserted rows.
    pub insert_value: String,
    /// On updated rows as they were.
    pub update_old_value: String,
    /// On updated rows as they are now.
    pub update_new_value: String,
    /// On deleted rows.
    pub delete_value: String,
}
