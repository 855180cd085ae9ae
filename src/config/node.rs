//! A configuration file as a tree, whichever of the two languages it is written in.
//!
//! Reading into a tree first, and only then into checked types, is what lets every problem of a file be reported at
//! once: serde alone stops at the first. Invariant: a table has no key twice, and a YAML merge key (`<<`) is resolved.

use std::fmt;

use serde::de::{Deserialize, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// A value. Tables keep the order of the file.
#[derive(Clone, PartialEq)]
pub enum Node {
    /// Nothing: the same as if the key were not there.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text, also TOML's dates.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// Keys and values.
    Table(Vec<(String, Node)>),
}

/// Why a text is not YAML or TOML at all. Says the place and the rule, never the line itself: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

impl Node {
    /// Reads a YAML document. An empty one is [`Node::Null`].
    pub fn from_yaml(text: &str) -> Result<Node, SyntaxError> {
        serde_norway::from_str(text).map_err(|error| SyntaxError(format!("not valid YAML: {error}")))
    }

    /// Reads a TOML document.
    pub fn from_toml(text: &str) -> Result<Node, SyntaxError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let place = before.map(|text| format!("line {}: ", text.matches('\n').count() + 1)).unwrap_or_default();
            SyntaxError(format!("not valid TOML: {place}{}", error.message().replace('\n', "; ")))
        })
    }

    /// Text from anything that is text.
    pub fn text(text: impl Into<String>) -> Node {
        Node::Text(text.into())
    }

    /// A list of texts.
    pub fn texts(texts: &[String]) -> Node {
        Node::List(texts.iter().map(Node::text).collect())
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "true or false",
            Node::Int(_) => "a whole number",
            Node::Float(_) => "a number",
            Node::Text(_) => "text",
            Node::List(_) => "a list",
            Node::Table(_) => "a table of keys",
        }
    }
}

/// Kind only: the value may be a password.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(i128::try_from(value).map_or_else(|_| Node::Float(value as f64), Node::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some((key, value)) = access.next_entry::<Node, Node>()? {
            let key = match key {
                Node::Text(key) => key,
                Node::Int(key) => key.to_string(),
                Node::Bool(key) => key.to_string(),
                other => return Err(A::Error::custom(format_args!("a key cannot be {}", other.kind()))),
            };
            if key == "<<" {
                merged.push(value);
            } else if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is there twice; keep one of them")));
            } else {
                entries.push((key, value));
            }
        }
        for value in merged {
            merge(&mut entries, value).map_err(A::Error::custom)?;
        }
        match entries.as_mut_slice() {
            // How the toml crate hands a date over.
            [(key, date @ Node::Text(_))] if key == "$__toml_private_datetime" => {
                Ok(std::mem::replace(date, Node::Null))
            }
            _ => Ok(Node::Table(entries)),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom("tags such as `!name` have no meaning here; remove it"))
    }
}

/// Takes over what a merge key names, where the table has no such key of its own.
fn merge(entries: &mut Vec<(String, Node)>, value: Node) -> Result<(), &'static str> {
    match value {
        Node::Table(inherited) => {
            for (key, value) in inherited {
                if !entries.iter().any(|(known, _)| *known == key) {
                    entries.push((key, value));
                }
            }
            Ok(())
        }
        Node::List(tables) => tables.into_iter().try_for_each(|table| merge(entries, table)),
        _ => Err("`<<` takes a table or a list of tables, such as `<<: *name`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(entries: &[(&str, Node)]) -> Node {
        Node::Table(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn both_languages_give_one_tree() {
        let yaml = Node::from_yaml("a: 1\nb: [x, true]\nc: {d: ~}\n").unwrap();
        assert!(
            yaml == table(&[
                ("a", Node::Int(1)),
                ("b", Node::List(vec![Node::text("x"), Node::Bool(true)])),
                ("c", table(&[("d", Node::Null)])),
            ])
        );
        assert!(
            Node::from_toml("a = 1\n[c]\nd = 'x'\n").unwrap()
                == table(&[("a", Node::Int(1)), ("c", table(&[("d", Node::text("x"))]))])
        );
        assert!(Node::from_yaml("").unwrap() == Node::Null);
    }

    #[test]
    fn merges_and_refuses_repeated_keys() {
        let merged = Node::from_yaml("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n").unwrap();
        let Node::Table(entries) = merged else { panic!("a table") };
        assert!(entries[1].1 == table(&[("y", Node::Int(3)), ("x", Node::Int(1))]));
        let error = Node::from_yaml("a: 1\na: 2\n").unwrap_err().to_string();
        assert!(error.contains("`a` is there twice"), "{error}");
        assert!(Node::from_yaml("a: !t x").unwrap_err().to_string().contains("tags"));
    }

    #[test]
    fn syntax_errors_name_the_line_and_not_its_text() {
        let error = Node::from_toml("a = 1\npassword = \"s3cret\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("s3cret"), "{error}");
        let error = Node::from_yaml("from:\n  password: 's3cret\n").unwrap_err().to_string();
        assert!(error.contains("line") && !error.contains("s3cret"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
            let _ = Node::from_yaml(&text);
            let _ = Node::from_toml(&text);
        }
    }
}
