//! The tests' own tools, tested: an oracle that sees nothing would let everything pass.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::db::Db;
use crate::support::fixture::shared_pair;
use crate::support::oracle;
use crate::support::proxy::{Fault, Proxy};
use crate::support::servers::{Kind, Server, ServerOptions, fresh_schema};
use crate::support::sysbench::Sysbench;
use crate::support::workload::{Mix, Step, Workload};

/// The servers survive what tests do to them, and keep their data.
async fn survives_kill_and_freeze(kind: Kind) {
    let mut server = Server::start(kind, &ServerOptions::default()).await;
    let mut db = server.root().await;
    db.run_all(["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1), (2)"]).await;
    server.kill9();
    server.restart().await;
    let mut db = server.root().await;
    assert_eq!(db.number("SELECT COUNT(*) FROM d.t").await, 2);
    server.freeze();
    let answer = tokio::time::timeout(Duration::from_millis(300), db.try_run("SELECT 1")).await;
    assert!(answer.is_err(), "a frozen server must not answer: {answer:?}");
    server.thaw();
    let mut db = server.root().await;
    assert_eq!(db.number("SELECT COUNT(*) FROM d.t").await, 2);
}

#[tokio::test]
async fn mysql_survives_kill_and_freeze() {
    survives_kill_and_freeze(Kind::MySql).await;
}

#[tokio::test]
async fn mariadb_survives_kill_and_freeze() {
    survives_kill_and_freeze(Kind::MariaDb).await;
}

/// Runs the same statements on both servers.
async fn both(servers: &mut [Db; 2], statements: &[&str]) {
    for db in servers {
        db.run_all(statements).await;
    }
}

#[tokio::test]
async fn the_oracle_sees_a_planted_difference_of_each_kind() {
    let (mysql, maria) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut servers = [mysql.root().await, maria.root().await];
    let schema = fresh_schema("oracle");
    let setup = [
        format!("CREATE DATABASE {schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"),
        format!("USE {schema}"),
        "CREATE TABLE keyed (id INT PRIMARY KEY, v VARCHAR(40), f FLOAT, doc JSON, b BIT(12))".into(),
        "CREATE TABLE keyless (a INT, c VARCHAR(9) CHARACTER SET gbk)".into(),
        r#"INSERT INTO keyed VALUES (1, 'é''😀', 0.1, '{"b":1,"a":[1.5,null]}', b'101'), (2, NULL, -0.5, NULL, NULL)"#
            .into(),
        "INSERT INTO keyless VALUES (1, '汉'), (1, '汉'), (NULL, NULL)".into(),
    ];
    both(&mut servers, &setup.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let pair = [(schema.as_str(), schema.as_str())];
    {
        let [source, target] = &mut servers;
        oracle::eventually_equal(source, target, &pair, Duration::from_secs(5)).await;
    }
    // Each change alone must be seen, and named.
    let planted = [
        ("UPDATE keyed SET v = 'e''😀' WHERE id = 1", "UPDATE keyed SET v = 'é''😀' WHERE id = 1", "v="),
        ("UPDATE keyed SET f = 0.10000002 WHERE id = 1", "UPDATE keyed SET f = 0.1 WHERE id = 1", "f="),
        (
            r#"UPDATE keyed SET doc = '{"b":1,"a":[1.5]}' WHERE id = 1"#,
            r#"UPDATE keyed SET doc = '{"a": [1.5, null], "b": 1}' WHERE id = 1"#,
            "doc=",
        ),
        ("UPDATE keyed SET b = b'100' WHERE id = 1", "UPDATE keyed SET b = b'101' WHERE id = 1", "b="),
        ("INSERT INTO keyless VALUES (1, '汉')", "DELETE FROM keyless WHERE a = 1 LIMIT 1", "1 in the target only"),
        ("DELETE FROM keyless WHERE a IS NULL", "INSERT INTO keyless VALUES (NULL, NULL)", "only in the source"),
        ("ALTER TABLE keyless ADD INDEX i (a)", "DROP INDEX i ON keyless", "indexes"),
        ("CREATE TABLE more (id INT)", "DROP TABLE more", "in the target only"),
        ("ALTER TABLE keyless ADD COLUMN z INT", "ALTER TABLE keyless DROP COLUMN z", "columns"),
    ];
    let [source, target] = &mut servers;
    for (change, repair, words) in planted {
        target.run(change).await;
        let seen = oracle::compare(source, target, &pair).await;
        assert!(seen.as_ref().is_some_and(|text| text.contains(words)), "{change}: {seen:?}");
        target.run(repair).await;
        assert_eq!(oracle::compare(source, target, &pair).await, None, "after {repair}");
    }
}

#[tokio::test]
async fn a_workload_replays_by_its_seed_and_runs_alike_on_both_makes() {
    let mix = Mix { ddl: 0.1, big: 0.02 };
    let steps = |seed| {
        let mut workload = Workload::new(seed, mix);
        std::iter::repeat_with(|| workload.next_step()).take(300).collect::<Vec<Step>>()
    };
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));

    let (mysql, maria) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let schema = fresh_schema("workload");
    let seed = Workload::from_env(mix).seed;
    let mut servers = [mysql.root().await, maria.root().await];
    for db in &mut servers {
        db.create_schema(&schema).await;
        let mut workload = Workload::new(seed, mix);
        db.run_all(workload.setup()).await;
        workload.run(db, 400).await;
        for table in ["plain", "uniques", "wide"] {
            db.run(&format!("REPLACE INTO {table} (id{}) VALUES (1{})", extra(table).0, extra(table).1)).await;
        }
    }
    // Statements with LIMIT may hit other rows on the other make; tables without them must be equal.
    let [source, target] = &mut servers;
    let difference = oracle::compare(source, target, &[(&schema, &schema)]).await.unwrap_or_default();
    for table in ["plain", "pair"] {
        assert!(!difference.contains(&format!("{schema}.{table}:")), "SEED={seed}: {difference}");
    }
}

/// Columns without a default.
fn extra(table: &str) -> (&'static str, &'static str) {
    if table == "uniques" { (", u2", ", 'u'") } else { ("", "") }
}

/// Echoes what it gets, on a free port.
async fn echo_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

async fn ask(stream: &mut TcpStream, text: &str) -> Result<String, String> {
    stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
    answer(stream, text.len()).await
}

async fn answer(stream: &mut TcpStream, length: usize) -> Result<String, String> {
    let mut buffer = vec![0; length];
    match tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut buffer)).await {
        Ok(Ok(_)) => Ok(String::from_utf8_lossy(&buffer).into_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("silence".into()),
    }
}

#[tokio::test]
async fn the_proxy_does_what_it_is_told() {
    let proxy = Proxy::start(echo_server().await);
    let connect = async || TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("connect");
    let mut stream = connect().await;
    assert_eq!(ask(&mut stream, "one").await, Ok("one".into()));

    for silent in [Fault::BlackHole, Fault::HoldReplies] {
        proxy.set(silent);
        assert_eq!(ask(&mut stream, "two").await, Err("silence".into()), "{silent:?}");
        let mut new = connect().await;
        assert_eq!(ask(&mut new, "new").await, Err("silence".into()), "{silent:?}");
        proxy.set(Fault::None);
        assert_eq!(answer(&mut stream, 3).await, Ok("two".into()), "what {silent:?} held comes later");
        assert_eq!(answer(&mut new, 3).await, Ok("new".into()));
    }

    proxy.set(Fault::Delay(Duration::from_millis(50)));
    let began = Instant::now();
    assert_eq!(ask(&mut stream, "slow").await, Ok("slow".into()));
    assert!(began.elapsed() >= Duration::from_millis(100), "both directions wait");

    proxy.set(Fault::CutAfter(6));
    assert_eq!(ask(&mut stream, "1234").await, Ok("1234".into()));
    let cut = ask(&mut stream, "5678").await.expect_err("cut inside the second answer");
    assert_ne!(cut, "silence");
    assert_eq!(proxy.reply_bytes(), 8);
    let mut stream = connect().await;
    assert_eq!(ask(&mut stream, "after").await, Ok("after".into()), "one cut only");

    proxy.reset_connections();
    let reset = ask(&mut stream, "gone").await.expect_err("reset");
    assert_ne!(reset, "silence");

    proxy.set(Fault::Refuse);
    // The reset may come before the connection is even made.
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", proxy.port)).await {
        assert_ne!(ask(&mut stream, "no").await.expect_err("refused"), "silence");
    }
}

#[tokio::test]
async fn sysbench_writes() {
    let (_, maria) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let schema = fresh_schema("sysbench");
    let mut db = maria.root().await;
    db.run(&format!("CREATE DATABASE {schema}")).await;
    let load = Sysbench { port: maria.port, schema: schema.clone(), tables: 2, rows: 100 };
    tokio::task::spawn_blocking({
        let load = load.clone();
        move || load.prepare()
    })
    .await
    .expect("prepare");
    let before = oracle::fingerprint(&mut db, &schema).await.expect("fingerprint");
    let mut run = load.run(2, Duration::from_secs(60));
    crate::support::eventually("sysbench changes rows", Duration::from_secs(20), async || {
        assert!(run.exit_status().is_none(), "sysbench ended: {}", run.log_text());
        let now = oracle::fingerprint(&mut db, &schema).await?;
        if now == before { Err(now) } else { Ok(()) }
    })
    .await;
}
