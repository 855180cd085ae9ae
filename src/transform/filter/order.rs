//! The order in which DM asks event filters: by its tree of patterns.

/// Where a rule stands among those that mean the same table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    of_tables: bool,
    schema: Vec<Step>,
    table: Vec<Step>,
}

impl Order {
    /// Of the rule with these patterns; `classes` are those of the rules before it.
    pub(super) fn new(schema: &str, table: &str, classes: &mut Vec<String>) -> Self {
        Order { of_tables: !table.is_empty(), schema: steps(schema, classes), table: steps(table, classes) }
    }
}

/// A step of a pattern, in the order in which DM's tree looks at them. An exact name comes before `*` behind it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    End,
    Run,
    Any,
    /// By its first appearance among the rules.
    Class(usize),
    One(char),
}

fn steps(pattern: &str, classes: &mut Vec<String>) -> Vec<Step> {
    let mut found = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        found.push(match c {
            '*' => Step::Run,
            '?' => Step::Any,
            '[' => match rest.as_str().split_once(']') {
                Some((inner, behind)) => {
                    rest = behind.chars();
                    let known = classes.iter().position(|class| class == inner).unwrap_or_else(|| {
                        classes.push(inner.to_owned());
                        classes.len() - 1
                    });
                    Step::Class(known)
                }
                None => Step::One('['),
            },
            other => Step::One(other),
        });
    }
    found.push(Step::End);
    found
}
