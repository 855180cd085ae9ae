//! Writing a tree as YAML in the form DM prints: Go's yaml.v2, block style, lists not indented, plain text where it can.
//!
//! Invariant: what is written reads back as the same tree.

use super::node::Node;

/// Writes a document.
pub fn write(node: &Node) -> String {
    let mut out = String::new();
    match node {
        Node::Table(entries) if !entries.is_empty() => write_table(&mut out, entries, 0, false),
        Node::List(items) if !items.is_empty() => write_list(&mut out, items, 0),
        other => {
            write_flat(&mut out, other);
            out.push('\n');
        }
    }
    out
}

/// `inline` is set where the first key stands behind a `- `.
fn write_table(out: &mut String, entries: &[(String, Node)], indent: usize, inline: bool) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if !(inline && index == 0) {
            push_indent(out, indent);
        }
        write_text(out, key);
        out.push(':');
        match value {
            Node::Table(entries) if !entries.is_empty() => {
                out.push('\n');
                write_table(out, entries, indent + 2, false);
            }
            Node::List(items) if !items.is_empty() => {
                out.push('\n');
                write_list(out, items, indent);
            }
            flat => {
                out.push(' ');
                write_flat(out, flat);
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, items: &[Node], indent: usize) {
    for item in items {
        push_indent(out, indent);
        out.push_str("- ");
        write_item(out, item, indent);
    }
}

/// What stands behind a `- `.
fn write_item(out: &mut String, item: &Node, indent: usize) {
    match item {
        Node::Table(entries) if !entries.is_empty() => write_table(out, entries, indent + 2, true),
        Node::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    push_indent(out, indent + 2);
                }
                out.push_str("- ");
                write_item(out, item, indent + 2);
            }
        }
        flat => {
            write_flat(out, flat);
            out.push('\n');
        }
    }
}

fn write_flat(out: &mut String, node: &Node) {
    match node {
        Node::Null => out.push_str("null"),
        Node::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Node::Int(number) => out.push_str(&number.to_string()),
        Node::Float(number) => out.push_str(&format_float(*number)),
        Node::Text(text) => write_text(out, text),
        Node::List(_) => out.push_str("[]"),
        Node::Table(_) => out.push_str("{}"),
    }
}

/// As Go does: `2` for 2.0.
fn format_float(number: f64) -> String {
    match number {
        number if number.is_nan() => ".nan".to_owned(),
        number if number.is_infinite() => if number > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
        number => number.to_string(),
    }
}

fn write_text(out: &mut String, text: &str) {
    if needs_double_quotes(text) {
        write_double_quoted(out, text);
    } else if plain_allowed(text) {
        out.push_str(text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

/// Text that would read as something else without quotes, or that single quotes cannot hold.
fn needs_double_quotes(text: &str) -> bool {
    let special = |c: char| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.is_empty() || text.chars().any(special) || reads_as_other(text)
}

/// Whether YAML 1.1 (Go's yaml.v2) or 1.2 takes the bare text for a number, a truth value, a date, nothing or a merge.
fn reads_as_other(text: &str) -> bool {
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<", "="];
    let lower = text.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) {
        return true;
    }
    let unsigned = lower.trim_start_matches(['+', '-']);
    if [".inf", ".nan", "inf", "nan", "infinity"].contains(&unsigned) {
        return true;
    }
    // Numbers in any base, with underscores, sexagesimal ones, and dates begin with a digit or a dot and a digit.
    let mut chars = unsigned.chars();
    let starts_as_number = match chars.next() {
        Some('.') => chars.next().is_some_and(|c| c.is_ascii_digit()),
        Some(c) => c.is_ascii_digit(),
        None => true,
    };
    starts_as_number && (is_number(unsigned) || is_date(unsigned))
}

fn is_number(unsigned: &str) -> bool {
    let digits = unsigned.replace('_', "");
    let radix_digits = digits.strip_prefix("0x").or(digits.strip_prefix("0o")).or(digits.strip_prefix("0b"));
    if let Some(rest) = radix_digits {
        return rest.chars().all(|c| c.is_ascii_hexdigit());
    }
    let sexagesimal = digits.contains(':') && digits.chars().all(|c| c.is_ascii_digit() || c == ':' || c == '.');
    sexagesimal || digits.is_empty() || digits.parse::<f64>().is_ok()
}

fn is_date(unsigned: &str) -> bool {
    let mut parts = unsigned.splitn(3, '-');
    let year = parts.next().unwrap_or_default();
    let month = parts.next().unwrap_or_default();
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    year.len() == 4 && digits(year) && !month.is_empty() && month.len() <= 2 && digits(month) && parts.next().is_some()
}

/// Whether the text can stand without quotes in block style. Called for text without special characters only.
fn plain_allowed(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next();
    let indicator = match first {
        '-' | '?' | ':' => second.is_none_or(|c| c == ' '),
        c => " #,[]{}&*!|>'\"%@`".contains(c),
    };
    !indicator
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
}

fn write_double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, written) in [
            ("", "\"\""),
            ("+00:00", "\"+00:00\""),
            ("******", "'******'"),
            ("64", "\"64\""),
            ("~^shop.*", "~^shop.*"),
            ("^ord_(.*)$", "^ord_(.*)$"),
            ("(.*)", "(.*)"),
            ("id > 1000", "id > 1000"),
            ("5m0s", "5m0s"),
            ("500m", "500m"),
            ("yes", "\"yes\""),
            ("127.0.0.1", "127.0.0.1"),
            ("9688d8a4-e680-11f1-97c9-4b29ec27fc7c:1-12", "9688d8a4-e680-11f1-97c9-4b29ec27fc7c:1-12"),
            ("2026-01-02 03:04:05", "\"2026-01-02 03:04:05\""),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("'", "''''"),
            ("a\nb", "\"a\\nb\""),
        ] {
            let mut out = String::new();
            write_text(&mut out, text);
            assert_eq!(out, written);
        }
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            Just(Node::Null),
            any::<bool>().prop_map(Node::Bool),
            any::<i64>().prop_map(|number| Node::Int(number.into())),
            "(?s).{0,12}".prop_map(Node::Text),
            "[-+0-9.:_eExoTZ~ #'\"]{0,8}".prop_map(Node::Text),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Node::List),
                proptest::collection::btree_map("[-a-z0-9:. ]{1,6}", inner, 0..4)
                    .prop_map(|map| Node::Table(map.into_iter().filter(|(key, _)| key != "<<").collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_back(node in any_node()) {
            let text = write(&node);
            prop_assert!(Node::from_yaml(&text).unwrap() == node, "{}", text);
        }
    }
}
