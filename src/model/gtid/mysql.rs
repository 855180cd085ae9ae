//! MySQL's sets: intervals for each source UUID and tag. The usual step, the next number of the last interval, costs no
//! allocation, and none either where copies share what is in them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use super::error::GtidParseError;

/// `uuid[:tag]:number`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MysqlGtid {
    /// Server that committed it first.
    pub sid: Uuid,
    /// Tag (MySQL 8.3 and later), lower case; empty for none.
    pub tag: String,
    /// Number, from 1.
    pub number: u64,
}

/// Intervals for each UUID and tag.
#[derive(Clone, Debug, Default)]
pub struct MysqlGtidSet {
    sids: Arc<Sids>,
    /// What the set has beyond `sids`, while others share that.
    ahead: Ahead,
}

/// Sorted by UUID and tag.
type Sids = Vec<Source>;
type Source = ((Uuid, String), Intervals);

/// So many numbers behind the last ones of the source in this place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ahead {
    place: u32,
    count: u32,
}

/// Sorted, disjoint, non-adjacent half-open ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Intervals(Vec<(u64, u64)>);

impl MysqlGtidSet {
    /// Takes one transaction in.
    pub fn add(&mut self, gtid: &MysqlGtid) {
        self.add_range(gtid.sid, &gtid.tag, gtid.number, gtid.number + 1);
    }

    /// Takes the numbers `start..end` of a source in.
    pub fn add_range(&mut self, sid: Uuid, tag: &str, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let found = place(&self.sids, sid, tag);
        if found.is_ok_and(|place| self.step(place, start, end)) {
            return;
        }
        if self.ahead.count > 0 {
            self.sids = Arc::new(self.all().into_owned());
            self.ahead = Ahead::default();
        }
        let sids = Arc::make_mut(&mut self.sids);
        let place = found.unwrap_or_else(|place| {
            sids.insert(place, ((sid, tag.to_owned()), Intervals::default()));
            place
        });
        sids[place].1.add(start, end);
    }

    /// The usual step. False where it is none.
    fn step(&mut self, at: usize, start: u64, end: u64) -> bool {
        let Ahead { place, count } = self.ahead;
        let last = self.sids[at].1.last_end();
        let here = count == 0 || place as usize == at;
        if !here || last.is_none_or(|last| last + u64::from(count) != start) {
            return false;
        }
        if count == 0
            && let Some(sids) = Arc::get_mut(&mut self.sids)
        {
            sids[at].1.add(start, end);
            return true;
        }
        let more = u32::try_from(end - start).ok().and_then(|more| count.checked_add(more));
        let (Some(count), Ok(place)) = (more, u32::try_from(at)) else { return false };
        self.ahead = Ahead { place, count };
        true
    }

    /// Everything that is in it.
    fn all(&self) -> Cow<'_, Sids> {
        let Ahead { place, count } = self.ahead;
        if count == 0 {
            return Cow::Borrowed(&self.sids);
        }
        let mut all = Sids::clone(&self.sids);
        if let Some((_, ranges)) = all.get_mut(place as usize)
            && let Some(last) = ranges.last_end()
        {
            ranges.add(last, last + u64::from(count));
        }
        Cow::Owned(all)
    }

    /// Whether one transaction is in here.
    pub fn contains_gtid(&self, gtid: &MysqlGtid) -> bool {
        let Ok(at) = place(&self.sids, gtid.sid, &gtid.tag) else { return false };
        let ranges = &self.sids[at].1;
        let Ahead { place, count } = self.ahead;
        let ahead = if place as usize == at { u64::from(count) } else { 0 };
        let is_ahead = |last: u64| (last..last + ahead).contains(&gtid.number);
        ranges.last_end().is_some_and(is_ahead) || ranges.contains(gtid.number, gtid.number + 1)
    }

    /// What of it is of one source.
    pub fn of(&self, sid: Uuid) -> MysqlGtidSet {
        let of_it = self.all().iter().filter(|((other, _), _)| *other == sid).cloned().collect();
        MysqlGtidSet { sids: Arc::new(of_it), ahead: Ahead::default() }
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.sids.is_empty()
    }

    /// All ranges as `(sid, tag, [(start, end exclusive)])`, sorted by UUID and tag.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, String, Vec<(u64, u64)>)> {
        self.all().into_owned().into_iter().map(|((sid, tag), ranges)| (sid, tag, ranges.0))
    }

    pub(super) fn extend(&mut self, other: &MysqlGtidSet) {
        for (sid, tag, ranges) in other.iter() {
            ranges.iter().for_each(|&(start, end)| self.add_range(sid, &tag, start, end));
        }
    }

    pub(super) fn contains(&self, other: &MysqlGtidSet) -> bool {
        let mine = self.all();
        other.all().iter().all(|((sid, tag), ranges)| {
            let found = place(&mine, *sid, tag).map(|place| &mine[place].1);
            found.is_ok_and(|mine| ranges.0.iter().all(|&(start, end)| mine.contains(start, end)))
        })
    }
}

impl PartialEq for MysqlGtidSet {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.sids, &other.sids) && self.ahead == other.ahead) || self.all() == other.all()
    }
}

impl Eq for MysqlGtidSet {}

/// Where the source's ranges are, or where they would be.
fn place(sids: &[Source], sid: Uuid, tag: &str) -> Result<usize, usize> {
    let number = sid.as_u128();
    sids.binary_search_by(|((other, other_tag), _)| {
        other.as_u128().cmp(&number).then_with(|| match (other_tag.is_empty(), tag.is_empty()) {
            // The usual case. The bytes of an empty text lie nowhere, and a processor that is made to compare such takes 100 ns.
            (true, true) => Ordering::Equal,
            _ => other_tag.as_str().cmp(tag),
        })
    })
}

impl Intervals {
    fn last_end(&self) -> Option<u64> {
        self.0.last().map(|(_, end)| *end)
    }

    fn add(&mut self, start: u64, end: u64) {
        match self.0.last_mut() {
            Some(last) if start == last.1 => return last.1 = end,
            Some(last) if start > last.1 => return self.0.push((start, end)),
            None => return self.0.push((start, end)),
            Some(_) => {}
        }
        // The rare case: out of order. Everything that touches the new range melts into it.
        let from = self.0.partition_point(|range| range.1 < start);
        let to = self.0.partition_point(|range| range.0 <= end);
        let merged = self.0[from..to].iter().fold((start, end), |all, range| (all.0.min(range.0), all.1.max(range.1)));
        self.0.splice(from..to, [merged]);
    }

    fn contains(&self, start: u64, end: u64) -> bool {
        let at = self.0.partition_point(|range| range.1 < end);
        self.0.get(at).is_some_and(|range| range.0 <= start && end <= range.1)
    }
}

impl fmt::Display for MysqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last_sid = None;
        for ((sid, tag), ranges) in self.all().iter() {
            if last_sid != Some(*sid) {
                let comma = if last_sid.is_some() { "," } else { "" };
                write!(f, "{comma}{sid}")?;
                last_sid = Some(*sid);
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for &(start, end) in &ranges.0 {
                match end - start {
                    1 => write!(f, ":{start}")?,
                    _ => write!(f, ":{start}-{}", end - 1)?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for MysqlGtidSet {
    type Err = GtidParseError;

    fn from_str(text: &str) -> Result<Self, GtidParseError> {
        let mut set = MysqlGtidSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let error = |reason| GtidParseError { text: part.to_owned(), flavor: "mysql", reason };
            let mut words = part.split(':').map(str::trim);
            let sid = words.next().unwrap_or_default();
            let sid = Uuid::parse_str(sid).map_err(|_| error("it must begin with a server UUID"))?;
            let mut tag = String::new();
            let mut ranges = 0;
            for word in words {
                if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = word.to_ascii_lowercase();
                    continue;
                }
                let (start, end) = word.split_once('-').unwrap_or((word, word));
                let number = |text: &str| text.trim().parse::<u64>().map_err(|_| error("a range must be N or N-M"));
                let (start, end) = (number(start)?, number(end)?);
                if (start, end) == (0, 0) {
                    // Written by hand for a server that nothing was seen of.
                    ranges += 1;
                    continue;
                }
                if start == 0 || end < start || end == u64::MAX {
                    return Err(error("a range must begin at 1 or later and not end before it begins"));
                }
                set.add_range(sid, &tag, start, end + 1);
                ranges += 1;
            }
            if ranges == 0 {
                return Err(error("no range follows the UUID"));
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "9231c604-e680-11f1-ab28-628677c36cd1";

    proptest! {
        #[test]
        fn agrees_with_a_plain_set_of_numbers(
            ranges in prop::collection::vec((1u64..60, 1u64..9), 0..25),
            others in prop::collection::vec((1u64..60, 1u64..9), 0..6),
            // How often copies are there that share what is in the set, and ranges follow the one before.
            shared in prop::collection::vec(prop::bool::weighted(0.7), 25),
            follows in prop::collection::vec(prop::bool::weighted(0.6), 25),
        ) {
            let sid = Uuid::parse_str(A).unwrap();
            let build = |ranges: &[(u64, u64)]| {
                let (mut set, mut plain) = (MysqlGtidSet::default(), BTreeSet::new());
                let (mut copies, mut last) = (Vec::new(), 1);
                for (at, &(start, len)) in ranges.iter().enumerate() {
                    let start = if follows[at] && last < 60 { last } else { start };
                    last = start + len;
                    if shared[at] {
                        copies.push((set.clone(), set.to_string()));
                    }
                    set.add_range(sid, "", start, start + len);
                    plain.extend(start..start + len);
                }
                assert!(copies.iter().all(|(copy, text)| copy.to_string() == *text), "a copy has grown with the set");
                (set, plain)
            };
            let (set, plain) = build(&ranges);
            let (other, other_plain) = build(&others);
            for number in 1..80 {
                let gtid = MysqlGtid { sid, tag: String::new(), number };
                prop_assert_eq!(set.contains_gtid(&gtid), plain.contains(&number));
            }
            prop_assert_eq!(set.contains(&other), plain.is_superset(&other_plain));
            prop_assert_eq!(MysqlGtidSet::from_str(&set.to_string()).unwrap(), set);
        }
    }
}
