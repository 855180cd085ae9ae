//! A task in DM's YAML form, as its master prints it: subtasks by source id, rules under numbered names, those with
//! equal content once.
//!
//! One difference: where `shadow-table-rules` and `trash-table-rules` are not the default they are printed; DM loses
//! them.

use super::database::{Secrets, table};
use super::kept::Kept;
use super::node::Node;
use super::rules::{ExpressionFilter, FilterRule, RouteRule};
use super::subtask::{SHADOW_RULE, ShardMode, StartMeta, SubtaskConfig, TRASH_RULE, numbered};
use super::task::TaskConfig;
use super::yaml;

/// Things that get a number in order of first appearance.
struct Numbered {
    prefix: &'static str,
    entries: Vec<Node>,
}

impl Numbered {
    fn new(prefix: &'static str) -> Self {
        Numbered { prefix, entries: Vec::new() }
    }

    fn name(&mut self, entry: Node) -> String {
        let index = self.entries.iter().position(|known| *known == entry).unwrap_or_else(|| {
            self.entries.push(entry);
            self.entries.len() - 1
        });
        numbered(self.prefix, index)
    }

    fn names(&mut self, entries: impl Iterator<Item = Node>) -> Node {
        Node::List(entries.map(|entry| Node::Text(self.name(entry))).collect())
    }

    fn into_node(self) -> Node {
        let prefix = self.prefix;
        Node::Table(
            self.entries.into_iter().enumerate().map(|(index, entry)| (numbered(prefix, index), entry)).collect(),
        )
    }
}

struct Export {
    routes: Numbered,
    filters: Numbered,
    expressions: Numbered,
    lists: Numbered,
    dumps: Numbered,
    loads: Numbered,
    syncs: Numbered,
    validators: Numbered,
}

impl TaskConfig {
    /// DM's YAML form with masked passwords and DM's names for the rules: `get-config task`.
    pub fn to_dm_yaml(&self) -> String {
        yaml::write(&task(self, Secrets::Masked))
    }

    /// The same with passwords, for our own store: [`TaskConfig::from_yaml`] reads it back.
    pub fn to_stored_yaml(&self) -> String {
        yaml::write(&task(self, Secrets::Plain))
    }
}

/// The whole task. A task without subtasks gives an empty table.
fn task(config: &TaskConfig, secrets: Secrets) -> Node {
    let Some(first) = config.subtasks.first() else { return Node::Table(Vec::new()) };
    let mut export = Export {
        routes: Numbered::new("route"),
        filters: Numbered::new("filter"),
        expressions: Numbered::new("expr-filter"),
        lists: Numbered::new("balist"),
        dumps: Numbered::new("dump"),
        loads: Numbered::new("load"),
        syncs: Numbered::new("sync"),
        validators: Numbered::new("validator"),
    };
    let mut subtasks: Vec<&SubtaskConfig> = config.subtasks.iter().collect();
    subtasks.sort_by(|left, right| left.source_id.cmp(&right.source_id));
    let instances = Node::List(subtasks.into_iter().map(|subtask| export.instance(subtask)).collect());
    let mut entries = general(first, secrets);
    entries.push(("mysql-instances", instances));
    entries.extend(online_ddl(first));
    entries.extend(export.rules());
    entries.extend([
        ("clean-dump-file", first.kept.node("clean-dump-file")),
        ("ansi-quotes", first.kept.node("ansi-quotes")),
        ("remove-meta", Node::Bool(config.remove_meta)),
        ("experimental", first.experimental.to_node()),
    ]);
    Node::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn general(subtask: &SubtaskConfig, secrets: Secrets) -> Vec<(&'static str, Node)> {
    vec![
        ("name", Node::text(&subtask.name)),
        ("task-mode", Node::text(subtask.mode.as_str())),
        ("is-sharding", Node::Bool(subtask.is_sharding)),
        ("shard-mode", Node::text(subtask.shard_mode.map_or("", ShardMode::as_str))),
        ("strict-optimistic-shard-mode", subtask.kept.node("strict-optimistic-shard-mode")),
        ("ignore-checking-items", subtask.kept.node("ignore-checking-items")),
        ("meta-schema", Node::text(&subtask.meta_schema)),
        ("enable-heartbeat", subtask.kept.node("enable-heartbeat")),
        ("heartbeat-update-interval", subtask.kept.node("heartbeat-update-interval")),
        ("heartbeat-report-interval", subtask.kept.node("heartbeat-report-interval")),
        ("timezone", subtask.kept.node("timezone")),
        ("case-sensitive", Node::Bool(subtask.case_sensitive)),
        ("collation_compatible", Node::text(if subtask.strict_collation { "strict" } else { "loose" })),
        ("target-database", subtask.to.to_node(secrets)),
    ]
}

fn online_ddl(subtask: &SubtaskConfig) -> [(&'static str, Node); 4] {
    let unless_default =
        |rules: &[String], default: &str| if rules == [default] { Node::List(Vec::new()) } else { Node::texts(rules) };
    [
        ("online-ddl", Node::Bool(subtask.online_ddl)),
        ("shadow-table-rules", unless_default(&subtask.shadow_table_rules, SHADOW_RULE)),
        ("trash-table-rules", unless_default(&subtask.trash_table_rules, TRASH_RULE)),
        ("online-ddl-scheme", Node::text("")),
    ]
}

impl Export {
    fn instance(&mut self, subtask: &SubtaskConfig) -> Node {
        let name = |numbered: &mut Numbered, settings: &Kept| Node::Text(numbered.name(settings.to_node()));
        table([
            ("source-id", Node::text(&subtask.source_id)),
            ("meta", subtask.meta.as_ref().map_or(Node::Null, meta)),
            ("filter-rules", self.filters.names(subtask.filter_rules.iter().map(FilterRule::to_node))),
            ("column-mapping-rules", Node::List(Vec::new())),
            ("route-rules", self.routes.names(subtask.routes.iter().map(RouteRule::to_node))),
            (
                "expression-filters",
                self.expressions.names(subtask.expression_filters.iter().map(ExpressionFilter::to_node)),
            ),
            ("black-white-list", Node::text("")),
            ("block-allow-list", Node::Text(self.lists.name(subtask.block_allow_list.to_node()))),
            ("mydumper-config-name", name(&mut self.dumps, &subtask.mydumper)),
            ("mydumper", Node::Null),
            ("mydumper-thread", Node::Int(0)),
            ("loader-config-name", name(&mut self.loads, &subtask.loader)),
            ("loader", Node::Null),
            ("loader-thread", Node::Int(0)),
            ("syncer-config-name", Node::Text(self.syncs.name(subtask.syncer.to_node()))),
            ("syncer", Node::Null),
            ("syncer-thread", Node::Int(0)),
            ("validator-config-name", name(&mut self.validators, &subtask.validator)),
        ])
    }

    fn rules(self) -> [(&'static str, Node); 10] {
        [
            ("routes", self.routes.into_node()),
            ("filters", self.filters.into_node()),
            ("column-mappings", Node::Table(Vec::new())),
            ("expression-filter", self.expressions.into_node()),
            ("black-white-list", Node::Table(Vec::new())),
            ("block-allow-list", self.lists.into_node()),
            ("mydumpers", self.dumps.into_node()),
            ("loaders", self.loads.into_node()),
            ("syncers", self.syncs.into_node()),
            ("validators", self.validators.into_node()),
        ]
    }
}

fn meta(meta: &StartMeta) -> Node {
    table([
        ("binlog-name", Node::text(&meta.binlog_name)),
        ("binlog-pos", Node::Int(meta.binlog_pos.into())),
        ("binlog-gtid", Node::text(&meta.binlog_gtid)),
    ])
}
