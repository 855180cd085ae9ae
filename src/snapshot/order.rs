//! Whether a table of a running task can be read again: everything that is known before is refused here, so that an order that
//! was accepted parks no task.
//!
//! Makes room for the order downstream, and changes nothing else.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;

use super::again::structures;
use super::check::{check_read, check_rights};
use super::leftover::{has_other_sources, is_shared};
use super::look::{loose_tables, of_target};
use super::plan::TablePlan;
use super::prepare::Preparing;
use super::run::without_foreign_keys;
use super::source::{Source, answered, query_failed};
use super::spec::CopySpec;
use super::state::make_room;
use crate::downstream::{Downstream, DownstreamOptions};
use crate::error::{Code, Failure};
use crate::model::{SourceTable, TargetTable};
use crate::mysql::quote;

fn refusal(text: String, remedy: &str) -> Failure {
    Failure::new(Code::ConfigTask, text).workaround(remedy)
}

/// Fails where a table cannot be read again while its task runs. `Ok` with what the operator should know of it.
pub async fn may_read_again(spec: &CopySpec, table: &SourceTable) -> Result<Option<String>, Failure> {
    let Some(target) = spec.guide.target(table)? else {
        let text = format!("{table} is not replicated by this task: the block-allow-list does not let it through");
        return Err(refusal(text, "Please name a table of the source, as schema.table, that the task replicates."));
    };
    if spec.options.condition.is_some() {
        let text =
            "the task copies only rows for which its `where` is true, and what else is in the table nobody knows";
        return Err(refusal(text.to_owned(), "Please repair the table by hand."));
    }
    let source = Source::new(&spec.source);
    let downstream = Downstream::open(DownstreamOptions { endpoint: without_foreign_keys(&spec.downstream) }).await?;
    let (mut from, mut to) = (source.connect().await?, downstream.connect().await?);
    check_kind(&mut from, table).await?;
    let progress = watch::Sender::default();
    let preparing = Preparing { spec, source: &source, downstream: &downstream, progress: &progress };
    let mut problems = preparing.check_source().await?;
    let plan = planned(&mut from, &mut to, table, &target).await?;
    let others = has_other_sources(spec, &mut to).await?;
    let shared = others || is_shared(spec, &mut from, table, &target).await?;
    let keyless = plan.key.is_none();
    if keyless && shared {
        let with = if others { "other sources of the task" } else { "other tables of the source" };
        let text =
            format!("{table} has no key, and {with} may write to {target} too: which rows are whose cannot be told");
        return Err(refusal(text, "Please give both tables a primary key, or repair the table by hand."));
    }
    if keyless && loose_tables(&mut to).await.map_err(of_target)?.contains(&target.0) {
        let text = format!("{target} has neither a key nor an engine with transactions: rows could come twice");
        return Err(refusal(text, "Please run ALTER TABLE … ENGINE=InnoDB downstream, or give it a primary key."));
    }
    check_read(spec, &mut from, &plan, &mut problems).await?;
    check_rights(&mut to, &plan, &mut problems).await?;
    if let Some(failure) = problems.failure(&format!("{table} cannot be read again"), "give the command again") {
        return Err(failure);
    }
    make_room(&mut to, &spec.tables).await?;
    Ok(shared.then(|| {
        format!(
            "other tables or other sources of the task may write to {target} too: rows that {table} does not have stay there"
        )
    }))
}

async fn check_kind(from: &mut Conn, table: &SourceTable) -> Result<(), Failure> {
    let sql = format!(
        "SELECT table_type FROM information_schema.tables WHERE table_schema={} AND table_name={}",
        quote(&table.0.schema),
        quote(&table.0.table)
    );
    let kind: Option<String> =
        answered(from.query_first(sql.as_str())).await.map_err(|error| query_failed(&error, &sql))?;
    let what = match kind.as_deref() {
        Some("BASE TABLE") => return Ok(()),
        Some("VIEW") => "is a view, and has no rows of its own",
        Some(_) => "is no table",
        None => "is not there on the source, or not for this account",
    };
    Err(refusal(format!("{table} {what}"), "Please name a table of the source, as schema.table."))
}

async fn planned(
    from: &mut Conn,
    to: &mut Conn,
    table: &SourceTable,
    target: &TargetTable,
) -> Result<TablePlan, Failure> {
    let (here, there) = structures((from, table), (to, target)).await?;
    let remedy = "Please give the target the source's columns, then give the command again. Where a DDL statement is on its \
                  way, wait until it has run.";
    let (Some(here), Some(there)) = (here, there) else {
        return Err(refusal(format!("target table {target} is not there"), remedy));
    };
    TablePlan::new(table.clone(), target.clone(), &here, &there)
        .map_err(|missing| refusal(format!("{target} lacks columns of {table}: {}", missing.join(", ")), remedy))
}
