//! Rules for tests, so that each says only what it is about.

use super::{BlockAllowRules, FilterAction, FilterRule, OnlineDdlRules, RouteRule, Rules};
use crate::model::Flavor;

/// Everything is replicated, under its own name.
pub(crate) fn rules() -> Rules {
    Rules {
        block_allow: BlockAllowRules::default(),
        routes: Vec::new(),
        filters: Vec::new(),
        expressions: Vec::new(),
        online: OnlineDdlRules::default(),
        case_sensitive: false,
        meta_schema: "dm_meta".to_owned(),
        flavor: Flavor::MySql,
    }
}

/// The same rules, and DM's defaults for online DDL tools.
pub(crate) fn online(rules: Rules) -> Rules {
    let online = OnlineDdlRules {
        shadow: vec!["^_(.+)_(?:new|gho)$".to_owned()],
        trash: vec!["^_(.+)_(?:ghc|del|old)$".to_owned()],
    };
    Rules { online, ..rules }
}

/// Routes: schema and table pattern, target schema and table.
pub(crate) fn routes(all: &[[&str; 4]]) -> Vec<RouteRule> {
    let route = |&[schema_pattern, table_pattern, target_schema, target_table]: &[&str; 4]| RouteRule {
        schema_pattern: schema_pattern.to_owned(),
        table_pattern: table_pattern.to_owned(),
        target_schema: target_schema.to_owned(),
        target_table: target_table.to_owned(),
    };
    all.iter().map(route).collect()
}

/// An event filter: schema and table pattern, events, patterns of texts.
pub(crate) fn filter(patterns: [&str; 2], events: &[&str], texts: &[&str], action: FilterAction) -> FilterRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    FilterRule {
        schema_pattern: patterns[0].to_owned(),
        table_pattern: patterns[1].to_owned(),
        events: owned(events),
        sql_pattern: owned(texts),
        action,
    }
}
