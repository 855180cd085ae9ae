//! XA transactions: applied when they are prepared, and undone where they are rolled back behind that.

use std::time::Duration;

use crate::support::eventually;
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::servers::Kind;

const LIMIT: Duration = Duration::from_secs(60);

/// Prepared and committed, committed in one phase, prepared and rolled back: also where the agent was killed in between.
async fn xa_transactions(kind: Kind) {
    let (source, target) = shared_pair(kind, if kind == Kind::MySql { Kind::MariaDb } else { Kind::MySql }).await;
    let mut link = Link::start("xa", &source, &target, &LinkOptions::default()).await;
    link.source
        .run_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9))",
            "CREATE TABLE keyless (v INT)",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            "INSERT INTO keyless VALUES (1), (1), (2)",
        ])
        .await;
    let schema = link.schema.clone();
    let name = |n: u32| format!("'{schema}-{n}'");
    let work = [
        "INSERT INTO t VALUES (10, 'new')",
        "UPDATE t SET v = 'x' WHERE id = 1",
        "UPDATE t SET id = 20 WHERE id = 2",
        "DELETE FROM t WHERE id = 3",
        "DELETE FROM keyless WHERE v = 1 LIMIT 1",
        "INSERT INTO keyless VALUES (7)",
    ];
    let prepare = |n: u32| {
        let begin = std::iter::once(format!("XA START {}", name(n)));
        let end = [format!("XA END {}", name(n)), format!("XA PREPARE {}", name(n))];
        begin.chain(work.map(str::to_owned)).chain(end)
    };
    // Rolled back twice under the same name, and once behind a crash.
    for round in 0..3 {
        link.source.run_all(prepare(1)).await;
        eventually("it is there, prepared", LIMIT, async || {
            match link.target.try_rows(&format!("SELECT * FROM {schema}.t WHERE id = 10")).await {
                Ok(rows) if rows.len() == 1 => Ok(()),
                other => Err(format!("{other:?}; {}", link.status().await)),
            }
        })
        .await;
        if round == 2 {
            link.agent.kill9();
            link.agent.restart().await;
        }
        link.source.run(&format!("XA ROLLBACK {}", name(1))).await;
        link.wait_equal().await;
    }
    link.source.run_all([format!("XA START {}", name(3)), "INSERT INTO t VALUES (30, 'one')".into()]).await;
    link.source.run_all([format!("XA END {}", name(3)), format!("XA COMMIT {} ONE PHASE", name(3))]).await;
    link.source.run_all(prepare(4)).await;
    link.source.run(&format!("XA COMMIT {}", name(4))).await;
    link.source.run("INSERT INTO t VALUES (40, 'last')").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn xa_transactions_of_mysql() {
    xa_transactions(Kind::MySql).await;
}

#[tokio::test]
async fn xa_transactions_of_mariadb() {
    xa_transactions(Kind::MariaDb).await;
}
