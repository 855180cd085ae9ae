//! A table's name as it is typed: `schema.table`, parts in backticks where they have dots or backticks in them.

use std::str::FromStr;

/// A table on the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableArg {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
}

impl FromStr for TableArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no table: give schema.table, parts with a dot in backticks");
        let (schema, rest) = part(text).ok_or_else(wrong)?;
        let rest = rest.strip_prefix('.').ok_or_else(wrong)?;
        match part(rest) {
            Some((table, "")) => Ok(TableArg { schema, table }),
            _ => Err(wrong()),
        }
    }
}

/// The first part of a name, and what is behind it.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.is_empty() && !name.contains('`')).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('`')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        // Two of them stand for one.
        match rest.strip_prefix('`') {
            Some(behind) => {
                name.push('`');
                rest = behind;
            }
            None => return (!name.is_empty()).then_some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_may_be_quoted() {
        for (text, schema, table) in
            [("a.b", "a", "b"), ("`a.b`.c", "a.b", "c"), ("a.`b.c`", "a", "b.c"), ("`a``b`.`Ünì t`", "a`b", "Ünì t")]
        {
            let parsed = text.parse::<TableArg>().unwrap();
            assert_eq!((parsed.schema.as_str(), parsed.table.as_str()), (schema, table), "{text}");
        }
        for text in ["", "a", "a.", ".b", "a.b.c", "`a.b", "a.`b`c", "``.b", "a`.b"] {
            assert!(text.parse::<TableArg>().is_err(), "{text}");
        }
    }
}
