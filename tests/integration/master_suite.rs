//! What scripts written for dm-worker do to a worker and look for, where no other file has it.

use std::time::Duration;

use dm_agent::control::proto::pb;
use rustix::process::Signal;

use crate::support::cluster::{ClusterLink, WORKER, subtask_toml};
use crate::support::db::Db;
use crate::support::eventually;
use crate::support::fixture::{location, shared_pair};
use crate::support::servers::{Kind, Server, ServerOptions, shared};

const LIMIT: Duration = Duration::from_secs(30);

/// Scripts stop a worker by SIGHUP, wait until the process is gone, and start it again.
#[tokio::test]
async fn a_hangup_stops_an_agent_that_has_joined() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mhup", &source, &target, 60).await;
    link.insert(2).await;
    link.wait_equal().await;
    link.agent.signal(Signal::HUP);
    eventually("it ends in order", LIMIT, async || match link.agent.exit_status() {
        Some(status) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(!link.master.is_alive(WORKER).await, "the lease is given back, not left to time out");
    assert!(link.agent.log().contains("dm-worker exit"), "scripts wait for these words");
    link.insert(3).await;
    link.agent.restart().await;
    link.wait_equal().await;
    assert_eq!(link.status().await.stage(), pb::Stage::Running);
}

/// The value of the first line of `/metrics` that begins with `series`.
async fn metric(link: &ClusterLink, series: &str) -> Option<f64> {
    let page = link.agent.get("/metrics").await.body;
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok())
}

/// Families that scripts look for by name.
#[tokio::test]
async fn what_is_counted_by_events_and_commits_is_there() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mcount", &source, &target, 60).await;
    link.source.run("INSERT INTO t (v) VALUES ('a'), ('b'), ('c'), ('d')").await;
    link.wait_equal().await;
    let wanted = [
        "dm_syncer_binlog_event_row_sum",
        "dm_syncer_replication_transaction_batch_count",
        "dm_syncer_replication_transaction_batch_sum",
    ];
    for series in wanted {
        eventually("it is counted", LIMIT, async || match metric(&link, series).await {
            Some(value) if value >= 1.0 => Ok(()),
            other => Err(format!("{series}: {other:?}")),
        })
        .await;
    }
    assert_eq!(metric(&link, "dm_worker_operate_error").await, None, "nothing has failed");

    // An operation that fails is counted, with the master's word for it.
    link.master.put_source(&link.source_id, "source-id = [").await;
    eventually("the failure is counted", LIMIT, async || match metric(&link, "dm_worker_operate_error").await {
        Some(value) if value >= 1.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    link.master.put_source(&link.source_id, &link.source_toml).await;
    link.insert(1).await;
    link.wait_equal().await;
}

/// OpenAPI makes a subtask with the stage Stopped, and starts it later.
#[tokio::test]
async fn a_subtask_that_is_made_stopped_says_so_until_it_is_started() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mstopped", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.insert(2).await;
    link.master.put_config(&link.source_id, &link.task, &link.toml.to_string()).await;
    link.master.put_stage(&link.source_id, &link.task, 4).await;
    let made = link.wait_for("it is there", |status| status.stage() == pb::Stage::Stopped).await;
    assert_eq!(made.result, None);
    link.resume().await.expect_quick();
    link.wait_equal().await;
    // What it stops is paused.
    link.master.put_stage(&link.source_id, &link.task, 4).await;
    link.wait_for("it is paused", |status| status.stage() == pb::Stage::Paused).await;
}

/// `--start-time` is one of the source's clock, in the task's time zone; rows that came before are met without harm.
#[tokio::test]
async fn a_start_time_is_in_the_time_zone_of_the_task() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mzone", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.source.run("INSERT INTO t (v) VALUES ('left out')").await;
    let before = link.target_rows().await;
    link.source.next_second().await;
    link.source.next_second().await;
    let now = "SELECT DATE_FORMAT(UTC_TIMESTAMP() + INTERVAL 3 HOUR, '%Y-%m-%d %H:%i:%s')";
    let now = link.source.text(now).await;
    link.source.next_second().await;
    link.source.run("INSERT INTO t (v) VALUES ('there'), ('not there')").await;
    let there = link.source.number("SELECT id FROM t WHERE v = 'there'").await;
    let schema = link.schema.clone();
    link.target.run(&format!("INSERT INTO {schema}.t VALUES ({there}, 'there')")).await;
    link.toml.insert("timezone".into(), "+03:00".into());
    link.start_task(Some(&now)).await.expect_quick();
    eventually("the rows behind the start time", LIMIT, async || match link.target_rows().await {
        rows if rows == before + 2 => Ok(()),
        rows => Err(format!("{rows} rows, {:?}", link.status().await)),
    })
    .await;
    assert_eq!(link.status().await.stage(), pb::Stage::Running);
    for words in
        ["enable safe-mode for safe mode exit point, will exit at", "disable safe-mode after task initialization"]
    {
        link.wait_logged(words, "").await;
    }
}

/// Between two cases the source's binlog is reset: what this machine keeps of the one before is of another history.
#[tokio::test]
async fn a_source_that_was_reset_between_two_bindings_begins_anew() {
    reset_between_two_bindings("mreset", false).await;
}

/// The same where the subtask before was stopped on another worker, so that its record is still here.
#[tokio::test]
async fn a_source_that_was_reset_while_it_was_elsewhere_begins_anew() {
    reset_between_two_bindings("maway", true).await;
}

async fn reset_between_two_bindings(label: &str, elsewhere: bool) {
    let source = Server::start(Kind::MySql, &ServerOptions::default()).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = ClusterLink::start(label, &source, &target, 60).await;
    link.source.run_all(["INSERT INTO t (v) VALUES ('before')", "INSERT INTO t (v) VALUES ('before')"]).await;
    link.wait_equal().await;
    if elsewhere {
        link.master.move_bound(&link.source_id, "another-worker").await;
        eventually("the source is given up", LIMIT, async || {
            let status = link.agent.status().await;
            if status["sources"].as_array().is_none_or(Vec::is_empty) { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        link.master.forget_task(&link.source_id, &link.task).await;
    } else {
        link.stop().await.expect_quick();
        link.master.stop_source(&link.source_id).await;
    }
    let schema = link.schema.clone();
    link.source.run_all(["RESET BINARY LOGS AND GTIDS", "CREATE TABLE u (id INT PRIMARY KEY)"]).await;
    link.target.run(&format!("DROP TABLE dm_meta.{}_syncer_checkpoint", link.task)).await;
    link.target.run(&format!("CREATE TABLE {schema}.u (id INT PRIMARY KEY)")).await;
    let start = location(&mut link.source, Kind::MySql).await;
    link.source.run("INSERT INTO u VALUES (1), (2)").await;
    if elsewhere {
        link.master.move_bound(&link.source_id, WORKER).await;
    } else {
        link.master.create_source(&link.source_id, &link.source_toml).await;
    }
    link.toml = subtask_toml(&link.task, &link.source_id, target.port, &[&schema], &start);
    link.start_task(None).await;
    link.source.run("INSERT INTO u VALUES (3)").await;
    link.wait_equal().await;
}

/// Statements as they were logged on the source, in the line that says that they are done.
#[tokio::test]
async fn a_statement_is_logged_as_a_dm_worker_logs_it() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mddl", &source, &target, 60).await;
    let statement = format!("CREATE TABLE IF NOT EXISTS {}.words (c INT PRIMARY KEY)", link.schema);
    link.source.run(&statement).await;
    link.wait_logged("finish to handle ddls in normal mode", &statement).await;
}

/// What a dm-worker's users see of the tools that it dumps and loads with: by name, when the rows are copied.
#[tokio::test]
async fn a_copy_is_told_by_the_names_of_dms_tools() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mtools", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.source.run_all(["CREATE TABLE none (id INT PRIMARY KEY)", "CREATE TABLE `tb/1` (id INT PRIMARY KEY)"]).await;
    link.source.run("INSERT INTO `tb/1` VALUES (1), (2)").await;
    link.task = format!("copy_{}", link.schema);
    for (name, value) in [("name", link.task.as_str()), ("mode", "full")] {
        link.toml.insert(name.into(), value.into());
    }
    let started = link.start_task(None).await;
    assert!(started.ok, "{started:?}");
    let done = link.wait_for("it comes to its end", |status| status.stage() == pb::Stage::Finished).await;
    let Some(pb::sub_task_status::Status::Load(load)) = &done.status else { panic!("{done:?}") };
    assert_eq!(load.progress, "100.00 %", "{load:?}");
    link.wait_logged("clean dump files", "progress=\"100.00 %\"").await;
    let (source_id, task) = (link.source_id.clone(), link.task.clone());
    let labels = format!("source_id=\"{source_id}\",task=\"{task}\"");
    for (series, value) in [
        (format!("dumpling_dump_finished_tables{{{labels}}}"), Some(3.0)),
        (
            format!(
                "lightning_tables{{result=\"success\",source_id=\"{source_id}\",state=\"completed\",task=\"{task}\"}}"
            ),
            Some(3.0),
        ),
        // As a dm-worker's, it goes with the end of the task.
        ("dm_worker_task_state".to_owned(), None),
    ] {
        assert_eq!(metric(&link, &series).await, value, "{series}");
    }
    link.wait_equal().await;
}

/// How many connections of an account a server has.
async fn connections(db: &mut Db, user: &str) -> u64 {
    db.number(&format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{user}'")).await
}

async fn expect_connections(link: &mut ClusterLink, user: &str, what: &str, wanted: (u64, u64)) {
    eventually(what, LIMIT, async || {
        let now = (connections(&mut link.source, user).await, connections(&mut link.target, user).await);
        if now == wanted { Ok(()) } else { Err(format!("{now:?}, not {wanted:?}")) }
    })
    .await;
}

/// A server's operators know their replication by its connections: one that looks at the source, one that receives, and none
/// downstream while no task runs.
#[tokio::test]
async fn connections_are_as_many_as_a_dm_workers() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mconn", &source, &target, 60).await;
    link.stop().await.expect_quick();
    let user = link.schema.clone();
    for db in [&mut link.source, &mut link.target] {
        db.run(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'dmpw'")).await;
        db.run(&format!("GRANT ALL ON *.* TO {user}@'%'")).await;
    }
    let mut source_toml: toml::Table = link.source_toml.parse().expect("TOML");
    source_toml["from"].as_table_mut().expect("a table").insert("user".into(), user.clone().into());
    link.source_toml = source_toml.to_string();
    link.toml["to"].as_table_mut().expect("a table").insert("user".into(), user.clone().into());
    link.master.put_source(&link.source_id, &link.source_toml).await;
    expect_connections(&mut link, &user, "bound, no task", (1, 0)).await;
    link.start_task(None).await.expect_quick();
    link.insert(3).await;
    link.wait_equal().await;
    assert!(connections(&mut link.target, &user).await > 0);
    link.pause().await.expect_quick();
    expect_connections(&mut link, &user, "paused: it is looked at, and received", (2, 0)).await;
    link.stop().await.expect_quick();
    expect_connections(&mut link, &user, "stopped", (1, 0)).await;
    link.master.start_relay_on(&link.source_id, WORKER).await;
    expect_connections(&mut link, &user, "its relay log is kept", (2, 0)).await;
    link.master.stop_relay_on(&link.source_id, WORKER).await;
    link.master.stop_source(&link.source_id).await;
    expect_connections(&mut link, &user, "nothing is bound", (0, 0)).await;
}

/// A binlog file that ends without a transaction behind it: positions go on into the next one, in the status, downstream and
/// in `/metrics`.
async fn an_empty_file_is_passed(kind: Kind, options: ServerOptions) {
    let source = Server::start(kind, &options).await;
    let target = shared(Kind::MariaDb, &ServerOptions::default()).await;
    let mut link = ClusterLink::start("mflush", &source, &target, 60).await;
    for _ in 0..2 {
        link.source.run("FLUSH BINARY LOGS").await;
        let end = eventually("it stands where the source stands", LIMIT, async || {
            // A MariaDB writes an event of its own into the new file a moment later.
            let end = location(&mut link.source, kind).await;
            let place = format!("({}, {})", end.file, end.position);
            match link.status().await.status {
                Some(pb::sub_task_status::Status::Sync(sync))
                    if sync.synced && sync.master_binlog == place && sync.syncer_binlog == place =>
                {
                    Ok(end)
                }
                other => Err(format!("{other:?}, the source stands at {place}")),
            }
        })
        .await;
        let file: f64 = end.file.rsplit('.').next().expect("a number").parse().expect("a number");
        for node in ["master", "syncer"] {
            assert_eq!(metric(&link, &format!("dm_syncer_binlog_file{{node=\"{node}\"")).await, Some(file), "{node}");
        }
    }
    link.insert(1).await;
    link.wait_equal().await;
}

#[tokio::test]
async fn a_mysqls_empty_file_is_passed_by_position() {
    an_empty_file_is_passed(Kind::MySql, ServerOptions { gtid: false, ..ServerOptions::default() }).await;
}

#[tokio::test]
async fn a_mariadbs_empty_file_is_passed() {
    an_empty_file_is_passed(Kind::MariaDb, ServerOptions::default()).await;
}

/// The errors of a subtask that is paused, as one text.
async fn failure_with(link: &ClusterLink, words: &str) -> String {
    let told = |status: &pb::SubTaskStatus| {
        let errors = status.result.iter().flat_map(|result| &result.errors);
        errors.map(|error| format!("{} {}", error.message, error.raw_cause)).collect::<String>()
    };
    let failed = link.wait_for(words, |status| status.stage() == pb::Stage::Paused && told(status).contains(words));
    told(&failed.await)
}

/// A filter keeps an ALTER TABLE from the target. The first row with the new column is refused in the target's words, and goes
/// on when the column was added there by hand.
#[tokio::test]
async fn a_column_that_a_filter_left_out_is_named_as_the_target_would() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mtracker", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.task = format!("copy_{}", link.schema);
    for (name, value) in [("name", link.task.as_str()), ("mode", "all")] {
        link.toml.insert(name.into(), value.into());
    }
    let filter = "schema-pattern = '*'\ntable-pattern = '*'\nevents = ['alter table']\naction = 'Ignore'";
    let filter: toml::Value = filter.parse::<toml::Table>().expect("TOML").into();
    link.toml.insert("filter-rules".into(), vec![filter].into());
    link.start_task(None).await.expect_quick();
    link.wait_for("it follows", |status| status.unit() == pb::UnitType::Sync).await;
    link.source.run("ALTER TABLE t ADD COLUMN ignore_1 INT").await;
    link.source.run("INSERT INTO t (v, ignore_1) VALUES ('new', 1)").await;
    failure_with(&link, "Error 1054 (42S22): Unknown column 'ignore_1' in 'field list'").await;
    link.target.run(&format!("ALTER TABLE {}.t ADD COLUMN ignore_1 INT", link.schema)).await;
    link.resume().await.expect_quick();
    link.wait_equal().await;
}

/// `collation_compatible: strict`: a collation that the source did not name is the source's, and one that the target does not
/// know is refused by it, where else one like it is taken.
#[tokio::test]
async fn collations_that_a_statement_leaves_out_are_the_sources_or_none() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mcollate", &source, &target, 60).await;
    link.stop().await.expect_quick();
    link.toml.insert("collation_compatible".into(), "strict".into());
    link.start_task(None).await.expect_quick();
    let collation = |table: &str| {
        format!(
            "SELECT collation_name FROM information_schema.columns WHERE table_schema = '{}' AND table_name = '{table}' AND \
             column_name = 's'",
            link.schema
        )
    };
    let there = collation("there");
    link.source.run("SET SESSION default_collation_for_utf8mb4 = utf8mb4_general_ci").await;
    link.source.run("CREATE TABLE there (id INT PRIMARY KEY, s VARCHAR(9) CHARACTER SET utf8mb4)").await;
    link.wait_equal().await;
    assert_eq!(link.target.text(&there).await, "utf8mb4_general_ci");

    link.source.run("SET SESSION default_collation_for_utf8mb4 = utf8mb4_0900_ai_ci").await;
    link.source.run("CREATE TABLE unknown (id INT PRIMARY KEY, s VARCHAR(9) CHARACTER SET utf8mb4)").await;
    let failure = failure_with(&link, "Error 1273 (HY000): ").await;
    assert!(failure.contains("utf8mb4_0900_ai_ci"), "{failure}");
    link.stop().await.expect_quick();

    // The same of a copy: by default it takes one like it, and says so.
    for (mode, words) in [("strict", "Error 1273 (HY000): "), ("loose", "")] {
        link.task = format!("{mode}_{}", link.schema);
        for (name, value) in [("name", link.task.as_str()), ("mode", "full"), ("collation_compatible", mode)] {
            link.toml.insert(name.into(), value.into());
        }
        let started = link.start_task(None).await;
        assert!(started.ok || mode == "strict", "{started:?}");
        if mode == "strict" {
            failure_with(&link, words).await;
            link.stop().await.expect_quick();
        } else {
            link.wait_for("it comes to its end", |status| status.stage() == pb::Stage::Finished).await;
        }
    }
}
