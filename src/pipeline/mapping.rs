//! Which changes come and which lane each goes to: what of it is stored, and going on with what was stored.
//!
//! A lane's mark says "of what I am given, this is done". So what a lane is given may only change where all lanes stand at
//! one transaction boundary (see [`crate::checkpoint`]). When a crash left them apart and the task comes back with other
//! rules, or a table has got other keys meanwhile, the pipeline goes on as before until the lanes are together, and then
//! begins anew as it is now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Failure};
use crate::model::TargetTable;
use crate::schema::{BoundTable, TableRule};
use crate::transform::{BlockAllowRules, ExpressionRule, FilterRule, OnlineDdlRules, RouteRule, Rules};

/// The task's part: everything but the number of lanes and the tables' keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMapping {
    /// One lane for all, in source order: foreign keys are checked.
    pub one_sequence: bool,
    block_allow: BlockAllowRules,
    routes: Vec<RouteRule>,
    /// Versions before filters wrote none.
    #[serde(default)]
    filters: Vec<FilterRule>,
    /// Nor these.
    #[serde(default)]
    expressions: Vec<ExpressionRule>,
    /// Nor these: tools' tables were as any other.
    #[serde(default)]
    online: OnlineDdlRules,
    case_sensitive: bool,
}

impl TaskMapping {
    /// As the task's configuration says.
    pub fn of(rules: &Rules, one_sequence: bool) -> Self {
        TaskMapping {
            one_sequence,
            block_allow: rules.block_allow.clone(),
            routes: rules.routes.clone(),
            filters: rules.filters.clone(),
            expressions: rules.expressions.clone(),
            online: rules.online.clone(),
            case_sensitive: rules.case_sensitive,
        }
    }

    /// The rules for names; what no task can change comes from `now`.
    pub fn rules(&self, now: &Rules) -> Rules {
        Rules {
            block_allow: self.block_allow.clone(),
            routes: self.routes.clone(),
            filters: self.filters.clone(),
            expressions: self.expressions.clone(),
            online: self.online.clone(),
            case_sensitive: self.case_sensitive,
            ..now.clone()
        }
    }

    /// As it is stored.
    pub fn to_text(&self) -> String {
        // Nothing in it can fail to be written: texts, lists and flags.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From what was stored.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(|error| unreadable(text, &error))
    }
}

fn unreadable(text: &str, error: &serde_json::Error) -> Failure {
    Failure::new(Code::Checkpoint, format!("read the stored mapping '{text}': {error}"))
}

/// Says that the mapping in use is not the one wanted now; shared by those who notice and the one who acts.
#[derive(Debug, Clone, Default)]
pub struct Outdated(Arc<AtomicBool>);

impl Outdated {
    /// It is.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The tables' part, as it grows.
#[derive(Debug)]
pub struct TableMappings {
    in_use: HashMap<TargetTable, TableRule>,
    outdated: Outdated,
}

impl TableMappings {
    /// Goes on with what was stored.
    pub fn new(stored: &[(TargetTable, String)], outdated: Outdated) -> Result<Self, Failure> {
        let parse = |(table, text): &(TargetTable, String)| {
            let rule = serde_json::from_str(text).map_err(|error| unreadable(text, &error))?;
            Ok((table.clone(), rule))
        };
        let in_use = stored.iter().map(parse).collect::<Result<_, Failure>>()?;
        Ok(TableMappings { in_use, outdated })
    }

    /// Makes a binding follow the rule in use. The text of one that is new: it must be stored before the binding is used.
    pub fn settle(&mut self, table: &mut BoundTable) -> Result<Option<String>, Failure> {
        let rule = table.rule();
        match self.in_use.get(&table.target) {
            Some(known) if *known == rule => Ok(None),
            Some(known) => {
                tracing::info!(table = %table.target, "dealt out as before until all lanes stand at one place");
                self.outdated.set();
                table.follow(known).map(|()| None).map_err(|error| {
                    let text = format!("table {} was changed downstream while lanes are apart: {error}", table.target);
                    Failure::new(Code::ColumnCount, text)
                        .workaround("Please undo the change until the task has caught up and was paused once.")
                })
            }
            None => {
                let text = serde_json::to_string(&rule).map_err(|error| unreadable("", &error))?;
                self.in_use.insert(table.target.clone(), rule);
                Ok(Some(text))
            }
        }
    }

    /// All lanes stand at one place: tables may have changed.
    pub fn forget(&mut self) {
        self.in_use.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::testing::{hashed_table, table};
    use crate::transform::{FilterAction, testing};

    #[test]
    fn the_tasks_part_comes_back() {
        let rules = Rules {
            block_allow: BlockAllowRules { do_dbs: vec!["~^a".into()], ..Default::default() },
            routes: vec![RouteRule { schema_pattern: "a*".into(), target_schema: "b".into(), ..Default::default() }],
            filters: vec![testing::filter(["a*", ""], &["delete"], &[], FilterAction::Ignore)],
            case_sensitive: true,
            ..testing::rules()
        };
        let mapping = TaskMapping::of(&rules, true);
        let back = TaskMapping::parse(&mapping.to_text()).unwrap();
        assert_eq!((&back, back.rules(&rules)), (&mapping, rules.clone()));
        let other = Rules { routes: Vec::new(), ..rules.clone() };
        assert_eq!(back.rules(&other), rules);
        assert_ne!(TaskMapping::of(&other, true), mapping);
        let unfiltered = Rules { filters: Vec::new(), ..rules.clone() };
        assert_ne!(TaskMapping::of(&unfiltered, true), mapping);
        // As versions before filters wrote it.
        let mut before: serde_json::Value = serde_json::from_str(&mapping.to_text()).unwrap();
        before.as_object_mut().unwrap().remove("filters").unwrap();
        assert_eq!(TaskMapping::parse(&before.to_string()).unwrap(), TaskMapping::of(&unfiltered, true));
        assert!(TaskMapping::parse("{").is_err());
    }

    #[test]
    fn a_table_that_changed_is_dealt_out_as_before_until_lanes_are_together() {
        let bound = |keys: &[(&str, &[usize])]| Arc::into_inner(table("t", "t", keys)).expect("just made");
        type Keys = &'static [(&'static str, &'static [usize])];
        let (keyed, keyless): (Keys, Keys) = (&[("PRIMARY", &[0])], &[]);
        let outdated = Outdated::default();
        let mut first = TableMappings::new(&[], outdated.clone()).unwrap();
        let stored = first.settle(&mut bound(keyed)).unwrap().expect("a new one");
        assert_eq!(first.settle(&mut bound(keyed)).unwrap(), None);
        let target = bound(keyed).target;
        let mut after_a_crash = TableMappings::new(&[(target, stored)], outdated.clone()).unwrap();
        let mut now = bound(keyless);
        assert!(now.identity.is_none() && !outdated.is_set());
        assert_eq!(after_a_crash.settle(&mut now).unwrap(), None);
        assert!(outdated.is_set());
        assert_eq!((now.identity.clone(), now.lane_rule.clone()), (bound(keyed).identity, bound(keyed).lane_rule));
        // A version that found lanes by hash left them apart.
        let by_hash = Arc::into_inner(hashed_table("t", "t", keyed)).expect("just made");
        let stored = serde_json::to_string(&by_hash.rule()).unwrap();
        let outdated = Outdated::default();
        let mut after_a_crash = TableMappings::new(&[(by_hash.target.clone(), stored)], outdated.clone()).unwrap();
        let mut now = bound(keyed);
        assert_ne!(now.lane_rule, by_hash.lane_rule);
        assert_eq!((after_a_crash.settle(&mut now).unwrap(), outdated.is_set()), (None, true));
        assert_eq!(now.lane_rule, by_hash.lane_rule);
        after_a_crash.forget();
        assert!(after_a_crash.settle(&mut bound(keyless)).unwrap().is_some());
    }
}
