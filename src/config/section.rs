//! Reading a tree into checked values, with a list of everything that is wrong with it.
//!
//! A [`Section`] is one table of a file with the keys that `keys.rs` gives it; what the file has besides is reported by
//! [`Section::finish`] with the nearest known key. Invariant: a value that does not fit gives one
//! problem that names the key, the value and the remedy, and reading goes on as if the key were not there. Values read
//! as secrets are never shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{Code, Failure};

use super::keys::{Tables, find};
use super::node::{Node, SyntaxError};
use super::units::{parse_duration, parse_size};
use crate::model::Secret;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `mysql-instances[0].meta.binlog-pos`; empty for the file as a whole.
    pub key: String,
    /// What is wrong with it, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.key, self.text) }
    }
}

/// Everything that is wrong with one file, in one message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Which file: `source configuration`.
    pub what: &'static str,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "{}: {problem}", self.what),
            problems => {
                write!(f, "{}: {} problems", self.what, problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl ConfigError {
    /// As it is shown to an operator.
    pub fn to_failure(&self, code: Code) -> Failure {
        Failure::new(code, self.to_string())
    }
}

/// Where problems are collected while one file is read.
#[derive(Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    unknown: RefCell<Vec<String>>,
    /// The tables that were looked into, by their full names.
    visited: RefCell<Vec<(String, Tables)>>,
    lenient: bool,
}

impl Report {
    /// For files of a user: unknown keys are problems.
    pub fn strict() -> Self {
        Report::default()
    }

    /// For what a master of another version wrote: unknown keys are only remembered.
    pub fn lenient() -> Self {
        Report { lenient: true, ..Report::default() }
    }

    pub fn add(&self, key: impl Into<String>, text: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { key: key.into(), text: text.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The unknown keys so far, by their full names.
    pub fn unknown(&self) -> Vec<String> {
        self.unknown.borrow().clone()
    }

    /// All problems, and among them the unknown keys by their full names.
    pub fn into_parts(self) -> (Vec<Problem>, Vec<String>) {
        (self.problems.into_inner(), self.unknown.into_inner())
    }

    /// The value if all went well. `None` stands for a required part that is missing, which has been reported.
    pub fn conclude<T>(self, what: &'static str, value: Option<T>) -> Result<T, ConfigError> {
        let mut problems = self.problems.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                if problems.is_empty() {
                    problems.push(Problem { key: String::new(), text: "it is not complete".into() });
                }
                Err(ConfigError { what, problems })
            }
        }
    }
}

/// The root table of a file; a file that cannot be read as one gives an empty table and a problem.
pub(super) fn root<'a>(tree: &'a Result<Node, SyntaxError>, tables: Tables, report: &'a Report) -> Section<'a> {
    let entries: &[(String, Node)] = match tree {
        Ok(Node::Table(entries)) => entries,
        Ok(Node::Null) => &[],
        Ok(other) => {
            report.add("", format!("the file must be a table of keys, not {}", other.kind()));
            &[]
        }
        Err(error) => {
            report.add("", error.to_string());
            &[]
        }
    };
    report.visited.borrow_mut().push((String::new(), tables));
    Section { path: String::new(), entries, tables, asked: RefCell::default(), report }
}

/// One table.
pub(super) struct Section<'a> {
    path: String,
    entries: &'a [(String, Node)],
    tables: Tables,
    asked: RefCell<Vec<&'static str>>,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// The full name of a key in here.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports something about a key in here.
    pub fn problem(&self, key: &str, text: impl Into<String>) {
        self.report.add(self.path_of(key), text);
    }

    /// Reports something about this table.
    pub fn own_problem(&self, text: impl Into<String>) {
        self.report.add(self.path.clone(), text);
    }

    /// The value as it stands; `None` if it is not there or empty.
    pub fn node(&self, key: &'static str) -> Option<&'a Node> {
        debug_assert!(find(self.tables, key).is_some(), "{} is not in keys.rs", self.path_of(key));
        self.asked.borrow_mut().push(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        (!matches!(node, Node::Null)).then_some(node)
    }

    /// Text; a whole number or a truth value counts as its text.
    pub fn text(&self, key: &'static str) -> Option<String> {
        let node = self.node(key)?;
        let text = plain_text(node);
        if text.is_none() {
            self.mistyped(key, node, "text", quoting_remedy(node));
        }
        text
    }

    /// Text that must be there and not be empty; `remedy` says what to give.
    pub fn required_text(&self, key: &'static str, remedy: &str) -> Option<String> {
        match self.node(key) {
            None => {
                self.problem(key, format!("is missing; {remedy}"));
                None
            }
            Some(_) => {
                let text = self.text(key)?;
                if text.is_empty() {
                    self.problem(key, format!("is empty; {remedy}"));
                }
                (!text.is_empty()).then_some(text)
            }
        }
    }

    /// A password or key. Its value is never shown.
    pub fn secret(&self, key: &'static str) -> Option<Secret> {
        let node = self.node(key)?;
        let text = plain_text(node);
        if text.is_none() {
            self.problem(key, format!("must be text, not {}; {}", node.kind(), quoting_remedy(node)));
        }
        text.map(Secret::new)
    }

    /// One of a few words, compared without case; empty counts as not there.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key).filter(|text| !text.is_empty())?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.problem(key, format!("{text:?} is not known; give {}", known.join(", ")));
        }
        found
    }

    /// `true` or `false`, and YAML 1.1's other words for them, which DM accepts too.
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match node {
            Node::Bool(value) => return Some(*value),
            Node::Text(text) if ["yes", "on", "true"].contains(&text.to_ascii_lowercase().as_str()) => {
                return Some(true);
            }
            Node::Text(text) if ["no", "off", "false"].contains(&text.to_ascii_lowercase().as_str()) => {
                return Some(false);
            }
            _ => self.mistyped(key, node, "true or false", "give `true` or `false`"),
        }
        None
    }

    /// A whole number in a range.
    pub fn int<T>(&self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + fmt::Display,
    {
        let node = self.node(key)?;
        let number = match node {
            Node::Int(number) => Some(*number),
            Node::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let value = number.and_then(|number| T::try_from(number).ok()).filter(|value| range.contains(value));
        if value.is_none() {
            let remedy = format!("give a number from {} to {}", range.start(), range.end());
            self.mistyped(key, node, "a whole number in range", &remedy);
        }
        value
    }

    /// Any number in a range.
    pub fn float(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.node(key)?;
        let number = match node {
            Node::Int(number) => Some(*number as f64),
            Node::Float(number) => Some(*number),
            Node::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let value = number.filter(|value| range.contains(value));
        if value.is_none() {
            let remedy = format!("give a number from {} to {}", range.start(), range.end());
            self.mistyped(key, node, "a number in range", &remedy);
        }
        value
    }

    /// A duration in Go's form.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        let text = self.text(key).filter(|text| !text.is_empty())?;
        let duration = parse_duration(&text);
        if duration.is_none() {
            self.problem(
                key,
                format!("{text:?} is not a duration; give a number with a unit, such as `30s` or `5m0s`"),
            );
        }
        duration
    }

    /// A size in bytes.
    pub fn size(&self, key: &'static str) -> Option<u64> {
        let text = self.text(key).filter(|text| !text.is_empty())?;
        let size = parse_size(&text);
        if size.is_none() {
            self.problem(key, format!("{text:?} is not a size; give a number with a unit, such as `64GiB`"));
        }
        size
    }

    /// A list of texts; a single text counts as a list of one.
    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let node = self.node(key)?;
        let Node::List(items) = node else {
            let single = plain_text(node);
            if single.is_none() {
                self.mistyped(key, node, "a list of texts", "write `[a, b]`");
            }
            return single.map(|text| if text.is_empty() { Vec::new() } else { vec![text] });
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match plain_text(item) {
                Some(text) => texts.push(text),
                None => self.mistyped(&format!("{key}[{index}]"), item, "text", quoting_remedy(item)),
            }
        }
        Some(texts)
    }

    /// Names and texts; numbers and truth values count as their text.
    pub fn text_map(&self, key: &'static str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (name, node) in self.table_entries(key).unwrap_or_default() {
            match node {
                Node::Float(number) => {
                    map.insert(name.clone(), number.to_string());
                }
                _ => match plain_text(node) {
                    Some(text) => {
                        map.insert(name.clone(), text);
                    }
                    None => self.mistyped(&format!("{key}.{name}"), node, "text", quoting_remedy(node)),
                },
            }
        }
        map
    }

    /// A table below this one.
    pub fn section(&self, key: &'static str, tables: Tables) -> Option<Section<'a>> {
        let entries = self.table_entries(key)?;
        Some(self.child(self.path_of(key), tables, entries))
    }

    /// A table that is not there, so that its defaults are read in the same way.
    pub fn empty_child(&self, key: &str, tables: Tables) -> Section<'a> {
        self.child(self.path_of(key), tables, &[])
    }

    /// A list of tables.
    pub fn sections(&self, key: &'static str, tables: Tables) -> Vec<Section<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Node::List(items) = node else {
            self.mistyped(key, node, "a list", "write one `- ` for each entry");
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            match item {
                Node::Table(entries) => sections.push(self.child(path, tables, entries)),
                other => self.report.add(path, format!("must be a table of keys, not {}", other.kind())),
            }
        }
        sections
    }

    /// Tables by name.
    pub fn named(&self, key: &'static str, tables: Tables) -> Vec<(String, Section<'a>)> {
        let mut named = Vec::new();
        for (name, node) in self.table_entries(key).unwrap_or_default() {
            let path = format!("{}.{name}", self.path_of(key));
            match node {
                Node::Table(entries) => named.push((name.clone(), self.child(path, tables, entries))),
                Node::Null => named.push((name.clone(), self.child(path, tables, &[]))),
                other => self.report.add(path, format!("must be a table of keys, not {}", other.kind())),
            }
        }
        named
    }

    /// Reports the keys that there are not. Call it when everything has been read.
    pub fn finish(self) {
        let known: Vec<&str> = self.tables.iter().flat_map(|table| table.iter()).map(|key| key.name).collect();
        if cfg!(debug_assertions) {
            let asked = self.asked.borrow();
            let dead: Vec<_> = known.iter().filter(|name| !asked.contains(name)).collect();
            assert!(dead.is_empty(), "in keys.rs and not read: {dead:?} of {:?}", self.path);
        }
        self.note_unknown();
        if self.report.lenient {
            return;
        }
        for name in self.unknown() {
            let remedy = match (self.elsewhere(name), nearest(name, &known)) {
                (Some(place), _) => format!("it belongs {place}"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => "remove it".to_owned(),
            };
            self.problem(name, format!("is not a known key; {remedy}"));
        }
    }

    /// Where a key that is none in here is one.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let visited = self.report.visited.borrow();
        let (path, _) = visited.iter().find(|(_, tables)| find(tables, name).is_some())?;
        Some(if path.is_empty() { "to the top level of the file".to_owned() } else { format!("in `{path}`") })
    }

    /// Remembers the keys that there are not, for a table of which only a part is read.
    pub fn note_unknown(&self) {
        self.report.unknown.borrow_mut().extend(self.unknown().map(|name| self.path_of(name)));
    }

    fn unknown(&self) -> impl Iterator<Item = &'a str> {
        let names = self.entries.iter().map(|(name, _)| name.as_str());
        names.filter(|name| find(self.tables, name).is_none())
    }

    fn table_entries(&self, key: &'static str) -> Option<&'a [(String, Node)]> {
        match self.node(key)? {
            Node::Table(entries) => Some(entries),
            other => {
                self.problem(key, format!("must be a table of keys, not {}", other.kind()));
                None
            }
        }
    }

    fn child(&self, path: String, tables: Tables, entries: &'a [(String, Node)]) -> Section<'a> {
        self.report.visited.borrow_mut().push((path.clone(), tables));
        Section { path, entries, tables, asked: RefCell::default(), report: self.report }
    }

    fn mistyped(&self, key: &str, node: &Node, wanted: &str, remedy: &str) {
        let value = match node {
            Node::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
            Node::Int(number) => number.to_string(),
            Node::Float(number) => number.to_string(),
            other => other.kind().to_owned(),
        };
        // A key may be read twice, for what it does and for how it is printed again.
        let known = |problem: &Problem| problem.key == self.path_of(key);
        if !self.report.problems.borrow().iter().any(known) {
            self.problem(key, format!("{value} is not {wanted}; {remedy}"));
        }
    }
}

fn plain_text(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(text.clone()),
        Node::Int(number) => Some(number.to_string()),
        Node::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn quoting_remedy(node: &Node) -> &'static str {
    match node {
        Node::Float(_) => "put it in quotes",
        _ => "give one value",
    }
}

/// The known key that a misspelt one was probably meant to be.
fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    nearest_name(&plain, known)
}

/// How many letters must be changed, added, left out, or swapped with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    let at = |rows: &[Vec<usize>], row: usize, column: usize| rows.get(row).and_then(|row| row.get(column)).copied();
    for (i, left_char) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, right_char) in right.iter().enumerate() {
            let changed = at(&rows, i, j).unwrap_or(0) + usize::from(left_char != right_char);
            let added = row.last().copied().unwrap_or(0) + 1;
            let left_out = at(&rows, i, j + 1).unwrap_or(0) + 1;
            let swapped =
                (i > 0 && j > 0 && left.get(i - 1) == Some(right_char) && right.get(j - 1) == Some(left_char))
                    .then(|| at(&rows, i - 1, j - 1).unwrap_or(0) + 1);
            row.push(changed.min(added).min(left_out).min(swapped.unwrap_or(usize::MAX)));
        }
        rows.push(row);
    }
    at(&rows, left.len(), right.len()).unwrap_or(0)
}

/// The known name that is spelt almost like this one.
pub(super) fn nearest_name<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
#[path = "section_tests.rs"]
mod tests;
