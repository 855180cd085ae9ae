//! The tables of a workload and the DDL that changes them.

use rand::Rng;
use rand::rngs::StdRng;

use super::values::{number, quoted};
use super::{TABLES, Table};

/// Column types that DDL adds and changes to; each can become the next one without an error on any value.
const EXTRA_TYPES: [&str; 4] =
    ["VARCHAR(40) DEFAULT 'x'", "VARCHAR(200) DEFAULT 'y'", "VARCHAR(300) NULL", "TEXT CHARACTER SET utf8mb4"];

impl Table {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Table::Plain => "plain",
            Table::Pair => "pair",
            Table::Folded => "folded",
            Table::Uniques => "uniques",
            Table::Keyless => "keyless",
            Table::LooseKey => "loose_key",
            Table::Wide => "wide",
        }
    }

    /// The columns that inserts name.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Table::Plain => &["id", "a", "b"],
            Table::Pair => &["a", "b", "v"],
            Table::Folded => &["name", "v"],
            Table::Uniques => &["id", "u1", "u2", "v"],
            Table::Keyless => &["a", "b", "c"],
            Table::LooseKey => &["a", "b", "v"],
            Table::Wide => {
                &["id", "big", "tiny", "m", "f", "d", "day", "at", "ts", "tm", "t", "bin", "doc", "e", "s", "bits"]
            }
        }
    }
}

/// The statement that creates a table. Collations are named: the servers' defaults differ.
pub fn create(table: Table) -> String {
    let definition = match table {
        Table::Plain => "id INT NOT NULL PRIMARY KEY, a INT, b VARCHAR(100), KEY by_a (a)",
        Table::Pair => "a INT NOT NULL, b VARCHAR(20) NOT NULL, v VARCHAR(100), PRIMARY KEY (a, b)",
        Table::Folded => "name VARCHAR(40) NOT NULL PRIMARY KEY, v INT",
        Table::Uniques => "id INT NOT NULL PRIMARY KEY, u1 INT UNIQUE, u2 VARCHAR(60) NOT NULL UNIQUE, v INT",
        Table::Keyless => "a INT, b VARCHAR(50), c DOUBLE",
        Table::LooseKey => "a INT, b INT, v VARCHAR(100), UNIQUE KEY loose (a, b)",
        Table::Wide => {
            "id BIGINT UNSIGNED NOT NULL PRIMARY KEY, big BIGINT UNSIGNED, tiny TINYINT, m DECIMAL(12,2), f FLOAT, d DOUBLE, \
             day DATE, at DATETIME(6), ts TIMESTAMP(6) NULL, tm TIME(3), t VARCHAR(200) CHARACTER SET utf8mb4, \
             bin VARBINARY(64), doc JSON, e ENUM('small','large','it''s'), s SET('a','b','c'), bits BIT(12)"
        }
    };
    format!(
        "CREATE TABLE {} ({definition}) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        table.name()
    )
}

/// What the DDL so far has left.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Counts names, so that none comes twice.
    next: u32,
    /// Added columns: table, name, index of the type.
    columns: Vec<(Table, String, usize)>,
    /// Added indexes: table, name.
    indexes: Vec<(Table, String)>,
    /// Added tables.
    tables: Vec<String>,
}

impl Catalog {
    /// The next DDL statement, valid after all earlier ones.
    pub fn next_ddl(&mut self, rng: &mut StdRng) -> String {
        self.next += 1;
        let name = format!("x{}", self.next);
        let table = TABLES[rng.random_range(0..TABLES.len())];
        match rng.random_range(0..10) {
            0 | 1 => self.add_column(rng, table, name),
            2 => self.modify_column(rng).unwrap_or_else(|| self.add_column(rng, table, name)),
            3 => self.drop_column(rng).unwrap_or_else(|| self.add_column(rng, table, name)),
            4 => {
                self.indexes.push((table, name.clone()));
                let columns = table.columns();
                let column = if table == Table::Wide { "big" } else { columns[columns.len() - 1] };
                // A prefix, where it is text, keeps the index inside every limit.
                let prefix = if matches!(column, "v") && table.text_value() { "(10)" } else { "" };
                format!("ALTER TABLE {} ADD INDEX {name} ({column}{prefix})", table.name())
            }
            5 => match self.indexes.pop() {
                Some((table, name)) => format!("DROP INDEX {name} ON {}", table.name()),
                None => format!("TRUNCATE TABLE {}", table.name()),
            },
            6 => format!("TRUNCATE TABLE {}", table.name()),
            7 => match self.tables.pop() {
                Some(old) => {
                    self.tables.push(name.clone());
                    format!("RENAME TABLE {old} TO {name}")
                }
                None => self.create_table(name),
            },
            8 => match self.tables.pop() {
                Some(old) => format!("DROP TABLE {old}"),
                None => self.create_table(name),
            },
            _ => self.create_table(name),
        }
    }

    /// Sometimes, a change of a column that DDL has added.
    pub fn touch_extra_column(&self, rng: &mut StdRng, table: Table) -> Option<String> {
        let columns: Vec<&String> =
            self.columns.iter().filter(|(owner, ..)| *owner == table).map(|(_, name, _)| name).collect();
        if columns.is_empty() || rng.random_bool(0.5) {
            return None;
        }
        let column = columns[rng.random_range(0..columns.len())];
        let (key, low) = (table.columns()[0], number(rng));
        Some(match table {
            Table::Folded => format!("UPDATE folded SET {column} = {} WHERE v = {low}", quoted(rng)),
            _ => format!(
                "UPDATE {} SET {column} = {} WHERE {key} BETWEEN {low} AND {low} + 5",
                table.name(),
                quoted(rng)
            ),
        })
    }

    /// Sometimes, a row for a table that DDL has added.
    pub fn touch_extra_table(&self, rng: &mut StdRng) -> Option<String> {
        if self.tables.is_empty() || rng.random_bool(0.8) {
            return None;
        }
        let table = &self.tables[rng.random_range(0..self.tables.len())];
        Some(format!("REPLACE INTO {table} VALUES ({}, {})", number(rng), number(rng)))
    }

    fn add_column(&mut self, rng: &mut StdRng, table: Table, name: String) -> String {
        let kind = rng.random_range(0..2);
        let place = match rng.random_range(0..3) {
            0 => " FIRST".to_owned(),
            1 => format!(" AFTER {}", table.columns()[0]),
            _ => String::new(),
        };
        self.columns.push((table, name.clone(), kind));
        format!("ALTER TABLE {} ADD COLUMN {name} {}{place}", table.name(), EXTRA_TYPES[kind])
    }

    fn modify_column(&mut self, rng: &mut StdRng) -> Option<String> {
        if self.columns.is_empty() {
            return None;
        }
        let index = rng.random_range(0..self.columns.len());
        let (table, name, kind) = &mut self.columns[index];
        *kind = (*kind + 1).min(EXTRA_TYPES.len() - 1);
        Some(format!("ALTER TABLE {} MODIFY COLUMN {name} {}", table.name(), EXTRA_TYPES[*kind]))
    }

    fn drop_column(&mut self, rng: &mut StdRng) -> Option<String> {
        if self.columns.is_empty() {
            return None;
        }
        let (table, name, _) = self.columns.swap_remove(rng.random_range(0..self.columns.len()));
        Some(format!("ALTER TABLE {} DROP COLUMN {name}", table.name()))
    }

    fn create_table(&mut self, name: String) -> String {
        self.tables.push(name.clone());
        format!("CREATE TABLE {name} (id INT PRIMARY KEY, v INT) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    }
}

impl Table {
    /// Whether its column `v` is text.
    fn text_value(self) -> bool {
        matches!(self, Table::Pair | Table::LooseKey)
    }
}
