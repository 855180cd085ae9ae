//! Where a master keeps what in its etcd: DM's keys.
//!
//! A key is a prefix and its parts in lower-case hexadecimal digits, joined with `/`. A range of keys ends its parts with
//! a `/`. Beware of the order of parts: stages and configurations have the source first, command-line arguments and who
//! loads the task.

use std::fmt::Write;

const ALIVE: &str = "/dm-worker/a/";
const BOUND: &str = "/dm-master/bound-worker/";
const RELAY_WORKER: &str = "/dm-master/relay-worker/";
const SOURCE_CONFIG: &str = "/dm-master/v2/upstream/config/";
const RELAY_STAGE: &str = "/dm-master/v2/stage/relay/";
const SUBTASK_CONFIG: &str = "/dm-master/upstream/subtask/";
const SUBTASK_STAGE: &str = "/dm-master/stage/subtask/";
const VALIDATOR_STAGE: &str = "/dm-master/stage/validator/";
const CLI_ARGS: &str = "/dm-master/task-cli-args/";
const LOAD_TASK: &str = "/dm-master/load-task/";

fn join(prefix: &str, parts: &[&str]) -> String {
    let mut key = prefix.to_owned();
    for (number, part) in parts.iter().filter(|part| !part.is_empty()).enumerate() {
        if number > 0 {
            key.push('/');
        }
        for byte in part.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
    }
    key
}

/// The leased key that says that a worker is there.
pub fn alive(worker: &str) -> String {
    join(ALIVE, &[worker])
}

/// Which source a worker has.
pub fn bound(worker: &str) -> String {
    join(BOUND, &[worker])
}

/// Which source's relay log a worker keeps.
pub fn relay_worker(worker: &str) -> String {
    join(RELAY_WORKER, &[worker])
}

/// A source's configuration.
pub fn source_config(source: &str) -> String {
    join(SOURCE_CONFIG, &[source])
}

/// Whether a source's relay log is to be received.
pub fn relay_stage(source: &str) -> String {
    join(RELAY_STAGE, &[source])
}

/// A subtask's arguments given with start-task.
pub fn cli_args(task: &str, source: &str) -> String {
    join(CLI_ARGS, &[task, source])
}

/// Keys of one kind and one source, the task behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfSource {
    /// Subtask configurations.
    Configs,
    /// What subtasks are to do.
    Stages,
    /// What their validators are to do.
    Validators,
}

impl OfSource {
    fn prefix(self) -> &'static str {
        match self {
            OfSource::Configs => SUBTASK_CONFIG,
            OfSource::Stages => SUBTASK_STAGE,
            OfSource::Validators => VALIDATOR_STAGE,
        }
    }

    /// The first of the source's keys, as a range.
    pub fn range(self, source: &str) -> Range {
        Range::below(join(self.prefix(), &[source]) + "/")
    }

    /// One task's key.
    #[cfg(test)]
    pub fn key(self, source: &str, task: &str) -> String {
        join(self.prefix(), &[source, task])
    }

    /// The task that a key of this kind is about; `None` for what is no such key.
    pub fn task(self, source: &str, key: &[u8]) -> Option<String> {
        match parts(self.prefix(), key)?.as_slice() {
            [of, task] if of == source => Some(task.clone()),
            _ => None,
        }
    }
}

/// Task and source of a key with command-line arguments.
pub fn cli_args_of(key: &[u8]) -> Option<(String, String)> {
    match <[String; 2]>::try_from(parts(CLI_ARGS, key)?) {
        Ok([task, source]) => Some((task, source)),
        Err(_) => None,
    }
}

/// All keys with command-line arguments: they cannot be asked for by source.
pub fn all_cli_args() -> Range {
    Range::below(CLI_ARGS.to_owned())
}

/// Which worker loads a subtask's existing rows: a worker's own key, by which masters place sources.
pub fn load_task(task: &str, source: &str) -> String {
    join(LOAD_TASK, &[task, source])
}

/// Task and source of a key of a worker that loads.
pub fn load_task_of(key: &[u8]) -> Option<(String, String)> {
    match <[String; 2]>::try_from(parts(LOAD_TASK, key)?) {
        Ok([task, source]) => Some((task, source)),
        Err(_) => None,
    }
}

/// All keys of workers that load.
pub fn all_load_tasks() -> Range {
    Range::below(LOAD_TASK.to_owned())
}

fn parts(prefix: &str, key: &[u8]) -> Option<Vec<String>> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    rest.strip_suffix('/').unwrap_or(rest).split('/').map(unhex).collect()
}

fn unhex(digits: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.as_bytes().chunks(2) {
        let [high, low] = pair else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        bytes.push(u8::try_from(digit(high)? << 4 | digit(low)?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Keys from the first on, up to and without the second; an empty end for the first alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// First key.
    pub key: Vec<u8>,
    /// Behind the last one.
    pub end: Vec<u8>,
}

impl Range {
    /// One key.
    pub fn one(key: String) -> Range {
        Range { key: key.into_bytes(), end: Vec::new() }
    }

    /// All keys that begin so. The prefix ends with `/`, whose successor is `0`.
    fn below(prefix: String) -> Range {
        let key = prefix.into_bytes();
        let mut end = key.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Range { key, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_a_running_master() {
        assert_eq!(bound("worker1"), "/dm-master/bound-worker/776f726b657231");
        assert_eq!(alive("worker1"), "/dm-worker/a/776f726b657231");
        assert_eq!(relay_worker("worker1"), "/dm-master/relay-worker/776f726b657231");
        assert_eq!(source_config("mysql-01"), "/dm-master/v2/upstream/config/6d7973716c2d3031");
        assert_eq!(relay_stage("maria-01"), "/dm-master/v2/stage/relay/6d617269612d3031");
        assert_eq!(cli_args("t2", "mysql-02"), "/dm-master/task-cli-args/7432/6d7973716c2d3032");
        assert_eq!(load_task("ta", "mysql-01"), "/dm-master/load-task/7461/6d7973716c2d3031");
        assert_eq!(OfSource::Stages.key("mysql-01", "t1"), "/dm-master/stage/subtask/6d7973716c2d3031/7431");
        assert_eq!(OfSource::Configs.key("mysql-01", "t1"), "/dm-master/upstream/subtask/6d7973716c2d3031/7431");
        assert_eq!(OfSource::Validators.key("mysql-01", "t1"), "/dm-master/stage/validator/6d7973716c2d3031/7431");
    }

    #[test]
    fn ranges_are_those_a_worker_watches() {
        let range = OfSource::Stages.range("mysql-01");
        assert_eq!(range.key, b"/dm-master/stage/subtask/6d7973716c2d3031/");
        assert_eq!(range.end, b"/dm-master/stage/subtask/6d7973716c2d30310");
    }

    #[test]
    fn keys_come_back() {
        let key = OfSource::Stages.key("mysql-01", "täsk/1");
        assert_eq!(OfSource::Stages.task("mysql-01", key.as_bytes()), Some("täsk/1".into()));
        assert_eq!(OfSource::Stages.task("mysql-02", key.as_bytes()), None);
        assert_eq!(cli_args_of(cli_args("t2", "mysql-02").as_bytes()), Some(("t2".into(), "mysql-02".into())));
        assert_eq!(load_task_of(load_task("t2", "mysql-02").as_bytes()), Some(("t2".into(), "mysql-02".into())));
        for odd in
            ["/dm-master/stage/subtask/6d/xy", "/dm-master/stage/subtask/6", "/other", "/dm-master/stage/subtask/ff/ff"]
        {
            assert_eq!(OfSource::Stages.task("m", odd.as_bytes()), None, "{odd}");
        }
    }
}
