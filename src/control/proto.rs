//! The generated message types and services of `proto/`, and their descriptors.
//!
//! Owns nothing of its own: everything here comes out of the compiler run by `build.rs`.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

/// DM's messages and services.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("pb");
}

/// The agent's own service.
#[allow(missing_docs, clippy::all)]
pub mod agent {
    tonic::include_proto!("dmagent");
}

/// The part of etcd's API that a worker uses towards its masters.
#[allow(missing_docs, clippy::all)]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    // Cannot fail: the build script wrote these bytes from a set that compiled; every test that prints reads them.
    DescriptorPool::decode(bytes).expect("the descriptors in the binary decode")
});

/// The descriptor of a message by its full name, such as `pb.QueryStatusListResponse`.
pub fn descriptor(full_name: &str) -> Option<MessageDescriptor> {
    POOL.get_message_by_name(full_name)
}

/// A message seen through its descriptor; `None` when `full_name` is not the name of its type.
pub fn reflect<M: prost::Message>(full_name: &str, message: &M) -> Option<DynamicMessage> {
    DynamicMessage::decode(descriptor(full_name)?, message.encode_to_vec().as_slice()).ok()
}

/// Everything the agent knows as one JSON object: names as in `proto/agent.proto`, numbers as numbers, what is not
/// known left out of `optional` fields. The body of `GET /status` and of `dm-agentctl status --json`.
pub fn status_json(status: &agent::StatusReply) -> String {
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);
    let mut out = Vec::new();
    let mut json = serde_json::Serializer::pretty(&mut out);
    let done = reflect("dmagent.StatusReply", status)
        .and_then(|message| message.serialize_with_options(&mut json, &options).ok());
    match done {
        Some(()) => String::from_utf8(out).unwrap_or_default() + "\n",
        None => String::from("{}\n"),
    }
}
