//! Go's regular expressions in the words of the `regex` crate.
//!
//! Both descend from RE2, so that most expressions mean the same. They differ in a few places, which are rewritten here:
//! Go's `\d \w \s \b` are ASCII only, `\Q…\E` quotes, `\<` and `\>` are plain characters, a `{` that opens no repetition
//! is one too, and a bracket class knows neither nested classes nor set operators. What is wrong in Go stays wrong, and
//! the crate says so.

use std::iter::Peekable;
use std::str::Chars;

/// Rewrites a Go expression.
pub(super) fn from_go(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 16);
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out, false),
            '[' => class(&mut rest, &mut out),
            '{' if !opens_repetition(rest.clone()) => out.push_str("\\{"),
            other => out.push(other),
        }
    }
    out
}

/// The last line of the crate's message, which is the reason; those before it draw the expression.
pub(super) fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String, in_class: bool) {
    let Some(c) = rest.next() else {
        out.push('\\');
        return;
    };
    match c {
        'd' => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
        'w' => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
        's' => out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
        'D' => out.push_str("[^0-9]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        '<' | '>' => out.push(c),
        'Q' if !in_class => quoted(rest, out),
        other => {
            out.push('\\');
            out.push(other);
            // `\p{Greek}`, `\x{10FFFF}`: the braces belong to it.
            if matches!(other, 'p' | 'P' | 'x') && rest.peek() == Some(&'{') {
                for inner in rest.by_ref() {
                    out.push(inner);
                    if inner == '}' {
                        break;
                    }
                }
            }
        }
    }
}

/// What stands between `\Q` and `\E`, or the end.
fn quoted(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = rest.next() {
        if c == '\\' && rest.peek() == Some(&'E') {
            rest.next();
            return;
        }
        out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

/// What follows a `[`, up to its end.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    // A `]` in first place is a member.
    if rest.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    while let Some(c) = rest.next() {
        match c {
            ']' => {
                out.push(']');
                return;
            }
            '\\' => escape(rest, out, true),
            '[' if rest.peek() == Some(&':') => named_class(rest, out),
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            // `--` is an operator to the crate; Go has a range that ends in `-`, or refuses it.
            '-' if rest.peek() == Some(&'-') => out.push_str("-\\"),
            other => out.push(other),
        }
    }
}

/// `[:alpha:]`, taken over; anything else that begins so is a plain bracket.
fn named_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let ahead: String = rest.clone().collect();
    match ahead.find(":]") {
        Some(end) if ahead.get(1..end).is_some_and(|name| name.chars().all(|c| c == '^' || c.is_ascii_lowercase())) => {
            let length = end + ":]".len();
            out.push('[');
            out.extend(rest.by_ref().take(length));
        }
        _ => out.push_str("\\["),
    }
}

fn opens_repetition(mut rest: Peekable<Chars<'_>>) -> bool {
    let mut digits = 0;
    let mut commas = 0;
    loop {
        match rest.next() {
            Some(c) if c.is_ascii_digit() => digits += 1,
            Some(',') if digits > 0 && commas == 0 => commas += 1,
            Some('}') => return digits > 0,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn reads_as_go_does() {
        for (expression, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^[\d_]+$", "1_2", true),
            (r"^[^\d]+$", "ab", true),
            (r"^[\D]+$", "ab", true),
            (r"^[\D]+$", "a1", false),
            (r"^\Qa.b*\E\d$", "a.b*1", true),
            (r"^\Qa.b", "axb", false),
            (r"^a\<b\>$", "a<b>", true),
            (r"^a{b}$", "a{b}", true),
            (r"^a{2}$", "aa", true),
            (r"^a{2,}$", "aaa", true),
            (r"^[[a]+$", "[a", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]+$", "bc", true),
            (r"^[!--]+$", "-!+", true),
            (r"\bfoo\b", "a foo b", true),
            (r"\Boo", "foo", true),
            (r"^\w+$", "é", false),
            (r"^(?i)ABC$", "abc", true),
            (r"^\x41\101$", "AA", true),
            (r"^\p{Han}+$", "订单", true),
        ] {
            let compiled = regex::RegexBuilder::new(&from_go(expression)).octal(true).build().unwrap();
            assert_eq!(compiled.is_match(text), expected, "{expression} as {}", from_go(expression));
        }
    }

    #[test]
    fn the_reason_is_one_line() {
        #[allow(clippy::invalid_regex)]
        let error = Regex::new("a(?=b)").unwrap_err();
        assert!(!reason(&error).contains('\n'));
        assert!(reason(&error).starts_with("look-around"), "{}", reason(&error));
    }
}
