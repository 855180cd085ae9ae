//! Statements on a command line, as dmctl takes them: the arguments are one text, with semicolons between statements, each of
//! which is sent with its own.
//!
//! Pure. Whether a statement is one is for whoever gets it to say; here only its end is looked for, outside quotes and
//! comments.

/// The statements that the arguments hold; none of them is empty.
pub fn split(arguments: &[String]) -> Vec<String> {
    let text = arguments.join(" ");
    let mut statements = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = end_of_statement(rest);
        let (statement, behind) = rest.split_at(end);
        rest = behind;
        let statement = statement.trim();
        if !statement.trim_end_matches(';').trim().is_empty() {
            statements.push(statement.to_owned());
        }
    }
    statements
}

/// The place behind the first semicolon that ends a statement, or the end of the text.
fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        at += match c {
            ';' => return at + 1,
            '\'' | '"' | '`' => quoted(rest, c),
            '#' => line(rest),
            '-' if rest.starts_with("--") && rest[2..].chars().next().is_none_or(char::is_whitespace) => line(rest),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            c => c.len_utf8(),
        };
    }
    text.len()
}

/// How long a quoted text is, with its quotes. A doubled quote begins another one at once, which comes to the same.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Vec<String> {
        split(&arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn statements_are_told_apart_as_dmctl_does() {
        // As recorded: `binlog-replace.txt`, and what the worker got of it.
        let expected = ["create table d1.dd(id int primary key);", "alter table d1.dd add column e int;"];
        assert_eq!(of(&["create table d1.dd(id int primary key);alter table d1.dd add column e int;"]), expected);
        assert_eq!(of(&["create table d1.dd(id int primary key);", "alter table d1.dd add column e int;"]), expected);
        assert_eq!(of(&["alter", "table", "dd", "add", "column", "e", "int"]), ["alter table dd add column e int"]);
        assert!(of(&["", " ; ;"]).is_empty());
    }

    #[test]
    fn a_semicolon_in_a_text_ends_nothing() {
        for one in [
            "alter table d.t add c text default ';'",
            r"alter table d.t add c text default 'it\';s'",
            "alter table d.t add c text default 'it'';s'",
            r#"alter table d.t comment "a;b""#,
            "alter table d.`a;b` add c int",
            r"alter table d.`a\` add c int",
            "alter table d.t /* ; */ add c int",
            "alter table d.t -- ;\nadd c int",
            "alter table d.t # ;\nadd c int",
            "alter table d.t add c text default 'ü;é",
        ] {
            assert_eq!(of(&[one]), [one]);
        }
        assert_eq!(of(&["alter table d.t add c int default 1--1; drop table d.u"]).len(), 2);
    }
}
