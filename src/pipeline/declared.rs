//! Tables of the source whose columns an operator has declared (`binlog-schema update`).
//!
//! Where the source writes no column names, a row goes to the downstream column at its place, and the counts must agree.
//! A declaration gives the columns names: then each value goes to the column of its name, and the downstream may have
//! more columns, or the same in another order. The next statement that may change the table's columns ends it.
//!
//! Invariant: which declaration holds is a function of the place in the binlog alone. It begins behind everything that
//! any lane was ever given, and its end is stored before the statement that ends it is run; so a replay after a crash reads
//! each row as it was read before. A place is forgotten once nothing replays what is before it.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::model::{BinlogFile, BinlogPosition, SourceTable};
use crate::schema::{OriginColumn, OriginTable, TableStructure};

/// A column of a declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredColumn {
    /// Its name.
    pub name: String,
    /// The type's first word in lower case.
    pub data_type: String,
    /// Its numbers have no sign.
    pub unsigned: bool,
    /// Character set of a text, where one was given.
    pub charset: Option<String>,
}

/// A place that begins or ends a declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Edge {
    /// Where the next pipeline begins with what no lane was given before.
    Next,
    /// This place.
    At { file: String, offset: u64 },
}

/// One declaration. Stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredTable {
    /// Schema on the source.
    pub schema: String,
    /// Table on the source.
    pub table: String,
    /// The CREATE TABLE statement.
    pub text: String,
    /// Its columns.
    pub columns: Vec<DeclaredColumn>,
    /// `None` where nothing from before it can come any more.
    begin: Option<Edge>,
    /// `None` while it holds.
    end: Option<Edge>,
}

/// All of a subtask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredTables(pub Vec<DeclaredTable>);

/// A change of all; whether it changed anything.
pub type DeclaredChange = Box<dyn FnOnce(&mut DeclaredTables) -> bool + Send>;

/// Where they are kept.
#[tonic::async_trait]
pub trait DeclaredStore: Debug + Send + Sync + 'static {
    /// Changes them; stored when it returns, with what they are now.
    async fn change(&self, change: DeclaredChange) -> Result<DeclaredTables, Failure>;
}

impl Edge {
    fn at(position: &BinlogPosition) -> Edge {
        Edge::At { file: position.file.name().to_owned(), offset: position.offset }
    }

    /// `None` for one whose place is not known yet.
    fn position(&self) -> Option<BinlogPosition> {
        match self {
            Edge::Next => None,
            Edge::At { file, offset } => Some(BinlogPosition::new(BinlogFile::parse(file).ok()?, *offset)),
        }
    }

    fn is_passed(&self, passed: &BinlogPosition) -> bool {
        self.position().is_some_and(|position| position <= *passed)
    }
}

impl DeclaredTable {
    fn is_of(&self, table: &SourceTable) -> bool {
        self.schema == *table.0.schema && self.table == *table.0.table
    }

    fn holds_at(&self, place: &BinlogPosition) -> bool {
        let begun = self.begin.as_ref().is_none_or(|begin| begin.is_passed(place));
        begun && !self.end.as_ref().is_some_and(|end| end.is_passed(place))
    }

    /// What it says of the source's table. Where it names no character set of a text, the text is as downstream.
    pub fn origin(&self, structure: &TableStructure) -> OriginTable {
        let column = |column: &DeclaredColumn| {
            let same = |here: &&crate::schema::ColumnStructure| here.name.to_lowercase() == column.name.to_lowercase();
            let here = || structure.columns.iter().find(same).and_then(|here| here.charset.clone());
            OriginColumn {
                name: column.name.clone(),
                data_type: column.data_type.clone(),
                charset: column.charset.clone().or_else(here),
                unsigned: Some(column.unsigned),
            }
        };
        OriginTable { columns: self.columns.iter().map(column).collect(), holds: true, by_name: true }
    }
}

impl DeclaredTables {
    /// The one that holds for rows to come.
    pub fn of(&self, table: &SourceTable) -> Option<&DeclaredTable> {
        self.0.iter().find(|one| one.end.is_none() && one.is_of(table))
    }

    /// The one that holds for rows at a place, and its number among all.
    pub fn at(&self, table: &SourceTable, place: &BinlogPosition) -> Option<(usize, &DeclaredTable)> {
        self.0.iter().enumerate().find(|(_, one)| one.is_of(table) && one.holds_at(place))
    }

    /// Whether nothing was ever declared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Declares a table, in place of what was declared before.
    pub fn declare(&mut self, table: &SourceTable, text: String, columns: Vec<DeclaredColumn>) {
        self.withdraw(table);
        let (schema, name) = (table.0.schema.to_string(), table.0.table.to_string());
        self.0.push(DeclaredTable { schema, table: name, text, columns, begin: Some(Edge::Next), end: None });
    }

    /// Takes a declaration back; whether there was one. One that no row was read by goes without a trace.
    pub fn withdraw(&mut self, table: &SourceTable) -> bool {
        let live = |one: &DeclaredTable| one.end.is_none() && one.is_of(table);
        let any = self.0.iter().any(live);
        self.0.retain(|one| !(live(one) && one.begin == Some(Edge::Next)));
        self.0.iter_mut().filter(|one| live(one)).for_each(|one| one.end = Some(Edge::Next));
        any
    }

    /// What was declared or taken back since the last pipeline counts from `place` on.
    pub fn settle(&mut self, place: &BinlogPosition) -> bool {
        let edges = self.0.iter_mut().flat_map(|one| [&mut one.begin, &mut one.end]).flatten();
        let mut changed = false;
        for edge in edges.filter(|edge| **edge == Edge::Next) {
            *edge = Edge::at(place);
            changed = true;
        }
        changed
    }

    /// A statement at `place` may change these tables' columns.
    pub fn end(&mut self, tables: &[SourceTable], place: &BinlogPosition) -> bool {
        let mut changed = false;
        for one in self.0.iter_mut().filter(|one| one.end.is_none() && one.holds_at(place)) {
            if tables.iter().any(|table| one.is_of(table)) {
                one.end = Some(Edge::at(place));
                changed = true;
            }
        }
        changed
    }

    /// Nothing before `passed` is replayed any more.
    pub fn pass(&mut self, passed: &BinlogPosition) -> bool {
        let before = self.0.len();
        self.0.retain(|one| !one.end.as_ref().is_some_and(|end| end.is_passed(passed)));
        let mut changed = self.0.len() < before;
        for one in &mut self.0 {
            changed |= one.begin.take_if(|begin| begin.is_passed(passed)).is_some();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    fn at(offset: u64) -> BinlogPosition {
        BinlogPosition::parse("b.000003", offset).unwrap()
    }

    fn table(name: &str) -> SourceTable {
        SourceTable(TableName::new("d", name))
    }

    fn text_at(all: &DeclaredTables, offset: u64) -> Option<&str> {
        all.at(&table("t"), &at(offset)).map(|(_, one)| one.text.as_str())
    }

    #[test]
    fn which_one_holds_is_decided_by_the_place() {
        let mut all = DeclaredTables::default();
        all.declare(&table("t"), "never used".into(), Vec::new());
        all.declare(&table("t"), "one".into(), Vec::new());
        assert_eq!(all.0.len(), 1);
        assert_eq!(text_at(&all, 500), None, "its place is not known yet");
        assert!(all.settle(&at(100)) && !all.settle(&at(100)));
        assert_eq!((text_at(&all, 99), text_at(&all, 100)), (None, Some("one")));
        all.declare(&table("t"), "two".into(), Vec::new());
        assert_eq!(all.of(&table("t")).unwrap().text, "two");
        assert_eq!(text_at(&all, 300), Some("one"), "until the next pipeline");
        assert!(all.settle(&at(200)));
        assert_eq!((text_at(&all, 199), text_at(&all, 200)), (Some("one"), Some("two")));
        assert!(!all.end(&[table("u")], &at(300)) && all.end(&[table("u"), table("t")], &at(300)));
        assert!(!all.end(&[table("t")], &at(300)), "it has ended: a replay changes nothing");
        assert_eq!((text_at(&all, 299), text_at(&all, 300), all.of(&table("t"))), (Some("two"), None, None));
        // What it was stored as is what it is.
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<DeclaredTables>(&text).unwrap(), all);
        // Nothing from before is replayed: the first is forgotten, and the second no longer bound to a beginning.
        assert!(all.pass(&at(250)) && !all.pass(&at(250)));
        assert_eq!((all.0.len(), text_at(&all, 10)), (1, Some("two")));
        assert!(all.pass(&at(300)) && all.0.is_empty());
    }

    #[test]
    fn one_that_is_taken_back_holds_for_what_was_read_by_it() {
        let mut all = DeclaredTables::default();
        assert!(!all.withdraw(&table("t")));
        all.declare(&table("t"), "one".into(), Vec::new());
        all.settle(&at(100));
        assert!(all.withdraw(&table("t")) && all.of(&table("t")).is_none());
        all.settle(&at(150));
        assert_eq!((text_at(&all, 149), text_at(&all, 150)), (Some("one"), None));
    }
}
