//! GTIDs and sets of them, for both flavours.
//!
//! MySQL: `uuid:1-5:7,uuid2:tag:1-3`, a set of intervals for each source UUID and tag. MariaDB: `0-1-100,1-2-7`, the last
//! GTID of each domain, which stands for everything before it. Sets only ever grow while a stream is read, by the usual
//! step nearly always; each transaction's location has a set, and most are never looked at: so both are cheap.

mod error;
mod mariadb;
mod mysql;

use std::fmt;
use std::str::FromStr;

pub use error::GtidParseError;
pub use mariadb::{MariaGtid, MariaGtidSet};
pub use mysql::{MysqlGtid, MysqlGtidSet};

use super::Flavor;

/// One transaction's identity.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Gtid {
    /// MySQL's.
    MySql(MysqlGtid),
    /// MariaDB's.
    MariaDb(MariaGtid),
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
            GtidSet::MySql(set) => set.is_empty(),
            GtidSet::MariaDb(set) => set.iter().next().is_none(),
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
            (GtidSet::MariaDb(set), GtidSet::MariaDb(other)) => other.iter().for_each(|gtid| set.add(gtid)),
            _ => {}
        }
    }

    /// Whether every transaction of `other` is in here.
    pub fn contains(&self, other: &GtidSet) -> bool {
        match (self, other) {
            (GtidSet::MySql(set), GtidSet::MySql(other)) => set.contains(other),
            (GtidSet::MariaDb(set), GtidSet::MariaDb(other)) => other.iter().all(|gtid| set.contains_gtid(&gtid)),
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

#[cfg(test)]
mod tests {
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
}
