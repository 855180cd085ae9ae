//! A look at both ends: which tables the task wants, and what source and target look like.
//!
//! A look is of no single instant: a structure may change while it is taken. So what was made from one look is compared with
//! the next one, and whatever differs is left to the statement that explains it, which the binlog has behind L0.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::source::{Source, answered, query_failed};
use super::spec::CopySpec;
use super::structure::{self, Structure, text};
use crate::downstream::Downstream;
use crate::error::{Code, Failure, Scope, driver_failure};
use crate::model::{SourceTable, TableName, TargetTable};

/// Schemas that are the servers' own.
pub(super) const SYSTEM: &str = "'mysql','information_schema','performance_schema','sys'";

/// A table that the task wants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub source: SourceTable,
    pub target: TargetTable,
    pub view: bool,
    pub transactional: bool,
    /// The source's estimates.
    pub rows: u64,
    pub bytes: u64,
}

/// What both sides look like: structures by schema and table.
pub(super) type Landscape = HashMap<String, HashMap<String, Structure>>;

/// Both ends at one look.
pub(super) struct Look {
    pub wanted: Vec<Wanted>,
    /// Wanted, and not to be had by the binlog: it has columns that the structure does not show.
    pub versioned: Vec<SourceTable>,
    /// Wanted, and no tables.
    pub sequences: Vec<SourceTable>,
    /// Tables that the task does not want.
    pub others: usize,
    pub here: Landscape,
    pub there: Landscape,
}

impl Look {
    /// The source is looked at first: what it has, the target may have got meanwhile, and not the other way round.
    pub async fn take(spec: &CopySpec, source: &Source, downstream: &Downstream) -> Result<Look, Failure> {
        let mut from = source.connect().await?;
        let Seen { wanted, versioned, sequences, others } = seen(spec, &mut from).await?;
        let here = structures(&mut from, &wanted, |wanted| &wanted.source.0).await.map_err(of_source)?;
        let mut to = downstream.connect().await?;
        let there = structures(&mut to, &wanted, |wanted| &wanted.target.0).await.map_err(of_target)?;
        Ok(Look { wanted, versioned, sequences, others, here, there })
    }

    /// Tables and views without a target.
    pub fn missing(&self) -> Vec<Wanted> {
        self.wanted.iter().filter(|wanted| structure_of(&self.there, &wanted.target.0).is_none()).cloned().collect()
    }

    /// Tables with what they look like; without those that were gone before that could be seen.
    pub fn tables(&self) -> impl Iterator<Item = (&Wanted, &Structure)> {
        let tables = self.wanted.iter().filter(|wanted| !wanted.view);
        tables.filter_map(|wanted| Some((wanted, structure_of(&self.here, &wanted.source.0)?)))
    }

    /// What the target of a table looks like.
    pub fn target(&self, wanted: &Wanted) -> Option<&Structure> {
        structure_of(&self.there, &wanted.target.0)
    }

    /// How many tables go into each target.
    pub fn shares(&self) -> HashMap<&TargetTable, usize> {
        let mut into: HashMap<&TargetTable, usize> = HashMap::new();
        self.wanted
            .iter()
            .filter(|wanted| !wanted.view)
            .for_each(|wanted| *into.entry(&wanted.target).or_default() += 1);
        into
    }
}

/// What the source has, and the task wants or not.
#[derive(Default)]
struct Seen {
    wanted: Vec<Wanted>,
    versioned: Vec<SourceTable>,
    sequences: Vec<SourceTable>,
    others: usize,
}

async fn seen(spec: &CopySpec, conn: &mut Conn) -> Result<Seen, Failure> {
    let sql = format!(
        "SELECT t.table_schema, t.table_name, t.table_type, COALESCE(e.transactions,'NO'), COALESCE(t.table_rows,0), \
         COALESCE(t.data_length,0) FROM information_schema.tables t LEFT JOIN information_schema.engines e ON \
         e.engine=t.engine WHERE t.table_schema NOT IN ({SYSTEM}) ORDER BY t.table_schema, t.table_name"
    );
    let rows: Vec<Row> = answered(conn.query(sql.as_str())).await.map_err(|error| query_failed(&error, &sql))?;
    let mut seen = Seen::default();
    for row in &rows {
        let column = |at| text(row, at).unwrap_or_default();
        let source = SourceTable(TableName::new(column(0), column(1)));
        let Some(target) = spec.guide.target(&source)? else {
            seen.others += 1;
            continue;
        };
        let view = match column(2).as_str() {
            "BASE TABLE" => false,
            "VIEW" if spec.options.views => true,
            // MariaDB's.
            "SYSTEM VERSIONED" => {
                seen.versioned.push(source);
                continue;
            }
            "SEQUENCE" => {
                seen.sequences.push(source);
                continue;
            }
            _ => continue,
        };
        seen.wanted.push(Wanted {
            source,
            target,
            view,
            transactional: column(3) == "YES",
            rows: column(4).parse().unwrap_or_default(),
            bytes: column(5).parse().unwrap_or_default(),
        });
    }
    Ok(seen)
}

pub(super) fn of_source(error: mysql_async::Error) -> Failure {
    query_failed(&error, "read the structures of the source's tables")
}

pub(super) fn of_target(error: mysql_async::Error) -> Failure {
    driver_failure(
        &error,
        Code::ReadDownstreamTable,
        Scope::Downstream,
        "read the structures of the downstream's tables",
    )
}

pub(super) fn structure_of<'a>(landscape: &'a Landscape, table: &TableName) -> Option<&'a Structure> {
    let tables = landscape.get(&*table.schema)?;
    // A server that does not tell names apart by case prints them in lower case.
    tables.get(&*table.table).or_else(|| tables.get(&table.table.to_lowercase()))
}

pub(super) async fn structures(
    conn: &mut Conn,
    wanted: &[Wanted],
    side: impl Fn(&Wanted) -> &TableName,
) -> Result<Landscape, mysql_async::Error> {
    let mut by_schema: BTreeMap<String, usize> = BTreeMap::new();
    wanted.iter().for_each(|wanted| *by_schema.entry(side(wanted).schema.to_string()).or_default() += 1);
    let mut landscape = Landscape::new();
    for schema in by_schema.into_keys() {
        let tables = structure::read(conn, &schema, None).await?;
        landscape.insert(schema, tables);
    }
    Ok(landscape)
}

/// Tables of a server whose engine has no transactions.
pub(super) async fn loose_tables(conn: &mut Conn) -> Result<BTreeSet<TableName>, mysql_async::Error> {
    let sql = format!(
        "SELECT t.table_schema, t.table_name FROM information_schema.tables t JOIN information_schema.engines e ON \
         e.engine=t.engine WHERE t.table_schema NOT IN ({SYSTEM}) AND COALESCE(e.transactions,'NO')<>'YES'"
    );
    let rows: Vec<Row> = answered(conn.query(sql)).await?;
    let name = |row: &Row| {
        let column = |at| text(row, at).unwrap_or_default();
        TableName::new(column(0), column(1))
    };
    Ok(rows.iter().map(name).collect())
}
