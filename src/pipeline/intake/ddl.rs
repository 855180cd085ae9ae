//! Statements: what is run downstream for one, and in which session.

use tokio::sync::oneshot;

use super::asks::{Answer, Question};
use super::{End, Gone, Intake, place};
use crate::apply::{DdlClause, DdlSession, DdlStep, Only, Part, Zone};
use crate::decode::{RowsEvent, Statement};
use crate::error::{Code, Failure, Scope};
use crate::model::{BinlogPosition, Flavor, RowMark, RowOrdinal, SourceTable, TableName, TargetTable};
use crate::pipeline::exceptions::{Exception, Treatment};
use crate::pipeline::item::{DdlEnd, DdlItem, Item};
use crate::pipeline::window::Window;
use crate::schema::{Dialect, reads_alike};
use crate::transform::{
    ClausePart, DdlInput, DdlKind, DdlPlan, SessionCollations, TargetClause, TargetStatement, Transform,
};

/// Why a statement is not run although it was understood.
const UNDERSTOOD: [Code; 6] = [
    Code::EventFilter,
    Code::OnlineDdlMistake,
    Code::OnlineDdlMeta,
    Code::RenameToShadow,
    Code::RenameShadowToOther,
    Code::OnlineDdlNotFound,
];

impl Intake {
    pub(super) async fn statement(&mut self, statement: Statement) -> Result<(), End> {
        let text = &statement.text;
        // A statement that cannot be replicated may hold rows or passwords: only its place is told.
        let place = place(&statement.start, &statement.end, &self.open);
        // Its transaction has nothing else: the place of either means it.
        let exception = self.exceptions.at(&statement.start).or_else(|| self.exceptions.at(&self.open.position));
        let exception = exception.cloned();
        let (mut targets, mut changed) = (Vec::new(), Vec::new());
        if exception.as_ref().is_none_or(|exception| exception.treatment == Treatment::Inject) {
            let input = DdlInput { schema: &statement.schema, text, sql_mode: statement.sql_mode };
            // One that was understood is shown, as one that fails downstream, and can be skipped.
            let at = |failure: Failure| match failure.known_code() {
                Some(code) if UNDERSTOOD.contains(&code) => failure.at(format!("{place}, origin SQL: [{text}]")),
                _ => failure.at(&place),
            };
            match self.transform.statement(&input).map_err(at)? {
                DdlPlan::Skip { reason, filtered } if filtered.is_empty() => {
                    tracing::debug!(pos = %statement.start, reason, "statement left out");
                }
                DdlPlan::Skip { reason, filtered } => {
                    tracing::warn!(pos = %statement.start, reason, "statement left out");
                    changed = filtered;
                }
                DdlPlan::Run(planned) => targets = planned,
                DdlPlan::Online(parts) => {
                    let made = self.online(parts, statement.sql_mode).await.map_err(at)?;
                    (targets, changed) = (made.run, made.left_out);
                }
            }
        } else {
            self.tell_skipped(&statement.start, "a statement");
        }
        let before = exception.map(|exception| exception.statements).unwrap_or_default();
        // What a filter leaves out has changed the source's tables all the same.
        self.end_declared(&changed, &statement.start).await?;
        if targets.is_empty() && before.is_empty() {
            return Ok(());
        }
        for target in &targets {
            self.compare_defaults(target).await?;
        }
        let targets = self.collated(targets, &statement).await.map_err(|failure| failure.at(&place))?;
        let session = self.session(&statement).await;
        let window = self.window.as_ref();
        let touched = window.map(|window| Touched::by(&targets, window, &self.transform)).unwrap_or_default();
        let mut steps = self.steps_of(&before, statement.sql_mode, &session, &statement.start, &place).await?;
        self.end_declared(&altered(&targets), &statement.start).await?;
        steps.extend(targets.into_iter().map(|target| self.step(target, session.clone())));
        if steps.is_empty() {
            return Ok(());
        }
        self.run_ddl(steps, &format!("{place}, origin SQL: [{text}]"), touched).await?;
        self.cascades.after(text);
        Ok(())
    }

    /// Hands DDL over, and waits until it has run.
    async fn run_ddl(&mut self, steps: Vec<DdlStep>, place: &str, touched: Touched) -> Result<(), End> {
        let first_step = self.ddl_steps;
        self.ddl_steps += steps.len() as u32;
        let (done, ran) = oneshot::channel();
        let Touched { again, emptied, renamed, over_rows } = touched;
        let place = place.into();
        let item = DdlItem { steps, first_step, place, again, emptied, renamed, over_rows, done };
        self.send(Item::Ddl(item), 0).await?;
        // Its sender goes with the coordinator.
        let end = ran.await.map_err(|_| Gone)?;
        self.bindings.clear();
        self.asks.forget();
        if end == DdlEnd::Ran {
            // Before it ran all lanes were moved to its start.
            self.mappings.forget();
        }
        self.see_window();
        Ok(())
    }

    /// What an operator's statements come to downstream.
    async fn steps_of(
        &mut self,
        statements: &[String],
        sql_mode: u64,
        session: &DdlSession,
        at: &BinlogPosition,
        place: &str,
    ) -> Result<Vec<DdlStep>, Failure> {
        let mut steps = Vec::new();
        for text in statements {
            let input = DdlInput { schema: "", text, sql_mode };
            match self.transform.statement(&input).map_err(|failure| failure.at(place))? {
                DdlPlan::Skip { reason, .. } => tracing::warn!(reason, "an operator's statement is left out"),
                DdlPlan::Online(_) => {
                    tracing::warn!("an operator's statement on an online DDL tool's table is left out")
                }
                DdlPlan::Run(targets) => {
                    self.end_declared(&altered(&targets), at).await?;
                    let steps_of = targets.into_iter().map(|target| self.step(target, session.clone()));
                    steps.extend(steps_of.map(|step| DdlStep { ordered: true, ..step }));
                }
            }
            self.cascades.after(text);
        }
        Ok(steps)
    }

    /// Ends what is declared of tables whose columns may be others behind these statements: stored before they run.
    async fn end_declared(&mut self, changed: &[SourceTable], at: &BinlogPosition) -> Result<(), Failure> {
        let holds = |table: &&SourceTable| self.declared.of(table).is_some() && self.declared.at(table, at).is_some();
        let ended: Vec<SourceTable> = changed.iter().filter(holds).cloned().collect();
        if ended.is_empty() {
            return Ok(());
        }
        for table in &ended {
            tracing::warn!(%table, %at, "what was declared of it by binlog-schema ends with this statement");
            self.note(format!(
                "what `binlog-schema update` says of {table} has ended with the statement at {at}: rows behind it go to \
                 the downstream columns at their places again"
            ));
        }
        let at = at.clone();
        self.declared = self.declared_store.change(Box::new(move |all| all.end(&ended, &at))).await?;
        Ok(())
    }

    /// Does what an operator wants at a rows event; whether the rows themselves are wanted.
    pub(super) async fn rows_go_on(&mut self, event: &RowsEvent, exception: &Exception) -> Result<bool, End> {
        let place = self.place(event);
        if !exception.statements.is_empty() && !self.sent_rows {
            let session = DdlSession { timestamp: event.timestamp, ..DdlSession::default() };
            let steps = self.steps_of(&exception.statements, 0, &session, &event.span.start(), &place).await?;
            // What an operator runs before rows is as if somebody had run it downstream.
            self.run_ddl(steps, &place, Touched::default()).await?;
        } else if !exception.statements.is_empty() {
            // Lanes are at work on the rows before it, and a replay could not tell whether it has run.
            let text = "statements can be run before the first row change of a transaction only";
            return Err(Failure::new(Code::NotSet, text).at(&place).into());
        }
        if exception.treatment == Treatment::Inject {
            return Ok(true);
        }
        self.tell_skipped(&event.span.start(), &format!("row changes of {}", event.layout.source));
        Ok(false)
    }

    pub(super) fn tell_skipped(&self, at: &BinlogPosition, what: &str) {
        tracing::warn!(%at, "left out by an operator's order");
        // A lane that failed does not take back what others did.
        let first = RowMark { next: RowOrdinal(1), ..RowMark::at(self.open.clone()) };
        let in_part = self.furthest.as_ref().is_some_and(|furthest| furthest.has_reached(&first));
        let stays = if in_part { "; what was applied of this transaction before it failed stays applied" } else { "" };
        self.note(format!("{what} at {at} left out by an operator's order{stays}"));
    }

    fn step(&self, target: TargetStatement, session: DdlSession) -> DdlStep {
        let from = self.origin.flavor;
        let to = match self.downstream.dialect {
            Dialect::MariaDb => Flavor::MariaDb,
            Dialect::MySql | Dialect::TiDb => Flavor::MySql,
        };
        let unsafe_with_rows = target.volatile(from).map(|function| {
            format!(
                "{function} gives each server values of its own, and the source does not log those that this statement \
                 gives to the rows that are there"
            )
        });
        let one_change = target.changes(from) <= 1;
        let target = target.adapted(from, to);
        let schema = target.schema_only.map(|schema| TargetTable(TableName::new(schema, "")));
        DdlStep {
            sql: target.sql,
            clauses: target.clauses.into_iter().map(clause).collect(),
            targets: target.targets.into_iter().chain(schema).collect(),
            session: DdlSession { sql_modes: target.sql_modes, ..session },
            unsafe_with_rows,
            one_change,
            ordered: false,
        }
    }

    /// Where the task wants the source's collations, they are said where a statement left them to it.
    async fn collated(
        &mut self,
        targets: Vec<TargetStatement>,
        statement: &Statement,
    ) -> Result<Vec<TargetStatement>, Failure> {
        let flavor = self.origin.flavor;
        if !self.strict_collation || !targets.iter().any(|target| target.leaves_collations(flavor)) {
            return Ok(targets);
        }
        let known = self.origin.collations().await.ok_or_else(|| {
            let text = "collation_compatible is strict, and the source cannot be asked what its character sets mean";
            Failure::new(Code::InvalidConnection, text).scope(Scope::Upstream)
        })?;
        let session = SessionCollations {
            server: statement.charset.map(|[_, _, server]| server),
            utf8mb4: statement.utf8mb4_collation,
        };
        Ok(targets.into_iter().map(|target| target.collated(flavor, &known, session)).collect())
    }

    /// A table that names no character set gets its schema's. One that was made by hand downstream may have another, and
    /// then the tables differ; what is in them does not, as long as the downstream's can hold it.
    async fn compare_defaults(&mut self, target: &TargetStatement) -> Result<(), Failure> {
        let (Some(from), Some(to)) = (target.sources.first(), target.targets.first()) else { return Ok(()) };
        if !target.takes_schema_charset(self.origin.flavor) {
            return Ok(());
        }
        let (from, to) = (from.0.schema.to_string(), to.0.schema.to_string());
        let Answer::SchemaCharset(Some(here)) = self.asks.retried(Question::SchemaCharset(&to)).await? else {
            return Ok(());
        };
        let Some(there) = self.origin.schema_charset(&from).await else { return Ok(()) };
        if !reads_alike(&there, &here) {
            self.note(format!(
                "schema `{from}` has the default character set {there} on the source, and `{to}` has {here} downstream: \
                 tables that name none differ (ALTER DATABASE `{to}` CHARACTER SET {there} downstream makes those equal \
                 that are created from then on)"
            ));
        }
        Ok(())
    }

    /// The session that a statement ran in. The source's own time zone has no name elsewhere, and others may not be known
    /// downstream: the source is asked how far they were from UTC.
    async fn session(&mut self, statement: &Statement) -> DdlSession {
        let zone = match statement.time_zone.as_deref() {
            None => None,
            Some(zone) if zone.starts_with(['+', '-']) => Some(Zone { name: zone.to_owned(), offset: None }),
            Some(zone) => {
                let found = self.origin.zone(zone, statement.timestamp).await;
                let own = zone.eq_ignore_ascii_case("SYSTEM");
                if own && found.is_some_and(|found| found.varies) {
                    self.note(format!(
                        "the statement at {} depends on the time zone of the source's machine, which changes with the \
                         season: what it makes of times at the other season may be an hour off (a time_zone with a name \
                         on the source makes that certain)",
                        statement.start
                    ));
                }
                let offset = found.map(|found| east(found.minutes));
                Some(Zone { name: if own { String::new() } else { zone.to_owned() }, offset })
            }
        };
        DdlSession {
            sql_modes: Vec::new(),
            timestamp: statement.timestamp,
            collations: statement.charset.map(|[_, connection, server]| [connection, server]),
            utf8mb4_collation: statement.utf8mb4_collation,
            foreign_keys_off: statement.no_foreign_key_checks,
            zone,
        }
    }
}

/// The source's tables whose columns may be others behind these statements.
fn altered(targets: &[TargetStatement]) -> Vec<SourceTable> {
    let changes = |kind| matches!(kind, DdlKind::CreateTable | DdlKind::AlterTable | DdlKind::RenameTable);
    let changed = targets.iter().filter(|target| changes(target.kind));
    changed.flat_map(|target| target.sources.iter().chain(&target.left_out)).cloned().collect()
}

/// What statements do to tables that were copied, all of them together: `RENAME TABLE a TO x, b TO a` leaves `a` to be read.
#[derive(Debug, Default, PartialEq)]
struct Touched {
    /// Their structure is another one behind it.
    again: Vec<SourceTable>,
    /// They hold nothing behind it, or are not there.
    emptied: Vec<SourceTable>,
    /// Of them, those that have another name behind it.
    renamed: Vec<SourceTable>,
    /// Their rows, which are of several instants, may not fit what it makes of them.
    over_rows: Vec<SourceTable>,
}

impl Touched {
    fn by(statements: &[TargetStatement], window: &Window, transform: &Transform) -> Self {
        let mut touched = Touched::default();
        for TargetStatement { kind, sources, schema_only, .. } in statements {
            match kind {
                DdlKind::AlterTable => {
                    sources.iter().for_each(|table| touched.alters(table));
                    touched.over_rows.extend(sources.iter().cloned());
                }
                // `a TO b`.
                DdlKind::RenameTable => {
                    let [from, to] = sources.as_slice() else { continue };
                    touched.empties(from);
                    touched.alters(to);
                    // Names that some servers do not tell apart may be the same table.
                    if from.0.to_string().to_lowercase() != to.0.to_string().to_lowercase() {
                        touched.renamed.push(from.clone());
                    }
                }
                DdlKind::DropTable | DdlKind::TruncateTable => {
                    sources.first().into_iter().for_each(|table| touched.empties(table));
                }
                DdlKind::DropDatabase => {
                    let of_it = |table: &&SourceTable| match (transform.table(table), schema_only) {
                        (Ok(Some(target)), Some(schema)) => *target.0.schema == **schema,
                        _ => false,
                    };
                    window.tables().filter(of_it).for_each(|table| touched.empties(table));
                }
                // One that waits to be read again may not be there.
                DdlKind::CreateIndex => {
                    sources.iter().filter(|table| window.is_stale(table)).for_each(|table| touched.alters(table));
                    touched.over_rows.extend(sources.iter().cloned());
                }
                // Rows that are alike by a unique key which the source had dropped already have replaced each other here.
                DdlKind::DropIndex => sources.iter().for_each(|table| touched.alters(table)),
                DdlKind::CreateDatabase | DdlKind::AlterDatabase | DdlKind::CreateTable => {}
            }
        }
        touched
    }

    fn alters(&mut self, table: &SourceTable) {
        self.forget(table);
        self.again.push(table.clone());
    }

    fn empties(&mut self, table: &SourceTable) {
        self.forget(table);
        self.emptied.push(table.clone());
    }

    /// What was before does not count: its name means another table now.
    fn forget(&mut self, table: &SourceTable) {
        for list in [&mut self.again, &mut self.emptied, &mut self.renamed] {
            list.retain(|known| known != table);
        }
    }
}

fn clause(TargetClause { text, condition }: TargetClause) -> DdlClause {
    let only = condition.map(|condition| {
        let part = match condition.part {
            ClausePart::Column => Part::Column,
            ClausePart::Index => Part::Index,
            ClausePart::ForeignKey => Part::ForeignKey,
        };
        Only { there: condition.there, part, name: condition.name }
    });
    DdlClause { text, only }
}

/// Minutes to the east as the servers write them.
fn east(minutes: i64) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BinlogPosition, GtidSet, Location};
    use crate::snapshot::Replay;
    use crate::transform::{Rules, testing};

    fn table(name: &str) -> SourceTable {
        SourceTable(TableName::new("s", name))
    }

    fn names(tables: &[SourceTable]) -> Vec<&str> {
        tables.iter().map(|table| &*table.0.table).collect()
    }

    /// What a statement touches: again, emptied, renamed. `stale` waits to be read again.
    fn touched(text: &str, stale: &str) -> [String; 3] {
        let at = Location::new(BinlogPosition::parse("b.000001", 4).unwrap(), GtidSet::empty(Flavor::MySql));
        let window = Window::new(&Replay {
            from: at.clone(),
            structures_at: at.clone(),
            until: at,
            starts: Vec::new(),
            stale: vec![table(stale)],
            ordered: Vec::new(),
            of_copy: true,
        });
        let rules = Rules { case_sensitive: true, ..testing::rules() };
        let transform = Transform::new(&rules).unwrap();
        let plan = transform.statement(&DdlInput { schema: "s", text, sql_mode: 0 }).unwrap();
        let DdlPlan::Run(statements) = plan else { panic!("{text} is left out") };
        let Touched { again, emptied, renamed, .. } = Touched::by(&statements, &window, &transform);
        [again, emptied, renamed].map(|tables| names(&tables).join(","))
    }

    #[test]
    fn what_counts_is_what_a_name_means_behind_all_of_it() {
        for (text, again, emptied, renamed) in [
            ("ALTER TABLE a ADD COLUMN c INT", "a", "", ""),
            ("RENAME TABLE a TO b", "b", "a", "a"),
            ("RENAME TABLE a TO x, b TO a, x TO b", "a,b", "x", "x"),
            ("RENAME TABLE a TO b, b TO a", "a", "b", "b"),
            // One table on some servers, which must not be taken for what is left of it.
            ("RENAME TABLE a TO A", "A", "a", ""),
            ("DROP TABLE a, b", "", "a,b", ""),
            ("TRUNCATE TABLE a", "", "a", ""),
            ("CREATE TABLE a (id INT)", "", "", ""),
            ("CREATE INDEX i ON a (c)", "", "", ""),
            ("DROP INDEX i ON a", "a", "", ""),
            ("CREATE INDEX i ON waits (c)", "waits", "", ""),
        ] {
            assert_eq!(touched(text, "waits"), [again, emptied, renamed], "{text}");
        }
    }
}
