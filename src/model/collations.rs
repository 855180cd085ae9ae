//! What a source means where a statement names a character set and no collation.
//!
//! Servers differ in it, and a server in itself with each version: the source is asked once.

use std::collections::HashMap;

/// The source's collations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceCollations {
    defaults: HashMap<String, String>,
    names: HashMap<u16, String>,
}

impl SourceCollations {
    /// From character sets with their default collations, and from collations with their numbers.
    pub fn new(
        defaults: impl IntoIterator<Item = (String, String)>,
        names: impl IntoIterator<Item = (u16, String)>,
    ) -> Self {
        let defaults = defaults.into_iter().map(|(charset, collation)| (charset.to_lowercase(), collation));
        SourceCollations { defaults: defaults.collect(), names: names.into_iter().collect() }
    }

    /// The name of a collation.
    pub fn name(&self, number: u16) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    /// The default collation of a character set. Of utf8, which is utf8mb3 to newer servers, under the name that is asked
    /// for: an older one downstream knows no other.
    pub fn default_of(&self, charset: &str) -> Option<String> {
        let charset = charset.to_lowercase();
        if let Some(collation) = self.defaults.get(&charset) {
            return Some(collation.clone());
        }
        let alias = match &*charset {
            "utf8" => "utf8mb3",
            "utf8mb3" => "utf8",
            _ => return None,
        };
        let rule = self.defaults.get(alias)?.strip_prefix(alias)?;
        Some(format!("{charset}{rule}"))
    }
}
