//! Every line of `keys.rs` by behaviour: what acts changes the checked configuration, what is refused refuses, what is
//! noted says so, and nothing does two of it. The command line is held to the same tables here, the samples and the README
//! in `key_text_tests`.

use std::collections::BTreeSet;

use super::keys::*;
use super::node::Node;
use super::*;

/// What a file becomes: its checked form as text, refusals, notes; or problems.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    config: Box<Checked>,
    refused: Vec<String>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Checked {
    Source(SourceConfig),
    Task(TaskConfig),
    Worker(WorkerConfig),
    Wrong,
}

const SOURCE_FILE: &str = "source-id: s\nfrom: {host: h, port: 3306, user: u, session: {}, \
                           security: {ssl-ca: /ca, ssl-cert: /cert, ssl-key: /key}}\npurge: {}\nchecker: {}\n";

const TASK_FILE: &str = "name: t\ntask-mode: all\ntarget-database: {host: h, port: 1, user: u, security: {ssl-ca: /ca, ssl-cert: /cert, ssl-key: /key}}\n\
    experimental: {}\n\
    mysql-instances:\n- {source-id: s, meta: {binlog-name: a.000001}, block-allow-list: l, route-rules: [r], \
      syncer-config-name: y, mydumper-config-name: d, loader-config-name: o, validator-config-name: v}\n\
    block-allow-list:\n  l: {do-tables: [{db-name: a, tbl-name: b}]}\n  l2: {ignore-tables: [{db-name: a, tbl-name: c}]}\nroutes:\n  r: {schema-pattern: a, target-schema: b}\n\
    syncers: {y: {}}\nmydumpers: {d: {}}\nloaders: {o: {}}\nvalidators: {v: {}}\n";

fn outcome(read: Result<Checked, Vec<String>>) -> Outcome {
    let (config, refused, notes) = match read {
        Ok(Checked::Source(config)) => {
            let notes = config.notes();
            (Checked::Source(config), Vec::new(), notes)
        }
        Ok(Checked::Task(task)) => {
            let refused = task.subtasks.iter().flat_map(SubtaskConfig::refusals).collect();
            let notes = task.subtasks.iter().flat_map(SubtaskConfig::notes).collect();
            (Checked::Task(task), refused, notes)
        }
        Ok(Checked::Worker(config)) => {
            let notes = config.notes();
            (Checked::Worker(config), Vec::new(), notes)
        }
        Ok(Checked::Wrong) => (Checked::Wrong, Vec::new(), Vec::new()),
        Err(problems) => (Checked::Wrong, problems, Vec::new()),
    };
    Outcome { config: Box::new(config), refused, notes }
}

fn problems(error: ConfigError) -> Vec<String> {
    error.problems.iter().map(Problem::to_string).collect()
}

fn source(tree: &Node) -> Outcome {
    outcome(SourceConfig::from_yaml(&yaml::write(tree)).map(Checked::Source).map_err(problems))
}

fn task(tree: &Node) -> Outcome {
    outcome(TaskConfig::from_yaml(&yaml::write(tree)).map(Checked::Task).map_err(problems))
}

fn worker(tree: &Node) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    std::fs::write(&path, toml_of(tree)).unwrap();
    let environment = Environment { home: Some("/home/u".into()), host_name: "h".into(), ..Environment::default() };
    let read = Invocation::from_command_line(vec!["--config".into(), path.display().to_string()], environment);
    outcome(match read {
        Ok(Invocation::Run(config)) => {
            // Files are read from new directories, with new names.
            let config = WorkerConfig { config_file: None, arguments: Vec::new(), ..*config };
            Ok(Checked::Worker(config))
        }
        Ok(Invocation::Print(text)) => panic!("{text}"),
        Err(error) => Err(vec![error.stdout]),
    })
}

fn toml_of(tree: &Node) -> String {
    let value = |node: &Node| match node {
        Node::Text(text) => format!("{text:?}"),
        Node::List(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|item| if let Node::Text(text) = item { format!("{text:?}") } else { panic!() })
                .collect();
            format!("[{}]", items.join(", "))
        }
        Node::Bool(flag) => flag.to_string(),
        Node::Int(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let Node::Table(entries) = tree else { panic!() };
    let (tables, flat): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, node)| matches!(node, Node::Table(_)));
    let mut out: String = flat.iter().map(|(key, node)| format!("{key} = {}\n", value(node))).collect();
    for (name, table) in tables {
        let Node::Table(entries) = table else { continue };
        out += &format!("[{name}]\n");
        out.extend(entries.iter().map(|(key, node)| format!("{key} = {}\n", value(node))));
    }
    out
}

/// The tree with a value at a path; a number is an entry of a list.
fn with(tree: &Node, path: &[&str], value: Node) -> Node {
    let [first, rest @ ..] = path else { return value };
    match tree {
        Node::List(items) => {
            let index: usize = first.parse().unwrap();
            let mut items = items.clone();
            items[index] = with(&items[index], rest, value);
            Node::List(items)
        }
        other => {
            let mut entries = if let Node::Table(entries) = other { entries.clone() } else { Vec::new() };
            let old = entries.iter().position(|(key, _)| key == first);
            let below = with(old.map_or(&Node::Null, |index| &entries[index].1), rest, value);
            match old {
                Some(index) => entries[index].1 = below,
                None => entries.push(((*first).to_owned(), below)),
            }
            Node::Table(entries)
        }
    }
}

/// A value of one's own for a key; `None` for a part, whose keys speak for it.
fn sample(table: &str, key: &Key) -> Option<Node> {
    let yaml = |text: &str| Some(Node::from_yaml(text).unwrap());
    match (table, key.name) {
        (_, "log-format") => yaml("json"),
        (_, "log-level") => yaml("debug"),
        (_, "log-target") => yaml("stderr"),
        (_, "join") => yaml("'127.0.0.1:8261'"),
        (
            "worker",
            "ssl-cert" | "ssl-key" | "ssl-cert-bytes" | "ssl-key-bytes" | "ssl-cert-base64" | "ssl-key-base64",
        ) => None,
        (_, "worker-addr" | "advertise-addr") => yaml("'10.0.0.1:8262'"),
        (_, "flavor") => yaml("mariadb"),
        (_, "relay-binlog-name" | "binlog-name") => yaml("mysql-bin.000007"),
        (_, "relay-binlog-gtid" | "binlog-gtid") => yaml("9688d8a4-e680-11f1-97c9-4b29ec27fc7c:1-12"),
        (_, "port") => yaml("77"),
        (_, "relay-budget" | "free-disk-floor") => yaml("100MiB"),
        (_, "pause-drain-limit") => yaml("3s"),
        (_, "safe-mode-duration") => yaml("7s"),
        (_, "session") => yaml("{a: b}"),
        (_, "max-allowed-packet") => yaml("67108864"),
        (_, "tracer") => yaml("{a: b}"),
        ("task", "task-mode") => yaml("full"),
        (_, "chunk-filesize") => yaml("32"),
        (_, "on-duplicate-logical") => yaml("ignore"),
        (_, "extra-args") => yaml("'--where \"a > 1\"'"),
        (_, "collation_compatible") => yaml("strict"),
        (_, "shard-mode") => yaml("optimistic"),
        // It turns on what is on.
        (_, "online-ddl-scheme") => None,
        (_, "shadow-table-rules" | "trash-table-rules") => yaml("['^x_(.+)$']"),
        (_, "ssl-ca-base64" | "ssl-cert-base64" | "ssl-key-base64") => yaml("eA=="),
        (_, "secret-key-path") => yaml("/nowhere"),
        ("instance", "block-allow-list") => yaml("l2"),
        ("task", "filters" | "block-allow-list") => None,
        ("source", "filters") => yaml("[{schema-pattern: a, action: Ignore}]"),
        ("filter", "action") => yaml("Ignore"),
        ("task", "column-mappings") => yaml("{c: {}}"),
        ("instance", "syncer-thread") => yaml("3"),
        ("route", "extract-table") => yaml("{table-regexp: '^a(.*)$', target-column: c}"),
        ("route", "extract-schema") => yaml("{schema-regexp: '^a(.*)$', target-column: c}"),
        ("route", "extract-source") => yaml("{source-regexp: '^a(.*)$', target-column: c}"),
        ("validator", "mode") => yaml("full"),
        (_, "max-pending-row-size") => yaml("5m"),
        _ => match key.preset {
            Preset::Text(_) | Preset::Open(_) => yaml("own"),
            Preset::Int(number) => Some(Node::Int(i128::from(number) + 1)),
            Preset::Float(number) => Some(Node::Float(number + 1.0)),
            Preset::Flag(flag) => Some(Node::Bool(!flag)),
            Preset::Seconds(seconds) => Some(Node::Text(format!("{}s", seconds + 1))),
            Preset::Texts => yaml("[own]"),
            Preset::Part(_) => None,
        },
    }
}

/// Proves the class of each key of one table at one place of a file; the keys that it could prove.
fn prove(table: &str, keys: Keys, base: &Node, place: &[&str], read: fn(&Node) -> Outcome) -> BTreeSet<&'static str> {
    let before = read(base);
    assert_ne!(*before.config, Checked::Wrong, "{table}: {:?}", before.refused);
    assert!(before.refused.is_empty(), "{table}: {:?}", before.refused);
    let mut proven = BTreeSet::new();
    for key in keys {
        let Some(value) = sample(table, key) else { continue };
        let path: Vec<&str> = place.iter().copied().chain([key.name]).collect();
        let after = read(&with(base, &path, value));
        let shown = format!("{table} {}: {:?} {:?}", key.name, after.refused, after.notes);
        match key.class {
            // A file that is not there is refused: it acts.
            Class::Acts if key.name == "secret-key-path" => assert!(after.refused[0].contains("/nowhere"), "{shown}"),
            Class::Acts => {
                assert!(after.refused.is_empty(), "acts: {shown}");
                assert_eq!(after.notes, before.notes, "acts: {shown}");
                assert_ne!(after.config, before.config, "acts: {shown}");
            }
            Class::Refused => {
                assert!(!after.refused.is_empty(), "refused: {shown}");
                let remedy = ["remove", "use `", "set ", "give "].iter().any(|word| after.refused[0].contains(word));
                assert!(remedy, "no remedy: {shown}");
            }
            Class::Noted => {
                assert!(after.refused.is_empty(), "noted: {shown}");
                let new: Vec<_> = after.notes.iter().filter(|note| !before.notes.contains(note)).collect();
                let named = |note: &&String| note.contains(&format!("`{}`", key.name)) && note.contains(key.text);
                assert!(new.iter().any(named), "noted: {shown}");
            }
        }
        proven.insert(key.name);
    }
    proven
}

/// Keys with parts below them that are proven on their own.
const PARTS: &[&str] = &[
    "agent",
    "from",
    "purge",
    "checker",
    "security",
    "target-database",
    "mysql-instances",
    "routes",
    "syncers",
    "validators",
    "mydumpers",
    "loaders",
    "experimental",
    "meta",
    "do-tables",
    "ignore-tables",
];

fn prove_all(table: &str, keys: Keys, base: &Node, place: &[&str], read: fn(&Node) -> Outcome, elsewhere: &[&str]) {
    let proven = prove(table, keys, base, place, read);
    let missing: Vec<_> = keys
        .iter()
        .map(|key| key.name)
        .filter(|name| !proven.contains(name) && !PARTS.contains(name) && !elsewhere.contains(name))
        .collect();
    assert!(missing.is_empty(), "{table}: nothing proves {missing:?}");
}

#[test]
fn every_key_of_a_source_is_what_its_line_says() {
    let base = Node::from_yaml(SOURCE_FILE).unwrap();
    let by_gtid = with(&base, &["flavor"], Node::text("mysql"));
    prove_all("source", SOURCE, &base, &[], source, &[]);
    prove("source", SOURCE, &by_gtid, &[], source);
    prove_all("database", DATABASE, &base, &["from"], source, &[]);
    prove_all("security", SECURITY, &base, &["from", "security"], source, &[]);
    prove_all("purge", PURGE, &base, &["purge"], source, &[]);
    prove_all("checker", CHECKER, &base, &["checker"], source, &[]);
    let filters = with(&base, &["filters"], Node::from_yaml("[{schema-pattern: a, action: Do}]").unwrap());
    prove_all("filter", FILTER, &filters, &["filters", "0"], source, &[]);
    let aimless = source(&with(&base, &["filters"], Node::from_yaml("[{schema-pattern: a}]").unwrap()));
    assert!(aimless.refused.len() == 1 && aimless.refused[0].contains("`Ignore`"), "{:?}", aimless.refused);
}

#[test]
fn every_key_of_a_task_is_what_its_line_says() {
    let base = Node::from_yaml(TASK_FILE).unwrap();
    prove_all(
        "task",
        TASK,
        &base,
        &[],
        task,
        &["block-allow-list", "black-white-list", "filters", "expression-filter", "online-ddl-scheme"],
    );
    let target = &["target-database"];
    prove_all("database", DATABASE, &base, target, task, &[]);
    prove_all("security", SECURITY, &base, &["target-database", "security"], task, &[]);
    prove_all("experimental", EXPERIMENTAL, &base, &["experimental"], task, &[]);
    let instance = &["mysql-instances", "0"];
    prove_all(
        "instance",
        INSTANCE,
        &base,
        instance,
        task,
        &[
            "black-white-list",
            "route-rules",
            "syncer-config-name",
            "syncer",
            "filter-rules",
            "expression-filters",
            "column-mapping-rules",
            "validator-config-name",
            "mydumper-config-name",
            "mydumper",
            "loader-config-name",
            "loader",
        ],
    );
    prove_all("meta", META, &base, &["mysql-instances", "0", "meta"], task, &[]);
    prove_all("list", LIST, &base, &["block-allow-list", "l"], task, &[]);
    prove_all("table", TABLE, &base, &["block-allow-list", "l", "do-tables", "0"], task, &[]);
    prove_all("route", ROUTE, &base, &["routes", "r"], task, &[]);
    prove_all("sync", SYNC, &base, &["syncers", "y"], task, &[]);
    prove_all("dump", DUMP, &base, &["mydumpers", "d"], task, &[]);
    prove_all("load", LOAD, &base, &["loaders", "o"], task, &[]);
    prove_all("validator", VALIDATOR, &base, &["validators", "v"], task, &[]);
}

/// References and what is written in place of them.
#[test]
fn names_lead_where_they_say() {
    let read = |text: &str| task(&Node::from_yaml(text).unwrap());
    let base = read(TASK_FILE);
    for (from, to, class) in [
        ("block-allow-list", "black-white-list", None),
        ("syncer-config-name: y", "syncer-config-name: ''", None),
        ("syncer-config-name: y, ", "syncer: {worker-count: 3}, ", Some(Class::Acts)),
        ("syncers: {y: {}}", "syncers: {y: {worker-count: 3}}", Some(Class::Acts)),
        ("mydumper-config-name: d, ", "mydumper: {threads: 9}, ", Some(Class::Acts)),
        ("mydumpers: {d: {}}", "mydumpers: {d: {threads: 9}}", Some(Class::Acts)),
        ("loader-config-name: o, ", "loader: {pool-size: 9}, ", Some(Class::Acts)),
        ("loaders: {o: {}}", "loaders: {o: {pool-size: 9}}", Some(Class::Acts)),
        ("validators: {v: {}}", "validators: {v: {mode: fast}}", Some(Class::Refused)),
        ("{source-id: s,", "{source-id: s, filter-rules: [f],", Some(Class::Acts)),
        ("{source-id: s,", "{source-id: s, expression-filters: [e],", Some(Class::Acts)),
        ("{source-id: s,", "{source-id: s, column-mapping-rules: [c],", Some(Class::Refused)),
        ("route-rules: [r], ", "", Some(Class::Acts)),
    ] {
        let mut text = TASK_FILE.replace(from, to);
        text += "filters: {f: {schema-pattern: a, action: Do}}\nexpression-filter: {e: {schema: a, table: b}}\n";
        // What is defined must be used, and what is used must be defined.
        for (entry, reference) in [
            ("filters: {f: {schema-pattern: a, action: Do}}\n", "[f]"),
            ("expression-filter: {e: {schema: a, table: b}}\n", "[e]"),
        ] {
            if !text.contains(reference) {
                text = text.replace(entry, "");
            }
        }
        for (entry, reference) in [
            ("syncers: {y: {}}\n", "syncer-config-name: y"),
            ("mydumpers: {d: {}}\n", "mydumper-config-name: d"),
            ("loaders: {o: {}}\n", "loader-config-name: o"),
            ("routes:\n  r: {schema-pattern: a, target-schema: b}\n", "route-rules: [r]"),
        ] {
            if !text.contains(reference) {
                text = text.replace(entry, "");
            }
        }
        let after = read(&text);
        let found = match () {
            () if !after.refused.is_empty() => Some(Class::Refused),
            () if after.notes != base.notes => Some(Class::Noted),
            () if after.config != base.config => Some(Class::Acts),
            () => None,
        };
        assert_eq!(found, class, "{from} -> {to}: {:?} {:?}", after.refused, after.notes);
    }
    let filtered = TASK_FILE.replace("{source-id: s,", "{source-id: s, expression-filters: [e],");
    let filtered = Node::from_yaml(&(filtered + "expression-filter: {e: {schema: a, table: b}}\n")).unwrap();
    prove_all("expression", EXPRESSION, &filtered, &["expression-filter", "e"], task, &[]);
    for keys in [EXTRACT_TABLE, EXTRACT_SCHEMA, EXTRACT_SOURCE] {
        assert!(keys.iter().all(|key| key.class == Class::Refused), "a route that extracts is refused as a whole");
    }
}

#[test]
fn every_key_of_the_daemon_is_what_its_line_says() {
    let base = Node::from_yaml(
        "{join: 'm:8261', worker-addr: '127.0.0.1:8262', advertise-addr: '127.0.0.1:8262', agent: {state-dir: /s}}",
    )
    .unwrap();
    prove_all(
        "worker",
        WORKER,
        &base,
        &[],
        worker,
        &["ssl-cert", "ssl-key", "ssl-cert-bytes", "ssl-key-bytes", "ssl-cert-base64", "ssl-key-base64"],
    );
    prove_all("agent", AGENT, &base, &["agent"], worker, &[]);
    let both = with(&with(&base, &["ssl-cert"], Node::text("c")), &["ssl-key"], Node::text("k"));
    assert_ne!(worker(&both).config, worker(&base).config);
    // What is a cluster's alone says so without one.
    let alone = |text: &str| worker(&Node::from_yaml(text).unwrap()).notes;
    assert_eq!(alone("{agent: {state-dir: /s}, keepalive-ttl: 60}"), Vec::<String>::new());
    let notes = alone("{agent: {state-dir: /s}, keepalive-ttl: 61, relay-keepalive-ttl: 9, ssl-ca: c}");
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("`keepalive-ttl`, `relay-keepalive-ttl` have no meaning here: ")
            && notes[1].contains("`ssl-*`"),
        "{notes:?}"
    );
}

/// Flags are keys of the file, so their lines speak for them.
#[test]
fn every_flag_is_a_key() {
    let help = flags::help();
    let known = |name: &str| [WORKER, AGENT].iter().any(|table| find(&[table], name).is_some());
    let flags = help.lines().filter_map(|line| line.trim().split("--").nth(1)?.split([' ', '=']).next());
    let own = ["config", "print-sample-config", "version", "help"];
    let unknown: Vec<_> = flags.filter(|flag| !known(flag) && !own.contains(flag)).collect();
    assert!(unknown.is_empty() && help.contains("--relay-keepalive-ttl"), "{unknown:?}");
}

/// A field of a checked type that nobody else reads is a dead option.
#[test]
fn every_field_is_read_outside_of_config() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut others = String::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true if entry.ends_with("config") => {}
                true => directories.push(entry),
                false => others += &std::fs::read_to_string(entry).unwrap(),
            }
        }
    }
    // Of parts that are refused or noted as a whole; what they hold is for printing.
    let kept = [
        "config_file",
        "log_target",
        "mydumper",
        "loader",
        "validator",
        "is_sharding",
        "shard_mode",
        "strict_collation",
        "mode",
    ];
    for file in ["source.rs", "subtask.rs", "task.rs", "settings.rs", "database.rs", "worker.rs", "agent.rs", "log.rs"]
    {
        let text = std::fs::read_to_string(root.join("config").join(file)).unwrap();
        // What stands before it are inputs.
        let text = text.split_once("pub struct AgentConfig").map_or(text.as_str(), |(_, behind)| behind);
        for line in text.lines().filter(|line| line.starts_with("    pub ")) {
            let Some((name, _)) = line.trim_start_matches("    pub ").split_once(": ") else { continue };
            let read = others.contains(&format!(".{name}"));
            assert!(read || kept.contains(&name) || name.contains('('), "{file}: nothing reads `{name}`");
        }
    }
}
