//! Expression filters: single row changes that are left out by what their rows hold.
//!
//! The expressions are SQL, and are evaluated by the downstream server itself, with the rows' values as columns of its own
//! types: nobody else has exactly its arithmetic and its collations. Here they are only looked through: which columns they
//! name, and that they have nothing but operators, literals and functions that give the same for the same values, so that
//! a change that is replayed after a crash is judged as it was before, and that nothing but a row is read.

mod words;

use std::collections::HashMap;
use std::ops::Range;

use super::ddl::lex::{Dialect, Token, TokenKind, lex};
use super::parts::Parts;
use super::rules::{ExpressionRule, Rules};
use crate::error::{Code, Failure};
use crate::model::{Flavor, SourceTable, TableName};
use crate::row::ChangeKind;
use words::{DATE_FUNCTIONS, FUNCTIONS, KEYWORDS, REFUSED};

/// What leaves a change of one kind out: all that it has is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCondition {
    /// Of which changes.
    pub kind: ChangeKind,
    /// Of the row as it was.
    pub before: Option<Expression>,
    /// Of the row as it is now.
    pub after: Option<Expression>,
}

/// An expression that can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    columns: Vec<Column>,
    /// Parts that deal with dates, be they only constant ones.
    calendar: Vec<usize>,
}

/// A column's name where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    span: Range<usize>,
    name: String,
    part: usize,
}

/// What an expression compares at once.
#[derive(Debug, PartialEq, Eq)]
pub struct ExpressionPart<'a> {
    /// Its columns.
    pub columns: Vec<&'a str>,
    /// It deals with dates, be it only a constant one.
    pub dates: bool,
}

/// The compiled filters.
#[derive(Debug)]
pub(super) struct RowFilter {
    /// By the source's table, whose name DM compares with case.
    tables: HashMap<SourceTable, Vec<RowCondition>>,
}

impl RowFilter {
    /// Compiles the rules; what does not compile is left out and added to `problems`.
    pub fn new(rules: &Rules, problems: &mut Vec<Failure>) -> RowFilter {
        let mut tables: HashMap<SourceTable, Vec<RowCondition>> = HashMap::new();
        for rule in &rules.expressions {
            match conditions(rule) {
                Ok(found) => {
                    let table = SourceTable(TableName::new(rule.schema.as_str(), rule.table.as_str()));
                    tables.entry(table).or_default().extend(found);
                }
                Err(failure) => problems.push(failure),
            }
        }
        RowFilter { tables }
    }

    /// What leaves changes of a table out.
    pub fn of(&self, source: &SourceTable) -> &[RowCondition] {
        self.tables.get(source).map_or(&[], Vec::as_slice)
    }

    /// The tables that have one.
    pub fn tables(&self) -> impl Iterator<Item = &SourceTable> {
        self.tables.keys()
    }
}

/// A rule's one condition; none for a rule without an expression.
fn conditions(rule: &ExpressionRule) -> Result<Option<RowCondition>, Failure> {
    let given = |text: &str| !text.is_empty();
    let updates = given(&rule.update_old_value) || given(&rule.update_new_value);
    let kinds = [given(&rule.insert_value), updates, given(&rule.delete_value)];
    if kinds.iter().filter(|given| **given).count() > 1 {
        let text = format!(
            "expression filter can only specify one of (insert, update, delete) expressions, but that for `{}`.`{}` has \
             specified more",
            rule.schema, rule.table
        );
        return Err(Failure::new(Code::ExpressionKinds, text));
    }
    let parse = |text: &str| {
        if text.is_empty() {
            Ok(None)
        } else {
            Expression::parse(text).map(Some).map_err(|why| wrong(rule, text, &why))
        }
    };
    let condition = |kind, before: &str, after: &str| {
        Ok::<_, Failure>(RowCondition { kind, before: parse(before)?, after: parse(after)? })
    };
    Ok(match kinds {
        [true, ..] => Some(condition(ChangeKind::Insert, "", &rule.insert_value)?),
        [_, true, _] => Some(condition(ChangeKind::Update, &rule.update_old_value, &rule.update_new_value)?),
        [_, _, true] => Some(condition(ChangeKind::Delete, &rule.delete_value, "")?),
        _ => None,
    })
}

fn wrong(rule: &ExpressionRule, text: &str, why: &str) -> Failure {
    let text = format!("expression-filter for `{}`.`{}`: SQL({text}): {why}", rule.schema, rule.table);
    Failure::new(Code::ExpressionGrammar, text).workaround(
        "Columns, numbers, texts, operators, CASE, and functions that only read their arguments can be used. Remove the filter \
         where it needs more, and filter the rows downstream, with a view.",
    )
}

impl Expression {
    /// Looks it through; says what it has that cannot be evaluated.
    pub fn parse(text: &str) -> Result<Expression, String> {
        let tokens = lex(text, Dialect { sql_mode: 0, flavor: Flavor::MySql });
        let tokens: Vec<Token> = tokens.into_iter().filter(|token| token.kind != TokenKind::Space).collect();
        let (mut columns, mut calendar) = (Vec::new(), Vec::new());
        let (mut depth, mut parts) = (0_usize, Parts::new());
        let mut add = |token: &Token, name, part| columns.push(Column { span: token.start..token.end, name, part });
        for (at, token) in tokens.iter().enumerate() {
            let own = token.text(text);
            let next = tokens.get(at + 1);
            match token.kind {
                TokenKind::Space | TokenKind::Text => {}
                TokenKind::Word => match word(own, text, next)? {
                    Some(name) => add(token, name, parts.now()),
                    None if is_of_dates(own) => calendar.push(parts.now()),
                    None => parts.word(own),
                },
                TokenKind::Quoted => {
                    let inner = own.get(1..own.len().saturating_sub(1)).unwrap_or_default();
                    if next.is_some_and(|next| next.text(text) == "(") {
                        return Err(format!("{own} is no function that can be used"));
                    }
                    if inner.is_empty() {
                        return Err(format!("`{own}` cannot be used"));
                    }
                    add(token, inner.replace("``", "`"), parts.now());
                }
                TokenKind::Symbol => {
                    match own {
                        "(" => depth += 1,
                        ")" => depth = depth.checked_sub(1).ok_or("a closing parenthesis has no opening one")?,
                        "." if is_point(&tokens, at, text) => {}
                        "+" | "-" | "*" | "/" | "%" | "," | "=" | "<" | ">" | "!" | "&" | "|" | "^" | "~" => {}
                        other => return Err(format!("`{other}` cannot be used")),
                    }
                    let before = at.checked_sub(1).and_then(|at| tokens.get(at)).map(|before| before.text(text));
                    let behind = next.filter(|next| next.start == token.end).map(|next| next.text(text));
                    parts.symbol(own, before, behind);
                }
                TokenKind::Comment | TokenKind::VersionOpen | TokenKind::VersionClose => {
                    return Err("comments cannot be used".to_owned());
                }
                TokenKind::Unterminated => return Err("a text, a quoted name or a comment does not end".to_owned()),
            }
        }
        match (tokens.is_empty(), depth) {
            (true, _) => Err("it is empty".to_owned()),
            (_, 0) => {
                if parts.is_whole() {
                    columns.iter_mut().for_each(|column| column.part = 0);
                    calendar.iter_mut().for_each(|part| *part = 0);
                }
                Ok(Expression { text: text.to_owned(), columns, calendar })
            }
            _ => Err("a parenthesis is not closed".to_owned()),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of the columns in it, one for each time that it stands there.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// What it compares at once.
    pub fn parts(&self) -> impl Iterator<Item = ExpressionPart<'_>> {
        let last = self.columns.last().map_or(0, |column| column.part);
        (0..=last).map(|part| ExpressionPart {
            columns: self.columns.iter().filter(|column| column.part == part).map(|column| &*column.name).collect(),
            dates: self.calendar.contains(&part),
        })
    }

    /// With other names for its columns.
    pub fn renamed(&self, name: impl Fn(&str) -> String) -> String {
        let mut out = String::with_capacity(self.text.len() + 16);
        let mut at = 0;
        for Column { span, name: column, .. } in &self.columns {
            out.push_str(self.text.get(at..span.start).unwrap_or_default());
            out.push_str(&name(column));
            at = span.end;
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }
}

/// Whether a word makes a TIME beside it a time of the day on which it is asked.
fn is_of_dates(own: &str) -> bool {
    own.eq_ignore_ascii_case("TIMESTAMP") || DATE_FUNCTIONS.iter().any(|word| word.eq_ignore_ascii_case(own))
}

/// The column that an unquoted word names; `None` where it is something else.
fn word(own: &str, text: &str, next: Option<&Token>) -> Result<Option<String>, String> {
    let is = |list: &[&str]| list.iter().any(|word| word.eq_ignore_ascii_case(own));
    if own.starts_with(|c: char| c.is_ascii_digit()) {
        let (whole, exponent) = own.split_once(['e', 'E']).unwrap_or((own, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
        return if digits(whole) && digits(exponent) { Ok(None) } else { Err(format!("`{own}` cannot be used")) };
    }
    let called = next.is_some_and(|next| next.text(text) == "(");
    let before_text = next.is_some_and(|next| next.kind == TokenKind::Text);
    match () {
        () if is(KEYWORDS) => Ok(None),
        () if called && (is(FUNCTIONS) || is(DATE_FUNCTIONS)) => Ok(None),
        () if called => Err(format!("{own}() is no function that can be used")),
        // `DATE '2020-01-01'`.
        () if before_text && (is(&["DATE", "TIMESTAMP"])) => Ok(None),
        () if before_text || is(REFUSED) => Err(format!("`{own}` cannot be used")),
        () => Ok(Some(own.to_owned())),
    }
}

/// Whether the point stands in a number, and not between two names.
fn is_point(tokens: &[Token], at: usize, text: &str) -> bool {
    let number = |token: Option<&Token>| {
        token.is_some_and(|token| {
            token.kind == TokenKind::Word && token.text(text).starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let name = |token: Option<&Token>| {
        token.is_some_and(|token| match token.kind {
            TokenKind::Word => {
                let own = token.text(text);
                !number(Some(token)) && !KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(own))
            }
            TokenKind::Quoted => true,
            _ => false,
        })
    };
    let (before, behind) = (at.checked_sub(1).and_then(|at| tokens.get(at)), tokens.get(at + 1));
    (number(before) || number(behind)) && !name(before) && !name(behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_are_found() {
        for (text, expected) in [
            ("c % 2 = 0", "[c] % 2 = 0"),
            ("a*a + b*b = c*c", "[a]*[a] + [b]*[b] = [c]*[c]"),
            ("name != 'Müller'", "[name] != 'Müller'"),
            ("`a``b` IS NOT NULL and NOT(x)", "[a`b] IS NOT NULL and NOT([x])"),
            ("lower(`select`) like 'a.b%' escape '!'", "lower([select]) like 'a.b%' escape '!'"),
            ("price > 1.50 OR price<.5 or price = 1e3", "[price] > 1.50 OR [price]<.5 or [price] = 1e3"),
            (
                "d >= DATE '2020-01-01' AND year(d) in (2020, 2021)",
                "[d] >= DATE '2020-01-01' AND year([d]) in (2020, 2021)",
            ),
            ("case when a then b else 'c' end", "case when [a] then [b] else 'c' end"),
            ("date = \"2020-01-01\"", "[date] = \"2020-01-01\""),
            ("1 = 0", "1 = 0"),
        ] {
            let parsed = Expression::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(parsed.renamed(|name| format!("[{name}]")), expected);
        }
    }

    #[test]
    fn what_is_compared_at_once_is_one_part() {
        for (text, expected) in [
            ("t > '10:00:00'", "t"),
            ("date = t", "date t"),
            ("Year(t) = 1", "t*"),
            ("t < TIMESTAMP '2020-01-01 00:00:00' or a", "t*, a"),
            ("a = 'x' OR (b = 'y' AND NOT (c = 1 XOR d)) || e && f", "a, b, c, d, e, f"),
            ("(a = 1 or b = 2) = c", "a, b c"),
            ("a & b | c", "a b c"),
            ("a BETWEEN b AND c AND d", "a b c, d"),
            ("a BETWEEN (b OR 1) AND c", "a b c"),
            ("a NOT BETWEEN .5 AND .7 AND `and` = '&&'", "a, and"),
            ("IF(a OR b, c, d) = e OR f", "a b c d e, f"),
            ("a IN (b OR 1, c) OR d", "a b c, d"),
            ("CASE WHEN a OR b THEN c ELSE d END = e or f", "a b c d e, f"),
            ("(a, b OR 1) = (c, 2)", "a b c"),
        ] {
            let parsed = Expression::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let part =
                |part: ExpressionPart<'_>| format!("{}{}", part.columns.join(" "), if part.dates { "*" } else { "" });
            assert_eq!(parsed.parts().map(part).collect::<Vec<_>>().join(", "), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_on_a_row_is_refused() {
        for (text, words) in [
            ("ts > NOW()", "NOW() is no function"),
            ("a = current_timestamp", "`current_timestamp` cannot"),
            ("a in (select 1)", "`select` cannot"),
            ("(a", "not closed"),
            ("a) OR (1", "no opening one"),
            ("a = 'x", "does not end"),
            ("a = 1; drop table t", "`;` cannot"),
            ("a /* b */ = 1", "comments"),
            ("a -- b", "comments"),
            ("a # b", "comments"),
            ("@a := 1", "`@` cannot"),
            ("t.a = 1", "`.` cannot"),
            ("`t`.`a` = 1", "`.` cannot"),
            ("a = 0x41", "`0x41` cannot"),
            ("a = _latin1'x'", "`_latin1` cannot"),
            ("sleep(1)", "sleep() is no"),
            ("`sleep`(1)", "no function"),
            ("rand() < 0.5", "rand() is no"),
            ("`` = 1", "cannot be used"),
            ("  ", "empty"),
        ] {
            let why = Expression::parse(text).expect_err(text);
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn one_rule_is_about_one_kind() {
        let rule = |insert: &str, old: &str, new: &str, delete: &str| ExpressionRule {
            schema: "s".to_owned(),
            table: "t".to_owned(),
            insert_value: insert.to_owned(),
            update_old_value: old.to_owned(),
            update_new_value: new.to_owned(),
            delete_value: delete.to_owned(),
        };
        let both = conditions(&rule("", "a = 1", "a = 2", "")).unwrap().unwrap();
        assert!(both.kind == ChangeKind::Update && both.before.is_some() && both.after.is_some());
        assert_eq!(conditions(&rule("", "", "", "a")).unwrap().unwrap().kind, ChangeKind::Delete);
        assert_eq!(conditions(&rule("", "", "", "")).unwrap(), None);
        assert_eq!(conditions(&rule("a", "", "", "a")).unwrap_err().code, 20039);
        let wrong = conditions(&rule("a >", "", "", "")).map(|_| ());
        assert_eq!(wrong, Ok(()), "grammar is the server's to judge");
        let failure = conditions(&rule("NOW() > a", "", "", "")).unwrap_err();
        assert!(failure.code == 20041 && failure.message.contains("SQL(NOW() > a)"), "{failure}");
    }

    proptest! {
        /// Whatever is accepted stays inside the parentheses that are put around it.
        #[test]
        fn what_is_accepted_has_balanced_parentheses(text in "[ab1 '\"`()=,.;#*/-]{0,16}") {
            if let Ok(parsed) = Expression::parse(&text) {
                let whole = format!("({text}) IS TRUE");
                let tokens = lex(&whole, Dialect { sql_mode: 0, flavor: Flavor::MySql });
                let mut depth = 0_i32;
                for token in tokens.iter().filter(|token| token.kind == TokenKind::Symbol) {
                    depth += match token.text(&whole) { "(" => 1, ")" => -1, _ => 0 };
                    prop_assert!(depth > 0 || token.start == text.len() + 1);
                }
                prop_assert_eq!(depth, 0);
                prop_assert_eq!(parsed.renamed(|name| name.to_owned()).is_empty(), false);
            }
        }
    }
}
