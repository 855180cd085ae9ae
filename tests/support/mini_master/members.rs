//! Which workers are there and what each is bound to: follows their leased keys, binds sources and takes them away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dm_agent::control::proto::etcd::watch_client::WatchClient;
use dm_agent::control::proto::etcd::{WatchCreateRequest, WatchRequest, event, watch_request};
use tokio::sync::{Mutex, RwLock, mpsc};
use tonic::transport::Channel;

use super::keys::{bind_ops, bound_key, key, worker_of_key};
use crate::support::etcd::{Etcd, delete, put};

/// What the master knows of its workers and sources.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Addresses by worker name.
    pub(super) registered: BTreeMap<String, String>,
    /// Workers whose leased key is there.
    pub(super) alive: BTreeMap<String, ()>,
    /// Workers by source.
    pub(super) bounds: BTreeMap<String, String>,
    /// Sources that are to be bound.
    pub(super) sources: Vec<String>,
    /// Relay workers: source by worker.
    pub(super) relay_workers: BTreeMap<String, String>,
    /// What RegisterWorker hands out.
    pub(super) secret_key: Vec<u8>,
    /// Bounds are not given any more, nor taken away.
    pub(super) absent: bool,
    /// Revision of the last event taken in.
    pub(super) seen: i64,
}

/// Follows the workers' keys for ever; a watch that breaks begins again with what is there.
pub(super) async fn follow(etcd: Arc<RwLock<Etcd>>, state: Arc<Mutex<State>>) {
    loop {
        let channel = etcd.read().await.stream_channel();
        if let Err(status) = follow_once(channel, &etcd, &state).await {
            eprintln!("mini-master: {status}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn follow_once(
    channel: Channel,
    etcd: &Arc<RwLock<Etcd>>,
    state: &Arc<Mutex<State>>,
) -> Result<(), tonic::Status> {
    let (sender, receiver) = mpsc::channel(1);
    let create =
        WatchCreateRequest { key: b"/dm-worker/a/".to_vec(), range_end: b"/dm-worker/a0".to_vec(), start_revision: 1 };
    let create = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    sender.send(create).await.expect("room for one");
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = WatchClient::new(channel).watch(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.compact_revision > 0 {
            // History is gone: what matters comes with the next writing.
            return Ok(());
        }
        for event in answer.events {
            let is_put = event.r#type() == event::EventType::Put;
            let kv = event.kv.unwrap_or_default();
            let worker = worker_of_key(&kv.key);
            let mut state = state.lock().await;
            if kv.mod_revision <= state.seen || state.absent {
                continue;
            }
            state.seen = kv.mod_revision;
            let etcd = etcd.read().await;
            if is_put { came(&etcd, &mut state, &worker).await } else { went(&etcd, &mut state, &worker).await }
        }
    }
    drop(sender);
    Ok(())
}

/// A worker is there: what it has is written again; a free one gets a source that waits.
async fn came(etcd: &Etcd, state: &mut State, worker: &str) {
    state.alive.insert(worker.to_owned(), ());
    let mut ops = Vec::new();
    if let Some(source) = state.bounds.iter().find(|(_, of)| *of == worker).map(|(source, _)| source.clone()) {
        ops.extend(bind_ops(worker, &source));
    }
    if let Some(source) = state.relay_workers.get(worker) {
        ops.push(put(&key("/dm-master/relay-worker/", &[worker]), source));
    }
    if !ops.is_empty() {
        etcd.write(ops).await;
    }
    bring_back(etcd, state, worker).await;
    bind_free(etcd, state).await;
}

/// Who loads rows of a source, of any task.
pub(super) async fn loaders(etcd: &Etcd, source: &str) -> Vec<String> {
    let of_source = key("/", &[source]);
    let keys = etcd.range("/dm-master/load-task/", "/dm-master/load-task0").await;
    let of_it = keys.into_iter().filter(|kv| String::from_utf8_lossy(&kv.key).ends_with(&of_source));
    of_it.map(|kv| serde_json::from_slice(&kv.value).expect("a name as JSON")).collect()
}

/// A free worker that is said to load rows of a source gets it back, unless whoever has it says that of itself.
pub(super) async fn bring_back(etcd: &Etcd, state: &mut State, worker: &str) {
    if state.absent || state.bounds.values().any(|of| of == worker) {
        return;
    }
    for (source, owner) in state.bounds.clone() {
        let loaders = loaders(etcd, &source).await;
        if loaders.iter().any(|name| name == worker) && !loaders.contains(&owner) {
            let mut ops = vec![delete(&bound_key(&owner))];
            ops.extend(bind_ops(worker, &source));
            etcd.write(ops).await;
            state.bounds.insert(source, worker.to_owned());
            return;
        }
    }
}

/// A worker is gone: its source goes to another one.
pub(super) async fn went(etcd: &Etcd, state: &mut State, worker: &str) {
    state.alive.remove(worker);
    let source = state.bounds.iter().find(|(_, of)| *of == worker).map(|(source, _)| source.clone());
    if let Some(source) = source {
        state.bounds.remove(&source);
        etcd.write(vec![delete(&bound_key(worker))]).await;
    }
    bind_free(etcd, state).await;
}

pub(super) async fn bind_free(etcd: &Etcd, state: &mut State) {
    if state.absent {
        return;
    }
    for source in state.sources.clone() {
        if state.bounds.contains_key(&source) {
            continue;
        }
        let mut free = state.alive.keys().filter(|worker| !state.bounds.values().any(|of| of == *worker)).cloned();
        let loaders = loaders(etcd, &source).await;
        // Whoever loads its rows goes before.
        let preferred = free.clone().find(|worker| loaders.contains(worker)).or_else(|| free.next());
        if let Some(worker) = preferred {
            etcd.write(bind_ops(&worker, &source)).await;
            state.bounds.insert(source, worker);
        }
    }
}
