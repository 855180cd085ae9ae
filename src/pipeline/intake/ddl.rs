//! Statements: what is run downstream for one, and in which session.

use tokio::sync::oneshot;

use super::{End, Gone, Intake, place};
use crate::apply::{DdlClause, DdlSession, DdlStep, Only, Part, Zone};
use crate::decode::Statement;
use crate::model::{Flavor, TableName, TargetTable};
use crate::pipeline::item::{DdlItem, Item};
use crate::schema::Dialect;
use crate::transform::{ClausePart, DdlInput, DdlPlan, TargetClause, TargetStatement};

impl Intake {
    pub(super) async fn statement(&mut self, statement: Statement) -> Result<(), End> {
        let text = &statement.text;
        let input = DdlInput { schema: &statement.schema, text, sql_mode: statement.sql_mode };
        // A statement that cannot be replicated may hold rows or passwords: only its place is told.
        let place = place(&statement.start, &statement.end, &self.open);
        let planned = self.transform.statement(&input).map_err(|failure| failure.at(&place))?;
        let place = format!("{place}, origin SQL: [{text}]");
        let statements = match planned {
            DdlPlan::Skip { reason } => {
                tracing::debug!(pos = %statement.start, reason, "statement left out");
                return Ok(());
            }
            DdlPlan::Run(statements) => statements,
        };
        let session = self.session(&statement).await;
        let steps: Vec<DdlStep> =
            statements.into_iter().map(|target| self.step(target, &statement, session.clone())).collect();
        let first_step = self.ddl_steps;
        self.ddl_steps += steps.len() as u32;
        let (done, ran) = oneshot::channel();
        self.send(Item::Ddl(DdlItem { steps, first_step, place: place.into(), done }), 0).await?;
        // Its sender goes with the coordinator.
        let ran = ran.await.map_err(|_| Gone)?;
        self.bindings.clear();
        self.cascades.after(&statement.text);
        if ran {
            // Before it ran all lanes were moved to its start.
            self.mappings.forget();
        }
        Ok(())
    }

    fn step(&self, target: TargetStatement, statement: &Statement, session: DdlSession) -> DdlStep {
        let (from, sql_mode) = (self.origin.flavor, statement.sql_mode);
        let to = match self.downstream.dialect {
            Dialect::MariaDb => Flavor::MariaDb,
            Dialect::MySql | Dialect::TiDb => Flavor::MySql,
        };
        let unsafe_with_rows = target.volatile(sql_mode, from).map(|function| {
            format!(
                "{function} gives each server values of its own, and the source does not log those that this statement \
                 gives to the rows that are there"
            )
        });
        let target = target.adapted(sql_mode, from, to);
        let schema = target.schema_only.map(|schema| TargetTable(TableName::new(schema, "")));
        DdlStep {
            sql: target.sql,
            clauses: target.clauses.into_iter().map(clause).collect(),
            targets: target.targets.into_iter().chain(schema).collect(),
            session: DdlSession { sql_modes: target.sql_modes, ..session },
            unsafe_with_rows,
        }
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
