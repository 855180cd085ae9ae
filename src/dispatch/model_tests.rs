//! Dispatch against a model: whatever the grouping and the interleaving of lanes, the downstream ends up as if each
//! change had been applied by itself, and no statement on the way meets a conflict or misses its row.
//!
//! The model is a server with three tables that enforces its keys statement by statement. Histories are made valid by
//! construction on it. Replays begin at the least of random, possible marks of the lanes.

mod server;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use self::server::{Keys, Row, Server, name};
use super::testing::{COLUMNS, Cells, cells, change, hashed_table, table};
use super::{Change, GroupBuilder, LaneSkip, SafeMode, Share, Step};
use crate::model::{BinlogPosition, Flavor, GtidSet, Location, RowMark, RowOrdinal};
use crate::row::ChangeKind;
use crate::schema::BoundTable;

/// Ids, and values of `u`: few, so that they meet.
const IDS: i32 = 6;
const VALUES: i32 = 4;

/// What a source writes into its row images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Images {
    Full,
    /// Before: the key. After: what changed; of inserts, what is not the default.
    Minimal,
    /// Sessions of either.
    Mixed,
}

/// One statement of a source, in numbers that the model makes sense of.
#[derive(Debug, Clone, Copy)]
struct Draft {
    kind: u8,
    table: u8,
    id: i32,
    other: i32,
    u: i32,
    v: i32,
    /// Ends its transaction, its group, and in Mixed whether it is partial.
    ends: (bool, bool, bool),
}

fn draft() -> impl Strategy<Value = Draft> {
    let ends = (prop::bool::weighted(0.4), prop::bool::weighted(0.2), any::<bool>());
    (0..10u8, 0..4u8, 0..IDS, 0..IDS, 0..=VALUES, 0..3i32, ends)
        .prop_map(|(kind, table, id, other, u, v, ends)| Draft { kind, table, id, other, u, v, ends })
}

/// A valid history with its transactions' numbers.
struct History {
    /// Transaction, and the change in it.
    changes: Vec<(usize, Change)>,
    /// Whether a group is cut behind the change.
    cuts: Vec<bool>,
}

struct Writer {
    server: Server,
    images: Images,
    tables: Vec<Arc<BoundTable>>,
    history: History,
    transaction: usize,
    ordinal: RowOrdinal,
}

impl Writer {
    /// Two source tables that share a target, and one by itself.
    fn new(keys: Keys, images: Images) -> Self {
        let made = if keys == Keys::Hashed { hashed_table } else { table };
        let tables = [("a", "t"), ("b", "t"), ("c", "o")].map(|(from, to)| made(from, to, keys.list()));
        Writer {
            server: Server::new(keys),
            images,
            tables: tables.into(),
            history: History { changes: Vec::new(), cuts: Vec::new() },
            transaction: 0,
            ordinal: RowOrdinal::default(),
        }
    }

    /// Writes one row change, where the source would have allowed it.
    fn write(&mut self, draft: &Draft, before: Option<Row>, after: Option<Row>) {
        let table = Arc::clone(&self.tables[usize::from(draft.table) % self.tables.len()]);
        let name = name(&table);
        if before == after {
            return;
        }
        let mut rest = self.server.clone();
        if let Some(before) = before {
            let Some(at) = rest.rows(&name).iter().position(|row| *row == before) else { return };
            rest.rows(&name).remove(at);
        }
        if after.is_some_and(|after| !rest.fits(&name, &after)) {
            return;
        }
        let partial = match self.images {
            Images::Full => false,
            Images::Minimal => true,
            Images::Mixed => draft.ends.2,
        };
        let all = |row: Row| row.map(Some);
        let (old, new) = match partial {
            false => (before.map(all), after.map(all)),
            true => (before.map(|row| key_cells(&table, row)), after.map(|row| changed_cells(&table, before, row))),
        };
        let change = change(&table, old, new, self.ordinal);
        self.server.change(&change);
        self.history.changes.push((self.transaction, change));
        self.history.cuts.push(false);
        self.ordinal = self.ordinal.next();
    }

    fn take(&mut self, draft: &Draft) {
        let name = name(&self.tables[usize::from(draft.table) % self.tables.len()]);
        let rows = self.server.rows(&name).clone();
        let by_id = |id: i32| rows.iter().find(|row| row[0] == Some(id)).copied();
        let u = (draft.u > 0).then_some(draft.u);
        let new = [Some(draft.id), u, Some(draft.v)];
        match (draft.kind, by_id(draft.id), by_id(draft.other)) {
            (0..=3, None, _) => self.write(draft, None, Some(new)),
            (0..=1, Some(row), _) => self.write(draft, Some(row), None),
            // There and gone in one transaction.
            (9, None, _) => {
                self.write(draft, None, Some(new));
                self.write(draft, Some(new), None);
            }
            // A value moves from one row to the next, which may be new.
            (2, Some(row), None) => {
                self.write(draft, Some(row), None);
                self.write(draft, None, Some([Some(draft.other), row[1], Some(draft.v)]));
            }
            // Two rows swap a value, by way of NULL.
            (3, Some(one), Some(two)) if one != two => {
                let with = |row: Row, u| [row[0], u, row[2]];
                self.write(draft, Some(one), Some(with(one, None)));
                self.write(draft, Some(two), Some(with(two, one[1])));
                self.write(draft, Some(with(one, None)), Some(with(one, two[1])));
            }
            // Two rows swap their keys, by way of a free one.
            (4, Some(one), Some(two)) if one != two => {
                let with = |row: Row, id| [id, row[1], row[2]];
                self.write(draft, Some(one), Some(with(one, Some(IDS))));
                self.write(draft, Some(two), Some(with(two, one[0])));
                self.write(draft, Some(with(one, Some(IDS))), Some(with(one, two[0])));
            }
            // The key changes, with or without the rest.
            (5, Some(row), _) => self.write(draft, Some(row), Some([Some(draft.other), row[1], row[2]])),
            (6, Some(row), _) => self.write(draft, Some(row), Some([Some(draft.other), u, Some(draft.v)])),
            (7, Some(row), _) => self.write(draft, Some(row), Some([row[0], row[1], Some(draft.v)])),
            (_, Some(row), _) => self.write(draft, Some(row), Some([row[0], u, Some(draft.v)])),
            _ => {}
        }
        let (commit, cut, _) = draft.ends;
        if commit && self.ordinal != RowOrdinal::default() {
            (self.transaction, self.ordinal) = (self.transaction + 1, RowOrdinal::default());
        }
        if let Some(last) = self.history.cuts.last_mut() {
            *last |= cut;
        }
    }
}

/// A table without a key logs the whole row, whatever it was told.
fn key_cells(table: &BoundTable, row: Row) -> Cells {
    let Some(identity) = &table.identity else { return row.map(Some) };
    let mut cells = [None; COLUMNS];
    identity.iter().for_each(|&at| cells[at] = Some(row[at]));
    cells
}

fn changed_cells(table: &BoundTable, before: Option<Row>, after: Row) -> Cells {
    let Some(old) = before else {
        // The default of `v` goes without saying, and NULL does; a key is always named.
        let mut cells = key_cells(table, after);
        (0..COLUMNS).filter(|&at| after[at].is_some_and(|value| value != 0)).for_each(|at| cells[at] = Some(after[at]));
        return cells;
    };
    let mut cells = [None; COLUMNS];
    (0..COLUMNS).filter(|&at| old[at] != after[at]).for_each(|at| cells[at] = Some(after[at]));
    cells
}

fn write(keys: Keys, images: Images, drafts: &[Draft]) -> (History, Server) {
    let mut writer = Writer::new(keys, images);
    drafts.iter().for_each(|draft| writer.take(draft));
    let Writer { server, history, .. } = writer;
    (history, server)
}

/// Groups as the former makes them: cut where told, and around a change that must stand alone. Each with the index behind
/// its last change.
fn groups(
    history: &History,
    from: usize,
    lanes: usize,
    one_sequence: bool,
    skips: impl Fn(usize) -> Vec<LaneSkip>,
    mut cut: impl FnMut(usize) -> bool,
    random: &mut StdRng,
) -> Vec<(usize, Vec<Share>)> {
    let mut groups = Vec::new();
    let mut new = || GroupBuilder::new(lanes, random.random_range(1..=lanes), one_sequence, SafeMode::Off);
    let mut builder = new();
    let changes = &history.changes;
    for (at, (transaction, change)) in changes.iter().enumerate().skip(from) {
        builder.push(change, &skips(*transaction)).expect("push a change");
        let alone = |at: usize| changes.get(at).is_none_or(|(_, change)| change.must_stand_alone());
        if cut(at) || alone(at) || alone(at + 1) {
            let full = std::mem::replace(&mut builder, new());
            groups.push((at + 1, full.finish(no_mark(), no_mark(), 0, 0).shares));
        }
    }
    groups
}

fn no_mark() -> RowMark {
    let start = BinlogPosition::parse("bin.000001", 4).expect("a position");
    RowMark::at(Location::new(start, GtidSet::empty(Flavor::MySql)))
}

type Statement<'w> = Box<dyn Fn(&mut Server) + 'w>;

/// A share's statements in an order it may send them in: rows of one statement, and tables, in any.
fn statements<'w>(work: &'w Share, random: &mut StdRng) -> Vec<Statement<'w>> {
    let mut tables: Vec<_> = work.tables.iter().collect();
    tables.shuffle(random);
    let mut all: Vec<Statement<'w>> = Vec::new();
    for step in tables.into_iter().flat_map(|table| &table.steps) {
        match step {
            Step::Keyed(nets) => {
                let mut deletes: Vec<_> = nets.deletes(0).collect();
                deletes.shuffle(random);
                for row in deletes {
                    all.push(Box::new(move |server| server.delete(row.table, row.before)));
                }
                let mut updates: Vec<_> = nets.updates(0).collect();
                updates.shuffle(random);
                for row in updates {
                    // A whole row is written as an upsert, which finds its row by the new key.
                    let by = if row.after.present.is_none() { row.after } else { row.before };
                    all.push(Box::new(move |server| server.update(row.table, by, row.after)));
                }
                let mut inserts: Vec<_> = nets.inserts(0).collect();
                inserts.shuffle(random);
                for row in inserts {
                    all.push(Box::new(move |server| server.insert(row.table, row.after)));
                }
            }
            Step::InOrder(changes) => {
                for change in changes {
                    all.push(Box::new(move |server| server.change(change)));
                }
            }
        }
    }
    all
}

/// Applies shares, statement by statement in a random interleaving.
fn apply<'w>(server: &mut Server, shares: impl Iterator<Item = &'w Share>, random: &mut StdRng) {
    let mut queues: Vec<_> = shares.map(|share| statements(share, random).into_iter()).collect();
    while !queues.is_empty() {
        let at = random.random_range(0..queues.len());
        match queues[at].next() {
            Some(statement) => statement(server),
            None => drop(queues.swap_remove(at)),
        }
    }
}

/// A crash: some groups are done, of one more some shares; each lane's mark is what its row may say then. Replays from the
/// least one with other groups.
fn crash_and_replay(keys: Keys, history: &History, lanes: usize, one_sequence: bool, random: &mut StdRng) -> Server {
    let first = groups(history, 0, lanes, one_sequence, |_| Vec::new(), |at| history.cuts[at], random);
    let mut server = Server::new(keys);
    let mut marks = vec![0; lanes];
    let done = random.random_range(0..=first.len());
    for (number, (end, shares)) in first.iter().enumerate().take(done + 1) {
        let committed: Vec<&Share> = shares.iter().filter(|_| number < done || random.random_bool(0.5)).collect();
        apply(&mut server, committed.iter().copied(), random);
        for (lane, mark) in marks.iter_mut().enumerate() {
            // A lane without work does not move its row along at once.
            let taken = |share: &&Share| share.lanes.contains(&(lane as u32));
            let idle = !shares.iter().any(|share| taken(&share));
            if committed.iter().any(taken) || idle && number < done && random.random_bool(0.3) {
                *mark = *end;
            }
        }
    }
    let place = |mark: usize| match mark.checked_sub(1).map(|last| &history.changes[last]) {
        None => (0, RowOrdinal::default()),
        // A group that ends with a transaction ends at its commit.
        Some((transaction, _)) if history.changes.get(mark).is_none_or(|(next, _)| next != transaction) => {
            (transaction + 1, RowOrdinal::default())
        }
        Some((transaction, change)) => (*transaction, change.ordinal().next()),
    };
    let marks: Vec<(usize, RowOrdinal)> = marks.into_iter().map(place).collect();
    let (least, _) = *marks.iter().min().expect("there is a lane");
    let from = history.changes.iter().position(|(transaction, _)| *transaction >= least);
    let skips = |transaction: usize| {
        let skip = |(at, next): &(usize, RowOrdinal)| match transaction.cmp(at) {
            std::cmp::Ordering::Less => LaneSkip::All,
            std::cmp::Ordering::Equal if *next != RowOrdinal::default() => LaneSkip::Below(*next),
            _ => LaneSkip::Nothing,
        };
        marks.iter().map(skip).collect()
    };
    let mut cuts = StdRng::seed_from_u64(random.random());
    let from = from.unwrap_or(history.changes.len());
    for (_, shares) in groups(history, from, lanes, one_sequence, skips, |_| cuts.random_bool(0.2), random) {
        apply(&mut server, shares.iter(), random);
    }
    server
}

fn keys() -> impl Strategy<Value = Keys> {
    use Keys::{Composite, Hashed, Primary, PrimaryAndUnique};
    prop_oneof![Just(Primary), Just(Hashed), Just(PrimaryAndUnique), Just(Composite), Just(Keys::None)]
}

fn images() -> impl Strategy<Value = Images> {
    prop_oneof![Just(Images::Full), Just(Images::Minimal), Just(Images::Mixed)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_what_row_by_row_gives(
        (keys, images, one_sequence, lanes) in (keys(), images(), prop::bool::weighted(0.15), 1..=5usize),
        drafts in prop::collection::vec(draft(), 0..60),
        seed in any::<u64>(),
    ) {
        let (history, wanted) = write(keys, images, &drafts);
        let mut random = StdRng::seed_from_u64(seed);
        let mut server = Server::new(keys);
        let cut = |at: usize| history.cuts[at];
        for (_, shares) in groups(&history, 0, lanes, one_sequence, |_| Vec::new(), cut, &mut random) {
            let mut seen = std::collections::BTreeSet::new();
            prop_assert!(shares.iter().flat_map(|share| &share.lanes).all(|&lane| lane < lanes as u32 && seen.insert(lane)));
            apply(&mut server, shares.iter(), &mut random);
        }
        prop_assert_eq!(server.sorted(), wanted.sorted());
    }

    #[test]
    fn a_replay_does_what_was_not_done(
        (keys, images, one_sequence, lanes) in (keys(), images(), prop::bool::weighted(0.15), 1..=5usize),
        drafts in prop::collection::vec(draft(), 0..60),
        seed in any::<u64>(),
    ) {
        let (history, wanted) = write(keys, images, &drafts);
        let server = crash_and_replay(keys, &history, lanes, one_sequence, &mut StdRng::seed_from_u64(seed));
        prop_assert_eq!(server.sorted(), wanted.sorted());
    }
}

#[test]
fn a_lane_whose_changes_undo_each_other_passes_them() {
    let table = table("a", "t", Keys::Primary.list());
    let row = [Some(Some(1)), Some(None), Some(Some(0))];
    let mut builder = GroupBuilder::new(4, 2, false, SafeMode::Off);
    for (number, (before, after)) in [(None, Some(row)), (Some(row), None)].into_iter().enumerate() {
        let ordinal = RowOrdinal(number as u64);
        builder.push(&change(&table, before, after, ordinal), &[]).expect("push a change");
    }
    let shares = builder.finish(no_mark(), no_mark(), 0, 0).shares;
    assert!(shares.iter().all(|share| share.tables.is_empty()));
    assert_eq!(shares.iter().map(|share| share.lanes.len()).sum::<usize>(), 1);
}

#[test]
fn histories_meet_what_they_are_for() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = [0; 5];
    for _ in 0..50 {
        let drafts = prop::collection::vec(draft(), 60).new_tree(&mut runner).expect("drafts").current();
        let (history, _) = write(Keys::PrimaryAndUnique, Images::Mixed, &drafts);
        for (_, change) in &history.changes {
            let [old, new] =
                [change.before(), change.after()].map(|image| image.map(|image| cells(change.table(), image)));
            seen[0] += usize::from(change.kind() == ChangeKind::Delete);
            seen[1] += usize::from(change.must_stand_alone());
            let Some((old, new)) = old.zip(new) else { continue };
            let moves = |at: usize| new[at].is_some() && old[at] != new[at];
            seen[2] += usize::from(moves(0) && new.iter().all(Option::is_some));
            seen[3] += usize::from(moves(1) && !moves(0) && old[1].is_some());
            seen[4] += usize::from(new.iter().any(Option::is_none));
        }
    }
    assert!(seen.iter().all(|&count| count >= 30), "{seen:?}");
}
