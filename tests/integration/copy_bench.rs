//! A copy of existing rows by itself, without an agent around it: what tests of the copy begin with.

use std::sync::Arc;
use std::time::Duration;

use dm_agent::error::Failure;
use dm_agent::model::{Flavor, Location, Secret, SourceTable, TableName};
use dm_agent::mysql::{Connector, Endpoint};
use dm_agent::pipeline::TaskGuide;
use dm_agent::snapshot::{
    CopyOptions, CopyOutcome, CopyProgress, CopySpec, Replay, Reread, Rereading, Standing, copy, look, read_again,
};
use dm_agent::transform::{BlockAllowRules, RouteRule, Rules, Transform};
use tokio::sync::watch;

use crate::support::db::Db;
use crate::support::oracle;
use crate::support::servers::{Kind, Server, fresh_schema};

/// How long a copy may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A task that copies one schema, and both ends to look at.
pub struct Bench {
    pub spec: CopySpec,
    pub source: Db,
    pub target: Db,
    pub schema: String,
    /// What the task was told of L0.
    pub begun: watch::Receiver<Option<Location>>,
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port: server.port,
        user: "root".into(),
        password: Secret::new(""),
        session: Default::default(),
        tls: None,
    }
}

fn flavor(kind: Kind) -> Flavor {
    match kind {
        Kind::MySql => Flavor::MySql,
        Kind::MariaDb => Flavor::MariaDb,
    }
}

impl Bench {
    pub async fn new(label: &str, source: &Server, target: &Server) -> Bench {
        Bench::routed(label, source, target, |_| Vec::new()).await
    }

    pub async fn routed(
        label: &str,
        source: &Server,
        target: &Server,
        routes: impl FnOnce(&str) -> Vec<RouteRule>,
    ) -> Bench {
        let schema = fresh_schema(label);
        let rules = Rules {
            block_allow: BlockAllowRules { do_dbs: vec![schema.clone()], ..Default::default() },
            routes: routes(&schema),
            filters: Vec::new(),
            expressions: Vec::new(),
            online: Default::default(),
            case_sensitive: false,
            meta_schema: "dm_meta".into(),
            flavor: flavor(source.kind),
        };
        let (told, begun) = watch::channel(None);
        let guide = TaskGuide {
            transform: Arc::new(Transform::new(&rules).expect("rules")),
            flavor: flavor(source.kind),
            downstream: flavor(target.kind),
            begun: Arc::new(move |location| {
                told.send_replace(Some(location));
                Box::pin(async { Ok(()) })
            }),
            collations: None,
        };
        let spec = CopySpec {
            source: endpoint(source),
            flavor: flavor(source.kind),
            downstream: endpoint(target),
            tables: dm_agent::meta::MetaTables::new("dm_meta", &format!("t_{schema}"), "mysql-01"),
            guide: Arc::new(guide),
            options: CopyOptions { readers: 3, writers: 4, ..CopyOptions::default() },
        };
        let mut bench = Bench { spec, source: source.root().await, target: target.root().await, schema, begun };
        bench.source.run(&format!("CREATE DATABASE {0}", bench.schema)).await;
        bench.source.run(&format!("USE {0}", bench.schema)).await;
        bench
    }

    /// A copy that nobody stops, and what it tells.
    pub fn begin(&self) -> (impl Future<Output = CopyOutcome> + use<>, watch::Receiver<CopyProgress>) {
        let (progress, told) = watch::channel(CopyProgress::default());
        (copy(self.spec.clone(), false, Box::pin(std::future::pending()), progress), told)
    }

    /// Copies to the end; whatever it ends with, and what was told last.
    pub async fn told(&self) -> (CopyOutcome, CopyProgress) {
        let (copy, told) = self.begin();
        let outcome = tokio::time::timeout(LIMIT, copy).await.expect("the copy ends");
        let last = told.borrow().clone();
        (outcome, last)
    }

    /// Copies to the end; whatever it ends with.
    pub async fn run(&self) -> CopyOutcome {
        self.told().await.0
    }

    /// Reads one table again.
    pub async fn again(&self, table: &str, how: Rereading) -> Result<Reread, Failure> {
        let name = SourceTable(TableName::new(self.schema.as_str(), table));
        read_again(&self.spec, &name, &how, Box::pin(std::future::pending()), watch::Sender::default()).await
    }

    pub async fn copied(&self) -> Replay {
        match self.run().await {
            CopyOutcome::Copied(replay) => replay,
            other => panic!("the copy ended with {other:?}"),
        }
    }

    pub async fn refusal(&self) -> String {
        match self.run().await {
            CopyOutcome::Failed(failure) => failure.to_string(),
            other => panic!("the copy ended with {other:?}"),
        }
    }

    pub async fn equal(&mut self) {
        let pair = [(self.schema.as_str(), self.schema.as_str())];
        if let Some(difference) = oracle::compare(&mut self.source, &mut self.target, &pair).await {
            panic!("the target differs:\n{difference}");
        }
    }

    pub async fn standing(&self) -> Standing {
        let mut conn = Connector::new(self.spec.downstream.clone()).connect().await.expect("connect");
        look(&mut conn, &self.spec.tables, self.spec.flavor).await.expect("look")
    }

    /// Marks of chunks, as they are stored.
    pub async fn marks(&mut self) -> u64 {
        self.target.number(&format!("SELECT COUNT(*) FROM dm_meta.t_{}_agent_snapshot_chunk", self.schema)).await
    }

    pub fn meta(&self, suffix: &str) -> String {
        format!("dm_meta.t_{}_{suffix}", self.schema)
    }
}

/// A table with rows 1 to `rows`, filled by doubling.
pub async fn fill(db: &mut Db, table: &str, rows: u64) {
    db.run_all([
        format!(
            "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY AUTO_INCREMENT, k INT NOT NULL, c VARCHAR(120), KEY (k))"
        ),
        format!("INSERT INTO {table} VALUES (1, 1, REPEAT('x', 100))"),
    ])
    .await;
    let mut there = 1;
    while there < rows {
        let more = there.min(rows - there);
        db.run(&format!(
            "INSERT INTO {table} SELECT id + {there}, k + 1, CONCAT(REPEAT('x', 90), id) FROM {table} WHERE id <= {more}"
        ))
        .await;
        there += more;
    }
}

/// Stops when enough is written; gives what was read by then.
pub async fn stopped_at(bench: &Bench, rows: u64) -> (CopyOutcome, CopyProgress, Duration) {
    let (progress, mut told) = watch::channel(CopyProgress::default());
    let (stop, mut stopped) = watch::channel(None);
    let stopping = Box::pin(async move {
        let _ = stopped.wait_for(Option::is_some).await;
    });
    let watcher = async move {
        let reached = told.wait_for(|progress| progress.rows_written >= rows).await.map(|_| ());
        stop.send_replace(Some(std::time::Instant::now()));
        (reached.is_ok(), stop, told)
    };
    let copy = copy(bench.spec.clone(), false, stopping, progress);
    let (outcome, (_, stop, told)) =
        tokio::time::timeout(LIMIT, async { tokio::join!(copy, watcher) }).await.expect("the copy ends");
    let took = stop.borrow().map(|at: std::time::Instant| at.elapsed()).unwrap_or_default();
    let last = told.borrow().clone();
    (outcome, last, took)
}
