//! Building a group: shares, lanes, waves, and one net change a key.
//!
//! A lane is a position and the changes behind it, for ever the same ones; a share is what one connection does of one
//! group: the work of some lanes, together. So a small group costs one downstream transaction however many lanes there
//! are, and a replay after a crash may share out otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::change::{Change, ChangeEvent, LaneSkip, SafeMode};
use super::error::DispatchError;
use super::key::{RowKey, lane_of};
use super::net::{Net, NetLists, Nets, RowAt, Wave};
use crate::model::{RowMark, RowOrdinal, TargetTable};
use crate::row::ChangeKind;
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
    /// At most one change a key.
    Keyed(Nets),
    /// Row by row in source order.
    InOrder(Vec<Change>),
}

#[derive(Debug)]
struct TableBuilder {
    target: TargetTable,
    waves: Vec<NetLists>,
    wave: Wave,
    in_order: Vec<Change>,
}

#[derive(Debug, Default)]
struct ShareBuilder {
    tables: Vec<TableBuilder>,
    /// Which lanes it has, as far as the last of them.
    lanes: Vec<bool>,
    loose: BTreeMap<TargetTable, String>,
    /// From a binding's address to its table's place.
    by_binding: HashMap<usize, usize>,
    /// The last of these that was asked for: most changes are of the same table as the one before.
    last_binding: Option<(usize, usize)>,
}

/// Collects changes for one group.
#[derive(Debug)]
pub struct GroupBuilder {
    lanes: usize,
    shares: Vec<ShareBuilder>,
    /// Those of all changes so far.
    events: Vec<Arc<ChangeEvent>>,
    one_sequence: bool,
    safe: SafeMode,
    rows: u64,
    bytes: usize,
    /// The keys of a change before and after, kept for their memory.
    keys: (RowKey, RowKey),
}

impl GroupBuilder {
    /// For this many lanes, in at most this many shares. `one_sequence` keeps all changes of all tables in source order on one lane, as checked
    /// foreign keys demand. `safe` is for groups applied in safe mode.
    pub fn new(lanes: usize, shares: usize, one_sequence: bool, safe: SafeMode) -> Self {
        let lanes = lanes.max(1);
        GroupBuilder {
            lanes,
            shares: (0..shares.clamp(1, lanes)).map(|_| ShareBuilder::default()).collect(),
            events: Vec::new(),
            one_sequence,
            safe,
            rows: 0,
            bytes: 0,
            keys: Default::default(),
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
    pub fn push(&mut self, change: &Change, skip: &[LaneSkip]) -> Result<(), DispatchError> {
        self.rows += 1;
        self.bytes += change.bytes();
        let table = change.table();
        let as_it_is = table.selective && !self.safe.covers(table);
        if self.one_sequence || table.is_ordered() || as_it_is || change.lacks_key() {
            return self.push_in_order(change, skip);
        }
        let mut keys = std::mem::take(&mut self.keys);
        let pushed = self.push_keyed(change, skip, &mut keys);
        self.keys = keys;
        pushed
    }

    fn push_keyed(
        &mut self,
        change: &Change,
        skip: &[LaneSkip],
        (from, to): &mut (RowKey, RowKey),
    ) -> Result<(), DispatchError> {
        let table = change.table();
        let Some(identity) = &table.identity else { return self.push_in_order(change, skip) };
        let (stays, whole) = match change.numbers() {
            Some((numbers, key)) => {
                let stays = match change.kind() {
                    ChangeKind::Insert => false,
                    ChangeKind::Update => key.before == key.after,
                    ChangeKind::Delete => true,
                };
                if change.kind() != ChangeKind::Insert {
                    numbers.put(key.before, table, from);
                }
                if !stays {
                    numbers.put(key.after, table, to);
                }
                (stays, true)
            }
            None => read_keys(change, identity, from, to)?,
        };
        let at = self.number(change);
        let mut push = |key: &RowKey, net| self.push_net(table, key, net, change.ordinal(), skip);
        match change.kind() {
            ChangeKind::Insert => push(to, Net::of(change, at)),
            ChangeKind::Update if !stays && whole => {
                push(from, Net::leaving(at));
                push(to, Net::arriving(at));
            }
            ChangeKind::Update | ChangeKind::Delete => push(from, Net::of(change, at)),
        }
        Ok(())
    }

    /// By which it is known in this group.
    fn number(&mut self, change: &Change) -> RowAt {
        if !self.events.last().is_some_and(|last| Arc::ptr_eq(last, change.event())) {
            self.events.push(Arc::clone(change.event()));
        }
        RowAt { event: (self.events.len() - 1) as u32, row: change.number() }
    }

    fn push_in_order(&mut self, change: &Change, skip: &[LaneSkip]) -> Result<(), DispatchError> {
        let lane = match (self.one_sequence, change.before().or(change.after())) {
            (false, Some(image)) => lane_of(change.table(), image, self.lanes)?,
            _ => 0,
        };
        if !skip.get(lane).is_some_and(|skip| skip.covers(change.ordinal())) {
            share(&mut self.shares, lane).table(change.table(), self.one_sequence).in_order.push(change.clone());
        }
        Ok(())
    }

    fn push_net(&mut self, table: &Arc<BoundTable>, key: &RowKey, net: Net, ordinal: RowOrdinal, skip: &[LaneSkip]) {
        let lane = key.lane(self.lanes);
        if !skip.get(lane).is_some_and(|skip| skip.covers(ordinal)) {
            let safe = self.safe.covers(table);
            share(&mut self.shares, lane).table(table, false).push(key.bytes(), net, safe, &self.events);
        }
    }

    /// Ends the group.
    pub fn finish(self, start: RowMark, end: RowMark, transactions: u64, timestamp: u32) -> Group {
        let events = self.events.into();
        let shares = self.shares.into_iter().filter(|share| !share.lanes.is_empty());
        let shares = shares.map(|share| share.finish(&events)).collect();
        Group { shares, start, end, rows: self.rows, bytes: self.bytes, transactions, timestamp }
    }
}

/// Reads a change's keys. Whether its row keeps its key, and whether the image after it is whole.
fn read_keys(
    change: &Change,
    identity: &[usize],
    from: &mut RowKey,
    to: &mut RowKey,
) -> Result<(bool, bool), DispatchError> {
    let (table, after) = (change.table(), change.after());
    if let Some(image) = change.before() {
        from.read(table, image, identity)?;
    }
    let whole = after.is_some_and(|image| image.present.is_none());
    let stays = match after {
        // A partial image that leaves the key out leaves it unchanged.
        Some(image) if change.kind() == ChangeKind::Update && !identity.iter().all(|&column| image.has(column)) => true,
        Some(image) => {
            to.read(table, image, identity)?;
            from.bytes() == to.bytes()
        }
        None => true,
    };
    Ok((stays, whole))
}

/// The share that does this lane's work, which it has from now on.
fn share(shares: &mut [ShareBuilder], lane: usize) -> &mut ShareBuilder {
    let at = lane % shares.len();
    let share = &mut shares[at];
    if share.lanes.len() <= lane {
        share.lanes.resize(lane + 1, false);
    }
    share.lanes[lane] = true;
    share
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
        let binding = Arc::as_ptr(table) as usize;
        if let Some((last, at)) = self.last_binding
            && last == binding
        {
            return &mut self.tables[at];
        }
        let tables = &mut self.tables;
        let at = *self.by_binding.entry(binding).or_insert_with(|| {
            // Two source tables may go to one target: their changes must meet in one place.
            tables.iter().position(|known| known.target == table.target).unwrap_or_else(|| {
                tables.push(TableBuilder::new(table.target.clone()));
                tables.len() - 1
            })
        });
        self.last_binding = Some((binding, at));
        &mut self.tables[at]
    }

    fn finish(self, events: &Arc<[Arc<ChangeEvent>]>) -> Share {
        let tables = self.tables.into_iter().filter_map(|table| table.finish(events));
        let mut tables: Vec<TableWork> = tables.collect();
        // Every share goes through the tables in one order, too.
        tables.sort_by(|a, b| a.target.cmp(&b.target));
        let lanes = self.lanes.iter().zip(0..).filter_map(|(&has, lane)| has.then_some(lane)).collect();
        Share { tables, lanes, loose: self.loose.into_iter().collect() }
    }
}

impl TableBuilder {
    fn new(target: TargetTable) -> Self {
        TableBuilder { target, waves: Vec::new(), wave: Wave::default(), in_order: Vec::new() }
    }

    fn push(&mut self, key: &[u8], net: Net, safe: bool, events: &[Arc<ChangeEvent>]) {
        // In safe mode each change of a key is sent: deletes and replaces, which may meet their own effect.
        if let Some(refused) = self.wave.merge(key, net, !safe, events) {
            self.end_wave(events);
            // Nothing in a new wave can refuse it.
            let _ = self.wave.merge(key, refused, true, events);
        }
    }

    fn end_wave(&mut self, events: &[Arc<ChangeEvent>]) {
        self.waves.extend(std::mem::take(&mut self.wave).finish(events));
    }

    fn finish(mut self, events: &Arc<[Arc<ChangeEvent>]>) -> Option<TableWork> {
        self.end_wave(events);
        let mut steps: Vec<Step> = self.waves.into_iter().map(|wave| Step::Keyed(wave.of(events))).collect();
        if !self.in_order.is_empty() {
            steps.push(Step::InOrder(self.in_order));
        }
        (!steps.is_empty()).then_some(TableWork { target: self.target, steps })
    }
}
