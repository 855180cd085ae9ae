//! Statements on the tables of an online DDL tool (see [`crate::transform::online`]): what is to be remembered of them, and
//! when a shadow table takes the real one's place.

use super::super::online::TableType;
use super::cursor::{Edit, NameRef};
use super::parsed::{EachStatement, Parsed, Role, TableStatement};
use super::plan::{Planner, edited, skipped, unwanted};
use super::{DdlKind, DdlPlan, TargetStatement};
use crate::error::{Code, Failure};
use crate::model::{SourceTable, TableName};

/// What one of a tool's statements, or a part of it, comes to. Shadow and real tables are the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnlineStep {
    /// A part that is about other tables is run.
    Run(Box<TargetStatement>),
    /// A shadow of `real` was created: what was done to an earlier one of that name does not count.
    Begin {
        /// The shadow.
        shadow: SourceTable,
        /// What it is to become.
        real: SourceTable,
    },
    /// The shadow was changed: `text` is to be run on the real table when the two change places.
    Record {
        /// The shadow.
        shadow: SourceTable,
        /// What it is to become.
        real: SourceTable,
        /// The statement, all names qualified, the shadow's among them.
        text: String,
    },
    /// A table gets a name as a tool gives it to what it leaves behind, and no shadow its place: it stays downstream.
    Stays {
        /// Its name before.
        real: SourceTable,
        /// Its name now.
        renamed: SourceTable,
    },
    /// The shadow is gone.
    Forget {
        /// The shadow.
        shadow: SourceTable,
    },
    /// The shadow becomes `real`.
    Swap {
        /// The shadow.
        shadow: SourceTable,
        /// What it is called from now on.
        real: SourceTable,
    },
}

impl Planner<'_> {
    /// What becomes of a statement on a tool's tables; `None` where it concerns none.
    pub(super) fn online(&self, parsed: &Parsed) -> Result<Option<DdlPlan>, Failure> {
        if self.transform.online.is_off() {
            return Ok(None);
        }
        match parsed {
            Parsed::Table(statement) if statement.kind == DdlKind::AlterTable && statement.only_names => {
                let names = statement.tables.iter().map(|(_, name)| name.clone()).collect();
                self.online_renames(&[names], None)
            }
            Parsed::Table(statement) => self.online_table(statement),
            Parsed::Each(statement) if statement.kind == DdlKind::RenameTable => {
                self.online_renames(&statement.items, Some(statement))
            }
            Parsed::Each(statement) => self.online_drops(statement),
            Parsed::Skipped(_) | Parsed::Dml(_) | Parsed::Schema(_) | Parsed::Prefixed(_) => Ok(None),
        }
    }

    fn online_table(&self, statement: &TableStatement) -> Result<Option<DdlPlan>, Failure> {
        // A name without a schema is complained of elsewhere.
        let Some(Ok(own)) = statement.tables.first().map(|(_, name)| self.resolve(name, self.input.schema)) else {
            return Ok(None);
        };
        let others = statement.tables.iter().skip(1).filter(|(role, _)| *role != Role::Mentioned);
        match self.transform.online.type_of(&own.0.table) {
            TableType::Real => {
                let of_a_tool = |name: &NameRef| !self.transform.online.is_real(&name.name);
                let Some((_, other)) = others.into_iter().find(|(_, name)| of_a_tool(name)) else { return Ok(None) };
                if self.transform.table(&own)?.is_none() {
                    return Ok(None);
                }
                let what = format!("table `{}` in it belongs to an online DDL tool and is not replicated", other.name);
                self.refuse(Code::ParseDdl, &what).map(Some)
            }
            TableType::Trash(_) => Ok(Some(left_behind(&own))),
            TableType::Shadow(real) => {
                let real = beside(&own, &real);
                if self.transform.table(&real)?.is_none() {
                    return Ok(Some(unwanted(&real)));
                }
                let step = match statement.kind {
                    DdlKind::CreateTable => OnlineStep::Begin { shadow: own, real },
                    DdlKind::TruncateTable => return Ok(Some(skipped(format!("the rows of {own} are a tool's")))),
                    _ if others.count() > 0 => {
                        let what = "it is about a shadow table of an online DDL tool and another one at once";
                        return self.refuse(Code::ParseDdl, what).map(Some);
                    }
                    _ => OnlineStep::Record { text: self.qualified(statement, &own)?, shadow: own, real },
                };
                Ok(Some(DdlPlan::Online(vec![step])))
            }
        }
    }

    /// The text with all names as the source means them.
    fn qualified(&self, statement: &TableStatement, own: &SourceTable) -> Result<String, Failure> {
        let mut edits = statement.edits.clone();
        for (role, name) in &statement.tables {
            let default = if *role == Role::Mentioned { &own.0.schema } else { self.input.schema };
            edits.push(Edit { span: name.span.clone(), text: self.resolve(name, default)?.to_string() });
        }
        Ok(edited(self.text, edits))
    }

    fn online_drops(&self, statement: &EachStatement) -> Result<Option<DdlPlan>, Failure> {
        let online = &self.transform.online;
        if statement.items.iter().flatten().all(|name| online.is_real(&name.name)) {
            return Ok(None);
        }
        let (mut steps, mut reason) = (Vec::new(), DdlPlan::Online(Vec::new()));
        for item in &statement.items {
            let Some(name) = item.first() else { continue };
            let table = self.resolve(name, self.input.schema)?;
            match online.type_of(&name.name) {
                TableType::Real => reason = self.beside_others(statement, item, &mut steps)?,
                TableType::Trash(_) => reason = left_behind(&table),
                TableType::Shadow(real) => {
                    let real = beside(&table, &real);
                    match self.transform.table(&real)? {
                        Some(_) => steps.push(OnlineStep::Forget { shadow: table }),
                        None => reason = unwanted(&real),
                    }
                }
            }
        }
        Ok(Some(if steps.is_empty() { reason } else { DdlPlan::Online(steps) }))
    }

    /// Plans an item on tables that are no tool's.
    fn beside_others(
        &self,
        statement: &EachStatement,
        item: &[NameRef],
        steps: &mut Vec<OnlineStep>,
    ) -> Result<DdlPlan, Failure> {
        let plan = self.item(statement, item)?;
        if let DdlPlan::Run(run) = &plan {
            steps.extend(run.iter().cloned().map(Box::new).map(OnlineStep::Run));
        }
        Ok(plan)
    }

    /// `whole` is what the pairs stand in, unless it is one ALTER TABLE.
    fn online_renames(
        &self,
        pairs: &[Vec<NameRef>],
        whole: Option<&EachStatement>,
    ) -> Result<Option<DdlPlan>, Failure> {
        if pairs.iter().flatten().all(|name| self.transform.online.is_real(&name.name)) {
            return Ok(None);
        }
        let pairs: Vec<Rename> = pairs.iter().map(|pair| self.rename(pair)).collect::<Result<_, _>>()?;
        if let [first, second] = pairs.as_slice() {
            self.check_rules(first, second)?;
        }
        let (mut steps, mut reason) = (Vec::new(), DdlPlan::Online(Vec::new()));
        let given: Vec<SourceTable> = pairs.iter().map(|pair| pair.to.clone()).collect();
        for (place, Rename { from, to, types }) in pairs.into_iter().enumerate() {
            let wanted = |table: &SourceTable| self.transform.table(table).map(|target| target.is_some());
            match types {
                [TableType::Real, TableType::Real] => {
                    let item = whole.and_then(|whole| Some((whole, whole.items.get(place)?)));
                    if let Some((whole, item)) = item {
                        reason = self.beside_others(whole, item, &mut steps)?;
                    }
                }
                [TableType::Shadow(_), TableType::Real] => match wanted(&to)? {
                    true => steps.push(OnlineStep::Swap { shadow: from, real: to }),
                    false => reason = unwanted(&to),
                },
                [TableType::Shadow(real), TableType::Trash(_)] => match wanted(&beside(&from, &real))? {
                    true => steps.push(OnlineStep::Forget { shadow: from }),
                    false => reason = unwanted(&from),
                },
                [TableType::Real, TableType::Shadow(_)] if wanted(&from)? => {
                    let statement = self.shown(Code::ParseDdl);
                    let text = format!("rename table to gh-ost temporary table {statement} not supported");
                    return Err(Failure::new(Code::RenameToShadow, text).workaround(BY_HAND));
                }
                [TableType::Shadow(real) | TableType::Trash(real), TableType::Shadow(_)]
                    if wanted(&beside(&from, &real))? =>
                {
                    let statement = self.shown(Code::ParseDdl);
                    let text =
                        format!("rename gh-ost temporary table to other temporary table {statement} not supported");
                    return Err(Failure::new(Code::RenameShadowToOther, text).workaround(BY_HAND));
                }
                [TableType::Real, TableType::Trash(_)] if !given.contains(&from) && wanted(&from)? => {
                    steps.push(OnlineStep::Stays { real: from, renamed: to });
                }
                // Moved out of the way, or an unwanted table.
                [_, TableType::Trash(_) | TableType::Shadow(_)] => reason = left_behind(&to),
                [TableType::Trash(_), TableType::Real] => reason = left_behind(&from),
            }
        }
        Ok(Some(if steps.is_empty() { reason } else { DdlPlan::Online(steps) }))
    }

    fn rename(&self, pair: &[NameRef]) -> Result<Rename, Failure> {
        let resolved = |place: usize| match pair.get(place) {
            Some(name) => self.resolve(name, self.input.schema),
            None => Err(Failure::new(Code::ParseDdl, "a rename without two tables")),
        };
        let (from, to) = (resolved(0)?, resolved(1)?);
        let types = [&from, &to].map(|table| self.transform.online.type_of(&table.0.table));
        Ok(Rename { from, to, types })
    }

    /// Fails where a table is moved away as by a tool, and what takes its place is none of the tool's tables, or the other
    /// way round: then one of the rules does not fit the names in use.
    fn check_rules(&self, first: &Rename, second: &Rename) -> Result<(), Failure> {
        let away = matches!(first.types, [TableType::Real, TableType::Trash(_)]);
        let into_place = matches!(second.types, [TableType::Shadow(_), TableType::Real]);
        let (real, table, key) = match (away, into_place) {
            (true, false) => (&first.from, &second.from, "shadow-table-rules"),
            (false, true) => (&second.to, &first.to, "trash-table-rules"),
            _ => return Ok(()),
        };
        if self.transform.table(real)?.is_none() {
            return Ok(());
        }
        let statement = self.shown(Code::ParseDdl);
        let text =
            format!("online ddl sql '{statement}' invalid, table {table} fail to match '{key}' online ddl regex");
        Err(Failure::new(Code::OnlineDdlMistake, text))
    }
}

/// One table's new name.
struct Rename {
    from: SourceTable,
    to: SourceTable,
    types: [TableType; 2],
}

const BY_HAND: &str = "Please make sure that the downstream table has the structure of the source's, then use `binlog skip`, or \
                       `binlog replace` it with the ALTER TABLE that the downstream table needs.";

/// A table of that name in the same schema.
fn beside(table: &SourceTable, name: &str) -> SourceTable {
    SourceTable(TableName::new(&*table.0.schema, name))
}

fn left_behind(table: &SourceTable) -> DdlPlan {
    skipped(format!("table {table} belongs to an online DDL tool"))
}
