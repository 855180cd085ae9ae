//! Where in a source's history something stands, and how far each stage of the flow has come.
//!
//! A [`Location`] is always the end of a complete source transaction, or the start of the stream. The stages each have
//! a type of their own around it ([`Received`], [`Relayed`], [`Dispatched`], [`Applied`], [`Checkpointed`]), so that a
//! location that was only received cannot be stored as one that was applied.

use std::fmt;

use super::{BinlogPosition, Gtid, GtidSet};

/// Which dialect of the replication protocol a source speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flavor {
    /// MySQL 5.7 and later, Percona Server.
    MySql,
    /// MariaDB 10.4 and later.
    MariaDb,
}

impl Flavor {
    /// The word DM's configuration uses: `mysql` or `mariadb`.
    pub fn as_str(self) -> &'static str {
        match self {
            Flavor::MySql => "mysql",
            Flavor::MariaDb => "mariadb",
        }
    }
}

/// The end of a complete source transaction: its position, and all GTIDs up to there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// File and offset on the source.
    pub position: BinlogPosition,
    /// Everything executed up to here; empty where the source has no GTIDs.
    pub gtids: GtidSet,
}

impl Location {
    /// Joins the two.
    pub fn new(position: BinlogPosition, gtids: GtidSet) -> Self {
        Location { position, gtids }
    }

    /// Whether everything up to `other` is also up to here. Positions decide on one server; where the sets show
    /// another order (the source was switched), the sets decide.
    pub fn covers(&self, other: &Location) -> bool {
        if !self.gtids.is_empty() && !other.gtids.is_empty() {
            return self.gtids.contains(&other.gtids)
                && (!other.gtids.contains(&self.gtids) || self.position >= other.position);
        }
        self.position >= other.position
    }

    /// Whether the transaction that begins at `start`, with this GTID if it has one, is up to here.
    pub fn has(&self, gtid: Option<&Gtid>, start: &BinlogPosition) -> bool {
        match gtid {
            Some(gtid) if !self.gtids.is_empty() => self.gtids.contains_gtid(gtid),
            _ => self.position > *start,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position: {}, gtid-set: {}", self.position, self.gtids)
    }
}

/// The number of a row change among those of its source transaction that the task applies, from 0 in source order.
///
/// Rows are counted, not rows events: another server of the same topology may log the same rows in other events. The
/// task's rules for names do not change inside a transaction, so that the number means the same in a replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RowOrdinal(pub u64);

impl RowOrdinal {
    /// The number behind it.
    pub fn next(self) -> Self {
        RowOrdinal(self.0.saturating_add(1))
    }

    /// Gives the number, and moves on to the next one.
    pub fn take(&mut self) -> Self {
        let taken = *self;
        *self = taken.next();
        taken
    }
}

/// A place to go on from: a location, and the first row change of the transaction behind it that is not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowMark {
    /// End of the last transaction that is done whole.
    pub location: Location,
    /// First row change not done of the next transaction; zero except where a transaction too large for one group
    /// was cut.
    pub next: RowOrdinal,
    /// GTID of that transaction, by which it is known again where files have other names. `None` at a boundary, and on a
    /// source without GTIDs.
    pub open: Option<Gtid>,
    /// Hash of the row changes before `next`. Only where the transaction comes again with these very rows in front does
    /// `next` say what is done of it. `None` at a boundary, and where it is only known that something of the transaction
    /// is done: then it must be applied once more from its start, in safe mode.
    pub proof: Option<u64>,
}

impl RowMark {
    /// A mark at a transaction boundary.
    pub fn at(location: Location) -> Self {
        RowMark { location, next: RowOrdinal::default(), open: None, proof: None }
    }

    /// Whether it lies inside a transaction.
    pub fn is_inside(&self) -> bool {
        self.next != RowOrdinal::default()
    }

    /// Whether everything up to `other` is also up to here.
    pub fn has_reached(&self, other: &RowMark) -> bool {
        let same = self.location == other.location;
        self.location.covers(&other.location) && (!same || self.next >= other.next)
    }

    /// Whether the transaction that `other` may lie in is passed whole, in whatever order its rows came.
    pub fn has_passed(&self, other: &RowMark) -> bool {
        self.has_reached(other) && (!other.is_inside() || self.location != other.location)
    }
}

macro_rules! stage_location {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name(pub Location);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

stage_location! {
    /// End of the last complete transaction that came from the source.
    Received,
    /// End of the last complete transaction that a returned flush of the relay log covers.
    Relayed,
    /// End of the last transaction handed to the lanes.
    Dispatched,
    /// End of the last transaction whose downstream COMMIT was acknowledged, on all lanes.
    Applied,
    /// The location stored so that a restart goes on from there. Never beyond [`Applied`], never going back.
    Checkpointed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64, set: &str) -> Location {
        Location::new(BinlogPosition::parse("b.000001", offset).unwrap(), GtidSet::parse(Flavor::MySql, set).unwrap())
    }

    #[test]
    fn marks_reach_by_location_and_then_by_row() {
        let mark = |offset, row| RowMark { next: RowOrdinal(row), ..RowMark::at(at(offset, "")) };
        assert!(mark(9, 0).has_reached(&mark(5, 7)) && mark(5, 7).has_reached(&mark(5, 7)));
        assert!(!mark(5, 6).has_reached(&mark(5, 7)) && !mark(5, 7).has_reached(&mark(9, 0)));
        // A number inside a transaction counts only where its rows come in the same order.
        assert!(mark(9, 0).has_passed(&mark(5, 7)) && !mark(5, 9).has_passed(&mark(5, 7)));
        assert!(mark(5, 0).has_passed(&mark(5, 0)) && mark(5, 3).has_passed(&mark(5, 0)));
    }

    #[test]
    fn covers_follows_sets_and_then_positions() {
        let uuid = "9231c604-e680-11f1-ab28-628677c36cd1";
        assert!(at(10, "").covers(&at(10, "")));
        assert!(!at(9, "").covers(&at(10, "")));
        assert!(at(5, &format!("{uuid}:1-9")).covers(&at(900, &format!("{uuid}:1-8"))));
        assert!(!at(5, &format!("{uuid}:1-8")).covers(&at(900, &format!("{uuid}:1-8"))));
    }
}
