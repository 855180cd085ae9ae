//! MariaDB's sets: the last GTID of each domain, which stands for everything before it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::error::GtidParseError;

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

/// The last GTID of each domain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MariaGtidSet {
    domains: Arc<BTreeMap<u32, MariaGtid>>,
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
