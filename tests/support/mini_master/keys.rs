//! Keys and values as dm-master writes them, and the way back from a key to a worker.

use std::fmt::Write;

use dm_agent::control::proto::etcd::RequestOp;

use crate::support::etcd::put;

/// DM's key of a prefix and parts.
pub fn key(prefix: &str, parts: &[&str]) -> String {
    let hex = |part: &&str| {
        part.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes everything");
            text
        })
    };
    format!("{prefix}{}", parts.iter().map(hex).collect::<Vec<_>>().join("/"))
}

pub(super) fn bound_key(worker: &str) -> String {
    key("/dm-master/bound-worker/", &[worker])
}

pub(super) fn stage_key(source: &str, task: &str) -> String {
    key("/dm-master/stage/subtask/", &[source, task])
}

pub(super) fn config_key(source: &str, task: &str) -> String {
    key("/dm-master/upstream/subtask/", &[source, task])
}

pub(super) fn stage(expect: i32, source: &str, task: &str) -> String {
    format!("{{\"expect\":{expect},\"source\":\"{source}\",\"task\":\"{task}\"}}")
}

pub(super) fn bind_ops(worker: &str, source: &str) -> Vec<RequestOp> {
    let value = format!("{{\"source\":\"{source}\",\"worker\":\"{worker}\"}}");
    vec![put(&bound_key(worker), &value), put(&key("/dm-master/last-bound-worker/", &[worker]), &value)]
}

pub(super) fn worker_of_key(key: &[u8]) -> String {
    unhex(&String::from_utf8_lossy(key)["/dm-worker/a/".len()..])
}

fn unhex(digits: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    String::from_utf8((0..digits.len()).step_by(2).map(byte).collect()).expect("UTF-8")
}
