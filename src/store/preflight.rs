//! Looks at a store's files before the engine opens them.
//!
//! Separate because the engine trusts them: where a leaf is not the one its index names, or the leaves have a gap
//! between them (a metadata log that lost its end does both), it searches forever; and its first unreadable page makes
//! every later read and write of that process fail. So each leaf is read here first, in key order, and the first one
//! that is not sound bounds what may be asked of the store. Costs one pass over the files, which stay in the page
//! cache for the reading that follows.

use std::io::Read;
use std::path::Path;

use super::StoreError;
use super::guard::guarded;

/// What a look at the files found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preflight {
    /// Every leaf is sound, or there is none yet.
    Sound,
    /// Keys from here on cannot be read.
    DamagedFrom(Vec<u8>),
}

/// The keys a leaf spans: from `low`, up to `high` (none for the last leaf).
#[derive(Debug, PartialEq, Eq)]
struct Span {
    low: Vec<u8>,
    high: Option<Vec<u8>>,
}

/// No key comes near this; a longer one is damage.
const MAX_KEY: u64 = 64 << 10;

/// Reads every leaf of the store in `path`.
pub(super) fn check(path: &Path, config: &sled::Config, fanout: usize) -> Result<Preflight, StoreError> {
    guarded("check", path, || {
        let mut recovery = sled::Heap::recover(fanout, config)?;
        let mut nodes = std::mem::take(&mut recovery.recovered_nodes);
        nodes.sort_by(|a, b| (a.collection_id, &*a.low_key).cmp(&(b.collection_id, &*b.low_key)));
        let mut expected: Option<Vec<u8>> = Some(Vec::new());
        let collection = nodes.first().map(|node| node.collection_id);
        let sound = nodes.is_empty();
        for node in nodes {
            let reached = expected.unwrap_or_else(|| node.low_key.to_vec());
            // A second collection is none of ours; it would begin with an empty low key again.
            if Some(node.collection_id) != collection || *node.low_key != *reached {
                return Ok(Preflight::DamagedFrom(reached.min(node.low_key.to_vec())));
            }
            let leaf = match recovery.heap.read(node.object_id) {
                Some(Ok(leaf)) => leaf,
                Some(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "store page unreadable");
                    return Ok(Preflight::DamagedFrom(reached));
                }
                None => return Ok(Preflight::DamagedFrom(reached)),
            };
            match span(&leaf) {
                Some(span) if span.low == reached && span.high.as_ref().is_none_or(|high| *high > span.low) => {
                    expected = span.high;
                }
                _ => return Ok(Preflight::DamagedFrom(reached)),
            }
        }
        Ok(match expected {
            Some(missing) if !sound => Preflight::DamagedFrom(missing),
            _ => Preflight::Sound,
        })
    })
}

/// The first two fields of a serialized leaf: its lowest key, and the next leaf's where there is one.
fn span(leaf: &[u8]) -> Option<Span> {
    let mut at = zstd::stream::read::Decoder::new(leaf).ok()?;
    let low = key(&mut at)?;
    let mut tag = [0u8];
    at.read_exact(&mut tag).ok()?;
    let high = match tag[0] {
        0 => None,
        1 => Some(key(&mut at)?),
        _ => return None,
    };
    Some(Span { low, high })
}

fn key(at: &mut impl Read) -> Option<Vec<u8>> {
    let mut len = [0u8; 8];
    at.read_exact(&mut len).ok()?;
    let len = u64::from_le_bytes(len);
    if len > MAX_KEY {
        return None;
    }
    let mut key = vec![0; usize::try_from(len).ok()?];
    at.read_exact(&mut key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_span_and_refuses_garbage() {
        let mut raw = 3u64.to_le_bytes().to_vec();
        raw.extend(b"abc");
        raw.push(1);
        raw.extend(1u64.to_le_bytes());
        raw.extend(b"b rest of the leaf");
        let leaf = zstd::encode_all(&raw[..], 1).unwrap();
        assert_eq!(span(&leaf), Some(Span { low: b"abc".to_vec(), high: Some(b"b".to_vec()) }));
        assert_eq!(span(&raw), None, "not compressed");
        raw[2] = 0xff;
        assert_eq!(span(&zstd::encode_all(&raw[..], 1).unwrap()), None, "a key of 16 MB");
    }
}
