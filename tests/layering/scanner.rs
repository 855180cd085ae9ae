//! Reads `src/` as code: comments, strings and what stands under `#[cfg(test)]` do not count.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A source file without what does not count; every byte that is left stands where it stood.
pub struct Source {
    /// Relative to the crate, with `/`.
    pub path: String,
    /// What is left.
    pub code: String,
}

impl Source {
    /// The module of the crate that it is in.
    pub fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").expect("a path below src");
        let first = inside.split('/').next().expect("a path has a first part");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The line of a place.
    pub fn line(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    /// How many `super` lead from the file's top level to the crate's root.
    pub fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// Where `word` stands as a whole word, or path of words.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            !self.code[..at].ends_with(is_word) && !self.code[at + word.len()..].starts_with(is_word)
        })
    }
}

/// `crate::…` paths (in `src/bin`: `dm_agent::…`) with their places; a group in braces gives each of its paths.
pub fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let root = if source.module() == "bin" { "dm_agent" } else { "crate" };
    let mut found = Vec::new();
    for at in source.words(root) {
        let Some(rest) = source.code[at + root.len()..].strip_prefix("::") else { continue };
        let Some(group) = rest.strip_prefix('{') else {
            found.push((at, path_of(rest)));
            continue;
        };
        let (mut depth, mut begins) = (1, true);
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.push((at, path_of(&group[offset..])));
                    begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn path_of(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    text[..end].trim_end_matches(':').to_owned()
}

/// How many `super` a path begins with.
pub fn supers(text: &str) -> usize {
    text.split("::").take_while(|part| *part == "super").count()
}

/// Where the crate is.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of `src/`, files of tests left out.
pub fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.sort();
    let (mut sources, mut tests) = (Vec::new(), Vec::new());
    for file in files {
        let text = std::fs::read_to_string(root().join(&file)).expect("read a source file");
        let code = code(&text, &file, &mut tests);
        sources.push((file, code));
    }
    assert!(sources.len() > 100, "src/ was not found");
    let tests: HashSet<PathBuf> = tests.into_iter().collect();
    sources.retain(|(file, _)| !file.ancestors().any(|above| tests.contains(above)));
    let named = |(file, code): (PathBuf, String)| Source {
        path: file.to_str().expect("names are ASCII").replace('\\', "/"),
        code,
    };
    sources.into_iter().map(named).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root().join(folder)).expect("list a folder") {
        let path = folder.join(entry.expect("read an entry").file_name());
        match path.extension() {
            Some(extension) if extension == "rs" => files.push(path),
            None if root().join(&path).is_dir() => collect(&path, files),
            _ => {}
        }
    }
}

/// `text` with comments, strings and test items as spaces. Files of test modules are added to `tests`.
fn code(text: &str, file: &Path, tests: &mut Vec<PathBuf>) -> String {
    let mut bytes = without_text(text);
    const ATTRIBUTE: &[u8] = b"#[cfg(test)]";
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(ATTRIBUTE.len()).position(|window| window == ATTRIBUTE) {
        let start = from + at;
        let (mut end, mut depth) = (start + ATTRIBUTE.len(), 0);
        while end < bytes.len() {
            match bytes[end] {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => depth -= 1,
                _ => {}
            }
            end += 1;
            if depth == 0 && matches!(bytes[end - 1], b';' | b'}') {
                break;
            }
        }
        tests.extend(test_files(&text[start..end], file));
        blank(&mut bytes[start..end]);
        from = end;
    }
    String::from_utf8(bytes).expect("only whole characters became spaces")
}

/// The files of `#[cfg(test)] mod name;`.
fn test_files(item: &str, file: &Path) -> Vec<PathBuf> {
    let folder = file.parent().expect("a file is in a folder");
    if let Some((_, rest)) = item.split_once("#[path = \"") {
        return vec![folder.join(rest.split('"').next().expect("a path ends"))];
    }
    let Some((_, name)) = item.strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) else { return Vec::new() };
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") | None => folder.to_owned(),
        Some(stem) => folder.join(stem),
    };
    vec![folder.join(format!("{name}.rs")), folder.join(name)]
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Comments and literals as spaces.
fn without_text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let len = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            string(rest)
        } else if let Some(len) = raw_string(&bytes, at) {
            len
        } else if let Some(len) = character(rest) {
            len
        } else {
            at += 1;
            continue;
        };
        blank(&mut bytes[at..at + len]);
        at += len;
    }
    bytes
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| bytes[before]);
    let rest = &bytes[at..];
    if rest[0] != b'r' || before.is_some_and(|b| b != b'b' && (b.is_ascii_alphanumeric() || b == b'_')) {
        return None;
    }
    let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = 2 + hashes;
    let len = rest[body..].windows(end.len()).position(|window| window == end)?;
    Some(body + len + end.len())
}

/// A character literal; a lifetime is none.
fn character(rest: &[u8]) -> Option<usize> {
    if rest[0] != b'\'' {
        return None;
    }
    if rest.get(1) == Some(&b'\\') {
        return rest[3..].iter().position(|&b| b == b'\'').map(|at| at + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(9)]);
    let valid = text.unwrap_or_else(|error| {
        std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).expect("it is valid up to there")
    });
    let len = valid.chars().next()?.len_utf8();
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let text = r##"
//! crate::a
use crate::{b::{x, y}, c, d::z};
/* crate::e /* crate::e */ crate::e */
fn f<'a>(s: &'a str) -> char { let _ = "crate::g \" crate::g"; let _ = r#"crate::h"#; let _ = b'"'; '"' }
fn i() { crate::i::call('\''); crate :: j::call() }
#[cfg(test)]
#[path = "k_tests.rs"]
mod k;
#[cfg(test)]
mod tests { use crate::l; fn m() { if true { crate::n() } } }
use crate::o;
#[cfg(test)]
mod p;
"##;
    let mut tests = Vec::new();
    let source = Source { path: "src/x/q.rs".into(), code: code(text, Path::new("src/x/q.rs"), &mut tests) };
    let paths: Vec<String> = crate_paths(&source).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["b", "c", "d::z", "i::call", "o"]);
    assert_eq!(tests, ["src/x/k_tests.rs", "src/x/q/p.rs", "src/x/q/p"].map(PathBuf::from));
    assert_eq!((source.module(), source.depth()), ("x", 2));
    assert_eq!(source.line(source.words("crate::o").next().expect("it is there")), 12);
}
