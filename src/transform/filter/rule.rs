//! One rule of an event filter: which events of which tables it concerns, and what it makes of them.

use regex::{Regex, RegexBuilder};

use crate::error::{Code, Failure};
use crate::transform::events::{Event, EventWord, listed};
use crate::transform::pattern::{Pattern, PatternError};
use crate::transform::regexp;
use crate::transform::rules::{FilterAction, FilterRule};

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transform) enum Verdict {
    Do,
    Ignore,
    Error,
}

/// What an event filter is asked about.
#[derive(Debug, Clone, Copy)]
pub(in crate::transform) struct Asked<'a> {
    pub schema: &'a str,
    /// Empty for a statement on a whole schema.
    pub table: &'a str,
    /// None for what was not understood.
    pub event: Option<Event>,
    /// A statement's text; empty for row changes.
    pub text: &'a str,
}

/// One compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub schema: Pattern,
    /// None for a rule on whole schemas.
    pub table: Option<Pattern>,
    events: Vec<EventWord>,
    text: Option<Regex>,
    action: FilterAction,
}

impl Rule {
    /// Compiles it; `None`, and why in `problems`, where it does not.
    pub(super) fn new(rule: &FilterRule, case_sensitive: bool, problems: &mut Vec<Failure>) -> Option<Rule> {
        let before = problems.len();
        let schema = compile(rule, &rule.schema_pattern, case_sensitive, problems);
        let table = match rule.table_pattern.as_str() {
            "" => None,
            pattern => compile(rule, pattern, case_sensitive, problems),
        };
        let mut events = Vec::with_capacity(rule.events.len());
        for name in &rule.events {
            match EventWord::parse(name) {
                Some(word) => events.push(word),
                None => problems.push(wrong(rule, &format!("event type {name} not valid"), EVENT_NAMES)),
            }
        }
        let text = match text_pattern(&rule.sql_pattern) {
            Ok(text) => text,
            Err((pattern, reason)) => {
                let what = format!("sql-pattern {pattern:?} is not a Go regular expression: {reason}");
                problems.push(wrong(rule, &what, "Correct it; look-around and back references do not exist there."));
                None
            }
        };
        let compiled = Rule { schema: schema?, table, events, text, action: rule.action };
        (problems.len() == before).then_some(compiled)
    }

    /// Its decision, if it makes one.
    pub(super) fn verdict(&self, asked: Asked<'_>) -> Option<Verdict> {
        let decide = |matched| match (self.action, matched) {
            (FilterAction::Ignore, true) | (FilterAction::Do, false) => Some(Verdict::Ignore),
            (FilterAction::Error, true) => Some(Verdict::Error),
            _ => None,
        };
        let by_event = asked.event.and_then(|event| decide(listed(&self.events, event)));
        by_event.or_else(|| {
            let text = self.text.as_ref().filter(|_| !asked.text.is_empty())?;
            decide(text.is_match(asked.text))
        })
    }
}

const EVENT_NAMES: &str =
    "Write a name of DM's, such as `all dml`, `insert`, `drop table`, `truncate table` or `incompatible ddl changes`.";

fn compile(rule: &FilterRule, text: &str, case_sensitive: bool, problems: &mut Vec<Failure>) -> Option<Pattern> {
    // DM's filters know no expressions, and take a run of characters at the end only.
    let refused = match text.find('*') {
        _ if text.starts_with('~') => Some("a filter's patterns have no regular expressions"),
        Some(at) if at + 1 < text.len() => Some("`*` may only be its last character"),
        _ => None,
    };
    if let Some(why) = refused {
        problems.push(wrong(rule, &format!("pattern `{text}`: {why}"), "Write one rule for each of the names."));
        return None;
    }
    let failed = |error: PatternError| problems.push(wrong(rule, &error.to_string(), error.remedy));
    Pattern::new(text, case_sensitive).map_err(failed).ok()
}

/// All patterns as one expression, which is found anywhere and without regard to case.
fn text_pattern(patterns: &[String]) -> Result<Option<Regex>, (String, String)> {
    let build = |expression: &str| RegexBuilder::new(expression).case_insensitive(true).octal(true).build();
    for pattern in patterns {
        build(&regexp::from_go(pattern)).map_err(|error| (pattern.clone(), regexp::reason(&error)))?;
    }
    if patterns.is_empty() {
        return Ok(None);
    }
    let all = patterns.iter().map(|pattern| regexp::from_go(pattern)).collect::<Vec<_>>().join("|");
    build(&all).map(Some).map_err(|error| (patterns.join("|"), regexp::reason(&error)))
}

pub(super) fn wrong(rule: &FilterRule, what: &str, remedy: &str) -> Failure {
    let of = match rule.table_pattern.as_str() {
        "" => format!("`{}`", rule.schema_pattern),
        table => format!("`{}`.`{table}`", rule.schema_pattern),
    };
    Failure::new(Code::FilterRules, format!("generate binlog event filter: the rule for {of}: {what}"))
        .workaround(remedy)
}
