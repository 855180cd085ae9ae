//! Files that a real DM accepted, and what it printed of them (`tests/golden/config`), and files that are wrong.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::Flavor;

fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/config/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn problems(error: ConfigError) -> Vec<String> {
    error.problems.iter().map(Problem::to_string).collect()
}

fn task(name: &str) -> TaskConfig {
    TaskConfig::from_yaml(&golden(name)).unwrap()
}

/// The one subtask of a task with one source.
fn subtask(name: &str) -> SubtaskConfig {
    let mut task = task(name);
    assert_eq!(task.subtasks.len(), 1);
    task.subtasks.remove(0)
}

#[test]
fn sources() {
    let minimal = SourceConfig::from_yaml(&golden("source-minimal.yaml")).unwrap();
    assert_eq!(minimal.source_id, "mysql-01");
    assert_eq!((minimal.from.host.as_str(), minimal.from.port, minimal.from.user.as_str()), ("127.0.0.1", 33061, "dm"));
    assert_eq!(minimal.from.password.expose(), "dmpw");
    assert_eq!(
        (minimal.flavor, minimal.server_id, minimal.enable_gtid, minimal.enable_relay),
        (None, None, false, false)
    );
    assert_eq!(minimal.purge.interval, Duration::from_secs(3600));
    assert_eq!(minimal.checker, CheckerConfig::default());
    assert!(minimal.notes().is_empty() && minimal.relay_start.is_none());

    assert!(SourceConfig::from_yaml(&golden("source-gtid.yaml")).unwrap().enable_gtid);
    let maria = SourceConfig::from_yaml(&golden("source-mariadb.yaml")).unwrap();
    assert_eq!((maria.flavor, maria.enable_gtid), (Some(Flavor::MariaDb), true));

    let full = SourceConfig::from_yaml(&golden("source-full.yaml")).unwrap();
    assert_eq!((full.flavor, full.server_id), (Some(Flavor::MySql), Some(429_523_137)));
    assert_eq!(full.from.session.get("time_zone").map(String::as_str), Some("+00:00"));
    assert_eq!(full.filters[0].events, ["drop database", "truncate table"]);
    assert_eq!(full.filters[0].sql_pattern, ["^DROP\\s+PROCEDURE"]);
}

#[test]
fn sources_in_etcd_are_the_same() {
    let full = SourceConfig::from_toml(&golden("etcd-source-full.toml")).unwrap();
    assert_eq!(full, SourceConfig::from_yaml(&golden("source-full.yaml")).unwrap());
    let minimal = SourceConfig::from_toml(&golden("etcd-source-minimal.toml")).unwrap();
    assert_eq!(minimal.server_id, Some(429_516_159));
    assert_eq!(minimal.to_dm_yaml(), golden("get-config-source.yaml"));
    assert!(SourceConfig::from_toml(&format!("newer-key = 1\n{}", golden("etcd-source-minimal.toml"))).is_ok());
}

#[test]
fn sources_are_stored_and_read_back() {
    let mut source = SourceConfig::from_yaml(&golden("source-full.yaml")).unwrap();
    source.relay_start = Some(RelayStart { binlog_name: "mysql-bin.000002".into(), binlog_gtid: String::new() });
    source.from.security = Some(Security {
        ca: Some(Pem::Inline(Secret::new("-----BEGIN CERTIFICATE-----\n"))),
        cert: Some(Pem::File("/etc/c.pem".into())),
        key: Some(Pem::File("/etc/k.pem".into())),
        cert_allowed_cn: vec!["dm".into()],
    });
    assert_eq!(SourceConfig::from_yaml(&source.to_stored_yaml()).unwrap(), source);
    let shown = source.to_dm_yaml();
    assert!(!shown.contains("dmpw") && shown.contains("password: '******'") && !shown.contains("LS0t"), "{shown}");
    assert!(!format!("{source:?}").contains("dmpw"));
}

#[test]
fn source_problems_come_all_at_once() {
    let text = "source-id: a-name-that-is-much-longer-than-dm-allows\nflavour: mysql\nrelay-binlog-gtid: nonsense\n\
                server-id: -1\nenable-gtid: 7\nfrom:\n  host: ''\n  port: 99999\n  usr: dm\n  password: {a: s3cret}\n  \
                session: {'a b': 1, n: 2, t: true}\n  security: {ssl-cert: c.pem}\nchecker: {backoff-max: 5}\n";
    let error = SourceConfig::from_yaml(text).unwrap_err();
    assert!(!error.to_string().contains("s3cret"));
    let failure = error.to_failure(crate::error::Code::ConfigSource);
    assert!(failure.message.starts_with("source configuration: 13 problems\n"), "{}", failure.message);
    let expected = [
        "source-id: is longer than 32 characters; give a shorter name",
        "enable-gtid: 7 is not true or false; give `true` or `false`",
        "relay-binlog-gtid: \"nonsense\" is not a GTID set; give what the server prints in `@@gtid_executed` (MySQL) or \
         `@@gtid_binlog_pos` (MariaDB)",
        "server-id: -1 is not a whole number in range; give a number from 0 to 4294967295",
        "from.host: is empty; give the server's name or address",
        "from.port: 99999 is not a whole number in range; give a number from 1 to 65535",
        "from.user: is missing; give the account to log in with",
        "from.password: must be text, not a table of keys; give one value",
        "from.session.a b: is not the name of a session variable; use letters, digits, `_` and `.`",
        "from.security.ssl-key: is missing; give the private key that belongs to `ssl-cert`",
        "from.usr: is not a known key; did you mean `user`?",
        "checker.backoff-max: \"5\" is not a duration; give a number with a unit, such as `30s` or `5m0s`",
        "flavour: is not a known key; did you mean `flavor`?",
    ];
    assert_eq!(problems(error), expected);
}

#[test]
fn files_that_are_no_tables() {
    for (text, expected) in [
        ("", "source-id: is missing"),
        ("- a\n", "the file must be a table of keys, not a list"),
        ("a: [\n", "not valid YAML"),
        ("from: x\nsource-id: s\n", "from: must be a table of keys, not text"),
    ] {
        let error = SourceConfig::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn session_values_may_be_numbers() {
    let text = golden("source-minimal.yaml") + "  session: {net_write_timeout: 600, a: 0.5, b: true, c: x}\n";
    let session = SourceConfig::from_yaml(&text).unwrap().from.session;
    let values: Vec<_> = session.values().map(String::as_str).collect();
    assert_eq!(values, ["0.5", "true", "x", "600"]);
}

#[test]
fn tasks() {
    let minimal = subtask("task-minimal.yaml");
    assert_eq!(
        (minimal.name.as_str(), minimal.source_id.as_str(), minimal.mode),
        ("t1", "mysql-01", TaskMode::Incremental)
    );
    assert_eq!(minimal.block_allow_list.do_dbs, ["d1"]);
    assert_eq!(minimal.syncer, SyncerConfig::default());
    assert_eq!((&minimal.meta, minimal.meta_schema.as_str()), (&None, "dm_meta"));
    assert!(minimal.online_ddl && !minimal.case_sensitive);
    assert_eq!(minimal.notes().len(), 1, "ignore-checking-items: {:?}", minimal.notes());
    assert_eq!(minimal.notes_under_master(), Vec::<String>::new(), "a master's checks heed it");

    let errors = subtask("task-errors.yaml");
    assert_eq!(errors.syncer.worker_count, 2);
    assert!(errors.notes()[1].starts_with("`batch` of `syncers` has no meaning here: "), "{:?}", errors.notes());
    assert_eq!(errors.syncer.safe_mode_duration, Duration::from_secs(1));
    let gtid = subtask("task-gtid.yaml");
    assert_eq!(gtid.syncer.checkpoint_flush_interval, Duration::from_secs(5));
    assert_eq!(gtid.syncer.safe_mode_duration, Duration::from_secs(10));
    assert_eq!(subtask("task-mariadb.yaml").source_id, "maria-01");
    for name in ["task-minimal.yaml", "task-errors.yaml", "task-gtid.yaml", "task-mariadb.yaml"] {
        assert_eq!(subtask(name).refusals(), Vec::<String>::new());
    }
}

/// A master of another version may know more; what it says is not lost without a word.
#[test]
fn keys_of_a_later_master_are_named() {
    let golden = include_str!("../../tests/golden/config/etcd-subtask-t1.toml");
    let named = |text: &str| SubtaskConfig::from_toml(text).unwrap().notes().join("; ");
    assert!(!named(golden).contains("does not know"), "{}", named(golden));
    let later =
        golden.replacen("name = \"t1\"", "name = \"t1\"\nnew-key = 1", 1).replacen("[to]", "[to]\nnewer = 2", 1);
    assert!(
        named(&later).contains("`to.newer`, `new-key` have no meaning here: this version does not know it"),
        "{}",
        named(&later)
    );
}

#[test]
fn tasks_this_version_refuses() {
    for (name, word) in [
        ("task-optimistic.yaml", "merging shards"),
        ("task-pessimistic.yaml", "merging shards"),
        ("task-validator.yaml", "validator mode `full`"),
    ] {
        for subtask in task(name).subtasks {
            let refusals = subtask.refusals();
            assert!(refusals.len() == 1 && refusals[0].contains(word), "{refusals:?}");
        }
    }
    assert_eq!(task("task-all.yaml").subtasks[0].refusals(), Vec::<String>::new());
    let text = golden("task-all.yaml").replace("task-mode: all", "task-mode: load");
    let refusals = TaskConfig::from_yaml(&text).unwrap().subtasks[0].refusals();
    assert!(
        refusals.len() == 1 && refusals[0].contains("task-mode `load`") && refusals[0].contains("use `all`"),
        "{refusals:?}"
    );
    let optimistic = task("task-optimistic.yaml");
    assert_eq!(optimistic.subtask("mysql-02").unwrap().shard_mode, Some(ShardMode::Optimistic));
    let error = optimistic.subtask("mysql-03").unwrap_err().to_string();
    assert!(error.contains("no source `mysql-03`; its sources are mysql-01, mysql-02"), "{error}");
}

/// As the recording was made: the file needs a place in `meta` (README of the golden data).
fn full_task() -> TaskConfig {
    let set = "binlog-gtid: \"9688d8a4-e680-11f1-97c9-4b29ec27fc7c:1-12\"";
    TaskConfig::from_yaml(&golden("task-full.yaml").replace("binlog-gtid: \"\"", set)).unwrap()
}

#[test]
fn task_with_everything() {
    let error = TaskConfig::from_yaml(&golden("task-full.yaml")).unwrap_err();
    assert_eq!(
        problems(error),
        [
            "mysql-instances[0].meta: names no place; give `binlog-name` or `binlog-gtid`, or remove it to start at the source's present end"
        ]
    );
    let task = full_task();
    let full = task.subtask("mysql-02").unwrap();
    assert_eq!(full.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["r-table", "r-schema"]);
    assert_eq!(full.routes[0].extract_schema.as_ref().unwrap().target_column, "c_schema");
    assert_eq!(full.filter_rules[0].action, "Ignore");
    assert_eq!(full.expression_filters[0].insert_value, "id > 1000");
    assert_eq!(full.block_allow_list.ignore_tables, [TablePattern { db: "shop1".into(), tbl: "log".into() }]);
    assert_eq!(full.syncer.worker_count, 8);
    assert_eq!(full.mydumper.text("extra-args"), Some("--consistency none"));
    assert_eq!(full.loader.int("pool-size"), Some(16));
    assert_eq!(full.to.session.get("time_zone").map(String::as_str), Some("+00:00"));
    assert_eq!(full.refusals().len(), 1, "{:?}", full.refusals());
    assert_eq!(full.notes().len(), 7, "{:?}", full.notes());
}

#[test]
fn tasks_are_printed_as_dm_prints_them() {
    assert_eq!(full_task().to_dm_yaml(), golden("get-config-task-t2.yaml"));
    let mut minimal = task("task-minimal.yaml");
    // What the master fills in at the start: the source's end.
    minimal.subtasks[0].meta = Some(StartMeta {
        binlog_name: "mysql-bin.000001".into(),
        binlog_pos: 4529,
        binlog_gtid: "9231c604-e680-11f1-ab28-628677c36cd1:1-17".into(),
    });
    assert_eq!(minimal.to_dm_yaml(), golden("get-config-task.yaml"));
}

#[test]
fn tasks_are_stored_and_read_back() {
    for name in
        ["task-minimal.yaml", "task-optimistic.yaml", "task-validator.yaml", "task-errors.yaml", "task-all.yaml"]
    {
        let once = TaskConfig::from_yaml(&task(name).to_stored_yaml()).unwrap();
        assert_eq!(TaskConfig::from_yaml(&once.to_stored_yaml()).unwrap(), once, "{name}");
        assert_eq!(once.to_dm_yaml(), task(name).to_dm_yaml(), "{name}");
        assert!(once.subtasks.iter().all(|subtask| subtask.to.password.expose() == "dmpw"));
    }
    let mut custom = task("task-minimal.yaml");
    custom.subtasks[0].shadow_table_rules = vec!["^ghost_(.+)$".into()];
    assert_eq!(
        TaskConfig::from_yaml(&custom.to_stored_yaml()).unwrap().subtasks[0].shadow_table_rules,
        ["^ghost_(.+)$"]
    );
}

#[test]
fn subtasks_in_etcd_are_the_same() {
    let mut t1 = SubtaskConfig::from_toml(&golden("etcd-subtask-t1.toml")).unwrap();
    assert_eq!(t1.meta.take().unwrap().binlog_pos, 4529);
    assert_eq!(t1, subtask("task-minimal.yaml"));

    let mut t2 = SubtaskConfig::from_toml(&golden("etcd-subtask-t2.toml")).unwrap();
    assert_eq!(t2.routes[1].name, "route-02");
    let mut expected = full_task().subtasks.remove(0);
    // etcd holds no names.
    for (theirs, ours) in t2.routes.iter_mut().zip(&expected.routes) {
        theirs.name = ours.name.clone();
    }
    t2.filter_rules[0].name = "f1".into();
    t2.expression_filters[0].name = "e1".into();
    expected.syncer.safe_mode_duration = Duration::from_secs(30);
    assert_eq!(t2, expected);
}

#[test]
fn a_subtask_inherits_from_its_source() {
    let mut subtask = full_task().subtasks.remove(0);
    subtask.filter_rules[0].schema_pattern = "nofilter*".into();
    subtask.filter_rules[0].table_pattern = String::new();
    let mut source = SourceConfig::from_yaml(&golden("source-full.yaml")).unwrap();
    source.case_sensitive = true;
    subtask.inherit(&source);
    assert!(subtask.case_sensitive);
    assert_eq!(subtask.filter_rules.len(), 1, "the task's rule for the same pattern wins");
    source.filters[0].schema_pattern = "NoFilter*".into();
    subtask.inherit(&source);
    assert_eq!(subtask.filter_rules.len(), 2, "with case these are two");
    (source.case_sensitive, subtask.case_sensitive) = (false, false);
    subtask.filter_rules.truncate(1);
    subtask.inherit(&source);
    assert_eq!(subtask.filter_rules.len(), 1, "without case these are one");
    source.filters[0].schema_pattern = "other".into();
    subtask.inherit(&source);
    assert_eq!(subtask.filter_rules.len(), 2);
}

#[test]
fn task_problems_come_all_at_once() {
    let text = "name: t\ntask-mode: incrementel\nshadow-table-rules: ['^_x$']\ntarget-database: {host: h, port: 1, user: u}\n\
                mysql-instances:\n- source-id: s\n  route-rules: [r1]\n  block-allow-lst: ba\n  syncer-config-name: s\n  \
                syncer: {batch: 1}\n- source-id: s\n  block-allow-list: none\n  meta: {binlog-name: nodot}\n\
                routes:\n  r2: {schema-pattern: a, target-schema: b}\n  r1x: {table-pattern: a}\n\
                block-allow-list:\n  ba: {do-dbs: ['~(']}\n\
                syncers:\n  s: {worker-count: many, safe-mode: true, safe-mode-duration: 0s}\ncolumn-mappings: {c: {}}\n";
    let expected = [
        "task-mode: \"incrementel\" is not known; give `all`, `full`, `incremental`, `dump`, `load`, `load&sync`",
        "shadow-table-rules: \"^_x$\" has 0 groups; put the table's name into exactly one `(…)`",
        "block-allow-list.ba.do-dbs: \"~(\" is not a regular expression (unclosed group); correct it",
        "routes.r1x.schema-pattern: is missing; give the source schemas, such as `shop*`",
        "routes.r1x.target-schema: is missing; give the schema to write to",
        "syncers.s.worker-count: \"many\" is not a whole number in range; give a number from 0 to 4096",
        "syncers.s.safe-mode-duration: is zero while `safe-mode` is on; give a longer one or switch `safe-mode` off",
        "column-mappings.c: `c`: column mapping does not exist any more; remove it, or use generated columns in the target",
        "mysql-instances[0].route-rules: \"r1\" is not defined under `routes`; did you mean `r1x`?",
        "mysql-instances[0].syncer: is given together with `syncer-config-name`; keep one of them",
        "mysql-instances[0].block-allow-lst: is not a known key; did you mean `block-allow-list`?",
        "mysql-instances[1].source-id: \"s\" is there twice; give each source once",
        "mysql-instances[1].meta.binlog-name: \"nodot\" is not the name of a binlog file; give one such as `mysql-bin.000001`",
        "mysql-instances[1].block-allow-list: \"none\" is not defined under `block-allow-list`; define it under `block-allow-list`",
        "routes.r2: is used by no entry of `mysql-instances`; refer to it there or remove it",
        "routes.r1x: is used by no entry of `mysql-instances`; refer to it there or remove it",
    ];
    assert_eq!(problems(TaskConfig::from_yaml(text).unwrap_err()), expected);
}

#[test]
fn shorthands_for_threads() {
    let text = golden("task-minimal.yaml").replace(
        "  block-allow-list: ba",
        "  block-allow-list: ba\n  syncer-thread: 3\n  mydumper-thread: 5\n  loader-thread: 7",
    );
    let subtask = TaskConfig::from_yaml(&text).unwrap().subtasks.remove(0);
    assert_eq!(subtask.syncer.worker_count, 3);
    assert_eq!((subtask.mydumper.int("threads"), subtask.loader.int("pool-size")), (Some(5), Some(7)));
    assert_eq!(subtask.notes().len(), 3, "{:?}", subtask.notes());
}

#[test]
fn old_names_are_taken() {
    let text = golden("task-minimal.yaml").replace("block-allow-list", "black-white-list")
        + "online-ddl: false\nonline-ddl-scheme: gh-ost\n";
    let subtask = TaskConfig::from_yaml(&text).unwrap().subtasks.remove(0);
    assert_eq!(subtask.block_allow_list.do_dbs, ["d1"]);
    assert!(subtask.online_ddl);
}

/// Text that looks like a configuration often enough to get past the syntax.
fn configuration() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("source-id"),
        Just("from"),
        Just("name"),
        Just("mysql-instances"),
        Just("routes"),
        Just("syncers"),
        Just("meta"),
        Just("block-allow-list"),
        Just("target-database"),
        Just("session"),
        Just("join"),
        Just("agent"),
        Just("x"),
    ];
    let value = prop_oneof![
        Just(""),
        Just(" 1"),
        Just(" -1.5"),
        Just(" [a, {b: 1}]"),
        Just(" {a: {b: c}}"),
        Just(" {a: ~, ssl-ca-bytes: [1, 300]}"),
        Just(" 99999999999999999999999999"),
        Just(" '~('"),
        Just(" = \"x\""),
        Just("\n- source-id: a\n"),
        Just("\n  a: b\n"),
    ];
    proptest::collection::vec((key, value), 0..8)
        .prop_map(|lines| lines.into_iter().map(|(key, value)| format!("{key}:{value}\n")).collect())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![configuration(), "(?s).{0,120}"]) {
        let _ = SourceConfig::from_yaml(&text);
        let _ = SourceConfig::from_toml(&text);
        let _ = TaskConfig::from_yaml(&text);
        let _ = SubtaskConfig::from_toml(&text);
    }
}
