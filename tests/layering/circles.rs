//! Files that need each other in a circle can only be understood together. There are none.
//!
//! A file may name what the files of its own folders' faces (`mod.rs`, or `x.rs` beside `x/`) define: those names are what the
//! folder is about. Where a face in turn names its files, that is no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::scanner::{Source, sources};

/// A file as a module: `["relay", "storage", "room"]`.
type Module = Vec<String>;

#[test]
fn no_file_needs_itself_by_way_of_others() {
    let sources: Vec<Source> = sources().into_iter().filter(|source| !source.path.starts_with("src/bin/")).collect();
    let modules: BTreeSet<Module> = sources.iter().map(|source| module_of(&source.path)).collect();
    let needs = |source: &Source| needed(source, &modules);
    let mut arrows: BTreeMap<Module, BTreeSet<Module>> =
        sources.iter().map(|source| (module_of(&source.path), needs(source))).collect();
    // Who needs nobody is in no circle, and who needs only such files is in none.
    loop {
        let free: BTreeSet<Module> = arrows.iter().filter(|(_, to)| to.is_empty()).map(|(of, _)| of.clone()).collect();
        if free.is_empty() {
            break;
        }
        arrows.retain(|of, _| !free.contains(of));
        arrows.values_mut().for_each(|to| to.retain(|one| !free.contains(one)));
    }
    let mut left = String::new();
    for (of, to) in &arrows {
        let to: Vec<String> = to.iter().map(|to| to.join("/")).collect();
        let _ = writeln!(left, "{} needs {}", of.join("/"), to.join(", "));
    }
    assert!(left.is_empty(), "these are in a circle, or need files that are:\n{left}");
}

#[test]
fn paths_lead_to_files() {
    let modules: BTreeSet<Module> =
        ["a", "a/b", "a/c", "a/c/d", "e"].iter().map(|path| path.split('/').map(str::to_owned).collect()).collect();
    let code =
        "use super::{b::X, Own}; use super::super::e::{self, Y}; fn f() { crate::a::c::d::call(); self::d::g() }";
    let source = Source { path: "src/a/c.rs".into(), code: code.into() };
    let to: Vec<String> = needed(&source, &modules).iter().map(|to| to.join("/")).collect();
    assert_eq!(to, ["a/b", "a/c/d", "e"]);
    let source = Source { path: "src/a/mod.rs".into(), code: "use self::b::X; use super::e::Y;".into() };
    let to: Vec<String> = needed(&source, &modules).iter().map(|to| to.join("/")).collect();
    assert_eq!(to, ["a/b", "e"]);
}

fn module_of(path: &str) -> Module {
    let inside = path.strip_prefix("src/").expect("a path below src").strip_suffix(".rs").expect("a source file");
    let mut parts: Module = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// The files that a file names, itself and the faces of its folders apart.
fn needed(source: &Source, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let own = module_of(&source.path);
    let mut found = BTreeSet::new();
    for word in ["crate", "super", "self"] {
        for at in source.words(word).filter(|at| !source.code[..*at].trim_end().ends_with("::")) {
            let mut paths = Vec::new();
            expand(&source.code[at..], &mut Vec::new(), &mut paths);
            found.extend(paths.iter().filter_map(|path| file_of(path, &own, modules)));
        }
    }
    found.retain(|to| !own.starts_with(to));
    found
}

/// The paths that a text begins with: `a::{b, c::d}` are two. Gives back what is behind them.
fn expand<'t>(mut text: &'t str, before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'t str {
    let had = before.len();
    loop {
        text = text.trim_start();
        if let Some(mut group) = text.strip_prefix('{') {
            loop {
                group = expand(group, before, paths).trim_start();
                match group.strip_prefix(',') {
                    Some(rest) => group = rest,
                    None => break,
                }
            }
            before.truncate(had);
            return group.strip_prefix('}').unwrap_or(group);
        }
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        before.push(text[..end].to_owned());
        text = text[end..].trim_start();
        match text.strip_prefix("::") {
            Some(rest) => text = rest,
            None => break,
        }
    }
    paths.push(before.clone());
    before.truncate(had);
    // `as` another name.
    let end = text.find([',', '}', ';', '(', '{']).unwrap_or(text.len());
    &text[end..]
}

/// The file that a path, seen from `own`, leads into.
fn file_of(path: &[String], own: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut at = own.clone();
    let mut rest = path.iter();
    match rest.next()?.as_str() {
        "crate" => at.clear(),
        "super" => drop(at.pop()),
        _ => {}
    }
    let mut rest = rest.peekable();
    while rest.next_if(|part| *part == "super").is_some() {
        at.pop();
    }
    let mut found = None;
    for part in rest {
        at.push(part.clone());
        if !modules.contains(&at) {
            break;
        }
        found = Some(at.clone());
    }
    found
}
