//! The binding of one table map to its downstream table.
//!
//! Invariants: a column is found by name where the source writes names or an operator gave them, else by place, and then the counts must agree:
//! never a guess. What decides a row's lane ([`LaneRule`]) depends only on the downstream structure, which changes only
//! at a drained point, so that a replay after a crash sends each row to the lane it went to before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::charset::{charset_of_collation, is_single_byte, reads_alike};
use super::origin::{OriginColumn, OriginTable};
use super::structure::{ColumnStructure, Dialect, TableStructure};
use crate::model::{SourceTable, TargetTable};
use crate::row::{Column, ColumnKind, TableLayout};

/// How many of the lowest bits of a whole number in a key do not count for the lane: rows of 256 neighbouring keys fill a few
/// pages of the table, which only one lane writes to then. Stored with the mapping, so it may be changed.
const RUN_BITS: u32 = 8;

/// MySQL's name for a primary key that it makes up.
const GENERATED_KEY: &str = "my_row_id";

/// Why a table map and a downstream table do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The downstream has another number of columns, and the source does not write names.
    #[error("Column count doesn't match value count: {columns} (columns) vs {values} (values)")]
    ColumnCount {
        /// Columns of the downstream table.
        columns: usize,
        /// Columns in the row image.
        values: usize,
    },
    /// After an interruption nobody could tell which of its changes are done, and doing them twice would show.
    #[error("it has no key, and its engine {engine} has no transactions: after an interruption rows would come twice")]
    NeitherKeyNorTransactions {
        /// Engine of the downstream table.
        engine: String,
    },
    /// The source wrote no character set, has another one than the downstream, and was altered since.
    #[error(
        "column `{name}` is {now} on the source and {here} downstream, the source has altered the table since, and its \
         binlog does not say what it was (binlog_row_metadata)"
    )]
    CharsetUnknown {
        /// Downstream name.
        name: String,
        /// On the source now.
        now: &'static str,
        /// Downstream.
        here: &'static str,
    },
    /// A column of the source is not in the downstream table.
    #[error("column `{name}` is not in the downstream table")]
    NoSuchColumn {
        /// Its name.
        name: String,
    },
}

/// How a value of a column is written as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// By the value's own kind: numbers, times, ENUM and SET by number.
    Plain,
    /// Integers that are unsigned although the binlog does not say so.
    Unsigned(ColumnKind),
    /// Text in this character set.
    Text(&'static str),
    /// Text in UTF-8 where its bytes are that, else in this character set, which has one byte a character: which of both
    /// the column had cannot be told any more.
    Utf8Or(&'static str),
    /// Bytes, padded with zeros to this length (BINARY(n)), or as they are.
    Binary {
        /// Length to pad to; 0 for none.
        pad: usize,
    },
    /// MySQL's binary JSON.
    Json,
    /// MariaDB's UUID.
    Uuid,
    /// MariaDB's INET6 (16 bytes) or INET4 (4 bytes).
    Inet {
        /// 16 or 4.
        bytes: usize,
    },
}

/// One column of a row image, bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundColumn {
    /// Downstream name in backticks.
    pub quoted: String,
    /// How values are written.
    pub encoding: Encoding,
    /// False for generated columns: never written, only compared.
    pub writable: bool,
    /// For textual columns: their downstream character set, to compare byte for byte.
    pub text_charset: Option<String>,
    /// And their collation there.
    pub text_collation: Option<String>,
    /// Equal values have equal bytes (trailing spaces aside).
    pub compares_by_bytes: bool,
    /// See [`ColumnStructure::formatted`].
    pub formatted: bool,
}

/// How a row's lane is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneRule {
    /// By a hash of these key columns of the row.
    Spread(Vec<usize>),
    /// In runs of neighbours, one run a lane in turn: lanes that write to the same pages wait for each other.
    Runs {
        /// The key's last column, a whole number, whose lowest bits do not count.
        column: usize,
        /// How many of them.
        bits: u32,
        /// The key columns before it, which are hashed.
        hashed: Vec<usize>,
    },
    /// All rows of the table go to one lane: it has no key, another unique key, or a key that compares equal for
    /// different bytes.
    Pinned,
}

/// A table map and the downstream table its rows go to.
#[derive(Debug)]
pub struct BoundTable {
    /// Upstream table.
    pub source: SourceTable,
    /// Downstream table.
    pub target: TargetTable,
    /// Shape of the row images.
    pub layout: Arc<TableLayout>,
    /// One for each column of the layout.
    pub columns: Vec<BoundColumn>,
    /// Layout columns that identify a row; `None` where only all values do.
    pub identity: Option<Vec<usize>>,
    /// The layout column that is the whole primary key downstream, where that is a whole number on both sides.
    pub whole_primary: Option<usize>,
    /// Layout columns of other unique keys, sorted.
    pub other_unique: Vec<usize>,
    /// How a row's lane is found.
    pub lane_rule: LaneRule,
    /// Some rows that are on the source may be missing downstream, since filters leave changes out: outside safe mode each
    /// change is sent as it is, in source order, and need not meet a row.
    pub selective: bool,
    /// What is hashed for it begins with this: the target's name.
    pub lane_prefix: Vec<u8>,
    /// The downstream's SQL.
    pub dialect: Dialect,
    /// The engine, where it has no transactions: what is done of its changes is then not known after an interruption.
    pub loose_engine: Option<String>,
}

/// What of a table decides which lane its changes go to, by names of downstream columns, in backticks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRule {
    /// Columns that identify a row; `None` where only all values do.
    identity: Option<Vec<String>>,
    /// What rows are spread by; `None` where all go to one lane.
    spread: Option<SpreadRule>,
}

/// A [`LaneRule`] that spreads rows, by names. Each form is stored so that a version which does not know it cannot read it:
/// it would send rows to other lanes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SpreadRule {
    Hash(Vec<String>),
    Runs { column: String, bits: u32, hashed: Vec<String> },
}

impl BoundTable {
    /// Its rule.
    pub fn rule(&self) -> TableRule {
        let name = |column: &usize| self.columns[*column].quoted.clone();
        let names = |columns: &Vec<usize>| columns.iter().map(name).collect();
        let spread = match &self.lane_rule {
            LaneRule::Spread(columns) => Some(SpreadRule::Hash(names(columns))),
            LaneRule::Runs { column, bits, hashed } => {
                Some(SpreadRule::Runs { column: name(column), bits: *bits, hashed: names(hashed) })
            }
            LaneRule::Pinned => None,
        };
        TableRule { identity: self.identity.as_ref().map(names), spread }
    }

    /// Deals its changes out by a rule of before, whatever the table looks like now.
    pub fn follow(&mut self, rule: &TableRule) -> Result<(), BindError> {
        let place = |name: &String| {
            let known = self.columns.iter().position(|column| column.quoted == *name);
            known.ok_or_else(|| BindError::NoSuchColumn { name: name.trim_matches('`').replace("``", "`") })
        };
        let places = |names: &Vec<String>| names.iter().map(place).collect::<Result<Vec<usize>, _>>();
        let identity = rule.identity.as_ref().map(places).transpose()?;
        let lane_rule = match &rule.spread {
            Some(SpreadRule::Hash(columns)) => LaneRule::Spread(places(columns)?),
            Some(SpreadRule::Runs { column, bits, hashed }) => {
                LaneRule::Runs { column: place(column)?, bits: *bits, hashed: places(hashed)? }
            }
            None => LaneRule::Pinned,
        };
        (self.identity, self.lane_rule) = (identity, lane_rule);
        Ok(())
    }

    /// Makes it one of which filters leave changes out. A sum of changes would be another thing then (an update that meets
    /// no row must not make one), and an update that changes the key leads nowhere: all of it goes to one lane.
    pub fn make_selective(&mut self) {
        (self.selective, self.lane_rule) = (true, LaneRule::Pinned);
    }

    /// Whether source order must be kept row by row: there is no key to tell rows apart.
    pub fn is_ordered(&self) -> bool {
        self.identity.is_none()
    }
}

/// Binds a layout to a downstream table. What the layout does not say is as it is downstream, which DDL keeps equal.
pub fn bind(
    layout: &Arc<TableLayout>,
    target: &TargetTable,
    structure: &TableStructure,
    dialect: Dialect,
) -> Result<BoundTable, BindError> {
    bind_with(layout, target, structure, dialect, None)
}

/// As [`bind`]; what the layout does not say, `origin` does.
pub fn bind_with(
    layout: &Arc<TableLayout>,
    target: &TargetTable,
    structure: &TableStructure,
    dialect: Dialect,
    origin: Option<&OriginTable>,
) -> Result<BoundTable, BindError> {
    let places = places(layout, structure, origin)?;
    let known = |at: usize, name: &str| {
        let origin = origin?;
        origin.column(at, layout.columns.len(), name).map(|column| (column, origin.holds))
    };
    let columns = layout.columns.iter().zip(&places).enumerate().map(|(at, (column, &place))| {
        let structure = &structure.columns[place];
        bound_column(column, structure, known(at, &structure.name))
    });
    let columns: Vec<BoundColumn> = columns.collect::<Result<_, _>>()?;
    let in_layout = |place: usize| places.iter().position(|&p| p == place);
    let to_layout = |columns: Vec<usize>| columns.into_iter().map(in_layout).collect::<Option<Vec<usize>>>();
    let key = structure.identity();
    let mut other_unique: Vec<usize> =
        structure.other_unique_columns(key.as_deref().unwrap_or(&[])).into_iter().filter_map(in_layout).collect();
    other_unique.sort_unstable();
    let identity = key.and_then(to_layout);
    if let (None, Some(engine)) = (&identity, &structure.loose_engine) {
        return Err(BindError::NeitherKeyNorTransactions { engine: engine.clone() });
    }
    let whole_primary =
        structure.whole_primary().and_then(in_layout).filter(|&at| layout.columns[at].kind.is_integer());
    let lane_rule = match structure.has_prefix_primary_key() {
        true => LaneRule::Pinned,
        false => {
            let neighbours = structure.has_small_rows();
            let whole = |column: &usize| neighbours && structure.columns[places[*column]].is_whole_number();
            lane_rule(&columns, identity.as_deref(), &other_unique, whole)
        }
    };
    Ok(BoundTable {
        source: layout.source.clone(),
        target: target.clone(),
        layout: Arc::clone(layout),
        columns,
        identity,
        whole_primary,
        other_unique,
        lane_rule,
        selective: false,
        lane_prefix: [target.0.schema.as_bytes(), b"\0", target.0.table.as_bytes()].concat(),
        dialect,
        loose_engine: structure.loose_engine.clone(),
    })
}

/// For each column of the layout, its place in the structure.
fn places(
    layout: &TableLayout,
    structure: &TableStructure,
    origin: Option<&OriginTable>,
) -> Result<Vec<usize>, BindError> {
    let place = |name: &str| {
        let same = |column: &ColumnStructure| column.name.to_lowercase() == name.to_lowercase();
        let missing = || BindError::NoSuchColumn { name: name.to_owned() };
        structure.columns.iter().position(same).ok_or_else(missing)
    };
    if let Some(names) = &layout.names {
        return names.iter().map(|name| place(name)).collect();
    }
    let values = layout.columns.len();
    if let Some(named) = origin.filter(|origin| origin.by_name) {
        if named.columns.len() != values {
            return Err(BindError::ColumnCount { columns: named.columns.len(), values });
        }
        return named.columns.iter().map(|column| place(&column.name)).collect();
    }
    let columns = structure.columns.len();
    // A key that the downstream made up by itself (`sql_generate_invisible_primary_key`) is no column of the source's.
    let made_up = structure.columns.first().is_some_and(|first| first.name == GENERATED_KEY) && columns == values + 1;
    if columns != values && !made_up {
        return Err(BindError::ColumnCount { columns, values });
    }
    Ok((usize::from(made_up)..columns).collect())
}

/// `counts` says whether neighbouring values of a column are neighbours in the table.
fn lane_rule(
    columns: &[BoundColumn],
    identity: Option<&[usize]>,
    other_unique: &[usize],
    counts: impl Fn(&usize) -> bool,
) -> LaneRule {
    let Some(identity) = identity.filter(|_| other_unique.is_empty()) else { return LaneRule::Pinned };
    let safe = |columns_of: &[usize]| -> Vec<usize> {
        columns_of.iter().copied().filter(|&column| columns[column].compares_by_bytes).collect()
    };
    if let Some((column, before)) = identity.split_last()
        && counts(column)
    {
        return LaneRule::Runs { column: *column, bits: RUN_BITS, hashed: safe(before) };
    }
    let safe = safe(identity);
    if safe.is_empty() { LaneRule::Pinned } else { LaneRule::Spread(safe) }
}

fn bound_column(
    column: &Column,
    structure: &ColumnStructure,
    origin: Option<(&OriginColumn, bool)>,
) -> Result<BoundColumn, BindError> {
    let encoding = encoding(column, structure, origin)?;
    Ok(BoundColumn {
        quoted: format!("`{}`", structure.name.replace('`', "``")),
        text_charset: structure.charset.clone().filter(|_| encoding.is_text()),
        text_collation: structure.collation.clone().filter(|_| encoding.is_text()),
        encoding,
        writable: !structure.generated,
        compares_by_bytes: structure.compares_by_bytes(),
        formatted: structure.formatted,
    })
}

fn encoding(
    column: &Column,
    structure: &ColumnStructure,
    origin: Option<(&OriginColumn, bool)>,
) -> Result<Encoding, BindError> {
    use ColumnKind as K;
    Ok(match column.kind {
        K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt => match column.unsigned {
            None if origin.and_then(|(origin, _)| origin.unsigned).unwrap_or(structure.unsigned) => {
                Encoding::Unsigned(column.kind)
            }
            _ => Encoding::Plain,
        },
        K::Char { max_bytes } => match type_without_text(&structure.data_type).or_else(|| {
            // Into a column of bytes go the bytes, into one of text the text.
            let texts = structure.charset.is_some();
            origin.and_then(|(origin, _)| type_without_text(&origin.data_type)).filter(|_| texts)
        }) {
            Some(encoding) => encoding,
            None => text_or_binary(column, structure, usize::from(max_bytes), origin)?,
        },
        K::VarChar { .. } | K::Blob { .. } | K::CompressedVarChar { .. } | K::CompressedBlob { .. } => {
            text_or_binary(column, structure, 0, origin)?
        }
        K::Geometry { .. } | K::Vector { .. } => Encoding::Binary { pad: 0 },
        K::Json { .. } => Encoding::Json,
        _ => Encoding::Plain,
    })
}

/// MariaDB's types that are bytes in the binlog and text everywhere else.
fn type_without_text(data_type: &str) -> Option<Encoding> {
    match data_type {
        "uuid" => Some(Encoding::Uuid),
        "inet6" => Some(Encoding::Inet { bytes: 16 }),
        "inet4" => Some(Encoding::Inet { bytes: 4 }),
        _ => None,
    }
}

/// The source's metadata says what the bytes are; where it does not, the source's table, if it says the same as the
/// downstream column or has not changed since; else the downstream column, which DDL keeps equal.
fn text_or_binary(
    column: &Column,
    structure: &ColumnStructure,
    pad: usize,
    origin: Option<(&OriginColumn, bool)>,
) -> Result<Encoding, BindError> {
    let here = structure.charset.as_deref().map(static_charset);
    let now = || origin.map(|(origin, holds)| (origin.charset.as_deref().map(static_charset), holds));
    let charset = match column.collation.and_then(charset_of_collation) {
        Some(charset) => Some(charset),
        // MariaDB's JSON is text, and MySQL's takes no other.
        None if structure.data_type == "json" => Some("utf8mb4"),
        None => match (now(), here) {
            (Some((now, true)), Some(_)) => now,
            (Some((Some(now), false)), Some(here)) if !reads_alike(now, here) => {
                let unsure = |name: &str| BindError::CharsetUnknown { name: name.to_owned(), now, here };
                return either(now, here).ok_or_else(|| unsure(&structure.name));
            }
            _ => here,
        },
    };
    Ok(match charset {
        None | Some("binary") => Encoding::Binary { pad },
        Some(charset) => Encoding::Text(charset),
    })
}

/// Text that is valid UTF-8 beyond ASCII is hardly ever meant in an 8-bit character set, and the others are never UTF-8.
fn either(one: &'static str, other: &'static str) -> Option<Encoding> {
    let utf8 = |name: &str| matches!(name, "utf8mb3" | "utf8mb4");
    match (utf8(one), utf8(other)) {
        (true, false) if is_single_byte(other) => Some(Encoding::Utf8Or(other)),
        (false, true) if is_single_byte(one) => Some(Encoding::Utf8Or(one)),
        _ => None,
    }
}

impl Encoding {
    /// Whether values are texts that the server converts to the column's character set.
    pub fn is_text(&self) -> bool {
        matches!(self, Encoding::Text(_) | Encoding::Utf8Or(_))
    }
}

/// The known name equal to `name`; an unknown character set is written as utf8mb4 text, and the server judges it.
fn static_charset(name: &str) -> &'static str {
    if name == "utf8" {
        return "utf8mb3";
    }
    (1..=255).find_map(|id| charset_of_collation(id).filter(|known| *known == name)).unwrap_or("utf8mb4")
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
