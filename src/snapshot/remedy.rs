//! What to do about a table's rows that cannot be read or written. Whatever is marked is kept: the copy goes on behind it.

use super::plan::TablePlan;
use crate::error::{Code, Failure, Scope, server_number};

/// The failure with what to do about it, unless it says that already.
pub(super) fn with_remedy(failure: Failure, plan: &TablePlan) -> Failure {
    if !failure.workaround.is_empty() {
        return failure;
    }
    let upstream = failure.scope == Scope::Upstream.as_str();
    let (table, schema) = match upstream {
        true => (plan.source.to_string(), &plan.source.0.schema),
        false => (plan.target.to_string(), &plan.target.0.schema),
    };
    let schema = schema.replace('`', "``");
    let lost = matches!(failure.known_code(), Some(Code::InvalidConnection | Code::BadConnection | Code::DriverError));
    let what = match (server_number(&failure), upstream) {
        (None, _) if lost => {
            let server = if upstream { "the source" } else { "the downstream" };
            format!("look whether {server} can be reached; when it can, the copy goes on by itself")
        }
        (Some(1044 | 1142 | 1143), true) => format!("run `GRANT SELECT ON `{schema}`.* TO <user>` on the source"),
        (Some(1044 | 1142 | 1143), false) => {
            format!("run `GRANT SELECT, INSERT, UPDATE, DELETE ON `{schema}`.* TO <user>` downstream")
        }
        (_, true) => format!("look at {table} on the source, or leave it out by the block-allow-list"),
        (Some(1264 | 1265 | 1406 | 1690), _) => {
            format!(
                "make the column that the cause names as wide in {table} downstream as it is in {} on the source",
                plan.source
            )
        }
        (Some(1366 | 1292 | 1300 | 1411 | 3988), _) => format!(
            "give the column that the cause names the type and the character set in {table} downstream that it has in {} on the \
             source",
            plan.source
        ),
        (Some(1048 | 1364), _) => {
            format!(
                "let the column that the cause names be NULL in {table} downstream, or give it a default, as in {} on the source",
                plan.source
            )
        }
        (Some(1062 | 1586), _) => {
            format!(
                "remove the row from {table} downstream that is in the way, or the unique key that {} on the source does not have",
                plan.source
            )
        }
        (Some(3819 | 4025), _) => {
            format!(
                "drop the check that the cause names from {table} downstream, as {} on the source has none",
                plan.source
            )
        }
        (Some(1526 | 1748), _) => format!("give {table} partitions for all rows of {}", plan.source),
        (Some(1216 | 1452), _) => {
            format!("drop the foreign key from {table}, or take `foreign_key_checks` out of `session`")
        }
        (Some(1049 | 1054 | 1136 | 1146), _) => {
            format!(
                "give {table} the columns that it had when the copy began, or start the task anew with --remove-meta"
            )
        }
        (Some(1205), _) => format!("end whoever holds locks on {table}"),
        _ => format!("look at {table} downstream"),
    };
    failure.workaround(format!("Please {what}. What is marked is kept: after resume-task the copy goes on behind it."))
}

#[cfg(test)]
mod tests {
    use super::super::structure::Structure;
    use super::*;
    use crate::model::{SourceTable, TableName, TargetTable};

    fn remedy(scope: Scope, code: Code, cause: &str) -> String {
        let none = Structure::default();
        let (source, target) = (TableName::new("from", "t"), TableName::new("t`o", "u"));
        let plan = TablePlan::new(SourceTable(source), TargetTable(target), &none, &none).unwrap();
        with_remedy(Failure::new(code, "write rows").scope(scope).cause(cause), &plan).workaround
    }

    #[test]
    fn what_to_do_names_the_side_and_the_table() {
        let downstream = |cause| remedy(Scope::Downstream, Code::ExecuteFailed, cause);
        assert!(
            downstream("Error 1264 (22003): Out of range")
                .contains("as wide in `t``o`.`u` downstream as it is in `from`.`t` on")
        );
        assert!(downstream("Error 1142 (42000): denied").contains("DELETE ON `t``o`.*"));
        assert!(downstream("Error 4711 (HY000): odd").contains("look at `t``o`.`u` downstream"));
        let upstream = |code, cause| remedy(Scope::Upstream, code, cause);
        assert!(upstream(Code::QueryFailed, "Error 1142 (42000): denied").contains("GRANT SELECT ON `from`.*"));
        assert!(upstream(Code::InvalidConnection, "invalid connection").contains("the source can be reached"));
    }
}
