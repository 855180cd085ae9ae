//! Names of tables. The same shape on both sides, but never the same type: a route maps one to the other.

use std::fmt;
use std::sync::Arc;

/// A schema and a table in it. Prints quoted: `` `db`.`tbl` ``.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TableName {
    /// Schema (database) name.
    pub schema: Arc<str>,
    /// Table name.
    pub table: Arc<str>,
}

impl TableName {
    /// Joins the two parts, unquoted.
    pub fn new(schema: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> Self {
        TableName { schema: schema.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Quoted(&self.schema), Quoted(&self.table))
    }
}

/// One identifier in backticks, with backticks in it doubled.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.replace('`', "``"))
    }
}

/// A table of the upstream.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SourceTable(pub TableName);

/// A table of the downstream.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TargetTable(pub TableName);

impl fmt::Display for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TargetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backticks() {
        assert_eq!(TableName::new("a`b", "c d").to_string(), "`a``b`.`c d`");
    }
}
