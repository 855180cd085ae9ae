//! The rows of the tables, and their conversion to locations.

use serde::{Deserialize, Serialize};

use crate::model::{BinlogFile, BinlogPosition, Flavor, Gtid, GtidSet, Location, RowMark, RowOrdinal};

/// The lane number under which the copy of DM's row is kept.
pub const SHADOW_LANE: i32 = -1;

/// A [`RowMark`] as it is stored: file, offset, GTID set, ordinal, and what the open transaction is known by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredMark {
    /// `binlog_name`.
    pub file: String,
    /// `binlog_pos`.
    pub offset: u64,
    /// `binlog_gtid`.
    pub gtids: String,
    /// `row_ordinal`.
    pub ordinal: u64,
    /// `open_gtid`: the open transaction's GTID (empty for none), and behind a `#` the mark's proof in hexadecimal. One
    /// without a proof, as earlier versions wrote it, does not hold: the transaction is applied again in safe mode.
    #[serde(default)]
    pub open: String,
}

impl From<&RowMark> for StoredMark {
    fn from(mark: &RowMark) -> Self {
        StoredMark {
            file: mark.location.position.file.name().to_owned(),
            offset: mark.location.position.offset,
            gtids: mark.location.gtids.to_string(),
            ordinal: mark.next.0,
            open: open_text(mark),
        }
    }
}

/// Between the open transaction's GTID and the proof: a character that no GTID has.
pub(super) const PROOF: char = '#';

fn open_text(mark: &RowMark) -> String {
    let gtid = mark.open.as_ref().map(Gtid::to_string).unwrap_or_default();
    match mark.proof {
        Some(proof) => format!("{gtid}{PROOF}{proof:016x}"),
        None => gtid,
    }
}

impl StoredMark {
    /// No place.
    pub fn none() -> Self {
        StoredMark::default()
    }

    /// A transaction boundary.
    pub fn boundary(file: String, offset: u64, gtids: String) -> Self {
        StoredMark { file, offset, gtids, ..StoredMark::default() }
    }

    /// Back to a mark; the text says which stored column does not parse.
    pub fn to_mark(&self, flavor: Flavor) -> Result<RowMark, String> {
        let file = if self.file.is_empty() {
            BinlogFile::unknown()
        } else {
            BinlogFile::parse(&self.file).map_err(|error| format!("binlog_name: {error}"))?
        };
        let gtids = GtidSet::parse(flavor, &self.gtids).map_err(|error| format!("binlog_gtid: {error}"))?;
        let location = Location::new(BinlogPosition::new(file, self.offset), gtids);
        let (gtid, proof) = match self.open.split_once(PROOF) {
            Some((gtid, proof)) => {
                let number = u64::from_str_radix(proof, 16);
                (gtid, Some(number.map_err(|error| format!("open_gtid: '{proof}' is no proof: {error}"))?))
            }
            None => (self.open.as_str(), None),
        };
        let open = match gtid {
            "" => None,
            gtid => Some(Gtid::parse(flavor, gtid).map_err(|error| format!("open_gtid: {error}"))?),
        };
        Ok(RowMark { location, next: RowOrdinal(self.ordinal), open, proof })
    }
}

/// One lane's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRow {
    /// Lane number, or [`SHADOW_LANE`].
    pub lane: i32,
    /// Number of lanes when it was written.
    pub lanes: u32,
    /// Owner's epoch.
    pub epoch: u64,
    /// How far the lane is.
    pub mark: StoredMark,
}

/// DM's global checkpoint row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmRow {
    /// Where everything before is done.
    pub location: StoredMark,
    /// DM's safe-mode exit point: file, offset, GTID set; an empty file for none. Equal to the location, it says that a
    /// restart there is exact.
    pub exit_safe: StoredMark,
}

/// Offsets beyond this do not fit into DM's columns, which are `INT UNSIGNED`.
const DM_LIMIT: u64 = u32::MAX as u64;

impl DmRow {
    /// Whether DM's row can say this place. A binlog file grows beyond 4 GiB by one large transaction; until the next file
    /// begins, behind it, the row stays where it was. DM's own worker wraps around there.
    pub fn can_say(location: &Location) -> bool {
        location.position.offset <= DM_LIMIT
    }

    /// A row that says: exactly here.
    pub fn exact(location: &Location) -> Self {
        let location = StoredMark::from(&RowMark::at(location.clone()));
        DmRow { exit_safe: location.clone(), location }
    }

    /// A row that says: at least here, perhaps more was applied.
    pub fn running(location: &Location) -> Self {
        let location = StoredMark::from(&RowMark::at(location.clone()));
        DmRow { location, exit_safe: StoredMark::none() }
    }

    /// Both marks in one text, to be kept in the shadow row and compared.
    pub fn fingerprint(&self) -> String {
        let part = |mark: &StoredMark| format!("{}:{}:{}", mark.file, mark.offset, mark.gtids);
        format!("{}|{}", part(&self.location), part(&self.exit_safe))
    }
}

/// Kept in the shadow row: whether a restart from DM's row must replay in safe mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SafeNote {
    /// No.
    None,
    /// Up to the row's exit-safe point.
    UntilExitSafe,
    /// For a while: nobody knows how far another worker had come.
    Unknown,
}

impl SafeNote {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            SafeNote::None => "",
            SafeNote::UntilExitSafe => "safe-until-exit",
            SafeNote::Unknown => "safe-unknown",
        }
    }

    /// From what was stored; anything unknown counts as the safest.
    pub fn parse(text: &str) -> Self {
        match text {
            "" => SafeNote::None,
            "safe-until-exit" => SafeNote::UntilExitSafe,
            _ => SafeNote::Unknown,
        }
    }
}

/// A DDL statement that was about to run, or that the downstream refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdlIntent {
    /// Start of its transaction.
    pub mark: StoredMark,
    /// Number of the statement in its plan.
    pub step: u32,
    /// What its tables looked like before it ran; empty where it was refused, and so is not at work.
    pub fingerprint: String,
    /// What its tables looked like when it was refused first; `None` where it was not.
    #[serde(default)]
    pub refused: Option<String>,
    /// The statement's text, or its beginning; empty where an earlier version stored none.
    #[serde(default)]
    pub statement: String,
}

impl DdlIntent {
    /// Characters of a statement that are kept.
    const KEPT: usize = 16 << 10;

    /// What is kept of a statement.
    pub fn beginning(statement: &str) -> String {
        statement.chars().take(Self::KEPT).collect()
    }

    /// Whether it is of this statement: an operator may have ordered another one in its place meanwhile.
    pub fn is_of(&self, statement: &str) -> bool {
        self.statement.is_empty() || self.statement == Self::beginning(statement)
    }

    /// Whether it may have run: nobody was told how it ended.
    pub fn was_at_work(&self) -> bool {
        !(self.fingerprint.is_empty() && self.refused.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_inside_a_transaction_comes_back_with_its_gtid() {
        for (flavor, set, open) in [
            (Flavor::MySql, "9231c604-e680-11f1-ab28-628677c36cd1:1-6", "9231c604-e680-11f1-ab28-628677c36cd1:7"),
            (Flavor::MariaDb, "0-1-6", "0-1-7"),
        ] {
            let location =
                Location::new(BinlogPosition::parse("bin.000001", 900).unwrap(), GtidSet::parse(flavor, set).unwrap());
            let open = Some(Gtid::parse(flavor, open).unwrap());
            for (open, proof) in [(open.clone(), Some(0xfeed)), (open, None), (None, Some(u64::MAX)), (None, None)] {
                let mark = RowMark { location: location.clone(), next: RowOrdinal(7), open, proof };
                assert_eq!(StoredMark::from(&mark).to_mark(flavor), Ok(mark));
            }
        }
    }

    #[test]
    fn a_proof_that_is_none_is_an_error_and_not_a_mark_without_one() {
        let mark = StoredMark { open: "#soon".into(), ordinal: 7, ..StoredMark::none() };
        assert!(mark.to_mark(Flavor::MySql).unwrap_err().contains("'soon'"));
    }

    #[test]
    fn records_of_earlier_versions_load() {
        let old = r#"{"file": "bin.000001", "offset": 900, "gtids": "", "ordinal": 12884901895}"#;
        let mark = serde_json::from_str::<StoredMark>(old).unwrap().to_mark(Flavor::MySql).unwrap();
        // It counted otherwise, and has no proof: it only says that something is done.
        assert_eq!((mark.is_inside(), mark.open, mark.proof), (true, None, None));
    }

    #[test]
    fn dms_row_cannot_say_a_place_beyond_4_gib() {
        let at =
            |offset| Location::new(BinlogPosition::parse("bin.000001", offset).unwrap(), GtidSet::empty(Flavor::MySql));
        assert!(DmRow::can_say(&at(0xffff_ffff)));
        assert!(!DmRow::can_say(&at(0x1_0000_0000)));
    }
}
