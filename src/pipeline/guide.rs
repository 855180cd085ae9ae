//! What the copy of existing rows asks of the other stages: names, definitions, the end of the source's binlog.

use std::pin::Pin;
use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::OnceCell;

use crate::error::{Code, Failure, Scope, driver_failure};
use crate::model::{Flavor, Location, SourceCollations, SourceTable, TargetTable};
use crate::snapshot::{Definition, Guide};
use crate::transform::{DdlInput, DdlPlan, SessionCollations, Transform};
use crate::upstream::{ServerVersion, location_now, source_collations};

/// Called with L0; returns when the source's log is certain to be there from it on.
pub type Begun =
    Arc<dyn Fn(Location) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> + Send + Sync + 'static>;

/// A task's.
pub struct TaskGuide {
    /// The task's rules.
    pub transform: Arc<Transform>,
    /// The source's dialect.
    pub flavor: Flavor,
    /// The downstream's; TiDB counts as MySQL.
    pub downstream: Flavor,
    /// Told where the copy begins.
    pub begun: Begun,
    /// What the source means by character sets without a collation, once it was asked; `None` where definitions are taken as
    /// they are.
    pub collations: Option<OnceCell<SourceCollations>>,
}

#[tonic::async_trait]
impl Guide for TaskGuide {
    fn target(&self, table: &SourceTable) -> Result<Option<TargetTable>, Failure> {
        self.transform.table(table)
    }

    fn schema(&self, schema: &str) -> Result<Option<String>, Failure> {
        self.transform.schema(schema)
    }

    fn named(&self) -> Vec<(String, Option<String>)> {
        self.transform.named().to_vec()
    }

    async fn definition(&self, source: &mut Conn, schema: &str, sql: &str) -> Result<Vec<Definition>, Failure> {
        let collations = match &self.collations {
            Some(cell) => Some(cell.get_or_try_init(|| source_collations(source)).await?),
            None => None,
        };
        let statements = match self.transform.definition(&DdlInput { schema, text: sql, sql_mode: 0 })? {
            DdlPlan::Skip { .. } | DdlPlan::Online(_) => return Ok(Vec::new()),
            DdlPlan::Run(statements) => statements,
        };
        let adapted = statements.into_iter().map(|statement| {
            let statement = match collations {
                Some(known) => statement.collated(self.flavor, known, SessionCollations::default()),
                None => statement,
            };
            let statement = statement.adapted(self.flavor, self.downstream);
            Definition { sql: statement.sql, sql_modes: statement.sql_modes }
        });
        Ok(adapted.collect())
    }

    async fn location(&self, conn: &mut Conn) -> Result<Location, Failure> {
        const VERSION: &str = "SELECT @@version";
        let failed =
            |error| driver_failure(&error, Code::QueryFailed, Scope::Upstream, "ask the source for its version");
        let version: Option<String> = conn.query_first(VERSION).await.map_err(failed)?;
        let version = ServerVersion::parse(&version.unwrap_or_default());
        location_now(conn, self.flavor, version).await?.ok_or_else(|| {
            Failure::new(
                Code::NoMasterStatus,
                "the source writes no binlog, or does not tell this account where it ends",
            )
            .scope(Scope::Upstream)
            .workaround("Please turn log_bin on, and grant REPLICATION CLIENT (BINLOG MONITOR on MariaDB) ON *.*.")
        })
    }

    async fn begun(&self, location: &Location) -> Result<(), Failure> {
        (self.begun)(location.clone()).await
    }
}
