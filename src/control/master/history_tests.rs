//! Everything that a real master's etcd saw in one session (`tests/golden/etcd/watch-all.jsonl`), told to this worker: at no
//! revision is there something that makes no sense, and at each one subtasks are there, and run, as their stages say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::tests::settle;
use super::{Actual, Standing};
use crate::config::{SourceConfig, SubtaskConfig};
use crate::control::master::decode::{OwnKeys, SourceKeys};
use crate::control::master::keys::{self, OfSource, Range};
use crate::control::master::wanted::Wanted;
use crate::control::proto::etcd::KeyValue;

const HISTORY: &str = include_str!("../../../tests/golden/etcd/watch-all.jsonl");

/// One event.
struct Event {
    revision: i64,
    key: String,
    parts: Vec<String>,
    /// `None` for a deletion.
    value: Option<String>,
}

fn history() -> Vec<Event> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        Event {
            revision: event["rev"].as_i64().unwrap(),
            key: event["key"].as_str().unwrap().to_owned(),
            parts: event["parts"].as_array().unwrap().iter().map(|part| part.as_str().unwrap().to_owned()).collect(),
            value: (event["type"] == "PUT").then(|| event["value"].as_str().unwrap().to_owned()),
        }
    };
    HISTORY.lines().map(event).collect()
}

/// etcd, as far as a worker sees it.
#[derive(Default)]
struct Store(BTreeMap<Vec<u8>, KeyValue>);

impl Store {
    fn take(&mut self, event: &Event) {
        let key = event.key.clone().into_bytes();
        let Some(value) = &event.value else { return drop(self.0.remove(&key)) };
        let born = self.0.get(&key).map_or(event.revision, |kv| kv.create_revision);
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone().into_bytes(),
            create_revision: born,
            mod_revision: event.revision,
            ..KeyValue::default()
        };
        self.0.insert(key, kv);
    }

    fn one(&self, key: String) -> Option<&KeyValue> {
        self.0.get(key.as_bytes())
    }

    fn range(&self, range: Range) -> Vec<KeyValue> {
        self.0.range(range.key..range.end).map(|(_, kv)| kv.clone()).collect()
    }

    /// As [`super::super::etcd::Etcd::wanted`] reads it.
    fn wanted(&self, worker: &str, revision: i64) -> Wanted {
        let own = OwnKeys { bound: self.one(keys::bound(worker)), relay_worker: self.one(keys::relay_worker(worker)) };
        let id = own.source().unwrap().unwrap_or_default();
        let of = |kind: OfSource| self.range(kind.range(&id));
        let (stages, configs, validators) = (of(OfSource::Stages), of(OfSource::Configs), of(OfSource::Validators));
        let keys = SourceKeys {
            config: self.one(keys::source_config(&id)),
            relay_stage: self.one(keys::relay_stage(&id)),
            stages: &stages,
            configs: &configs,
            cli_args: &self.range(keys::all_cli_args()),
            loaders: &self.range(keys::all_load_tasks()),
            validators: &validators,
        };
        Wanted::decode(revision, own, keys).unwrap()
    }
}

/// The recorded keys by themselves: whether each subtask of a worker's source is to run.
#[derive(Default)]
struct Oracle {
    bound: BTreeMap<String, String>,
    stages: BTreeMap<(String, String), i64>,
}

impl Oracle {
    fn take(&mut self, event: &Event) {
        let json = |value: &str| serde_json::from_str::<Value>(value).unwrap();
        match (event.key.as_str(), event.parts.as_slice(), &event.value) {
            (key, [worker], Some(value)) if key.starts_with("/dm-master/bound-worker/") => {
                self.bound.insert(worker.clone(), json(value)["source"].as_str().unwrap().to_owned());
            }
            (key, [worker], None) if key.starts_with("/dm-master/bound-worker/") => drop(self.bound.remove(worker)),
            (key, [source, task], value) if key.starts_with("/dm-master/stage/subtask/") => {
                let key = (source.clone(), task.clone());
                match value {
                    Some(value) => self.stages.insert(key, json(value)["expect"].as_i64().unwrap()),
                    None => self.stages.remove(&key),
                };
            }
            _ => {}
        }
    }

    fn runs(&self, worker: &str) -> BTreeMap<(String, String), bool> {
        let source = self.bound.get(worker);
        let ours = self.stages.iter().filter(|(key, _)| Some(&key.0) == source);
        ours.map(|(key, expect)| (key.clone(), *expect == 2)).collect()
    }
}

#[test]
fn a_real_masters_session_is_followed_at_every_revision() {
    let (events, mut store, mut oracle) = (history(), Store::default(), Oracle::default());
    let mut worlds = BTreeMap::from(["worker1", "worker2", "worker3"].map(|worker| (worker, Actual::default())));
    let mut seen = 0;
    for (number, event) in events.iter().enumerate() {
        store.take(event);
        oracle.take(event);
        if events.get(number + 1).is_some_and(|next| next.revision == event.revision) {
            continue;
        }
        for (worker, world) in &mut worlds {
            let mut wanted = store.wanted(worker, event.revision);
            assert_eq!(wanted.problems, Vec::<String>::new(), "{worker} at {}", event.revision);
            assert!(settle(world, &mut wanted, Standing::Owner, 50), "{worker} at {}: no end", event.revision);
            let runs: BTreeMap<_, _> = world.tasks.iter().map(|(key, task)| (key.clone(), !task.paused)).collect();
            assert_eq!(runs, oracle.runs(worker), "{worker} at {}", event.revision);
            seen += runs.len();
        }
    }
    assert!(seen > 100, "only {seen} subtasks were seen");
    // Whoever slept through it all ends where those are who saw everything.
    for (worker, world) in &worlds {
        let mut fresh = Actual::default();
        let last = events.last().unwrap().revision;
        assert!(settle(&mut fresh, &mut store.wanted(worker, last), Standing::Owner, 50));
        assert_eq!(&fresh, world, "{worker}");
    }
}

/// Every configuration in it is understood; what this version does not have is refused, and nothing else.
#[test]
fn a_real_masters_subtasks_are_understood() {
    let mut refused = BTreeSet::new();
    let mut configs = 0;
    for event in history() {
        if let (true, Some(toml)) = (event.key.starts_with("/dm-master/v2/upstream/config/"), &event.value) {
            let source = SourceConfig::from_toml(toml).unwrap_or_else(|error| panic!("{}: {error}", event.revision));
            assert_eq!(source.source_id, event.parts[0]);
        }
        let (true, Some(toml)) = (event.key.starts_with("/dm-master/upstream/subtask/"), &event.value) else {
            continue;
        };
        let config = SubtaskConfig::from_toml(toml).unwrap_or_else(|error| panic!("{}: {error}", event.revision));
        assert_eq!([&config.source_id, &config.name], [&event.parts[0], &event.parts[1]]);
        // `validation start` gave one to a task that ran without.
        let validated = toml.parse::<toml::Table>().unwrap()["ValidatorCfg"]["mode"].as_str() != Some("none");
        if !config.refusals().is_empty() {
            refused.insert(if validated { "validated".to_owned() } else { config.name.clone() });
        }
        configs += 1;
    }
    assert!(configs > 30, "only {configs}");
    for beyond_us in ["tp", "to", "validated"] {
        assert!(refused.contains(beyond_us), "{refused:?}");
    }
    for plain in ["t1", "t3", "te", "ta", "tm"] {
        assert!(!refused.contains(plain), "{refused:?}");
    }
}

/// What a worker that starts reads at one revision is what one has seen that watched from the beginning.
#[test]
fn what_is_read_at_once_is_what_came_one_by_one() {
    let dumps = [
        include_str!("../../../tests/golden/etcd/10-t1-started.json"),
        include_str!("../../../tests/golden/etcd/31-relay-paused.json"),
        include_str!("../../../tests/golden/etcd/33-relay-worker.json"),
        include_str!("../../../tests/golden/etcd/62-t2-start-time.json"),
        include_str!("../../../tests/golden/etcd/100-transferred.json"),
        include_str!("../../../tests/golden/etcd/121-validator-stopped.json"),
        include_str!("../../../tests/golden/etcd/133-mariadb-relay.json"),
    ];
    let mut bound = 0;
    for dump in dumps {
        let dump: Value = serde_json::from_str(dump).unwrap();
        let revision = dump["revision"].as_i64().unwrap();
        let (mut read, mut seen) = (Store::default(), Store::default());
        for entry in dump["kvs"].as_array().unwrap() {
            let value = match entry["value_lines"].as_array() {
                Some(lines) => lines.iter().map(|line| format!("{}\n", line.as_str().unwrap())).collect(),
                None => entry["value"].as_str().unwrap().to_owned(),
            };
            let kv = KeyValue {
                key: entry["key"].as_str().unwrap().into(),
                value: value.trim_end().into(),
                create_revision: entry["create_revision"].as_i64().unwrap(),
                mod_revision: entry["mod_revision"].as_i64().unwrap(),
                ..KeyValue::default()
            };
            read.0.insert(kv.key.clone(), kv);
        }
        for event in history().iter().take_while(|event| event.revision <= revision) {
            seen.take(event);
        }
        seen.0.values_mut().for_each(|kv| kv.value.truncate(kv.value.trim_ascii_end().len()));
        for worker in ["worker1", "worker2", "worker3"] {
            let wanted = read.wanted(worker, revision);
            bound += usize::from(wanted.bound.is_some());
            assert_eq!(wanted, seen.wanted(worker, revision), "{worker} at {revision}");
        }
    }
    assert!(bound >= 7, "{bound}");
}
