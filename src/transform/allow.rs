//! The block-allow list: which schemas and tables are replicated at all.
//!
//! A table passes when its schema passes and the table lists agree. Schema: `do-dbs` where it has entries, else not in
//! `ignore-dbs`. Table: `do-tables` where it has entries, else not in `ignore-tables`. System schemas and the meta schema
//! never pass, whatever the lists say. Statements on a whole schema ask [`AllowList::schema`].

use crate::error::{Code, Failure};

use super::pattern::{Pattern, PatternError, fold};
use super::rules::Rules;

/// Schemas of the servers themselves, and DM's former heartbeat; compared without regard to case.
const SYSTEM_SCHEMAS: &[&str] = &[
    "mysql",
    "information_schema",
    "performance_schema",
    "sys",
    "metrics_schema",
    "inspection_schema",
    "dm_heartbeat",
];

/// The compiled list.
#[derive(Debug)]
pub(super) struct AllowList {
    do_dbs: Vec<Pattern>,
    do_tables: Vec<(Pattern, Pattern)>,
    ignore_dbs: Vec<Pattern>,
    ignore_tables: Vec<(Pattern, Pattern)>,
    meta_schema: String,
    case_sensitive: bool,
    named: Vec<(String, Option<String>)>,
}

impl AllowList {
    /// Compiles the rules; what does not compile is left out and added to `problems`.
    pub fn new(rules: &Rules, problems: &mut Vec<Failure>) -> AllowList {
        let lists = &rules.block_allow;
        let mut compile = |list: &'static str, text: &str| {
            Pattern::new(text, rules.case_sensitive).map_err(|error| problems.push(problem(list, error))).ok()
        };
        let mut schemas = |list, texts: &[String]| texts.iter().filter_map(|text| compile(list, text)).collect();
        let do_dbs = schemas("do-dbs", &lists.do_dbs);
        let ignore_dbs = schemas("ignore-dbs", &lists.ignore_dbs);
        let mut tables = |list, texts: &[(String, String)]| {
            let both = |(schema, table): &(String, String)| Some((compile(list, schema)?, compile(list, table)?));
            texts.iter().filter_map(both).collect()
        };
        AllowList {
            do_dbs,
            ignore_dbs,
            do_tables: tables("do-tables", &lists.do_tables),
            ignore_tables: tables("ignore-tables", &lists.ignore_tables),
            meta_schema: fold(&rules.meta_schema, rules.case_sensitive).into_owned(),
            case_sensitive: rules.case_sensitive,
            named: named(rules),
        }
    }

    /// What is asked for by name: schemas, and tables in them.
    pub fn named(&self) -> &[(String, Option<String>)] {
        &self.named
    }

    /// Whether rows and statements of a table are replicated.
    pub fn table(&self, schema: &str, table: &str) -> bool {
        let (schema, table) = (fold(schema, self.case_sensitive), fold(table, self.case_sensitive));
        let listed = |list: &[(Pattern, Pattern)]| list.iter().any(|(s, t)| s.matches(&schema) && t.matches(&table));
        self.schema_passes(&schema)
            && match self.do_tables.as_slice() {
                [] => !listed(&self.ignore_tables),
                wanted => listed(wanted),
            }
    }

    /// Whether statements on a whole schema are replicated. Where only `do-tables` says what is wanted, a schema that
    /// appears there counts and no other does.
    pub fn schema(&self, schema: &str) -> bool {
        let schema = fold(schema, self.case_sensitive);
        self.schema_passes(&schema) && (!self.do_dbs.is_empty() || self.do_tables_name(&schema))
    }

    /// Whether any table of the schema could be replicated.
    pub fn some_table_in(&self, schema: &str) -> bool {
        let schema = fold(schema, self.case_sensitive);
        self.schema_passes(&schema) && self.do_tables_name(&schema)
    }

    fn schema_passes(&self, folded: &str) -> bool {
        let listed = |list: &[Pattern]| list.iter().any(|pattern| pattern.matches(folded));
        let own = SYSTEM_SCHEMAS.iter().any(|system| folded.eq_ignore_ascii_case(system)) || folded == self.meta_schema;
        !own && match self.do_dbs.as_slice() {
            [] => !listed(&self.ignore_dbs),
            wanted => listed(wanted),
        }
    }

    fn do_tables_name(&self, folded: &str) -> bool {
        self.do_tables.is_empty() || self.do_tables.iter().any(|(schema, _)| schema.matches(folded))
    }
}

/// A pattern's problem for an operator's eyes; `list` names the part of the configuration it stands in.
pub(super) fn problem(list: &str, error: PatternError) -> Failure {
    Failure::new(Code::ConfigTask, format!("{list}: {error}")).workaround(error.remedy)
}

/// What the lists of what is wanted ask for by a plain name.
fn named(rules: &Rules) -> Vec<(String, Option<String>)> {
    let plain = |text: &String| matches!(Pattern::new(text, true), Ok(Pattern::Literal(_)));
    let lists = &rules.block_allow;
    let schemas = lists.do_dbs.iter().filter(|schema| plain(schema)).map(|schema| (schema.clone(), None));
    let both = |(schema, table): &&(String, String)| plain(schema) && plain(table);
    let tables = lists.do_tables.iter().filter(both).map(|(schema, table)| (schema.clone(), Some(table.clone())));
    schemas.chain(tables).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::rules::BlockAllowRules;
    use crate::transform::testing::rules;
    use proptest::prelude::*;

    fn list(block_allow: BlockAllowRules, case_sensitive: bool) -> AllowList {
        let mut problems = Vec::new();
        let rules = Rules { block_allow, case_sensitive, ..rules() };
        let list = AllowList::new(&rules, &mut problems);
        assert_eq!(problems, vec![]);
        list
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn pairs(texts: &[(&str, &str)]) -> Vec<(String, String)> {
        texts.iter().map(|(schema, table)| ((*schema).to_owned(), (*table).to_owned())).collect()
    }

    #[test]
    fn system_and_meta_schemas_never_pass() {
        for list in [list(BlockAllowRules::default(), false), list(BlockAllowRules::default(), true)] {
            for schema in ["mysql", "MySQL", "sys", "information_schema", "INSPECTION_SCHEMA", "dm_meta"] {
                assert!(!list.table(schema, "t"), "{schema}");
                assert!(!list.schema(schema), "{schema}");
                assert!(!list.some_table_in(schema), "{schema}");
            }
            assert!(list.table("app", "t") && list.schema("app") && list.some_table_in("app"));
        }
        let everything = BlockAllowRules { do_dbs: names(&["*"]), ..Default::default() };
        assert!(!list(everything, false).table("mysql", "user"));
        assert!(!list(BlockAllowRules::default(), false).table("DM_META", "t"));
    }

    #[test]
    fn dms_cases() {
        let rules = |do_dbs: &[&str], ignore_dbs: &[&str], do_tables: &[_], ignore_tables: &[_]| BlockAllowRules {
            do_dbs: names(do_dbs),
            ignore_dbs: names(ignore_dbs),
            do_tables: pairs(do_tables),
            ignore_tables: pairs(ignore_tables),
        };
        for (rules, schema, table, expected) in [
            (rules(&["foo"], &["foo"], &[], &[]), "foo", "bar", true), // do-dbs silences ignore-dbs
            (rules(&["foo"], &["foo"], &[], &[]), "foo1", "bar", false),
            (rules(&[], &["foo1"], &[], &[]), "foo", "bar", true),
            (rules(&[], &["foo1"], &[], &[]), "foo1", "bar", false),
            (rules(&[], &[], &[("foo", "bar1")], &[]), "foo", "bar1", true),
            (rules(&[], &[], &[("foo", "bar1")], &[]), "foo", "bar", false),
            (rules(&[], &[], &[("foo", "bar1")], &[]), "fff", "bar1", false),
            (rules(&[], &[], &[("Foo", "bAr1")], &[]), "fOO", "BAR1", true),
            (rules(&[], &[], &[], &[("foo", "bar")]), "foo", "bar", false),
            (rules(&[], &[], &[], &[("foo", "bar")]), "foo", "bar1", true),
            (rules(&["~^foo"], &[], &[], &[("~^foo", "~^sbtest-\\d")]), "foo", "sbtest", true),
            (rules(&["~^foo"], &[], &[], &[("~^foo", "~^sbtest-\\d")]), "foo1", "sbtest-1", false),
            (rules(&["~^foo"], &[], &[], &[]), "fff", "bar", false),
            (rules(&[], &[], &[], &[("a?b?", "~f[0-9]")]), "abbd", "f1", false),
            (rules(&[], &[], &[], &[("a?b?", "~f[0-9]")]), "aaaa", "f2", true),
            (rules(&[], &[], &[], &[("~t[0-8]", "a??")]), "t1", "a01", false),
            (rules(&[], &[], &[], &[("~t[0-8]", "a??")]), "t9", "a02", true),
            (rules(&["a"], &[], &[("b", "t")], &[]), "b", "t", false), // both levels must agree
            (rules(&["b"], &[], &[("b", "t")], &[("b", "t")]), "b", "t", true), // do-tables silences ignore-tables
        ] {
            assert_eq!(list(rules.clone(), false).table(schema, table), expected, "{rules:?} {schema}.{table}");
        }
    }

    #[test]
    fn whole_schemas() {
        let tables_only = list(BlockAllowRules { do_tables: pairs(&[("foo", "bar")]), ..Default::default() }, false);
        assert!(tables_only.schema("foo"));
        assert!(!tables_only.schema("other"));
        let both =
            BlockAllowRules { do_dbs: names(&["f*"]), do_tables: pairs(&[("foo", "bar")]), ..Default::default() };
        let both = list(both, false);
        assert!(both.schema("fff") && !both.some_table_in("fff"));
        let blocked = list(BlockAllowRules { ignore_tables: pairs(&[("foo", "*")]), ..Default::default() }, false);
        assert!(blocked.schema("foo"));
    }

    #[test]
    fn every_problem_is_reported() {
        let block_allow = BlockAllowRules {
            do_dbs: names(&["~("]),
            ignore_tables: pairs(&[("a", ""), ("~[", "b")]),
            ..Default::default()
        };
        let rules = Rules { block_allow, ..rules() };
        let mut problems = Vec::new();
        AllowList::new(&rules, &mut problems);
        let places: Vec<_> = problems.iter().map(|failure| failure.message.split(':').next().unwrap()).collect();
        assert_eq!(places, ["do-dbs", "ignore-tables", "ignore-tables"]);
        assert!(problems.iter().all(|failure| failure.code == 20003 && !failure.workaround.is_empty()));
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(
            do_dbs in proptest::collection::vec("[ab]{1,2}", 0..3),
            ignore_dbs in proptest::collection::vec("[ab]{1,2}", 0..3),
            do_tables in proptest::collection::vec(("[ab]{1,2}", "[ab]{1,2}"), 0..3),
            ignore_tables in proptest::collection::vec(("[ab]{1,2}", "[ab]{1,2}"), 0..3),
            schema in "[ab]{1,2}",
            table in "[ab]{1,2}",
        ) {
            let rules = BlockAllowRules { do_dbs, do_tables, ignore_dbs, ignore_tables };
            let pair = (schema.clone(), table.clone());
            let mut expected = true;
            if !rules.do_dbs.is_empty() {
                expected &= rules.do_dbs.contains(&schema);
            }
            if !rules.ignore_dbs.is_empty() && rules.do_dbs.is_empty() {
                expected &= !rules.ignore_dbs.contains(&schema);
            }
            if !rules.do_tables.is_empty() {
                expected &= rules.do_tables.contains(&pair);
            } else {
                expected &= !rules.ignore_tables.contains(&pair);
            }
            let list = list(rules, true);
            prop_assert_eq!(list.table(&schema, &table), expected);
            prop_assert!(!expected || list.some_table_in(&schema));
        }
    }
}
