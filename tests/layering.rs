//! Holds the `crate::` paths of `src/` to the dependency rule of the crate documentation, and a few habits to their places.
//!
//! A module that is not in [`RULES`], or one that names what its rule does not allow, fails with the place and what would be
//! right. So do files that need each other in a circle.

use std::fmt::Write as _;

#[path = "layering/circles.rs"]
mod circles;
#[path = "layering/scanner.rs"]
mod scanner;

use scanner::{crate_paths, root, sources, supers};

/// Each module with what it may import, itself apart. A rule names only modules of rules above it, so there is no cycle.
/// An entry with `::` allows only what is below it.
const RULES: &[(&str, &[&str])] = &[
    // Leaves: values, no I/O.
    ("model", &[]),
    ("error", &[]),
    ("runtime", &[]),
    ("clock", &[]),
    ("tls", &[]),
    ("binlog", &["model"]),
    ("row", &["model", "binlog"]),
    ("schema", &["model", "row"]),
    // What stages stand on.
    ("mysql", &["error", "model", "tls"]),
    ("meta", &["model", "mysql"]),
    ("store", &["error"]),
    ("downstream", &["error", "model", "mysql", "schema"]),
    ("config", &["error", "model"]),
    // Stages import no other stage. The one exception is what a lane is given: `dispatch` makes it, `apply` takes it.
    ("upstream", &["binlog", "clock", "error", "model", "mysql"]),
    ("relay", &["binlog", "error", "model", "store"]),
    ("decode", &["binlog", "error", "model", "row"]),
    ("transform", &["error", "model", "row"]),
    ("dispatch", &["model", "row", "schema"]),
    ("apply", &["dispatch", "downstream", "error", "meta", "model", "mysql", "row", "schema"]),
    ("checkpoint", &["error", "meta", "model"]),
    ("snapshot", &["downstream", "error", "meta", "model", "mysql", "runtime", "schema"]),
    // `pipeline` alone knows the stages' order.
    (
        "pipeline",
        &[
            "apply",
            "binlog",
            "checkpoint",
            "clock",
            "decode",
            "dispatch",
            "error",
            "meta",
            "model",
            "mysql",
            "relay",
            "row",
            "runtime",
            "schema",
            "snapshot",
            "transform",
            "upstream",
        ],
    ),
    ("task", &["clock", "error", "meta", "model", "pipeline", "relay", "runtime", "store"]),
    // Builds a task's parts from its configuration, and looks at both ends before it starts one.
    (
        "supervisor",
        &[
            "checkpoint",
            "clock",
            "config",
            "error",
            "meta",
            "model",
            "mysql",
            "pipeline",
            "relay",
            "runtime",
            "store",
            "task",
            "transform",
            "upstream",
        ],
    ),
    ("control", &["error", "model", "runtime", "supervisor", "task", "tls"]),
    ("ctl", &["config", "control::proto", "model"]),
    ("daemon", &["config", "control", "error", "model", "runtime", "store", "supervisor", "task", "tls"]),
    ("bin", &["config", "ctl", "daemon"]),
];

/// Where `tokio::spawn` may stand, with the reason.
const SPAWNERS: &[(&str, &str)] = &[("src/runtime.rs", "the one helper: a name, a span, an owner")];

#[test]
fn modules_import_what_their_rule_allows() {
    let mut offences = String::new();
    for source in sources() {
        let module = source.module();
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = RULES.iter().find(|(name, _)| *name == module) else {
            let _ = writeln!(offences, "{}: module `{module}` has no rule in tests/layering.rs", source.path);
            continue;
        };
        for (at, path) in crate_paths(&source) {
            let first = path.split("::").next().unwrap_or_default();
            let within = |rule: &str| path == rule || path.starts_with(&format!("{rule}::"));
            if first != module && !allowed.iter().any(|rule| within(rule)) {
                let line = source.line(at);
                let _ = writeln!(
                    offences,
                    "{}:{line}: `{module}` names `crate::{path}`; allowed are {allowed:?}",
                    source.path
                );
            }
        }
        for (at, chain) in source.words("super::super").map(|at| (at, supers(&source.code[at..]))) {
            if chain >= source.depth() && !source.code[..at].ends_with("super::") {
                let line = source.line(at);
                let _ =
                    writeln!(offences, "{}:{line}: `super` leads to the crate's root; write `crate::…`", source.path);
            }
        }
    }
    assert!(offences.is_empty(), "\n{offences}");
}

#[test]
fn rules_name_only_modules_above_them() {
    for (at, (module, allowed)) in RULES.iter().enumerate() {
        for rule in *allowed {
            let first = rule.split("::").next().unwrap_or_default();
            assert!(RULES[..at].iter().any(|(above, _)| above == &first), "`{module}` allows `{rule}`: not above it");
        }
        let (file, folder) = (root().join(format!("src/{module}.rs")), root().join("src").join(module));
        assert!(file.exists() || folder.exists(), "`{module}` has a rule and no file");
    }
}

#[test]
fn the_embedded_store_is_named_only_below_store() {
    forbid("sled", |path| path.starts_with("src/store/"), "only src/store may name it");
}

#[test]
fn tasks_are_started_by_the_one_helper() {
    for word in ["tokio::spawn", "task::spawn", "task::spawn_local"] {
        let allowed = |path: &str| SPAWNERS.iter().any(|(file, _)| *file == path);
        forbid(word, allowed, &format!("use crate::runtime::spawn, or give a reason in SPAWNERS: {SPAWNERS:?}"));
    }
}

#[test]
fn nothing_is_left_to_be_written() {
    for word in ["todo!", "unimplemented!"] {
        forbid(word, |_| false, "write it");
    }
}

fn forbid(word: &str, allowed: impl Fn(&str) -> bool, instead: &str) {
    let mut offences = String::new();
    for source in sources().iter().filter(|source| !allowed(&source.path)) {
        for at in source.words(word.trim_end_matches('!')) {
            if source.code[at..].starts_with(word) {
                let _ = writeln!(offences, "{}:{}: `{word}`: {instead}", source.path, source.line(at));
            }
        }
    }
    assert!(offences.is_empty(), "\n{offences}");
}
