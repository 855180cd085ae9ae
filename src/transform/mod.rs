//! What is replicated and under which name: block-allow list, routes, for rows and for DDL.
//!
//! [`Transform`] answers two questions and has no other state than a cache: where do rows of a table go, and what must be
//! run on the target for a statement of the source. Both go through the same list and the same routes, so that a table's
//! rows and its DDL can never disagree. All rules are compiled once; a rule that does not compile is an error at the
//! start of a task, never later.
//!
//! ```text
//! pattern ◄── regexp        names against `*`, `?`, `[..]`, `~expression`
//!    ▲
//! allow, route              wanted? which name?
//!    ▲
//! ddl: lex ─► parse ─► plan statements: spans of names ─► filtered, renamed, split
//! ```
//!
//! Event filters decide between `parse` and `plan` of a statement and beside [`Transform::table`] for rows; expression
//! filters need rows, so they are a type of their own that the pipeline asks after it.

// A `Failure` is large, and made once before a task parks; boxing it would burden every caller for nothing.
#![allow(clippy::result_large_err)]

mod allow;
mod ddl;
mod pattern;
mod regexp;
mod route;
mod rules;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

pub use ddl::{
    ClauseCondition, ClausePart, CreateColumn, DdlInput, DdlKind, DdlPlan, TargetClause, TargetStatement,
    create_columns,
};
pub use rules::{BlockAllowRules, RouteRule, Rules};

use allow::AllowList;
use route::Router;

use crate::error::Failure;
use crate::model::{Flavor, SourceTable, TargetTable};

/// Tables whose target is remembered. A source with more of them in use asks the rules again now and then.
const CACHED_TABLES: usize = 16_384;

/// A task's rules, compiled.
#[derive(Debug)]
pub struct Transform {
    allow: AllowList,
    router: Router,
    flavor: Flavor,
    targets: RwLock<HashMap<SourceTable, Option<TargetTable>>>,
}

impl Transform {
    /// Compiles the rules. On failure, every problem in them is reported, none only once the others are corrected.
    pub fn new(rules: &Rules) -> Result<Transform, Vec<Failure>> {
        let mut problems = Vec::new();
        let allow = AllowList::new(rules, &mut problems);
        let router = Router::new(rules, &mut problems);
        if problems.is_empty() {
            Ok(Transform { allow, router, flavor: rules.flavor, targets: RwLock::new(HashMap::new()) })
        } else {
            Err(problems)
        }
    }

    /// Where rows and statements of a table go; `None` where the block-allow list does not want them. Fails where two
    /// routes claim the table. Cheap for a table that was asked for before.
    pub fn table(&self, source: &SourceTable) -> Result<Option<TargetTable>, Failure> {
        // A map of finished answers is whole at any instant, so that a panic elsewhere cannot have spoilt it.
        if let Some(known) = self.targets.read().unwrap_or_else(PoisonError::into_inner).get(source) {
            return Ok(known.clone());
        }
        let wanted = self.allow.table(&source.0.schema, &source.0.table);
        let target = if wanted { Some(self.router.table(source)?) } else { None };
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        if targets.len() >= CACHED_TABLES {
            targets.clear();
        }
        targets.insert(source.clone(), target.clone());
        Ok(target)
    }

    /// What must be run on the target for a statement of the source.
    ///
    /// Fails with `ParseDdl` where the statement cannot be understood, with `StatementFormat` where it changes rows, and
    /// with `DuplicateRoute` where two routes claim one of its tables; except where all it can concern is certainly
    /// not replicated: then it is skipped.
    pub fn statement(&self, input: &DdlInput<'_>) -> Result<DdlPlan, Failure> {
        ddl::plan(self, input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    fn rules() -> Rules {
        Rules {
            block_allow: BlockAllowRules { do_dbs: vec!["app".to_owned()], ..Default::default() },
            routes: vec![RouteRule {
                schema_pattern: "app".to_owned(),
                table_pattern: "t_*".to_owned(),
                target_schema: "all".to_owned(),
                target_table: "t".to_owned(),
            }],
            case_sensitive: false,
            meta_schema: "dm_meta".to_owned(),
            flavor: Flavor::MySql,
        }
    }

    #[test]
    fn answers_are_the_same_from_the_cache_which_stays_bounded() {
        let transform = Transform::new(&rules()).unwrap();
        let table = |schema: &str, table: &str| {
            transform.table(&SourceTable(TableName::new(schema, table))).unwrap().map(|target| target.to_string())
        };
        for number in 0..=CACHED_TABLES {
            assert_eq!(table("app", &format!("t_{number}")).as_deref(), Some("`all`.`t`"));
        }
        for _ in 0..2 {
            assert_eq!(table("app", "u").as_deref(), Some("`app`.`u`"));
            assert_eq!(table("other", "u"), None);
        }
        assert!(transform.targets.read().unwrap().len() <= CACHED_TABLES);
    }

    #[test]
    fn problems_of_lists_and_routes_come_together() {
        let mut rules = rules();
        rules.block_allow.do_dbs.push("~(".to_owned());
        rules.routes.push(RouteRule::default());
        let problems = Transform::new(&rules).unwrap_err();
        assert_eq!(problems.len(), 3);
    }
}
