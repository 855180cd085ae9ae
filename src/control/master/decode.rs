//! What a master wants, out of the keys of one etcd revision.
//!
//! Invariant: nothing that cannot be decoded is taken for "not wanted". A stage that makes no sense leaves its subtask as
//! it is, and is named in `problems`; a bound that makes no sense is an error of the whole, and the value before holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::keys::{OfSource, cli_args_of, load_task_of};
use super::wanted::{Bound, Loader, RelayWish, SourceWish, StartTime, TaskWish, Wanted};
use crate::control::proto::etcd::KeyValue;
use crate::control::proto::pb::Stage;

/// The two keys of a worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnKeys<'a> {
    /// What the worker is bound to.
    pub bound: Option<&'a KeyValue>,
    /// Whose relay log it keeps.
    pub relay_worker: Option<&'a KeyValue>,
}

/// The keys of a source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourceKeys<'a> {
    /// Its configuration.
    pub config: Option<&'a KeyValue>,
    /// Its relay log's stage.
    pub relay_stage: Option<&'a KeyValue>,
    /// Its subtasks' stages.
    pub stages: &'a [KeyValue],
    /// Its subtasks' configurations.
    pub configs: &'a [KeyValue],
    /// All command-line arguments there are.
    pub cli_args: &'a [KeyValue],
    /// All workers that load.
    pub loaders: &'a [KeyValue],
    /// Its subtasks' validators' stages.
    pub validators: &'a [KeyValue],
}

/// A worker's own key that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of {key} makes no sense: {why}")]
pub struct BadKey {
    /// Which.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Deserialize)]
struct BoundValue {
    source: String,
}

#[derive(Deserialize)]
struct StageValue {
    expect: i32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CliArgs {
    start_time: String,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl OwnKeys<'_> {
    /// The source that the rest is to be read of; the bound one goes first.
    pub fn source(&self) -> Result<Option<String>, BadKey> {
        let (bound, relay_for) = (self.bound()?, self.relay_for()?);
        Ok(bound.or(relay_for).map(|bound| bound.source))
    }

    fn bound(&self) -> Result<Option<Bound>, BadKey> {
        let Some(kv) = self.bound else { return Ok(None) };
        let value: BoundValue =
            serde_json::from_slice(&kv.value).map_err(|error| BadKey { key: text(&kv.key), why: error.to_string() })?;
        given(kv, value.source).map(Some)
    }

    /// Its value is the source's id as it stands.
    fn relay_for(&self) -> Result<Option<Bound>, BadKey> {
        let Some(kv) = self.relay_worker else { return Ok(None) };
        let source =
            std::str::from_utf8(&kv.value).map_err(|error| BadKey { key: text(&kv.key), why: error.to_string() })?;
        given(kv, source.to_owned()).map(Some)
    }
}

fn given(kv: &KeyValue, source: String) -> Result<Bound, BadKey> {
    if source.is_empty() {
        return Err(BadKey { key: text(&kv.key), why: "it names no source".to_owned() });
    }
    Ok(Bound { source, born: kv.create_revision, revision: kv.mod_revision })
}

impl Wanted {
    /// Decodes what was read at `revision`.
    pub fn decode(revision: i64, own: OwnKeys<'_>, keys: SourceKeys<'_>) -> Result<Wanted, BadKey> {
        let mut wanted = Wanted { revision, bound: own.bound()?, relay_for: own.relay_for()?, ..Wanted::default() };
        let Some(id) = own.source()? else { return Ok(wanted) };
        let config = keys.config.map(|kv| text(&kv.value));
        let relay = wanted.relay(&id, config.as_deref(), keys.relay_stage);
        wanted.source = Some(SourceWish { id: id.clone(), config, relay });
        if wanted.bound.is_some() {
            wanted.read_tasks(&id, keys);
            wanted.loaders = loaders(&id, keys.loaders);
        }
        Ok(wanted)
    }

    fn relay(&mut self, id: &str, config: Option<&str>, stage: Option<&KeyValue>) -> Option<RelayWish> {
        let named = self.relay_for.as_ref().is_some_and(|relay| relay.source == id);
        let enabled = || config.and_then(|config| config.parse::<toml::Table>().ok()).is_some_and(relay_enabled);
        let on = named || self.bound.is_some() && enabled();
        if !on {
            return None;
        }
        let Some(kv) = stage else { return Some(RelayWish::Run) };
        match read_stage(kv) {
            Ok(Stage::Paused) => Some(RelayWish::Pause),
            Ok(Stage::Stopped) => None,
            Ok(_) => Some(RelayWish::Run),
            Err(why) => {
                self.problems.push(why);
                Some(RelayWish::Run)
            }
        }
    }

    fn read_tasks(&mut self, id: &str, keys: SourceKeys<'_>) {
        let mut configs = BTreeMap::new();
        for kv in keys.configs {
            match OfSource::Configs.task(id, &kv.key) {
                Some(task) => drop(configs.insert(task, text(&kv.value))),
                None => self.problems.push(format!("{} is no key of a subtask", text(&kv.key))),
            }
        }
        let validated = self.validated(id, keys.validators);
        for kv in keys.stages {
            let Some(task) = OfSource::Stages.task(id, &kv.key) else {
                self.problems.push(format!("{} is no key of a subtask", text(&kv.key)));
                continue;
            };
            let (run, stopped) = match read_stage(kv) {
                Ok(Stage::Running) => (true, false),
                Ok(Stage::Paused) => (false, false),
                Ok(Stage::Stopped) => (false, true),
                Ok(other) => {
                    let stage = other.as_str_name();
                    self.problems.push(format!("{}: {stage} is nothing that can be wanted", text(&kv.key)));
                    self.unreadable.insert(task);
                    continue;
                }
                Err(why) => {
                    self.problems.push(why);
                    self.unreadable.insert(task);
                    continue;
                }
            };
            let (start_time, unheeded) = self.arguments(id, &task, kv.create_revision, keys.cli_args);
            let config = configs.remove(&task).map(|toml| match validated.contains(&task) {
                true => toml,
                false => without_validation(toml),
            });
            if config.is_none() {
                self.problems.push(format!("subtask {task} has a stage and no configuration"));
            }
            let (born, stage_revision) = (kv.create_revision, kv.mod_revision);
            self.tasks.insert(task, TaskWish { config, run, stopped, born, stage_revision, start_time, unheeded });
        }
    }

    /// Subtasks whose validators are to run. A stage that makes no sense is taken for that: what is asked for and cannot be
    /// had is then told.
    fn validated(&mut self, id: &str, stages: &[KeyValue]) -> BTreeSet<String> {
        let mut validated = BTreeSet::new();
        for kv in stages {
            let Some(task) = OfSource::Validators.task(id, &kv.key) else {
                self.problems.push(format!("{} is no key of a validator", text(&kv.key)));
                continue;
            };
            match read_stage(kv) {
                Ok(Stage::Stopped | Stage::Paused) => {}
                Ok(_) => drop(validated.insert(task)),
                Err(why) => {
                    self.problems.push(why);
                    validated.insert(task);
                }
            }
        }
        validated
    }

    /// Only arguments written before the start-task that made the subtask belong to it. A master leaves those of a
    /// refused start-task in place; a stock worker then jumps back at its next resume.
    fn arguments(&mut self, source: &str, task: &str, born: i64, all: &[KeyValue]) -> (Option<StartTime>, Vec<String>) {
        let of = |kv: &&KeyValue| cli_args_of(&kv.key).is_some_and(|(t, s)| t == task && s == source);
        let Some(kv) = all.iter().find(of).filter(|kv| kv.mod_revision < born) else { return (None, Vec::new()) };
        let args: CliArgs = match serde_json::from_slice(&kv.value) {
            Ok(args) => args,
            Err(error) => {
                self.problems.push(format!("the value of {} makes no sense: {error}", text(&kv.key)));
                return (None, Vec::new());
            }
        };
        let start_time =
            (!args.start_time.is_empty()).then_some(StartTime { text: args.start_time, revision: kv.mod_revision });
        let given = |value: &serde_json::Value| !value.is_null() && value.as_str() != Some("");
        let others = args.others.into_iter().filter(|(_, value)| given(value)).map(|(name, _)| name);
        (start_time, others.collect())
    }
}

/// DM's value is the worker's name as a JSON string.
fn loaders(source: &str, all: &[KeyValue]) -> BTreeMap<String, Loader> {
    let of_it = all.iter().filter_map(|kv| {
        let (task, _) = load_task_of(&kv.key).filter(|(_, of)| of == source)?;
        let worker = serde_json::from_slice(&kv.value).unwrap_or_default();
        Some((task, Loader { worker, revision: kv.mod_revision }))
    });
    of_it.collect()
}

fn relay_enabled(config: toml::Table) -> bool {
    config.get("enable-relay").and_then(toml::Value::as_bool).unwrap_or(false)
}

/// The configuration of a subtask whose validator is not to run: `validation stop` leaves the mode in it that the validator
/// had. What cannot be read is left to whoever reads it next.
fn without_validation(toml: String) -> String {
    let Ok(mut table) = toml.parse::<toml::Table>() else { return toml };
    let mode = table.get_mut("ValidatorCfg").and_then(|unit| unit.as_table_mut()?.get_mut("mode"));
    match mode {
        Some(mode) if !matches!(mode.as_str(), Some("none" | "")) => *mode = "none".into(),
        _ => return toml,
    }
    table.to_string()
}

fn read_stage(kv: &KeyValue) -> Result<Stage, String> {
    let nonsense = |why: String| format!("the value of {} makes no sense: {why}", text(&kv.key));
    let value: StageValue = serde_json::from_slice(&kv.value).map_err(|error| nonsense(error.to_string()))?;
    Stage::try_from(value.expect).map_err(|_| nonsense(format!("there is no stage {}", value.expect)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::master::keys;

    pub(in crate::control::master) fn kv(key: &str, value: &str, born: i64, revision: i64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: born,
            mod_revision: revision,
            ..KeyValue::default()
        }
    }

    /// `tests/golden/etcd`: what a master wrote, as key-values by key.
    fn golden(text: &str) -> BTreeMap<String, KeyValue> {
        let entries: serde_json::Value = serde_json::from_str(text).unwrap();
        let entries = entries["kvs"].as_array().unwrap().iter().map(|entry| {
            let number = |name: &str| entry[name].as_i64().unwrap();
            let value = match entry["value_lines"].as_array() {
                Some(lines) => lines.iter().map(|line| format!("{}\n", line.as_str().unwrap())).collect(),
                None => entry["value"].as_str().unwrap().to_owned(),
            };
            let key = entry["key"].as_str().unwrap();
            (key.to_owned(), kv(key, &value, number("create_revision"), number("mod_revision")))
        });
        entries.collect()
    }

    #[test]
    fn a_running_masters_keys_are_understood() {
        let all = golden(include_str!("../../../tests/golden/etcd/30-relay-no-worker.json"));
        let of = |range: keys::Range| -> Vec<KeyValue> {
            all.values().filter(|kv| kv.key >= range.key && kv.key < range.end).cloned().collect()
        };
        let (stages, configs) = (of(OfSource::Stages.range("mysql-01")), of(OfSource::Configs.range("mysql-01")));
        let own = OwnKeys { bound: all.get(&keys::bound("worker1")), relay_worker: None };
        let keys = SourceKeys {
            config: all.get(&keys::source_config("mysql-01")),
            relay_stage: all.get(&keys::relay_stage("mysql-01")),
            stages: &stages,
            configs: &configs,
            ..SourceKeys::default()
        };
        let wanted = Wanted::decode(100, own, keys).unwrap();
        assert_eq!(wanted.problems, Vec::<String>::new());
        assert_eq!(wanted.bound.as_ref().unwrap().source, "mysql-01");
        let source = wanted.source.as_ref().unwrap();
        assert_eq!(source.relay, Some(RelayWish::Run));
        assert!(source.config.as_ref().unwrap().contains("enable-relay = true"));
        assert_eq!(wanted.tasks.len(), stages.len());
        assert!(!wanted.tasks.is_empty());
        for task in wanted.tasks.values() {
            assert!(task.run && task.config.as_ref().unwrap().contains("mode = \"incremental\""));
        }
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let bound = kv("/dm-master/bound-worker/77", "{\"source\":\"s\",\"worker\":\"w\"}", 3, 9);
        let own = OwnKeys { bound: Some(&bound), relay_worker: None };
        let stage = |task: &str, value: &str| kv(&OfSource::Stages.key("s", task), value, 5, 6);
        let stages = [
            stage("bad", "nonsense"),
            stage("odd", "{\"expect\":99}"),
            stage("never", "{\"expect\":7}"),
            stage("stopped", "{\"expect\":4,\"source\":\"s\",\"task\":\"stopped\"}"),
            kv("/dm-master/stage/subtask/73/zz", "{\"expect\":2}", 5, 6),
        ];
        let wanted = Wanted::decode(9, own, SourceKeys { stages: &stages, ..SourceKeys::default() }).unwrap();
        assert_eq!(wanted.unreadable, ["bad", "never", "odd"].map(String::from).into());
        assert_eq!(wanted.tasks.keys().collect::<Vec<_>>(), ["stopped"]);
        assert!(!wanted.tasks["stopped"].run && wanted.tasks["stopped"].config.is_none());
        assert_eq!(wanted.problems.len(), 5, "{:?}", wanted.problems);

        for value in ["", "{}", "{\"source\":\"\"}", "[1]"] {
            let bound = kv("/dm-master/bound-worker/77", value, 3, 9);
            let own = OwnKeys { bound: Some(&bound), relay_worker: None };
            let error = Wanted::decode(9, own, SourceKeys::default()).unwrap_err();
            assert!(error.to_string().contains("/dm-master/bound-worker/77"), "{error}");
        }
    }

    /// A validator runs by its stage; `validation stop` leaves the mode in the configuration.
    #[test]
    fn a_stopped_validator_is_not_asked_for() {
        let bound = kv("/b", "{\"source\":\"s\"}", 3, 3);
        let own = OwnKeys { bound: Some(&bound), relay_worker: None };
        let stages = [kv(&OfSource::Stages.key("s", "t"), "{\"expect\":2}", 5, 5)];
        let toml = "name = \"t\"\n\n[ValidatorCfg]\nmode = \"full\"\nworker-count = 4\n";
        let configs = [kv(&OfSource::Configs.key("s", "t"), toml, 5, 5)];
        let mode = |validator: Option<&str>| {
            let stage = validator.map(|value| kv(&OfSource::Validators.key("s", "t"), value, 5, 5));
            let validators = stage.as_slice();
            let keys = SourceKeys { stages: &stages, configs: &configs, validators, ..SourceKeys::default() };
            let wanted = Wanted::decode(9, own, keys).unwrap();
            let config: toml::Table = wanted.tasks["t"].config.as_ref().unwrap().parse().unwrap();
            assert_eq!(config["ValidatorCfg"]["worker-count"].as_integer(), Some(4));
            (config["ValidatorCfg"]["mode"].as_str().unwrap().to_owned(), wanted.problems.len())
        };
        assert_eq!(mode(Some("{\"expect\":2}")), ("full".to_owned(), 0));
        assert_eq!(mode(Some("{\"expect\":4}")), ("none".to_owned(), 0));
        assert_eq!(mode(None), ("none".to_owned(), 0));
        assert_eq!(mode(Some("?")), ("full".to_owned(), 1));
    }

    #[test]
    fn a_start_time_counts_only_for_the_start_that_it_was_given_with() {
        let bound = kv("/b", "{\"source\":\"s\"}", 3, 3);
        let own = OwnKeys { bound: Some(&bound), relay_worker: None };
        let stages = [kv(&OfSource::Stages.key("s", "t"), "{\"expect\":2}", 10, 20)];
        let with = |value: &str, revision: i64| {
            let args = [
                kv(&keys::cli_args("t", "other"), "{\"start_time\":\"x\"}", 1, 1),
                kv(&keys::cli_args("t", "s"), value, revision, revision),
            ];
            let keys = SourceKeys { stages: &stages, cli_args: &args, ..SourceKeys::default() };
            let task = Wanted::decode(30, own, keys).unwrap().tasks["t"].clone();
            assert!(task.unheeded.is_empty(), "{:?}", task.unheeded);
            task.start_time
        };
        let given = "{\"start_time\":\"2026-01-01 00:00:00\",\"safe_mode_duration\":\"\",\"wait_time_on_stop\":\"\"}";
        assert_eq!(with(given, 9), Some(StartTime { text: "2026-01-01 00:00:00".into(), revision: 9 }));
        assert_eq!(with(given, 11), None, "left by a refused start-task");
        assert_eq!(with("{\"start_time\":\"\"}", 9), None, "cleared");
        assert_eq!(with("?", 9), None);

        let text = "{\"start_time\":\"\",\"safe_mode_duration\":\"60s\",\"wait_time_on_stop\":\"\",\"new\":true}";
        let args = [kv(&keys::cli_args("t", "s"), text, 9, 9)];
        let keys = SourceKeys { stages: &stages, cli_args: &args, ..SourceKeys::default() };
        assert_eq!(Wanted::decode(30, own, keys).unwrap().tasks["t"].unheeded, ["new", "safe_mode_duration"]);
    }

    #[test]
    fn who_loads_is_known_by_task_and_source() {
        let bound = kv("/b", "{\"source\":\"s\"}", 3, 3);
        let own = OwnKeys { bound: Some(&bound), relay_worker: None };
        let loaders = [
            kv(&keys::load_task("t", "other"), "\"elsewhere\"", 1, 1),
            kv(&keys::load_task("t", "s"), "\"worker1\"", 11, 12),
            kv(&keys::load_task("u", "s"), "?", 13, 13),
        ];
        let keys = SourceKeys { loaders: &loaders, ..SourceKeys::default() };
        let wanted = Wanted::decode(30, own, keys).unwrap();
        let loader = |task: &str, worker: &str, revision| (task.into(), Loader { worker: worker.into(), revision });
        assert_eq!(wanted.loaders, [loader("t", "worker1", 12), loader("u", "", 13)].into());
    }

    #[test]
    fn the_relay_log_follows_worker_key_source_and_stage() {
        let bound = kv("/b", "{\"source\":\"s\"}", 3, 3);
        let named = kv("/r", "s", 4, 4);
        let other = kv("/r", "elsewhere", 4, 4);
        let (on, off) = (kv("/c", "enable-relay = true\n", 1, 1), kv("/c", "enable-relay = false\n", 1, 1));
        let stage = |expect: i32| kv("/s", &format!("{{\"expect\":{expect},\"source\":\"s\"}}"), 5, 5);
        let wish = |bound, relay_worker, config, relay_stage: Option<&KeyValue>| {
            let keys = SourceKeys { config: Some(config), relay_stage, ..SourceKeys::default() };
            Wanted::decode(9, OwnKeys { bound, relay_worker }, keys).unwrap().source.and_then(|source| source.relay)
        };
        assert_eq!(wish(Some(&bound), None, &off, None), None);
        assert_eq!(wish(Some(&bound), None, &on, None), Some(RelayWish::Run));
        assert_eq!(wish(Some(&bound), None, &on, Some(&stage(3))), Some(RelayWish::Pause));
        assert_eq!(wish(Some(&bound), None, &on, Some(&stage(4))), None);
        assert_eq!(wish(Some(&bound), Some(&named), &off, Some(&stage(2))), Some(RelayWish::Run));
        assert_eq!(wish(Some(&bound), Some(&other), &off, None), None);
        assert_eq!(wish(None, Some(&named), &on, Some(&stage(3))), Some(RelayWish::Pause));
        assert_eq!(wish(None, None, &on, None), None);
    }
}
