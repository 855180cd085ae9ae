//! A downstream table as `information_schema` describes it.

/// Which SQL the downstream speaks, where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MySQL 5.7 and later.
    MySql,
    /// MariaDB.
    MariaDb,
    /// TiDB.
    TiDb,
}

/// A table's columns and unique keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStructure {
    /// In the table's order, invisible ones included.
    pub columns: Vec<ColumnStructure>,
    /// Primary key first, then the other unique keys by name.
    pub unique_keys: Vec<KeyStructure>,
    /// The engine, where it has no transactions: rows of such a table stay when a transaction is rolled back.
    pub loose_engine: Option<String>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnStructure {
    /// Name as the server writes it.
    pub name: String,
    /// `data_type` in lower case: `int`, `varchar`, `uuid`, …
    pub data_type: String,
    /// Whether `column_type` says unsigned.
    pub unsigned: bool,
    /// Its numbers have a form of their own: ZEROFILL, or the digits of a FLOAT(7,2).
    pub formatted: bool,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Character set, for character columns.
    pub charset: Option<String>,
    /// Collation, for character columns.
    pub collation: Option<String>,
    /// The server computes it; it cannot be written.
    pub generated: bool,
}

impl ColumnStructure {
    /// Whether two values that compare equal there are also equal byte for byte, trailing spaces aside. Only such
    /// columns may decide which lane a row goes to.
    pub fn compares_by_bytes(&self) -> bool {
        let textual = matches!(
            self.data_type.as_str(),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set"
        );
        !textual || self.collation.as_deref().is_none_or(|name| name == "binary" || name.ends_with("_bin"))
    }
}

impl ColumnStructure {
    /// Whether its values are integers, and stand in the key's order as such.
    pub fn is_whole_number(&self) -> bool {
        matches!(self.data_type.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
    }
}

/// One unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStructure {
    /// `PRIMARY` or the index's name.
    pub name: String,
    /// Its parts; `None` for an expression.
    pub columns: Vec<Option<usize>>,
    /// Whether some part is only a prefix of its column.
    pub prefix: bool,
}

impl KeyStructure {
    /// Whether it is the primary key.
    pub fn is_primary(&self) -> bool {
        self.name == "PRIMARY"
    }
}

impl TableStructure {
    /// The key that identifies a row: the primary key, else the first unique key of whole NOT NULL columns. `None` where
    /// a row is only known by all its values.
    pub fn identity(&self) -> Option<Vec<usize>> {
        let usable = |key: &&KeyStructure| {
            key.columns.iter().all(|part| part.is_some_and(|column| !self.columns[column].nullable))
                && (key.is_primary() || !key.prefix)
        };
        let key = self.unique_keys.iter().filter(usable).min_by_key(|key| !key.is_primary())?;
        Some(key.columns.iter().flatten().copied().collect())
    }

    /// The only column of the primary key, where its values are integers.
    pub fn whole_primary(&self) -> Option<usize> {
        let key = self.unique_keys.iter().find(|key| key.is_primary())?;
        let [Some(column)] = key.columns[..] else { return None };
        self.columns[column].is_whole_number().then_some(column)
    }

    /// Whether many rows stand on one page: there is no column of long texts or objects.
    pub fn has_small_rows(&self) -> bool {
        let long = ["text", "blob", "json", "vector", "geometry", "linestring", "polygon", "collection"];
        !self.columns.iter().any(|column| long.iter().any(|end| column.data_type.ends_with(end)))
    }

    /// Whether the primary key covers only prefixes of its columns: rows with different values may then still collide.
    pub fn has_prefix_primary_key(&self) -> bool {
        self.unique_keys.iter().any(|key| key.is_primary() && key.prefix)
    }

    /// Columns of the unique keys other than the identity; all columns where such a key has an expression.
    pub fn other_unique_columns(&self, identity: &[usize]) -> Vec<usize> {
        let others =
            self.unique_keys.iter().filter(|key| key.columns.iter().flatten().copied().ne(identity.iter().copied()));
        let mut columns = Vec::new();
        for key in others {
            if key.columns.iter().any(Option::is_none) {
                return (0..self.columns.len()).collect();
            }
            columns.extend(key.columns.iter().flatten().copied());
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}
