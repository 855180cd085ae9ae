//! DM's task configuration, as `start-task` brings it: names resolved, one checked subtask for each source.
//!
//! Every reference must lead somewhere and every rule must be used, as in DM, because a rule that is defined and not
//! used is most often a misspelt reference.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::copy::CopyConfig;
use super::kept::Kept;
use super::keys::{self, DUMP, Keys, LOAD, Tables, VALIDATOR};
use super::node::Node;
use super::rules::{BlockAllowRules, ExpressionFilter, FilterRule, RouteRule};
use super::section::{ConfigError, Problem, Report, Section, nearest_name, root};
use super::settings::SyncerConfig;
use super::subtask::{COLUMN_MAPPING, StartMeta, SubtaskConfig};

const WHAT: &str = "task configuration";

/// A task and its subtasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskConfig {
    /// Task name.
    pub name: String,
    /// Whether the file asks to forget checkpoints at the start.
    pub remove_meta: bool,
    /// One for each source, in the file's order; at least one.
    pub subtasks: Vec<SubtaskConfig>,
}

impl TaskConfig {
    /// Reads a user's file.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let tree = Node::from_yaml(text);
        let report = Report::strict();
        let section = root(&tree, &[keys::TASK], &report);
        let config = report.is_empty().then(|| Self::read(section));
        report.conclude(WHAT, config)
    }

    /// The subtask of one source.
    pub fn subtask(&self, source_id: &str) -> Result<&SubtaskConfig, ConfigError> {
        self.subtasks.iter().find(|subtask| subtask.source_id == source_id).ok_or_else(|| {
            let known: Vec<_> = self.subtasks.iter().map(|subtask| subtask.source_id.as_str()).collect();
            let text = format!("task {} has no source `{source_id}`; its sources are {}", self.name, known.join(", "));
            ConfigError { what: WHAT, problems: vec![Problem { key: "mysql-instances".into(), text }] }
        })
    }

    fn read(section: Section<'_>) -> Self {
        let general = SubtaskConfig::read_general(&section, "task-mode", "target-database");
        let rules = Rules::read(&section);
        for (name, mapping) in section.named("column-mappings", &[]) {
            mapping.own_problem(format!("`{name}`: {COLUMN_MAPPING}"));
        }
        let instances = section.sections("mysql-instances", &[keys::INSTANCE]);
        if instances.is_empty() {
            section.problem("mysql-instances", "is missing or empty; give at least one `- source-id: …`");
        }
        let mut subtasks: Vec<SubtaskConfig> = Vec::with_capacity(instances.len());
        for instance in instances {
            let subtask = rules.subtask(general.clone(), instance, &subtasks);
            subtasks.push(subtask);
        }
        rules.report_unused(&section);
        let remove_meta = section.flag("remove-meta").unwrap_or(false);
        section.finish();
        TaskConfig { name: general.name, remove_meta, subtasks }
    }
}

/// What a task file defines by name, and which of it has been referred to.
struct Rules {
    routes: Catalog<RouteRule>,
    filters: Catalog<FilterRule>,
    expressions: Catalog<ExpressionFilter>,
    lists: Catalog<BlockAllowRules>,
    dumps: Catalog<Kept>,
    loads: Catalog<Kept>,
    syncs: Catalog<SyncerConfig>,
    validators: Catalog<Kept>,
}

impl Rules {
    fn read(section: &Section<'_>) -> Self {
        let mut lists =
            Catalog::read(section, "block-allow-list", &[keys::LIST], |_, list| BlockAllowRules::read(list));
        let old = Catalog::read(section, "black-white-list", &[keys::LIST], |_, list| BlockAllowRules::read(list));
        lists.entries.extend(old.entries);
        Rules {
            routes: Catalog::read(section, "routes", &[keys::ROUTE], RouteRule::read),
            filters: Catalog::read(section, "filters", &[keys::FILTER], FilterRule::read),
            expressions: Catalog::read(section, "expression-filter", &[keys::EXPRESSION], ExpressionFilter::read),
            lists,
            dumps: Catalog::read(section, "mydumpers", &[DUMP], |_, unit| read_unit(unit, DUMP)),
            loads: Catalog::read(section, "loaders", &[LOAD], |_, unit| read_unit(unit, LOAD)),
            syncs: Catalog::read(section, "syncers", &[keys::SYNC], |_, unit| read_syncer(unit)),
            validators: Catalog::read(section, "validators", &[VALIDATOR], |_, unit| read_unit(unit, VALIDATOR)),
        }
    }

    /// One instance on top of the task's general part. `before` are the instances read already.
    fn subtask(&self, general: SubtaskConfig, instance: Section<'_>, before: &[SubtaskConfig]) -> SubtaskConfig {
        let mut subtask = general;
        subtask.source_id =
            instance.required_text("source-id", "give a source created with `operate-source`").unwrap_or_default();
        if before.iter().any(|other| other.source_id == subtask.source_id && !subtask.source_id.is_empty()) {
            instance.problem("source-id", format!("{:?} is there twice; give each source once", subtask.source_id));
        }
        subtask.meta = instance.section("meta", &[keys::META]).and_then(StartMeta::read);
        if subtask.meta.as_ref().is_some_and(|meta| !meta.is_given()) {
            instance.problem("meta", "names no place; give `binlog-name` or `binlog-gtid`, or remove it to start at the source's present end");
        }
        subtask.routes = self.routes.all(&instance, "route-rules");
        subtask.filter_rules = self.filters.all(&instance, "filter-rules");
        subtask.expression_filters = self.expressions.all(&instance, "expression-filters");
        if instance.texts("column-mapping-rules").is_some_and(|names| !names.is_empty()) {
            instance.problem("column-mapping-rules", COLUMN_MAPPING);
        }
        // Both keys are asked for, so that both are known.
        let list = self.lists.one(&instance, "block-allow-list");
        let list = list.or(self.lists.one(&instance, "black-white-list"));
        subtask.block_allow_list = list.unwrap_or_default();
        self.read_units(&mut subtask, &instance);
        instance.finish();
        subtask
    }

    /// Each unit's settings: by name, or written in place, and a shorthand for its number of threads.
    fn read_units(&self, subtask: &mut SubtaskConfig, instance: &Section<'_>) {
        let threads = |key| instance.int(key, 0..=4096u32).filter(|threads| *threads != 0);
        if let Some(dump) =
            self.dumps.unit(instance, "mydumper-config-name", "mydumper", &[DUMP], |unit| read_unit(unit, DUMP))
        {
            subtask.mydumper = dump;
        }
        if let Some(threads) = threads("mydumper-thread") {
            subtask.mydumper.set("threads", Node::Int(threads.into()));
        }
        if let Some(load) =
            self.loads.unit(instance, "loader-config-name", "loader", &[LOAD], |unit| read_unit(unit, LOAD))
        {
            subtask.loader = load;
        }
        if let Some(threads) = threads("loader-thread") {
            subtask.loader.set("pool-size", Node::Int(threads.into()));
        }
        subtask.copy = CopyConfig::of(&subtask.mydumper, &subtask.loader, instance);
        if let Some(sync) = self.syncs.unit(instance, "syncer-config-name", "syncer", &[keys::SYNC], read_syncer) {
            subtask.syncer = sync;
        }
        if let Some(threads) = threads("syncer-thread") {
            subtask.syncer.worker_count = threads;
        }
        if let Some(validator) = self.validators.one(instance, "validator-config-name") {
            subtask.validator = validator;
        }
    }

    fn report_unused(&self, section: &Section<'_>) {
        let unused = [
            self.routes.unused(),
            self.filters.unused(),
            self.expressions.unused(),
            self.dumps.unused(),
            self.loads.unused(),
            self.syncs.unused(),
            self.validators.unused(),
        ];
        for name in unused.into_iter().flatten() {
            section.problem(&name, "is used by no entry of `mysql-instances`; refer to it there or remove it");
        }
    }
}

fn read_unit(section: Section<'_>, table: Keys) -> Kept {
    let unit = Kept::read_unit(&section, table);
    section.finish();
    unit
}

fn read_syncer(section: Section<'_>) -> SyncerConfig {
    let config = SyncerConfig::read(&section);
    section.finish();
    config
}

/// Things defined by name under one key.
struct Catalog<T> {
    key: &'static str,
    entries: Vec<(String, T)>,
    used: RefCell<BTreeSet<String>>,
}

impl<T: Clone> Catalog<T> {
    fn read(section: &Section<'_>, key: &'static str, tables: Tables, read: impl Fn(String, Section<'_>) -> T) -> Self {
        let entries =
            section.named(key, tables).into_iter().map(|(name, entry)| (name.clone(), read(name, entry))).collect();
        Catalog { key, entries, used: RefCell::default() }
    }

    fn find(&self, instance: &Section<'_>, reference: &str, name: &str) -> Option<T> {
        self.used.borrow_mut().insert(name.to_owned());
        let found = self.entries.iter().find(|(known, _)| known == name).map(|(_, entry)| entry.clone());
        if found.is_none() {
            let known: Vec<_> = self.entries.iter().map(|(known, _)| known.as_str()).collect();
            let remedy = match nearest_name(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("define it under `{}`", self.key),
            };
            instance.problem(reference, format!("{name:?} is not defined under `{}`; {remedy}", self.key));
        }
        found
    }

    /// What a list of names refers to.
    fn all(&self, instance: &Section<'_>, reference: &'static str) -> Vec<T> {
        let names = instance.texts(reference).unwrap_or_default();
        names.iter().filter_map(|name| self.find(instance, reference, name)).collect()
    }

    /// What one name refers to; empty is none.
    fn one(&self, instance: &Section<'_>, reference: &'static str) -> Option<T> {
        let name = instance.text(reference).filter(|name| !name.is_empty())?;
        self.find(instance, reference, &name)
    }

    /// A unit's settings by name or in place, not both.
    fn unit(
        &self,
        instance: &Section<'_>,
        reference: &'static str,
        inline: &'static str,
        tables: Tables,
        read: impl Fn(Section<'_>) -> T,
    ) -> Option<T> {
        let named = self.one(instance, reference);
        let inlined = instance.section(inline, tables).map(read);
        if named.is_some() && inlined.is_some() {
            instance.problem(inline, format!("is given together with `{reference}`; keep one of them"));
        }
        named.or(inlined)
    }

    fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let unused = self.entries.iter().filter(|(name, _)| !used.contains(name));
        unused.map(|(name, _)| format!("{}.{name}", self.key)).collect()
    }
}
