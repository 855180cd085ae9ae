//! The samples and the README are held to the tables of `keys.rs`.

use super::keys::*;
use super::*;

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Each key stands in its sample, with its default.
#[test]
fn samples_have_every_key_with_its_default() {
    let toml: &[Keys] = &[WORKER, AGENT];
    let source: &[Keys] = &[SOURCE, DATABASE, SECURITY, PURGE, CHECKER, FILTER];
    let task: &[Keys] = &[TASK, INSTANCE, META, LIST, TABLE, ROUTE, FILTER, EXPRESSION, DUMP, LOAD, SYNC];
    for (name, tables) in [("dm-agent.toml", toml), ("source.yaml", source), ("task.yaml", task)] {
        let text = file(&format!("config/{name}"));
        for key in tables.iter().flat_map(|table| table.iter()) {
            let mut lines = text.lines().map(|line| line.trim_start_matches(['#', ' ', '-']));
            let default = match key.preset {
                Preset::Text("") => "\"\"".to_owned(),
                Preset::Text(text) => text.to_owned(),
                Preset::Int(number) => number.to_string(),
                Preset::Float(number) => number.to_string(),
                Preset::Flag(flag) => flag.to_string(),
                Preset::Seconds(seconds) => format_duration(std::time::Duration::from_secs(seconds)),
                Preset::Texts => "[]".to_owned(),
                Preset::Open(_) | Preset::Part(_) => String::new(),
            };
            let has = |line: &str| {
                let Some(rest) = line.strip_prefix(key.name) else { return false };
                let value = rest.trim_start_matches([':', ' ', '=', '.', '"']);
                value.starts_with(default.trim_matches('"')) || must_differ(key.name)
            };
            let mentioned = text.contains(key.name) && (key.class == Class::Refused || told_in_words(key));
            assert!(mentioned || lines.any(has), "{name}: no line `{}` with default {default:?}", key.name);
        }
    }
}

/// Keys whose sample shows a recommended or an example value.
fn must_differ(name: &str) -> bool {
    [
        "enable-gtid",
        "binlog-name",
        "binlog-gtid",
        "table-pattern",
        "target-table",
        "do-dbs",
        "ignore-dbs",
        "ssl-ca",
        "ssl-cert",
        "ssl-key",
        "events",
        "sql-pattern",
        "insert-value-expr",
    ]
    .contains(&name)
}

/// Old names, forms in place of a file, and parts: mentioned, without a line of their own.
fn told_in_words(key: &Key) -> bool {
    matches!(key.preset, Preset::Part(_))
        || key.name.ends_with("-bytes")
        || key.name.ends_with("-base64")
        || key.name.ends_with("-thread")
        || key.name == "max-allowed-packet"
        || ["mydumper-path", "dir"].contains(&key.name)
}

/// The tables of the README, from the tables of the code.
fn markdown(parts: &[(&str, Keys)]) -> String {
    let mut out = String::from("| Key | Default | Meaning |\n|---|---|---|\n");
    for (prefix, keys) in parts {
        if !prefix.is_empty() {
            out += &format!("| **`{prefix}`** | | |\n");
        }
        let mut rows: Vec<(Vec<String>, String, String)> = Vec::new();
        for key in *keys {
            let default = match key.preset {
                Preset::Text("") | Preset::Texts => "empty".to_owned(),
                Preset::Text(text) => format!("`{text}`"),
                Preset::Int(number) => number.to_string(),
                Preset::Float(number) => number.to_string(),
                Preset::Flag(flag) => flag.to_string(),
                Preset::Seconds(seconds) => format!("`{}`", format_duration(std::time::Duration::from_secs(seconds))),
                Preset::Open(text) | Preset::Part(text) => text.to_owned(),
            };
            let meaning = match key.class {
                Class::Acts => key.text.to_owned(),
                Class::Refused => format!("**refused**: {}", key.text),
                Class::Noted => format!("no meaning here: {}", key.text),
            };
            let name = format!("`{}`", key.name);
            match rows.iter_mut().find(|row| key.class != Class::Acts && row.2 == meaning) {
                Some(row) => {
                    row.0.push(name);
                    row.1 += &format!(", {default}");
                }
                None => rows.push((vec![name], default, meaning)),
            }
        }
        for (names, mut default, meaning) in rows {
            let mut defaults: Vec<&str> = default.split(", ").collect();
            defaults.dedup();
            if names.len() > 1 {
                default = if defaults.len() == 1 { defaults[0].to_owned() } else { default };
            }
            out += &format!("| {} | {default} | {meaning} |\n", names.join(", "));
        }
    }
    out
}

/// `WRITE_README=1 cargo test readme_tables` writes them.
#[test]
fn readme_tables_are_those_of_the_code() {
    let path = format!("{}/README.md", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(&path).unwrap();
    let daemon: &[(&str, Keys)] = &[("", WORKER), ("[agent]", AGENT)];
    let source: &[(&str, Keys)] =
        &[("", SOURCE), ("from", DATABASE), ("security", SECURITY), ("purge", PURGE), ("checker", CHECKER)];
    let task: &[(&str, Keys)] = &[
        ("", TASK),
        ("mysql-instances", INSTANCE),
        ("meta", META),
        ("block-allow-list", LIST),
        ("routes", ROUTE),
        ("filters", FILTER),
        ("expression-filter", EXPRESSION),
        ("mydumpers", DUMP),
        ("loaders", LOAD),
        ("syncers", SYNC),
    ];
    for (name, parts) in [("daemon", daemon), ("source", source), ("task", task)] {
        let (start, end) = (format!("<!-- keys of the {name} file -->\n"), "<!-- end of keys -->");
        let from = text.find(&start).unwrap_or_else(|| panic!("README.md has no {start}")) + start.len();
        let to = from + text[from..].find(end).unwrap();
        if std::env::var_os("WRITE_README").is_some() {
            text.replace_range(from..to, &markdown(parts));
        }
        let to = from + text[from..].find(end).unwrap();
        assert_eq!(&text[from..to], markdown(parts), "WRITE_README=1 writes the table of the {name} file");
    }
    if std::env::var_os("WRITE_README").is_some() {
        std::fs::write(&path, text).unwrap();
    }
}
