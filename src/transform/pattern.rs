//! Patterns over schema and table names, compiled once.
//!
//! `*` is any run of characters, `?` one character, `[a-z_]` one of a class and `[!a-z]` one not of it; a `[` that is
//! never closed stands for itself, as DM has it. A leading `~` makes the rest a Go regular expression, found anywhere in
//! the name. Matching takes at most pattern length times name length steps. Where case does not matter, patterns are
//! folded here and names by [`fold`], so that both sides are folded by the same rule.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::regexp;

/// A pattern that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}`: {problem}")]
pub(super) struct PatternError {
    /// The pattern as it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: &'static str,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Literal(String),
    Wildcard(Vec<Piece>),
    Expression(Regex),
}

/// One step of a wildcard pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    One(char),
    Any,
    Run,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A name as patterns see it.
pub(super) fn fold(name: &str, case_sensitive: bool) -> Cow<'_, str> {
    if case_sensitive { Cow::Borrowed(name) } else { Cow::Owned(name.to_lowercase()) }
}

impl Pattern {
    /// Compiles `text`.
    pub fn new(text: &str, case_sensitive: bool) -> Result<Pattern, PatternError> {
        let wrong = |problem: String, remedy| PatternError { pattern: text.to_owned(), problem, remedy };
        if text.is_empty() {
            return Err(wrong("it is empty".to_owned(), "Write `*` for every name, or remove the rule."));
        }
        if let Some(expression) = text.strip_prefix('~') {
            return RegexBuilder::new(&regexp::from_go(expression))
                .case_insensitive(!case_sensitive)
                .octal(true)
                .build()
                .map(Pattern::Expression)
                .map_err(|error| {
                    wrong(
                        format!("it is not a Go regular expression: {}", regexp::reason(&error)),
                        "Correct the expression behind `~`; look-around and back references do not exist in Go's \
                         syntax. Without `~` the pattern knows `*`, `?` and `[..]`.",
                    )
                });
        }
        let folded = fold(text, case_sensitive);
        if !folded.contains(['*', '?', '[']) {
            return Ok(Pattern::Literal(folded.into_owned()));
        }
        pieces(&folded)
            .map(Pattern::Wildcard)
            .map_err(|problem| wrong(problem, "A class lists characters or ascending ranges: `[0-9a-f_]`, `[!0-9]`."))
    }

    /// Whether `name`, folded by [`fold`], is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Literal(text) => text == name,
            Pattern::Wildcard(pieces) => wildcard_matches(pieces, name),
            Pattern::Expression(expression) => expression.is_match(name),
        }
    }
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Piece::One(own) => *own == c,
            Piece::Any => true,
            Piece::Run => false,
            Piece::Class { negated, ranges } => ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated,
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        found.push(match c {
            '*' => Piece::Run,
            '?' => Piece::Any,
            '[' => match rest.as_str().split_once(']') {
                Some((inner, behind)) => {
                    rest = behind.chars();
                    class(inner)?
                }
                None => Piece::One('['),
            },
            other => Piece::One(other),
        });
    }
    Ok(found)
}

/// The class between `[` and `]`.
fn class(inner: &str) -> Result<Piece, String> {
    // DM reads `[!]` as a class of the exclamation mark.
    let (negated, members) = match inner.strip_prefix('!') {
        Some("") => (false, "!"),
        Some(members) => (true, members),
        None => (false, inner),
    };
    if members.is_empty() {
        return Err("the class `[]` is empty, so nothing can match".to_owned());
    }
    let members: Vec<char> = members.chars().collect();
    let mut ranges = Vec::new();
    let mut rest = members.as_slice();
    loop {
        rest = match rest {
            [] => return Ok(Piece::Class { negated, ranges }),
            [low, '-', high, behind @ ..] => {
                if low > high {
                    return Err(format!("the range `{low}-{high}` runs backwards, so nothing can match"));
                }
                ranges.push((*low, *high));
                behind
            }
            [one, behind @ ..] => {
                ranges.push((*one, *one));
                behind
            }
        };
    }
}

/// Greedy matching that on a mismatch lets the latest run take one character more.
fn wildcard_matches(pieces: &[Piece], name: &str) -> bool {
    let mut rest = name.chars();
    let mut at = 0;
    let mut latest_run: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        if let Some(Piece::Run) = pieces.get(at) {
            at += 1;
            latest_run = Some((at, rest.clone()));
            continue;
        }
        match (pieces.get(at), rest.next()) {
            (None, None) => return true,
            (Some(piece), Some(c)) if piece.takes(c) => at += 1,
            _ => {
                let Some((after_run, mut from)) = latest_run.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                latest_run = Some((after_run, from.clone()));
                at = after_run;
                rest = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern, false).unwrap().matches(&fold(name, false))
    }

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("test", "test", true),
            ("test", "TEST", true),
            ("test", "test1", false),
            ("test*", "test", true),
            ("test*", "test_1", true),
            ("*_log", "a_b_log", true),
            ("*_log", "a_log_b", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c2b3", false),
            ("t?", "t1", true),
            ("t?", "t", false),
            ("t?", "t12", false),
            ("t?", "té", true),
            ("t[0-9]", "t5", true),
            ("t[0-9]", "ta", false),
            ("t[!0-9]", "ta", true),
            ("t[!0-9]", "t5", false),
            ("t[!0-9]", "t", false),
            ("t[ab_]x", "t_x", true),
            ("t[a-]", "t-", true),
            ("t[-a]", "t-", true),
            ("t[!]", "t!", true),
            ("foo[bar]", "foor", true),
            ("foo[bar]", "foo[bar]", false),
            ("t[0", "t[0", true),
            ("T[A-C]", "tb", true),
            ("*", "", true),
            ("**", "x", true),
            ("订单*", "订单_2024", true),
            ("special\\", "special\\", true),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern} against {name}");
        }
        assert!(!Pattern::new("FOO*", true).unwrap().matches("foo1"));
        assert!(Pattern::new("FOO*", true).unwrap().matches("FOO1"));
    }

    #[test]
    fn expressions_are_found_anywhere() {
        for (pattern, name, expected) in [
            ("~^foo", "foo1", true),
            ("~^FOO", "foo1", true),
            ("~^foo", "afoo", false),
            ("~oo", "afoob", true),
            ("~^sbtest-\\d$", "sbtest-1", true),
            ("~^\\D+$", "abc", true),
            ("~^\\D+$", "ab1", false),
            ("~^t\\d$", "t٣", false), // Go's \d is ASCII
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern} against {name}");
        }
        assert!(!Pattern::new("~^FOO", true).unwrap().matches("foo"));
    }

    #[test]
    fn errors_name_pattern_problem_and_remedy() {
        for (pattern, problem) in [
            ("", "empty"),
            ("~^t(?=copy)", "look-around"),
            ("~(", "unclosed group"),
            ("a[]", "`[]` is empty"),
            ("a[z-a]", "`z-a` runs backwards"),
        ] {
            let error = Pattern::new(pattern, true).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
            assert!(error.to_string().starts_with(&format!("pattern `{pattern}`: ")), "{error}");
            assert!(!error.remedy.is_empty());
        }
    }

    /// The plainest possible matcher.
    fn reference(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|skip| reference(rest, &name[skip..])),
            ['?', rest @ ..] => !name.is_empty() && reference(rest, &name[1..]),
            ['[', rest @ ..] if rest.contains(&']') => {
                let close = rest.iter().position(|&c| c == ']').unwrap();
                let (negated, members) = match &rest[..close] {
                    ['!', members @ ..] if !members.is_empty() => (true, members),
                    members => (false, members),
                };
                name.first().is_some_and(|c| members.contains(c) != negated)
                    && reference(&rest[close + 1..], &name[1..])
            }
            [one, rest @ ..] => name.first() == Some(one) && reference(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(pattern in "([ab*?\\[]|\\[!?[abc]{1,2}\\]){1,8}", name in "[abc\\[]{0,8}") {
            let chars: Vec<char> = pattern.chars().collect();
            let name_chars: Vec<char> = name.chars().collect();
            if let Ok(compiled) = Pattern::new(&pattern, true) {
                prop_assert_eq!(compiled.matches(&name), reference(&chars, &name_chars));
            }
        }

        #[test]
        fn never_panics(pattern in ".{0,20}", name in ".{0,20}", case_sensitive: bool) {
            if let Ok(compiled) = Pattern::new(&pattern, case_sensitive) {
                compiled.matches(&fold(&name, case_sensitive));
            }
        }
    }
}
