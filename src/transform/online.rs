//! The tables that gh-ost and pt-online-schema-change work with, by their names.
//!
//! A tool copies a table into a shadow of it that has the new structure, then moves the table out of the way and the
//! shadow into its place. Neither the shadow nor what was moved away is replicated: what was done to the shadow's
//! structure is done to the real table when they change places.

use regex::Regex;

use super::regexp;
use super::rules::{OnlineDdlRules, Rules};
use crate::error::{Code, Failure};

/// What a table is to such a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableType {
    /// Nothing, as far as its name says.
    Real,
    /// It becomes the table of this name.
    Shadow(String),
    /// It was the table of this name, or helps with changing it.
    Trash(String),
}

/// Compiled rules; none where a task does without.
#[derive(Debug)]
pub(super) struct OnlineTables {
    shadow: Vec<Regex>,
    trash: Vec<Regex>,
}

impl OnlineTables {
    /// Compiles the rules; what does not compile goes to `problems`.
    pub fn new(rules: &Rules, problems: &mut Vec<Failure>) -> Self {
        let OnlineDdlRules { shadow, trash } = &rules.online;
        let mut compiled = |key: &str, expressions: &[String]| {
            let compile = |expression: &String| {
                Regex::new(&regexp::from_go(expression)).map_err(|error| {
                    let reason = regexp::reason(&error);
                    let text = format!("config '{key}' regex pattern '{expression}' invalid, reason: {reason}");
                    Failure::new(Code::OnlineDdlRegex, text)
                })
            };
            let (good, bad): (Vec<_>, Vec<_>) = expressions.iter().map(compile).partition(Result::is_ok);
            problems.extend(bad.into_iter().filter_map(Result::err));
            good.into_iter().filter_map(Result::ok).collect()
        };
        OnlineTables { shadow: compiled("shadow-table-rules", shadow), trash: compiled("trash-table-rules", trash) }
    }

    /// Whether all tables are replicated as any other.
    pub fn is_off(&self) -> bool {
        self.shadow.is_empty() && self.trash.is_empty()
    }

    /// What a table of this name is. A shadow goes before what is left behind.
    pub fn type_of(&self, table: &str) -> TableType {
        let real = |rules: &[Regex]| {
            let groups = rules.iter().find_map(|rule| rule.captures(table))?;
            Some(groups.get(1).map_or(table, |name| name.as_str()).to_owned())
        };
        match real(&self.shadow) {
            Some(name) => TableType::Shadow(name),
            None => real(&self.trash).map_or(TableType::Real, TableType::Trash),
        }
    }

    /// Whether a table of this name is replicated as any other.
    pub fn is_real(&self, table: &str) -> bool {
        !self.shadow.iter().chain(&self.trash).any(|rule| rule.is_match(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::testing;

    #[test]
    fn the_tools_own_tables_are_known_by_their_names() {
        let online = OnlineTables::new(&testing::online(testing::rules()), &mut Vec::new());
        let shadow = |name: &str| TableType::Shadow(name.to_owned());
        let trash = |name: &str| TableType::Trash(name.to_owned());
        for (table, wanted) in [
            ("t", TableType::Real),
            ("_t", TableType::Real),
            ("t_gho", TableType::Real),
            ("__new", TableType::Real),
            ("_t_gho", shadow("t")),
            ("_t_new", shadow("t")),
            ("__t_new", shadow("_t")),
            ("_t_new_new", shadow("t_new")),
            ("_t_del", trash("t")),
            ("_t_ghc", trash("t")),
            ("_t_old", trash("t")),
            ("_t_GHO", TableType::Real),
        ] {
            assert_eq!(online.type_of(table), wanted, "{table}");
            assert_eq!(online.is_real(table), wanted == TableType::Real, "{table}");
        }
    }

    #[test]
    fn what_does_not_compile_is_named() {
        let mut rules = testing::online(testing::rules());
        rules.online.trash.push("^_(".to_owned());
        let mut problems = Vec::new();
        OnlineTables::new(&rules, &mut problems);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.message.contains("config 'trash-table-rules' regex pattern '^_(' invalid"), "{problem:?}");
    }
}
