//! GTIDs and sets of them, for both flavours.
//!
//! MySQL: `uuid:1-5:7,uuid2:tag:1-3`, a set of intervals for each source UUID and tag. MariaDB: `0-1-100,1-2-7`, the last
//! GTID of each domain, which stands for everything before it. Sets only ever grow while a stream is read, and the
//! usual step, the next number of the last interval, costs no allocation, and none either where copies share what is in
//! them: each transaction's location has a set, and most are never looked at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use super::Flavor;

/// A text that is no GTID set of the flavour asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {flavor} GTID set: {reason}")]
pub struct GtidParseError {
    /// The part that was not understood.
    pub text: String,
    /// `mysql` or `mariadb`.
    pub flavor: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// One transaction's identity.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Gtid {
    /// MySQL's.
    MySql(MysqlGtid),
    /// MariaDB's.
    MariaDb(MariaGtid),
}

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

/// `domain-server-sequence`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MariaGtid {
    /// Replication domain.
    pub domain: u32,
    /// Server that committed it.
    pub server: u32,
    /// Sequence number in the domain.
    pub sequence: u64,
}

impl Gtid {
    /// Parses one GTID as it prints.
    pub fn parse(flavor: Flavor, text: &str) -> Result<Self, GtidParseError> {
        let one = match GtidSet::parse(flavor, text)? {
            GtidSet::MySql(set) => {
                let mut all = set.iter();
                match (all.next(), all.next()) {
                    (Some((sid, tag, ranges)), None) => match ranges[..] {
                        [(number, end)] if end - number == 1 => Some(Gtid::MySql(MysqlGtid { sid, tag, number })),
                        _ => None,
                    },
                    _ => None,
                }
            }
            GtidSet::MariaDb(set) => {
                let mut all = set.iter();
                all.next().filter(|_| all.next().is_none()).map(Gtid::MariaDb)
            }
        };
        one.ok_or_else(|| GtidParseError {
            text: text.to_owned(),
            flavor: flavor.as_str(),
            reason: "expected one GTID",
        })
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql(g) if g.tag.is_empty() => write!(f, "{}:{}", g.sid, g.number),
            Gtid::MySql(g) => write!(f, "{}:{}:{}", g.sid, g.tag, g.number),
            Gtid::MariaDb(g) => write!(f, "{}-{}-{}", g.domain, g.server, g.sequence),
        }
    }
}

/// Everything executed up to some point, in the dialect of one flavour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GtidSet {
    /// MySQL's.
    MySql(MysqlGtidSet),
    /// MariaDB's.
    MariaDb(MariaGtidSet),
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

/// The last GTID of each domain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MariaGtidSet {
    domains: Arc<BTreeMap<u32, MariaGtid>>,
}

impl GtidSet {
    /// The set of nothing.
    pub fn empty(flavor: Flavor) -> Self {
        match flavor {
            Flavor::MySql => GtidSet::MySql(MysqlGtidSet::default()),
            Flavor::MariaDb => GtidSet::MariaDb(MariaGtidSet::default()),
        }
    }

    /// Parses a set as the servers and DM print it: parts joined by commas, white space between them ignored.
    pub fn parse(flavor: Flavor, text: &str) -> Result<Self, GtidParseError> {
        match flavor {
            Flavor::MySql => MysqlGtidSet::from_str(text).map(GtidSet::MySql),
            Flavor::MariaDb => MariaGtidSet::from_str(text).map(GtidSet::MariaDb),
        }
    }

    /// The flavour this set is of.
    pub fn flavor(&self) -> Flavor {
        match self {
            GtidSet::MySql(_) => Flavor::MySql,
            GtidSet::MariaDb(_) => Flavor::MariaDb,
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        match self {
            GtidSet::MySql(set) => set.sids.is_empty(),
            GtidSet::MariaDb(set) => set.domains.is_empty(),
        }
    }

    /// Takes one more transaction in. A GTID of the other flavour is ignored: one stream never has both.
    pub fn add(&mut self, gtid: &Gtid) {
        match (self, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => set.add(gtid),
            (GtidSet::MariaDb(set), Gtid::MariaDb(gtid)) => set.add(*gtid),
            _ => {}
        }
    }

    /// Takes all of `other` in.
    pub fn extend(&mut self, other: &GtidSet) {
        match (self, other) {
            (GtidSet::MySql(set), GtidSet::MySql(other)) => set.extend(other),
            (GtidSet::MariaDb(set), GtidSet::MariaDb(other)) => {
                other.domains.values().for_each(|gtid| set.add(*gtid));
            }
            _ => {}
        }
    }

    /// Whether every transaction of `other` is in here.
    pub fn contains(&self, other: &GtidSet) -> bool {
        match (self, other) {
            (GtidSet::MySql(set), GtidSet::MySql(other)) => set.contains(other),
            (GtidSet::MariaDb(set), GtidSet::MariaDb(other)) => {
                other.domains.values().all(|gtid| set.contains_gtid(gtid))
            }
            (_, other) => other.is_empty(),
        }
    }

    /// Whether one transaction is in here.
    pub fn contains_gtid(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => set.contains_gtid(gtid),
            (GtidSet::MariaDb(set), Gtid::MariaDb(gtid)) => set.contains_gtid(gtid),
            _ => false,
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GtidSet::MySql(set) => set.fmt(f),
            GtidSet::MariaDb(set) => set.fmt(f),
        }
    }
}

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

    /// All ranges as `(sid, tag, [(start, end exclusive)])`, sorted by UUID and tag.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, String, Vec<(u64, u64)>)> {
        self.all().into_owned().into_iter().map(|((sid, tag), ranges)| (sid, tag, ranges.0))
    }

    fn extend(&mut self, other: &MysqlGtidSet) {
        for (sid, tag, ranges) in other.iter() {
            ranges.iter().for_each(|&(start, end)| self.add_range(sid, &tag, start, end));
        }
    }

    fn contains(&self, other: &MysqlGtidSet) -> bool {
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
    sids.binary_search_by(|((other, other_tag), _)| other.cmp(&sid).then_with(|| other_tag.as_str().cmp(tag)))
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

impl MariaGtidSet {
    /// Takes one transaction, and with it all before it in its domain.
    pub fn add(&mut self, gtid: MariaGtid) {
        let last = Arc::make_mut(&mut self.domains).entry(gtid.domain).or_insert(gtid);
        if gtid.sequence >= last.sequence {
            *last = gtid;
        }
    }

    /// Whether one transaction is at or before the last of its domain.
    pub fn contains_gtid(&self, gtid: &MariaGtid) -> bool {
        self.domains.get(&gtid.domain).is_some_and(|last| gtid.sequence <= last.sequence)
    }

    /// The last GTID of each domain, by domain.
    pub fn iter(&self) -> impl Iterator<Item = MariaGtid> {
        self.domains.values().copied()
    }
}

impl fmt::Display for MariaGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}-{}", gtid.domain, gtid.server, gtid.sequence)?;
        }
        Ok(())
    }
}

impl FromStr for MariaGtidSet {
    type Err = GtidParseError;

    fn from_str(text: &str) -> Result<Self, GtidParseError> {
        let mut set = MariaGtidSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let error = || GtidParseError {
                text: part.to_owned(),
                flavor: "mariadb",
                reason: "expected domain-server-sequence",
            };
            let mut words = part.split('-');
            let mut next = || words.next().ok_or_else(error);
            let domain = next()?.parse().map_err(|_| error())?;
            let server = next()?.parse().map_err(|_| error())?;
            let sequence = next()?.parse().map_err(|_| error())?;
            if words.next().is_some() {
                return Err(error());
            }
            set.add(MariaGtid { domain, server, sequence });
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
    const B: &str = "9688d8a4-e680-11f1-97c9-4b29ec27fc7c";

    fn mysql(text: &str) -> GtidSet {
        GtidSet::parse(Flavor::MySql, text).unwrap()
    }

    #[test]
    fn prints_as_the_server_does() {
        for text in [
            String::new(),
            format!("{A}:1-115"),
            format!("{A}:1-3:5:7-9,{B}:1"),
            format!("{A}:1-328:mytag:1"),
            format!("{A}:mytag:1-4:9"),
        ] {
            assert_eq!(mysql(&text).to_string(), text);
        }
        assert_eq!(mysql(&format!(" {B}:4-5:1-3 ,\n{A}:1 ")).to_string(), format!("{A}:1,{B}:1-5"));
        let maria = GtidSet::parse(Flavor::MariaDb, "1-2-7,0-1-100").unwrap();
        assert_eq!(maria.to_string(), "0-1-100,1-2-7");
    }

    #[test]
    fn one_gtid_comes_back() {
        let uuid = "9231c604-e680-11f1-ab28-628677c36cd1";
        for text in [format!("{uuid}:7"), format!("{uuid}:tag:7")] {
            assert_eq!(Gtid::parse(Flavor::MySql, &text).unwrap().to_string(), text);
        }
        assert_eq!(Gtid::parse(Flavor::MariaDb, "0-1-7").unwrap().to_string(), "0-1-7");
        for text in ["", &format!("{uuid}:1-2"), &format!("{uuid}:1:3"), "x"] {
            assert!(Gtid::parse(Flavor::MySql, text).is_err(), "{text:?} was accepted");
        }
        assert!(Gtid::parse(Flavor::MariaDb, "0-1-7,1-1-8").is_err());
    }

    #[test]
    fn refuses_what_is_no_set() {
        for text in ["x", A, &format!("{A}:0-3"), &format!("{A}:5-4"), &format!("{A}:1-"), &format!("{A}:t")] {
            assert!(GtidSet::parse(Flavor::MySql, text).is_err(), "{text:?} was accepted");
        }
        for text in ["0-1", "0-1-2-3", "a-1-2"] {
            assert!(GtidSet::parse(Flavor::MariaDb, text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn zero_stands_for_nothing() {
        assert_eq!(mysql(&format!("{A}:0")), GtidSet::empty(Flavor::MySql));
        assert_eq!(mysql(&format!("{A}:0,{B}:1-2")), mysql(&format!("{B}:1-2")));
    }

    #[test]
    fn tags_are_sources_of_their_own() {
        assert!(!mysql(&format!("{A}:1-9")).contains(&mysql(&format!("{A}:t:1"))));
        assert!(mysql(&format!("{A}:1-9:t:1-2")).contains(&mysql(&format!("{A}:t:2"))));
    }

    #[test]
    fn mariadb_last_of_a_domain_stands_for_all_before() {
        let set = GtidSet::parse(Flavor::MariaDb, "0-1-100").unwrap();
        let gtid = |domain, sequence| Gtid::MariaDb(MariaGtid { domain, server: 9, sequence });
        assert!(set.contains_gtid(&gtid(0, 100)) && set.contains_gtid(&gtid(0, 3)));
        assert!(!set.contains_gtid(&gtid(0, 101)) && !set.contains_gtid(&gtid(1, 1)));
    }

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
