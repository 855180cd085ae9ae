//! DM's error catalogue, as far as this agent can meet it.

use std::fmt;

/// Where an error belongs, in DM's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are DM's class names
pub enum Class {
    NotSet,
    Database,
    Functional,
    Config,
    BinlogOp,
    Checkpoint,
    RelayUnit,
    SyncUnit,
    DmMaster,
    DmWorker,
    SchemaTracker,
    Scheduler,
    Validator,
}

/// Which side an error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Scope {
    NotSet,
    Upstream,
    Downstream,
    Internal,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Level {
    Low,
    Medium,
    High,
}

macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),* $(,)? }) => {
        impl $type {
            /// The word as DM prints it.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),* }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

words!(Class {
    NotSet => "not-set", Database => "database", Functional => "functional", Config => "config",
    BinlogOp => "binlog-op", Checkpoint => "checkpoint", RelayUnit => "relay-unit", SyncUnit => "sync-unit",
    DmMaster => "dm-master", DmWorker => "dm-worker", SchemaTracker => "schema-tracker", Scheduler => "scheduler",
    Validator => "validator",
});
words!(Scope { NotSet => "not-set", Upstream => "upstream", Downstream => "downstream", Internal => "internal" });
words!(Level { Low => "low", Medium => "medium", High => "high" });

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $class:ident, $scope:ident, $level:ident, $workaround:literal;)*) => {
        /// A kind of error. Numbers, classes, default scopes, levels and workarounds are DM's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name),* }

        impl Code {
            /// DM's number.
            pub fn number(self) -> i32 { match self { $(Code::$name => $number),* } }
            /// DM's class.
            pub fn class(self) -> Class { match self { $(Code::$name => Class::$class),* } }
            /// The scope where nothing else is known.
            pub fn scope(self) -> Scope { match self { $(Code::$name => Scope::$scope),* } }
            /// DM's level.
            pub fn level(self) -> Level { match self { $(Code::$name => Level::$level),* } }
            /// DM's advice; empty for none.
            pub fn workaround(self) -> &'static str { match self { $(Code::$name => $workaround),* } }
            /// All codes, for tests and for finding one by number.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];
        }
    };
}

catalogue! {
    /// A server could not be reached or refused the connection.
    DriverError = 10001, Database, NotSet, High, "Please check the database connection and the database config in configuration file.";
    /// The connection was lost before anything was sent.
    BadConnection = 10002, Database, NotSet, High, "";
    /// The connection was lost while in use.
    InvalidConnection = 10003, Database, NotSet, High, "";
    /// A query failed.
    QueryFailed = 10005, Database, NotSet, High, "";
    /// A statement that changes something failed.
    ExecuteFailed = 10006, Database, NotSet, High, "";
    /// A statement does not parse.
    ParseSql = 11006, Functional, Internal, High, "";
    /// A GTID set does not parse.
    ParseGtid = 11009, Functional, Internal, High, "Please check the `binlog-gtid` of the task or source configuration.";
    /// The flavour is neither mysql nor mariadb.
    InvalidFlavor = 11010, Functional, Internal, High, "Please check the `flavor` of the source configuration: `mysql` or `mariadb`.";
    /// The relay log holds something that cannot be parsed.
    ParseRelayLog = 11038, Functional, Internal, High, "";
    /// The source has no binlog.
    NoMasterStatus = 11125, Functional, Upstream, Medium, "Please enable the binary log of the upstream (`log_bin`).";
    /// A row image lacks columns that are needed.
    ColumnNotInBinlog = 11126, BinlogOp, Upstream, High, "Please set `binlog_row_image` to FULL on the upstream, in its sessions too.";
    /// A source configuration does not parse or is inconsistent.
    ConfigSource = 20036, Config, Internal, Medium, "Please check the source configuration.";
    /// A task configuration does not parse or is inconsistent.
    ConfigTask = 20003, Config, Internal, Medium, "Please check the task configuration.";
    /// An event filter does not compile.
    FilterRules = 20037, Config, Internal, High, "Please check the `filters` config in source and task configuration files.";
    /// An expression filter has expressions for more than one kind of change.
    ExpressionKinds = 20039, Config, Internal, High, "If you want to filter by A or B, please write two filters.";
    /// An expression is not understood.
    ExpressionGrammar = 20041, Config, Internal, High, "Please check the `expression-filters` config in task configuration file.";
    /// A rule for the tables of online DDL tools does not compile.
    OnlineDdlRegex = 20048, Config, Internal, High, "Please check if params is correctly in the configuration file.";
    /// A statement of an online DDL tool fits one of these rules only.
    OnlineDdlMistake = 20049, Config, Internal, High, "Please update your `shadow-table-rules` or `trash-table-rules` in the configuration file.";
    /// A task without a name.
    TaskNameEmpty = 20004, Config, Internal, Medium, "Please check the `name` config in task configuration file.";
    /// The start time lies behind the last binlog.
    StartTimeTooLate = 20057, Config, Internal, High, "Please check the `--start-time` is expected or try again later.";
    /// A position does not parse or does not exist.
    BinlogPosition = 22001, BinlogOp, Internal, High, "Please check the start position: it must be the start of an event between two transactions.";
    /// A checkpoint could not be read or written.
    Checkpoint = 24003, Checkpoint, Downstream, Medium, "";
    /// The relay log cannot be read or written.
    RelayStore = 30012, RelayUnit, Internal, High, "Please check the disk under the state directory.";
    /// The relay log may not be purged now.
    PurgeForbidden = 30037, RelayUnit, Internal, High, "Please try again later.";
    /// A text or option of purge-relay is wrong.
    PurgeArguments = 30042, RelayUnit, Internal, High, "";
    /// A statement-format change was found in the binlog.
    StatementFormat = 36014, SyncUnit, Internal, High, "Please set `binlog_format` to ROW on the upstream. What it logged as statements before stays in its binlog: make each of these changes downstream by hand, then `binlog skip` it.";
    /// A filter forbids an event.
    EventFilter = 36015, SyncUnit, Internal, High, "";
    /// A statement to be run in place of an event names no schema.
    NoSchemaName = 36024, SyncUnit, Internal, Low, "";
    /// A statement to be run in place of an event is no DDL.
    NotDdl = 36064, SyncUnit, Internal, High, "";
    /// Nothing was ordered about an event.
    NoException = 36065, SyncUnit, Internal, Low, "";
    /// A rows event and the table's columns do not fit.
    ColumnCount = 36027, SyncUnit, Internal, High, "Please check the log files to see if a related DDL has been skipped, and you could use `operate-schema` to get and set the table structure.";
    /// What was stored of an online DDL tool's work cannot be read or is too long.
    OnlineDdlMeta = 36039, SyncUnit, Internal, High, "";
    /// A table becomes an online DDL tool's shadow table.
    RenameToShadow = 36044, SyncUnit, Internal, High, "";
    /// A tool's table becomes another one of its tables.
    RenameShadowToOther = 36045, SyncUnit, Internal, High, "";
    /// A shadow table takes the real one's place, and it is not known what was done to it.
    OnlineDdlNotFound = 36046, SyncUnit, Internal, High, "";
    /// The binlog stream could not be opened.
    StreamStart = 36053, SyncUnit, Internal, High, "";
    /// A DDL statement could not be understood.
    ParseDdl = 36067, SyncUnit, Internal, High, "Please use `binlog skip` or `binlog replace`, or filter the statement.";
    /// The binlog stream broke, or holds what cannot be decoded.
    StreamEvent = 36069, SyncUnit, Upstream, High, "Please check if the binlog file could be parsed by `mysqlbinlog`.";
    /// A downstream table is missing.
    NoDownstreamTable = 44007, SchemaTracker, Downstream, Medium, "";
    /// The structure of a downstream table cannot be read.
    ReadDownstreamTable = 44008, SchemaTracker, Downstream, Medium, "";
    /// A text that should be a CREATE TABLE statement is none.
    NotCreateTable = 44009, SchemaTracker, Internal, Medium, "";
    /// The configuration of the worker itself.
    WorkerConfig = 40001, DmWorker, Internal, Medium, "";
    /// No master takes this worker in.
    CannotJoin = 40077, DmWorker, Internal, High, "Please check network connection of worker and check worker name is unique.";
    /// The subtask is not running.
    NotRunning = 40050, DmWorker, Internal, High, "";
    /// The subtask is not paused.
    NotPaused = 40051, DmWorker, Internal, High, "";
    /// The subtask does not exist.
    SubTaskNotFound = 40054, DmWorker, Internal, High, "";
    /// No source is being handled.
    NoSource = 40070, DmWorker, Internal, High, "";
    /// A request names another source than the one that is handled.
    SourceMismatch = 40072, DmWorker, Internal, High, "";
    /// The subtask has no validator.
    ValidatorNotFound = 43006, Validator, NotSet, Medium, "";
    /// Two routes of one level match one table.
    DuplicateRoute = 40080, DmWorker, Internal, High, "Please check that at most one table-level and one schema-level route match a table.";
    /// The source's configuration exists already.
    SourceExists = 46007, Scheduler, Internal, Medium, "";
    /// The source's configuration does not exist.
    SourceNotFound = 46008, Scheduler, Internal, Medium, "";
    /// The source still has tasks.
    SourceHasTasks = 46010, DmMaster, Internal, Medium, "Please `stop-task` first.";
    /// The task exists already.
    TaskExists = 46014, Scheduler, Internal, Medium, "Please use `query-status` command to see tasks.";
    /// An operation's result holds an error of the worker.
    OperationFailed = 38032, DmMaster, Internal, High, "Please execute `query-status` to check status.";
    /// Everything without a code.
    NotSet = 50000, NotSet, NotSet, High, "";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique() {
        let mut numbers: Vec<_> = Code::ALL.iter().map(|code| code.number()).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
