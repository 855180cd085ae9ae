//! The other methods' answers, and the checks before them, in DM's order and words.

use crate::control::proto::pb;
use crate::error::{Code, Failure};
use crate::supervisor::{Actor, AgentStatus};

/// What there is, for telling an unknown method from a known one.
pub const METHODS: &[&str] = &[
    "QueryStatus",
    "PurgeRelay",
    "OperateSchema",
    "OperateV1Meta",
    "HandleError",
    "GetWorkerCfg",
    "CheckSubtasksCanUpdate",
    "GetWorkerValidatorStatus",
    "GetValidatorError",
    "OperateValidatorError",
    "UpdateValidator",
];

/// A master takes 4 MiB for a whole answer; some room is left for what wraps it.
pub const ANSWER_LIMIT: usize = 3 << 20;

/// A text that a master can be sent.
pub fn within_limit(msg: String) -> Result<String, Failure> {
    if msg.len() <= ANSWER_LIMIT {
        return Ok(msg);
    }
    let text = format!("the answer has {} bytes, and dm-master takes no more than 4 MiB", msg.len());
    let remedy = "Please ask for less, such as the tables of one schema, or ask `dm-agentctl` on the worker's machine.";
    Err(Failure::new(Code::NotSet, text).workaround(remedy))
}

/// Who asks.
pub fn master() -> Actor {
    Actor { name: "dm-master".to_owned() }
}

/// An answer that names neither source nor worker.
pub fn bare(result: Result<String, Failure>) -> pb::CommonWorkerResponse {
    let (result, msg) = match result {
        Ok(msg) => (true, msg),
        Err(failure) => (false, failure.to_string()),
    };
    pb::CommonWorkerResponse { result, msg, ..Default::default() }
}

/// No source is bound.
pub fn not_started() -> Failure {
    Failure::new(Code::NoSource, "no mysql source is being handled in the worker")
}

/// The source that is bound.
pub fn source(agent: &AgentStatus) -> Result<String, Failure> {
    agent.sources.first().map(|source| source.source_id.clone()).ok_or_else(not_started)
}

/// No subtask has a validator.
pub fn no_validator(agent: &AgentStatus, task: &str) -> Failure {
    match source(agent) {
        Ok(source) => {
            Failure::new(Code::ValidatorNotFound, format!("validator not found for task {task} with source {source}"))
        }
        Err(failure) => failure,
    }
}

/// The one form there is: everything before a file.
pub fn purge_arguments(request: pb::PurgeRelayRequest) -> Result<String, Failure> {
    let wrong = request.inactive || request.time != 0 || request.filename.is_empty();
    if wrong {
        let text = "purge-relay takes a file name: everything before that file goes";
        return Err(Failure::new(Code::PurgeArguments, text));
    }
    Ok(request.filename)
}

pub fn unsupported(what: &str) -> Failure {
    Failure::new(Code::NotSet, format!("{what} is not supported by this version of dm-agent"))
        .workaround("Please leave the task to a dm-worker (transfer-source) where it is needed.")
}

/// The source of a request about a table's structure, which must be the one that is bound.
pub fn schema_source(agent: &AgentStatus, request: &pb::OperateWorkerSchemaRequest) -> Result<String, Failure> {
    let source = source(agent)?;
    if source == request.source {
        return Ok(source);
    }
    Err(Failure::new(Code::SourceMismatch, "source of request does not match with source in worker"))
}
