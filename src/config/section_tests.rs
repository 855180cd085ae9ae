//! Tests of reading a section: values, refusals, what is left over.

use super::*;
use crate::config::keys::{Class, Key, Keys, Preset};

const fn key(name: &'static str) -> Key {
    Key { name, preset: Preset::Open(""), class: Class::Acts, text: "" }
}

const TEST: Keys = &[key("port"), key("user"), key("flag"), key("wait"), key("list"), key("word"), key("password")];

fn problems(text: &str, read: impl Fn(&Section<'_>)) -> Vec<String> {
    let tree = Node::from_yaml(text);
    let report = Report::strict();
    let section = root(&tree, &[TEST], &report);
    read(&section);
    for key in TEST {
        let _ = section.node(key.name);
    }
    section.finish();
    report.problems.into_inner().iter().map(Problem::to_string).collect()
}

#[test]
fn reports_everything_at_once() {
    let found = problems("port: 70000\nusr: x\nflag: 3\nwait: soon\nlist: {a: 1}\nzzz: 1\nword: nope\n", |section| {
        assert_eq!(section.int("port", 1u16..=65535), None);
        assert_eq!(section.text("user"), None);
        assert_eq!(section.flag("flag"), None);
        assert_eq!(section.duration("wait"), None);
        assert_eq!(section.texts("list"), None);
        assert_eq!(section.choice("word", &[("text", 1), ("json", 2)]), None);
    });
    assert_eq!(
        found,
        [
            "port: 70000 is not a whole number in range; give a number from 1 to 65535",
            "flag: 3 is not true or false; give `true` or `false`",
            "wait: \"soon\" is not a duration; give a number with a unit, such as `30s` or `5m0s`",
            "list: a table of keys is not a list of texts; write `[a, b]`",
            "word: \"nope\" is not known; give `text`, `json`",
            "usr: is not a known key; did you mean `user`?",
            "zzz: is not a known key; remove it",
        ]
    );
}

#[test]
fn secrets_of_a_wrong_type_are_not_shown() {
    let found = problems("password: 12.5\n", |section| assert!(section.secret("password").is_none()));
    assert_eq!(found, ["password: must be text, not a number; put it in quotes"]);
    problems("password: 0123\n", |section| assert_eq!(section.secret("password").unwrap().expose(), "0123"));
}

#[test]
fn distances() {
    for (left, right, expected) in
        [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 1), ("realy", "relay", 1)]
    {
        assert_eq!(distance(left, right), expected);
    }
    assert_eq!(nearest("source_id", &["source-id", "server-id"]), Some("source-id"));
    assert_eq!(nearest("x", &["source-id"]), None);
}
