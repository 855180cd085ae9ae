//! A DDL statement to be run downstream: its text, what it may change, and when.

use super::introspect::Part;
use crate::downstream::DdlSession;
use crate::model::TargetTable;

/// One statement of a plan.
#[derive(Debug, Clone)]
pub struct DdlStep {
    /// The statement, all names qualified.
    pub sql: String,
    /// Its clauses, where some of them are only run if they are needed, and the downstream has no words for that; then
    /// `sql` is what stands before them.
    pub clauses: Vec<DdlClause>,
    /// Tables it may change; with an empty table name, a database.
    pub targets: Vec<TargetTable>,
    /// The session it ran in on the source.
    pub session: DdlSession,
    /// Why it must not be run where its tables hold rows: those would not become what they became on the source.
    pub unsafe_with_rows: Option<String>,
    /// It makes one change: where its effect is there, all of it is. A dm-worker runs several one after the other.
    pub one_change: bool,
    /// An operator ordered it: where it has no effect, that is told rather than passed over.
    pub ordered: bool,
}

impl DdlStep {
    /// Its text, for people.
    pub(super) fn shown(&self) -> String {
        let clauses: Vec<&str> = self.clauses.iter().map(|clause| clause.text.as_str()).collect();
        format!("{}{}", self.sql, clauses.join(", "))
    }
}

/// What must be there, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    /// It must be there.
    pub there: bool,
    /// What.
    pub part: Part,
    /// Its name.
    pub name: String,
}

/// One clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdlClause {
    /// Its text, without the condition.
    pub text: String,
    /// When it is run; `None` for always.
    pub only: Option<Only>,
}
