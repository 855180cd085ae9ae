//! Reading what a master wants, and being told when it may have changed.
//!
//! Invariant: what is read is of one revision, and not older than what was read before. Watches are hints only: whatever
//! they say, or fail to say, everything is read anew, so that compaction, gaps and broken streams need no care of their own.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::channel::{Masters, OtherCluster};
use super::decode::{BadKey, OwnKeys, SourceKeys};
use super::keys::{self, OfSource, Range};
use super::plan::TaskId;
use super::wanted::{Loader, StartTime, Wanted};
use crate::control::proto::etcd::cluster_client::ClusterClient;
use crate::control::proto::etcd::kv_client::KvClient;
use crate::control::proto::etcd::watch_client::WatchClient;
use crate::control::proto::etcd::{
    Compare, DeleteRangeRequest, KeyValue, MemberListRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, compare, request_op, response_op, watch_request,
};

/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Largest answer taken: all subtasks of a source, with their rules.
const ANSWER_LIMIT: usize = 64 << 20;
/// How often a read begins anew because the source changed under it.
const TRIES: usize = 5;
/// Events that wait; more of them say nothing new.
const HINTS: usize = 1;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// etcd refused, or cannot be reached.
    #[error("read from etcd: {:?} {}", .0.code(), .0.message())]
    Etcd(Box<Status>),
    /// etcd does not answer.
    #[error("read from etcd: no answer within {} s", REQUEST_LIMIT.as_secs())]
    Silent,
    /// It answered something else than it was asked.
    #[error("read from etcd: the answer does not fit the request")]
    Odd,
    /// The source changed again and again.
    #[error("read from etcd: the source of this worker changes faster than it can be read")]
    Restless,
    /// It is not ours.
    #[error(transparent)]
    Other(#[from] OtherCluster),
    /// This worker's own keys make no sense.
    #[error(transparent)]
    Bad(#[from] BadKey),
}

/// etcd behind the masters.
#[derive(Clone)]
pub struct Etcd {
    masters: Masters,
    worker: String,
}

impl Etcd {
    /// For a worker.
    pub fn new(masters: Masters, worker: String) -> Self {
        Etcd { masters, worker }
    }

    /// The worker.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, ReadError> {
        let call = async |channel: Channel| {
            let mut kv = KvClient::new(channel).max_decoding_message_size(ANSWER_LIMIT);
            kv.txn(txn).await
        };
        self.call(call, |answer| answer.header.as_ref()).await
    }

    /// A call with a limit; one that fails, or is answered by another cluster, gives the connection up, because the next
    /// master may answer.
    async fn call<T>(
        &self,
        call: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
        header: impl Fn(&T) -> Option<&ResponseHeader>,
    ) -> Result<T, ReadError> {
        let (number, channel) = self.masters.channel();
        let error = match timeout(REQUEST_LIMIT, call(channel)).await {
            Ok(Ok(answer)) => match self.masters.check(header(answer.get_ref())) {
                Ok(()) => return Ok(answer.into_inner()),
                Err(other) => ReadError::Other(other),
            },
            Ok(Err(status)) => ReadError::Etcd(Box::new(status)),
            Err(_) => ReadError::Silent,
        };
        self.masters.give_up(number);
        Err(error)
    }

    async fn ranges(&self, ranges: Vec<Range>) -> Result<(ResponseHeader, Vec<Vec<KeyValue>>), ReadError> {
        let get = |range: Range| RangeRequest { key: range.key, range_end: range.end, ..RangeRequest::default() };
        let ops =
            ranges.into_iter().map(|range| RequestOp { request: Some(request_op::Request::RequestRange(get(range))) });
        let txn = TxnRequest { success: ops.collect(), ..TxnRequest::default() };
        let asked = txn.success.len();
        let answer = self.txn(txn).await?;
        let kvs = answer.responses.into_iter().map(|response| match response.response {
            Some(response_op::Response::ResponseRange(range)) => Ok(range.kvs),
            _ => Err(ReadError::Odd),
        });
        let kvs: Vec<_> = kvs.collect::<Result<_, _>>()?;
        let header = answer.header.ok_or(ReadError::Odd)?;
        if kvs.len() == asked { Ok((header, kvs)) } else { Err(ReadError::Odd) }
    }

    /// Reads everything, of one revision. `source` is what the worker had when it was read last, for one round trip less.
    pub async fn wanted(&self, mut source: Option<String>) -> Result<Wanted, ReadError> {
        for _ in 0..TRIES {
            let own = [keys::bound(&self.worker), keys::relay_worker(&self.worker)];
            let mut ranges: Vec<Range> = own.into_iter().map(Range::one).collect();
            if let Some(id) = &source {
                ranges.push(Range::one(keys::source_config(id)));
                ranges.push(Range::one(keys::relay_stage(id)));
                ranges.push(OfSource::Stages.range(id));
                ranges.push(OfSource::Configs.range(id));
                ranges.push(keys::all_cli_args());
                ranges.push(keys::all_load_tasks());
                ranges.push(OfSource::Validators.range(id));
            }
            let (header, kvs) = self.ranges(ranges).await?;
            let at = |index: usize| kvs.get(index).map_or(&[][..], Vec::as_slice);
            let own = OwnKeys { bound: at(0).first(), relay_worker: at(1).first() };
            let now = own.source()?;
            if now == source {
                let keys = SourceKeys {
                    config: at(2).first(),
                    relay_stage: at(3).first(),
                    stages: at(4),
                    configs: at(5),
                    cli_args: at(6),
                    loaders: at(7),
                    validators: at(8),
                };
                let wanted = Wanted::decode(header.revision, own, keys)?;
                return Ok(Wanted { cluster: header.cluster_id, ..wanted });
            }
            source = now;
        }
        Err(ReadError::Restless)
    }

    /// Tells whenever what `wanted` read may have changed; ends when the watch does.
    pub async fn watch(&self, wanted: &Wanted, hints: mpsc::Sender<()>) -> Status {
        let mut ranges: Vec<Range> =
            [keys::bound(&self.worker), keys::relay_worker(&self.worker)].into_iter().map(Range::one).collect();
        if let Some(source) = &wanted.source {
            ranges.push(Range::one(keys::source_config(&source.id)));
            ranges.push(Range::one(keys::relay_stage(&source.id)));
            ranges.push(OfSource::Stages.range(&source.id));
            ranges.push(OfSource::Configs.range(&source.id));
        }
        let start_revision = wanted.revision + 1;
        let requests: Vec<WatchRequest> = ranges
            .into_iter()
            .map(|range| WatchCreateRequest { key: range.key, range_end: range.end, start_revision })
            .map(|create| WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) })
            .collect();
        self.follow(requests, hints).await.err().unwrap_or_else(|| Status::aborted("the watch was closed"))
    }

    async fn follow(&self, requests: Vec<WatchRequest>, hints: mpsc::Sender<()>) -> Result<(), Status> {
        // The request stream stays open for as long as the watch is to last.
        let (sender, receiver) = mpsc::channel(requests.len().max(1));
        for request in requests {
            let _ = sender.try_send(request);
        }
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        // A member that has lost its leader says so instead of saying nothing.
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let mut client = WatchClient::new(self.masters.channel().1).max_decoding_message_size(ANSWER_LIMIT);
        let mut answers = client.watch(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if answer.canceled {
                let why = format!("{} (compacted at {})", answer.cancel_reason, answer.compact_revision);
                return Err(Status::aborted(why));
            }
            if !answer.events.is_empty() {
                // A full queue holds a hint already.
                let _ = hints.try_send(());
            }
        }
        drop(sender);
        Ok(())
    }

    /// Says that a start time was honoured; a newer one is left alone.
    pub async fn clear_start_time(&self, task: &TaskId, given: &StartTime) -> Result<(), ReadError> {
        let key = keys::cli_args(&task.name, &task.source).into_bytes();
        let unchanged = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(compare::TargetUnion::ModRevision(given.revision)),
        };
        let value = br#"{"start_time":"","safe_mode_duration":"","wait_time_on_stop":""}"#.to_vec();
        let put = request_op::Request::RequestPut(PutRequest { key, value, lease: 0 });
        let success = vec![RequestOp { request: Some(put) }];
        let txn = TxnRequest { compare: vec![unchanged], success, failure: Vec::new() };
        self.txn(txn).await.map(drop)
    }

    /// Says that this worker loads a subtask's existing rows, as long as the source is still the one given to it at `born`:
    /// an agent that has lost it, and does not know that yet, takes nothing from the next one.
    pub async fn claim_load(&self, task: &TaskId, born: i64) -> Result<(), ReadError> {
        // A name as a string always becomes JSON.
        let value = serde_json::to_vec(&self.worker).unwrap_or_default();
        let key = keys::load_task(&task.name, &task.source).into_bytes();
        let put = request_op::Request::RequestPut(PutRequest { key, value, lease: 0 });
        self.while_ours(born, None, put).await
    }

    /// Nobody loads a subtask's existing rows any more; a newer word of that is left alone.
    pub async fn release_load(&self, task: &TaskId, born: i64, loader: &Loader) -> Result<(), ReadError> {
        let key = keys::load_task(&task.name, &task.source).into_bytes();
        let unchanged = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(compare::TargetUnion::ModRevision(loader.revision)),
        };
        let gone = request_op::Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
        self.while_ours(born, Some(unchanged), gone).await
    }

    async fn while_ours(&self, born: i64, and: Option<Compare>, request: request_op::Request) -> Result<(), ReadError> {
        let ours = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Create.into(),
            key: keys::bound(&self.worker).into_bytes(),
            target_union: Some(compare::TargetUnion::CreateRevision(born)),
        };
        let success = vec![RequestOp { request: Some(request) }];
        let txn = TxnRequest { compare: std::iter::once(ours).chain(and).collect(), success, failure: Vec::new() };
        self.txn(txn).await.map(drop)
    }

    /// The masters' addresses as they know them.
    pub async fn members(&self) -> Result<Vec<String>, ReadError> {
        let request = MemberListRequest { linearizable: true };
        let call = async |channel: Channel| ClusterClient::new(channel).member_list(request).await;
        let answer = self.call(call, |answer| answer.header.as_ref()).await?;
        Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
    }
}

/// A channel for hints.
pub fn hints() -> (mpsc::Sender<()>, mpsc::Receiver<()>) {
    mpsc::channel(HINTS)
}
