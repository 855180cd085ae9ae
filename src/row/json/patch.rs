//! Partial updates of JSON: a vector of diffs applied to the value before.
//!
//! Only containers on the way to a change are taken apart; everything else is carried over as the bytes it is. The result
//! is the same value as the server has after the change, not always the same bytes.

use std::borrow::Cow;

use super::{CUT, Container, Json, JsonError, MAX_DEPTH, Result, is_inlined, split, tag};
use crate::row::wire::Cursor;

/// A value of the tree that is being changed.
enum Node<'a> {
    /// Untouched: a type byte and exactly its data.
    Raw(u8, &'a [u8]),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, [u8]>, Node<'a>)>),
}

/// One step of a path.
enum Leg {
    Key(Vec<u8>),
    Index(usize),
}

/// Applies the diffs of a PARTIAL_UPDATE_ROWS event to the column's value before it; both are bytes from the binlog. No
/// diffs at all means that the value is unchanged.
pub fn apply_diffs(before: &[u8], diffs: &[u8]) -> Result<Vec<u8>> {
    let (tag, data) = split(before);
    let mut tree = Node::raw(tag, data)?;
    let mut at = Cursor::new(diffs);
    while !at.is_empty() {
        let operation = at.u8().ok_or(CUT)?;
        let path = at.lenenc_bytes().ok_or(CUT)?;
        let value = match operation {
            0 | 1 => {
                let (tag, data) = split(at.lenenc_bytes().ok_or(CUT)?);
                Some(Node::raw(tag, data)?)
            }
            2 => None,
            _ => return Err(JsonError::Malformed("unknown operation in a partial update")),
        };
        apply(&mut tree, operation, path, value)?;
    }
    let (tag, data) = tree.encode()?;
    let mut document = Vec::with_capacity(data.len() + 1);
    document.push(tag);
    document.extend_from_slice(&data);
    Ok(document)
}

/// Operation 0 replaces, 1 inserts and 2 removes; the first two bring a value.
fn apply<'a>(tree: &mut Node<'a>, operation: u8, path: &[u8], value: Option<Node<'a>>) -> Result<()> {
    let wrong = |what| JsonError::Path { path: String::from_utf8_lossy(path).into_owned(), what };
    let mut legs = parse_path(path).ok_or_else(|| wrong("the path is malformed"))?;
    if legs.len() > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    let Some(last) = legs.pop() else {
        return match (operation, value) {
            (0, Some(value)) => {
                *tree = value;
                Ok(())
            }
            _ => Err(wrong("the root can only be replaced")),
        };
    };
    let mut node = tree;
    for leg in &legs {
        node.expand()?;
        node = node.child(leg).ok_or_else(|| wrong("there is no such member"))?;
    }
    node.expand()?;
    let missing = || wrong("there is no such member");
    match (value, operation, node, last) {
        (Some(value), 0, node, last) => *node.child(&last).ok_or_else(missing)? = value,
        (Some(value), _, Node::Array(members), Leg::Index(index)) => members.insert(index.min(members.len()), value),
        (Some(value), _, Node::Object(members), Leg::Key(key)) => {
            let place = members.binary_search_by(|(other, _)| key_order(other, &key));
            match place {
                Ok(_) => return Err(wrong("the member exists already")),
                Err(place) => members.insert(place, (Cow::Owned(key), value)),
            }
        }
        (None, _, Node::Array(members), Leg::Index(index)) if index < members.len() => {
            members.remove(index);
        }
        (None, _, Node::Object(members), Leg::Key(key)) => {
            let place = members.iter().position(|(other, _)| **other == *key).ok_or_else(missing)?;
            members.remove(place);
        }
        _ => return Err(missing()),
    }
    Ok(())
}

/// The order of an object's keys: shorter ones first, then by bytes.
fn key_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl<'a> Node<'a> {
    fn raw(tag: u8, data: &'a [u8]) -> Result<Self> {
        let len = match Json::parse(tag, data)? {
            Json::Container(container) => container.bytes.len(),
            Json::Null | Json::Bool(_) => 1,
            Json::Int(_) | Json::UInt(_) | Json::Double(_) => match tag {
                tag::INT16 | tag::UINT16 => 2,
                tag::INT32 | tag::UINT32 => 4,
                _ => 8,
            },
            // Their bytes lie behind a length whose width only the parser knows: count from where they end.
            Json::String(bytes) | Json::Opaque { data: bytes, .. } => {
                let head = if tag == tag::OPAQUE { 1 } else { 0 };
                let mut width = 1;
                while bytes.len() >> (7 * width) > 0 {
                    width += 1;
                }
                head + width + bytes.len()
            }
        };
        Ok(Node::Raw(tag, data.get(..len).ok_or(CUT)?))
    }

    /// Takes a container apart, one level.
    fn expand(&mut self) -> Result<()> {
        let Node::Raw(tag, data) = *self else { return Ok(()) };
        let Json::Container(container) = Json::parse(tag, data)? else { return Ok(()) };
        *self = if container.object {
            let member = |index| Ok((Cow::Borrowed(container.key(index)?), container.node(index)?));
            Node::Object((0..container.count).map(member).collect::<Result<_>>()?)
        } else {
            Node::Array((0..container.count).map(|index| container.node(index)).collect::<Result<_>>()?)
        };
        Ok(())
    }

    fn child(&mut self, leg: &Leg) -> Option<&mut Node<'a>> {
        match (self, leg) {
            (Node::Array(members), Leg::Index(index)) => members.get_mut(*index),
            (Node::Object(members), Leg::Key(key)) => {
                members.iter_mut().find(|(other, _)| **other == **key).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// Type byte and data. Recursion is as deep as paths were long.
    fn encode(&self) -> Result<(u8, Cow<'a, [u8]>)> {
        let (keys, members): (Option<Vec<&[u8]>>, Vec<&Node<'a>>) = match self {
            Node::Raw(tag, data) => return Ok((*tag, Cow::Borrowed(data))),
            Node::Array(members) => (None, members.iter().collect()),
            Node::Object(members) => {
                (Some(members.iter().map(|(key, _)| &**key).collect()), members.iter().map(|(_, node)| node).collect())
            }
        };
        let values = members.into_iter().map(Node::encode).collect::<Result<Vec<_>>>()?;
        let object = keys.is_some();
        let keys = keys.unwrap_or_default();
        for large in [false, true] {
            if let Some(bytes) = encode_container(&keys, object, &values, large) {
                return Ok((u8::from(large) + if object { 0 } else { tag::SMALL_ARRAY }, Cow::Owned(bytes)));
            }
        }
        Err(JsonError::Malformed("it grows beyond 4 GiB"))
    }
}

impl<'a> Container<'a> {
    fn node(&self, index: usize) -> Result<Node<'a>> {
        let (tag, data) = self.member(index)?;
        Node::raw(tag, data)
    }
}

/// Count, size, key entries, value entries, keys, values; `None` where the offsets need more than their width.
fn encode_container(keys: &[&[u8]], object: bool, values: &[(u8, Cow<'_, [u8]>)], large: bool) -> Option<Vec<u8>> {
    let width = if large { 4 } else { 2 };
    let limit = if large { u32::MAX as usize } else { usize::from(u16::MAX) };
    let put = |out: &mut Vec<u8>, number: usize| out.extend(&(number as u64).to_le_bytes()[..width]);
    let inlined = |tag: u8| is_inlined(tag, large);
    let head = 2 * width + values.len() * (1 + width) + if object { keys.len() * (width + 2) } else { 0 };
    let keys_len: usize = keys.iter().map(|key| key.len()).sum();
    let values_len: usize = values.iter().filter(|(tag, _)| !inlined(*tag)).map(|(_, data)| data.len()).sum();
    let size = head + keys_len + values_len;
    if size > limit {
        return None;
    }
    let mut out = Vec::with_capacity(size);
    put(&mut out, values.len());
    put(&mut out, size);
    let mut offset = head;
    for key in keys {
        put(&mut out, offset);
        out.extend(u16::try_from(key.len()).ok()?.to_le_bytes());
        offset += key.len();
    }
    for (tag, data) in values {
        out.push(*tag);
        if inlined(*tag) {
            let mut entry = [0u8; 4];
            entry.get_mut(..data.len())?.copy_from_slice(data);
            out.extend(&entry[..width]);
        } else {
            put(&mut out, offset);
            offset += data.len();
        }
    }
    keys.iter().for_each(|key| out.extend_from_slice(key));
    values.iter().filter(|(tag, _)| !inlined(*tag)).for_each(|(_, data)| out.extend_from_slice(data));
    Some(out)
}

/// `$.name[3]."other name"`.
fn parse_path(path: &[u8]) -> Option<Vec<Leg>> {
    let text = std::str::from_utf8(path).ok()?;
    let mut rest = text.strip_prefix('$')?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(index) = rest.strip_prefix('[') {
            let (number, tail) = index.split_once(']')?;
            legs.push(Leg::Index(number.trim().parse().ok()?));
            rest = tail;
        } else if let Some(quoted) = rest.strip_prefix(".\"") {
            let end = end_of_quoted(quoted)?;
            let json = &rest[1..end + 3];
            legs.push(Leg::Key(serde_json::from_str::<String>(json).ok()?.into_bytes()));
            rest = &quoted[end + 1..];
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            legs.push(Leg::Key(name.get(..end).filter(|name| !name.is_empty())?.as_bytes().to_vec()));
            rest = &name[end..];
        }
    }
    Some(legs)
}

/// Index of the quote that ends a quoted name, without the one that begins it.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}
