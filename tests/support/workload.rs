//! Random transactions from a seed. The same seed gives the same statements: the generator never asks the server, it only knows which
//! tables and columns its own DDL has left.
//!
//! Keys come from small ranges, so that changes meet each other. `SEED=n` replays a run.

mod ddl;
mod values;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::db::Db;
use ddl::Catalog;
use values::{number, quoted, table_row};

/// Errors that belong to the load: duplicate key. The statement then changes nothing.
const TOLERATED: [u16; 1] = [1062];

/// What the source is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Statements in one transaction, the end included (`COMMIT` or `ROLLBACK`).
    Transaction(Vec<String>),
    /// A statement that commits by itself.
    Ddl(String),
}

/// How often what happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Share of steps that are DDL.
    pub ddl: f64,
    /// Share of steps that are transactions of thousands of rows.
    pub big: f64,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { ddl: 0.02, big: 0.01 }
    }
}

/// A random workload.
pub struct Workload {
    /// What it was started with.
    pub seed: u64,
    mix: Mix,
    rng: StdRng,
    catalog: Catalog,
}

/// The tables every workload has. Each stands for something an applier can get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// One number as key.
    Plain,
    /// A key of two columns.
    Pair,
    /// A text key whose collation ignores case.
    Folded,
    /// A primary key and two unique keys, one of them with NULLs.
    Uniques,
    /// No key at all: equal rows are allowed.
    Keyless,
    /// No primary key, a unique key with NULLs.
    LooseKey,
    /// Many types.
    Wide,
}

pub(crate) const TABLES: [Table; 7] =
    [Table::Plain, Table::Pair, Table::Folded, Table::Uniques, Table::Keyless, Table::LooseKey, Table::Wide];

impl Workload {
    /// A workload with the seed of the environment, else a new one; it is printed.
    pub fn from_env(mix: Mix) -> Workload {
        let seed = match std::env::var("SEED") {
            Ok(text) => text.parse().expect("SEED is a number"),
            Err(_) => rand::random::<u32>().into(),
        };
        println!("workload: SEED={seed}");
        Workload::new(seed, mix)
    }

    /// A workload with this seed.
    pub fn new(seed: u64, mix: Mix) -> Workload {
        Workload { seed, mix, rng: StdRng::seed_from_u64(seed), catalog: Catalog::default() }
    }

    /// Statements that create the tables.
    pub fn setup(&self) -> Vec<String> {
        TABLES.iter().map(|table| ddl::create(*table)).collect()
    }

    /// The next step.
    pub fn next_step(&mut self) -> Step {
        if self.rng.random_bool(self.mix.ddl) {
            return Step::Ddl(self.catalog.next_ddl(&mut self.rng));
        }
        if self.rng.random_bool(self.mix.big) {
            return self.big_transaction();
        }
        self.transaction()
    }

    /// Runs the next `count` steps on the source.
    pub async fn run(&mut self, db: &mut Db, count: usize) {
        for _ in 0..count {
            match self.next_step() {
                Step::Ddl(sql) => db.run(&sql).await,
                Step::Transaction(statements) => {
                    db.run("BEGIN").await;
                    for sql in &statements {
                        if let Some(number) = db.error_number(sql).await {
                            assert!(TOLERATED.contains(&number), "SEED={}: error {number} from {sql}", self.seed);
                        }
                    }
                }
            }
        }
    }

    fn transaction(&mut self) -> Step {
        let mut statements = Vec::new();
        let mut savepoint = false;
        for _ in 0..self.rng.random_range(1..=6) {
            if self.rng.random_bool(0.05) {
                statements.push("SAVEPOINT here".to_owned());
                savepoint = true;
            }
            self.change(&mut statements);
            if savepoint && self.rng.random_bool(0.3) {
                statements.push("ROLLBACK TO SAVEPOINT here".to_owned());
            }
        }
        statements.push(if self.rng.random_bool(0.05) { "ROLLBACK" } else { "COMMIT" }.to_owned());
        Step::Transaction(statements)
    }

    /// One change of one table, up to 50 rows.
    fn change(&mut self, statements: &mut Vec<String>) {
        let table = TABLES[self.rng.random_range(0..TABLES.len())];
        if let Some(sql) = self.catalog.touch_extra_column(&mut self.rng, table) {
            statements.push(sql);
        }
        statements.extend(self.catalog.touch_extra_table(&mut self.rng));
        let sql = match self.rng.random_range(0..10) {
            0..=4 => self.insert(table),
            5..=7 => self.update(table),
            _ => self.delete(table),
        };
        statements.push(sql);
    }

    fn insert(&mut self, table: Table) -> String {
        let count = if self.rng.random_bool(0.1) { 50 } else { self.rng.random_range(1..=8) };
        let rows: Vec<String> = (0..count).map(|_| table_row(&mut self.rng, table)).collect();
        let columns = table.columns().join(", ");
        let list = rows.join(", ");
        match self.rng.random_range(0..3) {
            0 => format!("REPLACE INTO {} ({columns}) VALUES {list}", table.name()),
            1 => {
                let last = table.columns().last().copied().unwrap_or("id");
                format!(
                    "INSERT INTO {} ({columns}) VALUES {list} ON DUPLICATE KEY UPDATE {last} = VALUES({last})",
                    table.name()
                )
            }
            _ => format!("INSERT IGNORE INTO {} ({columns}) VALUES {list}", table.name()),
        }
    }

    fn update(&mut self, table: Table) -> String {
        let rng = &mut self.rng;
        let (low, shift) = (number(rng), rng.random_range(1..50));
        let high = low + rng.random_range(0..20);
        let text = quoted(rng);
        let other = rng.random_range(0..3) == 0;
        match (table, other) {
            // A key that moves: to another lane, and onto a key that another row has just left.
            (Table::Plain, true) => {
                format!("UPDATE plain SET id = id + 1 WHERE id BETWEEN {low} AND {high} ORDER BY id DESC")
            }
            (Table::Plain, false) => {
                format!("UPDATE plain SET a = a + {shift}, b = {text} WHERE id BETWEEN {low} AND {high}")
            }
            (Table::Pair, true) => format!("UPDATE IGNORE pair SET a = a + {shift} WHERE a = {low}"),
            (Table::Pair, false) => format!("UPDATE pair SET v = {text} WHERE a BETWEEN {low} AND {high}"),
            (Table::Folded, true) => {
                format!("UPDATE folded SET name = UPPER(name), v = {shift} WHERE v BETWEEN {low} AND {high}")
            }
            (Table::Folded, false) => format!("UPDATE folded SET v = v + 1 WHERE v BETWEEN {low} AND {high}"),
            // A chain: each row takes the value the next one has just left.
            (Table::Uniques, true) => format!("UPDATE uniques SET u1 = u1 + 1 WHERE u1 >= {low} ORDER BY u1 DESC"),
            (Table::Uniques, false) => {
                format!("UPDATE IGNORE uniques SET u1 = NULL, u2 = {text} WHERE id BETWEEN {low} AND {high} LIMIT 3")
            }
            (Table::Keyless, true) => format!("UPDATE keyless SET c = c * 1.5 WHERE a = {low}"),
            (Table::Keyless, false) => {
                format!("UPDATE keyless SET b = {text} WHERE a BETWEEN {low} AND {high} LIMIT 5")
            }
            (Table::LooseKey, _) => {
                format!("UPDATE IGNORE loose_key SET b = NULLIF({shift}, 7), v = {text} WHERE a = {low}")
            }
            (Table::Wide, _) => {
                format!("UPDATE wide SET f = f / 3, d = d * 1.1, t = {text} WHERE id BETWEEN {low} AND {high}")
            }
        }
    }

    fn delete(&mut self, table: Table) -> String {
        let low = number(&mut self.rng);
        let high = low + self.rng.random_range(0..10);
        let name = table.name();
        match table {
            Table::Plain | Table::Uniques | Table::Wide => {
                format!("DELETE FROM {name} WHERE id BETWEEN {low} AND {high}")
            }
            Table::Folded => format!("DELETE FROM folded WHERE v BETWEEN {low} AND {high}"),
            Table::Pair | Table::LooseKey => format!("DELETE FROM {name} WHERE a BETWEEN {low} AND {high}"),
            // Of equal rows only some.
            Table::Keyless => format!("DELETE FROM keyless WHERE a BETWEEN {low} AND {high} LIMIT 3"),
        }
    }

    /// Thousands of rows in one transaction, in few statements.
    fn big_transaction(&mut self) -> Step {
        let thousands = self.rng.random_range(1..=5);
        let base = 10_000 + 1_000 * number(&mut self.rng);
        let digits = "(SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                      SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
        let source = format!("{digits} a, {digits} b, {digits} c, {digits} d WHERE d.n < {thousands}");
        let value = "a.n + 10 * b.n + 100 * c.n + 1000 * d.n";
        let mut statements = vec![
            format!("REPLACE INTO plain (id, a, b) SELECT {base} + {value}, {value}, REPEAT('x', a.n) FROM {source}"),
            format!("INSERT INTO keyless (a, b, c) SELECT 1000 + b.n, 'big', a.n / 3 FROM {source} AND c.n = 0"),
        ];
        if self.rng.random_bool(0.5) {
            statements.push(format!("DELETE FROM plain WHERE id BETWEEN {base} AND {base} + 900"));
            statements.push("DELETE FROM keyless WHERE a >= 1000".to_owned());
        }
        statements.push("COMMIT".to_owned());
        Step::Transaction(statements)
    }
}
