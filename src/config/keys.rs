//! Every key of every configuration file, a line each: its default, and what becomes of it here.
//!
//! Invariant: a key that is not in these tables does not exist. Reading asks only for keys that are here and, in a
//! debug build, must ask for all of them; what a file has besides is refused. So each accepted key *acts*, or is
//! *refused* where it asks for something that this version cannot do, or is *noted*: accepted because DM's files have
//! it, without meaning here, and named once to whoever sets it ([`Kept::notes`](super::kept::Kept::notes)).
//! `key_tests.rs` proves the class of each line by behaviour, and holds the samples and the README to the tables.

/// The type of a key's value, and its default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Preset {
    /// Text.
    Text(&'static str),
    /// A whole number.
    Int(u64),
    /// Any number.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A duration in Go's form; the default in seconds.
    Seconds(u64),
    /// A list of texts, empty by default.
    Texts,
    /// What has its own reading. The text says what holds without it.
    Open(&'static str),
    /// What leads to keys with lines of their own. The text says what holds without it.
    Part(&'static str),
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It changes what the agent does.
    Acts,
    /// Values other than the default are refused.
    Refused,
    /// It is read, checked, printed again, and has no meaning here.
    Noted,
}

/// A key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Key {
    pub name: &'static str,
    pub preset: Preset,
    pub class: Class,
    /// For a key that acts what it does, for a refused one what to do instead, for a noted one why it has no meaning.
    pub text: &'static str,
}

/// The keys of one table of a file.
pub(super) type Keys = &'static [Key];

/// The same where a table has keys of several kinds, as a subtask in etcd has.
pub(super) type Tables = &'static [Keys];

use Preset::{Flag, Float, Int, Open, Part, Seconds, Text, Texts};

const fn acts(name: &'static str, preset: Preset, text: &'static str) -> Key {
    Key { name, preset, class: Class::Acts, text }
}

const fn refused(name: &'static str, preset: Preset, text: &'static str) -> Key {
    Key { name, preset, class: Class::Refused, text }
}

const fn noted(name: &'static str, preset: Preset, text: &'static str) -> Key {
    Key { name, preset, class: Class::Noted, text }
}

const NO_DUMP: &str = "there are no dump files: rows go from the source to the target";
const PHYSICAL: &str = "rows are written by statements, in any mode of import";
const NO_VALIDATOR: &str = "this version does not validate";
const NO_HEARTBEAT: &str = "lag is measured by the source's clock, without a heartbeat table";

/// `dm-worker.toml`, its top level.
pub(super) const WORKER: Keys = &[
    acts("name", Open("the advertised address, else the host's name"), "name of this worker in every answer"),
    acts(
        "log-level",
        Text("info"),
        "`debug`, `info`, `warn`, `error` or `fatal`, and levels of single modules behind it: `info,relay=debug`. Also at run time: `dm-agentctl log-level`",
    ),
    acts("log-file", Open("none"), "append the log there; SIGUSR1 opens it anew"),
    acts(
        "log-format",
        Open("text on a terminal and with `join`, else json"),
        "`text` or `json`; with `join` text has the form of a dm-worker's; the journal has its own form",
    ),
    noted("log-rotate", Text(""), "as in dm-worker: rotate the file and send SIGUSR1"),
    noted("redact-info-log", Flag(false), "row data is never logged"),
    acts(
        "join",
        Open("none"),
        "the dm-masters, `host:port` with commas between them: the agent is a worker of their cluster",
    ),
    acts(
        "worker-addr",
        Open("none"),
        "address that serves `/status`, `/metrics`, `/healthz` and `/readyz` to everyone who can connect, and with `join` the masters; needed then",
    ),
    acts("advertise-addr", Open("`worker-addr`"), "address that masters dial, and default of `name`"),
    noted("config-file", Text(""), "the file is named by `--config`"),
    acts(
        "keepalive-ttl",
        Int(60),
        "with `join`: seconds of silence after which the cluster takes this worker for dead",
    ),
    acts("relay-keepalive-ttl", Int(1800), "the same while a relay log is assigned to it by name"),
    noted("relay-dir", Text(""), "the relay log is in `agent.state-dir`"),
    acts("ssl-ca", Text(""), "TLS on `worker-addr` and with the masters, both ways: authorities of the cluster"),
    acts("ssl-cert", Text(""), "our certificate"),
    acts("ssl-key", Text(""), "its private key"),
    acts("ssl-ca-bytes", Open("none"), "the file's text in place of `ssl-ca`"),
    acts("ssl-cert-bytes", Open("none"), "the file's text in place of `ssl-cert`"),
    acts("ssl-key-bytes", Open("none"), "the file's text in place of `ssl-key`"),
    acts("ssl-ca-base64", Text(""), "the same in base64"),
    acts("ssl-cert-base64", Text(""), "the same in base64"),
    acts("ssl-key-base64", Text(""), "the same in base64"),
    acts("cert-allowed-cn", Texts, "common names that may connect; empty: any that the authorities signed"),
    acts("agent", Part("defaults"), "the agent's own table"),
];

/// `dm-worker.toml`, our own table `[agent]`.
pub(super) const AGENT: Keys = &[
    acts("state-dir", Open("see below"), "all that must outlive the process; one agent a directory"),
    acts("admin-socket", Open("see below"), "the socket that dm-agentctl talks to"),
    acts(
        "relay-budget",
        Text("64GiB"),
        "disk for the relay log of each source; receiving stops there. At least `64MiB`",
    ),
    acts("free-disk-floor", Text("1GiB"), "receiving stops when less is free under `state-dir`"),
    acts(
        "pause-drain-limit",
        Text("2s"),
        "how long a pause lets a large transaction finish before it parks inside it. At most `1h`",
    ),
    acts(
        "copy-yield-floor",
        Int(20),
        "a copy of existing rows, and its replay, yield to others that use its source, but not below this percentage of the time; 100: they do not yield",
    ),
    acts(
        "secret-key-path",
        Open("systemd credential `secret-key`, if any"),
        "key of encrypted passwords: 64 hexadecimal digits, dm-master's own file",
    ),
    acts(
        "log-target",
        Text("auto"),
        "without `log-file`: `auto` (the journal if standard error is connected to it), `stderr` or `journald`",
    ),
    acts("allow-core-dump", Flag(false), "core dumps hold passwords and rows: allow them only to look for a fault"),
];

/// A source file.
pub(super) const SOURCE: Keys = &[
    acts("source-id", Open("must be given"), "its name in every command, 32 characters at most"),
    acts("flavor", Open("the server is asked"), "`mysql` or `mariadb`"),
    acts("enable-gtid", Flag(false), "ask for the binlog by GTID instead of by file and offset"),
    acts("enable-relay", Flag(false), "receive from the moment the source is known, task or no task"),
    acts(
        "relay-binlog-name",
        Text(""),
        "binlog file where receiving begins while there is no task; empty: the source's present end",
    ),
    acts("relay-binlog-gtid", Text(""), "the same as a GTID set; with `enable-gtid` it goes before the file"),
    acts("server-id", Int(0), "our server id among the source's replicas; 0: chosen, and kept"),
    acts("case-sensitive", Flag(false), "compare names in rules with case"),
    acts("from", Part("must be given"), "the server and the account"),
    acts("purge", Part("defaults"), "when relay log that no task needs is removed"),
    acts("checker", Part("defaults"), "when tasks that failed are resumed by themselves"),
    acts(
        "filters",
        Part("none"),
        "event filters for all its tasks; where a task has one for the same patterns, that counts",
    ),
    noted("enable", Flag(true), "a source that exists is used; remove it with `operate-source stop`"),
    noted("relay-dir", Text("relay-dir"), "the relay log is in `agent.state-dir`"),
    noted("meta-dir", Text(""), "there is no such directory"),
    noted("charset", Text(""), "rows are written as utf8mb4 or as bytes, whatever the source's charset"),
    noted("auto-fix-gtid", Flag(false), "there is nothing to be fixed: GTIDs are taken from the events"),
    noted("tracer", Open("none"), "DM has dropped it too"),
];

/// `from` and `target-database`.
pub(super) const DATABASE: Keys = &[
    acts("host", Open("must be given"), "name or address"),
    acts("port", Open("must be given"), "TCP port"),
    acts("user", Open("must be given"), "account"),
    acts("password", Text(""), "plain, or encrypted with `dmctl encrypt` (`agent.secret-key-path`)"),
    acts("session", Open("none"), "session variables"),
    acts("security", Part("no TLS"), "TLS; paths on this host, read at each connection"),
    noted("max-allowed-packet", Open("none"), "packets may be as large as the server takes them"),
];

/// `security`.
pub(super) const SECURITY: Keys = &[
    acts("ssl-ca", Text(""), "authorities that may have signed the server's certificate; empty: it is not checked"),
    acts("ssl-cert", Text(""), "our certificate"),
    acts("ssl-key", Text(""), "its private key"),
    acts("cert-allowed-cn", Texts, "names of which the server's certificate must carry one; empty: the host's"),
    acts("ssl-ca-bytes", Open("none"), "the file's text in place of `ssl-ca`"),
    acts("ssl-cert-bytes", Open("none"), "the file's text in place of `ssl-cert`"),
    acts("ssl-key-bytes", Open("none"), "the file's text in place of `ssl-key`"),
    acts("ssl-ca-base64", Text(""), "the same in base64"),
    acts("ssl-cert-base64", Text(""), "the same in base64"),
    acts("ssl-key-base64", Text(""), "the same in base64"),
];

/// `purge` of a source.
pub(super) const PURGE: Keys = &[
    acts("interval", Int(3600), "seconds between two looks; 0: only what the budget forces is removed"),
    acts("expires", Int(0), "hours after which relay log that every task has passed goes; 0: no limit by age"),
    acts(
        "remain-space",
        Int(15),
        "GiB of free disk below which all that every task has passed goes; 0: no limit by space",
    ),
];

/// `checker` of a source.
pub(super) const CHECKER: Keys = &[
    acts("check-enable", Flag(true), "resume tasks by themselves when waiting may heal what they failed with"),
    acts("backoff-min", Seconds(1), "pause before the first try"),
    acts("backoff-factor", Float(2.0), "how much longer each next pause is"),
    acts(
        "backoff-jitter",
        Flag(true),
        "shorten each pause by a random part, so that tasks do not come back all at once",
    ),
    acts("backoff-max", Seconds(300), "longest pause"),
    acts("backoff-rollback", Seconds(300), "after running this long the count starts anew"),
    noted("check-interval", Seconds(5), "a task is resumed when its pause is over; nothing is polled"),
];

/// An event filter, of a source or a task.
pub(super) const FILTER: Keys = &[
    acts("schema-pattern", Open("must be given"), "source schemas; `*` at the end, `?`, `[…]`"),
    acts("table-pattern", Text(""), "source tables; empty: the whole schema"),
    acts("events", Texts, "DM's names of row changes and statements, see below"),
    acts("sql-pattern", Texts, "regular expressions, looked for in the text of statements"),
    acts(
        "action",
        Open("must be given"),
        "`Ignore`: leave out what is named, `Do`: leave out all else, `Error`: stop the task at it",
    ),
];

/// A task file.
pub(super) const TASK: Keys = &[
    acts(
        "name",
        Open("must be given"),
        "its name in every command, and in the names of its tables in `dm_meta`; 46 characters at most",
    ),
    acts(
        "task-mode",
        Open("must be given"),
        "`all`: copy what is there, then follow the binlog; `full`: copy, up to one consistent place, and end; `incremental`: only follow. `dump`, `load` and `load&sync` are refused, there are no dump files: use `all` or `full`",
    ),
    acts("meta-schema", Text("dm_meta"), "schema of the checkpoint tables downstream"),
    acts("case-sensitive", Flag(false), "compare names in rules with case; the source's setting is added"),
    acts("remove-meta", Flag(false), "forget the checkpoint at each start-task"),
    acts("target-database", Part("must be given"), "the downstream server and the account"),
    acts("mysql-instances", Part("must be given"), "the sources, and what holds for each"),
    acts("block-allow-list", Part("none"), "lists of tables, by name"),
    acts("black-white-list", Part("none"), "old name of `block-allow-list`"),
    acts("routes", Part("none"), "where tables go, by name"),
    acts("syncers", Part("none"), "how changes are applied, by name"),
    acts("filters", Part("none"), "which row changes and statements are left out, by name"),
    acts("expression-filter", Part("none"), "which row changes are left out by what their rows hold, by name"),
    refused(
        "column-mappings",
        Part("none"),
        "DM has dropped it too; remove it, or use generated columns in the target",
    ),
    refused("validators", Part("none"), "set `mode` to `none`, and compare with a tool such as sync-diff-inspector"),
    refused("is-sharding", Flag(false), SHARDS),
    refused("shard-mode", Text(""), SHARDS),
    acts(
        "collation_compatible",
        Text("loose"),
        "`strict`: character sets without a collation, and databases without both, get the collation that they have on the \
         source; one that the target does not know fails, and is not replaced by one like it",
    ),
    noted("strict-optimistic-shard-mode", Flag(false), "shards are not merged"),
    noted(
        "timezone",
        Text(""),
        "sessions are in UTC; TIMESTAMP values arrive equal in any time zone. Only `--start-time` is in it",
    ),
    acts("online-ddl", Flag(true), "tables of gh-ost and pt-osc are left out; what they did is run when they are done"),
    acts("online-ddl-scheme", Text(""), "deprecated: `gh-ost` or `pt` set `online-ddl` to true"),
    acts("shadow-table-rules", Texts, "which tables become the real ones, as Go regular expressions"),
    acts("trash-table-rules", Texts, "which tables of theirs are left behind, as Go regular expressions"),
    noted("ignore-checking-items", Texts, "there is no check that a task could do without"),
    noted("clean-dump-file", Flag(true), NO_DUMP),
    noted("enable-heartbeat", Flag(false), NO_HEARTBEAT),
    noted("heartbeat-update-interval", Int(1), NO_HEARTBEAT),
    noted("heartbeat-report-interval", Int(10), NO_HEARTBEAT),
    noted("ansi-quotes", Flag(false), "statements are understood by the `sql_mode` that they were logged with"),
    acts("mydumpers", Part("none"), "how existing rows are read, by name"),
    acts("loaders", Part("none"), "how they are written, by name"),
    noted("experimental", Part("none"), "see its key"),
];
const SHARDS: &str =
    "remove `is-sharding` and `shard-mode`; tables that never change their structure can be merged by `routes` alone";

/// What a subtask in etcd has at its top level besides, under other names or for the worker alone.
pub(super) const ETCD: Keys = &[
    acts("mode", Open("must be given"), "what the task does"),
    acts("to", Part("must be given"), "the downstream"),
    acts("source-id", Open("must be given"), "the source"),
    acts("meta", Part("none"), "where it starts"),
    acts("route-rules", Part("none"), "where tables go"),
    acts("filter-rules", Part("none"), "which events are left out"),
    refused("mapping-rule", Part("none"), "remove it"),
    refused("ValidatorCfg", Part("none"), "set `mode` to `none`"),
];

/// `experimental` of a task.
pub(super) const EXPERIMENTAL: Keys =
    &[noted("async-checkpoint-flush", Flag(false), "a checkpoint never holds applying up")];

/// An entry of `mysql-instances`.
pub(super) const INSTANCE: Keys = &[
    acts("source-id", Open("must be given"), "a source created with `operate-source`"),
    acts("meta", Part("the source's present end"), "where to start if there is no checkpoint"),
    acts("block-allow-list", Part("all tables"), "name of a list; empty: all tables"),
    acts("black-white-list", Part("all tables"), "old name of `block-allow-list`"),
    acts("route-rules", Part("none"), "names of routes"),
    acts("syncer-config-name", Part("none"), "name of an entry of `syncers`"),
    acts("syncer", Part("none"), "the same, written in place"),
    acts("syncer-thread", Int(0), "`worker-count`, written in place"),
    acts("filter-rules", Part("none"), "names of `filters`"),
    acts("expression-filters", Part("none"), "names of entries of `expression-filter`"),
    refused("column-mapping-rules", Part("none"), "remove it"),
    refused("validator-config-name", Part("none"), "name an entry whose `mode` is `none`, or remove it"),
    acts("mydumper-config-name", Part("none"), "name of an entry of `mydumpers`"),
    acts("mydumper", Part("none"), "the same, written in place"),
    acts("mydumper-thread", Int(0), "`threads`, written in place"),
    acts("loader-config-name", Part("none"), "name of an entry of `loaders`"),
    acts("loader", Part("none"), "the same, written in place"),
    acts("loader-thread", Int(0), "`pool-size`, written in place"),
];

/// `meta` of an instance.
pub(super) const META: Keys = &[
    acts("binlog-name", Text(""), "binlog file"),
    acts("binlog-pos", Int(4), "offset in it"),
    acts("binlog-gtid", Text(""), "GTID set executed already"),
];

/// An entry of `block-allow-list`.
pub(super) const LIST: Keys = &[
    acts("do-dbs", Texts, "take only these schemas; `*`, `?` and `[…]`, a leading `~` makes a regular expression"),
    acts("do-tables", Part("none"), "take only these tables"),
    acts("ignore-dbs", Texts, "leave these schemas out"),
    acts("ignore-tables", Part("none"), "leave these tables out"),
];

/// An entry of `do-tables` and `ignore-tables`.
pub(super) const TABLE: Keys =
    &[acts("db-name", Open("must be given"), "the schema"), acts("tbl-name", Open("must be given"), "the table")];

/// An entry of `routes`.
pub(super) const ROUTE: Keys = &[
    acts("schema-pattern", Open("must be given"), "source schemas"),
    acts("table-pattern", Text(""), "source tables; empty: the whole schema"),
    acts("target-schema", Open("must be given"), "the schema to write to"),
    acts("target-table", Text(""), "the table to write to; empty: the same name"),
    refused("extract-table", Part("none"), EXTRACTS),
    refused("extract-schema", Part("none"), EXTRACTS),
    refused("extract-source", Part("none"), EXTRACTS),
];
const EXTRACTS: &str = "remove it; a generated column in the target can often take its place";

/// `extract-table`, `extract-schema`, `extract-source`.
const TARGET_COLUMN: Key = refused("target-column", Open("must be given"), EXTRACTS);
pub(super) const EXTRACT_TABLE: Keys = &[TARGET_COLUMN, refused("table-regexp", Open("must be given"), EXTRACTS)];
pub(super) const EXTRACT_SCHEMA: Keys = &[TARGET_COLUMN, refused("schema-regexp", Open("must be given"), EXTRACTS)];
pub(super) const EXTRACT_SOURCE: Keys = &[TARGET_COLUMN, refused("source-regexp", Open("must be given"), EXTRACTS)];

/// An entry of `expression-filter`.
pub(super) const EXPRESSION: Keys = &[
    acts("schema", Open("must be given"), "source schema, with case"),
    acts("table", Open("must be given"), "source table, with case"),
    acts("insert-value-expr", Text(""), "leave out inserts of rows for which this is true"),
    acts("update-old-value-expr", Text(""), "leave out updates of rows for which this was true"),
    acts(
        "update-new-value-expr",
        Text(""),
        "leave out updates of rows for which this is true then; with both given, both must be",
    ),
    acts("delete-value-expr", Text(""), "leave out deletes of rows for which this was true"),
];

/// An entry of `syncers`.
pub(super) const SYNC: Keys = &[
    acts("worker-count", Int(16), "lanes: connections to the downstream that apply side by side"),
    acts(
        "checkpoint-flush-interval",
        Int(30),
        "seconds between two writes of DM's checkpoint row; restarts are exact in any case",
    ),
    acts("safe-mode", Flag(false), "REPLACE instead of INSERT, DELETE and REPLACE instead of UPDATE, all the time"),
    acts(
        "safe-mode-duration",
        Open("twice `checkpoint-flush-interval`"),
        "how long safe mode is used after another program wrote the checkpoint",
    ),
    noted("batch", Int(100), "groups are sized by what the downstream takes in 100 ms"),
    noted("queue-size", Int(1024), "queues are bounded in bytes and time"),
    noted("compact", Flag(false), "changes of one row are always merged"),
    noted("multiple-rows", Flag(false), "statements always have several rows"),
    noted("enable-gtid", Flag(false), "the source's `enable-gtid` decides"),
    noted("meta-file", Text(""), "checkpoints are in the downstream and in `agent.state-dir`"),
    noted("max-retry", Int(0), "what waiting may heal is tried for 30 s, then the source's `checker` decides"),
    noted("auto-fix-gtid", Flag(false), "there is nothing to be fixed: GTIDs are taken from the events"),
    noted("disable-detect", Flag(false), "DM has dropped it too"),
    noted("enable-ansi-quotes", Flag(false), "statements are understood by the `sql_mode` that they were logged with"),
];

/// An entry of `mydumpers`.
pub(super) const DUMP: Keys = &[
    noted("mydumper-path", Text("./bin/mydumper"), "no other program is run"),
    acts("threads", Int(4), "tables that are read side by side, a connection each"),
    acts("chunk-filesize", Text("64"), "size of a chunk at most: MiB, or with a unit; as it is, our own measure"),
    acts("statement-size", Int(0), "bytes of a statement at most, but never less than a row; 0: our own measure"),
    acts("rows", Int(0), "rows of a chunk at most; 0: as many as are written in about 100 ms"),
    acts(
        "where",
        Text(""),
        "copy only rows for which this is true, in every table. Changes of the others come all the same",
    ),
    noted("skip-tz-utc", Flag(true), "sessions are in UTC at both ends"),
    acts(
        "extra-args",
        Text(""),
        "flags of dumpling: `--threads`, `--rows`, `--filesize`, `--statement-size`, `--where` and `--no-views=false` act; what changes which tables or columns come is refused: remove it, and use `block-allow-list`",
    ),
];

/// An entry of `loaders`.
pub(super) const LOAD: Keys = &[
    acts("pool-size", Int(16), "connections that write, at most; how many are used is learned"),
    noted("dir", Text("./dumped_data"), NO_DUMP),
    noted("sorting-dir-physical", Text(""), PHYSICAL),
    noted("import-mode", Text("logical"), PHYSICAL),
    noted("on-duplicate", Text(""), "DM has dropped it too: use `on-duplicate-logical`"),
    acts(
        "on-duplicate-logical",
        Text("replace"),
        "rows that are in the target before: `replace` them, refuse their table (`error`), or leave them (`ignore`)",
    ),
    noted("on-duplicate-physical", Text("none"), PHYSICAL),
    noted("disk-quota-physical", Int(0), PHYSICAL),
    noted("checksum-physical", Text("required"), PHYSICAL),
    noted("analyze", Text("optional"), PHYSICAL),
    noted("range-concurrency", Int(0), PHYSICAL),
    noted("compress-kv-pairs", Text(""), PHYSICAL),
    noted("pd-addr", Text(""), PHYSICAL),
];

/// An entry of `validators`.
pub(super) const VALIDATOR: Keys = &[
    refused(
        "mode",
        Text("none"),
        "set it to `none` (with a dm-master: `validation stop`, then `resume-task`), and compare with a tool such as \
         sync-diff-inspector",
    ),
    noted("worker-count", Int(4), NO_VALIDATOR),
    noted("validate-interval", Seconds(10), NO_VALIDATOR),
    noted("check-interval", Seconds(5), NO_VALIDATOR),
    noted("row-error-delay", Seconds(1800), NO_VALIDATOR),
    noted("meta-flush-interval", Seconds(300), NO_VALIDATOR),
    noted("batch-query-size", Int(100), NO_VALIDATOR),
    noted("max-pending-row-size", Text("500m"), NO_VALIDATOR),
    noted("max-pending-row-count", Int(2147483647), NO_VALIDATOR),
];

/// A key's line.
pub(super) fn find(tables: &[Keys], name: &str) -> Option<&'static Key> {
    tables.iter().flat_map(|table| table.iter()).find(|key| key.name == name)
}

/// What to do where a key asks for what this version cannot do.
pub(super) fn remedy(table: Keys, name: &str) -> &'static str {
    find(&[table], name).map_or("remove it", |key| key.text)
}

/// A key's type and default.
pub(super) fn preset(table: Keys, name: &str) -> Option<Preset> {
    find(&[table], name).map(|key| key.preset)
}
