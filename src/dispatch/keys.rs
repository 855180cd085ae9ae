//! The different keys of a wave, numbered as they came.
//!
//! Rows that a source inserts nearly always come with ascending keys. As long as they do, a key is only compared with the
//! one before it, and nothing is hashed or sorted; the first that does not ascend has all of them hashed.

use std::cmp::Ordering;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

/// A key: its first eight bytes as a number, zeros behind a shorter one, and where its other bytes stand.
#[derive(Debug, Clone, Copy)]
struct Key {
    head: u64,
    len: u32,
    rest: u32,
}

/// Bytes that are in a key itself.
const HEAD: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// What is behind the heads, one key's behind the other's.
    rests: Vec<u8>,
    /// Numbers by key, once they are not in ascending order.
    by_key: HashTable<u32>,
    hashed: bool,
}

impl Keys {
    /// The number that the key has already; `None` where it is new, and has the next number now.
    pub(super) fn place(&mut self, bytes: &[u8]) -> Option<u32> {
        let (head, rest) = split(bytes);
        if !self.hashed {
            let ascends = self.keys.last().is_none_or(|&last| {
                let (last_rest, last_len) = (rest_of(&self.rests, last), last.len as usize);
                order((last.head, last_len, last_rest), (head, bytes.len(), rest)).is_lt()
            });
            if ascends {
                self.push(head, bytes.len(), rest);
                return None;
            }
            self.hash_all();
        }
        let Keys { keys, rests, by_key, .. } = self;
        let same = |&at: &u32| {
            let key = keys[at as usize];
            key.head == head && key.len as usize == bytes.len() && rest_of(rests, key) == rest
        };
        match by_key.entry(hash(head, rest), same, |&at| hash_of(keys, rests, at)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                free.insert(keys.len() as u32);
                self.push(head, bytes.len(), rest);
                None
            }
        }
    }

    /// All numbers, in the order of the keys' bytes.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let numbers = 0..self.keys.len() as u32;
        if !self.hashed {
            return numbers.collect();
        }
        let mut order_of: Vec<(u64, u32)> = self.keys.iter().map(|key| key.head).zip(numbers).collect();
        let parts = |at: u32| {
            let key = self.keys[at as usize];
            (key.head, key.len as usize, rest_of(&self.rests, key))
        };
        // The head decides nearly always.
        order_of.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| order(parts(a.1), parts(b.1))));
        order_of.into_iter().map(|(_, at)| at).collect()
    }

    fn push(&mut self, head: u64, len: usize, rest: &[u8]) {
        self.keys.push(Key { head, len: len as u32, rest: self.rests.len() as u32 });
        self.rests.extend_from_slice(rest);
    }

    fn hash_all(&mut self) {
        self.hashed = true;
        let Keys { keys, rests, by_key, .. } = self;
        by_key.reserve(2 * keys.len(), |&at| hash_of(keys, rests, at));
        for at in 0..keys.len() as u32 {
            by_key.insert_unique(hash_of(keys, rests, at), at, |&at| hash_of(keys, rests, at));
        }
    }
}

fn split(bytes: &[u8]) -> (u64, &[u8]) {
    if let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        return (u64::from_be_bytes(*head), rest);
    }
    let mut head = [0; HEAD];
    head[..bytes.len()].copy_from_slice(bytes);
    (u64::from_be_bytes(head), &[])
}

fn rest_of(rests: &[u8], key: Key) -> &[u8] {
    let len = (key.len as usize).saturating_sub(HEAD);
    &rests[key.rest as usize..key.rest as usize + len]
}

/// Keys as (head, length, rest) in the order of their bytes: of those with one head a shorter one is the longer's beginning.
fn order(a: (u64, usize, &[u8]), b: (u64, usize, &[u8])) -> Ordering {
    a.0.cmp(&b.0).then_with(|| a.1.min(HEAD).cmp(&b.1.min(HEAD))).then_with(|| a.2.cmp(b.2))
}

fn hash_of(keys: &[Key], rests: &[u8], at: u32) -> u64 {
    let key = keys[at as usize];
    hash(key.head, rest_of(rests, key))
}

fn hash(head: u64, rest: &[u8]) -> u64 {
    let head = xxh3_64(&head.to_ne_bytes());
    if rest.is_empty() { head } else { head ^ xxh3_64(rest).rotate_left(1) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few different bytes, of lengths around the head's, so that keys meet, begin alike, and differ in zeros only.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(0..2u8, 0..12),
            (0..20u64).prop_map(|number| number.to_be_bytes().to_vec()),
            (0..2usize, 0..4u8).prop_map(|(len, last)| [vec![7; HEAD - 1 + len], vec![last]].concat()),
        ]
    }

    proptest! {
        #[test]
        fn numbers_keys_as_they_come_and_orders_them_by_their_bytes(
            mut all in prop::collection::vec(key(), 0..60),
            sorted in 0..60usize,
        ) {
            // Some begin in order.
            let sorted = sorted.min(all.len());
            all[..sorted].sort();
            let (mut keys, mut model) = (Keys::default(), HashMap::new());
            for key in &all {
                let next = model.len() as u32;
                let known = model.get(key).copied();
                prop_assert_eq!(keys.place(key), known);
                model.entry(key.clone()).or_insert(next);
            }
            let mut wanted: Vec<(Vec<u8>, u32)> = model.into_iter().collect();
            wanted.sort();
            prop_assert_eq!(keys.in_order(), wanted.into_iter().map(|(_, at)| at).collect::<Vec<_>>());
        }
    }
}
