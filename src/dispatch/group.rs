//! Building a group: shares, lanes, waves, and one net change a key.
//!
//! A lane is a position and the changes behind it, for ever the same ones; a share is what one connection does of one
//! group: the work of some lanes, together. So a small group costs one downstream transaction however many lanes there
//! are, and a replay after a crash may share out otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Builder;

use super::change::{Change, DispatchError, EventSpan, LaneSkip, SafeMode};
use super::key::{key_of, lane_of};
use crate::model::{RowMark, TargetTable};
use crate::row::{RowImage, RowPair};
use crate::schema::BoundTable;

/// A finished group.
#[derive(Debug)]
pub struct Group {
    /// What is to be done side by side, each in one downstream transaction. None is empty.
    pub shares: Vec<Share>,
    /// Where it begins.
    pub start: RowMark,
    /// Where everything up to it is done once all lanes are.
    pub end: RowMark,
    /// Row changes taken in, before compaction.
    pub rows: u64,
    /// Bytes of their images.
    pub bytes: usize,
    /// Complete source transactions in it.
    pub transactions: u64,
    /// The source's clock at its last commit, seconds since the epoch; 0 for unknown.
    pub timestamp: u32,
}

impl Group {
    /// Tables in it that have no transactions, with their engines.
    pub fn loose(&self) -> impl Iterator<Item = &(TargetTable, String)> {
        self.shares.iter().flat_map(|share| &share.loose)
    }
}

/// The part of a group that some lanes do together, table by table; tables do not depend on each other.
#[derive(Debug, Default)]
pub struct Share {
    /// The tables.
    pub tables: Vec<TableWork>,
    /// The lanes that changes came to, were it only such that undo each other. Their stored marks must pass them before
    /// any other group begins: a replay may cut groups elsewhere, and what undid itself here would show for a moment
    /// there, when another lane has moved a row to that key.
    pub lanes: Vec<u32>,
    /// Tables in it that have no transactions, with their engines: what is sent of their changes stays.
    pub loose: Vec<(TargetTable, String)>,
}

/// One table's part, step after step.
#[derive(Debug)]
pub struct TableWork {
    /// The table; of the first change where foreign keys force all tables into one sequence.
    pub target: TargetTable,
    /// In order.
    pub steps: Vec<Step>,
}

/// Changes that may be sent together.
#[derive(Debug)]
pub enum Step {
    /// At most one change a key: first the deletes, then the updates, then the inserts.
    Keyed {
        /// Rows that go.
        deletes: Vec<NetDelete>,
        /// Rows that change, and keep their keys.
        updates: Vec<NetUpdate>,
        /// Rows that come.
        inserts: Vec<NetInsert>,
    },
    /// Row by row in source order.
    InOrder(Vec<Change>),
}

/// A row that goes.
#[derive(Debug)]
pub struct NetDelete {
    /// Its binding.
    pub table: Arc<BoundTable>,
    /// Key bytes, to sort by.
    pub key: Vec<u8>,
    /// The row as it was.
    pub before: RowImage,
    /// Where the last change of it came from.
    pub span: Arc<EventSpan>,
}

/// A row that changes.
#[derive(Debug)]
pub struct NetUpdate {
    /// Its binding.
    pub table: Arc<BoundTable>,
    /// Key bytes, to sort by.
    pub key: Vec<u8>,
    /// The row as it was.
    pub before: RowImage,
    /// The row as it shall be; perhaps only its changed columns.
    pub after: RowImage,
    /// Where the last change of it came from.
    pub span: Arc<EventSpan>,
}

/// A row that comes.
#[derive(Debug)]
pub struct NetInsert {
    /// Its binding.
    pub table: Arc<BoundTable>,
    /// Key bytes, to sort by.
    pub key: Vec<u8>,
    /// The row.
    pub after: RowImage,
    /// Where the last change of it came from.
    pub span: Arc<EventSpan>,
}

/// The sum of the changes of one key in a wave.
#[derive(Debug)]
struct Net {
    table: Arc<BoundTable>,
    before: Option<RowImage>,
    after: Option<RowImage>,
    span: Arc<EventSpan>,
}

/// At most one net change a key.
#[derive(Debug, Default)]
struct Wave {
    nets: HashMap<Vec<u8>, Net, Xxh3Builder>,
}

#[derive(Debug)]
struct TableBuilder {
    target: TargetTable,
    steps: Vec<Step>,
    wave: Wave,
    in_order: Vec<Change>,
}

#[derive(Debug, Default)]
struct ShareBuilder {
    tables: Vec<TableBuilder>,
    lanes: BTreeSet<u32>,
    loose: BTreeMap<TargetTable, String>,
    /// From a binding's address to its table's place.
    by_binding: HashMap<usize, usize, Xxh3Builder>,
}

/// Collects changes for one group.
#[derive(Debug)]
pub struct GroupBuilder {
    lanes: usize,
    shares: Vec<ShareBuilder>,
    one_sequence: bool,
    safe: SafeMode,
    rows: u64,
    bytes: usize,
}

impl GroupBuilder {
    /// For this many lanes, in at most this many shares. `one_sequence` keeps all changes of all tables in source order on one lane, as checked
    /// foreign keys demand. `safe` is for groups applied in safe mode.
    pub fn new(lanes: usize, shares: usize, one_sequence: bool, safe: SafeMode) -> Self {
        let lanes = lanes.max(1);
        GroupBuilder {
            lanes,
            shares: (0..shares.clamp(1, lanes)).map(|_| ShareBuilder::default()).collect(),
            one_sequence,
            safe,
            rows: 0,
            bytes: 0,
        }
    }

    /// Row changes taken in so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of their images.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a change in, unless its lane has done it already. `skip` is empty or has one entry a lane.
    pub fn push(&mut self, change: Change, skip: &[LaneSkip]) -> Result<(), DispatchError> {
        self.rows += 1;
        self.bytes += change.bytes();
        if self.one_sequence || change.table.is_ordered() || change.lacks_key() {
            return self.push_in_order(change, skip);
        }
        let Some(identity) = change.table.identity.clone() else { return self.push_in_order(change, skip) };
        let key =
            |image: &Option<RowImage>| image.as_ref().map(|image| key_of(&change.table, image, &identity)).transpose();
        let before = key(&change.rows.before)?;
        // A partial image that leaves the key out leaves it unchanged.
        let after = match (&change.rows.after, &before) {
            (Some(image), Some(key)) if !has_columns(image, &identity) => Some(key.clone()),
            (image, _) => key(image)?,
        };
        let Change { table, rows: RowPair { before: old, after: new }, ordinal, span, .. } = change;
        match (before, after) {
            (Some(from), Some(to)) if from != to && is_whole(&new) => {
                let gone = Net { table: Arc::clone(&table), before: old, after: None, span: Arc::clone(&span) };
                let come = Net { table, before: None, after: new, span };
                self.push_net(from, gone, ordinal, skip)?;
                self.push_net(to, come, ordinal, skip)
            }
            (Some(key), _) | (None, Some(key)) => {
                self.push_net(key, Net { table, before: old, after: new, span }, ordinal, skip)
            }
            (None, None) => Ok(()),
        }
    }

    fn push_in_order(&mut self, change: Change, skip: &[LaneSkip]) -> Result<(), DispatchError> {
        let lane = match (self.one_sequence, change.rows.before.as_ref().or(change.rows.after.as_ref())) {
            (false, Some(image)) => lane_of(&change.table, image, self.lanes)?,
            _ => 0,
        };
        if !skip.get(lane).is_some_and(|skip| skip.covers(change.ordinal)) {
            let one_sequence = self.one_sequence;
            self.share(lane).table(&change.table, one_sequence).in_order.push(change);
        }
        Ok(())
    }

    fn push_net(
        &mut self,
        key: Vec<u8>,
        net: Net,
        ordinal: crate::model::RowOrdinal,
        skip: &[LaneSkip],
    ) -> Result<(), DispatchError> {
        let Some(image) = net.before.as_ref().or(net.after.as_ref()) else { return Ok(()) };
        let lane = lane_of(&net.table, image, self.lanes)?;
        if !skip.get(lane).is_some_and(|skip| skip.covers(ordinal)) {
            let table = Arc::clone(&net.table);
            let safe = self.safe.covers(&table);
            self.share(lane).table(&table, false).push(key, net, safe);
        }
        Ok(())
    }

    /// The share that does this lane's work, which it has from now on.
    fn share(&mut self, lane: usize) -> &mut ShareBuilder {
        let at = lane % self.shares.len();
        let share = &mut self.shares[at];
        share.lanes.insert(lane as u32);
        share
    }

    /// Ends the group.
    pub fn finish(self, start: RowMark, end: RowMark, transactions: u64, timestamp: u32) -> Group {
        let shares =
            self.shares.into_iter().filter(|share| !share.lanes.is_empty()).map(ShareBuilder::finish).collect();
        Group { shares, start, end, rows: self.rows, bytes: self.bytes, transactions, timestamp }
    }
}

impl ShareBuilder {
    /// Where a change of this table goes.
    fn table(&mut self, table: &Arc<BoundTable>, one_sequence: bool) -> &mut TableBuilder {
        if let Some(engine) = &table.loose_engine
            && !self.loose.contains_key(&table.target)
        {
            self.loose.insert(table.target.clone(), engine.clone());
        }
        if one_sequence {
            if self.tables.is_empty() {
                self.tables.push(TableBuilder::new(table.target.clone()));
            }
            return &mut self.tables[0];
        }
        let tables = &mut self.tables;
        let at = *self.by_binding.entry(Arc::as_ptr(table) as usize).or_insert_with(|| {
            // Two source tables may go to one target: their changes must meet in one place.
            tables.iter().position(|known| known.target == table.target).unwrap_or_else(|| {
                tables.push(TableBuilder::new(table.target.clone()));
                tables.len() - 1
            })
        });
        &mut self.tables[at]
    }

    fn finish(self) -> Share {
        let mut tables: Vec<TableWork> = self.tables.into_iter().filter_map(TableBuilder::finish).collect();
        // Every share goes through the tables in one order, too.
        tables.sort_by(|a, b| a.target.cmp(&b.target));
        Share { tables, lanes: self.lanes.into_iter().collect(), loose: self.loose.into_iter().collect() }
    }
}

impl TableBuilder {
    fn new(target: TargetTable) -> Self {
        TableBuilder { target, steps: Vec::new(), wave: Wave::default(), in_order: Vec::new() }
    }

    fn push(&mut self, key: Vec<u8>, net: Net, safe: bool) {
        // In safe mode each change of a key is sent: deletes and replaces, which may meet their own effect.
        let refused = match safe && self.wave.nets.contains_key(&key) {
            true => Some((key, net)),
            false => self.wave.merge(key, net),
        };
        if let Some(refused) = refused {
            let wave = std::mem::take(&mut self.wave);
            self.steps.extend(wave.finish());
            self.wave.nets.insert(refused.0, refused.1);
        }
    }

    fn finish(mut self) -> Option<TableWork> {
        self.steps.extend(self.wave.finish());
        if !self.in_order.is_empty() {
            self.steps.push(Step::InOrder(self.in_order));
        }
        (!self.steps.is_empty()).then_some(TableWork { target: self.target, steps: self.steps })
    }
}

impl Wave {
    /// Adds a change to what its key has, or gives it back where the sum is not one change: then a new wave begins.
    fn merge(&mut self, key: Vec<u8>, next: Net) -> Option<(Vec<u8>, Net)> {
        let Some(sum) = self.nets.get_mut(&key) else {
            self.nets.insert(key, next);
            return None;
        };
        let whole = next.after.is_none() || is_whole(&next.after);
        // What the row was at the end of the sum must be what the next change starts from.
        let follows = sum.after.is_some() == next.before.is_some();
        if !whole || !follows || !Arc::ptr_eq(&sum.table, &next.table) {
            return Some((key, next));
        }
        sum.after = next.after;
        sum.span = next.span;
        None
    }

    fn finish(self) -> Option<Step> {
        let (mut deletes, mut updates, mut inserts) = (Vec::new(), Vec::new(), Vec::new());
        for (key, Net { table, before, after, span }) in self.nets {
            match (before, after) {
                (Some(before), Some(after)) if moves_unique_value(&table, &before, &after) => {
                    let (key2, table2, span2) = (key.clone(), Arc::clone(&table), Arc::clone(&span));
                    deletes.push(NetDelete { table: table2, key: key2, before, span: span2 });
                    inserts.push(NetInsert { table, key, after, span });
                }
                (Some(before), Some(after)) => {
                    // There and back again is no change.
                    if before.present != after.present || before.bytes != after.bytes || after.resolved_json.is_some() {
                        updates.push(NetUpdate { table, key, before, after, span });
                    }
                }
                (Some(before), None) => deletes.push(NetDelete { table, key, before, span }),
                (None, Some(after)) => inserts.push(NetInsert { table, key, after, span }),
                (None, None) => {}
            }
        }
        // In the order of the key, as the downstream keeps them: neighbours are on one page, and transactions that lock
        // several rows lock them in one order.
        deletes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        updates.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        inserts.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let empty = deletes.is_empty() && updates.is_empty() && inserts.is_empty();
        (!empty).then_some(Step::Keyed { deletes, updates, inserts })
    }
}

fn is_whole(image: &Option<RowImage>) -> bool {
    image.as_ref().is_some_and(|image| image.present.is_none())
}

fn has_columns(image: &RowImage, columns: &[usize]) -> bool {
    image.present.as_ref().is_none_or(|present| columns.iter().all(|&c| present.get(c).copied().unwrap_or(false)))
}

/// Whether a whole update changes a value of a unique key other than the identity. An image that lacks such a column, or
/// cannot be read, counts as changed: the delete and insert are right in any case.
fn moves_unique_value(table: &BoundTable, before: &RowImage, after: &RowImage) -> bool {
    if table.other_unique.is_empty() || after.present.is_some() {
        return false;
    }
    match (key_of(table, before, &table.other_unique), key_of(table, after, &table.other_unique)) {
        (Ok(before), Ok(after)) => before != after,
        _ => true,
    }
}
