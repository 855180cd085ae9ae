//! Values of keys without meaning here. They are kept, so that a file is printed and stored as it was given, and so that
//! whoever sets one to something of their own is told once that it changes nothing.

use std::fmt;
use std::time::Duration;

use super::keys::{Class, Key, Keys, Preset};
use super::node::Node;
use super::section::Section;
use super::units::format_duration;

/// Values by key, complete with DM's defaults.
#[derive(Clone, PartialEq)]
pub struct Kept {
    table: Keys,
    values: Vec<(&'static str, Node)>,
}

/// Kinds only: a value may be a private key.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values.iter().map(|(name, node)| (name, node))).finish()
    }
}

impl Kept {
    /// Reads the keys of a table that have no meaning here.
    pub(super) fn read(section: &Section<'_>, table: Keys) -> Self {
        Self::read_where(section, table, |key| key.class == Class::Noted && !matches!(key.preset, Preset::Part(_)))
    }

    /// Reads all keys of a table: settings of a unit that this agent does not have.
    pub(super) fn read_unit(section: &Section<'_>, table: Keys) -> Self {
        Self::read_where(section, table, |_| true)
    }

    fn read_where(section: &Section<'_>, table: Keys, wanted: impl Fn(&Key) -> bool) -> Self {
        let values = table.iter().filter(|key| wanted(key));
        Kept { table, values: values.map(|key| (key.name, read_value(section, key))).collect() }
    }

    /// DM's defaults of the keys without meaning.
    pub(super) fn defaults(table: Keys) -> Self {
        let values = table.iter().filter(|key| key.class == Class::Noted);
        Kept { table, values: values.map(|key| (key.name, default(key))).collect() }
    }

    /// DM's defaults of a whole unit.
    pub(super) fn unit_defaults(table: Keys) -> Self {
        Kept { table, values: table.iter().map(|key| (key.name, default(key))).collect() }
    }

    /// One value.
    pub(super) fn node(&self, name: &str) -> Node {
        self.values.iter().find(|(known, _)| *known == name).map_or(Node::Null, |(_, node)| node.clone())
    }

    /// A value that is `true` or `false`.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.node(name) == Node::Bool(true)
    }

    /// A value that is text, a duration included.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().find_map(|(known, node)| match node {
            Node::Text(text) if *known == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// A value that is a whole number.
    pub fn int(&self, name: &str) -> Option<i128> {
        self.values.iter().find_map(|(known, node)| match node {
            Node::Int(number) if *known == name => Some(*number),
            _ => None,
        })
    }

    /// Replaces a value, as the shorthands for threads do.
    pub(super) fn set(&mut self, name: &str, value: Node) {
        if let Some((_, node)) = self.values.iter_mut().find(|(known, _)| *known == name) {
            *node = value;
        }
    }

    /// Back to the default.
    pub(super) fn reset(&mut self, name: &str) {
        let default = self.table.iter().find(|key| key.name == name).map(default);
        if let Some(default) = default {
            self.set(name, default);
        }
    }

    /// Names the keys that were set to something of their own, with the reason why that changes nothing; keys with one
    /// reason in one line. `of` says where they stand: `` of `syncers` ``.
    pub(super) fn notes(&self, of: &str) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for key in self.table.iter().filter(|key| key.class == Class::Noted) {
            let own = self.values.iter().any(|(name, value)| *name == key.name && *value != default(key));
            let name = format!("`{}`", key.name);
            match reasons.iter_mut().find(|(why, _)| *why == key.text) {
                _ if !own => {}
                Some((_, names)) => names.push(name),
                None => reasons.push((key.text, vec![name])),
            }
        }
        reasons.into_iter().map(|(why, names)| no_meaning(&names, of, why)).collect()
    }

    /// Keys that were set to something of their own.
    pub(super) fn own(&self) -> Vec<String> {
        let own = |key: &&Key| self.values.iter().any(|(name, value)| *name == key.name && *value != default(key));
        self.table.iter().filter(own).map(|key| format!("`{}`", key.name)).collect()
    }

    /// All values in the table's order.
    pub(super) fn to_node(&self) -> Node {
        Node::Table(self.values.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect())
    }
}

/// Keys that change nothing, and why.
pub(super) fn no_meaning(names: &[String], of: &str, why: &str) -> String {
    let verb = if names.len() == 1 { "has" } else { "have" };
    format!("{}{of} {verb} no meaning here: {why}", names.join(", "))
}

fn default(key: &Key) -> Node {
    match key.preset {
        Preset::Text(text) => Node::text(text),
        Preset::Int(number) => Node::Int(number.into()),
        Preset::Float(number) => Node::Float(number),
        Preset::Flag(flag) => Node::Bool(flag),
        Preset::Seconds(seconds) => Node::text(format_duration(Duration::from_secs(seconds))),
        Preset::Texts => Node::List(Vec::new()),
        Preset::Open(_) | Preset::Part(_) => Node::Null,
    }
}

fn read_value(section: &Section<'_>, key: &Key) -> Node {
    let name = key.name;
    let given = match key.preset {
        // It may also be a size with a unit.
        Preset::Int(_) if name == "disk-quota-physical" => section.size(name).map(|size| Node::Int(size.into())),
        Preset::Text(_) => section.text(name).filter(|text| !text.is_empty()).map(Node::Text),
        Preset::Int(_) => section.int(name, 0..=u64::MAX).map(|number| Node::Int(number.into())),
        Preset::Float(_) => section.float(name, 0.0..=f64::MAX).map(Node::Float),
        Preset::Flag(_) => section.flag(name).map(Node::Bool),
        Preset::Seconds(_) => section.duration(name).map(|span| Node::Text(format_duration(span))),
        Preset::Texts => section.texts(name).map(|texts| Node::texts(&texts)),
        Preset::Open(_) | Preset::Part(_) => {
            // A table without keys says as much as none.
            section.node(name).filter(|node| **node != Node::Table(Vec::new())).cloned()
        }
    };
    given.unwrap_or_else(|| default(key))
}
