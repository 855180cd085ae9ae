//! What is replicated and under which name: block-allow list, event filters, routes, for rows and for DDL.
//!
//! [`Transform`] answers two questions and has no other state than a cache: where do rows of a table go, and what must be
//! run on the target for a statement of the source. Both go through the same list and the same routes, so that a table's
//! rows and its DDL can never disagree. All rules are compiled once; a rule that does not compile is an error at the
//! start of a task, never later.
//!
//! ```text
//! pattern ◄── regexp        names against `*`, `?`, `[..]`, `~expression`
//!    ▲
//! allow, filter, route      wanted? which of its events? which name?
//!    ▲
//! ddl: lex ─► parse ─► plan statements: spans of names ─► filtered, renamed, split
//! ```
//!
//! Event filters decide in `plan` of a statement, and in [`Transform::changes`] for rows. Expression filters need rows, and a
//! server: [`Transform::conditions`] only says what it is to be asked.

// A `Failure` is large, and made once before a task parks; boxing it would burden every caller for nothing.
#![allow(clippy::result_large_err)]

mod allow;
mod ddl;
mod events;
mod expression;
mod filter;
mod online;
mod parts;
mod pattern;
mod regexp;
mod route;
mod rules;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

pub use ddl::{
    ClauseCondition, ClausePart, CreateColumn, DdlInput, DdlKind, DdlPlan, OnlineStep, SessionCollations, TargetClause,
    TargetStatement, create_columns,
};
pub use expression::{Expression, ExpressionPart, RowCondition};
pub use rules::{BlockAllowRules, ExpressionRule, FilterAction, FilterRule, OnlineDdlRules, RouteRule, Rules};

use allow::AllowList;
use expression::RowFilter;
use filter::{EventFilter, Filters, Verdict};
use online::OnlineTables;
use route::Router;

use crate::error::Failure;
use crate::model::{Flavor, SourceTable, TableName, TargetTable};
use crate::row::ChangeKind;

/// Tables whose target is remembered. A source with more of them in use asks the rules again now and then.
const CACHED_TABLES: usize = 16_384;

/// A task's rules, compiled.
#[derive(Debug)]
pub struct Transform {
    allow: AllowList,
    router: Router,
    filter: EventFilter,
    /// No rules, for what filters are not asked about.
    no_filter: EventFilter,
    row_filter: RowFilter,
    online: OnlineTables,
    flavor: Flavor,
    known: RwLock<HashMap<SourceTable, Known>>,
}

/// What the rules say of a table.
#[derive(Debug, Clone)]
struct Known {
    target: Option<TargetTable>,
    /// What becomes of its inserts, updates and deletes.
    changes: [Verdict; 3],
}

impl Transform {
    /// Compiles the rules. On failure, every problem in them is reported, none only once the others are corrected.
    pub fn new(rules: &Rules) -> Result<Transform, Vec<Failure>> {
        let mut problems = Vec::new();
        let allow = AllowList::new(rules, &mut problems);
        let router = Router::new(rules, &mut problems);
        let filter = EventFilter::new(rules, &mut problems);
        let row_filter = RowFilter::new(rules, &mut problems);
        let online = OnlineTables::new(rules, &mut problems);
        if problems.is_empty() {
            let no_filter = EventFilter::new(&Rules { filters: Vec::new(), ..rules.clone() }, &mut problems);
            Ok(Transform {
                allow,
                router,
                filter,
                no_filter,
                row_filter,
                online,
                flavor: rules.flavor,
                known: RwLock::new(HashMap::new()),
            })
        } else {
            Err(problems)
        }
    }

    /// Where rows and statements of a table go; `None` where the block-allow list does not want them, or the table is an
    /// online DDL tool's. Fails where two routes claim the table. Cheap for a table that was asked for before.
    pub fn table(&self, source: &SourceTable) -> Result<Option<TargetTable>, Failure> {
        self.known(source, |known| known.target.clone())
    }

    /// Where statements on a whole schema go; `None` where the block-allow list does not want them.
    pub fn schema(&self, source: &str) -> Result<Option<String>, Failure> {
        self.allow.schema(source).then(|| self.router.schema(source)).transpose()
    }

    /// Schemas, and tables in them, that the block-allow list asks for by their names, not by a pattern.
    pub fn named(&self) -> &[(String, Option<String>)] {
        self.allow.named()
    }

    /// Whether changes of that kind of a wanted table are replicated; fails where a filter forbids them.
    pub fn changes(&self, source: &SourceTable, kind: ChangeKind) -> Result<bool, Failure> {
        // Asked for each rows event.
        if self.filter.is_empty() {
            return Ok(true);
        }
        let (place, event) = filter::place_of(kind);
        match self.known(source, |known| known.changes[place])? {
            Verdict::Do => Ok(true),
            Verdict::Ignore => Ok(false),
            Verdict::Error => Err(filter::forbidden(Some(event), &source.0.schema, &source.0.table)),
        }
    }

    /// What leaves single row changes of a wanted table out.
    pub fn conditions(&self, source: &SourceTable) -> &[RowCondition] {
        self.row_filter.of(source)
    }

    /// Whether a target's rows may lack some that are on the source because inserts or updates of a table that goes there
    /// are left out, so that a change may find no row. In doubt they may.
    pub fn is_selective(&self, source: &SourceTable, target: &TargetTable) -> bool {
        let same = |one: &TargetTable, other: &TargetTable| {
            one.0.to_string().to_lowercase() == other.0.to_string().to_lowercase()
        };
        let own = self.known(source, |known| known.changes[..2].contains(&Verdict::Ignore)).unwrap_or(true);
        // Another table may go to the same target.
        let leads_there = |other: &SourceTable| self.router.table(other).map_or(true, |other| same(&other, target));
        let by_rows = self.row_filter.tables().any(|other| other == source || leads_there(other));
        own || by_rows
            || self.filter.leaves_some_out(|named| match named {
                Some((schema, table)) => leads_there(&SourceTable(TableName::new(schema, table))),
                None => self.router.leads_to(target),
            })
    }

    fn known<T>(&self, source: &SourceTable, of: impl Fn(&Known) -> T) -> Result<T, Failure> {
        // A map of finished answers is whole at any instant, so that a panic elsewhere cannot have spoilt it.
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(source) {
            return Ok(of(known));
        }
        let wanted = self.online.is_real(&source.0.table) && self.allow.table(&source.0.schema, &source.0.table);
        let target = if wanted { Some(self.router.table(source)?) } else { None };
        let known = Known { target, changes: self.filter.changes(source) };
        let answer = of(&known);
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CACHED_TABLES {
            all.clear();
        }
        all.insert(source.clone(), known);
        Ok(answer)
    }

    /// What must be run on the target for a statement of the source.
    ///
    /// Fails with `ParseDdl` where the statement cannot be understood, with `StatementFormat` where it changes rows, and
    /// with `DuplicateRoute` where two routes claim one of its tables; except where all it can concern is certainly
    /// not replicated, or where a filter for all schemas leaves its text out: then it is skipped. Fails with `EventFilter`
    /// where a filter forbids it.
    pub fn statement(&self, input: &DdlInput<'_>) -> Result<DdlPlan, Failure> {
        let filters = Filters::new(&self.filter, input.text);
        match ddl::plan(self, input, filters, None) {
            Err(failure) if filters.leave_out_unread() => {
                let reason = format!("an event filter for all schemas leaves it out, although: {}", failure.message);
                Ok(DdlPlan::Skip { reason, filtered: Vec::new() })
            }
            planned => planned,
        }
    }

    /// The same for what is no event: a definition of what is to be copied. Filters are not asked.
    pub fn definition(&self, input: &DdlInput<'_>) -> Result<DdlPlan, Failure> {
        ddl::plan(self, input, Filters::new(&self.no_filter, input.text), None)
    }

    /// Whether tables of online DDL tools are treated as such.
    pub fn knows_tools(&self) -> bool {
        !self.online.is_off()
    }

    /// The same for a statement that an online DDL tool ran on the `shadow` of a table, to be run on the `real` one.
    pub fn of_shadow(
        &self,
        input: &DdlInput<'_>,
        shadow: &SourceTable,
        real: &SourceTable,
    ) -> Result<DdlPlan, Failure> {
        ddl::plan(self, input, Filters::new(&self.filter, input.text), Some((shadow, real)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            block_allow: BlockAllowRules { do_dbs: vec!["app".to_owned()], ..Default::default() },
            routes: testing::routes(&[["app", "t_*", "all", "t"]]),
            ..testing::rules()
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
        assert!(transform.known.read().unwrap().len() <= CACHED_TABLES);
    }

    #[test]
    fn a_target_is_selective_where_rows_of_it_may_be_missing() {
        let filter = |schema: &str, table: &str, event: &str| {
            testing::filter([schema, table], &[event], &[], FilterAction::Ignore)
        };
        let of = |filters: Vec<FilterRule>, name: &str| {
            let transform = Transform::new(&Rules { filters, ..rules() }).unwrap();
            let source = SourceTable(TableName::new("app", name));
            let target = transform.table(&source).unwrap().unwrap();
            transform.is_selective(&source, &target)
        };
        assert!(!of(vec![], "u"));
        assert!(of(vec![filter("app", "u", "insert")], "u") && of(vec![filter("app", "u", "update")], "u"));
        // What is not deleted is there all the more.
        assert!(!of(vec![filter("app", "u", "delete")], "u") && !of(vec![filter("app", "u", "drop table")], "u"));
        assert!(!of(vec![filter("app", "u", "insert")], "v"));
        // Two go to one target, and the rule is about the other.
        assert!(of(vec![filter("app", "t_2", "insert")], "t_1") && !of(vec![filter("app", "t_2", "insert")], "u"));
        assert!(of(vec![filter("app", "t_2*", "insert")], "t_1") && !of(vec![filter("app", "t_2*", "insert")], "u"));
    }

    #[test]
    fn problems_of_lists_routes_and_filters_come_together() {
        let mut rules = rules();
        rules.filters.push(testing::filter(["app", ""], &["nothing of the kind"], &[], FilterAction::Do));
        rules.block_allow.do_dbs.push("~(".to_owned());
        rules.routes.push(RouteRule::default());
        let problems = Transform::new(&rules).unwrap_err();
        assert_eq!(problems.len(), 4);
    }
}
