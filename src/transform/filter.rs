//! Event filters: which row changes and statements of the tables that are wanted are left out, or stop the task.
//!
//! Rules are asked on the source's names, after the block-allow list and before routes, in DM's order: those for whole
//! schemas first, then those for tables, and among these as DM's tree of patterns is walked. Each asks for the event, then,
//! where it has patterns and there is a text, for the text; the first that decides does. `Ignore` and `Error` act on what
//! they name, `Do` leaves out what it does not name. What no rule decides is done.

mod order;
mod rule;

use order::Order;
pub(super) use rule::{Asked, Verdict};
use rule::{Rule, wrong};

use super::events::Event;
use super::pattern::{Pattern, fold};
use super::rules::{FilterRule, Rules};
use crate::error::{Code, Failure};
use crate::model::SourceTable;
use crate::row::ChangeKind;

/// The compiled rules.
#[derive(Debug)]
pub(super) struct EventFilter {
    /// In the order in which they are asked.
    rules: Vec<Rule>,
    case_sensitive: bool,
}

impl EventFilter {
    /// Compiles the rules; what does not compile is left out and added to `problems`.
    pub fn new(rules: &Rules, problems: &mut Vec<Failure>) -> EventFilter {
        let case_sensitive = rules.case_sensitive;
        let folded = |text: &str| fold(text, case_sensitive).into_owned();
        let name = |rule: &FilterRule| (folded(&rule.schema_pattern), folded(&rule.table_pattern));
        let mut compiled: Vec<(Order, Rule)> = Vec::with_capacity(rules.filters.len());
        let mut classes = Vec::new();
        for (index, rule) in rules.filters.iter().enumerate() {
            if rules.filters[..index].iter().any(|other| name(other) == name(rule)) {
                problems.push(wrong(rule, "another rule has the same patterns", "Make one rule of both."));
                continue;
            }
            let (schema, table) = name(rule);
            let order = Order::new(&schema, &table, &mut classes);
            if let Some(rule) = Rule::new(rule, case_sensitive, problems) {
                compiled.push((order, rule));
            }
        }
        compiled.sort_by(|(one, _), (other, _)| one.cmp(other));
        EventFilter { rules: compiled.into_iter().map(|(_, rule)| rule).collect(), case_sensitive }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What becomes of it.
    pub fn verdict(&self, asked: Asked<'_>) -> Verdict {
        if self.rules.is_empty() {
            return Verdict::Do;
        }
        let (schema, table) = (fold(asked.schema, self.case_sensitive), fold(asked.table, self.case_sensitive));
        let meant = |rule: &&Rule| {
            rule.schema.matches(&schema) && rule.table.as_ref().is_none_or(|pattern| pattern.matches(&table))
        };
        self.rules.iter().filter(meant).find_map(|rule| rule.verdict(asked)).unwrap_or(Verdict::Do)
    }

    /// What becomes of what is one of these events; `None` where that depends on which of them it is.
    pub fn verdict_of_any(&self, asked: Asked<'_>, events: &[Event]) -> Option<Verdict> {
        let mut verdicts = events.iter().map(|event| self.verdict(Asked { event: Some(*event), ..asked }));
        let first = verdicts.next()?;
        verdicts.all(|verdict| verdict == first).then_some(first)
    }

    /// What becomes of a table's row changes: inserts, updates, deletes.
    pub fn changes(&self, source: &SourceTable) -> [Verdict; 3] {
        [Event::Insert, Event::Update, Event::Delete].map(|event| {
            let (schema, table) = (&*source.0.schema, &*source.0.table);
            self.verdict(Asked { schema, table, event: Some(event), text: "" })
        })
    }

    /// Whether inserts or updates of some table that a rule is about could be left out: one that `concerns` says yes of by
    /// its patterns, which are names where they have no wildcard.
    pub fn leaves_some_out(&self, mut concerns: impl FnMut(Option<(&str, &str)>) -> bool) -> bool {
        self.rules.iter().any(|rule| {
            let leaves = |event| {
                let asked = Asked { schema: "", table: "", event: Some(event), text: "" };
                rule.verdict(asked) == Some(Verdict::Ignore)
            };
            let exact = match (&rule.schema, &rule.table) {
                (Pattern::Literal(schema), Some(Pattern::Literal(table))) => Some((schema.as_str(), table.as_str())),
                _ => None,
            };
            (leaves(Event::Insert) || leaves(Event::Update)) && concerns(exact)
        })
    }
}

/// The filters as a statement meets them: its whole text, which is what patterns are looked for in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filters<'a> {
    filter: &'a EventFilter,
    text: &'a str,
}

impl<'a> Filters<'a> {
    /// For a statement. As in DM, control characters around it do not count.
    pub fn new(filter: &'a EventFilter, text: &'a str) -> Self {
        Filters { filter, text: text.trim_matches(|c: char| c.is_ascii_control()) }
    }

    /// Whether it is run, as far as one table or schema is concerned.
    pub fn pass(&self, event: Event, schema: &str, table: &str) -> Result<bool, Failure> {
        self.pass_any(&[event], schema, table)
    }

    /// Whether what is one of these events is run, with regard to all of the tables.
    pub fn pass_all<'t>(
        &self,
        events: &[Event],
        tables: impl IntoIterator<Item = &'t SourceTable>,
    ) -> Result<bool, Failure> {
        for table in tables {
            if !self.pass_any(events, &table.0.schema, &table.0.table)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pass_any(&self, events: &[Event], schema: &str, table: &str) -> Result<bool, Failure> {
        let asked = Asked { schema, table, event: None, text: self.text };
        match self.filter.verdict_of_any(asked, events) {
            Some(Verdict::Do) => Ok(true),
            Some(Verdict::Ignore) => Ok(false),
            Some(Verdict::Error) => Err(forbidden(events.first().copied(), schema, table)),
            None => Err(undecided(events, schema, table)),
        }
    }

    /// Whether a statement is left out that is not understood, or cannot be run: patterns of rules for all schemas decide.
    pub fn leave_out_unread(&self) -> bool {
        let asked = Asked { schema: "", table: "", event: None, text: self.text };
        self.filter.verdict(asked) == Verdict::Ignore
    }
}

/// Where the verdict on a kind of change stands.
pub(super) fn place_of(kind: ChangeKind) -> (usize, Event) {
    match kind {
        ChangeKind::Insert => (0, Event::Insert),
        ChangeKind::Update => (1, Event::Update),
        ChangeKind::Delete => (2, Event::Delete),
    }
}

/// Why the task stops at an event that a rule forbids.
pub(super) fn forbidden(event: Option<Event>, schema: &str, table: &str) -> Failure {
    let event = event.map_or("", Event::name);
    Failure::new(Code::EventFilter, format!("event {event} on {}", quoted(schema, table))).workaround(
        "A filter of the task or the source forbids this. Please do it downstream by hand where it is wanted and use \
         `binlog skip`, or change the filter (update-task), then resume-task.",
    )
}

/// A column's new definition, where what it is to the filters depends on what it was.
fn undecided(events: &[Event], schema: &str, table: &str) -> Failure {
    let names: Vec<String> = events.iter().map(|event| format!("`{}`", event.name())).collect();
    let of = quoted(schema, table);
    let text = format!(
        "a column of {of} gets another definition; by what it was that is one of {}, and the filters treat these \
         differently",
        names.join(", ")
    );
    Failure::new(Code::EventFilter, text).workaround(
        "Please run the statement downstream by hand where it is wanted, then use `binlog skip`; or have the filter name \
         all of these events or none of them.",
    )
}

fn quoted(schema: &str, table: &str) -> String {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    if table.is_empty() { quoted(schema) } else { format!("{}.{}", quoted(schema), quoted(table)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;
    use crate::transform::FilterAction;
    use crate::transform::events::{EventWord, listed};
    use crate::transform::testing::{self, filter as rule};
    use proptest::prelude::*;

    fn compiled(filters: Vec<FilterRule>, case_sensitive: bool) -> (EventFilter, Vec<Failure>) {
        let rules = Rules { filters, case_sensitive, ..testing::rules() };
        let mut problems = Vec::new();
        (EventFilter::new(&rules, &mut problems), problems)
    }

    fn filter(filters: Vec<FilterRule>, case_sensitive: bool) -> EventFilter {
        let (filter, problems) = compiled(filters, case_sensitive);
        assert_eq!(problems, vec![]);
        filter
    }

    fn dms_rules() -> Vec<FilterRule> {
        let procedures = ["^DROP\\s+PROCEDURE", "^CREATE\\s+PROCEDURE"];
        vec![
            rule(
                ["Test_1_*", "abc*"],
                &["delete", "insert", "create index", "drop index", "drop view"],
                &procedures,
                FilterAction::Ignore,
            ),
            rule(["xxx_*", "abc_*"], &["all dml", "none ddl"], &[], FilterAction::Ignore),
            rule(["yyy_*", "abc_*"], &["ALL DML"], &[], FilterAction::Do),
            rule(["cdc", "t1"], &["rebase auto id"], &[], FilterAction::Ignore),
        ]
    }

    #[test]
    fn dms_cases() {
        use Event::{CreateIndex, Delete, DropView, Insert, RebaseAutoId, RenameTable, Update};
        use Verdict::{Do, Ignore};
        let cases = [
            ("test_1_a", "abc1", Some(Delete), "", Ignore),
            ("test_1_a", "abc1", Some(Insert), "", Ignore),
            ("test_1_a", "abc1", Some(Update), "", Do),
            ("test_1_a", "abc1", Some(CreateIndex), "", Ignore),
            ("test_1_a", "abc1", Some(RenameTable), "", Do),
            ("test_1_a", "abc1", None, "drop procedure abc", Ignore),
            ("test_1_a", "abc1", None, "create procedure abc", Ignore),
            ("test_1_a", "abc1", None, "create function abc", Do),
            ("xxx_1", "abc_1", None, "create function abc", Do),
            ("xxx_1", "abc_1", Some(Insert), "", Ignore),
            ("xxx_1", "abc_1", Some(CreateIndex), "", Do),
            ("yyy_1", "abc_1", Some(Insert), "", Do),
            ("yyy_1", "abc_1", Some(CreateIndex), "", Ignore),
            ("test_1_a", "abc1", Some(DropView), "", Ignore),
            ("cdc", "t1", Some(RebaseAutoId), "", Ignore),
            ("xxx_a", "", Some(Insert), "", Do),
        ];
        let (folding, exact) = (filter(dms_rules(), false), filter(dms_rules(), true));
        for (schema, table, event, text, expected) in cases {
            let asked = Asked { schema, table, event, text };
            assert_eq!(folding.verdict(asked), expected, "{asked:?}");
            let expected = if schema == "test_1_a" { Do } else { expected };
            assert_eq!(exact.verdict(asked), expected, "with case: {asked:?}");
        }
        // One more rule for the same tables: each may leave out.
        let mut more = dms_rules();
        more[0].events.clear();
        more.push(rule(["test_*", "ab*"], &["insert", "all ddl"], &["^DROP\\s+PROCEDURE"], FilterAction::Do));
        let more = filter(more, false);
        for (event, text, expected) in [
            (Some(Delete), "", Ignore),
            (Some(Insert), "", Do),
            (Some(Update), "", Ignore),
            (Some(RenameTable), "", Do),
            (None, "create function abc", Ignore),
        ] {
            let asked = Asked { schema: "test_1_a", table: "abc1", event, text };
            assert_eq!(more.verdict(asked), expected, "{asked:?}");
        }
    }

    #[test]
    fn a_star_means_every_table_and_none() {
        for patterns in [["*", ""], ["*", "*"]] {
            let filter = filter(vec![rule(patterns, &[], &["^FLUSH"], FilterAction::Ignore)], false);
            for (schema, table) in [("db", "tbl"), ("db", ""), ("", "tbl"), ("", "")] {
                let asked = Asked { schema, table, event: None, text: "FLUSH ENGINE LOGS" };
                assert_eq!(filter.verdict(asked), Verdict::Ignore, "{patterns:?} {asked:?}");
            }
        }
    }

    /// DM walks a tree: rules for schemas, then for tables; at each character `*`, `?`, classes, the character itself; an
    /// exact name before a `*` behind it.
    #[test]
    fn rules_are_asked_in_the_order_of_dms_tree() {
        let order = [
            ["*", ""],
            ["a?", ""],
            ["a[bc]", ""],
            ["ab", ""],
            ["ab*", ""],
            ["*", "*"],
            ["*", "?"],
            ["*", "t"],
            ["ab", "*"],
            ["ab", "t"],
            ["ab", "t*"],
            ["ab*", "t"],
        ];
        for (at, first) in order.iter().enumerate() {
            for second in &order[at + 1..] {
                for swapped in [false, true] {
                    let mut rules = vec![
                        rule(*first, &["insert"], &[], FilterAction::Error),
                        rule(*second, &["insert"], &[], FilterAction::Ignore),
                    ];
                    if swapped {
                        rules.reverse();
                    }
                    let changes = filter(rules, true).changes(&SourceTable(TableName::new("ab", "t")));
                    assert_eq!(changes, [Verdict::Error, Verdict::Do, Verdict::Do], "{first:?} {second:?}");
                }
            }
        }
    }

    #[test]
    fn every_problem_is_told() {
        let wrong = [
            (rule(["a", ""], &["insert", "inserts"], &[], FilterAction::Do), "event type inserts not valid"),
            (rule(["b", ""], &[], &["ok", "("], FilterAction::Do), "sql-pattern \"(\" is not"),
            (rule(["c*d", ""], &[], &[], FilterAction::Do), "`*` may only be its last character"),
            (rule(["e", "~^t"], &[], &[], FilterAction::Do), "no regular expressions"),
            (rule(["", "t"], &[], &[], FilterAction::Do), "it is empty"),
            (rule(["A", ""], &[], &[], FilterAction::Ignore), "another rule has the same patterns"),
        ];
        let (_, problems) = compiled(wrong.iter().map(|(rule, _)| rule.clone()).collect(), false);
        assert_eq!(problems.len(), wrong.len());
        for ((_, words), problem) in wrong.iter().zip(&problems) {
            assert!(problem.message.contains(words) && problem.code == 20037, "{problem}");
            assert!(problem.message.starts_with("generate binlog event filter") && !problem.workaround.is_empty());
        }
    }

    proptest! {
        /// Without a conflict of Ignore and Error the order says nothing: what any rule leaves out is left out.
        #[test]
        fn what_any_rule_leaves_out_is_left_out(
            drafts in prop::collection::vec(("[ab?]{1,2}\\*?", "([tu?]{1,2}\\*?)?", 0..4usize, any::<bool>()), 0..6),
            schema in "[ab]{1,2}", table in "[tu]{1,2}", event in 0..3usize,
        ) {
            let lists: [&[&str]; 4] = [&["insert"], &["all dml", "none"], &["none dml", "all"], &["delete", "update"]];
            let mut rules: Vec<FilterRule> = Vec::new();
            for (schema, table, list, ignores) in &drafts {
                let action = if *ignores { FilterAction::Ignore } else { FilterAction::Do };
                if !rules.iter().any(|known| known.schema_pattern == *schema && known.table_pattern == *table) {
                    rules.push(rule([schema, table], lists[*list], &[], action));
                }
            }
            let event = [Event::Insert, Event::Update, Event::Delete][event];
            let leaves_out = |one: &FilterRule| {
                let matches = |pattern: &str, name: &str| Pattern::new(pattern, true).unwrap().matches(name);
                let meant = matches(&one.schema_pattern, &schema)
                    && (one.table_pattern.is_empty() || matches(&one.table_pattern, &table));
                let words: Vec<EventWord> = one.events.iter().map(|word| EventWord::parse(word).unwrap()).collect();
                meant && listed(&words, event) == (one.action == FilterAction::Ignore)
            };
            let expected = if rules.iter().any(leaves_out) { Verdict::Ignore } else { Verdict::Do };
            let asked = Asked { schema: &schema, table: &table, event: Some(event), text: "" };
            prop_assert_eq!(filter(rules.clone(), true).verdict(asked), expected);
        }
    }
}
