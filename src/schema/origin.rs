//! A source's table as the source says it is now, for what its binlog leaves out.

/// A table of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginTable {
    /// In the table's order.
    pub columns: Vec<OriginColumn>,
    /// Its definition has not changed since the rows that it is asked for.
    pub holds: bool,
    /// The rows have these columns, and each goes to the downstream column of its name.
    pub by_name: bool,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginColumn {
    /// Name.
    pub name: String,
    /// `data_type` in lower case.
    pub data_type: String,
    /// Character set, for character columns.
    pub charset: Option<String>,
    /// Whether its numbers have no sign, where that is known.
    pub unsigned: Option<bool>,
}

impl OriginTable {
    /// The column that a row image has at `place` of `count`, and the downstream calls `name`: by place where the
    /// definition holds, else by name, where that is certain.
    pub fn column(&self, place: usize, count: usize, name: &str) -> Option<&OriginColumn> {
        if self.holds {
            return self.columns.get(place).filter(|_| self.columns.len() == count);
        }
        self.columns.iter().find(|column| column.name.to_lowercase() == name.to_lowercase())
    }
}
