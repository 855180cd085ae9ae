//! Messages as dmctl prints them: Go's jsonpb with defaults emitted, indented by four spaces.
//!
//! Scripts compare this text, so it is held to the recordings byte for byte: fields in the order of the `.proto` file
//! and by its names, enums by name, 64-bit integers quoted, absent messages and empty bytes `null`, a oneof's member
//! only where it is set, and an empty list on two lines. Pure functions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::control::proto::reflect;

/// One level of indentation.
const INDENT: &str = "    ";

/// A message and a line end; `None` when `full_name` is not its type's name.
pub fn print<M: prost::Message>(full_name: &str, message: &M) -> Option<String> {
    Some(print_dynamic(&reflect(full_name, message)?))
}

/// The same for a message seen through its descriptor.
pub fn print_dynamic(message: &DynamicMessage) -> String {
    let mut out = String::new();
    put_message(message, 0, &mut out);
    out.push('\n');
    out
}

/// A string as Go's encoder quotes it: HTML's special characters and line separators escaped too.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as Go's encoding/json indents it, and a line end; unlike a message's, an empty list stays on its line.
pub fn go_pretty(value: &serde_json::Value) -> String {
    let mut out = String::new();
    put_json(value, 0, &mut out);
    out.push('\n');
    out
}

fn put_json(value: &serde_json::Value, depth: usize, out: &mut String) {
    use serde_json::Value as Json;
    let mut entries: Vec<(Option<&str>, &Json)> = Vec::new();
    let (open, close) = match value {
        Json::String(text) => return out.push_str(&quoted(text)),
        Json::Array(values) => {
            entries.extend(values.iter().map(|value| (None, value)));
            ('[', ']')
        }
        Json::Object(fields) => {
            entries.extend(fields.iter().map(|(name, value)| (Some(name.as_str()), value)));
            ('{', '}')
        }
        other => return out.push_str(&other.to_string()),
    };
    out.push(open);
    for (number, (name, value)) in entries.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        line(depth + 1, out);
        if let Some(name) = name {
            out.push_str(&quoted(name));
            out.push_str(": ");
        }
        put_json(value, depth + 1, out);
    }
    if !entries.is_empty() {
        line(depth, out);
    }
    out.push(close);
}

/// A line end and the indentation of `depth`.
fn line(depth: usize, out: &mut String) {
    out.push('\n');
    (0..depth).for_each(|_| out.push_str(INDENT));
}

fn put_message(message: &DynamicMessage, depth: usize, out: &mut String) {
    out.push('{');
    let mut first = true;
    let descriptor = message.descriptor();
    let mut fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    // By their place in the file; the descriptor's own order is by number.
    fields.sort_by_key(|field| field.path().last().copied());
    for field in fields {
        if field.containing_oneof().is_some() && !message.has_field(&field) {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        line(depth + 1, out);
        out.push_str(&quoted(field.name()));
        out.push_str(": ");
        put_field(message, &field, depth + 1, out);
    }
    line(depth, out);
    out.push('}');
}

fn put_field(message: &DynamicMessage, field: &FieldDescriptor, depth: usize, out: &mut String) {
    let singular = !field.is_list() && !field.is_map();
    if singular && matches!(field.kind(), Kind::Message(_)) && !message.has_field(field) {
        out.push_str("null");
        return;
    }
    match &*message.get_field(field) {
        Value::List(values) => put_list(values, &field.kind(), depth, out),
        Value::Map(values) => {
            let mut entries: Vec<(String, &Value)> = values.iter().map(|(key, value)| (key_text(key), value)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            put_map(&entries, &kind, depth, out);
        }
        value => put_value(value, &field.kind(), depth, out),
    }
}

fn put_list(values: &[Value], kind: &Kind, depth: usize, out: &mut String) {
    out.push('[');
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        line(depth + 1, out);
        put_value(value, kind, depth + 1, out);
    }
    line(depth, out);
    out.push(']');
}

fn put_map(entries: &[(String, &Value)], kind: &Kind, depth: usize, out: &mut String) {
    out.push('{');
    for (number, (key, value)) in entries.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        line(depth + 1, out);
        out.push_str(&quoted(key));
        out.push_str(": ");
        put_value(value, kind, depth + 1, out);
    }
    line(depth, out);
    out.push('}');
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}

fn put_value(value: &Value, kind: &Kind, depth: usize, out: &mut String) {
    match value {
        Value::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
        Value::I32(v) => out.push_str(&v.to_string()),
        Value::U32(v) => out.push_str(&v.to_string()),
        Value::I64(v) => out.push_str(&format!("\"{v}\"")),
        Value::U64(v) => out.push_str(&format!("\"{v}\"")),
        Value::F32(v) => put_float(f64::from(*v), &v.to_string(), out),
        Value::F64(v) => put_float(*v, &v.to_string(), out),
        Value::String(v) => out.push_str(&quoted(v)),
        Value::Bytes(v) if v.is_empty() => out.push_str("null"),
        Value::Bytes(v) => out.push_str(&format!("\"{}\"", STANDARD.encode(v))),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(kind) => put_enum(kind, *number, out),
            _ => out.push_str(&number.to_string()),
        },
        Value::Message(message) => put_message(message, depth, out),
        // Neither is nested in the other, nor in itself.
        Value::List(_) | Value::Map(_) => out.push_str("null"),
    }
}

fn put_float(value: f64, shortest: &str, out: &mut String) {
    if value.is_finite() {
        out.push_str(shortest);
    } else if value.is_nan() {
        out.push_str("\"NaN\"");
    } else {
        out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    }
}

fn put_enum(kind: &EnumDescriptor, number: i32, out: &mut String) {
    match kind.get_value(number) {
        Some(value) => out.push_str(&quoted(value.name())),
        None => out.push_str(&number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::{descriptor, pb};

    /// Which message a recorded command prints; `None` where it prints none.
    fn message_of(command: &str, json: &serde_json::Value) -> Option<&'static str> {
        let mut words = command.strip_prefix("$ dmctl ")?.split(' ');
        let (command, second) = (words.next()?, words.next().unwrap_or_default());
        if json.get("tasks").is_some() {
            return None;
        }
        Some(match (command, second) {
            ("operate-source", _) => "pb.OperateSourceResponse",
            ("start-task", _) => "pb.StartTaskResponse",
            ("pause-task" | "resume-task" | "stop-task", _) => "pb.OperateTaskResponse",
            ("query-status", _) => "pb.QueryStatusListResponse",
            ("check-task", _) => "pb.CheckTaskResponse",
            ("get-config", _) => "pb.GetCfgResponse",
            ("list-member", _) => "pb.ListMemberResponse",
            ("pause-relay" | "resume-relay", _) => "pb.OperateWorkerRelayResponse",
            ("start-relay" | "stop-relay", _) => "pb.OperateRelayResponse",
            ("purge-relay", _) => "pb.PurgeWorkerRelayResponse",
            ("transfer-source", _) => "pb.TransferSourceResponse",
            ("offline-member", _) => "pb.OfflineMemberResponse",
            ("binlog", _) => "pb.HandleErrorResponse",
            ("binlog-schema" | "operate-schema", _) => "pb.OperateSchemaResponse",
            ("shard-ddl-lock", _) => "pb.ShowDDLLocksResponse",
            ("validation", "start") => "pb.StartValidationResponse",
            ("validation", "stop") => "pb.StopValidationResponse",
            ("validation", "status") => "pb.GetValidationStatusResponse",
            ("validation", "show-error") => "pb.GetValidationErrorResponse",
            other => panic!("no message for {other:?}"),
        })
    }

    #[test]
    fn every_recorded_answer_prints_to_the_byte() {
        let mut checked = 0;
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/dmctl")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let (Some(start), Some(end)) = (text.find("\n{\n"), text.rfind("\n}\n")) else { continue };
            let body = &text[start + 1..end + 3];
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            let Some(name) = message_of(text.lines().next().unwrap(), &json) else { continue };
            let message = DynamicMessage::deserialize(descriptor(name).unwrap(), json).unwrap();
            assert_eq!(print_dynamic(&message), body, "{}", path.display());
            checked += 1;
        }
        assert!(checked > 100, "only {checked} recordings found");
    }

    #[test]
    fn maps_bytes_and_unknown_enums() {
        let task_configs = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "<1>".to_owned())].into();
        let list = pb::ListTaskConfigsResponse { result: true, msg: String::new(), task_configs };
        let expected = "{\n    \"result\": true,\n    \"msg\": \"\",\n    \"taskConfigs\": {\n        \"a\": \"\\u003c1\\u003e\",\n        \"b\": \"2\"\n    }\n}\n";
        assert_eq!(print("pb.ListTaskConfigsResponse", &list).unwrap(), expected);
        let register = pb::RegisterWorkerResponse { secret_key: vec![1, 2], ..Default::default() };
        assert!(print("pb.RegisterWorkerResponse", &register).unwrap().contains("\"secretKey\": \"AQI=\""));
        let unknown = pb::OperateTaskResponse { op: 99, ..Default::default() };
        assert!(print("pb.OperateTaskResponse", &unknown).unwrap().contains("\"op\": 99"));
        assert!(print("pb.NoSuch", &unknown).is_none());
    }
}
