//! From what a statement is to what is run: filtered, routed, rewritten, split.
//!
//! Filtering comes before every complaint. Whatever is wrong with a statement, it is skipped where all it can concern is
//! certainly not replicated.

use std::ops::Range;

use crate::error::{Code, Failure};
use crate::model::{SourceTable, TableName, TargetTable};

use super::super::Transform;
use super::super::events::Event;
use super::super::filter::Filters;
use super::clauses::{self, Clause, ClauseEvent};
use super::cursor::{Edit, Misread, NameRef, qualifiers};
use super::lex::{Token, TokenKind};
use super::parsed::{EachStatement, Role, SchemaStatement, TableStatement};
use super::{DdlInput, DdlKind, DdlPlan, TargetStatement};

/// Longest statement text in a message, in characters.
const SHOWN: usize = 1024;

const BY_HAND: &str = "Run what the statement should do on the target by hand, then use `binlog skip`, or `binlog replace` \
                       it with statements that are understood; or filter its tables by the block-allow list.";

/// What a plan is made of.
pub(super) struct Planner<'a> {
    pub(super) transform: &'a Transform,
    pub(super) input: &'a DdlInput<'a>,
    pub(super) filters: Filters<'a>,
    /// What the first of these is called in the text, the second is.
    pub(super) renamed: Option<(&'a SourceTable, &'a SourceTable)>,
    pub(super) text: &'a str,
    pub(super) all: &'a [Token],
    /// Those that mean something.
    pub(super) tokens: &'a [Token],
}

impl Planner<'_> {
    pub(super) fn dml(&self, table: Option<&NameRef>) -> Result<DdlPlan, Failure> {
        if let Some(source) = table.and_then(|table| self.resolve(table, self.input.schema).ok())
            && self.transform.table(&source)?.is_none()
        {
            return Ok(unwanted(&source));
        }
        self.refuse(Code::StatementFormat, "a change of rows was logged as a statement")
    }

    pub(super) fn misread(&self, misread: &Misread) -> Result<DdlPlan, Failure> {
        self.refuse(Code::ParseDdl, &misread.to_string())
    }

    /// Fails, except where the statement certainly concerns nothing that is replicated.
    pub(super) fn refuse(&self, code: Code, what: &str) -> Result<DdlPlan, Failure> {
        if self.certainly_unwanted() {
            return Ok(skipped("all schemas in it are outside the block-allow list".to_owned()));
        }
        let failure = Failure::new(code, format!("{what}: {}", self.shown(code)));
        Err(if code == Code::ParseDdl { failure.workaround(BY_HAND) } else { failure })
    }

    /// Unqualified names mean the default schema; of `a.b`, the first part is a schema, or else a table of it. So where
    /// no such schema is replicated, nothing in the statement is. Not so where it may be about a whole schema, or where
    /// a quote that does not end may hide names.
    fn certainly_unwanted(&self) -> bool {
        let wanted = |schema: &str| {
            let allow = &self.transform.allow;
            allow.schema(schema) || allow.some_table_in(schema)
        };
        let doubtful = |token: &Token| match token.kind {
            TokenKind::Unterminated => true,
            TokenKind::Word => {
                ["DATABASE", "SCHEMA"].iter().any(|word| token.text(self.text).eq_ignore_ascii_case(word))
            }
            _ => false,
        };
        if self.tokens.iter().any(doubtful) {
            return false;
        }
        let mut schemas: Vec<String> = qualifiers(self.text, self.tokens).collect();
        if !self.input.schema.is_empty() {
            schemas.push(self.input.schema.to_owned());
        }
        !schemas.is_empty() && !schemas.iter().any(|schema| wanted(schema))
    }

    /// The text for a message. Row values and passwords are left out.
    pub(super) fn shown(&self, code: Code) -> String {
        let secret = |token: &Token| {
            token.kind == TokenKind::Word
                && ["PASSWORD", "IDENTIFIED", "CONNECTION"]
                    .iter()
                    .any(|word| token.text(self.text).eq_ignore_ascii_case(word))
        };
        let hide_values = code == Code::StatementFormat;
        let hide_texts = hide_values || self.tokens.iter().any(secret);
        let is_number = |token: &Token| token.text(self.text).starts_with(|c: char| c.is_ascii_digit());
        let hidden = self.tokens.iter().filter(|token| match token.kind {
            TokenKind::Text | TokenKind::Unterminated => hide_texts,
            TokenKind::Word => hide_values && is_number(token),
            _ => false,
        });
        let edits = hidden.map(|token| Edit { span: token.start..token.end, text: "?".to_owned() }).collect();
        let text = edited(self.text, edits);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }

    pub(super) fn resolve(&self, name: &NameRef, default: &str) -> Result<SourceTable, Failure> {
        let schema = name.schema.as_deref().unwrap_or(default);
        if schema.is_empty() {
            let what = format!("table `{}` has no schema, and the statement ran without a default one", name.name);
            return Err(
                Failure::new(Code::ParseDdl, format!("{what}: {}", self.shown(Code::ParseDdl))).workaround(BY_HAND)
            );
        }
        let table = SourceTable(TableName::new(schema, name.name.as_str()));
        let is = |other: &SourceTable| other.to_string().to_lowercase() == table.to_string().to_lowercase();
        Ok(match self.renamed {
            Some((shown, meant)) if is(shown) => meant.clone(),
            _ => table,
        })
    }

    pub(super) fn schema(&self, mut statement: SchemaStatement) -> Result<DdlPlan, Failure> {
        let source = statement.name.as_deref().unwrap_or(self.input.schema);
        if source.is_empty() {
            return self.refuse(Code::ParseDdl, "no schema is named, and the statement ran without a default one");
        }
        if !self.transform.allow.schema(source) {
            return Ok(skipped(format!("schema `{source}` is outside the block-allow list")));
        }
        if !self.filters.pass(event_of(statement.kind), source, "")? {
            return Ok(skipped(format!("an event filter leaves it out of schema `{source}`")));
        }
        let target = self.transform.router.schema(source)?;
        let space = if statement.name.is_some() { "" } else { " " };
        statement.edits.push(Edit { span: statement.span, text: format!("{}{space}", quoted(&target)) });
        let mut run = Vec::new();
        if statement.replaces {
            let sql = format!("DROP DATABASE IF EXISTS {}", quoted(&target));
            run.push(self.built(DdlKind::DropDatabase, sql, Some(target.clone())));
        }
        run.push(self.built(statement.kind, edited(self.text, statement.edits), Some(target)));
        Ok(DdlPlan::Run(run))
    }

    pub(super) fn table(&self, mut statement: TableStatement) -> Result<DdlPlan, Failure> {
        let mut built = self.built(statement.kind, String::new(), None);
        let mut named: Vec<Named> = Vec::with_capacity(statement.tables.len());
        for (role, name) in &statement.tables {
            // A foreign key without a schema means the schema of the table it stands in, everything else the default.
            let own_schema = named.first().map_or(self.input.schema, |own| &own.source.0.schema);
            let default = if *role == Role::Mentioned { own_schema } else { self.input.schema };
            let source = self.resolve(name, default)?;
            let target = if *role == Role::Mentioned {
                self.transform.router.table(&source)?
            } else {
                match self.transform.table(&source)? {
                    Some(target) => target,
                    None => return Ok(unwanted(&source)),
                }
            };
            named.push(Named { role: *role, span: name.span.clone(), source, target });
        }
        let Some(kept) = self.kept(&statement, &named)? else { return Ok(left_out(sources_of(&named))) };
        if kept.contains(&false) {
            built.left_out = sources_of(&named);
            statement.edits.extend(self.without_others(&statement.clauses, &kept, &mut named));
        }
        if let Some(what) = statement.refusal {
            return self.refuse(Code::ParseDdl, what);
        }
        let involved = || named.iter().filter(|named| named.role != Role::Mentioned).map(|named| &named.target);
        if let Some(first) = involved().next()
            && involved().skip(1).any(|other| other == first)
        {
            return if statement.only_names {
                Ok(skipped(format!("all its tables are {first} on the target")))
            } else {
                self.refuse(Code::ParseDdl, &format!("two tables in it are both {first} on the target"))
            };
        }
        built.sources = sources_of(&named);
        for Named { role, span, target, .. } in named {
            statement.edits.push(Edit { span, text: target.to_string() });
            if role == Role::Changed {
                built.targets.push(target);
            }
        }
        built.sql = edited(self.text, statement.edits);
        let mut run = Vec::new();
        if statement.replaces {
            run.extend(self.drop_before(&built));
        }
        run.push(built);
        Ok(DdlPlan::Run(run))
    }

    /// Which of the clauses the filters let pass; `None` where nothing is left to be run.
    fn kept(&self, statement: &TableStatement, named: &[Named]) -> Result<Option<Vec<bool>>, Failure> {
        let whole = |event| {
            let asked = named.iter().filter(|named| named.role != Role::Mentioned);
            self.filters.pass_all(&[event], asked.map(|named| &named.source))
        };
        if statement.clauses.iter().all(|clause| clause.event == ClauseEvent::Rider) {
            return Ok(whole(event_of(statement.kind))?.then(|| vec![true; statement.clauses.len()]));
        }
        // Behind a rename the table has its new name.
        let mut own = 0;
        let mut kept = Vec::with_capacity(statement.clauses.len());
        for clause in &statement.clauses {
            let others = clause.tables.clone().filter(|&at| named[at].role != Role::Mentioned);
            let asked = [own].into_iter().chain(others).map(|at| &named[at].source);
            kept.push(match &clause.event {
                ClauseEvent::One(event) => self.filters.pass_all(&[*event], asked)?,
                ClauseEvent::Modified(events) => self.filters.pass_all(events, asked)?,
                ClauseEvent::Rider => true,
            });
            if clause.event == ClauseEvent::One(Event::RenameTable) {
                own = clause.tables.start;
            }
        }
        let runs = |(clause, kept): (&Clause, &bool)| *kept && clause.event != ClauseEvent::Rider;
        Ok(statement.clauses.iter().zip(&kept).any(runs).then_some(kept))
    }

    /// What takes the clauses out that are not `kept`, and their tables out of `named`.
    fn without_others(&self, clauses: &[Clause], kept: &[bool], named: &mut Vec<Named>) -> Vec<Edit> {
        let gone = |span: &Range<usize>| {
            let holds = |clause: &Clause| clause.span.start <= span.start && span.end <= clause.span.end;
            clauses.iter().zip(kept).any(|(clause, kept)| !kept && holds(clause))
        };
        named.retain(|named| !gone(&named.span));
        let mut edits = clauses::without_others(clauses, kept);
        // One that opens in what goes may close in what stays; its content was executed.
        let version = |token: &&Token| matches!(token.kind, TokenKind::VersionOpen | TokenKind::VersionClose);
        let versions = self.all.iter().filter(version).map(|token| token.start..token.end).filter(|span| !gone(span));
        edits.extend(versions.map(|span| Edit { span, text: " ".to_owned() }));
        edits
    }

    /// CREATE OR REPLACE TABLE is MariaDB's alone; everyone understands a DROP and a CREATE.
    fn drop_before(&self, create: &TargetStatement) -> Option<TargetStatement> {
        let target = create.targets.first()?;
        let mut drop = self.built(DdlKind::DropTable, format!("DROP TABLE IF EXISTS {target}"), None);
        drop.sources = create.sources.first().cloned().into_iter().collect();
        drop.targets = vec![target.clone()];
        Some(drop)
    }

    pub(super) fn each(&self, statement: &EachStatement) -> Result<DdlPlan, Failure> {
        let mut run = Vec::new();
        let (mut skipped, mut left_out) = (None, Vec::new());
        for item in &statement.items {
            match self.item(statement, item)? {
                DdlPlan::Skip { reason, filtered } => {
                    skipped = Some(reason);
                    left_out.extend(filtered);
                }
                DdlPlan::Run(one) => run.extend(one),
                // No item is one.
                DdlPlan::Online(_) => {}
            }
        }
        match (skipped, run.last_mut()) {
            (Some(reason), None) => Ok(DdlPlan::Skip { reason, filtered: left_out }),
            (_, last) => {
                last.into_iter().for_each(|last| last.left_out.append(&mut left_out));
                Ok(DdlPlan::Run(run))
            }
        }
    }

    /// One item of a list as a statement of its own.
    pub(super) fn item(&self, statement: &EachStatement, names: &[NameRef]) -> Result<DdlPlan, Failure> {
        let mut built = self.built(statement.kind, String::new(), None);
        for name in names {
            let source = self.resolve(name, self.input.schema)?;
            match self.transform.table(&source)? {
                Some(target) => built.targets.push(target),
                None => return Ok(unwanted(&source)),
            }
            if !self.filters.pass_all(&[event_of(statement.kind)], [&source])? {
                let tables =
                    names.iter().map(|name| self.resolve(name, self.input.schema)).collect::<Result<_, _>>()?;
                return Ok(left_out(tables));
            }
            built.sources.push(source);
        }
        if let [from, to] = built.targets.as_slice()
            && from == to
        {
            return Ok(skipped(format!("both tables are {from} on the target")));
        }
        let list: Vec<String> = built.targets.iter().map(TargetTable::to_string).collect();
        let mut edits = statement.edits.clone();
        edits.push(Edit { span: statement.list.clone(), text: list.join(" TO ") });
        built.sql = edited(self.text, edits);
        Ok(DdlPlan::Run(vec![built]))
    }

    fn built(&self, kind: DdlKind, sql: String, schema_only: Option<String>) -> TargetStatement {
        let sql_modes = TargetStatement::READING_MODES
            .iter()
            .filter(|(bit, _)| self.input.sql_mode & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        let (sources, targets, clauses) = (Vec::new(), Vec::new(), Vec::new());
        let sql_mode = self.input.sql_mode;
        TargetStatement { sql, clauses, sql_modes, sql_mode, kind, sources, targets, schema_only, left_out: Vec::new() }
    }
}

/// A table of a statement.
struct Named {
    role: Role,
    span: Range<usize>,
    source: SourceTable,
    target: TargetTable,
}

/// Those that it is about.
fn sources_of(named: &[Named]) -> Vec<SourceTable> {
    named.iter().filter(|named| named.role != Role::Mentioned).map(|named| named.source.clone()).collect()
}

/// What a statement is to event filters, its clauses aside.
fn event_of(kind: DdlKind) -> Event {
    match kind {
        DdlKind::CreateDatabase => Event::CreateDatabase,
        DdlKind::AlterDatabase => Event::AlterDatabase,
        DdlKind::DropDatabase => Event::DropDatabase,
        DdlKind::CreateTable => Event::CreateTable,
        DdlKind::AlterTable => Event::AlterTable,
        DdlKind::DropTable => Event::DropTable,
        DdlKind::RenameTable => Event::RenameTable,
        DdlKind::TruncateTable => Event::TruncateTable,
        DdlKind::CreateIndex => Event::CreateIndex,
        DdlKind::DropIndex => Event::DropIndex,
    }
}

pub(super) fn skipped(reason: String) -> DdlPlan {
    DdlPlan::Skip { reason, filtered: Vec::new() }
}

/// What a filter leaves out of wanted tables.
fn left_out(tables: Vec<SourceTable>) -> DdlPlan {
    let names: Vec<String> = tables.iter().map(SourceTable::to_string).collect();
    DdlPlan::Skip { reason: format!("an event filter leaves it out of {}", names.join(", ")), filtered: tables }
}

pub(super) fn unwanted(source: &SourceTable) -> DdlPlan {
    skipped(format!("table {source} is outside the block-allow list"))
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `text` with all changes made. They do not overlap; an insertion comes before a replacement at its place.
pub(super) fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for edit in &edits {
        out.push_str(text.get(at..edit.span.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = edit.span.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
