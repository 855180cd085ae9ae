//! GTID sets in binary: as a dump request carries them and as the first events of a binlog file do.

use uuid::Uuid;

use super::cursor::Cursor;
use crate::model::{GtidSet, MariaGtid, MariaGtidSet, MysqlGtidSet};

/// The format byte of a MySQL set with tags (8.3 and later); it stands at both ends of the count.
const TAGGED: u64 = 1;

/// MySQL's binary form: a count of sources, then each one's UUID, tag and half-open ranges. Sets without tags take the
/// older form, which every version reads.
pub(super) fn encode_set(set: &MysqlGtidSet) -> Vec<u8> {
    let tagged = set.iter().any(|(_, tag, _)| !tag.is_empty());
    let count = set.iter().count() as u64;
    let count = if tagged { TAGGED << 56 | count << 8 | TAGGED } else { count };
    let mut bytes = count.to_le_bytes().to_vec();
    for (sid, tag, ranges) in set.iter() {
        bytes.extend_from_slice(sid.as_bytes());
        if tagged {
            // The length is an integer of variable length: below 128 one byte, shifted. Tags have at most 32 bytes.
            let tag = &tag.as_bytes()[..tag.len().min(127)];
            bytes.push((tag.len() as u8) << 1);
            bytes.extend_from_slice(tag);
        }
        bytes.extend_from_slice(&(ranges.len() as u64).to_le_bytes());
        for (start, end) in ranges {
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
    }
    bytes
}

/// Reads the body of PREVIOUS_GTIDS; `None` where it is malformed.
pub(super) fn decode_set(body: &[u8]) -> Option<GtidSet> {
    let mut cursor = Cursor::new(body);
    let head = cursor.u64()?;
    let (tagged, count) = match head >> 56 {
        0 => (false, head),
        TAGGED => (true, head << 8 >> 16),
        _ => return None,
    };
    let mut set = MysqlGtidSet::default();
    for _ in 0..count {
        let sid = Uuid::from_slice(cursor.take(16)?).ok()?;
        let tag = if tagged { decode_tag(&mut cursor)? } else { "" };
        for _ in 0..cursor.u64()? {
            let (start, end) = (cursor.u64()?, cursor.u64()?);
            if start == 0 || end <= start {
                return None;
            }
            set.add_range(sid, tag, start, end);
        }
    }
    Some(GtidSet::MySql(set))
}

fn decode_tag<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let length = cursor.u8()?;
    if length & 1 != 0 {
        // More than one byte of length: no tag is that long.
        return None;
    }
    std::str::from_utf8(cursor.take(usize::from(length >> 1))?).ok()
}

/// Reads the body of MariaDB's GTID_LIST; `None` where it is malformed.
pub(super) fn decode_list(body: &[u8]) -> Option<GtidSet> {
    let mut cursor = Cursor::new(body);
    // The upper four bits are flags.
    let count = cursor.u32()? & 0x0fff_ffff;
    let mut set = MariaGtidSet::default();
    for _ in 0..count {
        let (domain, server, sequence) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
        set.add(MariaGtid { domain, server, sequence });
    }
    Some(GtidSet::MariaDb(set))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Flavor;

    const A: &str = "9231c604-e680-11f1-ab28-628677c36cd1";

    fn mysql(text: &str) -> MysqlGtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn plain_sets_take_the_older_form_and_tags_the_newer() {
        let bytes = encode_set(&mysql(&format!("{A}:1-3:7")));
        assert_eq!(bytes[..8], 1u64.to_le_bytes());
        assert_eq!(bytes[24..32], 2u64.to_le_bytes());
        assert_eq!(bytes[32..48], [1u64.to_le_bytes(), 4u64.to_le_bytes()].concat());
        assert_eq!(bytes.len(), 64);

        let bytes = encode_set(&mysql(&format!("{A}:1-3:ab:5")));
        assert_eq!(bytes[..8], [1, 2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[24], 0);
        assert_eq!(bytes[65..68], [4, b'a', b'b']);
    }

    #[test]
    fn reads_a_mariadb_list() {
        let body = [&2u32.to_le_bytes()[..], &[0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], &[1; 16]].concat();
        let set = decode_list(&body).unwrap();
        assert_eq!(set.to_string(), "0-7-9,16843009-16843009-72340172838076673");
        assert_eq!(decode_list(&body[..30]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            parts in prop::collection::vec((any::<u128>(), "[a-z_]{0,32}", 1u64..1000, 1u64..100), 0..12),
        ) {
            let mut set = MysqlGtidSet::default();
            for (sid, tag, start, length) in parts {
                set.add_range(Uuid::from_u128(sid), &tag, start, start + length);
            }
            prop_assert_eq!(decode_set(&encode_set(&set)), Some(GtidSet::MySql(set)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (decode_set(&bytes), decode_list(&bytes));
            prop_assert_eq!(decode_list(&[0; 4]), Some(GtidSet::empty(Flavor::MariaDb)));
        }
    }
}
