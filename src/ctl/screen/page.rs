//! A page of labelled lines, broken between words where a window is narrow.

use std::fmt::Write;

use crate::control::proto::agent::Failure;

/// A column for what a line is about.
const LABEL: usize = 13;

/// Where a window is narrower than this, lines are broken by the terminal.
const NARROWEST: usize = 40;

pub(super) struct Page {
    text: String,
    columns: Option<usize>,
}

impl Page {
    /// An empty one, for a window of so many columns.
    pub(super) fn new(columns: Option<usize>) -> Page {
        Page { text: String::new(), columns: columns.map(|columns| columns.max(NARROWEST)) }
    }

    /// What is on it, in at most so many lines.
    pub(super) fn text(self, lines: Option<usize>) -> String {
        match lines {
            Some(lines) => cut(&self.text, lines),
            None => self.text,
        }
    }

    pub(super) fn plain(&mut self, line: &str) {
        // An empty line before a heading is no part of it.
        let (before, line) = line.strip_prefix('\n').map_or(("", line), |line| ("\n", line));
        let lines = self.columns.map_or_else(|| vec![line.to_owned()], |columns| broken(line, columns));
        let _ = writeln!(self.text, "{before}{}", lines.join("\n  "));
    }

    pub(super) fn row(&mut self, label: &str, value: &str) {
        // Writing to a string cannot fail.
        let value = value.replace('\n', " ");
        let indent = LABEL + 3;
        let lines = match self.columns {
            Some(columns) => broken(&value, columns.saturating_sub(indent)),
            None => vec![value],
        };
        let _ = writeln!(self.text, "  {label:<LABEL$} {}", lines.join(&format!("\n{:indent$}", "")));
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        let (place, message) = placed(&failure.message).unwrap_or(("", &failure.message));
        self.row("FAILURE", &format!("{message} ({}, {})", failure.code, failure.class));
        if !place.is_empty() {
            self.row("  at", &place.replace(", ", ":"));
        }
        if !failure.raw_cause.is_empty() {
            self.row("  cause", &failure.raw_cause);
        }
        if !failure.workaround.is_empty() {
            self.row("  remedy", &failure.workaround);
        }
    }
}

/// A message in front of which stands where the event is, as DM writes it: the event's start, and what there is to say.
fn placed(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("startLocation: [position: ")?;
    let (start, rest) = rest.split_once(')')?;
    // No GTID set has such a bracket.
    let (_, rest) = rest.split_once("endLocation: [")?.1.split_once(']')?;
    Some((start.trim_start_matches('('), rest.trim_start_matches([':', ',', ' '])))
}

/// The first lines, and how many are left out.
fn cut(text: &str, lines: usize) -> String {
    let all = text.lines().count();
    // One for the cursor.
    let fit = lines.saturating_sub(1).max(1);
    if all <= fit {
        return text.to_owned();
    }
    let shown: Vec<&str> = text.lines().take(fit - 1).collect();
    format!("{}\n(and {} lines more: make the window higher)\n", shown.join("\n"), all - shown.len())
}

/// The text in lines of so many columns, broken between words where that is possible.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > columns {
            lines.push(String::new());
            used = 0;
        }
        while let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            let rest = word.split_off(word.len().min(columns.saturating_sub(used).max(1)));
            used += word.len();
            line.extend(word);
            if rest.is_empty() {
                break;
            }
            // Such as a GTID set that is longer than a line.
            word = rest;
            lines.push(String::new());
            used = 0;
        }
    }
    lines
}
