//! Routes: the name of a table or schema on the target.
//!
//! Rules for tables beat rules for whole schemas; on the level that decides, more than one match is an error, because
//! DM makes no order among rules. What no rule matches keeps its name. Statements on a whole schema see schema rules only.

use crate::error::{Code, Failure};
use crate::model::{SourceTable, TableName, TargetTable};

use super::allow::problem;
use super::pattern::{Pattern, fold};
use super::rules::{RouteRule, Rules};

/// The compiled routes.
#[derive(Debug)]
pub(super) struct Router {
    routes: Vec<Route>,
    case_sensitive: bool,
}

#[derive(Debug)]
struct Route {
    schema: Pattern,
    /// None for a rule on whole schemas.
    table: Option<Pattern>,
    rule: RouteRule,
}

impl Router {
    /// Compiles the rules; what does not compile is left out and added to `problems`.
    pub fn new(rules: &Rules, problems: &mut Vec<Failure>) -> Router {
        let mut routes = Vec::with_capacity(rules.routes.len());
        for rule in &rules.routes {
            let mut compile = |text: &str| {
                Pattern::new(text, rules.case_sensitive).map_err(|error| problems.push(problem("routes", error))).ok()
            };
            let schema = compile(&rule.schema_pattern);
            let table = if rule.table_pattern.is_empty() { Some(None) } else { compile(&rule.table_pattern).map(Some) };
            if rule.target_schema.is_empty() {
                let what = format!("routes: the rule for {} has no target schema", described(rule));
                problems.push(Failure::new(Code::ConfigTask, what).workaround("Set `target-schema`."));
            }
            if let (Some(schema), Some(table)) = (schema, table) {
                routes.push(Route { schema, table, rule: rule.clone() });
            }
        }
        Router { routes, case_sensitive: rules.case_sensitive }
    }

    /// Where a table's rows and statements go.
    pub fn table(&self, source: &SourceTable) -> Result<TargetTable, Failure> {
        let name = fold(&source.0.table, self.case_sensitive);
        let wants = |route: &&Route| route.table.as_ref().is_some_and(|table| table.matches(&name));
        let rule = match self.only(&source.0.schema, source, wants)? {
            Some(rule) => Some(rule),
            None => self.only(&source.0.schema, source, |route| route.table.is_none())?,
        };
        Ok(TargetTable(match rule {
            None => source.0.clone(),
            Some(rule) if rule.target_table.is_empty() => {
                TableName::new(rule.target_schema.as_str(), source.0.table.clone())
            }
            Some(rule) => TableName::new(rule.target_schema.as_str(), rule.target_table.as_str()),
        }))
    }

    /// Where statements on a whole schema go.
    pub fn schema(&self, source: &str) -> Result<String, Failure> {
        let rule = self.only(source, format_args!("schema `{source}`"), |route| route.table.is_none())?;
        Ok(rule.map_or(source, |rule| rule.target_schema.as_str()).to_owned())
    }

    /// Whether some route may lead to the target.
    pub fn leads_to(&self, target: &TargetTable) -> bool {
        let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
        self.routes.iter().any(|route| {
            let rule = &route.rule;
            same(&rule.target_schema, &target.0.schema)
                && (rule.target_table.is_empty() || same(&rule.target_table, &target.0.table))
        })
    }

    /// The one rule among those of a level that matches.
    fn only(
        &self,
        schema: &str,
        whose: impl std::fmt::Display,
        of_level: impl Fn(&&Route) -> bool,
    ) -> Result<Option<&RouteRule>, Failure> {
        let schema = fold(schema, self.case_sensitive);
        let mut matching = self.routes.iter().filter(of_level).filter(|route| route.schema.matches(&schema));
        let first = matching.next();
        if let (Some(one), Some(another)) = (first, matching.next()) {
            let (one, another) = (described(&one.rule), described(&another.rule));
            return Err(Failure::new(
                Code::DuplicateRoute,
                format!("{whose} matches more than one route: {one} and {another}"),
            ));
        }
        Ok(first.map(|route| &route.rule))
    }
}

fn described(rule: &RouteRule) -> String {
    match rule.table_pattern.as_str() {
        "" => format!("`{}`", rule.schema_pattern),
        table => format!("`{}`.`{table}`", rule.schema_pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::testing;

    fn router(rules: &[[&str; 4]], case_sensitive: bool) -> (Router, Vec<Failure>) {
        let rules = Rules { routes: testing::routes(rules), case_sensitive, ..testing::rules() };
        let mut problems = Vec::new();
        (Router::new(&rules, &mut problems), problems)
    }

    #[test]
    fn levels() {
        let (router, problems) = router(
            &[
                ["shard_*", "", "merged", ""],
                ["shard_*", "t_*", "merged", "t"],
                ["shard_1", "keep", "other", ""],
                ["~^log\\d$", "", "logs", ""],
                ["twice*", "", "a", ""],
                ["*twice", "", "b", ""],
                ["shard_9", "t_9", "nine", "t"],
            ],
            false,
        );
        assert_eq!(problems, vec![]);
        let target = |schema: &str, table: &str| {
            router.table(&SourceTable(TableName::new(schema, table))).map(|target| target.to_string())
        };
        assert_eq!(target("shard_1", "t_1").unwrap(), "`merged`.`t`");
        assert_eq!(target("SHARD_1", "T_1").unwrap(), "`merged`.`t`");
        assert_eq!(target("shard_1", "u").unwrap(), "`merged`.`u`");
        assert_eq!(target("shard_1", "keep").unwrap(), "`other`.`keep`");
        assert_eq!(target("Own", "T").unwrap(), "`Own`.`T`");
        assert_eq!(target("log7", "t").unwrap(), "`logs`.`t`");
        for failure in [target("twice_twice", "t").unwrap_err(), target("shard_9", "t_9").unwrap_err()] {
            assert_eq!(failure.code, 40080);
            assert!(failure.message.contains(" and "), "{failure}");
            assert!(!failure.workaround.is_empty());
        }
        assert_eq!(router.schema("shard_9").unwrap(), "merged");
        assert_eq!(router.schema("own").unwrap(), "own");
        assert_eq!(router.schema("twice_twice").unwrap_err().code, 40080);
    }

    #[test]
    fn case_counts_where_it_is_asked_for() {
        let (router, _) = router(&[["Shop", "T", "s", "t"]], true);
        let target = |schema: &str, table: &str| router.table(&SourceTable(TableName::new(schema, table))).unwrap();
        assert_eq!(target("Shop", "T").to_string(), "`s`.`t`");
        assert_eq!(target("shop", "t").to_string(), "`shop`.`t`");
    }

    #[test]
    fn every_problem_is_reported() {
        let (_, problems) = router(&[["~(", "[]", "x", ""], ["", "", "x", ""], ["a", "", "", ""]], false);
        assert_eq!(problems.len(), 4);
        assert!(problems.iter().all(|failure| failure.code == 20003 && failure.message.starts_with("routes: ")));
    }
}
